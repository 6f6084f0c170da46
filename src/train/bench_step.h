/* SPDX-License-Identifier: Apache-2.0
 * Benchmark of one training step: the same model, reducer and optimizer as a run, random tokens, nothing
 * written. Beside it, interleaved in the same process, the GEMM-only replay of what the step computed. */
#ifndef AP_TRAIN_BENCH_STEP_H
#define AP_TRAIN_BENCH_STEP_H

#include "backend/cpu/replay.h"
#include "parallel/comm.h"
#include "plan/job.h"
#include "train/batches.h"
#include "train/tracing.h"

struct ap_bench_step_options {
    const struct ap_job *job; /* borrowed */
    struct ap_comm *comm;     /* borrowed; every rank times its own part */
    const char *backend;      /* NULL: the job's */
    int threads;              /* per rank; <= 0: as many as processors */
    int repeats;              /* >= 1 */
    int recompute;            /* activations again in backward */
    int no_replay;            /* the step alone */
    struct ap_trace_request trace;
};

struct ap_bench_step_result {
    char backend[32];
    int ranks, threads;
    int64_t tokens;                              /* of one global step */
    double step_s, step_min_s, step_max_s;       /* median, extremes, of the slowest rank */
    double replay_s, replay_min_s, replay_max_s; /* own leaves of rank 0; 0: left out, or none for this dtype */
    double model_flops;                          /* of one global step, the definition of MFU */
    double peak_flops;                           /* measured GEMM peak of this process's threads */
    double copy_bytes_s;                         /* memory bandwidth of a large copy by all threads, read + write */
    double compute_s;                            /* part of step_s in forward and backward, median */
    size_t activation_bytes;
    int64_t peak_bytes; /* largest resident size of a rank */
    struct ap_replay_info replay;
    struct ap_op_total ops[AP_OP_COUNT]; /* of one step of rank 0 */
};

/* Collective over comm. */
ap_status ap_bench_step(const struct ap_bench_step_options *opt, struct ap_bench_step_result *res_p,
                        struct ap_error *err);

/* For benchmarks of parts of a step: count micro-batches of the same random tokens (AP_ERR_NOMEM), the weights of the
 * losses of a step of so many sequences, and the median of n >= 1 numbers, which are sorted. */
ap_status ap_bench_batches(const struct ap_job *job, int64_t count, struct ap_batches *batches);
struct ap_loss_weights ap_bench_weights(const struct ap_job *job, int64_t sequences);
double ap_bench_median(double *v, int n);

#endif
