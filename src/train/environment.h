/* SPDX-License-Identifier: Apache-2.0
 * What a run ran on, for summary.json and for explaining bits that differ. Decides nothing. */
#ifndef AP_TRAIN_ENVIRONMENT_H
#define AP_TRAIN_ENVIRONMENT_H

#include "base/json.h"
#include "parallel/comm.h"

struct ap_environment {
    int64_t hosts, ranks;
    int64_t cpus; /* of the affinity mask of this rank */
    char first_host[64];
    char cpu_model[128], isa[32], kernel[128], libc[32], mpi[96];
};

#define AP_HOST_NAME 64
/* Collective. Names of the hosts of all ranks, [size][AP_HOST_NAME], malloc'ed. */
ap_status ap_environment_hosts(struct ap_comm *comm, char **names_p);
/* Collective (host names are compared). */
ap_status ap_environment_gather(struct ap_comm *comm, const char *mpi_version, struct ap_environment *e_p);
/* As an object named key. */
void ap_environment_json(const struct ap_environment *e, const char *key, struct ap_json *j);
/* "avx512f", "avx2", "sse2", or the name of another architecture: static storage. */
const char *ap_environment_isa(void);
/* CPUs of the affinity mask, and those of the machine that are online. */
int64_t ap_environment_cpus(int64_t *online_p);
/* Threads of a rank when the job says auto: a mask smaller than the machine was made for this rank; the whole
 * machine is shared by the ranks of the node. */
int ap_environment_threads(int node_ranks);
/* Largest resident size of this process so far, bytes. */
int64_t ap_environment_memory(void);

#endif
