/* SPDX-License-Identifier: Apache-2.0
 * Files of one JSON object per line that survive kills and resumes. A line is written by one write call, so a
 * killed process leaves at most one torn line, the last. Not thread-safe. */
#ifndef AP_MONITOR_JSONL_H
#define AP_MONITOR_JSONL_H

#include <stddef.h>
#include <stdint.h>
#include "base/json.h"
#include "base/status.h"

/* A file that only grows. */
struct ap_jsonl;
/* Open for appending, made if missing. Lines of another process are kept. */
ap_status ap_jsonl_open(const char *path, struct ap_jsonl **f_p, struct ap_error *err);
void ap_jsonl_close(struct ap_jsonl *f); /* NULL is fine */
/* Append the object that stands in *line and empty it; its memory stays for the next line, until
 * ap_strbuf_clear(&line->text). durable: fsync before returning. After a failed write
 * the file is as before. */
ap_status ap_jsonl_append(struct ap_jsonl *f, struct ap_json *line, int durable, struct ap_error *err);
/* Drop the lines whose "step" is above last_step and a torn last line; by durable replacement, and only if
 * there is something to drop. A missing file is AP_OK. *dropped_p (NULL allowed): lines dropped. */
ap_status ap_jsonl_trim(const char *path, int64_t last_step, int64_t *dropped_p, struct ap_error *err);

#endif
