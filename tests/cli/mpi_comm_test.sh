#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tests/mpi/mpi_comm on 1 to 5 ranks, and alone without mpirun.
set -u
# shellcheck source=tests/support/train_lib.sh
. "$AP_SRCDIR/tests/support/train_lib.sh"
program=$AP_BUILDDIR/tests/mpi/mpi_comm
rank_counts="1 2 3 4 5"
if [ -n "${AP_TEST_SANITIZED:-}" ]; then
    rank_counts=3
    echo "fewer: numbers of ranks: 3 alone, not 1 to 5"
fi
for n in $rank_counts; do
    ranks "$n" "$program" > "$TMPDIR/out.txt" 2>&1 || fail "$n ranks: $(cat "$TMPDIR/out.txt")"
    grep -q "^mpi, $n ranks: 0 failures" "$TMPDIR/out.txt" || fail "$n ranks: $(cat "$TMPDIR/out.txt")"
done
"$program" > "$TMPDIR/out.txt" 2>&1 || fail "alone: $(cat "$TMPDIR/out.txt")"
grep -q "^virtual, 1 ranks: 0 failures" "$TMPDIR/out.txt" || fail "alone: $(cat "$TMPDIR/out.txt")"
SLURM_STEP_NUM_TASKS=4 "$program" > "$TMPDIR/out.txt" 2>&1 && fail "srun without PMIx must be refused"
grep -q "without PMIx" "$TMPDIR/out.txt" || fail "srun without PMIx: $(cat "$TMPDIR/out.txt")"
pass_or_fail
