/* SPDX-License-Identifier: Apache-2.0
 * The operations of a transformer step, as descriptors. AP_OPS lists them all: the backend vtable, the
 * typed "unsupported" stubs, the names and the parity harness are generated from this one list.
 *
 * Conventions
 *   N = tokens of the micro-batch (B sequences of T tokens, row b*T+t), h = hidden size, H = heads,
 *   n = qk_nope_head_dim, r = qk_rope_head_dim, v = v_head_dim, E = routed experts, K = experts per token.
 *   Weights are [out, in] row-major, y = x W^T. "Real" = f32, f64 or (where a backend says so) bf16; all
 *   Real tensors of one call share a dtype unless stated otherwise. Statistics and token-wise losses of
 *   bf16 calls are f32; for f32 and f64 calls they have the dtype of the call ("Stat").
 *   In bf16 calls the gradients of parameters (c of a gemm, dw, dtable) may be f32, and are in training;
 *   router_fwd and router_bwd then take f32 tensors (the router's logits come from a gemm with f32 c).
 *   Outputs are overwritten completely unless the comment says "+=": then the operation adds to what is
 *   there. Inputs and outputs must not overlap unless stated. Optional tensors have data == NULL.
 *   A call is asynchronous on its stream for device backends and complete on return for host backends.
 *   For a given backend, thread count and instruction set, the result of a call is bitwise repeatable.
 *   Sizes of 0 are legal (no rows for an expert, an empty chunk).
 * Errors: AP_ERR_UNSUPPORTED (dtype or shape this backend does not take), AP_ERR_NOMEM, AP_ERR_ENV (device). */
#ifndef AP_BACKEND_OPS_H
#define AP_BACKEND_OPS_H

#include "backend/tensor.h"

/* The list. Order is the order of reports only. */
#define AP_OPS(X)                                                                                                      \
    X(gemm)                                                                                                            \
    X(grouped_gemm)                                                                                                    \
    X(grouped_wgrad)                                                                                                   \
    X(embed_fwd)                                                                                                       \
    X(embed_bwd)                                                                                                       \
    X(rmsnorm_fwd)                                                                                                     \
    X(rmsnorm_bwd)                                                                                                     \
    X(rope)                                                                                                            \
    X(mla_attn_fwd)                                                                                                    \
    X(mla_attn_bwd)                                                                                                    \
    X(swiglu_fwd)                                                                                                      \
    X(swiglu_bwd)                                                                                                      \
    X(router_fwd)                                                                                                      \
    X(router_bwd)                                                                                                      \
    X(seq_balance)                                                                                                     \
    X(moe_plan)                                                                                                        \
    X(moe_dispatch_fwd)                                                                                                \
    X(moe_dispatch_bwd)                                                                                                \
    X(moe_combine_fwd)                                                                                                 \
    X(moe_combine_bwd)                                                                                                 \
    X(split_cols)                                                                                                      \
    X(cross_entropy)                                                                                                   \
    X(cross_entropy_part)                                                                                              \
    X(cross_entropy_join)                                                                                              \
    X(sum_tokens)                                                                                                      \
    X(add)                                                                                                             \
    X(scale)                                                                                                           \
    X(cast)                                                                                                            \
    X(sumsq)                                                                                                           \
    X(adamw)

/* c[M,N] (+)= op(a) op(b). All three 2-D and dense. op(a) is [M,K] (stored [K,M] if trans_a), op(b) is [K,N] (stored
 * [N,K] if trans_b). accumulate: c += instead of c =. f32 accumulation for bf16; c may be f32 when a, b are bf16. */
struct ap_gemm_args {
    ap_tensor a, b, c;
    int trans_a, trans_b, accumulate;
};

/* Rows of x are sorted by group; group e owns rows offsets[e] .. offsets[e+1]-1.
 * trans_w = 1: y[rows e, :] = x[rows e, :] W_e^T with W_e [out, in] (forward);
 * trans_w = 0: y[rows e, :] = x[rows e, :] W_e (input gradient; x is [rows, out], y [rows, in]).
 * w.data points at W_0; W_e starts e * w_stride elements further; w.shape = {E, out, in}.
 * offsets: i32 [E+1], not decreasing, last <= rows of x. accumulate: y +=. Rows outside all groups are left alone. */
struct ap_grouped_gemm_args {
    ap_tensor x, w, y, offsets;
    int64_t w_stride;
    int trans_w, accumulate;
};
/* dw_e[out, in] (=, or += with accumulate) dy[rows e, :]^T x[rows e, :], without rows 0; dw.shape = {E, out, in},
 * stride as above. */
struct ap_grouped_wgrad_args {
    ap_tensor dy, x, dw, offsets;
    int64_t w_stride;
    int accumulate;
};

/* out[i,:] = table[ids[i],:]. table [V,h], ids i32 [N] in 0..V-1 (checked by the loader), out [N,h]. An id of -1 is a
 * row that another process holds (vocabulary in parts): out[i,:] = 0. */
struct ap_embed_fwd_args {
    ap_tensor table, ids, out;
};
/* dtable[ids[i],:] += dout[i,:], rows of one id in ascending i (deterministic). An id of -1 adds nothing. */
struct ap_embed_bwd_args {
    ap_tensor dout, ids, dtable;
};

/* y = x * rstd * w, rstd = 1/sqrt(mean(x^2) + eps) per row. x, y [N,d]; w [d]; rstd Stat [N], optional.
 * x_stride: elements between rows of x (0: d), so that the leading columns of a wider matrix can be
 * normalised in place of a copy. */
struct ap_rmsnorm_fwd_args {
    ap_tensor x, w, y, rstd;
    double eps;
    int64_t x_stride;
};
/* dx (= or += by accumulate), dw += (dw optional). x and dx have row stride x_stride / dx_stride (0: d). */
struct ap_rmsnorm_bwd_args {
    ap_tensor dy, x, w, rstd, dx, dw;
    int64_t x_stride, dx_stride;
    int accumulate;
};

/* Rotate pairs (2i, 2i+1) of the last r columns of each of the heads of x in place; x is 3-D.
 * x [N, heads, width] with row stride x_stride elements (0: heads*width); the pair i of token t turns by
 * +angle (inverse = 0) or -angle (inverse = 1: the backward) where cos/sin tables are Stat [T_max, r/2],
 * row = positions[t] (i32 [N]). */
struct ap_rope_args {
    ap_tensor x, cos, sin, positions;
    int64_t r, x_stride;
    int inverse;
};

/* Causal MLA attention in expanded multi-head form; scores are scaled by `scale`.
 * q [N, H, n+r] (rope part already rotated), kv [N, H, n+v] (k_nope | v), kr [N, r] one rotated rope key
 * for all heads (row stride kr_stride elements, 0: r), out [N, H, v], lse Stat [N, H] = log sum exp of the
 * scaled scores. seqs = B; T = N/B. Token t of sequence b sees tokens s with first[b*T+t] <= s <= t
 * (first: i32 [N], index of the first visible token inside the sequence: document boundaries). */
struct ap_mla_attn_fwd_args {
    ap_tensor q, kv, kr, first, out, lse;
    int64_t seqs, n, r, v, kr_stride;
    double scale;
};
/* dq, dkv overwritten; dkr [N, r] overwritten, row stride dkr_stride. Recomputes the probabilities from lse. */
struct ap_mla_attn_bwd_args {
    ap_tensor dout, q, kv, kr, first, out, lse, dq, dkv, dkr;
    int64_t seqs, n, r, v, kr_stride, dkr_stride;
    double scale;
};

/* y = silu(gate) * up, elementwise; gate_up [N, 2 I] = gate | up in one row; y [N, I]. */
struct ap_swiglu_fwd_args {
    ap_tensor gate_up, y;
};
/* dgate_up overwritten. */
struct ap_swiglu_bwd_args {
    ap_tensor dy, gate_up, dgate_up;
};

enum ap_gate_kind {
    AP_GATE_SOFTMAX_GREEDY = 0, /* s = softmax; top-K of s; gate = s (normalised if norm_topk) * scaling */
    AP_GATE_SOFTMAX_GROUP = 1,  /* group score = largest s in group; top-K of s inside the kept groups */
    AP_GATE_SIGMOID_NOAUX = 2   /* s = sigmoid; choice c = s + bias; group score = sum of the two largest c */
};
/* Top-K routing. logits Real [N,E]; bias Stat [E] (sigmoid gate only, optional) takes part in the choice only.
 * scores Stat [N,E] = s; ids i32 [N,K] ascending inside a token; gates Stat [N,K] in the order of ids:
 * s of the chosen, divided by (their sum + 1e-20) if norm_topk and K > 1, times scaling. Ties: lower expert id wins.
 * counts: i32 [E], tokens that chose each expert. */
struct ap_router_fwd_args {
    ap_tensor logits, bias, scores, ids, gates, counts;
    int kind, groups, groups_kept, norm_topk;
    double scaling;
};
/* dlogits [N,E] from dgates Stat [N,K] and dscores_extra Stat [N,E] (optional; gradient of the balance
 * losses with respect to s). The choice is a constant. */
struct ap_router_bwd_args {
    ap_tensor scores, ids, gates, dgates, dscores_extra, dlogits;
    int kind, norm_topk;
    double scaling;
};

/* Sequence-wise balance loss (V3 report 2.1.2 eq. 17-20; V2 expert-level loss eq. 23-25 with seqs sequences):
 * per sequence f_i = E/(K T) * #{t : i in choice of s_t}, P_i = mean_t p_ti, loss = sum over sequences of
 * weight * sum_i f_i P_i. p = s / sum_j s_j for the sigmoid gate (whose choice here is top-K of s without
 * bias and groups; of ids only the shape matters then), p = s and choice = ids for softmax gates. f is a
 * constant. dscores Stat [N,E] (= or += by accumulate_dscores) d loss / d s. loss: f64 [1], +=.
 * With group_size g > 1 (device-level balance, V2 eq. 26-28; E/g groups): f'_d = mean of f in the group,
 * P'_d = sum of P in the group. comm_groups_kept M > 0 selects the communication loss (V2 eq. 29-31):
 * f''_d = D/(M T) * #{t sent to any expert of group d}, P''_d = sum of P in the group, D = E/g. */
struct ap_seq_balance_args {
    ap_tensor scores, ids, dscores, loss;
    int64_t seqs;
    int kind, accumulate_dscores;
    int64_t group_size, comm_groups_kept;
    double weight;
};

/* Sort the N*K choices by expert, stable in (token, k). ids i32 [N,K]. offsets i32 [E+1];
 * row_of i32 [N,K]: row of the sorted order that holds choice (t,k); token_of i32 [N*K]: its inverse, the
 * token of each sorted row. */
struct ap_moe_plan_args {
    ap_tensor ids, offsets, row_of, token_of;
};
/* xs[row,:] = x[token_of[row],:]. x [N,h], xs [N*K,h]. */
struct ap_moe_dispatch_fwd_args {
    ap_tensor x, token_of, xs;
};
/* dx[t,:] += sum_k dxs[row_of[t,k],:] in the order of k. */
struct ap_moe_dispatch_bwd_args {
    ap_tensor dxs, row_of, dx;
};
/* out[t,:] += sum_k gates[t,k] * ys[row_of[t,k],:] in the order of k (out holds the shared expert's output
 * or zeros). */
struct ap_moe_combine_fwd_args {
    ap_tensor ys, gates, row_of, out;
};
/* dys[row,:] = gates * dout[t,:] (overwritten); dgates[t,k] = dot(dout[t,:], ys[row,:]). */
struct ap_moe_combine_bwd_args {
    ap_tensor dout, ys, gates, row_of, dys, dgates;
};

/* Copy columns: dst[:, dst_col : dst_col+cols] (= or += by accumulate) src[:, src_col : src_col+cols].
 * Both 2-D with the same number of rows. Serves concatenation (MTP) and its gradient. */
struct ap_split_cols_args {
    ap_tensor src, dst;
    int64_t src_col, dst_col, cols;
    int accumulate;
};

/* Cross-entropy. logits Real [N,V]; targets i32 [N], -1 = no loss at this token. loss Stat [N]:
 * -log softmax(logits)[target], 0 where target is -1. dlogits: optional, may be the same memory as logits:
 * (softmax - onehot) * weight, 0 where target is -1. */
struct ap_cross_entropy_args {
    ap_tensor logits, targets, loss, dlogits;
    double weight;
};
/* Cross-entropy over a vocabulary whose columns lie on P processes: each finds what its own columns contribute, the
 * parts of all are gathered, each joins them. What P = 1 gives is cross_entropy, to rounding. logits Real [N,Vl], Vl >=
 * 1: the columns of this process. targets i32 [N]: index among these columns, -1: not here. part Stat [N,3] per row: m
 * = max of logits, s = sum of exp(logits - m), t = logit of the target, 0 where it is not here. A row of nothing but
 * -inf has s = 0. */
struct ap_cross_entropy_part_args {
    ap_tensor logits, targets, part;
};
/* parts Stat [P,N,3], P >= 1, in the order of the processes, in which sums over p run, so that all of them get the same
 * bits. logits and local_targets: logits and targets of the own cross_entropy_part. has_target i32 [N]: >= 0 where some
 * process holds the target (the id itself will do), -1 = no loss at this token, whatever local_targets says.
 * With M = max_p m_p and S = sum_p s_p exp(m_p - M): loss Stat [N] = log S + M - sum_p t_p, 0 where there is no loss.
 * dlogits: optional, may be the same memory as logits: (exp(logits - M) / S - onehot) * weight, 0 where there is none.
 */
struct ap_cross_entropy_join_args {
    ap_tensor parts, logits, local_targets, has_target, loss, dlogits;
    double weight;
};
/* out f64 [1] += sum of x (Stat [N]) in one fixed pairwise tree. */
struct ap_sum_tokens_args {
    ap_tensor x, out;
};

/* c = a + b elementwise; c may be a or b. One shape, 1-D view. */
struct ap_add_args {
    ap_tensor a, b, c;
};
/* x *= factor in place. */
struct ap_scale_args {
    ap_tensor x;
    double factor;
};
/* dst = src converted (f32, f64, bf16; bf16 by round to nearest even). One shape. */
struct ap_cast_args {
    ap_tensor src, dst;
};
/* A run of elements of flat memory. */
struct ap_run {
    int64_t begin, count;
};
/* out f64 [runs] = the sum of x^2 of each run, accumulated in f64 in one fixed pairwise tree of its length. x Real [n].
 * runs (host memory, borrowed for the call; ascending, disjoint, within n). NULL: one run of all n, out [1]. */
struct ap_sumsq_args {
    ap_tensor x, out;
    const struct ap_run *runs;
    int64_t run_count;
};

/* One AdamW step, out of place (shadow buffers; *_new may equal the old memory), decoupled decay:
 * g = grad_scale * g; m' = b1 m + (1-b1) g; v' = b2 v + (1-b2) g^2;
 * w' = w (1 - lr wd) - lr (m'/(1-b1^t)) / (sqrt(v'/(1-b2^t)) + eps). Loshchilov & Hutter 2019, alg. 2.
 * w, g, m, v and the outputs: f32 or f64 [n]. w_bf16: optional bf16 copy of w'.
 * segments (host memory, borrowed for the call; ascending, disjoint, within n): only these elements, with decay where
 * a segment says so; nothing else is written. NULL: all n, with decay. */
struct ap_adamw_segment {
    int64_t begin, count;
    int decay;
};
struct ap_adamw_args {
    ap_tensor w, g, m, v, w_new, m_new, v_new, w_bf16;
    double lr, beta1, beta2, eps, weight_decay, grad_scale;
    int64_t step; /* t, from 1 */
    const struct ap_adamw_segment *segments;
    int64_t segment_count;
};

#endif
