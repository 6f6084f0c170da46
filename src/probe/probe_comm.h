/* SPDX-License-Identifier: Apache-2.0
 * The probe's network over a communicator: this process is one rank, time is real. */
#ifndef AP_PROBE_PROBE_COMM_H
#define AP_PROBE_PROBE_COMM_H

#include "parallel/comm.h"
#include "probe/probe_net.h"

/* comm is borrowed and only used by the probe meanwhile (split one off). */
ap_status ap_probe_comm_create(struct ap_comm *comm, struct ap_probe_net **net_p);
/* Waits for what is on its way, unless the measurement failed (clean 0). NULL is fine. */
void ap_probe_comm_destroy(struct ap_probe_net *net, int clean);

#endif
