/* SPDX-License-Identifier: Apache-2.0
 * antipode: the command line. It has no MPI in it, so that it starts at once and works on login nodes; verbs
 * of the parallel program are handed to antipode-train. */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/paths.h"
#include "base/suggest.h"
#include "cli/verbs.h"

/* Become antipode-train with the same words. Returns only on failure. */
static int exec_train(char **argv)
{
    char program[4096];
    if (ap_paths_find_program("antipode-train", program, sizeof program) != 0) {
        ap_error_log(
            "antipode-train is neither beside this program nor in its libexec folder (make install puts it there)");
        return AP_EXIT_ENV;
    }
    argv[0] = program;
    execv(program, argv);
    ap_error_log("cannot start %s: %s", program, strerror(errno));
    return AP_EXIT_ENV;
}

static int wants_help(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return 1;
    return 0;
}

static int unknown_verb(const char *name)
{
    size_t count;
    const struct ap_verb *const *verbs = ap_verbs(&count);
    struct ap_suggest s = {NULL, 0};
    for (size_t i = 0; i < count; i++)
        ap_suggest_consider(&s, name, verbs[i]->name);
    const char *near = ap_suggest_result(&s, name);
    if (near != NULL)
        ap_error_log("there is no verb '%.80s' (did you mean '%s'?)", name, near);
    else
        ap_error_log("there is no verb '%.80s' (antipode --help lists them)", name);
    return AP_EXIT_USAGE;
}

static int run_verb(const struct ap_verb *verb, int argc, char **argv)
{
    if (verb->run != NULL)
        return verb->run(argc - 1, argv + 1);
    if (!wants_help(argc, argv))
        return exec_train(argv);
    char *help_argv[] = {"help", argv[1], NULL};
    return ap_verb_help(2, help_argv);
}

int main(int argc, char **argv)
{
    /* Output into a pipe that closes is an error of write, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    ap_log_setup(AP_LOG_INFO, -1);
    char *help_argv[] = {"help", NULL};
    if (argc < 2) {
        ap_verb_help(1, help_argv);
        return AP_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return ap_verb_help(1, help_argv);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        ap_out("antipode %s\n", PACKAGE_VERSION);
        return AP_EXIT_OK;
    }
    if (strcmp(argv[1], ap_verb_desc_generate.name) == 0)
        return ap_verb_generate(argc - 1, argv + 1);
    size_t count;
    const struct ap_verb *const *verbs = ap_verbs(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(argv[1], verbs[i]->name) == 0)
            return run_verb(verbs[i], argc, argv);
    return unknown_verb(argv[1]);
}
