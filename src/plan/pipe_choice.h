/* SPDX-License-Identifier: Apache-2.0
 * What each pipeline schedule would make of a layout: time by simulation, and memory. */
#ifndef AP_PLAN_PIPE_CHOICE_H
#define AP_PLAN_PIPE_CHOICE_H

#include "plan/layout.h"
#include "plan/plan_file.h"

#define AP_PIPE_CHOICES 5

struct ap_pipe_choice {
    int schedule; /* enum ap_plan_schedule */
    int chunks;
    double step;                /* seconds, simulated */
    double memory, memory_part; /* of the rank nearest to its limit, as in ap_layout_cost */
};

/* The schedules that l, whose cost was computed last, can have, 1F1B as planned first: none with one stage. Seen from
 * its slowest pipeline; chunks are split by themselves, as evenly as the stages' speeds allow; gradients and optimizer
 * take what they take in l. AP_ERR_NOMEM. */
ap_status ap_pipe_choices(struct ap_layout_model *m, const struct ap_layout *l,
                          struct ap_pipe_choice choice[AP_PIPE_CHOICES], int *count_p, struct ap_error *err);

#endif
