/* SPDX-License-Identifier: Apache-2.0
 * decisions.jsonl: the journal of every choice that a clock, a measurement or the machine made. An entry is
 * numbered from 1 without gaps and is on disk before the choice takes effect; it is never changed or removed.
 * Resume and `train --replay` read the entries and do not decide again, so that the bits of a run follow from
 * (job, plan, decisions, binary, instruction set, threads per rank). Format version 1: docs/formats.md.
 * Used by one rank, which tells the others. */
#ifndef AP_MONITOR_DECISIONS_H
#define AP_MONITOR_DECISIONS_H

#include <stdint.h>
#include "base/status.h"

#define AP_DECISIONS_VERSION 1

struct ap_decision {
    int64_t number;
    int64_t step; /* first step it holds for; 1 is the first step of a run */
    char kind[32];
    char *value; /* JSON object text, owned by the journal */
};

struct ap_journal;

/* Read what is there and append from then on. path NULL: kept in memory only. A torn last line (killed while
 * writing: the choice never took effect) is removed; anything else unreadable, or a gap in the numbers, is
 * AP_ERR_CORRUPT with file and line. Another format version: AP_ERR_FORMAT. */
ap_status ap_journal_open(const char *path, struct ap_journal **j_p, struct ap_error *err);
/* Read only, for --replay: the file stays as it is and decide is refused. */
ap_status ap_journal_read(const char *path, struct ap_journal **j_p, struct ap_error *err);
void ap_journal_close(struct ap_journal *j); /* NULL is fine */

int64_t ap_journal_count(const struct ap_journal *j);
/* Entry i = 0..count-1; valid until the next decide. */
const struct ap_decision *ap_journal_at(const struct ap_journal *j, int64_t i);
/* The entry of this kind in force at `step`: the last one with entry.step <= step. NULL: none. */
const struct ap_decision *ap_journal_find(const struct ap_journal *j, const char *kind, int64_t step);
/* Append and make durable. value: JSON object text. */
ap_status ap_journal_decide(struct ap_journal *j, int64_t step, const char *kind, const char *value,
                            struct ap_error *err);
/* All entries as a JSON array (malloc'ed): what a checkpoint stores. NULL when out of memory. */
char *ap_journal_json(const struct ap_journal *j);
/* Bring back entries of a checkpoint that the file lacks (another run directory, a lost file). An entry that
 * both have and that differs is AP_ERR_CORRUPT. */
ap_status ap_journal_restore(struct ap_journal *j, const char *json_array, struct ap_error *err);

/* Member of an entry's value: AP_ERR_NOTFOUND if absent or of another type. */
ap_status ap_decision_i64(const struct ap_decision *d, const char *key, int64_t *v_p);
ap_status ap_decision_text(const struct ap_decision *d, const char *key, char *buf, size_t size);

#endif
