/* SPDX-License-Identifier: Apache-2.0
 * Inside a PBS job (OpenPBS, PBS Pro, Torque): mpirun over the hosts of the node file, which has one line for each
 * MPI process that the selection asked for (mpiprocs). */
#include "config.h"

#include <stdlib.h>
#include "base/io.h"
#include "launch/launch.h"

static const char *job_id(void)
{
    return getenv("PBS_JOBID");
}

static const char *submit_dir(void)
{
    return getenv("PBS_O_WORKDIR");
}

/* Lines that name a host. */
static ap_status count_slots(const char *path, int64_t *slots_p, struct ap_error *err)
{
    char *text = NULL;
    size_t size = 0;
    int64_t slots = 0;
    AP_TRY(ap_io_read_file(path, (size_t)1 << 26, &text, &size, err));
    for (size_t i = 0; i < size; i++)
        slots += text[i] != '\n' && (i == 0 || text[i - 1] == '\n');
    free(text);
    if (slots == 0)
        return ap_error_set(err, AP_ERR_ENV, "the node file %s of this PBS job is empty", path);
    *slots_p = slots;
    return AP_OK;
}

static ap_status command(const struct ap_launch_spec *spec, struct ap_argv *argv, struct ap_error *err)
{
    const char *nodes = getenv("PBS_NODEFILE");
    int64_t ranks = spec->ranks;
    if (nodes == NULL)
        return ap_error_set(err, AP_ERR_ENV, "inside PBS job %s, but PBS_NODEFILE is not set", job_id());
    if (!ap_launch_on_path("mpirun"))
        return ap_error_set(err, AP_ERR_ENV, "inside PBS job %s, but mpirun is not on PATH", job_id());
    if (ranks == 0)
        AP_TRY(count_slots(nodes, &ranks, err));
    AP_TRY(ap_argv_add(argv, "mpirun"));
    AP_TRY(ap_argv_add(argv, "--hostfile"));
    AP_TRY(ap_argv_add(argv, "%s", nodes));
    AP_TRY(ap_argv_add(argv, "-n"));
    AP_TRY(ap_argv_add(argv, "%lld", (long long)ranks));
    /* Start remote daemons through PBS, so that it accounts for them and kills them; a build of Open MPI with
     * PBS support does so by itself. */
    if (ap_launch_on_path("pbs_tmrsh")) {
        AP_TRY(ap_argv_add(argv, "--prtemca"));
        AP_TRY(ap_argv_add(argv, "plm_ssh_agent"));
        AP_TRY(ap_argv_add(argv, "pbs_tmrsh"));
    }
    return ap_launch_add_program(spec, argv);
}

const struct ap_rm_ops ap_rm_pbs = {"pbs", job_id, submit_dir, command};
