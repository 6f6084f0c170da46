/* SPDX-License-Identifier: Apache-2.0
 * Rows between ranks: gather, sum by owner, all-to-all. */
#include "config.h"

#include <stdlib.h>

#include "parallel/exchange.h"

struct ap_exchange {
    struct ap_backend *be;
    struct ap_comm *comm;
    int direct;      /* comm takes the backend's memory */
    int64_t *counts; /* [4 * size] bytes and offsets of a call */
    uint8_t *host[2];
    size_t host_bytes[2]; /* else */
};

ap_status ap_exchange_create(struct ap_backend *be, struct ap_comm *comm, struct ap_exchange **x_p)
{
    struct ap_exchange *x = calloc(1, sizeof(*x));
    if (!x)
        return AP_ERR_NOMEM;
    *x = (struct ap_exchange){.be = be,
                              .comm = ap_comm_tensors(comm),
                              .direct = be->vt->is_host || comm->device,
                              .counts = calloc((size_t)comm->size * 4, sizeof(int64_t))};
    if (!x->counts) {
        ap_exchange_destroy(x);
        return AP_ERR_NOMEM;
    }
    *x_p = x;
    return AP_OK;
}

void ap_exchange_destroy(struct ap_exchange *x)
{
    if (!x)
        return;
    free(x->counts);
    free(x->host[0]);
    free(x->host[1]);
    free(x);
}

/* Memory of side `i` (0: out, 1: in) that the communicator takes for the tensor's memory. */
static uint8_t *host_of(struct ap_exchange *x, int i, void *mem, size_t bytes)
{
    if (x->direct)
        return mem;
    if (bytes > x->host_bytes[i]) {
        uint8_t *more = realloc(x->host[i], bytes);
        if (!more)
            return NULL;
        x->host[i] = more;
        x->host_bytes[i] = bytes;
    }
    return x->host[i];
}

static int64_t row_bytes(ap_tensor t)
{
    return t.shape[1] * (int64_t)ap_dtype_size(t.dtype);
}

static ap_status to_host(struct ap_exchange *x, void *host, const void *mem, size_t bytes)
{
    if (x->direct && !x->be->vt->is_host)
        return AP_OK; /* what follows comes behind on the stream */
    if (host != mem && bytes > 0)
        AP_TRY(x->be->vt->copy(x->be->stream, host, mem, bytes));
    return x->be->vt->stream_sync(x->be->stream);
}

static ap_status from_host(struct ap_exchange *x, void *mem, const void *host, size_t bytes)
{
    return host == mem || bytes == 0 ? AP_OK : x->be->vt->copy(x->be->stream, mem, host, bytes);
}

ap_status ap_exchange_gather(struct ap_exchange *x, ap_tensor own, const int64_t *rows, ap_tensor all)
{
    int64_t row = row_bytes(all), total = 0;
    for (int i = 0; i < x->comm->size; i++) {
        x->counts[i] = rows[i] * row;
        total += x->counts[i];
    }
    size_t mine = (size_t)x->counts[x->comm->rank];
    uint8_t *out = host_of(x, 0, own.data, mine), *in = host_of(x, 1, all.data, (size_t)total);
    if (!out || !in)
        return AP_ERR_NOMEM;
    AP_TRY(to_host(x, out, own.data, mine));
    AP_TRY(ap_comm_allgatherv(x->comm, out, x->counts, in));
    return from_host(x, all.data, in, (size_t)total);
}

ap_status ap_exchange_rows(struct ap_exchange *x, ap_tensor from, const int64_t *send, ap_tensor to,
                           const int64_t *recv)
{
    int size = x->comm->size;
    int64_t row = row_bytes(to), sent = 0, received = 0;
    int64_t *sb = x->counts, *so = sb + size, *rb = so + size, *ro = rb + size;
    for (int i = 0; i < size; i++) {
        sb[i] = send[i] * row;
        rb[i] = recv[i] * row;
        so[i] = sent;
        ro[i] = received;
        sent += sb[i];
        received += rb[i];
    }
    uint8_t *out = host_of(x, 0, from.data, (size_t)sent), *in = host_of(x, 1, to.data, (size_t)received);
    if ((sent > 0 && !out) || (received > 0 && !in))
        return AP_ERR_NOMEM;
    AP_TRY(to_host(x, out, from.data, (size_t)sent));
    AP_TRY(ap_comm_alltoallv(x->comm, out, sb, so, in, rb, ro));
    return from_host(x, to.data, in, (size_t)received);
}

static ap_status add(struct ap_exchange *x, ap_tensor a, const void *b, ap_tensor c)
{
    int64_t n = ap_tensor_count(&c);
    ap_tensor ta = ap_tensor_1d(a.data, c.dtype, n), tb = ap_tensor_1d((void *)(uintptr_t)b, c.dtype, n);
    ap_tensor tc = ap_tensor_1d(c.data, c.dtype, n);
    return x->be->ops.add(x->be->stream, &(struct ap_add_args){.a = ta, .b = tb, .c = tc});
}

ap_status ap_exchange_sum(struct ap_exchange *x, ap_tensor parts, const int64_t *rows, ap_tensor scratch, ap_tensor own,
                          int accumulate)
{
    int size = x->comm->size, rank = x->comm->rank;
    int64_t row = row_bytes(parts), mine = rows[rank] * row, sent = 0;
    int64_t *sb = x->counts, *so = sb + size, *rb = so + size, *ro = rb + size;
    for (int i = 0; i < size; i++) {
        sb[i] = rows[i] * row;
        so[i] = sent;
        rb[i] = mine;
        ro[i] = i * mine;
        sent += sb[i];
    }
    uint8_t *out = host_of(x, 0, parts.data, (size_t)sent);
    uint8_t *in = host_of(x, 1, scratch.data, (size_t)(size * mine));
    if (!out || !in)
        return AP_ERR_NOMEM;
    AP_TRY(to_host(x, out, parts.data, (size_t)sent));
    AP_TRY(ap_comm_alltoallv(x->comm, out, sb, so, in, rb, ro));
    AP_TRY(from_host(x, scratch.data, in, (size_t)(size * mine)));
    /* ((p0 + p1) + p2) ..., then into own: the order does not depend on who asks */
    ap_tensor first = {.data = scratch.data};
    for (int i = 1; i < size; i++) {
        int last = i == size - 1 && !accumulate;
        ap_tensor to = ap_tensor_2d(last ? own.data : scratch.data, own.dtype, rows[rank], own.shape[1]);
        AP_TRY(add(x, first, (uint8_t *)scratch.data + i * mine, to));
    }
    if (accumulate)
        return add(x, own, scratch.data, own);
    return size > 1 ? AP_OK : x->be->vt->copy(x->be->stream, own.data, scratch.data, (size_t)mine);
}
