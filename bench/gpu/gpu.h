/* SPDX-License-Identifier: Apache-2.0
 * The GPU benchmark program: what its parts share. Results go to a file, one JSON object a line. */
#ifndef AP_BENCH_GPU_H
#define AP_BENCH_GPU_H

#include <stdio.h>

#include "backend/backend.h"

#define ROUNDS 5

struct bench {
    struct ap_backend *be;
    FILE *out;
    int small;            /* shapes for a trial run, of no use as figures */
    double round_seconds; /* least duration of one timed round */
    double copy_rate;     /* measured, bytes/s read plus written; 0: not yet */
    double gemm_rate[2];  /* measured best, FLOP/s: f32, bf16 */
    double nominal_bf16;  /* FLOP/s of the data sheet, 0: unknown device */
};

/* Seconds per call: median, smallest and largest of ROUNDS rounds. */
struct timing {
    double median, low, high;
    int64_t calls;
};

typedef ap_status bench_call(struct bench *b, void *ctx);
/* Run, wait, then time. */
ap_status bench_time(struct bench *b, bench_call *call, void *ctx, struct timing *t_p);
/* Device memory filled with small normal numbers (f32, bf16) or zeros (others); NULL data when there is no memory. */
ap_tensor bench_tensor(struct bench *b, ap_dtype t, int ndim, const int64_t *shape);
void bench_release(struct bench *b, ap_tensor *t);
/* Copy host values. */
ap_status bench_fill(struct bench *b, ap_tensor t, const void *host);

/* Copy bandwidth and dense products: the limits that everything else is compared with. */
ap_status bench_yardsticks(struct bench *b);
/* Every operation of a training step at the shapes of one layer. */
ap_status bench_ops(struct bench *b, ap_dtype dtype);
/* A training step of a model: forward, backward, norm, AdamW. layers > 0 cuts the configuration. */
struct step_options {
    const char *config;
    int64_t layers, sequences, seq_len, steps;
    ap_dtype dtype;
};
ap_status bench_step(struct bench *b, const struct step_options *o, struct ap_error *err);
/* NCCL with one rank, from set-up to abort and renewal. AP_ERR_NOTFOUND with the reason: it cannot be used here. */
ap_status bench_nccl(struct bench *b, struct ap_error *err);

#endif
