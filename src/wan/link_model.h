/* SPDX-License-Identifier: Apache-2.0
 * One directed link between two sites as arithmetic: what becomes of a packet handed to it at a given time.
 *
 * The clock is an argument: the emulator of tests/testbed passes real time, a simulation passes its own. A packet
 * meets, in this order: the line being down; a tail-drop queue in front of a line of fixed rate (the time on the line
 * begins when the packet before it has left); loss, independent or in runs (Gilbert: two states, everything is lost in
 * the bad one); then delay, jitter and reordering. A lost packet has used its time on the line. Order is kept but for
 * packets picked for reordering: jitter and the end of a spike never let one overtake another.
 *
 * Random choices depend only on (seed, stream, number of the packet on this link). Times are ns on any clock that does
 * not run backwards, sizes are bytes of whole IP packets. Pure: no system calls, no allocation; one thread per link. */
#ifndef AP_WAN_LINK_MODEL_H
#define AP_WAN_LINK_MODEL_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

/* Every one a double, so that one table serves files, commands and checks. */
struct ap_link_params {
    double delay_ms;  /* least one-way delay */
    double jitter_ms; /* added to it, uniform in [0, jitter] */
    double rate_mbit; /* 10^6 bit/s on the line; 0: no limit, no queue */
    double loss;      /* fraction of the packets, 0..1 */
    double burst;     /* mean length of a run of lost packets; 0: losses are independent */
    double queue_kb;  /* 1000 bytes waiting for the line or on it; 0: one round trip at full rate, at least 256 */
    double reorder;   /* fraction held back for a quarter of the delay, at least 1 ms, while later ones pass */
    double up;        /* 0: every packet is dropped; those already on their way arrive */
};
#define AP_LINK_PARAMS_DEFAULT ((struct ap_link_params){.up = 1})

/* One row per member of ap_link_params. */
struct ap_link_key {
    const char *name;
    size_t offset;
    double least, most;
    const char *doc;
};
extern const struct ap_link_key ap_link_keys[];
extern const int ap_link_keys_n;

/* Index of a key by name, or -1. */
int ap_link_key_find(const char *name);
double ap_link_params_get(const struct ap_link_params *p, int key);
/* Set one by number; ap_link_params_check says whether the whole makes sense (each in its range, runs of lost packets
 * possible at that loss). err: without a place. */
void ap_link_params_set(struct ap_link_params *p, int key, double value);
ap_status ap_link_params_check(const struct ap_link_params *p, struct ap_error *err);

enum ap_link_fate { AP_LINK_PASS, AP_LINK_DOWN, AP_LINK_QUEUE_FULL, AP_LINK_LOST, AP_LINK_FATES };
const char *ap_link_fate_name(enum ap_link_fate fate);

struct ap_link_model {
    struct ap_link_params params;
    uint64_t seed, stream;
    uint64_t number;      /* packets offered so far: the counter of the random numbers */
    int bad;              /* state of the Gilbert model */
    int64_t free_ns;      /* the line is free from then on, */
    double free_fraction; /* and this part of a ns later, so that long runs have the exact rate */
    int64_t last_ns;      /* latest arrival promised in order */
    int64_t spike_ns, spike_until_ns;
    uint64_t packets[AP_LINK_FATES], bytes[AP_LINK_FATES];
};

/* stream: one per link of the same seed. params are taken as checked. */
void ap_link_model_init(struct ap_link_model *l, const struct ap_link_params *params, uint64_t seed, uint64_t stream);
/* Offer a packet at now_ns. On AP_LINK_PASS, *arrive_ns_p is when it comes out; else it is gone. */
enum ap_link_fate ap_link_model_send(struct ap_link_model *l, int64_t now_ns, int64_t bytes, int64_t *arrive_ns_p);
/* From now on. Packets on their way, and the time the line is taken for by those waiting, stay as they are. */
void ap_link_model_change(struct ap_link_model *l, const struct ap_link_params *params);
/* Packets offered from now_ns for seconds are ms later; replaces a spike still on. */
void ap_link_model_spike(struct ap_link_model *l, int64_t now_ns, double ms, double seconds);
/* Bytes of the queue in effect (the automatic size resolved). */
double ap_link_queue_bytes(const struct ap_link_params *p);

#endif
