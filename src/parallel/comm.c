/* SPDX-License-Identifier: Apache-2.0
 * Communicator calls above the vtable: argument checks, and agreement on a status. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/comm.h"

void ap_comm_destroy(struct ap_comm *c)
{
    if (!c)
        return;
    ap_comm_destroy(c->device);
    c->vt->destroy(c);
}

ap_status ap_comm_barrier(struct ap_comm *c)
{
    return c->vt->barrier(c);
}

ap_status ap_comm_bcast(struct ap_comm *c, void *data, int64_t bytes, int root)
{
    if (bytes < 0 || root < 0 || root >= c->size)
        return AP_ERR_BUG;
    return bytes == 0 ? AP_OK : c->vt->bcast(c, data, bytes, root);
}

ap_status ap_comm_sum_i64(struct ap_comm *c, int64_t *v, int64_t n)
{
    return n <= 0 ? AP_OK : c->vt->allreduce_i64(c, v, n, 0);
}

ap_status ap_comm_max_i64(struct ap_comm *c, int64_t *v, int64_t n)
{
    return n <= 0 ? AP_OK : c->vt->allreduce_i64(c, v, n, 1);
}

ap_status ap_comm_allgatherv(struct ap_comm *c, const void *send, const int64_t *bytes, void *recv)
{
    return c->vt->allgatherv(c, send, bytes, recv);
}

ap_status ap_comm_alltoallv(struct ap_comm *c, const void *send, const int64_t *send_bytes, const int64_t *send_off,
                            void *recv, const int64_t *recv_bytes, const int64_t *recv_off)
{
    return c->vt->alltoallv(c, send, send_bytes, send_off, recv, recv_bytes, recv_off);
}

static int request_ok(const struct ap_comm *c, int64_t bytes, int peer, int tag)
{
    return bytes >= 0 && peer >= 0 && peer < c->size && tag >= 0 && tag <= AP_COMM_TAG_MAX;
}

ap_status ap_comm_send_start(struct ap_comm *c, const void *data, int64_t bytes, int to, int tag,
                             struct ap_comm_request *r)
{
    if (!request_ok(c, bytes, to, tag))
        return AP_ERR_BUG;
    *r = (struct ap_comm_request){
        .from = data, .bytes = bytes, .sends = 1, .sender = c->rank, .receiver = to, .tag = tag};
    return c->vt->send_start(c, r);
}

ap_status ap_comm_recv_start(struct ap_comm *c, void *data, int64_t bytes, int from, int tag, struct ap_comm_request *r)
{
    if (!request_ok(c, bytes, from, tag))
        return AP_ERR_BUG;
    *r = (struct ap_comm_request){.to = data, .bytes = bytes, .sender = from, .receiver = c->rank, .tag = tag};
    return c->vt->recv_start(c, r);
}

ap_status ap_comm_wait(struct ap_comm *c, struct ap_comm_request *r)
{
    return c->vt->wait(c, r);
}

ap_status ap_comm_test(struct ap_comm *c, struct ap_comm_request *r, int *done_p)
{
    *done_p = 1;
    return c->vt->test(c, r, done_p);
}

void ap_comm_cancel(struct ap_comm *c, struct ap_comm_request *r)
{
    c->vt->cancel(c, r);
}

ap_status ap_comm_split(struct ap_comm *c, int color, int key, struct ap_comm **out)
{
    return c->vt->split(c, color, key, out);
}

/* One 8-byte maximum decides in the good case; only a failure costs a broadcast of the error record. The
 * value is size - rank for a failed rank and 0 otherwise, so that the maximum names the lowest failed rank. */
ap_status ap_comm_agree(struct ap_comm *c, ap_status local, int *rank_p, struct ap_error *err)
{
    struct {
        int32_t status;
        struct ap_error err;
    } record;
    int64_t first = local == AP_OK ? 0 : c->size - c->rank;
    AP_TRY(ap_comm_max_i64(c, &first, 1));
    if (rank_p)
        *rank_p = first == 0 ? -1 : (int)(c->size - first);
    if (first == 0)
        return AP_OK;

    int root = (int)(c->size - first);
    memset(&record, 0, sizeof(record));
    if (c->rank == root) {
        record.status = local;
        if (err && err->status == local)
            record.err = *err;
        else
            ap_error_set(&record.err, local, "rank %d failed: %s", root, ap_status_name(local));
    }
    AP_TRY(ap_comm_bcast(c->host ? c->host : c, &record, sizeof(record), root));
    if (err)
        *err = record.err;
    return (ap_status)record.status;
}
