/* SPDX-License-Identifier: Apache-2.0
 * A job: what the YAML job file and --set say, checked. Filled from the one option table in job.c
 * (src/base/options.h); the help, man page, JSON Schema and completion come from the same table. Relative
 * paths start from the submission directory (SLURM_SUBMIT_DIR, PBS_O_WORKDIR, else the current directory), so
 * that sbatch JOB, mpirun antipode train JOB and ./JOB mean the same; what is to be read and is not there is
 * looked for in the folder of the job file. Strings are owned by the job. No MPI. */
#ifndef AP_PLAN_JOB_H
#define AP_PLAN_JOB_H

#include <stdint.h>
#include "base/options.h"
#include "base/status.h"
#include "plan/model_config.h"

#define AP_JOB_MAX_SOURCES    32
#define AP_JOB_MAX_MILESTONES 8
#define AP_AUTO               (-1) /* value of "auto" for integer options that allow it */

enum ap_schedule_kind { AP_SCHED_CONSTANT, AP_SCHED_COSINE, AP_SCHED_WSD, AP_SCHED_STEP };

/* Order of the work on a pipeline: as the plan says, 1F1B (with windows of any width), zero-bubble. */
enum ap_pipeline_schedule { AP_PIPELINE_AUTO, AP_PIPELINE_1F1B, AP_PIPELINE_ZERO_BUBBLE };

struct ap_data_source_spec {
    char *path;
    double weight;
}; /* path without .bin/.idx */

struct ap_job {
    char *name;
    char *file; /* as given; identity is the content hash */
    char content_hash[33];
    struct {
        char *preset, *config;      /* one of them */
        struct ap_model_config cfg; /* resolved */
    } model;
    struct {
        struct ap_data_source_spec train[AP_JOB_MAX_SOURCES], valid[AP_JOB_MAX_SOURCES];
        int train_count, valid_count;
        char *tokenizer; /* "bytes" */
        int64_t seq_len;
        int mask_documents; /* attention does not cross documents; no loss on the step across */
    } data;
    struct {
        int64_t global_sequences, global_tokens, micro_sequences;
    } batch; /* resolved: both set */
    struct {
        double lr, min_lr_ratio, beta1, beta2, eps, weight_decay, clip; /* clip 0: none */
        int schedule;                                                   /* enum ap_schedule_kind */
        int64_t warmup_steps, decay_steps;                              /* wsd: length of the final decay */
        double milestones[AP_JOB_MAX_MILESTONES];
        int milestone_count; /* step: fractions of the run */
        double step_factor;  /* step: lr *= factor at each milestone (V2: 0.316) */
    } optim;
    struct {
        double mtp_weight;                   /* lambda */
        double seq_balance;                  /* alpha of the sequence-wise loss; V2 expert-level alpha1 */
        double device_balance, comm_balance; /* V2 alpha2, alpha3 */
        double bias_rate;                    /* gamma of the aux-loss-free bias update */
        double bias_stop;                    /* fraction of the run after which gamma is 0 (1: never) */
    } loss;
    int64_t train_steps, train_tokens; /* resolved: both set */
    uint64_t seed;
    int dtype; /* ap_dtype: AP_F32, AP_BF16 (AP_F64 for checks) */
    int recompute;
    struct {
        int64_t data, tensor, pipeline, expert; /* AP_AUTO or N */
        int schedule;                           /* enum ap_pipeline_schedule */
        int device_comm;                        /* enum ap_mesh_path of parallel/mesh_device.h */
        double device_timeout;                  /* s */
    } parallel;
    struct {
        char *dir;
        int64_t every, keep;
        int resume;
    } checkpoint;    /* dir NULL: RUN/ckpt; every 0: at the end only; resume: auto */
    char *backend;   /* auto | cpu | reference */
    int64_t threads; /* per rank; AP_AUTO */
    struct {
        int64_t every, sequences;
    } eval; /* every 0: at the end only; sequences: how many of valid */
    struct {
        int64_t log_every;
        double peak_gflops; /* of all ranks together, for MFU; NaN: measured */
    } monitor;
    struct {
        int64_t nan_steps;
    } limits; /* stop after so many consecutive skipped steps */
    struct {  /* the job's own validity criteria; NaN / empty: not stated */
        double valid_loss_max, valid_loss_min;
        int below_bigram;   /* best validation loss must be below the bigram entropy of the validation data */
        char *weights_hash; /* hash of the final weights that a rerun must give */
    } expect;
    char *run_dir; /* runs/NAME, or run_dir of the file */
    struct {
        char *file;
        long line, column;
    } train_place, valid_place; /* of data.train, data.valid, for errors */
};

struct ap_override {
    const char *key, *value;
}; /* --set a.b=value */

/* Read, validate and resolve a job file. *job_p is owned by the caller (ap_job_destroy). The data files need not
 * exist: ap_job_check_files looks for them. */
ap_status ap_job_load(const char *path, const struct ap_override *sets, int set_count, struct ap_job **job_p,
                      struct ap_error *err);
/* The same from memory; path names the file in errors and is where a relative model or data path may be found. */
ap_status ap_job_load_text(const char *path, const char *text, size_t size, const struct ap_override *sets,
                           int set_count, struct ap_job **job_p, struct ap_error *err);
void ap_job_destroy(struct ap_job *job); /* NULL is fine */
/* Do the data files exist and can they be read? The error names the place in the job file. */
ap_status ap_job_check_files(const struct ap_job *job, struct ap_error *err);
/* The resolved job as YAML text (malloc'ed) that ap_job_load reads back to the same job. */
char *ap_job_yaml(const struct ap_job *job);
/* JSON Schema of the job file (malloc'ed). */
char *ap_job_schema(void);
/* The option table itself: for help, man page and completion. */
const struct ap_option_table *ap_job_options(void);

#endif
