/* SPDX-License-Identifier: Apache-2.0
 * What the micro-batches of a global batch gave, from the ranks of a mesh that had a part in each: in the order of the
 * micro-batches, the same on every rank. */
#ifndef AP_TRAIN_RESULTS_H
#define AP_TRAIN_RESULTS_H

#include "parallel/mesh.h"

/* One micro-batch's sums. */
struct ap_leaf_result {
    double ce, mtp, balance;
    int64_t ce_tokens, mtp_tokens;
};

struct ap_results {
    struct ap_mesh *mesh;
    int64_t leaves, lo, hi;     /* all, own */
    int64_t *leaf_begin;        /* [batch ranks + 1] */
    int64_t *bytes;             /* [world] */
    struct ap_leaf_result *all; /* [leaves] */
    struct ap_leaf_result *own; /* [hi - lo] */
    struct ap_leaf_result *everybody;
};

/* Not collective. mesh is borrowed. leaf_begin: [batch ranks + 1], borrowed for the call; NULL: even. A rank may have
 * none. */
ap_status ap_results_create(struct ap_mesh *mesh, int64_t leaves, const int64_t *leaf_begin, struct ap_results *r);
void ap_results_free(struct ap_results *r); /* zeroed is fine */
/* Collective. r->all from everybody's r->own: the sums over stages, in their order; of a tensor group's ranks, which
 * agree, the first one's. */
ap_status ap_results_gather(struct ap_results *r);

#endif
