/* SPDX-License-Identifier: Apache-2.0
 * The emulator's loop: packets from the sites' TUN devices through the link models to their destinations, on time.
 *
 * Lateness is how much later than promised a packet was handed on, or read after it was sent: what the machine did not
 * give in time. The latter is seen by two clocks: the kernel's account of how long this process waited for a processor,
 * and a timer that goes off every 2 ms while there is traffic. */
#ifndef AP_TESTBED_EMULATOR_H
#define AP_TESTBED_EMULATOR_H

#include "base/strbuf.h"
#include "testbed/site.h"
#include "wan/due_heap.h"
#include "wan/link_command.h"

struct emulator {
    struct ap_link_net *net;
    struct site *sites; /* net->n */
    int offload, epoll;
    struct ap_due_heap heap; /* struct packet */
    size_t held_bytes;
    void *free_list; /* packets to use again */
    int64_t start_ns, end_ns, traffic_ns;
    struct ap_link_scenario scenario;
    int scenario_next;
    int64_t scenario_start_ns;
    int64_t *late_ns; /* worst per link, net->n x net->n */
    uint64_t stray, refused, no_memory;
    int schedstat;         /* descriptor, -1: none */
    int64_t delay_seen_ns; /* the kernel's account at the last look */
    int64_t looked_ns;
    const char *scheduling; /* "fifo 10", "normal", "idle" */
};

int64_t emulator_now(void);
/* net and sites are borrowed and outlive e. realtime: take real-time priority if allowed. */
ap_status emulator_open(struct emulator *e, struct ap_link_net *net, struct site *sites, int offload, int realtime,
                        struct ap_error *err);
/* Run until end_ns or a signal read from signal_fd; control_fd: the listening socket. */
ap_status emulator_run(struct emulator *e, int control_fd, int signal_fd, struct ap_error *err);
void emulator_close(struct emulator *e);

/* For the control socket: figures as text; start them anew; begin a scenario now. */
void emulator_stats(const struct emulator *e, struct ap_strbuf *out);
void emulator_reset(struct emulator *e);
void emulator_scenario(struct emulator *e, struct ap_link_scenario *scenario); /* takes it over */

#endif
