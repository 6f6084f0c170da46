/* SPDX-License-Identifier: Apache-2.0
 * Gather of what the micro-batches gave. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/tree.h"
#include "train/results.h"

static int batch_rank(const struct ap_mesh *m, const int coord[AP_AXES])
{
    return coord[AP_AXIS_DATA] * m->shape.size[AP_AXIS_EXPERT] + coord[AP_AXIS_EXPERT];
}

ap_status ap_results_create(struct ap_mesh *mesh, int64_t leaves, const int64_t *leaf_begin, struct ap_results *r)
{
    int n = mesh->batch->size, world = mesh->world->size, coord[AP_AXES];
    int64_t lo, total = 0;
    *r = (struct ap_results){.mesh = mesh, .leaves = leaves};
    r->leaf_begin = calloc((size_t)n + 1, sizeof(*r->leaf_begin));
    r->bytes = calloc((size_t)world, sizeof(*r->bytes));
    if (!r->leaf_begin || !r->bytes) {
        ap_results_free(r);
        return AP_ERR_NOMEM;
    }
    for (int i = 0; i < n; i++)
        ap_tree_leaves(leaves, i, n, &lo, &r->leaf_begin[i + 1]);
    if (leaf_begin)
        memcpy(r->leaf_begin, leaf_begin, ((size_t)n + 1) * sizeof(*leaf_begin));
    r->lo = r->leaf_begin[mesh->batch->rank];
    r->hi = r->leaf_begin[mesh->batch->rank + 1];
    for (int i = 0; i < world; i++) {
        ap_mesh_coord(&mesh->shape, i, coord);
        int b = batch_rank(mesh, coord);
        r->bytes[i] = (r->leaf_begin[b + 1] - r->leaf_begin[b]) * (int64_t)sizeof(*r->all);
        total += r->bytes[i];
    }
    r->all = calloc((size_t)leaves + 1, sizeof(*r->all));
    r->own = calloc((size_t)(r->hi - r->lo) + 1, sizeof(*r->own));
    r->everybody = malloc((size_t)total + 1);
    if (r->all && r->own && r->everybody)
        return AP_OK;
    ap_results_free(r);
    return AP_ERR_NOMEM;
}

void ap_results_free(struct ap_results *r)
{
    free(r->leaf_begin);
    free(r->bytes);
    free(r->all);
    free(r->own);
    free(r->everybody);
    *r = (struct ap_results){0};
}

ap_status ap_results_gather(struct ap_results *r)
{
    const struct ap_mesh *m = r->mesh;
    const struct ap_leaf_result *from = r->everybody;
    AP_TRY(ap_comm_allgatherv(m->world, r->own, r->bytes, r->everybody));
    memset(r->all, 0, (size_t)r->leaves * sizeof(*r->all));
    for (int i = 0; i < m->world->size; i++) {
        int coord[AP_AXES];
        ap_mesh_coord(&m->shape, i, coord);
        int64_t b = batch_rank(m, coord), count = r->leaf_begin[b + 1] - r->leaf_begin[b];
        struct ap_leaf_result *to = r->all + r->leaf_begin[b];
        for (int64_t k = 0; coord[AP_AXIS_TENSOR] == 0 && k < count; k++) {
            to[k].ce += from[k].ce;
            to[k].mtp += from[k].mtp;
            to[k].balance += from[k].balance;
            to[k].ce_tokens += from[k].ce_tokens;
            to[k].mtp_tokens += from[k].mtp_tokens;
        }
        from += count;
    }
    return AP_OK;
}
