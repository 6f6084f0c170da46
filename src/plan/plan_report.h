/* SPDX-License-Identifier: Apache-2.0
 * A plan in words and as plan.json (docs/planner.md). */
#ifndef AP_PLAN_PLAN_REPORT_H
#define AP_PLAN_PLAN_REPORT_H

#include "base/json.h"
#include "base/strbuf.h"
#include "plan/layout.h"

struct ap_plan_report {
    const struct ap_layout_problem *problem; /* borrowed */
    struct ap_layout_model *model;           /* borrowed; costs are computed again */
    const struct ap_layout_plan *plan;       /* borrowed, at least one layout */
    const char *job;                         /* name */
    double simulated;                        /* seconds of the best by simulation */
};

/* plan.json: one object, fields in a fixed order. */
void ap_plan_report_json(const struct ap_plan_report *r, struct ap_json *j);
/* For a terminal: the plan, why it, the runners-up. */
void ap_plan_report_text(const struct ap_plan_report *r, struct ap_strbuf *b);

#endif
