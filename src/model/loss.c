/* SPDX-License-Identifier: Apache-2.0
 * Final norm, output head and cross-entropy; the logits become their own gradient in place. With tensor parallelism
 * each process has the logits of its part of the vocabulary for all tokens, and the row maxima and sums of all are
 * joined. */
#include "config.h"

#include "model/model_internal.h"

#define PART_WIDTH 3 /* numbers per token in what the processes of a tensor group exchange */

void ap_head_plan(struct ap_model *m, struct head_saved *s)
{
    int64_t own = m->own_tokens, h = m->cfg.hidden_size;
    s->xf = new2(m, m->dt, own, h);
    s->rstd = new1(m, m->stat, own);
    s->xf_all = tensor_size(m) > 1 ? new2(m, m->dt, m->tokens, h) : s->xf;
}

static ap_status cross_entropy(struct ap_model *m, ap_tensor logits, ap_tensor targets, ap_tensor own_targets,
                               ap_tensor token_loss, double weight)
{
    ap_tensor dlogits = {0}; /* logits a caller wants to read stay apart from their gradient */
    if (m->with_grads)
        dlogits = logits;
    if (tensor_size(m) == 1) {
        OP(m, cross_entropy, .logits = logits, .targets = targets, .loss = token_loss, .dlogits = dlogits,
           .weight = weight);
        return AP_OK;
    }
    int64_t N = m->tokens, P = tensor_size(m);
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor part = new2(m, m->stat, N, PART_WIDTH), parts = new3(m, m->stat, P, N, PART_WIDTH);
    OP(m, cross_entropy_part, .logits = logits, .targets = own_targets, .part = part);
    if (!planning(m)) {
        int64_t *rows = m->token_rows + P; /* every rank has all tokens */
        AP_TRY(ap_exchange_gather(m->tensor, part, rows, view2(parts, P * N, PART_WIDTH)));
    }
    OP(m, cross_entropy_join, .parts = parts, .logits = logits, .local_targets = own_targets, .has_target = targets,
       .loss = token_loss, .dlogits = dlogits, .weight = weight);
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

static ap_status backward(struct ap_model *m, struct head_saved *s, ap_tensor x, int64_t norm, ap_tensor dx)
{
    int64_t h = m->cfg.hidden_size;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor dxf = new2(m, m->dt, m->own_tokens, h);
    if (tensor_size(m) == 1) {
        AP_TRY(ap_linear_bwd(m, s->logits, s->xf, m->off_head, dxf, 0));
    } else {
        ap_tensor part = new2(m, m->dt, m->tokens, h);
        AP_TRY(ap_linear_bwd(m, s->logits, s->xf_all, m->off_head, part, 0));
        AP_TRY(ap_tensor_sum(m, part, dxf, 0));
    }
    AP_TRY(ap_norm_bwd(m, norm, (struct ap_rmsnorm_bwd_args){.dy = dxf, .x = x, .rstd = s->rstd, .dx = dx}));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

ap_status ap_head_step(struct ap_model *m, struct head_saved *s, ap_tensor x, int64_t norm, ap_tensor targets,
                       ap_tensor own_targets, ap_tensor token_loss, double weight, int64_t sum_index, ap_tensor dx)
{
    int64_t h = m->cfg.hidden_size;
    OP(m, rmsnorm_fwd, .x = x, .w = w1(m, norm, h), .y = s->xf, .rstd = s->rstd, .eps = m->cfg.rms_eps);
    if (tensor_size(m) > 1)
        AP_TRY(ap_tensor_gather(m, s->xf, s->xf_all));
    AP_TRY(ap_linear_fwd(m, s->xf_all, m->off_head, m->vocab, h, s->logits, 0));
    AP_TRY(cross_entropy(m, s->logits, targets, own_targets, token_loss, weight));
    OP(m, sum_tokens, .x = token_loss, .out = ap_tensor_1d(elem(m->cur->sums, sum_index), AP_F64, 1));
    return m->with_grads ? backward(m, s, x, norm, dx) : AP_OK;
}
