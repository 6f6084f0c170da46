/* SPDX-License-Identifier: Apache-2.0
 * Multi-token prediction (V3 report 2.2), depth 1: from the main model's output h_t (before the final norm)
 * and the embedding of token t+1, one more block predicts token t+2.
 *
 *   h' = M [enorm(Emb(token_{t+1})) | hnorm(h_t)];  block;  shared_head.norm;  shared head
 * Embedding first, as in the published checkpoints; embedding and head are the main model's. */
#include "config.h"

#include "model/model_internal.h"

void ap_mtp_plan(struct ap_model *m)
{
    struct mtp_saved *s = &m->mtp;
    int64_t N = m->tokens, h = m->cfg.hidden_size;
    s->ids = new1(m, AP_I32, N);
    s->targets = new1(m, AP_I32, N);
    s->emb = new2(m, m->dt, N, h);
    s->rstd_e = new1(m, m->stat, N);
    s->rstd_h = new1(m, m->stat, N);
    s->cat = new2(m, m->dt, N, 2 * h);
    m->mtp_head.xf = new2(m, m->dt, N, h);
    m->mtp_head.rstd = new1(m, m->stat, N);
    m->mtp_token_loss = new1(m, m->stat, N);
}

/* Inputs and targets from the main ones: position t reads token t+1 and predicts token t+2. Where the next
 * token belongs to another document there is no loss; the input is then the token itself. */
static int64_t shift_batch(struct ap_model *m, const struct ap_batch *b)
{
    int64_t T = m->opt.seq_len, N = m->tokens, n = 0;
    int32_t *ids = m->host_mtp, *targets = m->host_mtp + N;
    for (int64_t i = 0; i < N; i++) {
        int has_next = b->targets[i] >= 0;
        ids[i] = has_next ? b->targets[i] : b->tokens[i];
        targets[i] = has_next && i % T != T - 1 ? b->targets[i + 1] : -1;
        n += targets[i] >= 0;
    }
    return n;
}

static ap_status forward(struct ap_model *m, struct layer *L, ap_tensor out)
{
    struct mtp_saved *s = &m->mtp;
    int64_t N = m->tokens, h = m->cfg.hidden_size, V = m->cfg.vocab_size;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor normed = new2(m, m->dt, N, h);
    if (!planning(m)) {
        OP(m, embed_fwd, .table = w2(m, m->off_embed, V, h), .ids = s->ids, .out = s->emb);
        OP(m, rmsnorm_fwd, .x = s->emb, .w = w1(m, s->enorm, h), .y = normed, .rstd = s->rstd_e, .eps = m->cfg.rms_eps);
        OP(m, split_cols, .src = normed, .dst = s->cat, .cols = h);
        OP(m, rmsnorm_fwd, .x = m->x_out, .w = w1(m, s->hnorm, h), .y = normed, .rstd = s->rstd_h,
           .eps = m->cfg.rms_eps);
        OP(m, split_cols, .src = normed, .dst = s->cat, .dst_col = h, .cols = h);
        AP_TRY(ap_linear_fwd(m, s->cat, s->eh_proj, h, 2 * h, L->s.x_in, 0));
    }
    ap_arena_reset(&m->arena, mark);
    return ap_block_forward(m, L, out);
}

/* dx_in: gradient of the block's input. dx: gradient of the main model's output, +=. */
static ap_status backward(struct ap_model *m, ap_tensor dx_in, ap_tensor dx)
{
    struct mtp_saved *s = &m->mtp;
    int64_t N = m->tokens, h = m->cfg.hidden_size, V = m->cfg.vocab_size;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor dcat = new2(m, m->dt, N, 2 * h), part = new2(m, m->dt, N, h), demb = new2(m, m->dt, N, h);
    if (!planning(m)) {
        AP_TRY(ap_linear_bwd(m, dx_in, s->cat, s->eh_proj, dcat, 0));
        OP(m, split_cols, .src = dcat, .dst = part, .cols = h);
        OP(m, rmsnorm_bwd, .dy = part, .x = s->emb, .w = w1(m, s->enorm, h), .rstd = s->rstd_e, .dx = demb,
           .dw = g1(m, s->enorm, h));
        OP(m, embed_bwd, .dout = demb, .ids = s->ids, .dtable = g2(m, m->off_embed, V, h));
        OP(m, split_cols, .src = dcat, .dst = part, .src_col = h, .cols = h);
        OP(m, rmsnorm_bwd, .dy = part, .x = m->x_out, .w = w1(m, s->hnorm, h), .rstd = s->rstd_h, .dx = dx,
           .dw = g1(m, s->hnorm, h), .accumulate = 1);
    }
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

ap_status ap_mtp_step(struct ap_model *m, const struct ap_batch *batch, int64_t *mtp_tokens_p, ap_tensor dx)
{
    struct mtp_saved *s = &m->mtp;
    struct layer *L = &m->layers[m->cfg.layers];
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor out = new2(m, m->dt, m->tokens, m->cfg.hidden_size);
    if (!planning(m)) {
        size_t bytes = (size_t)m->tokens * sizeof(int32_t);
        *mtp_tokens_p = shift_batch(m, batch);
        AP_TRY(m->be->vt->copy(m->be->stream, s->ids.data, m->host_mtp, bytes));
        AP_TRY(m->be->vt->copy(m->be->stream, s->targets.data, m->host_mtp + m->tokens, bytes));
    }
    SPAN(m, "MTP forward", NULL, 0, forward(m, L, out));
    SPAN(m, "loss", NULL, 0,
         ap_head_step(m, &m->mtp_head, out, s->norm, s->targets, m->mtp_token_loss, m->lw.mtp, 1, m->dx_mtp));
    if (planning(m) ? !m->opt.forward_only : with_grads(m)) {
        double begin = ap_trace_begin(m->be->trace);
        AP_TRY(ap_block_backward(m, L, m->dx_mtp));
        AP_TRY(backward(m, m->dx_mtp, dx));
        ap_trace_end(m->be->trace, "model", "MTP backward", NULL, 0, begin);
    }
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
