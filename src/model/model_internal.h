/* SPDX-License-Identifier: Apache-2.0
 * Inside of the model: what a layer's parameters are, what its forward leaves for its backward, and the
 * helpers the layer files share. Letters as in backend/ops.h: N tokens, h hidden, H heads, n nope, r rope,
 * v value dimension, E experts, K experts per token, I width of the MLP; L own tokens (N without tensor parallelism).
 * H, I and E are those that the process holds. */
#ifndef AP_MODEL_MODEL_INTERNAL_H
#define AP_MODEL_MODEL_INTERNAL_H

#include "backend/arena.h"
#include "base/trace.h"
#include "model/model.h"
#include "model/part.h"
#include "parallel/exchange.h"

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

/* Expert parallelism: rows that came from the expert group, and how they are arranged. */
struct exchange_saved {
    ap_tensor offsets;    /* i32 [E+1] of the rows here, sorted by expert */
    ap_tensor by_expert;  /* i32 [capacity]: the row in order of senders of each row in order of experts */
    ap_tensor by_sender;  /* i32 [capacity]: its inverse */
    ap_tensor xs;         /* [capacity, h] in order of experts */
    int64_t *send, *recv; /* host [ranks]: rows for and from each rank */
    int64_t rows;         /* here */
};

struct layer_saved {
    ap_tensor x_in, x_mid; /* residual stream before attention and before the MLP [L,h] */
    ap_tensor xn1, rstd1, xn2, rstd2;
    ap_tensor xn1_all, xn2_all; /* of all tokens [N,h]; xn1_all without q_lora only */
    ap_tensor cq, rstd_q, cqn;  /* q latent raw, its norm [L,ql] (absent without q_lora) */
    ap_tensor cqn_all;          /* [N,ql] */
    ap_tensor q;                /* [N,H,n+r], rope part rotated */
    ap_tensor kva;              /* [L,kl+r]: latent raw | rope key rotated in place */
    ap_tensor rstd_kv, cn;      /* [L,kl] */
    ap_tensor cn_all, kr_all;   /* [N,kl], [N,r] */
    ap_tensor kv, att, lse;     /* [N,H,n+v], [N,H,v], [N,H] */
    struct mlp_saved dense, shared;
    ap_tensor scores, ids, gates, dscores; /* [N,E of all] [N,K] [N,K] [N,E of all] */
    ap_tensor offsets, row_of, token_of;   /* i32 [E of all + 1] [N,K] [N*K] */
    ap_tensor xs, ys;        /* dispatched input (absent with expert parallelism), expert output [N*K,h] */
    struct mlp_saved expert; /* [N*K or capacity, .] */
    struct exchange_saved ex;
};

struct layer {
    struct layer_params par;
    int moe;
    int64_t router_index; /* among layers with a router of the whole model */
};

/* One micro-batch between forward and backward. */
struct slot {
    ap_tensor tokens, targets, first, pos; /* i32 [N]; tokens as rows of the own part of the vocabulary, -1 elsewhere */
    ap_tensor own_targets;                 /* targets likewise; `targets` itself without tensor parallelism */
    ap_tensor sums;             /* f64 [4]: ce, mtp, balance, balance of recomputed layers (counted before) */
    ap_tensor counts;           /* i32 [routers] */
    ap_tensor x_out;            /* output of the last layer [L,h] */
    struct layer_saved *layers; /* [layers + mtp_depth] */
};

struct mtp_params {
    int64_t enorm, hnorm, eh_proj, norm; /* offsets */
};

struct mtp_saved {
    ap_tensor ids, targets, own_targets; /* i32 [N] */
    ap_tensor emb, rstd_e, rstd_h;       /* embedding of the next token [L,h] */
    ap_tensor cat;                       /* [enorm(emb) | hnorm(h)] [L,2h] */
};

struct head_saved {
    ap_tensor xf, rstd; /* normalised input of the head [L,h] */
    ap_tensor xf_all;   /* [N,h] */
    ap_tensor logits;   /* [N, own part of V], in backward their gradient */
};

/* One gradient of weights, and what it is made of. */
enum late_kind {
    LATE_LINEAR,  /* += dy^T x */
    LATE_GROUPED, /* the same for the own experts, rows by offsets */
    LATE_VECTOR,  /* += dy [n] */
    LATE_ROWS     /* of the embedding: row x[i] += dy[i] */
};
struct late_work {
    enum late_kind kind;
    int64_t off, stride;      /* flat; elements between experts */
    ap_tensor dy, x, offsets; /* borrowed from the slot and from the late's memory */
};

/* One micro-batch between the two halves of a split backward; with a whole one there is one of them. Of the last stage
 * also what lies between the last layer and the losses. */
struct late {
    struct ap_arena arena;  /* gradients of outputs that the weights' gradients need */
    struct late_work *work; /* [late_most] */
    int64_t count;
    struct slot *slot; /* whose activations they need */
    struct head_saved head, mtp_head;
    struct mtp_saved mtp;
};

struct ap_model {
    struct ap_backend *be;
    struct ap_model_config cfg;
    struct ap_model_options opt;
    struct ap_model_part part;
    struct ap_params *params;
    struct ap_exchange *tensor, *expert;            /* NULL: the group is this process alone */
    int64_t *token_rows;                            /* [T] own tokens of each rank of the tensor group */
    int64_t tokens, own_tokens;                     /* N, L */
    int64_t own_first;                              /* first of the own tokens */
    int64_t heads, dense_width, moe_width, experts; /* held here */
    int64_t vocab_first, vocab;                     /* likewise */
    ap_dtype dt, stat;                              /* stat: of statistics, routing and gradients of parameters */
    double attn_scale;
    struct ap_arena arena;
    /* parameters and state of the running call */
    const struct ap_model_buffers *b;
    struct ap_loss_weights lw;
    int with_grads;
    struct slot *cur;
    /* planned tensors */
    ap_tensor cos, sin;        /* Stat [T, r/2] */
    struct slot *slots;        /* [opt.slots] */
    struct late *lates, *late; /* [late_count]; that of the running call */
    int late_count;
    int64_t late_most;                    /* gradients of weights of a micro-batch */
    ap_tensor token_loss, mtp_token_loss; /* [N]; last stage */
    struct layer *layers;                 /* layers + mtp_depth */
    struct mtp_params mtp;
    ap_tensor dx, dx_mtp; /* gradient of the residual stream [L,h] */
    int64_t off_embed, off_norm, off_head;
    int recomputing;      /* a layer's forward runs for the second time */
    void *tables_mem;     /* backend memory of cos and sin */
    int32_t *host_counts; /* [routers] */
    int32_t *host_ids;    /* [5N]: own tokens and targets; MTP's ids, targets, own targets */
    int32_t *host_rows;   /* expert parallelism: [2 * capacity + E + 1] */
    int64_t *host_load;   /* [(ranks + 1) * E], likewise */
    int64_t *host_pairs;  /* send and recv of all exchange_saved */
};

/* While the arena plans, layer functions only allocate. */
static inline int planning(const struct ap_model *m)
{
    return m->arena.base == NULL;
}

/* A part of the model as a span of the trace. */
#define SPAN(m, name, key, number, expr) AP_TRACE_TRY((m)->be->trace, "model", name, key, number, expr)

/* m->be->ops.NAME(stream, &(args)) with early return; nothing while planning. */
#define OP(m, name, ...)                                                                                               \
    AP_TRY(planning(m) ? AP_OK : (m)->be->ops.name((m)->be->stream, &(struct ap_##name##_args){__VA_ARGS__}))

static inline char *elem(ap_tensor flat, int64_t offset)
{
    return flat.data ? (char *)flat.data + (size_t)offset * ap_dtype_size(flat.dtype) : NULL;
}
/* Memory of the flat space's element in the buffer of its group. */
static inline char *in_group(const struct ap_model *m, const ap_tensor *group, int64_t offset)
{
    int g = 0;
    while (g + 1 < AP_GROUPS && offset >= m->params->region[g].end)
        g++;
    return elem(group[g], offset - m->params->region[g].begin);
}
static inline char *weight(const struct ap_model *m, int64_t offset)
{
    return planning(m) ? NULL : in_group(m, m->b->weights, offset);
}
static inline char *grad(const struct ap_model *m, int64_t offset)
{
    return planning(m) ? NULL : in_group(m, m->b->grads, offset);
}
/* Views into the current weights and gradients. */
static inline ap_tensor w2(const struct ap_model *m, int64_t off, int64_t rows, int64_t cols)
{
    return ap_tensor_2d(weight(m, off), m->dt, rows, cols);
}
static inline ap_tensor g2(const struct ap_model *m, int64_t off, int64_t rows, int64_t cols)
{
    return ap_tensor_2d(grad(m, off), m->stat, rows, cols);
}
static inline ap_tensor w1(const struct ap_model *m, int64_t off, int64_t n)
{
    return ap_tensor_1d(weight(m, off), m->dt, n);
}
static inline ap_tensor g1(const struct ap_model *m, int64_t off, int64_t n)
{
    return ap_tensor_1d(grad(m, off), m->stat, n);
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
/* Is backward split? */
static inline int is_split(const struct ap_model *m)
{
    return m->opt.late > 0;
}
/* Memory of a gradient of outputs, from which that of weights is made: scratch, or the late's until it has been. */
static inline struct ap_arena *dy_arena(struct ap_model *m)
{
    return is_split(m) ? &m->late->arena : &m->arena;
}
static inline ap_tensor dy2(struct ap_model *m, ap_dtype t, int64_t a, int64_t b)
{
    return ap_arena_tensor(dy_arena(m), t, 2, (int64_t[]){a, b});
}
static inline ap_tensor dy3(struct ap_model *m, ap_dtype t, int64_t a, int64_t b, int64_t c)
{
    return ap_arena_tensor(dy_arena(m), t, 3, (int64_t[]){a, b, c});
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

static inline int64_t tensor_size(const struct ap_model *m)
{
    return m->part.tensor_size;
}
static inline struct layer_saved *saved(const struct ap_model *m, const struct layer *L)
{
    return &m->cur->layers[L - m->layers];
}

/* tensor_parallel.c: between the own tokens and all of them; only with tensor parallelism. */
ap_status ap_tensor_gather(struct ap_model *m, ap_tensor own, ap_tensor all);
/* own (+)= the sum of the group's parts [N,w] over its tokens. Also while planning. */
ap_status ap_tensor_sum(struct ap_model *m, ap_tensor parts, ap_tensor own, int accumulate);
/* out [L,h] = rows of the embedding; dtable += . ids [N] as in struct slot. Also while planning. */
ap_status ap_embed_forward(struct ap_model *m, ap_tensor ids, ap_tensor out);
ap_status ap_embed_backward(struct ap_model *m, ap_tensor ids, ap_tensor dout);
/* Ids as rows of the own part of the vocabulary, -1 elsewhere. */
void ap_own_ids(const struct ap_model *m, const int32_t *ids, int32_t *own);

ap_status ap_model_copy(struct ap_model *m, ap_tensor dst, ap_tensor src);
ap_status ap_model_zero(struct ap_model *m, ap_tensor t);
/* late.c: gradients of weights. At once, or, where backward is split, put down for ap_late_run: then dy and x have to
 * stay as they are until then, dy in memory of dy2, dy3 or ap_keep, x in the slot or the late. */
ap_status ap_late_create(struct ap_model *m);
ap_status ap_late_fix(struct ap_model *m, struct ap_error *err); /* after planning: memory */
void ap_late_destroy(struct ap_model *m);
size_t ap_late_memory(const struct ap_model *m);
ap_status ap_weight_gradient(struct ap_model *m, const struct late_work *work);
ap_status ap_late_run(struct ap_model *m, ap_model_pulse *pulse, void *ctx);
/* A tensor that is written again before then, or a copy of it. */
ap_status ap_keep(struct ap_model *m, ap_tensor t, ap_tensor *kept_p);
/* rmsnorm_bwd of the weights at flat offset off, += their gradient; a.w and a.dw are filled in. */
ap_status ap_norm_bwd(struct ap_model *m, int64_t off, struct ap_rmsnorm_bwd_args a);

/* y (+)= x W^T; dW += dy^T x; dx (=/+=) dy W. W [out, in] at flat offset off. */
ap_status ap_linear_fwd(struct ap_model *m, ap_tensor x, int64_t off, int64_t out, int64_t in, ap_tensor y,
                        int accumulate);
ap_status ap_linear_bwd(struct ap_model *m, ap_tensor dy, ap_tensor x, int64_t off, ap_tensor dx, int accumulate);

/* plan.c: the memory plan; called again once the arena has memory. */
void ap_model_plan(struct ap_model *m);
/* Rows that an expert-parallel layer may receive at most. */
int64_t ap_moe_capacity(const struct ap_model *m);

/* rope_table.c: attention scale and the cos/sin tables (host, f64 [T, r/2]) with YaRN. */
double ap_rope_attn_scale(const struct ap_model_config *cfg);
void ap_rope_fill(const struct ap_model_config *cfg, int64_t seq_len, double *cos_out, double *sin_out);

/* Layer parts (x_in and ids of a layer are planned by model.c). forward: x -> out, keeping what backward needs in the
 * slot.
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
/* Of all tokens. out += ; dx overwritten */
ap_status ap_moe_forward(struct ap_model *m, struct layer *L, ap_tensor x, ap_tensor out);
ap_status ap_moe_backward(struct ap_model *m, struct layer *L, ap_tensor dout, ap_tensor x, ap_tensor dx);

/* moe_exchange.c, with expert parallelism. Rows xs [N*K, h] sorted by expert of this micro-batch -> rows of the own
 * experts from all ranks, in ex.xs; and a tensor of such rows back to where they came from (to [N*K, h]). */
void ap_moe_exchange_plan(struct ap_model *m, struct exchange_saved *ex);
ap_status ap_moe_exchange_counts(struct ap_model *m, struct layer *L);
ap_status ap_moe_exchange_out(struct ap_model *m, struct exchange_saved *ex, ap_tensor xs, ap_tensor to);
ap_status ap_moe_exchange_back(struct ap_model *m, struct exchange_saved *ex, ap_tensor from, ap_tensor xs);

void ap_block_plan(struct ap_model *m, struct layer *L);
ap_status ap_block_forward(struct ap_model *m, struct layer *L, ap_tensor out);
ap_status ap_block_backward(struct ap_model *m, struct layer *L, ap_tensor dx);

/* Final norm, head, cross-entropy. own_targets: those in the own part of the vocabulary. With gradients: dx overwritten
 * with d loss / d x. */
void ap_head_plan(struct ap_model *m, struct head_saved *s);
ap_status ap_head_step(struct ap_model *m, struct head_saved *s, ap_tensor x, int64_t norm, ap_tensor targets,
                       ap_tensor own_targets, ap_tensor token_loss, double weight, int64_t sum_index, ap_tensor dx);

void ap_mtp_plan(struct ap_model *m, struct late *w);
/* Forward and backward of the MTP module; dx (gradient of the main model's output) +=. */
ap_status ap_mtp_step(struct ap_model *m, const struct ap_batch *batch, int64_t *mtp_tokens_p, ap_tensor dx);

#endif
