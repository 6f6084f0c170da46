/* SPDX-License-Identifier: Apache-2.0
 * Device communicators for a mesh. */
#include "config.h"

#include "base/log.h"
#include "parallel/comm_nccl.h"
#include "parallel/mesh_device.h"

enum { CARRIERS = 7 };

/* The communicators of this rank that carry tensors, in an order that all ranks share, so that those who meet in
 * several come to each in turn: rows of layers along tensor and expert, activations along the pipe, gradients and
 * weights of the groups of parameters (train/stage.h). Returns their number. */
static int carriers(const struct ap_mesh *m, struct ap_comm **list)
{
    const int *n = m->shape.size;
    struct ap_comm *all[CARRIERS] = {
        m->axis[AP_AXIS_TENSOR],
        m->axis[AP_AXIS_EXPERT],
        m->axis[AP_AXIS_PIPE],
        m->batch,
        n[AP_AXIS_TENSOR] > 1 ? m->stage : NULL,
        n[AP_AXIS_EXPERT] > 1 ? m->axis[AP_AXIS_DATA] : NULL,
        m->ends,
    };
    int count = 0;
    for (int i = 0; i < CARRIERS; i++)
        if (all[i] && all[i]->size > 1)
            list[count++] = all[i];
    return count;
}

void ap_mesh_detach(struct ap_mesh *m)
{
    struct ap_comm *list[CARRIERS];
    if (!m)
        return;
    for (int i = carriers(m, list) - 1; i >= 0; i--) {
        ap_comm_destroy(list[i]->device);
        list[i]->device = NULL;
    }
}

/* All, even after a failure: the others of the next one wait there. */
static ap_status attach(struct ap_mesh *m, struct ap_backend *be, double timeout, struct ap_error *err)
{
    struct ap_comm *list[CARRIERS];
    struct ap_error other = {0};
    ap_status first = AP_OK;
    int count = carriers(m, list);
    for (int i = 0; i < count; i++) {
        ap_status st = ap_comm_nccl_create(list[i], be, timeout, &list[i]->device, first == AP_OK ? err : &other);
        first = first == AP_OK ? st : first;
    }
    return ap_comm_agree(m->world, first, NULL, err);
}

ap_status ap_mesh_attach(struct ap_mesh *m, struct ap_backend *be, enum ap_mesh_path path, double timeout,
                         struct ap_error *err)
{
    char what[64] = "";
    struct ap_error why = {0};
    if (path == AP_MESH_PATH_NCCL && be->vt->is_host) {
        ap_error_set(err, AP_ERR_INPUT, "parallel.device_comm is nccl, but backend %s works in the host's memory",
                     be->vt->name);
        ap_error_hint(err, "leave parallel.device_comm at auto, or set backend: cuda");
        return AP_ERR_INPUT;
    }
    if (path == AP_MESH_PATH_MPI || be->vt->is_host || m->world->size == 1)
        return AP_OK;
    ap_status st = ap_comm_nccl_possible(m->world, be, what, sizeof(what), &why);
    if (st == AP_OK)
        st = attach(m, be, timeout, &why);
    if (st == AP_OK) {
        if (m->world->rank == 0)
            ap_info("tensors travel between the devices by %s", what);
        return AP_OK;
    }
    ap_mesh_detach(m);
    if (path == AP_MESH_PATH_NCCL) {
        if (err)
            *err = why;
        return st;
    }
    if (m->world->rank == 0)
        ap_info("tensors travel between the devices through host memory: %s", why.text);
    return AP_OK;
}
