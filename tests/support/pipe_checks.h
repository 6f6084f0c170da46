/* SPDX-License-Identifier: Apache-2.0
 * Executes the event lists of pipeline schedules on a real communicator: every operation must find the message it needs
 * in its buffer, whole, and the lists must come to their end. Collective; returns the number of conditions that failed
 * on this rank. Messages are too large to be sent before somebody wants them. */
#ifndef AP_TESTS_PIPE_CHECKS_H
#define AP_TESTS_PIPE_CHECKS_H

#include "comm_checks.h"
#include "plan/pipe_schedule.h"

enum { PIPE_NUMBERS = 3000 };

struct pipe_rank {
    struct ap_comm_request *request[AP_PIPE_FLOWS]; /* [buffers] */
    int64_t *data[AP_PIPE_FLOWS];                   /* [buffers][PIPE_NUMBERS] */
};

/* Read what the operation reads, write what it writes: numbers that name the micro-batch, the virtual stage and the
 * direction. */
static inline int pipe_compute(const struct ap_pipe_spec *p, struct pipe_rank *x, const struct ap_pipe_event *e,
                               const struct ap_pipe_op *op, int stage)
{
    int backward = op->work != AP_PIPE_FORWARD, wrong = 0;
    int64_t k = (int64_t)op->chunk * p->stages + stage, from = backward ? k + 1 : k - 1;
    for (int64_t i = 0; e->in >= 0 && i < PIPE_NUMBERS; i++) {
        const int64_t *in = x->data[backward ? AP_PIPE_GRADIENTS_IN : AP_PIPE_ACTIVATIONS_IN];
        wrong += in[e->in * PIPE_NUMBERS + i] != (op->micro * 1000 + from * 2 + backward) * PIPE_NUMBERS + i;
    }
    for (int64_t i = 0; e->out >= 0 && i < PIPE_NUMBERS; i++) {
        int64_t *out = x->data[backward ? AP_PIPE_GRADIENTS_OUT : AP_PIPE_ACTIVATIONS_OUT];
        out[e->out * PIPE_NUMBERS + i] = (op->micro * 1000 + k * 2 + backward) * PIPE_NUMBERS + i;
    }
    return wrong;
}

static inline int check_pipeline(struct ap_comm *c, const struct ap_pipe_spec *p)
{
    struct ap_pipe_schedule *s = NULL;
    struct pipe_rank x;
    const int64_t bytes = PIPE_NUMBERS * (int64_t)sizeof(int64_t);
    int bad = 0, wrong = 0;
    COMM_CHECK(ap_pipe_schedule_create(p, c->rank, &s, NULL) == AP_OK);
    for (int f = 0; s && f < AP_PIPE_FLOWS; f++) {
        x.request[f] = calloc((size_t)s->buffers[f] + 1, sizeof *x.request[f]);
        x.data[f] = calloc((size_t)s->buffers[f] + 1, (size_t)bytes);
        COMM_CHECK(x.request[f] && x.data[f]);
    }
    for (int64_t i = 0; s && !bad && i < s->event_count; i++) {
        const struct ap_pipe_event *e = &s->events[i];
        if (e->what == AP_PIPE_COMPUTE) {
            wrong += pipe_compute(p, &x, e, &s->ops[e->op], c->rank);
            continue;
        }
        struct ap_comm_request *r = &x.request[e->flow][e->buffer];
        void *data = x.data[e->flow] + (int64_t)e->buffer * PIPE_NUMBERS;
        if (e->what == AP_PIPE_WAIT)
            COMM_CHECK(ap_comm_wait(c, r) == AP_OK);
        else if (e->what == AP_PIPE_SEND_START)
            COMM_CHECK(ap_comm_send_start(c, data, bytes, e->peer, e->tag, r) == AP_OK);
        else
            COMM_CHECK(ap_comm_recv_start(c, data, bytes, e->peer, e->tag, r) == AP_OK);
    }
    COMM_CHECK(wrong == 0);
    for (int f = 0; s && f < AP_PIPE_FLOWS; f++) {
        free(x.request[f]);
        free(x.data[f]);
    }
    ap_pipe_schedule_destroy(s);
    return bad;
}

static inline int check_pipelines(struct ap_comm *c)
{
    const struct ap_pipe_spec specs[] = {{AP_PIPE_1F1B, c->size, 1, 9, NULL},
                                         {AP_PIPE_INTERLEAVED, c->size, 2, 7, NULL},
                                         {AP_PIPE_INTERLEAVED, c->size, 3, 2, NULL},
                                         {AP_PIPE_ZERO_BUBBLE, c->size, 1, 9, NULL}};
    int bad = 0;
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++)
        bad += check_pipeline(c, &specs[i]);
    return bad;
}

#endif
