#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Configure and build the tree out of place; does only what is needed. Runs inside the environment.
# usage: [TARGET=fuzzers] build.sh TREE BUILD [CONFIGURE-OPTION...]     TARGET: what make makes, all unless set
set -eu
tree=$1
build=$2
shift 2
log=$build.log
mkdir -p "$build"
exec 9> "$build.lock"
flock 9

fail()
{
    grep -nE 'error|\*\*\*' "$log" | tail -n 12 >&2 || true
    tail -n 5 "$log" >&2
    printf 'build: %s failed; the whole log is in %s\n' "$1" "$log" >&2
    exit 4
}

cd "$tree"
if [ ! -e configure ]; then
    autoreconf -i > "$log" 2>&1 || fail autoreconf
fi
cd "$build"
# What the last configure saw: its options, the compiler, and the optional packages that were there.
want="$* CC=${CC:-} $(gcc -dumpfullversion) criterion $(pkg-config --modversion criterion 2> /dev/null || echo absent) c++ $(command -v g++ || echo absent) nvcc $(PATH=$PATH:/usr/local/cuda/bin command -v nvcc || echo absent)"
if [ ! -e Makefile ] || [ "$(cat configured 2> /dev/null)" != "$want" ]; then
    rm -f Makefile
    "$tree/configure" -q --enable-maintainer-mode "$@" > "$log" 2>&1 || fail configure
    printf '%s\n' "$want" > configured
fi
# Under a make that hands out jobs, as many as it gives.
jobs=-j$(nproc)
[[ ${MAKEFLAGS:-} != *jobserver* ]] || jobs=
make -s ${jobs:+"$jobs"} ${TARGET:+"$TARGET"} > "$log" 2>&1 < /dev/null || fail make
