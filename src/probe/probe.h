/* SPDX-License-Identifier: Apache-2.0
 * Measuring a machine on three levels: the ranks of a node, the first ranks of the nodes of a site, the first ranks of
 * the sites. Inside a level pairs take turns by the circle method: in every round each member has one partner, so that
 * no two measurements of a level meet. docs/probe.md has the method.
 *
 * Latency is half of the least of several round trips. Bandwidth is measured by the receiver, which asks for bytes and
 * fits T = alpha + beta m to the times at which they are there; between sites several connections, each between two
 * ranks of its own, carry it together. One run of a pair is enough where it agrees with itself and with what a few
 * messages told before; all others are measured again, thoroughly. Then every site sends to all others at once, and
 * receives from all others at once: what stays behind the sum of the pairs is the site's cap. */
#ifndef AP_PROBE_PROBE_H
#define AP_PROBE_PROBE_H

#include "plan/topology.h"
#include "probe/probe_net.h"

/* Round trips below this are within a site, unless the user says what the sites are. */
#define AP_PROBE_SITE_RTT 5e-4

/* Connections between two sites at once, at most. */
#define AP_PROBE_STREAMS_MAX 16

enum ap_probe_sample_kind {
    AP_PROBE_FAR,      /* round trips between sites, all at once */
    AP_PROBE_NEAR,     /* round trips between nodes, all at once, to find the sites */
    AP_PROBE_GUESS,    /* rate of one connection between sites, from a few messages */
    AP_PROBE_NODE,     /* pair inside a node */
    AP_PROBE_SITE,     /* pair of nodes of a site */
    AP_PROBE_WAN,      /* pair of sites, all its connections; from and to are the first ranks of the sites */
    AP_PROBE_LOAD_OUT, /* one connection while the sender's site sends to all sites */
    AP_PROBE_LOAD_IN,  /* while the receiver's site receives from all sites */
    AP_PROBE_DROPPED,  /* measured again; not in a result */
    AP_PROBE_KINDS
};

struct ap_probe_options {
    int pings;            /* round trips of a pair inside of sites */
    int far_pings;        /* between sites */
    double ping_gap;      /* s between two of them: each is to meet its own jitter */
    int streams;          /* connections between two sites at once, if they have so many ranks */
    int repeats;          /* runs between sites that count, of pairs that are measured again; two if they agree */
    int lan_repeats;      /* transfers of each size inside of sites, at most; fewer where the least ones agree */
    double seconds;       /* how long a run between sites lasts at most, and one of those that are measured again */
    double seconds_least; /* and at least, where many sites take turns */
    double turns_seconds; /* all runs of a site together; of the load, its turns to send, and to receive */
    double lan_seconds;   /* inside of sites sizes grow until one takes so long */
    int64_t lan_bytes;    /* or is so large, or until a line fits them */
    int64_t block;        /* bulk between sites comes in messages of so many bytes */
    int64_t most_bytes;   /* of one run between sites */
    int settle;           /* pairs whose run is doubtful are measured again */
    int load;             /* the second pass */
};
#define AP_PROBE_OPTIONS_DEFAULT                                                                                       \
    ((struct ap_probe_options){.pings = 10,                                                                            \
                               .far_pings = 20,                                                                        \
                               .ping_gap = 0.01,                                                                       \
                               .streams = 4,                                                                           \
                               .repeats = 3,                                                                           \
                               .lan_repeats = 8,                                                                       \
                               .seconds = 0.3,                                                                         \
                               .seconds_least = 0.06,                                                                  \
                               .turns_seconds = 0.7,                                                                   \
                               .lan_seconds = 3e-3,                                                                    \
                               .lan_bytes = 16 << 20,                                                                  \
                               .block = 32768,                                                                         \
                               .most_bytes = (int64_t)1 << 28,                                                         \
                               .settle = 1,                                                                            \
                               .load = 1})
/* Less time: shorter runs, and only those pairs are measured again of which nothing is known. */
#define AP_PROBE_OPTIONS_QUICK                                                                                         \
    ((struct ap_probe_options){.pings = 5,                                                                             \
                               .far_pings = 5,                                                                         \
                               .ping_gap = 0.002,                                                                      \
                               .streams = 4,                                                                           \
                               .repeats = 2,                                                                           \
                               .lan_repeats = 4,                                                                       \
                               .seconds = 0.05,                                                                        \
                               .seconds_least = 0.05,                                                                  \
                               .turns_seconds = 0.1,                                                                   \
                               .lan_seconds = 1e-3,                                                                    \
                               .lan_bytes = 4 << 20,                                                                   \
                               .block = 32768,                                                                         \
                               .most_bytes = (int64_t)1 << 26,                                                         \
                               .load = 1})

/* Who is where. The first rank of a node speaks for it, the first node of a site for the site. Further connections of a
 * site are carried by the first ranks of its other nodes, then by the second ranks of nodes, and so on. */
struct ap_probe_places {
    int ranks, nodes, sites;
    int *node; /* [ranks] */
    int *site; /* [nodes]; sites 0: to be found by the round trips between nodes */
};

struct ap_probe_site_caps {
    double egress, ingress; /* bytes per second, 0: none was seen */
    double sum_out, sum_in; /* what its pairs reach one by one, together */
};

/* What a probe does, one after the other. */
enum ap_probe_step {
    AP_PROBE_STEP_TRIPS,  /* round trips between nodes, if sites are to be found, and between sites, and guesses */
    AP_PROBE_STEP_INSIDE, /* nodes, then sites */
    AP_PROBE_STEP_WAN,    /* every pair of sites once */
    AP_PROBE_STEP_AGAIN,  /* those that left a doubt */
    AP_PROBE_STEP_LOAD,
    AP_PROBE_STEP_SHARE, /* everybody is told */
    AP_PROBE_STEPS
};

struct ap_probe_result {
    struct ap_probe_sample *samples;
    int64_t count;
    struct ap_probe_site_caps *caps; /* [sites] */
    double seconds;                  /* that the measurement took, by the clock of the network */
    double spent[AP_PROBE_STEPS];    /* of it; other processes may have spent it differently */
};

/* Collective over the ranks of the network. places->sites and site are filled in where they were to be found. The
 * result is the same on all ranks; ap_probe_result_clear in any case. */
ap_status ap_probe_run(struct ap_probe_net *net, const struct ap_probe_options *options, struct ap_probe_places *places,
                       struct ap_probe_result *result, struct ap_error *err);
void ap_probe_result_clear(struct ap_probe_result *result);

/* The partner of member i of n in a round of the circle method, rounds 0 .. ap_probe_rounds(n) - 1; -1: none. */
int ap_probe_partner(int n, int i, int round);
int ap_probe_rounds(int n);

/* T = alpha + beta m by relative least squares (every point counts by its relative distance) over the least T of every
 * m; m ascending is not required. *residual_p: the largest relative distance. AP_ERR_INPUT: fewer than two sizes or no
 * growth. Of a dozen points or more those that are far later than the others are left out. m and t are sorted and
 * thinned in place. */
ap_status ap_probe_fit(int n, double *m, double *t, double *alpha_p, double *beta_p, double *residual_p);

/* Of messages that came in a row, those whose time tells when they were there: not the ones that came in one go with
 * the next (they waited for something lost, or for a process that was not running). keep[count]; how many. */
int ap_probe_paced(int64_t count, const double *times, char *keep);

/* Groups of nodes that are sites by rtt[n][n] (seconds, NaN: unknown): site[n]; how many, or -1: out of memory. */
int ap_probe_find_sites(int n, const double *rtt, int *site);

#endif
