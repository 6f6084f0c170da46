/* SPDX-License-Identifier: Apache-2.0
 * The trace file: an array with one event on each line. The closing bracket is written with every flush and
 * overwritten by the next one. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/trace.h"

#define STEP_CAPACITY   ((int64_t)1 << 15)
#define WORKER_CAPACITY ((int64_t)1 << 14)
#define FILE_LIMIT      ((int64_t)1 << 28)
#define TEXT_AT_ONCE    ((size_t)1 << 20)

static const char head[] = "[\n", tail[] = "\n]\n";
#define HEAD_BYTES ((int64_t)sizeof(head) - 1)
#define TAIL_BYTES (sizeof(tail) - 1)

struct event {
    const char *category, *name;
    double begin, end;
    struct ap_trace_args args;
};

/* The record of a worker has no arguments. */
struct work {
    const char *name;
    double begin, end;
    uint64_t run;
};

/* One producer each. */
struct lane {
    struct work *list; /* [capacity] */
    int64_t count, capacity, dropped;
    int named;
};

struct ap_trace {
    int fd;
    char *path;
    int rank;
    double zero;
    int64_t at, limit;     /* end of the body in the file; its bound */
    int broken, empty;     /* a write failed; no event in the file yet */
    int full, closing;     /* the bound is reached and said; the last flush */
    int64_t dropped, told; /* spans that were not kept; of these, said in the file */
    struct event *list;    /* of the step's thread */
    int64_t count, capacity;
    const char *working_on;
    struct lane *lanes; /* [threads], the first unused */
    int threads;
    struct ap_json json; /* text not yet written; its memory is kept */
};

static ap_status write_text(struct ap_trace *t, const char *text, size_t size, struct ap_error *err)
{
    AP_TRY(ap_io_pwrite_all(t->fd, text, size, t->at, t->path, err));
    t->at += (int64_t)(size - TAIL_BYTES);
    return AP_OK;
}

/* The text so far, and the bracket after it. */
static void write_out(struct ap_trace *t)
{
    struct ap_error err = {0};
    struct ap_strbuf *b = &t->json.text;
    ap_strbuf_add(b, tail);
    ap_status st = b->failed ? ap_error_set(&err, AP_ERR_NOMEM, "out of memory") : AP_OK;
    if (st == AP_OK)
        st = write_text(t, b->data, b->size, &err);
    b->size = 0;
    if (st == AP_OK)
        return;
    t->broken = 1;
    char text[1800];
    ap_error_format(&err, text, sizeof(text));
    ap_warn("the trace ends here: %s", text);
}

static struct ap_json *begin_event(struct ap_trace *t, const char *phase, const char *category, const char *name,
                                   int thread)
{
    if (t->json.text.size > TEXT_AT_ONCE)
        write_out(t);
    if (!t->empty)
        ap_strbuf_add(&t->json.text, ",\n");
    t->empty = 0;
    ap_json_begin_object(&t->json, NULL);
    ap_json_str(&t->json, "ph", phase);
    ap_json_int(&t->json, "pid", t->rank);
    ap_json_int(&t->json, "tid", thread);
    if (category)
        ap_json_str(&t->json, "cat", category);
    ap_json_str(&t->json, "name", name);
    return &t->json;
}

/* Microseconds with nanoseconds behind the point, by integers: begin + dur of a span is not more than that of
 * the span around it, whatever the rounding. */
static void add_time(struct ap_trace *t, double begin, double end)
{
    int64_t from = (int64_t)((begin - t->zero) * 1e9), to = (int64_t)((end - t->zero) * 1e9);
    struct {
        const char *key;
        int64_t ns;
    } time[2] = {{"ts", from}, {"dur", to - from}};
    for (int i = 0; i < 2; i++) {
        char text[40];
        int64_t ns = time[i].ns < 0 ? -time[i].ns : time[i].ns;
        snprintf(text, sizeof(text), "%s%" PRId64 ".%03d", time[i].ns < 0 ? "-" : "", ns / 1000, (int)(ns % 1000));
        ap_json_raw(&t->json, time[i].key, text);
    }
}

static void add_args(struct ap_json *j, const struct ap_trace_args *a)
{
    ap_json_begin_object(j, "args");
    if (a->number_key)
        ap_json_int(j, a->number_key, a->number);
    if (a->dtype) {
        ap_json_str(j, "dtype", a->dtype);
        ap_json_real(j, "flops", a->flops);
        ap_json_real(j, "bytes", a->bytes);
    }
    for (int i = 0; i < a->shapes; i++) {
        char text[96] = "";
        for (int d = 0, n = 0; d < a->shape[i].ndim && d < 4; d++)
            n += snprintf(text + n, sizeof(text) - (size_t)n, "%s%" PRId64, d > 0 ? "x" : "", a->shape[i].dim[d]);
        ap_json_str(j, a->shape[i].key, text);
    }
    ap_json_end_object(j);
}

static void meta(struct ap_trace *t, const char *what, int thread, const char *key, const char *text, int64_t number)
{
    struct ap_json *j = begin_event(t, "M", NULL, what, thread);
    ap_json_begin_object(j, "args");
    if (text)
        ap_json_str(j, key, text);
    else
        ap_json_int(j, key, number);
    ap_json_end_object(j);
    ap_json_end_object(j);
}

static void name_process(struct ap_trace *t, const struct ap_trace_options *opt)
{
    char text[160];
    if (opt->host)
        snprintf(text, sizeof(text), "rank %d on %.100s", opt->rank, opt->host);
    else
        snprintf(text, sizeof(text), "rank %d", opt->rank);
    meta(t, "process_name", 0, "name", text, 0);
    meta(t, "process_sort_index", 0, "sort_index", NULL, opt->rank);
    meta(t, "thread_name", 0, "name", "step", 0);
    write_out(t);
}

static ap_status allocate(struct ap_trace *t, const struct ap_trace_options *opt)
{
    t->capacity = opt->capacity > 0 ? opt->capacity : STEP_CAPACITY;
    t->list = calloc((size_t)t->capacity, sizeof(*t->list));
    t->lanes = calloc((size_t)t->threads, sizeof(*t->lanes));
    t->path = strdup(opt->path);
    if (!t->list || !t->lanes || !t->path)
        return AP_ERR_NOMEM;
    for (int i = 1; i < t->threads; i++) {
        t->lanes[i].capacity = opt->capacity > 0 ? opt->capacity : WORKER_CAPACITY;
        t->lanes[i].list = calloc((size_t)t->lanes[i].capacity, sizeof(*t->lanes[i].list));
        if (!t->lanes[i].list)
            return AP_ERR_NOMEM;
    }
    return AP_OK;
}

static void release(struct ap_trace *t)
{
    for (int i = 0; t->lanes && i < t->threads; i++)
        free(t->lanes[i].list);
    if (t->fd >= 0)
        close(t->fd);
    ap_strbuf_clear(&t->json.text);
    free(t->lanes);
    free(t->list);
    free(t->path);
    free(t);
}

ap_status ap_trace_open(const struct ap_trace_options *opt, struct ap_trace **t_p, struct ap_error *err)
{
    struct ap_trace *t = calloc(1, sizeof(*t));
    if (!t)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    t->fd = -1;
    t->rank = opt->rank;
    t->zero = opt->zero;
    t->threads = opt->threads > 0 ? opt->threads : 1;
    t->limit = opt->file_limit > 0 ? opt->file_limit : FILE_LIMIT;
    t->empty = 1;
    if (allocate(t, opt) != AP_OK) {
        release(t);
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for the buffers of the trace");
    }
    t->fd = open(opt->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (t->fd < 0) {
        int e = errno;
        release(t);
        ap_error_set(err, ap_status_from_errno(e), "cannot write the trace: %s", strerror(e));
        ap_error_at(err, opt->path, 0, 0);
        return ap_status_from_errno(e);
    }
    ap_status st = ap_io_pwrite_all(t->fd, head, (size_t)HEAD_BYTES, 0, t->path, err);
    t->at = HEAD_BYTES;
    if (st != AP_OK) {
        release(t);
        return st;
    }
    name_process(t, opt);
    *t_p = t;
    return AP_OK;
}

void ap_trace_add(struct ap_trace *t, const char *category, const char *name, double begin, double end,
                  const struct ap_trace_args *args)
{
    if (!t)
        return;
    if (t->broken || t->count == t->capacity || t->at > t->limit) {
        t->dropped++;
        return;
    }
    struct event *e = &t->list[t->count++];
    e->category = category;
    e->name = name;
    e->begin = begin;
    e->end = end;
    e->args = *args;
}

void ap_trace_working_on(struct ap_trace *t, const char *name)
{
    if (t)
        t->working_on = name;
}

void ap_trace_task(void *trace, int thread, uint64_t run, double begin, double end)
{
    struct ap_trace *t = trace;
    if (!t || thread < 1 || thread >= t->threads)
        return;
    struct lane *l = &t->lanes[thread];
    struct work *last = l->count > 0 ? &l->list[l->count - 1] : NULL;
    if (last && last->run == run) {
        last->end = end;
        return;
    }
    if (l->count == l->capacity || t->at > t->limit) {
        l->dropped++;
        return;
    }
    l->list[l->count++] = (struct work){t->working_on, begin, end, run};
}

static void write_lane(struct ap_trace *t, int thread)
{
    struct lane *l = &t->lanes[thread];
    if (l->count > 0 && !l->named) {
        char text[32];
        snprintf(text, sizeof(text), "worker %d", thread);
        meta(t, "thread_name", thread, "name", text, 0);
        l->named = 1;
    }
    for (int64_t i = 0; i < l->count; i++) {
        const struct work *w = &l->list[i];
        begin_event(t, "X", "worker", w->name ? w->name : "other work", thread);
        add_time(t, w->begin, w->end);
        ap_json_end_object(&t->json);
    }
    l->count = 0;
    t->dropped += l->dropped;
    l->dropped = 0;
}

/* In the file at the time of now: so a viewer shows where the trace has a hole. A file that has reached its bound says
 * it once, and at the end. */
static void tell_dropped(struct ap_trace *t)
{
    int full = t->at > t->limit;
    if (t->dropped == t->told || (full && t->full && !t->closing))
        return;
    t->full = full;
    struct ap_json *j = begin_event(t, "i", "trace", "spans dropped", 0);
    double now = ap_clock_monotonic();
    add_time(t, now, now);
    ap_json_str(j, "s", "p");
    ap_json_begin_object(j, "args");
    ap_json_int(j, "spans", t->dropped - t->told);
    ap_json_end_object(j);
    ap_json_end_object(j);
    t->told = t->dropped;
}

void ap_trace_flush(struct ap_trace *t)
{
    if (!t)
        return;
    double begin = ap_clock_monotonic();
    for (int64_t i = 0; !t->broken && i < t->count; i++) {
        const struct event *e = &t->list[i];
        begin_event(t, "X", e->category, e->name, 0);
        add_time(t, e->begin, e->end);
        add_args(&t->json, &e->args);
        ap_json_end_object(&t->json);
    }
    int64_t written = t->count;
    t->count = 0;
    for (int i = 1; !t->broken && i < t->threads; i++) {
        written += t->lanes[i].count;
        write_lane(t, i);
    }
    if (t->broken)
        return;
    tell_dropped(t);
    if (t->json.text.size > 0)
        write_out(t);
    if (written > 0)
        ap_trace_add(t, "trace", "trace write", begin, ap_clock_monotonic(), &(struct ap_trace_args){0});
}

void ap_trace_relieve(struct ap_trace *t)
{
    if (!t)
        return;
    int full = t->count > t->capacity / 2;
    for (int i = 1; !full && i < t->threads; i++)
        full = t->lanes[i].count > t->lanes[i].capacity / 2;
    if (full)
        ap_trace_flush(t);
}

int64_t ap_trace_dropped(const struct ap_trace *t)
{
    return t ? t->dropped : 0;
}

int64_t ap_trace_body_size(const struct ap_trace *t)
{
    return t ? t->at - HEAD_BYTES : 0;
}

ap_status ap_trace_body_read(const struct ap_trace *t, int64_t at, void *data, int64_t bytes, struct ap_error *err)
{
    return ap_io_pread_all(t->fd, data, (size_t)bytes, HEAD_BYTES + at, t->path, err);
}

ap_status ap_trace_body_append(struct ap_trace *t, const void *data, int64_t bytes, int first, struct ap_error *err)
{
    struct ap_strbuf *b = &t->json.text;
    b->size = 0;
    if (t->broken)
        return ap_error_set(err, AP_ERR_IO, "an earlier write of the trace failed");
    if (first && !t->empty)
        ap_strbuf_add(b, ",\n");
    t->empty = 0;
    ap_strbuf_add_bytes(b, data, (size_t)bytes);
    ap_strbuf_add(b, tail);
    if (b->failed)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the trace");
    ap_status st = write_text(t, b->data, b->size, err);
    b->size = 0;
    return st;
}

void ap_trace_close(struct ap_trace *t)
{
    if (!t)
        return;
    t->closing = 1;
    ap_trace_flush(t);
    release(t);
}
