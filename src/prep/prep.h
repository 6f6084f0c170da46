/* SPDX-License-Identifier: Apache-2.0
 * antipode prep: text in, Megatron datasets out. Documents are read, cleaned, de-duplicated by content,
 * split into training and validation by their hash, ordered by their hash, and tokenized; the result depends
 * on the set of documents and the options only, not on file names, folder order or the clock.
 *
 * OUT/train, OUT/valid (.bin, .idx): everything. OUT/LANG/train, OUT/LANG/valid: each language by itself,
 * when there is more than one, so that a job can weight them. OUT/prep.json: what was made, with hashes. */
#ifndef AP_PREP_PREP_H
#define AP_PREP_PREP_H

#include <stdint.h>
#include "base/hash.h"
#include "base/status.h"

#define AP_PREP_MAX_LANGUAGES 64

enum ap_prep_kind {
    AP_PREP_AUTO,    /* files: *.jsonl(.gz|.zst) is JSON lines, anything else one document; folders: all below */
    AP_PREP_MANPAGES /* a tree of manual pages: roff is reduced to text, languages come from .../man/LANG/manN/ */
};

struct ap_prep_input {
    int kind;
    const char *path;
};

/* What to do with a document that is not valid UTF-8. Repair puts U+FFFD in the wrong places; a document with more
 * than one in a hundred bytes is skipped all the same. */
enum ap_prep_invalid { AP_PREP_REPAIR, AP_PREP_SKIP };

struct ap_prep_options {
    const struct ap_prep_input *inputs;
    int input_count;
    const char *out_dir;
    const char *tokenizer;  /* NULL: "bytes" */
    const char *jsonl_key;  /* NULL: "text" */
    const char *language;   /* of inputs of kind auto; NULL: "und" */
    const char *languages;  /* "en,de,fr": only these; NULL: all */
    double valid_fraction;  /* share of documents, 0 .. 0.5 */
    int invalid;            /* what to do with invalid UTF-8 */
    int64_t language_bytes; /* most text of one language; 0: no limit */
    int64_t boilerplate;    /* paragraphs (80 bytes or more) in more than so many manual pages are left out; 0: none */
    int combined_only;      /* no datasets by language */
    int force;              /* even when nothing changed */
};

struct ap_prep_language {
    char name[24];
    int64_t documents, bytes, train_tokens, valid_tokens;
    double valid_entropy; /* bigram conditional entropy of the validation split, nats per token */
};

struct ap_prep_report {
    int unchanged; /* nothing was done: same inputs, options and version as last time */
    int64_t files, input_bytes, documents, bytes, train_tokens, valid_tokens;
    int64_t duplicates, empty, links, binary, invalid_documents, invalid_sequences, invalid_skipped, over_limit,
        boilerplate_bytes;
    double valid_entropy;
    int language_count;
    struct ap_prep_language language[AP_PREP_MAX_LANGUAGES]; /* by name */
};

/* Not thread-safe for one out_dir; a second process on it gets AP_ERR_LOCKED. On failure older output may be
 * gone, but never is half-written output left with a prep.json. */
ap_status ap_prep_run(const struct ap_prep_options *opt, struct ap_prep_report *report_p, struct ap_error *err);
/* The table for people, by ap_out. */
void ap_prep_print(const struct ap_prep_report *report, const char *out_dir);

#endif
