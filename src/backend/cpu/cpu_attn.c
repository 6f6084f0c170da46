/* SPDX-License-Identifier: Apache-2.0
 * Causal MLA attention of the cpu backend in f32: one task per (sequence, head), blocks of queries against
 * the range of keys they can see, all products by the single-thread GEMM. Scores of one block are held in
 * full; the backward recomputes them from the log-sum-exp (as FlashAttention does, Dao 2022). */
#include "config.h"

#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/reference.h"
#include "backend/ops_check.h"

/* Queries of one block; a multiple of the register tiles of the GEMM. */
#define QUERY_BLOCK 48
/* Heads whose rope-key gradients are held at once: bounds the memory. */
#define HEAD_WAVE 8

/* What both directions need, and the addresses of one (sequence, head). */
struct attn {
    struct cpu_impl *impl;
    const struct ap_mla_attn_fwd_args *fwd; /* the inputs, also of the backward */
    const struct ap_mla_attn_bwd_args *bwd;
    int64_t len, heads, width; /* T, H, n + r */
    int64_t head0, wave;       /* backward: heads head0 .. head0 + wave - 1 */
    float *dkr;                /* backward: [seqs, wave, T, r] */
    ap_status *status;
};

struct head {
    const float *q, *kv, *kr;
    const int32_t *first;
    float *k; /* packed keys [T, n + r] */
    int64_t base, head, row_q, row_kv, row_o;
};

static size_t floats(int64_t count)
{
    return ((size_t)count + 15) / 16 * 16;
}

static void head_init(const struct attn *j, int64_t seq, int64_t head, float *k, struct head *h)
{
    const struct ap_mla_attn_fwd_args *a = j->fwd;
    int64_t n = a->n, r = a->r, kr_stride = a->kr_stride ? a->kr_stride : r;
    h->base = seq * j->len;
    h->head = head;
    h->row_q = j->heads * j->width;
    h->row_kv = j->heads * (n + a->v);
    h->row_o = j->heads * a->v;
    h->q = (const float *)a->q.data + h->base * h->row_q + head * j->width;
    h->kv = (const float *)a->kv.data + h->base * h->row_kv + head * (n + a->v);
    h->kr = (const float *)a->kr.data + h->base * kr_stride;
    h->first = (const int32_t *)a->first.data + h->base;
    h->k = k;
    for (int64_t s = 0; s < j->len; s++) {
        memcpy(k + s * j->width, h->kv + s * h->row_kv, (size_t)n * sizeof(float));
        memcpy(k + s * j->width + n, h->kr + s * kr_stride, (size_t)r * sizeof(float));
    }
}

/* Scores of the queries from t0 on: s [rows, cols] = q k^T over the keys that any of them sees. */
static void scores(const struct attn *j, const struct head *h, int64_t t0, float *s, struct cpu_worker *w,
                   struct ap_softmax_block *b)
{
    int64_t rows = j->len - t0 < QUERY_BLOCK ? j->len - t0 : QUERY_BLOCK, key0 = t0;
    for (int64_t i = 0; i < rows; i++)
        key0 = h->first[t0 + i] < key0 ? h->first[t0 + i] : key0;
    *b = (struct ap_softmax_block){.s = s,
                                   .lds = t0 + rows - key0,
                                   .rows = rows,
                                   .cols = t0 + rows - key0,
                                   .t0 = t0,
                                   .key0 = key0,
                                   .first = h->first + t0,
                                   .scale = (float)j->fwd->scale};
    struct ap_sgemm g = {
        rows, b->cols, j->width, h->q + t0 * h->row_q, h->k + key0 * j->width, s, h->row_q, j->width, b->lds, 0, 1, 0};
    ap_sgemm_blocked(w->gemm, &g, w->gemm_scratch);
}

static void fwd_task(void *ctx, int64_t task, int worker)
{
    const struct attn *j = ctx;
    struct cpu_worker *w = &j->impl->workers[worker];
    const struct ap_mla_attn_fwd_args *a = j->fwd;
    size_t keys = floats(j->len * j->width);
    struct head h;
    struct ap_softmax_block b;
    float sum[QUERY_BLOCK];
    j->status[task] = cpu_buffer_need(&w->attn, (keys + floats(QUERY_BLOCK * j->len)) * sizeof(float));
    if (j->status[task] != AP_OK)
        return;
    float *k = w->attn.mem, *s = k + keys;
    head_init(j, task / j->heads, task % j->heads, k, &h);
    for (int64_t t0 = 0; t0 < j->len; t0 += QUERY_BLOCK) {
        int64_t row = h.base + t0;
        float *out = (float *)a->out.data + row * h.row_o + h.head * a->v;
        scores(j, &h, t0, s, w, &b);
        j->impl->k->softmax_fwd(&b, sum, (float *)a->lse.data + row * j->heads + h.head, j->heads);
        struct ap_sgemm g = {b.rows,  a->v, b.cols, s, h.kv + b.key0 * h.row_kv + a->n, out, b.lds, h.row_kv,
                             h.row_o, 0,    0,      0};
        ap_sgemm_blocked(w->gemm, &g, w->gemm_scratch);
        j->impl->k->divide_rows(out, h.row_o, b.rows, a->v, sum);
    }
}

static ap_status run_tasks(struct ap_stream *s, struct attn *j, int64_t tasks, ap_pool_task *task)
{
    for (int64_t i = 0; i < tasks; i++)
        j->status[i] = AP_OK;
    ap_pool_run(s->backend->pool, tasks, task, j);
    for (int64_t i = 0; i < tasks; i++)
        AP_TRY(j->status[i]);
    return AP_OK;
}

ap_status cpu_mla_attn_fwd(struct ap_stream *s, const struct ap_mla_attn_fwd_args *a)
{
    struct cpu_impl *impl = cpu_of(s);
    int64_t rows = a->q.shape[0], tasks = a->seqs * a->q.shape[1];
    if (a->q.dtype != AP_F32)
        return ap_backend_reference.ops.mla_attn_fwd(s, a);
    AP_TRY(ap_check_mla_attn_fwd(a));
    if (rows == 0 || tasks == 0)
        return AP_OK;
    AP_TRY(ap_check_first(a->first.data, rows, a->seqs));
    AP_TRY(cpu_buffer_need(&impl->partial, (size_t)tasks * sizeof(ap_status)));
    struct attn j = {.impl = impl,
                     .fwd = a,
                     .len = rows / a->seqs,
                     .heads = a->q.shape[1],
                     .width = a->n + a->r,
                     .status = impl->partial.mem};
    return run_tasks(s, &j, tasks, fwd_task);
}

/* One query block of the backward. s, ds: [QUERY_BLOCK, T]; dk [T, n + r] sums up. */
static void bwd_block(const struct attn *j, const struct head *h, int64_t t0, float *s, float *ds, float *dk,
                      struct cpu_worker *w)
{
    const struct ap_mla_attn_bwd_args *a = j->bwd;
    struct ap_softmax_block b;
    float delta[QUERY_BLOCK];
    int64_t row = h->base + t0, o = row * h->row_o + h->head * a->v, width = j->width;
    const float *dout = (const float *)a->dout.data + o, *q = h->q + t0 * h->row_q;
    const float *lse = (const float *)a->lse.data + row * j->heads + h->head;
    float *dv = (float *)a->dkv.data + h->base * h->row_kv + h->head * (a->n + a->v) + a->n;
    float *dq = (float *)a->dq.data + row * h->row_q + h->head * width;
    scores(j, h, t0, s, w, &b);
    struct ap_sgemm dp = {b.rows, b.cols, a->v, dout, h->kv + b.key0 * h->row_kv + a->n, ds, h->row_o, h->row_kv,
                          b.lds,  0,      1,    0};
    ap_sgemm_blocked(w->gemm, &dp, w->gemm_scratch);
    j->impl->k->dot_rows(dout, (const float *)a->out.data + o, h->row_o, b.rows, a->v, delta);
    j->impl->k->softmax_bwd(&b, ds, lse, j->heads, delta);
    struct ap_sgemm gv = {b.cols, a->v, b.rows, s, dout, dv + b.key0 * h->row_kv, b.lds, h->row_o, h->row_kv, 1, 0, 1};
    struct ap_sgemm gq = {b.rows, width, b.cols, ds, h->k + b.key0 * width, dq, b.lds, width, h->row_q, 0, 0, 0};
    struct ap_sgemm gk = {b.cols, width, b.rows, ds, q, dk + b.key0 * width, b.lds, h->row_q, width, 1, 0, 1};
    ap_sgemm_blocked(w->gemm, &gv, w->gemm_scratch);
    ap_sgemm_blocked(w->gemm, &gq, w->gemm_scratch);
    ap_sgemm_blocked(w->gemm, &gk, w->gemm_scratch);
}

static void bwd_task(void *ctx, int64_t task, int worker)
{
    const struct attn *j = ctx;
    struct cpu_worker *w = &j->impl->workers[worker];
    const struct ap_mla_attn_bwd_args *a = j->bwd;
    int64_t seq = task / j->wave, head = task % j->wave;
    size_t keys = floats(j->len * j->width), block = floats(QUERY_BLOCK * j->len);
    struct head h;
    j->status[task] = cpu_buffer_need(&w->attn, 2 * (keys + block) * sizeof(float));
    if (j->status[task] != AP_OK)
        return;
    float *k = w->attn.mem, *dk = k + keys, *s = dk + keys, *ds = s + block;
    float *dkv, *dkr = j->dkr + (seq * j->wave + head) * j->len * a->r;
    head_init(j, seq, j->head0 + head, k, &h);
    dkv = (float *)a->dkv.data + h.base * h.row_kv + h.head * (a->n + a->v);
    memset(dk, 0, keys * sizeof(float));
    for (int64_t t = 0; t < j->len; t++)
        memset(dkv + t * h.row_kv + a->n, 0, (size_t)a->v * sizeof(float));
    for (int64_t t0 = 0; t0 < j->len; t0 += QUERY_BLOCK)
        bwd_block(j, &h, t0, s, ds, dk, w);
    for (int64_t t = 0; t < j->len; t++) {
        memcpy(dkv + t * h.row_kv, dk + t * j->width, (size_t)a->n * sizeof(float));
        memcpy(dkr + t * a->r, dk + t * j->width + a->n, (size_t)a->r * sizeof(float));
    }
}

/* dkr of a token range: += the heads of this wave in order (= for the first wave). */
static void dkr_range(const void *args, int64_t begin, int64_t end)
{
    const struct attn *j = args;
    const struct ap_mla_attn_bwd_args *a = j->bwd;
    int64_t r = a->r, stride = a->dkr_stride ? a->dkr_stride : r;
    for (int64_t row = begin; row < end; row++) {
        float *to = (float *)a->dkr.data + row * stride;
        const float *from = j->dkr + (row / j->len * j->wave * j->len + row % j->len) * r;
        if (j->head0 == 0)
            memset(to, 0, (size_t)r * sizeof(float));
        for (int64_t head = 0; head < j->wave; head++) {
            for (int64_t i = 0; i < r; i++)
                to[i] += from[head * j->len * r + i];
        }
    }
}

ap_status cpu_mla_attn_bwd(struct ap_stream *s, const struct ap_mla_attn_bwd_args *a)
{
    struct cpu_impl *impl = cpu_of(s);
    int64_t rows = a->q.shape[0], heads = a->q.shape[1];
    if (a->q.dtype != AP_F32)
        return ap_backend_reference.ops.mla_attn_bwd(s, a);
    AP_TRY(ap_check_mla_attn_bwd(a));
    if (rows == 0 || heads == 0)
        return AP_OK;
    AP_TRY(ap_check_first(a->first.data, rows, a->seqs));
    struct ap_mla_attn_fwd_args f = {a->q,    a->kv, a->kr, a->first, a->out,       a->lse,
                                     a->seqs, a->n,  a->r,  a->v,     a->kr_stride, a->scale};
    size_t list = floats(a->seqs * HEAD_WAVE) * sizeof(ap_status);
    AP_TRY(cpu_buffer_need(&impl->partial, list + (size_t)(rows * HEAD_WAVE * a->r) * sizeof(float)));
    struct attn j = {.impl = impl,
                     .fwd = &f,
                     .bwd = a,
                     .len = rows / a->seqs,
                     .heads = heads,
                     .width = a->n + a->r,
                     .status = impl->partial.mem,
                     .dkr = (float *)(void *)((char *)impl->partial.mem + list)};
    for (j.head0 = 0; j.head0 < heads; j.head0 += j.wave) {
        j.wave = heads - j.head0 < HEAD_WAVE ? heads - j.head0 : HEAD_WAVE;
        AP_TRY(run_tasks(s, &j, a->seqs * j.wave, bwd_task));
        cpu_ranges(s, dkr_range, &j, rows, j.wave * a->r);
    }
    return AP_OK;
}
