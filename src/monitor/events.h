/* SPDX-License-Identifier: Apache-2.0
 * events.jsonl: what happened, one line each: v, time (ISO 8601), step, kind, rank, text. Format version 1:
 * docs/formats.md. Written by one rank; each event goes to the log as well. */
#ifndef AP_MONITOR_EVENTS_H
#define AP_MONITOR_EVENTS_H

#include <stdint.h>
#include "base/log.h"
#include "base/status.h"

#define AP_EVENTS_VERSION 1

struct ap_events;

/* Drop the events of steps after last_step, then append. path NULL: events go to the log only. */
ap_status ap_events_open(const char *path, int64_t last_step, struct ap_events **e_p, struct ap_error *err);
void ap_events_close(struct ap_events *e); /* NULL is fine */
/* kind is one lower-case word ("start", "resume", "skip", "checkpoint", "best", "stop", "end", ...).
 * e NULL: nothing happens (ranks that do not write). A full disk never fails a step here: the event is then
 * in the log alone. */
void ap_events_emit(struct ap_events *e, ap_log_level level, int64_t step, const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

#endif
