/* SPDX-License-Identifier: Apache-2.0
 * Layout of the flat parameter buffer, its cut points, initial values and named ranges. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/part.h"

static int64_t align_up(int64_t n)
{
    return (n + AP_PARAM_ALIGN - 1) / AP_PARAM_ALIGN * AP_PARAM_ALIGN;
}

static int ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

struct listing {
    struct ap_params *p;
    const struct ap_model_config *cfg;
    const struct ap_model_part *part;
    int64_t capacity, number;
};

static ap_status list_visit(void *ctx, const struct ap_param_info *info)
{
    struct listing *l = ctx;
    struct ap_params *p = l->p;
    struct ap_param e = {.info = *info, .number = l->number++};
    e.written = info->ndim == 2 && info->layer >= 0 && info->layer < l->cfg->layers;
    if (!ap_model_part_slice(l->cfg, l->part, &e))
        return AP_OK;
    if (p->count == l->capacity) {
        int64_t capacity = l->capacity ? 2 * l->capacity : 64;
        struct ap_param *list = realloc(p->list, (size_t)capacity * sizeof *list);
        if (!list)
            return AP_ERR_NOMEM;
        p->list = list;
        l->capacity = capacity;
    }
    p->list[p->count++] = e;
    return AP_OK;
}

static int by_group(const void *a, const void *b)
{
    const struct ap_param *x = a, *y = b;
    if (x->group != y->group)
        return x->group - y->group;
    return (x->number > y->number) - (x->number < y->number);
}

static ap_status make_chunks(struct ap_params *p)
{
    int64_t n = 0;
    for (int64_t i = 0; i < p->count; i++)
        n += (p->list[i].count + AP_PARAM_CHUNK - 1) / AP_PARAM_CHUNK;
    p->chunks = calloc((size_t)n + 1, sizeof *p->chunks);
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

/* Offsets of all tensors, group after group. */
static void place(struct ap_params *p)
{
    int64_t end = 0, i = 0;
    for (int g = 0; g < AP_GROUPS; g++) {
        struct ap_param_region *r = &p->region[g];
        r->begin = end;
        for (; i < p->count && p->list[i].group == g; i++) {
            struct ap_param *e = &p->list[i];
            /* up_proj follows its gate_proj without a gap: the two are one [2I, h] operand */
            e->offset = ends_with(e->info.name, ".up_proj.weight") ? end : align_up(end);
            end = e->offset + e->count;
        }
        end = align_up(end);
        r->end = end;
    }
    p->flat = end;
}

static void find_regions(struct ap_params *p)
{
    int64_t c = 0;
    for (int g = 0; g < AP_GROUPS; g++) {
        p->region[g].chunk_first = c;
        while (c < p->chunk_count && p->list[p->chunks[c].param].group == g)
            c++;
        p->region[g].chunk_end = c;
    }
}

ap_status ap_params_create(const struct ap_model_config *cfg, const struct ap_model_part *part,
                           struct ap_params **params_p)
{
    struct ap_model_part whole = ap_model_whole(cfg);
    struct ap_params *p = calloc(1, sizeof *p);
    if (!p)
        return AP_ERR_NOMEM;
    struct listing l = {.p = p, .cfg = cfg, .part = part ? part : &whole};
    ap_status st = ap_model_visit_params(cfg, list_visit, &l);
    if (st == AP_OK) {
        if (p->count > 0)
            qsort(p->list, (size_t)p->count, sizeof *p->list, by_group);
        place(p);
        st = make_chunks(p);
    }
    if (st != AP_OK) {
        ap_params_destroy(p);
        return st;
    }
    find_regions(p);
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

ap_status ap_params_added(const struct ap_params *p, int group, struct ap_run **runs_p, int64_t *count_p)
{
    const struct ap_param_region *r = &p->region[group];
    int64_t at = 0, n = 0;
    struct ap_run *runs = calloc((size_t)p->count + 1, sizeof *runs);
    if (!runs)
        return AP_ERR_NOMEM;
    for (int64_t i = 0; i <= p->count; i++) {
        const struct ap_param *e = &p->list[i];
        if (i < p->count && (e->group != group || !e->written))
            continue;
        int64_t end = i < p->count ? e->offset - r->begin : r->end - r->begin;
        if (end > at)
            runs[n++] = (struct ap_run){at, end - at};
        at = i < p->count ? end + e->count : end;
    }
    *runs_p = runs;
    *count_p = n;
    return AP_OK;
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
        const struct ap_param *e = &p->list[i];
        float *w = host + e->offset;
        int64_t columns = e->info.ndim > 1 ? e->info.shape[1] : 1;
        if (e->info.role == AP_PARAM_NORM) {
            for (int64_t j = 0; j < e->count; j++)
                w[j] = 1.0f;
            continue;
        }
        /* 2^40 counter values for each tensor: no two elements share one; whole rows at once */
        uint64_t base = (uint64_t)e->number << 40;
        int64_t pieces = e->cols == columns ? 1 : e->rows, length = e->count / pieces;
        for (int64_t r = 0; r < pieces; r++)
            ap_rng_normal(seed, AP_RNG_INIT, base + (uint64_t)((e->row + r) * columns + e->col), w + r * length,
                          length);
        for (int64_t j = 0; j < e->count; j++)
            w[j] = (float)(w[j] * cfg->init_std);
    }
}

void ap_params_shard(const struct ap_params *p, int group, int rank, int size, int64_t *chunk_first_p,
                     int64_t *chunk_last_p, int64_t *begin_p, int64_t *end_p)
{
    /* Chunk c belongs to the rank in whose equal part of the region it begins. */
    const struct ap_param_region *reg = &p->region[group];
    int64_t edge[2], at[2], flat = reg->end - reg->begin;
    for (int k = 0; k < 2; k++) {
        int64_t want = reg->begin + flat / size * (rank + k) + flat % size * (rank + k) / size;
        int64_t lo = reg->chunk_first, hi = reg->chunk_end;
        while (lo < hi) {
            int64_t mid = (lo + hi) / 2;
            if (p->chunks[mid].offset < want)
                lo = mid + 1;
            else
                hi = mid;
        }
        edge[k] = rank + k == 0 ? reg->chunk_first : rank + k == size ? reg->chunk_end : lo;
        at[k] = edge[k] < reg->chunk_end ? p->chunks[edge[k]].offset : reg->end;
    }
    *chunk_first_p = edge[0];
    *chunk_last_p = edge[1];
    *begin_p = rank == 0 ? reg->begin : at[0];
    *end_p = at[1];
}

ap_status ap_params_named(const struct ap_params *p, const char *prefix, ap_dtype dtype, void *data, int64_t begin,
                          int64_t end, struct ap_named_set *set, struct ap_error *err)
{
    for (int64_t i = 0; i < p->count; i++) {
        const struct ap_param *e = &p->list[i];
        int64_t b, f, columns = e->info.ndim > 1 ? e->info.shape[1] : 1;
        if (ap_range_intersect(e->offset, e->offset + e->count, begin, end, &b, &f) <= 0)
            continue;
        struct ap_named t = {.dtype = dtype, .ndim = e->info.ndim, .shape = {e->info.shape[0], e->info.shape[1], 1, 1}};
        int n = snprintf(t.name, sizeof t.name, "%s/%s", prefix, e->info.name);
        if (n < 0 || (size_t)n >= sizeof t.name)
            return ap_error_set(err, AP_ERR_BUG, "name of parameter %s is too long", e->info.name);
        if (e->cols < columns) {
            t.col = e->col;
            t.width = e->cols;
        }
        t.begin = e->row * e->cols + b - e->offset;
        t.end = t.begin + (f - b);
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
