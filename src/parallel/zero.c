/* SPDX-License-Identifier: Apache-2.0
 * Gradient reduction along the canonical tree, reduce-scatter by shard, gather of new weights. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/trace.h"
#include "parallel/tree.h"
#include "parallel/zero.h"

#define STAGING_BYTES ((int64_t)32 << 20)  /* rough size of the exchange buffers */
#define MESSAGE_BYTES ((int64_t)256 << 10) /* of the messages that many slots are worth it for */
#define SLOTS_MAX     16
#define TAG           1 /* of windows: messages of one pair of ranks arrive in order */

/* A window under way: messages from and to all peers, the pieces of the own shard that arrive. */
struct slot {
    uint8_t *recv;     /* [roots of peers * window] in memory that the communicator takes */
    uint8_t *recv_dev; /* the same in the backend's memory: recv itself, or a copy */
    uint8_t *send;     /* where gradients cannot leave from where they stand: [own roots * (size - 1) * window] */
    struct ap_comm_request *requests;
    int receives, count; /* of requests: first the receives */
    int64_t at;          /* first element of the window in every shard */
};

struct held {
    struct ap_tree_node node;
    int buffer;
};

struct ap_reducer {
    struct ap_reducer_options opt;
    struct ap_run *added;       /* [opt.added_count] */
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
    struct slot slots[SLOTS_MAX];
    int slot_count;
    struct ap_comm *tensors; /* of opt.comm */
    int64_t *counts;         /* device communicators: [4 * size] of an all-to-all */
    ap_status own;           /* first failure of this rank alone: it goes on exchanging, so that no peer waits for it */
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
    if (!r->root_first)
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

/* Does the communicator take the backend's memory? */
static int in_backend(const struct ap_reducer *r)
{
    return r->opt.backend->vt->is_host || r->opt.comm->device;
}

static int own_roots(const struct ap_reducer *r, int rank)
{
    return r->root_first[rank + 1] - r->root_first[rank];
}

/* Windows and slots are the same on every rank: they follow from the counts of all ranks. */
static void plan_windows(struct ap_reducer *r)
{
    const struct ap_shard_map *map = r->opt.map;
    int size = r->opt.comm->size, most = 0;
    int64_t longest = 1, es = (int64_t)r->es, all = r->root_first[size];
    for (int i = 0; i < size; i++) {
        int64_t len = map->begin[i + 1] - map->begin[i];
        most = own_roots(r, i) > most ? own_roots(r, i) : most;
        longest = len > longest ? len : longest;
    }
    int64_t pieces = (int64_t)most * size > all ? (int64_t)most * size : all;
    int64_t slots = STAGING_BYTES / (pieces * MESSAGE_BYTES);
    r->slot_count = r->opt.comm->device ? 1 : slots < 2 ? 2 : slots > SLOTS_MAX ? SLOTS_MAX : (int)slots;
    r->window = r->opt.window > 0 ? r->opt.window : STAGING_BYTES / (pieces * es * r->slot_count) / 16 * 16;
    if (r->opt.window <= 0 && r->window < 4096)
        r->window = 4096;
    if (r->window > longest)
        r->window = longest;
    if ((longest + r->window - 1) / r->window < r->slot_count)
        r->slot_count = (int)((longest + r->window - 1) / r->window);
}

static ap_status plan_exchange(struct ap_reducer *r)
{
    struct ap_backend *be = r->opt.backend;
    int size = r->opt.comm->size, own = own_roots(r, r->opt.comm->rank), theirs = r->root_first[size] - own;
    size_t recv = (size_t)(theirs * r->window) * r->es, send = (size_t)(own * (size - 1) * r->window) * r->es;
    r->counts = calloc((size_t)size * 4, sizeof(*r->counts));
    for (int i = 0; i < r->slot_count; i++) {
        struct slot *s = &r->slots[i];
        s->requests = calloc((size_t)theirs + (size_t)own * (size_t)(size - 1), sizeof(*s->requests));
        /* Backend memory, so that the additions run on aligned operands. */
        AP_TRY(be->vt->alloc(be, recv, (void **)&s->recv_dev));
        s->recv = in_backend(r) ? s->recv_dev : malloc(recv);
        if (!in_backend(r))
            s->send = malloc(send);
        else if (r->opt.comm->device && own > 1)
            AP_TRY(be->vt->alloc(be, send, (void **)&s->send));
        if (!s->requests || !s->recv || !r->counts || (!in_backend(r) && !s->send))
            return AP_ERR_NOMEM;
    }
    return AP_OK;
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
    for (int i = 0; i < need; i++) {
        AP_TRY(be->vt->alloc(be, (size_t)(r->flat > 0 ? r->flat : 1) * r->es, &r->buffers[i]));
        AP_TRY(be->vt->fill_zero(be->stream, r->buffers[i], (size_t)r->flat * r->es));
    }
    AP_TRY(plan_roots(r));
    if (r->opt.comm->size == 1)
        return AP_OK;
    plan_windows(r);
    return plan_exchange(r);
}

static ap_status take_added(struct ap_reducer *r)
{
    struct ap_run all = {0, r->flat};
    const struct ap_run *from = r->opt.added ? r->opt.added : &all;
    r->opt.added_count = r->opt.added ? r->opt.added_count : 1;
    r->added = calloc((size_t)r->opt.added_count + 1, sizeof(*r->added));
    if (!r->added)
        return AP_ERR_NOMEM;
    memcpy(r->added, from, (size_t)r->opt.added_count * sizeof(*from));
    r->opt.added = r->added;
    return AP_OK;
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
    ap_status st = take_added(r);
    if (st == AP_OK)
        st = take_leaves(r);
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
    for (int i = 0; i < r->slot_count; i++) {
        struct slot *s = &r->slots[i];
        if (s->recv != s->recv_dev)
            free(s->recv);
        if (s->recv_dev)
            be->vt->release(be, s->recv_dev);
        if (r->opt.comm->device && s->send)
            be->vt->release(be, s->send);
        else
            free(s->send);
        free(s->requests);
    }
    free(r->counts);
    free(r->roots);
    free(r->root_first);
    free(r->leaf_begin);
    free(r->added);
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
    for (int64_t i = 0; i < r->opt.added_count; i++)
        AP_TRY(be->vt->fill_zero(be->stream, (uint8_t *)r->buffers[b] + r->added[i].begin * (int64_t)r->es,
                                 (size_t)r->added[i].count * r->es));
    r->busy[b] = 1;
    r->open = b;
    *grads_p = ap_tensor_1d(r->buffers[b], r->opt.dtype, r->flat);
    return AP_OK;
}

/* c = a + b over n elements of backend memory. */
static ap_status add_into(struct ap_reducer *r, void *a, void *b, void *c, int64_t n)
{
    struct ap_backend *be = r->opt.backend;
    return be->ops.add(be->stream, &(struct ap_add_args){.a = ap_tensor_1d(a, r->opt.dtype, n),
                                                         .b = ap_tensor_1d(b, r->opt.dtype, n),
                                                         .c = ap_tensor_1d(c, r->opt.dtype, n)});
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
        AP_TRACE_TRY(
            r->opt.backend->trace, "reduce", "gradient sum", NULL, 0,
            add_into(r, r->buffers[left->buffer], r->buffers[right->buffer], r->buffers[left->buffer], r->flat));
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

static void note(struct ap_reducer *r, ap_status st)
{
    r->own = r->own == AP_OK ? st : r->own;
}

/* The part of own root j from element `at` of the shard of rank i on. */
static uint8_t *own_piece(const struct ap_reducer *r, int j, int i, int64_t at)
{
    return (uint8_t *)r->buffers[r->stack[j].buffer] + (r->opt.map->begin[i] + at) * (int64_t)r->es;
}

/* Place of own root j for the k-th rank from here on, whose window has so many bytes. */
static uint8_t *staged(const struct ap_reducer *r, const struct slot *s, int k, int j, int64_t bytes)
{
    return s->send + (k - 1) * r->depth * r->window * (int64_t)r->es + j * bytes;
}

/* Every own root's part of each peer's shard, in the order of peers that messages are sent in. */
static ap_status stage_window(struct ap_reducer *r, struct slot *s, int64_t at)
{
    struct ap_backend *be = r->opt.backend;
    int size = r->opt.comm->size, rank = r->opt.comm->rank;
    for (int k = 1; k < size; k++) {
        int peer = (rank + k) % size;
        int64_t bytes = window_length(r, peer, at) * (int64_t)r->es;
        for (int j = 0; j < r->depth; j++)
            AP_TRY(be->vt->copy(be->stream, staged(r, s, k, j, bytes), own_piece(r, j, peer, at), (size_t)bytes));
    }
    return AP_OK;
}

/* Device communicators: one operation of the device's library, in the order of its stream. */
static ap_status all_to_all(struct ap_reducer *r, struct slot *s, int64_t at)
{
    int size = r->opt.comm->size, rank = r->opt.comm->rank;
    int64_t es = (int64_t)r->es, mine = window_length(r, rank, at) * es, place = 0;
    int64_t *sb = r->counts, *so = sb + size, *rb = so + size, *ro = rb + size;
    for (int i = 0; i < size; i++) {
        int64_t n = window_length(r, i, at) * es, turn = (i - rank + size) % size - 1;
        sb[i] = i == rank ? 0 : r->depth * n;
        so[i] = s->send ? turn * r->depth * r->window * es : (r->opt.map->begin[i] + at) * es;
        rb[i] = i == rank ? 0 : own_roots(r, i) * mine;
        ro[i] = place;
        place += rb[i];
    }
    so[rank] = 0;
    return ap_comm_alltoallv(r->tensors, s->send ? s->send : r->buffers[r->stack[0].buffer], sb, so, s->recv, rb, ro);
}

/* Start the messages of the window at `at`: every own root's part of each peer's shard, straight from its buffer on
 * host backends; the parts of the own shard from all peers. */
static ap_status post(struct ap_reducer *r, struct slot *s, int64_t at)
{
    struct ap_comm *comm = r->opt.comm;
    int size = comm->size, rank = comm->rank;
    int64_t es = (int64_t)r->es, mine = window_length(r, rank, at) * es, place = 0;
    s->at = at;
    s->count = s->receives = 0;
    if (s->send)
        note(r, stage_window(r, s, at));
    if (comm->device)
        return all_to_all(r, s, at);
    for (int i = 0; i < size; i++) {
        for (int j = 0; i != rank && j < own_roots(r, i); j++, place += mine) {
            if (mine > 0)
                AP_TRY(ap_comm_recv_start(comm, s->recv + place, mine, i, TAG, &s->requests[s->count++]));
        }
    }
    s->receives = s->count;
    note(r, r->opt.backend->vt->stream_sync(r->opt.backend->stream));
    for (int k = 1; k < size; k++) {
        int to = (rank + k) % size;
        int64_t bytes = window_length(r, to, at) * es;
        for (int j = 0; j < r->depth && bytes > 0; j++) {
            const uint8_t *from = s->send ? staged(r, s, k, j, bytes) : own_piece(r, j, to, at);
            AP_TRY(ap_comm_send_start(comm, from, bytes, to, TAG, &s->requests[s->count++]));
        }
    }
    return AP_OK;
}

static ap_status wait_for(struct ap_reducer *r, struct slot *s, int from, int to)
{
    for (int i = from; i < to; i++)
        AP_TRY(ap_comm_wait(r->opt.comm, &s->requests[i]));
    return AP_OK;
}

/* Where the n elements of a root (index in leaf order) stand: an own one in its buffer, a peer's in the slot. */
static uint8_t *piece_of(const struct ap_reducer *r, const struct slot *s, int root)
{
    int rank = r->opt.comm->rank, first = r->root_first[rank], own = own_roots(r, rank);
    if (root >= first && root < first + own)
        return own_piece(r, root - first, rank, s->at);
    return s->recv_dev + (root < first ? root : root - own) * window_length(r, rank, s->at) * (int64_t)r->es;
}

/* Sum of the node over the window, left in `to`, or where that is NULL in the piece of its first root; *root_p walks
 * through the roots in leaf order. */
static ap_status combine(struct ap_reducer *r, const struct slot *s, struct ap_tree_node at, int *root_p, int64_t n,
                         uint8_t *to, uint8_t **sum_p)
{
    const struct ap_tree_node *root = &r->roots[*root_p];
    if (root->lo == at.lo && root->hi == at.hi) {
        *sum_p = piece_of(r, s, *root_p);
        (*root_p)++;
        return AP_OK;
    }
    if (at.hi - at.lo < 2)
        return AP_ERR_BUG;
    int64_t mid = at.lo + (at.hi - at.lo) / 2;
    uint8_t *left, *right;
    AP_TRY(combine(r, s, (struct ap_tree_node){at.lo, mid}, root_p, n, NULL, &left));
    AP_TRY(combine(r, s, (struct ap_tree_node){mid, at.hi}, root_p, n, NULL, &right));
    *sum_p = to ? to : left;
    return add_into(r, left, right, *sum_p, n);
}

/* The window's messages are over: its sum stands in the own shard of the first own root, whose old content is by then
 * summed. More than one rank: the whole tree is no root. */
static ap_status complete(struct ap_reducer *r, struct slot *s)
{
    struct ap_backend *be = r->opt.backend;
    int rank = r->opt.comm->rank, root = 0;
    int64_t n = window_length(r, rank, s->at), theirs = r->root_first[r->opt.comm->size] - own_roots(r, rank);
    uint8_t *sum;
    AP_TRACE_TRY(be->trace, "reduce", "exchange", NULL, 0, wait_for(r, s, 0, s->receives));
    if (n > 0) {
        if (s->recv != s->recv_dev)
            note(r, be->vt->copy(be->stream, s->recv_dev, s->recv, (size_t)(theirs * n) * r->es));
        note(r, combine(r, s, (struct ap_tree_node){0, r->opt.leaves}, &root, n, own_piece(r, 0, rank, s->at), &sum));
    }
    return wait_for(r, s, s->receives, s->count);
}

ap_status ap_reducer_finish(struct ap_reducer *r, ap_tensor *shard_p)
{
    const int64_t *begin = r->opt.map->begin;
    int rank = r->opt.comm->rank, size = r->opt.comm->size;
    if (r->finished || r->next != r->hi || r->open >= 0 || r->depth != own_roots(r, rank))
        return AP_ERR_BUG;
    int64_t longest = 0;
    for (int i = 0; i < size; i++)
        longest = begin[i + 1] - begin[i] > longest ? begin[i + 1] - begin[i] : longest;
    r->own = AP_OK;
    int64_t windows = size > 1 && longest > 0 ? (longest + r->window - 1) / r->window : 0, done = 0;
    for (int64_t w = 0; w < windows; w++) {
        if (w >= r->slot_count)
            AP_TRY(complete(r, &r->slots[done++ % r->slot_count]));
        AP_TRY(post(r, &r->slots[w % r->slot_count], w * r->window));
    }
    while (done < windows)
        AP_TRY(complete(r, &r->slots[done++ % r->slot_count]));
    AP_TRY(r->own);
    *shard_p = ap_tensor_1d(own_piece(r, 0, rank, 0), r->opt.dtype, begin[rank + 1] - begin[rank]);
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
