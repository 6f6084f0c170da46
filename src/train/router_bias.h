/* SPDX-License-Identifier: Apache-2.0
 * The bias of the aux-loss-free balance (V3 report 2.1.2): after each step b_i += gamma * sign(mean load - load_i),
 * loads counted over the whole global batch, one mean for each layer. Committed and shadow copy, as the weights. */
#ifndef AP_TRAIN_ROUTER_BIAS_H
#define AP_TRAIN_ROUTER_BIAS_H

#include "backend/backend.h"
#include "plan/model_config.h"
#include "state/named.h"

struct ap_router_bias;

/* layers routers of cfg->routed_experts each; dtype f32 or f64 (the model's statistics). Zero at the start.
 * Gates without a bias, and dense models: an object whose tensor is absent and whose updates do nothing. */
ap_status ap_router_bias_create(struct ap_backend *be, const struct ap_model_config *cfg, int64_t layers,
                                ap_dtype dtype, struct ap_router_bias **b_p, struct ap_error *err);
void ap_router_bias_destroy(struct ap_router_bias *b); /* NULL is fine */
/* Committed bias [layers * experts], backend memory; data NULL: none. */
ap_tensor ap_router_bias_tensor(const struct ap_router_bias *b);
/* Committed bias in host memory; NULL: none. bytes_p: its size. */
const void *ap_router_bias_host(const struct ap_router_bias *b, size_t *bytes_p);
/* Shadow = committed + update. loads: i64 [layers * experts], summed over ranks. */
ap_status ap_router_bias_update(struct ap_router_bias *b, const int64_t *loads, double gamma);
void ap_router_bias_flip(struct ap_router_bias *b);
/* Append "param/<name>" of each layer over the host copy: whole tensors, or empty ranges if `owner` is 0 (one
 * rank saves them). After loading into the ranges call ap_router_bias_loaded. */
ap_status ap_router_bias_named(struct ap_router_bias *b, int owner, struct ap_named_set *set, struct ap_error *err);
ap_status ap_router_bias_loaded(struct ap_router_bias *b);
/* Largest load over the mean load of its layer, worst layer; NaN without routers. */
double ap_router_load_max(const int64_t *loads, int64_t layers, int64_t experts);

#endif
