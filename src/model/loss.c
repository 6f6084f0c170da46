/* SPDX-License-Identifier: Apache-2.0
 * Final norm, output head and cross-entropy; the logits become their own gradient in place. */
#include "config.h"

#include "model/model_internal.h"

ap_status ap_head_step(struct ap_model *m, struct head_saved *s, ap_tensor x, int64_t norm, ap_tensor targets,
                       ap_tensor token_loss, double weight, int64_t sum_index, ap_tensor dx)
{
    int64_t h = m->cfg.hidden_size, V = m->cfg.vocab_size;
    size_t mark = ap_arena_mark(&m->arena);
    /* Logits a caller wants to read stay apart from their gradient. */
    ap_tensor dlogits = m->logits;
    ap_tensor dxf = {0};
    if (!m->opt.forward_only)
        dxf = new2(m, m->dt, m->tokens, h);
    if (planning(m)) {
        ap_arena_reset(&m->arena, mark);
        return AP_OK;
    }
    OP(m, rmsnorm_fwd, .x = x, .w = w1(m, norm, h), .y = s->xf, .rstd = s->rstd, .eps = m->cfg.rms_eps);
    AP_TRY(ap_linear_fwd(m, s->xf, m->off_head, V, h, m->logits, 0));
    if (!with_grads(m))
        dlogits.data = NULL;
    OP(m, cross_entropy, .logits = m->logits, .targets = targets, .loss = token_loss, .dlogits = dlogits,
       .weight = weight);
    OP(m, sum_tokens, .x = token_loss, .out = ap_tensor_1d(elem(m->sums, sum_index), AP_F64, 1));
    if (with_grads(m)) {
        AP_TRY(ap_linear_bwd(m, dlogits, s->xf, m->off_head, dxf, 0));
        OP(m, rmsnorm_bwd, .dy = dxf, .x = x, .w = w1(m, norm, h), .rstd = s->rstd, .dx = dx, .dw = g1(m, norm, h));
    }
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
