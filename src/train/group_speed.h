/* SPDX-License-Identifier: Apache-2.0
 * What the ranks of a node take to exchange a job's activations and to sum its gradients, all at once: collectives and
 * the reducer of training (parallel/zero.h), on buffers as large as the job's. */
#ifndef AP_TRAIN_GROUP_SPEED_H
#define AP_TRAIN_GROUP_SPEED_H

#include "backend/backend.h"
#include "parallel/comm.h"
#include "plan/job.h"
#include "plan/topology.h"

struct ap_group_speed {
    struct ap_topo_link group; /* as in struct ap_topo_node; zeros of a rank alone */
    double sum;
};

/* Collective over comm: the ranks of one node; the same result on all of them. */
ap_status ap_group_speed(const struct ap_job *job, struct ap_comm *comm, struct ap_backend *be,
                         struct ap_group_speed *res_p, struct ap_error *err);

#endif
