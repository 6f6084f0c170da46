/* SPDX-License-Identifier: Apache-2.0
 * What the probe measures through: a clock, short notes and bulk between ranks, timers, and the next event. Two
 * implementations: probe_comm.c over a communicator (one local rank, real time) and probe_sim.c over link_sim (all
 * ranks in one process, virtual time). The algorithm (probe.h) is the same code on both.
 *
 * Notes from one rank to another arrive in order, and so does bulk. A receiver says what it expects before it is told.
 * One thread. Every function returns AP_ERR_COMM where a peer is gone, AP_ERR_NOMEM, AP_ERR_BUG for misuse. */
#ifndef AP_PROBE_PROBE_NET_H
#define AP_PROBE_PROBE_NET_H

#include <stdint.h>
#include "base/status.h"

struct ap_probe_note {
    int32_t kind, last, peer, points;
    int64_t bytes, count;
    double value[4];
};

enum ap_probe_event_kind { AP_PROBE_NOTE, AP_PROBE_BULK, AP_PROBE_TIMER };
struct ap_probe_event {
    enum ap_probe_event_kind kind;
    int rank, peer; /* who is told, who it is from (not of timers) */
    double time;    /* seconds, the receiver's clock, when the event was seen */
    struct ap_probe_note note;
};

/* One measured direction or pair; what was not measured is 0. */
struct ap_probe_sample {
    int32_t from, to, kind, points; /* enum ap_probe_sample_kind; points behind the fit */
    int32_t streams;                /* connections that carried it, between sites */
    int32_t doubtful;               /* halves, or what a few messages told, do not agree with it */
    double rtt, spread;             /* least round trip and the difference to the longest, s */
    double rate;                    /* bytes per second, as the receiver sees it */
    double residual;                /* largest relative distance of a point from the fit */
};

struct ap_probe_net;
struct ap_probe_net_ops {
    const char *name;
    double (*now)(struct ap_probe_net *net);
    ap_status (*note)(struct ap_probe_net *net, int from, int to, const struct ap_probe_note *note);
    /* count messages of so many bytes; what is in them does not matter. */
    ap_status (*bulk)(struct ap_probe_net *net, int from, int to, int64_t bytes, int64_t count);
    ap_status (*expect_note)(struct ap_probe_net *net, int at, int from);
    ap_status (*expect_bulk)(struct ap_probe_net *net, int at, int from, int64_t bytes, int64_t count);
    ap_status (*timer)(struct ap_probe_net *net, int rank, double seconds);
    /* Waits for it. AP_ERR_BUG where nothing is expected any more. */
    ap_status (*next)(struct ap_probe_net *net, struct ap_probe_event *event_p);
    /* Collective: every process ends with the samples of all, sorted by nothing in particular but alike everywhere.
     * *samples_p is realloc'ed. */
    ap_status (*share)(struct ap_probe_net *net, struct ap_probe_sample **samples_p, int64_t *count_p);
};

struct ap_probe_net {
    const struct ap_probe_net_ops *vt;
    int first, locals; /* the ranks of this process */
    void *impl;
};

#endif
