/* SPDX-License-Identifier: Apache-2.0
 * Cheapest spanning arborescences of a dense directed graph, for every root at once.
 *
 * Chu and Liu (1965), Edmonds (1967): take the cheapest edge into every vertex, contract the cycles, repeat. Grown as
 * one path (Gabow, Galil, Spencer, Tarjan 1986) the contraction does not depend on the root: it ends with one vertex
 * that holds all, and unpacking its history from a root r gives the cheapest arborescence of that root. So n roots
 * cost O(n^2) together for the contraction and O(n) each for the unpacking. Stateless but for the workspace, which
 * belongs to one thread at a time. */
#ifndef AP_PLAN_ARBORESCENCE_H
#define AP_PLAN_ARBORESCENCE_H

#include "base/status.h"

struct ap_arbo;

/* Workspace for graphs of n vertices, n >= 1; *a_p is owned by the caller. AP_ERR_NOMEM. */
ap_status ap_arbo_create(int n, struct ap_arbo **a_p);
void ap_arbo_destroy(struct ap_arbo *a);

/* Contract the graph with cost[u * n + v] >= 0 of edge u -> v, INFINITY where there is none (the diagonal is not
 * read). transpose: read edge u -> v at cost[v * n + u] instead, which turns arborescences towards the root (in-trees)
 * into ones away from it. 0, or -1 where the graph is not strongly connected. */
int ap_arbo_contract(struct ap_arbo *a, const double *cost, int transpose);
/* After contract: the cheapest arborescence away from root. parent[v] (n of them): the tail of the edge into v, -1 for
 * the root. Returns its cost. */
double ap_arbo_unpack(struct ap_arbo *a, int root, int *parent);

#endif
