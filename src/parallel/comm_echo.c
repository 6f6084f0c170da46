/* SPDX-License-Identifier: Apache-2.0
 * The communicator of a rank that only pretends to have company. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "parallel/comm.h"

struct echo {
    double *seconds;
};

static void spent(const struct ap_comm *c, double since)
{
    const struct echo *x = c->impl;
    if (x->seconds)
        *x->seconds += ap_clock_monotonic() - since;
}

static ap_status barrier(struct ap_comm *c)
{
    (void)c;
    return AP_OK;
}

static ap_status bcast(struct ap_comm *c, void *data, int64_t bytes, int root)
{
    (void)c;
    (void)data;
    (void)bytes;
    (void)root;
    return AP_OK;
}

static ap_status allreduce_i64(struct ap_comm *c, int64_t *v, int64_t n, int max)
{
    for (int64_t i = 0; i < n && !max; i++)
        v[i] *= c->size;
    return AP_OK;
}

static int64_t fewer(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* send may lie in recv, at its beginning, since this is rank 0. */
static ap_status allgatherv(struct ap_comm *c, const void *send, const int64_t *bytes, void *recv)
{
    double begin = ap_clock_monotonic();
    uint8_t *to = recv;
    if (bytes[0] > 0 && send != recv)
        memmove(to, send, (size_t)bytes[0]);
    int64_t at = bytes[0];
    for (int r = 1; r < c->size; r++) {
        memcpy(to + at, to, (size_t)fewer(bytes[0], bytes[r]));
        at += bytes[r];
    }
    spent(c, begin);
    return AP_OK;
}

static ap_status alltoallv(struct ap_comm *c, const void *send, const int64_t *send_bytes, const int64_t *send_off,
                           void *recv, const int64_t *recv_bytes, const int64_t *recv_off)
{
    double begin = ap_clock_monotonic();
    for (int r = 0; r < c->size; r++)
        if (send_bytes[r] > 0 && recv_bytes[r] > 0)
            memcpy((uint8_t *)recv + recv_off[r], (const uint8_t *)send + send_off[r],
                   (size_t)fewer(send_bytes[r], recv_bytes[r]));
    spent(c, begin);
    return AP_OK;
}

static ap_status no_messages(struct ap_comm *c, struct ap_comm_request *r)
{
    (void)c;
    (void)r;
    return AP_ERR_UNSUPPORTED;
}

static ap_status no_test(struct ap_comm *c, struct ap_comm_request *r, int *done_p)
{
    (void)done_p;
    return no_messages(c, r);
}

static ap_status no_split(struct ap_comm *c, int color, int key, struct ap_comm **out)
{
    (void)c;
    (void)color;
    (void)key;
    (void)out;
    return AP_ERR_UNSUPPORTED;
}

static void destroy(struct ap_comm *c)
{
    free(c->impl);
    free(c);
}

static const struct ap_comm_ops echo_ops = {
    .size = sizeof(struct ap_comm_ops),
    .name = "echo",
    .barrier = barrier,
    .bcast = bcast,
    .allreduce_i64 = allreduce_i64,
    .allgatherv = allgatherv,
    .alltoallv = alltoallv,
    .send_start = no_messages,
    .recv_start = no_messages,
    .wait = no_messages,
    .test = no_test,
    .split = no_split,
    .destroy = destroy,
};

ap_status ap_comm_echo(int size, double *seconds, struct ap_comm **c_p)
{
    if (size < 1)
        return AP_ERR_BUG;
    struct ap_comm *c = calloc(1, sizeof(*c));
    struct echo *x = calloc(1, sizeof(*x));
    if (!c || !x) {
        free(c);
        free(x);
        return AP_ERR_NOMEM;
    }
    x->seconds = seconds;
    *c = (struct ap_comm){.vt = &echo_ops, .rank = 0, .size = size, .impl = x};
    *c_p = c;
    return AP_OK;
}
