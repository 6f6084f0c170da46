/* SPDX-License-Identifier: Apache-2.0
 * Pairs in turns. Inside of sites: round trips one after the other, then single messages of growing sizes, asked for
 * first by one side, then by the other. Between sites (whose round trips are known, and about how fast they are) a side
 * asks for runs of messages: with its greeting for one by the guess, then for more until two of them agree, then for
 * those that count; and then the other side does (at once, the acknowledgements of a fast direction would take a part
 * of a slow one). A quick probe asks once, both sides at once. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "probe/probe_impl.h"

#define LAN_LEAST    65536
#define LAN_GROWTH   4
#define LAN_SPEND    30.0 /* times lan_seconds: no more time for one size than this, if it was sent twice */
#define GROWTH       128  /* a run is at most so many times larger than the one before it */
#define STEADY       0.1  /* both halves of a run are alike within this: the connection is up to speed */
#define SEARCHES_MAX 6
#define SKIPPED      0.25 /* of a run's messages, not in the fit */
#define ENOUGH       8    /* points that a fit stands on; with fewer the run is made longer and tried again */
#define BURST        1.5  /* the second half of a run is taken for no more than so many times the whole */
#define LONGER       2.0
#define RETRIES_MAX  3

struct pull {
    int64_t bytes, count, got; /* of the run under way */
    double asked, *times;      /* times[room]: of each message since asked */
    int64_t times_room;
    int runs, finals, retries, repeat; /* finals: runs that count, so far */
    double *m, *t;                     /* points */
    int64_t points, points_room;
    double best, first, spent; /* inside: least time of this size and of the smallest; on this size, all together */
    double rate;               /* between sites: of the run before */
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

static ap_status ask(struct ap_probe_run *run, struct pairs *p, enum ap_probe_note_kind kind, int last)
{
    struct pull *q = &p->pull;
    struct ap_probe_net *net = run->net;
    if (q->count > q->times_room) {
        double *grown = realloc(q->times, (size_t)q->count * sizeof *grown);
        if (grown == NULL)
            return AP_ERR_NOMEM;
        q->times = grown;
        q->times_room = q->count;
    }
    struct ap_probe_note note = {.kind = (int)kind, .last = last, .bytes = q->bytes, .count = q->count};
    q->got = 0;
    q->runs++;
    AP_TRY(net->vt->expect_bulk(net, p->s.rank, p->peer, q->bytes, q->count));
    q->asked = net->vt->now(net);
    return net->vt->note(net, p->s.rank, p->peer, &note);
}

static ap_status add_point(struct pull *q, double m, double t)
{
    if (q->points == q->points_room) {
        int64_t room = 2 * q->points_room + 64;
        double *m_grown = realloc(q->m, (size_t)room * sizeof *m_grown);
        if (m_grown == NULL)
            return AP_ERR_NOMEM;
        q->m = m_grown;
        double *t_grown = realloc(q->t, (size_t)room * sizeof *t_grown);
        if (t_grown == NULL)
            return AP_ERR_NOMEM;
        q->t = t_grown;
        q->points_room = room;
    }
    q->m[q->points] = m;
    q->t[q->points++] = t;
    return AP_OK;
}

/* The fit becomes the sample of this direction. Times that do not grow with the bytes (a clock too coarse) give the
 * rate of the largest. */
static ap_status finish(struct ap_probe_run *run, struct pairs *p)
{
    struct pull *q = &p->pull;
    double alpha = 0, beta = 0, residual = 0, m = q->m[q->points - 1], t = q->t[q->points - 1];
    int points = (int)q->points;
    ap_status status = ap_probe_fit(points, q->m, q->t, &alpha, &beta, &residual);
    if (status == AP_ERR_NOMEM)
        return status;
    struct ap_probe_sample sample = {.from = p->peer,
                                     .to = p->s.rank,
                                     .kind = (int)p->s.group.kind,
                                     .points = points,
                                     .rate = status == AP_OK ? 1 / beta : m / fmax(t, 1e-9),
                                     .residual = status == AP_OK ? residual : 1};
    p->own_done = 1;
    return ap_probe_add_sample(run, &sample);
}

/* ---- inside of sites */

/* Enough sizes for a line, the largest long enough to be told from the smallest by its bytes. */
static int large_enough(const struct ap_probe_run *run, const struct pull *q)
{
    int sizes_enough = q->bytes >= LAN_LEAST * LAN_GROWTH * LAN_GROWTH;
    return q->bytes * LAN_GROWTH > run->opt->lan_bytes ||
           (sizes_enough && q->best >= run->opt->lan_seconds && q->best >= LAN_GROWTH * q->first);
}

static ap_status ask_inside(struct ap_probe_run *run, struct pairs *p)
{
    struct pull *q = &p->pull;
    int often = q->repeat >= run->opt->lan_repeats || (q->repeat > 1 && q->spent > LAN_SPEND * run->opt->lan_seconds);
    q->count = 1;
    if (q->bytes > 0 && often) {
        if (q->bytes == LAN_LEAST)
            q->first = q->best;
        if (large_enough(run, q)) {
            AP_TRY(finish(run, p));
            return send_note(run, p, AP_PROBE_LAST);
        }
        q->bytes *= LAN_GROWTH;
        q->repeat = 0;
    }
    if (q->bytes == 0)
        q->bytes = LAN_LEAST;
    if (q->repeat++ == 0) {
        q->best = INFINITY;
        q->spent = 0;
    }
    return ask(run, p, AP_PROBE_PULL, 0);
}

static ap_status got_inside(struct ap_probe_run *run, struct pairs *p, double t)
{
    struct pull *q = &p->pull;
    q->best = fmin(q->best, t);
    q->spent += t;
    AP_TRY(add_point(q, (double)q->bytes, t));
    return ask_inside(run, p);
}

/* ---- between sites */

static double link_seconds(const struct ap_probe_run *run, const struct pairs *p)
{
    return ap_probe_duration(run, ap_probe_site_of(run, p->s.rank), ap_probe_site_of(run, p->peer));
}

/* Runs that count; without confirmation there is one, whose question can say that it is the last. */
static int finals_wanted(const struct ap_probe_run *run)
{
    return run->opt->confirm ? run->opt->repeats : 1;
}

static ap_status ask_final(struct ap_probe_run *run, struct pairs *p, enum ap_probe_note_kind kind)
{
    p->pull.finals++;
    return ask(run, p, kind, !run->opt->confirm);
}

/* The first run, by the guess if there is one. */
static ap_status ask_first(struct ap_probe_run *run, struct pairs *p, enum ap_probe_note_kind kind)
{
    struct pull *q = &p->pull;
    int from = ap_probe_site_of(run, p->peer), to = ap_probe_site_of(run, p->s.rank);
    q->rate = run->guess[from * run->places->sites + to];
    q->bytes = run->opt->block;
    q->count = AP_PROBE_FIRST;
    if (q->rate <= 0)
        return ask(run, p, kind, 0);
    int64_t most =
        q->bytes * q->count * GROWTH < run->opt->most_bytes ? q->bytes * q->count * GROWTH : run->opt->most_bytes;
    ap_probe_size(run->opt, q->rate, link_seconds(run, p), most, &q->bytes, &q->count);
    return run->opt->confirm ? ask(run, p, kind, 0) : ask_final(run, p, kind);
}

/* The run that is over tells how large the next one is, and whether that counts. */
static ap_status ask_next(struct ap_probe_run *run, struct pairs *p)
{
    struct pull *q = &p->pull;
    if (q->finals > 0)
        return ask_final(run, p, AP_PROBE_PULL);
    int64_t before = q->bytes * q->count;
    double other = ap_probe_slope(q->times, 0, q->count / 2, q->bytes), last_rate = q->rate,
           seconds = link_seconds(run, p);
    int64_t most = before * GROWTH < run->opt->most_bytes ? before * GROWTH : run->opt->most_bytes;
    q->rate = ap_probe_slope(q->times, q->count / 2, q->count - 1, q->bytes);
    /* What waited and then came in one go looks faster than the link is. */
    double all = ap_probe_slope(q->times, 0, q->count - 1, q->bytes);
    ap_probe_size(run->opt, fmin(q->rate, BURST * all), seconds, most, &q->bytes, &q->count);
    int steady = fabs(q->rate - other) <= STEADY * q->rate &&
                 (q->rate * seconds <= (double)most || most == run->opt->most_bytes);
    if (run->opt->confirm)
        steady = steady && fabs(q->rate - last_rate) <= STEADY * q->rate;
    return steady || q->runs >= SEARCHES_MAX ? ask_final(run, p, AP_PROBE_PULL) : ask(run, p, AP_PROBE_PULL, 0);
}

/* Points of the run that is over; how many into *added_p. */
static ap_status add_run(struct pull *q, int *added_p)
{
    int64_t skipped = (int64_t)(SKIPPED * (double)q->count);
    char *keep = malloc((size_t)q->count);
    if (keep == NULL)
        return AP_ERR_NOMEM;
    *added_p = ap_probe_paced(q->count - skipped, q->times + skipped, keep);
    ap_status status = AP_OK;
    for (int64_t i = skipped; i < q->count && status == AP_OK; i++)
        if (keep[i - skipped])
            status = add_point(q, (double)(i + 1) * (double)q->bytes, q->times[i]);
    free(keep);
    return status;
}

static ap_status got_far(struct ap_probe_run *run, struct pairs *p)
{
    struct pull *q = &p->pull;
    if (q->finals == 0)
        return ask_next(run, p);
    int added = 0;
    int64_t points = q->points;
    AP_TRY(add_run(q, &added));
    if (run->opt->confirm && added < ENOUGH && q->retries < RETRIES_MAX) {
        q->points = points;
        q->finals--;
        q->retries++;
        q->count = (int64_t)(LONGER * (double)q->count);
        return ask_final(run, p, AP_PROBE_PULL);
    }
    if (q->finals < finals_wanted(run))
        return ask_next(run, p);
    AP_TRY(finish(run, p));
    return run->opt->confirm ? send_note(run, p, AP_PROBE_LAST) : AP_OK;
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
    struct pull kept = p->pull;
    p->peer = g->members[p->partner];
    p->own_done = p->peer_done = p->pings = 0;
    p->least = INFINITY;
    p->most = 0;
    p->pull = (struct pull){
        .times = kept.times, .times_room = kept.times_room, .m = kept.m, .t = kept.t, .points_room = kept.points_room};
    AP_TRY(run->net->vt->expect_note(run->net, p->s.rank, p->peer));
    int asks = g->kind == AP_PROBE_WAN && (!run->opt->confirm || g->me < p->partner);
    return asks ? ask_first(run, p, AP_PROBE_HELLO) : send_note(run, p, AP_PROBE_HELLO);
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
    return ask_inside(run, p);
}

static ap_status take_note(struct ap_probe_run *run, struct pairs *p, const struct ap_probe_event *e)
{
    int far = p->s.group.kind == AP_PROBE_WAN, first = p->s.group.me < p->partner;
    p->peer_done = e->note.last || e->note.kind == AP_PROBE_LAST;
    if (!p->peer_done)
        AP_TRY(run->net->vt->expect_note(run->net, p->s.rank, p->peer));
    switch (e->note.kind) {
    case AP_PROBE_HELLO:
        if (far && e->note.count > 0)
            return run->net->vt->bulk(run->net, p->s.rank, p->peer, e->note.bytes, e->note.count);
        return !far && first ? ping(run, p) : AP_OK;
    case AP_PROBE_PING:
        return send_note(run, p, AP_PROBE_PONG);
    case AP_PROBE_PONG:
        return pong(run, p, e->time);
    case AP_PROBE_PULL:
        return run->net->vt->bulk(run->net, p->s.rank, p->peer, e->note.bytes, e->note.count);
    case AP_PROBE_LAST:
        return first ? AP_OK : far ? ask_first(run, p, AP_PROBE_PULL) : ask_inside(run, p);
    default:
        return AP_ERR_BUG;
    }
}

static ap_status event(struct ap_probe_run *run, struct ap_probe_state *state, const struct ap_probe_event *e)
{
    struct pairs *p = (struct pairs *)state;
    if (e->kind == AP_PROBE_TIMER || e->peer != p->peer)
        return AP_ERR_BUG;
    if (e->kind == AP_PROBE_NOTE) {
        AP_TRY(take_note(run, p, e));
    } else {
        struct pull *q = &p->pull;
        q->times[q->got++] = e->time - q->asked;
        if (q->got == q->count)
            AP_TRY(p->s.group.kind == AP_PROBE_WAN ? got_far(run, p) : got_inside(run, p, q->times[0]));
    }
    return p->own_done && p->peer_done ? next_round(run, p) : AP_OK;
}

static void end(struct ap_probe_state *state)
{
    struct pairs *p = (struct pairs *)state;
    free(p->pull.times);
    free(p->pull.m);
    free(p->pull.t);
}

const struct ap_probe_phase ap_probe_pairs_phase = {sizeof(struct pairs), start, event, end};
