/* SPDX-License-Identifier: Apache-2.0
 * antipode ckpt ls|verify|diff|export: a look at saved states, without MPI. */
#include "config.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/suggest.h"
#include "ckpt/statedir.h"
#include "ckpt/store.h"
#include "cli/ckpt_tools.h"
#include "cli/verbs.h"

const struct ap_verb ap_verb_desc_ckpt = {
    .name = "ckpt",
    .operands = "ls|verify|diff|export PATH...",
    .min_operands = 2,
    .max_operands = 3,
    .takes = AP_VERB_JSON,
    .summary = "list, verify, compare and export saved states",
    .doc = "  antipode ckpt ls DIR           states of a checkpoint directory (runs/NAME/ckpt), newest first\n"
           "  antipode ckpt verify PATH      read and check every byte of one state, or of all states of a directory\n"
           "  antipode ckpt diff A B         compare two states tensor by tensor; exit code 7 when they differ\n"
           "  antipode ckpt export A OUT     write OUT/model.safetensors and OUT/config.json with Hugging Face names\n"
           "\n"
           "A state is a directory step-N; where a checkpoint directory is given instead, its newest state is meant. "
           "'best' in a checkpoint directory is the state with the lowest validation loss.",
    .run = ap_verb_ckpt,
};

static ap_status list_states(const char *dir, int json, struct ap_error *err)
{
    struct ap_ckpt_entry *list;
    int count;
    AP_TRY(ap_ckpt_list(dir, &list, &count, err));
    struct ap_json j = {.indent = 2};
    if (json)
        ap_json_begin_array(&j, NULL);
    else
        ap_out("%12s %14s %6s  %s\n", "step", "bytes", "files", "path");
    for (int i = 0; i < count; i++) {
        const struct ap_ckpt_entry *e = &list[i];
        if (!json) {
            ap_out("%12" PRId64 " %14" PRId64 " %6d  %s%s\n", e->step, e->bytes, e->files, e->path,
                   e->best ? " (best)" : "");
            continue;
        }
        ap_json_begin_object(&j, NULL);
        ap_json_int(&j, "step", e->step);
        ap_json_int(&j, "bytes", e->bytes);
        ap_json_int(&j, "files", e->files);
        ap_json_bool(&j, "best", e->best);
        ap_json_str(&j, "path", e->path);
        ap_json_end_object(&j);
    }
    free(list);
    if (!json)
        return AP_OK;
    ap_json_end_array(&j);
    char *text = ap_strbuf_take(&j.text);
    if (text == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for the list");
    ap_out("%s\n", text);
    free(text);
    return AP_OK;
}

/* One state; tells the result and goes on, so that a directory is checked to its end. */
static ap_status verify_state(const char *path, struct ap_json *j)
{
    struct ap_error err = {0};
    char text[2400] = "";
    ap_status status = ap_ckpt_verify(path, &err);
    if (status != AP_OK)
        ap_error_format(&err, text, sizeof text);
    if (j == NULL) {
        ap_out("%-6s %s%s%s\n", status == AP_OK ? "ok" : "BAD", path, text[0] != '\0' ? ": " : "", text);
        return status;
    }
    ap_json_begin_object(j, NULL);
    ap_json_str(j, "path", path);
    ap_json_bool(j, "ok", status == AP_OK);
    ap_json_str(j, "problem", text[0] != '\0' ? text : NULL);
    ap_json_end_object(j);
    return status;
}

static ap_status verify(const char *path, int json, struct ap_error *err)
{
    char manifest[PATH_MAX];
    struct ap_json j = {.indent = 2};
    struct ap_ckpt_entry *list = NULL;
    int count = 0, bad = 0;
    ap_status worst = AP_OK;
    snprintf(manifest, sizeof manifest, "%s/manifest.json", path);
    int single = ap_io_exists(manifest) || ap_statedir_step(path) >= 0; /* a state, whole or not */
    if (!single) {
        AP_TRY(ap_ckpt_list(path, &list, &count, err));
        if (count == 0) {
            free(list);
            return ap_error_set(err, AP_ERR_NOTFOUND, "%s holds no state", path);
        }
    }
    if (json)
        ap_json_begin_array(&j, NULL);
    for (int i = 0; i < (single ? 1 : count); i++) {
        ap_status status = verify_state(single ? path : list[i].path, json ? &j : NULL);
        bad += status != AP_OK;
        if (worst == AP_OK)
            worst = status;
    }
    free(list);
    if (json) {
        ap_json_end_array(&j);
        char *text = ap_strbuf_take(&j.text);
        if (text != NULL)
            ap_out("%s\n", text);
        free(text);
    }
    if (bad > 0)
        return ap_error_set(err, worst, "%d of %d states cannot be used", bad, single ? 1 : count);
    return AP_OK;
}

static ap_status dispatch(const struct ap_cli_args *args, struct ap_error *err)
{
    static const char *const actions[] = {"ls", "verify", "diff", "export"};
    static const int operands[] = {2, 2, 3, 3};
    const char *action = args->operands[0];
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
        if (strcmp(action, actions[i]) == 0 && args->operand_count != operands[i]) {
            ap_error_set(err, AP_ERR_USAGE, "ckpt %s takes %d path%s", action, operands[i] - 1,
                         operands[i] > 2 ? "s" : "");
            ap_error_hint(err, "antipode ckpt --help");
            return AP_ERR_USAGE;
        }
    if (strcmp(action, "ls") == 0)
        return list_states(args->operands[1], args->json, err);
    if (strcmp(action, "verify") == 0)
        return verify(args->operands[1], args->json, err);
    if (strcmp(action, "diff") == 0)
        return ap_ckpt_tool_diff(args->operands[1], args->operands[2], args->json, err);
    if (strcmp(action, "export") == 0)
        return ap_ckpt_tool_export(args->operands[1], args->operands[2], err);
    ap_error_set(err, AP_ERR_USAGE, "ckpt does not know '%.80s'", action);
    const char *near = ap_suggest_nearest(action, actions, sizeof actions / sizeof actions[0]);
    if (near != NULL)
        ap_error_hint(err, "did you mean '%s'?", near);
    else
        ap_error_hint(err, "ls, verify, diff or export");
    return AP_ERR_USAGE;
}

int ap_verb_ckpt(int argc, char **argv)
{
    struct ap_cli_args args;
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_ckpt, argc, argv, &args, NULL);
    if (code >= 0)
        return code;
    ap_status status = dispatch(&args, &err);
    ap_cli_clear(&ap_verb_desc_ckpt, &args, NULL);
    return ap_cli_end(status, &err);
}
