/* SPDX-License-Identifier: Apache-2.0
 * What a probe says: the machine as the planner takes it (topology.csv), a summary, JSON, and a heat map. Pure
 * arithmetic and text. */
#ifndef AP_PROBE_PROBE_REPORT_H
#define AP_PROBE_PROBE_REPORT_H

#include "base/json.h"
#include "probe/probe.h"

/* Of one rank. Fixed size: it travels between processes. */
struct ap_probe_fact {
    char host[64];
    char device[16];
    char place[96]; /* "socket 0, NUMA 1, cores 8-15": what hwloc says of the rank's binding */
    int32_t node_first, cpus;
    double flops, memory, memory_bandwidth; /* FLOP/s; bytes; bytes per second: by what measured_by says */
    /* With a job: what its layers take here, and its collectives on this node; else zeros. */
    struct ap_work work;
    struct ap_topo_link group;
    double sum;
};

struct ap_probe_report {
    const struct ap_probe_places *places;
    const struct ap_probe_result *result;
    const struct ap_probe_fact *facts; /* [ranks] */
    const char *const *site_names;     /* NULL: made from the names of hosts */
    const char *date;
    const char *job, *job_identity; /* whose layers were measured; NULL: none */
    const char *measured_by;        /* what speed and memory bandwidth of ranks were measured with: half a sentence */
};

/* Owned by the caller (ap_topology_destroy). */
ap_status ap_probe_report_topology(const struct ap_probe_report *r, struct ap_topology **t_p, struct ap_error *err);
/* All take the topology of the report; malloc'ed texts, NULL: out of memory. */
char *ap_probe_report_csv(const struct ap_probe_report *r, const struct ap_topology *t);
char *ap_probe_report_text(const struct ap_probe_report *r, const struct ap_topology *t);
char *ap_probe_report_json(const struct ap_probe_report *r, const struct ap_topology *t);
char *ap_probe_report_svg(const struct ap_probe_report *r, const struct ap_topology *t);

#endif
