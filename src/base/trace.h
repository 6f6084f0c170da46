/* SPDX-License-Identifier: Apache-2.0
 * Traces of what a run does when: spans in the Trace Event Format (JSON array form) that Perfetto and
 * chrome://tracing open. pid = rank, tid = thread of the rank (0: the one that runs the step). Format:
 * docs/formats.md.
 *
 * Spans are kept as binary records in buffers of a fixed size, one per thread, so that a span costs two clock
 * readings and a copy; flush turns them into text. What does not fit is counted and said in the file. After every
 * flush the file is whole JSON, so a run that stops or fails leaves a readable trace.
 *
 * Every function takes trace == NULL as "off". Strings of a span (names, keys) must be static storage. */
#ifndef AP_BASE_TRACE_H
#define AP_BASE_TRACE_H

#include <stdint.h>
#include "base/clock.h"
#include "base/status.h"

struct ap_trace;

struct ap_trace_options {
    const char *path;   /* written anew */
    const char *host;   /* of this rank, for its name in the viewer; NULL: not shown */
    int rank, ranks;    /* pid, and whether names say the rank */
    int threads;        /* threads that may give spans, >= 1 */
    double zero;        /* monotonic time of ts 0: the same moment on all ranks */
    int64_t capacity;   /* spans kept between two flushes for each thread; <= 0: chosen */
    int64_t file_limit; /* bytes after which spans are only counted; <= 0: chosen */
};

/* What a span says besides its time. Copied. */
#define AP_TRACE_SHAPES 5
struct ap_trace_shape {
    const char *key;
    int ndim;
    int64_t dim[4];
};
struct ap_trace_args {
    const char *number_key; /* "step", "layer", ...; NULL: no number */
    int64_t number;
    const char *dtype;   /* NULL: neither dtype nor work nor shapes */
    double flops, bytes; /* what the operation must do at least */
    int shapes;
    struct ap_trace_shape shape[AP_TRACE_SHAPES];
};

ap_status ap_trace_open(const struct ap_trace_options *opt, struct ap_trace **t_p, struct ap_error *err);
/* Flush and close. */
void ap_trace_close(struct ap_trace *t);

/* ---- spans of the step's thread: begin gives the time that end takes ---- */
static inline double ap_trace_begin(const struct ap_trace *t)
{
    return t ? ap_clock_monotonic() : 0;
}
void ap_trace_add(struct ap_trace *t, const char *category, const char *name, double begin, double end,
                  const struct ap_trace_args *args);
/* A span from begin until now; key NULL: no number. */
static inline void ap_trace_end(struct ap_trace *t, const char *category, const char *name, const char *key,
                                int64_t number, double begin)
{
    if (t)
        ap_trace_add(t, category, name, begin, ap_clock_monotonic(),
                     &(struct ap_trace_args){.number_key = key, .number = number});
}
/* The statement of a function that returns ap_status, as a span; returns early if it fails. */
#define AP_TRACE_TRY(trace, category, name, key, number, expr)                                                         \
    do {                                                                                                               \
        double ap_trace_t0_ = ap_trace_begin(trace);                                                                   \
        ap_status ap_trace_st_ = (expr);                                                                               \
        ap_trace_end(trace, category, name, key, number, ap_trace_t0_);                                                \
        if (ap_trace_st_ != AP_OK)                                                                                     \
            return ap_trace_st_;                                                                                       \
    } while (0)

/* ---- spans of the other threads ---- */
/* What the threads work on from now on, by the step's thread: the name of their spans. */
void ap_trace_working_on(struct ap_trace *t, const char *name);
/* thread 1..threads-1 worked from begin to end on piece of work number `run`; spans of one run are one. To be called
 * before the step's thread can know that the work is done. The type of a pool's observer (base/pool.h). */
void ap_trace_task(void *trace, int thread, uint64_t run, double begin, double end);

/* ---- file ---- */
/* Write out what is there; only when the other threads rest. A file that cannot be written is said once and
 * ends the trace, not the run. */
void ap_trace_flush(struct ap_trace *t);
/* Flush if a buffer is more than half full: for places inside long steps. */
void ap_trace_relieve(struct ap_trace *t);
/* Spans that were not kept so far. */
int64_t ap_trace_dropped(const struct ap_trace *t);
/* The events in the file, as text between the brackets, for joining the files of several ranks: bytes after a
 * flush, and a part of them. */
int64_t ap_trace_body_size(const struct ap_trace *t);
ap_status ap_trace_body_read(const struct ap_trace *t, int64_t at, void *data, int64_t bytes, struct ap_error *err);
/* Append a part of another file's body; first: it begins that body. */
ap_status ap_trace_body_append(struct ap_trace *t, const void *data, int64_t bytes, int first, struct ap_error *err);

#endif
