/* SPDX-License-Identifier: Apache-2.0
 * GPU benchmark program, started by bench/gpu/run.
 * usage: gpu BACKEND RESULTS DEVICE-NAME yardsticks | ops | nccl | step CONFIG LAYERS SEQUENCES LENGTH STEPS
 * nccl ends with 77 where there is no NCCL to use.
 * With AP_BENCH_SMALL=1 the shapes are those of a trial run. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/dtype.h"
#include "base/rng.h"
#include "gpu.h"

#define BLOCK 262144 /* random values that are repeated through a tensor */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static ap_status run_calls(struct bench *b, bench_call *call, void *ctx, int64_t n, double *seconds_p)
{
    double start = ap_clock_monotonic();
    for (int64_t i = 0; i < n; i++)
        AP_TRY(call(b, ctx));
    AP_TRY(b->be->vt->stream_sync(b->be->stream));
    *seconds_p = ap_clock_monotonic() - start;
    return AP_OK;
}

ap_status bench_time(struct bench *b, bench_call *call, void *ctx, struct timing *t_p)
{
    double seconds = 0, round[ROUNDS];
    int64_t n = 1;
    AP_TRY(run_calls(b, call, ctx, 1, &seconds)); /* plans, scratch memory, lazy loading */
    AP_TRY(run_calls(b, call, ctx, 1, &seconds));
    if (seconds < b->round_seconds)
        n = (int64_t)(b->round_seconds / (seconds > 1e-6 ? seconds : 1e-6)) + 1;
    for (int i = 0; i < ROUNDS; i++) {
        AP_TRY(run_calls(b, call, ctx, n, &round[i]));
        round[i] /= (double)n;
    }
    qsort(round, ROUNDS, sizeof(round[0]), compare);
    *t_p = (struct timing){round[ROUNDS / 2], round[0], round[ROUNDS - 1], n};
    return AP_OK;
}

ap_status bench_fill(struct bench *b, ap_tensor t, const void *host)
{
    AP_TRY(b->be->vt->copy(b->be->stream, t.data, host, (size_t)ap_tensor_count(&t) * ap_dtype_size(t.dtype)));
    return b->be->vt->stream_sync(b->be->stream);
}

/* Normal numbers times 0.05, a block repeated: products of zeros run faster than products of numbers. */
static ap_status randomize(struct bench *b, ap_tensor t)
{
    int64_t n = ap_tensor_count(&t), block = n < BLOCK ? n : BLOCK;
    size_t width = ap_dtype_size(t.dtype);
    float *host = calloc((size_t)block + 1, sizeof(*host));
    uint16_t *half = calloc((size_t)block + 1, sizeof(*half));
    ap_status st = host && half ? AP_OK : AP_ERR_NOMEM;
    if (st == AP_OK) {
        ap_rng_normal(1, AP_RNG_TEST, 0, host, block);
        for (int64_t i = 0; i < block; i++) {
            uint32_t bits;
            host[i] *= 0.05f;
            memcpy(&bits, &host[i], sizeof(bits));
            half[i] = (uint16_t)(bits >> 16);
        }
        const void *from = t.dtype == AP_BF16 ? (const void *)half : (const void *)host;
        for (int64_t at = 0; st == AP_OK && at < n; at += block)
            st = b->be->vt->copy(b->be->stream, (char *)t.data + (size_t)at * width, from,
                                 (size_t)(n - at < block ? n - at : block) * width);
        if (st == AP_OK)
            st = b->be->vt->stream_sync(b->be->stream);
    }
    free(host);
    free(half);
    return st;
}

ap_tensor bench_tensor(struct bench *b, ap_dtype t, int ndim, const int64_t *shape)
{
    ap_tensor x = {NULL, t, ndim, {1, 1, 1, 1}};
    for (int i = 0; i < ndim; i++)
        x.shape[i] = shape[i];
    size_t bytes = (size_t)ap_tensor_count(&x) * ap_dtype_size(t);
    if (b->be->vt->alloc(b->be, bytes, &x.data) != AP_OK) {
        x.data = NULL;
        return x;
    }
    ap_status st = t == AP_F32 || t == AP_BF16 ? randomize(b, x) : b->be->vt->fill_zero(b->be->stream, x.data, bytes);
    if (st != AP_OK)
        bench_release(b, &x);
    return x;
}

void bench_release(struct bench *b, ap_tensor *t)
{
    if (t->data)
        b->be->vt->release(b->be, t->data);
    t->data = NULL;
}

/* Dense bf16 rate of the data sheet. */
static double nominal_rate(const char *device)
{
    static const struct {
        const char *name;
        double rate;
    } known[] = {{"H200", 989.4e12}, {"H100 PCIe", 756e12}, {"H100", 989.4e12}, {"H800", 989.4e12}, {"A100", 312e12},
                 {"A800", 312e12},   {"L40S", 362e12},      {"4090", 165e12},   {"A10", 125e12}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strstr(device, known[i].name))
            return known[i].rate;
    }
    return 0;
}

static int64_t number(const char *text)
{
    return (int64_t)strtoll(text, NULL, 10);
}

static ap_status run_steps(struct bench *b, char **arg, struct ap_error *err)
{
    struct step_options o = {arg[0], number(arg[1]), number(arg[2]), number(arg[3]), number(arg[4]), AP_F32};
    AP_TRY(bench_yardsticks(b));
    AP_TRY(bench_step(b, &o, err));
    o.dtype = AP_BF16;
    ap_status st = bench_step(b, &o, err);
    if (st != AP_ERR_UNSUPPORTED)
        return st;
    fprintf(b->out, "{\"section\": \"step\", \"config\": \"%s\", \"dtype\": \"bf16\", \"skipped\": \"%s\"}\n", o.config,
            err->text);
    return AP_OK;
}

static ap_status run(struct bench *b, int argc, char **argv, struct ap_error *err)
{
    if (strcmp(argv[4], "yardsticks") == 0)
        return bench_yardsticks(b);
    if (strcmp(argv[4], "ops") == 0) {
        AP_TRY(bench_yardsticks(b));
        AP_TRY(bench_ops(b, AP_BF16));
        return bench_ops(b, AP_F32);
    }
    if (strcmp(argv[4], "nccl") == 0)
        return bench_nccl(b, err);
    return argc == 10 && strcmp(argv[4], "step") == 0 ? run_steps(b, argv + 5, err) : AP_ERR_USAGE;
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    struct ap_error err = {0};
    if (argc < 5) {
        fprintf(stderr, "usage: gpu BACKEND RESULTS DEVICE-NAME yardsticks|ops|nccl|step...\n");
        return 2;
    }
    b.small = getenv("AP_BENCH_SMALL") != NULL;
    b.round_seconds = b.small ? 0 : 0.1;
    b.nominal_bf16 = nominal_rate(argv[3]);
    b.out = fopen(argv[2], "a");
    if (!b.out) {
        perror(argv[2]);
        return 1;
    }
    ap_status st = ap_backend_open(argv[1], 0, NULL, &b.be, &err);
    if (st == AP_OK)
        st = run(&b, argc, argv, &err);
    if (st != AP_OK)
        fprintf(stderr, "%s: %s\n", ap_status_name(st), err.text[0] ? err.text : "the benchmark failed");
    ap_backend_close(b.be);
    if (fclose(b.out) != 0)
        return 1;
    return st == AP_OK ? 0 : st == AP_ERR_NOTFOUND ? 77 : 1;
}
