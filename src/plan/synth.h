/* SPDX-License-Identifier: Apache-2.0
 * All-reduce over a measured WAN: the trees to send along, how much over each, and how far from the optimum that is.
 *
 * Model. n sites, directed links with rates (Gbit/s), fluid flow, no contention but what is stated. Resources are the
 * links; with AP_CAPS_SITE also the egress and the ingress of every site, each capped at the largest rate of the pairs
 * of that site in that direction (one capped gateway per site), with AP_CAPS_PAIR none besides (a flow per pair).
 * A column is (root, in-tree, out-tree): every site sends its part along the in-tree, summed on the way, and the root
 * sends the sum back along the out-tree. One unit of a column uses one unit of every link of both trees (a link in
 * both: two), and of the egress of its tail and the ingress of its head. Opaque codecs (1-bit, top-k, floats that must
 * be summed in site order at one place) cannot be summed on the way: a link of the in-tree then carries one unit for
 * each site whose path to the root it is on. The throughput is the sum of the rates of the columns, in Gbit/s of the
 * vector that is reduced; a share of the vector proportional to its rate goes over each column.
 *
 * Method. With AP_CAPS_PAIR first a packing by hand: columns one after the other at prices that keep all links equally
 * full, with falling rates, so that late small ones fill up what early large ones leave; 4n trees waste little then,
 * though most of thousands of links are tight in the best packing. Its rates are made the best for its columns, and
 * that is often all. Else, and with AP_CAPS_SITE from stars on, column generation: a linear program over the columns at
 * hand (packing_lp.h), new ones by the cheapest arborescences at the current prices (Chu and Liu 1965, Edmonds 1967;
 * arborescence.h) or shortest paths for opaque in-trees. For any prices l >= 0 every column costs at least the cheapest
 * one, so throughput <= sum over resources (capacity * l) / cost of the cheapest column, which is the certificate: the
 * prices are part of the result. Where an optimal program has few tight rows its own prices are zero elsewhere and lead
 * to columns that are all alike; so columns are priced at the soft maximum of the loads as well, and bounds sought
 * between the best prices so far and the program's (Wentges 1997). Pure function: no clock, no state. Not collective.
 */
#ifndef AP_PLAN_SYNTH_H
#define AP_PLAN_SYNTH_H

#include "base/status.h"
#include "plan/wan_matrix.h"

enum ap_caps { AP_CAPS_SITE, AP_CAPS_PAIR };
enum ap_codec_kind { AP_CODEC_ADDITIVE, AP_CODEC_OPAQUE };

struct ap_synth_tree {
    double rate; /* Gbit/s of the vector */
    int root;
    int *in;  /* [n] whom a site sends its part to, -1 for the root */
    int *out; /* [n] whom a site receives the sum from, -1 for the root; one allocation with in, owned */
};

struct ap_synth {
    int n, tree_count; /* at most 4n trees, the largest rate first */
    struct ap_synth_tree *trees;
    double throughput, bound; /* Gbit/s; bound = sum of capacity * price */
    double *link_price;       /* [n * n] prices under which the cheapest column costs 1 */
    double *egress, *ingress; /* [n] prices of the caps, all 0 with AP_CAPS_PAIR */
    int rounds, pivots;
};

/* Cap of the egress (out 1) or ingress (out 0) of a site: INFINITY with AP_CAPS_PAIR. */
double ap_synth_site_cap(const struct ap_wan *wan, int caps, int site, int out);
/* A strongly connected matrix (ap_wan_load checks it). AP_ERR_NOMEM, AP_ERR_INPUT for a matrix that is not. */
ap_status ap_synth_trees(const struct ap_wan *wan, int caps, int codec, struct ap_synth **s_p, struct ap_error *err);
void ap_synth_destroy(struct ap_synth *s);

#endif
