#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Checkpoints open in h5py: states of 1 and 3 ranks, every dtype, chunks of several shapes, slabs of columns; and the
# reader notices a flipped byte, so that the comparison can fail.
set -eu
make_state=$AP_BUILDDIR/tests/support/ckpt_make
reader=$AP_SRCDIR/tests/cli/ckpt_h5py.py
command -v python3 > /dev/null || { echo "skipped: no python3"; exit 77; }
for ranks in 1 3; do
    "$make_state" "$TMPDIR/ckpt-$ranks" $ranks 100 7
    python3 "$reader" "$TMPDIR/ckpt-$ranks/step-000000000100" "$TMPDIR/ckpt-$ranks/expected-7" || exit $?
done
for ranks in 1 2; do
    "$make_state" "$TMPDIR/columns-$ranks" $ranks 100 7 columns
    python3 "$reader" "$TMPDIR/columns-$ranks/step-000000000100" "$TMPDIR/columns-$ranks/expected-7" > "$TMPDIR/out" ||
        { cat "$TMPDIR/out"; exit 1; }
    cat "$TMPDIR/out"
    grep -q ' [1-9][0-9]* slabs;' "$TMPDIR/out"
done
expected=$TMPDIR/ckpt-3/expected-7/param%model.norm.weight
printf 'x' | dd of="$expected" bs=1 seek=77 conv=notrunc status=none
if python3 "$reader" "$TMPDIR/ckpt-3/step-000000000100" "$TMPDIR/ckpt-3/expected-7" > "$TMPDIR/out" 2>&1; then
    echo "FAIL: a changed byte was not noticed"
    exit 1
fi
grep -q 'param/model.norm.weight: elements .* differ' "$TMPDIR/out" || { cat "$TMPDIR/out"; exit 1; }
