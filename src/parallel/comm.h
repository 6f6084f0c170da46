/* SPDX-License-Identifier: Apache-2.0
 * Communicators: a vtable with an MPI implementation (comm_mpi.c, the only one that sees mpi.h) and a
 * virtual one (comm_virtual.c: N logical ranks as threads of one process; N = 1 is "self").
 *
 * Every function below is collective over the communicator, blocking, and called in the same order by all
 * its ranks, unless stated otherwise. Counts are int64 bytes or elements. Errors: AP_ERR_COMM means that a
 * peer is gone or the communicator was revoked; buffers are then garbage and the communicator is only
 * good for ap_comm_destroy. Sums run in rank order and are bitwise repeatable. */
#ifndef AP_PARALLEL_COMM_H
#define AP_PARALLEL_COMM_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

struct ap_comm;

struct ap_comm_ops {
    size_t size; /* sizeof(struct ap_comm_ops) */
    const char *name;
    ap_status (*barrier)(struct ap_comm *c);
    ap_status (*bcast)(struct ap_comm *c, void *data, int64_t bytes, int root);
    /* Element-wise sum (or max) over ranks, in place. */
    ap_status (*allreduce_i64)(struct ap_comm *c, int64_t *v, int64_t n, int max);
    /* Rank i contributes send_bytes[i]... : every rank ends with the concatenation in rank order.
     * bytes[i], i = 0..size-1, is known on every rank; send may lie in place inside recv. */
    ap_status (*allgatherv)(struct ap_comm *c, const void *send, const int64_t *bytes, void *recv);
    /* send + send_off[i], send_bytes[i] go to rank i; recv_* likewise describe what comes from rank i. */
    ap_status (*alltoallv)(struct ap_comm *c, const void *send, const int64_t *send_bytes, const int64_t *send_off,
                           void *recv, const int64_t *recv_bytes, const int64_t *recv_off);
    /* New communicator of the ranks with one color, ordered by (key, old rank). color < 0: *out = NULL. */
    ap_status (*split)(struct ap_comm *c, int color, int key, struct ap_comm **out);
    void (*destroy)(struct ap_comm *c); /* not collective */
};

struct ap_comm {
    const struct ap_comm_ops *vt;
    int rank, size;
    void *impl;
};

/* A communicator of this process alone. */
ap_status ap_comm_self(struct ap_comm **c_p);
/* n logical ranks for n threads of this process: comms[0..n-1], one for each thread to use and destroy. */
ap_status ap_comm_virtual(int n, struct ap_comm **comms);
void ap_comm_destroy(struct ap_comm *c); /* NULL is fine; not collective */

ap_status ap_comm_barrier(struct ap_comm *c);
ap_status ap_comm_bcast(struct ap_comm *c, void *data, int64_t bytes, int root);
ap_status ap_comm_sum_i64(struct ap_comm *c, int64_t *v, int64_t n);
ap_status ap_comm_max_i64(struct ap_comm *c, int64_t *v, int64_t n);
ap_status ap_comm_allgatherv(struct ap_comm *c, const void *send, const int64_t *bytes, void *recv);
ap_status ap_comm_alltoallv(struct ap_comm *c, const void *send, const int64_t *send_bytes, const int64_t *send_off,
                            void *recv, const int64_t *recv_bytes, const int64_t *recv_off);
ap_status ap_comm_split(struct ap_comm *c, int color, int key, struct ap_comm **out);
/* After work that can fail on some ranks only: every rank gets the status of the lowest rank whose local
 * status is not AP_OK, and *rank_p that rank (-1: all AP_OK); err (if given) is made the same everywhere. */
ap_status ap_comm_agree(struct ap_comm *c, ap_status local, int *rank_p, struct ap_error *err);

#endif
