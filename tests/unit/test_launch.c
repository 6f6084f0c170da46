/* SPDX-License-Identifier: Apache-2.0
 * The launch library: command lines for each resource manager, and supervision. Stand-ins for srun and mpirun are
 * empty executables in a private folder; real ones are used by tests/cli/slurm_test.sh. */
#include "config.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/leaks.h"
#include "base/io.h"
#include "launch/launch.h"

static char folder[256];

static void make_file(const char *name, const char *text, int mode)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    cr_assert(f);
    fputs(text, f);
    fclose(f);
    cr_assert(chmod(path, (mode_t)mode) == 0);
}

/* A clean environment and a PATH that holds srun and mpirun only. */
static void setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/launch.XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(folder));
    const char *names[] = {"SLURM_JOB_ID",  "SLURM_SUBMIT_DIR", "SLURM_CPUS_PER_TASK",  "PBS_JOBID",
                           "PBS_O_WORKDIR", "PBS_NODEFILE",     "OMPI_COMM_WORLD_RANK", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    make_file("srun", "#!/bin/sh\n", 0755);
    make_file("mpirun", "#!/bin/sh\n", 0755);
    setenv("PATH", folder, 1);
}

static void teardown(void)
{
    ap_io_remove_tree(folder, NULL);
}

TestSuite(launch, .init = setup, .fini = teardown);

static char *options[] = {"--set", "name=a b", NULL};
static const struct ap_launch_spec spec = {
    .program = "/opt/antipode-train", .job = "job's.yaml", .options = options, .useful_ranks = 1};

static void expect_command(const struct ap_rm_ops *rm, const struct ap_launch_spec *s, const char *want)
{
    struct ap_argv argv = {0};
    struct ap_error err = {0};
    cr_assert(rm->command(s, &argv, &err) == AP_OK, "%s", err.text);
    char *text = ap_argv_text(&argv);
    cr_assert(text);
    cr_expect_str_eq(text, want);
    free(text);
    ap_argv_free(&argv);
}

AP_TEST(launch, argv_grows_and_is_null_terminated)
{
    struct ap_argv a = {0};
    for (int i = 0; i < 100; i++)
        cr_assert(ap_argv_add(&a, "word %d", i) == AP_OK);
    cr_expect(a.n == 100);
    cr_expect(a.v[100] == NULL);
    cr_expect_str_eq(a.v[99], "word 99");
    ap_argv_free(&a);
    cr_expect(a.v == NULL && a.n == 0);
}

AP_TEST(launch, text_is_quoted_for_a_shell)
{
    struct ap_argv a = {0};
    const char *words[] = {"plain", "", "two words", "it's", "$HOME;rm"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        cr_assert(ap_argv_add(&a, "%s", words[i]) == AP_OK);
    char *text = ap_argv_text(&a);
    cr_assert(text);
    cr_expect_str_eq(text, "plain '' 'two words' 'it'\\''s' '$HOME;rm'");
    free(text);
    ap_argv_free(&a);
}

AP_TEST(launch, the_allocation_decides_the_manager)
{
    cr_expect(ap_rm_detect() == &ap_rm_local);
    setenv("PBS_JOBID", "9.server", 1);
    cr_expect(ap_rm_detect() == &ap_rm_pbs);
    setenv("SLURM_JOB_ID", "7", 1);
    cr_expect(ap_rm_detect() == &ap_rm_slurm);
    cr_expect(!ap_launch_in_task());
    setenv("PMIX_RANK", "0", 1);
    cr_expect(ap_launch_in_task());
}

AP_TEST(launch, slurm_uses_srun_with_pmix)
{
    setenv("SLURM_JOB_ID", "7", 1);
    expect_command(&ap_rm_slurm, &spec,
                   "srun --mpi=pmix --kill-on-bad-exit=1 /opt/antipode-train train 'job'\\''s.yaml' --set 'name=a b'");
    setenv("SLURM_CPUS_PER_TASK", "8", 1);
    struct ap_launch_spec four = spec;
    four.ranks = 4;
    four.options = NULL;
    expect_command(&ap_rm_slurm, &four,
                   "srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=8 --ntasks=4 /opt/antipode-train train "
                   "'job'\\''s.yaml'");
}

AP_TEST(launch, pbs_counts_the_slots_of_the_node_file)
{
    char nodes[512], want[2048];
    make_file("nodes", "n1\nn1\n\nn2\nn2", 0644);
    snprintf(nodes, sizeof nodes, "%s/nodes", folder);
    setenv("PBS_JOBID", "9", 1);
    setenv("PBS_NODEFILE", nodes, 1);
    snprintf(want, sizeof want, "mpirun --hostfile %s -n 4 /opt/antipode-train train 'job'\\''s.yaml' --set 'name=a b'",
             nodes);
    expect_command(&ap_rm_pbs, &spec, want);
    make_file("pbs_tmrsh", "#!/bin/sh\n", 0755);
    snprintf(want, sizeof want,
             "mpirun --hostfile %s -n 4 --prtemca plm_ssh_agent pbs_tmrsh /opt/antipode-train train 'job'\\''s.yaml' "
             "--set 'name=a b'",
             nodes);
    expect_command(&ap_rm_pbs, &spec, want);
}

AP_TEST(launch, pbs_without_a_node_file_says_so)
{
    struct ap_argv argv = {0};
    struct ap_error err = {0};
    setenv("PBS_JOBID", "9.server", 1);
    cr_expect(ap_rm_pbs.command(&spec, &argv, &err) == AP_ERR_ENV);
    cr_expect(strstr(err.text, "PBS_NODEFILE"), "%s", err.text);
    char nodes[512];
    make_file("nodes", "\n", 0644);
    snprintf(nodes, sizeof nodes, "%s/nodes", folder);
    setenv("PBS_NODEFILE", nodes, 1);
    cr_expect(ap_rm_pbs.command(&spec, &argv, &err) == AP_ERR_ENV);
    cr_expect(strstr(err.text, "empty"), "%s", err.text);
    ap_argv_free(&argv);
}

AP_TEST(launch, local_never_starts_more_ranks_than_are_useful)
{
    struct ap_argv argv = {0};
    cr_assert(ap_rm_local.command(&spec, &argv, NULL) == AP_OK);
    cr_expect_str_eq(argv.v[0], "mpirun");
    cr_expect_str_eq(argv.v[1], "-n");
    cr_expect_str_eq(argv.v[2], "1");
    ap_argv_free(&argv);
    struct ap_launch_spec many = spec;
    many.ranks = 4096;
    cr_assert(ap_rm_local.command(&many, &argv, NULL) == AP_OK);
    cr_expect_str_eq(argv.v[2], "4096");
    cr_expect_str_eq(argv.v[4], ":oversubscribe");
    ap_argv_free(&argv);
}

AP_TEST(launch, a_missing_launcher_is_an_environment_error)
{
    struct ap_argv argv = {0};
    struct ap_error err = {0};
    setenv("PATH", "/nonexistent", 1);
    setenv("SLURM_JOB_ID", "7", 1);
    cr_expect(ap_rm_slurm.command(&spec, &argv, &err) == AP_ERR_ENV);
    cr_expect(strstr(err.text, "srun"), "%s", err.text);
    cr_expect(ap_rm_local.command(&spec, &argv, &err) == AP_ERR_ENV);
    cr_expect(strstr(err.text, "mpirun"), "%s", err.text);
    ap_argv_free(&argv);
}

AP_TEST(launch, job_is_copied_byte_for_byte)
{
    char from[512], dir[512], *path = NULL, *data = NULL;
    size_t size = 0;
    make_file("job", "#!/usr/bin/env -S antipode run\nname: x\n", 0600);
    snprintf(from, sizeof from, "%s/job", folder);
    snprintf(dir, sizeof dir, "%s/a/b", folder);
    cr_assert(ap_launch_copy_job(from, dir, "slurm-7", &path, NULL) == AP_OK);
    cr_expect(strstr(path, "/a/b/slurm-7.yaml"));
    cr_assert(ap_io_read_file(path, 4096, &data, &size, NULL) == AP_OK);
    cr_expect_str_eq(data, "#!/usr/bin/env -S antipode run\nname: x\n");
    free(data);
    free(path);
    struct ap_error err = {0};
    cr_expect(ap_launch_copy_job("/nonexistent/job", dir, "x", &path, &err) != AP_OK);
    cr_expect(err.text[0] != '\0');
}

/* Supervise `sh -c script`; the exit code. */
static int supervised(const char *script)
{
    struct ap_argv argv = {0};
    struct ap_error err = {0};
    int code = -1;
    setenv("PATH", "/bin:/usr/bin", 1);
    cr_assert(ap_argv_add(&argv, "sh") == AP_OK && ap_argv_add(&argv, "-c") == AP_OK &&
              ap_argv_add(&argv, "%s", script) == AP_OK);
    cr_assert(ap_supervise(&argv, &code, &err) == AP_OK, "%s", err.text);
    ap_argv_free(&argv);
    return code;
}

AP_TEST(launch, supervise_returns_how_the_command_ended, .timeout = 20)
{
    cr_expect(supervised("exit 0") == 0);
    cr_expect(supervised("exit 5") == 5);
    cr_expect(supervised("kill -9 $$") == 128 + SIGKILL);
}

AP_TEST(launch, supervise_names_a_command_that_cannot_start, .timeout = 20)
{
    struct ap_argv argv = {0};
    struct ap_error err = {0};
    int code = -1;
    cr_assert(ap_argv_add(&argv, "/nonexistent/launcher") == AP_OK);
    cr_expect(ap_supervise(&argv, &code, &err) == AP_ERR_ENV);
    cr_expect(strstr(err.text, "/nonexistent/launcher") && strstr(err.text, "No such file"), "%s", err.text);
    cr_expect(code == -1);
    ap_argv_free(&argv);
}

/* A helper process sends signal_number to us `times` times, each time after the script has written another line to
 * the file, so that nothing depends on how fast anything is. */
static pid_t sender(int signal_number, int times, const char *file)
{
    pid_t target = getpid(), child = fork();
    if (child != 0)
        return child;
    for (int sent = 0; sent < times;) {
        struct stat sb;
        if (stat(file, &sb) == 0 && sb.st_size > sent) {
            kill(target, signal_number);
            sent++;
        }
        usleep(20000);
    }
    _exit(0);
}

AP_TEST(launch, first_stop_request_asks_the_second_insists, .timeout = 30)
{
    char file[512], script[2048];
    snprintf(file, sizeof file, "%s/ready", folder);
    snprintf(script, sizeof script,
             "trap 'exit 5' USR2; trap 'exit 9' TERM; printf x > %s; while :; do sleep 0.05; done", file);
    pid_t helper = sender(SIGTERM, 1, file);
    cr_expect(supervised(script) == 5, "the first request must arrive as USR2");
    waitpid(helper, NULL, 0);
    unlink(file);
    snprintf(script, sizeof script,
             "trap 'printf x >> %s' USR2; trap 'exit 9' TERM; printf x > %s; while :; do sleep 0.05; done", file, file);
    helper = sender(SIGINT, 2, file);
    cr_expect(supervised(script) == 9, "the second request must arrive as TERM");
    waitpid(helper, NULL, 0);
    unlink(file);
    snprintf(script, sizeof script,
             "trap 'printf x >> %s' USR2; trap 'printf x >> %s' TERM; printf x > %s; while :; do sleep 0.05; done",
             file, file, file);
    helper = sender(SIGUSR2, 3, file);
    cr_expect(supervised(script) == 128 + SIGKILL, "the third request must kill");
    waitpid(helper, NULL, 0);
}
