/* SPDX-License-Identifier: Apache-2.0
 * Communicators: a vtable with an MPI implementation (comm_mpi.c, the only one that sees mpi.h), a virtual one
 * (comm_virtual.c: N logical ranks as threads of one process; N = 1 is "self") and NCCL for the memory of GPUs
 * (comm_nccl.c, over one of the other two).
 *
 * Data stands in host memory; a device communicator (`host` is set) takes data of its backend's memory in its place,
 * but for the values of sum and max, which stay on the host.
 *
 * Every function below, but those of single messages, is collective over the communicator, blocking, and called in the
 * same order by all its ranks, unless stated otherwise. Counts are int64 bytes or elements. Errors: AP_ERR_COMM means
 * that a peer is gone or the communicator was revoked; buffers are then garbage and the communicator is only good for
 * ap_comm_destroy. Sums run in rank order and are bitwise repeatable. */
#ifndef AP_PARALLEL_COMM_H
#define AP_PARALLEL_COMM_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

struct ap_comm;

#define AP_COMM_PIECES  16    /* parts of one message on transports with a limit (MPI: 1 GiB each) */
#define AP_COMM_TAG_MAX 32000 /* tags: 0 .. AP_COMM_TAG_MAX */

/* One message under way: memory of the caller that stays where it is until the wait; its content is the
 * communicator's. */
struct ap_comm_request {
    const void *from; /* of a send */
    void *to;         /* of a receive */
    int64_t bytes;
    int sends, sender, receiver, tag;
    struct ap_comm_request *next;   /* virtual */
    int state;                      /* virtual */
    int pieces;                     /* mpi */
    uint64_t piece[AP_COMM_PIECES]; /* mpi */
    void *own;                      /* nccl */
};

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
    ap_status (*send_start)(struct ap_comm *c, struct ap_comm_request *r);
    ap_status (*recv_start)(struct ap_comm *c, struct ap_comm_request *r);
    ap_status (*wait)(struct ap_comm *c, struct ap_comm_request *r);
    ap_status (*test)(struct ap_comm *c, struct ap_comm_request *r, int *done_p);
    void (*cancel)(struct ap_comm *c, struct ap_comm_request *r);
    /* New communicator of the ranks with one color, ordered by (key, old rank). color < 0: *out = NULL. */
    ap_status (*split)(struct ap_comm *c, int color, int key, struct ap_comm **out);
    void (*destroy)(struct ap_comm *c); /* not collective */
};

struct ap_comm {
    const struct ap_comm_ops *vt;
    int rank, size;
    void *impl;
    struct ap_comm *device; /* the same ranks, for tensors of a backend: owned; NULL: they go through host memory */
    struct ap_comm *host;   /* of a device communicator: the same ranks, for host memory; borrowed from it */
};

/* The one that takes a backend's tensors where they are, or else the one for copies of them in host memory. */
static inline struct ap_comm *ap_comm_tensors(struct ap_comm *c)
{
    return c->device ? c->device : c;
}

/* A communicator of this process alone. */
ap_status ap_comm_self(struct ap_comm **c_p);
/* n logical ranks for n threads of this process: comms[0..n-1], one for each thread to use and destroy. */
ap_status ap_comm_virtual(int n, struct ap_comm **comms);
/* Rank 0 of `size` without anybody else, for measuring what a rank of a group computes by itself: every other rank
 * sends what it would be sent from here, in gathers the own piece as far as theirs reaches, and sums are `size` times
 * the own number. *seconds (borrowed; NULL: not wanted) grows by the time spent in here. No single messages, no split.
 */
ap_status ap_comm_echo(int size, double *seconds, struct ap_comm **c_p);
void ap_comm_destroy(struct ap_comm *c); /* NULL is fine; not collective */

ap_status ap_comm_barrier(struct ap_comm *c);
ap_status ap_comm_bcast(struct ap_comm *c, void *data, int64_t bytes, int root);
ap_status ap_comm_sum_i64(struct ap_comm *c, int64_t *v, int64_t n);
ap_status ap_comm_max_i64(struct ap_comm *c, int64_t *v, int64_t n);
ap_status ap_comm_allgatherv(struct ap_comm *c, const void *send, const int64_t *bytes, void *recv);
ap_status ap_comm_alltoallv(struct ap_comm *c, const void *send, const int64_t *send_bytes, const int64_t *send_off,
                            void *recv, const int64_t *recv_bytes, const int64_t *recv_off);
/* Point to point: not collective. Messages from one rank to another with one tag arrive in the order of their starts;
 * both sides state the same number of bytes (AP_ERR_BUG or AP_ERR_COMM where not; a device communicator is broken
 * then). The data is borrowed until ap_comm_wait, which every started request needs, in any order. A send may complete
 * only once it is received. To oneself is allowed. */
ap_status ap_comm_send_start(struct ap_comm *c, const void *data, int64_t bytes, int to, int tag,
                             struct ap_comm_request *r);
ap_status ap_comm_recv_start(struct ap_comm *c, void *data, int64_t bytes, int from, int tag,
                             struct ap_comm_request *r);
ap_status ap_comm_wait(struct ap_comm *c, struct ap_comm_request *r);
/* Does not block: *done_p 1 means that the wait is over, 0 that it is still to come. Not AP_OK: over as well. */
ap_status ap_comm_test(struct ap_comm *c, struct ap_comm_request *r, int *done_p);
/* Ends a started request that nobody will wait for; its memory is the caller's again. What was sent may have arrived.
 * For messages of at most a few hundred bytes, which no transport holds back. */
void ap_comm_cancel(struct ap_comm *c, struct ap_comm_request *r);
ap_status ap_comm_split(struct ap_comm *c, int color, int key, struct ap_comm **out);
/* After work that can fail on some ranks only: every rank gets the status of the lowest rank whose local
 * status is not AP_OK, and *rank_p that rank (-1: all AP_OK); err (if given) is made the same everywhere. */
ap_status ap_comm_agree(struct ap_comm *c, ap_status local, int *rank_p, struct ap_error *err);

#endif
