/* SPDX-License-Identifier: Apache-2.0
 * Arithmetic of the canonical gradient tree. */
#include "config.h"

#include "parallel/tree.h"

void ap_tree_leaves(int64_t leaves, int rank, int size, int64_t *lo_p, int64_t *hi_p)
{
    *lo_p = leaves * rank / size;
    *hi_p = leaves * (rank + 1) / size;
}

static int cover(struct ap_tree_node at, int64_t lo, int64_t hi, struct ap_tree_node *nodes, int n)
{
    if (at.hi <= lo || at.lo >= hi)
        return n;
    if (lo <= at.lo && at.hi <= hi) {
        nodes[n] = at;
        return n + 1;
    }
    int64_t mid = at.lo + (at.hi - at.lo) / 2;
    n = cover((struct ap_tree_node){at.lo, mid}, lo, hi, nodes, n);
    return cover((struct ap_tree_node){mid, at.hi}, lo, hi, nodes, n);
}

int ap_tree_cover(int64_t leaves, int64_t lo, int64_t hi, struct ap_tree_node nodes[AP_TREE_COVER_MAX])
{
    if (lo >= hi)
        return 0;
    return cover((struct ap_tree_node){0, leaves}, lo, hi, nodes, 0);
}

int ap_tree_siblings(int64_t leaves, struct ap_tree_node a, struct ap_tree_node b)
{
    int64_t lo = 0, hi = leaves;
    if (a.hi != b.lo || a.lo < 0 || b.hi > leaves)
        return 0;
    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (lo == a.lo && hi == b.hi)
            return mid == a.hi;
        if (b.hi <= mid)
            hi = mid;
        else if (a.lo >= mid)
            lo = mid;
        else
            return 0;
    }
    return 0;
}

int ap_tree_nearest_ranks(int64_t leaves, int ranks)
{
    return ranks <= leaves ? ranks : (int)leaves;
}
