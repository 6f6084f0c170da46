/* SPDX-License-Identifier: Apache-2.0
 * Learning rate and the other quantities that follow from the step number alone. Pure functions. */
#ifndef AP_TRAIN_SCHEDULE_H
#define AP_TRAIN_SCHEDULE_H

#include "plan/job.h"

/* Learning rate of step 1..train_steps.
 *   warm-up   lr * step / warmup_steps for step <= warmup_steps
 *   constant  lr
 *   cosine    from lr to lr * min_lr_ratio between the end of warm-up and train_steps (half a cosine)
 *   wsd       lr, then linear to lr * min_lr_ratio over the last decay_steps
 *   step      lr * step_factor^k, k = milestones (fractions of train_steps) already passed (DeepSeek-V2) */
double ap_schedule_lr(const struct ap_job *job, int64_t step);
/* gamma of the router bias update: job.loss.bias_rate up to the fraction bias_stop of the run, then 0. */
double ap_schedule_bias_rate(const struct ap_job *job, int64_t step);

#endif
