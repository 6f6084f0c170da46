/* SPDX-License-Identifier: Apache-2.0
 * No resource manager: one mpirun on this host. */
#include "config.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>
#include "launch/launch.h"

static const char *none(void)
{
    return NULL;
}

/* Processors this process may run on. */
static int64_t processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? n : 1;
}

static ap_status command(const struct ap_launch_spec *spec, struct ap_argv *argv, struct ap_error *err)
{
    if (!ap_launch_on_path("mpirun"))
        return ap_error_set(err, AP_ERR_ENV, "mpirun is not on PATH (Debian: openmpi-bin)");
    int64_t cpus = processors(), ranks = spec->ranks;
    if (ranks == 0)
        ranks = cpus < spec->useful_ranks ? cpus : spec->useful_ranks;
    AP_TRY(ap_argv_add(argv, "mpirun"));
    AP_TRY(ap_argv_add(argv, "-n"));
    AP_TRY(ap_argv_add(argv, "%lld", (long long)ranks));
    if (ranks > cpus) {
        AP_TRY(ap_argv_add(argv, "--map-by"));
        AP_TRY(ap_argv_add(argv, ":oversubscribe"));
    }
    /* mpirun counts cores, of which a host with two threads a core has fewer than processors. */
    else if (ranks > 1) {
        AP_TRY(ap_argv_add(argv, "--use-hwthread-cpus"));
    }
    /* One host: shared memory alone, whatever state its network is in. */
    AP_TRY(ap_argv_add(argv, "--mca"));
    AP_TRY(ap_argv_add(argv, "btl"));
    AP_TRY(ap_argv_add(argv, "self,sm"));
    if (geteuid() == 0)
        AP_TRY(ap_argv_add(argv, "--allow-run-as-root"));
    return ap_launch_add_program(spec, argv);
}

const struct ap_rm_ops ap_rm_local = {"local", none, none, command};
