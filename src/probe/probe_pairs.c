/* SPDX-License-Identifier: Apache-2.0
 * Pairs inside of sites, in turns: round trips one after the other, then single messages of growing sizes, asked for
 * first by one side, then by the other. A size is sent again until its two least times agree; sizes grow until one
 * takes long enough, or until the least times lie on a line. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "probe/probe_impl.h"

#define LAN_LEAST     65536
#define LAN_GROWTH    4
#define LAN_SPEND     30.0 /* times lan_seconds: no more time for one size than this, if it was sent twice */
#define LAN_OFTEN     3    /* transfers of a size, */
#define LAN_ALIKE     0.01 /* if the two least ones are alike within this */
#define LAN_RESIDUAL  0.01 /* sizes on a line within this: no larger ones are needed */
#define LAN_SIZES_MAX 16

struct pull {
    int64_t bytes; /* of the transfer under way */
    double asked;
    int repeat;
    double best, second, spent;                /* of this size: the two least times, all together */
    double m[LAN_SIZES_MAX], t[LAN_SIZES_MAX]; /* the least time of each size before it */
    int points, transfers;
};

struct pairs {
    struct ap_probe_state s;
    int round, peer, partner;
    int pings; /* seen */
    double pinged, least, most;
    int own_done, peer_done;
    struct pull pull;
};

static ap_status send_note(struct ap_probe_run *run, const struct pairs *p, enum ap_probe_note_kind kind)
{
    return run->net->vt->note(run->net, p->s.rank, p->peer, &(struct ap_probe_note){.kind = (int)kind});
}

/* ---- asking for bytes */

static ap_status ask(struct ap_probe_run *run, struct pairs *p)
{
    struct pull *q = &p->pull;
    struct ap_probe_net *net = run->net;
    struct ap_probe_note note = {.kind = AP_PROBE_PULL, .bytes = q->bytes, .count = 1};
    q->transfers++;
    AP_TRY(net->vt->expect_bulk(net, p->s.rank, p->peer, q->bytes, 1));
    q->asked = net->vt->now(net);
    return net->vt->note(net, p->s.rank, p->peer, &note);
}

/* T = alpha + beta m over the sizes so far; they stay as they are. */
static ap_status fit(const struct pull *q, double *beta_p, double *residual_p)
{
    double m[LAN_SIZES_MAX], t[LAN_SIZES_MAX], alpha;
    memcpy(m, q->m, sizeof m);
    memcpy(t, q->t, sizeof t);
    return ap_probe_fit(q->points, m, t, &alpha, beta_p, residual_p);
}

/* The fit becomes the sample of this direction. Times that do not grow with the bytes (a clock too coarse) give the
 * rate of the largest. */
static ap_status finish(struct ap_probe_run *run, struct pairs *p)
{
    const struct pull *q = &p->pull;
    double beta = 0, residual = 0, m = q->m[q->points - 1], t = q->t[q->points - 1];
    ap_status status = fit(q, &beta, &residual);
    if (status == AP_ERR_NOMEM)
        return status;
    struct ap_probe_sample sample = {.from = p->peer,
                                     .to = p->s.rank,
                                     .kind = (int)p->s.group.kind,
                                     .points = q->transfers,
                                     .rate = status == AP_OK ? 1 / beta : m / fmax(t, 1e-9),
                                     .residual = status == AP_OK ? residual : 1};
    p->own_done = 1;
    AP_TRY(ap_probe_add_sample(run, &sample));
    return send_note(run, p, AP_PROBE_LAST);
}

/* Enough sizes for a line, the largest long enough to be told from the smallest by its bytes, and either so long that
 * a clock measures it well or on the line of the others. */
static ap_status large_enough(const struct ap_probe_run *run, const struct pull *q, int *enough_p)
{
    double beta, residual;
    *enough_p = q->bytes * LAN_GROWTH > run->opt->lan_bytes || q->points == LAN_SIZES_MAX;
    if (*enough_p || q->bytes < LAN_LEAST * LAN_GROWTH * LAN_GROWTH || q->best < LAN_GROWTH * q->t[0])
        return AP_OK;
    *enough_p = q->best >= run->opt->lan_seconds;
    if (*enough_p)
        return AP_OK;
    ap_status status = fit(q, &beta, &residual);
    *enough_p = status == AP_OK && residual <= LAN_RESIDUAL;
    return status == AP_ERR_NOMEM ? status : AP_OK;
}

static int often_enough(const struct ap_probe_run *run, const struct pull *q)
{
    int most = run->opt->lan_repeats, alike = q->second - q->best <= LAN_ALIKE * q->best;
    return q->repeat >= most || (q->repeat >= LAN_OFTEN && alike) ||
           (q->repeat > 1 && q->spent > LAN_SPEND * run->opt->lan_seconds);
}

/* The first transfer of a size. */
static ap_status ask_size(struct ap_probe_run *run, struct pairs *p, int64_t bytes)
{
    struct pull *q = &p->pull;
    q->bytes = bytes;
    q->repeat = 0;
    q->best = q->second = INFINITY;
    q->spent = 0;
    return ask(run, p);
}

static ap_status got(struct ap_probe_run *run, struct pairs *p, double t)
{
    struct pull *q = &p->pull;
    int enough = 0;
    q->second = fmin(q->second, fmax(q->best, t));
    q->best = fmin(q->best, t);
    q->spent += t;
    q->repeat++;
    if (!often_enough(run, q))
        return ask(run, p);
    q->m[q->points] = (double)q->bytes;
    q->t[q->points++] = q->best;
    AP_TRY(large_enough(run, q, &enough));
    return enough ? finish(run, p) : ask_size(run, p, q->bytes * LAN_GROWTH);
}

/* ---- events */

static ap_status next_round(struct ap_probe_run *run, struct pairs *p)
{
    const struct ap_probe_group *g = &p->s.group;
    do
        p->partner = ++p->round < ap_probe_rounds(g->n) ? ap_probe_partner(g->n, g->me, p->round) : -1;
    while (p->partner < 0 && p->round < ap_probe_rounds(g->n));
    p->s.done = p->partner < 0;
    if (p->s.done)
        return AP_OK;
    p->peer = g->members[p->partner];
    p->own_done = p->peer_done = p->pings = 0;
    p->least = INFINITY;
    p->most = 0;
    p->pull = (struct pull){0};
    AP_TRY(run->net->vt->expect_note(run->net, p->s.rank, p->peer));
    return send_note(run, p, AP_PROBE_HELLO);
}

static ap_status start(struct ap_probe_run *run, struct ap_probe_state *state)
{
    struct pairs *p = (struct pairs *)state;
    p->round = -1;
    p->s.done = p->s.group.me < 0;
    return p->s.done ? AP_OK : next_round(run, p);
}

static ap_status ping(struct ap_probe_run *run, struct pairs *p)
{
    p->pinged = run->net->vt->now(run->net);
    return send_note(run, p, AP_PROBE_PING);
}

static ap_status pong(struct ap_probe_run *run, struct pairs *p, double time)
{
    p->least = fmin(p->least, time - p->pinged);
    p->most = fmax(p->most, time - p->pinged);
    if (++p->pings < run->opt->pings)
        return ping(run, p);
    struct ap_probe_sample sample = {.from = p->s.rank,
                                     .to = p->peer,
                                     .kind = (int)p->s.group.kind,
                                     .points = p->pings,
                                     .rtt = p->least,
                                     .spread = p->most - p->least};
    AP_TRY(ap_probe_add_sample(run, &sample));
    return ask_size(run, p, LAN_LEAST);
}

static ap_status take_note(struct ap_probe_run *run, struct pairs *p, const struct ap_probe_event *e)
{
    int first = p->s.group.me < p->partner;
    p->peer_done = e->note.kind == AP_PROBE_LAST;
    if (!p->peer_done)
        AP_TRY(run->net->vt->expect_note(run->net, p->s.rank, p->peer));
    switch (e->note.kind) {
    case AP_PROBE_HELLO:
        return first ? ping(run, p) : AP_OK;
    case AP_PROBE_PING:
        return send_note(run, p, AP_PROBE_PONG);
    case AP_PROBE_PONG:
        return pong(run, p, e->time);
    case AP_PROBE_PULL:
        return run->net->vt->bulk(run->net, p->s.rank, p->peer, e->note.bytes, e->note.count);
    case AP_PROBE_LAST:
        return first ? AP_OK : ask_size(run, p, LAN_LEAST);
    default:
        return AP_ERR_BUG;
    }
}

static ap_status event(struct ap_probe_run *run, struct ap_probe_state *state, const struct ap_probe_event *e)
{
    struct pairs *p = (struct pairs *)state;
    if (e->kind == AP_PROBE_TIMER || e->peer != p->peer)
        return AP_ERR_BUG;
    AP_TRY(e->kind == AP_PROBE_NOTE ? take_note(run, p, e) : got(run, p, e->time - p->pull.asked));
    return p->own_done && p->peer_done ? next_round(run, p) : AP_OK;
}

const struct ap_probe_phase ap_probe_pairs_phase = {sizeof(struct pairs), start, event, NULL};
