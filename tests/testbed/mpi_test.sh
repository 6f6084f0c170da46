#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One mpirun over three sites of the test bed: every rank in its own site, messages between them over the emulated links.
set -u
[ -z "${AP_TEST_SANITIZED:-}" ] || { echo "SKIP: a sanitized build is tested without MPI over several sites"; exit 77; }
# shellcheck source=tests/support/expect.sh
. "$AP_SRCDIR/tests/support/expect.sh"
bed=$AP_SRCDIR/tests/testbed
export AP_TESTBED_DIR=$TMPDIR/bed
# shellcheck source=tests/testbed/lib.sh
. "$bed/lib.sh"
printf 'src,dst,delay_ms,rate_mbit\nx:a,x:b,2,200\nx:a,x:c,4,200\nx:b,x:c,3,200\n' > "$TMPDIR/m.csv"
testbed_start --seconds 200 "$TMPDIR/m.csv"
trap '"$bed/down"' EXIT
expect 2 "start the test bed with --hostnames" "$bed/mpirun" x:a:1,x:b:1 hostname
expect 0 "" "$bed/down"
expect 0 "" "$bed/up" --seconds 200 --hostnames "$TMPDIR/m.csv"
expect 3 'no site "x:d"' "$bed/mpirun" x:a:1,x:d:1 hostname
expect 2 '"x:a:n" is not SITE:RANKS' "$bed/mpirun" x:a:n hostname

hosts=$(timeout 120 "$bed/mpirun" x:a:1,x:b:2,x:c:1 hostname 2> "$TMPDIR/mpi.err" | sort | tr '\n' ' ')
check "ranks in their sites" test "$hosts" = "x-a x-b x-b x-c " || cat "$TMPDIR/mpi.err"
"$bed/ctl" reset
expect 0 "mpi, 6 ranks: 0 failures" env AP_TEST_NODES=3 timeout 200 "$bed/mpirun" x:a:2,x:b:2,x:c:2 -x AP_TEST_NODES "$AP_BUILDDIR/tests/mpi/mpi_comm"
# More than the launch alone: ranks of b and c speak to each other, which their launch, from a, does not.
bytes=$("$bed/ctl" stats | sed -n 's/^link x:b x:c .* bytes=\([0-9]*\) .*/\1/p')
check "$bytes bytes from b to c" test "$bytes" -gt 1000
finish
