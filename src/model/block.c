/* SPDX-License-Identifier: Apache-2.0
 * One transformer block, pre-norm: x += attention(rms(x)); x += mlp(rms(x)). */
#include "config.h"

#include "model/model_internal.h"

void ap_block_plan(struct ap_model *m, struct layer *L)
{
    struct layer_saved *s = &L->s;
    int64_t N = m->tokens, h = m->cfg.hidden_size;
    s->x_mid = new2(m, m->dt, N, h);
    s->xn1 = new2(m, m->dt, N, h);
    s->xn2 = new2(m, m->dt, N, h);
    s->rstd1 = new1(m, m->stat, N);
    s->rstd2 = new1(m, m->stat, N);
    ap_mla_plan(m, L);
    if (L->moe)
        ap_moe_plan_memory(m, L);
    else
        ap_mlp_plan(m, &s->dense, N, m->cfg.intermediate_size);
}

static ap_status attention_forward(struct ap_model *m, struct layer *L)
{
    struct layer_saved *s = &L->s;
    OP(m, rmsnorm_fwd, .x = s->x_in, .w = w1(m, L->par.input_norm, m->cfg.hidden_size), .y = s->xn1, .rstd = s->rstd1,
       .eps = m->cfg.rms_eps);
    AP_TRY(ap_model_copy(m, s->x_mid, s->x_in));
    return ap_mla_forward(m, L);
}

static ap_status mlp_forward(struct ap_model *m, struct layer *L, ap_tensor out)
{
    struct layer_saved *s = &L->s;
    if (!planning(m)) {
        OP(m, rmsnorm_fwd, .x = s->x_mid, .w = w1(m, L->par.post_norm, m->cfg.hidden_size), .y = s->xn2,
           .rstd = s->rstd2, .eps = m->cfg.rms_eps);
        AP_TRY(ap_model_copy(m, out, s->x_mid));
    }
    if (L->moe)
        return ap_moe_forward(m, L, s->xn2, out);
    return planning(m) ? AP_OK : ap_mlp_forward(m, &s->dense, s->xn2, L->par.gate_up, L->par.down, out);
}

static ap_status mlp_backward(struct ap_model *m, struct layer *L, ap_tensor dx, ap_tensor dxn)
{
    struct layer_saved *s = &L->s;
    if (L->moe)
        AP_TRY(ap_moe_backward(m, L, dx, s->xn2, dxn));
    else
        AP_TRY(ap_mlp_backward(m, &s->dense, dx, s->xn2, L->par.gate_up, L->par.down, dxn));
    if (!planning(m))
        OP(m, rmsnorm_bwd, .dy = dxn, .x = s->x_mid, .w = w1(m, L->par.post_norm, m->cfg.hidden_size), .rstd = s->rstd2,
           .dx = dx, .dw = g1(m, L->par.post_norm, m->cfg.hidden_size), .accumulate = 1);
    return AP_OK;
}

static ap_status attention_backward(struct ap_model *m, struct layer *L, ap_tensor dx, ap_tensor dxn)
{
    struct layer_saved *s = &L->s;
    AP_TRY(ap_mla_backward(m, L, dx, dxn));
    if (!planning(m))
        OP(m, rmsnorm_bwd, .dy = dxn, .x = s->x_in, .w = w1(m, L->par.input_norm, m->cfg.hidden_size), .rstd = s->rstd1,
           .dx = dx, .dw = g1(m, L->par.input_norm, m->cfg.hidden_size), .accumulate = 1);
    return AP_OK;
}

ap_status ap_block_forward(struct ap_model *m, struct layer *L, ap_tensor out)
{
    int64_t layer = L - m->layers;
    double begin = ap_trace_begin(m->be->trace);
    if (!planning(m))
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
    ap_tensor dxn = new2(m, m->dt, m->tokens, m->cfg.hidden_size);
    SPAN(m, L->moe ? "MoE backward" : "MLP backward", "layer", layer, mlp_backward(m, L, dx, dxn));
    SPAN(m, "attention backward", "layer", layer, attention_backward(m, L, dx, dxn));
    ap_trace_end(m->be->trace, "model", "layer backward", "layer", layer, begin);
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
