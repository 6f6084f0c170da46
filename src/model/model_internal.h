/* SPDX-License-Identifier: Apache-2.0
 * Inside of the model: what a layer's parameters are, what its forward leaves for its backward, and the
 * helpers the layer files share. Letters as in backend/ops.h: N tokens, h hidden, H heads, n nope, r rope,
 * v value dimension, E experts, K experts per token, I width of the MLP. */
#ifndef AP_MODEL_MODEL_INTERNAL_H
#define AP_MODEL_MODEL_INTERNAL_H

#include "backend/arena.h"
#include "model/model.h"
#include "base/trace.h"

/* Offsets in the flat parameter buffer; -1 where a layer has no such tensor. */
struct layer_params {
    int64_t input_norm, post_norm;
    int64_t q, q_a, q_a_norm, q_b; /* q, or the other three */
    int64_t kv_a, kv_a_norm, kv_b, o;
    int64_t gate_up, down;     /* dense layers: [2I, h], [h, I] */
    int64_t router;            /* MoE: [E, h] */
    int64_t e_gate_up, e_down; /* first expert */
    int64_t e_gate_up_stride, e_down_stride;
    int64_t s_gate_up, s_down; /* shared experts, one MLP of width I * shared */
};

/* A SwiGLU MLP's saved values: gate_up [rows, 2I], act [rows, I]. */
struct mlp_saved {
    ap_tensor gate_up, act;
};

struct layer_saved {
    ap_tensor x_in, x_mid; /* residual stream before attention and before the MLP [N,h] */
    ap_tensor xn1, rstd1, xn2, rstd2;
    ap_tensor cq, rstd_q, cqn; /* q latent raw, its norm [N,ql] (absent without q_lora) */
    ap_tensor q;               /* [N,H,n+r], rope part rotated */
    ap_tensor kva;             /* [N,kl+r]: latent raw | rope key rotated in place */
    ap_tensor rstd_kv, cn;     /* [N,kl] */
    ap_tensor kv, att, lse;    /* [N,H,n+v], [N,H,v], [N,H] */
    struct mlp_saved dense, shared;
    ap_tensor scores, ids, gates, dscores; /* [N,E] [N,K] [N,K] [N,E] */
    ap_tensor offsets, row_of, token_of;   /* i32 [E+1] [N,K] [N*K] */
    ap_tensor xs, ys;                      /* dispatched input and expert output [N*K,h] */
    struct mlp_saved expert;
};

struct layer {
    struct layer_params par;
    struct layer_saved s;
    int moe;
    int64_t router_index; /* among layers with a router */
};

struct mtp_saved {
    ap_tensor ids, targets;              /* i32 [N] */
    ap_tensor emb, rstd_e, rstd_h;       /* embedding of the next token [N,h] */
    ap_tensor cat;                       /* [enorm(emb) | hnorm(h)] [N,2h] */
    int64_t enorm, hnorm, eh_proj, norm; /* parameter offsets */
};

struct head_saved {
    ap_tensor xf, rstd; /* normalised input of the head [N,h] */
};

struct ap_model {
    struct ap_backend *be;
    struct ap_model_config cfg;
    struct ap_model_options opt;
    struct ap_params *params;
    int64_t tokens;    /* N */
    ap_dtype dt, stat; /* stat: of statistics, routing and gradients of parameters */
    double attn_scale;
    struct ap_arena arena;
    /* parameters and state of the running call */
    ap_tensor weights, grads, router_bias;
    struct ap_loss_weights lw;
    /* planned tensors */
    ap_tensor cos, sin; /* Stat [T, r/2] */
    ap_tensor tokens_d, targets_d, first_d, pos_d;
    ap_tensor x_out; /* output of the last layer [N,h] */
    ap_tensor logits, token_loss, mtp_token_loss;
    ap_tensor counts;     /* i32 [moe_layers, E] */
    ap_tensor sums;       /* f64 [4]: ce, mtp, balance, balance of recomputed layers (counted before) */
    struct layer *layers; /* layers + mtp_depth */
    struct head_saved head, mtp_head;
    struct mtp_saved mtp;
    ap_tensor dx, dx_mtp; /* gradient of the residual stream */
    int64_t off_embed, off_norm, off_head;
    int recomputing;      /* a layer's forward runs for the second time */
    void *tables_mem;     /* backend memory of cos and sin */
    int32_t *host_counts; /* [moe_layers * E] */
    int32_t *host_mtp;    /* ids, targets [2N] */
};

/* A part of the model as a span of the trace. */
#define SPAN(m, name, key, number, expr) AP_TRACE_TRY((m)->be->trace, "model", name, key, number, expr)

/* m->be->ops.NAME(stream, &(args)) with early return. */
#define OP(m, name, ...) AP_TRY((m)->be->ops.name((m)->be->stream, &(struct ap_##name##_args){__VA_ARGS__}))

static inline char *elem(ap_tensor flat, int64_t offset)
{
    return (char *)flat.data + (size_t)offset * ap_dtype_size(flat.dtype);
}
/* Views into the current weights and gradients. */
static inline ap_tensor w2(const struct ap_model *m, int64_t off, int64_t rows, int64_t cols)
{
    return ap_tensor_2d(elem(m->weights, off), m->dt, rows, cols);
}
static inline ap_tensor g2(const struct ap_model *m, int64_t off, int64_t rows, int64_t cols)
{
    return ap_tensor_2d(elem(m->grads, off), m->stat, rows, cols);
}
static inline ap_tensor w1(const struct ap_model *m, int64_t off, int64_t n)
{
    return ap_tensor_1d(elem(m->weights, off), m->dt, n);
}
static inline ap_tensor g1(const struct ap_model *m, int64_t off, int64_t n)
{
    return ap_tensor_1d(elem(m->grads, off), m->stat, n);
}
static inline ap_tensor new1(struct ap_model *m, ap_dtype t, int64_t a)
{
    return ap_arena_tensor(&m->arena, t, 1, (int64_t[]){a});
}
static inline ap_tensor new2(struct ap_model *m, ap_dtype t, int64_t a, int64_t b)
{
    return ap_arena_tensor(&m->arena, t, 2, (int64_t[]){a, b});
}
static inline ap_tensor new3(struct ap_model *m, ap_dtype t, int64_t a, int64_t b, int64_t c)
{
    return ap_arena_tensor(&m->arena, t, 3, (int64_t[]){a, b, c});
}
/* Another shape over the same elements. */
static inline ap_tensor view2(ap_tensor t, int64_t a, int64_t b)
{
    return ap_tensor_2d(t.data, t.dtype, a, b);
}
static inline ap_tensor view3(ap_tensor t, int64_t a, int64_t b, int64_t c)
{
    return ap_tensor_3d(t.data, t.dtype, a, b, c);
}

/* While the arena plans, layer functions only allocate. */
static inline int planning(const struct ap_model *m)
{
    return m->arena.base == NULL;
}

ap_status ap_model_copy(struct ap_model *m, ap_tensor dst, ap_tensor src);
ap_status ap_model_zero(struct ap_model *m, ap_tensor t);
/* y (+)= x W^T; dW += dy^T x; dx (=/+=) dy W. W [out, in] at flat offset off. */
ap_status ap_linear_fwd(struct ap_model *m, ap_tensor x, int64_t off, int64_t out, int64_t in, ap_tensor y,
                        int accumulate);
ap_status ap_linear_bwd(struct ap_model *m, ap_tensor dy, ap_tensor x, int64_t off, ap_tensor dx, int accumulate);

/* rope_table.c: attention scale and the cos/sin tables (host, f64 [T, r/2]) with YaRN. */
double ap_rope_attn_scale(const struct ap_model_config *cfg);
void ap_rope_fill(const struct ap_model_config *cfg, int64_t seq_len, double *cos_out, double *sin_out);

/* Layer parts (x_in and ids of a layer are planned by model.c). forward: x -> out, keeping what backward needs in L->s.
 * backward: dx holds d loss / d output and becomes d loss / d input. plan functions allocate the saved tensors. */
void ap_mla_plan(struct ap_model *m, struct layer *L);
ap_status ap_mla_forward(struct ap_model *m, struct layer *L); /* xn1 -> x_mid += */
ap_status ap_mla_backward(struct ap_model *m, struct layer *L, ap_tensor dout, ap_tensor dxn);

void ap_mlp_plan(struct ap_model *m, struct mlp_saved *s, int64_t rows, int64_t width);
ap_status ap_mlp_forward(struct ap_model *m, struct mlp_saved *s, ap_tensor x, int64_t gate_up, int64_t down,
                         ap_tensor out);
/* dx overwritten */
ap_status ap_mlp_backward(struct ap_model *m, struct mlp_saved *s, ap_tensor dout, ap_tensor x, int64_t gate_up,
                          int64_t down, ap_tensor dx);

void ap_moe_plan_memory(struct ap_model *m, struct layer *L);
ap_status ap_moe_forward(struct ap_model *m, struct layer *L, ap_tensor x, ap_tensor out); /* out += */
ap_status ap_moe_backward(struct ap_model *m, struct layer *L, ap_tensor dout, ap_tensor x, ap_tensor dx);

void ap_block_plan(struct ap_model *m, struct layer *L);
ap_status ap_block_forward(struct ap_model *m, struct layer *L, ap_tensor out);
ap_status ap_block_backward(struct ap_model *m, struct layer *L, ap_tensor dx);

/* Final norm, head, cross-entropy. With gradients: dx overwritten with d loss / d x. */
ap_status ap_head_step(struct ap_model *m, struct head_saved *s, ap_tensor x, int64_t norm, ap_tensor targets,
                       ap_tensor token_loss, double weight, int64_t sum_index, ap_tensor dx);

void ap_mtp_plan(struct ap_model *m);
/* Forward and backward of the MTP module; dx (gradient of the main model's output) +=. */
ap_status ap_mtp_step(struct ap_model *m, const struct ap_batch *batch, int64_t *mtp_tokens_p, ap_tensor dx);

static inline int with_grads(const struct ap_model *m)
{
    return m->grads.data != NULL;
}

#endif
