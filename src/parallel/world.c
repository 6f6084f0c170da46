/* SPDX-License-Identifier: Apache-2.0
 * Start and end of MPI: the only use of MPI_COMM_WORLD. */
#include "config.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

#include "base/log.h"
#include "parallel/comm_mpi.h"
#include "parallel/world.h"

/* mpirun (PRRTE), srun --mpi=pmix and flux set one of these for each process. */
static int launched(void)
{
    static const char *const marks[] = {"PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", NULL};
    for (int i = 0; marks[i]; i++)
        if (getenv(marks[i]))
            return 1;
    return 0;
}

/* srun without PMIx starts N processes that know nothing of each other: N runs in one directory. */
static ap_status refuse_bare_srun(struct ap_error *err)
{
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
    if (!tasks || strtol(tasks, NULL, 10) <= 1)
        return AP_OK;
    ap_error_set(err, AP_ERR_ENV, "srun started %s tasks without PMIx, so they cannot find each other", tasks);
    ap_error_hint(err, "start with srun --mpi=pmix, or with mpirun");
    return AP_ERR_ENV;
}

static ap_status start_mpi(struct ap_world *w, struct ap_error *err)
{
    int provided = 0;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return ap_error_set(err, AP_ERR_ENV, "MPI_Init failed");
    if (provided < MPI_THREAD_FUNNELED)
        return ap_error_set(err, AP_ERR_ENV, "this MPI gives thread level %d, MPI_THREAD_FUNNELED is needed", provided);
    MPI_Comm dup = MPI_COMM_NULL, node = MPI_COMM_NULL;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (MPI_Comm_dup(MPI_COMM_WORLD, &dup) != MPI_SUCCESS)
        return ap_error_set(err, AP_ERR_ENV, "MPI_Comm_dup failed");
    if (MPI_Comm_split_type(dup, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node) != MPI_SUCCESS)
        return ap_error_set(err, AP_ERR_ENV, "MPI_Comm_split_type failed");
    MPI_Comm_rank(node, &w->node_rank);
    MPI_Comm_size(node, &w->node_ranks);
    MPI_Comm_rank(dup, &w->node_first);
    if (MPI_Bcast(&w->node_first, 1, MPI_INT, 0, node) != MPI_SUCCESS)
        return ap_error_set(err, AP_ERR_ENV, "MPI_Bcast inside a node failed");
    MPI_Comm_free(&node);
    int len = 0;
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    MPI_Get_library_version(text, &len);
    snprintf(w->mpi_version, sizeof(w->mpi_version), "%.*s", (int)strcspn(text, ",\n"), text);
    if (ap_comm_mpi_wrap(dup, &w->comm) != AP_OK)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    return AP_OK;
}

ap_status ap_world_init(struct ap_world *w, struct ap_error *err)
{
    *w = (struct ap_world){.node_ranks = 1, .mpi_version = "none"};
    /* A dying peer closes its sockets; an unignored SIGPIPE would then take this rank along. */
    signal(SIGPIPE, SIG_IGN);
    if (launched())
        return start_mpi(w, err);
    AP_TRY(refuse_bare_srun(err));
    if (ap_comm_self(&w->comm) != AP_OK)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    return AP_OK;
}

void ap_world_end(struct ap_world *w, int clean)
{
    int inited = 0;
    MPI_Initialized(&inited);
    if (w->comm && clean)
        ap_comm_destroy(w->comm);
    w->comm = NULL;
    if (inited && clean)
        MPI_Finalize();
}
