/* SPDX-License-Identifier: Apache-2.0
 * The mesh: ranks as a grid (pipe, data, expert, tensor) with a communicator along each axis. Apart from the
 * code here nothing knows world ranks: `place` says which of them stands where, and the communicators are
 * split with keys of our own, since MPI's reordering does not move anything.
 *
 * Slots are numbered with the tensor axis fastest, then expert, data, pipe:
 *   slot = ((pipe * DATA + data) * EXPERT + expert) * TENSOR + tensor.
 * The batch is split over data x expert, so dense gradients are summed over `batch`, those of experts over `data`. */
#ifndef AP_PARALLEL_MESH_H
#define AP_PARALLEL_MESH_H

#include "parallel/comm.h"

enum ap_axis { AP_AXIS_PIPE, AP_AXIS_DATA, AP_AXIS_EXPERT, AP_AXIS_TENSOR, AP_AXES };

struct ap_mesh_shape {
    int size[AP_AXES];
};

struct ap_mesh {
    struct ap_mesh_shape shape;
    int coord[AP_AXES];
    struct ap_comm *axis[AP_AXES]; /* ranks that differ from this one along that axis only, in its order */
    struct ap_comm *batch;         /* data x expert: rank = data * EXPERT + expert */
    struct ap_comm *stage;         /* all ranks of this pipe coordinate, in slot order */
    struct ap_comm *ends;  /* with several stages, on the first and the last: their ranks of this tensor coordinate,
                            * the first stage's before the last's, each in the order of `batch`; else NULL */
    struct ap_comm *world; /* all, in slot order */
};

const char *ap_axis_name(enum ap_axis a); /* "pipeline", "data", "expert", "tensor": the keys of `parallel` */
int64_t ap_mesh_ranks(const struct ap_mesh_shape *s);
/* AP_ERR_INPUT with the reason and a fix: a size below 1, or a product that is not `ranks`. */
ap_status ap_mesh_check(const struct ap_mesh_shape *s, int ranks, struct ap_error *err);
void ap_mesh_coord(const struct ap_mesh_shape *s, int slot, int coord[AP_AXES]);
int ap_mesh_slot(const struct ap_mesh_shape *s, const int coord[AP_AXES]);

/* Collective over world (borrowed, not needed afterwards). place: [ranks], slot of each world rank, the same on every
 * rank; NULL: rank = slot. AP_ERR_INPUT on every rank when shape or place do not fit. */
ap_status ap_mesh_create(struct ap_comm *world, const struct ap_mesh_shape *s, const int *place,
                         struct ap_mesh **mesh_p, struct ap_error *err);
void ap_mesh_destroy(struct ap_mesh *m); /* NULL is fine; not collective */

#endif
