/* SPDX-License-Identifier: Apache-2.0
 * Inside of the reference backend: the functions per element type. The ref_*.h templates are written once
 * with REAL and REF(op) and included by ref_f32.c, ref_f64.c and ref_bf16.c. All sums run in double, in index order. */
#ifndef AP_BACKEND_CPU_REFERENCE_H
#define AP_BACKEND_CPU_REFERENCE_H

#include "backend/ops.h"
#include "base/bf16.h"
#include "base/status.h"

/* Operations written as templates, with the descriptor field that decides the element type. */
#define AP_REF_REAL_OPS(X)                                                                                             \
    X(gemm, a)                                                                                                         \
    X(grouped_gemm, x)                                                                                                 \
    X(grouped_wgrad, x)                                                                                                \
    X(embed_fwd, table)                                                                                                \
    X(embed_bwd, dout)                                                                                                 \
    X(rmsnorm_fwd, x)                                                                                                  \
    X(rmsnorm_bwd, x)                                                                                                  \
    X(rope, x)                                                                                                         \
    X(mla_attn_fwd, q)                                                                                                 \
    X(mla_attn_bwd, q)                                                                                                 \
    X(swiglu_fwd, y)                                                                                                   \
    X(swiglu_bwd, dy)                                                                                                  \
    X(router_fwd, logits)                                                                                              \
    X(router_bwd, dlogits)                                                                                             \
    X(moe_dispatch_fwd, x)                                                                                             \
    X(moe_dispatch_bwd, dx)                                                                                            \
    X(moe_combine_fwd, out)                                                                                            \
    X(moe_combine_bwd, dout)                                                                                           \
    X(split_cols, src)                                                                                                 \
    X(cross_entropy, logits)                                                                                           \
    X(cross_entropy_part, logits)                                                                                      \
    X(cross_entropy_join, logits)                                                                                      \
    X(add, a)                                                                                                          \
    X(scale, x)                                                                                                        \
    X(sumsq, x)
/* Those without bf16 tensors. */
#define AP_REF_STAT_OPS(X)                                                                                             \
    X(seq_balance, scores)                                                                                             \
    X(sum_tokens, x)                                                                                                   \
    X(adamw, w)

#define AP_REF_DECLARE(op, field)                                                                                      \
    ap_status ap_ref_f32_##op(const struct ap_##op##_args *a);                                                         \
    ap_status ap_ref_f64_##op(const struct ap_##op##_args *a);
AP_REF_REAL_OPS(AP_REF_DECLARE)
AP_REF_STAT_OPS(AP_REF_DECLARE)
#undef AP_REF_DECLARE
#define AP_REF_DECLARE_BF16(op, field) ap_status ap_ref_bf16_##op(const struct ap_##op##_args *a);
AP_REF_REAL_OPS(AP_REF_DECLARE_BF16)
#undef AP_REF_DECLARE_BF16

/* seq_balance in working memory of the caller: AP_REF_BALANCE_BYTES(experts). */
#define AP_REF_BALANCE_BYTES(experts) ((size_t)(experts) * (4 * sizeof(double) + 2))
ap_status ap_ref_f32_seq_balance_in(const struct ap_seq_balance_args *a, double *mem);
ap_status ap_ref_f64_seq_balance_in(const struct ap_seq_balance_args *a, double *mem);

/* Indices that live in tensor memory; AP_ERR_BUG (logged) when one is out of range. */
ap_status ap_check_first(const int32_t *first, int64_t tokens, int64_t seqs);
ap_status ap_check_offsets(const int32_t *offsets, int64_t groups, int64_t rows);
ap_status ap_check_ids(const char *op, const int32_t *ids, int64_t count, int64_t low, int64_t limit);

#endif
