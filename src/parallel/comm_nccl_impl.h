/* SPDX-License-Identifier: Apache-2.0
 * Inside of the NCCL communicator: its state, waiting (comm_nccl.c) and single messages (comm_nccl_messages.c). */
#ifndef AP_PARALLEL_COMM_NCCL_IMPL_H
#define AP_PARALLEL_COMM_NCCL_IMPL_H

#include "parallel/comm_nccl.h"
#include "parallel/nccl_api.h"

/* One direction between two ranks with one tag: a NCCL communicator of two, the sender its rank 0. */
struct nccl_lane {
    int peer, tag, sends;
    ap_nccl_handle comm;
    struct ap_nccl_id id;
    int ready;                    /* the communicator is up */
    int connected;                /* a message has passed: NCCL takes others at once */
    struct ap_stream *stream;     /* own, since it may wait for the peer */
    struct nccl_message *untaken; /* asked of NCCL, not yet on the stream */
    struct nccl_lane *next;
};

enum nccl_stage {
    NCCL_HEADER, /* for nothing but the header: there is no data for a lane, or not yet a lane */
    NCCL_QUEUED, /* for its turn on the lane */
    NCCL_ASKED,  /* of NCCL */
    NCCL_FLYING, /* on the stream */
    NCCL_LANDED, /* the data is through */
    NCCL_DONE
};

struct nccl_message {
    enum nccl_stage stage;
    ap_status status; /* of the end */
    const void *from;
    void *to;
    int64_t bytes;
    int peer, tag, sends;
    double begun;
    struct nccl_lane *lane;
    void *mark;                 /* on the lane's stream, behind the data; kept for the next message */
    struct ap_comm_request ctl; /* of the header */
    int ctl_open;               /* it is under way */
    struct {
        int64_t bytes;
        struct ap_nccl_id id;      /* of the lane */
        struct nccl_message *self; /* of a message to oneself: the sender's side */
    } header;
    struct nccl_message *next; /* in the order of starts, or of the spare ones */
};

struct nccl_impl {
    struct ap_nccl api;
    struct ap_backend *be;  /* borrowed */
    struct ap_comm *parent; /* borrowed, or with owns_parent (of a split) not */
    int owns_parent;
    struct ap_comm *ctl; /* the parent's ranks, own messages */
    ap_nccl_handle comm; /* NULL: aborted */
    void *mark;          /* on the backend's stream, behind the last collective */
    double timeout;
    int broken;
    char why[256]; /* the last failure of NCCL */
    struct nccl_lane *lanes;
    struct nccl_message *first, *spare;
};

/* Between polls: the processor is given away at first, then the thread sleeps a little. *turns: 0 before the first. */
void ap_nccl_pause(int *turns);
/* A NCCL call's result that is an error: into x->why, and logged; AP_ERR_COMM. */
ap_status ap_nccl_failed(struct nccl_impl *x, const char *what, int result);
/* A deadline has passed: likewise. */
ap_status ap_nccl_timed_out(struct nccl_impl *x, const char *what);
/* Begins the set-up of a communicator with nothing that blocks. Polled by ap_nccl_poll. */
ap_status ap_nccl_begin(struct nccl_impl *x, int ranks, const struct ap_nccl_id *id, int rank, ap_nccl_handle *comm_p);
/* *done_p: whether NCCL has taken what was asked of comm last; AP_ERR_COMM when comm has failed. */
ap_status ap_nccl_poll(struct nccl_impl *x, ap_nccl_handle comm, int *done_p);
/* Everything of this communicator ends; what waits gets AP_ERR_COMM. */
void ap_nccl_break(struct nccl_impl *x);

/* comm_nccl_messages.c: the slots of the vtable, and: */
ap_status ap_nccl_start(struct ap_comm *c, struct ap_comm_request *r);
ap_status ap_nccl_wait(struct ap_comm *c, struct ap_comm_request *r);
ap_status ap_nccl_test(struct ap_comm *c, struct ap_comm_request *r, int *done_p);
void ap_nccl_cancel(struct ap_comm *c, struct ap_comm_request *r);
/* Moves all messages on; not AP_OK: the communicator is broken now. */
ap_status ap_nccl_progress(struct ap_comm *c);
/* The part of ap_nccl_break, and the end. */
void ap_nccl_messages_break(struct nccl_impl *x);
void ap_nccl_messages_free(struct nccl_impl *x);

#endif
