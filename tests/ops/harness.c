/* SPDX-License-Identifier: Apache-2.0
 * Running one call on a backend and comparing it with the oracle. */
#include "config.h"

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "harness.h"

#define GUARD   64 /* bytes after every tensor */
#define SEED    20250101u
#define NORMALS 65521

/* Host copies of all tensors after a call. */
struct result {
    ap_status status;
    unsigned char *bytes[HX_MAX]; /* content plus guard */
};

void hx_refused(struct hx *h, const char *what, ap_status status)
{
    if (status != AP_ERR_BUG)
        hx_fail(h, what, "not refused: status %s", ap_status_name(status));
}

int hx_refusals(const struct hx *h)
{
    return h->type == AP_F32 && !h->be->pool;
}

int hx_mute(void)
{
    int kept = dup(STDERR_FILENO), none = open("/dev/null", O_WRONLY);
    if (kept >= 0 && none >= 0)
        dup2(none, STDERR_FILENO);
    if (none >= 0)
        close(none);
    return kept;
}

void hx_unmute(int kept)
{
    if (kept < 0)
        return;
    dup2(kept, STDERR_FILENO);
    close(kept);
}

static void *need(void *mem)
{
    if (!mem) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return mem;
}

void hx_fail(struct hx *h, const char *what, const char *fmt, ...)
{
    va_list ap;
    h->failures++;
    printf("not ok %s on %s, %s, case %s: ", h->op, h->be->vt->name, ap_dtype_name(h->type), what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

void hx_begin(struct hx *h)
{
    for (int i = 0; i < h->count; i++)
        free(h->t[i].values);
    h->count = 0;
}

void hx_free(struct hx *h)
{
    hx_begin(h);
}

double hx_uniform(struct hx *h)
{
    return ap_rng_uniform(SEED, AP_RNG_TEST, h->counter++);
}

int64_t hx_below(struct hx *h, int64_t limit)
{
    return (int64_t)(hx_uniform(h) * (double)limit);
}

float *hx_normals(void)
{
    float *all = malloc(NORMALS * sizeof(*all));
    if (all)
        ap_rng_normal(SEED, AP_RNG_TEST, UINT64_C(1) << 40, all, NORMALS);
    return all;
}

static void randomize(struct hx *h, struct hx_tensor *t)
{
    t->values = need(calloc((size_t)t->alloc + 1, sizeof(double)));
    for (int64_t i = 0; i < t->alloc && (t->type < 0 || t->type == AP_F64); i++)
        t->values[i] = (double)h->normals[h->counter++ % NORMALS];
}

int hx_add(struct hx *h, const char *name, enum hx_role role, int type, int ndim, const int64_t *shape)
{
    struct hx_tensor *t = &h->t[h->count];
    *t = (struct hx_tensor){.name = name, .role = role, .type = type, .ndim = ndim, .shape = {1, 1, 1, 1}, .alloc = 1};
    for (int i = 0; i < ndim; i++) {
        t->shape[i] = shape[i];
        t->alloc *= shape[i];
    }
    t->cols = t->stride = 1;
    randomize(h, t);
    return h->count++;
}

int hx_add1(struct hx *h, const char *name, enum hx_role role, int type, int64_t a)
{
    return hx_add(h, name, role, type, 1, &a);
}

int hx_add2(struct hx *h, const char *name, enum hx_role role, int type, int64_t a, int64_t b)
{
    return hx_add(h, name, role, type, 2, (int64_t[]){a, b});
}

int hx_add3(struct hx *h, const char *name, enum hx_role role, int type, int64_t a, int64_t b, int64_t c)
{
    return hx_add(h, name, role, type, 3, (int64_t[]){a, b, c});
}

void hx_strided(struct hx *h, int i, int64_t cols, int64_t stride, int64_t offset)
{
    struct hx_tensor *t = &h->t[i];
    t->cols = cols;
    t->stride = stride ? stride : cols;
    t->offset = offset;
    t->alloc = offset + t->shape[0] * t->stride;
    free(t->values);
    randomize(h, t);
}

double *hx_values(struct hx *h, int i)
{
    return h->t[i].values;
}

static ap_dtype type_of(const struct hx_tensor *t, ap_dtype real)
{
    if (t->type == HX_STAT)
        return real == AP_BF16 ? AP_F32 : real;
    return t->type == HX_REAL ? real : (ap_dtype)t->type;
}

static size_t bytes_of(const struct hx_tensor *t, ap_dtype real)
{
    return (size_t)t->alloc * ap_dtype_size(type_of(t, real));
}

/* bf16 by arithmetic of our own: the upper half of an f32, rounded to nearest even. */
static double bf16_value(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float f;
    memcpy(&f, &wide, sizeof(f));
    return (double)f;
}

static uint16_t bf16_bits(double x)
{
    float f = (float)x;
    uint32_t wide;
    memcpy(&wide, &f, sizeof(wide));
    return (uint16_t)((wide + 0x7fffu + (wide >> 16 & 1u)) >> 16);
}

static double value_at(const unsigned char *bytes, ap_dtype type, int64_t i)
{
    if (type == AP_F32)
        return (double)((const float *)(const void *)bytes)[i];
    if (type == AP_F64)
        return ((const double *)(const void *)bytes)[i];
    if (type == AP_BF16)
        return bf16_value(((const uint16_t *)(const void *)bytes)[i]);
    return (double)((const int32_t *)(const void *)bytes)[i];
}

static void value_set(unsigned char *bytes, ap_dtype type, int64_t i, double x)
{
    if (type == AP_F32)
        ((float *)(void *)bytes)[i] = (float)x;
    else if (type == AP_F64)
        ((double *)(void *)bytes)[i] = x;
    else if (type == AP_BF16)
        ((uint16_t *)(void *)bytes)[i] = bf16_bits(x);
    else
        ((int32_t *)(void *)bytes)[i] = (int32_t)x;
}

static int payload(const struct hx_tensor *t, int64_t i)
{
    return i >= t->offset && (i - t->offset) % t->stride < t->cols;
}

/* The content before the call: poison in outputs (and in the gaps of outputs), values elsewhere. */
static unsigned char *initial(const struct hx_tensor *t, ap_dtype real)
{
    ap_dtype type = type_of(t, real);
    size_t size = bytes_of(t, real);
    unsigned char *b = need(malloc(size + GUARD));
    memset(b, 0xff, size); /* NaN as f32, f64 and bf16; -1 as integer */
    for (int64_t i = 0; t->role != HX_OUT && i < t->alloc; i++)
        value_set(b, type, i, t->values[i]);
    memset(b + size, 0xa5, GUARD);
    return b;
}

static void run(struct hx *h, struct ap_backend *be, ap_dtype real, hx_call *call, const void *params, struct result *r)
{
    ap_tensor view[HX_MAX];
    void *mem[HX_MAX] = {NULL};
    for (int i = 0; i < h->count; i++) {
        struct hx_tensor *t = &h->t[i];
        size_t size = bytes_of(t, real) + GUARD;
        r->bytes[i] = initial(t, real);
        view[i] = (ap_tensor){NULL, type_of(t, real), t->ndim, {t->shape[0], t->shape[1], t->shape[2], t->shape[3]}};
        if (t->role == HX_ABSENT)
            continue;
        if (be->vt->alloc(be, size, &mem[i]) != AP_OK || be->vt->copy(be->stream, mem[i], r->bytes[i], size) != AP_OK) {
            fprintf(stderr, "backend %s: no memory\n", be->vt->name);
            exit(1);
        }
        view[i].data = (unsigned char *)mem[i] + (size_t)t->offset * ap_dtype_size(view[i].dtype);
    }
    r->status = call(be, view, params);
    if (r->status == AP_OK)
        r->status = be->vt->stream_sync(be->stream);
    for (int i = 0; i < h->count; i++) {
        if (!mem[i])
            continue;
        be->vt->copy(be->stream, r->bytes[i], mem[i], bytes_of(&h->t[i], real) + GUARD);
        be->vt->stream_sync(be->stream);
        be->vt->release(be, mem[i]);
    }
}

static void result_free(struct hx *h, struct result *r)
{
    for (int i = 0; i < h->count; i++)
        free(r->bytes[i]);
}

static int is_real(ap_dtype type)
{
    return type == AP_F32 || type == AP_F64 || type == AP_BF16;
}

/* Largest |difference| / max |oracle| over the payload; INFINITY where one is not finite or an integer differs. */
static double difference(const struct hx_tensor *t, ap_dtype real, const unsigned char *got, const unsigned char *want)
{
    ap_dtype type = type_of(t, real), oracle_type = type_of(t, AP_F64);
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < t->alloc; i++) {
        if (payload(t, i))
            scale = fmax(scale, fabs(value_at(want, oracle_type, i)));
    }
    for (int64_t i = 0; i < t->alloc; i++) {
        if (!payload(t, i))
            continue;
        double a = value_at(got, type, i), b = value_at(want, oracle_type, i);
        if (!is_real(type) && a != b)
            return INFINITY;
        if (!isfinite(a) || !isfinite(b))
            return INFINITY;
        worst = fmax(worst, fabs(a - b) / (scale > 0 ? scale : 1.0));
    }
    return worst;
}

/* What must not have changed: inputs, gaps between rows, the guard. */
static void check_untouched(struct hx *h, const char *what, int i, const unsigned char *got)
{
    const struct hx_tensor *t = &h->t[i];
    size_t width = ap_dtype_size(type_of(t, h->type)), size = bytes_of(t, h->type);
    unsigned char *before = initial(t, h->type);
    if (memcmp(before + size, got + size, GUARD) != 0)
        hx_fail(h, what, "%s was written beyond its end", t->name);
    for (int64_t e = 0; e < t->alloc; e++) {
        int must_stay = t->role == HX_IN || !payload(t, e);
        if (must_stay && memcmp(before + (size_t)e * width, got + (size_t)e * width, width) != 0) {
            hx_fail(h, what, "%s was changed at element %lld, which is not an output", t->name, (long long)e);
            break;
        }
    }
    free(before);
}

/* The comparison must see one wrong element: otherwise it proves nothing. */
static void check_sensitive(struct hx *h, const char *what, int i, unsigned char *got, const unsigned char *want)
{
    const struct hx_tensor *t = &h->t[i];
    ap_dtype type = type_of(t, h->type);
    double scale = 0;
    int64_t last = -1;
    for (int64_t e = 0; e < t->alloc; e++) {
        if (payload(t, e)) {
            scale = fmax(scale, fabs(value_at(want, type_of(t, AP_F64), e)));
            last = e;
        }
    }
    if (last < 0)
        return;
    double kept = value_at(got, type, last), part = fmax(1e-2, 4 * h->tolerance);
    double step = is_real(type) ? part * (scale > 0 ? scale : 1.0) : 1;
    value_set(got, type, last, kept + step);
    if (difference(t, h->type, got, want) <= h->tolerance)
        hx_fail(h, what, "a wrong element of %s would go unnoticed", t->name);
    value_set(got, type, last, kept);
}

static void check_output(struct hx *h, const char *what, int i, const struct result *got, const struct result *want)
{
    const struct hx_tensor *t = &h->t[i];
    double tolerance = h->type == AP_F64 ? h->tolerance * 1e-8 : h->tolerance;
    double d = difference(t, h->type, got->bytes[i], want->bytes[i]);
    if (!(d <= tolerance))
        hx_fail(h, what, "%s differs from the oracle by %.3g of its largest element, allowed %.3g", t->name, d,
                tolerance);
    if (d > h->worst || !h->worst_tensor) {
        h->worst = d;
        h->worst_tensor = t->name;
    }
    check_sensitive(h, what, i, got->bytes[i], want->bytes[i]);
}

/* Both sides of a bf16 comparison start from numbers that bf16 holds. */
static void round_inputs(struct hx *h)
{
    for (int i = 0; i < h->count; i++) {
        for (int64_t e = 0; h->t[i].type == HX_REAL && e < h->t[i].alloc; e++)
            h->t[i].values[e] = bf16_value(bf16_bits(h->t[i].values[e]));
    }
}

void hx_check(struct hx *h, const char *what, hx_call *call, const void *params)
{
    struct result want = {0}, first = {0}, second = {0}, other = {0};
    if (h->asked++ % h->every != 0)
        return;
    if (h->type == AP_BF16)
        round_inputs(h);
    run(h, h->be, h->type, call, params, &first);
    /* f32 and bf16 are everybody's duty, f64 is that of host backends. */
    if (first.status == AP_ERR_UNSUPPORTED && !h->be->vt->is_host && h->type == AP_F64) {
        h->unsupported++;
        result_free(h, &first);
        return;
    }
    run(h, h->oracle, AP_F64, call, params, &want);
    run(h, h->be, h->type, call, params, &second);
    if (h->twin)
        run(h, h->twin, h->type, call, params, &other);
    h->calls++;
    if (first.status != AP_OK || second.status != AP_OK || want.status != AP_OK)
        hx_fail(h, what, "status %s, second run %s, oracle %s", ap_status_name(first.status),
                ap_status_name(second.status), ap_status_name(want.status));
    for (int i = 0; i < h->count && first.status == AP_OK && want.status == AP_OK; i++) {
        const struct hx_tensor *t = &h->t[i];
        if (t->role == HX_ABSENT)
            continue;
        check_untouched(h, what, i, first.bytes[i]);
        if (t->role != HX_IN)
            check_output(h, what, i, &first, &want);
        if (memcmp(first.bytes[i], second.bytes[i], bytes_of(t, h->type)) != 0)
            hx_fail(h, what, "%s of two equal calls has different bits", t->name);
        if (h->twin && (other.status != AP_OK || memcmp(first.bytes[i], other.bytes[i], bytes_of(t, h->type)) != 0))
            hx_fail(h, what, "%s has other bits with another number of threads", t->name);
    }
    result_free(h, &want);
    result_free(h, &first);
    result_free(h, &second);
    result_free(h, &other);
}
