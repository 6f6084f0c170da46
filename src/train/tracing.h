/* SPDX-License-Identifier: Apache-2.0
 * Tracing of steps: one trace file for each rank while the run goes on, joined by rank 0 at its end. */
#ifndef AP_TRAIN_TRACING_H
#define AP_TRAIN_TRACING_H

#include "backend/record.h"
#include "base/trace.h"
#include "parallel/comm.h"

#define AP_TRACING_STEPS 10 /* traced when no range is given */

/* As the user gave it. */
struct ap_trace_request {
    const char *path;    /* borrowed; NULL: no trace */
    int64_t first, last; /* steps; first 0: the first AP_TRACING_STEPS of this start */
};

/* "7" or "100-120" into the request; NULL text: as if not given. AP_ERR_USAGE. */
ap_status ap_trace_request_steps(const char *text, struct ap_trace_request *r, struct ap_error *err);

/* Zero-initialised: off. */
struct ap_tracing {
    struct ap_trace_request request;
    struct ap_trace *trace;
    struct ap_record record;
    struct ap_backend *be; /* while a traced step runs, else NULL */
    struct ap_comm *comm;
    double begin;
    int64_t step;
};

/* Collective; every rank ends with the same status. Makes the file (of rank N > 0: PATH.rank-N), before the run does
 * anything else: a trace that cannot be written is an error. threads: of each rank, or more. */
ap_status ap_tracing_open(struct ap_tracing *t, const struct ap_trace_request *request, struct ap_comm *comm,
                          int threads, struct ap_error *err);
/* The trace if this step is traced (also between begin and end), else NULL. Spans of the backend's operations and of
 * the pool's workers go to it from begin to end. */
struct ap_trace *ap_tracing_step_begin(struct ap_tracing *t, int64_t step, struct ap_backend *be);
/* The step's own span ends: what follows (evaluation, checkpoint) stands beside it. */
void ap_tracing_step_done(struct ap_tracing *t);
/* Everything of this step has been done: the file is whole again. */
void ap_tracing_step_end(struct ap_tracing *t);
/* Collective if join is set, which all ranks know alike: rank 0 takes over the events of the others and their files
 * vanish. A failure here is a warning, and the files stay. Zeroed is fine. */
void ap_tracing_close(struct ap_tracing *t, int join);

#endif
