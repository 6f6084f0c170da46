/* SPDX-License-Identifier: Apache-2.0
 * The cheapest open path through all points of a cost matrix: in which order sites or nodes are visited. */
#ifndef AP_PLAN_ROUTE_ORDER_H
#define AP_PLAN_ROUTE_ORDER_H

#include <stdint.h>
#include "base/status.h"

/* Up to this many points the path is the best there is. */
#define AP_ROUTE_EXACT 12

/* order[n]: the points along a path with a small sum of cost[a * n + b] over its steps a -> b. Exact up to
 * AP_ROUTE_EXACT points (Held-Karp), beyond: nearest neighbour from several starts, then 2-opt and moves of one point.
 * Deterministic. AP_ERR_NOMEM. */
ap_status ap_route_order(int n, const double *cost, int *order);
double ap_route_length(int n, const double *cost, const int *order);

#endif
