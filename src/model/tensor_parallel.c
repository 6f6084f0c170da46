/* SPDX-License-Identifier: Apache-2.0
 * Tensor parallelism: between a process's own tokens and all tokens of the micro-batch, and the embedding that the
 * group holds together. */
#include "config.h"

#include "model/model_internal.h"

ap_status ap_tensor_gather(struct ap_model *m, ap_tensor own, ap_tensor all)
{
    return planning(m) ? AP_OK : ap_exchange_gather(m->tensor, own, m->token_rows, all);
}

ap_status ap_tensor_sum(struct ap_model *m, ap_tensor parts, ap_tensor own, int accumulate)
{
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor scratch = new2(m, parts.dtype, tensor_size(m) * m->own_tokens, parts.shape[1]);
    if (!planning(m))
        AP_TRY(ap_exchange_sum(m->tensor, parts, m->token_rows, scratch, own, accumulate));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

void ap_own_ids(const struct ap_model *m, const int32_t *ids, int32_t *own)
{
    for (int64_t i = 0; i < m->tokens; i++) {
        int64_t row = ids[i] - m->vocab_first;
        own[i] = ids[i] >= 0 && row >= 0 && row < m->vocab ? (int32_t)row : -1;
    }
}

ap_status ap_embed_forward(struct ap_model *m, ap_tensor ids, ap_tensor out)
{
    int64_t h = m->cfg.hidden_size;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor part = tensor_size(m) > 1 ? new2(m, m->dt, m->tokens, h) : out;
    OP(m, embed_fwd, .table = w2(m, m->off_embed, m->vocab, h), .ids = ids, .out = part);
    if (tensor_size(m) > 1) /* all parts but one are zero: exact */
        AP_TRY(ap_tensor_sum(m, part, out, 0));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

ap_status ap_embed_backward(struct ap_model *m, ap_tensor ids, ap_tensor dout)
{
    int64_t h = m->cfg.hidden_size;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor all;
    if (tensor_size(m) > 1) {
        all = dy2(m, m->dt, m->tokens, h);
        AP_TRY(ap_tensor_gather(m, dout, all));
    } else {
        AP_TRY(ap_keep(m, dout, &all));
    }
    AP_TRY(ap_weight_gradient(m, &(struct late_work){.kind = LATE_ROWS, .off = m->off_embed, .dy = all, .x = ids}));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
