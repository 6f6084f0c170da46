/* SPDX-License-Identifier: Apache-2.0
 * Round trips of all pairs of a group at once: they load nothing, and take the time of the longest one. Between sites
 * each then asks each for a few messages, one after the other, whose pace is the first guess of a link's rate, as one
 * connection reaches it. */
#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "probe/probe_impl.h"

#define NEAR_PINGS 3     /* enough to tell sites apart */
#define SLOT       20e-3 /* s between two questions for messages */
#define ALIKE      0.1   /* a guess is made if both halves have the same pace */

struct talk {
    int hello, sent, seen;
    int asked, served, got; /* messages */
    double times[AP_PROBE_FIRST];
    double least, most;
    double sent_at[AP_PROBE_PINGS_MAX];
};

struct pings {
    struct ap_probe_state s;
    int count; /* of each pair */
    int ticking, open;
    int bursts;         /* messages are asked for */
    double next_ask;    /* time of the next question, 0: none is set */
    struct talk *talks; /* [n] by member */
};

static int member_of(const struct pings *p, int rank)
{
    int lo = 0;
    while (lo < p->s.group.n && p->s.group.members[lo] != rank)
        lo++;
    return lo;
}

static ap_status start(struct ap_probe_run *run, struct ap_probe_state *state)
{
    struct pings *p = (struct pings *)state;
    const struct ap_probe_group *g = &p->s.group;
    struct ap_probe_net *net = run->net;
    p->count = g->kind == AP_PROBE_NEAR ? NEAR_PINGS : run->opt->far_pings;
    p->bursts = g->kind == AP_PROBE_FAR;
    p->open = g->me < 0 ? 0 : g->n - 1;
    p->s.done = p->open <= 0;
    if (p->s.done)
        return AP_OK;
    p->talks = calloc((size_t)g->n, sizeof *p->talks);
    if (p->talks == NULL)
        return AP_ERR_NOMEM;
    for (int i = 0; i < g->n; i++) {
        p->talks[i].least = INFINITY;
        if (i == g->me)
            continue;
        AP_TRY(net->vt->expect_note(net, p->s.rank, g->members[i]));
        AP_TRY(net->vt->note(net, p->s.rank, g->members[i], &(struct ap_probe_note){.kind = AP_PROBE_HELLO}));
    }
    return AP_OK;
}

/* A ping to each partner behind me in the list that has some to come. */
static ap_status tick(struct ap_probe_run *run, struct pings *p)
{
    const struct ap_probe_group *g = &p->s.group;
    struct ap_probe_net *net = run->net;
    p->ticking = 0;
    for (int i = g->me + 1; i < g->n; i++) {
        struct talk *t = &p->talks[i];
        if (!t->hello || t->sent == p->count)
            continue;
        struct ap_probe_note ping = {.kind = AP_PROBE_PING, .count = t->sent};
        t->sent_at[t->sent++] = net->vt->now(net);
        AP_TRY(net->vt->note(net, p->s.rank, g->members[i], &ping));
        p->ticking |= t->sent < p->count;
    }
    return p->ticking ? net->vt->timer(net, p->s.rank, run->opt->ping_gap) : AP_OK;
}

/* The next member whose round trips are done, beginning with the one behind me: all begin with another one. */
static ap_status ask(struct ap_probe_run *run, struct pings *p)
{
    const struct ap_probe_group *g = &p->s.group;
    struct ap_probe_net *net = run->net;
    struct ap_probe_note note = {.kind = AP_PROBE_PULL, .bytes = run->opt->block, .count = AP_PROBE_FIRST};
    p->next_ask = 0;
    for (int k = 1; k < g->n; k++) {
        int i = (g->me + k) % g->n;
        struct talk *t = &p->talks[i];
        if (t->asked || t->seen < p->count)
            continue;
        t->asked = 1;
        note.last = i > g->me; /* what I have measured, the other needs as well */
        note.value[0] = t->least;
        note.value[1] = t->most - t->least;
        AP_TRY(net->vt->expect_bulk(net, p->s.rank, g->members[i], note.bytes, note.count));
        AP_TRY(net->vt->note(net, p->s.rank, g->members[i], &note));
        p->next_ask = net->vt->now(net) + SLOT;
        return net->vt->timer(net, p->s.rank, SLOT);
    }
    return AP_OK;
}

static ap_status guess(struct ap_probe_run *run, const struct pings *p, int member, const struct talk *t)
{
    const struct ap_probe_group *g = &p->s.group;
    int64_t bytes = run->opt->block;
    int half = AP_PROBE_FIRST / 2;
    double one = ap_probe_slope(t->times, 0, half, bytes);
    double other = ap_probe_slope(t->times, half, AP_PROBE_FIRST - 1, bytes);
    if (fabs(one - other) > ALIKE * fmax(one, other))
        return AP_OK;
    struct ap_probe_sample sample = {.from = g->members[member],
                                     .to = p->s.rank,
                                     .kind = AP_PROBE_GUESS,
                                     .points = AP_PROBE_FIRST,
                                     .streams = 1,
                                     .rate = fmin(one, other),
                                     .residual = fabs(one / other - 1)};
    run->guess[member * g->n + g->me] = sample.rate;
    return ap_probe_add_sample(run, &sample);
}

/* The round trip between my site and another, which the tables of both have from now on. */
static void note_far(struct ap_probe_run *run, const struct ap_probe_group *g, int member, double least, double spread)
{
    int there = g->me * g->n + member, back = member * g->n + g->me;
    run->rtt[there] = run->rtt[back] = least;
    run->spread[there] = run->spread[back] = spread;
}

static ap_status pong(struct ap_probe_run *run, struct pings *p, struct talk *t, const struct ap_probe_event *e)
{
    double rtt = e->time - t->sent_at[e->note.count];
    t->least = fmin(t->least, rtt);
    t->most = fmax(t->most, rtt);
    if (t->seen < p->count)
        return AP_OK;
    if (p->bursts)
        note_far(run, &p->s.group, (int)(t - p->talks), t->least, t->most - t->least);
    struct ap_probe_sample sample = {.from = p->s.rank,
                                     .to = e->peer,
                                     .kind = (int)p->s.group.kind,
                                     .points = p->count,
                                     .rtt = t->least,
                                     .spread = t->most - t->least};
    return ap_probe_add_sample(run, &sample);
}

static ap_status take_note(struct ap_probe_run *run, struct pings *p, int member, const struct ap_probe_event *e)
{
    struct talk *t = &p->talks[member];
    struct ap_probe_net *net = run->net;
    switch (e->note.kind) {
    case AP_PROBE_HELLO:
        t->hello = 1;
        return member > p->s.group.me && !p->ticking ? tick(run, p) : AP_OK;
    case AP_PROBE_PULL:
        t->served = 1;
        if (e->note.last)
            note_far(run, &p->s.group, member, e->note.value[0], e->note.value[1]);
        return net->vt->bulk(net, p->s.rank, e->peer, e->note.bytes, e->note.count);
    case AP_PROBE_PING:
        t->seen++;
        AP_TRY(net->vt->note(net, p->s.rank, e->peer,
                             &(struct ap_probe_note){.kind = AP_PROBE_PONG, .count = e->note.count}));
        break;
    case AP_PROBE_PONG:
        t->seen++;
        AP_TRY(pong(run, p, t, e));
        break;
    default:
        return AP_ERR_BUG;
    }
    return p->bursts && t->seen == p->count && p->next_ask <= 0 ? ask(run, p) : AP_OK;
}

static ap_status event(struct ap_probe_run *run, struct ap_probe_state *state, const struct ap_probe_event *e)
{
    struct pings *p = (struct pings *)state;
    if (e->kind == AP_PROBE_TIMER) {
        if (p->next_ask > 0 && e->time + 1e-6 >= p->next_ask)
            AP_TRY(ask(run, p));
        if (p->ticking)
            AP_TRY(tick(run, p));
        p->s.done = p->open == 0 && !p->ticking && p->next_ask <= 0;
        return AP_OK;
    }
    int member = member_of(p, e->peer);
    struct talk *t = &p->talks[member];
    if (e->kind == AP_PROBE_NOTE) {
        AP_TRY(take_note(run, p, member, e));
        if (t->seen < p->count || (p->bursts && !t->served))
            AP_TRY(run->net->vt->expect_note(run->net, p->s.rank, e->peer));
    } else {
        t->times[t->got++] = e->time;
        if (t->got == AP_PROBE_FIRST)
            AP_TRY(guess(run, p, member, t));
    }
    int over = t->seen == p->count && (!p->bursts || (t->served && t->got == AP_PROBE_FIRST));
    p->open -= over;
    p->s.done = p->open == 0 && !p->ticking && p->next_ask <= 0;
    return AP_OK;
}

static void end(struct ap_probe_state *state)
{
    free(((struct pings *)state)->talks);
}

const struct ap_probe_phase ap_probe_pings_phase = {sizeof(struct pings), start, event, end};
