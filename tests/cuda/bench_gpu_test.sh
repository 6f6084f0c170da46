#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The one command for a GPU machine works from start to end: here with the emulated plug-in, tiny shapes, and the
# readers that stand in for packages a bare machine lacks.
set -u
run=$AP_SRCDIR/bench/gpu/run
failed=0
nccl=$AP_BUILDDIR/tests/support/fake_nccl.so
[ -e "$nccl" ] || nccl=/nowhere
ANTIPODE_NCCL=$nccl CFLAGS=-O1 AP_BENCH_COMPAT=1 "$run" --small --work "$TMPDIR/gpu" --plugin "$AP_BUILDDIR/tests/cuda/antipode-cuda-emu.so" --skip parity \
    --out "$TMPDIR/result.json" > "$TMPDIR/log" 2>&1 || { echo "not ok: code $?"; cat "$TMPDIR/log"; exit 1; }
[ "$(jq '.passed' "$TMPDIR/result.json")" = true ] || { echo 'not ok: passed is not true'; failed=1; }
for filter in '[.results[] | select(.section == "op" and .dtype == "bf16")] | length >= 20' \
    '[.results[] | select(.section == "step" and .dtype == "f32" and .tokens_per_s > 0)] | length == 1' \
    '[.results[] | select(.section == "yardstick" and .name == "device copy" and .gbytes_per_s > 0)] | length >= 1' \
    '[.results[] | select(.section == "part" and .name == "golden numbers" and .outcome == "passed")] | length == 1' \
    '[.results[] | select(.outcome == "skipped on request")] | length == 1' '.small_shapes == true'; do
    [ "$(jq "$filter" "$TMPDIR/result.json")" = true ] || { echo "not ok: $filter"; failed=1; }
done
# NCCL with the stand-in of the tests (where configure has it), and without a library.
if [ "$nccl" = /nowhere ]; then
    filter='[.results[] | select(.section == "part" and .name == "nccl on one rank" and (.outcome | contains("NCCL does not load")))] | length == 1'
else
    filter='[.results[] | select(.section == "nccl" and .outcome == "passed" and .library == "NCCL 2.28.9")] | length == 1'
fi
[ "$(jq "$filter" "$TMPDIR/result.json")" = true ] || { echo "not ok: $filter"; failed=1; }
# A device whose work fails must show as a failure in code and result.
ANTIPODE_EMU_FAULT=40 AP_BENCH_COMPAT=1 CFLAGS=-O1 "$run" --small --work "$TMPDIR/gpu" --plugin "$AP_BUILDDIR/tests/cuda/antipode-cuda-emu.so" \
    --skip parity --skip golden --skip nccl --out "$TMPDIR/bad.json" > "$TMPDIR/log" 2>&1
code=$?
if [ $code != 1 ] || [ "$(jq '.passed' "$TMPDIR/bad.json")" != false ]; then
    echo 'not ok: a failing device went unnoticed'
    failed=1
fi
"$run" --nonsense > /dev/null 2>&1
[ $? = 2 ] || { echo 'not ok: an unknown option must be a usage error'; failed=1; }
if ! command -v nvidia-smi > /dev/null; then
    out=$(PATH=$PATH:/usr/local/cuda/bin "$run" --work "$TMPDIR/none" 2>&1)
    code=$?
    [[ $code = 4 && ($out == *'no GPU here'* || $out == *'nvcc was not found'* || $out == *'libcublasLt.so was not found'*) ]] ||
        { echo "not ok: without a GPU: code $code, $out"; failed=1; }
fi
[ $failed = 0 ] && echo ok
exit $failed
