/* SPDX-License-Identifier: Apache-2.0
 * Template: the kernel table of one instruction set. The including file sets VL (floats per vector), KI(name), the
 * name of a function of this set, AP_KERNELS_ISA, and the compiler's target. The templates of ELEM are there twice:
 * for f32, and for bf16 elements that are widened on load and rounded to nearest even on store. */
#include "backend/cpu/k_vec.h"

#define RANGE_ENTRY(op) .op = K(op),

#define ELEM     uint16_t
#define ELEM_F32 0
#define K(name)  KI(name##_bf16)
#include "backend/cpu/k_norm.h"
#include "backend/cpu/k_moe.h"
#include "backend/cpu/k_loss.h"
static const struct ap_typed_kernels K(typed_kernels) = {AP_TYPED_KERNELS(RANGE_ENTRY).dot_rows = K(dot_rows)};
#undef ELEM
#undef ELEM_F32
#undef K

#define ELEM     float
#define ELEM_F32 1
#define K(name)  KI(name)
#include "backend/cpu/k_norm.h"
#include "backend/cpu/k_moe.h"
#include "backend/cpu/k_loss.h"
#include "backend/cpu/k_router.h"
#include "backend/cpu/k_state.h"
static const struct ap_typed_kernels K(typed_kernels) = {AP_TYPED_KERNELS(RANGE_ENTRY).dot_rows = K(dot_rows)};

const struct ap_kernels K(ap_kernels) = {
    .isa = AP_KERNELS_ISA,
    .f32 = &KI(typed_kernels),
    .bf16 = &KI(typed_kernels_bf16),
    AP_STATE_KERNELS(RANGE_ENTRY).tree_sum = K(tree_sum),
    .tree_sumsq = K(tree_sumsq),
    .softmax_fwd = K(softmax_fwd),
    .softmax_bwd = K(softmax_bwd),
    .divide_rows = K(divide_rows),
};
