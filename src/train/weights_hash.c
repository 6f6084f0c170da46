/* SPDX-License-Identifier: Apache-2.0
 * Weights in canonical order, from the slices of a mesh. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "train/weights_hash.h"

#define TAG 0

struct gather {
    struct ap_stage *stage;
    const struct ap_model_config *cfg;
    struct ap_params *whole; /* on the first rank */
    uint8_t *flat;           /* [whole->flat] likewise */
    size_t es;
};

static void hash_flat(struct ap_hasher *h, const struct ap_params *p, const uint8_t *flat, size_t es)
{
    for (int64_t i = 0; i < p->count; i++)
        ap_hasher_update(h, flat + (size_t)p->list[i].offset * es, (size_t)p->list[i].count * es);
}

/* Slices of one group's region, of the part `p`, to their places. */
static ap_status scatter(struct gather *g, const struct ap_params *p, int group, const uint8_t *region)
{
    for (int64_t i = 0; i < p->count; i++) {
        const struct ap_param *from = &p->list[i];
        if (from->group != group)
            continue;
        const struct ap_param *to = ap_params_find(g->whole, from->info.name);
        if (!to)
            return AP_ERR_BUG;
        const uint8_t *src = region + (size_t)(from->offset - p->region[group].begin) * g->es;
        for (int64_t r = 0; r < from->rows; r++)
            memcpy(g->flat + (size_t)(to->offset + (from->row + r) * to->cols + from->col) * g->es,
                   src + (size_t)(r * from->cols) * g->es, (size_t)from->cols * g->es);
    }
    return AP_OK;
}

/* The first rank of a group's communicator speaks for the group. */
static int speaks(const int coord[AP_AXES], int group)
{
    int first = coord[AP_AXIS_DATA] == 0 && (group == AP_GROUP_EXPERT || coord[AP_AXIS_EXPERT] == 0);
    if (group == AP_GROUP_SHARED)
        return first && coord[AP_AXIS_TENSOR] == 0;
    return group == AP_GROUP_ENDS ? first && coord[AP_AXIS_PIPE] == 0 : first;
}

static ap_status send_own(struct gather *g)
{
    struct ap_stage *s = g->stage;
    for (int c = 0; c < s->chunk_count; c++)
        for (int i = 0; i < s->chunks[c].count; i++) {
            const struct ap_stage_chunk *k = &s->chunks[c];
            struct ap_comm_request r;
            const void *host = NULL;
            int id = k->groups[i].id;
            if (!speaks(s->mesh->coord, id))
                continue;
            AP_TRY(ap_optimizer_host_weights(k->groups[i].optim, &host));
            int64_t bytes = (k->params->region[id].end - k->params->region[id].begin) * (int64_t)g->es;
            AP_TRY(ap_comm_send_start(s->mesh->world, host, bytes, 0, TAG, &r));
            AP_TRY(ap_comm_wait(s->mesh->world, &r));
        }
    return AP_OK;
}

/* All groups of a part that rank `slot` speaks for. */
static ap_status take_part(struct gather *g, int slot, const int coord[AP_AXES], const struct ap_params *p)
{
    struct ap_comm *world = g->stage->mesh->world;
    ap_status st = AP_OK;
    for (int id = 0; st == AP_OK && id < AP_GROUPS; id++) {
        struct ap_comm_request r;
        int64_t bytes = (p->region[id].end - p->region[id].begin) * (int64_t)g->es;
        if (bytes == 0 || !speaks(coord, id))
            continue;
        uint8_t *region = malloc((size_t)bytes);
        st = region ? ap_comm_recv_start(world, region, bytes, slot, TAG, &r) : AP_ERR_NOMEM;
        if (st == AP_OK)
            st = ap_comm_wait(world, &r);
        if (st == AP_OK)
            st = scatter(g, p, id, region);
        free(region);
    }
    return st;
}

static ap_status take_from(struct gather *g, int slot)
{
    struct ap_stage *s = g->stage;
    int coord[AP_AXES];
    ap_status st = AP_OK;
    ap_mesh_coord(&s->mesh->shape, slot, coord);
    for (int c = 0; st == AP_OK && c < s->chunk_count; c++) {
        struct ap_params *p = NULL;
        struct ap_model_part part;
        st = ap_stage_part(s, coord, c, &part);
        if (st == AP_OK)
            st = ap_params_create(g->cfg, &part, &p);
        if (st == AP_OK)
            st = take_part(g, slot, coord, p);
        ap_params_destroy(p);
    }
    return st;
}

/* The first rank's own slices, as if it had sent them. */
static ap_status take_own(struct gather *g)
{
    struct ap_stage *s = g->stage;
    for (int c = 0; c < s->chunk_count; c++)
        for (int i = 0; i < s->chunks[c].count; i++) {
            const void *host = NULL;
            AP_TRY(ap_optimizer_host_weights(s->chunks[c].groups[i].optim, &host));
            AP_TRY(scatter(g, s->chunks[c].params, s->chunks[c].groups[i].id, host));
        }
    return AP_OK;
}

static ap_status receive(struct gather *g, struct ap_hasher *h)
{
    AP_TRY(ap_params_create(g->cfg, NULL, &g->whole));
    g->flat = calloc((size_t)g->whole->flat, g->es);
    if (!g->flat)
        return AP_ERR_NOMEM;
    AP_TRY(take_own(g));
    for (int slot = 1; slot < g->stage->mesh->world->size; slot++)
        AP_TRY(take_from(g, slot));
    hash_flat(h, g->whole, g->flat, g->es);
    return AP_OK;
}

ap_status ap_weights_hash(struct ap_stage *s, const struct ap_model_config *cfg, struct ap_hasher *h,
                          struct ap_error *err)
{
    struct gather g = {.stage = s, .cfg = cfg, .es = ap_dtype_size(s->dtype)};
    struct ap_comm *world = s->mesh->world;
    ap_status st;
    if (world->size == s->mesh->batch->size && s->mesh->shape.size[AP_AXIS_EXPERT] == 1 && s->chunk_count == 1) {
        const void *host = NULL;
        st = world->rank == 0 ? ap_optimizer_host_weights(s->chunks[0].groups[0].optim, &host) : AP_OK;
        if (host)
            hash_flat(h, s->chunks[0].params, host, g.es);
    } else {
        st = world->rank == 0 ? receive(&g, h) : send_own(&g);
    }
    ap_params_destroy(g.whole);
    free(g.flat);
    return st == AP_OK ? st : ap_error_set(err, st, "the weights could not be gathered for their hash");
}
