/* SPDX-License-Identifier: Apache-2.0
 * A step played through by discrete events: every forward and backward of every micro-batch on every stage of a
 * pipeline, every transfer on every link. It checks the closed form of layout_cost.c, which knows only sums and maxima.
 */
#ifndef AP_PLAN_SIMULATE_H
#define AP_PLAN_SIMULATE_H

#include "plan/layout.h"
#include "plan/pipe_schedule.h"

/* Seconds of the step of l, whose cost was computed last (ap_layout_stage). Stages work by 1F1B with the layout's
 * windows, in the order of pipe_schedule.h whatever comes first; a link carries one transfer at a time in each
 * direction, in the order in which they come. Links between sites have the share of the bandwidth that the cost model
 * gives them. Gradients and optimizer follow when the last pipeline has ended. Pipelines of more than
 * AP_SIMULATE_ROUNDS micro-batches are played that far and continued at the pace of their second half. AP_ERR_NOMEM.
 * AP_ERR_BUG: the schedule cannot go on (it was proved wrong). */
#define AP_SIMULATE_ROUNDS 4096
ap_status ap_simulate_step(const struct ap_layout_model *m, const struct ap_layout *l, double *seconds_p,
                           struct ap_error *err);
/* Seconds of its pipeline d alone, without gradients and optimizer; `most` micro-batches are played. */
ap_status ap_simulate_layout(const struct ap_layout_model *m, const struct ap_layout *l, int d, int64_t most,
                             double *seconds_p);
/* The same by any schedule; k: [chunks * stages] times of the virtual stages and of the links to the next ones. */
ap_status ap_simulate_pipe(const struct ap_pipe_spec *spec, const struct ap_layout_stage *k, int64_t most,
                           double *seconds_p);

#endif
