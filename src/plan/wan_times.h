/* SPDX-License-Identifier: Apache-2.0
 * How long an all-reduce takes over a WAN, by three ways: the trees of synth.h, one latency tree, one ring.
 *
 * Model. One way takes half the round trip. A message is cut into so many chunks that filling the pipe costs only the
 * delay; m bytes at R Gbit/s take 8 m / (10^9 R) seconds.
 *   trees:  max over trees (deepest way up + deepest way down) + m / throughput; every tree carries a share of m in
 *           proportion to its rate, so all take m / throughput.
 *   latency tree: shortest paths by delay to and from one root, the site for which deepest up + deepest down is least
 *           (least eccentricity); rate: what the capacities allow this one tree. floor_ms, the
 *           largest delay between two sites by the quickest path, bounds every algorithm from below.
 *   ring:   reduce-scatter and all-gather along one directed cycle: 2 (n - 1) steps of m / n bytes; the slowest link of
 *           the cycle sets the pace, and a part makes 2 (n - 1) hops, from the worst start:
 *           2 (n - 1) / n * m / slowest + the largest sum of 2 (n - 1) delays in a row.
 * Where a delay on the way is unknown, so is the time (NaN). Pure functions. */
#ifndef AP_PLAN_WAN_TIMES_H
#define AP_PLAN_WAN_TIMES_H

#include "base/status.h"
#include "plan/synth.h"
#include "plan/wan_matrix.h"

struct ap_wan_ring {
    int *order;     /* [n] sites in the order of the cycle, owned */
    double slowest; /* Gbit/s of its slowest link */
    double rate;    /* Gbit/s of the vector: slowest * n / (2 (n - 1)) */
    double limit;   /* no cycle has a slowest link above this */
    int exact;      /* slowest is the best there is */
};

/* The directed cycle through all sites whose slowest link is the fastest (bottleneck travelling salesman): by dynamic
 * programming over subsets up to 16 sites, else by growing and rotating paths, exact where that reaches limit.
 * *found_p: 0 where there is no cycle at all, or none was found. AP_ERR_NOMEM. */
ap_status ap_wan_ring_best(const struct ap_wan *wan, struct ap_wan_ring *ring_p, int *found_p);
/* The cycle in the order of the sites in the file; slowest 0 where a link is missing. */
double ap_wan_ring_listed(const struct ap_wan *wan);
void ap_wan_ring_clear(struct ap_wan_ring *ring);

struct ap_wan_latency {
    struct ap_synth_tree tree; /* in and out owned; rate: Gbit/s it carries alone */
    double up_ms, down_ms;     /* deepest way to the root and from it */
    double floor_ms;           /* the largest delay between two sites by the quickest path */
};

/* Links of unknown delay are left out; *found_p 0 where the rest does not join all sites. AP_ERR_NOMEM. */
ap_status ap_wan_latency_tree(const struct ap_wan *wan, int caps, int codec, struct ap_wan_latency *l_p, int *found_p);
void ap_wan_latency_clear(struct ap_wan_latency *l);

/* Deepest way up plus deepest way down of a tree, ms; NaN: unknown. */
double ap_wan_tree_delay(const struct ap_wan *wan, const struct ap_synth_tree *t);
/* What the capacities allow one tree alone, Gbit/s. */
double ap_wan_tree_rate(const struct ap_wan *wan, int caps, int codec, const struct ap_synth_tree *t);
/* Seconds for m bytes. */
double ap_wan_time_trees(const struct ap_wan *wan, const struct ap_synth *s, double bytes);
double ap_wan_time_latency(const struct ap_wan_latency *l, double bytes);
double ap_wan_time_ring(const struct ap_wan *wan, const struct ap_wan_ring *ring, double bytes);
/* US dollars that leaving traffic costs for each GB of the vector; NaN: a price is unknown. */
double ap_wan_usd_per_gb(const struct ap_wan *wan, const struct ap_synth *s, int codec);

#endif
