/* SPDX-License-Identifier: Apache-2.0
 * Where each parameter of a process stands in its flat space. A process holds a part of the model: a range of layers,
 * slices of matrices (tensor parallel), some of the experts. Order is ap_model_visit_params'; every tensor begins at a
 * multiple of AP_PARAM_ALIGN elements (the gaps are zero and stay zero), except that an up_proj follows its
 * gate_proj directly: the two are one [2I, h] operand. The matrices of one layer's routed experts lie at a
 * constant stride, so that a grouped GEMM takes them as one operand. Cut points (AP_PARAM_CHUNK elements
 * inside a tensor) are where optimizer shards and norm sums may be split: independent of the rank count.
 *
 * Parameters are in groups, one for each set of processes that hold the same slices and add up their gradients;
 * each group is a region of the flat space with memory of its own. A model that is whole has one group. */
#ifndef AP_MODEL_PARAMS_H
#define AP_MODEL_PARAMS_H

#include "backend/ops.h"
#include "base/dtype.h"
#include "plan/model_config.h"
#include "state/named.h"

#define AP_PARAM_ALIGN 64
#define AP_PARAM_CHUNK 16384

/* What a process holds. Tensor rank t of T has heads, widths and vocabulary [n t / T, n (t+1) / T), expert rank e of E
 * the experts [n e / E, n (e+1) / E). */
struct ap_model_part {
    int64_t layer_first, layer_last; /* of the main model */
    int first_stage;                 /* token embedding */
    int last_stage;                  /* final norm, head, MTP modules and the embedding that they read */
    int tensor_rank, tensor_size, expert_rank, expert_size;
};

enum ap_param_group {
    AP_GROUP_SPLIT,  /* the same on the processes that differ along data and expert */
    AP_GROUP_SHARED, /* with tensor_size > 1: the same on those of the tensor axis too, each with a part of the gradient
                      */
    AP_GROUP_EXPERT, /* with expert_size > 1: routed experts, the same along data alone */
    AP_GROUP_ENDS,   /* the embedding that both the first and the last stage hold */
    AP_GROUPS
};

struct ap_param {
    struct ap_param_info info; /* of the whole tensor */
    int64_t number;            /* of the whole model's tensors */
    int group;
    int64_t row, rows, col, cols; /* own slice of it */
    int64_t offset, count;        /* elements in the flat space */
    int written; /* a matrix of a layer of the main model: its gradient is one product in every micro-batch */
};
struct ap_param_chunk {
    int64_t param, offset, count;
}; /* offset in the flat space */
struct ap_param_region {
    int64_t begin, end; /* flat elements */
    int64_t chunk_first, chunk_end;
};

struct ap_params {
    struct ap_param *list;
    int64_t count;
    struct ap_param_chunk *chunks;
    int64_t chunk_count;
    struct ap_param_region region[AP_GROUPS]; /* in this order */
    int64_t flat;                             /* elements of the flat space, gaps included */
    int64_t moe_layers;                       /* layers with a router in the whole model, MTP included */
    int64_t routers;                          /* moe_layers * routed_experts */
};

/* All of a model. */
struct ap_model_part ap_model_whole(const struct ap_model_config *cfg);
/* AP_ERR_INPUT with the reason where a model cannot be cut like this. */
ap_status ap_model_part_check(const struct ap_model_config *cfg, const struct ap_model_part *part,
                              struct ap_error *err);
/* part NULL: all of it. */
ap_status ap_params_create(const struct ap_model_config *cfg, const struct ap_model_part *part,
                           struct ap_params **params_p);
void ap_params_destroy(struct ap_params *p);
/* Parameter by hub name, NULL if absent. */
const struct ap_param *ap_params_find(const struct ap_params *p, const char *name);
/* Elements of a group's region (0: its first) in whose gradient a micro-batch adds up several terms, or none, and the
 * gaps between tensors; the rest is `written`. *runs_p: the caller's, to be freed. */
ap_status ap_params_added(const struct ap_params *p, int group, struct ap_run **runs_p, int64_t *count_p);
/* Deterministic initial weights: normal(0, init_std) for matrices, 1 for norms; each value depends only on
 * (seed, parameter number in the whole model, element of the whole tensor). host: f32 [flat]. */
void ap_params_init(const struct ap_params *p, const struct ap_model_config *cfg, uint64_t seed, float *host);
/* Of one group: chunk range [first, last) of shard `rank` of `size`: contiguous, balanced by elements; *begin_p, *end_p
 * are its flat elements. */
void ap_params_shard(const struct ap_params *p, int group, int rank, int size, int64_t *chunk_first_p,
                     int64_t *chunk_last_p, int64_t *begin_p, int64_t *end_p);
/* Append the named ranges of flat elements [begin, end) held at `data` (address of element `begin`),
 * names "<prefix>/<hub name>". */
ap_status ap_params_named(const struct ap_params *p, const char *prefix, ap_dtype dtype, void *data, int64_t begin,
                          int64_t end, struct ap_named_set *set, struct ap_error *err);
/* "model.layers.N.mlp.gate.e_score_correction_bias" for router i into buf. */
void ap_params_router_name(const struct ap_model_config *cfg, int64_t router_layer, char *buf, size_t size);

#endif
