/* SPDX-License-Identifier: Apache-2.0
 * The process's MPI life: init, the only use of MPI_COMM_WORLD (duplicated at once, MPI_ERRORS_RETURN),
 * end. Linked into antipode-train only. */
#ifndef AP_PARALLEL_WORLD_H
#define AP_PARALLEL_WORLD_H

#include "parallel/comm.h"

struct ap_world {
    struct ap_comm *comm; /* a duplicate of the world, owned */
    int node_ranks;       /* ranks on this node */
    int node_rank;        /* mine among them */
    int node_first;       /* rank of the first of them in comm: the same for all of a node, and for no others */
    char mpi_version[96]; /* "Open MPI v5.0.7", "none" without MPI: for the record of the environment */
};

/* Collective over all started processes; called once. FUNNELED. SIGPIPE is ignored before MPI starts.
 * Without a launcher (no mpirun, srun in the environment) no MPI is started: a self communicator. */
ap_status ap_world_init(struct ap_world *w, struct ap_error *err);
/* Collective. clean = 0 after an error: no MPI_Finalize, the caller ends with _exit. */
void ap_world_end(struct ap_world *w, int clean);

#endif
