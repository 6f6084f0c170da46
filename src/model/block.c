/* SPDX-License-Identifier: Apache-2.0
 * One transformer block, pre-norm: x += attention(rms(x)); x += mlp(rms(x)). The residual stream and the norms are of
 * the own tokens; the MLP works on all tokens with its own columns. */
#include "config.h"

#include "model/model_internal.h"

void ap_block_plan(struct ap_model *m, struct layer *L)
{
    struct layer_saved *s = saved(m, L);
    int64_t own = m->own_tokens, h = m->cfg.hidden_size;
    s->x_mid = new2(m, m->dt, own, h);
    s->xn1 = new2(m, m->dt, own, h);
    s->xn2 = new2(m, m->dt, own, h);
    s->rstd1 = new1(m, m->stat, own);
    s->rstd2 = new1(m, m->stat, own);
    s->xn2_all = tensor_size(m) > 1 ? new2(m, m->dt, m->tokens, h) : s->xn2;
    ap_mla_plan(m, L);
    if (L->moe)
        ap_moe_plan_memory(m, L);
    else
        ap_mlp_plan(m, &s->dense, m->tokens, m->dense_width);
}

static ap_status attention_forward(struct ap_model *m, struct layer *L)
{
    struct layer_saved *s = saved(m, L);
    OP(m, rmsnorm_fwd, .x = s->x_in, .w = w1(m, L->par.input_norm, m->cfg.hidden_size), .y = s->xn1, .rstd = s->rstd1,
       .eps = m->cfg.rms_eps);
    AP_TRY(ap_model_copy(m, s->x_mid, s->x_in));
    return ap_mla_forward(m, L);
}

/* out += the MLP or the experts of x, all tokens */
static ap_status feed_forward(struct ap_model *m, struct layer *L, ap_tensor out)
{
    struct layer_saved *s = saved(m, L);
    return L->moe ? ap_moe_forward(m, L, s->xn2_all, out)
                  : ap_mlp_forward(m, &s->dense, s->xn2_all, L->par.gate_up, L->par.down, out);
}

static ap_status mlp_forward(struct ap_model *m, struct layer *L, ap_tensor out)
{
    struct layer_saved *s = saved(m, L);
    OP(m, rmsnorm_fwd, .x = s->x_mid, .w = w1(m, L->par.post_norm, m->cfg.hidden_size), .y = s->xn2, .rstd = s->rstd2,
       .eps = m->cfg.rms_eps);
    AP_TRY(ap_model_copy(m, out, s->x_mid));
    if (tensor_size(m) == 1)
        return feed_forward(m, L, out);
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor part = new2(m, m->dt, m->tokens, m->cfg.hidden_size);
    AP_TRY(ap_tensor_gather(m, s->xn2, s->xn2_all));
    AP_TRY(ap_model_zero(m, part));
    AP_TRY(feed_forward(m, L, part));
    AP_TRY(ap_tensor_sum(m, part, out, 1));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

/* dx: gradient of all tokens' output; dxn overwritten */
static ap_status feed_backward(struct ap_model *m, struct layer *L, ap_tensor dx, ap_tensor dxn)
{
    struct layer_saved *s = saved(m, L);
    return L->moe ? ap_moe_backward(m, L, dx, s->xn2_all, dxn)
                  : ap_mlp_backward(m, &s->dense, dx, s->xn2_all, L->par.gate_up, L->par.down, dxn);
}

static ap_status mlp_backward(struct ap_model *m, struct layer *L, ap_tensor dx, ap_tensor dxn)
{
    struct layer_saved *s = saved(m, L);
    if (tensor_size(m) == 1) {
        ap_tensor dout;
        AP_TRY(ap_keep(m, dx, &dout));
        AP_TRY(feed_backward(m, L, dout, dxn));
    } else {
        size_t mark = ap_arena_mark(&m->arena);
        ap_tensor all = dy2(m, m->dt, m->tokens, m->cfg.hidden_size);
        ap_tensor part = new2(m, m->dt, m->tokens, m->cfg.hidden_size);
        AP_TRY(ap_tensor_gather(m, dx, all));
        AP_TRY(feed_backward(m, L, all, part));
        AP_TRY(ap_tensor_sum(m, part, dxn, 0));
        ap_arena_reset(&m->arena, mark);
    }
    return ap_norm_bwd(
        m, L->par.post_norm,
        (struct ap_rmsnorm_bwd_args){.dy = dxn, .x = s->x_mid, .rstd = s->rstd2, .dx = dx, .accumulate = 1});
}

static ap_status attention_backward(struct ap_model *m, struct layer *L, ap_tensor dx, ap_tensor dxn)
{
    struct layer_saved *s = saved(m, L);
    AP_TRY(ap_mla_backward(m, L, dx, dxn));
    return ap_norm_bwd(
        m, L->par.input_norm,
        (struct ap_rmsnorm_bwd_args){.dy = dxn, .x = s->x_in, .rstd = s->rstd1, .dx = dx, .accumulate = 1});
}

ap_status ap_block_forward(struct ap_model *m, struct layer *L, ap_tensor out)
{
    int64_t layer = L - m->layers;
    double begin = ap_trace_begin(m->be->trace);
    SPAN(m, "attention forward", "layer", layer, attention_forward(m, L));
    SPAN(m, L->moe ? "MoE forward" : "MLP forward", "layer", layer, mlp_forward(m, L, out));
    ap_trace_end(m->be->trace, "model", m->recomputing ? "layer again" : "layer forward", "layer", layer, begin);
    return AP_OK;
}

ap_status ap_block_backward(struct ap_model *m, struct layer *L, ap_tensor dx)
{
    int64_t layer = L - m->layers;
    size_t mark = ap_arena_mark(&m->arena);
    double begin = ap_trace_begin(m->be->trace);
    ap_tensor dxn = new2(m, m->dt, m->own_tokens, m->cfg.hidden_size);
    SPAN(m, L->moe ? "MoE backward" : "MLP backward", "layer", layer, mlp_backward(m, L, dx, dxn));
    SPAN(m, "attention backward", "layer", layer, attention_backward(m, L, dx, dxn));
    ap_trace_end(m->be->trace, "model", "layer backward", "layer", layer, begin);
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
