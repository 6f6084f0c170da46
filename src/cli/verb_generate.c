/* SPDX-License-Identifier: Apache-2.0
 * antipode generate-docs DIR (hidden): write DIR/man/antipode*.1, DIR/man/antipode-job.5 and
 * DIR/contrib/completion/antipode. The results are part of the source tree; a test compares them with what this makes.
 */
#include "config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "cli/verbs.h"

const struct ap_verb ap_verb_desc_generate = {
    .name = "generate-docs",
    .operands = "DIR",
    .min_operands = 1,
    .max_operands = 1,
    .summary = "write the man pages and the bash completion",
    .doc = "Writes DIR/man and DIR/contrib/completion from the tables of the program.",
    .run = ap_verb_generate,
};

/* Takes over text. */
static ap_status put(const char *dir, const char *name, char *text, struct ap_error *err)
{
    char path[PATH_MAX];
    if (text == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for %s", name);
    ap_status status = AP_OK;
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        status = ap_error_set(err, AP_ERR_USAGE, "the path %.100s is too long", dir);
    if (status == AP_OK)
        status = ap_io_write_durable(path, text, strlen(text), err);
    free(text);
    return status;
}

static ap_status generate(const char *dir, struct ap_error *err)
{
    char path[PATH_MAX];
    size_t count;
    const struct ap_verb *const *verbs = ap_verbs(&count);
    static const char *const folders[] = {"man", "contrib/completion"};
    for (size_t i = 0; i < 2; i++) {
        if (snprintf(path, sizeof path, "%s/%s", dir, folders[i]) >= (int)sizeof path)
            return ap_error_set(err, AP_ERR_USAGE, "the path %.100s is too long", dir);
        AP_TRY(ap_io_mkdirs(path, err));
    }
    AP_TRY(put(dir, "man/antipode.1", ap_cli_man(NULL, 0), err));
    AP_TRY(put(dir, "man/antipode-job.5", ap_cli_man(NULL, 1), err));
    for (size_t i = 0; i < count; i++) {
        char name[96];
        snprintf(name, sizeof name, "man/antipode-%s.1", verbs[i]->name);
        AP_TRY(put(dir, name, ap_cli_man(verbs[i], 0), err));
    }
    return put(dir, "contrib/completion/antipode", ap_cli_completion(), err);
}

int ap_verb_generate(int argc, char **argv)
{
    struct ap_cli_args args;
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_generate, argc, argv, &args, NULL);
    if (code >= 0)
        return code;
    ap_status status = generate(args.operands[0], &err);
    ap_cli_clear(&ap_verb_desc_generate, &args, NULL);
    return ap_cli_end(status, &err);
}
