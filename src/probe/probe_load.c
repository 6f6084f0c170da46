/* SPDX-License-Identifier: Apache-2.0
 * The second pass: each site in its turn sends to all others at once, later receives from all others at once.
 *
 * All turns stand on one timetable, so that nothing has to travel between them: the first leader says when it starts,
 * the others take half of their round trip off. Who sends to all does so when its turn comes; for the turn of one that
 * receives from all, each site sends as much earlier as half of its round trip to it is long, so that all arrive
 * together. Directions that differ move a turn, no more: rates are taken at one receiver, by its own clock. */
#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "probe/probe_impl.h"

#define MARGIN    0.01 /* s between turns, besides half a transfer */
#define FROM_PART 0.2  /* of a transfer: rates are taken while all flows of a turn are on their way */
#define TO_PART   0.95
#define LIMIT_S   1.0 /* a transfer lasts no longer, however much round trips vary */

struct flow_in {
    int64_t bytes, count, got;    /* count: of one transfer; there are two, one in its turn and one in mine */
    double *times;                /* [2 count] */
    int notes;                    /* still to come */
    int64_t out_bytes, out_count; /* the same from me to it: what it wants; count 0: it has not said yet */
    int due, sent;                /* transfers to it */
};

struct load {
    struct ap_probe_state s;
    int wants;
    double origin; /* of the timetable, own clock */
    double turn, longest;
    struct flow_in *in; /* [n] */
};

static int site(const struct ap_probe_run *run, const struct load *l, int member)
{
    return ap_probe_site_of(run, l->s.group.members[member]);
}

static double rtt(const struct ap_probe_run *run, int a, int b)
{
    return run->rtt[a * run->places->sites + b];
}

static ap_status expect_member(struct ap_probe_run *run, const struct load *l, int member)
{
    return run->net->vt->expect_note(run->net, l->s.rank, l->s.group.members[member]);
}

static double longest_transfer(const struct ap_probe_run *run, const struct load *l)
{
    double longest = 0;
    for (int a = 0; a < l->s.group.n; a++)
        for (int b = 0; b < l->s.group.n; b++)
            if (a != b)
                longest = fmax(longest, ap_probe_duration(run, site(run, l, a), site(run, l, b)));
    return longest;
}

static ap_status start(struct ap_probe_run *run, struct ap_probe_state *state)
{
    struct load *l = (struct load *)state;
    const struct ap_probe_group *g = &l->s.group;
    l->s.done = g->me < 0 || g->n < 3;
    if (l->s.done)
        return AP_OK;
    l->in = calloc((size_t)g->n, sizeof *l->in);
    if (l->in == NULL)
        return AP_ERR_NOMEM;
    double seconds = longest_transfer(run, l);
    l->turn = 1.5 * seconds + MARGIN;
    for (int a = 0; a < g->n; a++)
        for (int b = 0; b < g->n; b++)
            l->longest = fmax(l->longest, rtt(run, site(run, l, a), site(run, l, b)));
    int mine = site(run, l, g->me);
    for (int i = 0; i < g->n; i++) {
        struct flow_in *f = &l->in[i];
        if (i == g->me)
            continue;
        f->notes = i == 0 ? 2 : 1;
        double rate = run->rate[site(run, l, i) * run->places->sites + mine];
        ap_probe_size(run->opt, rate, seconds, run->opt->most_bytes, &f->bytes, &f->count);
        f->times = calloc(2 * (size_t)f->count, sizeof *f->times);
        if (f->times == NULL)
            return AP_ERR_NOMEM;
        struct ap_probe_note want = {.kind = AP_PROBE_WANT, .bytes = f->bytes, .count = f->count};
        AP_TRY(expect_member(run, l, i));
        AP_TRY(run->net->vt->expect_bulk(run->net, l->s.rank, g->members[i], f->bytes, 2 * f->count));
        AP_TRY(run->net->vt->note(run->net, l->s.rank, g->members[i], &want));
    }
    return AP_OK;
}

/* When I send to member i: in my turn, and for its turn. */
static double send_at(const struct ap_probe_run *run, const struct load *l, int i, int transfer)
{
    int n = l->s.group.n, me = l->s.group.me;
    if (transfer == 0)
        return l->origin + me * l->turn;
    return l->origin + (n + i) * l->turn + l->longest - rtt(run, site(run, l, me), site(run, l, i)) / 2;
}

static ap_status set_out(struct ap_probe_run *run, struct load *l, double in_seconds)
{
    struct ap_probe_net *net = run->net;
    double now = net->vt->now(net);
    l->origin = now + fmax(in_seconds, 0);
    for (int i = 0; i < l->s.group.n; i++)
        for (int transfer = 0; transfer < 2 && i != l->s.group.me; transfer++)
            AP_TRY(net->vt->timer(net, l->s.rank, send_at(run, l, i, transfer) - now));
    return AP_OK;
}

/* The first leader, once it has heard of all. */
static ap_status give_start(struct ap_probe_run *run, struct load *l)
{
    for (int i = 1; i < l->s.group.n; i++)
        AP_TRY(run->net->vt->note(run->net, l->s.rank, l->s.group.members[i],
                                  &(struct ap_probe_note){.kind = AP_PROBE_START}));
    return set_out(run, l, l->longest / 2 + MARGIN);
}

/* What is due to member i and whose size is known. */
static ap_status send_due(struct ap_probe_run *run, struct load *l, int i)
{
    struct flow_in *f = &l->in[i];
    while (f->sent < f->due && f->out_count > 0) {
        f->sent++;
        AP_TRY(run->net->vt->bulk(run->net, l->s.rank, l->s.group.members[i], f->out_bytes, f->out_count));
    }
    return AP_OK;
}

static ap_status timer(struct ap_probe_run *run, struct load *l, double time)
{
    for (int i = 0; i < l->s.group.n; i++) {
        struct flow_in *f = &l->in[i];
        while (i != l->s.group.me && f->due < 2 && send_at(run, l, i, f->due) <= time + 1e-6) /* timers are rounded */
            f->due++;
        AP_TRY(send_due(run, l, i));
    }
    return AP_OK;
}

static ap_status take_note(struct ap_probe_run *run, struct load *l, int i, const struct ap_probe_event *e)
{
    struct flow_in *f = &l->in[i];
    if (--f->notes > 0)
        AP_TRY(expect_member(run, l, i));
    if (e->note.kind == AP_PROBE_START)
        return set_out(run, l, (l->longest - rtt(run, site(run, l, 0), site(run, l, l->s.group.me))) / 2 + MARGIN);
    f->out_bytes = e->note.bytes;
    f->out_count = e->note.count;
    AP_TRY(send_due(run, l, i));
    return ++l->wants == l->s.group.n - 1 && l->s.group.me == 0 ? give_start(run, l) : AP_OK;
}

/* Bytes per second of the messages that came within the window; 0: too few, or most of them waited for something lost.
 */
static ap_status rate_between(const struct flow_in *f, const double *times, double from, double to, double *rate_p)
{
    int64_t lo = 0, hi = f->count;
    while (lo < hi && times[lo] < from)
        lo++;
    while (hi > lo && times[hi - 1] > to)
        hi--;
    *rate_p = 0;
    if (hi - lo < 3)
        return AP_OK;
    double *m = malloc(2 * (size_t)(hi - lo) * sizeof *m), alpha, beta, residual;
    char *keep = malloc((size_t)(hi - lo));
    ap_status status = m == NULL || keep == NULL ? AP_ERR_NOMEM : AP_OK;
    if (status == AP_OK) {
        double *t = m + (hi - lo);
        int n = 0;
        ap_probe_paced(hi - lo, times + lo, keep);
        for (int64_t i = lo; i < hi; i++)
            if (keep[i - lo]) {
                m[n] = (double)(i + 1) * (double)f->bytes;
                t[n++] = times[i] - times[0] + (to - from); /* far from 0: all count alike */
            }
        if (n >= 3 && 2 * n > hi - lo && ap_probe_fit(n, m, t, &alpha, &beta, &residual) == AP_OK)
            *rate_p = 1 / beta;
    }
    free(m);
    free(keep);
    return status;
}

static ap_status add(struct ap_probe_run *run, const struct load *l, int i, enum ap_probe_sample_kind kind, double rate)
{
    struct ap_probe_sample sample = {
        .from = l->s.group.members[i], .to = l->s.rank, .kind = (int)kind, .points = (int)l->in[i].count, .rate = rate};
    return ap_probe_add_sample(run, &sample);
}

/* What was sent in the others' turns by the time since the first message of each; what was sent for mine in the window
 * in which all of it was coming, or, where there is none, like the other. */
static ap_status evaluate(struct ap_probe_run *run, struct load *l)
{
    int n = l->s.group.n;
    double seconds = (l->turn - MARGIN) / 1.5, from = 0, to = INFINITY;
    for (int i = 0; i < n; i++) {
        const struct flow_in *f = &l->in[i];
        if (i == l->s.group.me)
            continue;
        from = fmax(from, f->times[f->count] + FROM_PART * seconds);
        to = fmin(to, f->times[2 * f->count - 1]);
    }
    int together = to - from >= 0.25 * seconds;
    for (int i = 0; i < n; i++) {
        const struct flow_in *f = &l->in[i];
        if (i == l->s.group.me)
            continue;
        for (int turn = 0; turn < 2; turn++) {
            const double *times = f->times + turn * f->count;
            double lo = times[0] + FROM_PART * seconds, hi = fmin(times[0] + TO_PART * seconds, times[f->count - 1]);
            if (turn == 1 && together) {
                lo = from;
                hi = to;
            }
            double rate;
            AP_TRY(rate_between(f, times, lo, hi, &rate));
            AP_TRY(add(run, l, i, turn == 0 ? AP_PROBE_LOAD_OUT : AP_PROBE_LOAD_IN, rate));
        }
    }
    return AP_OK;
}

static ap_status event(struct ap_probe_run *run, struct ap_probe_state *state, const struct ap_probe_event *e)
{
    struct load *l = (struct load *)state;
    int n = l->s.group.n, i = 0, complete = 1;
    if (e->kind == AP_PROBE_TIMER) {
        AP_TRY(timer(run, l, e->time));
    } else {
        while (i < n && l->s.group.members[i] != e->peer)
            i++;
        struct flow_in *f = &l->in[i];
        if (e->kind == AP_PROBE_NOTE)
            AP_TRY(take_note(run, l, i, e));
        else
            f->times[f->got++] = e->time;
    }
    for (i = 0; i < n; i++)
        complete &= i == l->s.group.me || (l->in[i].got == 2 * l->in[i].count && l->in[i].sent == 2);
    if (!complete)
        return AP_OK;
    l->s.done = 1;
    return evaluate(run, l);
}

static void end(struct ap_probe_state *state)
{
    struct load *l = (struct load *)state;
    for (int i = 0; l->in != NULL && i < l->s.group.n; i++)
        free(l->in[i].times);
    free(l->in);
}

const struct ap_probe_phase ap_probe_load_phase = {sizeof(struct load), start, event, end};
