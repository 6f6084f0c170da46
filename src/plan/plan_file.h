/* SPDX-License-Identifier: Apache-2.0
 * The plan of a run, as data and as plan.json (docs/planner.md): which rank does what. Made by the search on a measured
 * machine (plan_report.h) or from the numbers of a job alone, written before the run, read by everyone who runs it.
 * Pure but for read and write, no MPI, thread-safe.
 *
 * Slots are those of parallel/mesh.h: slot = ((pipe * data + d) * expert + e) * tensor + t. */
#ifndef AP_PLAN_PLAN_FILE_H
#define AP_PLAN_PLAN_FILE_H

#include <stdint.h>
#include "base/json.h"
#include "base/status.h"
#include "plan/job.h"
#include "plan/model_config.h"

#define AP_PLAN_FORMAT    "antipode-plan"
#define AP_PLAN_VERSION   1
#define AP_PLAN_MAX_RANKS 65536

/* The order of forwards and backwards on a pipeline; names in plan.json: ap_plan_schedule_name. */
enum ap_plan_schedule {
    AP_PLAN_1F1B,        /* at most pipeline - s micro-batches in flight from stage s on */
    AP_PLAN_DEEP,        /* 1F1B with more of them: as many as hide the ways between stages */
    AP_PLAN_INTERLEAVED, /* each rank holds several stages (chunks) */
    AP_PLAN_ZERO_BUBBLE, /* backward in two halves: of activations, of weights; several stages, no recomputation */
    AP_PLAN_SCHEDULES
};

struct ap_plan_stage {
    int64_t first_layer, layers; /* embedding goes with the first stage, head, final norm and MTP with the last */
    int64_t in_flight;           /* micro-batches at most whose activations it keeps, at least 1 */
    double memory_bytes;         /* predicted, of each rank of the stage; NaN: not predicted */
};

/* Seconds of a step; step = compute + lan + wan + bubble, the other three are parts of lan, wan and compute. */
struct ap_plan_times {
    double step; /* NaN: nothing is predicted, and the others mean nothing */
    double compute, lan, wan, bubble, sync_lan, sync_wan, optimizer;
    double memory_bytes, memory_part; /* of the fullest rank; that over what it may fill */
    double simulated_step;            /* by discrete events; NaN: not simulated */
    double tokens_per_s;
};

struct ap_plan {
    char date[40];            /* when it was made, UTC; "": not said */
    char job[128], model[64]; /* names */
    struct {
        int ranks, nodes, sites, guessed_links; /* nodes and sites 0: not told */
        char measured[40];                      /* date of the topology; "": not measured */
        char identity[33];                      /* ap_plan_identity of its nodes; "": not told */
    } machine;
    int data, tensor, pipeline, expert;
    int schedule;                 /* enum ap_plan_schedule */
    int chunks;                   /* stages on each rank: 1, but for AP_PLAN_INTERLEAVED */
    int64_t seq_len;              /* of the job that it was made for, as are the sequences of a step */
    int64_t global_sequences;     /* = micro_sequences * sum of micro_batches */
    int64_t micro_sequences;      /* sequences of a micro-batch */
    struct ap_plan_stage *stages; /* [pipeline * chunks]; stage v is on pipe coordinate v % pipeline */
    int64_t *micro_batches;       /* [data * expert] of coordinate d * expert + e: how many it does in a step, uneven by
                                   * measured speed, the same for all e of one d. Their indices are consecutive, in this
                                   * order. */
    int *place;                   /* [ranks] slot of each world rank */
    char between_sites[24]; /* axes that leave sites: "none", "data", "pipeline", "pipeline and data"; "": not told */
    struct ap_plan_times predicted;
};

/* Zeroed, arrays for these sizes, ranks = their product, predicted.step NaN. NULL: out of memory. */
struct ap_plan *ap_plan_create(int data, int tensor, int pipeline, int expert, int chunks);
void ap_plan_destroy(struct ap_plan *p); /* NULL is fine */
const char *ap_plan_schedule_name(int schedule);
/* Hash of which node each rank is on, hex into identity: a run whose nodes give another one needs a new plan. nodes:
 * [ranks] names, in rank order. AP_ERR_NOMEM. */
ap_status ap_plan_identity(int ranks, const char *const *nodes, char identity[33]);

/* The plan that a job's parallel section states where no machine was measured: auto means 1 for tensor, pipeline and
 * expert and all other ranks for data; rank = slot; layers split so that the operations of the largest stage are least,
 * embedding, head and MTP counted; micro-batches as even as they can be, the first data indices get the remainder;
 * 1F1B, or zero-bubble if the job wants it. nodes: as of ap_plan_identity, or NULL. AP_ERR_INPUT with the reason and
 * the fix where that cannot be. *plan_p is owned by the caller. */
ap_status ap_plan_from_job(const struct ap_job *job, int ranks, const char *const *nodes, struct ap_plan **plan_p,
                           struct ap_error *err);

/* Does the plan hold together, and fit this model on so many ranks? AP_ERR_INPUT names the field. cfg NULL: only the
 * first, which ap_plan_read has made sure of. */
ap_status ap_plan_check(const struct ap_plan *p, const struct ap_model_config *cfg, int ranks, struct ap_error *err);
/* The same, and was it made for this job: sequence length, sequences of a step, fixed axes, schedule. */
ap_status ap_plan_check_job(const struct ap_plan *p, const struct ap_job *job, int ranks, struct ap_error *err);

/* The fields of plan.json, in a fixed order, into an object that is open. */
void ap_plan_json(const struct ap_plan *p, struct ap_json *j);
/* Its fields "parallel" and "predicted" alone. */
void ap_plan_axes_json(int data, int tensor, int pipeline, int expert, struct ap_json *j);
void ap_plan_times_json(const struct ap_plan_times *t, struct ap_json *j);
/* plan.json at path, durably. */
ap_status ap_plan_write(const struct ap_plan *p, const char *path, struct ap_error *err);
/* plan.json from a file, or from memory (path names it in errors). Every field must be there, possible, and agree with
 * the others; unknown ones are refused, but "schedules", "runners_up" and "search", which are for people, are passed
 * over.
 * AP_ERR_FORMAT for another version, AP_ERR_INPUT for all else. *plan_p is owned by the caller. */
ap_status ap_plan_read(const char *path, struct ap_plan **plan_p, struct ap_error *err);
ap_status ap_plan_parse(const char *path, const char *text, size_t size, struct ap_plan **plan_p, struct ap_error *err);

#endif
