/* SPDX-License-Identifier: Apache-2.0
 * Layout of the flat parameter buffer, its cut points, initial values and named ranges. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/params.h"

static int64_t align_up(int64_t n)
{
    return (n + AP_PARAM_ALIGN - 1) / AP_PARAM_ALIGN * AP_PARAM_ALIGN;
}

static int ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

struct layout {
    struct ap_params *p;
    int64_t capacity, end; /* end: first element behind the last tensor */
};

static ap_status layout_visit(void *ctx, const struct ap_param_info *info)
{
    struct layout *l = ctx;
    struct ap_params *p = l->p;
    if (p->count == l->capacity) {
        int64_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct ap_param *list = realloc(p->list, (size_t)capacity * sizeof *list);
        if (!list)
            return AP_ERR_NOMEM;
        p->list = list;
        l->capacity = capacity;
    }
    struct ap_param *e = &p->list[p->count++];
    e->info = *info;
    e->count = info->shape[0] * (info->ndim > 1 ? info->shape[1] : 1);
    /* up_proj follows its gate_proj without a gap: the two are one [2I, h] operand */
    e->offset = ends_with(info->name, ".up_proj.weight") ? l->end : align_up(l->end);
    l->end = e->offset + e->count;
    return AP_OK;
}

static ap_status make_chunks(struct ap_params *p)
{
    int64_t n = 0;
    for (int64_t i = 0; i < p->count; i++)
        n += (p->list[i].count + AP_PARAM_CHUNK - 1) / AP_PARAM_CHUNK;
    p->chunks = calloc((size_t)n, sizeof *p->chunks);
    if (!p->chunks)
        return AP_ERR_NOMEM;
    for (int64_t i = 0; i < p->count; i++)
        for (int64_t at = 0; at < p->list[i].count; at += AP_PARAM_CHUNK) {
            int64_t left = p->list[i].count - at;
            p->chunks[p->chunk_count++] = (struct ap_param_chunk){
                .param = i,
                .offset = p->list[i].offset + at,
                .count = left < AP_PARAM_CHUNK ? left : AP_PARAM_CHUNK,
            };
        }
    return AP_OK;
}

ap_status ap_params_create(const struct ap_model_config *cfg, struct ap_params **params_p)
{
    struct ap_params *p = calloc(1, sizeof *p);
    if (!p)
        return AP_ERR_NOMEM;
    struct layout l = {.p = p};
    ap_status st = ap_model_visit_params(cfg, layout_visit, &l);
    if (st == AP_OK)
        st = make_chunks(p);
    if (st != AP_OK) {
        ap_params_destroy(p);
        return st;
    }
    p->flat = align_up(l.end);
    for (int64_t i = 0; i < cfg->layers + cfg->mtp_depth; i++)
        p->moe_layers += ap_model_layer_is_moe(cfg, i);
    p->routers = p->moe_layers * cfg->routed_experts;
    *params_p = p;
    return AP_OK;
}

void ap_params_destroy(struct ap_params *p)
{
    if (!p)
        return;
    free(p->list);
    free(p->chunks);
    free(p);
}

const struct ap_param *ap_params_find(const struct ap_params *p, const char *name)
{
    for (int64_t i = 0; i < p->count; i++)
        if (strcmp(p->list[i].info.name, name) == 0)
            return &p->list[i];
    return NULL;
}

void ap_params_init(const struct ap_params *p, const struct ap_model_config *cfg, uint64_t seed, float *host)
{
    memset(host, 0, (size_t)p->flat * sizeof *host);
    for (int64_t i = 0; i < p->count; i++) {
        float *w = host + p->list[i].offset;
        int64_t n = p->list[i].count;
        if (p->list[i].info.role == AP_PARAM_NORM) {
            for (int64_t j = 0; j < n; j++)
                w[j] = 1.0f;
            continue;
        }
        /* 2^40 counter values for each tensor: no two elements share one */
        ap_rng_normal(seed, AP_RNG_INIT, (uint64_t)i << 40, w, n);
        for (int64_t j = 0; j < n; j++)
            w[j] = (float)(w[j] * cfg->init_std);
    }
}

void ap_params_shard(const struct ap_params *p, int rank, int size, int64_t *chunk_first_p, int64_t *chunk_last_p,
                     int64_t *begin_p, int64_t *end_p)
{
    /* Chunk c belongs to the rank in whose equal part of the flat buffer it begins. */
    int64_t edge[2];
    for (int k = 0; k < 2; k++) {
        int64_t want = p->flat / size * (rank + k) + p->flat % size * (rank + k) / size;
        int64_t lo = 0, hi = p->chunk_count;
        while (lo < hi) {
            int64_t mid = (lo + hi) / 2;
            if (p->chunks[mid].offset < want)
                lo = mid + 1;
            else
                hi = mid;
        }
        edge[k] = rank + k == 0 ? 0 : rank + k == size ? p->chunk_count : lo;
    }
    *chunk_first_p = edge[0];
    *chunk_last_p = edge[1];
    *begin_p = edge[0] < p->chunk_count ? p->chunks[edge[0]].offset : p->flat;
    *end_p = edge[1] < p->chunk_count ? p->chunks[edge[1]].offset : p->flat;
}

ap_status ap_params_named(const struct ap_params *p, const char *prefix, ap_dtype dtype, void *data, int64_t begin,
                          int64_t end, struct ap_named_set *set, struct ap_error *err)
{
    for (int64_t i = 0; i < p->count; i++) {
        const struct ap_param *e = &p->list[i];
        int64_t b, f;
        if (ap_range_intersect(e->offset, e->offset + e->count, begin, end, &b, &f) <= 0)
            continue;
        struct ap_named t = {.dtype = dtype, .ndim = e->info.ndim, .shape = {e->info.shape[0], e->info.shape[1], 1, 1}};
        int n = snprintf(t.name, sizeof t.name, "%s/%s", prefix, e->info.name);
        if (n < 0 || (size_t)n >= sizeof t.name)
            return ap_error_set(err, AP_ERR_BUG, "name of parameter %s is too long", e->info.name);
        t.begin = b - e->offset;
        t.end = f - e->offset;
        t.data = (char *)data + (size_t)(b - begin) * ap_dtype_size(dtype);
        AP_TRY(ap_named_set_add(set, &t, err));
    }
    return AP_OK;
}

void ap_params_router_name(const struct ap_model_config *cfg, int64_t router_layer, char *buf, size_t size)
{
    int64_t seen = 0;
    for (int64_t i = 0; i < cfg->layers + cfg->mtp_depth; i++)
        if (ap_model_layer_is_moe(cfg, i) && seen++ == router_layer) {
            snprintf(buf, size, "model.layers.%lld.mlp.gate.e_score_correction_bias", (long long)i);
            return;
        }
    if (size)
        buf[0] = '\0';
}
