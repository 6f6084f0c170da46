/* SPDX-License-Identifier: Apache-2.0
 * Expert parallelism: the rows of a micro-batch, sorted by expert, to the processes that have their experts, and what
 * came from all of them in order of the own experts. Each process of the group has a micro-batch of its own, of the
 * same size; how many rows go where is known only after routing, so the counts go ahead of the rows. */
#include "config.h"

#include "model/model_internal.h"

int64_t ap_moe_capacity(const struct ap_model *m)
{
    int64_t K = m->cfg.experts_per_token, most = K < m->experts ? K : m->experts;
    return m->part.expert_size * m->tokens * most;
}

void ap_moe_exchange_plan(struct ap_model *m, struct exchange_saved *ex)
{
    int64_t rows = ap_moe_capacity(m);
    ex->offsets = new1(m, AP_I32, m->experts + 1);
    ex->by_expert = new1(m, AP_I32, rows);
    ex->by_sender = new1(m, AP_I32, rows);
    ex->xs = new2(m, m->dt, rows, m->cfg.hidden_size);
}

/* load [ranks][E]: rows of each sender for the own experts. Fills the host's lists and ex->rows. */
static void arrange(const struct ap_model *m, struct exchange_saved *ex, const int64_t *load, int32_t *by_expert,
                    int32_t *by_sender, int32_t *offsets)
{
    int64_t E = m->experts, row = 0;
    int ranks = m->part.expert_size;
    for (int64_t e = 0; e < E; e++) {
        int64_t begin = 0; /* of the sender's rows */
        offsets[e] = (int32_t)row;
        for (int r = 0; r < ranks; r++) {
            int64_t at = begin;
            for (int64_t i = 0; i < e; i++)
                at += load[r * E + i];
            for (int64_t i = 0; i < load[r * E + e]; i++, row++) {
                by_expert[row] = (int32_t)(at + i);
                by_sender[at + i] = (int32_t)row;
            }
            begin += ex->recv[r];
        }
    }
    offsets[E] = (int32_t)row;
    ex->rows = row;
}

ap_status ap_moe_exchange_counts(struct ap_model *m, struct layer *L)
{
    struct layer_saved *s = saved(m, L);
    struct exchange_saved *ex = &s->ex;
    int64_t all = m->cfg.routed_experts, E = m->experts, capacity = ap_moe_capacity(m);
    int ranks = m->part.expert_size;
    if (planning(m))
        return AP_OK;
    int32_t *host = m->host_rows, *by_sender = host + capacity, *offsets = by_sender + capacity;
    int64_t *load = m->host_load, *mine = load + ranks * E, *bytes = ex->send, *at = m->host_load + 2 * ranks * E;
    struct ap_stream *stream = m->be->stream;
    AP_TRY(m->be->vt->copy(stream, host, s->offsets.data, (size_t)(all + 1) * sizeof *host));
    AP_TRY(m->be->vt->stream_sync(stream));
    for (int64_t e = 0; e < all; e++)
        mine[e] = host[e + 1] - host[e];
    for (int r = 0; r < ranks; r++) {
        bytes[r] = E * (int64_t)sizeof *load;
        at[r] = r * bytes[r];
    }
    AP_TRY(ap_comm_alltoallv(m->opt.expert, mine, bytes, at, load, bytes, at));
    for (int r = 0; r < ranks; r++) {
        ex->send[r] = host[(r + 1) * E] - host[r * E];
        ex->recv[r] = 0;
        for (int64_t e = 0; e < E; e++)
            ex->recv[r] += load[r * E + e];
    }
    arrange(m, ex, load, host, by_sender, offsets);
    if (ex->rows > capacity)
        return AP_ERR_BUG;
    AP_TRY(m->be->vt->copy(stream, ex->by_expert.data, host, (size_t)ex->rows * sizeof *host));
    AP_TRY(m->be->vt->copy(stream, ex->by_sender.data, by_sender, (size_t)ex->rows * sizeof *host));
    AP_TRY(m->be->vt->copy(stream, ex->offsets.data, offsets, (size_t)(E + 1) * sizeof *host));
    return m->be->vt->stream_sync(stream);
}

/* to[i] = from[order[i]] for the rows here */
static ap_status reorder(struct ap_model *m, const struct exchange_saved *ex, ap_tensor from, ap_tensor order,
                         ap_tensor to)
{
    int64_t w = to.shape[1];
    OP(m, moe_dispatch_fwd, .x = view2(from, ex->rows, w), .token_of = ap_tensor_1d(order.data, AP_I32, ex->rows),
       .xs = view2(to, ex->rows, w));
    return AP_OK;
}

ap_status ap_moe_exchange_out(struct ap_model *m, struct exchange_saved *ex, ap_tensor xs, ap_tensor to)
{
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor arrived = new2(m, xs.dtype, ap_moe_capacity(m), xs.shape[1]);
    if (!planning(m))
        AP_TRY(ap_exchange_rows(m->expert, xs, ex->send, arrived, ex->recv));
    AP_TRY(reorder(m, ex, arrived, ex->by_expert, to));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

ap_status ap_moe_exchange_back(struct ap_model *m, struct exchange_saved *ex, ap_tensor from, ap_tensor xs)
{
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor leaving = new2(m, xs.dtype, ap_moe_capacity(m), xs.shape[1]);
    AP_TRY(reorder(m, ex, from, ex->by_sender, leaving));
    if (!planning(m))
        AP_TRY(ap_exchange_rows(m->expert, leaving, ex->recv, xs, ex->send));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
