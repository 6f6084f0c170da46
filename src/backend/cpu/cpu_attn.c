/* SPDX-License-Identifier: Apache-2.0
 * Causal MLA attention of the cpu backend: one task per (sequence, head), blocks of queries against
 * the range of keys they can see, all products by the single-thread GEMM. Scores of one block are held in
 * full; the backward recomputes them from the log-sum-exp (as FlashAttention does, Dao 2022). Scores,
 * probabilities and sums are f32 tiles; bf16 tensors are widened by the GEMM's packing and rounded once per result. */
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
    int bf16;                  /* type of the tensors, else f32 */
    int64_t head0, wave;       /* backward: heads head0 .. head0 + wave - 1 */
    float *dkr;                /* backward: [seqs, wave, T, r] */
    float *dkr_sum;            /* backward in bf16: [seqs, T, r] */
};

struct head {
    const void *q, *kv, *kr;
    const int32_t *first;
    float *k; /* packed keys [T, n + r] */
    int64_t base, head, row_q, row_kv, row_o;
};

static size_t floats(int64_t count)
{
    return ((size_t)count + 15) / 16 * 16;
}

/* count elements from element i of a tensor into f32 memory, and back. */
static void fetch(const struct attn *j, float *to, const void *from, int64_t i, int64_t count)
{
    struct ap_cast_args cast = {{.data = ap_sgemm_at(from, j->bf16, i), .dtype = AP_BF16},
                                {.data = to, .dtype = AP_F32}};
    if (j->bf16)
        j->impl->k->cast(&cast, 0, count);
    else
        memcpy(to, cast.src.data, (size_t)count * sizeof(float));
}

static void store(const struct attn *j, void *to, int64_t i, float *from, int64_t count)
{
    struct ap_cast_args cast = {{.data = from, .dtype = AP_F32},
                                {.data = ap_sgemm_at(to, j->bf16, i), .dtype = AP_BF16}};
    if (j->bf16)
        j->impl->k->cast(&cast, 0, count);
    else
        memcpy(cast.dst.data, from, (size_t)count * sizeof(float));
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
    h->q = ap_sgemm_at(a->q.data, j->bf16, h->base * h->row_q + head * j->width);
    h->kv = ap_sgemm_at(a->kv.data, j->bf16, h->base * h->row_kv + head * (n + a->v));
    h->kr = ap_sgemm_at(a->kr.data, j->bf16, h->base * kr_stride);
    h->first = (const int32_t *)a->first.data + h->base;
    h->k = k;
    for (int64_t s = 0; s < j->len; s++) {
        fetch(j, k + s * j->width, h->kv, s * h->row_kv, n);
        fetch(j, k + s * j->width + n, h->kr, s * kr_stride, r);
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
    struct ap_sgemm g = {.m = rows,
                         .n = b->cols,
                         .k = j->width,
                         .a = ap_sgemm_at(h->q, j->bf16, t0 * h->row_q),
                         .b = h->k + key0 * j->width,
                         .c = s,
                         .lda = h->row_q,
                         .ldb = j->width,
                         .ldc = b->lds,
                         .trans_b = 1,
                         .a_bf16 = j->bf16};
    ap_sgemm_blocked(w->gemm, &g, w->gemm_scratch);
}

static void fwd_task(void *ctx, int64_t task, int worker)
{
    const struct attn *j = ctx;
    struct cpu_worker *w = &j->impl->workers[worker];
    const struct ap_mla_attn_fwd_args *a = j->fwd;
    size_t keys = floats(j->len * j->width), block = floats(QUERY_BLOCK * j->len);
    struct head h;
    struct ap_softmax_block b;
    float sum[QUERY_BLOCK];
    float *k = w->attn.mem, *s = k + keys, *tile = s + block;
    head_init(j, task / j->heads, task % j->heads, k, &h);
    for (int64_t t0 = 0; t0 < j->len; t0 += QUERY_BLOCK) {
        int64_t row = h.base + t0;
        int64_t at = row * h.row_o + h.head * a->v, ldo = j->bf16 ? a->v : h.row_o;
        float *out = j->bf16 ? tile : (float *)a->out.data + at;
        scores(j, &h, t0, s, w, &b);
        j->impl->k->softmax_fwd(&b, sum, (float *)a->lse.data + row * j->heads + h.head, j->heads);
        struct ap_sgemm g = {.m = b.rows,
                             .n = a->v,
                             .k = b.cols,
                             .a = s,
                             .b = ap_sgemm_at(h.kv, j->bf16, b.key0 * h.row_kv + a->n),
                             .c = out,
                             .lda = b.lds,
                             .ldb = h.row_kv,
                             .ldc = ldo,
                             .b_bf16 = j->bf16};
        ap_sgemm_blocked(w->gemm, &g, w->gemm_scratch);
        j->impl->k->divide_rows(out, ldo, b.rows, a->v, sum);
        for (int64_t i = 0; j->bf16 && i < b.rows; i++)
            store(j, a->out.data, at + i * h.row_o, tile + i * a->v, a->v);
    }
}

/* Each thread's memory is there before any of them begins: which one gets work, and when first, is left to chance. */
static ap_status run_tasks(struct ap_stream *s, struct attn *j, int64_t tasks, size_t memory, ap_pool_task *task)
{
    for (int i = 0; i < j->impl->threads; i++)
        AP_TRY(cpu_buffer_need(&j->impl->workers[i].attn, memory * sizeof(float)));
    ap_pool_run(s->backend->pool, tasks, task, j);
    return AP_OK;
}

ap_status cpu_mla_attn_fwd(struct ap_stream *s, const struct ap_mla_attn_fwd_args *a)
{
    struct cpu_impl *impl = cpu_of(s);
    int64_t rows = a->q.shape[0], tasks = a->seqs * a->q.shape[1];
    if (a->q.dtype == AP_F64)
        return ap_backend_reference.ops.mla_attn_fwd(s, a);
    AP_TRY(ap_check_mla_attn_fwd(a));
    if (rows == 0 || tasks == 0)
        return AP_OK;
    AP_TRY(ap_check_first(a->first.data, rows, a->seqs));
    struct attn j = {.impl = impl,
                     .fwd = a,
                     .len = rows / a->seqs,
                     .heads = a->q.shape[1],
                     .width = a->n + a->r,
                     .bf16 = a->q.dtype == AP_BF16};
    size_t keys = floats(j.len * j.width), block = floats(QUERY_BLOCK * j.len);
    return run_tasks(s, &j, tasks, keys + block + floats(QUERY_BLOCK * a->v), fwd_task);
}

/* f32 memory of one backward task: keys and their gradients [T, n + r], the values' gradients [T, v] (f32 tensors:
 * where they stand in dkv), two blocks of scores [QUERY_BLOCK, T], the queries' gradients [QUERY_BLOCK, n + r]. */
struct bwd_memory {
    float *k, *dk, *dv, *s, *ds, *dq;
    int64_t row_dv;
};

/* at: where the first of them stands, NULL to count. Their number of floats. */
static size_t bwd_memory(const struct attn *j, float *at, struct bwd_memory *m)
{
    size_t keys = floats(j->len * j->width), block = floats(QUERY_BLOCK * j->len);
    size_t values = j->bf16 ? floats(j->len * j->bwd->v) : 0, tile = j->bf16 ? floats(QUERY_BLOCK * j->width) : 0;
    if (at)
        *m = (struct bwd_memory){.k = at,
                                 .dk = at + keys,
                                 .s = at + 2 * keys,
                                 .ds = at + 2 * keys + block,
                                 .dv = at + 2 * (keys + block),
                                 .dq = at + 2 * (keys + block) + values,
                                 .row_dv = j->bwd->v};
    return 2 * (keys + block) + values + tile;
}

/* One query block of the backward: dk and dv sum up, dq is done. */
static void bwd_block(const struct attn *j, const struct head *h, int64_t t0, const struct bwd_memory *m,
                      struct cpu_worker *w)
{
    const struct ap_mla_attn_bwd_args *a = j->bwd;
    struct ap_softmax_block b;
    float delta[QUERY_BLOCK];
    int64_t row = h->base + t0, o = row * h->row_o + h->head * a->v, width = j->width;
    int64_t at_q = row * h->row_q + h->head * width;
    const void *dout = ap_sgemm_at(a->dout.data, j->bf16, o), *q = ap_sgemm_at(h->q, j->bf16, t0 * h->row_q);
    const float *lse = (const float *)a->lse.data + row * j->heads + h->head;
    const struct ap_typed_kernels *typed = j->bf16 ? j->impl->k->bf16 : j->impl->k->f32;
    float *dq = j->bf16 ? m->dq : (float *)a->dq.data + at_q;
    scores(j, h, t0, m->s, w, &b);
    struct ap_sgemm dp = {b.rows, b.cols,   a->v,      dout,    ap_sgemm_at(h->kv, j->bf16, b.key0 * h->row_kv + a->n),
                          m->ds,  h->row_o, h->row_kv, b.lds,   0,
                          1,      0,        j->bf16,   j->bf16, 0};
    ap_sgemm_blocked(w->gemm, &dp, w->gemm_scratch);
    typed->dot_rows(dout, ap_sgemm_at(a->out.data, j->bf16, o), h->row_o, b.rows, a->v, delta);
    j->impl->k->softmax_bwd(&b, m->ds, lse, j->heads, delta);
    struct ap_sgemm gv = {b.cols, a->v,     b.rows,    m->s, dout, m->dv + b.key0 * m->row_dv,
                          b.lds,  h->row_o, m->row_dv, 1,    0,    1,
                          0,      j->bf16,  0};
    struct ap_sgemm gq = {
        b.rows, width, b.cols, m->ds, h->k + b.key0 * width, dq, b.lds, width, j->bf16 ? width : h->row_q, 0, 0,
        0,      0,     0,      0};
    struct ap_sgemm gk = {b.cols, width, b.rows, m->ds,   q, m->dk + b.key0 * width, b.lds, h->row_q, width, 1,
                          0,      1,     0,      j->bf16, 0};
    ap_sgemm_blocked(w->gemm, &gv, w->gemm_scratch);
    ap_sgemm_blocked(w->gemm, &gq, w->gemm_scratch);
    ap_sgemm_blocked(w->gemm, &gk, w->gemm_scratch);
    for (int64_t i = 0; j->bf16 && i < b.rows; i++)
        store(j, a->dq.data, at_q + i * h->row_q, dq + i * width, width);
}

static void bwd_task(void *ctx, int64_t task, int worker)
{
    const struct attn *j = ctx;
    struct cpu_worker *w = &j->impl->workers[worker];
    const struct ap_mla_attn_bwd_args *a = j->bwd;
    int64_t seq = task / j->wave, head = task % j->wave;
    struct bwd_memory m = {0};
    struct head h;
    (void)bwd_memory(j, w->attn.mem, &m);
    float *dkr = j->dkr + (seq * j->wave + head) * j->len * a->r;
    head_init(j, seq, j->head0 + head, m.k, &h);
    int64_t at_kv = h.base * h.row_kv + h.head * (a->n + a->v);
    if (!j->bf16) {
        m.dv = (float *)a->dkv.data + at_kv + a->n;
        m.row_dv = h.row_kv;
    }
    memset(m.dk, 0, floats(j->len * j->width) * sizeof(float));
    for (int64_t t = 0; t < j->len; t++)
        memset(m.dv + t * m.row_dv, 0, (size_t)a->v * sizeof(float));
    for (int64_t t0 = 0; t0 < j->len; t0 += QUERY_BLOCK)
        bwd_block(j, &h, t0, &m, w);
    for (int64_t t = 0; t < j->len; t++) {
        store(j, a->dkv.data, at_kv + t * h.row_kv, m.dk + t * j->width, a->n);
        if (j->bf16)
            store(j, a->dkv.data, at_kv + t * h.row_kv + a->n, m.dv + t * m.row_dv, a->v);
        memcpy(dkr + t * a->r, m.dk + t * j->width + a->n, (size_t)a->r * sizeof(float));
    }
}

/* dkr of a token range: += the heads of this wave in order (= for the first wave). bf16: the sum stays f32 until the
 * last wave. */
static void dkr_range(const void *args, int64_t begin, int64_t end)
{
    const struct attn *j = args;
    const struct ap_mla_attn_bwd_args *a = j->bwd;
    int64_t r = a->r, stride = a->dkr_stride ? a->dkr_stride : r;
    for (int64_t row = begin; row < end; row++) {
        float *to = j->bf16 ? j->dkr_sum + row * r : (float *)a->dkr.data + row * stride;
        const float *from = j->dkr + (row / j->len * j->wave * j->len + row % j->len) * r;
        if (j->head0 == 0)
            memset(to, 0, (size_t)r * sizeof(float));
        for (int64_t head = 0; head < j->wave; head++) {
            for (int64_t i = 0; i < r; i++)
                to[i] += from[head * j->len * r + i];
        }
        if (j->bf16 && j->head0 + j->wave == j->heads)
            store(j, a->dkr.data, row * stride, to, r);
    }
}

ap_status cpu_mla_attn_bwd(struct ap_stream *s, const struct ap_mla_attn_bwd_args *a)
{
    struct cpu_impl *impl = cpu_of(s);
    int64_t rows = a->q.shape[0], heads = a->q.shape[1];
    if (a->q.dtype == AP_F64)
        return ap_backend_reference.ops.mla_attn_bwd(s, a);
    AP_TRY(ap_check_mla_attn_bwd(a));
    if (rows == 0 || heads == 0)
        return AP_OK;
    AP_TRY(ap_check_first(a->first.data, rows, a->seqs));
    struct ap_mla_attn_fwd_args f = {a->q,    a->kv, a->kr, a->first, a->out,       a->lse,
                                     a->seqs, a->n,  a->r,  a->v,     a->kr_stride, a->scale};
    size_t parts = (size_t)(rows * HEAD_WAVE * a->r), sum = a->q.dtype == AP_BF16 ? (size_t)(rows * a->r) : 0;
    AP_TRY(cpu_buffer_need(&impl->partial, (parts + sum) * sizeof(float)));
    struct attn j = {.impl = impl,
                     .fwd = &f,
                     .bwd = a,
                     .len = rows / a->seqs,
                     .heads = heads,
                     .width = a->n + a->r,
                     .bf16 = a->q.dtype == AP_BF16,
                     .dkr = impl->partial.mem};
    j.dkr_sum = j.dkr + parts;
    for (j.head0 = 0; j.head0 < heads; j.head0 += j.wave) {
        j.wave = heads - j.head0 < HEAD_WAVE ? heads - j.head0 : HEAD_WAVE;
        AP_TRY(run_tasks(s, &j, a->seqs * j.wave, bwd_memory(&j, NULL, NULL), bwd_task));
        cpu_ranges(s, dkr_range, &j, rows, j.wave * a->r);
    }
    return AP_OK;
}
