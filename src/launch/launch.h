/* SPDX-License-Identifier: Apache-2.0
 * From a job file to running ranks: which resource manager we stand in, the command that starts the ranks
 * there, and watching over it. No MPI is linked. A resource manager is one struct ap_rm_ops; nothing here
 * keeps state between calls. Not thread-safe: reads the environment, and supervision owns the process's
 * signals. */
#ifndef AP_LAUNCH_LAUNCH_H
#define AP_LAUNCH_LAUNCH_H

#include <stdint.h>
#include "base/status.h"

/* A command line that grows; v[n] is always NULL. Zero-initialise. Words are copied and owned. */
struct ap_argv {
    char **v;
    int n, capacity;
};
/* Append a word, printf style. AP_ERR_NOMEM leaves the words as they were. */
ap_status ap_argv_add(struct ap_argv *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ap_argv_free(struct ap_argv *a);
/* The words quoted for a shell where needed (malloc'ed, NULL without memory). */
char *ap_argv_text(const struct ap_argv *a);

struct ap_launch_spec {
    const char *program;  /* absolute path of antipode-train */
    const char *job;      /* job file as every rank can open it */
    char *const *options; /* passed on to train, NULL-terminated (NULL: none) */
    int64_t ranks;        /* 0: what the allocation gives, or the job can use on this host */
    int64_t useful_ranks; /* the most ranks that the job's batch and layout can occupy; >= 1 */
};

struct ap_rm_ops {
    const char *name;                /* "slurm": static */
    const char *(*job_id)(void);     /* inside an allocation: its id, borrowed from the environment; else NULL */
    const char *(*submit_dir)(void); /* where the user stood at submission, borrowed; NULL: here */
    /* The command that starts the ranks from inside the allocation. */
    ap_status (*command)(const struct ap_launch_spec *spec, struct ap_argv *argv, struct ap_error *err);
};

extern const struct ap_rm_ops ap_rm_slurm, ap_rm_pbs, ap_rm_local;

/* The manager whose allocation this process runs in; ap_rm_local outside of any. */
const struct ap_rm_ops *ap_rm_detect(void);
/* 1 if this process is itself a rank of mpirun or srun: then there is nothing left to launch. */
int ap_launch_in_task(void);
/* "PROGRAM train JOB OPTIONS...": the part every manager shares. */
ap_status ap_launch_add_program(const struct ap_launch_spec *spec, struct ap_argv *argv);
/* 1 if an executable of this name is on PATH. */
int ap_launch_on_path(const char *name);

/* Batch systems run a spooled copy of the job file that only the first node sees. Copy it below dir (created),
 * which all nodes see, and return the path (malloc'ed). name: "slurm-123". */
ap_status ap_launch_copy_job(const char *job, const char *dir, const char *name, char **path_p, struct ap_error *err);

/* Start argv in its own process group and wait. Stop requests (INT, TERM, HUP, USR1, USR2) reach the ranks as USR2,
 * which asks for a checkpoint and a clean end; the second one as TERM; the third kills the group. *code_p: exit code,
 * or 128 + signal. AP_ERR_ENV when the command cannot be started. Blocks SIGCHLD and these signals meanwhile. */
ap_status ap_supervise(const struct ap_argv *argv, int *code_p, struct ap_error *err);

#endif
