/* SPDX-License-Identifier: Apache-2.0
 * Parity cases: attention, routing, balance losses, moving tokens, cross-entropy. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "harness.h"

/* {sequences, T, heads, n, r, v, gap after a rope key} */
static const int64_t attn_shapes[][7] = {
    {1, 1, 1, 1, 0, 1, 0},       {2, 7, 3, 4, 2, 5, 3}, {1, 65, 2, 16, 8, 12, 0},  {3, 33, 2, 9, 6, 7, 5},
    {2, 128, 4, 32, 16, 32, 64}, {0, 0, 2, 4, 2, 4, 0}, {1, 200, 1, 24, 8, 24, 0}, {1, 100, 1, 128, 64, 128, 0},
    {1, 70, 2, 64, 32, 64, 0},   {9, 5, 2, 8, 8, 8, 0}, {2, 20, 11, 3, 2, 5, 1}};
#define ATTN_SHAPES (sizeof(attn_shapes) / sizeof(attn_shapes[0]))

/* Documents: kind 0 one per sequence, 1 random lengths, 2 every token its own. */
static void fill_first(struct hx *h, int i, int64_t seqs, int64_t len, int kind)
{
    double *first = hx_values(h, i);
    for (int64_t b = 0; b < seqs; b++) {
        int64_t begin = 0;
        for (int64_t t = 0; t < len; t++) {
            if (kind == 2 || (kind == 1 && hx_uniform(h) < 0.08))
                begin = t;
            first[b * len + t] = (double)begin;
        }
    }
}

static ap_status call_attn_fwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_mla_attn_fwd_args a = *(const struct ap_mla_attn_fwd_args *)params;
    a.q = t[0];
    a.kv = t[1];
    a.kr = t[2];
    a.first = t[3];
    a.out = t[4];
    a.lse = t[5];
    return be->ops.mla_attn_fwd(be->stream, &a);
}

/* The backward's inputs must fit together: out and lse come from a forward on the same backend. */
static ap_status call_attn_bwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_mla_attn_bwd_args a = *(const struct ap_mla_attn_bwd_args *)params;
    struct ap_mla_attn_fwd_args f = {t[0], t[1], t[2], t[3], t[4], t[5], a.seqs, a.n, a.r, a.v, a.kr_stride, a.scale};
    AP_TRY(be->ops.mla_attn_fwd(be->stream, &f));
    a.q = t[0];
    a.kv = t[1];
    a.kr = t[2];
    a.first = t[3];
    a.out = t[4];
    a.lse = t[5];
    a.dout = t[6];
    a.dq = t[7];
    a.dkv = t[8];
    a.dkr = t[9];
    return be->ops.mla_attn_bwd(be->stream, &a);
}

static void add_attention(struct hx *h, const int64_t *n, int documents)
{
    int64_t rows = n[0] * n[1];
    hx_begin(h);
    hx_add3(h, "q", HX_IN, HX_REAL, rows, n[2], n[3] + n[4]);
    hx_add3(h, "kv", HX_IN, HX_REAL, rows, n[2], n[3] + n[5]);
    hx_strided(h, hx_add2(h, "kr", HX_IN, HX_REAL, rows, n[4]), n[4], n[4] + n[6], n[6]);
    fill_first(h, hx_add1(h, "first", HX_IN, AP_I32, rows), n[0], n[1], documents);
    hx_add3(h, "out", HX_OUT, HX_REAL, rows, n[2], n[5]);
    hx_add2(h, "lse", HX_OUT, HX_STAT, rows, n[2]);
}

void hx_case_mla_attn_fwd(struct hx *h)
{
    for (size_t s = 0; s < ATTN_SHAPES; s++) {
        for (int documents = 0; documents < 3; documents++) {
            const int64_t *n = attn_shapes[s];
            struct ap_mla_attn_fwd_args a = {
                .seqs = n[0], .n = n[3], .r = n[4], .v = n[5], .scale = 0.4, .kr_stride = n[6] ? n[4] + n[6] : 0};
            char what[64];
            snprintf(what, sizeof(what), "shape %zu, documents %d", s, documents);
            add_attention(h, n, documents);
            hx_check(h, what, call_attn_fwd, &a);
        }
    }
}

void hx_case_mla_attn_bwd(struct hx *h)
{
    for (size_t s = 0; s < ATTN_SHAPES; s++) {
        for (int documents = 0; documents < 3; documents++) {
            const int64_t *n = attn_shapes[s];
            int64_t rows = n[0] * n[1], stride = n[4] + n[6];
            struct ap_mla_attn_bwd_args a = {.seqs = n[0],
                                             .n = n[3],
                                             .r = n[4],
                                             .v = n[5],
                                             .scale = 0.4,
                                             .kr_stride = n[6] ? stride : 0,
                                             .dkr_stride = n[6] ? stride + 1 : 0};
            char what[64];
            snprintf(what, sizeof(what), "shape %zu, documents %d", s, documents);
            add_attention(h, n, documents);
            hx_add3(h, "dout", HX_IN, HX_REAL, rows, n[2], n[5]);
            hx_add3(h, "dq", HX_OUT, HX_REAL, rows, n[2], n[3] + n[4]);
            hx_add3(h, "dkv", HX_OUT, HX_REAL, rows, n[2], n[3] + n[5]);
            int dkr = hx_add2(h, "dkr", HX_OUT, HX_REAL, rows, n[4]);
            hx_strided(h, dkr, n[4], a.dkr_stride ? a.dkr_stride : n[4], n[6]);
            hx_check(h, what, call_attn_bwd, &a);
        }
    }
}

/* {tokens, experts, K, groups, groups kept} */
static const int64_t route_shapes[][5] = {{5, 4, 2, 1, 1}, {33, 16, 4, 4, 2}, {7, 12, 3, 3, 2},
                                          {0, 8, 2, 2, 1}, {64, 64, 6, 8, 3}, {3, 1, 1, 1, 1},
                                          {9, 8, 1, 8, 2}, {21, 30, 5, 5, 3}, {4, 6, 6, 1, 1}};
#define ROUTE_SHAPES (sizeof(route_shapes) / sizeof(route_shapes[0]))

static ap_status call_router_fwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_router_fwd_args a = *(const struct ap_router_fwd_args *)params;
    a.logits = t[0];
    a.bias = t[1];
    a.scores = t[2];
    a.ids = t[3];
    a.gates = t[4];
    a.counts = t[5];
    return be->ops.router_fwd(be->stream, &a);
}

static void route_case(struct hx *h, const int64_t *n, int kind, int norm, int ties)
{
    struct ap_router_fwd_args a = {
        .kind = kind, .groups = (int)n[3], .groups_kept = (int)n[4], .norm_topk = norm, .scaling = 2.5};
    char what[64];
    snprintf(what, sizeof(what), "experts %lld, kind %d, norm %d, ties %d", (long long)n[1], kind, norm, ties);
    hx_begin(h);
    int logits = hx_add2(h, "logits", HX_IN, HX_STAT, n[0], n[1]);
    /* Ties: few different values, so that many experts and groups are exactly equal. */
    for (int64_t i = 0; ties && i < n[0] * n[1]; i++)
        hx_values(h, logits)[i] = (double)hx_below(h, 2) - 0.5;
    int bias = hx_add1(h, "bias", kind == AP_GATE_SIGMOID_NOAUX && !ties ? HX_IN : HX_ABSENT, HX_STAT, n[1]);
    for (int64_t i = 0; i < n[1]; i++)
        hx_values(h, bias)[i] = (double)(float)(0.1 * hx_values(h, bias)[i] - 0.4);
    hx_add2(h, "scores", HX_OUT, HX_STAT, n[0], n[1]);
    hx_add2(h, "ids", HX_OUT, AP_I32, n[0], n[2]);
    hx_add2(h, "gates", HX_OUT, HX_STAT, n[0], n[2]);
    hx_add1(h, "counts", HX_OUT, AP_I32, n[1]);
    hx_check(h, what, call_router_fwd, &a);
}

void hx_case_router_fwd(struct hx *h)
{
    for (size_t s = 0; s < ROUTE_SHAPES; s++) {
        for (int kind = 0; kind < 3; kind++) {
            for (int flags = 0; flags < 4; flags++)
                route_case(h, route_shapes[s], kind, flags & 1, flags >> 1);
        }
    }
}

/* Distinct ids, ascending, per token. */
static void random_choice(struct hx *h, int i, int64_t experts)
{
    int64_t rows = h->t[i].shape[0], chosen = h->t[i].shape[1];
    for (int64_t t = 0; t < rows; t++) {
        int64_t k = 0;
        for (int64_t e = 0; e < experts && k < chosen; e++) {
            if (experts - e == chosen - k || hx_below(h, experts) < chosen)
                hx_values(h, i)[t * chosen + k++] = (double)e;
        }
    }
}

static void positive(struct hx *h, int i)
{
    for (int64_t e = 0; e < h->t[i].alloc; e++)
        hx_values(h, i)[e] = (double)(float)(0.05 + 0.9 * hx_uniform(h));
}

static ap_status call_router_bwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_router_bwd_args a = *(const struct ap_router_bwd_args *)params;
    a.scores = t[0];
    a.ids = t[1];
    a.gates = t[2];
    a.dgates = t[3];
    a.dscores_extra = t[4];
    a.dlogits = t[5];
    return be->ops.router_bwd(be->stream, &a);
}

void hx_case_router_bwd(struct hx *h)
{
    for (size_t s = 0; s < ROUTE_SHAPES; s++) {
        for (int flags = 0; flags < 12; flags++) {
            const int64_t *n = route_shapes[s];
            struct ap_router_bwd_args a = {.kind = flags % 3, .norm_topk = flags / 3 & 1, .scaling = 1.5};
            hx_begin(h);
            positive(h, hx_add2(h, "scores", HX_IN, HX_STAT, n[0], n[1]));
            random_choice(h, hx_add2(h, "ids", HX_IN, AP_I32, n[0], n[2]), n[1]);
            hx_add2(h, "gates", HX_IN, HX_STAT, n[0], n[2]);
            hx_add2(h, "dgates", HX_IN, HX_STAT, n[0], n[2]);
            hx_add2(h, "dscores_extra", flags >= 6 ? HX_IN : HX_ABSENT, HX_STAT, n[0], n[1]);
            hx_add2(h, "dlogits", HX_OUT, HX_STAT, n[0], n[1]);
            hx_check(h, "random", call_router_bwd, &a);
        }
    }
}

static ap_status call_seq_balance(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_seq_balance_args a = *(const struct ap_seq_balance_args *)params;
    a.scores = t[0];
    a.ids = t[1];
    a.dscores = t[2];
    a.loss = t[3];
    return be->ops.seq_balance(be->stream, &a);
}

void hx_case_seq_balance(struct hx *h)
{
    /* {sequences, T, experts, K, group size, M} */
    static const int64_t shapes[][6] = {{1, 5, 4, 2, 0, 0}, {3, 16, 16, 4, 4, 0}, {2, 9, 12, 3, 3, 2},
                                        {0, 0, 8, 2, 0, 0}, {4, 32, 8, 1, 1, 0},  {1, 20, 30, 6, 5, 3}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (int flags = 0; flags < 6; flags++) {
            const int64_t *n = shapes[s];
            struct ap_seq_balance_args a = {.seqs = n[0],
                                            .kind = flags % 3,
                                            .accumulate_dscores = flags / 3,
                                            .group_size = n[4],
                                            .comm_groups_kept = n[5],
                                            .weight = 0.3};
            hx_begin(h);
            positive(h, hx_add2(h, "scores", HX_IN, HX_STAT, n[0] * n[1], n[2]));
            random_choice(h, hx_add2(h, "ids", HX_IN, AP_I32, n[0] * n[1], n[3]), n[2]);
            hx_add2(h, "dscores", a.accumulate_dscores ? HX_INOUT : HX_OUT, HX_STAT, n[0] * n[1], n[2]);
            hx_add1(h, "loss", HX_INOUT, AP_F64, 1);
            hx_check(h, "random", call_seq_balance, &a);
        }
    }
}

static ap_status call_moe_plan(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_moe_plan_args a = {t[0], t[1], t[2], t[3]};
    (void)params;
    return be->ops.moe_plan(be->stream, &a);
}

void hx_case_moe_plan(struct hx *h)
{
    for (size_t s = 0; s < ROUTE_SHAPES; s++) {
        const int64_t *n = route_shapes[s];
        hx_begin(h);
        random_choice(h, hx_add2(h, "ids", HX_IN, AP_I32, n[0], n[2]), n[1]);
        hx_add1(h, "offsets", HX_OUT, AP_I32, n[1] + 1);
        hx_add2(h, "row_of", HX_OUT, AP_I32, n[0], n[2]);
        hx_add1(h, "token_of", HX_OUT, AP_I32, n[0] * n[2]);
        hx_check(h, "random", call_moe_plan, NULL);
    }
}

/* {tokens, K, width} */
static const int64_t move_shapes[][3] = {{5, 2, 7}, {0, 3, 8}, {40, 4, 192}, {1, 1, 1}, {77, 6, 33}};
#define MOVE_SHAPES (sizeof(move_shapes) / sizeof(move_shapes[0]))

/* row_of: a random permutation of the N*K rows; token_of its inverse. */
static void permutation(struct hx *h, int row_of, int token_of, int64_t chosen)
{
    int i = row_of >= 0 ? row_of : token_of;
    int64_t n = h->t[i].alloc;
    double *p = hx_values(h, i);
    for (int64_t e = 0; e < n; e++)
        p[e] = (double)e;
    for (int64_t e = n - 1; e > 0; e--) {
        int64_t other = hx_below(h, e + 1);
        double kept = p[e];
        p[e] = p[other];
        p[other] = kept;
    }
    for (int64_t e = 0; row_of < 0 && e < n; e++)
        p[e] = (double)((int64_t)p[e] / chosen);
}

static ap_status call_dispatch_fwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_moe_dispatch_fwd_args a = {t[0], t[1], t[2]};
    (void)params;
    return be->ops.moe_dispatch_fwd(be->stream, &a);
}

void hx_case_moe_dispatch_fwd(struct hx *h)
{
    for (size_t s = 0; s < MOVE_SHAPES; s++) {
        const int64_t *n = move_shapes[s];
        hx_begin(h);
        hx_add2(h, "x", HX_IN, HX_REAL, n[0], n[2]);
        permutation(h, -1, hx_add1(h, "token_of", HX_IN, AP_I32, n[0] * n[1]), n[1]);
        hx_add2(h, "xs", HX_OUT, HX_REAL, n[0] * n[1], n[2]);
        hx_check(h, "random", call_dispatch_fwd, NULL);
    }
}

static ap_status call_dispatch_bwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_moe_dispatch_bwd_args a = {t[0], t[1], t[2]};
    (void)params;
    return be->ops.moe_dispatch_bwd(be->stream, &a);
}

void hx_case_moe_dispatch_bwd(struct hx *h)
{
    for (size_t s = 0; s < MOVE_SHAPES; s++) {
        const int64_t *n = move_shapes[s];
        hx_begin(h);
        hx_add2(h, "dxs", HX_IN, HX_REAL, n[0] * n[1], n[2]);
        permutation(h, hx_add2(h, "row_of", HX_IN, AP_I32, n[0], n[1]), -1, n[1]);
        hx_add2(h, "dx", HX_INOUT, HX_REAL, n[0], n[2]);
        hx_check(h, "random", call_dispatch_bwd, NULL);
    }
}

static ap_status call_combine_fwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_moe_combine_fwd_args a = {t[0], t[1], t[2], t[3]};
    (void)params;
    return be->ops.moe_combine_fwd(be->stream, &a);
}

void hx_case_moe_combine_fwd(struct hx *h)
{
    for (size_t s = 0; s < MOVE_SHAPES; s++) {
        const int64_t *n = move_shapes[s];
        hx_begin(h);
        hx_add2(h, "ys", HX_IN, HX_REAL, n[0] * n[1], n[2]);
        hx_add2(h, "gates", HX_IN, HX_STAT, n[0], n[1]);
        permutation(h, hx_add2(h, "row_of", HX_IN, AP_I32, n[0], n[1]), -1, n[1]);
        hx_add2(h, "out", HX_INOUT, HX_REAL, n[0], n[2]);
        hx_check(h, "random", call_combine_fwd, NULL);
    }
}

static ap_status call_combine_bwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_moe_combine_bwd_args a = {t[0], t[1], t[2], t[3], t[4], t[5]};
    (void)params;
    return be->ops.moe_combine_bwd(be->stream, &a);
}

void hx_case_moe_combine_bwd(struct hx *h)
{
    for (size_t s = 0; s < MOVE_SHAPES; s++) {
        const int64_t *n = move_shapes[s];
        hx_begin(h);
        hx_add2(h, "dout", HX_IN, HX_REAL, n[0], n[2]);
        hx_add2(h, "ys", HX_IN, HX_REAL, n[0] * n[1], n[2]);
        hx_add2(h, "gates", HX_IN, HX_STAT, n[0], n[1]);
        permutation(h, hx_add2(h, "row_of", HX_IN, AP_I32, n[0], n[1]), -1, n[1]);
        hx_add2(h, "dys", HX_OUT, HX_REAL, n[0] * n[1], n[2]);
        hx_add2(h, "dgates", HX_OUT, HX_STAT, n[0], n[1]);
        hx_check(h, "random", call_combine_bwd, NULL);
    }
}

static ap_status call_cross_entropy(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    int mode = *(const int *)params; /* 0: loss only, 1: dlogits apart, 2: in place */
    struct ap_cross_entropy_args a = {t[0], t[1], t[2], mode == 2 ? t[0] : t[3], 0.125};
    return be->ops.cross_entropy(be->stream, &a);
}

void hx_case_cross_entropy(struct hx *h)
{
    static const int64_t shapes[][2] = {{3, 5}, {0, 9}, {64, 256}, {17, 1000}, {2, 1}, {5, 33}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (int mode = 0; mode < 3; mode++) {
            const int64_t *n = shapes[s];
            hx_begin(h);
            int logits = hx_add2(h, "logits", mode == 2 ? HX_INOUT : HX_IN, HX_REAL, n[0], n[1]);
            for (int64_t i = 0; i < n[0] * n[1]; i++) /* rows far from zero: the maximum must be taken out */
                hx_values(h, logits)[i] = (double)(float)(5 * hx_values(h, logits)[i] + (i / n[1] % 2 ? 150 : -150));
            int targets = hx_add1(h, "targets", HX_IN, AP_I32, n[0]);
            for (int64_t i = 0; i < n[0]; i++)
                hx_values(h, targets)[i] = (double)(i % 4 == 2 ? -1 : hx_below(h, n[1]));
            hx_add1(h, "loss", HX_OUT, HX_STAT, n[0]);
            hx_add2(h, "dlogits", mode == 1 ? HX_OUT : HX_ABSENT, HX_REAL, n[0], n[1]);
            hx_check(h, "random", call_cross_entropy, &mode);
        }
    }
}
