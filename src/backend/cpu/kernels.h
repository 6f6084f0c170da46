/* SPDX-License-Identifier: Apache-2.0
 * Vector kernels of the cpu backend in f32 arithmetic: one table per instruction set, built from the k_*.h templates
 * (k_generic.c, k_avx2.c, k_avx512.c) and chosen when the backend is opened, so that one binary runs on
 * every CPU of its architecture. A range kernel does items [begin, end) of the operation that args
 * describes; what an item is stands beside each. No kernel allocates or calls the pool, and the result of an
 * item does not depend on the range it came in. */
#ifndef AP_BACKEND_CPU_KERNELS_H
#define AP_BACKEND_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "backend/cpu/k_isa.h"
#include "backend/ops.h"

/* Rows whose contribution to a norm's weight gradient is summed into one partial result: fixed, so that the
 * sum does not depend on the number of threads. */
#define AP_NORM_ROWS 32

/* Arguments of rmsnorm_bwd plus where block b puts its part of dw: partial + b * d (NULL: no dw). */
struct ap_norm_bwd {
    const struct ap_rmsnorm_bwd_args *a;
    float *partial;
};

/* Most experts and choices per token that the router kernel takes. */
#define AP_ROUTER_MAX 512

typedef void ap_range(const void *args, int64_t begin, int64_t end);

/* X(kernel): args are the descriptor of the operation of that name unless stated otherwise. Typed kernels exist for
 * f32 and for bf16; what ops.h calls Stat, and gradients of parameters, are f32 in both. */
#define AP_TYPED_KERNELS(X)                                                                                            \
    X(embed_fwd)          /* rows of out */                                                                            \
    X(embed_bwd)          /* columns of dtable */                                                                      \
    X(rmsnorm_fwd)        /* rows */                                                                                   \
    X(rmsnorm_bwd)        /* blocks of AP_NORM_ROWS rows; struct ap_norm_bwd */                                        \
    X(rmsnorm_dw)         /* columns of dw; struct ap_norm_bwd */                                                      \
    X(rope)               /* tokens */                                                                                 \
    X(swiglu_fwd)         /* rows */                                                                                   \
    X(swiglu_bwd)         /* rows */                                                                                   \
    X(moe_dispatch_fwd)   /* sorted rows */                                                                            \
    X(moe_dispatch_bwd)   /* tokens */                                                                                 \
    X(moe_combine_fwd)    /* tokens */                                                                                 \
    X(moe_combine_bwd)    /* tokens */                                                                                 \
    X(split_cols)         /* rows */                                                                                   \
    X(cross_entropy)      /* rows */                                                                                   \
    X(cross_entropy_part) /* rows */                                                                                   \
    X(cross_entropy_join) /* rows */                                                                                   \
    X(add)                /* elements */                                                                               \
    X(scale)              /* elements */
#define AP_STATE_KERNELS(X)                                                                                            \
    X(router_fwd) /* tokens; leaves counts to the caller */                                                            \
    X(router_bwd) /* tokens */                                                                                         \
    X(adamw)      /* elements; w_bf16 too */                                                                           \
    X(cast)       /* elements; f32 to bf16 or back */

/* Scores of one query block: rows of s hold `cols` scores of keys key0, key0+1, ... and become
 * exp(scale s - shift), 0 where the key is not visible. Query i of the block is token t0 + i and sees keys
 * first[i] .. t0 + i. */
struct ap_softmax_block {
    float *s;
    int64_t lds, rows, cols, t0, key0;
    const int32_t *first;
    float scale;
};

#define AP_RANGE_SLOT(op) ap_range *op;
struct ap_typed_kernels {
    AP_TYPED_KERNELS(AP_RANGE_SLOT)
    /* out[i] = dot of row i of x and of y, rows ld elements apart. */
    void (*dot_rows)(const void *x, const void *y, int64_t ld, int64_t rows, int64_t cols, float *out);
};

struct ap_kernels {
    const char *isa;
    const struct ap_typed_kernels *f32, *bf16;
    AP_STATE_KERNELS(AP_RANGE_SLOT)
    /* Fixed-tree sums (pairwise.h). */
    double (*tree_sum)(const float *x, int64_t n);
    double (*tree_sumsq)(const float *x, int64_t n);
    /* Forward softmax without the division: shift = the row's largest scaled score; writes sum[i] = sum of
     * the row, lse[i * lse_step]. */
    void (*softmax_fwd)(const struct ap_softmax_block *b, float *sum, float *lse, int64_t lse_step);
    /* Backward: shift = lse. s becomes the probabilities, dp [rows, cols] (ld lds) the score gradients
     * p (dp - delta[i]) scale. */
    void (*softmax_bwd)(const struct ap_softmax_block *b, float *dp, const float *lse, int64_t lse_step,
                        const float *delta);
    /* x[rows, cols] (ld) *= 1 / by[row]. */
    void (*divide_rows)(float *x, int64_t ld, int64_t rows, int64_t cols, const float *by);
};
#undef AP_RANGE_SLOT

extern const struct ap_kernels ap_kernels_generic, ap_kernels_avx2, ap_kernels_avx512;
const struct ap_kernels *ap_kernels_choose(enum ap_isa isa);

#endif
