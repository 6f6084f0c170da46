/* SPDX-License-Identifier: Apache-2.0
 * The event file. */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "monitor/events.h"
#include "monitor/jsonl.h"

struct ap_events {
    struct ap_jsonl *file; /* NULL: log only */
    struct ap_json line;
    int broken; /* a write failed: said once */
};

ap_status ap_events_open(const char *path, int64_t last_step, struct ap_events **e_p, struct ap_error *err)
{
    struct ap_events *e = calloc(1, sizeof(*e));
    if (!e)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    ap_status st = path ? ap_jsonl_trim(path, last_step, NULL, err) : AP_OK;
    if (st == AP_OK && path)
        st = ap_jsonl_open(path, &e->file, err);
    if (st != AP_OK) {
        free(e);
        return st;
    }
    *e_p = e;
    return AP_OK;
}

void ap_events_close(struct ap_events *e)
{
    if (!e)
        return;
    ap_jsonl_close(e->file);
    ap_strbuf_clear(&e->line.text);
    free(e);
}

void ap_events_emit(struct ap_events *e, ap_log_level level, int64_t step, const char *kind, const char *fmt, ...)
{
    char text[1024], stamp[40];
    if (!e)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    ap_log(level, "%s", text);
    if (!e->file || e->broken)
        return;
    ap_clock_iso(ap_clock_wall(), stamp);
    ap_json_begin_object(&e->line, NULL);
    ap_json_int(&e->line, "v", AP_EVENTS_VERSION);
    ap_json_str(&e->line, "time", stamp);
    ap_json_int(&e->line, "step", step);
    ap_json_str(&e->line, "kind", kind);
    ap_json_int(&e->line, "rank", 0);
    ap_json_str(&e->line, "text", text);
    struct ap_error err = {0};
    ap_json_end_object(&e->line);
    if (ap_jsonl_append(e->file, &e->line, 0, &err) == AP_OK)
        return;
    e->broken = 1;
    ap_warn("events are no longer written: %s", err.text);
}
