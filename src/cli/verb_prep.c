/* SPDX-License-Identifier: Apache-2.0
 * antipode prep: text files, JSON lines and manual pages to training data. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "cli/verbs.h"
#include "prep/prep.h"

struct prep_flags {
    char *out, *manpages, *jsonl_key, *language, *languages, *tokenizer;
    double valid_fraction;
    int invalid, combined_only, force;
    int64_t language_bytes, boilerplate;
};

static const struct ap_option flags[] = {
    {.key = "out",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct prep_flags, out),
     .flags = AP_OPT_REQUIRED,
     .also = "output|dir",
     .doc = "Folder that receives train, valid (.bin and .idx) and prep.json; made if it is missing."},
    {.key = "manpages",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct prep_flags, manpages),
     .doc = "Folder with manual pages below it, in .../man/manN or .../man/LANG/manN: unpacked packages, or "
            "/usr/share/man."},
    {.key = "jsonl-key",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct prep_flags, jsonl_key),
     .fallback = "text",
     .doc = "Field of each JSON line that holds the text."},
    {.key = "language",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct prep_flags, language),
     .fallback = "und",
     .doc = "Language of the files given as INPUT."},
    {.key = "languages",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct prep_flags, languages),
     .default_words = "all",
     .doc = "Take manual pages of these languages only: en,de,fr."},
    {.key = "language-bytes",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct prep_flags, language_bytes),
     .fallback = "0",
     .min = 0,
     .max = 9e18,
     .unit = "bytes",
     .default_words = "no limit",
     .doc = "Take at most this much text of each language."},
    {.key = "boilerplate",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct prep_flags, boilerplate),
     .fallback = "20",
     .min = 0,
     .max = 1e9,
     .unit = "pages",
     .doc = "Leave out paragraphs (of 80 bytes or more) that more than this many manual pages share: licences, "
            "translators' notes. 0 leaves all in."},
    {.key = "valid-fraction",
     .kind = AP_OPT_REAL,
     .offset = offsetof(struct prep_flags, valid_fraction),
     .fallback = "0.05",
     .min = 0,
     .max = 0.5,
     .doc = "Share of the documents, chosen by their hash, that goes into the validation data."},
    {.key = "invalid-utf8",
     .kind = AP_OPT_CHOICE,
     .offset = offsetof(struct prep_flags, invalid),
     .fallback = "repair",
     .choices = "repair|skip",
     .doc = "Documents with invalid UTF-8: put U+FFFD in the wrong places, or leave them out."},
    {.key = "tokenizer",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct prep_flags, tokenizer),
     .fallback = "bytes",
     .doc = "bytes: one token per byte, 256 ends a document, vocabulary 257."},
    {.key = "combined-only",
     .kind = AP_OPT_BOOL,
     .offset = offsetof(struct prep_flags, combined_only),
     .fallback = "false",
     .doc = "No datasets by language beside the combined ones."},
    {.key = "force",
     .kind = AP_OPT_BOOL,
     .offset = offsetof(struct prep_flags, force),
     .fallback = "false",
     .doc = "Do the work even if inputs and options are those of the last time."},
};

const struct ap_verb ap_verb_desc_prep = {
    .name = "prep",
    .operands = "[INPUT...]",
    .min_operands = 0,
    .max_operands = AP_CLI_MAX_OPERANDS,
    .takes = AP_VERB_JSON,
    .summary = "turn text into training data",
    .doc = "Reads text files, JSON lines (.jsonl, .ndjson), folders of them, and manual pages; gzip and zstd are "
           "recognised. "
           "Documents are cleaned, equal ones are kept once, and the rest is split by hash into OUT/train and "
           "OUT/valid, in an "
           "order that depends on their contents only. With several languages OUT/LANG/train and OUT/LANG/valid hold "
           "each of "
           "them alone, so that a job can weight them.\n\n"
           "  antipode prep --out data corpus/ more.jsonl.zst\n"
           "  antipode prep --out data --manpages /usr/share/man --languages en,de\n\n"
           "A second run with the same inputs and options does nothing. The last column of the table is the bigram "
           "conditional entropy of the validation data in nats per token: a model that learns must come below it.",
    .flags = flags,
    .flag_count = sizeof flags / sizeof flags[0],
    .run = ap_verb_prep,
};

/* prep.json as it was written. */
static ap_status print_json(const char *out, struct ap_error *err)
{
    size_t length = strlen(out) + sizeof "/prep.json", size = 0;
    char *path = malloc(length), *text = NULL;
    if (!path)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    snprintf(path, length, "%s/prep.json", out);
    ap_status status = ap_io_read_file(path, 1 << 24, &text, &size, err);
    if (status == AP_OK)
        ap_out("%s\n", text);
    free(text);
    free(path);
    return status;
}

static ap_status run(const struct prep_flags *f, const struct ap_cli_args *args, struct ap_error *err)
{
    struct ap_prep_input inputs[AP_CLI_MAX_OPERANDS + 1];
    int count = 0;
    if (args->operand_count == 0 && !f->manpages) {
        ap_error_set(err, AP_ERR_USAGE, "no input: give files or folders, or --manpages DIR");
        ap_error_hint(err, "antipode prep --help");
        return AP_ERR_USAGE;
    }
    for (int i = 0; i < args->operand_count; i++)
        inputs[count++] = (struct ap_prep_input){AP_PREP_AUTO, args->operands[i]};
    if (f->manpages)
        inputs[count++] = (struct ap_prep_input){AP_PREP_MANPAGES, f->manpages};
    struct ap_prep_options opt = {.inputs = inputs,
                                  .input_count = count,
                                  .out_dir = f->out,
                                  .tokenizer = f->tokenizer,
                                  .jsonl_key = f->jsonl_key,
                                  .language = f->language,
                                  .languages = f->languages,
                                  .valid_fraction = f->valid_fraction,
                                  .invalid = f->invalid,
                                  .language_bytes = f->language_bytes,
                                  .boilerplate = f->boilerplate,
                                  .combined_only = f->combined_only,
                                  .force = f->force};
    struct ap_prep_report *report = calloc(1, sizeof *report);
    if (!report)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    ap_status status = ap_prep_run(&opt, report, err);
    if (status == AP_OK && args->json)
        status = print_json(f->out, err);
    else if (status == AP_OK)
        ap_prep_print(report, f->out);
    free(report);
    return status;
}

int ap_verb_prep(int argc, char **argv)
{
    struct prep_flags f = {0};
    struct ap_cli_args args;
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_prep, argc, argv, &args, &f);
    if (code >= 0)
        return code;
    ap_status status = run(&f, &args, &err);
    ap_cli_clear(&ap_verb_desc_prep, &args, &f);
    return ap_cli_end(status, &err);
}
