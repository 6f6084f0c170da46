/* SPDX-License-Identifier: Apache-2.0
 * The network of the WAN emulator in process, on a virtual clock: the same link model (link_model.h), no packets but
 * numbers, no waiting. A simulation has lines; what is sent takes a route over some of them, one after the other
 * (store and forward). The links of a matrix are lines, and so are the caps of a site on all that leaves or enters it,
 * the links inside of sites, and whatever the user adds. Equal seeds and equal calls give equal events.
 *
 * The caller is the event loop: it sends packets, sets timers, and takes the next event, which moves the clock. One
 * thread; nothing is read from outside. */
#ifndef AP_WAN_LINK_SIM_H
#define AP_WAN_LINK_SIM_H

#include "wan/link_net.h"

#define AP_LINK_SIM_HOPS 6

struct ap_link_sim;

enum ap_link_sim_kind { AP_LINK_SIM_ARRIVED, AP_LINK_SIM_LOST, AP_LINK_SIM_TIMER, AP_LINK_SIM_IDLE };

struct ap_link_sim_event {
    enum ap_link_sim_kind kind; /* IDLE: nothing is on its way any more */
    void *item;                 /* of the send or timer, borrowed */
    int64_t bytes;
};

ap_status ap_link_sim_create(uint64_t seed, struct ap_link_sim **s_p);
void ap_link_sim_destroy(struct ap_link_sim *s); /* NULL is fine; items are the caller's */

/* A line of its own, empty; its number into *line_p. AP_ERR_NOMEM. */
ap_status ap_link_sim_add(struct ap_link_sim *s, const struct ap_link_params *params, int *line_p);
/* A line for each link of a matrix as it is set now, and for the caps of its sites: mbit[site], 0 or NULL: no cap. A
 * cap queues whatever comes: who sends more than it lets through waits, nothing is dropped. Once for a simulation. */
ap_status ap_link_sim_add_net(struct ap_link_sim *s, const struct ap_link_net *net, const double *egress_mbit,
                              const double *ingress_mbit);
/* The lines from site to site of that matrix (cap of src, link, cap of dst) into route; how many, at most 3. */
int ap_link_sim_route(const struct ap_link_sim *s, int src, int dst, int route[3]);
/* The line of that link alone. */
int ap_link_sim_link(const struct ap_link_sim *s, int src, int dst);
/* To look at, change, or disturb while the simulation runs. */
struct ap_link_model *ap_link_sim_line(struct ap_link_sim *s, int line);

int64_t ap_link_sim_now(const struct ap_link_sim *s); /* ns since the start */
/* Off now, over hops lines (0 is fine: it arrives at once). Its event comes when it is out of the last line, or LOST at
 * the time at which a line drops it. AP_ERR_NOMEM. */
ap_status ap_link_sim_send(struct ap_link_sim *s, const int *route, int hops, int64_t bytes, void *item);
/* An event after a delay. AP_ERR_NOMEM. */
ap_status ap_link_sim_timer(struct ap_link_sim *s, int64_t delay_ns, void *item);
/* What happens next; among equal times, what was begun first. AP_ERR_NOMEM. */
ap_status ap_link_sim_next(struct ap_link_sim *s, struct ap_link_sim_event *event_p);
/* Events handled so far, those between two lines included. */
uint64_t ap_link_sim_events(const struct ap_link_sim *s);

#endif
