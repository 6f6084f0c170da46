/* SPDX-License-Identifier: Apache-2.0
 * GEMM speed. */
#include "config.h"

#include <stdlib.h>

#include "base/bf16.h"
#include "base/clock.h"
#include "train/peak.h"

#define WINDOWS 5

/* Ordinary numbers: zeros draw less power and let some devices clock higher. */
static ap_status fill(struct ap_backend *be, ap_dtype dtype, void *mem, int64_t count)
{
    size_t es = ap_dtype_size(dtype);
    uint8_t *host = malloc((size_t)count * es);
    if (!host)
        return AP_ERR_NOMEM;
    for (int64_t i = 0; i < count; i++) {
        double v = 1.0 / (double)(1 + i % 13) - 0.25;
        if (dtype == AP_F64)
            ((double *)(void *)host)[i] = v;
        else if (dtype == AP_BF16)
            ((uint16_t *)(void *)host)[i] = ap_bf16_from_f32((float)v);
        else
            ((float *)(void *)host)[i] = (float)v;
    }
    ap_status st = be->vt->copy(be->stream, mem, host, (size_t)count * es);
    ap_status sync = be->vt->stream_sync(be->stream);
    free(host);
    return st != AP_OK ? st : sync;
}

static ap_status once(struct ap_backend *be, const struct ap_gemm_args *a, double *seconds_p)
{
    double t = ap_clock_monotonic();
    AP_TRY(be->ops.gemm(be->stream, a));
    AP_TRY(be->vt->stream_sync(be->stream));
    *seconds_p = ap_clock_monotonic() - t;
    return AP_OK;
}

/* Products per second, mean over about budget_s seconds. */
static ap_status window(struct ap_backend *be, const struct ap_gemm_args *a, double budget_s, double *rate_p)
{
    double busy = 0;
    int64_t runs = 0;
    while (runs < 1 || busy < budget_s) {
        double s = 0;
        AP_TRY(once(be, a, &s));
        busy += s;
        runs++;
    }
    *rate_p = busy > 0 ? (double)runs / busy : 0;
    return AP_OK;
}

ap_status ap_peak_gemm(struct ap_backend *be, ap_dtype dtype, int64_t n, double budget_s, double *flops_p)
{
    void *mem[3] = {NULL, NULL, NULL};
    size_t bytes = (size_t)(n * n) * ap_dtype_size(dtype);
    ap_status st = AP_OK;
    for (int i = 0; st == AP_OK && i < 3; i++) {
        st = be->vt->alloc(be, bytes, &mem[i]);
        if (st == AP_OK)
            st = fill(be, dtype, mem[i], n * n);
    }
    struct ap_gemm_args a = {.a = ap_tensor_2d(mem[0], dtype, n, n),
                             .b = ap_tensor_2d(mem[1], dtype, n, n),
                             .c = ap_tensor_2d(mem[2], dtype, n, n)};
    double unused, best = 0;
    if (st == AP_OK)
        st = once(be, &a, &unused); /* plans, page faults, clock */
    for (int w = 0; st == AP_OK && w < WINDOWS; w++) {
        double rate = 0;
        st = window(be, &a, budget_s / WINDOWS, &rate);
        best = rate > best ? rate : best;
    }
    for (int i = 0; i < 3; i++)
        if (mem[i])
            be->vt->release(be, mem[i]);
    if (st == AP_OK)
        *flops_p = 2.0 * (double)n * (double)n * (double)n * best;
    return st;
}
