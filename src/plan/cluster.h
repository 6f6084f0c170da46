/* SPDX-License-Identifier: Apache-2.0
 * Groups that a matrix of round-trip times falls into: nodes, sites, regions. Single linkage: two points belong
 * together below a time t if a chain of steps shorter than t joins them. Pure arithmetic, thread-safe. */
#ifndef AP_PLAN_CLUSTER_H
#define AP_PLAN_CLUSTER_H

#include "base/status.h"

/* A gap between two joining times counts as a level boundary from this ratio on. */
#define AP_CLUSTER_GAP 2.0

struct ap_cluster_level {
    double inside;  /* the longest step that joins a group of this level, seconds; 0: single points */
    double outside; /* the shortest step that joins two of them; infinity: nothing is known to join them */
    int groups;
    int *group; /* [n] group of each point, numbered by first appearance */
};

struct ap_clusters {
    int n, levels; /* from the finest to the coarsest that has more than one group */
    int main;      /* the level at the largest gap, -1: no level */
    struct ap_cluster_level *level;
};

/* rtt[n][n] in seconds, the smaller direction counts, NaN or negative: unknown. AP_ERR_NOMEM. */
ap_status ap_cluster_build(int n, const double *rtt, struct ap_clusters *c);
void ap_cluster_clear(struct ap_clusters *c);

#endif
