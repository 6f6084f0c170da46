/* SPDX-License-Identifier: Apache-2.0
 * Parity cases: cross-entropy over a vocabulary whose columns lie on several processes. Besides each operation alone,
 * parts and join together must give what cross_entropy gives for the whole rows; and descriptors, indices and numbers
 * that are wrong must show. */
#include "config.h"

#include <math.h>
#include <stdio.h>

#include "harness.h"

#define PROCESSES 3 /* at most */

/* Rows far from zero: the maximum must be taken out. near: small numbers, beside which an error of the sum shows. */
static void logit_values(struct hx *h, int i, int near)
{
    int64_t cols = h->t[i].shape[1];
    for (int64_t e = 0; e < h->t[i].alloc && !near; e++)
        hx_values(h, i)[e] = (double)(float)(5 * hx_values(h, i)[e] + (e / cols % 2 ? 150 : -150));
}

/* Each fourth row: none. */
static void target_values(struct hx *h, int i, int64_t limit)
{
    for (int64_t e = 0; e < h->t[i].alloc; e++)
        hx_values(h, i)[e] = (double)(e % 4 == 2 ? -1 : hx_below(h, limit));
}

static ap_status call_part(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    struct ap_cross_entropy_part_args a = {t[0], t[1], t[2]};
    (void)params;
    return be->ops.cross_entropy_part(be->stream, &a);
}

/* A tensor of one backend that is filled from the host; NULL: no memory. */
static void *device_copy(struct ap_backend *be, const void *from, size_t size)
{
    void *mem = NULL;
    if (be->vt->alloc(be, size, &mem) != AP_OK)
        return NULL;
    be->vt->copy(be->stream, mem, from, size);
    return mem;
}

/* Rows of one NaN, of -inf beside a number, of -inf only, of NaN only: none of them may look healthy or be lost. */
static void check_not_finite(struct hx *h)
{
    enum { ROWS = 4, COLS = 12 };
    float logits[ROWS * COLS], part[ROWS * 3] = {0};
    int32_t targets[ROWS] = {-1, 1, -1, -1};
    for (int i = 0; i < ROWS * COLS; i++)
        logits[i] = i < COLS ? 0.25f : i < 3 * COLS ? -INFINITY : NAN;
    logits[5] = NAN;
    logits[COLS + 1] = 2.0f;
    void *x = device_copy(h->be, logits, sizeof(logits)), *t = device_copy(h->be, targets, sizeof(targets));
    void *p = device_copy(h->be, part, sizeof(part));
    struct ap_cross_entropy_part_args a = {ap_tensor_2d(x, AP_F32, ROWS, COLS), ap_tensor_1d(t, AP_I32, ROWS),
                                           ap_tensor_2d(p, AP_F32, ROWS, 3)};
    if (!x || !t || !p || h->be->ops.cross_entropy_part(h->be->stream, &a) != AP_OK ||
        h->be->vt->copy(h->be->stream, part, p, sizeof(part)) != AP_OK ||
        h->be->vt->stream_sync(h->be->stream) != AP_OK) {
        hx_fail(h, "not finite", "the call failed");
    } else {
        if (!isnan(part[1]) || !isnan(part[10]))
            hx_fail(h, "not finite", "NaN became the sums %g and %g", (double)part[1], (double)part[10]);
        if (part[3] != 2.0f || part[4] != 1.0f || part[5] != 2.0f)
            hx_fail(h, "not finite", "-inf beside 2 gave %g, %g, %g", (double)part[3], (double)part[4],
                    (double)part[5]);
        if (!isinf(part[6]) || part[7] != 0.0f || part[8] != 0.0f)
            hx_fail(h, "not finite", "a row of -inf gave %g, %g, %g", (double)part[6], (double)part[7],
                    (double)part[8]);
    }
    h->be->vt->release(h->be, x);
    h->be->vt->release(h->be, t);
    h->be->vt->release(h->be, p);
}

#define F1(a)       ap_tensor_1d(mem, AP_F32, a)
#define F2(a, b)    ap_tensor_2d(mem, AP_F32, a, b)
#define F3(a, b, c) ap_tensor_3d(mem, AP_F32, a, b, c)
#define H2(a, b)    ap_tensor_2d(mem, AP_BF16, a, b)
#define I1(a)       ap_tensor_1d(ids, AP_I32, a)
#define I2(a, b)    ap_tensor_2d(ids, AP_I32, a, b)
#define NONE        ap_tensor_2d(NULL, AP_F32, 4, 3)

static void refused_parts(struct hx *h)
{
    float mem[64] = {0};
    int32_t ids[8] = {0}, away[4] = {-1, -1, -1, -1};
    struct ap_backend *be = h->be;
    const struct {
        const char *what;
        struct ap_cross_entropy_part_args a;
    } bad[] = {
        {"no columns", {F2(4, 0), ap_tensor_1d(away, AP_I32, 4), F2(4, 3)}},
        {"logits of three dimensions", {F3(4, 2, 1), I1(4), F2(4, 3)}},
        {"fewer targets than rows", {F2(4, 5), I1(3), F2(4, 3)}},
        {"targets of type f32", {F2(4, 5), F1(4), F2(4, 3)}},
        {"parts of two numbers", {F2(4, 5), I1(4), F2(4, 2)}},
        {"fewer parts than rows", {F2(4, 5), I1(4), F2(3, 3)}},
        {"parts in bf16", {H2(4, 5), I1(4), H2(4, 3)}},
        {"no memory for parts", {F2(4, 5), I1(4), NONE}},
        {"integer logits", {I2(2, 4), I1(2), F2(2, 3)}},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        hx_refused(h, bad[i].what, be->ops.cross_entropy_part(be->stream, &bad[i].a));
    for (int32_t id = -2; id <= 5 && be->vt->is_host; id += 7) {
        struct ap_cross_entropy_part_args a = {F2(4, 5), I1(4), ap_tensor_2d(mem + 32, AP_F32, 4, 3)};
        ids[1] = id;
        hx_refused(h, "a target of -2 or behind the last column", be->ops.cross_entropy_part(be->stream, &a));
    }
}

static void refused_joins(struct hx *h)
{
    float mem[64] = {0};
    int32_t ids[8] = {0}, away[4] = {-1, -1, -1, -1};
    struct ap_backend *be = h->be;
    const struct {
        const char *what;
        struct ap_cross_entropy_join_args a;
    } bad[] = {
        {"no columns", {F3(2, 4, 3), F2(4, 0), ap_tensor_1d(away, AP_I32, 4), I1(4), F1(4), F2(4, 0), 1}},
        {"parts of no process", {F3(0, 4, 3), F2(4, 5), I1(4), I1(4), F1(4), F2(4, 5), 1}},
        {"parts of two dimensions", {F2(8, 3), F2(4, 5), I1(4), I1(4), F1(4), F2(4, 5), 1}},
        {"parts of fewer rows", {F3(2, 3, 3), F2(4, 5), I1(4), I1(4), F1(4), F2(4, 5), 1}},
        {"parts of four numbers", {F3(2, 4, 4), F2(4, 5), I1(4), I1(4), F1(4), F2(4, 5), 1}},
        {"parts in another type", {F3(2, 4, 3), ap_tensor_2d(mem, AP_F64, 4, 5), I1(4), I1(4), F1(4), {0}, 1}},
        {"fewer targets than rows", {F3(2, 4, 3), F2(4, 5), I1(3), I1(4), F1(4), F2(4, 5), 1}},
        {"fewer rows in has_target", {F3(2, 4, 3), F2(4, 5), I1(4), I1(3), F1(4), F2(4, 5), 1}},
        {"has_target of type f32", {F3(2, 4, 3), F2(4, 5), I1(4), F1(4), F1(4), F2(4, 5), 1}},
        {"more losses than rows", {F3(2, 4, 3), F2(4, 5), I1(4), I1(4), F1(5), F2(4, 5), 1}},
        {"a gradient of another width", {F3(2, 4, 3), F2(4, 5), I1(4), I1(4), F1(4), F2(4, 6), 1}},
        {"a gradient in another type", {F3(2, 4, 3), F2(4, 5), I1(4), I1(4), F1(4), H2(4, 5), 1}},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        hx_refused(h, bad[i].what, be->ops.cross_entropy_join(be->stream, &bad[i].a));
    for (int32_t id = -2; id <= 5 && be->vt->is_host; id += 7) {
        int32_t good[4] = {0}, wrong[4] = {0, id, 0, 0}, missing[4] = {0, -2, 0, 0};
        float loss[4];
        struct ap_cross_entropy_join_args a = {F3(2, 4, 3),
                                               F2(4, 5),
                                               ap_tensor_1d(wrong, AP_I32, 4),
                                               ap_tensor_1d(good, AP_I32, 4),
                                               ap_tensor_1d(loss, AP_F32, 4),
                                               {0},
                                               1};
        hx_refused(h, "a target of -2 or behind the last column", be->ops.cross_entropy_join(be->stream, &a));
        a.local_targets.data = good;
        a.has_target.data = missing;
        hx_refused(h, "has_target of -2", be->ops.cross_entropy_join(be->stream, &a));
    }
}

void hx_case_cross_entropy_part(struct hx *h)
{
    static const int64_t shapes[][2] = {{3, 5}, {0, 9}, {33, 256}, {9, 1000}, {2, 1}, {5, 33}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (int near = 0; near < 2; near++) {
            hx_begin(h);
            logit_values(h, hx_add2(h, "logits", HX_IN, HX_REAL, shapes[s][0], shapes[s][1]), near);
            target_values(h, hx_add1(h, "targets", HX_IN, AP_I32, shapes[s][0]), shapes[s][1]);
            hx_add2(h, "part", HX_OUT, HX_STAT, shapes[s][0], 3);
            hx_check(h, near ? "near zero" : "far from zero", call_part, NULL);
        }
    }
    if (!hx_refusals(h))
        return;
    check_not_finite(h);
    int kept = hx_mute();
    refused_parts(h);
    hx_unmute(kept);
}

static ap_status call_join(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    int mode = *(const int *)params; /* 0: loss only, 1: dlogits apart, 2: in place */
    struct ap_cross_entropy_join_args a = {t[0], t[1], t[2], t[3], t[4], mode == 2 ? t[1] : t[5], 0.125};
    return be->ops.cross_entropy_join(be->stream, &a);
}

/* Maxima around the largest logit of the row, sums as of some columns; the second of several processes now and then has
 * nothing but -inf. */
static void part_values(struct hx *h, int i, const double *logits, int64_t cols)
{
    int64_t rows = h->t[i].shape[1];
    for (int64_t e = 0; e < h->t[i].alloc; e += 3) {
        int64_t row = e / 3 % rows, process = e / 3 / rows;
        int empty = process == 1 && row % 5 == 3;
        double *part = hx_values(h, i) + e, top = -INFINITY;
        for (int64_t j = 0; j < cols; j++)
            top = fmax(top, logits[row * cols + j]);
        part[0] = empty ? -INFINITY : (double)(float)(top + 2 * part[0]);
        part[1] = empty ? 0 : (double)(float)(1 + 30 * hx_uniform(h));
        part[2] = process == row % h->t[i].shape[0] ? (double)(float)(top + part[2]) : 0;
    }
}

static void join_case(struct hx *h, const int64_t *n, int64_t processes, int mode)
{
    char what[64];
    snprintf(what, sizeof(what), "%lld processes, mode %d", (long long)processes, mode);
    hx_begin(h);
    int parts = hx_add3(h, "parts", HX_IN, HX_STAT, processes, n[0], 3);
    int logits = hx_add2(h, "logits", mode == 2 ? HX_INOUT : HX_IN, HX_REAL, n[0], n[1]);
    logit_values(h, logits, mode == 1);
    part_values(h, parts, hx_values(h, logits), n[1]);
    int local = hx_add1(h, "local_targets", HX_IN, AP_I32, n[0]);
    target_values(h, local, n[1]);
    /* Of four rows: target here, here, none anywhere (which counts more than a target here), elsewhere. */
    int has = hx_add1(h, "has_target", HX_IN, AP_I32, n[0]);
    for (int64_t i = 0; i < n[0]; i++) {
        hx_values(h, has)[i] = i % 4 == 2 ? -1 : (double)(i % 2 ? INT32_MAX : 0);
        if (i % 4 >= 2)
            hx_values(h, local)[i] = i % 8 == 6 ? 0 : -1;
    }
    hx_add1(h, "loss", HX_OUT, HX_STAT, n[0]);
    hx_add2(h, "dlogits", mode == 1 ? HX_OUT : HX_ABSENT, HX_REAL, n[0], n[1]);
    hx_check(h, what, call_join, &mode);
}

/* Logits, targets, local targets [P,N], parts [P,N,3], loss [P,N], dlogits, then the columns of each process. */
struct vocabulary {
    struct ap_backend *oracle; /* does it with whole rows */
    int processes;
};

static ap_tensor slice(ap_tensor t, int64_t i)
{
    ap_tensor s = {NULL, t.dtype, t.ndim - 1, {t.shape[1], t.shape[2], t.shape[3], 1}};
    s.data = (char *)t.data + (size_t)(i * ap_tensor_count(&s)) * ap_dtype_size(t.dtype);
    return s;
}

static ap_status call_whole(struct ap_backend *be, const ap_tensor *t, const void *params)
{
    const struct vocabulary *v = params;
    int64_t begin[PROCESSES + 1] = {0};
    for (int p = 0; p < v->processes; p++) {
        const ap_tensor *block = &t[6 + p];
        struct ap_split_cols_args cut = {t[0], *block, begin[p], 0, block->shape[1], 0};
        struct ap_cross_entropy_part_args part = {*block, slice(t[2], p), slice(t[3], p)};
        AP_TRY(be->ops.split_cols(be->stream, &cut));
        AP_TRY(be->ops.cross_entropy_part(be->stream, &part));
        begin[p + 1] = begin[p] + block->shape[1];
    }
    for (int p = 0; p < v->processes; p++) {
        const ap_tensor *block = &t[6 + p];
        struct ap_cross_entropy_args all = {t[0], t[1], slice(t[4], p), t[5], 0.125};
        struct ap_cross_entropy_join_args join = {t[3], *block, slice(t[2], p), t[1], slice(t[4], p), *block, 0.125};
        struct ap_split_cols_args cut = {t[5], *block, begin[p], 0, block->shape[1], 0};
        struct ap_split_cols_args paste = {*block, t[5], 0, begin[p], block->shape[1], 0};
        if (be == v->oracle) {
            AP_TRY(be->ops.cross_entropy(be->stream, &all));
            AP_TRY(be->ops.split_cols(be->stream, &cut));
        } else {
            AP_TRY(be->ops.cross_entropy_join(be->stream, &join));
            AP_TRY(be->ops.split_cols(be->stream, &paste));
        }
    }
    return AP_OK;
}

static void whole_case(struct hx *h, const int64_t *n, int processes, int near)
{
    struct vocabulary v = {h->oracle, processes};
    static const char *const names[PROCESSES] = {"columns 0", "columns 1", "columns 2"};
    int64_t rows = n[0], vocab = n[1];
    char what[64];
    snprintf(what, sizeof(what), "whole rows of %lld, %d processes, near %d", (long long)vocab, processes, near);
    hx_begin(h);
    logit_values(h, hx_add2(h, "logits", HX_IN, HX_REAL, rows, vocab), near);
    int targets = hx_add1(h, "targets", HX_IN, AP_I32, rows);
    target_values(h, targets, vocab);
    int local = hx_add2(h, "local targets", HX_IN, AP_I32, processes, rows);
    hx_add3(h, "parts", HX_OUT, HX_STAT, processes, rows, 3);
    hx_add2(h, "loss", HX_OUT, HX_STAT, processes, rows);
    hx_add2(h, "dlogits", HX_OUT, HX_REAL, rows, vocab);
    for (int p = 0; p < processes; p++) {
        int64_t begin = vocab * p / processes, end = vocab * (p + 1) / processes;
        hx_add2(h, names[p], HX_OUT, HX_REAL, rows, end - begin);
        for (int64_t i = 0; i < rows; i++) {
            int64_t id = (int64_t)hx_values(h, targets)[i];
            hx_values(h, local)[p * rows + i] = (double)(id >= begin && id < end ? id - begin : -1);
        }
    }
    hx_check(h, what, call_whole, &v);
}

void hx_case_cross_entropy_join(struct hx *h)
{
    static const int64_t shapes[][2] = {{3, 5}, {0, 9}, {21, 256}, {9, 333}, {2, 1}};
    static const int64_t wholes[][2] = {{9, 11}, {14, 96}, {5, 1000}};
    for (int processes = 1; processes <= PROCESSES; processes++) {
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
            for (int mode = 0; mode < 3; mode++)
                join_case(h, shapes[s], processes, mode);
        }
        for (size_t s = 0; s < sizeof(wholes) / sizeof(wholes[0]); s++) {
            for (int near = 0; near < 2; near++)
                whole_case(h, wholes[s], processes, near);
        }
    }
    if (!hx_refusals(h))
        return;
    int kept = hx_mute();
    refused_joins(h);
    hx_unmute(kept);
}
