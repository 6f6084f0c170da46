/* SPDX-License-Identifier: Apache-2.0
 * Discrete events of one pipeline. A stage is idle or works on one half (forward or backward of a micro-batch); an
 * event is the end of a half or the arrival of a transfer. Events come off a heap in the order of their times. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/pipe_schedule.h"
#include "plan/simulate.h"

enum what { END_FORWARD, END_BACKWARD, COME_AHEAD, COME_BACK };

struct event {
    double time;
    int64_t order; /* of creation: ties */
    int what, stage;
};

struct stage_state {
    struct ap_pipe_cursor cursor;
    struct ap_pipe_op op;         /* what comes next, or is under way */
    int waiting, busy;            /* op waits for its input; is under way */
    int64_t ahead, back;          /* inputs that have come: activations, gradients */
    int64_t done;                 /* backwards ended */
    double ahead_free, back_free; /* when the link to the next stage, to the stage before, is free */
};

struct play {
    const struct ap_layout_model *m;
    const struct ap_layout *l;
    int d;
    int64_t rounds, created;
    struct stage_state *stage;
    int64_t *window; /* [stages] of pipeline d */
    struct ap_pipe_spec spec;
    struct event *heap; /* [3 * stages * window] */
    size_t count, room;
    double now, half_time; /* half_time: when half of the rounds were done on stage 0 */
};

static int before(const struct event *a, const struct event *b)
{
    return a->time != b->time ? a->time < b->time : a->order < b->order;
}

static ap_status push(struct play *p, double time, int what, int stage)
{
    if (p->count == p->room) {
        size_t room = 2 * p->room + 64;
        struct event *grown = realloc(p->heap, room * sizeof *grown);
        if (grown == NULL)
            return AP_ERR_NOMEM;
        p->heap = grown;
        p->room = room;
    }
    size_t at = p->count++;
    struct event e = {time, p->created++, what, stage};
    for (; at > 0 && before(&e, &p->heap[(at - 1) / 2]); at = (at - 1) / 2)
        p->heap[at] = p->heap[(at - 1) / 2];
    p->heap[at] = e;
    return AP_OK;
}

static struct event pop(struct play *p)
{
    struct event first = p->heap[0], last = p->heap[--p->count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= p->count)
            break;
        if (child + 1 < p->count && before(&p->heap[child + 1], &p->heap[child]))
            child++;
        if (before(&last, &p->heap[child]))
            break;
        p->heap[at] = p->heap[child];
        at = child;
    }
    p->heap[at] = last;
    return first;
}

/* Start what stage s has to do next, if its input has come; nothing else goes first, even if it could. */
static ap_status start(struct play *p, int s)
{
    struct stage_state *x = &p->stage[s];
    const struct ap_layout_stage *k = ap_layout_stage(p->m, p->l, s, p->d);
    if (x->busy)
        return AP_OK;
    if (!x->waiting)
        x->waiting = ap_pipe_next(&x->cursor, &x->op);
    int forward = x->op.work == AP_PIPE_FORWARD;
    if (!x->waiting || x->op.micro >= (forward ? x->ahead : x->back))
        return AP_OK;
    x->waiting = 0;
    x->busy = 1;
    return push(p, p->now + (forward ? k->forward : k->backward), forward ? END_FORWARD : END_BACKWARD, s);
}

/* One transfer on a link that is free from *free_p on; what comes on stage `to`. */
static ap_status send(struct play *p, double *free_p, double occupied, double latency, int what, int to)
{
    double from = fmax(p->now, *free_p);
    *free_p = from + occupied;
    return push(p, from + occupied + latency, what, to);
}

static ap_status happen(struct play *p, struct event e)
{
    int s = e.stage;
    struct stage_state *x = &p->stage[s];
    p->now = e.time;
    if (e.what == COME_AHEAD) {
        x->ahead++;
    } else if (e.what == COME_BACK) {
        x->back++;
    } else if (e.what == END_FORWARD) {
        x->busy = 0;
        if (s + 1 < p->l->pipeline) {
            const struct ap_layout_stage *k = ap_layout_stage(p->m, p->l, s, p->d);
            AP_TRY(send(p, &x->ahead_free, k->ahead.occupied, k->ahead.latency, COME_AHEAD, s + 1));
        }
    } else {
        x->busy = 0;
        x->done++;
        if (s > 0) {
            const struct ap_layout_stage *k = ap_layout_stage(p->m, p->l, s - 1, p->d);
            AP_TRY(send(p, &x->back_free, k->back.occupied, k->back.latency, COME_BACK, s - 1));
        } else if (x->done == (p->rounds + 1) / 2) {
            p->half_time = p->now;
        }
    }
    return start(p, s);
}

/* Seconds of pipeline d; INFINITY where it got stuck. */
static ap_status play(struct play *p, double *seconds_p)
{
    int64_t rounds = p->l->rounds[p->d];
    int stages = p->l->pipeline;
    memset(p->stage, 0, (size_t)stages * sizeof *p->stage);
    p->rounds = rounds < AP_SIMULATE_ROUNDS ? rounds : AP_SIMULATE_ROUNDS;
    p->count = 0;
    p->now = 0;
    for (int s = 0; s < stages; s++)
        p->window[s] = p->l->window[s * p->l->data + p->d];
    p->spec = (struct ap_pipe_spec){AP_PIPE_1F1B, stages, 1, p->rounds, p->window};
    if (ap_pipe_check(&p->spec, NULL) != AP_OK)
        return AP_ERR_BUG;
    for (int s = 0; s < stages; s++)
        ap_pipe_begin(&p->spec, s, &p->stage[s].cursor);
    p->stage[0].ahead = p->stage[stages - 1].back = p->rounds; /* at the ends nothing has to come */
    AP_TRY(start(p, 0));
    while (p->count > 0)
        AP_TRY(happen(p, pop(p)));
    for (int s = 0; s < stages; s++)
        if (p->stage[s].done != p->rounds)
            return AP_ERR_BUG;
    *seconds_p = p->now;
    if (p->rounds < rounds)
        *seconds_p += (double)(rounds - p->rounds) * (p->now - p->half_time) / (double)(p->rounds / 2);
    return AP_OK;
}

ap_status ap_simulate_step(const struct ap_layout_model *m, const struct ap_layout *l, double *seconds_p,
                           struct ap_error *err)
{
    struct play p = {.m = m, .l = l};
    double longest = 0;
    p.stage = calloc((size_t)l->pipeline, sizeof *p.stage);
    p.window = calloc((size_t)l->pipeline, sizeof *p.window);
    ap_status status = p.stage != NULL && p.window != NULL ? AP_OK : AP_ERR_NOMEM;
    for (p.d = 0; p.d < l->data && status == AP_OK; p.d++) {
        double seconds = 0;
        status = play(&p, &seconds);
        longest = fmax(longest, seconds);
    }
    free(p.stage);
    free(p.window);
    free(p.heap);
    if (status == AP_ERR_BUG)
        return ap_error_set(err, status, "the simulated schedule of pipeline %d got stuck", p.d - 1);
    if (status != AP_OK)
        return ap_error_set(err, status, "out of memory for the simulation");
    *seconds_p = longest + l->cost.sync_lan + l->cost.sync_wan + l->cost.optimizer;
    return AP_OK;
}
