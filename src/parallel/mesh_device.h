/* SPDX-License-Identifier: Apache-2.0
 * How tensors of a device backend travel between the ranks of a mesh: by a device communicator (NCCL) beside each
 * communicator that carries tensors, or through host memory over that communicator itself. */
#ifndef AP_PARALLEL_MESH_DEVICE_H
#define AP_PARALLEL_MESH_DEVICE_H

#include "backend/backend.h"
#include "parallel/mesh.h"

/* The choices of parallel.device_comm, in the order of the option table. */
enum ap_mesh_path { AP_MESH_PATH_AUTO, AP_MESH_PATH_MPI, AP_MESH_PATH_NCCL };

/* Collective over the mesh. be is borrowed until ap_mesh_detach. Sets `device` of the communicators with several ranks
 * along which this mesh moves tensors; nothing with MPI, on a host backend or on one rank. AUTO takes NCCL where it
 * comes up on every rank, and else logs the reason (rank 0); NCCL returns it: AP_ERR_INPUT for a host backend,
 * AP_ERR_ENV, AP_ERR_UNSUPPORTED or AP_ERR_COMM. timeout: seconds for one call. The same status on every rank. */
ap_status ap_mesh_attach(struct ap_mesh *m, struct ap_backend *be, enum ap_mesh_path path, double timeout,
                         struct ap_error *err);
/* Before the backend is closed. Not collective; NULL is fine. */
void ap_mesh_detach(struct ap_mesh *m);

#endif
