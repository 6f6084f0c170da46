/* SPDX-License-Identifier: Apache-2.0
 * Between the phases of a probe. A phase is a small machine for each local rank that is told of events; it ends when
 * all of them are done. */
#ifndef AP_PROBE_PROBE_IMPL_H
#define AP_PROBE_PROBE_IMPL_H

#include "probe/probe.h"

#define AP_PROBE_PINGS_MAX 32
#define AP_PROBE_FIRST     16 /* messages that the first guess of a rate is made from */

enum ap_probe_note_kind {
    AP_PROBE_HELLO, /* between sites it asks like PULL */
    AP_PROBE_PING,
    AP_PROBE_PONG,
    AP_PROBE_PULL, /* send me count times bytes; last: my last note to you */
    AP_PROBE_LAST, /* I have what I wanted; my last note to you */
    AP_PROBE_WANT, /* of the load: so much when you send to all */
    AP_PROBE_START
};

/* Members of one level and me among them. Borrowed. */
struct ap_probe_group {
    enum ap_probe_sample_kind kind;
    const int *members; /* ranks */
    int n, me;          /* me -1: not a member */
};

struct ap_probe_run {
    struct ap_probe_net *net;
    const struct ap_probe_options *opt;
    const struct ap_probe_places *places;
    struct ap_probe_result *res;
    int64_t room;             /* of res->samples */
    int *by_node, *node_from; /* ranks ordered by node; [nodes + 1] */
    int *by_site, *site_from; /* first ranks of nodes, ordered by site; [sites + 1] */
    int *leaders;             /* [sites] first rank of each, in the order of the turns */
    double *rtt, *spread;     /* [sites][sites] s */
    double *rate;             /* [sites][sites] bytes per second, pair by pair; what this process has measured */
    double *guess;            /* [sites][sites] the same from a few messages, 0: none that can be trusted */
};

/* Begins every state. */
struct ap_probe_state {
    int rank, done;
    struct ap_probe_group group;
};

struct ap_probe_phase {
    size_t size; /* of a state */
    ap_status (*start)(struct ap_probe_run *run, struct ap_probe_state *state);
    ap_status (*event)(struct ap_probe_run *run, struct ap_probe_state *state, const struct ap_probe_event *e);
    void (*end)(struct ap_probe_state *state); /* NULL: nothing to free */
};
extern const struct ap_probe_phase ap_probe_pings_phase, ap_probe_pairs_phase, ap_probe_load_phase;

/* AP_ERR_NOMEM. */
ap_status ap_probe_add_sample(struct ap_probe_run *run, const struct ap_probe_sample *sample);
/* Bytes and number of the messages of a transfer between sites that is to last so long at that rate. */
void ap_probe_size(const struct ap_probe_options *opt, double rate, double seconds, int64_t most, int64_t *bytes_p,
                   int64_t *count_p);
/* Bytes per second between the arrivals of two messages of equal size. */
double ap_probe_slope(const double *times, int64_t from, int64_t to, int64_t bytes);
/* How long: the option, or more where round trips vary. */
double ap_probe_duration(const struct ap_probe_run *run, int site_a, int site_b);
int ap_probe_site_of(const struct ap_probe_run *run, int rank);

#endif
