/* SPDX-License-Identifier: Apache-2.0
 * `antipode plan JOB --topology FILE` and `--wan FILE`: the layout of a job on a machine. */
#ifndef AP_CLI_PLAN_LAYOUT_H
#define AP_CLI_PLAN_LAYOUT_H

#include "base/status.h"
#include "plan/job.h"

struct plan_machine_flags {
    char *topology, *wan, *out;
    int in_order; /* no search: the ranks in their order */
    int64_t nodes_per_site, ranks_per_node, micro_sequences, runners_up;
    double gflops, memory_gb, memory_gb_per_s, node_gbit, node_us, site_gbit, site_us;
};

/* Search and print; with out: write plan.json there too. */
ap_status plan_layout(const struct ap_job *job, const struct plan_machine_flags *f, int json, struct ap_error *err);

#endif
