/* SPDX-License-Identifier: Apache-2.0
 * A simulated machine for the probe: ranks on nodes at sites, joined by link_sim, thousands of them in one process on
 * virtual time. A flow from rank to rank is one connection: reliable and in order. It paces itself by the slowest line
 * of its way, of which flows over the same link between sites have equal parts; it opens up from a first window (slow
 * start) and never has more than the largest one under way, if these are given; it sends again what was lost. */
#ifndef AP_PROBE_PROBE_SIM_H
#define AP_PROBE_PROBE_SIM_H

#include "probe/probe.h"
#include "wan/link_net.h"

struct ap_probe_sim_site {
    int nodes, ranks_per_node;
    double node_us, node_gbit;        /* between two ranks of a node: one way, rate of each pair */
    double site_us, site_gbit;        /* between two nodes: one way, rate of a node's card */
    double egress_mbit, ingress_mbit; /* 0: no cap */
};

/* Bytes that a flow has under way within a round trip. */
struct ap_probe_sim_window {
    int64_t first; /* at the beginning, doubled every round trip; 0: open at once */
    int64_t most;  /* 0: no limit */
};

/* sites[net->n]; the net is copied. AP_ERR_NOMEM. Ranks are numbered site by site, node by node. */
ap_status ap_probe_sim_create(const struct ap_link_net *net, const struct ap_probe_sim_site *sites, uint64_t seed,
                              struct ap_probe_sim_window window, struct ap_probe_net **net_p);
void ap_probe_sim_destroy(struct ap_probe_net *net);
/* Who is where, with the sites known; owned by the caller (free node and site). AP_ERR_NOMEM. */
ap_status ap_probe_sim_places(const struct ap_probe_net *net, struct ap_probe_places *places_p);

#endif
