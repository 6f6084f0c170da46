/* SPDX-License-Identifier: Apache-2.0
 * The hash of a model's weights, whatever the mesh that holds them. */
#ifndef AP_TRAIN_WEIGHTS_HASH_H
#define AP_TRAIN_WEIGHTS_HASH_H

#include "base/hash.h"
#include "train/stage.h"

/* Collective over the mesh; h: on the first rank of its world, elsewhere NULL. Adds the bytes of every parameter
 * tensor, whole, in canonical order, as the model reads them. Where a rank does not hold all of them the first one
 * gathers them: it needs memory for the whole model. */
ap_status ap_weights_hash(struct ap_stage *s, const struct ap_model_config *cfg, struct ap_hasher *h,
                          struct ap_error *err);

#endif
