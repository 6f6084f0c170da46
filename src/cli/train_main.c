/* SPDX-License-Identifier: Apache-2.0
 * antipode-train: the SPMD program. It is started by mpirun or srun through `antipode train` and its like, and
 * only picks the verb. */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/verbs.h"
#include "parallel/world.h"

static const struct {
    const struct ap_verb *desc;
    int (*run)(int argc, char **argv);
} verbs[] = {
    {&ap_verb_desc_train, ap_tverb_train},       {&ap_verb_desc_eval, ap_tverb_eval},
    {&ap_verb_desc_selftest, ap_tverb_selftest}, {&ap_verb_desc_bench, ap_tverb_bench},
    {&ap_verb_desc_probe, ap_tverb_probe},
};

/* For doctor: start MPI, add one of every rank, tell how many there were. */
static int mpi_check(void)
{
    struct ap_world world;
    struct ap_error err = {0};
    int64_t ranks = 1;
    ap_status status = ap_world_init(&world, &err);
    if (status != AP_OK)
        return ap_cli_end(status, &err);
    status = ap_comm_sum_i64(world.comm, &ranks, 1);
    if (status == AP_OK && world.comm->rank == 0)
        ap_out("%lld ranks\n", (long long)ranks);
    ap_world_end(&world, status == AP_OK);
    if (status != AP_OK)
        ap_error_set(&err, status, "the processes cannot talk to each other");
    return ap_cli_end(status, &err);
}

int main(int argc, char **argv)
{
    /* A reader of our output that goes away must not kill a run. */
    signal(SIGPIPE, SIG_IGN);
    ap_log_setup(AP_LOG_INFO, ap_cli_launcher_rank());
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(argv[1], verbs[i].desc->name) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "mpi-check") == 0)
        return mpi_check();
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        ap_out("antipode-train %s\n", PACKAGE_VERSION);
        return AP_EXIT_OK;
    }
    if (ap_cli_launcher_rank() <= 0)
        ap_error_log("antipode-train is started by antipode: antipode train JOB (antipode --help)");
    return AP_EXIT_USAGE;
}
