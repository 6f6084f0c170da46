/* SPDX-License-Identifier: Apache-2.0
 * AdamW over shards, out of place. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/trace.h"
#include "model/model.h"
#include "train/optimizer.h"

/* A run of flat elements that share the weight-decay flag. Gaps between tensors are zero in every buffer and
 * stay zero under AdamW, so a run may span them. */
struct ap_optimizer {
    struct ap_optimizer_options opt;
    ap_dtype full;                   /* type of state and gradients */
    size_t es;                       /* bytes of one of its elements */
    struct ap_shard_map map;         /* begin owned */
    int64_t base, flat;              /* of the group: its first element in params' flat space, its elements */
    int64_t begin, end;              /* own shard, flat elements of the group */
    int64_t chunk_first, chunk_last; /* own chunks */
    int64_t *sum_bytes;              /* [ranks] bytes of chunk sums of each rank */
    double *sums;                    /* host [chunk_count], of the group */
    int64_t chunk_count;
    void *sums_dev; /* backend f64 [own chunks] */
    struct ap_gatherer *gatherer;
    struct ap_adamw_segment *segments; /* of the own shard, which begins at element 0 of them */
    int64_t segment_count;
    struct ap_run *runs; /* [own chunks], likewise: what the norm sums up one by one */
    int now;             /* index of the committed copies */
    int64_t w_begin;     /* first element of w: 0, or that of the own shard where a bf16 copy is gathered */
    void *w[2];          /* backend [flat], or [end - begin] */
    void *copy[2];       /* bf16 models: backend bf16 [flat], else NULL */
    void *m[2], *v[2];   /* backend [end - begin] */
    uint8_t *host;       /* staging for files, made when needed: all weights, m, v in this order */
};

static ap_status make_map(struct ap_optimizer *o)
{
    const struct ap_params *p = o->opt.params;
    const struct ap_param_region *region = &p->region[o->opt.group];
    int size = o->opt.comm->size;
    o->base = region->begin;
    o->flat = region->end - region->begin;
    o->map.size = size;
    o->map.begin = calloc((size_t)size + 1, sizeof(*o->map.begin));
    o->sum_bytes = calloc((size_t)size, sizeof(*o->sum_bytes));
    o->chunk_count = region->chunk_end - region->chunk_first;
    o->sums = calloc((size_t)o->chunk_count + 1, sizeof(*o->sums));
    if (!o->map.begin || !o->sum_bytes || !o->sums)
        return AP_ERR_NOMEM;
    int64_t covered = region->begin, chunks = region->chunk_first;
    for (int r = 0; r < size; r++) {
        int64_t first, last, begin, end;
        ap_params_shard(p, o->opt.group, r, size, &first, &last, &begin, &end);
        if (begin != covered || first != chunks || end < begin)
            return AP_ERR_BUG;
        o->map.begin[r] = begin - o->base;
        o->sum_bytes[r] = (last - first) * (int64_t)sizeof(double);
        covered = end;
        chunks = last;
        if (r == o->opt.comm->rank) {
            o->chunk_first = first;
            o->chunk_last = last;
        }
    }
    o->map.begin[size] = o->flat;
    if (covered != region->end || chunks != region->chunk_end)
        return AP_ERR_BUG;
    o->begin = o->map.begin[o->opt.comm->rank];
    o->end = o->map.begin[o->opt.comm->rank + 1];
    return AP_OK;
}

static ap_status make_segments(struct ap_optimizer *o)
{
    const struct ap_params *p = o->opt.params;
    int64_t most = o->chunk_last - o->chunk_first;
    o->segments = calloc((size_t)(most > 0 ? most : 1), sizeof(*o->segments));
    o->runs = calloc((size_t)(most > 0 ? most : 1), sizeof(*o->runs));
    if (!o->segments || !o->runs)
        return AP_ERR_NOMEM;
    for (int64_t c = o->chunk_first; c < o->chunk_last; c++) {
        const struct ap_param_chunk *k = &p->chunks[c];
        int decay = p->list[k->param].info.decay;
        struct ap_adamw_segment *last = o->segment_count > 0 ? &o->segments[o->segment_count - 1] : NULL;
        int64_t at = k->offset - o->base - o->begin;
        o->runs[c - o->chunk_first] = (struct ap_run){at, k->count};
        if (last && last->decay == decay)
            last->count = at + k->count - last->begin;
        else
            o->segments[o->segment_count++] = (struct ap_adamw_segment){at, k->count, decay};
    }
    return AP_OK;
}

static ap_status alloc_zero(struct ap_optimizer *o, size_t bytes, void **mem_p)
{
    struct ap_backend *be = o->opt.backend;
    AP_TRY(be->vt->alloc(be, bytes > 0 ? bytes : 1, mem_p));
    return be->vt->fill_zero(be->stream, *mem_p, bytes);
}

static ap_status make_memory(struct ap_optimizer *o)
{
    size_t shard = (size_t)(o->end - o->begin) * o->es;
    size_t flat = (size_t)o->flat;
    o->w_begin = o->full != o->opt.dtype ? o->begin : 0;
    for (int i = 0; i < 2; i++) {
        AP_TRY(alloc_zero(o, o->full != o->opt.dtype ? shard : flat * o->es, &o->w[i]));
        if (o->full != o->opt.dtype)
            AP_TRY(alloc_zero(o, flat * ap_dtype_size(o->opt.dtype), &o->copy[i]));
        AP_TRY(alloc_zero(o, shard, &o->m[i]));
        AP_TRY(alloc_zero(o, shard, &o->v[i]));
    }
    return alloc_zero(o, (size_t)(o->chunk_last - o->chunk_first) * sizeof(double), &o->sums_dev);
}

ap_status ap_optimizer_create(const struct ap_optimizer_options *opt, struct ap_optimizer **o_p, struct ap_error *err)
{
    if (opt->dtype != AP_F32 && opt->dtype != AP_F64 && opt->dtype != AP_BF16)
        return ap_error_set(err, AP_ERR_UNSUPPORTED, "optimizer for weights of type %s", ap_dtype_name(opt->dtype));
    struct ap_optimizer *o = calloc(1, sizeof(*o));
    if (!o)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    o->opt = *opt;
    o->full = ap_dtype_full(opt->dtype);
    o->es = ap_dtype_size(o->full);
    ap_status st = make_map(o);
    if (st == AP_OK)
        st = make_segments(o);
    if (st == AP_OK)
        st = make_memory(o);
    if (st == AP_OK)
        st = ap_gatherer_create(opt->backend, opt->comm, &o->map, opt->dtype, &o->gatherer);
    if (st != AP_OK) {
        ap_error_set(err, st, "no memory for the optimizer: %lld parameters, %d ranks", (long long)o->flat,
                     opt->comm->size);
        ap_optimizer_destroy(o);
        return st;
    }
    *o_p = o;
    return AP_OK;
}

void ap_optimizer_destroy(struct ap_optimizer *o)
{
    if (!o)
        return;
    struct ap_backend *be = o->opt.backend;
    void *mem[] = {o->w[0], o->w[1], o->copy[0], o->copy[1], o->m[0], o->m[1], o->v[0], o->v[1], o->sums_dev};
    for (size_t i = 0; i < sizeof(mem) / sizeof(mem[0]); i++)
        if (mem[i])
            be->vt->release(be, mem[i]);
    ap_gatherer_destroy(o->gatherer);
    free(o->host);
    free(o->segments);
    free(o->runs);
    free(o->sums);
    free(o->sum_bytes);
    free(o->map.begin);
    free(o);
}

const struct ap_shard_map *ap_optimizer_map(const struct ap_optimizer *o)
{
    return &o->map;
}

/* What the model reads. */
static ap_tensor model_weights(const struct ap_optimizer *o, int copy)
{
    return ap_tensor_1d(o->copy[copy] ? o->copy[copy] : o->w[copy], o->opt.dtype, o->flat);
}

ap_tensor ap_optimizer_weights(const struct ap_optimizer *o)
{
    return model_weights(o, o->now);
}

ap_status ap_optimizer_set_weights(struct ap_optimizer *o, const float *host)
{
    struct ap_backend *be = o->opt.backend;
    int64_t n = o->flat;
    size_t shard = (size_t)(o->end - o->begin) * o->es;
    AP_TRY(be->vt->fill_zero(be->stream, o->m[o->now], shard));
    AP_TRY(be->vt->fill_zero(be->stream, o->v[o->now], shard));
    if (o->opt.dtype == AP_BF16)
        AP_TRY(be->vt->copy(be->stream, o->w[o->now], host + o->begin, shard));
    if (o->full == AP_F32)
        return ap_model_load_weights(be, host, model_weights(o, o->now));
    double *wide = malloc((size_t)n * sizeof(*wide));
    if (!wide)
        return AP_ERR_NOMEM;
    for (int64_t i = 0; i < n; i++)
        wide[i] = host[i];
    ap_status st = be->vt->copy(be->stream, o->w[o->now], wide, (size_t)n * o->es);
    ap_status sync = be->vt->stream_sync(be->stream);
    free(wide);
    return st != AP_OK ? st : sync;
}

static ap_tensor part(const struct ap_optimizer *o, void *mem, int64_t offset, int64_t count)
{
    return ap_tensor_1d((uint8_t *)mem + (size_t)offset * o->es, o->full, count);
}

ap_status ap_optimizer_sumsq(struct ap_optimizer *o, ap_tensor shard_grad, double *sum_p)
{
    struct ap_backend *be = o->opt.backend;
    const struct ap_params *p = o->opt.params;
    struct ap_sumsq_args a = {
        .x = part(o, shard_grad.data, 0, o->end - o->begin),
        .out = ap_tensor_1d(o->sums_dev, AP_F64, o->chunk_last - o->chunk_first),
        .runs = o->runs,
        .run_count = o->chunk_last - o->chunk_first,
    };
    ap_status st = a.run_count > 0 ? be->ops.sumsq(be->stream, &a) : AP_OK;
    size_t own = (size_t)(o->chunk_last - o->chunk_first) * sizeof(double);
    double *sums = o->sums + (o->chunk_first - p->region[o->opt.group].chunk_first);
    if (st == AP_OK)
        st = be->vt->copy(be->stream, sums, o->sums_dev, own);
    if (st == AP_OK)
        st = be->vt->stream_sync(be->stream);
    AP_TRY(ap_comm_agree(o->opt.comm, st, NULL, NULL));
    AP_TRY(ap_comm_allgatherv(o->opt.comm, sums, o->sum_bytes, o->sums));
    double sum = 0;
    for (int64_t c = 0; c < o->chunk_count; c++)
        sum += o->sums[c];
    *sum_p = sum;
    return AP_OK;
}

double ap_optimizer_clip_scale(double norm, double clip)
{
    double scale = clip > 0 ? clip / (norm + 1e-6) : 1;
    return scale < 1 ? scale : 1;
}

/* The own shard of the shadow. */
static ap_status update_shard(struct ap_optimizer *o, const struct ap_optimizer_hyper *h, ap_tensor shard_grad,
                              double grad_scale)
{
    struct ap_backend *be = o->opt.backend;
    int now = o->now, next = 1 - now;
    int64_t count = o->end - o->begin;
    struct ap_adamw_args a = {
        .w = part(o, o->w[now], o->begin - o->w_begin, count),
        .g = part(o, shard_grad.data, 0, count),
        .m = part(o, o->m[now], 0, count),
        .v = part(o, o->v[now], 0, count),
        .w_new = part(o, o->w[next], o->begin - o->w_begin, count),
        .m_new = part(o, o->m[next], 0, count),
        .v_new = part(o, o->v[next], 0, count),
        .lr = h->lr,
        .beta1 = h->beta1,
        .beta2 = h->beta2,
        .eps = h->eps,
        .weight_decay = h->weight_decay,
        .grad_scale = grad_scale,
        .step = h->t,
        .segments = o->segments,
        .segment_count = o->segment_count,
    };
    if (o->copy[next])
        a.w_bf16 = ap_tensor_1d((uint16_t *)o->copy[next] + o->begin, AP_BF16, count);
    ap_status st = be->ops.adamw(be->stream, &a);
    ap_status sync = be->vt->stream_sync(be->stream);
    return st != AP_OK ? st : sync;
}

ap_status ap_optimizer_update(struct ap_optimizer *o, const struct ap_optimizer_hyper *h, ap_tensor shard_grad,
                              double grad_scale)
{
    struct ap_trace *trace = o->opt.backend->trace;
    double begin = ap_trace_begin(trace);
    ap_status st = update_shard(o, h, shard_grad, grad_scale);
    ap_trace_end(trace, "optimizer", "update", NULL, 0, begin);
    AP_TRY(ap_comm_agree(o->opt.comm, st, NULL, NULL));
    AP_TRACE_TRY(trace, "optimizer", "parameter gather", NULL, 0,
                 ap_gatherer_run(o->gatherer, model_weights(o, 1 - o->now)));
    return AP_OK;
}

void ap_optimizer_flip(struct ap_optimizer *o)
{
    o->now = 1 - o->now;
}

/* Host memory of weights, m and v: the state itself where that is possible, else staging. all: of every weight, to be
 * filled; else of the own shard, filled here. *w_begin_p: first element of the weights there. */
static ap_status host_views(struct ap_optimizer *o, int all, uint8_t *view[3], int64_t *w_begin_p)
{
    struct ap_backend *be = o->opt.backend;
    size_t flat = (size_t)o->flat * o->es, shard = (size_t)(o->end - o->begin) * o->es;
    void *mem[3] = {o->w[o->now], o->m[o->now], o->v[o->now]};
    size_t bytes[3] = {o->copy[0] ? shard : flat, shard, shard};
    int staged = !be->vt->is_host;
    *w_begin_p = all ? 0 : o->w_begin;
    if ((staged || (all && o->copy[0])) && !o->host) {
        o->host = calloc(1, flat + 2 * shard); /* the gaps between tensors stay zero */
        if (!o->host)
            return AP_ERR_NOMEM;
    }
    uint8_t *at[3] = {o->host, o->host ? o->host + flat : NULL, o->host ? o->host + flat + shard : NULL};
    for (int i = 0; i < 3; i++) {
        view[i] = staged || (i == 0 && all && o->copy[0]) ? at[i] : mem[i];
        if (view[i] != mem[i] && !all)
            AP_TRY(be->vt->copy(be->stream, view[i], mem[i], bytes[i]));
    }
    return all ? AP_OK : be->vt->stream_sync(be->stream);
}

ap_status ap_optimizer_named(struct ap_optimizer *o, int all_weights, struct ap_named_set *set, struct ap_error *err)
{
    const struct ap_params *p = o->opt.params;
    uint8_t *view[3];
    int64_t at, base = o->base, begin = all_weights ? 0 : o->begin, end = all_weights ? o->flat : o->end;
    ap_status st = host_views(o, all_weights, view, &at);
    if (st != AP_OK)
        return ap_error_set(err, st, "no host memory for the state");
    AP_TRY(ap_params_named(p, "param", o->full, view[0] + (size_t)(begin - at) * o->es, base + begin, base + end, set,
                           err));
    AP_TRY(ap_params_named(p, "adam.m", o->full, view[1], base + o->begin, base + o->end, set, err));
    return ap_params_named(p, "adam.v", o->full, view[2], base + o->begin, base + o->end, set, err);
}

ap_status ap_optimizer_loaded(struct ap_optimizer *o)
{
    struct ap_backend *be = o->opt.backend;
    size_t flat = (size_t)o->flat * o->es, shard = (size_t)(o->end - o->begin) * o->es;
    if (be->vt->is_host && !o->copy[0])
        return AP_OK;
    if (!o->host)
        return AP_ERR_BUG;
    if (o->copy[0])
        AP_TRY(be->vt->copy(be->stream, o->w[o->now], o->host + (size_t)o->begin * o->es, shard));
    AP_TRY(ap_model_load_weights(be, o->host, model_weights(o, o->now)));
    if (!be->vt->is_host) {
        AP_TRY(be->vt->copy(be->stream, o->m[o->now], o->host + flat, shard));
        AP_TRY(be->vt->copy(be->stream, o->v[o->now], o->host + flat + shard, shard));
        return be->vt->stream_sync(be->stream);
    }
    free(o->host); /* a bf16 model on a host backend needs it for loading only */
    o->host = NULL;
    return AP_OK;
}

ap_status ap_optimizer_host_weights(struct ap_optimizer *o, const void **host_p)
{
    struct ap_backend *be = o->opt.backend;
    ap_tensor w = model_weights(o, o->now);
    size_t flat = (size_t)o->flat * o->es, shard = (size_t)(o->end - o->begin) * o->es;
    if (be->vt->is_host) {
        *host_p = w.data;
        return AP_OK;
    }
    if (!o->host)
        o->host = calloc(1, flat + 2 * shard); /* the gaps between tensors stay zero */
    if (!o->host)
        return AP_ERR_NOMEM;
    AP_TRY(be->vt->copy(be->stream, o->host, w.data, (size_t)o->flat * ap_dtype_size(w.dtype)));
    *host_p = o->host;
    return be->vt->stream_sync(be->stream);
}
