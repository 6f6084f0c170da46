#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# antipode selftest over the golden numbers: every case on every backend of the CPU, the shipped cases, and what it
# says when numbers or files are wrong.
set -u
failed=0
not_ok()
{
    echo "not ok: $*"
    failed=1
}

# expect CODE WORD CMD...: exit code and a word of the output.
expect()
{
    local code=$1 word=$2 out
    shift 2
    out=$("$@" 2>&1)
    local got=$?
    [ $got = "$code" ] || not_ok "$*: exit code $got, expected $code: $(tail -n 3 <<< "$out")"
    grep -q -- "$word" <<< "$out" || not_ok "$*: no '$word' in: $(tail -n 3 <<< "$out")"
}

golden=$AP_SRCDIR/tests/golden
backends="reference cpu onednn"
[ -z "${AP_TEST_SANITIZED:-}" ] || backends=cpu # an eighth of the speed
for backend in $backends; do
    expect 0 '4 of 4 cases' antipode selftest --golden "$golden" --backend "$backend"
    expect 0 '2 of 2 cases' antipode selftest --backend "$backend"
    expect 0 '4 of 4 cases' antipode selftest --golden "$golden" --backend "$backend" --dtype bf16
    expect 0 '2 of 2 cases' antipode selftest --backend "$backend" --dtype bf16
done
[ -n "${AP_TEST_SANITIZED:-}" ] || AP_MAX_ISA=generic expect 0 '4 of 4 cases' antipode selftest --golden "$golden" --backend cpu
AP_MAX_ISA=generic expect 0 '4 of 4 cases' antipode selftest --golden "$golden" --backend cpu --dtype bf16
expect 0 '4 of 4 cases' antipode selftest --golden "$golden" --backend cpu --threads 3
expect 0 '4 of 4 cases' antipode selftest --golden "$golden" --backend reference --dtype f64
expect 0 '"passed": true' antipode selftest --golden "$golden/v3_tiny" --json

# One byte of one weight: the numbers must disagree, and the message must say where.
cp -r "$golden/v2_tiny" "$TMPDIR/wrong" && chmod -R u+w "$TMPDIR/wrong"
size=$(stat -c %s "$TMPDIR/wrong/model.safetensors")
printf '\100' | dd of="$TMPDIR/wrong/model.safetensors" bs=1 seek=$((size - 1)) conv=notrunc 2> /dev/null
expect 7 'out of tolerance' antipode selftest --golden "$TMPDIR/wrong"
expect 7 FAIL antipode selftest --golden "$TMPDIR/wrong"
expect 7 FAIL antipode selftest --golden "$TMPDIR/wrong" --dtype bf16

# Files that are missing, cut, of another shape, or not there at all.
cp -r "$golden/v3_tiny" "$TMPDIR/bad" && chmod -R u+w "$TMPDIR/bad"
truncate -s 700 "$TMPDIR/bad/grads.safetensors"
expect 3 grads.safetensors antipode selftest --golden "$TMPDIR/bad"
rm "$TMPDIR/bad/grads.safetensors"
expect 3 grads.safetensors antipode selftest --golden "$TMPDIR/bad"
cp "$golden/v3_yarn_tiny/tokens.npy" "$TMPDIR/bad/tokens.npy"
expect 3 'does not fit\|do not fit' antipode selftest --golden "$TMPDIR/bad"
expect 3 'no such folder' antipode selftest --golden "$TMPDIR/nowhere"
mkdir "$TMPDIR/empty"
expect 3 'no golden numbers' antipode selftest --golden "$TMPDIR/empty"
expect 2 'backend' antipode selftest --backend abacus
expect 2 'f32, f64, bf16' antipode selftest --dtype fp8
[ $failed = 0 ] && echo 'golden numbers: all as expected'
exit $failed
