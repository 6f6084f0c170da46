/* SPDX-License-Identifier: Apache-2.0
 * What a rank by itself takes for the parts of a job's step (plan/work.h), for the planner: steps of the job's own
 * model, or of one with fewer layers where that is too large, with random tokens; then micro-batches of what a rank of
 * a tensor group and of an expert group of two computes, its company pretended (ap_comm_echo). Nothing is written. */
#ifndef AP_TRAIN_RANK_SPEED_H
#define AP_TRAIN_RANK_SPEED_H

#include "backend/backend.h"
#include "parallel/comm.h"
#include "plan/job.h"
#include "plan/work.h"

/* What AdamW reads and writes per parameter by the planner's count (docs/planner.md). */
#define AP_RANK_UPDATE_BYTES 28.0

struct ap_rank_speed_options {
    const struct ap_job *job; /* borrowed */
    struct ap_backend *be;    /* borrowed; a host backend */
    double seconds;       /* to measure for; ranks that are to disturb each other start together and take the same */
    double memory;        /* bytes that the model may take */
    int tensor, expert;   /* 1: groups of that axis can be formed and are measured, if the model can be cut so */
    struct ap_comm *pair; /* borrowed; two ranks of one node, each other's tensor group. NULL: this rank has no other */
};

struct ap_rank_speed {
    double flops_s;        /* operations of a micro-batch as the planner counts them, over the median of its time */
    double update_bytes_s; /* AP_RANK_UPDATE_BYTES per parameter over the median time of norm and update */
    struct ap_work work;
    /* With a pair: what a gather or sum of its tensor group takes in micro-batches done together, waiting for each
     * other included, on average, and the bytes that it sends to the other. Else 0. */
    double call_s, call_bytes;
    int64_t layers; /* of the model that was measured; at most the job's */
    int steps;      /* that the medians are of */
};

/* Collective over the pair, if there is one. An error of one of the two may leave the other one waiting. */
ap_status ap_rank_speed(const struct ap_rank_speed_options *opt, struct ap_rank_speed *res_p, struct ap_error *err);

#endif
