/* SPDX-License-Identifier: Apache-2.0
 * What all verbs share: their description (from which --help, man pages and completion come), the parser of
 * their command line, and the end of a verb. Used by both programs, antipode and antipode-train. No MPI. */
#ifndef AP_CLI_CLI_H
#define AP_CLI_CLI_H

#include "base/options.h"
#include "base/status.h"
#include "plan/job.h"

#define AP_CLI_MAX_SETS     256
#define AP_CLI_MAX_OPERANDS 64

/* What a verb takes beside its own flags and --help. */
enum ap_verb_takes { AP_VERB_SETS = 1 /* --set KEY=VALUE */, AP_VERB_JSON = 2 /* --json */ };

struct ap_verb {
    const char *name;
    const char *operands; /* "JOB", "ls|verify DIR": as usage shows them */
    int min_operands, max_operands;
    unsigned takes;      /* enum ap_verb_takes */
    const char *summary; /* one line, no full stop */
    const char *doc;     /* paragraphs, separated by a blank line; lines that begin with two spaces stay as they are */
    const struct ap_option *flags; /* keys are flag names; values go to a struct of the verb */
    size_t flag_count;
    int (*run)(int argc, char **argv); /* argv[0] is the verb's name; returns the exit code */
};

struct ap_cli_args {
    const char *operands[AP_CLI_MAX_OPERANDS]; /* borrowed from argv */
    int operand_count;
    struct ap_override sets[AP_CLI_MAX_SETS]; /* keys owned, values borrowed from argv */
    int set_count;
    int json, help;
};

/* Parse --flag value, --flag=value, --set, --json, --help, operands in any order, "--" ends the flags.
 * flags: zeroed struct of the verb that its table fills (NULL where there are no flags). AP_ERR_USAGE with a
 * hint. Free with ap_cli_clear in any case. */
ap_status ap_cli_parse(const struct ap_verb *verb, int argc, char **argv, struct ap_cli_args *args, void *flags,
                       struct ap_error *err);
void ap_cli_clear(const struct ap_verb *verb, struct ap_cli_args *args, void *flags);

/* Parse and deal with --help and mistakes: -1 to go on, else the verb returns this exit code (nothing is left
 * to clear then). Messages come from one rank only. */
int ap_cli_begin(const struct ap_verb *verb, int argc, char **argv, struct ap_cli_args *args, void *flags);
/* Log the error of a failed verb, once, from one rank; returns the exit code of status. */
int ap_cli_end(ap_status status, const struct ap_error *err);

/* Rank that the launcher gave this process, by its environment, before MPI is started; -1 without launcher. */
int ap_cli_launcher_rank(void);

/* Text of `antipode VERB --help` (malloc'ed, NULL: out of memory). */
char *ap_cli_help(const struct ap_verb *verb);
/* What a flag takes ("PATH", "" for none) and its explanation, as --help and the man pages show them. */
const char *ap_cli_flag_value(const struct ap_option *f);
void ap_cli_flag_text(const struct ap_option *f, char *buf, size_t size);

#endif
