/* SPDX-License-Identifier: Apache-2.0
 * Single messages over NCCL. Both sides ask NCCL for their part when they start, each on the lane's own stream, so that
 * data moves while the ranks compute or wait for others: no rank has to come back to this communicator for it. Only a
 * lane's first message needs that, since its header, which travels over the parent with the message's tag, brings the
 * id that the receiver makes its side of the lane with. The headers of all messages carry their lengths, for the check.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "parallel/comm_nccl_impl.h"

static struct nccl_message *take(struct nccl_impl *x)
{
    struct nccl_message *m = x->spare;
    if (!m) {
        m = calloc(1, sizeof(*m));
        if (!m)
            return NULL;
        if (x->be->vt->device->mark_create(x->be, &m->mark) != AP_OK) {
            free(m);
            return NULL;
        }
        return m;
    }
    x->spare = m->next;
    void *mark = m->mark;
    memset(m, 0, sizeof(*m));
    m->mark = mark;
    return m;
}

static void give(struct nccl_impl *x, struct nccl_message *m)
{
    struct nccl_message **at = &x->first;
    while (*at && *at != m)
        at = &(*at)->next;
    if (*at)
        *at = m->next;
    m->next = x->spare;
    x->spare = m;
}

static void end(struct nccl_message *m, ap_status status)
{
    m->stage = NCCL_DONE;
    m->status = status;
}

static int has_lane(const struct ap_comm *c, const struct nccl_message *m)
{
    return m->bytes > 0 && m->peer != c->rank;
}

static struct nccl_lane *find_lane(const struct nccl_impl *x, const struct nccl_message *m)
{
    struct nccl_lane *l = x->lanes;
    while (l && (l->peer != m->peer || l->tag != m->tag || l->sends != m->sends))
        l = l->next;
    return l;
}

/* id: the sender's; NULL: this is the sender. */
static ap_status make_lane(struct nccl_impl *x, struct nccl_message *m, const struct ap_nccl_id *id)
{
    struct nccl_lane *l = calloc(1, sizeof(*l));
    if (!l)
        return AP_ERR_NOMEM;
    *l = (struct nccl_lane){.peer = m->peer, .tag = m->tag, .sends = m->sends, .next = x->lanes};
    x->lanes = l;
    m->lane = l;
    int result = AP_NCCL_SUCCESS;
    if (id)
        l->id = *id;
    else
        result = x->api.ncclGetUniqueId(&l->id);
    if (result != AP_NCCL_SUCCESS)
        return ap_nccl_failed(x, "an id", result);
    AP_TRY(x->be->vt->stream_create(x->be, &l->stream));
    return ap_nccl_begin(x, 2, &l->id, !m->sends, &l->comm);
}

/* The sender's side is in this process: a copy, behind what the stream holds. */
static ap_status receive_own(struct nccl_impl *x, struct nccl_message *m)
{
    struct nccl_message *sender = m->header.self;
    ap_status st = m->header.bytes == m->bytes ? AP_OK : AP_ERR_BUG;
    if (st == AP_OK && m->bytes > 0) {
        AP_TRY(x->be->vt->copy(x->be->stream, m->to, sender->from, (size_t)m->bytes));
        AP_TRY(x->be->vt->stream_sync(x->be->stream));
    }
    sender->stage = NCCL_LANDED;
    end(m, st);
    return AP_OK;
}

/* Headers of one sender with one tag come in the order of the receives' starts: one is looked at after the other. */
static int behind_another(const struct nccl_impl *x, const struct nccl_message *m)
{
    for (const struct nccl_message *o = x->first; o && o != m; o = o->next)
        if (!o->sends && o->ctl_open && o->stage != NCCL_DONE && o->peer == m->peer && o->tag == m->tag)
            return 1;
    return 0;
}

static ap_status look_at_header(struct ap_comm *c, struct nccl_message *m)
{
    struct nccl_impl *x = c->impl;
    int done = 0;
    if (!m->ctl_open || (!m->sends && behind_another(x, m)))
        return AP_OK;
    ap_status st = ap_comm_test(x->ctl, &m->ctl, &done);
    m->ctl_open = !done;
    if (!done || m->sends || st != AP_OK)
        return st;
    if (m->peer == c->rank)
        return receive_own(x, m);
    if (m->header.bytes != m->bytes) {
        end(m, AP_ERR_BUG);
        return AP_ERR_BUG; /* the lane is out of step */
    }
    if (m->bytes == 0)
        m->stage = NCCL_LANDED;
    if (m->stage != NCCL_HEADER)
        return AP_OK;
    m->stage = NCCL_QUEUED;
    return make_lane(x, m, &m->header.id);
}

/* Is there an earlier one for the same lane that NCCL has not been asked for? */
static int out_of_turn(const struct nccl_impl *x, const struct nccl_message *m)
{
    for (const struct nccl_message *o = x->first; o && o != m; o = o->next)
        if (o->sends == m->sends && o->peer == m->peer && o->tag == m->tag && o->bytes > 0 && o->stage < NCCL_ASKED)
            return 1;
    return 0;
}

/* When the lane is up, in the order of starts. */
static ap_status ask(struct nccl_impl *x, struct nccl_message *m)
{
    struct nccl_lane *l = m->lane;
    if (!l->ready)
        AP_TRY(ap_nccl_poll(x, l->comm, &l->ready));
    if (!l->ready || l->untaken || out_of_turn(x, m))
        return AP_OK;
    void *stream = x->be->vt->device->stream_native(l->stream);
    int result = m->sends ? x->api.ncclSend(m->from, (size_t)m->bytes, AP_NCCL_UINT8, 1, l->comm, stream)
                          : x->api.ncclRecv(m->to, (size_t)m->bytes, AP_NCCL_UINT8, 0, l->comm, stream);
    if (result != AP_NCCL_SUCCESS && result != AP_NCCL_IN_PROGRESS)
        return ap_nccl_failed(x, m->sends ? "send" : "receive", result);
    l->untaken = m;
    m->stage = NCCL_ASKED;
    return AP_OK;
}

static ap_status mark(struct nccl_impl *x, struct nccl_message *m)
{
    int taken = 0;
    AP_TRY(ap_nccl_poll(x, m->lane->comm, &taken));
    if (!taken)
        return AP_OK;
    AP_TRY(x->be->vt->device->mark_set(m->lane->stream, m->mark));
    m->lane->untaken = NULL;
    m->stage = NCCL_FLYING;
    return AP_OK;
}

static ap_status fly(struct nccl_impl *x, struct nccl_message *m)
{
    int well = 0, done = 0;
    AP_TRY(ap_nccl_poll(x, m->lane->comm, &well)); /* for its errors */
    AP_TRY(x->be->vt->device->mark_query(x->be, m->mark, &done));
    if (done) {
        m->lane->connected = 1;
        m->stage = NCCL_LANDED;
    }
    return AP_OK;
}

static ap_status advance(struct ap_comm *c, struct nccl_message *m)
{
    struct nccl_impl *x = c->impl;
    if (m->stage == NCCL_HEADER && has_lane(c, m) && !m->lane) {
        m->lane = find_lane(x, m); /* made by an earlier message that also waited for its header */
        m->stage = m->lane ? NCCL_QUEUED : NCCL_HEADER;
    }
    AP_TRY(look_at_header(c, m));
    if (m->stage == NCCL_QUEUED)
        AP_TRY(ask(x, m));
    if (m->stage == NCCL_ASKED)
        AP_TRY(mark(x, m));
    if (m->stage == NCCL_FLYING)
        AP_TRY(fly(x, m));
    if (m->stage == NCCL_LANDED && !m->ctl_open)
        end(m, AP_OK);
    return AP_OK;
}

ap_status ap_nccl_progress(struct ap_comm *c)
{
    struct nccl_impl *x = c->impl;
    ap_status st = AP_OK;
    for (struct nccl_message *m = x->first; st == AP_OK && m; m = m->next)
        if (m->stage != NCCL_DONE)
            st = advance(c, m);
    if (st != AP_OK)
        ap_nccl_break(x);
    return st;
}

static ap_status announce(struct ap_comm *c, struct nccl_message *m)
{
    struct nccl_impl *x = c->impl;
    m->lane = has_lane(c, m) ? find_lane(x, m) : NULL;
    if (m->sends && has_lane(c, m) && !m->lane)
        AP_TRY(make_lane(x, m, NULL));
    m->stage = m->lane ? NCCL_QUEUED : m->sends && m->bytes == 0 ? NCCL_LANDED : NCCL_HEADER;
    if (m->sends) {
        m->header.bytes = m->bytes;
        m->header.self = m;
        if (m->lane)
            m->header.id = m->lane->id;
        AP_TRY(ap_comm_send_start(x->ctl, &m->header, sizeof(m->header), m->peer, m->tag, &m->ctl));
    } else {
        AP_TRY(ap_comm_recv_start(x->ctl, &m->header, sizeof(m->header), m->peer, m->tag, &m->ctl));
    }
    m->ctl_open = 1;
    return AP_OK;
}

/* Onto the stream before the call returns: on a lane that is connected NCCL needs nobody for that. */
static ap_status hand_over(struct ap_comm *c, struct nccl_message *m)
{
    struct nccl_impl *x = c->impl;
    double limit = m->begun + x->timeout;
    int turns = 0;
    do {
        AP_TRY(ap_nccl_progress(c));
        if (!m->lane || !m->lane->connected || (m->stage != NCCL_QUEUED && m->stage != NCCL_ASKED))
            return AP_OK;
        ap_nccl_pause(&turns);
    } while (ap_clock_monotonic() < limit);
    (void)ap_nccl_timed_out(x, "the start of a message");
    ap_nccl_break(x);
    return AP_ERR_COMM;
}

ap_status ap_nccl_start(struct ap_comm *c, struct ap_comm_request *r)
{
    struct nccl_impl *x = c->impl;
    if (x->broken)
        return AP_ERR_COMM;
    /* A lane's stream does not wait for the backend's own. */
    AP_TRY(x->be->vt->stream_sync(x->be->stream));
    struct nccl_message *m = take(x), **at = &x->first;
    if (!m)
        return AP_ERR_NOMEM;
    m->from = r->from;
    m->to = r->to;
    m->bytes = r->bytes;
    m->sends = r->sends;
    m->peer = r->sends ? r->receiver : r->sender;
    m->tag = r->tag;
    m->begun = ap_clock_monotonic();
    while (*at)
        at = &(*at)->next;
    *at = m;
    ap_status st = announce(c, m);
    if (st != AP_OK) {
        ap_nccl_break(x);
        give(x, m);
        return st;
    }
    r->own = m;
    (void)hand_over(c, m); /* what it finds, the wait says */
    return AP_OK;
}

/* The end of a request. */
static ap_status settle(struct nccl_impl *x, struct ap_comm_request *r)
{
    struct nccl_message *m = r->own;
    ap_status st = m->status;
    r->own = NULL;
    give(x, m);
    return st;
}

static void give_up(struct nccl_impl *x, const struct nccl_message *m)
{
    (void)ap_nccl_timed_out(x, m->sends ? "a send" : "a receive");
    ap_nccl_break(x);
}

ap_status ap_nccl_wait(struct ap_comm *c, struct ap_comm_request *r)
{
    struct nccl_impl *x = c->impl;
    struct nccl_message *m = r->own;
    double limit = ap_clock_monotonic() + x->timeout;
    int turns = 0;
    if (!m)
        return AP_ERR_COMM; /* its start has failed */
    while (m->stage != NCCL_DONE) {
        if (ap_nccl_progress(c) != AP_OK || m->stage == NCCL_DONE)
            break;
        if (ap_clock_monotonic() > limit)
            give_up(x, m);
        else
            ap_nccl_pause(&turns);
    }
    return settle(x, r);
}

ap_status ap_nccl_test(struct ap_comm *c, struct ap_comm_request *r, int *done_p)
{
    struct nccl_impl *x = c->impl;
    struct nccl_message *m = r->own;
    *done_p = 1;
    if (!m)
        return AP_ERR_COMM;
    if (m->stage != NCCL_DONE)
        (void)ap_nccl_progress(c);
    if (m->stage != NCCL_DONE && ap_clock_monotonic() > m->begun + x->timeout)
        give_up(x, m);
    *done_p = m->stage == NCCL_DONE;
    return *done_p ? settle(x, r) : AP_OK;
}

/* The other side cannot be told: what is not over by itself ends with the communicator. */
void ap_nccl_cancel(struct ap_comm *c, struct ap_comm_request *r)
{
    struct nccl_impl *x = c->impl;
    struct nccl_message *m = r->own;
    if (!m)
        return;
    if (m->stage != NCCL_DONE)
        ap_nccl_break(x);
    (void)settle(x, r);
}

void ap_nccl_messages_break(struct nccl_impl *x)
{
    struct nccl_lane *l = x->lanes, *next;
    for (; l; l = next) {
        next = l->next;
        if (l->comm)
            (void)x->api.ncclCommAbort(l->comm);
        if (l->stream)
            x->be->vt->stream_destroy(l->stream);
        free(l);
    }
    x->lanes = NULL;
    for (struct nccl_message *m = x->first; m; m = m->next) {
        if (m->ctl_open)
            ap_comm_cancel(x->ctl, &m->ctl);
        m->ctl_open = 0;
        m->lane = NULL;
        if (m->stage != NCCL_DONE)
            end(m, AP_ERR_COMM);
    }
}

void ap_nccl_messages_free(struct nccl_impl *x)
{
    struct nccl_message *lists[2] = {x->first, x->spare};
    for (int i = 0; i < 2; i++) {
        for (struct nccl_message *m = lists[i], *next; m; m = next) {
            next = m->next;
            x->be->vt->device->mark_destroy(x->be, m->mark);
            free(m);
        }
    }
    x->first = x->spare = NULL;
}
