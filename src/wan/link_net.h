/* SPDX-License-Identifier: Apache-2.0
 * Sites and the directed links between them, read from a matrix in CSV.
 *
 * The first line names the columns: src and dst, then any of the keys of ap_link_params (delay_ms, rate_mbit, loss ...)
 * or the form of measured WAN matrices: rtt_ms (half of it is the delay) and gbit_per_s; egress_usd_per_gb is read
 * over. Lines that are blank or begin with # are skipped. A blank cell means what the opposite direction says, else the
 * default; a delay given in neither is an error. A pair given in one direction only is alike in both; a pair not given
 * at all is down. Sites are numbered in the order in which they appear. Pure but for ap_link_net_read, which reads its
 * file. */
#ifndef AP_WAN_LINK_NET_H
#define AP_WAN_LINK_NET_H

#include "wan/link_model.h"

#define AP_LINK_SITES_MAX 200
#define AP_LINK_NAME_MAX  63

struct ap_link_net {
    int n;
    uint64_t seed;
    char (*names)[AP_LINK_NAME_MAX + 1];
    struct ap_link_model *links; /* n x n, link src -> dst at src * n + dst; the diagonal is down */
    /* [n] what passes all that leaves, or enters, a site, before and behind the links; rate_mbit 0, as at first: no cap
     */
    struct ap_link_model *egress, *ingress;
};

/* name stands in error messages. On success *net_p is owned by the caller (ap_link_net_free). */
ap_status ap_link_net_parse(const char *text, const char *name, uint64_t seed, struct ap_link_net **net_p,
                            struct ap_error *err);
ap_status ap_link_net_read(const char *path, uint64_t seed, struct ap_link_net **net_p, struct ap_error *err);
void ap_link_net_free(struct ap_link_net *net);
/* Number of a site, or -1. */
int ap_link_net_find(const struct ap_link_net *net, const char *name);
struct ap_link_model *ap_link_net_link(const struct ap_link_net *net, int src, int dst);
/* Least round trip between two sites in ms as set now, both directions' delays. */
double ap_link_net_rtt_ms(const struct ap_link_net *net, int a, int b);
/* A cap on all that leaves or enters a site from now on; its queue holds the longest round trip of the matrix, at least
 * 256 KB, and drops the tail like a link's. mbit 0: no cap. */
void ap_link_net_cap(struct ap_link_net *net, int site, int ingress, double mbit);
/* The error that a name is no site, with the nearest one as the hint. */
ap_status ap_link_net_unknown(const struct ap_link_net *net, const char *name, struct ap_error *err);

#endif
