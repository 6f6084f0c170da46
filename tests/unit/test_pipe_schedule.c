/* SPDX-License-Identifier: Apache-2.0
 * Pipeline schedules: a machine of stages that executes the event lists with sends that are done only when they are
 * received, knows nothing of how the lists came about, and names the first thing that is wrong; the same lists damaged
 * event by event, which it must notice; bubbles against their closed forms; orders written by hand. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "plan/pipe_schedule.h"
#include "plan/simulate.h"
#include "support/leaks.h"

/* ---- times ---- */

/* Seconds of operations and messages: of each virtual stage in k, or the same for all; these times 1/50 to 50 if there
 * is a seed, so that every stage is ahead of and behind its neighbours some time. */
struct times {
    double forward, backward, weight, latency;
    uint64_t seed;
    const struct ap_layout_stage *k;
};

static double vary(const struct times *t, double base, int64_t id)
{
    return t->seed == 0 ? base : base * pow(50, 2 * ap_rng_uniform(t->seed, AP_RNG_TEST, (uint64_t)id) - 1);
}

/* What identifies the passage of a micro-batch through virtual stage k: direction 0 forward, 1 back, 2 weights. Also
 * the message that comes of it. Never 0. */
static int64_t passage(const struct ap_pipe_spec *p, int64_t k, int64_t micro, int direction)
{
    return 1 + direction + 3 * (k * p->micros + micro);
}

static int direction_of(enum ap_pipe_work work)
{
    return work == AP_PIPE_FORWARD ? 0 : work == AP_PIPE_BACKWARD_WEIGHT ? 2 : 1;
}

static double duration(const struct ap_pipe_spec *p, const struct times *t, int stage, const struct ap_pipe_op *op)
{
    int d = direction_of(op->work), at = op->chunk * p->stages + stage;
    if (t->k != NULL && d == 1)
        return t->k[at].backward - (p->kind == AP_PIPE_ZERO_BUBBLE ? t->k[at].weight : 0);
    if (t->k != NULL)
        return d == 0 ? t->k[at].forward : t->k[at].weight;
    double base = d == 0 ? t->forward : d == 2 ? t->weight : t->backward;
    return vary(t, base, passage(p, at, op->micro, d));
}

static double latency(const struct ap_pipe_spec *p, const struct times *t, int64_t message)
{
    int64_t at = (message - 1) / 3 / p->micros, last = (int64_t)p->chunks * p->stages - 1;
    if (t->k != NULL && (message - 1) % 3 == 0)
        return at < last ? t->k[at].ahead.latency : 0;
    if (t->k != NULL)
        return at > 0 ? t->k[at - 1].back.latency : 0;
    return vary(t, t->latency, -message);
}

/* ---- the machine ---- */

enum { IDLE, STARTED, DONE };

struct request {
    int state, sends, wanted; /* wanted: the receiver waits for it */
    int64_t content;          /* of the buffer: a passage, 0 is none, -1 is under way */
    double began, done;
    struct request *partner, *next;
};

struct stage {
    const struct ap_pipe_schedule *x;
    int64_t at, occupied, peak, between; /* between: most micro-batches between the halves of backward */
    double now;
    struct request *request[AP_PIPE_FLOWS];
    int64_t *slot;            /* what is in them: chunk * micros + micro, -1 is nothing */
    char *forward, *input;    /* [chunks * micros] done */
    int64_t *next[3];         /* [chunks] micro-batch that has to come next, by direction */
    struct request **channel; /* [stages * tags] requests of this receiver that have no partner yet */
};

struct machine {
    const struct ap_pipe_spec *p;
    const struct times *t;
    int late; /* sends are done only when their receive is waited for */
    int tags;
    struct stage *stage;
    char fault[200];
};

static int fail(struct machine *m, int s, const char *fmt, ...)
{
    va_list args;
    int at = snprintf(m->fault, sizeof m->fault, "stage %d event %d: ", s, (int)m->stage[s].at);
    va_start(args, fmt);
    vsnprintf(m->fault + at, sizeof m->fault - (size_t)at, fmt, args);
    va_end(args);
    return -1;
}

static void *zeroed(int64_t n, size_t size)
{
    void *x = calloc((size_t)n + 1, size);
    cr_assert_not_null(x);
    return x;
}

static void machine_open(struct machine *m, struct ap_pipe_schedule *const *lists)
{
    int64_t own = m->p->chunks * m->p->micros;
    m->tags = 2 * m->p->chunks;
    m->stage = zeroed(m->p->stages, sizeof *m->stage);
    m->fault[0] = '\0';
    for (int s = 0; s < m->p->stages; s++) {
        struct stage *y = &m->stage[s];
        y->x = lists[s];
        for (int f = 0; f < AP_PIPE_FLOWS; f++)
            y->request[f] = zeroed(y->x->buffers[f], sizeof *y->request[f]);
        y->slot = zeroed(y->x->slot_count, sizeof *y->slot);
        for (int i = 0; i < y->x->slot_count; i++)
            y->slot[i] = -1;
        y->forward = zeroed(own, 1);
        y->input = zeroed(own, 1);
        for (int d = 0; d < 3; d++)
            y->next[d] = zeroed(m->p->chunks, sizeof *y->next[d]);
        y->channel = zeroed((int64_t)m->p->stages * m->tags, sizeof(struct request *));
    }
}

static void machine_close(struct machine *m)
{
    for (int s = 0; s < m->p->stages; s++) {
        struct stage *y = &m->stage[s];
        for (int f = 0; f < AP_PIPE_FLOWS; f++)
            free(y->request[f]);
        for (int d = 0; d < 3; d++)
            free(y->next[d]);
        free(y->slot);
        free(y->forward);
        free(y->input);
        free(y->channel);
    }
    free(m->stage);
}

static void complete(struct machine *m, struct request *a)
{
    struct request *b = a->partner, *send = a->sends ? a : b, *recv = a->sends ? b : a;
    if (m->late && !recv->wanted)
        return;
    recv->content = send->content;
    a->done = b->done = fmax(a->began, b->began) + latency(m->p, m->t, send->content);
    a->state = b->state = DONE;
}

static int is_in(enum ap_pipe_flow f)
{
    return f == AP_PIPE_ACTIVATIONS_IN || f == AP_PIPE_GRADIENTS_IN;
}

/* n-th send and n-th receive of (sender, receiver, tag) belong together. */
static int begin(struct machine *m, int s, const struct ap_pipe_event *e, struct request *r)
{
    int sends = e->what == AP_PIPE_SEND_START;
    if (r->state != IDLE)
        return fail(m, s, "a request started twice");
    if (sends == is_in(e->flow) || e->peer < 0 || e->peer >= m->p->stages || e->tag < 0 || e->tag >= m->tags)
        return fail(m, s, "a start with flow %d, peer %d, tag %d", (int)e->flow, e->peer, e->tag);
    if (!sends && r->content > 0)
        return fail(m, s, "received over what was not read yet");
    int receiver = sends ? e->peer : s, sender = sends ? s : e->peer;
    struct request **at = &m->stage[receiver].channel[sender * m->tags + e->tag];
    *r = (struct request){STARTED, sends, 0, sends ? r->content : -1, m->stage[s].now, 0, NULL, NULL};
    if (*at != NULL && (*at)->sends != sends) {
        r->partner = *at;
        r->partner->partner = r;
        *at = r->partner->next;
        complete(m, r);
        return 1;
    }
    while (*at != NULL)
        at = &(*at)->next;
    *at = r;
    return 1;
}

/* 0: not yet. */
static int await(struct machine *m, int s, struct request *r)
{
    if (r->state == IDLE)
        return fail(m, s, "waits for what was not started");
    r->wanted |= !r->sends;
    if (r->state == STARTED && r->partner != NULL)
        complete(m, r);
    if (r->state == STARTED)
        return 0;
    m->stage[s].now = fmax(m->stage[s].now, r->done);
    r->state = IDLE;
    return 1;
}

/* The buffer of an operation: must there be one (the passage it holds, or will hold), is it free to use? */
static int use(struct machine *m, int s, enum ap_pipe_flow f, int buffer, int64_t want)
{
    struct stage *y = &m->stage[s];
    if ((buffer >= 0) != (want > 0) || buffer >= y->x->buffers[f])
        return fail(m, s, "buffer %d of flow %d", buffer, (int)f);
    if (buffer < 0)
        return 1;
    struct request *r = &y->request[f][buffer];
    if (r->state != IDLE)
        return fail(m, s, "buffer %d of flow %d is under way", buffer, (int)f);
    if (is_in(f) && r->content != want)
        return fail(m, s, "buffer %d of flow %d holds another message", buffer, (int)f);
    r->content = is_in(f) ? 0 : want;
    return 1;
}

/* Slots and order of one operation. */
static int live(struct machine *m, int s, const struct ap_pipe_op *op)
{
    struct stage *y = &m->stage[s];
    int64_t own = op->chunk * m->p->micros + op->micro;
    if (op->slot < 0 || op->slot >= y->x->slot_count)
        return fail(m, s, "slot %d", op->slot);
    if (op->micro != y->next[direction_of(op->work)][op->chunk]++)
        return fail(m, s, "micro-batch %d out of order", (int)op->micro);
    if (op->work == AP_PIPE_FORWARD) {
        if (y->slot[op->slot] != -1 || y->forward[own])
            return fail(m, s, "forward into a slot in use");
        y->slot[op->slot] = own;
        y->forward[own] = 1;
        y->occupied++;
        y->peak = y->occupied > y->peak ? y->occupied : y->peak;
        return 1;
    }
    if (y->slot[op->slot] != own)
        return fail(m, s, "backward from a slot that holds something else");
    if (y->input[own] != (op->work == AP_PIPE_BACKWARD_WEIGHT))
        return fail(m, s, "weights before input, or a backward twice");
    y->input[own] = 1;
    int64_t between = y->next[1][op->chunk] - y->next[2][op->chunk];
    if (op->work == AP_PIPE_BACKWARD_INPUT && between > y->between)
        y->between = between;
    if (op->work != AP_PIPE_BACKWARD_INPUT) {
        y->slot[op->slot] = -1;
        y->occupied--;
    }
    return 1;
}

static int compute(struct machine *m, int s, const struct ap_pipe_event *e)
{
    const struct ap_pipe_spec *p = m->p;
    struct stage *y = &m->stage[s];
    if (e->op < 0 || e->op >= y->x->op_count)
        return fail(m, s, "operation %d", (int)e->op);
    const struct ap_pipe_op *op = &y->x->ops[e->op];
    int split = p->kind == AP_PIPE_ZERO_BUBBLE;
    int d = direction_of(op->work);
    int64_t k = (int64_t)op->chunk * p->stages + s, last = (int64_t)p->chunks * p->stages - 1;
    int64_t in = d == 0 && k > 0      ? passage(p, k - 1, op->micro, 0)
                 : d == 1 && k < last ? passage(p, k + 1, op->micro, 1)
                                      : 0;
    int64_t out = (d == 0 && k < last) || (d == 1 && k > 0) ? passage(p, k, op->micro, d) : 0;
    if (op->chunk < 0 || op->chunk >= p->chunks || op->micro < 0 || op->micro >= p->micros)
        return fail(m, s, "chunk %d micro-batch %d", op->chunk, (int)op->micro);
    if (op->work == (split ? AP_PIPE_BACKWARD : AP_PIPE_BACKWARD_INPUT) || (d == 2 && !split))
        return fail(m, s, "work %d", (int)op->work);
    int ok = use(m, s, d == 0 ? AP_PIPE_ACTIVATIONS_IN : AP_PIPE_GRADIENTS_IN, e->in, in);
    if (ok == 1)
        ok = use(m, s, d == 0 ? AP_PIPE_ACTIVATIONS_OUT : AP_PIPE_GRADIENTS_OUT, e->out, out);
    if (ok == 1)
        ok = live(m, s, op);
    y->now += duration(p, m->t, s, op);
    return ok;
}

/* Nothing is left over, and as much memory was in use as was asked for. */
static int ended(struct machine *m, int s)
{
    struct stage *y = &m->stage[s];
    for (int d = 0; d < (m->p->kind == AP_PIPE_ZERO_BUBBLE ? 3 : 2); d++)
        for (int c = 0; c < m->p->chunks; c++)
            if (y->next[d][c] != m->p->micros)
                return fail(m, s, "%d passages of chunk %d", (int)y->next[d][c], c);
    for (int f = 0; f < AP_PIPE_FLOWS; f++)
        for (int b = 0; b < y->x->buffers[f]; b++)
            if (y->request[f][b].state != IDLE || (is_in(f) && y->request[f][b].content != 0))
                return fail(m, s, "a message of flow %d is left", f);
    if (y->occupied != 0 || y->peak != y->x->slot_count || y->peak != ap_pipe_slots(m->p, s))
        return fail(m, s, "%d slots at the end, %d at most, %d asked for", (int)y->occupied, (int)y->peak,
                    y->x->slot_count);
    if (y->between != ap_pipe_late(m->p, s))
        return fail(m, s, "%d micro-batches between the halves of backward, not %d", (int)y->between,
                    (int)ap_pipe_late(m->p, s));
    return 1;
}

/* Events until this stage has to wait; 0: none was possible. */
static int advance(struct machine *m, int s)
{
    struct stage *y = &m->stage[s];
    int ok = 1, some = 0;
    for (; y->at < y->x->event_count && ok == 1; y->at += ok == 1) {
        const struct ap_pipe_event *e = &y->x->events[y->at];
        if (e->what == AP_PIPE_COMPUTE) {
            ok = compute(m, s, e);
        } else if (e->buffer < 0 || e->buffer >= y->x->buffers[e->flow]) {
            ok = fail(m, s, "buffer %d of flow %d", e->buffer, (int)e->flow);
        } else {
            struct request *r = &y->request[e->flow][e->buffer];
            ok = e->what == AP_PIPE_WAIT ? await(m, s, r) : begin(m, s, e, r);
        }
        some |= ok == 1;
    }
    return ok < 0 ? -1 : some;
}

/* Seconds of all stages; negative with the fault in words. No receive takes what comes first, so the order in which
 * stages are looked at does not matter. */
static double execute(const struct ap_pipe_spec *p, struct ap_pipe_schedule *const *lists, const struct times *t,
                      int late, char fault[200])
{
    struct machine m = {.p = p, .t = t, .late = late};
    int ok = 1, left = 1;
    double end = 0;
    machine_open(&m, lists);
    while (ok > 0 && left > 0) {
        int some = 0;
        left = 0;
        for (int s = 0; s < p->stages && ok >= 0; s++) {
            ok = advance(&m, s);
            some |= ok > 0;
            left += m.stage[s].at < m.stage[s].x->event_count;
        }
        if (ok >= 0)
            ok = left == 0 || some ? 1 : fail(&m, 0, "%d stages wait for each other", left);
    }
    for (int s = 0; s < p->stages && ok > 0; s++) {
        ok = ended(&m, s);
        end = fmax(end, m.stage[s].now);
    }
    memcpy(fault, m.fault, sizeof m.fault);
    machine_close(&m);
    return ok > 0 ? end : -1;
}

/* ---- the order alone ---- */

/* Seconds with as many buffers as one likes: an operation begins when the one before it on its stage has ended and its
 * input has come. Negative: the order cannot be kept. */
static double ideal(const struct ap_pipe_spec *p, struct ap_pipe_schedule *const *lists, const struct times *t)
{
    int64_t last = (int64_t)p->chunks * p->stages - 1, *at = zeroed(p->stages, sizeof *at);
    double *come = zeroed(passage(p, last + 1, 0, 0), sizeof *come), *now = zeroed(p->stages, sizeof *now), end = 0;
    int some = 1, left = 0;
    while (some) {
        some = 0;
        for (int s = 0; s < p->stages; s++) {
            for (; at[s] < lists[s]->op_count; at[s]++, some = 1) {
                const struct ap_pipe_op *op = &lists[s]->ops[at[s]];
                int d = direction_of(op->work);
                int64_t k = (int64_t)op->chunk * p->stages + s, own = passage(p, k, op->micro, d), in = 0;
                if (d == 0 && k > 0)
                    in = passage(p, k - 1, op->micro, 0);
                if (d == 1 && k < last)
                    in = passage(p, k + 1, op->micro, 1);
                if (in > 0 && come[in] == 0)
                    break;
                now[s] = fmax(now[s], in > 0 ? come[in] : 0) + duration(p, t, s, op);
                come[own] = now[s] + latency(p, t, own);
                end = fmax(end, now[s]);
            }
        }
    }
    for (int s = 0; s < p->stages; s++)
        left += at[s] < lists[s]->op_count;
    free(at);
    free(come);
    free(now);
    return left ? -1 : end;
}

static struct ap_pipe_schedule **create(const struct ap_pipe_spec *p)
{
    struct ap_pipe_schedule **lists = zeroed(p->stages, sizeof(struct ap_pipe_schedule *));
    for (int s = 0; s < p->stages; s++) {
        struct ap_error err = {0};
        cr_assert_eq(ap_pipe_schedule_create(p, s, &lists[s], &err), AP_OK, "%s", err.text);
    }
    return lists;
}

static void destroy(const struct ap_pipe_spec *p, struct ap_pipe_schedule **lists)
{
    for (int s = 0; s < p->stages; s++)
        ap_pipe_schedule_destroy(lists[s]);
    free(lists);
}

static const char *const names[] = {"1F1B", "interleaved", "zero-bubble"};

/* Both ways to be done, and times that no buffer makes longer than the order alone does. */
static void prove(const struct ap_pipe_spec *p, uint64_t seed)
{
    struct times t = {1, 2, 1, seed % 3 == 0 ? 0.01 : seed % 3 == 1 ? 1 : 20, seed + 1};
    struct ap_pipe_schedule **lists = create(p);
    char fault[200];
    double end = execute(p, lists, &t, 0, fault), best = ideal(p, lists, &t);
    cr_expect_gt(end, 0, "%s P %d v %d M %d: %s", names[p->kind], p->stages, p->chunks, (int)p->micros, fault);
    cr_expect_float_eq(end / best, 1, 1e-12, "%s P %d v %d M %d: %g s with buffers, %g s by the order alone",
                       names[p->kind], p->stages, p->chunks, (int)p->micros, end, best);
    end = execute(p, lists, &t, 1, fault);
    cr_expect_gt(end, 0, "%s P %d v %d M %d, late: %s", names[p->kind], p->stages, p->chunks, (int)p->micros, fault);
    destroy(p, lists);
}

/* ---- tests ---- */

AP_TEST(pipe_schedule, every_small_size, .timeout = 60)
{
    for (int P = 1; P <= 8; P++)
        for (int v = 1; v <= 4; v++)
            for (int M = 1; M <= 24; M++)
                for (int kind = AP_PIPE_1F1B; kind <= AP_PIPE_ZERO_BUBBLE; kind++) {
                    struct ap_pipe_spec p = {(enum ap_pipe_kind)kind, P, v, M, NULL};
                    if (v == 1 || kind == AP_PIPE_INTERLEAVED)
                        prove(&p, (uint64_t)((P * 8 + v) * 32 + M));
                }
}

AP_TEST(pipe_schedule, some_large_sizes, .timeout = 60)
{
    static const struct ap_pipe_spec cases[] = {
        {AP_PIPE_1F1B, 64, 1, 96, NULL},        {AP_PIPE_1F1B, 3, 1, 3000, NULL},
        {AP_PIPE_INTERLEAVED, 16, 6, 64, NULL}, {AP_PIPE_INTERLEAVED, 16, 3, 93, NULL},
        {AP_PIPE_INTERLEAVED, 24, 5, 7, NULL},  {AP_PIPE_ZERO_BUBBLE, 48, 1, 100, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        prove(&cases[i], i);
}

/* Windows of a plan: wider towards the front where links are long. */
AP_TEST(pipe_schedule, windows, .timeout = 60)
{
    for (int i = 0; i < 300; i++) {
        int64_t window[8], next = 1;
        uint64_t seed = (uint64_t)i + 77, n = 0;
        int P = 1 + i % 8;
        for (int s = P - 1; s >= 0; s--) {
            next += (int64_t)(8 * pow(ap_rng_uniform(seed, AP_RNG_TEST, n++), 3));
            window[s] = next;
        }
        struct ap_pipe_spec p = {AP_PIPE_1F1B, P, 1, 1 + (int64_t)(40 * ap_rng_uniform(seed, AP_RNG_TEST, n)), window};
        prove(&p, (uint64_t)i);
    }
}

/* Long links: wide windows hide them, all micro-batches at once (GPipe) too, with more memory. */
AP_TEST(pipe_schedule, wide_windows_hide_latency)
{
    const struct times t = {1, 2, 0, 10, 0};
    const int64_t wide[] = {9, 1}, all[] = {30, 30};
    struct ap_pipe_spec p = {AP_PIPE_1F1B, 2, 1, 30, NULL};
    const int64_t *const windows[] = {NULL, wide, all};
    const double ends[] = {14 * 26 + 29, 11 + 30 * 3 + 12, 11 + 30 * 3 + 12};
    const int slots[] = {2, 9, 30};
    for (int i = 0; i < 3; i++) {
        char fault[200];
        p.window = windows[i];
        struct ap_pipe_schedule **lists = create(&p);
        cr_expect_eq(execute(&p, lists, &t, 0, fault), ends[i], "window %d", slots[i]);
        cr_expect_eq(lists[0]->slot_count, slots[i]);
        destroy(&p, lists);
    }
}

/* With equal stages and free links a step takes its work and the bubble of the papers, which have at least as many
 * micro-batches as stages; with fewer there is more of it, since a group or the weights do not last. */
AP_TEST(pipe_schedule, bubbles)
{
    char fault[200];
    for (int P = 1; P <= 8; P++)
        for (int v = 1; v <= 4; v++)
            for (int M = 1; M <= 24; M++)
                for (int kind = AP_PIPE_1F1B; kind <= AP_PIPE_ZERO_BUBBLE; kind++) {
                    struct ap_pipe_spec p = {(enum ap_pipe_kind)kind, P, v, M, NULL};
                    if (v > 1 && kind != AP_PIPE_INTERLEAVED)
                        continue;
                    /* Of one chunk: v times as short as of the stage. */
                    struct times t = {1, kind == AP_PIPE_ZERO_BUBBLE ? 1 : 2, 1, 0, 0};
                    int lack = M < P ? P - M : 0;
                    double work = (t.forward + t.backward + (kind == AP_PIPE_ZERO_BUBBLE ? t.weight : 0)) * v * M;
                    double want = (P - 1) * (t.forward + t.backward) + lack * (v - 1) * (t.forward + t.backward);
                    if (kind == AP_PIPE_ZERO_BUBBLE)
                        want = (P - 1) * (t.forward + t.backward - t.weight) + lack;
                    struct ap_pipe_schedule **lists = create(&p);
                    double bubble = execute(&p, lists, &t, 0, fault) - work;
                    cr_expect_eq(bubble, want, "%s P %d v %d M %d: bubble %g, not %g", names[kind], P, v, M, bubble,
                                 want);
                    destroy(&p, lists);
                }
}

/* The planner's simulation has the order from the same cursor, all else it does by itself. */
AP_TEST(pipe_schedule, simulation_agrees)
{
    for (int i = 0; i < 300; i++) {
        struct ap_layout_stage k[8 * 4] = {0};
        uint64_t seed = (uint64_t)i + 1000, n = 0;
        int kind = i % 3, P = 1 + i / 3 % 8, v = kind == AP_PIPE_INTERLEAVED ? 1 + i / 24 % 4 : 1;
        for (int s = 0; s < P * v; s++) {
            k[s].forward = 1 + ap_rng_uniform(seed, AP_RNG_TEST, n++);
            k[s].weight = 1 + ap_rng_uniform(seed, AP_RNG_TEST, n++);
            k[s].backward = k[s].weight + 1 + ap_rng_uniform(seed, AP_RNG_TEST, n++);
            k[s].ahead.latency = 3 * ap_rng_uniform(seed, AP_RNG_TEST, n++);
            k[s].back.latency = 3 * ap_rng_uniform(seed, AP_RNG_TEST, n++);
        }
        struct ap_pipe_spec p = {(enum ap_pipe_kind)kind, P, v, 1 + i % 40, NULL};
        struct times t = {.k = k};
        struct ap_pipe_schedule **lists = create(&p);
        double want = ideal(&p, lists, &t), got = 0, part = 0;
        cr_assert_eq(ap_simulate_pipe(&p, k, AP_SIMULATE_ROUNDS, &got), AP_OK);
        cr_expect_float_eq(got / want, 1, 1e-12, "%s P %d v %d M %d: %g s, not %g", names[kind], P, v, 1 + i % 40, got,
                           want);
        destroy(&p, lists);
        /* Played in part and continued. */
        p.micros = 400;
        cr_assert_eq(ap_simulate_pipe(&p, k, AP_SIMULATE_ROUNDS, &got), AP_OK);
        cr_assert_eq(ap_simulate_pipe(&p, k, 200, &part), AP_OK);
        cr_expect_float_eq(part / got, 1, 0.02, "%s P %d v %d: %g s, not %g", names[kind], P, v, part, got);
    }
}

/* ---- orders by hand ---- */

static void write_order(const struct ap_pipe_schedule *x, int chunks, char *buf, size_t size)
{
    size_t at = 0;
    for (int64_t i = 0; i < x->op_count && at < size; i++) {
        const struct ap_pipe_op *op = &x->ops[i];
        at += (size_t)snprintf(buf + at, size - at, "%s%c", i > 0 ? " " : "", "FBIW"[op->work]);
        if (chunks > 1 && at < size)
            at += (size_t)snprintf(buf + at, size - at, "%c", 'a' + op->chunk);
        if (at < size)
            at += (size_t)snprintf(buf + at, size - at, "%d", (int)op->micro);
    }
}

/* As in the figures of the papers: F forward, B backward, I and W its halves; a, b: chunks. */
AP_TEST(pipe_schedule, orders)
{
    static const struct {
        struct ap_pipe_spec p;
        int stage, slots;
        const char *order;
    } cases[] = {
        {{AP_PIPE_1F1B, 4, 1, 6, NULL}, 0, 4, "F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5"},
        {{AP_PIPE_1F1B, 4, 1, 6, NULL}, 3, 1, "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5"},
        {{AP_PIPE_1F1B, 4, 1, 2, NULL}, 0, 2, "F0 F1 B0 B1"},
        {{AP_PIPE_INTERLEAVED, 2, 2, 4, NULL}, 0, 5, "Fa0 Fa1 Fb0 Fb1 Fa2 Bb0 Fa3 Bb1 Fb2 Ba0 Fb3 Ba1 Bb2 Bb3 Ba2 Ba3"},
        {{AP_PIPE_INTERLEAVED, 2, 2, 4, NULL}, 1, 3, "Fa0 Fa1 Fb0 Bb0 Fb1 Bb1 Fa2 Ba0 Fa3 Ba1 Fb2 Bb2 Fb3 Bb3 Ba2 Ba3"},
        {{AP_PIPE_INTERLEAVED, 2, 2, 3, NULL}, 1, 4, "Fa0 Fa1 Fa2 Fb0 Bb0 Fb1 Bb1 Fb2 Bb2 Ba0 Ba1 Ba2"},
        {{AP_PIPE_INTERLEAVED, 4, 1, 6, NULL}, 3, 1, "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5"},
        {{AP_PIPE_ZERO_BUBBLE, 3, 1, 4, NULL}, 0, 3, "F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3"},
        {{AP_PIPE_ZERO_BUBBLE, 3, 1, 4, NULL}, 2, 3, "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ap_pipe_schedule **lists = create(&cases[i].p);
        const struct ap_pipe_schedule *x = lists[cases[i].stage];
        char order[400];
        write_order(x, cases[i].p.chunks, order, sizeof order);
        cr_expect_str_eq(order, cases[i].order);
        cr_expect_eq(x->slot_count, cases[i].slots, "%s: %d slots", order, x->slot_count);
        cr_expect_eq(ap_pipe_slots(&cases[i].p, cases[i].stage), cases[i].slots);
        destroy(&cases[i].p, lists);
    }
}

/* ---- damaged lists ---- */

static const struct times quick = {1, 2, 1, 1, 0};

/* The machine notices, whichever way sends are done. */
static void expect_fault(const struct ap_pipe_spec *p, struct ap_pipe_schedule **lists, const char *what, int s,
                         int64_t i)
{
    char fault[200];
    for (int late = 0; late < 2; late++)
        cr_expect_lt(execute(p, lists, &quick, late, fault), 0, "%s stage %d: %s event %d is not noticed",
                     names[p->kind], s, what, (int)i);
}

static void swap(struct ap_pipe_event *a, struct ap_pipe_event *b)
{
    struct ap_pipe_event c = *a;
    *a = *b;
    *b = c;
}

/* Leave event i out; exchange a computation with the wait before it, the send after it; change numbers. */
static int damage(const struct ap_pipe_spec *p, struct ap_pipe_schedule **lists, int s, int64_t i)
{
    struct ap_pipe_schedule *x = lists[s], whole = *x;
    struct ap_pipe_event *e = &x->events[i], kept = *e, *one_less = zeroed(x->event_count, sizeof *one_less);
    int done = 1;
    memcpy(one_less, x->events, (size_t)i * sizeof *one_less);
    memcpy(one_less + i, e + 1, (size_t)(x->event_count - i - 1) * sizeof *one_less);
    x->events = one_less;
    x->event_count--;
    expect_fault(p, lists, "left out", s, i);
    *x = whole;
    free(one_less);
    if (e->what == AP_PIPE_COMPUTE && i > 0 && e[-1].what == AP_PIPE_WAIT) {
        swap(e, e - 1);
        expect_fault(p, lists, "before its wait", s, i);
        swap(e, e - 1);
        done++;
    }
    if (e->what == AP_PIPE_COMPUTE && e->out >= 0) {
        swap(e, e + 1);
        expect_fault(p, lists, "behind its send", s, i);
        swap(e, e + 1);
        done++;
    }
    if (e->what == AP_PIPE_RECV_START || e->what == AP_PIPE_SEND_START) {
        e->tag ^= 1;
        expect_fault(p, lists, "tag of", s, i);
        *e = kept;
        done++;
    }
    if (e->what != AP_PIPE_COMPUTE && x->buffers[e->flow] > 1) {
        e->buffer = (e->buffer + 1) % x->buffers[e->flow];
        expect_fault(p, lists, "buffer of", s, i);
        *e = kept;
        done++;
    }
    return done;
}

/* The order of two operations exchanged, their slots exchanged. */
static int damage_ops(const struct ap_pipe_spec *p, struct ap_pipe_schedule **lists, int s, int64_t i)
{
    struct ap_pipe_op *op = &lists[s]->ops[i], kept[2] = {op[0], op[1]};
    if (lists[s]->slot_count > 1) {
        op->slot = (op->slot + 1) % lists[s]->slot_count;
        expect_fault(p, lists, "slot of operation of", s, i);
    }
    op[0] = kept[1];
    op[1] = kept[0];
    if (kept[0].work != AP_PIPE_BACKWARD_WEIGHT && kept[1].work != AP_PIPE_BACKWARD_WEIGHT)
        expect_fault(p, lists, "operations exchanged at", s, i);
    op[0] = kept[0];
    op[1] = kept[1];
    return 1;
}

AP_TEST(pipe_schedule, damage_is_noticed, .timeout = 60)
{
    static const struct ap_pipe_spec cases[] = {
        {AP_PIPE_1F1B, 3, 1, 5, NULL},
        {AP_PIPE_1F1B, 2, 1, 1, NULL},
        {AP_PIPE_INTERLEAVED, 2, 3, 5, NULL},
        {AP_PIPE_ZERO_BUBBLE, 3, 1, 5, NULL},
    };
    int count = 0;
    for (size_t n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        const struct ap_pipe_spec *p = &cases[n];
        struct ap_pipe_schedule **lists = create(p);
        char fault[200];
        for (int s = 0; s < p->stages; s++) {
            for (int64_t i = 0; i < lists[s]->event_count; i++)
                count += damage(p, lists, s, i);
            for (int64_t i = 0; i + 1 < lists[s]->op_count; i++)
                count += damage_ops(p, lists, s, i);
        }
        cr_expect_gt(execute(p, lists, &quick, 0, fault), 0, "%s", fault); /* all is as it was */
        destroy(p, lists);
    }
    cr_expect_gt(count, 500);
}

/* Windows that grow along the pipeline wait for ever: the generator refuses them, the machine would notice. */
AP_TEST(pipe_schedule, growing_windows_are_stuck)
{
    const int64_t one[] = {1, 1}, two[] = {2, 2}, grow[] = {1, 2};
    struct ap_pipe_spec p = {AP_PIPE_1F1B, 2, 1, 4, one}, q = {AP_PIPE_1F1B, 2, 1, 4, two};
    struct ap_pipe_schedule **a = create(&p), **b = create(&q), *mixed[] = {a[0], b[1]};
    char fault[200];
    cr_expect_lt(execute(&p, mixed, &quick, 0, fault), 0);
    cr_expect_not_null(strstr(fault, "wait for each other"), "%s", fault);
    cr_expect_lt(ideal(&p, mixed, &quick), 0);
    p.window = grow;
    cr_expect_eq(ap_pipe_check(&p, NULL), AP_ERR_INPUT);
    p.window = one;
    destroy(&p, a);
    destroy(&q, b);
}

AP_TEST(pipe_schedule, refusals)
{
    static const int64_t grow[] = {1, 2}, none[] = {1, 0}, fine[] = {2, 1};
    static const struct {
        struct ap_pipe_spec p;
        int stage;
        const char *text, *hint;
    } cases[] = {
        {{AP_PIPE_1F1B, 0, 1, 4, NULL}, 0, "a pipeline of 0 stages and 4 micro-batches", ""},
        {{AP_PIPE_1F1B, 2, 1, 0, NULL}, 0, "a pipeline of 2 stages and 0 micro-batches", ""},
        {{AP_PIPE_1F1B, 2, 1, INT64_MAX, NULL}, 0, "micro-batches: 1 to 1048576", ""},
        {{AP_PIPE_INTERLEAVED, 2, 0, 4, NULL}, 0, "0 chunks on a pipeline stage: 1 to 1024", ""},
        {{AP_PIPE_INTERLEAVED, 2, 1025, 4, NULL}, 0, "1025 chunks", ""},
        {{AP_PIPE_1F1B, 2, 2, 4, NULL}, 0, "the 1F1B schedule has one", "interleaved"},
        {{AP_PIPE_ZERO_BUBBLE, 2, 2, 4, NULL}, 0, "the zero-bubble schedule has one", "interleaved"},
        {{AP_PIPE_1F1B, 2, 1, 4, grow}, 0, "pipeline stage 1: a window of 2", "do not grow"},
        {{AP_PIPE_1F1B, 2, 1, 4, none}, 0, "pipeline stage 1: a window of 0", "at least 1"},
        {{AP_PIPE_ZERO_BUBBLE, 2, 1, 4, fine}, 0, "only the 1F1B schedule has windows", ""},
        {{AP_PIPE_1F1B, 2, 1, 4, fine}, 2, "stage 2 of a pipeline of 2", ""},
        {{AP_PIPE_1F1B, 2, 1, 4, fine}, -1, "stage -1 of", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ap_pipe_schedule *x = NULL;
        struct ap_error err = {0};
        cr_expect_eq(ap_pipe_schedule_create(&cases[i].p, cases[i].stage, &x, &err), AP_ERR_INPUT);
        cr_expect_null(x);
        cr_expect_not_null(strstr(err.text, cases[i].text), "%s, not %s", err.text, cases[i].text);
        cr_expect_not_null(strstr(err.hint, cases[i].hint), "%s, not %s", err.hint, cases[i].hint);
    }
}
