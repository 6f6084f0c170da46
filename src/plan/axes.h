/* SPDX-License-Identifier: Apache-2.0
 * How many ways each axis of parallelism splits a model and its batch, and which ways there cannot be. The one place
 * of these rules: the planner's search, a plan that is read, and a job's own numbers all ask here. Pure, thread-safe.
 */
#ifndef AP_PLAN_AXES_H
#define AP_PLAN_AXES_H

#include <stdint.h>
#include "base/status.h"
#include "plan/model_config.h"

struct ap_axes {
    int64_t data, tensor, pipeline, expert; /* each at least 1 */
};

/* Can the model's heads, columns, experts and layers and the step's micro-batches be shared out so? AP_ERR_INPUT with
 * the reason ("tensor 3: 8 attention heads cannot be shared out evenly") and the nearest size that fits as the hint. */
ap_status ap_axes_check(const struct ap_model_config *cfg, const struct ap_axes *a, int64_t micro_batches,
                        struct ap_error *err);
/* Can the pipeline's schedule be zero-bubble? AP_ERR_INPUT with the reason. */
ap_status ap_axes_check_zero_bubble(int64_t pipeline, int recompute, struct ap_error *err);

#endif
