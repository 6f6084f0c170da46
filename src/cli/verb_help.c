/* SPDX-License-Identifier: Apache-2.0
 * antipode help [VERB | job]: the list of verbs, the help of one, or the options of a job file. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/suggest.h"
#include "cli/verbs.h"

const struct ap_verb ap_verb_desc_help = {
    .name = "help",
    .operands = "[VERB|job]",
    .max_operands = 1,
    .summary = "this list, the help of a verb, or the options of a job file",
    .doc =
        "'antipode help' lists the verbs, 'antipode help VERB' explains one, 'antipode help job' lists every option of "
        "a job file, as antipode-job(5) does.",
    .run = ap_verb_help,
};

const struct ap_verb *const *ap_verbs(size_t *count_p)
{
    static const struct ap_verb *const all[] = {
        &ap_verb_desc_run,      &ap_verb_desc_train,  &ap_verb_desc_eval, &ap_verb_desc_prep,   &ap_verb_desc_probe,
        &ap_verb_desc_plan,     &ap_verb_desc_routes, &ap_verb_desc_ckpt, &ap_verb_desc_schema, &ap_verb_desc_doctor,
        &ap_verb_desc_selftest, &ap_verb_desc_bench,  &ap_verb_desc_help,
    };
    *count_p = sizeof all / sizeof all[0];
    return all;
}

static char *overview(void)
{
    struct ap_strbuf b = {0};
    size_t count;
    const struct ap_verb *const *verbs = ap_verbs(&count);
    ap_strbuf_add(&b, "usage: antipode VERB [operands] [options]\n\n"
                      "Trains DeepSeek-style language models with MPI. The verbs:\n\n");
    for (size_t i = 0; i < count; i++)
        ap_strbuf_addf(&b, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    ap_strbuf_add(&b,
                  "\n  --version  print the version\n  --help     print this list; after a verb: explain the verb\n\n"
                  "Exit codes: 0 done, 2 usage, 3 bad input, 4 environment, 5 stopped early and resumable,\n"
                  "6 lost too much, 7 invalid result.\n");
    return ap_strbuf_take(&b);
}

static char *job_help(void)
{
    struct ap_strbuf b = {0};
    ap_strbuf_add(&b, "Options of a job file (YAML), and of --set KEY=VALUE:\n\n");
    ap_options_help(ap_job_options(), &b);
    return ap_strbuf_take(&b);
}

static ap_status find(const char *name, char **text_p, struct ap_error *err)
{
    size_t count;
    const struct ap_verb *const *verbs = ap_verbs(&count);
    struct ap_suggest s = {NULL, 0};
    if (strcmp(name, "job") == 0) {
        *text_p = job_help();
        return AP_OK;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(verbs[i]->name, name) == 0) {
            *text_p = ap_cli_help(verbs[i]);
            return AP_OK;
        }
        ap_suggest_consider(&s, name, verbs[i]->name);
    }
    ap_suggest_consider(&s, name, "job");
    ap_error_set(err, AP_ERR_USAGE, "there is no verb '%.80s'", name);
    if (ap_suggest_result(&s, name) != NULL)
        ap_error_hint(err, "did you mean '%s'?", s.best);
    return AP_ERR_USAGE;
}

int ap_verb_help(int argc, char **argv)
{
    struct ap_cli_args args;
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_help, argc, argv, &args, NULL);
    if (code >= 0)
        return code;
    char *text = NULL;
    ap_status status = AP_OK;
    if (args.operand_count > 0)
        status = find(args.operands[0], &text, &err);
    else
        text = overview();
    if (status == AP_OK && text == NULL)
        status = ap_error_set(&err, AP_ERR_NOMEM, "no memory for the help text");
    if (status == AP_OK)
        ap_out("%s", text);
    free(text);
    ap_cli_clear(&ap_verb_desc_help, &args, NULL);
    return ap_cli_end(status, &err);
}
