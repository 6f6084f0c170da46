/* SPDX-License-Identifier: Apache-2.0
 * NCCL on one GPU: a communicator of one rank comes up, every collective and a message to oneself give the right bytes,
 * it is aborted, refuses what comes then, and is made again. The library is the machine's own; with one rank nothing
 * crosses a link, so this checks our calls and no speed. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "gpu.h"
#include "parallel/comm_nccl.h"

enum { NUMBERS = 1 << 20 };

#define EXPECT(cond)                                                                                                   \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            return ap_error_set(err, AP_ERR_INVALID, "NCCL on one rank: %s is not so (line %d)", #cond, __LINE__);     \
    } while (0)

struct memory {
    float *host, *back; /* [NUMBERS] */
    ap_tensor a, b;     /* device, likewise */
};

static ap_status fetch(struct bench *b, struct memory *m, ap_tensor from)
{
    memset(m->back, 0, NUMBERS * sizeof(float));
    AP_TRY(b->be->vt->copy(b->be->stream, m->back, from.data, NUMBERS * sizeof(float)));
    return b->be->vt->stream_sync(b->be->stream);
}

static ap_status collectives(struct bench *b, struct ap_comm *c, struct memory *m, struct ap_error *err)
{
    const int64_t bytes = NUMBERS * (int64_t)sizeof(float), none = 0;
    const size_t size = NUMBERS * sizeof(float);
    struct ap_comm_request send, recv;
    int64_t v = 42;
    AP_TRY(bench_fill(b, m->a, m->host));
    EXPECT(ap_comm_nccl_sum(c, m->a) == AP_OK && fetch(b, m, m->a) == AP_OK && memcmp(m->back, m->host, size) == 0);
    EXPECT(ap_comm_bcast(c, m->a.data, bytes, 0) == AP_OK && fetch(b, m, m->a) == AP_OK);
    EXPECT(memcmp(m->back, m->host, size) == 0);
    EXPECT(ap_comm_allgatherv(c, m->a.data, &bytes, m->b.data) == AP_OK && fetch(b, m, m->b) == AP_OK);
    EXPECT(memcmp(m->back, m->host, size) == 0);
    AP_TRY(b->be->vt->fill_zero(b->be->stream, m->b.data, size));
    EXPECT(ap_comm_alltoallv(c, m->a.data, &bytes, &none, m->b.data, &bytes, &none) == AP_OK);
    EXPECT(fetch(b, m, m->b) == AP_OK && memcmp(m->back, m->host, size) == 0);
    AP_TRY(b->be->vt->fill_zero(b->be->stream, m->b.data, size));
    EXPECT(ap_comm_nccl_sum_scatter(c, m->a, m->b) == AP_OK);
    EXPECT(fetch(b, m, m->b) == AP_OK && memcmp(m->back, m->host, size) == 0);
    AP_TRY(b->be->vt->fill_zero(b->be->stream, m->b.data, size));
    EXPECT(ap_comm_recv_start(c, m->b.data, bytes, 0, 7, &recv) == AP_OK);
    EXPECT(ap_comm_send_start(c, m->a.data, bytes, 0, 7, &send) == AP_OK);
    EXPECT(ap_comm_wait(c, &recv) == AP_OK && ap_comm_wait(c, &send) == AP_OK);
    EXPECT(fetch(b, m, m->b) == AP_OK && memcmp(m->back, m->host, size) == 0);
    EXPECT(ap_comm_sum_i64(c, &v, 1) == AP_OK && v == 42);
    return ap_comm_agree(c, AP_OK, NULL, err);
}

static ap_status life(struct bench *b, struct ap_comm *c, struct memory *m, double *renew_s, struct ap_error *err)
{
    AP_TRY(collectives(b, c, m, err));
    ap_comm_nccl_abort(c);
    EXPECT(ap_comm_nccl_sum(c, m->a) == AP_ERR_COMM);
    double start = ap_clock_monotonic();
    AP_TRY(ap_comm_nccl_renew(c, err));
    *renew_s = ap_clock_monotonic() - start;
    return collectives(b, c, m, err);
}

static ap_status with_memory(struct bench *b, struct ap_comm *c, double *renew_s, struct ap_error *err)
{
    const int64_t shape[1] = {NUMBERS};
    struct memory m = {.host = malloc(NUMBERS * sizeof(float)), .back = malloc(NUMBERS * sizeof(float))};
    m.a = bench_tensor(b, AP_F32, 1, shape);
    m.b = bench_tensor(b, AP_F32, 1, shape);
    ap_status st = m.host && m.back && m.a.data && m.b.data ? AP_OK : AP_ERR_NOMEM;
    for (int i = 0; st == AP_OK && i < NUMBERS; i++)
        m.host[i] = (float)(i % 1009) * 0.25f - 100.0f;
    if (st == AP_OK)
        st = life(b, c, &m, renew_s, err);
    bench_release(b, &m.a);
    bench_release(b, &m.b);
    free(m.host);
    free(m.back);
    return st;
}

ap_status bench_nccl(struct bench *b, struct ap_error *err)
{
    struct ap_comm *self = NULL, *c = NULL;
    char what[64] = "";
    double start = ap_clock_monotonic(), create_s = 0, renew_s = 0;
    AP_TRY(ap_comm_self(&self));
    ap_status st = ap_comm_nccl_possible(self, b->be, what, sizeof(what), err);
    int missing = st != AP_OK;
    if (st == AP_OK)
        st = ap_comm_nccl_create(self, b->be, 120, &c, err);
    create_s = ap_clock_monotonic() - start;
    if (st == AP_OK)
        st = with_memory(b, c, &renew_s, err);
    ap_comm_destroy(c);
    ap_comm_destroy(self);
    if (st == AP_OK)
        fprintf(b->out,
                "{\"section\": \"nccl\", \"library\": \"%s\", \"ranks\": 1, \"outcome\": \"passed\", "
                "\"create_seconds\": %.4f, \"renew_seconds\": %.4f}\n",
                what, create_s, renew_s);
    return missing ? AP_ERR_NOTFOUND : st;
}
