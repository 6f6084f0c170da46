/* SPDX-License-Identifier: Apache-2.0
 * What a machine is to the planner: ranks (node, site, device, measured speed, memory) and links on three levels:
 * inside a node, between the nodes of a site, between sites. Read from topology.csv (docs/formats-topology.md), from a
 * plain matrix between sites, and written back. Pure arithmetic, no MPI, thread-safe.
 *
 * A link has a one-way latency and a bandwidth, and a direction where it joins two nodes or two sites. Inside a node
 * and inside a site one value stands for all pairs, unless pairs of nodes are listed; a file that lists pairs of ranks
 * is folded: inside a node the slowest pair counts, between nodes the slowest pair of the two, between sites the
 * fastest. */
#ifndef AP_PLAN_TOPOLOGY_H
#define AP_PLAN_TOPOLOGY_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "plan/work.h"

#define AP_TOPO_MAX_RANKS 65536
#define AP_TOPO_MAX_SITES 512
/* Pairs of nodes are kept as a square table up to this many nodes. */
#define AP_TOPO_MAX_PAIRED_NODES 2048
#define AP_TOPO_NAME             80
/* Names in files: nodes and sites; a prefix that a number is put behind. */
#define AP_TOPO_NAME_MAX   63
#define AP_TOPO_PREFIX_MAX 50

struct ap_topo_link {
    double latency;   /* seconds, one way */
    double bandwidth; /* bytes per second; 0: no such link is known */
};

struct ap_topo_rank {
    int node;
    char device[16];
    double speed;            /* FLOP/s, measured in the data type of the training */
    double memory;           /* bytes */
    double memory_bandwidth; /* bytes per second */
};

struct ap_topo_node {
    char name[AP_TOPO_NAME];
    int site;
    int ranks; /* how many it holds */
    int order; /* position along the cheapest path through the nodes of its site: rings run in this order */
    struct ap_topo_link inside;
    /* Measured collectives of all its ranks at once; bandwidth and sum 0: not measured. Each of c ranks takes (c - 1)
     * (latency + bytes to each of the others / bandwidth) for a gather or an all-to-all, (c - 1) / c x bytes / sum for
     * the sum of its gradients and the gather of new weights, bytes of both together. */
    struct ap_topo_link group;
    double sum;
};

struct ap_topo_site {
    char name[AP_TOPO_NAME];
    int nodes, ranks;
    struct ap_topo_link inside; /* between two of its nodes */
    double egress, ingress;     /* bytes per second over all its links; 0: no cap */
};

struct ap_topology {
    char date[40]; /* of the measurement, empty: unknown */
    int rank_count, node_count, site_count;
    struct ap_topo_rank *ranks;
    struct ap_topo_node *nodes;
    struct ap_topo_site *sites;
    struct ap_topo_link *wan;        /* [site_count][site_count], from row to column */
    struct ap_topo_link *node_pairs; /* [node_count][node_count] or NULL; bandwidth 0: the site's value */
    /* What the layers of one job take on each rank [rank_count], and which job that was (ap_work_identity); NULL: not
     * measured. */
    struct ap_work *work;
    char work_job[AP_TOPO_NAME], work_identity[33];
    int guessed_links; /* links between sites that were unknown and got the way over other sites */
};

/* From the text of a topology.csv; path names it in errors. Owned by the caller (ap_topology_destroy). AP_ERR_INPUT
 * with line, column and the fix. */
ap_status ap_topology_parse(const char *path, const char *text, size_t size, struct ap_topology **t_p,
                            struct ap_error *err);
ap_status ap_topology_load(const char *path, struct ap_topology **t_p, struct ap_error *err);
void ap_topology_destroy(struct ap_topology *t); /* NULL is fine */
/* As a topology.csv (malloc'ed, NULL: out of memory) that is read back to the same machine. Equal ranks in a row become
 * one line. */
char *ap_topology_csv(const struct ap_topology *t);

/* What every rank and site of a machine made of a plain matrix is like. */
struct ap_topo_shape {
    int nodes_per_site, ranks_per_node;
    struct ap_topo_rank rank; /* node is ignored */
    struct ap_topo_link node, site;
};
/* From a matrix between sites: columns src, dst, rtt_ms, gbit_per_s; others are ignored. A blank or missing value is
 * unknown and replaced by the way over other sites. */
ap_status ap_topology_from_wan(const char *path, const char *text, size_t size, const struct ap_topo_shape *shape,
                               struct ap_topology **t_p, struct ap_error *err);

/* The link from node a to node b (the same: inside of it). Node indices must be valid. */
struct ap_topo_link ap_topology_link(const struct ap_topology *t, int a, int b);
/* Site of a rank. */
int ap_topology_site(const struct ap_topology *t, int rank);

/* For those who build a machine in memory: zeroed ranks, nodes, sites and links; NULL: out of memory. */
struct ap_topology *ap_topology_create(int ranks, int nodes, int sites);
/* Counts, directions that are missing, unknown links, node order; then the machine may be used. */
ap_status ap_topology_finish(struct ap_topology *t, const char *path, struct ap_error *err);

#endif
