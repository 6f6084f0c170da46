/* SPDX-License-Identifier: Apache-2.0
 * Parity cases: matrix products, embedding, norms, rotary embedding, SwiGLU, column copies, vector operations. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"

static ap_status call_gemm(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_gemm_args a = *(const struct ap_gemm_args *)params;
    a.a = t[0];
    a.b = t[1];
    a.c = t[2];
    return be->ops.gemm(be->stream, &a);
}

/* flags: trans_a, trans_b, accumulate, c of type f32 in bf16 calls too (gradients of parameters always are). */
static void gemm_case(struct hx *h, int64_t m, int64_t n, int64_t k, int flags)
{
    struct ap_gemm_args a = {.trans_a = flags & 1, .trans_b = flags >> 1 & 1, .accumulate = flags >> 2 & 1};
    char what[96];
    snprintf(what, sizeof(what), "%lld x %lld x %lld, trans %d %d, accumulate %d", (long long)m, (long long)n,
             (long long)k, a.trans_a, a.trans_b, a.accumulate);
    hx_begin(h);
    hx_add2(h, "a", HX_IN, HX_REAL, a.trans_a ? k : m, a.trans_a ? m : k);
    hx_add2(h, "b", HX_IN, HX_REAL, a.trans_b ? n : k, a.trans_b ? k : n);
    hx_add2(h, "c", a.accumulate ? HX_INOUT : HX_OUT, a.trans_a || flags & 8 ? HX_STAT : HX_REAL, m, n);
    hx_check(h, what, call_gemm, &a);
}

/* More shapes than a table of kept primitives holds, the first ones again at the end. */
static void many_shapes(struct hx *h)
{
    for (int i = 0; i < 500; i++)
        gemm_case(h, 1 + i % 20, 1 + i / 20, 3, i % 8);
    for (int i = 0; i < 20; i++)
        gemm_case(h, 1 + i % 20, 1, 3, i % 8);
}

void hx_case_gemm(struct hx *h)
{
    static const int64_t shapes[][3] = {{1, 1, 1},     {3, 5, 7},     {64, 48, 32},   {65, 130, 33}, {0, 4, 4},
                                        {4, 0, 3},     {4, 3, 0},     {128, 96, 256}, {1, 200, 64},  {200, 1, 64},
                                        {17, 19, 300}, {257, 67, 41}, {590, 21, 270}, {9, 530, 270}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (int flags = 0; flags < 8; flags++)
            gemm_case(h, shapes[s][0], shapes[s][1], shapes[s][2], flags);
        gemm_case(h, shapes[s][0], shapes[s][1], shapes[s][2], 10);
    }
    if (h->be->vt->is_host && !h->be->pool)
        many_shapes(h);
}

static ap_status call_grouped_gemm(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_grouped_gemm_args a = *(const struct ap_grouped_gemm_args *)params;
    a.x = t[0];
    a.w = t[1];
    a.y = t[2];
    a.offsets = t[3];
    return be->ops.grouped_gemm(be->stream, &a);
}

static ap_status call_grouped_wgrad(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_grouped_wgrad_args a = *(const struct ap_grouped_wgrad_args *)params;
    a.dy = t[0];
    a.x = t[1];
    a.dw = t[2];
    a.offsets = t[3];
    return be->ops.grouped_wgrad(be->stream, &a);
}

/* {groups, out, in, gap between weights} and the rows of each group: none, one, many. */
static const int64_t group_shapes[][4] = {{1, 8, 8, 0}, {4, 12, 9, 5}, {6, 48, 40, 64}, {3, 33, 65, 0}, {5, 1, 3, 1}};
static const int64_t group_rows[][6] = {{5}, {3, 0, 7, 1}, {0, 40, 2, 0, 33, 17}, {0, 0, 0}, {9, 1, 0, 64, 2}};

/* Weights [groups, out, in] whose matrices lie `stride` apart; returns the number of rows. */
static int64_t add_groups(struct hx *h, int at, int64_t groups, int64_t stride, const int64_t *rows)
{
    int64_t total = 0;
    hx_strided(h, at, h->t[at].shape[1] * h->t[at].shape[2], stride, 0);
    int o = hx_add1(h, "offsets", HX_IN, AP_I32, groups + 1);
    for (int64_t e = 0; e < groups; e++) {
        total += rows[e];
        hx_values(h, o)[e + 1] = (double)total;
    }
    return total;
}

static int64_t total_rows(int64_t groups, const int64_t *rows)
{
    int64_t total = 0;
    for (int64_t e = 0; e < groups; e++)
        total += rows[e];
    return total;
}

void hx_case_grouped_gemm(struct hx *h)
{
    for (size_t s = 0; s < sizeof(group_shapes) / sizeof(group_shapes[0]); s++) {
        const int64_t *g = group_shapes[s];
        for (int flags = 0; flags < 4; flags++) {
            struct ap_grouped_gemm_args a = {.trans_w = flags & 1, .accumulate = flags >> 1};
            char what[64];
            snprintf(what, sizeof(what), "shape %zu, trans_w %d, accumulate %d", s, a.trans_w, a.accumulate);
            a.w_stride = g[1] * g[2] + g[3];
            int64_t rows = total_rows(g[0], group_rows[s]);
            hx_begin(h);
            hx_add2(h, "x", HX_IN, HX_REAL, rows, a.trans_w ? g[2] : g[1]);
            hx_add3(h, "w", HX_IN, HX_REAL, g[0], g[1], g[2]);
            hx_add2(h, "y", a.accumulate ? HX_INOUT : HX_OUT, HX_REAL, rows, a.trans_w ? g[1] : g[2]);
            add_groups(h, 1, g[0], a.w_stride, group_rows[s]);
            hx_check(h, what, call_grouped_gemm, &a);
        }
    }
}

void hx_case_grouped_wgrad(struct hx *h)
{
    for (size_t s = 0; s < sizeof(group_shapes) / sizeof(group_shapes[0]); s++) {
        const int64_t *g = group_shapes[s];
        int64_t rows = total_rows(g[0], group_rows[s]);
        for (int add = 0; add < 2; add++) {
            struct ap_grouped_wgrad_args a = {.w_stride = g[1] * g[2] + g[3], .accumulate = add};
            char what[48];
            snprintf(what, sizeof(what), "shape %zu%s", s, add ? ", accumulate" : "");
            hx_begin(h);
            hx_add2(h, "dy", HX_IN, HX_REAL, rows, g[1]);
            hx_add2(h, "x", HX_IN, HX_REAL, rows, g[2]);
            hx_add3(h, "dw", HX_INOUT, HX_STAT, g[0], g[1], g[2]);
            add_groups(h, 2, g[0], a.w_stride, group_rows[s]);
            hx_check(h, what, call_grouped_wgrad, &a);
        }
    }
}

static ap_status call_embed_fwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_embed_fwd_args a = {t[0], t[1], t[2]};
    (void)params;
    return be->ops.embed_fwd(be->stream, &a);
}

static ap_status call_embed_bwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_embed_bwd_args a = {t[0], t[1], t[2]};
    (void)params;
    return be->ops.embed_bwd(be->stream, &a);
}

/* {tokens, vocabulary, width}: few ids for many tokens, so that rows collide. */
static const int64_t embed_shapes[][3] = {{7, 5, 3}, {0, 4, 8}, {300, 11, 33}, {64, 256, 192}, {1, 1, 1}};

static void random_ids(struct hx *h, int i, int64_t limit)
{
    for (int64_t e = 0; e < h->t[i].alloc; e++)
        hx_values(h, i)[e] = (double)hx_below(h, limit);
}

/* kind 0: all rows here, 1: two of three elsewhere, 2: all elsewhere. */
static void embed_ids(struct hx *h, int i, int64_t limit, int kind)
{
    random_ids(h, i, limit);
    for (int64_t e = 0; kind && e < h->t[i].alloc; e++) {
        if (kind == 2 || hx_below(h, 3) > 0)
            hx_values(h, i)[e] = -1;
    }
}

static const char *const embed_kinds[] = {"random ids", "most rows elsewhere", "all rows elsewhere"};

/* Ids that are neither rows nor -1; a device does not look. */
static void refused_ids(struct hx *h)
{
    float table[6] = {0}, out[4] = {0};
    if (!h->be->vt->is_host || !hx_refusals(h))
        return;
    int kept = hx_mute();
    for (int32_t id = -2; id <= 3; id += 5) {
        int32_t ids[2] = {-1, id};
        struct ap_embed_fwd_args f = {ap_tensor_2d(table, AP_F32, 3, 2), ap_tensor_1d(ids, AP_I32, 2),
                                      ap_tensor_2d(out, AP_F32, 2, 2)};
        struct ap_embed_bwd_args b = {f.out, f.ids, f.table};
        hx_refused(h, "an id of -2 or behind the last row", h->be->ops.embed_fwd(h->be->stream, &f));
        hx_refused(h, "an id of -2 or behind the last row", h->be->ops.embed_bwd(h->be->stream, &b));
    }
    hx_unmute(kept);
}

void hx_case_embed_fwd(struct hx *h)
{
    for (size_t s = 0; s < sizeof(embed_shapes) / sizeof(embed_shapes[0]); s++) {
        for (int kind = 0; kind < 3; kind++) {
            const int64_t *e = embed_shapes[s];
            hx_begin(h);
            hx_add2(h, "table", HX_IN, HX_REAL, e[1], e[2]);
            embed_ids(h, hx_add1(h, "ids", HX_IN, AP_I32, e[0]), e[1], kind);
            hx_add2(h, "out", HX_OUT, HX_REAL, e[0], e[2]);
            hx_check(h, embed_kinds[kind], call_embed_fwd, NULL);
        }
    }
    refused_ids(h);
}

void hx_case_embed_bwd(struct hx *h)
{
    for (size_t s = 0; s < sizeof(embed_shapes) / sizeof(embed_shapes[0]); s++) {
        for (int kind = 0; kind < 3; kind++) {
            const int64_t *e = embed_shapes[s];
            hx_begin(h);
            hx_add2(h, "dout", HX_IN, HX_REAL, e[0], e[2]);
            embed_ids(h, hx_add1(h, "ids", HX_IN, AP_I32, e[0]), e[1], kind);
            hx_add2(h, "dtable", HX_INOUT, HX_STAT, e[1], e[2]);
            hx_check(h, embed_kinds[kind], call_embed_bwd, NULL);
        }
    }
}

static ap_status call_rmsnorm_fwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_rmsnorm_fwd_args a = *(const struct ap_rmsnorm_fwd_args *)params;
    a.x = t[0];
    a.w = t[1];
    a.y = t[2];
    a.rstd = t[3];
    return be->ops.rmsnorm_fwd(be->stream, &a);
}

static ap_status call_rmsnorm_bwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_rmsnorm_bwd_args a = *(const struct ap_rmsnorm_bwd_args *)params;
    a.dy = t[0];
    a.x = t[1];
    a.w = t[2];
    a.rstd = t[3];
    a.dx = t[4];
    a.dw = t[5];
    return be->ops.rmsnorm_bwd(be->stream, &a);
}

/* {rows, d, x_stride, dx_stride} */
static const int64_t norm_shapes[][4] = {{4, 8, 0, 0}, {5, 33, 40, 47},    {0, 16, 0, 0},
                                         {1, 1, 0, 0}, {130, 192, 0, 200}, {67, 7, 7, 0}};

void hx_case_rmsnorm_fwd(struct hx *h)
{
    for (size_t s = 0; s < sizeof(norm_shapes) / sizeof(norm_shapes[0]); s++) {
        for (int keep = 0; keep < 2; keep++) {
            const int64_t *n = norm_shapes[s];
            struct ap_rmsnorm_fwd_args a = {.eps = 1e-5, .x_stride = n[2]};
            hx_begin(h);
            hx_strided(h, hx_add2(h, "x", HX_IN, HX_REAL, n[0], n[1]), n[1], n[2], n[2] ? 2 : 0);
            hx_add1(h, "w", HX_IN, HX_REAL, n[1]);
            hx_add2(h, "y", HX_OUT, HX_REAL, n[0], n[1]);
            hx_add1(h, "rstd", keep ? HX_OUT : HX_ABSENT, HX_STAT, n[0]);
            hx_check(h, n[2] ? "strided" : "dense", call_rmsnorm_fwd, &a);
        }
    }
}

void hx_case_rmsnorm_bwd(struct hx *h)
{
    for (size_t s = 0; s < sizeof(norm_shapes) / sizeof(norm_shapes[0]); s++) {
        for (int flags = 0; flags < 4; flags++) {
            const int64_t *n = norm_shapes[s];
            struct ap_rmsnorm_bwd_args a = {.x_stride = n[2], .dx_stride = n[3], .accumulate = flags & 1};
            hx_begin(h);
            hx_add2(h, "dy", HX_IN, HX_REAL, n[0], n[1]);
            hx_strided(h, hx_add2(h, "x", HX_IN, HX_REAL, n[0], n[1]), n[1], n[2], n[2] ? 3 : 0);
            hx_add1(h, "w", HX_IN, HX_REAL, n[1]);
            int rstd = hx_add1(h, "rstd", HX_IN, HX_STAT, n[0]);
            for (int64_t i = 0; i < n[0]; i++)
                hx_values(h, rstd)[i] = (double)(float)(0.5 + hx_uniform(h));
            int dx = hx_add2(h, "dx", a.accumulate ? HX_INOUT : HX_OUT, HX_REAL, n[0], n[1]);
            hx_strided(h, dx, n[1], n[3], n[3] ? 1 : 0);
            hx_add1(h, "dw", flags & 2 ? HX_INOUT : HX_ABSENT, HX_STAT, n[1]);
            hx_check(h, n[2] ? "strided" : "dense", call_rmsnorm_bwd, &a);
        }
    }
}

static ap_status call_rope(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_rope_args a = *(const struct ap_rope_args *)params;
    a.x = t[0];
    a.cos = t[1];
    a.sin = t[2];
    a.positions = t[3];
    return be->ops.rope(be->stream, &a);
}

void hx_case_rope(struct hx *h)
{
    /* {tokens, heads, width, r, x_stride} */
    static const int64_t shapes[][5] = {{6, 2, 8, 4, 0},     {33, 3, 13, 6, 50}, {0, 2, 4, 4, 0},
                                        {70, 1, 24, 24, 24}, {5, 4, 192, 64, 0}, {3, 1, 5, 0, 0}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (int inverse = 0; inverse < 2; inverse++) {
            const int64_t *n = shapes[s];
            struct ap_rope_args a = {.r = n[3], .x_stride = n[4], .inverse = inverse};
            hx_begin(h);
            int x = hx_add3(h, "x", HX_INOUT, HX_REAL, n[0], n[1], n[2]);
            hx_strided(h, x, n[1] * n[2], n[4], n[4] ? 1 : 0);
            hx_add2(h, "cos", HX_IN, HX_STAT, 90, n[3] / 2);
            hx_add2(h, "sin", HX_IN, HX_STAT, 90, n[3] / 2);
            random_ids(h, hx_add1(h, "positions", HX_IN, AP_I32, n[0]), 90);
            hx_check(h, inverse ? "inverse" : "forward", call_rope, &a);
        }
    }
}

static ap_status call_swiglu_fwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_swiglu_fwd_args a = {t[0], t[1]};
    (void)params;
    return be->ops.swiglu_fwd(be->stream, &a);
}

static ap_status call_swiglu_bwd(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_swiglu_bwd_args a = {t[0], t[1], t[2]};
    (void)params;
    return be->ops.swiglu_bwd(be->stream, &a);
}

static const int64_t glu_shapes[][2] = {{3, 5}, {0, 8}, {65, 96}, {9, 1}, {2, 333}};

/* Large arguments on both sides: exp must neither overflow to NaN nor lose the tail. */
static void stretch(struct hx *h, int i)
{
    static const double extreme[] = {-200, -88, -30, 30, 88, 200, 0, -1e-8};
    double *x = hx_values(h, i);
    for (int64_t e = 0; e < h->t[i].alloc; e++)
        x[e] = e < 8 && h->t[i].alloc > 20 ? (double)(float)extreme[e] : (double)(float)(4 * x[e]);
}

void hx_case_swiglu_fwd(struct hx *h)
{
    for (size_t s = 0; s < sizeof(glu_shapes) / sizeof(glu_shapes[0]); s++) {
        hx_begin(h);
        stretch(h, hx_add2(h, "gate_up", HX_IN, HX_REAL, glu_shapes[s][0], 2 * glu_shapes[s][1]));
        hx_add2(h, "y", HX_OUT, HX_REAL, glu_shapes[s][0], glu_shapes[s][1]);
        hx_check(h, "wide range", call_swiglu_fwd, NULL);
    }
}

void hx_case_swiglu_bwd(struct hx *h)
{
    for (size_t s = 0; s < sizeof(glu_shapes) / sizeof(glu_shapes[0]); s++) {
        hx_begin(h);
        hx_add2(h, "dy", HX_IN, HX_REAL, glu_shapes[s][0], glu_shapes[s][1]);
        stretch(h, hx_add2(h, "gate_up", HX_IN, HX_REAL, glu_shapes[s][0], 2 * glu_shapes[s][1]));
        hx_add2(h, "dgate_up", HX_OUT, HX_REAL, glu_shapes[s][0], 2 * glu_shapes[s][1]);
        hx_check(h, "wide range", call_swiglu_bwd, NULL);
    }
}

static ap_status call_split_cols(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_split_cols_args a = *(const struct ap_split_cols_args *)params;
    a.src = t[0];
    a.dst = t[1];
    return be->ops.split_cols(be->stream, &a);
}

void hx_case_split_cols(struct hx *h)
{
    /* {rows, source width, destination width, source column, destination column, columns} */
    static const int64_t shapes[][6] = {
        {3, 8, 8, 0, 0, 8}, {5, 7, 12, 2, 6, 5}, {0, 4, 4, 1, 1, 2}, {40, 64, 33, 31, 0, 33}, {2, 5, 5, 3, 3, 0}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            const int64_t *n = shapes[s];
            struct ap_split_cols_args a = {.src_col = n[3], .dst_col = n[4], .cols = n[5], .accumulate = accumulate};
            hx_begin(h);
            hx_add2(h, "src", HX_IN, HX_REAL, n[0], n[1]);
            hx_add2(h, "dst", HX_INOUT, HX_REAL, n[0], n[2]);
            hx_check(h, accumulate ? "accumulate" : "copy", call_split_cols, &a);
        }
    }
}

static const int64_t lengths[] = {1, 0, 7, 512, 513, 1000, 16384, 70001};
#define LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

static ap_status call_add(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    int alias = *(const int *)params; /* 0: c apart, 1: c is a, 2: c is b */
    struct ap_add_args a = {t[0], t[1], alias == 0 ? t[2] : t[alias - 1]};
    return be->ops.add(be->stream, &a);
}

void hx_case_add(struct hx *h)
{
    for (size_t s = 0; s < LENGTHS; s++) {
        for (int alias = 0; alias < 3; alias++) {
            hx_begin(h);
            hx_add1(h, "a", alias == 1 ? HX_INOUT : HX_IN, HX_REAL, lengths[s]);
            hx_add1(h, "b", alias == 2 ? HX_INOUT : HX_IN, HX_REAL, lengths[s]);
            hx_add1(h, "c", alias ? HX_ABSENT : HX_OUT, HX_REAL, lengths[s]);
            hx_check(h, alias ? "in place" : "apart", call_add, &alias);
        }
    }
}

static ap_status call_scale(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_scale_args a = {t[0], *(const double *)params};
    return be->ops.scale(be->stream, &a);
}

void hx_case_scale(struct hx *h)
{
    static const double factors[] = {0.3, -2.0, 0.0};
    for (size_t s = 0; s < LENGTHS; s++) {
        hx_begin(h);
        hx_add1(h, "x", HX_INOUT, HX_REAL, lengths[s]);
        hx_check(h, "random", call_scale, &factors[s % 3]);
    }
}

static ap_status call_sum_tokens(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_sum_tokens_args a = {t[0], t[1]};
    (void)params;
    return be->ops.sum_tokens(be->stream, &a);
}

static ap_status call_sumsq(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_sumsq_args a = {t[0], t[1], params, params ? ap_tensor_count(&t[1]) : 0};
    return be->ops.sumsq(be->stream, &a);
}

void hx_case_sum_tokens(struct hx *h)
{
    for (size_t s = 0; s <= LENGTHS; s++) {
        int64_t n = s < LENGTHS ? lengths[s] : 300007; /* more leaves than one block of a device sums */
        hx_begin(h);
        hx_add1(h, "x", HX_IN, HX_STAT, n);
        hx_add1(h, "out", HX_INOUT, AP_F64, 1);
        hx_check(h, "random", call_sum_tokens, NULL);
    }
}

void hx_case_sumsq(struct hx *h)
{
    for (size_t s = 0; s <= LENGTHS; s++) {
        int64_t n = s < LENGTHS ? lengths[s] : 300007; /* more leaves than one block of a device sums */
        hx_begin(h);
        hx_add1(h, "x", HX_IN, HX_REAL, n);
        hx_add1(h, "out", HX_OUT, AP_F64, 1);
        hx_check(h, "random", call_sumsq, NULL);
    }
    /* Runs of the optimizer's chunks: many short ones, gaps, an empty one, one with more leaves than a block takes. */
    struct ap_run runs[300];
    int64_t at = 3;
    for (int i = 0; i < 300; i++) {
        runs[i] = (struct ap_run){at, i == 7 ? 0 : i == 150 ? 140001 : 1 + i * 37 % 700};
        at += runs[i].count + i % 3;
    }
    hx_begin(h);
    hx_add1(h, "x", HX_IN, HX_REAL, at);
    hx_add1(h, "out", HX_OUT, AP_F64, 300);
    hx_check(h, "runs", call_sumsq, runs);
    float x[4] = {0};
    double out[2];
    const struct ap_run bad[][2] = {{{0, 2}, {3, 2}}, {{0, 2}, {1, 1}}, {{-1, 1}, {2, 1}}, {{0, -1}, {2, 1}}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ap_sumsq_args a = {ap_tensor_1d(x, AP_F32, 4), ap_tensor_1d(out, AP_F64, 2), bad[i], 2};
        hx_refused(h, "runs that overlap or leave the array", h->be->ops.sumsq(h->be->stream, &a));
    }
}

static ap_status call_cast(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_cast_args a = {t[0], t[1]};
    (void)params;
    return be->ops.cast(be->stream, &a);
}

/* bf16 by hand: cut to 8 bits of precision, rounding half to even, by scaling with powers of two. */
static void check_bf16(struct hx *h)
{
    static const struct {
        float x;
        uint16_t want;
    } known[] = {{0.0f, 0x0000},    {1.0f, 0x3f80},    {-2.5f, 0xc020},    {1.00390625f, 0x3f80}, {1.01171875f, 0x3f82},
                 {3.0e38f, 0x7f62}, {3.4e38f, 0x7f80}, {1.0e-40f, 0x0001}, {-0.0f, 0x8000}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint16_t got = 0xffff, *mem = NULL;
        float *x = NULL;
        if (h->be->vt->alloc(h->be, sizeof(float), (void **)&x) != AP_OK ||
            h->be->vt->alloc(h->be, sizeof(got), (void **)&mem) != AP_OK) {
            hx_fail(h, "bf16", "no memory");
            return;
        }
        h->be->vt->copy(h->be->stream, x, &known[i].x, sizeof(float));
        struct ap_cast_args a = {ap_tensor_1d(x, AP_F32, 1), ap_tensor_1d(mem, AP_BF16, 1)};
        if (h->be->ops.cast(h->be->stream, &a) != AP_OK)
            hx_fail(h, "bf16", "cast failed");
        h->be->vt->copy(h->be->stream, &got, mem, sizeof(got));
        h->be->vt->stream_sync(h->be->stream);
        if (got != known[i].want)
            hx_fail(h, "bf16", "%g became %04x, expected %04x", (double)known[i].x, got, known[i].want);
        h->be->vt->release(h->be, x);
        h->be->vt->release(h->be, mem);
    }
}

void hx_case_cast(struct hx *h)
{
    static const int pairs[][2] = {{AP_F32, AP_F64}, {AP_F64, AP_F32},  {AP_F32, AP_BF16}, {AP_BF16, AP_F32},
                                   {AP_F32, AP_F32}, {AP_F64, AP_BF16}, {AP_BF16, AP_F64}};
    for (size_t s = 0; s < LENGTHS; s++) {
        for (size_t p = 0; p < sizeof(pairs) / sizeof(pairs[0]); p++) {
            hx_begin(h);
            int src = hx_add1(h, "src", HX_IN, pairs[p][0], lengths[s]);
            for (int64_t i = 0; i < lengths[s]; i++) /* what a bf16 tensor cannot hold is rounded on its way in */
                hx_values(h, src)[i] = (double)(float)ldexp(hx_uniform(h) - 0.5, (int)hx_below(h, 120) - 60);
            hx_add1(h, "dst", HX_OUT, pairs[p][1], lengths[s]);
            hx_check(h, "random", call_cast, NULL);
        }
    }
    check_bf16(h);
}

static ap_status call_adamw(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_adamw_args a = *(const struct ap_adamw_args *)params;
    int in_place = t[4].data == NULL;
    a.w = t[0];
    a.g = t[1];
    a.m = t[2];
    a.v = t[3];
    a.w_new = in_place ? t[0] : t[4];
    a.m_new = in_place ? t[2] : t[5];
    a.v_new = in_place ? t[3] : t[6];
    a.w_bf16 = t[7];
    return be->ops.adamw(be->stream, &a);
}

static struct ap_adamw_args adamw_args(int64_t step)
{
    return (struct ap_adamw_args){
        .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .grad_scale = 0.7, .step = step};
}

/* Parts of the vector, from bounds that are multiples of 4 and others, an empty one, one that is longer than a block of
 * any kernel; the outputs keep their values elsewhere. */
static void adamw_parts(struct hx *h)
{
    static const struct ap_adamw_segment parts[] = {{0, 3, 1},    {4, 64, 0},       {68, 0, 1},   {70, 1001, 1},
                                                    {1072, 4, 0}, {1200, 68000, 1}, {69999, 1, 0}};
    struct ap_adamw_args a = adamw_args(3);
    a.segments = parts;
    a.segment_count = sizeof(parts) / sizeof(parts[0]);
    hx_begin(h);
    for (int i = 0; i < 7; i++) {
        static const char *const names[] = {"w", "g", "m", "v", "w_new", "m_new", "v_new"};
        int t = hx_add1(h, names[i], i < 4 ? HX_IN : HX_INOUT, HX_STAT, 70001);
        for (int64_t k = 0; i == 3 && k < 70001; k++)
            hx_values(h, t)[k] = (double)(float)hx_uniform(h);
    }
    hx_add1(h, "w_bf16", h->type == AP_BF16 ? HX_INOUT : HX_ABSENT, AP_BF16, 70001);
    hx_check(h, "segments", call_adamw, &a);
    a.segment_count = 0;
    hx_check(h, "no segment", call_adamw, &a);
}

void hx_case_adamw(struct hx *h)
{
    adamw_parts(h);
    for (size_t s = 0; s < LENGTHS; s++) {
        for (int in_place = 0; in_place < 2; in_place++) {
            struct ap_adamw_args a = adamw_args(1 + (int64_t)s * 5);
            enum hx_role state = in_place ? HX_INOUT : HX_IN, out = in_place ? HX_ABSENT : HX_OUT;
            hx_begin(h);
            hx_add1(h, "w", state, HX_STAT, lengths[s]);
            hx_add1(h, "g", HX_IN, HX_STAT, lengths[s]);
            hx_add1(h, "m", state, HX_STAT, lengths[s]);
            int v = hx_add1(h, "v", state, HX_STAT, lengths[s]);
            for (int64_t i = 0; i < lengths[s]; i++)
                hx_values(h, v)[i] = (double)(float)hx_uniform(h);
            hx_add1(h, "w_new", out, HX_STAT, lengths[s]);
            hx_add1(h, "m_new", out, HX_STAT, lengths[s]);
            hx_add1(h, "v_new", out, HX_STAT, lengths[s]);
            hx_add1(h, "w_bf16", h->type == AP_BF16 ? HX_OUT : HX_ABSENT, AP_BF16, lengths[s]);
            hx_check(h, in_place ? "in place" : "apart", call_adamw, &a);
        }
    }
}
