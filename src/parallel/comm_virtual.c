/* SPDX-License-Identifier: Apache-2.0
 * Virtual communicators: N logical ranks as threads of one process, for tests and for running without MPI
 * (N = 1). Each collective publishes pointers in a shared table, meets at a barrier, copies, and meets
 * again, so that no buffer is reused while another rank still reads it. */
#include "config.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/comm.h"

/* What one rank shows to the others during a collective; borrowed until the closing barrier. */
struct slot {
    const uint8_t *send;
    const int64_t *bytes, *off;
    int64_t *values;
    int color, key, left; /* left: this rank destroyed its handle */
    struct group *made;   /* split: the new group, made by its first member */
};

/* Shared by all ranks of one communicator; freed by the last destroy. */
struct group {
    pthread_mutex_t lock;
    pthread_cond_t turn;
    int size, refs, arrived;
    int gone;                      /* ranks that destroyed their handle: later collectives cannot complete */
    uint64_t generation;           /* completed barriers */
    struct slot *slots;            /* [size] */
    struct ap_comm_request *first; /* messages that wait for their other side, in the order of their starts */
};

enum { WAITING, DONE, MISMATCH };

static const struct ap_comm_ops virtual_ops;

static struct group *group_create(int size)
{
    struct group *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->slots = calloc((size_t)size, sizeof(*g->slots));
    if (!g->slots) {
        free(g);
        return NULL;
    }
    g->size = size;
    g->refs = size;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->turn, NULL);
    return g;
}

static void group_free(struct group *g)
{
    pthread_cond_destroy(&g->turn);
    pthread_mutex_destroy(&g->lock);
    free(g->slots);
    free(g);
}

static struct ap_comm *handle_create(struct group *g, int rank)
{
    struct ap_comm *c = calloc(1, sizeof(*c));
    if (c)
        *c = (struct ap_comm){.vt = &virtual_ops, .rank = rank, .size = g->size, .impl = g};
    return c;
}

/* A rank that left makes every barrier that is not complete yet fail, so that nobody waits for ever. */
static ap_status meet(struct group *g)
{
    ap_status st = AP_OK;
    pthread_mutex_lock(&g->lock);
    uint64_t mine = g->generation;
    if (!g->gone && ++g->arrived == g->size) {
        g->arrived = 0;
        g->generation++;
        pthread_cond_broadcast(&g->turn);
    }
    while (g->generation == mine && !g->gone)
        pthread_cond_wait(&g->turn, &g->lock);
    if (g->generation == mine)
        st = AP_ERR_COMM;
    pthread_mutex_unlock(&g->lock);
    return st;
}

static struct slot *own_slot(struct ap_comm *c)
{
    return &((struct group *)c->impl)->slots[c->rank];
}

static ap_status virtual_barrier(struct ap_comm *c)
{
    return meet(c->impl);
}

static ap_status virtual_bcast(struct ap_comm *c, void *data, int64_t bytes, int root)
{
    struct group *g = c->impl;
    own_slot(c)->send = data;
    AP_TRY(meet(g));
    if (c->rank != root)
        memcpy(data, g->slots[root].send, (size_t)bytes);
    return meet(g);
}

static ap_status virtual_allreduce_i64(struct ap_comm *c, int64_t *v, int64_t n, int max)
{
    struct group *g = c->impl;
    int64_t *copy = malloc((size_t)n * sizeof(*copy));
    if (copy)
        memcpy(copy, v, (size_t)n * sizeof(*copy));
    own_slot(c)->values = copy;
    ap_status st = meet(g);
    for (int r = 0; st == AP_OK && r < g->size; r++) {
        const int64_t *x = g->slots[r].values;
        if (!x)
            st = AP_ERR_NOMEM; /* seen by all ranks alike */
        for (int64_t i = 0; x && i < n; i++) {
            if (r == 0)
                v[i] = x[i];
            else if (max)
                v[i] = x[i] > v[i] ? x[i] : v[i];
            else
                v[i] += x[i];
        }
    }
    ap_status end = st == AP_ERR_COMM ? st : meet(g);
    free(copy);
    return st != AP_OK ? st : end;
}

static ap_status virtual_allgatherv(struct ap_comm *c, const void *send, const int64_t *bytes, void *recv)
{
    struct group *g = c->impl;
    own_slot(c)->send = send;
    AP_TRY(meet(g));
    int64_t at = 0;
    for (int r = 0; r < g->size; r++) {
        uint8_t *to = (uint8_t *)recv + at;
        if (bytes[r] > 0 && to != g->slots[r].send)
            memcpy(to, g->slots[r].send, (size_t)bytes[r]);
        at += bytes[r];
    }
    return meet(g);
}

static ap_status virtual_alltoallv(struct ap_comm *c, const void *send, const int64_t *send_bytes,
                                   const int64_t *send_off, void *recv, const int64_t *recv_bytes,
                                   const int64_t *recv_off)
{
    struct group *g = c->impl;
    struct slot *mine = own_slot(c);
    mine->send = send;
    mine->bytes = send_bytes;
    mine->off = send_off;
    AP_TRY(meet(g));
    ap_status st = AP_OK;
    for (int r = 0; r < g->size; r++) {
        const struct slot *s = &g->slots[r];
        if (s->bytes[c->rank] != recv_bytes[r])
            st = AP_ERR_BUG;
        else if (recv_bytes[r] > 0)
            memcpy((uint8_t *)recv + recv_off[r], s->send + s->off[c->rank], (size_t)recv_bytes[r]);
    }
    ap_status end = meet(g);
    return end != AP_OK ? end : st;
}

/* Whoever starts second copies. */
static void match(struct ap_comm_request *send, struct ap_comm_request *recv)
{
    int same = send->bytes == recv->bytes;
    if (same && recv->bytes > 0)
        memcpy(recv->to, send->from, (size_t)recv->bytes);
    send->state = recv->state = same ? DONE : MISMATCH;
}

/* Requests of one direction between two ranks with one tag leave the list in the order in which they came. */
static ap_status virtual_start(struct ap_comm *c, struct ap_comm_request *r)
{
    struct group *g = c->impl;
    pthread_mutex_lock(&g->lock);
    struct ap_comm_request **at = &g->first;
    for (; *at; at = &(*at)->next) {
        struct ap_comm_request *o = *at;
        if (o->sends == r->sends || o->sender != r->sender || o->receiver != r->receiver || o->tag != r->tag)
            continue;
        *at = o->next;
        match(r->sends ? r : o, r->sends ? o : r);
        pthread_cond_broadcast(&g->turn);
        break;
    }
    if (r->state == WAITING)
        *at = r; /* at the end of the list */
    pthread_mutex_unlock(&g->lock);
    return AP_OK;
}

/* Out of the list, if it is still there. Called with the lock. */
static void withdraw(struct group *g, const struct ap_comm_request *r)
{
    struct ap_comm_request **at = &g->first;
    while (*at && *at != r)
        at = &(*at)->next;
    if (*at)
        *at = r->next;
}

static void virtual_cancel(struct ap_comm *c, struct ap_comm_request *r)
{
    struct group *g = c->impl;
    pthread_mutex_lock(&g->lock);
    withdraw(g, r);
    pthread_mutex_unlock(&g->lock);
}

static ap_status virtual_wait(struct ap_comm *c, struct ap_comm_request *r)
{
    struct group *g = c->impl;
    pthread_mutex_lock(&g->lock);
    const struct slot *other = &g->slots[r->sends ? r->receiver : r->sender];
    while (r->state == WAITING && !other->left)
        pthread_cond_wait(&g->turn, &g->lock);
    withdraw(g, r); /* nobody will come for it */
    int state = r->state;
    pthread_mutex_unlock(&g->lock);
    return state == DONE ? AP_OK : state == MISMATCH ? AP_ERR_BUG : AP_ERR_COMM;
}

static ap_status virtual_test(struct ap_comm *c, struct ap_comm_request *r, int *done_p)
{
    struct group *g = c->impl;
    pthread_mutex_lock(&g->lock);
    *done_p = r->state != WAITING || g->slots[r->sends ? r->receiver : r->sender].left;
    pthread_mutex_unlock(&g->lock);
    return *done_p ? virtual_wait(c, r) : AP_OK;
}

/* Place of `rank` among the ranks of its color, ordered by (key, rank). */
static int split_place(const struct group *g, int rank, int *count_p)
{
    const struct slot *me = &g->slots[rank];
    int place = 0, count = 0;
    for (int r = 0; r < g->size; r++) {
        const struct slot *s = &g->slots[r];
        if (s->color != me->color)
            continue;
        count++;
        if (s->key < me->key || (s->key == me->key && r < rank))
            place++;
    }
    *count_p = count;
    return place;
}

static ap_status virtual_split(struct ap_comm *c, int color, int key, struct ap_comm **out)
{
    struct group *g = c->impl;
    struct slot *mine = own_slot(c);
    mine->color = color;
    mine->key = key;
    mine->made = NULL;
    AP_TRY(meet(g));
    int count = 0;
    int place = color < 0 ? -1 : split_place(g, c->rank, &count);
    if (place == 0)
        mine->made = group_create(count);
    AP_TRY(meet(g));
    struct group *made = NULL;
    for (int r = 0; color >= 0 && r < g->size && !made; r++)
        if (g->slots[r].color == color)
            made = g->slots[r].made;
    struct ap_comm *h = made ? handle_create(made, place) : NULL;
    AP_TRY(meet(g));
    if (color >= 0 && !h)
        return AP_ERR_NOMEM;
    *out = h;
    return AP_OK;
}

static void virtual_destroy(struct ap_comm *c)
{
    struct group *g = c->impl;
    pthread_mutex_lock(&g->lock);
    g->gone++;
    g->slots[c->rank].left = 1;
    int left = --g->refs;
    pthread_cond_broadcast(&g->turn);
    pthread_mutex_unlock(&g->lock);
    if (left == 0)
        group_free(g);
    free(c);
}

static const struct ap_comm_ops virtual_ops = {
    .size = sizeof(struct ap_comm_ops),
    .name = "virtual",
    .barrier = virtual_barrier,
    .bcast = virtual_bcast,
    .allreduce_i64 = virtual_allreduce_i64,
    .allgatherv = virtual_allgatherv,
    .alltoallv = virtual_alltoallv,
    .send_start = virtual_start,
    .recv_start = virtual_start,
    .wait = virtual_wait,
    .test = virtual_test,
    .cancel = virtual_cancel,
    .split = virtual_split,
    .destroy = virtual_destroy,
};

ap_status ap_comm_virtual(int n, struct ap_comm **comms)
{
    if (n < 1)
        return AP_ERR_BUG;
    struct group *g = group_create(n);
    if (!g)
        return AP_ERR_NOMEM;
    for (int r = 0; r < n; r++) {
        comms[r] = handle_create(g, r);
        if (comms[r])
            continue;
        while (r-- > 0)
            free(comms[r]);
        group_free(g);
        return AP_ERR_NOMEM;
    }
    return AP_OK;
}

ap_status ap_comm_self(struct ap_comm **c_p)
{
    struct ap_comm *c = NULL;
    AP_TRY(ap_comm_virtual(1, &c));
    *c_p = c;
    return AP_OK;
}
