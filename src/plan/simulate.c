/* SPDX-License-Identifier: Apache-2.0
 * Discrete events of one pipeline. A stage is idle or works on one operation; an event is the end of an operation or
 * the arrival of a transfer. Events come off a heap in the order of their times. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/simulate.h"

enum what { END, COME_AHEAD, COME_BACK };

struct event {
    double time;
    int64_t order; /* of creation: ties */
    int what, at;  /* virtual stage */
};

struct stage_state {
    struct ap_pipe_cursor cursor;
    struct ap_pipe_op op;         /* what comes next, or is under way */
    int waiting, busy;            /* op waits for its input; is under way */
    int64_t done;                 /* backwards ended */
    double ahead_free, back_free; /* when the link to the next stage, to the stage before, is free */
};

struct play {
    struct ap_pipe_spec spec;
    const struct ap_layout_stage *k; /* [virtual stages] */
    int last;                        /* virtual stage */
    int64_t created, ended;          /* events; operations */
    struct stage_state *stage;
    int64_t *ahead, *back; /* [virtual stages] inputs that have come: activations, gradients */
    struct event *heap;
    size_t count, room;
    double now, half_time; /* half_time: when half of the rounds were done on stage 0 */
};

static int before(const struct event *a, const struct event *b)
{
    return a->time != b->time ? a->time < b->time : a->order < b->order;
}

static ap_status push(struct play *p, double time, int what, int at_stage)
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
    struct event e = {time, p->created++, what, at_stage};
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
    if (x->busy)
        return AP_OK;
    if (!x->waiting)
        x->waiting = ap_pipe_next(&x->cursor, &x->op);
    if (!x->waiting)
        return AP_OK;
    int at = x->op.chunk * p->spec.stages + s;
    const struct ap_layout_stage *k = &p->k[at];
    int64_t come = x->op.micro + 1; /* gradients of weights have all they need */
    double seconds = k->weight;
    if (x->op.work == AP_PIPE_FORWARD) {
        come = p->ahead[at];
        seconds = k->forward;
    } else if (x->op.work != AP_PIPE_BACKWARD_WEIGHT) {
        come = p->back[at];
        seconds = x->op.work == AP_PIPE_BACKWARD ? k->backward : k->backward - k->weight;
    }
    if (x->op.micro >= come)
        return AP_OK;
    x->waiting = 0;
    x->busy = 1;
    return push(p, p->now + seconds, END, at);
}

/* One transfer on a link that is free from *free_p on; what comes on virtual stage `to`. */
static ap_status send(struct play *p, double *free_p, double occupied, double latency, int what, int to)
{
    double from = fmax(p->now, *free_p);
    *free_p = from + occupied;
    return push(p, from + occupied + latency, what, to);
}

static ap_status end(struct play *p, struct stage_state *x, int at)
{
    x->busy = 0;
    p->ended++;
    if (x->op.work == AP_PIPE_BACKWARD_WEIGHT)
        return AP_OK;
    if (x->op.work == AP_PIPE_FORWARD) {
        const struct ap_layout_stage *k = &p->k[at];
        if (at == p->last)
            return AP_OK;
        return send(p, &x->ahead_free, k->ahead.occupied, k->ahead.latency, COME_AHEAD, at + 1);
    }
    x->done++;
    if (at % p->spec.stages == 0 && x->done == (p->spec.chunks * p->spec.micros + 1) / 2)
        p->half_time = p->now;
    if (at == 0)
        return AP_OK;
    const struct ap_layout_stage *k = &p->k[at - 1];
    return send(p, &x->back_free, k->back.occupied, k->back.latency, COME_BACK, at - 1);
}

static ap_status happen(struct play *p, struct event e)
{
    int s = e.at % p->spec.stages;
    p->now = e.time;
    if (e.what == COME_AHEAD)
        p->ahead[e.at]++;
    else if (e.what == COME_BACK)
        p->back[e.at]++;
    else
        AP_TRY(end(p, &p->stage[s], e.at));
    return start(p, s);
}

static ap_status play(struct play *p, int64_t rounds, double *seconds_p)
{
    int64_t all = p->spec.chunks * p->spec.micros * p->spec.stages;
    for (int s = 0; s < p->spec.stages; s++)
        ap_pipe_begin(&p->spec, s, &p->stage[s].cursor);
    p->ahead[0] = p->back[p->last] = p->spec.micros; /* at the ends nothing has to come */
    AP_TRY(start(p, 0));
    while (p->count > 0)
        AP_TRY(happen(p, pop(p)));
    if (p->ended != all * (p->spec.kind == AP_PIPE_ZERO_BUBBLE ? 3 : 2))
        return AP_ERR_BUG;
    *seconds_p = p->now;
    if (p->spec.micros < rounds)
        *seconds_p += (double)(rounds - p->spec.micros) * (p->now - p->half_time) / (double)(p->spec.micros / 2);
    return AP_OK;
}

ap_status ap_simulate_pipe(const struct ap_pipe_spec *spec, const struct ap_layout_stage *k, int64_t most,
                           double *seconds_p)
{
    if (ap_pipe_check(spec, NULL) != AP_OK)
        return AP_ERR_BUG;
    struct play p = {.spec = *spec, .k = k, .last = spec->chunks * spec->stages - 1};
    if (p.spec.micros > most)
        p.spec.micros = most;
    p.stage = calloc((size_t)spec->stages, sizeof *p.stage);
    p.ahead = calloc((size_t)p.last + 1, sizeof *p.ahead);
    p.back = calloc((size_t)p.last + 1, sizeof *p.back);
    ap_status status = AP_ERR_NOMEM;
    if (p.stage != NULL && p.ahead != NULL && p.back != NULL)
        status = play(&p, spec->micros, seconds_p);
    free(p.stage);
    free(p.ahead);
    free(p.back);
    free(p.heap);
    return status;
}

ap_status ap_simulate_layout(const struct ap_layout_model *m, const struct ap_layout *l, int d, int64_t most,
                             double *seconds_p)
{
    struct ap_layout_stage *k = calloc((size_t)l->pipeline, sizeof *k);
    int64_t *window = calloc((size_t)l->pipeline, sizeof *window);
    ap_status status = k != NULL && window != NULL ? AP_OK : AP_ERR_NOMEM;
    for (int s = 0; s < l->pipeline && status == AP_OK; s++) {
        k[s] = *ap_layout_stage(m, l, s, d);
        window[s] = l->window[s * l->data + d];
    }
    if (status == AP_OK) {
        struct ap_pipe_spec spec = {AP_PIPE_1F1B, l->pipeline, 1, l->rounds[d], window};
        status = ap_simulate_pipe(&spec, k, most, seconds_p);
    }
    free(k);
    free(window);
    return status;
}

ap_status ap_simulate_step(const struct ap_layout_model *m, const struct ap_layout *l, double *seconds_p,
                           struct ap_error *err)
{
    double longest = 0;
    for (int d = 0; d < l->data; d++) {
        double seconds = 0;
        ap_status status = ap_simulate_layout(m, l, d, AP_SIMULATE_ROUNDS, &seconds);
        if (status == AP_ERR_BUG)
            return ap_error_set(err, status, "the simulated schedule of pipeline %d got stuck", d);
        if (status != AP_OK)
            return ap_error_set(err, status, "out of memory for the simulation");
        longest = fmax(longest, seconds);
    }
    *seconds_p = longest + l->cost.sync_lan + l->cost.sync_wan + l->cost.optimizer;
    return AP_OK;
}
