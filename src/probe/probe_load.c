/* SPDX-License-Identifier: Apache-2.0
 * The second pass: each site in its turn sends to all others at once, later receives from all others at once, over as
 * many connections as the pairs were measured with.
 *
 * All turns stand on one timetable, so that nothing has to travel between them: once all are ready the first rank of
 * the first site says when it starts, the others take half of their round trip off and tell the ranks of their other
 * lanes. Who sends to all does so when its turn comes; for the turn of one that receives from all, each site sends as
 * much earlier as half of its round trip to it is long, so that all arrive together. Directions that differ move a
 * turn, no more: rates are taken at one receiver, by its own clock. */
#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "probe/probe_impl.h"

#define MESSAGES  64   /* of a transfer, over each connection, at least */
#define TURN      1.5  /* times a transfer: a turn, */
#define MARGIN    0.01 /* and so many s */
#define FROM_PART 0.2  /* of a transfer: rates are taken while all flows of a turn are on their way */
#define TO_PART   0.95
#define TOGETHER  0.25 /* of a transfer: so long all flows of a turn come together, or each counts by itself */

struct flow {
    int64_t bytes, count, got; /* from a site; count: of one transfer; there are two, one in its turn and one in mine */
    double *times;             /* [2 count] */
    int64_t out_bytes, out_count;
    int sent; /* transfers to it */
};

struct load {
    struct ap_probe_state s;
    int waiting, open; /* ranks that are not ready; flows that are not over */
    double origin;     /* of the timetable, own clock */
    double seconds, turn, longest;
    struct flow *flow; /* [sites] */
};

/* Whether a site's rank of my lane takes part, and is another one. */
static int other(const struct load *l, int site)
{
    return site != l->s.group.me && l->s.group.members[site] >= 0;
}

static double rtt(const struct ap_probe_run *run, int a, int b)
{
    return run->rtt[a * run->places->sites + b];
}

static ap_status tell(struct ap_probe_run *run, const struct load *l, int to, enum ap_probe_note_kind kind,
                      double seconds)
{
    struct ap_probe_note note = {.kind = (int)kind, .value = {seconds}};
    return run->net->vt->note(run->net, l->s.rank, to, &note);
}

static ap_status listen(struct ap_probe_run *run, const struct load *l, int from)
{
    return run->net->vt->expect_note(run->net, l->s.rank, from);
}

static void find_turn(const struct ap_probe_run *run, struct load *l)
{
    int n = l->s.group.n;
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            if (a != b) {
                l->seconds = fmax(l->seconds, ap_probe_duration(run, a, b, n));
                l->longest = fmax(l->longest, rtt(run, a, b));
            }
    l->turn = TURN * l->seconds + MARGIN;
}

/* Every connection has the same part of its pair's rate. */
static ap_status open_flow(struct ap_probe_run *run, struct load *l, int site)
{
    struct flow *f = &l->flow[site];
    int n = l->s.group.n, me = l->s.group.me, streams = ap_probe_streams(run, me, site);
    double most = (double)run->opt->most_bytes, in = fmin(run->rate[site * n + me] * l->seconds, most) / streams;
    double out = fmin(run->rate[me * n + site] * l->seconds, most) / streams;
    ap_probe_size(run->opt, in, MESSAGES, &f->bytes, &f->count);
    ap_probe_size(run->opt, out, MESSAGES, &f->out_bytes, &f->out_count);
    f->times = calloc(2 * (size_t)f->count, sizeof *f->times);
    if (f->times == NULL)
        return AP_ERR_NOMEM;
    l->open++;
    return run->net->vt->expect_bulk(run->net, l->s.rank, l->s.group.members[site], f->bytes, 2 * f->count);
}

/* Who is not a first rank tells its site's first one, that one the first site's. */
static ap_status ready(struct ap_probe_run *run, struct load *l);

static ap_status start(struct ap_probe_run *run, struct ap_probe_state *state)
{
    struct load *l = (struct load *)state;
    const struct ap_probe_group *g = &l->s.group;
    l->s.done = g->me < 0 || g->n < 3;
    if (l->s.done)
        return AP_OK;
    l->flow = calloc((size_t)g->n, sizeof *l->flow);
    if (l->flow == NULL)
        return AP_ERR_NOMEM;
    find_turn(run, l);
    for (int i = 0; i < g->n; i++)
        if (other(l, i))
            AP_TRY(open_flow(run, l, i));
    for (int k = 1; g->lane == 0 && k < run->lanes; k++)
        if (ap_probe_lane(run, k, g->me) >= 0) {
            l->waiting++;
            AP_TRY(listen(run, l, ap_probe_lane(run, k, g->me)));
        }
    for (int i = 1; g->lane == 0 && g->me == 0 && i < g->n; i++) {
        l->waiting++;
        AP_TRY(listen(run, l, g->members[i]));
    }
    return l->waiting == 0 ? ready(run, l) : AP_OK;
}

/* When I send to a site: in my turn, and for its turn. */
static double send_at(const struct ap_probe_run *run, const struct load *l, int site, int transfer)
{
    int n = l->s.group.n, me = l->s.group.me;
    if (transfer == 0)
        return l->origin + me * l->turn;
    return l->origin + (n + site) * l->turn + (l->longest - rtt(run, me, site)) / 2;
}

static ap_status set_out(struct ap_probe_run *run, struct load *l, double in_seconds)
{
    struct ap_probe_net *net = run->net;
    const struct ap_probe_group *g = &l->s.group;
    double now = net->vt->now(net);
    l->origin = now + fmax(in_seconds, 0);
    for (int k = 1; g->lane == 0 && k < run->lanes; k++)
        if (ap_probe_lane(run, k, g->me) >= 0)
            AP_TRY(tell(run, l, ap_probe_lane(run, k, g->me), AP_PROBE_START, l->origin - now));
    for (int i = 0; i < g->n; i++)
        for (int transfer = 0; transfer < 2 && other(l, i); transfer++)
            AP_TRY(net->vt->timer(net, l->s.rank, send_at(run, l, i, transfer) - now));
    return AP_OK;
}

static ap_status ready(struct ap_probe_run *run, struct load *l)
{
    const struct ap_probe_group *g = &l->s.group;
    if (g->lane > 0 || g->me > 0) {
        int to = ap_probe_lane(run, 0, g->lane > 0 ? g->me : 0);
        AP_TRY(listen(run, l, to));
        return tell(run, l, to, AP_PROBE_READY, 0);
    }
    for (int i = 1; i < g->n; i++)
        AP_TRY(tell(run, l, g->members[i], AP_PROBE_START, 0));
    return set_out(run, l, l->longest / 2 + MARGIN);
}

static ap_status timer(struct ap_probe_run *run, struct load *l, double time)
{
    struct ap_probe_net *net = run->net;
    for (int i = 0; i < l->s.group.n; i++) {
        struct flow *f = &l->flow[i];
        while (other(l, i) && f->sent < 2 && send_at(run, l, i, f->sent) <= time + 1e-6) { /* timers are rounded */
            l->open -= ++f->sent == 2 && f->got == 2 * f->count;
            AP_TRY(net->vt->bulk(net, l->s.rank, l->s.group.members[i], f->out_bytes, f->out_count));
        }
    }
    return AP_OK;
}

static ap_status take_note(struct ap_probe_run *run, struct load *l, const struct ap_probe_note *note)
{
    const struct ap_probe_group *g = &l->s.group;
    if (note->kind == AP_PROBE_READY)
        return --l->waiting == 0 ? ready(run, l) : AP_OK;
    if (note->kind != AP_PROBE_START)
        return AP_ERR_BUG;
    return set_out(run, l, g->lane > 0 ? note->value[0] : (l->longest - rtt(run, 0, g->me)) / 2 + MARGIN);
}

static ap_status add(struct ap_probe_run *run, const struct load *l, int site, enum ap_probe_sample_kind kind,
                     double rate)
{
    struct ap_probe_sample sample = {.from = l->s.group.members[site],
                                     .to = l->s.rank,
                                     .kind = (int)kind,
                                     .points = (int)l->flow[site].count,
                                     .streams = 1,
                                     .rate = rate};
    return ap_probe_add_sample(run, &sample);
}

/* What was sent in the others' turns by the time since the first message of each; what was sent for mine in the window
 * in which all of it was coming, or, where there is none, like the other. */
static ap_status evaluate(struct ap_probe_run *run, struct load *l)
{
    int n = l->s.group.n;
    double from = 0, to = INFINITY;
    for (int i = 0; i < n; i++) {
        const struct flow *f = &l->flow[i];
        if (!other(l, i))
            continue;
        from = fmax(from, f->times[f->count] + FROM_PART * l->seconds);
        to = fmin(to, f->times[2 * f->count - 1]);
    }
    int together = to - from >= TOGETHER * l->seconds;
    for (int i = 0; i < n; i++)
        for (int turn = 0; turn < 2 && other(l, i); turn++) {
            const struct flow *f = &l->flow[i];
            const double *times = f->times + turn * f->count;
            double lo = times[0] + FROM_PART * l->seconds, hi = times[0] + TO_PART * l->seconds;
            if (turn == 1 && together) {
                lo = from;
                hi = to;
            }
            struct ap_probe_line line;
            AP_TRY(ap_probe_line_of(times, f->count, f->bytes, lo, hi, &line));
            /* 0: too few came in time, or most of them waited for something lost. */
            double rate = 2 * line.points > line.offered ? line.rate : 0;
            AP_TRY(add(run, l, i, turn == 0 ? AP_PROBE_LOAD_OUT : AP_PROBE_LOAD_IN, rate));
        }
    return AP_OK;
}

static ap_status event(struct ap_probe_run *run, struct ap_probe_state *state, const struct ap_probe_event *e)
{
    struct load *l = (struct load *)state;
    if (e->kind == AP_PROBE_TIMER) {
        AP_TRY(timer(run, l, e->time));
    } else if (e->kind == AP_PROBE_NOTE) {
        AP_TRY(take_note(run, l, &e->note));
    } else {
        int i = 0;
        while (i < l->s.group.n && l->s.group.members[i] != e->peer)
            i++;
        if (i == l->s.group.n)
            return AP_ERR_BUG;
        struct flow *f = &l->flow[i];
        f->times[f->got++] = e->time;
        l->open -= f->got == 2 * f->count && f->sent == 2;
    }
    l->s.done = l->open == 0;
    return l->s.done ? evaluate(run, l) : AP_OK;
}

static void end(struct ap_probe_state *state)
{
    struct load *l = (struct load *)state;
    for (int i = 0; l->flow != NULL && i < l->s.group.n; i++)
        free(l->flow[i].times);
    free(l->flow);
}

const struct ap_probe_phase ap_probe_load_phase = {sizeof(struct load), start, event, end};
