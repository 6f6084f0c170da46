/* SPDX-License-Identifier: Apache-2.0
 * Yardsticks and operations: time, work, and the part of the limit that was reached. The limit of an
 * operation is the larger of its work at the best product rate and its bytes at the copy rate, both measured
 * in the same run. Shapes: one layer of DeepSeek-V2-Lite, 2 sequences of 4096 tokens. */
#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "backend/cost.h"
#include "base/dtype.h"
#include "gpu.h"

#define MAX_TENSORS 96

struct shapes {
    int64_t B, T, h, H, n, r, v, kl, E, K, I, V;
};

static const struct shapes full = {2, 4096, 2048, 16, 128, 64, 128, 512, 64, 6, 1408, 102400};
static const struct shapes small = {2, 48, 64, 2, 32, 16, 32, 32, 8, 2, 48, 272};

/* All tensors of a run, released together; failed: one could not be made. */
struct pool {
    struct bench *b;
    ap_tensor list[MAX_TENSORS];
    int count, failed;
};

static ap_tensor take(struct pool *p, ap_dtype t, int64_t a, int64_t b, int64_t c)
{
    int64_t shape[3] = {a, b, c};
    ap_tensor x = bench_tensor(p->b, t, c > 0 ? 3 : b > 0 ? 2 : 1, shape);
    if (!x.data || p->count == MAX_TENSORS)
        p->failed = 1;
    else
        p->list[p->count++] = x;
    return x;
}

static void drop(struct pool *p)
{
    while (p->count > 0)
        bench_release(p->b, &p->list[--p->count]);
}

struct op_call {
    enum ap_op_id op;
    const void *args;
};

static ap_status call_op(struct bench *b, void *ctx)
{
    const struct op_call *c = ctx;
    struct ap_backend *be = b->be;
#define RUN(op)                                                                                                        \
    case AP_OP_##op:                                                                                                   \
        return be->ops.op(be->stream, (const struct ap_##op##_args *)c->args);
    switch (c->op) {
        AP_OPS(RUN)
    case AP_OP_COUNT:
        break;
    }
#undef RUN
    return AP_ERR_BUG;
}

/* Time one operation and write its line. */
static ap_status measure(struct bench *b, enum ap_op_id op, const void *args, ap_dtype dtype, const char *shape)
{
    struct op_call c = {op, args};
    struct timing t;
    struct ap_op_cost cost = ap_op_cost(op, args);
    ap_status st = bench_time(b, call_op, &c, &t);
    if (st != AP_OK) {
        fprintf(stderr, "%s %s: %s\n", ap_op_name(op), ap_dtype_name(dtype), ap_status_name(st));
        return st;
    }
    double rate = b->gemm_rate[dtype == AP_BF16];
    double limit = fmax(rate > 0 ? cost.flops / rate : 0, b->copy_rate > 0 ? cost.bytes / b->copy_rate : 0);
    fprintf(b->out,
            "{\"section\": \"op\", \"name\": \"%s\", \"dtype\": \"%s\", \"shape\": \"%s\", \"seconds\": %.4g, "
            "\"low\": %.4g, \"high\": %.4g, \"calls\": %lld, \"tflops\": %.4g, \"gbytes_per_s\": %.4g, "
            "\"limit_seconds\": %.4g, \"of_limit\": %.3f}\n",
            ap_op_name(op), ap_dtype_name(dtype), shape, t.median, t.low, t.high, (long long)t.calls,
            cost.flops / t.median * 1e-12, cost.bytes / t.median * 1e-9, limit, limit / t.median);
    printf("%-18s %-4s %-34s %9.1f us  %8.2f TFLOP/s  %7.0f GB/s  %5.1f%% of its limit\n", ap_op_name(op),
           ap_dtype_name(dtype), shape, t.median * 1e6, cost.flops / t.median * 1e-12, cost.bytes / t.median * 1e-9,
           100 * limit / t.median);
    return AP_OK;
}

struct copy_pair {
    ap_tensor to, from;
    size_t bytes;
};

static ap_status call_copy(struct bench *b, void *ctx)
{
    const struct copy_pair *c = ctx;
    return b->be->vt->copy(b->be->stream, c->to.data, c->from.data, c->bytes);
}

static ap_status measure_copy(struct bench *b)
{
    int64_t n = b->small ? 1 << 16 : 1 << 29; /* floats */
    struct pool p = {.b = b};
    struct copy_pair c = {take(&p, AP_F32, n, 0, 0), take(&p, AP_F32, n, 0, 0), (size_t)n * sizeof(float)};
    struct timing t;
    ap_status st = p.failed ? AP_ERR_NOMEM : bench_time(b, call_copy, &c, &t);
    drop(&p);
    if (st != AP_OK)
        return st;
    b->copy_rate = 2.0 * (double)c.bytes / t.median;
    fprintf(b->out,
            "{\"section\": \"yardstick\", \"name\": \"device copy\", \"bytes\": %zu, \"seconds\": %.4g, "
            "\"gbytes_per_s\": %.5g, \"low\": %.4g, \"high\": %.4g}\n",
            c.bytes, t.median, b->copy_rate * 1e-9, t.low, t.high);
    printf("device copy: %.0f GB/s read plus written\n", b->copy_rate * 1e-9);
    return AP_OK;
}

/* Products in all three forms of a linear layer; the best rate becomes the limit of its dtype. */
static ap_status measure_products(struct bench *b, ap_dtype dtype)
{
    static const int64_t large[][3] = {{8192, 8192, 8192}, {4096, 4096, 4096}, {8192, 2048, 10944}};
    static const int64_t tiny[][3] = {{64, 64, 64}};
    const int64_t(*list)[3] = b->small ? tiny : large;
    for (int i = 0; i < (b->small ? 1 : dtype == AP_F32 ? 2 : 3); i++) {
        int64_t m = list[i][0], n = list[i][1], k = list[i][2];
        for (int form = 0; form < 3; form++) { /* forward x W^T, dgrad dy W, wgrad dy^T x */
            struct pool p = {.b = b};
            struct ap_gemm_args a = {.trans_a = form == 2, .trans_b = form == 0, .accumulate = form == 2};
            a.a = take(&p, dtype, a.trans_a ? k : m, a.trans_a ? m : k, 0);
            a.b = take(&p, dtype, a.trans_b ? n : k, a.trans_b ? k : n, 0);
            a.c = take(&p, form == 2 ? AP_F32 : dtype, m, n, 0);
            struct op_call c = {AP_OP_gemm, &a};
            struct timing t;
            ap_status st = p.failed ? AP_ERR_NOMEM : bench_time(b, call_op, &c, &t);
            drop(&p);
            if (st != AP_OK)
                return st;
            double rate = 2.0 * (double)m * (double)n * (double)k / t.median;
            b->gemm_rate[dtype == AP_BF16] = fmax(b->gemm_rate[dtype == AP_BF16], rate);
            fprintf(
                b->out,
                "{\"section\": \"yardstick\", \"name\": \"cublaslt %s\", \"dtype\": \"%s\", \"m\": %lld, \"n\": %lld, "
                "\"k\": %lld, \"seconds\": %.4g, \"low\": %.4g, \"high\": %.4g, \"tflops\": %.4g}\n",
                form == 0   ? "forward"
                : form == 1 ? "dgrad"
                            : "wgrad",
                ap_dtype_name(dtype), (long long)m, (long long)n, (long long)k, t.median, t.low, t.high, rate * 1e-12);
        }
    }
    printf("best %s product: %.1f TFLOP/s\n", ap_dtype_name(dtype), b->gemm_rate[dtype == AP_BF16] * 1e-12);
    return AP_OK;
}

ap_status bench_yardsticks(struct bench *b)
{
    AP_TRY(measure_copy(b));
    AP_TRY(measure_products(b, AP_F32));
    return measure_products(b, AP_BF16);
}

static ap_status fill_tokens(struct bench *b, const struct shapes *s, ap_tensor positions, ap_tensor targets)
{
    int64_t N = s->B * s->T;
    int32_t *host = calloc((size_t)(2 * N), sizeof(*host));
    if (!host)
        return AP_ERR_NOMEM;
    for (int64_t i = 0; i < N; i++) {
        host[i] = (int32_t)(i % s->T);
        host[N + i] = (int32_t)(i * 7919 % s->V);
    }
    ap_status st = bench_fill(b, positions, host);
    if (st == AP_OK)
        st = bench_fill(b, targets, host + N);
    free(host);
    return st;
}

/* Norms, attention, MLP, loss, optimizer. */
static ap_status dense_ops(struct bench *b, ap_dtype t, const struct shapes *s)
{
    struct pool p = {.b = b};
    int64_t N = s->B * s->T, n = s->n, r = s->r, v = s->v, H = s->H, row = s->kl + s->r;
    ap_tensor x = take(&p, t, N, s->h, 0), w = take(&p, t, s->h, 0, 0), y = take(&p, t, N, s->h, 0);
    ap_tensor rstd = take(&p, AP_F32, N, 0, 0), dw = take(&p, AP_F32, s->h, 0, 0);
    ap_tensor q = take(&p, t, N, H, n + r), kv = take(&p, t, N, H, n + v), kr = take(&p, t, N, row, 0);
    ap_tensor out = take(&p, t, N, H, v), lse = take(&p, AP_F32, N, H, 0), dout = take(&p, t, N, H, v);
    ap_tensor dq = take(&p, t, N, H, n + r), dkv = take(&p, t, N, H, n + v), dkr = take(&p, t, N, row, 0);
    ap_tensor first = take(&p, AP_I32, N, 0, 0), pos = take(&p, AP_I32, N, 0, 0), targets = take(&p, AP_I32, N, 0, 0);
    ap_tensor cs = take(&p, AP_F32, s->T, r / 2, 0), sn = take(&p, AP_F32, s->T, r / 2, 0);
    ap_tensor gu = take(&p, t, N, 2 * s->I, 0), act = take(&p, t, N, s->I, 0), dgu = take(&p, t, N, 2 * s->I, 0);
    ap_tensor logits = take(&p, t, N, s->V, 0), loss = take(&p, AP_F32, N, 0, 0), parts = take(&p, AP_F32, 1, N, 3);
    ap_status st = p.failed ? AP_ERR_NOMEM : fill_tokens(b, s, pos, targets);
    kr.shape[1] = dkr.shape[1] = r;
    struct ap_rmsnorm_fwd_args nf = {x, w, y, rstd, 1e-6, 0};
    struct ap_rmsnorm_bwd_args nb = {y, x, w, rstd, dout, dw, 0, 0, 0};
    struct ap_rope_args ro = {q, cs, sn, pos, r, 0, 0};
    struct ap_mla_attn_fwd_args af = {q, kv, kr, first, out, lse, s->B, n, r, v, row, 0.07};
    struct ap_mla_attn_bwd_args ab = {dout, q, kv, kr, first, out, lse, dq, dkv, dkr, s->B, n, r, v, row, row, 0.07};
    struct ap_swiglu_fwd_args sf = {gu, act};
    struct ap_swiglu_bwd_args sb = {act, gu, dgu};
    struct ap_cross_entropy_args ce = {logits, targets, loss, logits, 1e-4};
    struct ap_cross_entropy_part_args cp = {logits, targets, ap_tensor_2d(parts.data, AP_F32, N, 3)};
    struct ap_cross_entropy_join_args cj = {parts, logits, targets, targets, loss, logits, 1e-4};
    /* dx of the norm: any buffer of the same size */
    nb.dx = ap_tensor_2d(x.data, t, N, s->h);
    nb.x = y;
    nb.dy = y;
    struct op_call list[] = {
        {AP_OP_rmsnorm_fwd, &nf},       {AP_OP_rmsnorm_bwd, &nb},   {AP_OP_rope, &ro},
        {AP_OP_mla_attn_fwd, &af},      {AP_OP_mla_attn_bwd, &ab},  {AP_OP_swiglu_fwd, &sf},
        {AP_OP_swiglu_bwd, &sb},        {AP_OP_cross_entropy, &ce}, {AP_OP_cross_entropy_part, &cp},
        {AP_OP_cross_entropy_join, &cj}};
    char what[96];
    snprintf(what, sizeof(what), "N %lld, h %lld, H %lld, T %lld", (long long)N, (long long)s->h, (long long)H,
             (long long)s->T);
    for (size_t i = 0; st == AP_OK && i < sizeof(list) / sizeof(list[0]); i++)
        st = measure(b, list[i].op, list[i].args, t, what);
    drop(&p);
    return st;
}

/* Router, plan, expert products, gathers. */
static ap_status moe_ops(struct bench *b, ap_dtype t, const struct shapes *s)
{
    struct pool p = {.b = b};
    int64_t N = s->B * s->T, E = s->E, K = s->K, h = s->h, I = s->I, rows = N * K;
    ap_tensor x = take(&p, t, N, h, 0), logits = take(&p, AP_F32, N, E, 0), scores = take(&p, AP_F32, N, E, 0);
    ap_tensor gates = take(&p, AP_F32, N, K, 0), dgates = take(&p, AP_F32, N, K, 0), ids = take(&p, AP_I32, N, K, 0);
    ap_tensor counts = take(&p, AP_I32, E, 0, 0), offsets = take(&p, AP_I32, E + 1, 0, 0),
              row_of = take(&p, AP_I32, N, K, 0);
    ap_tensor token_of = take(&p, AP_I32, rows, 0, 0), xs = take(&p, t, rows, h, 0), ys = take(&p, t, rows, h, 0);
    ap_tensor gu = take(&p, t, rows, 2 * I, 0), act = take(&p, t, rows, I, 0), dys = take(&p, t, rows, h, 0);
    ap_tensor w1 = take(&p, t, E, 2 * I, h), w2 = take(&p, t, E, h, I), dw1 = take(&p, AP_F32, E, 2 * I, h);
    ap_tensor none = {0};
    struct ap_router_fwd_args rf = {logits, none, scores, ids, gates, counts, AP_GATE_SOFTMAX_GREEDY, 1, 1, 0, 1.0};
    struct ap_router_bwd_args rb = {scores, ids, gates, dgates, none, logits, AP_GATE_SOFTMAX_GREEDY, 0, 1.0};
    struct ap_moe_plan_args mp = {ids, offsets, row_of, token_of};
    struct ap_moe_dispatch_fwd_args df = {x, token_of, xs};
    struct ap_moe_dispatch_bwd_args db = {dys, row_of, x};
    struct ap_moe_combine_fwd_args cf = {ys, gates, row_of, x};
    struct ap_moe_combine_bwd_args cb = {x, ys, gates, row_of, dys, dgates};
    struct ap_grouped_gemm_args g1 = {xs, w1, gu, offsets, 2 * I * h, 1, 0}, g2 = {act, w2, ys, offsets, h * I, 1, 0};
    struct ap_grouped_gemm_args g3 = {gu, w1, dys, offsets, 2 * I * h, 0, 0};
    struct ap_grouped_wgrad_args gw = {gu, xs, dw1, offsets, 2 * I * h, 1};
    struct op_call list[] = {{AP_OP_router_fwd, &rf},       {AP_OP_moe_plan, &mp},        {AP_OP_router_bwd, &rb},
                             {AP_OP_moe_dispatch_fwd, &df}, {AP_OP_grouped_gemm, &g1},    {AP_OP_grouped_gemm, &g2},
                             {AP_OP_grouped_gemm, &g3},     {AP_OP_grouped_wgrad, &gw},   {AP_OP_moe_combine_fwd, &cf},
                             {AP_OP_moe_combine_bwd, &cb},  {AP_OP_moe_dispatch_bwd, &db}};
    char what[96];
    ap_status st = p.failed ? AP_ERR_NOMEM : AP_OK;
    snprintf(what, sizeof(what), "N %lld, E %lld, K %lld, h %lld, I %lld", (long long)N, (long long)E, (long long)K,
             (long long)h, (long long)I);
    for (size_t i = 0; st == AP_OK && i < sizeof(list) / sizeof(list[0]); i++)
        st = measure(b, list[i].op, list[i].args, t, what);
    drop(&p);
    return st;
}

static ap_status optimizer_op(struct bench *b, ap_dtype t)
{
    struct pool p = {.b = b};
    int64_t n = b->small ? 5000 : (int64_t)1 << 28;
    struct ap_adamw_args a = {
        .lr = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .grad_scale = 1, .step = 10};
    a.w = a.w_new = take(&p, AP_F32, n, 0, 0);
    a.g = take(&p, AP_F32, n, 0, 0);
    a.m = a.m_new = take(&p, AP_F32, n, 0, 0);
    a.v = a.v_new = take(&p, AP_F32, n, 0, 0);
    if (t == AP_BF16)
        a.w_bf16 = take(&p, AP_BF16, n, 0, 0);
    char what[48];
    snprintf(what, sizeof(what), "%lld parameters", (long long)n);
    ap_status st = p.failed ? AP_ERR_NOMEM : measure(b, AP_OP_adamw, &a, t, what);
    drop(&p);
    return st;
}

ap_status bench_ops(struct bench *b, ap_dtype dtype)
{
    const struct shapes *s = b->small ? &small : &full;
    AP_TRY(dense_ops(b, dtype, s));
    AP_TRY(moe_ops(b, dtype, s));
    return optimizer_op(b, dtype);
}
