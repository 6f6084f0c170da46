/* SPDX-License-Identifier: Apache-2.0
 * The MPI communicator, for world.c and the MPI tests only. */
#ifndef AP_PARALLEL_COMM_MPI_H
#define AP_PARALLEL_COMM_MPI_H

#include <mpi.h>

#include "parallel/comm.h"

/* Wrap a communicator that this call takes over: destroy frees it. Its error handler becomes
 * MPI_ERRORS_RETURN. Not collective. */
ap_status ap_comm_mpi_wrap(MPI_Comm mpi, struct ap_comm **c_p);
/* Largest message handed to MPI at once, in bytes (default 1 GiB). Same value on all ranks. MPI-3 counts are
 * int; tests lower the limit to reach the code for large messages. */
void ap_comm_mpi_limit(struct ap_comm *c, int64_t bytes);

#endif
