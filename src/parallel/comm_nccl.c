/* SPDX-License-Identifier: Apache-2.0
 * The NCCL communicator: set-up over the parent, collectives, waiting with a deadline, abort and renewal.
 *
 * ncclCommAbort also ends communicators that are well: it needs no peer, and ap_comm_destroy is not collective. Nothing
 * is under way on this rank then, since every call waits for its own end; what a peer has yet to receive may be lost,
 * so ranks meet (as at the end of a step) before they destroy. */
#include "config.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "parallel/comm_nccl_impl.h"

#define BUSY_TURNS 200
#define NAP_NS     20000

static const struct ap_comm_ops nccl_ops;

void ap_nccl_pause(int *turns)
{
    static const struct timespec nap = {0, NAP_NS};
    if (++*turns < BUSY_TURNS)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}

ap_status ap_nccl_failed(struct nccl_impl *x, const char *what, int result)
{
    snprintf(x->why, sizeof(x->why), "%s: %s", what, x->api.ncclGetErrorString(result));
    ap_error_log("NCCL: %s", x->why);
    return AP_ERR_COMM;
}

ap_status ap_nccl_timed_out(struct nccl_impl *x, const char *what)
{
    snprintf(x->why, sizeof(x->why), "%s did not end within %g s", what, x->timeout);
    ap_error_log("NCCL: %s", x->why);
    return AP_ERR_COMM;
}

static int is_error(int result)
{
    return result != AP_NCCL_SUCCESS && result != AP_NCCL_IN_PROGRESS;
}

ap_status ap_nccl_begin(struct nccl_impl *x, int ranks, const struct ap_nccl_id *id, int rank, ap_nccl_handle *comm_p)
{
    struct ap_nccl_config config = {sizeof(config), AP_NCCL_MAGIC, AP_NCCL_OLDEST, 0};
    ap_nccl_handle comm = NULL;
    if (!x->be->vt->device->stream_native(x->be->stream)) /* makes the device current */
        return AP_ERR_ENV;
    int result = x->api.ncclCommInitRankConfig(&comm, ranks, *id, rank, &config);
    if (is_error(result) || !comm) {
        if (comm)
            (void)x->api.ncclCommAbort(comm);
        return ap_nccl_failed(x, "a communicator", result);
    }
    *comm_p = comm;
    return AP_OK;
}

ap_status ap_nccl_poll(struct nccl_impl *x, ap_nccl_handle comm, int *done_p)
{
    int state = AP_NCCL_SUCCESS, result = x->api.ncclCommGetAsyncError(comm, &state);
    if (is_error(result) || is_error(state))
        return ap_nccl_failed(x, "a communicator failed", is_error(result) ? result : state);
    *done_p = state == AP_NCCL_SUCCESS;
    return AP_OK;
}

void ap_nccl_break(struct nccl_impl *x)
{
    x->broken = 1;
    if (x->comm)
        (void)x->api.ncclCommAbort(x->comm);
    x->comm = NULL;
    ap_nccl_messages_break(x);
}

void ap_comm_nccl_abort(struct ap_comm *c)
{
    ap_nccl_break(c->impl);
}

/* A collective that was just asked for, with that result: taken by NCCL, then done on the stream, or given up. */
static ap_status finish(struct ap_comm *c, int result, const char *what)
{
    struct nccl_impl *x = c->impl;
    struct ap_backend *be = x->be;
    double limit = ap_clock_monotonic() + x->timeout;
    int turns = 0, marked = 0, well = 0, done = 0;
    ap_status st = is_error(result) ? ap_nccl_failed(x, what, result) : AP_OK;
    while (st == AP_OK && !done) {
        st = ap_nccl_poll(x, x->comm, &well);
        if (st == AP_OK && well && !marked) {
            st = be->vt->device->mark_set(be->stream, x->mark);
            marked = 1;
        }
        if (st == AP_OK && marked)
            st = be->vt->device->mark_query(be, x->mark, &done);
        if (done)
            break;
        if (st == AP_OK)
            st = ap_nccl_progress(c);
        if (st == AP_OK && ap_clock_monotonic() > limit)
            st = ap_nccl_timed_out(x, what);
        ap_nccl_pause(&turns);
    }
    if (st != AP_OK)
        ap_nccl_break(x);
    return st;
}

static ap_status nccl_barrier(struct ap_comm *c)
{
    return ap_comm_barrier(c->host);
}

static ap_status nccl_allreduce_i64(struct ap_comm *c, int64_t *v, int64_t n, int max)
{
    return max ? ap_comm_max_i64(c->host, v, n) : ap_comm_sum_i64(c->host, v, n);
}

static void *stream_of(const struct nccl_impl *x)
{
    return x->be->vt->device->stream_native(x->be->stream);
}

static ap_status nccl_bcast(struct ap_comm *c, void *data, int64_t bytes, int root)
{
    struct nccl_impl *x = c->impl;
    if (x->broken)
        return AP_ERR_COMM;
    int result = x->api.ncclBroadcast(data, data, (size_t)bytes, AP_NCCL_UINT8, root, x->comm, stream_of(x));
    return finish(c, result, "broadcast");
}

/* The first error counts. */
static void keep(int *result, int next)
{
    if (!is_error(*result))
        *result = next;
}

static ap_status nccl_allgatherv(struct ap_comm *c, const void *send, const int64_t *bytes, void *recv)
{
    struct nccl_impl *x = c->impl;
    int64_t at = 0, total = 0;
    int equal = 1, result = AP_NCCL_SUCCESS;
    for (int r = 0; r < c->size; r++) {
        equal &= bytes[r] == bytes[0];
        total += bytes[r];
    }
    if (x->broken)
        return AP_ERR_COMM;
    if (total == 0)
        return AP_OK;
    void *stream = stream_of(x);
    if (equal) {
        result = x->api.ncclAllGather(send, recv, (size_t)bytes[0], AP_NCCL_UINT8, x->comm, stream);
        return finish(c, result, "all-gather");
    }
    keep(&result, x->api.ncclGroupStart());
    for (int r = 0; r < c->size; r++) {
        uint8_t *to = (uint8_t *)recv + at;
        if (bytes[r] > 0)
            keep(&result, x->api.ncclBroadcast(r == c->rank ? send : to, to, (size_t)bytes[r], AP_NCCL_UINT8, r,
                                               x->comm, stream));
        at += bytes[r];
    }
    keep(&result, x->api.ncclGroupEnd());
    return finish(c, result, "all-gather of unequal parts");
}

static ap_status nccl_alltoallv(struct ap_comm *c, const void *send, const int64_t *send_bytes, const int64_t *send_off,
                                void *recv, const int64_t *recv_bytes, const int64_t *recv_off)
{
    struct nccl_impl *x = c->impl;
    int result = AP_NCCL_SUCCESS, any = 0;
    if (x->broken)
        return AP_ERR_COMM;
    for (int r = 0; r < c->size; r++)
        any |= send_bytes[r] > 0 || recv_bytes[r] > 0;
    if (!any)
        return AP_OK;
    void *stream = stream_of(x);
    keep(&result, x->api.ncclGroupStart());
    for (int r = 0; r < c->size; r++) {
        if (send_bytes[r] > 0)
            keep(&result, x->api.ncclSend((const uint8_t *)send + send_off[r], (size_t)send_bytes[r], AP_NCCL_UINT8, r,
                                          x->comm, stream));
        if (recv_bytes[r] > 0)
            keep(&result, x->api.ncclRecv((uint8_t *)recv + recv_off[r], (size_t)recv_bytes[r], AP_NCCL_UINT8, r,
                                          x->comm, stream));
    }
    keep(&result, x->api.ncclGroupEnd());
    return finish(c, result, "all-to-all");
}

static int type_of(ap_dtype t)
{
    return t == AP_F32 ? AP_NCCL_F32 : t == AP_F64 ? AP_NCCL_F64 : t == AP_BF16 ? AP_NCCL_BF16 : -1;
}

/* Can NCCL sum tensors like this one? */
static ap_status summable(const struct nccl_impl *x, const ap_tensor *t, int *type_p)
{
    *type_p = type_of(t->dtype);
    if (*type_p < 0)
        return AP_ERR_UNSUPPORTED;
    return x->broken ? AP_ERR_COMM : AP_OK;
}

ap_status ap_comm_nccl_sum(struct ap_comm *c, ap_tensor v)
{
    struct nccl_impl *x = c->impl;
    int64_t n = ap_tensor_count(&v);
    int type;
    AP_TRY(summable(x, &v, &type));
    if (n == 0)
        return AP_OK;
    return finish(c, x->api.ncclAllReduce(v.data, v.data, (size_t)n, type, AP_NCCL_SUM, x->comm, stream_of(x)),
                  "all-reduce");
}

ap_status ap_comm_nccl_sum_scatter(struct ap_comm *c, ap_tensor parts, ap_tensor own)
{
    struct nccl_impl *x = c->impl;
    int64_t n = ap_tensor_count(&own);
    int type;
    if (parts.dtype != own.dtype || ap_tensor_count(&parts) != n * c->size)
        return AP_ERR_BUG;
    AP_TRY(summable(x, &own, &type));
    if (n == 0)
        return AP_OK;
    int result = x->api.ncclReduceScatter(parts.data, own.data, (size_t)n, type, AP_NCCL_SUM, x->comm, stream_of(x));
    return finish(c, result, "reduce-scatter");
}

/* This rank's part of the set-up. */
static ap_status join(struct ap_comm *c, const struct ap_nccl_id *id, struct ap_error *err)
{
    struct nccl_impl *x = c->impl;
    double limit = ap_clock_monotonic() + x->timeout;
    int turns = 0, done = 0;
    ap_status st = ap_nccl_begin(x, c->size, id, c->rank, &x->comm);
    while (st == AP_OK && !done) {
        st = ap_nccl_poll(x, x->comm, &done);
        if (st == AP_OK && !done && ap_clock_monotonic() > limit)
            st = ap_nccl_timed_out(x, "the connection of the ranks");
        if (!done)
            ap_nccl_pause(&turns);
    }
    if (st == AP_OK)
        return AP_OK;
    ap_nccl_break(x); /* before the ranks agree, so that others hear of it */
    ap_error_set(err, st, "NCCL on rank %d of %d: %s", c->rank, c->size, x->why);
    ap_error_hint(err, "NCCL_DEBUG=INFO says more; is NCCL_SOCKET_IFNAME a network that joins the nodes? "
                       "parallel.device_comm: mpi does without NCCL");
    return st;
}

/* Own messages, id, connection: as it was before on failure, but broken. */
static ap_status bring_up(struct ap_comm *c, struct ap_error *err)
{
    struct nccl_impl *x = c->impl;
    struct ap_nccl_id id = {{0}};
    ap_status st = ap_comm_split(x->parent, 0, c->rank, &x->ctl);
    if (st != AP_OK)
        return ap_error_set(err, st, "no communicator for NCCL's ids");
    c->host = x->ctl;
    int result = c->rank == 0 ? x->api.ncclGetUniqueId(&id) : AP_NCCL_SUCCESS;
    if (is_error(result)) {
        st = ap_nccl_failed(x, "an id", result);
        ap_error_set(err, st, "NCCL: %s", x->why);
    }
    AP_TRY(ap_comm_agree(x->ctl, st, NULL, err));
    st = ap_comm_bcast(x->ctl, &id, sizeof(id), 0);
    if (st != AP_OK)
        return ap_error_set(err, st, "the id of NCCL's communicator did not arrive");
    st = ap_comm_agree(x->ctl, join(c, &id, err), NULL, err);
    x->broken = st != AP_OK;
    if (st != AP_OK)
        ap_nccl_break(x);
    return st;
}

/* Where this rank works. */
struct place {
    char host[64], device[64];
};

static ap_status check_places(struct ap_comm *parent, const struct place *own, struct ap_error *err)
{
    struct place *all = calloc((size_t)parent->size, sizeof(*all));
    int64_t *bytes = calloc((size_t)parent->size, sizeof(*bytes));
    ap_status st = ap_comm_agree(parent, all && bytes ? AP_OK : AP_ERR_NOMEM, NULL, err);
    for (int r = 0; st == AP_OK && r < parent->size; r++)
        bytes[r] = sizeof(*all);
    if (st == AP_OK)
        st = ap_comm_allgatherv(parent, own, bytes, all);
    if (st == AP_ERR_COMM)
        ap_error_set(err, st, "the places of the ranks did not arrive");
    for (int r = 0; st == AP_OK && r < parent->size; r++) {
        for (int k = 0; st == AP_OK && k < r; k++) {
            if (memcmp(&all[k], &all[r], sizeof(all[r])) != 0)
                continue;
            st = ap_error_set(err, AP_ERR_ENV, "ranks %d and %d are both on device %s of host %s", k, r, all[r].device,
                              all[r].host);
            ap_error_hint(err, "NCCL takes one rank per GPU: start as many, or set parallel.device_comm: mpi");
        }
    }
    free(all);
    free(bytes);
    return st;
}

/* Of this rank alone. */
static ap_status usable(struct ap_backend *be, struct ap_nccl *api_p, struct place *place_p, struct ap_error *err)
{
    if (be->vt->is_host || !be->vt->device) {
        ap_error_set(err, AP_ERR_UNSUPPORTED, "backend %s has no memory of a device", be->vt->name);
        ap_error_hint(err, "NCCL works with backend: cuda");
        return AP_ERR_UNSUPPORTED;
    }
    AP_TRY(ap_nccl_load(be->vt->device->nccl, api_p, err));
    gethostname(place_p->host, sizeof(place_p->host) - 1);
    ap_status st = be->vt->device->name(be, place_p->device, sizeof(place_p->device));
    return st == AP_OK ? st : ap_error_set(err, st, "device %d does not tell its name", be->device);
}

static ap_status possible(struct ap_comm *parent, struct ap_backend *be, struct ap_nccl *api_p, struct ap_error *err)
{
    struct place place = {{0}, {0}};
    AP_TRY(ap_comm_agree(parent, usable(be, api_p, &place, err), NULL, err));
    return check_places(parent, &place, err);
}

ap_status ap_comm_nccl_possible(struct ap_comm *parent, struct ap_backend *be, char *what, size_t size,
                                struct ap_error *err)
{
    struct ap_nccl api = {0};
    char version[32];
    AP_TRY(possible(parent, be, &api, err));
    if (what)
        snprintf(what, size, "NCCL %s", ap_nccl_version_text(api.version, version, sizeof(version)));
    return AP_OK;
}

static void nccl_destroy(struct ap_comm *c)
{
    struct nccl_impl *x = c->impl;
    ap_nccl_break(x);
    ap_nccl_messages_free(x);
    ap_comm_destroy(x->ctl);
    if (x->owns_parent)
        ap_comm_destroy(x->parent);
    x->be->vt->device->mark_destroy(x->be, x->mark);
    free(x);
    free(c);
}

ap_status ap_comm_nccl_create(struct ap_comm *parent, struct ap_backend *be, double timeout, struct ap_comm **c_p,
                              struct ap_error *err)
{
    struct ap_nccl api = {0};
    AP_TRY(possible(parent, be, &api, err));
    struct ap_comm *c = calloc(1, sizeof(*c));
    struct nccl_impl *x = calloc(1, sizeof(*x));
    ap_status st = ap_comm_agree(parent, c && x ? AP_OK : AP_ERR_NOMEM, NULL, err);
    if (!c || !x || st != AP_OK) {
        free(c);
        free(x);
        return st;
    }
    *x = (struct nccl_impl){
        .api = api, .be = be, .parent = parent, .timeout = timeout > 0 ? timeout : AP_NCCL_TIMEOUT, .broken = 1};
    *c = (struct ap_comm){.vt = &nccl_ops, .rank = parent->rank, .size = parent->size, .impl = x};
    st = ap_comm_agree(parent, be->vt->device->mark_create(be, &x->mark), NULL, err);
    if (st == AP_OK)
        st = bring_up(c, err);
    if (st != AP_OK) {
        nccl_destroy(c);
        return st;
    }
    *c_p = c;
    return AP_OK;
}

ap_status ap_comm_nccl_renew(struct ap_comm *c, struct ap_error *err)
{
    struct nccl_impl *x = c->impl;
    ap_nccl_break(x);
    ap_comm_destroy(x->ctl);
    x->ctl = c->host = NULL;
    ap_status st = bring_up(c, err);
    if (!x->ctl) /* calls of the host go on */
        c->host = x->parent;
    return st;
}

static ap_status nccl_split(struct ap_comm *c, int color, int key, struct ap_comm **out)
{
    struct nccl_impl *x = c->impl;
    struct ap_comm *sub = NULL, *made = NULL;
    AP_TRY(ap_comm_split(c->host, color, key, &sub));
    if (!sub) {
        *out = NULL;
        return AP_OK;
    }
    struct ap_error err = {0};
    ap_status st = ap_comm_nccl_create(sub, x->be, x->timeout, &made, &err);
    if (st != AP_OK) {
        ap_error_log("%s", err.text);
        ap_comm_destroy(sub);
        return st;
    }
    ((struct nccl_impl *)made->impl)->owns_parent = 1;
    *out = made;
    return AP_OK;
}

void ap_comm_nccl_timeout(struct ap_comm *c, double seconds)
{
    ((struct nccl_impl *)c->impl)->timeout = seconds;
}

static const struct ap_comm_ops nccl_ops = {
    .size = sizeof(struct ap_comm_ops),
    .name = "nccl",
    .barrier = nccl_barrier,
    .bcast = nccl_bcast,
    .allreduce_i64 = nccl_allreduce_i64,
    .allgatherv = nccl_allgatherv,
    .alltoallv = nccl_alltoallv,
    .send_start = ap_nccl_start,
    .recv_start = ap_nccl_start,
    .wait = ap_nccl_wait,
    .test = ap_nccl_test,
    .cancel = ap_nccl_cancel,
    .split = nccl_split,
    .destroy = nccl_destroy,
};
