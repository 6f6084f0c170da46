/* SPDX-License-Identifier: Apache-2.0
 * ZeRO-1 data parallelism with the same bits for any number of ranks: gradients are summed along the
 * canonical tree (parallel/tree.h), the optimizer state is sharded, new weights are gathered by all.
 *
 * One step on each rank: for each of its leaves, in order: begin_leaf, backward into the buffer, end_leaf;
 * then finish. A rank sums the maximal nodes inside its leaves at once (like a binary counter) and the owner
 * of each shard adds the nodes of all ranks in tree order. Additions are element-wise, so sharding does
 * not change them either. With M and the ranks powers of two each rank ends with one buffer. */
#ifndef AP_PARALLEL_ZERO_H
#define AP_PARALLEL_ZERO_H

#include "backend/backend.h"
#include "parallel/comm.h"

/* Flat elements [begin[r], begin[r+1]) of rank r, r = 0..size-1; begin has size + 1 entries. */
struct ap_shard_map {
    int size;
    int64_t *begin;
};

struct ap_reducer_options {
    struct ap_backend *backend;     /* borrowed */
    struct ap_comm *comm;           /* borrowed */
    const struct ap_shard_map *map; /* borrowed; begin[size] elements in all */
    ap_dtype dtype;                 /* AP_F32 or AP_F64 */
    int64_t leaves;                 /* M >= ranks */
    const int64_t *leaf_begin;  /* [ranks + 1], borrowed for the call: leaves of each rank, at least one; NULL: even */
    int64_t window;             /* elements exchanged at once per rank and node; 0: chosen */
    const struct ap_run *added; /* copied: what leaves add to; they write all the rest themselves. NULL: they add */
    int64_t added_count;
};

struct ap_reducer;

/* Not collective. AP_ERR_INPUT when there are more ranks than leaves. */
ap_status ap_reducer_create(const struct ap_reducer_options *opt, struct ap_reducer **r_p, struct ap_error *err);
void ap_reducer_destroy(struct ap_reducer *r); /* NULL is fine */
/* Own leaves [*lo_p, *hi_p). */
void ap_reducer_leaves(const struct ap_reducer *r, int64_t *lo_p, int64_t *hi_p);
/* Gradient buffers held, each of the size of the model. */
int ap_reducer_buffers(const struct ap_reducer *r);
int64_t ap_reducer_bytes(const struct ap_reducer *r); /* of all of them */
/* Drop what a step that failed left behind. */
void ap_reducer_reset(struct ap_reducer *r);
/* Buffer [flat] for the gradient of the next own leaf, zero where it adds; valid until end_leaf. */
ap_status ap_reducer_begin_leaf(struct ap_reducer *r, ap_tensor *grads_p);
ap_status ap_reducer_end_leaf(struct ap_reducer *r);
/* Collective, after the last own leaf. *shard_p: the sum over all leaves, elements begin[rank] ..
 * begin[rank+1] - 1; valid until the next begin_leaf or reset. */
ap_status ap_reducer_finish(struct ap_reducer *r, ap_tensor *shard_p);

/* The gather of flat buffers of one map; its memory is planned once. */
struct ap_gatherer;
/* Not collective. be, comm and map are borrowed. */
ap_status ap_gatherer_create(struct ap_backend *be, struct ap_comm *comm, const struct ap_shard_map *map,
                             ap_dtype dtype, struct ap_gatherer **g_p);
void ap_gatherer_destroy(struct ap_gatherer *g); /* NULL is fine */
/* Collective. flat (backend memory, [begin[size]] of that dtype) holds the own shard; afterwards everybody's. */
ap_status ap_gatherer_run(struct ap_gatherer *g, ap_tensor flat);

#endif
