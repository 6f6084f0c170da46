/* SPDX-License-Identifier: Apache-2.0
 * Multi-token prediction (V3 report 2.2), depth 1: from the main model's output h_t (before the final norm)
 * and the embedding of token t+1, one more block predicts token t+2.
 *
 *   h' = M [enorm(Emb(token_{t+1})) | hnorm(h_t)];  block;  shared_head.norm;  shared head
 * Embedding first, as in the published checkpoints; embedding and head are the main model's. */
#include "config.h"

#include "model/model_internal.h"

void ap_mtp_plan(struct ap_model *m, struct late *w)
{
    struct mtp_saved *s = &w->mtp;
    int64_t N = m->tokens, own = m->own_tokens, h = m->cfg.hidden_size;
    s->ids = new1(m, AP_I32, N);
    s->targets = new1(m, AP_I32, N);
    s->own_targets = tensor_size(m) > 1 ? new1(m, AP_I32, N) : s->targets;
    s->emb = new2(m, m->dt, own, h);
    s->rstd_e = new1(m, m->stat, own);
    s->rstd_h = new1(m, m->stat, own);
    s->cat = new2(m, m->dt, own, 2 * h);
    ap_head_plan(m, &w->mtp_head);
    w->mtp_head.logits = is_split(m) ? new2(m, m->dt, N, m->vocab) : w->head.logits;
}

/* Inputs and targets from the main ones: position t reads token t+1 and predicts token t+2. Where the next
 * token belongs to another document there is no loss; the input is then the token itself. */
static int64_t shift_batch(struct ap_model *m, const struct ap_batch *b, int32_t *ids, int32_t *targets)
{
    int64_t T = m->opt.seq_len, N = m->tokens, n = 0;
    for (int64_t i = 0; i < N; i++) {
        int has_next = b->targets[i] >= 0;
        ids[i] = has_next ? b->targets[i] : b->tokens[i];
        targets[i] = has_next && i % T != T - 1 ? b->targets[i + 1] : -1;
        n += targets[i] >= 0;
    }
    return n;
}

static ap_status upload(struct ap_model *m, const struct ap_batch *b, int64_t *tokens_p)
{
    struct mtp_saved *s = &m->late->mtp;
    size_t bytes = (size_t)m->tokens * sizeof(int32_t);
    int32_t *ids = m->host_ids + 2 * m->tokens, *targets = ids + m->tokens, *own = targets + m->tokens;
    *tokens_p = shift_batch(m, b, ids, targets);
    if (tensor_size(m) > 1) {
        ap_own_ids(m, targets, own);
        AP_TRY(m->be->vt->copy(m->be->stream, s->own_targets.data, own, bytes));
        ap_own_ids(m, ids, ids);
    }
    AP_TRY(m->be->vt->copy(m->be->stream, s->ids.data, ids, bytes));
    return m->be->vt->copy(m->be->stream, s->targets.data, targets, bytes);
}

static ap_status forward(struct ap_model *m, struct layer *L, ap_tensor out)
{
    struct mtp_saved *s = &m->late->mtp;
    int64_t own = m->own_tokens, h = m->cfg.hidden_size;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor normed = new2(m, m->dt, own, h);
    AP_TRY(ap_embed_forward(m, s->ids, s->emb));
    OP(m, rmsnorm_fwd, .x = s->emb, .w = w1(m, m->mtp.enorm, h), .y = normed, .rstd = s->rstd_e, .eps = m->cfg.rms_eps);
    OP(m, split_cols, .src = normed, .dst = s->cat, .cols = h);
    OP(m, rmsnorm_fwd, .x = m->cur->x_out, .w = w1(m, m->mtp.hnorm, h), .y = normed, .rstd = s->rstd_h,
       .eps = m->cfg.rms_eps);
    OP(m, split_cols, .src = normed, .dst = s->cat, .dst_col = h, .cols = h);
    AP_TRY(ap_linear_fwd(m, s->cat, m->mtp.eh_proj, h, 2 * h, saved(m, L)->x_in, 0));
    ap_arena_reset(&m->arena, mark);
    return ap_block_forward(m, L, out);
}

/* dx_in: gradient of the block's input. dx: gradient of the main model's output, +=. */
static ap_status backward(struct ap_model *m, ap_tensor dx_in, ap_tensor dx)
{
    struct mtp_saved *s = &m->late->mtp;
    int64_t own = m->own_tokens, h = m->cfg.hidden_size;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor dcat = new2(m, m->dt, own, 2 * h), part = new2(m, m->dt, own, h), demb = new2(m, m->dt, own, h), dy;
    AP_TRY(ap_keep(m, dx_in, &dy));
    AP_TRY(ap_linear_bwd(m, dy, s->cat, m->mtp.eh_proj, dcat, 0));
    OP(m, split_cols, .src = dcat, .dst = part, .cols = h);
    AP_TRY(ap_norm_bwd(m, m->mtp.enorm,
                       (struct ap_rmsnorm_bwd_args){.dy = part, .x = s->emb, .rstd = s->rstd_e, .dx = demb}));
    AP_TRY(ap_embed_backward(m, s->ids, demb));
    OP(m, split_cols, .src = dcat, .dst = part, .src_col = h, .cols = h);
    AP_TRY(ap_norm_bwd(
        m, m->mtp.hnorm,
        (struct ap_rmsnorm_bwd_args){.dy = part, .x = m->cur->x_out, .rstd = s->rstd_h, .dx = dx, .accumulate = 1}));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

ap_status ap_mtp_step(struct ap_model *m, const struct ap_batch *batch, int64_t *mtp_tokens_p, ap_tensor dx)
{
    struct mtp_saved *s = &m->late->mtp;
    struct layer *L = &m->layers[m->cfg.layers];
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor out = new2(m, m->dt, m->own_tokens, m->cfg.hidden_size);
    if (!planning(m))
        AP_TRY(upload(m, batch, mtp_tokens_p));
    SPAN(m, "MTP forward", NULL, 0, forward(m, L, out));
    SPAN(m, "loss", NULL, 0,
         ap_head_step(m, &m->late->mtp_head, out, m->mtp.norm, s->targets, s->own_targets, m->mtp_token_loss, m->lw.mtp,
                      1, m->dx_mtp));
    if (m->with_grads) {
        double begin = ap_trace_begin(m->be->trace);
        AP_TRY(ap_block_backward(m, L, m->dx_mtp));
        AP_TRY(backward(m, m->dx_mtp, dx));
        ap_trace_end(m->be->trace, "model", "MTP backward", NULL, 0, begin);
    }
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
