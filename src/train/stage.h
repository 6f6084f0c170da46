/* SPDX-License-Identifier: Apache-2.0
 * What a process of the mesh trains: its part of the model (several with an interleaved pipeline, one for each chunk)
 * and, for each group of its parameters, the communicator of the ranks that hold the same slices, the optimizer and the
 * gradient reducer.
 *
 * One step on each rank: for each own micro-batch begin_leaf, backward into the buffers, end_leaf; then reduce, norm,
 * update and, once all ranks agreed, flip. Groups are always worked through in their order, so that ranks that share
 * several communicators meet in each. The leaves of a reducer are the micro-batches; where several ranks have a part of
 * one micro-batch's gradient (AP_GROUP_SHARED, AP_GROUP_ENDS) each part is a leaf of its own. */
#ifndef AP_TRAIN_STAGE_H
#define AP_TRAIN_STAGE_H

#include "model/model.h"
#include "parallel/mesh.h"
#include "parallel/zero.h"
#include "plan/pipe_schedule.h"
#include "plan/plan_file.h"
#include "train/optimizer.h"

struct ap_stage_options {
    struct ap_backend *backend; /* borrowed */
    struct ap_mesh *mesh;       /* borrowed */
    const struct ap_model_config *cfg;
    enum ap_pipe_kind kind;     /* interleaved with several chunks, else one of the others */
    int chunks;                 /* parts of the model on each rank; 0: one */
    const int64_t *layer_begin; /* [stages * chunks + 1], borrowed for the call: layers of each virtual stage (chunk *
                                 * stages + stage) */
    const int64_t *leaf_begin;  /* [data * expert + 1], likewise: micro-batches of each batch rank; NULL: even */
    const int64_t *window; /* [stages], likewise: micro-batches in flight from each stage on; NULL: those of 1F1B */
    int64_t leaves;        /* M, micro-batches of a global batch */
    int64_t micro_sequences, seq_len;
    ap_dtype dtype;
    int recompute;
    struct ap_work_clock *clock; /* borrowed; NULL: no times of kinds of work are wanted */
};

struct ap_stage_group {
    int id;               /* enum ap_param_group */
    struct ap_comm *comm; /* borrowed from the mesh */
    struct ap_optimizer *optim;
    struct ap_reducer *reducer;
    ap_tensor grad; /* own shard after reduce */
};

/* One chunk of the pipeline on this rank. */
struct ap_stage_chunk {
    struct ap_model_part part;
    struct ap_model *model;
    const struct ap_params *params;
    struct ap_stage_group groups[AP_GROUPS];
    int count;
    int slots;
    int late; /* of the zero-bubble schedule: micro-batch i is in late i % late of the model */
};

struct ap_stage {
    struct ap_backend *be;
    struct ap_mesh *mesh;
    int64_t *layer_begin; /* [stages * chunks + 1] */
    int64_t hidden;       /* numbers per token between stages */
    ap_dtype dtype;
    int64_t lo, hi;                    /* own micro-batches */
    struct ap_pipe_schedule *schedule; /* of these */
    int *slot;                         /* [schedule->op_count] of the operation, in its chunk's model */
    struct ap_stage_chunk *chunks;
    int chunk_count;
    struct ap_work_clock *clock; /* borrowed or NULL */
    double *sums;                /* [world] scratch of the norm */
    int64_t *sum_bytes;          /* [world] */
};

/* A plan as the stages need it; owns its arrays. To be freed in any case. */
struct ap_stage_layout {
    struct ap_mesh_shape shape;
    enum ap_pipe_kind kind;
    int chunks;
    int64_t *layer_begin, *leaf_begin, *window; /* as in ap_stage_options; window NULL: the kind's own */
};
ap_status ap_stage_layout(const struct ap_plan *plan, struct ap_stage_layout *l_p, struct ap_error *err);
void ap_stage_layout_free(struct ap_stage_layout *l); /* zeroed is fine */
/* AP_ERR_INPUT with the reason where the model, the batch and the mesh do not go together; the same on every rank. */
ap_status ap_stage_check(const struct ap_stage_options *opt, struct ap_error *err);
/* Not collective. Weights are zero. */
ap_status ap_stage_create(const struct ap_stage_options *opt, struct ap_stage **s_p, struct ap_error *err);
void ap_stage_destroy(struct ap_stage *s); /* NULL is fine */
/* That chunk's part on the rank with these coordinates. */
ap_status ap_stage_part(const struct ap_stage *s, const int coord[AP_AXES], int chunk, struct ap_model_part *part_p);
/* Initial weights: those of ap_params_init. Not collective. */
ap_status ap_stage_init_weights(struct ap_stage *s, const struct ap_model_config *cfg, uint64_t seed);
/* Bytes of activations and scratch, and of gradient buffers. */
size_t ap_stage_model_bytes(const struct ap_stage *s);
int64_t ap_stage_gradient_bytes(const struct ap_stage *s);
/* Committed weights for the chunk's model; no gradients. */
struct ap_model_buffers ap_stage_buffers(const struct ap_stage *s, int chunk, ap_tensor router_bias);

/* Drop what a step that failed left behind. */
void ap_stage_reset(struct ap_stage *s);
/* Zeroed gradient buffers of the chunk's next own micro-batch into b->grads. */
ap_status ap_stage_begin_leaf(struct ap_stage *s, int chunk, struct ap_model_buffers *b);
ap_status ap_stage_end_leaf(struct ap_stage *s, int chunk);
/* Collective. */
ap_status ap_stage_reduce(struct ap_stage *s);
/* Collective. Norm of the whole model's gradient, the same bits everywhere. */
ap_status ap_stage_norm(struct ap_stage *s, double *norm_p);
/* Collective. Shadow state of all groups; an error of any rank of a group is everybody's in it. */
ap_status ap_stage_update(struct ap_stage *s, const struct ap_optimizer_hyper *h, double grad_scale);
void ap_stage_flip(struct ap_stage *s);

/* Named ranges of all groups, as ap_optimizer_named and _loaded. */
ap_status ap_stage_named(struct ap_stage *s, int all_weights, struct ap_named_set *set, struct ap_error *err);
ap_status ap_stage_loaded(struct ap_stage *s);

#endif
