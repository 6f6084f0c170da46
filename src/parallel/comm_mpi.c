/* SPDX-License-Identifier: Apache-2.0
 * Communicators over MPI. Blocking collectives of MPI-3 for what fits an int count; pieces otherwise. Open
 * MPI 5.0 has no large-count bindings, hence the loops. */
#include "config.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "parallel/comm_mpi.h"

#define PIECE ((int64_t)1 << 30)

struct mpi_impl {
    MPI_Comm comm;
    int64_t limit;          /* bytes per MPI call */
    int *counts, *displs;   /* [size] scratch for sends */
    int *rcounts, *rdispls; /* [size] scratch for receives */
};

static const struct ap_comm_ops mpi_ops;

static ap_status check(int rc, const char *what)
{
    if (rc == MPI_SUCCESS)
        return AP_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int len = 0;
    MPI_Error_string(rc, text, &len);
    ap_error_log("%s: %s", what, text);
    return AP_ERR_COMM;
}

static ap_status mpi_barrier(struct ap_comm *c)
{
    struct mpi_impl *m = c->impl;
    return check(MPI_Barrier(m->comm), "MPI_Barrier");
}

static ap_status mpi_bcast(struct ap_comm *c, void *data, int64_t bytes, int root)
{
    struct mpi_impl *m = c->impl;
    for (int64_t at = 0; at < bytes; at += m->limit) {
        int64_t n = bytes - at < m->limit ? bytes - at : m->limit;
        AP_TRY(check(MPI_Bcast((uint8_t *)data + at, (int)n, MPI_BYTE, root, m->comm), "MPI_Bcast"));
    }
    return AP_OK;
}

static ap_status mpi_allreduce_i64(struct ap_comm *c, int64_t *v, int64_t n, int max)
{
    struct mpi_impl *m = c->impl;
    int64_t step = m->limit / 8 > 0 ? m->limit / 8 : 1;
    for (int64_t at = 0; at < n; at += step) {
        int64_t k = n - at < step ? n - at : step;
        int rc = MPI_Allreduce(MPI_IN_PLACE, v + at, (int)k, MPI_INT64_T, max ? MPI_MAX : MPI_SUM, m->comm);
        AP_TRY(check(rc, "MPI_Allreduce"));
    }
    return AP_OK;
}

static ap_status mpi_allgatherv(struct ap_comm *c, const void *send, const int64_t *bytes, void *recv)
{
    struct mpi_impl *m = c->impl;
    int64_t total = 0, mine = 0;
    for (int r = 0; r < c->size; r++) {
        if (r == c->rank)
            mine = total;
        if (total <= INT_MAX && bytes[r] <= INT_MAX) {
            m->counts[r] = (int)bytes[r];
            m->displs[r] = (int)total;
        }
        total += bytes[r];
    }
    uint8_t *to = (uint8_t *)recv + mine;
    if (bytes[c->rank] > 0 && send != to)
        memmove(to, send, (size_t)bytes[c->rank]);
    if (total <= m->limit)
        return check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, recv, m->counts, m->displs, MPI_BYTE, m->comm),
                     "MPI_Allgatherv");
    int64_t at = 0;
    for (int r = 0; r < c->size; r++) {
        AP_TRY(mpi_bcast(c, (uint8_t *)recv + at, bytes[r], r));
        at += bytes[r];
    }
    return AP_OK;
}

/* Pairwise exchange in pieces: in turn k each rank sends to rank+k and receives from rank-k. */
static ap_status alltoallv_pieces(struct ap_comm *c, const uint8_t *send, const int64_t *send_bytes,
                                  const int64_t *send_off, uint8_t *recv, const int64_t *recv_bytes,
                                  const int64_t *recv_off)
{
    struct mpi_impl *m = c->impl;
    for (int k = 0; k < c->size; k++) {
        int to = (c->rank + k) % c->size, from = (c->rank + c->size - k) % c->size;
        int64_t out = 0, in = 0;
        while (out < send_bytes[to] || in < recv_bytes[from]) {
            int64_t so = send_bytes[to] - out < m->limit ? send_bytes[to] - out : m->limit;
            int64_t ri = recv_bytes[from] - in < m->limit ? recv_bytes[from] - in : m->limit;
            MPI_Request req[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
            int rc = MPI_SUCCESS;
            if (ri > 0)
                rc = MPI_Irecv(recv + recv_off[from] + in, (int)ri, MPI_BYTE, from, 0, m->comm, &req[0]);
            if (rc == MPI_SUCCESS && so > 0)
                rc = MPI_Isend(send + send_off[to] + out, (int)so, MPI_BYTE, to, 0, m->comm, &req[1]);
            AP_TRY(check(rc, "MPI_Isend"));
            AP_TRY(check(MPI_Waitall(2, req, MPI_STATUSES_IGNORE), "MPI_Waitall"));
            out += so;
            in += ri;
        }
    }
    return AP_OK;
}

static ap_status mpi_alltoallv(struct ap_comm *c, const void *send, const int64_t *send_bytes, const int64_t *send_off,
                               void *recv, const int64_t *recv_bytes, const int64_t *recv_off)
{
    struct mpi_impl *m = c->impl;
    int64_t large = 0;
    for (int r = 0; r < c->size; r++) {
        int64_t out_end = send_off[r] + send_bytes[r], in_end = recv_off[r] + recv_bytes[r];
        large = large || out_end > m->limit || in_end > m->limit;
        if (large)
            continue;
        m->counts[r] = (int)send_bytes[r];
        m->displs[r] = (int)(send_bytes[r] > 0 ? send_off[r] : 0);
        m->rcounts[r] = (int)recv_bytes[r];
        m->rdispls[r] = (int)(recv_bytes[r] > 0 ? recv_off[r] : 0);
    }
    AP_TRY(mpi_allreduce_i64(c, &large, 1, 1)); /* the form must be the same on all ranks */
    if (large)
        return alltoallv_pieces(c, send, send_bytes, send_off, recv, recv_bytes, recv_off);
    return check(MPI_Alltoallv(send, m->counts, m->displs, MPI_BYTE, recv, m->rcounts, m->rdispls, MPI_BYTE, m->comm),
                 "MPI_Alltoallv");
}

/* Tag 0 is that of alltoallv_pieces. */
static ap_status start(struct ap_comm *c, struct ap_comm_request *r)
{
    _Static_assert(sizeof(MPI_Request) <= sizeof(r->piece[0]), "a request fits its place");
    struct mpi_impl *m = c->impl;
    int64_t at = 0;
    do {
        int64_t n = r->bytes - at < m->limit ? r->bytes - at : m->limit;
        MPI_Request q = MPI_REQUEST_NULL;
        if (r->pieces == AP_COMM_PIECES)
            return AP_ERR_UNSUPPORTED;
        int rc = r->sends
                     ? MPI_Isend((const uint8_t *)r->from + at, (int)n, MPI_BYTE, r->receiver, r->tag + 1, m->comm, &q)
                     : MPI_Irecv((uint8_t *)r->to + at, (int)n, MPI_BYTE, r->sender, r->tag + 1, m->comm, &q);
        AP_TRY(check(rc, r->sends ? "MPI_Isend" : "MPI_Irecv"));
        memcpy(&r->piece[r->pieces++], &q, sizeof(MPI_Request));
        at += n;
    } while (at < r->bytes);
    return AP_OK;
}

static ap_status mpi_wait(struct ap_comm *c, struct ap_comm_request *r)
{
    (void)c;
    ap_status st = AP_OK;
    int64_t got = 0;
    for (int i = 0; i < r->pieces; i++) {
        MPI_Request q;
        MPI_Status status;
        int n = 0;
        memcpy(&q, &r->piece[i], sizeof(MPI_Request));
        ap_status one = check(MPI_Wait(&q, &status), "MPI_Wait");
        if (one == AP_OK && !r->sends)
            one = check(MPI_Get_count(&status, MPI_BYTE, &n), "MPI_Get_count");
        got += n;
        st = st == AP_OK ? one : st;
    }
    r->pieces = 0;
    return st == AP_OK && !r->sends && got != r->bytes ? AP_ERR_BUG : st;
}

static ap_status mpi_test(struct ap_comm *c, struct ap_comm_request *r, int *done_p)
{
    (void)c;
    MPI_Request q[AP_COMM_PIECES];
    MPI_Status status[AP_COMM_PIECES];
    int64_t got = 0;
    for (int i = 0; i < r->pieces; i++)
        memcpy(&q[i], &r->piece[i], sizeof(MPI_Request));
    AP_TRY(check(MPI_Testall(r->pieces, q, done_p, status), "MPI_Testall"));
    if (!*done_p)
        return AP_OK;
    for (int i = 0; i < r->pieces && !r->sends; i++) {
        int n = 0;
        AP_TRY(check(MPI_Get_count(&status[i], MPI_BYTE, &n), "MPI_Get_count"));
        got += n;
    }
    r->pieces = 0;
    return !r->sends && got != r->bytes ? AP_ERR_BUG : AP_OK;
}

/* A send of so few bytes is out of our hands already; Open MPI cancels receives only. */
static void mpi_cancel(struct ap_comm *c, struct ap_comm_request *r)
{
    (void)c;
    for (int i = 0; i < r->pieces; i++) {
        MPI_Request q;
        memcpy(&q, &r->piece[i], sizeof(MPI_Request));
        if (!r->sends)
            (void)check(MPI_Cancel(&q), "MPI_Cancel");
        (void)check(MPI_Wait(&q, MPI_STATUS_IGNORE), "MPI_Wait");
    }
    r->pieces = 0;
}

static ap_status mpi_split(struct ap_comm *c, int color, int key, struct ap_comm **out)
{
    struct mpi_impl *m = c->impl;
    MPI_Comm made = MPI_COMM_NULL;
    AP_TRY(check(MPI_Comm_split(m->comm, color < 0 ? MPI_UNDEFINED : color, key, &made), "MPI_Comm_split"));
    if (made == MPI_COMM_NULL) {
        *out = NULL;
        return AP_OK;
    }
    struct ap_comm *h = NULL;
    AP_TRY(ap_comm_mpi_wrap(made, &h));
    ap_comm_mpi_limit(h, m->limit);
    *out = h;
    return AP_OK;
}

/* MPI_Comm_free is collective by the letter of the standard, but local in Open MPI up to its own
 * bookkeeping; after MPI_Finalize nothing may be called at all. */
static void mpi_destroy(struct ap_comm *c)
{
    struct mpi_impl *m = c->impl;
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized && m->comm != MPI_COMM_NULL)
        MPI_Comm_free(&m->comm);
    free(m->counts);
    free(m);
    free(c);
}

static const struct ap_comm_ops mpi_ops = {
    .size = sizeof(struct ap_comm_ops),
    .name = "mpi",
    .barrier = mpi_barrier,
    .bcast = mpi_bcast,
    .allreduce_i64 = mpi_allreduce_i64,
    .allgatherv = mpi_allgatherv,
    .alltoallv = mpi_alltoallv,
    .send_start = start,
    .recv_start = start,
    .wait = mpi_wait,
    .test = mpi_test,
    .cancel = mpi_cancel,
    .split = mpi_split,
    .destroy = mpi_destroy,
};

ap_status ap_comm_mpi_wrap(MPI_Comm mpi, struct ap_comm **c_p)
{
    int rank = 0, size = 0;
    AP_TRY(check(MPI_Comm_set_errhandler(mpi, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    AP_TRY(check(MPI_Comm_rank(mpi, &rank), "MPI_Comm_rank"));
    AP_TRY(check(MPI_Comm_size(mpi, &size), "MPI_Comm_size"));
    struct ap_comm *c = calloc(1, sizeof(*c));
    struct mpi_impl *m = calloc(1, sizeof(*m));
    int *scratch = calloc((size_t)size * 4, sizeof(int));
    if (!c || !m || !scratch) {
        free(c);
        free(m);
        free(scratch);
        return AP_ERR_NOMEM;
    }
    *m = (struct mpi_impl){.comm = mpi, .limit = PIECE, .counts = scratch};
    m->displs = scratch + size;
    m->rcounts = scratch + 2 * (size_t)size;
    m->rdispls = scratch + 3 * (size_t)size;
    *c = (struct ap_comm){.vt = &mpi_ops, .rank = rank, .size = size, .impl = m};
    *c_p = c;
    return AP_OK;
}

void ap_comm_mpi_limit(struct ap_comm *c, int64_t bytes)
{
    struct mpi_impl *m = c->impl;
    if (bytes > 0 && bytes <= PIECE)
        m->limit = bytes;
}
