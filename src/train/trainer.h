/* SPDX-License-Identifier: Apache-2.0
 * The training run of one site: set up, resume, steps, evaluation, checkpoints, verdict. Every rank calls
 * ap_train_run with the same job; rank 0 writes the run directory and talks to the user. */
#ifndef AP_TRAIN_TRAINER_H
#define AP_TRAIN_TRAINER_H

#include "parallel/comm.h"
#include "plan/job.h"
#include "train/signals.h"
#include "train/tracing.h"

struct ap_train_options {
    const struct ap_job *job;         /* borrowed */
    struct ap_comm *comm;             /* borrowed */
    int node_ranks;                   /* ranks that share this node's processors */
    int node_rank;                    /* mine among them: the GPU of this rank */
    const char *mpi_version;          /* for the record of the environment */
    const char *replay;               /* decisions.jsonl of another run to follow; NULL: none */
    const char *plan;                 /* plan.json to follow; NULL: that of the run directory, else the job's numbers */
    int reprod;                       /* machine-independent choices: one thread per rank unless the job says */
    const struct ap_signals *signals; /* NULL: nobody asks to stop */
    double deadline;                  /* wall time of the batch system's end; 0: none */
    struct ap_trace_request trace;
};

struct ap_train_result {
    int64_t step;            /* last committed */
    double loss, valid_loss; /* of the last step; last evaluation */
    double best_loss;
    int64_t best_step, skipped;
    char weights_hash[33]; /* XXH3-128 of the final weights; empty when the run stopped early */
};

/* Collective, blocking until the end. AP_OK: done and valid. AP_ERR_STOPPED: stopped on request, state saved.
 * AP_ERR_INVALID: ended, but the result fails the job's criteria or the loss stayed not finite. Other errors: the
 * run could not go on; committed checkpoints are intact. Every rank gets the same status and error. */
ap_status ap_train_run(const struct ap_train_options *opt, struct ap_train_result *res_p, struct ap_error *err);

#endif
