/* SPDX-License-Identifier: Apache-2.0
 * Benchmark of one training step: the same model, reducer and optimizer as a run, random tokens, nothing
 * written. Beside it, interleaved in the same process, the GEMM-only replay of what the step computed. */
#ifndef AP_TRAIN_BENCH_STEP_H
#define AP_TRAIN_BENCH_STEP_H

#include "backend/cpu/replay.h"
#include "parallel/comm.h"
#include "plan/job.h"
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

/* Speed of one rank by a job's own model, for the planner: what it takes for a micro-batch there and back, and for the
 * optimizer's update, of the whole model on this rank alone or, where that is too large, of fewer layers of each kind.
 */
struct ap_bench_rank_result {
    double flops_s;        /* operations of the micro-batch as the planner counts them, over the median of its time */
    double update_bytes_s; /* AP_BENCH_UPDATE_BYTES per parameter over the median time of sum, norm and update */
    int64_t layers;        /* of the model that was measured; at most the job's */
    int steps;             /* that the medians are of */
};
/* What AdamW reads and writes per parameter by the planner's count (docs/planner.md). */
#define AP_BENCH_UPDATE_BYTES 28.0
/* opt->comm: of this rank alone; repeats and trace are not used. For about `seconds`: ranks that are to disturb each
 * other as in training start together and take the same. memory: bytes that the model may take. */
ap_status ap_bench_rank(const struct ap_bench_step_options *opt, double seconds, double memory,
                        struct ap_bench_rank_result *res_p, struct ap_error *err);

/* Collective over comm. */
ap_status ap_bench_step(const struct ap_bench_step_options *opt, struct ap_bench_step_result *res_p,
                        struct ap_error *err);

#endif
