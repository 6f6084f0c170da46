/* SPDX-License-Identifier: Apache-2.0
 * Where this process is, by hwloc: host, socket, NUMA node, cores; the device it uses; memory. */
#ifndef AP_PROBE_HOST_FACTS_H
#define AP_PROBE_HOST_FACTS_H

#include "probe/probe_report.h"

/* gpu: number of the device this rank computes on, -1: its processors. Sets host, device, place, cpus and memory (all
 * of the machine's, or the device's where hwloc knows it, else 0). AP_ERR_ENV where hwloc cannot look. */
ap_status ap_host_facts(int gpu, struct ap_probe_fact *fact_p, struct ap_error *err);

#endif
