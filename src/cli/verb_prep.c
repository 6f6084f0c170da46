/* SPDX-License-Identifier: Apache-2.0
 * antipode prep: text to token files (src/prep). */
#include "config.h"

#include <stdlib.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/verbs.h"
#include "prep/prep.h"

struct prep_flags {
    char *out, *input, *manpages, *tokenizer, *key, *language, *languages;
    double valid_fraction;
    int invalid; /* index of the choice: enum ap_prep_invalid */
    int64_t language_bytes;
    int combined_only, force;
};

#define AT(member) offsetof(struct prep_flags, member)
static const struct ap_option flags[] = {
    {.key = "out",
     .kind = AP_OPT_PATH,
     .offset = AT(out),
     .flags = AP_OPT_REQUIRED,
     .doc = "Directory that receives train, valid (.bin and .idx) and prep.json."},
    {.key = "input", .kind = AP_OPT_PATH, .offset = AT(input), .doc = "A file or folder of text, like an operand."},
    {.key = "manpages",
     .kind = AP_OPT_PATH,
     .offset = AT(manpages),
     .doc = "A tree of manual pages (.../man/LANG/manN/): formatting is taken out, the language comes from the path."},
    {.key = "tokenizer",
     .kind = AP_OPT_TEXT,
     .offset = AT(tokenizer),
     .fallback = "bytes",
     .choices = "bytes",
     .doc = "How text becomes tokens."},
    {.key = "key",
     .kind = AP_OPT_TEXT,
     .offset = AT(key),
     .fallback = "text",
     .doc = "Key of the text in lines of JSON."},
    {.key = "language",
     .kind = AP_OPT_TEXT,
     .offset = AT(language),
     .fallback = "und",
     .doc = "Language of the inputs that do not tell theirs."},
    {.key = "languages",
     .kind = AP_OPT_TEXT,
     .offset = AT(languages),
     .default_words = "all",
     .doc = "Take only these languages: en,de,fr."},
    {.key = "valid-fraction",
     .kind = AP_OPT_REAL,
     .offset = AT(valid_fraction),
     .fallback = "0.02",
     .min = 0,
     .max = 0.5,
     .doc = "Share of the documents that become validation data, chosen by their hash."},
    {.key = "invalid",
     .kind = AP_OPT_CHOICE,
     .offset = AT(invalid),
     .fallback = "repair",
     .choices = "repair|skip",
     .doc = "What happens to documents that are not valid UTF-8: repair replaces the bad bytes, skip leaves the "
            "document out. Both are counted."},
    {.key = "language-bytes",
     .kind = AP_OPT_INT,
     .offset = AT(language_bytes),
     .fallback = "0",
     .min = 0,
     .max = 1e15,
     .doc = "Most text of one language; 0 sets no limit."},
    {.key = "combined-only",
     .kind = AP_OPT_BOOL,
     .offset = AT(combined_only),
     .fallback = "false",
     .doc = "Do not write each language by itself besides."},
    {.key = "force",
     .kind = AP_OPT_BOOL,
     .offset = AT(force),
     .fallback = "false",
     .doc = "Do the work again even when nothing has changed."},
};

const struct ap_verb ap_verb_desc_prep = {
    .name = "prep",
    .operands = "[INPUT...]",
    .max_operands = AP_CLI_MAX_OPERANDS,
    .takes = AP_VERB_JSON,
    .summary = "turn text into token files",
    .doc = "Reads files and folders of text: *.jsonl (also .gz and .zst) as lines of JSON, any other file as one "
           "document. Documents that occur twice are taken once, split into training and validation by their hash, and "
           "tokenized into Megatron .bin/.idx pairs. The result depends on the documents and the options only. Run "
           "again, it does nothing unless something has changed.\n\n"
           "  antipode prep my-texts/ --out data/mine",
    .flags = flags,
    .flag_count = sizeof flags / sizeof flags[0],
    .run = ap_verb_prep,
};
_Static_assert(AP_PREP_REPAIR == 0 && AP_PREP_SKIP == 1, "invalid is stored as the index of its choice");

static void print_json(const struct ap_prep_report *r)
{
    struct ap_json j = {.indent = 2};
    ap_json_begin_object(&j, NULL);
    ap_json_bool(&j, "unchanged", r->unchanged);
    ap_json_int(&j, "files", r->files);
    ap_json_int(&j, "documents", r->documents);
    ap_json_int(&j, "bytes", r->bytes);
    ap_json_int(&j, "train_tokens", r->train_tokens);
    ap_json_int(&j, "valid_tokens", r->valid_tokens);
    ap_json_int(&j, "duplicates", r->duplicates);
    ap_json_int(&j, "invalid_documents", r->invalid_documents);
    ap_json_real(&j, "valid_bigram_entropy", r->valid_entropy);
    ap_json_begin_array(&j, "languages");
    for (int i = 0; i < r->language_count; i++) {
        const struct ap_prep_language *l = &r->language[i];
        ap_json_begin_object(&j, NULL);
        ap_json_str(&j, "name", l->name);
        ap_json_int(&j, "documents", l->documents);
        ap_json_int(&j, "bytes", l->bytes);
        ap_json_int(&j, "train_tokens", l->train_tokens);
        ap_json_int(&j, "valid_tokens", l->valid_tokens);
        ap_json_real(&j, "valid_bigram_entropy", l->valid_entropy);
        ap_json_end_object(&j);
    }
    ap_json_end_array(&j);
    ap_json_end_object(&j);
    char *text = ap_strbuf_take(&j.text);
    if (text != NULL)
        ap_out("%s\n", text);
    free(text);
}

static ap_status prep(const struct ap_cli_args *args, const struct prep_flags *f, struct ap_error *err)
{
    struct ap_prep_input inputs[AP_CLI_MAX_OPERANDS + 2];
    int count = 0;
    for (int i = 0; i < args->operand_count; i++)
        inputs[count++] = (struct ap_prep_input){AP_PREP_AUTO, args->operands[i]};
    if (f->input != NULL)
        inputs[count++] = (struct ap_prep_input){AP_PREP_AUTO, f->input};
    if (f->manpages != NULL)
        inputs[count++] = (struct ap_prep_input){AP_PREP_MANPAGES, f->manpages};
    if (count == 0) {
        ap_error_set(err, AP_ERR_USAGE, "nothing to read: name a file or folder, or --manpages");
        ap_error_hint(err, "antipode prep --help");
        return AP_ERR_USAGE;
    }
    struct ap_prep_options opt = {
        .inputs = inputs,
        .input_count = count,
        .out_dir = f->out,
        .tokenizer = f->tokenizer,
        .jsonl_key = f->key,
        .language = f->language,
        .languages = f->languages,
        .valid_fraction = f->valid_fraction,
        .invalid = f->invalid,
        .language_bytes = f->language_bytes,
        .combined_only = f->combined_only,
        .force = f->force,
    };
    struct ap_prep_report *report = calloc(1, sizeof *report);
    if (report == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a report");
    ap_status status = ap_prep_run(&opt, report, err);
    if (status == AP_OK && args->json)
        print_json(report);
    else if (status == AP_OK)
        ap_prep_print(report, f->out);
    free(report);
    return status;
}

int ap_verb_prep(int argc, char **argv)
{
    struct ap_cli_args args;
    struct prep_flags f = {0};
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_prep, argc, argv, &args, &f);
    if (code >= 0)
        return code;
    ap_status status = prep(&args, &f, &err);
    ap_cli_clear(&ap_verb_desc_prep, &args, &f);
    return ap_cli_end(status, &err);
}
