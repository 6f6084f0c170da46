/* SPDX-License-Identifier: Apache-2.0
 * antipode run JOB: start the ranks of a job where we stand, on this host, or inside a Slurm or PBS allocation, and
 * watch over them. It is what the first line of an executable job file names. */
#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/io.h"
#include "base/log.h"
#include "base/paths.h"
#include "cli/verbs.h"
#include "launch/launch.h"
#include "plan/job.h"

struct run_flags {
    int64_t ranks;
    int dry_run;
};

static const struct ap_option flags[] = {
    {.key = "ranks",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct run_flags, ranks),
     .fallback = "auto",
     .min = 1,
     .max = 1000000,
     .flags = AP_OPT_AUTO,
     .default_words = "what the allocation holds; on one host its processors, at most as many as the batch can occupy",
     .doc = "Processes to start."},
    {.key = "dry-run",
     .kind = AP_OPT_BOOL,
     .offset = offsetof(struct run_flags, dry_run),
     .fallback = "false",
     .doc = "Check the job, print the command that would be started, and start nothing."},
};

const struct ap_verb ap_verb_desc_run = {
    .name = "run",
    .operands = "JOB",
    .min_operands = 1,
    .max_operands = 1,
    .takes = AP_VERB_SETS,
    .summary = "start the processes of a job here or inside a batch allocation, and watch over them",
    .doc =
        "Starts the ranks of a job file and waits for them: with mpirun on this host, with srun inside a Slurm "
        "allocation, with mpirun over the node file inside a PBS job. It is what the first line of an executable job "
        "file names, so that these are the same:\n\n"
        "  ./job.yaml     sbatch job.yaml     qsub job.yaml     antipode run job.yaml\n\n"
        "A stop request (^C, SIGTERM, SIGUSR2) lets the ranks finish their step and save: exit code 5, resumable. A "
        "second one stops at once, a third kills.",
    .flags = flags,
    .flag_count = sizeof flags / sizeof flags[0],
    .run = ap_verb_run,
};

struct run_args {
    const char *job; /* absolute */
    struct run_flags flags;
    struct ap_argv options; /* passed on to train */
    const struct ap_override *sets;
    int set_count;
};

/* The most ranks that this batch and layout can keep busy. */
static int64_t useful_ranks(const struct ap_job *job)
{
    int64_t micro = job->batch.micro_sequences > 0 ? job->batch.micro_sequences : 1;
    int64_t ranks = job->parallel.data > 0 ? job->parallel.data : job->batch.global_sequences / micro;
    const int64_t other[] = {job->parallel.tensor, job->parallel.pipeline};
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
        if (other[i] > 0)
            ranks *= other[i];
    return ranks > 0 ? ranks : 1;
}

/* A batch system's copy of the job file moves to where all nodes see it: .jobs beside the run directory. */
static ap_status shared_job(const struct ap_rm_ops *rm, const struct ap_job *job, const char *given, char **path_p,
                            struct ap_error *err)
{
    char *dir = NULL, *name = NULL;
    const char *slash = strrchr(job->run_dir, '/');
    int parent = slash != NULL ? (int)(slash - job->run_dir) : 0;
    int ok = asprintf(&dir, "%.*s/.jobs", parent > 0 ? parent : 1, parent > 0 ? job->run_dir : ".") >= 0;
    if (!ok)
        dir = NULL;
    if (ok && asprintf(&name, "%s-%s", rm->name, rm->job_id()) < 0)
        name = NULL;
    ap_status st = dir != NULL && name != NULL ? ap_launch_copy_job(given, dir, name, path_p, err)
                                               : ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    free(dir);
    free(name);
    return st;
}

/* The launcher said 0: believe it only if the job left its summary since we started. */
static ap_status check_summary(const struct ap_job *job, time_t started, struct ap_error *err)
{
    char path[4096];
    struct stat sb;
    int n = snprintf(path, sizeof path, "%s/summary.json", job->run_dir);
    if (n > 0 && (size_t)n < sizeof path && stat(path, &sb) == 0 && sb.st_mtime >= started - 1)
        return AP_OK;
    return ap_error_set(err, AP_ERR_LOST, "the launcher reported success, but the job left no new %s/summary.json",
                        job->run_dir);
}

static ap_status launch(const struct run_args *a, const struct ap_rm_ops *rm, const struct ap_job *job,
                        const char *program, int *code_p, struct ap_error *err)
{
    struct ap_argv argv = {0};
    char *copy = NULL;
    struct ap_launch_spec spec = {.program = program,
                                  .job = a->job,
                                  .options = a->options.v,
                                  .ranks = a->flags.ranks > 0 ? a->flags.ranks : 0,
                                  .useful_ranks = useful_ranks(job)};
    ap_status st = AP_OK;
    if (rm != &ap_rm_local && !a->flags.dry_run) {
        st = shared_job(rm, job, a->job, &copy, err);
        spec.job = copy;
    }
    if (st == AP_OK) {
        st = rm->command(&spec, &argv, err);
        if (st == AP_ERR_NOMEM)
            ap_error_set(err, st, "out of memory");
    }
    char *text = st == AP_OK ? ap_argv_text(&argv) : NULL;
    if (text != NULL && a->flags.dry_run) {
        ap_out("%s\n", text);
    } else if (st == AP_OK) {
        time_t started = time(NULL);
        ap_info("%s: %s", rm->name, text != NULL ? text : argv.v[0]);
        st = ap_supervise(&argv, code_p, err);
        if (st == AP_OK && *code_p == 0)
            st = check_summary(job, started, err);
    }
    if (copy != NULL)
        unlink(copy);
    free(copy);
    free(text);
    ap_argv_free(&argv);
    return st;
}

/* Already a rank of mpirun or srun: become the program. Returns only on failure. */
static ap_status become_rank(const struct run_args *a, const char *program, struct ap_error *err)
{
    struct ap_argv argv = {0};
    struct ap_launch_spec spec = {.program = program, .job = a->job, .options = a->options.v};
    if (ap_launch_add_program(&spec, &argv) == AP_OK)
        execv(program, argv.v);
    ap_argv_free(&argv);
    return ap_error_set(err, AP_ERR_ENV, "cannot start %s: %s", program, strerror(errno));
}

static ap_status start(const struct run_args *a, int *code_p, struct ap_error *err)
{
    char program[4096];
    if (ap_paths_find_program("antipode-train", program, sizeof program) != 0)
        return ap_error_set(err, AP_ERR_ENV, "antipode-train is neither beside this program nor in its libexec folder");
    if (ap_launch_in_task())
        return become_rank(a, program, err);
    const struct ap_rm_ops *rm = ap_rm_detect();
    const char *dir = rm->submit_dir();
    struct ap_job *job = NULL;
    /* PBS starts the script in the home directory. */
    if (dir != NULL && chdir(dir) != 0)
        return ap_error_set(err, AP_ERR_ENV, "cannot enter the submission directory %s: %s", dir, strerror(errno));
    /* A mistake in the file gives one message here instead of one from the ranks. */
    AP_TRY(ap_job_load(a->job, a->sets, a->set_count, &job, err));
    ap_status st = launch(a, rm, job, program, code_p, err);
    ap_job_destroy(job);
    return st;
}

int ap_verb_run(int argc, char **argv)
{
    struct ap_error err = {0};
    struct ap_cli_args args;
    struct run_args a = {0};
    int code = ap_cli_begin(&ap_verb_desc_run, argc, argv, &args, &a.flags);
    if (code >= 0)
        return code;
    ap_status st = AP_OK;
    char *job = realpath(args.operands[0], NULL);
    if (job == NULL)
        st = ap_error_set(&err, AP_ERR_INPUT, "%s: %s", args.operands[0], strerror(errno));
    for (int i = 0; st == AP_OK && i < args.set_count; i++) {
        st = ap_argv_add(&a.options, "--set");
        if (st == AP_OK)
            st = ap_argv_add(&a.options, "%s=%s", args.sets[i].key, args.sets[i].value);
        if (st != AP_OK)
            ap_error_set(&err, st, "out of memory");
    }
    a.job = job;
    a.sets = args.sets;
    a.set_count = args.set_count;
    code = 0;
    if (st == AP_OK)
        st = start(&a, &code, &err);
    free(job);
    ap_argv_free(&a.options);
    ap_cli_clear(&ap_verb_desc_run, &args, &a.flags);
    return st == AP_OK ? code : ap_cli_end(st, &err);
}
