#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The emulator finds the mistakes that it is there for, and lets correct kernels pass.
set -u
program=$AP_BUILDDIR/tests/cuda/emu_test
failed=0
# expect CODE TEXT NAME: emu_test NAME ends with CODE and says TEXT (empty: says nothing).
expect()
{
    local out code
    out=$(ANTIPODE_EMU_ORDER=both "$program" "$3" 2>&1)
    code=$?
    if [ $code != "$1" ] || { [ -n "$2" ] && [[ $out != *"$2"* ]]; } || { [ -z "$2" ] && [ -n "$out" ]; }; then
        echo "not ok $3: code $code instead of $1, said: $out"
        failed=1
    else
        echo "ok $3"
    fi
}
expect 0 '' shift
expect 0 '' copy
expect 0 '' limits
expect 0 '' multi
expect 70 'depends on the order of threads and blocks' race
expect 70 'depends on the order of threads and blocks' blocks
expect 70 'is not the set of live lanes' divergence
expect 70 'other lanes of the warp do not reach' divergence-at-barrier
expect 70 '' copy-not-waited
expect 2 '' unknown
expect 70 'shared memory was written beyond its end' overflow
expect 70 'wrote outside of an allocation' outside
exit $failed
