/* SPDX-License-Identifier: Apache-2.0
 * Micro-batches through the stages of a pipeline: an interpreter of the schedule's lists (plan/pipe_schedule.h), with
 * the message buffers that they name. With one stage there are no messages and the lists are forward, backward,
 * forward,
 * ... */
#ifndef AP_TRAIN_RUNNER_H
#define AP_TRAIN_RUNNER_H

#include "plan/pipe_schedule.h"
#include "train/batches.h"
#include "train/results.h"
#include "train/stage.h"

struct ap_runner;

/* Not collective. stage is borrowed. */
ap_status ap_runner_create(struct ap_stage *stage, struct ap_runner **r_p, struct ap_error *err);
void ap_runner_destroy(struct ap_runner *r); /* NULL is fine */
/* Collective over the stages of a batch rank (and over tensor and expert groups). Forward and backward of the stage's
 * own micro-batches; batches: [hi - lo], in their order. results: [hi - lo]. loads: += of the part's layers, or NULL.
 * An error of one rank leaves the others waiting for it: what follows can only be the end of the communicators. */
ap_status ap_runner_train(struct ap_runner *r, const struct ap_batches *batches, const struct ap_loss_weights *lw,
                          ap_tensor router_bias, struct ap_leaf_result *results, int64_t *loads);
/* Collective likewise. Losses of one micro-batch, without gradients; other stages get 0. */
ap_status ap_runner_loss(struct ap_runner *r, const struct ap_batch *batch, ap_tensor router_bias,
                         struct ap_leaf_result *result);

#endif
