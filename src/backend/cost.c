/* SPDX-License-Identifier: Apache-2.0
 * Lower bounds of work and traffic, one function per operation, found by AP_OPS. */
#include "config.h"

#include "backend/cost.h"

static double size_of(const ap_tensor *t)
{
    return t->data ? (double)ap_tensor_count(t) * (double)ap_dtype_size(t->dtype) : 0.0;
}

static double elements(const ap_tensor *t)
{
    return (double)ap_tensor_count(t);
}

static struct ap_op_cost cost_gemm(const struct ap_gemm_args *a)
{
    double k = (double)a->a.shape[a->trans_a ? 0 : 1];
    double c = size_of(&a->c) * (a->accumulate ? 2 : 1);
    return (struct ap_op_cost){2.0 * elements(&a->c) * k, size_of(&a->a) + size_of(&a->b) + c};
}

static struct ap_op_cost cost_grouped_gemm(const struct ap_grouped_gemm_args *a)
{
    double flops = 2.0 * (double)a->x.shape[0] * (double)a->w.shape[1] * (double)a->w.shape[2];
    return (struct ap_op_cost){flops, size_of(&a->x) + size_of(&a->w) + size_of(&a->y) * (a->accumulate ? 2 : 1)};
}

static struct ap_op_cost cost_grouped_wgrad(const struct ap_grouped_wgrad_args *a)
{
    double flops = 2.0 * elements(&a->dy) * (double)a->x.shape[1];
    return (struct ap_op_cost){flops, size_of(&a->dy) + size_of(&a->x) + 2 * size_of(&a->dw)};
}

/* Ids are not read: embeddings are counted as if every row were held here. */
static struct ap_op_cost cost_embed_fwd(const struct ap_embed_fwd_args *a)
{
    return (struct ap_op_cost){0, size_of(&a->ids) + 2 * size_of(&a->out)};
}

static struct ap_op_cost cost_embed_bwd(const struct ap_embed_bwd_args *a)
{
    return (struct ap_op_cost){elements(&a->dout), size_of(&a->ids) + 3 * size_of(&a->dout)};
}

static struct ap_op_cost cost_rmsnorm_fwd(const struct ap_rmsnorm_fwd_args *a)
{
    return (struct ap_op_cost){4 * elements(&a->x), size_of(&a->x) + size_of(&a->y) + size_of(&a->rstd)};
}

static struct ap_op_cost cost_rmsnorm_bwd(const struct ap_rmsnorm_bwd_args *a)
{
    double dx = size_of(&a->dx) * (a->accumulate ? 2 : 1);
    return (struct ap_op_cost){9 * elements(&a->x), size_of(&a->x) + size_of(&a->dy) + dx};
}

static struct ap_op_cost cost_rope(const struct ap_rope_args *a)
{
    double turned = (double)a->x.shape[0] * (double)a->x.shape[1] * (double)a->r;
    return (struct ap_op_cost){3 * turned, 2 * turned * (double)ap_dtype_size(a->x.dtype)};
}

/* Pairs (query, key) of the causal triangle, all heads, without document boundaries. */
static double pairs(const ap_tensor *q, int64_t seqs)
{
    double T = (double)q->shape[0] / (double)(seqs ? seqs : 1);
    return (double)seqs * (double)q->shape[1] * T * (T + 1) / 2;
}

static struct ap_op_cost cost_mla_attn_fwd(const struct ap_mla_attn_fwd_args *a)
{
    double flops = 2.0 * pairs(&a->q, a->seqs) * (double)(a->n + a->r + a->v);
    return (struct ap_op_cost){flops, size_of(&a->q) + size_of(&a->kv) + size_of(&a->kr) + size_of(&a->out)};
}

static struct ap_op_cost cost_mla_attn_bwd(const struct ap_mla_attn_bwd_args *a)
{
    /* scores again, dP, then dV, dQ, dK */
    double flops = 2.0 * pairs(&a->q, a->seqs) * (double)(3 * (a->n + a->r) + 2 * a->v);
    double io = 2 * (size_of(&a->q) + size_of(&a->kv) + size_of(&a->kr) + size_of(&a->out));
    return (struct ap_op_cost){flops, io};
}

static struct ap_op_cost cost_swiglu_fwd(const struct ap_swiglu_fwd_args *a)
{
    return (struct ap_op_cost){4 * elements(&a->y), size_of(&a->gate_up) + size_of(&a->y)};
}

static struct ap_op_cost cost_swiglu_bwd(const struct ap_swiglu_bwd_args *a)
{
    return (struct ap_op_cost){10 * elements(&a->dy), size_of(&a->dy) + 2 * size_of(&a->gate_up)};
}

static struct ap_op_cost cost_router_fwd(const struct ap_router_fwd_args *a)
{
    return (struct ap_op_cost){4 * elements(&a->logits),
                               size_of(&a->logits) + size_of(&a->scores) + size_of(&a->gates)};
}

static struct ap_op_cost cost_router_bwd(const struct ap_router_bwd_args *a)
{
    return (struct ap_op_cost){4 * elements(&a->scores), size_of(&a->scores) + size_of(&a->dlogits)};
}

static struct ap_op_cost cost_seq_balance(const struct ap_seq_balance_args *a)
{
    return (struct ap_op_cost){4 * elements(&a->scores), 2 * size_of(&a->scores)};
}

static struct ap_op_cost cost_moe_plan(const struct ap_moe_plan_args *a)
{
    return (struct ap_op_cost){0, 2 * size_of(&a->ids) + size_of(&a->row_of) + size_of(&a->token_of)};
}

static struct ap_op_cost cost_moe_dispatch_fwd(const struct ap_moe_dispatch_fwd_args *a)
{
    return (struct ap_op_cost){0, size_of(&a->x) + size_of(&a->xs)};
}

static struct ap_op_cost cost_moe_dispatch_bwd(const struct ap_moe_dispatch_bwd_args *a)
{
    return (struct ap_op_cost){elements(&a->dxs), size_of(&a->dxs) + 2 * size_of(&a->dx)};
}

static struct ap_op_cost cost_moe_combine_fwd(const struct ap_moe_combine_fwd_args *a)
{
    return (struct ap_op_cost){2 * elements(&a->ys), size_of(&a->ys) + 2 * size_of(&a->out)};
}

static struct ap_op_cost cost_moe_combine_bwd(const struct ap_moe_combine_bwd_args *a)
{
    return (struct ap_op_cost){3 * elements(&a->ys), 2 * size_of(&a->ys) + size_of(&a->dout)};
}

static struct ap_op_cost cost_split_cols(const struct ap_split_cols_args *a)
{
    double n = (double)a->src.shape[0] * (double)a->cols * (double)ap_dtype_size(a->src.dtype);
    return (struct ap_op_cost){0, n * (a->accumulate ? 3 : 2)};
}

static struct ap_op_cost cost_cross_entropy(const struct ap_cross_entropy_args *a)
{
    return (struct ap_op_cost){4 * elements(&a->logits), size_of(&a->logits) + size_of(&a->dlogits)};
}

static struct ap_op_cost cost_cross_entropy_part(const struct ap_cross_entropy_part_args *a)
{
    return (struct ap_op_cost){3 * elements(&a->logits),
                               size_of(&a->logits) + size_of(&a->targets) + size_of(&a->part)};
}

/* Without dlogits the logits are not looked at. */
static struct ap_op_cost cost_cross_entropy_join(const struct ap_cross_entropy_join_args *a)
{
    double io = size_of(&a->parts) + size_of(&a->local_targets) + size_of(&a->has_target) + size_of(&a->loss);
    double gradient = a->dlogits.data ? elements(&a->logits) : 0;
    if (a->dlogits.data)
        io += size_of(&a->logits) + size_of(&a->dlogits);
    return (struct ap_op_cost){3 * gradient + 4 * elements(&a->parts) / 3, io};
}

static struct ap_op_cost cost_sum_tokens(const struct ap_sum_tokens_args *a)
{
    return (struct ap_op_cost){elements(&a->x), size_of(&a->x)};
}

static struct ap_op_cost cost_add(const struct ap_add_args *a)
{
    return (struct ap_op_cost){elements(&a->c), size_of(&a->a) + size_of(&a->b) + size_of(&a->c)};
}

static struct ap_op_cost cost_scale(const struct ap_scale_args *a)
{
    return (struct ap_op_cost){elements(&a->x), 2 * size_of(&a->x)};
}

static struct ap_op_cost cost_cast(const struct ap_cast_args *a)
{
    return (struct ap_op_cost){0, size_of(&a->src) + size_of(&a->dst)};
}

static struct ap_op_cost cost_sumsq(const struct ap_sumsq_args *a)
{
    return (struct ap_op_cost){2 * elements(&a->x), size_of(&a->x)};
}

static struct ap_op_cost cost_adamw(const struct ap_adamw_args *a)
{
    return (struct ap_op_cost){16 * elements(&a->w), 4 * size_of(&a->w) + 3 * size_of(&a->w_new) + size_of(&a->w_bf16)};
}

struct ap_op_cost ap_op_cost(enum ap_op_id op, const void *args)
{
    switch (op) {
#define CASE(name)                                                                                                     \
    case AP_OP_##name:                                                                                                 \
        return cost_##name(args);
        AP_OPS(CASE)
#undef CASE
    case AP_OP_COUNT:
        break;
    }
    return (struct ap_op_cost){0, 0};
}
