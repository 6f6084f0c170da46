/* SPDX-License-Identifier: Apache-2.0
 * Between the phases of a probe. A phase is a small machine for each local rank that is told of events; it ends when
 * all of them are done. */
#ifndef AP_PROBE_PROBE_IMPL_H
#define AP_PROBE_PROBE_IMPL_H

#include "probe/probe.h"

#define AP_PROBE_PINGS_MAX 32
#define AP_PROBE_FIRST     16 /* messages that the first guess of a rate is made from */

enum ap_probe_note_kind {
    AP_PROBE_HELLO,
    AP_PROBE_PING,
    AP_PROBE_PONG,
    AP_PROBE_PULL, /* send me count times bytes; last: my last note to you; of pings: round trip and spread are known */
    AP_PROBE_LAST, /* I have what I wanted; my last note to you */
    /* Between the first rank of a site and the others that carry connections. */
    AP_PROBE_SERVE,  /* send to the peer count times bytes */
    AP_PROBE_FETCH,  /* expect from the peer count times bytes */
    AP_PROBE_GOT,    /* they are there: value[0] to value[1], s since FETCH */
    AP_PROBE_WINDOW, /* what was it from value[0] to value[1]? */
    AP_PROBE_RATE,   /* an ap_probe_line in points and value */
    AP_PROBE_READY,  /* of the load: all of mine are there */
    AP_PROBE_START   /* the timetable begins in value[0] s */
};

/* Members of one level and me among them. Borrowed. */
struct ap_probe_group {
    enum ap_probe_sample_kind kind;
    const int *members; /* ranks; between sites one for each, -1: this lane does not reach that site */
    int n, me;          /* me -1: not a member */
    int lane;           /* between sites: 0 for first ranks, which decide */
};

struct ap_probe_run {
    struct ap_probe_net *net;
    const struct ap_probe_options *opt;
    const struct ap_probe_places *places;
    struct ap_probe_result *res;
    int64_t room;             /* of res->samples */
    int *by_node, *node_from; /* ranks ordered by node; [nodes + 1] */
    int *by_site, *site_from; /* first ranks of nodes, ordered by site; [sites + 1] */
    int *firsts;              /* [nodes] first ranks, while the sites are looked for */
    int lanes, *lane;         /* [lanes][sites] ranks; connection k between two sites joins those of lane k */
    double *rtt, *spread;     /* [sites][sites] s */
    double *rate;             /* [sites][sites] bytes per second, pair by pair; what this process has measured */
    double *guess;            /* [sites][sites] of one connection, from a few messages; 0: none that can be trusted */
    char *doubt;              /* [sites][sites] to be measured again */
    int thorough;             /* that is what is being done */
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
extern const struct ap_probe_phase ap_probe_pings_phase, ap_probe_pairs_phase, ap_probe_wan_phase, ap_probe_load_phase;

/* AP_ERR_NOMEM. */
ap_status ap_probe_add_sample(struct ap_probe_run *run, const struct ap_probe_sample *sample);
int ap_probe_site_of(const struct ap_probe_run *run, int rank);
/* The rank of that lane at a site, or -1. */
int ap_probe_lane(const struct ap_probe_run *run, int lane, int site);
/* Connections between two sites: the lanes that reach both. */
int ap_probe_streams(const struct ap_probe_run *run, int site_a, int site_b);
/* How long a run lasts when a site has so many to take part in, or more where round trips vary; a thorough one is
 * besides not shorter than a round trip. */
double ap_probe_duration(const struct ap_probe_run *run, int site_a, int site_b, int turns);

/* ---- one connection's part of a run: probe_stream.c */

/* Bytes and number of the messages of one connection that is to carry so many bytes, at least so many messages. */
void ap_probe_size(const struct ap_probe_options *opt, double wanted, int messages, int64_t *bytes_p, int64_t *count_p);
/* Bytes per second between the arrivals of two messages of equal size. */
double ap_probe_slope(const double *times, int64_t from, int64_t to, int64_t bytes);

struct ap_probe_line {
    double rate, half[2]; /* bytes per second by the fit, 0: too few points; of both halves, by their ends */
    double residual;      /* largest distance of a point, relative to the time since the window's length before it */
    int points, offered;  /* in the fit; in the window */
};
/* The messages of equal size that came from lo to hi (times[count] ascending). AP_ERR_NOMEM. */
ap_status ap_probe_line_of(const double *times, int64_t count, int64_t bytes, double lo, double hi,
                           struct ap_probe_line *line_p);

struct ap_probe_stream {
    int64_t bytes, count, got, room;
    double asked, *times; /* [count] of each message, since asked */
};
/* To be told to the sender next. AP_ERR_NOMEM. */
ap_status ap_probe_stream_expect(struct ap_probe_run *run, struct ap_probe_stream *s, int at, int from, int64_t bytes,
                                 int64_t count);
/* One more is there; whether all are. */
int ap_probe_stream_got(struct ap_probe_stream *s, double time);

#endif
