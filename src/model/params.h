/* SPDX-License-Identifier: Apache-2.0
 * Where each parameter stands in the flat buffer. Order is ap_model_visit_params'; every tensor begins at a
 * multiple of AP_PARAM_ALIGN elements (the gaps are zero and stay zero), except that an up_proj follows its
 * gate_proj directly: the two are one [2I, h] operand. The matrices of one layer's routed experts lie at a
 * constant stride, so that a grouped GEMM takes them as one operand. Cut points (AP_PARAM_CHUNK elements
 * inside a tensor) are where optimizer shards and norm sums may be split: independent of the rank count. */
#ifndef AP_MODEL_PARAMS_H
#define AP_MODEL_PARAMS_H

#include "base/dtype.h"
#include "plan/model_config.h"
#include "state/named.h"

#define AP_PARAM_ALIGN 64
#define AP_PARAM_CHUNK 16384

struct ap_param {
    struct ap_param_info info;
    int64_t offset, count; /* elements in the flat buffer */
};
struct ap_param_chunk {
    int64_t param, offset, count;
}; /* offset in the flat buffer */

struct ap_params {
    struct ap_param *list;
    int64_t count;
    struct ap_param_chunk *chunks;
    int64_t chunk_count;
    int64_t flat;       /* elements of the flat buffer, gaps included */
    int64_t moe_layers; /* layers with a router, MTP included */
    int64_t routers;    /* moe_layers * routed_experts */
};

ap_status ap_params_create(const struct ap_model_config *cfg, struct ap_params **params_p);
void ap_params_destroy(struct ap_params *p);
/* Parameter by hub name, NULL if absent. */
const struct ap_param *ap_params_find(const struct ap_params *p, const char *name);
/* Deterministic initial weights: normal(0, init_std) for matrices, 1 for norms; each value depends only on
 * (seed, parameter number, element). host: f32 [flat]. */
void ap_params_init(const struct ap_params *p, const struct ap_model_config *cfg, uint64_t seed, float *host);
/* Chunk range [first, last) of shard `rank` of `size`: contiguous, balanced by elements; *begin_p, *end_p
 * are its flat elements. */
void ap_params_shard(const struct ap_params *p, int rank, int size, int64_t *chunk_first_p, int64_t *chunk_last_p,
                     int64_t *begin_p, int64_t *end_p);
/* Append the named ranges of flat elements [begin, end) held at `data` (address of element `begin`),
 * names "<prefix>/<hub name>". */
ap_status ap_params_named(const struct ap_params *p, const char *prefix, ap_dtype dtype, void *data, int64_t begin,
                          int64_t end, struct ap_named_set *set, struct ap_error *err);
/* "model.layers.N.mlp.gate.e_score_correction_bias" for router i into buf. */
void ap_params_router_name(const struct ap_model_config *cfg, int64_t router_layer, char *buf, size_t size);

#endif
