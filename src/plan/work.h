/* SPDX-License-Identifier: Apache-2.0
 * Kinds of work in a step that have a speed each: attention and MLP of a dense layer, the experts of an MoE layer, the
 * vocabulary's ends. A rank is measured by each of them (train/rank_speed.h), topology.csv keeps what was measured, and
 * the planner prices stages by the layers they hold. Numbers alone: measured with one model, in one data type. */
#ifndef AP_PLAN_WORK_H
#define AP_PLAN_WORK_H

#include "plan/job.h"

enum ap_work_kind {
    AP_WORK_FRONT, /* the embedding, and what a micro-batch costs beside layers */
    AP_WORK_DENSE, /* a layer with an MLP */
    AP_WORK_MOE,   /* a layer with experts */
    AP_WORK_BACK,  /* final norm, head, losses, the MTP module: all of it in the backward of the last stage */
    AP_WORK_KINDS
};
/* How a layer was cut when it was measured: whole, for a tensor group of two, for an expert group of two. */
enum ap_work_shape { AP_WORK_WHOLE, AP_WORK_TENSOR2, AP_WORK_EXPERT2, AP_WORK_SHAPES };

struct ap_work_time {
    double forward, backward; /* seconds for a token of the micro-batch, without communication */
};

/* One rank. A shape that could not be measured has zeros everywhere. */
struct ap_work {
    struct ap_work_time at[AP_WORK_SHAPES][AP_WORK_KINDS]; /* of one layer, of the ends as a whole */
    double clear, add; /* seconds for a parameter held: a micro-batch's gradient set to zero, added to another one */
};

const char *ap_work_name(enum ap_work_kind k); /* "front", "dense", "moe", "back" */
int ap_work_measured(const struct ap_work *w, enum ap_work_shape s);
/* Tokens' seconds of a kind cut for groups of so many, by a part that every process does and one that is shared out;
 * the two are told apart by the shapes of two. Without those all of it is shared out by the tensor group and the expert
 * group changes nothing. */
struct ap_work_time ap_work_at(const struct ap_work *w, enum ap_work_kind k, int tensor, int expert);

/* What the times of a job's layers depend on, as 32 hex digits: two jobs with the same one are measured alike. Micro-
 * batches are left out: times are for a token. AP_ERR_NOMEM. */
ap_status ap_work_identity(const struct ap_job *job, char out[33]);

/* Seconds that calls spent on each kind, added up by those who work; for measurements. The clock is read at the
 * boundaries between kinds. */
struct ap_work_clock {
    double forward[AP_WORK_KINDS], backward[AP_WORK_KINDS], clear, add;
    const double *apart; /* seconds counted by somebody else, which are left out here; NULL: none */
    double last, apart_last;
};
void ap_work_begin(struct ap_work_clock *c);                   /* c may be NULL, here and below */
void ap_work_lap(struct ap_work_clock *c, double *seconds_to); /* since begin or the lap before; NULL: dropped */

#endif
