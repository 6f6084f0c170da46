/* SPDX-License-Identifier: Apache-2.0
 * Single messages of a communicator as events: receives are posted ahead, a loop tests the oldest of each partner. */
#include "config.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "probe/probe_comm.h"

#define TAG_NOTE 1
#define TAG_BULK 2
#define WINDOW   64  /* receives of bulk posted for a partner */
#define SPINS    100 /* tests without result before the processor is offered to others */

struct buffer {
    size_t size;
    struct buffer *next;
    char data[];
};

struct message {
    struct ap_comm_request request;
    struct ap_probe_note note;
    struct buffer *buffer; /* of bulk that is received */
    struct message *next;
};

struct queue {
    struct message *first, **end;
};

/* So many messages of so many bytes are expected and have no receive yet. */
struct expected {
    int64_t bytes, count;
    struct expected *next;
};

struct peer {
    int active;
    int64_t notes_wanted; /* beyond the one whose receive is posted */
    struct queue notes, bulk, sends;
    int posted; /* in bulk */
    struct expected *expected, **expected_end;
};

struct impl {
    struct ap_comm *comm;
    struct peer *peers; /* [size] */
    int *active, active_count, turn;
    struct message *spare;
    struct buffer *spare_buffers, *sent; /* sent: what bulk is sent from, the largest first */
    double *timers;
    int timer_count, timer_room;
    int64_t shared; /* samples that all have */
};

static double comm_now(struct ap_probe_net *net)
{
    (void)net;
    return ap_clock_monotonic();
}

static struct peer *peer_at(struct impl *m, int rank)
{
    struct peer *p = &m->peers[rank];
    if (!p->active) {
        p->active = 1;
        m->active[m->active_count++] = rank;
    }
    return p;
}

static struct message *new_message(struct impl *m)
{
    struct message *g = m->spare;
    if (g == NULL)
        return calloc(1, sizeof *g);
    m->spare = g->next;
    g->next = NULL;
    return g;
}

static void append(struct queue *q, struct message *g)
{
    g->next = NULL;
    *q->end = g;
    q->end = &g->next;
}

/* The first one leaves the queue and is used again. */
static void drop_first(struct impl *m, struct queue *q)
{
    struct message *g = q->first;
    q->first = g->next;
    if (q->first == NULL)
        q->end = &q->first;
    if (g->buffer != NULL) {
        g->buffer->next = m->spare_buffers;
        m->spare_buffers = g->buffer;
        g->buffer = NULL;
    }
    g->next = m->spare;
    m->spare = g;
}

/* One that is large enough; all spare ones have about the same size, those too small are given back. */
static struct buffer *take_buffer(struct impl *m, int64_t bytes)
{
    while (m->spare_buffers != NULL) {
        struct buffer *b = m->spare_buffers;
        m->spare_buffers = b->next;
        if (b->size >= (size_t)bytes)
            return b;
        free(b);
    }
    struct buffer *b = malloc(sizeof *b + (size_t)bytes);
    if (b != NULL) {
        b->size = (size_t)bytes;
        memset(b->data, 1, b->size); /* its pages are there before something is timed */
    }
    return b;
}

/* ---- sending */

static ap_status comm_note(struct ap_probe_net *net, int from, int to, const struct ap_probe_note *note)
{
    struct impl *m = net->impl;
    struct message *g = new_message(m);
    (void)from;
    if (g == NULL)
        return AP_ERR_NOMEM;
    g->note = *note;
    append(&peer_at(m, to)->sends, g);
    return ap_comm_send_start(m->comm, &g->note, sizeof g->note, to, TAG_NOTE, &g->request);
}

/* Numbers that no link can compress. Buffers that were too small stay, messages may be under way from them. */
static ap_status provide_sent(struct impl *m, int64_t bytes)
{
    if (m->sent != NULL && m->sent->size >= (size_t)bytes)
        return AP_OK;
    struct buffer *b = malloc(sizeof *b + (size_t)bytes);
    if (b == NULL)
        return AP_ERR_NOMEM;
    b->size = (size_t)bytes;
    for (size_t i = 0; i < b->size; i += 16) {
        uint32_t bits[4];
        ap_rng_bits(7, AP_RNG_LINK, i, bits);
        memcpy(b->data + i, bits, b->size - i < 16 ? b->size - i : 16);
    }
    b->next = m->sent;
    m->sent = b;
    return AP_OK;
}

static ap_status comm_bulk(struct ap_probe_net *net, int from, int to, int64_t bytes, int64_t count)
{
    struct impl *m = net->impl;
    (void)from;
    AP_TRY(provide_sent(m, bytes));
    for (int64_t i = 0; i < count; i++) {
        struct message *g = new_message(m);
        if (g == NULL)
            return AP_ERR_NOMEM;
        append(&peer_at(m, to)->sends, g);
        AP_TRY(ap_comm_send_start(m->comm, m->sent->data, bytes, to, TAG_BULK, &g->request));
    }
    return AP_OK;
}

/* ---- receiving */

static ap_status post_note(struct impl *m, int from)
{
    struct message *g = new_message(m);
    if (g == NULL)
        return AP_ERR_NOMEM;
    append(&peer_at(m, from)->notes, g);
    return ap_comm_recv_start(m->comm, &g->note, sizeof g->note, from, TAG_NOTE, &g->request);
}

static ap_status comm_expect_note(struct ap_probe_net *net, int at, int from)
{
    struct impl *m = net->impl;
    (void)at;
    if (m->peers[from].notes.first == NULL)
        return post_note(m, from);
    m->peers[from].notes_wanted++;
    return AP_OK;
}

static ap_status post_bulk(struct impl *m, int from)
{
    struct peer *p = peer_at(m, from);
    while (p->expected != NULL && p->posted < WINDOW) {
        struct expected *e = p->expected;
        struct message *g = new_message(m);
        if (g == NULL)
            return AP_ERR_NOMEM;
        append(&p->bulk, g);
        g->buffer = take_buffer(m, e->bytes);
        if (g->buffer == NULL)
            return AP_ERR_NOMEM;
        p->posted++;
        AP_TRY(ap_comm_recv_start(m->comm, g->buffer->data, e->bytes, from, TAG_BULK, &g->request));
        if (--e->count > 0)
            continue;
        p->expected = e->next;
        if (p->expected == NULL)
            p->expected_end = &p->expected;
        free(e);
    }
    return AP_OK;
}

static ap_status comm_expect_bulk(struct ap_probe_net *net, int at, int from, int64_t bytes, int64_t count)
{
    struct impl *m = net->impl;
    struct peer *p = peer_at(m, from);
    struct expected *e = malloc(sizeof *e);
    (void)at;
    if (e == NULL)
        return AP_ERR_NOMEM;
    *e = (struct expected){bytes, count, NULL};
    *p->expected_end = e;
    p->expected_end = &e->next;
    return post_bulk(m, from);
}

static ap_status comm_timer(struct ap_probe_net *net, int rank, double seconds)
{
    struct impl *m = net->impl;
    (void)rank;
    if (m->timer_count == m->timer_room) {
        int room = 2 * m->timer_room + 16;
        double *grown = realloc(m->timers, (size_t)room * sizeof *grown);
        if (grown == NULL)
            return AP_ERR_NOMEM;
        m->timers = grown;
        m->timer_room = room;
    }
    m->timers[m->timer_count++] = ap_clock_monotonic() + (seconds > 0 ? seconds : 0);
    return AP_OK;
}

/* A timer that is due leaves the list. */
static int timer_due(struct impl *m)
{
    double now = m->timer_count > 0 ? ap_clock_monotonic() : 0;
    for (int i = 0; i < m->timer_count; i++)
        if (m->timers[i] <= now) {
            m->timers[i] = m->timers[--m->timer_count];
            return 1;
        }
    return 0;
}

/* What has come from a partner, notes first. *found_p: e is set. */
static ap_status look(struct impl *m, int rank, struct ap_probe_event *e, int *found_p)
{
    struct peer *p = &m->peers[rank];
    int done = 1;
    while (done && p->sends.first != NULL) {
        AP_TRY(ap_comm_test(m->comm, &p->sends.first->request, &done));
        if (done)
            drop_first(m, &p->sends);
    }
    for (int kind = 0; kind < 2; kind++) {
        struct queue *q = kind == 0 ? &p->notes : &p->bulk;
        if (q->first == NULL)
            continue;
        AP_TRY(ap_comm_test(m->comm, &q->first->request, &done));
        if (!done)
            continue;
        *e = (struct ap_probe_event){.kind = kind == 0 ? AP_PROBE_NOTE : AP_PROBE_BULK,
                                     .rank = m->comm->rank,
                                     .peer = rank,
                                     .time = ap_clock_monotonic(),
                                     .note = q->first->note};
        *found_p = 1;
        drop_first(m, q);
        if (kind == 1) {
            p->posted--;
            return post_bulk(m, rank);
        }
        if (p->notes_wanted > 0) {
            p->notes_wanted--;
            return post_note(m, rank);
        }
        return AP_OK;
    }
    return AP_OK;
}

static ap_status comm_next(struct ap_probe_net *net, struct ap_probe_event *event_p)
{
    struct impl *m = net->impl;
    for (int64_t idle = 0;; idle++) {
        int found = 0;
        if (timer_due(m)) {
            *event_p =
                (struct ap_probe_event){.kind = AP_PROBE_TIMER, .rank = m->comm->rank, .time = ap_clock_monotonic()};
            return AP_OK;
        }
        if (m->active_count == 0 && m->timer_count == 0)
            return AP_ERR_BUG;
        for (int k = 0; k < m->active_count; k++) {
            int at = m->turn % m->active_count, rank = m->active[at];
            struct peer *p = &m->peers[rank];
            m->turn = at + 1;
            AP_TRY(look(m, rank, event_p, &found));
            if (found)
                return AP_OK;
            if (p->sends.first == NULL && p->notes.first == NULL && p->bulk.first == NULL) {
                p->active = 0;
                m->active[at] = m->active[--m->active_count];
            }
        }
        if (idle > SPINS)
            sched_yield();
    }
}

static ap_status comm_share(struct ap_probe_net *net, struct ap_probe_sample **samples_p, int64_t *count_p)
{
    struct impl *m = net->impl;
    int n = m->comm->size;
    int64_t mine = (*count_p - m->shared) * (int64_t)sizeof **samples_p, total = 0;
    int64_t *bytes = malloc((size_t)n * sizeof *bytes), *eights = malloc((size_t)n * sizeof *eights);
    ap_status status = ap_comm_agree(m->comm, bytes != NULL && eights != NULL ? AP_OK : AP_ERR_NOMEM, NULL, NULL);
    for (int r = 0; r < n && status == AP_OK; r++)
        eights[r] = sizeof mine;
    if (status == AP_OK)
        status = ap_comm_allgatherv(m->comm, &mine, eights, bytes);
    for (int r = 0; r < n && status == AP_OK; r++)
        total += bytes[r];
    size_t before = (size_t)m->shared * sizeof **samples_p;
    char *all = status == AP_OK ? malloc(before + (size_t)total + 1) : NULL;
    if (status == AP_OK)
        status = ap_comm_agree(m->comm, all != NULL ? AP_OK : AP_ERR_NOMEM, NULL, NULL);
    if (status == AP_OK) {
        if (before > 0)
            memcpy(all, *samples_p, before);
        status =
            ap_comm_allgatherv(m->comm, mine > 0 ? (char *)*samples_p + before : all + before, bytes, all + before);
    }
    free(bytes);
    free(eights);
    if (status != AP_OK) {
        free(all);
        return status;
    }
    free(*samples_p);
    *samples_p = (struct ap_probe_sample *)(void *)all;
    *count_p = m->shared = (int64_t)((before + (size_t)total) / sizeof **samples_p);
    return AP_OK;
}

static const struct ap_probe_net_ops comm_ops = {
    .name = "communicator",
    .now = comm_now,
    .note = comm_note,
    .bulk = comm_bulk,
    .expect_note = comm_expect_note,
    .expect_bulk = comm_expect_bulk,
    .timer = comm_timer,
    .next = comm_next,
    .share = comm_share,
};

ap_status ap_probe_comm_create(struct ap_comm *comm, struct ap_probe_net **net_p)
{
    struct ap_probe_net *net = calloc(1, sizeof *net);
    struct impl *m = calloc(1, sizeof *m);
    struct peer *peers = calloc((size_t)comm->size, sizeof *peers);
    int *active = calloc((size_t)comm->size, sizeof *active);
    if (net == NULL || m == NULL || peers == NULL || active == NULL) {
        free(net);
        free(m);
        free(peers);
        free(active);
        return AP_ERR_NOMEM;
    }
    for (int r = 0; r < comm->size; r++) {
        peers[r].notes.end = &peers[r].notes.first;
        peers[r].bulk.end = &peers[r].bulk.first;
        peers[r].sends.end = &peers[r].sends.first;
        peers[r].expected_end = &peers[r].expected;
    }
    *m = (struct impl){.comm = comm, .peers = peers, .active = active};
    *net = (struct ap_probe_net){.vt = &comm_ops, .first = comm->rank, .locals = 1, .impl = m};
    *net_p = net;
    return AP_OK;
}

static void free_buffers(struct buffer *b)
{
    while (b != NULL) {
        struct buffer *next = b->next;
        free(b);
        b = next;
    }
}

void ap_probe_comm_destroy(struct ap_probe_net *net, int clean)
{
    if (net == NULL)
        return;
    struct impl *m = net->impl;
    for (int r = 0; r < m->comm->size; r++) {
        struct peer *p = &m->peers[r];
        while (clean && p->sends.first != NULL) {
            ap_comm_wait(m->comm, &p->sends.first->request);
            drop_first(m, &p->sends);
        }
        if (p->sends.first != NULL || p->notes.first != NULL || p->bulk.first != NULL)
            return; /* the messages are still the communicator's: after a failure the process ends soon */
    }
    while (m->spare != NULL) {
        struct message *next = m->spare->next;
        free(m->spare);
        m->spare = next;
    }
    free_buffers(m->spare_buffers);
    free_buffers(m->sent);
    free(m->timers);
    free(m->peers);
    free(m->active);
    free(m);
    free(net);
}
