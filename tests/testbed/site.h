/* SPDX-License-Identifier: Apache-2.0
 * A site of the test bed: a network namespace (and, where asked, a host name of its own) kept alive by one child
 * process, the holder, with a TUN device wan0 in it whose other end is a descriptor of ours.
 *
 * The holder dies with the emulator (parent-death signal), the device with the descriptor, the namespace with its last
 * process: nothing outlives a killed emulator but programs that run in the site, and site_sweep ends those. */
#ifndef AP_TESTBED_SITE_H
#define AP_TESTBED_SITE_H

#include <stdint.h>
#include <sys/types.h>
#include "base/status.h"

#define SITE_MTU 1500
/* Sites have 10.77.0.1, 10.77.0.2 ... */
#define SITE_NETWORK UINT32_C(0x0a4d0000)

struct site {
    const char *name;   /* borrowed */
    char hostname[64];  /* letters, digits and '-' of the name */
    uint32_t address;   /* host order */
    pid_t holder;       /* -1: none */
    int tun;            /* non-blocking; -1: none */
    uint64_t namespace; /* inode of the network namespace */
};

/* Give the calling process the right to make namespaces, by a user namespace where it has it not otherwise.
 * *user_p: 1 if one was made. AP_ERR_ENV with the reason where that is not allowed. Call once, single-threaded. */
ap_status site_allow(int *user_p, struct ap_error *err);
/* Make site number index (from 0). hostnames: sethostname to s->hostname. offload: packets of up to 64 KB with a
 * struct virtio_net_hdr in front. On failure nothing is left. */
ap_status site_open(struct site *s, const char *name, int index, int hostnames, int offload, struct ap_error *err);
/* End every process in the site, then the site. */
void site_close(struct site *s);

/* Kill the processes whose network namespace has this inode, but for except. id: only those that have AP_TESTBED_ID=id
 * in their environment, for a namespace that may be gone and its number reused (NULL: all). Repeats until none is left,
 * at most 2 s. Returns how many were found. */
int site_sweep(uint64_t namespace, pid_t except, const char *id);
/* Start time of a process in clock ticks since boot, which with its number names it for good; 0: no such process. */
uint64_t site_process_start(pid_t pid);

#endif
