/* SPDX-License-Identifier: Apache-2.0
 * antipode run JOB: start the ranks of a job where we stand, on this host, or inside a Slurm or PBS allocation, and
 * watch over them. It is what the first line of an executable job file names. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
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

#define MAX_SETS 256

static const char usage[] =
    "usage: antipode run JOB [--ranks N] [--set KEY=VALUE]... [--dry-run]\n"
    "\n"
    "Start the ranks of a job file and wait for them: with mpirun on this host, with srun inside a Slurm\n"
    "allocation, with mpirun over the node file inside a PBS job. JOB may be executable itself:\n"
    "  ./job.yaml     sbatch job.yaml     qsub job.yaml\n"
    "\n"
    "  --ranks N          MPI processes (default: what the allocation holds; on one host its processors, at most\n"
    "                     as many as the batch can occupy)\n"
    "  --set KEY=VALUE    override an option of the job file; may be repeated\n"
    "  --dry-run          print the command that would be started\n"
    "  -h, --help         this text\n"
    "\n"
    "A stop request (^C, SIGTERM, SIGUSR2) lets the ranks finish their step and save; a second one stops at once.\n"
    "Exit codes: 0 done, 2 usage, 3 bad input, 4 environment, 5 stopped early and resumable, 6 lost too much,\n"
    "7 invalid result.\n";

struct run_args {
    const char *job;
    int64_t ranks;
    int dry_run, help;
    struct ap_override sets[MAX_SETS];
    char *keys[MAX_SETS];     /* owned copies of KEY=VALUE, cut at '=' */
    char *options[2 * MAX_SETS + 1]; /* passed on to train: borrowed from argv */
    int set_count, option_count;
};

static ap_status add_set(struct run_args *a, char *text, struct ap_error *err)
{
    char *equals = strchr(text, '=');
    if (equals == NULL || equals == text)
        return ap_error_set(err, AP_ERR_USAGE, "--set %s: must be KEY=VALUE", text);
    if (a->set_count == MAX_SETS)
        return ap_error_set(err, AP_ERR_USAGE, "more than %d --set options", MAX_SETS);
    char *copy = strdup(text);
    if (copy == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    copy[equals - text] = '\0';
    a->keys[a->set_count] = copy;
    a->sets[a->set_count++] = (struct ap_override){copy, copy + (equals - text) + 1};
    a->options[a->option_count++] = "--set";
    a->options[a->option_count++] = text;
    return AP_OK;
}

static ap_status parse_ranks(const char *text, int64_t *ranks_p, struct ap_error *err)
{
    char *end = NULL;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || n < 1 || n > 1000000)
        return ap_error_set(err, AP_ERR_USAGE, "--ranks %s: must be a number from 1 to 1000000", text);
    *ranks_p = n;
    return AP_OK;
}

static ap_status parse(struct run_args *a, int argc, char **argv, struct ap_error *err)
{
    static const struct option options[] = {{"ranks", required_argument, NULL, 'n'},
                                            {"set", required_argument, NULL, 's'},
                                            {"dry-run", no_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    opterr = 0;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
        switch (c) {
        case 'n':
            AP_TRY(parse_ranks(optarg, &a->ranks, err));
            break;
        case 's':
            AP_TRY(add_set(a, optarg, err));
            break;
        case 'd':
            a->dry_run = 1;
            break;
        case 'h':
            a->help = 1;
            return AP_OK;
        default:
            ap_error_set(err, AP_ERR_USAGE, c == ':' ? "%s needs a value" : "%s: no such option", argv[optind - 1]);
            ap_error_hint(err, "antipode run --help");
            return AP_ERR_USAGE;
        }
    }
    if (optind + 1 != argc) {
        ap_error_set(err, AP_ERR_USAGE, optind == argc ? "no job file given" : "%s: only one job file can be run",
                     argv[argc - 1]);
        ap_error_hint(err, "antipode run --help");
        return AP_ERR_USAGE;
    }
    a->job = argv[optind];
    return AP_OK;
}

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
                                  .options = (char *const *)a->options,
                                  .ranks = a->ranks,
                                  .useful_ranks = useful_ranks(job)};
    ap_status st = AP_OK;
    if (rm != &ap_rm_local && !a->dry_run) {
        st = shared_job(rm, job, a->job, &copy, err);
        spec.job = copy;
    }
    if (st == AP_OK) {
        st = rm->command(&spec, &argv, err);
        if (st == AP_ERR_NOMEM)
            ap_error_set(err, st, "out of memory");
    }
    char *text = st == AP_OK ? ap_argv_text(&argv) : NULL;
    if (text != NULL && a->dry_run) {
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
    struct ap_launch_spec spec = {.program = program, .job = a->job, .options = (char *const *)a->options};
    if (ap_launch_add_program(&spec, &argv) == AP_OK)
        execv(program, argv.v);
    ap_argv_free(&argv);
    return ap_error_set(err, AP_ERR_ENV, "cannot start %s: %s", program, strerror(errno));
}

static ap_status run(const struct run_args *a, int *code_p, struct ap_error *err)
{
    char program[4096];
    if (ap_paths_find_program("antipode-train", program, sizeof program) != 0)
        return ap_error_set(err, AP_ERR_ENV, "antipode-train is neither beside this program nor in its libexec folder");
    if (ap_launch_in_task())
        return become_rank(a, program, err);
    const struct ap_rm_ops *rm = ap_rm_detect();
    const char *dir = rm->submit_dir();
    char *job_path = realpath(a->job, NULL);
    if (job_path == NULL)
        return ap_error_set(err, AP_ERR_INPUT, "%s: %s", a->job, strerror(errno));
    struct run_args here = *a;
    here.job = job_path;
    struct ap_job *job = NULL;
    ap_status st = AP_OK;
    /* PBS starts the script in the home directory. */
    if (dir != NULL && chdir(dir) != 0)
        st = ap_error_set(err, AP_ERR_ENV, "cannot enter the submission directory %s: %s", dir, strerror(errno));
    /* One clear message here instead of one from the ranks. */
    if (st == AP_OK)
        st = ap_job_load(job_path, a->sets, a->set_count, &job, err);
    if (st == AP_OK)
        st = launch(&here, rm, job, program, code_p, err);
    ap_job_destroy(job);
    free(job_path);
    return st;
}

int ap_verb_run(int argc, char **argv)
{
    struct ap_error err = {0};
    struct run_args a = {0};
    char text[2048];
    int code = 0;
    ap_status st = parse(&a, argc, argv, &err);
    if (st == AP_OK && a.help)
        ap_out("%s", usage);
    else if (st == AP_OK)
        st = run(&a, &code, &err);
    for (int i = 0; i < a.set_count; i++)
        free(a.keys[i]);
    if (st != AP_OK) {
        ap_error_format(&err, text, sizeof text);
        ap_error_log("%s", text);
        return ap_status_exit_code(st);
    }
    return code;
}
