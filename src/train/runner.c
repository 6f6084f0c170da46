/* SPDX-License-Identifier: Apache-2.0
 * The pipeline's interpreter. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/trace.h"
#include "train/runner.h"

#define LOSS_TAG (2 * AP_PIPE_MAX_CHUNKS) /* behind those of the schedule */

enum request_state { FREE, STARTED, DONE };

struct ap_runner {
    struct ap_stage *stage;
    struct ap_pipe_schedule *schedule; /* borrowed from the stage */
    struct ap_comm *pipe;
    int on_device;                                   /* pipe takes the backend's memory */
    int connected;                                   /* its first messages have passed */
    int64_t bytes;                                   /* of a message */
    uint8_t *buffers[AP_PIPE_FLOWS];                 /* [schedule->buffers[flow]] messages in memory that pipe takes */
    struct ap_comm_request *requests[AP_PIPE_FLOWS]; /* likewise */
    uint8_t *state[AP_PIPE_FLOWS];                   /* likewise: enum request_state */
    /* of the running step */
    const struct ap_batches *batches;
    const struct ap_loss_weights *lw;
    ap_tensor bias;
    struct ap_leaf_result *results;
    int64_t *loads;
};

static ap_status make_buffers(struct ap_runner *r, int flow, size_t bytes)
{
    struct ap_backend *be = r->stage->be;
    if (r->on_device)
        return be->vt->alloc(be, bytes, (void **)&r->buffers[flow]);
    r->buffers[flow] = malloc(bytes);
    return r->buffers[flow] ? AP_OK : AP_ERR_NOMEM;
}

ap_status ap_runner_create(struct ap_stage *stage, struct ap_runner **r_p, struct ap_error *err)
{
    struct ap_runner *r = calloc(1, sizeof(*r));
    if (!r)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    struct ap_comm *pipe = stage->mesh->axis[AP_AXIS_PIPE];
    *r = (struct ap_runner){
        .stage = stage, .schedule = stage->schedule, .pipe = ap_comm_tensors(pipe), .on_device = pipe->device != NULL};
    r->bytes = ap_model_own_tokens(stage->chunks[0].model) * stage->hidden * (int64_t)ap_dtype_size(stage->dtype);
    for (int f = 0; f < AP_PIPE_FLOWS; f++) {
        /* one at least, for evaluation */
        size_t n = (size_t)(r->schedule->buffers[f] > 0 ? r->schedule->buffers[f] : r->pipe->size > 1);
        r->requests[f] = calloc(n + 1, sizeof(*r->requests[f]));
        r->state[f] = calloc(n + 1, sizeof(*r->state[f]));
        if (!r->requests[f] || !r->state[f] || make_buffers(r, f, n * (size_t)r->bytes + 1) != AP_OK) {
            ap_error_set(err, AP_ERR_NOMEM, "no memory for messages of %lld bytes between stages", (long long)r->bytes);
            ap_runner_destroy(r);
            return AP_ERR_NOMEM;
        }
    }
    *r_p = r;
    return AP_OK;
}

void ap_runner_destroy(struct ap_runner *r)
{
    if (!r)
        return;
    struct ap_backend *be = r->stage->be;
    for (int f = 0; f < AP_PIPE_FLOWS; f++) {
        if (r->on_device && r->buffers[f])
            be->vt->release(be, r->buffers[f]);
        else
            free(r->buffers[f]);
        free(r->requests[f]);
        free(r->state[f]);
    }
    free(r);
}

static uint8_t *buffer(const struct ap_runner *r, enum ap_pipe_flow flow, int i)
{
    return r->buffers[flow] + i * r->bytes;
}

/* A message as the model takes it; absent for -1. */
static ap_tensor message(const struct ap_runner *r, enum ap_pipe_flow flow, int i)
{
    if (i < 0)
        return (ap_tensor){0};
    return ap_tensor_2d(buffer(r, flow, i), r->stage->dtype, ap_model_own_tokens(r->stage->chunks[0].model),
                        r->stage->hidden);
}

static ap_status put(struct ap_runner *r, enum ap_pipe_flow flow, int i, ap_tensor t)
{
    struct ap_backend *be = r->stage->be;
    if (i < 0)
        return AP_OK;
    AP_TRY(be->vt->copy(be->stream, buffer(r, flow, i), t.data, (size_t)r->bytes));
    return be->vt->stream_sync(be->stream);
}

static ap_status forward(struct ap_runner *r, const struct ap_pipe_op *op, const struct ap_pipe_event *e)
{
    struct ap_model_buffers b = ap_stage_buffers(r->stage, op->chunk, r->bias);
    struct ap_batch batch = ap_batches_get(r->batches, op->micro);
    ap_tensor out;
    AP_TRY(ap_model_forward(r->stage->chunks[op->chunk].model, r->stage->slot[e->op], &b, &batch, r->lw,
                            message(r, AP_PIPE_ACTIVATIONS_IN, e->in), &out));
    return put(r, AP_PIPE_ACTIVATIONS_OUT, e->out, out);
}

/* Of all chunks. */
static void add(struct ap_leaf_result *to, const struct ap_model_result *m)
{
    to->ce += m->ce_sum;
    to->mtp += m->mtp_sum;
    to->balance += m->balance;
    to->ce_tokens += m->ce_tokens;
    to->mtp_tokens += m->mtp_tokens;
}

static ap_status backward(struct ap_runner *r, const struct ap_pipe_op *op, const struct ap_pipe_event *e)
{
    struct ap_model_buffers b = ap_stage_buffers(r->stage, op->chunk, r->bias);
    struct ap_batch batch = ap_batches_get(r->batches, op->micro);
    struct ap_leaf_result *res = &r->results[op->micro];
    struct ap_model_result m = {0};
    ap_tensor din;
    AP_TRY(ap_stage_begin_leaf(r->stage, op->chunk, &b));
    AP_TRY(ap_model_backward(r->stage->chunks[op->chunk].model, r->stage->slot[e->op], &b, &batch, r->lw,
                             message(r, AP_PIPE_GRADIENTS_IN, e->in), &din, &m, r->loads));
    AP_TRY(put(r, AP_PIPE_GRADIENTS_OUT, e->out, din));
    add(res, &m);
    return ap_stage_end_leaf(r->stage, op->chunk);
}

/* The first half of a split backward. There is no leaf yet: those of several micro-batches would be open at once. */
static ap_status backward_input(struct ap_runner *r, const struct ap_pipe_op *op, const struct ap_pipe_event *e)
{
    struct ap_stage_chunk *k = &r->stage->chunks[op->chunk];
    struct ap_model_buffers b = ap_stage_buffers(r->stage, op->chunk, r->bias);
    struct ap_batch batch = ap_batches_get(r->batches, op->micro);
    struct ap_model_result m = {0};
    ap_tensor din;
    struct ap_model_half half = {.slot = r->stage->slot[e->op],
                                 .late = (int)(op->micro % k->late),
                                 .dout = message(r, AP_PIPE_GRADIENTS_IN, e->in),
                                 .din_p = &din};
    AP_TRY(ap_model_backward_input(k->model, &half, &b, &batch, r->lw, &m, r->loads));
    AP_TRY(put(r, AP_PIPE_GRADIENTS_OUT, e->out, din));
    add(&r->results[op->micro], &m);
    return AP_OK;
}

/* Requests move on inside of calls only, and the neighbours wait for what was sent before this work. */
static ap_status pulse(void *ctx)
{
    struct ap_runner *r = ctx;
    for (int f = 0; f < AP_PIPE_FLOWS; f++)
        for (int i = 0; i < r->schedule->buffers[f]; i++) {
            int done = 0;
            if (r->state[f][i] != STARTED)
                continue;
            AP_TRY(ap_comm_test(r->pipe, &r->requests[f][i], &done));
            if (done)
                r->state[f][i] = DONE;
        }
    return AP_OK;
}

static ap_status backward_weight(struct ap_runner *r, const struct ap_pipe_op *op)
{
    struct ap_stage_chunk *k = &r->stage->chunks[op->chunk];
    struct ap_model_buffers b = ap_stage_buffers(r->stage, op->chunk, r->bias);
    AP_TRY(ap_stage_begin_leaf(r->stage, op->chunk, &b));
    AP_TRY(ap_model_backward_weight(k->model, (int)(op->micro % k->late), &b, pulse, r));
    return ap_stage_end_leaf(r->stage, op->chunk);
}

static ap_status work(struct ap_runner *r, const struct ap_pipe_op *op, const struct ap_pipe_event *e)
{
    switch (op->work) {
    case AP_PIPE_FORWARD:
        return forward(r, op, e);
    case AP_PIPE_BACKWARD:
        return backward(r, op, e);
    case AP_PIPE_BACKWARD_INPUT:
        return backward_input(r, op, e);
    case AP_PIPE_BACKWARD_WEIGHT:
        return backward_weight(r, op);
    }
    return AP_ERR_BUG;
}

static ap_status compute(struct ap_runner *r, const struct ap_pipe_op *op, const struct ap_pipe_event *e)
{
    static const char *const names[] = {"micro-batch forward", "micro-batch backward", "micro-batch input gradients",
                                        "micro-batch weight gradients"};
    struct ap_trace *trace = r->stage->be->trace;
    double begin = ap_trace_begin(trace);
    ap_status st = work(r, op, e);
    ap_trace_end(trace, "step", names[op->work], "micro_batch", r->stage->lo + op->micro, begin);
    ap_trace_relieve(trace);
    return st;
}

static ap_status execute(struct ap_runner *r, const struct ap_pipe_event *e)
{
    struct ap_trace *trace = r->stage->be->trace;
    struct ap_comm_request *request = e->what == AP_PIPE_COMPUTE ? NULL : &r->requests[e->flow][e->buffer];
    uint8_t *state = e->what == AP_PIPE_COMPUTE ? NULL : &r->state[e->flow][e->buffer];
    switch (e->what) {
    case AP_PIPE_RECV_START:
        *state = STARTED;
        return ap_comm_recv_start(r->pipe, buffer(r, e->flow, e->buffer), r->bytes, e->peer, e->tag, request);
    case AP_PIPE_SEND_START:
        *state = STARTED;
        return ap_comm_send_start(r->pipe, buffer(r, e->flow, e->buffer), r->bytes, e->peer, e->tag, request);
    case AP_PIPE_WAIT:
        if (*state == STARTED)
            AP_TRACE_TRY(trace, "step", "pipeline wait", NULL, 0, ap_comm_wait(r->pipe, request));
        *state = FREE;
        break;
    case AP_PIPE_COMPUTE:
        return compute(r, &r->schedule->ops[e->op], e);
    }
    return AP_OK;
}

/* One direction to or from a neighbour with one tag. */
struct lane {
    int what, peer, tag, flow; /* what: AP_PIPE_SEND_START or AP_PIPE_RECV_START */
    struct ap_comm_request request;
};

static int find_lanes(const struct ap_runner *r, struct lane *list, int most)
{
    int n = 0;
    for (int64_t i = 0; i < r->schedule->event_count && n < most; i++) {
        const struct ap_pipe_event *e = &r->schedule->events[i];
        int k = 0;
        if (e->what != AP_PIPE_SEND_START && e->what != AP_PIPE_RECV_START)
            continue;
        while (k < n && (list[k].what != (int)e->what || list[k].peer != e->peer || list[k].tag != e->tag))
            k++;
        if (k == n)
            list[n++] = (struct lane){.what = e->what, .peer = e->peer, .tag = e->tag, .flow = e->flow};
    }
    return n;
}

/* The first message of a direction and tag on a device communicator is moved on by the ranks' calls to it alone, later
 * ones by the devices. Were it one of the schedule's, ranks of a stage that wait for each other in another communicator
 * could keep it from a stage that the others wait for. So one byte goes ahead on each. Collective over the pipe. */
static ap_status connect(struct ap_runner *r)
{
    int most = AP_PIPE_FLOWS * r->stage->chunk_count;
    struct lane *list = calloc((size_t)most, sizeof(*list));
    if (!list)
        return AP_ERR_NOMEM;
    int n = find_lanes(r, list, most);
    ap_status st = AP_OK;
    for (int i = 0; i < n; i++) {
        struct lane *l = &list[i];
        uint8_t *byte = r->buffers[l->flow];
        ap_status one = l->what == AP_PIPE_SEND_START
                            ? ap_comm_send_start(r->pipe, byte, 1, l->peer, l->tag, &l->request)
                            : ap_comm_recv_start(r->pipe, byte, 1, l->peer, l->tag, &l->request);
        st = st == AP_OK ? one : st;
    }
    for (int i = 0; i < n; i++) {
        ap_status one = ap_comm_wait(r->pipe, &list[i].request);
        st = st == AP_OK ? one : st;
    }
    free(list);
    r->connected = st == AP_OK;
    return st;
}

ap_status ap_runner_train(struct ap_runner *r, const struct ap_batches *batches, const struct ap_loss_weights *lw,
                          ap_tensor router_bias, struct ap_leaf_result *results, int64_t *loads)
{
    r->batches = batches;
    r->lw = lw;
    r->bias = router_bias;
    r->results = results;
    r->loads = loads;
    memset(results, 0, (size_t)(r->stage->hi - r->stage->lo) * sizeof(*results));
    if (r->on_device && !r->connected)
        AP_TRY(connect(r));
    for (int64_t i = 0; i < r->schedule->event_count; i++)
        AP_TRY(execute(r, &r->schedule->events[i]));
    return AP_OK;
}

/* One chunk: from the virtual stage before to the one behind. */
static ap_status loss_of_chunk(struct ap_runner *r, int chunk, const struct ap_batch *batch, ap_tensor router_bias,
                               struct ap_leaf_result *result)
{
    struct ap_stage *s = r->stage;
    struct ap_stage_chunk *k = &s->chunks[chunk];
    struct ap_model_buffers b = ap_stage_buffers(s, chunk, router_bias);
    struct ap_loss_weights none = {0};
    struct ap_model_result m = {0};
    struct ap_comm_request request;
    ap_tensor out;
    int in = k->part.first_stage ? -1 : 0, to = k->part.last_stage ? -1 : 0, size = r->pipe->size, rank = r->pipe->rank;
    if (in == 0) {
        AP_TRY(ap_comm_recv_start(r->pipe, buffer(r, AP_PIPE_ACTIVATIONS_IN, 0), r->bytes, (rank + size - 1) % size,
                                  LOSS_TAG, &request));
        AP_TRY(ap_comm_wait(r->pipe, &request));
    }
    AP_TRY(ap_model_forward(k->model, 0, &b, batch, &none, message(r, AP_PIPE_ACTIVATIONS_IN, in), &out));
    AP_TRY(put(r, AP_PIPE_ACTIVATIONS_OUT, to, out));
    if (to == 0) {
        AP_TRY(ap_comm_send_start(r->pipe, buffer(r, AP_PIPE_ACTIVATIONS_OUT, 0), r->bytes, (rank + 1) % size, LOSS_TAG,
                                  &request));
        AP_TRY(ap_comm_wait(r->pipe, &request));
    }
    AP_TRY(ap_model_loss(k->model, 0, &b, batch, &none, &m, NULL));
    add(result, &m);
    return AP_OK;
}

ap_status ap_runner_loss(struct ap_runner *r, const struct ap_batch *batch, ap_tensor router_bias,
                         struct ap_leaf_result *result)
{
    *result = (struct ap_leaf_result){0};
    for (int c = 0; c < r->stage->chunk_count; c++)
        AP_TRY(loss_of_chunk(r, c, batch, router_bias, result));
    return AP_OK;
}
