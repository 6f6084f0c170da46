/* SPDX-License-Identifier: Apache-2.0
 * Pairs of sites in turns, several connections each. The first ranks of two sites decide: who receives asks for a run,
 * both tell the ranks of the other lanes what to send or fetch, and the rate of a run is the sum over its connections
 * in the window in which all of them were coming, each measured by its own receiver's clock from the question on (the
 * question to another lane is late by a message inside of the site, which is little against a run).
 *
 * First pass: one run of each direction, by the guess; both at once where the round trip is so long that the
 * acknowledgements of one direction are not under way while the other is sent, else one after the other. A run whose
 * halves do not agree with each other, or whose rate not with the guess, is doubtful. Thorough pass, of pairs with a
 * doubtful direction: runs until two of them agree, then runs that count, until two in a row agree well (connections
 * that share a link take a while to fill it); one direction after the other. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "probe/probe_impl.h"

#define MESSAGES     64  /* of a run, half as many over each of several connections, at least */
#define GROWTH       128 /* a run is at most so many times larger than the one before it */
#define STEADY       0.1 /* alike within this: both halves of a run, a run and what was known before */
#define SEARCHES_MAX 6
#define SKIPPED      0.25 /* of the time in which all connections were coming, not in the fit */
#define TOGETHER     0.25 /* of a run: so long all connections come together, or it tells little */
#define ENOUGH       8    /* points of a connection that a fit stands on; with fewer the run is made longer */
#define BURST        1.5  /* the second half of a run is taken for no more than so many times the whole */
#define LONGER       2.0
#define RETRIES_MAX  3
#define ALIKE        0.02 /* runs that count: two in a row that agree so well are enough */
#define FINALS       2    /* times the option: not more of them, and then the last steady ones count */
#define FINALS_MAX   16

struct part {
    double first, last; /* s since asked */
};

struct wan {
    struct ap_probe_state s;
    struct ap_probe_stream stream;
    int round, partner, peer, streams; /* of the first ranks; with others, partner and peer are not used */
    int own_begun, own_done, peer_done, said_last, at_once;
    struct part part[AP_PROBE_STREAMS_MAX];
    int waiting; /* for so many connections */
    struct part run;
    struct ap_probe_line sum; /* of the run under way: rates are sums; points those of the least */
    int apart;
    int runs, finals, retries;
    int64_t next_bytes, next_count;                             /* of a run that counts */
    double rate;                                                /* of the run before */
    struct ap_probe_line steady[FINALS_MAX], rough[FINALS_MAX]; /* runs that count, by whether their halves are alike */
    int steadies, roughs;
};

static ap_status tell(struct ap_probe_run *run, const struct wan *w, int to, const struct ap_probe_note *note)
{
    return run->net->vt->note(run->net, w->s.rank, to, note);
}

static ap_status listen(struct ap_probe_run *run, const struct wan *w, int from)
{
    return run->net->vt->expect_note(run->net, w->s.rank, from);
}

/* The rank of another lane of my site. */
static int helper(const struct ap_probe_run *run, const struct wan *w, int lane)
{
    return ap_probe_lane(run, lane, w->s.group.me);
}

static int link_at(const struct ap_probe_run *run, int from, int to)
{
    return from * run->places->sites + to;
}

/* ---- what the other lanes do */

static ap_status answer_rate(struct ap_probe_run *run, struct wan *w, const struct ap_probe_note *asked)
{
    struct ap_probe_line l;
    AP_TRY(ap_probe_line_of(w->stream.times, w->stream.count, w->stream.bytes, asked->value[0], asked->value[1], &l));
    struct ap_probe_note note = {
        .kind = AP_PROBE_RATE, .points = l.points, .value = {l.rate, l.half[0], l.half[1], l.residual}};
    return tell(run, w, ap_probe_lane(run, 0, w->s.group.me), &note);
}

static ap_status help(struct ap_probe_run *run, struct wan *w, const struct ap_probe_event *e)
{
    struct ap_probe_net *net = run->net;
    int first = ap_probe_lane(run, 0, w->s.group.me);
    if (e->kind == AP_PROBE_BULK) {
        if (!ap_probe_stream_got(&w->stream, e->time))
            return AP_OK;
        struct ap_probe_note got = {.kind = AP_PROBE_GOT,
                                    .value = {w->stream.times[0], w->stream.times[w->stream.count - 1]}};
        return tell(run, w, first, &got);
    }
    if (e->kind != AP_PROBE_NOTE || e->peer != first)
        return AP_ERR_BUG;
    w->s.done = e->note.kind == AP_PROBE_LAST;
    if (w->s.done)
        return AP_OK;
    AP_TRY(listen(run, w, first));
    switch (e->note.kind) {
    case AP_PROBE_SERVE:
        return net->vt->bulk(net, w->s.rank, e->note.peer, e->note.bytes, e->note.count);
    case AP_PROBE_FETCH:
        return ap_probe_stream_expect(run, &w->stream, w->s.rank, e->note.peer, e->note.bytes, e->note.count);
    case AP_PROBE_WINDOW:
        return answer_rate(run, w, &e->note);
    default:
        return AP_ERR_BUG;
    }
}

static ap_status dismiss(struct ap_probe_run *run, const struct wan *w)
{
    for (int k = 1; k < run->lanes; k++)
        if (helper(run, w, k) >= 0)
            AP_TRY(tell(run, w, helper(run, w, k), &(struct ap_probe_note){.kind = AP_PROBE_LAST}));
    return AP_OK;
}

/* ---- a run: question, bytes, window, rates */

static ap_status ask(struct ap_probe_run *run, struct wan *w, int64_t bytes, int64_t count, int last)
{
    struct ap_probe_note note = {.kind = AP_PROBE_PULL, .last = last, .bytes = bytes, .count = count};
    w->runs++;
    w->said_last |= last;
    w->waiting = w->streams;
    for (int k = 1; k < w->streams; k++) {
        struct ap_probe_note fetch = {
            .kind = AP_PROBE_FETCH, .peer = ap_probe_lane(run, k, w->partner), .bytes = bytes, .count = count};
        AP_TRY(listen(run, w, helper(run, w, k)));
        AP_TRY(tell(run, w, helper(run, w, k), &fetch));
    }
    AP_TRY(ap_probe_stream_expect(run, &w->stream, w->s.rank, w->peer, bytes, count));
    return tell(run, w, w->peer, &note);
}

static ap_status serve(struct ap_probe_run *run, struct wan *w, const struct ap_probe_note *pull)
{
    struct ap_probe_net *net = run->net;
    for (int k = 1; k < w->streams; k++) {
        struct ap_probe_note note = {.kind = AP_PROBE_SERVE,
                                     .peer = ap_probe_lane(run, k, w->partner),
                                     .bytes = pull->bytes,
                                     .count = pull->count};
        AP_TRY(tell(run, w, helper(run, w, k), &note));
    }
    return net->vt->bulk(net, w->s.rank, w->peer, pull->bytes, pull->count);
}

static void add_line(struct wan *w, const struct ap_probe_line *l)
{
    struct ap_probe_line *sum = &w->sum;
    w->waiting--;
    sum->points = sum->points < 0 || l->points < sum->points ? l->points : sum->points;
    sum->rate += l->rate;
    sum->half[0] += l->half[0];
    sum->half[1] += l->half[1];
    sum->residual = fmax(sum->residual, l->residual);
}

static ap_status run_over(struct ap_probe_run *run, struct wan *w);

/* All is there. What is measured is the time in which all connections were coming; where they hardly met, the whole
 * from its first byte to its last, and that tells little. */
static ap_status open_window(struct ap_probe_run *run, struct wan *w)
{
    double begin = 0, end = INFINITY, lo, hi, whole;
    w->run = (struct part){INFINITY, 0};
    for (int k = 0; k < w->streams; k++) {
        begin = fmax(begin, w->part[k].first);
        end = fmin(end, w->part[k].last);
        w->run.first = fmin(w->run.first, w->part[k].first);
        w->run.last = fmax(w->run.last, w->part[k].last);
    }
    whole = w->run.last - w->run.first;
    w->apart = !(end - begin >= TOGETHER * whole);
    lo = w->apart ? w->run.first : begin + SKIPPED * (end - begin);
    hi = w->apart ? w->run.last : end;
    w->sum = (struct ap_probe_line){.points = -1};
    w->waiting = w->streams;
    for (int k = 1; k < w->streams; k++) {
        struct ap_probe_note note = {.kind = AP_PROBE_WINDOW, .value = {lo, hi}};
        AP_TRY(listen(run, w, helper(run, w, k)));
        AP_TRY(tell(run, w, helper(run, w, k), &note));
    }
    struct ap_probe_line own;
    AP_TRY(ap_probe_line_of(w->stream.times, w->stream.count, w->stream.bytes, lo, hi, &own));
    add_line(w, &own);
    return w->waiting == 0 ? run_over(run, w) : AP_OK;
}

static ap_status part_over(struct ap_probe_run *run, struct wan *w, int lane, double first, double last)
{
    w->part[lane] = (struct part){first, last};
    return --w->waiting == 0 ? open_window(run, w) : AP_OK;
}

/* ---- what a run tells */

static int agree(double a, double b, double within)
{
    return fabs(a - b) <= within * fmax(a, b);
}

/* The whole run's rate where the lines of its connections say nothing. */
static double rate_of(const struct wan *w)
{
    double bytes = (double)w->streams * (double)w->stream.bytes * (double)w->stream.count;
    return !w->apart && w->sum.points >= ENOUGH && w->sum.rate > 0 ? w->sum.rate
                                                                   : bytes / fmax(w->run.last - w->run.first, 1e-9);
}

static ap_status finish(struct ap_probe_run *run, struct wan *w, const struct ap_probe_line *l, int doubtful)
{
    struct ap_probe_sample sample = {.from = w->peer,
                                     .to = w->s.rank,
                                     .kind = AP_PROBE_WAN,
                                     .points = l->points,
                                     .streams = w->streams,
                                     .doubtful = doubtful,
                                     .rate = l->rate,
                                     .residual = l->residual};
    w->own_done = 1;
    AP_TRY(ap_probe_add_sample(run, &sample));
    if (w->said_last)
        return AP_OK;
    w->said_last = 1;
    return tell(run, w, w->peer, &(struct ap_probe_note){.kind = AP_PROBE_LAST});
}

static void size_of(const struct ap_probe_run *run, const struct wan *w, double wanted, int64_t *bytes_p,
                    int64_t *count_p)
{
    ap_probe_size(run->opt, wanted / w->streams, w->streams > 1 ? MESSAGES / 2 : MESSAGES, bytes_p, count_p);
}

static ap_status ask_size(struct ap_probe_run *run, struct wan *w, double rate, double seconds, double most, int last)
{
    int64_t bytes, count;
    size_of(run, w, fmin(rate * seconds, most), &bytes, &count);
    return ask(run, w, bytes, count, last);
}

static ap_status ask_final(struct ap_probe_run *run, struct wan *w)
{
    w->finals++;
    return ask(run, w, w->next_bytes, w->next_count, 0);
}

static int by_rate(const void *a, const void *b)
{
    double x = ((const struct ap_probe_line *)a)->rate, y = ((const struct ap_probe_line *)b)->rate;
    return (x > y) - (x < y);
}

/* Of the last of some runs the median's rate; of an even number the mean of both in the middle. */
static ap_status finish_by(struct ap_probe_run *run, struct wan *w, struct ap_probe_line *lines, int count, int last)
{
    if (last < count)
        lines += count - last;
    else
        last = count;
    qsort(lines, (size_t)last, sizeof *lines, by_rate);
    struct ap_probe_line l = lines[last / 2];
    l.rate = (lines[(last - 1) / 2].rate + lines[last / 2].rate) / 2;
    return finish(run, w, &l, !agree(lines[0].rate, lines[last - 1].rate, STEADY));
}

/* A run that counts. Whether there are enough of them: two steady ones in a row that agree, or many. */
static ap_status count_run(struct ap_probe_run *run, struct wan *w)
{
    int wanted = run->opt->repeats, most = FINALS * wanted < FINALS_MAX ? FINALS * wanted : FINALS_MAX;
    int steady = !w->apart && agree(w->sum.half[0], w->sum.half[1], STEADY), n;
    w->sum.rate = rate_of(w);
    if (steady)
        w->steady[w->steadies++] = w->sum;
    else
        w->rough[w->roughs++] = w->sum;
    n = w->steadies;
    if (wanted == 1 || (n >= 2 && steady && agree(w->steady[n - 2].rate, w->steady[n - 1].rate, ALIKE)))
        return steady ? finish_by(run, w, w->steady, n, 2) : finish_by(run, w, w->rough, w->roughs, 1);
    if (w->finals < most)
        return ask_final(run, w);
    return n > 0 ? finish_by(run, w, w->steady, n, wanted) : finish_by(run, w, w->rough, w->roughs, wanted);
}

/* The run that is over tells how large the next one is, and whether that counts; a steady one counts itself. */
static ap_status search(struct ap_probe_run *run, struct wan *w)
{
    double before = (double)w->streams * (double)w->stream.bytes * (double)w->stream.count;
    double seconds = ap_probe_duration(run, w->s.group.me, w->partner, 1);
    double last_rate = w->rate, most = fmin(before * GROWTH, (double)run->opt->most_bytes);
    /* What waited and then came in one go looks faster than the link is. */
    double all = before / fmax(w->run.last - w->run.first, 1e-9);
    w->rate = fmin(w->sum.half[1], BURST * (w->sum.rate > 0 ? w->sum.rate : all));
    if (w->apart || w->rate <= 0)
        w->rate = rate_of(w);
    int large = w->rate * seconds <= most || most >= (double)run->opt->most_bytes;
    int steady =
        large && !w->apart && agree(w->sum.half[0], w->sum.half[1], STEADY) && agree(w->rate, last_rate, STEADY);
    if (!steady && w->runs < SEARCHES_MAX)
        return ask_size(run, w, w->rate, seconds, most, 0);
    size_of(run, w, fmin(w->rate * seconds, most), &w->next_bytes, &w->next_count);
    if (!steady || w->sum.points < ENOUGH)
        return ask_final(run, w);
    w->finals++;
    return count_run(run, w);
}

static ap_status final_over(struct ap_probe_run *run, struct wan *w)
{
    if ((w->apart || w->sum.points < ENOUGH) && w->retries < RETRIES_MAX) {
        w->retries++;
        w->finals--;
        w->next_count = (int64_t)(LONGER * (double)w->next_count);
        return ask_final(run, w);
    }
    return count_run(run, w);
}

static ap_status run_over(struct ap_probe_run *run, struct wan *w)
{
    if (run->thorough)
        return w->finals > 0 ? final_over(run, w) : search(run, w);
    double guess = run->guess[link_at(run, w->partner, w->s.group.me)];
    int doubtful = w->apart || w->sum.points < ENOUGH || !agree(w->sum.half[0], w->sum.half[1], STEADY) ||
                   !agree(w->sum.rate, guess, STEADY);
    w->sum.rate = rate_of(w);
    return finish(run, w, &w->sum, doubtful);
}

/* My direction's turn. Without a guess nothing is asked in the first pass. */
static ap_status begin_own(struct ap_probe_run *run, struct wan *w)
{
    int me = w->s.group.me, at = link_at(run, w->partner, me);
    double rate = run->thorough ? run->rate[at] : run->guess[at], most = (double)run->opt->most_bytes;
    double seconds = ap_probe_duration(run, me, w->partner, ap_probe_rounds(w->s.group.n));
    w->own_begun = 1;
    w->rate = rate;
    if (run->thorough && !run->doubt[at]) {
        w->own_done = w->said_last = 1;
        return tell(run, w, w->peer, &(struct ap_probe_note){.kind = AP_PROBE_LAST});
    }
    if (!run->thorough && rate <= 0)
        return finish(run, w, &(struct ap_probe_line){0}, 1);
    if (run->thorough && rate <= 0)
        return ask(run, w, run->opt->block, AP_PROBE_FIRST, 0);
    return ask_size(run, w, rate, seconds, most, !run->thorough && (w->at_once || me > w->partner));
}

/* ---- events */

static int wanted(const struct ap_probe_run *run, int a, int b)
{
    return !run->thorough || run->doubt[link_at(run, a, b)] || run->doubt[link_at(run, b, a)];
}

static ap_status next_round(struct ap_probe_run *run, struct wan *w)
{
    const struct ap_probe_group *g = &w->s.group;
    int rounds = ap_probe_rounds(g->n);
    do
        w->partner = ++w->round < rounds ? ap_probe_partner(g->n, g->me, w->round) : -1;
    while (w->round < rounds && (w->partner < 0 || !wanted(run, g->me, w->partner)));
    if (w->partner < 0) {
        w->s.done = 1;
        return dismiss(run, w);
    }
    w->peer = g->members[w->partner];
    w->streams = ap_probe_streams(run, g->me, w->partner);
    w->own_begun = w->own_done = w->peer_done = w->said_last = 0;
    w->runs = w->finals = w->retries = w->steadies = w->roughs = 0;
    double seconds = ap_probe_duration(run, g->me, w->partner, rounds);
    w->at_once = !run->thorough && seconds <= run->rtt[link_at(run, g->me, w->partner)] / 2;
    AP_TRY(listen(run, w, w->peer));
    return w->at_once || g->me < w->partner ? begin_own(run, w) : AP_OK;
}

static ap_status start(struct ap_probe_run *run, struct ap_probe_state *state)
{
    struct wan *w = (struct wan *)state;
    w->round = -1;
    w->s.done = w->s.group.me < 0;
    if (w->s.done)
        return AP_OK;
    return w->s.group.lane > 0 ? listen(run, w, ap_probe_lane(run, 0, w->s.group.me)) : next_round(run, w);
}

static ap_status take_peer(struct ap_probe_run *run, struct wan *w, const struct ap_probe_note *note)
{
    w->peer_done = note->last || note->kind == AP_PROBE_LAST;
    if (!w->peer_done)
        AP_TRY(listen(run, w, w->peer));
    if (note->kind == AP_PROBE_PULL)
        AP_TRY(serve(run, w, note));
    else if (note->kind != AP_PROBE_LAST)
        return AP_ERR_BUG;
    return w->peer_done && !w->own_begun ? begin_own(run, w) : AP_OK;
}

static ap_status take_helper(struct ap_probe_run *run, struct wan *w, const struct ap_probe_event *e)
{
    int lane = 1;
    while (lane < w->streams && helper(run, w, lane) != e->peer)
        lane++;
    if (lane == w->streams)
        return AP_ERR_BUG;
    if (e->note.kind == AP_PROBE_GOT)
        return part_over(run, w, lane, e->note.value[0], e->note.value[1]);
    if (e->note.kind != AP_PROBE_RATE)
        return AP_ERR_BUG;
    const double *v = e->note.value;
    struct ap_probe_line l = {.rate = v[0], .half = {v[1], v[2]}, .residual = v[3], .points = e->note.points};
    add_line(w, &l);
    return w->waiting == 0 ? run_over(run, w) : AP_OK;
}

static ap_status event(struct ap_probe_run *run, struct ap_probe_state *state, const struct ap_probe_event *e)
{
    struct wan *w = (struct wan *)state;
    if (w->s.group.lane > 0)
        return help(run, w, e);
    if (e->kind == AP_PROBE_TIMER || (e->kind == AP_PROBE_BULK && e->peer != w->peer))
        return AP_ERR_BUG;
    if (e->kind == AP_PROBE_BULK) {
        struct ap_probe_stream *s = &w->stream;
        if (ap_probe_stream_got(s, e->time))
            AP_TRY(part_over(run, w, 0, s->times[0], s->times[s->count - 1]));
    } else {
        AP_TRY(e->peer == w->peer ? take_peer(run, w, &e->note) : take_helper(run, w, e));
    }
    return w->own_done && w->peer_done ? next_round(run, w) : AP_OK;
}

static void end(struct ap_probe_state *state)
{
    free(((struct wan *)state)->stream.times);
}

const struct ap_probe_phase ap_probe_wan_phase = {sizeof(struct wan), start, event, end};
