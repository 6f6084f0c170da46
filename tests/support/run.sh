#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs one test of `make check`: a private temporary folder that is removed afterwards (Criterion leaves sockets
# behind), the built programs on PATH, Open MPI allowed to run as root and with more ranks than cores, a time limit.
# usage: run.sh SRCDIR BUILDDIR TEST [ARG...]     Exit codes are automake's: 0 pass, 77 skip, 99 error, else fail.
set -u
AP_SRCDIR=$(cd "$1" && pwd) || exit 99
AP_BUILDDIR=$(cd "$2" && pwd) || exit 99
shift 2
export AP_SRCDIR AP_BUILDDIR
# What a test makes is no part of the make that runs it.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
export PATH=$AP_BUILDDIR:$PATH LC_ALL=C.UTF-8 ANTIPODE_DATADIR=$AP_SRCDIR/inputs
# Short, because a socket's path may have no more than 107 bytes.
TMPDIR=$(mktemp -d /tmp/ap-test.XXXXXX) || exit 99
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 99' HUP INT TERM

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none
# All ranks of a test are on this host, also those on the two nodes of the private Slurm.
export OMPI_MCA_btl_tcp_if_include=lo
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_btl_sm_single_copy_mechanism=none
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$AP_SRCDIR/tests/support/lsan.supp:print_suppressions=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}

# A second build of the same tree (distcheck, another set of libraries) is checked without the tests that train.
case ${AP_TEST_QUICK:-}:$1 in
[!:]*:*tests/cli/quickstart_test.sh) ;;
[!:]*:*tests/cli/* | [!:]*:*tests/cuda/*.sh | [!:]*:*contrib/lint/* | [!:]*:*tests/testbed/*.sh | [!:]*:*tests/unit/test_layout | [!:]*:*tests/unit/test_synth | [!:]*:*tests/unit/test_ckpt_crash | [!:]*:*tests/unit/test_trainer | [!:]*:*tests/unit/test_stage) echo "SKIP: AP_TEST_QUICK"; exit 77 ;;
esac

# AP_TEST looks for leaks at the end of each unit test, in that test's process; the framework's own are not ours.
case $1 in
*tests/unit/*) LSAN_OPTIONS=$LSAN_OPTIONS:leak_check_at_exit=0 ;;
esac

case $1 in
*.sh) set -- bash "$@" ;;
esac
timeout --kill-after=10 "${AP_TEST_TIMEOUT:-600}" "$@" < /dev/null
code=$?
times > "$TMPDIR/times" # the second line: processor time of the children that have ended, "1m2.3s 0m0.4s"
echo "run.sh: exit code $code after $SECONDS s, $(tr 'ms' '  ' < "$TMPDIR/times" | awk 'NR == 2 { printf "%.0f", 60 * ($1 + $3) + $2 + $4 }') s of processor"
[ $code != 124 ] || echo "run.sh: stopped after ${AP_TEST_TIMEOUT:-600} s"
exit $code
