/* SPDX-License-Identifier: Apache-2.0
 * Gradient reduction along the canonical tree, reduce-scatter by shard, gather of new weights. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/trace.h"
#include "parallel/tree.h"
#include "parallel/zero.h"

#define STAGING_BYTES ((int64_t)32 << 20) /* rough size of the exchange buffers */

struct held {
    struct ap_tree_node node;
    int buffer;
};

struct ap_reducer {
    struct ap_reducer_options opt;
    size_t es;                  /* bytes of one element */
    int64_t *leaf_begin;        /* [size + 1] */
    int64_t flat, lo, hi, next; /* own leaves, next leaf to begin */
    int open;                   /* buffer of the leaf between begin and end, -1: none */
    int finished;               /* the result of the last step stands in the buffers until the next leaf */
    void **buffers;             /* [buffer_count], each flat elements of backend memory */
    int buffer_count;
    uint8_t *busy; /* [buffer_count] */
    struct held stack[AP_TREE_COVER_MAX];
    int depth;
    /* Exchange. Root = a maximal node inside one rank's leaves. */
    int *root_first;            /* [size + 1]: roots of rank r are root_first[r] .. root_first[r+1]-1 */
    struct ap_tree_node *roots; /* [root_first[size]] in leaf order */
    int64_t window;             /* elements */
    uint8_t *send, *recv;       /* memory that `tensors` takes; [own roots * size * window], [all roots * window] */
    void *recv_dev;             /* where that is not the backend's: copy of recv in backend memory */
    struct ap_comm *tensors;    /* of opt.comm */
    int64_t *counts;            /* [4 * size] scratch for alltoallv */
};

/* Live buffers at the worst moment, by running the leaf order without memory. */
static int buffers_needed(int64_t leaves, int64_t lo, int64_t hi)
{
    struct ap_tree_node stack[AP_TREE_COVER_MAX];
    int depth = 0, peak = 0;
    for (int64_t i = lo; i < hi; i++) {
        stack[depth++] = (struct ap_tree_node){i, i + 1};
        peak = depth > peak ? depth : peak;
        while (depth > 1 && ap_tree_siblings(leaves, stack[depth - 2], stack[depth - 1])) {
            stack[depth - 2].hi = stack[depth - 1].hi;
            depth--;
        }
    }
    return peak;
}

static ap_status plan_roots(struct ap_reducer *r)
{
    int size = r->opt.comm->size;
    struct ap_tree_node nodes[AP_TREE_COVER_MAX];
    r->root_first = calloc((size_t)size + 1, sizeof(*r->root_first));
    r->counts = calloc((size_t)size * 4, sizeof(*r->counts));
    if (!r->root_first || !r->counts)
        return AP_ERR_NOMEM;
    for (int i = 0; i < size; i++) {
        r->root_first[i + 1] =
            r->root_first[i] + ap_tree_cover(r->opt.leaves, r->leaf_begin[i], r->leaf_begin[i + 1], nodes);
    }
    r->roots = calloc((size_t)r->root_first[size], sizeof(*r->roots));
    if (!r->roots)
        return AP_ERR_NOMEM;
    for (int i = 0; i < size; i++) {
        int n = ap_tree_cover(r->opt.leaves, r->leaf_begin[i], r->leaf_begin[i + 1], nodes);
        memcpy(r->roots + r->root_first[i], nodes, (size_t)n * sizeof(*nodes));
    }
    return AP_OK;
}

/* Is what arrives in the backend's own memory? */
static int in_backend(const struct ap_reducer *r)
{
    return r->opt.backend->vt->is_host || r->opt.comm->device;
}

/* The window is the same on every rank: it follows from the counts of all ranks. */
static ap_status plan_exchange(struct ap_reducer *r)
{
    const struct ap_shard_map *map = r->opt.map;
    struct ap_backend *be = r->opt.backend;
    int size = r->opt.comm->size, most = 0;
    int64_t longest = 0, all = r->root_first[size];
    for (int i = 0; i < size; i++) {
        int own = r->root_first[i + 1] - r->root_first[i];
        int64_t len = map->begin[i + 1] - map->begin[i];
        most = own > most ? own : most;
        longest = len > longest ? len : longest;
    }
    int64_t pieces = (int64_t)most * size > all ? (int64_t)most * size : all;
    r->window = r->opt.window > 0 ? r->opt.window : STAGING_BYTES / (pieces * (int64_t)r->es);
    if (r->opt.window <= 0 && r->window < 4096)
        r->window = 4096;
    if (r->window > longest)
        r->window = longest > 0 ? longest : 1;
    int own = r->root_first[r->opt.comm->rank + 1] - r->root_first[r->opt.comm->rank];
    size_t out = (size_t)(own * size * r->window) * r->es, in = (size_t)(all * r->window) * r->es;
    if (r->opt.comm->device)
        AP_TRY(be->vt->alloc(be, out, (void **)&r->send));
    else
        r->send = malloc(out);
    if (in_backend(r)) {
        /* Backend memory, so that the additions run on aligned operands. */
        AP_TRY(be->vt->alloc(be, in, (void **)&r->recv));
    } else {
        r->recv = malloc(in);
        AP_TRY(be->vt->alloc(be, in, &r->recv_dev));
    }
    return r->send && r->recv ? AP_OK : AP_ERR_NOMEM;
}

static ap_status allocate(struct ap_reducer *r)
{
    struct ap_backend *be = r->opt.backend;
    int need = buffers_needed(r->opt.leaves, r->lo, r->hi);
    r->buffers = calloc((size_t)need, sizeof(*r->buffers));
    r->busy = calloc((size_t)need, 1);
    if (!r->buffers || !r->busy)
        return AP_ERR_NOMEM;
    r->buffer_count = need;
    for (int i = 0; i < need; i++)
        AP_TRY(be->vt->alloc(be, (size_t)(r->flat > 0 ? r->flat : 1) * r->es, &r->buffers[i]));
    AP_TRY(plan_roots(r));
    return r->opt.comm->size > 1 ? plan_exchange(r) : AP_OK;
}

/* AP_ERR_BUG when the caller's distribution is none. */
static ap_status take_leaves(struct ap_reducer *r)
{
    int size = r->opt.comm->size, rank = r->opt.comm->rank;
    int64_t lo;
    r->leaf_begin = calloc((size_t)size + 1, sizeof(*r->leaf_begin));
    if (!r->leaf_begin)
        return AP_ERR_NOMEM;
    for (int i = 0; i < size; i++)
        ap_tree_leaves(r->opt.leaves, i, size, &lo, &r->leaf_begin[i + 1]);
    if (r->opt.leaf_begin)
        memcpy(r->leaf_begin, r->opt.leaf_begin, ((size_t)size + 1) * sizeof(*r->leaf_begin));
    for (int i = 0; i < size; i++)
        if (r->leaf_begin[i + 1] <= r->leaf_begin[i])
            return AP_ERR_BUG;
    if (r->leaf_begin[0] != 0 || r->leaf_begin[size] != r->opt.leaves)
        return AP_ERR_BUG;
    r->lo = r->leaf_begin[rank];
    r->hi = r->leaf_begin[rank + 1];
    return AP_OK;
}

ap_status ap_reducer_create(const struct ap_reducer_options *opt, struct ap_reducer **r_p, struct ap_error *err)
{
    int size = opt->comm->size;
    if (size > opt->leaves) {
        ap_error_set(err, AP_ERR_INPUT,
                     "%d ranks for a global batch of %lld micro-batches: each rank needs at least one", size,
                     (long long)opt->leaves);
        ap_error_hint(err, "start %d ranks, or lower batch.micro_sequences or raise batch.global_sequences",
                      ap_tree_nearest_ranks(opt->leaves, size));
        return AP_ERR_INPUT;
    }
    if (opt->map->size != size || (opt->dtype != AP_F32 && opt->dtype != AP_F64))
        return ap_error_set(err, AP_ERR_BUG, "reducer: shard map of %d ranks for %d", opt->map->size, size);
    struct ap_reducer *r = calloc(1, sizeof(*r));
    if (!r)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    r->opt = *opt;
    r->tensors = ap_comm_tensors(opt->comm);
    r->es = ap_dtype_size(opt->dtype);
    r->flat = opt->map->begin[size];
    ap_status st = take_leaves(r);
    if (st == AP_OK)
        st = allocate(r);
    if (st != AP_OK) {
        ap_error_set(err, st, "no memory for %d gradient buffers of %lld elements",
                     buffers_needed(opt->leaves, r->lo, r->hi), (long long)r->flat);
        ap_reducer_destroy(r);
        return st;
    }
    ap_reducer_reset(r);
    *r_p = r;
    return AP_OK;
}

void ap_reducer_destroy(struct ap_reducer *r)
{
    if (!r)
        return;
    struct ap_backend *be = r->opt.backend;
    for (int i = 0; i < r->buffer_count; i++)
        if (r->buffers[i])
            be->vt->release(be, r->buffers[i]);
    if (r->recv_dev)
        be->vt->release(be, r->recv_dev);
    if (in_backend(r) && r->recv)
        be->vt->release(be, r->recv);
    else
        free(r->recv);
    if (r->opt.comm->device && r->send)
        be->vt->release(be, r->send);
    else
        free(r->send);
    free(r->counts);
    free(r->roots);
    free(r->root_first);
    free(r->leaf_begin);
    free(r->buffers);
    free(r->busy);
    free(r);
}

void ap_reducer_leaves(const struct ap_reducer *r, int64_t *lo_p, int64_t *hi_p)
{
    *lo_p = r->lo;
    *hi_p = r->hi;
}

int ap_reducer_buffers(const struct ap_reducer *r)
{
    return r->buffer_count;
}

int64_t ap_reducer_bytes(const struct ap_reducer *r)
{
    return r->buffer_count * r->flat * (int64_t)r->es;
}

void ap_reducer_reset(struct ap_reducer *r)
{
    r->next = r->lo;
    r->depth = 0;
    r->open = -1;
    r->finished = 0;
    memset(r->busy, 0, (size_t)r->buffer_count);
}

ap_status ap_reducer_begin_leaf(struct ap_reducer *r, ap_tensor *grads_p)
{
    if (r->finished)
        ap_reducer_reset(r);
    if (r->open >= 0 || r->next >= r->hi)
        return AP_ERR_BUG;
    int b = 0;
    while (b < r->buffer_count && r->busy[b])
        b++;
    if (b == r->buffer_count)
        return AP_ERR_BUG;
    struct ap_backend *be = r->opt.backend;
    AP_TRY(be->vt->fill_zero(be->stream, r->buffers[b], (size_t)r->flat * r->es));
    r->busy[b] = 1;
    r->open = b;
    *grads_p = ap_tensor_1d(r->buffers[b], r->opt.dtype, r->flat);
    return AP_OK;
}

/* a += b over n elements of backend memory. */
static ap_status add_into(struct ap_reducer *r, void *a, void *b, int64_t n)
{
    struct ap_backend *be = r->opt.backend;
    ap_tensor ta = ap_tensor_1d(a, r->opt.dtype, n), tb = ap_tensor_1d(b, r->opt.dtype, n);
    return be->ops.add(be->stream, &(struct ap_add_args){.a = ta, .b = tb, .c = ta});
}

ap_status ap_reducer_end_leaf(struct ap_reducer *r)
{
    if (r->open < 0 || r->depth >= AP_TREE_COVER_MAX)
        return AP_ERR_BUG;
    r->stack[r->depth++] = (struct held){{r->next, r->next + 1}, r->open};
    r->open = -1;
    r->next++;
    while (r->depth > 1) {
        struct held *left = &r->stack[r->depth - 2], *right = &r->stack[r->depth - 1];
        if (!ap_tree_siblings(r->opt.leaves, left->node, right->node))
            break;
        AP_TRACE_TRY(r->opt.backend->trace, "reduce", "gradient sum", NULL, 0,
                     add_into(r, r->buffers[left->buffer], r->buffers[right->buffer], r->flat));
        r->busy[right->buffer] = 0;
        left->node.hi = right->node.hi;
        r->depth--;
    }
    return AP_OK;
}

/* Length of the part of shard i inside the window that begins at offset `at` of every shard. */
static int64_t window_length(const struct ap_reducer *r, int i, int64_t at)
{
    int64_t len = r->opt.map->begin[i + 1] - r->opt.map->begin[i] - at;
    return len < 0 ? 0 : len > r->window ? r->window : len;
}

/* Own roots, the part of every shard inside the window: send[shard][own root][...]. */
static ap_status exchange(struct ap_reducer *r, int64_t at)
{
    struct ap_backend *be = r->opt.backend;
    struct ap_comm *comm = r->opt.comm;
    int size = comm->size;
    int64_t es = (int64_t)r->es, used = 0, landed = 0, n_mine = window_length(r, comm->rank, at);
    int64_t *sb = r->counts, *so = sb + size, *rb = so + size, *ro = rb + size;
    for (int i = 0; i < size; i++) {
        int64_t n = window_length(r, i, at), from = r->opt.map->begin[i] + at;
        so[i] = used;
        for (int j = 0; j < r->depth && n > 0; j++) {
            const uint8_t *src = (const uint8_t *)r->buffers[r->stack[j].buffer] + from * es;
            AP_TRY(be->vt->copy(be->stream, r->send + used, src, (size_t)(n * es)));
            used += n * es;
        }
        sb[i] = used - so[i];
        ro[i] = landed;
        rb[i] = (r->root_first[i + 1] - r->root_first[i]) * n_mine * es;
        landed += rb[i];
    }
    if (!comm->device)
        AP_TRY(be->vt->stream_sync(be->stream));
    AP_TRY(ap_comm_alltoallv(r->tensors, r->send, sb, so, r->recv, rb, ro));
    if (r->recv_dev && landed > 0)
        return be->vt->copy(be->stream, r->recv_dev, r->recv, (size_t)landed);
    return AP_OK;
}

/* Sum of the node, left in the piece of its first root; *root_p walks through the roots in leaf order. */
static ap_status combine(struct ap_reducer *r, struct ap_tree_node at, int *root_p, int64_t n, uint8_t **sum_p)
{
    uint8_t *pieces = r->recv_dev ? r->recv_dev : r->recv;
    const struct ap_tree_node *root = &r->roots[*root_p];
    if (root->lo == at.lo && root->hi == at.hi) {
        *sum_p = pieces + (int64_t)*root_p * n * (int64_t)r->es;
        (*root_p)++;
        return AP_OK;
    }
    if (at.hi - at.lo < 2)
        return AP_ERR_BUG;
    int64_t mid = at.lo + (at.hi - at.lo) / 2;
    uint8_t *left, *right;
    AP_TRY(combine(r, (struct ap_tree_node){at.lo, mid}, root_p, n, &left));
    AP_TRY(combine(r, (struct ap_tree_node){mid, at.hi}, root_p, n, &right));
    AP_TRY(add_into(r, left, right, n));
    *sum_p = left;
    return AP_OK;
}

ap_status ap_reducer_finish(struct ap_reducer *r, ap_tensor *shard_p)
{
    struct ap_backend *be = r->opt.backend;
    const int64_t *begin = r->opt.map->begin;
    int rank = r->opt.comm->rank, size = r->opt.comm->size;
    if (r->finished || r->next != r->hi || r->open >= 0 || r->depth != r->root_first[rank + 1] - r->root_first[rank])
        return AP_ERR_BUG;
    uint8_t *result = (uint8_t *)r->buffers[r->stack[0].buffer] + begin[rank] * (int64_t)r->es;
    int64_t longest = 0;
    for (int i = 0; i < size; i++)
        longest = begin[i + 1] - begin[i] > longest ? begin[i + 1] - begin[i] : longest;
    for (int64_t at = 0; size > 1 && at < longest; at += r->window) {
        AP_TRACE_TRY(be->trace, "reduce", "exchange", NULL, 0, exchange(r, at));
        int64_t n = window_length(r, rank, at);
        if (n == 0)
            continue;
        int root = 0;
        uint8_t *sum = NULL;
        AP_TRY(combine(r, (struct ap_tree_node){0, r->opt.leaves}, &root, n, &sum));
        /* The window of the first root is packed and gone: its place takes the result. */
        AP_TRY(be->vt->copy(be->stream, result + at * (int64_t)r->es, sum, (size_t)n * r->es));
    }
    *shard_p = ap_tensor_1d(result, r->opt.dtype, begin[rank + 1] - begin[rank]);
    r->finished = 1;
    return AP_OK;
}

struct ap_gatherer {
    struct ap_backend *be;
    struct ap_comm *comm;
    const struct ap_shard_map *map;
    ap_dtype dtype;
    int64_t *bytes; /* [size] of each shard */
    uint8_t *host;  /* device backends with peers, without a device communicator: the flat buffer */
};

ap_status ap_gatherer_create(struct ap_backend *be, struct ap_comm *comm, const struct ap_shard_map *map,
                             ap_dtype dtype, struct ap_gatherer **g_p)
{
    int64_t es = (int64_t)ap_dtype_size(dtype);
    int staged = !be->vt->is_host && comm->size > 1 && !comm->device;
    struct ap_gatherer *g = calloc(1, sizeof(*g));
    if (!g)
        return AP_ERR_NOMEM;
    *g = (struct ap_gatherer){.be = be, .comm = comm, .map = map, .dtype = dtype};
    g->bytes = malloc((size_t)comm->size * sizeof(*g->bytes));
    g->host = staged ? malloc((size_t)(map->begin[comm->size] * es)) : NULL;
    if (!g->bytes || (staged && !g->host)) {
        ap_gatherer_destroy(g);
        return AP_ERR_NOMEM;
    }
    for (int i = 0; i < comm->size; i++)
        g->bytes[i] = (map->begin[i + 1] - map->begin[i]) * es;
    *g_p = g;
    return AP_OK;
}

void ap_gatherer_destroy(struct ap_gatherer *g)
{
    if (!g)
        return;
    free(g->bytes);
    free(g->host);
    free(g);
}

ap_status ap_gatherer_run(struct ap_gatherer *g, ap_tensor flat)
{
    struct ap_backend *be = g->be;
    int rank = g->comm->rank, size = g->comm->size;
    int64_t es = (int64_t)ap_dtype_size(g->dtype), begin = g->map->begin[rank] * es;
    uint8_t *mem = flat.data, *host = g->host ? g->host : mem;
    if (flat.dtype != g->dtype)
        return AP_ERR_BUG;
    if (size == 1)
        return AP_OK;
    if (host != mem) {
        AP_TRY(be->vt->copy(be->stream, host + begin, mem + begin, (size_t)g->bytes[rank]));
        AP_TRY(be->vt->stream_sync(be->stream));
    }
    AP_TRY(ap_comm_allgatherv(ap_comm_tensors(g->comm), host + begin, g->bytes, host));
    return host != mem ? be->vt->copy(be->stream, mem, host, (size_t)(g->map->begin[size] * es)) : AP_OK;
}
