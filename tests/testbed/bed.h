/* SPDX-License-Identifier: Apache-2.0
 * A test bed's folder: what the scripts and a later `down` must know of a running emulator.
 *
 *     pid      number and start time of the emulator's process
 *     sites    one line a site: name, holder's pid, inode of its network namespace, address, host name; written last:
 *              when it is there the bed is ready. The first line: id, whether a user namespace and host names are used.
 *     control  the socket;  log  what the emulator prints */
#ifndef AP_TESTBED_BED_H
#define AP_TESTBED_BED_H

#include "testbed/site.h"

struct bed_options {
    const char *dir, *matrix, *scenario;
    uint64_t seed;
    double seconds; /* the bed ends itself after that */
    int hostnames, offload, realtime;
};

/* Start a bed in the background and return when it is ready. */
ap_status bed_up(const struct bed_options *o, struct ap_error *err);
/* End the bed of this folder whatever state it is in, every process in its sites, and remove the folder. AP_OK also
 * when there is none. */
ap_status bed_down(const char *dir, struct ap_error *err);

#endif
