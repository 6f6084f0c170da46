/* SPDX-License-Identifier: Apache-2.0
 * Pipeline schedules as pure code: what each stage of a pipeline computes in which order, in which memory, and the
 * explicit list of sends, receives and waits around it, so that who executes a schedule is a plain interpreter and what
 * is proved about the lists (tests/unit/test_pipe_schedule.c) is what runs. Functions of their arguments alone,
 * thread-safe.
 *
 * A stage s = 0 .. stages - 1 holds the chunks c = 0 .. chunks - 1 of the model; chunk c of stage s is virtual stage
 * c * stages + s, and micro-batches go through the virtual stages in this order and back. Every schedule does, on each
 * stage, forwards until as many chunks of micro-batches are in flight as its window allows, then backwards and forwards
 * in turn, then the last backwards. For one chunk forwards and backwards come in the order of the micro-batches, so
 * that gradients are summed in one order whatever the schedule.
 *
 *   1F1B         (PipeDream-Flush; Narayanan et al. 2021, arXiv 2104.04473, 2.2.1) window stages - s. With equal stages
 *                idle for (P - 1)(tf + tb). Other windows, not increasing along the pipeline, are allowed: larger ones
 *                hide the latency between stages, and a window of all micro-batches is GPipe.
 *   INTERLEAVED  (the same, 2.2.2) chunks > 1: the micro-batches go in groups of at least P, each group through one
 *                chunk after the other. Window 2 (P - 1 - s) + (chunks - 1) * group + 1, idle for (P - 1)(tf + tb) /
 *                chunks. The original wants a multiple of P micro-batches; here what is over is spread over the groups
 *                (fewer than P micro-batches: one group). With one chunk it is 1F1B.
 *   ZERO_BUBBLE  (ZB-H1; Qi et al. 2023, arXiv 2401.10241) 1F1B whose backward is split: the gradient of the input
 *                goes on at once, that of the weights follows s micro-batches later and fills the end. Idle for
 *                (P - 1)(tf + tb - tw); P slots on every stage, as the first stage of 1F1B has. */
#ifndef AP_PLAN_PIPE_SCHEDULE_H
#define AP_PLAN_PIPE_SCHEDULE_H

#include <stdint.h>
#include "base/status.h"

#define AP_PIPE_MAX_CHUNKS 1024

enum ap_pipe_kind { AP_PIPE_1F1B, AP_PIPE_INTERLEAVED, AP_PIPE_ZERO_BUBBLE };

struct ap_pipe_spec {
    enum ap_pipe_kind kind;
    int stages, chunks;
    int64_t micros;        /* micro-batches in a step */
    const int64_t *window; /* 1F1B: [stages] micro-batches in flight from each stage on, not increasing, at least 1;
                              borrowed. NULL: stages - s */
};

/* AP_ERR_INPUT with the reason, and a hint where there is a way out. The functions below take what passed. */
ap_status ap_pipe_check(const struct ap_pipe_spec *p, struct ap_error *err);

/* Chunks of micro-batches whose activations stage s keeps at one time, at most. */
int64_t ap_pipe_slots(const struct ap_pipe_spec *p, int stage);
/* Of them, between BACKWARD_INPUT and BACKWARD_WEIGHT at one time, at most; 0: the schedule's backward is whole. */
int64_t ap_pipe_late(const struct ap_pipe_spec *p, int stage);

/* ---- the order ---- */

enum ap_pipe_work {
    AP_PIPE_FORWARD,
    AP_PIPE_BACKWARD,       /* gradients of input and weights */
    AP_PIPE_BACKWARD_INPUT, /* of the input alone */
    AP_PIPE_BACKWARD_WEIGHT
};

struct ap_pipe_op {
    enum ap_pipe_work work;
    int chunk;
    int slot; /* memory of the chunk's activations for this micro-batch: FORWARD fills it, BACKWARD or BACKWARD_WEIGHT
                 is the last to need it */
    int64_t micro;
};

/* What a stage does, one after the other, without memory of its own. */
struct ap_pipe_cursor {
    const struct ap_pipe_spec *spec; /* borrowed */
    int64_t total, window, delay;
    int64_t forwards, backwards, weights; /* handed out */
};
void ap_pipe_begin(const struct ap_pipe_spec *p, int stage, struct ap_pipe_cursor *c);
/* The next operation (slot is -1); 0: there is none. */
int ap_pipe_next(struct ap_pipe_cursor *c, struct ap_pipe_op *op_p);

/* ---- the lists ---- */

/* Messages are activations to the next virtual stage and gradients of them back, all of one size. Each stage has four
 * sets of message buffers, each with one neighbour and one request per buffer. */
enum ap_pipe_flow {
    AP_PIPE_ACTIVATIONS_IN,  /* from stage s - 1 (stage 0: from the last one, but for chunk 0); read by FORWARD */
    AP_PIPE_ACTIVATIONS_OUT, /* to stage s + 1 (the last: to stage 0, but for the last chunk); written by FORWARD */
    AP_PIPE_GRADIENTS_IN,    /* from stage s + 1; read by BACKWARD and BACKWARD_INPUT */
    AP_PIPE_GRADIENTS_OUT,   /* to stage s - 1; written by them */
    AP_PIPE_FLOWS
};

/* Whoever executes a stage does its events in order:
 *   RECV_START, SEND_START  start the request of (flow, buffer) with this peer and tag; do not wait
 *   WAIT                    until the request of (flow, buffer) is done
 *   COMPUTE                 the operation; it reads buffer `in` (the loss, or the input tokens, where in is -1) and
 *                           writes buffer `out` (-1: none). What a later backward needs of `in` has to be copied to the
 *                           slot: the buffer is received into again.
 * and nothing else; tags may be shifted by a common base. A send may be done no sooner than its receive is waited for
 * (rendezvous, and progress only inside of calls). No deadlock comes of that: receives are started as early as their
 * buffer is free, and there are as many buffers on both ends of a link as messages can be under way on it without a
 * buffer. So waiting for a buffer never waits for anything that the operation's input would not have waited for, and
 * the order of operations alone decides, with or without latency. */
enum ap_pipe_what { AP_PIPE_RECV_START, AP_PIPE_SEND_START, AP_PIPE_WAIT, AP_PIPE_COMPUTE };

struct ap_pipe_event {
    enum ap_pipe_what what;
    enum ap_pipe_flow flow; /* not of COMPUTE */
    int buffer;             /* not of COMPUTE: < buffers[flow] */
    int peer, tag;          /* of the two starts: a stage; one tag for each direction and chunk of the receiver */
    int in, out;            /* of COMPUTE */
    int64_t op;             /* index: of the operation, of that whose input or output the message is, of that before
                               which to wait (op_count: behind all) */
};

struct ap_pipe_schedule {
    int stage;
    int slot_count; /* ap_pipe_slots: the fewest that the order allows */
    int buffers[AP_PIPE_FLOWS];
    int64_t op_count, event_count;
    struct ap_pipe_op *ops;
    struct ap_pipe_event *events;
};

/* The lists of one stage. AP_ERR_INPUT as ap_pipe_check, AP_ERR_NOMEM. */
ap_status ap_pipe_schedule_create(const struct ap_pipe_spec *p, int stage, struct ap_pipe_schedule **schedule_p,
                                  struct ap_error *err);
void ap_pipe_schedule_destroy(struct ap_pipe_schedule *schedule); /* NULL is fine */

#endif
