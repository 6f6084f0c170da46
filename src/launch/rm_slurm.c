/* SPDX-License-Identifier: Apache-2.0
 * Inside a Slurm allocation (sbatch or salloc): srun with PMIx starts the tasks that were asked for. */
#include "config.h"

#include <stdlib.h>
#include "launch/launch.h"

static const char *job_id(void)
{
    return getenv("SLURM_JOB_ID");
}

static const char *submit_dir(void)
{
    return getenv("SLURM_SUBMIT_DIR");
}

static ap_status command(const struct ap_launch_spec *spec, struct ap_argv *argv, struct ap_error *err)
{
    if (!ap_launch_on_path("srun"))
        return ap_error_set(err, AP_ERR_ENV, "inside Slurm job %s, but srun is not on PATH", job_id());
    AP_TRY(ap_argv_add(argv, "srun"));
    /* Open MPI finds its peers through PMIx; another default would start singletons. */
    AP_TRY(ap_argv_add(argv, "--mpi=pmix"));
    AP_TRY(ap_argv_add(argv, "--kill-on-bad-exit=1"));
    /* Since 22.05 srun no longer takes the batch script's --cpus-per-task from the allocation. */
    const char *cpus = getenv("SLURM_CPUS_PER_TASK");
    if (cpus != NULL)
        AP_TRY(ap_argv_add(argv, "--cpus-per-task=%s", cpus));
    if (spec->ranks > 0)
        AP_TRY(ap_argv_add(argv, "--ntasks=%lld", (long long)spec->ranks));
    return ap_launch_add_program(spec, argv);
}

const struct ap_rm_ops ap_rm_slurm = {"slurm", job_id, submit_dir, command};
