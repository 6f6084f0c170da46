/* SPDX-License-Identifier: Apache-2.0
 * Central finite differences in f64: the tools, and the dense operations. Each check builds a scalar
 * L = sum(u * y) with random u from the forward, and compares dL/dx with what the backward gives for dy = u. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "harness.h"

#define SEED 77u

static double *take(int64_t n)
{
    double *p = calloc((size_t)n + 1, sizeof(double));
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

double *gx_zeros(int64_t n)
{
    return take(n);
}

double *gx_random(struct gx *g, int64_t n, double scale)
{
    double *p = take(n);
    float f;
    for (int64_t i = 0; i < n; i++) {
        ap_rng_normal(SEED, AP_RNG_TEST, g->counter++, &f, 1);
        p[i] = scale * (double)f;
    }
    return p;
}

int64_t gx_below(struct gx *g, int64_t limit)
{
    return (int64_t)(ap_rng_uniform(SEED, AP_RNG_TEST, g->counter++) * (double)limit);
}

double gx_dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void report(struct gx *g, int good, const char *what, double worst, double allowed)
{
    g->checks++;
    g->failures += !good;
    printf("%s %-64s worst %.2e, allowed %.1e\n", good ? "ok" : "not ok", what, worst, allowed);
}

void gx_status(struct gx *g, const char *what, ap_status status)
{
    if (status != AP_OK) {
        g->failures++;
        printf("not ok %s: status %s\n", what, ap_status_name(status));
    }
}

void gx_expect(struct gx *g, const char *what, double got, double want, double tolerance)
{
    double d = fabs(got - want);
    report(g, d <= tolerance, what, d, tolerance);
}

/* h = 1e-4 gives an error of h^2 times a third derivative, about 1e-8, and rounding of about 1e-12: the
 * allowed 2e-7 of the largest gradient (or of 1e-3) is far below any real mistake. */
void gx_compare(struct gx *g, const char *what, double (*loss)(void *ctx), void *ctx, double *x, const double *grad,
                int64_t n)
{
    const double h = 1e-4, allowed = 2e-7;
    double worst = 0, scale = 1e-3;
    for (int64_t i = 0; i < n; i++)
        scale = fmax(scale, fabs(grad[i]));
    for (int64_t i = 0; i < n; i++) {
        double kept = x[i];
        x[i] = kept + h;
        double above = loss(ctx);
        x[i] = kept - h;
        double below = loss(ctx);
        x[i] = kept;
        double d = fabs((above - below) / (2 * h) - grad[i]) / scale;
        worst = isfinite(d) ? fmax(worst, d) : INFINITY;
    }
    report(g, worst <= allowed, what, worst, allowed);
}

#define T1(p, a)       ap_tensor_1d(p, AP_F64, a)
#define T2(p, a, b)    ap_tensor_2d(p, AP_F64, a, b)
#define T3(p, a, b, c) ap_tensor_3d(p, AP_F64, a, b, c)

/* y = x W^T: forward, input gradient and weight gradient are three forms of one operation. */
struct linear {
    struct gx *g;
    int64_t m, in, out;
    double *x, *w, *y, *u;
};

static double linear_loss(void *ctx)
{
    struct linear *l = ctx;
    struct ap_gemm_args a = {T2(l->x, l->m, l->in), T2(l->w, l->out, l->in), T2(l->y, l->m, l->out), 0, 1, 0};
    gx_status(l->g, "gemm", l->g->be->ops.gemm(l->g->be->stream, &a));
    return gx_dot(l->y, l->u, l->m * l->out);
}

static void check_linear(struct gx *g)
{
    struct linear l = {g, 5, 4, 3, gx_random(g, 20, 1), gx_random(g, 12, 1), gx_zeros(15), gx_random(g, 15, 1)};
    double *dx = gx_zeros(20), *dw = gx_zeros(12);
    struct ap_gemm_args in = {T2(l.u, l.m, l.out), T2(l.w, l.out, l.in), T2(dx, l.m, l.in), 0, 0, 0};
    struct ap_gemm_args wg = {T2(l.u, l.m, l.out), T2(l.x, l.m, l.in), T2(dw, l.out, l.in), 1, 0, 1};
    gx_status(g, "gemm", g->be->ops.gemm(g->be->stream, &in));
    gx_status(g, "gemm", g->be->ops.gemm(g->be->stream, &wg));
    gx_compare(g, "gemm, input gradient", linear_loss, &l, l.x, dx, 20);
    gx_compare(g, "gemm, weight gradient", linear_loss, &l, l.w, dw, 12);
    free(l.x), free(l.w), free(l.y), free(l.u), free(dx), free(dw);
}

struct grouped {
    struct gx *g;
    int64_t rows, in, out, stride;
    double *x, *w, *y, *u;
    int32_t *offsets;
};

static double grouped_loss(void *ctx)
{
    struct grouped *l = ctx;
    struct ap_grouped_gemm_args a = {T2(l->x, l->rows, l->in),
                                     T3(l->w, 3, l->out, l->in),
                                     T2(l->y, l->rows, l->out),
                                     ap_tensor_1d(l->offsets, AP_I32, 4),
                                     l->stride,
                                     1,
                                     0};
    gx_status(l->g, "grouped_gemm", l->g->be->ops.grouped_gemm(l->g->be->stream, &a));
    return gx_dot(l->y, l->u, l->rows * l->out);
}

static void check_grouped(struct gx *g)
{
    int32_t offsets[4] = {0, 4, 4, 7};
    struct grouped l = {
        g, 7, 4, 3, 14, gx_random(g, 28, 1), gx_random(g, 42, 1), gx_zeros(21), gx_random(g, 21, 1), offsets};
    double *dx = gx_zeros(28), *dw = gx_zeros(42);
    struct ap_grouped_gemm_args in = {
        T2(l.u, 7, 3), T3(l.w, 3, 3, 4), T2(dx, 7, 4), ap_tensor_1d(offsets, AP_I32, 4), 14, 0, 0};
    struct ap_grouped_wgrad_args wg = {T2(l.u, 7, 3), T2(l.x, 7, 4), T3(dw, 3, 3, 4), ap_tensor_1d(offsets, AP_I32, 4),
                                       14};
    gx_status(g, "grouped_gemm", g->be->ops.grouped_gemm(g->be->stream, &in));
    gx_status(g, "grouped_wgrad", g->be->ops.grouped_wgrad(g->be->stream, &wg));
    gx_compare(g, "grouped_gemm, input gradient, one empty group", grouped_loss, &l, l.x, dx, 28);
    gx_compare(g, "grouped_wgrad, one empty group", grouped_loss, &l, l.w, dw, 42);
    free(l.x), free(l.w), free(l.y), free(l.u), free(dx), free(dw);
}

struct embed {
    struct gx *g;
    double *table, *y, *u;
    int32_t *ids;
};

static double embed_loss(void *ctx)
{
    struct embed *l = ctx;
    struct ap_embed_fwd_args a = {T2(l->table, 4, 3), ap_tensor_1d(l->ids, AP_I32, 6), T2(l->y, 6, 3)};
    gx_status(l->g, "embed_fwd", l->g->be->ops.embed_fwd(l->g->be->stream, &a));
    return gx_dot(l->y, l->u, 18);
}

static void check_embed(struct gx *g)
{
    int32_t ids[6] = {1, 3, 1, 0, 3, 1};
    struct embed l = {g, gx_random(g, 12, 1), gx_zeros(18), gx_random(g, 18, 1), ids};
    double *dtable = gx_zeros(12);
    struct ap_embed_bwd_args b = {T2(l.u, 6, 3), ap_tensor_1d(ids, AP_I32, 6), T2(dtable, 4, 3)};
    gx_status(g, "embed_bwd", g->be->ops.embed_bwd(g->be->stream, &b));
    gx_compare(g, "embed, repeated ids", embed_loss, &l, l.table, dtable, 12);
    ids[0] = ids[3] = ids[5] = -1;
    memset(dtable, 0, 12 * sizeof(*dtable));
    gx_status(g, "embed_bwd", g->be->ops.embed_bwd(g->be->stream, &b));
    gx_compare(g, "embed, rows held elsewhere", embed_loss, &l, l.table, dtable, 12);
    free(l.table), free(l.y), free(l.u), free(dtable);
}

struct norm {
    struct gx *g;
    int64_t stride;
    double *x, *w, *y, *u, *rstd;
};

static double norm_loss(void *ctx)
{
    struct norm *l = ctx;
    struct ap_rmsnorm_fwd_args a = {T2(l->x, 4, 5), T1(l->w, 5), T2(l->y, 4, 5), T1(l->rstd, 4), 1e-3, l->stride};
    gx_status(l->g, "rmsnorm_fwd", l->g->be->ops.rmsnorm_fwd(l->g->be->stream, &a));
    return gx_dot(l->y, l->u, 20);
}

/* Rows of 5 inside rows of 8: the gap must have no influence and its gradient must stay zero. */
static void check_norm(struct gx *g)
{
    struct norm l = {g, 8, gx_random(g, 32, 1), gx_random(g, 5, 1), gx_zeros(20), gx_random(g, 20, 1), gx_zeros(4)};
    double *dx = gx_zeros(32), *dw = gx_zeros(5);
    struct ap_rmsnorm_bwd_args b = {
        T2(l.u, 4, 5), T2(l.x, 4, 5), T1(l.w, 5), T1(l.rstd, 4), T2(dx, 4, 5), T1(dw, 5), 8, 8, 1};
    norm_loss(&l);
    gx_status(g, "rmsnorm_bwd", g->be->ops.rmsnorm_bwd(g->be->stream, &b));
    gx_compare(g, "rmsnorm strided, input gradient accumulated", norm_loss, &l, l.x, dx, 32);
    gx_compare(g, "rmsnorm strided, weight gradient", norm_loss, &l, l.w, dw, 5);
    free(l.x), free(l.w), free(l.y), free(l.u), free(l.rstd), free(dx), free(dw);
}

struct rope {
    struct gx *g;
    double *x, *y, *u, *cos, *sin;
    int32_t *positions;
};

static ap_status rotate(struct gx *g, struct rope *l, double *x, int inverse)
{
    struct ap_rope_args a = {
        T3(x, 3, 2, 6), T2(l->cos, 9, 2), T2(l->sin, 9, 2), ap_tensor_1d(l->positions, AP_I32, 3), 4, 13, inverse};
    return g->be->ops.rope(g->be->stream, &a);
}

static double rope_loss(void *ctx)
{
    struct rope *l = ctx;
    memcpy(l->y, l->x, 39 * sizeof(double));
    gx_status(l->g, "rope", rotate(l->g, l, l->y, 0));
    return gx_dot(l->y, l->u, 39);
}

static void check_rope(struct gx *g)
{
    int32_t positions[3] = {0, 5, 8};
    struct rope l = {g, gx_random(g, 39, 1), gx_zeros(39), gx_random(g, 39, 1), gx_zeros(18), gx_zeros(18), positions};
    double *dx = gx_zeros(39);
    for (int i = 0; i < 18; i++) {
        double angle = (double)(i / 2) * pow(100.0, -(double)(i % 2) / 2);
        l.cos[i] = cos(angle);
        l.sin[i] = sin(angle);
    }
    memcpy(dx, l.u, 39 * sizeof(double));
    gx_status(g, "rope", rotate(g, &l, dx, 1));
    gx_compare(g, "rope strided, the inverse is the gradient", rope_loss, &l, l.x, dx, 39);
    free(l.x), free(l.y), free(l.u), free(l.cos), free(l.sin), free(dx);
}

struct glu {
    struct gx *g;
    double *x, *y, *u;
};

static double glu_loss(void *ctx)
{
    struct glu *l = ctx;
    struct ap_swiglu_fwd_args a = {T2(l->x, 3, 10), T2(l->y, 3, 5)};
    gx_status(l->g, "swiglu_fwd", l->g->be->ops.swiglu_fwd(l->g->be->stream, &a));
    return gx_dot(l->y, l->u, 15);
}

static void check_glu(struct gx *g)
{
    struct glu l = {g, gx_random(g, 30, 1.5), gx_zeros(15), gx_random(g, 15, 1)};
    double *dx = gx_zeros(30);
    struct ap_swiglu_bwd_args b = {T2(l.u, 3, 5), T2(l.x, 3, 10), T2(dx, 3, 10)};
    gx_status(g, "swiglu_bwd", g->be->ops.swiglu_bwd(g->be->stream, &b));
    gx_compare(g, "swiglu", glu_loss, &l, l.x, dx, 30);
    free(l.x), free(l.y), free(l.u), free(dx);
}

struct concat {
    struct gx *g;
    double *x, *y, *u;
};

static double concat_loss(void *ctx)
{
    struct concat *l = ctx;
    struct ap_split_cols_args a = {T2(l->x, 3, 4), T2(l->y, 3, 7), 1, 4, 3, 0};
    gx_status(l->g, "split_cols", l->g->be->ops.split_cols(l->g->be->stream, &a));
    return gx_dot(l->y, l->u, 21);
}

static void check_concat(struct gx *g)
{
    struct concat l = {g, gx_random(g, 12, 1), gx_zeros(21), gx_random(g, 21, 1)};
    double *dx = gx_zeros(12);
    struct ap_split_cols_args b = {T2(l.u, 3, 7), T2(dx, 3, 4), 4, 1, 3, 1};
    gx_status(g, "split_cols", g->be->ops.split_cols(g->be->stream, &b));
    gx_compare(g, "split_cols, swapped arguments are the gradient", concat_loss, &l, l.x, dx, 12);
    free(l.x), free(l.y), free(l.u), free(dx);
}

/* add and scale are linear with known factors; the differences must see exactly these. */
struct sum {
    struct gx *g;
    double *x, *y, *z, *u;
};

static double sum_loss(void *ctx)
{
    struct sum *l = ctx;
    struct ap_add_args a = {T1(l->x, 6), T1(l->y, 6), T1(l->z, 6)};
    struct ap_scale_args s = {T1(l->z, 6), -1.75};
    gx_status(l->g, "add", l->g->be->ops.add(l->g->be->stream, &a));
    gx_status(l->g, "scale", l->g->be->ops.scale(l->g->be->stream, &s));
    return gx_dot(l->z, l->u, 6);
}

static void check_sum(struct gx *g)
{
    struct sum l = {g, gx_random(g, 6, 1), gx_random(g, 6, 1), gx_zeros(6), gx_random(g, 6, 1)};
    double *d = gx_zeros(6);
    for (int i = 0; i < 6; i++)
        d[i] = -1.75 * l.u[i];
    gx_compare(g, "add then scale, first operand", sum_loss, &l, l.x, d, 6);
    gx_compare(g, "add then scale, second operand", sum_loss, &l, l.y, d, 6);
    free(l.x), free(l.y), free(l.z), free(l.u), free(d);
}

void gx_dense(struct gx *g)
{
    check_linear(g);
    check_grouped(g);
    check_embed(g);
    check_norm(g);
    check_rope(g);
    check_glu(g);
    check_concat(g);
    check_sum(g);
}
