/* SPDX-License-Identifier: Apache-2.0
 * Internals of prep: the documents between reading and writing. Text waits in an unlinked spool file, so
 * memory holds about 48 bytes per document, however large the corpus. */
#ifndef AP_PREP_PREP_STATE_H
#define AP_PREP_PREP_STATE_H

#include "base/io.h"
#include "prep/buf.h"
#include "prep/prep.h"
#include "prep/walk.h"
#include "text/tokenizer.h"

#define AP_PREP_FORMAT       1 /* of prep.json; raise it too when the same input gives other text */
#define AP_PREP_MAX_DOCUMENT (INT64_C(1) << 30)

struct prep_document {
    struct ap_hash128 hash; /* of the text: high splits, low orders */
    int64_t offset, size;   /* in the spool */
    int32_t language;       /* index into prep.report.language */
    int32_t valid;          /* 1: validation split */
    int page;               /* 1: text of a manual page */
};

struct prep {
    const struct ap_prep_options *opt;
    struct ap_prep_report report;
    struct ap_walk_list list;
    struct ap_hash128 fingerprint; /* of inputs and options */
    struct ap_tokenizer *tokenizer;
    int lock_fd, spool_fd;
    int64_t spool_size;
    struct ap_buf spool_buffer;
    struct prep_document *documents; /* owned */
    int64_t document_count, document_capacity;
};

/* prep_ingest.c: read all files of the list into the spool. */
ap_status prep_ingest(struct prep *p, struct ap_error *err);
/* prep_boilerplate.c: leave out paragraphs that many manual pages share. */
ap_status prep_drop_boilerplate(struct prep *p, struct ap_error *err);
/* prep_write.c: sort, drop duplicates, split, and write all datasets; fills the report. json: receives the
 * "files" array of prep.json. */
ap_status prep_select(struct prep *p, struct ap_error *err);
struct prep_json;
ap_status prep_write(struct prep *p, struct prep_json *json, struct ap_error *err);
/* prep_report.c */
ap_status prep_json_create(struct prep_json **json_p, struct ap_error *err);
void prep_json_destroy(struct prep_json *json);
struct ap_megatron_written;
/* path relative to the output folder; language NULL for the combined datasets. */
ap_status prep_json_add_file(struct prep_json *json, const char *path, const char *language,
                             const struct ap_megatron_written *w, struct ap_error *err);
/* Write OUT/prep.json durably. */
ap_status prep_json_commit(struct prep *p, struct prep_json *json, struct ap_error *err);
/* 1 and the report filled if OUT/prep.json has this fingerprint and all its files are there, whole. */
int prep_json_matches(struct prep *p);
/* Remove prep.json and the datasets it lists. */
ap_status prep_json_remove_old(struct prep *p, struct ap_error *err);

#endif
