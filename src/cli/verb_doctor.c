/* SPDX-License-Identifier: Apache-2.0
 * antipode doctor: does this machine have what a run needs? Each check names its cause and one fix. */
#include "config.h"

#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/paths.h"
#include "cli/capture.h"
#include "cli/verbs.h"
#include "parallel/nccl_api.h"

#define COMMAND_TIMEOUT_S 60
#define MIB               (UINT64_C(1) << 20)

enum verdict { GOOD, NOTE, BAD };

struct doctor {
    struct ap_json *json; /* NULL: table */
    int bad, notes;
};

struct check {
    const char *name;
    void (*run)(struct doctor *d, const char *name);
};

const struct ap_verb ap_verb_desc_doctor = {
    .name = "doctor",
    .operands = "",
    .takes = AP_VERB_JSON,
    .summary = "check that this machine has what a run needs",
    .doc = "Checks the programs, MPI by a real start of two processes, limits, shared memory, disk and processors, and "
           "names the cause and one fix of what fails. Exit code 4 when something does. Inside a batch allocation it "
           "checks the node it runs on.",
    .run = ap_verb_doctor,
};

static void tell(struct doctor *d, const char *name, enum verdict verdict, const char *fix, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

static void tell(struct doctor *d, const char *name, enum verdict verdict, const char *fix, const char *fmt, ...)
{
    static const char *const words[] = {"ok", "note", "FAIL"};
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    text[strcspn(text, "\n")] = '\0';
    d->bad += verdict == BAD;
    d->notes += verdict == NOTE;
    if (d->json == NULL) {
        ap_out("%-5s %-14s %s\n", words[verdict], name, text);
        if (fix != NULL)
            ap_out("%21sfix: %s\n", "", fix);
        return;
    }
    ap_json_begin_object(d->json, NULL);
    ap_json_str(d->json, "check", name);
    ap_json_str(d->json, "verdict", words[verdict]);
    ap_json_str(d->json, "text", text);
    ap_json_str(d->json, "fix", fix);
    ap_json_end_object(d->json);
}

static void check_train_program(struct doctor *d, const char *name)
{
    char program[PATH_MAX], out[2048];
    if (ap_paths_find_program("antipode-train", program, sizeof program) != 0) {
        tell(d, name, BAD, "run 'make' or 'make install'",
             "antipode-train is neither beside this program nor in its "
             "libexec folder");
        return;
    }
    char *argv[] = {program, "--version", NULL};
    int code = ap_capture(argv, COMMAND_TIMEOUT_S, out, sizeof out);
    char expected[64];
    snprintf(expected, sizeof expected, "antipode-train %s\n", PACKAGE_VERSION);
    if (code != 0)
        tell(d, name, BAD, "install the library that is named, or set LD_LIBRARY_PATH", "%s does not start: %s",
             program, out);
    else if (strcmp(out, expected) != 0)
        tell(d, name, BAD, "install both programs from one build", "%s is of another version: %s", program, out);
    else
        tell(d, name, GOOD, NULL, "%s", program);
}

static void check_data(struct doctor *d, const char *name)
{
    char path[PATH_MAX];
    if (ap_paths_find_data("models/quickstart.json", path, sizeof path) == 0)
        tell(d, name, GOOD, NULL, "%s", path);
    else
        tell(d, name, BAD, "set ANTIPODE_DATADIR to the folder that holds models/",
             "the shipped models were not found");
}

static void check_mpirun(struct doctor *d, const char *name)
{
    char out[2048];
    char *argv[] = {"mpirun", "--version", NULL};
    int major = 0, code = ap_capture(argv, COMMAND_TIMEOUT_S, out, sizeof out);
    const char *at = strstr(out, "Open MPI) ");
    if (code != 0)
        tell(d, name, BAD, "install Open MPI 5 (Debian: openmpi-bin), or load its module", "mpirun %s",
             code == 127 ? "is not on PATH" : out);
    else if (at == NULL || sscanf(at, "Open MPI) %d", &major) != 1 || major < 5)
        tell(d, name, BAD, "put mpirun of Open MPI 5 first on PATH", "not Open MPI 5: %s", out);
    else
        tell(d, name, GOOD, NULL, "%s", out);
}

static void check_mpi_start(struct doctor *d, const char *name)
{
    char program[PATH_MAX], out[4096];
    if (ap_paths_find_program("antipode-train", program, sizeof program) != 0)
        return; /* told already */
    char *argv[] = {"mpirun", "-n", "2", "--map-by", ":oversubscribe", program, "mpi-check", NULL};
    double begin = ap_clock_monotonic();
    int code = ap_capture(argv, COMMAND_TIMEOUT_S, out, sizeof out);
    const char *fix = "run the command by hand: mpirun -n 2 antipode-train mpi-check";
    if (geteuid() == 0 && getenv("OMPI_ALLOW_RUN_AS_ROOT") == NULL)
        fix = "Open MPI refuses root: export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or be a user";
    if (code == 0 && strstr(out, "2 ranks") != NULL) {
        tell(d, name, GOOD, NULL, "two processes started, talked and ended in %.1f s", ap_clock_monotonic() - begin);
        return;
    }
    /* The first line of mpirun's banner is a rule of dashes. */
    const char *text = out;
    while (*text == '-' || *text == '\n' || *text == ' ')
        text++;
    tell(d, name, BAD, fix, "two processes do not get together: %s", *text != '\0' ? text : "mpirun failed in silence");
}

static void check_slurm(struct doctor *d, const char *name)
{
    char out[4096];
    if (getenv("SLURM_JOB_ID") == NULL)
        return;
    char *argv[] = {"srun", "--mpi=list", NULL};
    int code = ap_capture(argv, COMMAND_TIMEOUT_S, out, sizeof out);
    if (code == 0 && strstr(out, "pmix") != NULL)
        tell(d, name, GOOD, NULL, "srun knows pmix");
    else
        tell(d, name, BAD, "install Slurm's PMIx plug-in, or start with mpirun", "srun --mpi=list has no pmix: %s",
             out);
}

static void check_processors(struct doctor *d, const char *name)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    const char *isa = "baseline instructions";
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        isa = "AVX-512";
    else if (__builtin_cpu_supports("avx2"))
        isa = "AVX2";
#endif
    tell(d, name, GOOD, NULL, "%d may be used, %s", count, isa);
}

static void check_limit(struct doctor *d, const char *name, int resource, uint64_t least, const char *what,
                        const char *fix)
{
    struct rlimit r;
    if (getrlimit(resource, &r) != 0)
        return;
    if (r.rlim_cur == RLIM_INFINITY)
        tell(d, name, GOOD, NULL, "%s: no limit", what);
    else
        tell(d, name, r.rlim_cur < least ? BAD : GOOD, r.rlim_cur < least ? fix : NULL, "%s: %" PRIu64, what,
             (uint64_t)r.rlim_cur);
}

static void check_files(struct doctor *d, const char *name)
{
    check_limit(d, name, RLIMIT_NOFILE, 256, "open files", "ulimit -n 4096");
}

static void check_tasks(struct doctor *d, const char *name)
{
    check_limit(d, name, RLIMIT_NPROC, 256, "processes and threads", "ulimit -u 4096");
}

/* Free bytes of a file system; 0 and a message where it cannot be told. */
static uint64_t free_bytes(const char *path)
{
    struct statvfs s;
    if (statvfs(path, &s) != 0)
        return 0;
    return (uint64_t)s.f_bavail * s.f_frsize;
}

static void check_shared_memory(struct doctor *d, const char *name)
{
    uint64_t left = free_bytes("/dev/shm");
    if (left < 64 * MIB)
        tell(d, name, BAD, "give the container more shared memory (--shm-size=1g), or empty /dev/shm",
             "/dev/shm has %" PRIu64 " MiB free; processes of a node talk through it", left / MIB);
    else
        tell(d, name, GOOD, NULL, "/dev/shm has %" PRIu64 " MiB free", left / MIB);
}

static void check_disk(struct doctor *d, const char *name)
{
    uint64_t left = free_bytes(".");
    if (access(".", W_OK) != 0)
        tell(d, name, NOTE, "change to a folder of yours, or set run_dir", "the current directory cannot be written");
    else if (left < 1024 * MIB)
        tell(d, name, NOTE, "set run_dir to a larger file system",
             "%" PRIu64 " MiB free here; a run keeps several states", left / MIB);
    else
        tell(d, name, GOOD, NULL, "%" PRIu64 " GiB free in the current directory", left / (1024 * MIB));
}

static void check_temporary(struct doctor *d, const char *name)
{
    const char *tmp = getenv("TMPDIR");
    if (tmp == NULL || tmp[0] == '\0')
        tmp = "/tmp";
    /* Open MPI puts sockets there, whose paths may have 107 bytes. */
    if (access(tmp, W_OK | X_OK) != 0)
        tell(d, name, BAD, "export TMPDIR=/tmp", "%s cannot be written", tmp);
    else if (strlen(tmp) > 60)
        tell(d, name, NOTE, "export TMPDIR=/tmp", "%s is so long that Open MPI's sockets may not fit", tmp);
    else
        tell(d, name, GOOD, NULL, "%s", tmp);
}

static void check_clock(struct doctor *d, const char *name)
{
    char now[32];
    double wall = ap_clock_wall();
    ap_clock_iso(wall, now);
    if (wall < 1704067200) /* 2024: older than this program */
        tell(d, name, BAD, "set the clock (chrony or timedatectl set-ntp true)", "the clock says %s", now);
    else
        tell(d, name, GOOD, NULL, "%s", now);
}

/* Where there is a GPU to use it for, or somebody names a library. */
static void check_nccl(struct doctor *d, const char *name)
{
    struct ap_nccl api = {0};
    struct ap_error err = {0};
    char version[32];
    if (access("/dev/nvidiactl", F_OK) != 0 && getenv(AP_NCCL_ENV) == NULL)
        return;
    if (ap_nccl_load("libnccl.so.2", &api, &err) == AP_OK)
        tell(d, name, GOOD, NULL, "%s", ap_nccl_version_text(api.version, version, sizeof version));
    else
        tell(d, name, NOTE, err.hint, "tensors between GPUs go through the host: %s", err.text);
}

/* The temporary directory first: mpirun makes it where it is missing. */
static const struct check checks[] = {
    {"program", check_train_program},
    {"models", check_data},
    {"temporary", check_temporary},
    {"mpirun", check_mpirun},
    {"mpi start", check_mpi_start},
    {"slurm", check_slurm},
    {"nccl", check_nccl},
    {"processors", check_processors},
    {"open files", check_files},
    {"tasks", check_tasks},
    {"shared memory", check_shared_memory},
    {"disk", check_disk},
    {"clock", check_clock},
};

int ap_verb_doctor(int argc, char **argv)
{
    struct ap_cli_args args;
    struct ap_error err = {0};
    struct ap_json j = {.indent = 2};
    int code = ap_cli_begin(&ap_verb_desc_doctor, argc, argv, &args, NULL);
    if (code >= 0)
        return code;
    struct doctor d = {.json = args.json ? &j : NULL};
    if (args.json)
        ap_json_begin_array(&j, NULL);
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++)
        checks[i].run(&d, checks[i].name);
    if (args.json) {
        ap_json_end_array(&j);
        char *text = ap_strbuf_take(&j.text);
        if (text != NULL)
            ap_out("%s\n", text);
        free(text);
    }
    ap_cli_clear(&ap_verb_desc_doctor, &args, NULL);
    if (d.bad == 0)
        return AP_EXIT_OK;
    ap_error_set(&err, AP_ERR_ENV, "%d of the checks failed", d.bad);
    return ap_cli_end(AP_ERR_ENV, &err);
}
