/* SPDX-License-Identifier: Apache-2.0
 * Mixture of experts (V3 report 2.1.2): router, dispatch to rows sorted by expert, grouped expert MLPs,
 * weighted combine, one shared MLP. No token is dropped.
 *
 *   out += shared(x) + sum_k gate_k * expert_{id_k}(x)
 *
 * With tensor parallelism every process routes all tokens and has its columns of each expert: out, dx and the router's
 * gradient are parts. With expert parallelism the sorted rows go to the processes that have their experts and back. */
#include "config.h"

#include "model/model_internal.h"

static int has_exchange(const struct ap_model *m)
{
    return m->part.expert_size > 1;
}

void ap_moe_plan_memory(struct ap_model *m, struct layer *L)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    int64_t N = m->tokens, E = c->routed_experts, K = c->experts_per_token, rows = N * K;
    s->scores = new2(m, m->stat, N, E);
    s->gates = new2(m, m->stat, N, K);
    s->dscores = new2(m, m->stat, N, E);
    s->offsets = new1(m, AP_I32, E + 1);
    s->row_of = new2(m, AP_I32, N, K);
    s->token_of = new1(m, AP_I32, N * K);
    if (has_exchange(m)) {
        ap_moe_exchange_plan(m, &s->ex);
        rows = ap_moe_capacity(m);
    } else {
        s->xs = new2(m, m->dt, N * K, c->hidden_size);
    }
    s->ys = new2(m, m->dt, N * K, c->hidden_size);
    ap_mlp_plan(m, &s->expert, rows, m->moe_width);
    if (c->shared_experts)
        ap_mlp_plan(m, &s->shared, N, m->moe_width * c->shared_experts);
}

static int has_balance(const struct ap_model *m)
{
    return m->lw.seq_balance != 0.0 || m->lw.device_balance != 0.0 || m->lw.comm_balance != 0.0;
}

/* Loss terms that keep experts evenly used, and their gradient with respect to the scores. */
static ap_status balance(struct ap_model *m, struct layer *L)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    ap_tensor loss = ap_tensor_1d(elem(m->cur->sums, m->recomputing ? 3 : 2), AP_F64, 1);
    int64_t per_device = c->device_groups ? c->routed_experts / c->device_groups : 0;
    OP(m, seq_balance, .scores = s->scores, .ids = s->ids, .dscores = s->dscores, .loss = loss,
       .seqs = m->opt.micro_sequences, .kind = c->gate_kind, .weight = m->lw.seq_balance);
    if (m->lw.device_balance != 0.0 && per_device)
        OP(m, seq_balance, .scores = s->scores, .ids = s->ids, .dscores = s->dscores, .loss = loss,
           .seqs = m->opt.micro_sequences, .kind = c->gate_kind, .accumulate_dscores = 1, .group_size = per_device,
           .weight = m->lw.device_balance);
    if (m->lw.comm_balance != 0.0 && per_device && c->device_groups_kept)
        OP(m, seq_balance, .scores = s->scores, .ids = s->ids, .dscores = s->dscores, .loss = loss,
           .seqs = m->opt.micro_sequences, .kind = c->gate_kind, .accumulate_dscores = 1, .group_size = per_device,
           .comm_groups_kept = c->device_groups_kept, .weight = m->lw.comm_balance);
    return AP_OK;
}

static ap_status route(struct ap_model *m, struct layer *L, ap_tensor x)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    int64_t E = c->routed_experts;
    ap_tensor bias = {0};
    if (!planning(m) && m->b->router_bias.data)
        bias = ap_tensor_1d(elem(m->b->router_bias, L->router_index * E), m->stat, E);
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor logits = new2(m, m->stat, m->tokens, E);
    AP_TRY(ap_linear_fwd(m, x, L->par.router, E, c->hidden_size, logits, 0));
    OP(m, router_fwd, .logits = logits, .bias = bias, .scores = s->scores, .ids = s->ids, .gates = s->gates,
       .counts = ap_tensor_1d(elem(m->cur->counts, L->router_index * E), AP_I32, E), .kind = c->gate_kind,
       .groups = (int)c->groups, .groups_kept = (int)c->groups_kept, .norm_topk = c->norm_topk,
       .scaling = c->routed_scaling);
    OP(m, moe_plan, .ids = s->ids, .offsets = s->offsets, .row_of = s->row_of, .token_of = s->token_of);
    if (has_balance(m))
        AP_TRY(balance(m, L));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

/* Rows of the own experts, sorted by expert: their offsets. */
static ap_tensor offsets_of(const struct ap_model *m, const struct layer_saved *s)
{
    return has_exchange(m) ? s->ex.offsets : s->offsets;
}

/* One grouped linear map over the own experts: y = x W^T (forward) or x W. */
static ap_status grouped(struct ap_model *m, struct layer *L, ap_tensor x, int64_t off, int64_t stride, int64_t out,
                         int64_t in, ap_tensor y, int forward)
{
    ap_tensor w = ap_tensor_3d(weight(m, off), m->dt, m->experts, out, in);
    OP(m, grouped_gemm, .x = x, .w = w, .y = y, .offsets = offsets_of(m, saved(m, L)), .w_stride = stride,
       .trans_w = forward);
    return AP_OK;
}

static ap_status grouped_wgrad(struct ap_model *m, struct layer *L, ap_tensor dy, ap_tensor x, int64_t off,
                               int64_t stride)
{
    return ap_weight_gradient(m, &(struct late_work){.kind = LATE_GROUPED,
                                                     .off = off,
                                                     .stride = stride,
                                                     .dy = dy,
                                                     .x = x,
                                                     .offsets = offsets_of(m, saved(m, L))});
}

/* The first rows of a tensor that has room for more. */
static ap_tensor rows_of(const struct ap_model *m, const struct layer_saved *s, ap_tensor t)
{
    return has_exchange(m) && !planning(m) ? view2(t, s->ex.rows, t.shape[1]) : t;
}

/* The experts' rows [., h]: y of x. */
static ap_status experts_forward(struct ap_model *m, struct layer *L, ap_tensor x, ap_tensor y)
{
    struct layer_saved *s = saved(m, L);
    const struct layer_params *p = &L->par;
    int64_t h = m->cfg.hidden_size, I = m->moe_width;
    ap_tensor gate_up = rows_of(m, s, s->expert.gate_up), act = rows_of(m, s, s->expert.act);
    AP_TRY(grouped(m, L, x, p->e_gate_up, p->e_gate_up_stride, 2 * I, h, gate_up, 1));
    OP(m, swiglu_fwd, .gate_up = gate_up, .y = act);
    return grouped(m, L, act, p->e_down, p->e_down_stride, h, I, y, 1);
}

/* s->ys from x: dispatched, through the experts wherever they are, and back. */
static ap_status routed_forward(struct ap_model *m, struct layer *L, ap_tensor x)
{
    struct layer_saved *s = saved(m, L);
    int64_t h = m->cfg.hidden_size;
    if (!has_exchange(m)) {
        OP(m, moe_dispatch_fwd, .x = x, .token_of = s->token_of, .xs = s->xs);
        return experts_forward(m, L, s->xs, s->ys);
    }
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor xs = new2(m, m->dt, s->ys.shape[0], h), y = new2(m, m->dt, ap_moe_capacity(m), h);
    OP(m, moe_dispatch_fwd, .x = x, .token_of = s->token_of, .xs = xs);
    AP_TRY(ap_moe_exchange_counts(m, L));
    AP_TRY(ap_moe_exchange_out(m, &s->ex, xs, s->ex.xs));
    AP_TRY(experts_forward(m, L, rows_of(m, s, s->ex.xs), rows_of(m, s, y)));
    AP_TRY(ap_moe_exchange_back(m, &s->ex, y, s->ys));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

ap_status ap_moe_forward(struct ap_model *m, struct layer *L, ap_tensor x, ap_tensor out)
{
    struct layer_saved *s = saved(m, L);
    AP_TRY(route(m, L, x));
    if (m->cfg.shared_experts)
        AP_TRY(ap_mlp_forward(m, &s->shared, x, L->par.s_gate_up, L->par.s_down, out));
    AP_TRY(routed_forward(m, L, x));
    OP(m, moe_combine_fwd, .ys = s->ys, .gates = s->gates, .row_of = s->row_of, .out = out);
    return AP_OK;
}

/* The experts' rows [., h]: dx of dy, which may be the same memory. x: their inputs. */
static ap_status experts_backward(struct ap_model *m, struct layer *L, ap_tensor dy, ap_tensor x, ap_tensor dx)
{
    struct layer_saved *s = saved(m, L);
    const struct layer_params *p = &L->par;
    int64_t h = m->cfg.hidden_size, I = m->moe_width, room = s->expert.act.shape[0];
    ap_tensor gate_up = rows_of(m, s, s->expert.gate_up), act = rows_of(m, s, s->expert.act);
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor dact = rows_of(m, s, new2(m, m->dt, room, I)), dgu = rows_of(m, s, dy2(m, m->dt, room, 2 * I));
    AP_TRY(grouped_wgrad(m, L, dy, act, p->e_down, p->e_down_stride));
    AP_TRY(grouped(m, L, dy, p->e_down, p->e_down_stride, h, I, dact, 0));
    OP(m, swiglu_bwd, .dy = dact, .gate_up = gate_up, .dgate_up = dgu);
    AP_TRY(grouped_wgrad(m, L, dgu, x, p->e_gate_up, p->e_gate_up_stride));
    AP_TRY(grouped(m, L, dgu, p->e_gate_up, p->e_gate_up_stride, 2 * I, h, dx, 0)); /* dx may be dy, used up */
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

/* Where the gradient of the experts' inputs goes: over that of their outputs, unless it is still needed. */
static ap_tensor beside(struct ap_model *m, ap_tensor dy)
{
    return is_split(m) ? new2(m, dy.dtype, dy.shape[0], dy.shape[1]) : dy;
}

/* The expert path: dx += . */
static ap_status routed_backward(struct ap_model *m, struct layer *L, ap_tensor dout, ap_tensor dgates, ap_tensor dx)
{
    struct layer_saved *s = saved(m, L);
    int64_t h = m->cfg.hidden_size;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor dys = has_exchange(m) ? new2(m, m->dt, s->ys.shape[0], h) : dy2(m, m->dt, s->ys.shape[0], h), dxs;
    OP(m, moe_combine_bwd, .dout = dout, .ys = s->ys, .gates = s->gates, .row_of = s->row_of, .dys = dys,
       .dgates = dgates);
    if (has_exchange(m)) {
        ap_tensor there = dy2(m, m->dt, ap_moe_capacity(m), h), back = beside(m, there);
        AP_TRY(ap_moe_exchange_out(m, &s->ex, dys, there));
        AP_TRY(experts_backward(m, L, rows_of(m, s, there), rows_of(m, s, s->ex.xs), rows_of(m, s, back)));
        AP_TRY(ap_moe_exchange_back(m, &s->ex, back, dys));
        dxs = dys;
    } else {
        dxs = beside(m, dys);
        AP_TRY(experts_backward(m, L, dys, s->xs, dxs));
    }
    OP(m, moe_dispatch_bwd, .dxs = dxs, .row_of = s->row_of, .dx = dx);
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

ap_status ap_moe_backward(struct ap_model *m, struct layer *L, ap_tensor dout, ap_tensor x, ap_tensor dx)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor dgates = new2(m, m->stat, m->tokens, c->experts_per_token);
    ap_tensor operand = dy2(m, m->dt, m->tokens, c->routed_experts), dlogits = operand;
    if (m->dt != m->stat) /* both operands of a product have one type */
        dlogits = new2(m, m->stat, m->tokens, c->routed_experts);
    if (c->shared_experts)
        AP_TRY(ap_mlp_backward(m, &s->shared, dout, x, L->par.s_gate_up, L->par.s_down, dx));
    else
        AP_TRY(ap_model_zero(m, dx));
    AP_TRY(routed_backward(m, L, dout, dgates, dx));
    ap_tensor extra = {0};
    if (has_balance(m) && m->part.tensor_rank == 0) /* once in the sum of the parts */
        extra = s->dscores;
    OP(m, router_bwd, .scores = s->scores, .ids = s->ids, .gates = s->gates, .dgates = dgates, .dscores_extra = extra,
       .dlogits = dlogits, .kind = c->gate_kind, .norm_topk = c->norm_topk, .scaling = c->routed_scaling);
    if (m->dt != m->stat)
        OP(m, cast, .src = dlogits, .dst = operand);
    AP_TRY(ap_linear_bwd(m, operand, x, L->par.router, dx, 1));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
