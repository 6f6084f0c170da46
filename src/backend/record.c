/* SPDX-License-Identifier: Apache-2.0
 * Wrapping of a backend's slots by ones that count. Every wrapper comes from AP_OPS; the matrix products
 * inside an operation are listed by note_products. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cost.h"
#include "backend/operands.h"
#include "backend/record.h"
#include "base/clock.h"

/* Attention is listed as products of blocks of this many queries, each against the keys it can see. */
#define QUERY_BLOCK 128

static void push(struct ap_record *r, struct ap_product p)
{
    if (p.m == 0 || p.n == 0 || p.k == 0)
        return;
    if (r->product_count == r->product_capacity) {
        int64_t capacity = r->product_capacity ? 2 * r->product_capacity : 1024;
        struct ap_product *list = realloc(r->products, (size_t)capacity * sizeof *list);
        if (!list) {
            r->failed = 1;
            return;
        }
        r->products = list;
        r->product_capacity = capacity;
    }
    r->products[r->product_count++] = p;
}

static void note_gemm(struct ap_record *r, const struct ap_gemm_args *a)
{
    push(r, (struct ap_product){.m = a->c.shape[0],
                                .n = a->c.shape[1],
                                .k = a->a.shape[a->trans_a ? 0 : 1],
                                .trans_a = a->trans_a,
                                .trans_b = a->trans_b,
                                .accumulate = a->accumulate,
                                .constant_b = !a->trans_a,
                                .dtype = a->a.dtype,
                                .c_dtype = a->c.dtype,
                                .kind = AP_PRODUCT_GEMM});
}

static void note_grouped_gemm(struct ap_record *r, const struct ap_grouped_gemm_args *a)
{
    const int32_t *off = a->offsets.data;
    for (int64_t e = 0; e < a->w.shape[0]; e++)
        push(r, (struct ap_product){.m = off[e + 1] - off[e],
                                    .n = a->w.shape[a->trans_w ? 1 : 2],
                                    .k = a->w.shape[a->trans_w ? 2 : 1],
                                    .trans_b = a->trans_w,
                                    .accumulate = a->accumulate,
                                    .constant_b = 1,
                                    .dtype = a->x.dtype,
                                    .c_dtype = a->y.dtype,
                                    .kind = AP_PRODUCT_GROUPED});
}

static void note_grouped_wgrad(struct ap_record *r, const struct ap_grouped_wgrad_args *a)
{
    const int32_t *off = a->offsets.data;
    for (int64_t e = 0; e < a->dw.shape[0]; e++)
        push(r, (struct ap_product){.m = a->dw.shape[1],
                                    .n = a->dw.shape[2],
                                    .k = off[e + 1] - off[e],
                                    .trans_a = 1,
                                    .accumulate = a->accumulate,
                                    .dtype = a->dy.dtype,
                                    .c_dtype = a->dw.dtype,
                                    .kind = AP_PRODUCT_GROUPED});
}

struct attention {
    int64_t seqs, heads, T, qk, v;
    ap_dtype dtype;
};

static void note_attention(struct ap_record *r, const struct attention *a, int backward)
{
    for (int64_t i = 0; i < a->seqs * a->heads; i++)
        for (int64_t q0 = 0; q0 < a->T; q0 += QUERY_BLOCK) {
            int64_t q = a->T - q0 < QUERY_BLOCK ? a->T - q0 : QUERY_BLOCK, keys = q0 + q;
            struct ap_product p = {.dtype = a->dtype, .c_dtype = ap_dtype_full(a->dtype), .kind = AP_PRODUCT_ATTENTION};
            p.m = q, p.n = keys, p.k = a->qk, p.trans_b = 1;
            push(r, p); /* scores */
            if (!backward) {
                p.n = a->v, p.k = keys, p.trans_b = 0;
                push(r, p); /* P V */
                continue;
            }
            p.k = a->v;
            push(r, p); /* dP = dO V^T */
            p.n = a->qk, p.k = keys, p.trans_b = 0;
            push(r, p); /* dQ = dS K */
            p.m = keys, p.n = a->qk, p.k = q, p.trans_a = 1, p.accumulate = 1;
            push(r, p); /* dK += dS^T Q */
            p.n = a->v;
            push(r, p); /* dV += P^T dO */
        }
}

static void note_mla_attn_fwd(struct ap_record *r, const struct ap_mla_attn_fwd_args *a)
{
    struct attention t = {a->seqs, a->q.shape[1], a->seqs ? a->q.shape[0] / a->seqs : 0, a->n + a->r, a->v, a->q.dtype};
    note_attention(r, &t, 0);
}

static void note_mla_attn_bwd(struct ap_record *r, const struct ap_mla_attn_bwd_args *a)
{
    struct attention t = {a->seqs, a->q.shape[1], a->seqs ? a->q.shape[0] / a->seqs : 0, a->n + a->r, a->v, a->q.dtype};
    note_attention(r, &t, 1);
}

static void note_products(struct ap_record *r, enum ap_op_id op, const void *args)
{
    switch (op) {
    case AP_OP_gemm:
        note_gemm(r, args);
        break;
    case AP_OP_grouped_gemm:
        note_grouped_gemm(r, args);
        break;
    case AP_OP_grouped_wgrad:
        note_grouped_wgrad(r, args);
        break;
    case AP_OP_mla_attn_fwd:
        note_mla_attn_fwd(r, args);
        break;
    case AP_OP_mla_attn_bwd:
        note_mla_attn_bwd(r, args);
        break;
    default:
        break;
    }
}

static void note(struct ap_record *r, struct ap_trace *trace, enum ap_op_id op, const void *args, double begin)
{
    double end = ap_clock_monotonic(), seconds = end - begin;
    struct ap_op_cost c = ap_op_cost(op, args);
    if (trace) {
        struct ap_trace_args t = {.flops = c.flops, .bytes = c.bytes};
        ap_operands_describe(op, args, &t);
        ap_trace_add(trace, "op", ap_op_name(op), begin, end, &t);
    }
    struct ap_op_total *t = &r->total[op];
    t->calls++;
    t->seconds += seconds;
    t->flops += c.flops;
    t->bytes += c.bytes;
    if (r->want_products)
        note_products(r, op, args);
}

#define WRAPPER(op)                                                                                                    \
    static ap_status wrap_##op(struct ap_stream *s, const struct ap_##op##_args *args)                                 \
    {                                                                                                                  \
        struct ap_backend *be = s->backend;                                                                            \
        ap_trace_working_on(be->trace, #op);                                                                           \
        double begin = ap_clock_monotonic();                                                                           \
        ap_status st = be->record->inner.op(s, args);                                                                  \
        if (be->trace && !be->vt->is_host && st == AP_OK)                                                              \
            st = be->vt->stream_sync(s);                                                                               \
        note(be->record, be->trace, AP_OP_##op, args, begin);                                                          \
        return st;                                                                                                     \
    }
AP_OPS(WRAPPER)
#undef WRAPPER

ap_status ap_record_attach(struct ap_record *rec, struct ap_backend *be, int want_products)
{
    if (be->record || (want_products && !be->vt->is_host))
        return AP_ERR_BUG;
    rec->inner = be->ops;
    rec->want_products = want_products;
    be->record = rec;
#define WRAP(op) be->ops.op = wrap_##op;
    AP_OPS(WRAP)
#undef WRAP
    return AP_OK;
}

void ap_record_detach(struct ap_backend *be)
{
    if (!be->record)
        return;
    be->ops = be->record->inner;
    be->record = NULL;
}

void ap_record_reset(struct ap_record *rec)
{
    memset(rec->total, 0, sizeof rec->total);
    rec->product_count = 0;
    rec->failed = 0;
}

void ap_record_free(struct ap_record *rec)
{
    free(rec->products);
    memset(rec, 0, sizeof *rec);
}
