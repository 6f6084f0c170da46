/* SPDX-License-Identifier: Apache-2.0
 * A plan in words and as plan.json (docs/planner.md). */
#ifndef AP_PLAN_PLAN_REPORT_H
#define AP_PLAN_PLAN_REPORT_H

#include "base/json.h"
#include "base/strbuf.h"
#include "plan/layout.h"
#include "plan/pipe_choice.h"
#include "plan/plan_file.h"

struct ap_plan_report {
    const struct ap_layout_problem *problem; /* borrowed */
    struct ap_layout_model *model;           /* borrowed; costs are computed again */
    const struct ap_layout_plan *plan;       /* borrowed, at least one layout */
    const char *job;                         /* name */
    const char *date;                        /* when the plan is made; "": not said */
    double simulated;                        /* seconds of the best by simulation, by 1F1B */
    struct ap_pipe_choice chosen;            /* of ap_pipe_decide */
    int choice_count;                        /* schedules of the best, beside each other */
    struct ap_pipe_choice choice[AP_PIPE_CHOICES];
};

/* The best layout as a plan, owned by the caller. AP_ERR_NOMEM. */
ap_status ap_plan_report_plan(const struct ap_plan_report *r, struct ap_plan **plan_p);
/* plan.json: one object, fields in a fixed order; p is that of ap_plan_report_plan. The runners-up and what the search
 * did are added for people. */
void ap_plan_report_json(const struct ap_plan_report *r, const struct ap_plan *p, struct ap_json *j);
/* For a terminal: the plan, why it, the runners-up. */
void ap_plan_report_text(const struct ap_plan_report *r, struct ap_strbuf *b);

#endif
