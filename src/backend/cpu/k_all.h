/* SPDX-License-Identifier: Apache-2.0
 * Template: the kernel table of one instruction set. The including file sets VL (floats per vector),
 * K(name) and AP_KERNELS_ISA, and the compiler's target. */
#include "backend/cpu/k_vec.h"

#include "backend/cpu/k_norm.h"
#include "backend/cpu/k_moe.h"
#include "backend/cpu/k_loss.h"

#define RANGE_ENTRY(op) .op = K(op),
const struct ap_kernels K(ap_kernels) = {
    .isa = AP_KERNELS_ISA,
    AP_RANGE_KERNELS(RANGE_ENTRY).tree_sum = K(tree_sum),
    .tree_sumsq = K(tree_sumsq),
    .softmax_fwd = K(softmax_fwd),
    .softmax_bwd = K(softmax_bwd),
    .divide_rows = K(divide_rows),
    .dot_rows = K(dot_rows),
};
