/* SPDX-License-Identifier: Apache-2.0
 * Pipeline schedules: a cursor makes the order of a stage's operations, slots and events are dealt out along it.
 *
 * Buffers of a link. F and B are numbered in the order in which every stage does them, over all chunks; window w_s.
 * A message under way from stage s to s + 1, or its gradient on the way back, belongs to a chunk of a micro-batch whose
 * forward on s is begun and whose backward there is not done: at most w_s of them. With several chunks it is fewer. F_n
 * of a chunk other than the first needs that of the chunk before on the last stage, `group` places earlier in the
 * order, so all stages did that one; the first chunk of a group follows the last of the group before, so at most 2
 * group are under way (a bound, seldom reached). From the last stage to stage 0 a message is consumed `group` places
 * later, and F_n on the last stage needs F_n on stage 0: at most `group`. For gradients the same holds, with the order
 * reversed. */
#include "config.h"

#include <stdlib.h>

#include "plan/pipe_schedule.h"

#define MOST (1 << 20) /* stages, micro-batches; times AP_PIPE_MAX_CHUNKS it still is an int: slots, buffers */

/* Micro-batches go in `count` groups, of base + 1 (the first `extra` of them) or base. */
struct groups {
    int64_t count, base, extra;
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static struct groups group(const struct ap_pipe_spec *p)
{
    int64_t count = p->micros < p->stages ? 1 : p->micros / p->stages;
    return (struct groups){count, p->micros / count, p->micros % count};
}

static int64_t largest_group(const struct ap_pipe_spec *p)
{
    struct groups g = group(p);
    return g.base + (g.extra > 0);
}

ap_status ap_pipe_check(const struct ap_pipe_spec *p, struct ap_error *err)
{
    if (p->stages < 1 || p->stages > MOST || p->micros < 1 || p->micros > MOST)
        return ap_error_set(err, AP_ERR_INPUT,
                            "a pipeline of %d stages and %lld micro-batches: 1 to %d of each are possible", p->stages,
                            (long long)p->micros, MOST);
    if (p->chunks < 1 || p->chunks > AP_PIPE_MAX_CHUNKS)
        return ap_error_set(err, AP_ERR_INPUT, "%d chunks on a pipeline stage: 1 to %d are possible", p->chunks,
                            AP_PIPE_MAX_CHUNKS);
    if (p->kind != AP_PIPE_INTERLEAVED && p->chunks > 1) {
        ap_error_set(err, AP_ERR_INPUT, "%d chunks on a pipeline stage: the %s schedule has one", p->chunks,
                     p->kind == AP_PIPE_1F1B ? "1F1B" : "zero-bubble");
        ap_error_hint(err, "the interleaved schedule takes several");
        return AP_ERR_INPUT;
    }
    if (p->window != NULL && p->kind != AP_PIPE_1F1B)
        return ap_error_set(err, AP_ERR_INPUT, "only the 1F1B schedule has windows to choose");
    for (int s = 0; p->window != NULL && s < p->stages; s++) {
        if (p->window[s] >= 1 && (s == 0 || p->window[s] <= p->window[s - 1]))
            continue;
        ap_error_set(err, AP_ERR_INPUT, "pipeline stage %d: a window of %lld micro-batches", s,
                     (long long)p->window[s]);
        ap_error_hint(err, "windows are at least 1 and do not grow along the pipeline: a stage that wants more "
                           "micro-batches than the one before sends waits for ever");
        return AP_ERR_INPUT;
    }
    return AP_OK;
}

/* Forwards begun and backwards not begun on a stage, at most. */
static int64_t window(const struct ap_pipe_spec *p, int s)
{
    int64_t most = p->window != NULL ? p->window[s] : p->stages - s;
    if (p->chunks > 1)
        most = 2 * (int64_t)(p->stages - 1 - s) + (p->chunks - 1) * largest_group(p) + 1;
    return smaller(most, p->chunks * p->micros);
}

int64_t ap_pipe_slots(const struct ap_pipe_spec *p, int stage)
{
    int64_t most = window(p, stage) + (p->kind == AP_PIPE_ZERO_BUBBLE ? stage : 0);
    return smaller(most, p->chunks * p->micros);
}

int64_t ap_pipe_late(const struct ap_pipe_spec *p, int stage)
{
    return p->kind == AP_PIPE_ZERO_BUBBLE ? smaller((int64_t)stage + 1, p->micros) : 0;
}

void ap_pipe_begin(const struct ap_pipe_spec *p, int stage, struct ap_pipe_cursor *c)
{
    *c = (struct ap_pipe_cursor){.spec = p, .total = p->chunks * p->micros, .window = window(p, stage), .delay = stage};
}

/* Chunk and micro-batch of forward n, or of backward n: the chunks of a group in the reverse order. */
static void locate(const struct ap_pipe_spec *p, int64_t n, int backward, struct ap_pipe_op *op)
{
    struct groups g = group(p);
    int64_t size = g.base + 1, start = 0, first = g.extra * size * p->chunks;
    if (n >= first) {
        n -= first;
        start = g.extra * size;
        size = g.base;
    }
    int64_t within = n % (size * p->chunks);
    op->chunk = (int)(within / size);
    op->micro = start + n / (size * p->chunks) * size + within % size;
    if (backward)
        op->chunk = p->chunks - 1 - op->chunk;
}

int ap_pipe_next(struct ap_pipe_cursor *c, struct ap_pipe_op *op_p)
{
    int split = c->spec->kind == AP_PIPE_ZERO_BUBBLE;
    int64_t left = c->backwards - c->weights; /* backwards whose weights have to follow */
    op_p->slot = -1;
    if (split && left > 0 && (left > c->delay || c->backwards == c->total)) {
        op_p->work = AP_PIPE_BACKWARD_WEIGHT;
        locate(c->spec, c->weights++, 1, op_p);
    } else if (c->forwards < c->total && c->forwards - c->backwards < c->window) {
        op_p->work = AP_PIPE_FORWARD;
        locate(c->spec, c->forwards++, 0, op_p);
    } else if (c->backwards < c->total) {
        op_p->work = split ? AP_PIPE_BACKWARD_INPUT : AP_PIPE_BACKWARD;
        locate(c->spec, c->backwards++, 1, op_p);
    } else {
        return 0;
    }
    return 1;
}

/* ---- slots ---- */

/* Operations in order, each micro-batch of a chunk in a slot from its forward to the last that needs it. */
static ap_status add_ops(const struct ap_pipe_spec *p, struct ap_pipe_schedule *x)
{
    int64_t total = p->chunks * p->micros, spare_count = 0;
    int *slot = calloc((size_t)total, sizeof *slot), *spare = calloc((size_t)ap_pipe_slots(p, x->stage), sizeof *spare);
    x->op_count = total * (p->kind == AP_PIPE_ZERO_BUBBLE ? 3 : 2);
    x->ops = calloc((size_t)x->op_count, sizeof *x->ops);
    ap_status status = slot != NULL && spare != NULL && x->ops != NULL ? AP_OK : AP_ERR_NOMEM;
    struct ap_pipe_cursor c;
    ap_pipe_begin(p, x->stage, &c);
    for (int64_t n = 0; status == AP_OK && n < x->op_count; n++) {
        struct ap_pipe_op *op = &x->ops[n];
        ap_pipe_next(&c, op);
        int *own = &slot[op->chunk * p->micros + op->micro];
        if (op->work == AP_PIPE_FORWARD)
            *own = spare_count > 0 ? spare[--spare_count] : x->slot_count++;
        else if (op->work != AP_PIPE_BACKWARD_INPUT)
            spare[spare_count++] = *own;
        op->slot = *own;
    }
    free(slot);
    free(spare);
    return status;
}

/* ---- events ---- */

struct writer {
    const struct ap_pipe_spec *p;
    struct ap_pipe_schedule *x;
    int peer[AP_PIPE_FLOWS];
    int64_t started[AP_PIPE_FLOWS], waited[AP_PIPE_FLOWS]; /* messages */
    int64_t ahead[AP_PIPE_FLOWS];                          /* of the flows in: the next operation to look at */
};

/* The flow an operation takes its input from, or gives its output to; AP_PIPE_FLOWS: none. */
static enum ap_pipe_flow flow_of(const struct writer *w, const struct ap_pipe_op *op, int out)
{
    int first = w->x->stage == 0 && op->chunk == 0;
    int last = w->x->stage == w->p->stages - 1 && op->chunk == w->p->chunks - 1;
    if (op->work == AP_PIPE_BACKWARD_WEIGHT)
        return AP_PIPE_FLOWS;
    if (op->work == AP_PIPE_FORWARD)
        return out ? (last ? AP_PIPE_FLOWS : AP_PIPE_ACTIVATIONS_OUT)
                   : (first ? AP_PIPE_FLOWS : AP_PIPE_ACTIVATIONS_IN);
    return out ? (first ? AP_PIPE_FLOWS : AP_PIPE_GRADIENTS_OUT) : (last ? AP_PIPE_FLOWS : AP_PIPE_GRADIENTS_IN);
}

/* By the chunk that receives, and the direction. */
static int tag_of(const struct writer *w, enum ap_pipe_flow flow, int chunk)
{
    if (flow == AP_PIPE_ACTIVATIONS_OUT && w->x->stage == w->p->stages - 1)
        chunk++;
    if (flow == AP_PIPE_GRADIENTS_OUT && w->x->stage == 0)
        chunk--;
    return 2 * chunk + (flow == AP_PIPE_GRADIENTS_IN || flow == AP_PIPE_GRADIENTS_OUT);
}

/* Messages that can be under way between stage s and the next, see above. */
static int64_t under_way(const struct ap_pipe_spec *p, int s)
{
    int64_t most = window(p, s);
    if (p->chunks > 1)
        most = s == p->stages - 1 ? largest_group(p) : smaller(most, 2 * largest_group(p));
    return most;
}

static struct ap_pipe_event *add(struct writer *w, enum ap_pipe_what what, int64_t op)
{
    struct ap_pipe_event *e = &w->x->events[w->x->event_count++];
    *e = (struct ap_pipe_event){.what = what, .peer = -1, .tag = -1, .in = -1, .out = -1, .op = op};
    return e;
}

static void start(struct writer *w, enum ap_pipe_flow flow, int64_t op)
{
    int in = flow == AP_PIPE_ACTIVATIONS_IN || flow == AP_PIPE_GRADIENTS_IN;
    struct ap_pipe_event *e = add(w, in ? AP_PIPE_RECV_START : AP_PIPE_SEND_START, op);
    e->flow = flow;
    e->buffer = (int)(w->started[flow]++ % w->x->buffers[flow]);
    e->peer = w->peer[flow];
    e->tag = tag_of(w, flow, w->x->ops[op].chunk);
}

static int wait_oldest(struct writer *w, enum ap_pipe_flow flow, int64_t op)
{
    struct ap_pipe_event *e = add(w, AP_PIPE_WAIT, op);
    e->flow = flow;
    return e->buffer = (int)(w->waited[flow]++ % w->x->buffers[flow]);
}

/* Start the receive of the next message that comes, if there is one. */
static void start_receive(struct writer *w, enum ap_pipe_flow flow)
{
    int64_t *at = &w->ahead[flow];
    while (*at < w->x->op_count && flow_of(w, &w->x->ops[*at], 0) != flow)
        ++*at;
    if (*at < w->x->op_count)
        start(w, flow, (*at)++);
}

/* One operation with what goes before and after it. */
static void add_op(struct writer *w, int64_t i)
{
    enum ap_pipe_flow from = flow_of(w, &w->x->ops[i], 0), to = flow_of(w, &w->x->ops[i], 1);
    int in = -1, out = -1;
    if (from != AP_PIPE_FLOWS)
        in = wait_oldest(w, from, i);
    if (to != AP_PIPE_FLOWS) {
        out = (int)(w->started[to] % w->x->buffers[to]);
        if (w->started[to] - w->waited[to] == w->x->buffers[to])
            wait_oldest(w, to, i);
    }
    struct ap_pipe_event *e = add(w, AP_PIPE_COMPUTE, i);
    e->in = in;
    e->out = out;
    if (to != AP_PIPE_FLOWS)
        start(w, to, i);
    if (from != AP_PIPE_FLOWS)
        start_receive(w, from);
}

static ap_status add_events(const struct ap_pipe_spec *p, struct ap_pipe_schedule *x)
{
    static const enum ap_pipe_flow ins[] = {AP_PIPE_ACTIVATIONS_IN, AP_PIPE_GRADIENTS_IN};
    static const enum ap_pipe_flow outs[] = {AP_PIPE_ACTIVATIONS_OUT, AP_PIPE_GRADIENTS_OUT};
    struct writer w = {.p = p, .x = x};
    int before = (x->stage + p->stages - 1) % p->stages, after = (x->stage + 1) % p->stages;
    int64_t messages[AP_PIPE_FLOWS + 1] = {0}, events = x->op_count;
    for (int64_t i = 0; i < x->op_count; i++)
        for (int out = 0; out < 2; out++)
            messages[flow_of(&w, &x->ops[i], out)]++;
    for (int f = 0; f < AP_PIPE_FLOWS; f++) {
        int up = f == AP_PIPE_ACTIVATIONS_IN || f == AP_PIPE_GRADIENTS_OUT; /* towards the stage before */
        w.peer[f] = up ? before : after;
        x->buffers[f] = (int)smaller(messages[f], under_way(p, up ? before : x->stage));
        events += 2 * messages[f];
    }
    x->events = calloc((size_t)events, sizeof *x->events);
    if (x->events == NULL)
        return AP_ERR_NOMEM;
    for (int f = 0; f < 2; f++)
        for (int b = 0; b < x->buffers[ins[f]]; b++)
            start_receive(&w, ins[f]);
    for (int64_t i = 0; i < x->op_count; i++)
        add_op(&w, i);
    for (int f = 0; f < 2; f++)
        while (w.waited[outs[f]] < w.started[outs[f]])
            wait_oldest(&w, outs[f], x->op_count);
    return AP_OK;
}

ap_status ap_pipe_schedule_create(const struct ap_pipe_spec *p, int stage, struct ap_pipe_schedule **schedule_p,
                                  struct ap_error *err)
{
    AP_TRY(ap_pipe_check(p, err));
    if (stage < 0 || stage >= p->stages)
        return ap_error_set(err, AP_ERR_INPUT, "stage %d of a pipeline of %d", stage, p->stages);
    struct ap_pipe_schedule *x = calloc(1, sizeof *x);
    ap_status status = x != NULL ? AP_OK : AP_ERR_NOMEM;
    if (status == AP_OK) {
        x->stage = stage;
        status = add_ops(p, x);
    }
    if (status == AP_OK)
        status = add_events(p, x);
    if (status != AP_OK) {
        ap_pipe_schedule_destroy(x);
        return ap_error_set(err, status, "out of memory for the pipeline's schedule");
    }
    *schedule_p = x;
    return AP_OK;
}

void ap_pipe_schedule_destroy(struct ap_pipe_schedule *schedule)
{
    if (schedule == NULL)
        return;
    free(schedule->ops);
    free(schedule->events);
    free(schedule);
}
