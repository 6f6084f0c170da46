#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every operation of the CUDA backend against the oracle on the emulator, each launch in two orders of threads
# and blocks that must give the same bits.
set -u
export ANTIPODE_PLUGINDIR=$AP_BUILDDIR/tests/cuda ANTIPODE_EMU_ORDER=both
ops=$AP_BUILDDIR/tests/ops/ops
[ -n "${AP_TEST_SANITIZED:-}" ] || exec "$ops" --backend cuda-emu
# Switching stacks is slow under AddressSanitizer: one order, and the operations with the most exchanges between
# lanes (attention, routing) are left to the golden test, which calls them too.
export ANTIPODE_EMU_ORDER=forward
failed=0
for op in gemm grouped_gemm grouped_wgrad embed_fwd embed_bwd rmsnorm_fwd rmsnorm_bwd rope swiglu_fwd swiglu_bwd seq_balance \
    moe_plan moe_dispatch_fwd moe_dispatch_bwd moe_combine_fwd moe_combine_bwd split_cols cross_entropy sum_tokens add scale sumsq adamw; do
    "$ops" --backend cuda-emu --op $op || failed=1
done
exit $failed
