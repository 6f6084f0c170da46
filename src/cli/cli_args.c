/* SPDX-License-Identifier: Apache-2.0
 * The command line of a verb, parsed by its flag table. */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/suggest.h"
#include "cli/cli.h"

/* A rank that is not the first waits no longer than this before it ends with an error. */
#define HOLD_BACK_SECONDS 3

/* One parse under way: the words not yet taken. */
struct parse {
    const struct ap_verb *verb;
    int argc, at;
    char **argv;
    struct ap_cli_args *args;
    struct ap_options *options;
    struct ap_error *err;
};

static ap_status usage_error(struct parse *p, const char *text, const char *word)
{
    ap_error_set(p->err, AP_ERR_USAGE, text, word);
    ap_error_hint(p->err, "antipode %s --help", p->verb->name);
    return AP_ERR_USAGE;
}

static ap_status unknown_flag(struct parse *p, const char *name)
{
    struct ap_suggest s = {NULL, 0};
    for (size_t i = 0; i < p->verb->flag_count; i++)
        ap_suggest_consider(&s, name, p->verb->flags[i].key);
    if (p->verb->takes & AP_VERB_SETS)
        ap_suggest_consider(&s, name, "set");
    if (p->verb->takes & AP_VERB_JSON)
        ap_suggest_consider(&s, name, "json");
    ap_suggest_consider(&s, name, "help");
    ap_error_set(p->err, AP_ERR_USAGE, "antipode %s has no option --%.80s", p->verb->name, name);
    if (ap_suggest_result(&s, name) != NULL)
        ap_error_hint(p->err, "did you mean --%s?", s.best);
    else
        ap_error_hint(p->err, "antipode %s --help", p->verb->name);
    return AP_ERR_USAGE;
}

/* The value of the flag at hand: behind '=' or the next word. */
static ap_status flag_value(struct parse *p, const char *name, const char *inside, const char **value_p)
{
    if (inside == NULL && p->at + 1 >= p->argc)
        return usage_error(p, "--%.80s needs a value", name);
    *value_p = inside != NULL ? inside : p->argv[++p->at];
    return AP_OK;
}

static ap_status take_set(struct parse *p, const char *text)
{
    struct ap_cli_args *a = p->args;
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text)
        return usage_error(p, "--set %.200s: must be KEY=VALUE", text);
    if (a->set_count >= AP_CLI_MAX_SETS)
        return usage_error(p, "too many --set options, at %.200s", text);
    char *key = strndup(text, (size_t)(equals - text));
    if (key == NULL)
        return ap_error_set(p->err, AP_ERR_NOMEM, "no memory for the command line");
    a->sets[a->set_count++] = (struct ap_override){key, equals + 1};
    return AP_OK;
}

static ap_status take_flag(struct parse *p, const char *word)
{
    char name[80];
    const char *equals = strchr(word, '='), *value = "true";
    size_t n = equals != NULL ? (size_t)(equals - word) : strlen(word);
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), word);
    const char *inside = equals != NULL ? equals + 1 : NULL;
    if (strcmp(name, "help") == 0 && inside == NULL) {
        p->args->help = 1;
        return AP_OK;
    }
    if ((p->verb->takes & AP_VERB_JSON) && strcmp(name, "json") == 0 && inside == NULL) {
        p->args->json = 1;
        return AP_OK;
    }
    if ((p->verb->takes & AP_VERB_SETS) && strcmp(name, "set") == 0) {
        AP_TRY(flag_value(p, name, inside, &value));
        return take_set(p, value);
    }
    int index = ap_options_find(p->options->table, name);
    if (index < 0)
        return unknown_flag(p, name);
    if (p->verb->flags[index].kind != AP_OPT_BOOL || inside != NULL)
        AP_TRY(flag_value(p, name, inside, &value));
    ap_status status = ap_options_set(p->options, name, value, p->err);
    if (status == AP_ERR_INPUT && p->err != NULL)
        p->err->status = AP_ERR_USAGE;
    return status == AP_ERR_INPUT ? AP_ERR_USAGE : status;
}

static ap_status take_words(struct parse *p)
{
    int flags_over = 0;
    for (p->at = 1; p->at < p->argc; p->at++) {
        const char *word = p->argv[p->at];
        if (!flags_over && strcmp(word, "--") == 0) {
            flags_over = 1;
        } else if (!flags_over && strncmp(word, "--", 2) == 0) {
            AP_TRY(take_flag(p, word + 2));
        } else if (!flags_over && strcmp(word, "-h") == 0) {
            p->args->help = 1;
        } else if (!flags_over && word[0] == '-' && word[1] != '\0') {
            return usage_error(p, "%.80s: options are written out, with two dashes", word);
        } else {
            if (p->args->operand_count >= p->verb->max_operands || p->args->operand_count >= AP_CLI_MAX_OPERANDS)
                return usage_error(p, "unexpected '%.200s'", word);
            p->args->operands[p->args->operand_count++] = word;
        }
    }
    if (!p->args->help && p->args->operand_count < p->verb->min_operands)
        return usage_error(p, "missing operand: %s", p->verb->operands);
    return AP_OK;
}

ap_status ap_cli_parse(const struct ap_verb *verb, int argc, char **argv, struct ap_cli_args *args, void *flags,
                       struct ap_error *err)
{
    struct ap_option_table table = {.list = verb->flags, .count = verb->flag_count};
    struct ap_options options = {0};
    struct parse p = {verb, argc, 0, argv, args, &options, err};
    *args = (struct ap_cli_args){0};
    ap_status status = ap_options_init(&options, &table, flags, err);
    options.prefix = "--";
    if (status == AP_OK)
        status = take_words(&p);
    if (status == AP_OK && !args->help)
        status = ap_options_finish(&options, err);
    ap_options_clear(&options);
    return status == AP_ERR_INPUT ? AP_ERR_USAGE : status;
}

void ap_cli_clear(const struct ap_verb *verb, struct ap_cli_args *args, void *flags)
{
    struct ap_option_table table = {.list = verb->flags, .count = verb->flag_count};
    ap_options_free_values(&table, flags);
    for (int i = 0; i < args->set_count; i++)
        free((char *)(size_t)args->sets[i].key);
    args->set_count = 0;
}

int ap_cli_launcher_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = getenv(names[i]);
        int64_t rank;
        if (text != NULL && text[0] >= '0' && text[0] <= '9') {
            rank = strtoll(text, NULL, 10);
            return rank > 0 ? 1 + (int)((rank - 1) & 0x3fffffff) : 0;
        }
    }
    return -1;
}

static void live_on(int signal_number)
{
    (void)signal_number;
}

int ap_cli_end(ap_status status, const struct ap_error *err)
{
    char text[2400];
    if (status == AP_OK)
        return AP_EXIT_OK;
    /* A launcher ends all ranks by SIGTERM at the first one that fails; each is to end with its own code all the same.
     * A handler of ours and not SIG_IGN, which would forget a signal that is pending. */
    struct sigaction act = {.sa_handler = live_on, .sa_flags = SA_RESTART};
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    sigaction(SIGTERM, &act, NULL);
    /* A mistake that every rank sees is told by the first. The others hold back until the launcher sends SIGTERM
     * because the first has ended: its message is out then, and it is the first failure that the launcher sees. */
    if (ap_cli_launcher_rank() <= 0) {
        ap_error_format(err, text, sizeof text);
        ap_error_log("%s", text);
    } else {
        struct timespec longest = {.tv_sec = HOLD_BACK_SECONDS};
        sigtimedwait(&term, NULL, &longest);
    }
    return ap_status_exit_code(status);
}

int ap_cli_begin(const struct ap_verb *verb, int argc, char **argv, struct ap_cli_args *args, void *flags)
{
    struct ap_error err = {0};
    ap_status status = ap_cli_parse(verb, argc, argv, args, flags, &err);
    if (status == AP_OK && !args->help)
        return -1;
    if (status == AP_OK && ap_cli_launcher_rank() <= 0) {
        char *text = ap_cli_help(verb);
        if (text != NULL)
            ap_out("%s", text);
        else
            status = ap_error_set(&err, AP_ERR_NOMEM, "no memory for the help text");
        free(text);
    }
    ap_cli_clear(verb, args, flags);
    return ap_cli_end(status, &err);
}
