/* SPDX-License-Identifier: Apache-2.0
 * Inside of the trainer, shared by the trainer_*.c files:
 *   trainer.c         the run from start to verdict
 *   trainer_setup.c   run directory, decisions, backend, data, model, optimizer
 *   trainer_plan.c    which rank does what
 *   trainer_resume.c  what a checkpoint holds, saving and loading it
 *   trainer_step.c    one step up to its commit
 *   trainer_loop.c    evaluation, metrics, checkpoints, stopping
 *   tracing.c         traces of steps
 *   verdict.c         summary.json, FOM lines, VALID / INVALID */
#ifndef AP_TRAIN_TRAINER_IMPL_H
#define AP_TRAIN_TRAINER_IMPL_H

#include "backend/backend.h"
#include "ckpt/store.h"
#include "monitor/decisions.h"
#include "monitor/events.h"
#include "monitor/metrics.h"
#include "train/batches.h"
#include "train/data.h"
#include "train/environment.h"
#include "train/results.h"
#include "train/router_bias.h"
#include "train/runner.h"
#include "train/stage.h"
#include "train/step_mark.h"
#include "train/trainer.h"
#include "train/zscore.h"

#define AP_TRAIN_STATE_VERSION 1

/* Everything besides the tensors that a step depends on or that a resumed run must go on from; the meta of a
 * checkpoint. The same on all ranks. */
struct ap_train_state {
    int64_t step;    /* committed steps */
    int64_t samples; /* sequences consumed: the data cursor */
    int64_t tokens;
    int64_t updates;              /* optimizer updates: step less the skipped ones */
    int64_t skipped;              /* steps without an update because loss or gradient was not finite */
    int64_t skipped_row;          /* of these, the last in a row */
    double loss;                  /* of the last step */
    double valid_loss, best_loss; /* NaN: none yet */
    int64_t valid_step, best_step;
    double seconds; /* wall time of all runs so far */
    int64_t resumes;
    struct ap_zscore loss_z, norm_z;
};

struct ap_trainer {
    struct ap_train_options opt;
    const struct ap_job *job;
    struct ap_comm *comm;
    struct ap_plan *plan;
    struct ap_stage_layout layout;
    struct ap_mesh *mesh;
    int64_t seqs, len;      /* B, T of a micro-batch */
    int64_t leaves, lo, hi; /* M; own micro-batches */
    char backend_name[32];  /* decided */
    int threads;

    struct ap_tracing tracing;
    ap_step_mark *mark; /* NULL: nobody listens */
    struct ap_pool *pool;
    struct ap_backend *be;
    struct ap_data *train, *valid; /* valid NULL: no validation data */
    struct ap_stage *stage;
    struct ap_runner *runner;
    const struct ap_params *params; /* of the stage */
    struct ap_router_bias *bias;
    struct ap_ckpt_store *store;
    struct ap_batches batches; /* own leaves */
    struct ap_results results;
    int64_t *loads; /* [routers] of the global batch */
    int64_t routers;

    /* Rank 0 only. */
    int lock_fd; /* RUN/LOCK, -1: none */
    struct ap_journal *journal, *replay;
    struct ap_events *events;
    struct ap_metrics_file *metrics;
    struct ap_environment env;

    struct ap_train_state state;
    int64_t saved_step; /* newest step on disk, -1: none */
    double peak_flops;  /* of all ranks together */
    double flops_per_token;
    double begun; /* monotonic */
    double *step_ms;
    int64_t step_count, step_capacity; /* of this process, for medians; full: the oldest are overwritten */
    double ckpt_s;                     /* time of the last save */
    double ckpt_ms_open;               /* save time not yet in a metrics line */
    int stop;                          /* agreed: stop after this step */
};

/* What a step gave besides the new state. */
struct ap_step_report {
    double loss, mtp_loss, balance_loss, grad_norm, loss_z, norm_z, lr, load_max;
    double data_s, compute_s, lan_s;
    int64_t memory;
    int skipped, stop;
};

/* trainer_setup.c. Collective; every rank ends with the same status. */
ap_status ap_trainer_setup(struct ap_trainer *t, struct ap_error *err);
void ap_trainer_teardown(struct ap_trainer *t);
/* PATH of NAME in the run directory into buf; AP_ERR_INPUT if it is too long. */
ap_status ap_trainer_path(const struct ap_trainer *t, const char *name, char *buf, size_t size, struct ap_error *err);

/* trainer_plan.c. Before the run directory is touched: can the job be run on so many ranks at all, if there is no
 * plan yet? Collective; the same answer on every rank. */
ap_status ap_trainer_plan_check(struct ap_trainer *t, struct ap_error *err);
/* Collective, after the run directory is open. The plan, on every rank, in RUN/plan.json, and its mesh. */
ap_status ap_trainer_plan(struct ap_trainer *t, struct ap_error *err);

/* trainer_resume.c. Collective. */
ap_status ap_trainer_resume(struct ap_trainer *t, struct ap_error *err);
ap_status ap_trainer_save(struct ap_trainer *t, int best, struct ap_error *err);
/* Not collective; rank 0, before the decisions: entries that only the newest checkpoint knows. */
ap_status ap_trainer_restore_journal(struct ap_trainer *t, const char *ckpt_dir, struct ap_error *err);
/* DIR of the checkpoints into buf. */
ap_status ap_trainer_ckpt_dir(const struct ap_trainer *t, char *buf, size_t size, struct ap_error *err);

/* trainer_step.c. Collective. The next step up to its commit. On an error nothing is committed. */
ap_status ap_trainer_step(struct ap_trainer *t, struct ap_step_report *r, struct ap_error *err);

/* trainer_loop.c. Collective. Steps until the end, a stop request or an error. */
ap_status ap_trainer_loop(struct ap_trainer *t, struct ap_error *err);

/* verdict.c. Collective: hash, summary.json, FOM lines and the last line. status is how the loop ended. */
ap_status ap_trainer_verdict(struct ap_trainer *t, ap_status status, struct ap_train_result *res, struct ap_error *err);
/* Collective. On rank 0: XXH3-128 over the bytes of every parameter tensor in canonical order, then of every router
 * bias. */
ap_status ap_trainer_weights_hash(struct ap_trainer *t, char hex[33], struct ap_error *err);

#endif
