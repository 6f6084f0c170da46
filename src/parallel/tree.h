/* SPDX-License-Identifier: Apache-2.0
 * The canonical gradient tree. Leaves are the micro-batches 0..M-1 of the global batch; the root is [0, M)
 * and a node [lo, hi) of more than one leaf has the children [lo, mid) and [mid, hi), mid = lo + (hi-lo)/2.
 * Sums always follow these edges, so the bits depend on M alone, never on which rank holds which leaf. */
#ifndef AP_PARALLEL_TREE_H
#define AP_PARALLEL_TREE_H

#include <stdint.h>

struct ap_tree_node {
    int64_t lo, hi;
};

/* A contiguous range of leaves holds at most two maximal nodes per level of the tree. */
#define AP_TREE_COVER_MAX 128

/* Leaves [*lo_p, *hi_p) of `rank` of `size`: contiguous, at most one leaf of difference. Aligned with the
 * tree when leaves and size are powers of two: then one node covers the range. */
void ap_tree_leaves(int64_t leaves, int rank, int size, int64_t *lo_p, int64_t *hi_p);
/* The maximal nodes inside [lo, hi), in order; returns their number (<= AP_TREE_COVER_MAX). */
int ap_tree_cover(int64_t leaves, int64_t lo, int64_t hi, struct ap_tree_node nodes[AP_TREE_COVER_MAX]);
/* 1 if a and b are the two children of one node. */
int ap_tree_siblings(int64_t leaves, struct ap_tree_node a, struct ap_tree_node b);
/* Number of ranks nearest to `ranks` that a batch of `leaves` micro-batches can use: at most leaves. */
int ap_tree_nearest_ranks(int64_t leaves, int ranks);

#endif
