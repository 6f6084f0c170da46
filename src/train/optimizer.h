/* SPDX-License-Identifier: Apache-2.0
 * AdamW with ZeRO-1 shards and shadow buffers. Two copies of everything: `now` is the committed state, the
 * other one takes the next. A bf16 model reads a bf16 copy that AdamW writes in the same pass; then the f32 weights
 * (masters) are sharded like the moments, and the copy is what the ranks gather. An update writes the shadow only;
 * after the ranks agreed, flip makes it the state. A step that fails anywhere leaves the committed state whole.
 *
 * One optimizer serves one group of parameters (model/params.h): "flat elements" are those of the group's region, from
 * 0, and the communicator has the ranks that hold the same slices. */
#ifndef AP_TRAIN_OPTIMIZER_H
#define AP_TRAIN_OPTIMIZER_H

#include "backend/backend.h"
#include "model/params.h"
#include "parallel/zero.h"

struct ap_optimizer_options {
    struct ap_backend *backend;     /* borrowed */
    struct ap_comm *comm;           /* borrowed */
    const struct ap_params *params; /* borrowed */
    int group;                      /* enum ap_param_group */
    ap_dtype dtype; /* of the model: AP_F32, AP_F64 or AP_BF16; state and gradients: ap_dtype_full of it */
};

/* Of one step. t counts the updates made (skipped steps do not count), from 1. */
struct ap_optimizer_hyper {
    double lr, beta1, beta2, eps, weight_decay, clip;
    int64_t t;
};

struct ap_optimizer;

/* Not collective. Weights and moments are zero: set_weights or a checkpoint fills them. */
ap_status ap_optimizer_create(const struct ap_optimizer_options *opt, struct ap_optimizer **o_p, struct ap_error *err);
void ap_optimizer_destroy(struct ap_optimizer *o); /* NULL is fine */
/* Shards of all ranks; lives as long as the optimizer. */
const struct ap_shard_map *ap_optimizer_map(const struct ap_optimizer *o);
/* Committed weights [flat] in the model's dtype, backend memory; valid until the next flip but one. */
ap_tensor ap_optimizer_weights(const struct ap_optimizer *o);
/* Initial weights from host f32 [flat], the same on all ranks; moments become zero. */
ap_status ap_optimizer_set_weights(struct ap_optimizer *o, const float *host);

/* Collective. Sum of squares of the group's gradient whose own shard is given: those of the chunks, added in
 * chunk order in f64 on every rank; not finite if any element is. */
ap_status ap_optimizer_sumsq(struct ap_optimizer *o, ap_tensor shard_grad, double *sum_p);
/* Factor that clips a gradient of this norm to `clip` (0: no clipping): min(1, clip / (norm + 1e-6)). */
double ap_optimizer_clip_scale(double norm, double clip);
/* Collective. Shadow = AdamW(state, grad_scale * gradient); every rank gets all new weights. */
ap_status ap_optimizer_update(struct ap_optimizer *o, const struct ap_optimizer_hyper *h, ap_tensor shard_grad,
                              double grad_scale);
/* Shadow becomes the state. */
void ap_optimizer_flip(struct ap_optimizer *o);

/* Named ranges of the committed state over host memory: "param/", "adam.m/", "adam.v/". Saving lists the own
 * shard of each. Loading (all_weights = 1) lists every weight and the own shard of the moments; after the
 * host memory was filled, ap_optimizer_loaded brings it to the backend. On host backends the host memory is
 * the state itself (of a bf16 model the moments only). The data stay valid until the next call that changes the
 * optimizer. */
ap_status ap_optimizer_named(struct ap_optimizer *o, int all_weights, struct ap_named_set *set, struct ap_error *err);
ap_status ap_optimizer_loaded(struct ap_optimizer *o);
/* Host copy of the committed weights [flat] in the model's dtype; on host backends the weights themselves. Valid as
 * above. */
ap_status ap_optimizer_host_weights(struct ap_optimizer *o, const void **host_p);

#endif
