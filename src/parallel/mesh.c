/* SPDX-License-Identifier: Apache-2.0
 * Slots, coordinates, and the splits that make the communicators of a mesh. */
#include "config.h"

#include <stdlib.h>

#include "parallel/mesh.h"

const char *ap_axis_name(enum ap_axis a)
{
    static const char *const names[AP_AXES] = {"pipeline", "data", "expert", "tensor"};
    return a >= 0 && a < AP_AXES ? names[a] : "unknown";
}

int64_t ap_mesh_ranks(const struct ap_mesh_shape *s)
{
    int64_t n = 1;
    for (int a = 0; a < AP_AXES; a++)
        n *= s->size[a];
    return n;
}

ap_status ap_mesh_check(const struct ap_mesh_shape *s, int ranks, struct ap_error *err)
{
    int64_t n = 1;
    for (int a = 0; a < AP_AXES; a++) {
        if (s->size[a] < 1 || s->size[a] > ranks)
            return ap_error_set(err, AP_ERR_INPUT,
                                "parallel.%s is %d: between 1 and the number of ranks, %d, is possible",
                                ap_axis_name(a), s->size[a], ranks);
        n *= s->size[a]; /* below 2^31 * 2^31, since it is checked after each factor */
        if (n > ranks)
            break;
    }
    if (n == ranks)
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "data %d x tensor %d x pipeline %d x expert %d is not the number of ranks, %d",
                 s->size[AP_AXIS_DATA], s->size[AP_AXIS_TENSOR], s->size[AP_AXIS_PIPE], s->size[AP_AXIS_EXPERT], ranks);
    ap_error_hint(err, "change one of them or the number of ranks, or leave one at auto");
    return AP_ERR_INPUT;
}

void ap_mesh_coord(const struct ap_mesh_shape *s, int slot, int coord[AP_AXES])
{
    for (int a = AP_AXES - 1; a >= 0; a--) {
        coord[a] = slot % s->size[a];
        slot /= s->size[a];
    }
}

int ap_mesh_slot(const struct ap_mesh_shape *s, const int coord[AP_AXES])
{
    int slot = 0;
    for (int a = 0; a < AP_AXES; a++)
        slot = slot * s->size[a] + coord[a];
    return slot;
}

static ap_status check_place(const int *place, int ranks, struct ap_error *err)
{
    char *taken = calloc((size_t)ranks, 1);
    if (!taken)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    ap_status st = AP_OK;
    for (int r = 0; st == AP_OK && r < ranks; r++) {
        if (place[r] < 0 || place[r] >= ranks)
            st = ap_error_set(err, AP_ERR_INPUT, "rank %d has slot %d in a mesh of %d", r, place[r], ranks);
        else if (taken[place[r]]++)
            st = ap_error_set(err, AP_ERR_INPUT, "slot %d of the mesh is given twice, also to rank %d", place[r], r);
    }
    free(taken);
    return st;
}

/* The ranks that share all coordinates but those with a bit in `along`, in slot order. */
static ap_status split(struct ap_comm *world, const struct ap_mesh *m, unsigned along, struct ap_comm **out)
{
    int group[AP_AXES], key[AP_AXES];
    for (int a = 0; a < AP_AXES; a++) {
        group[a] = along >> a & 1u ? 0 : m->coord[a];
        key[a] = along >> a & 1u ? m->coord[a] : 0;
    }
    return ap_comm_split(world, ap_mesh_slot(&m->shape, group), ap_mesh_slot(&m->shape, key), out);
}

static ap_status make(struct ap_comm *world, struct ap_mesh *m)
{
    for (int a = 0; a < AP_AXES; a++)
        AP_TRY(split(world, m, 1u << a, &m->axis[a]));
    AP_TRY(split(world, m, 1u << AP_AXIS_DATA | 1u << AP_AXIS_EXPERT, &m->batch));
    AP_TRY(split(world, m, 1u << AP_AXIS_DATA | 1u << AP_AXIS_EXPERT | 1u << AP_AXIS_TENSOR, &m->stage));
    AP_TRY(split(world, m, (1u << AP_AXES) - 1, &m->world));
    int pipe = m->coord[AP_AXIS_PIPE], last = m->shape.size[AP_AXIS_PIPE] - 1;
    int at_end = last > 0 && (pipe == 0 || pipe == last);
    return ap_comm_split(world, at_end ? m->coord[AP_AXIS_TENSOR] : -1, ap_mesh_slot(&m->shape, m->coord), &m->ends);
}

ap_status ap_mesh_create(struct ap_comm *world, const struct ap_mesh_shape *s, const int *place,
                         struct ap_mesh **mesh_p, struct ap_error *err)
{
    AP_TRY(ap_mesh_check(s, world->size, err));
    if (place)
        AP_TRY(check_place(place, world->size, err));
    struct ap_mesh *m = calloc(1, sizeof *m);
    ap_status st = ap_comm_agree(world, m ? AP_OK : AP_ERR_NOMEM, NULL, err);
    if (m && st == AP_OK) {
        m->shape = *s;
        ap_mesh_coord(s, place ? place[world->rank] : world->rank, m->coord);
        st = make(world, m);
    }
    if (st != AP_OK) {
        ap_mesh_destroy(m);
        return ap_error_set(err, st, "the communicators of the mesh could not be made");
    }
    *mesh_p = m;
    return AP_OK;
}

void ap_mesh_destroy(struct ap_mesh *m)
{
    if (!m)
        return;
    for (int a = 0; a < AP_AXES; a++)
        ap_comm_destroy(m->axis[a]);
    ap_comm_destroy(m->batch);
    ap_comm_destroy(m->stage);
    ap_comm_destroy(m->ends);
    ap_comm_destroy(m->world);
    free(m);
}
