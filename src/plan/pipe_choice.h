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
    int memory_stage;
};

/* How much quicker than the plan's own 1F1B zero-bubble has to be to be chosen: it needs memory, and both times are
 * predictions. */
#define AP_PIPE_GAIN 0.01

/* The schedules that l, whose cost was computed last, can have, 1F1B as planned first: none with one stage. Seen from
 * its slowest pipeline; chunks are split by themselves, as evenly as the stages' speeds allow; gradients and optimizer
 * take what they take in l; zero-bubble is left out with recomputation, the
 * others where the problem asks for it. AP_ERR_NOMEM. */
ap_status ap_pipe_choices(struct ap_layout_model *m, const struct ap_layout *l,
                          struct ap_pipe_choice choice[AP_PIPE_CHOICES], int *count_p, struct ap_error *err);
/* The quickest of the plan's layouts by 1F1B and, as far as the problem's schedule allows, by zero-bubble, where that
 * fits into memory: it becomes plan->best[0], and its cost is computed. *chosen_p: what zero-bubble makes of it, or
 * schedule AP_PLAN_1F1B: not that. AP_ERR_INPUT where zero-bubble has to be and cannot. */
ap_status ap_pipe_decide(struct ap_layout_model *m, struct ap_layout_plan *plan, struct ap_pipe_choice *chosen_p,
                         struct ap_error *err);

#endif
