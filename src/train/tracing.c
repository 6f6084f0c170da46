/* SPDX-License-Identifier: Apache-2.0
 * When steps are traced, and what becomes of the files. */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "train/tracing.h"

#define PIECE ((int64_t)1 << 20)

static ap_status not_steps(const char *text, struct ap_error *err)
{
    ap_error_set(err, AP_ERR_USAGE, "--trace-steps %.80s: not a range of steps", text);
    ap_error_hint(err, "one step, or the first and the last: 7 or 100-120");
    return AP_ERR_USAGE;
}

ap_status ap_trace_request_steps(const char *text, struct ap_trace_request *r, struct ap_error *err)
{
    if (!text)
        return AP_OK;
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9')
        return not_steps(text, err);
    int64_t first = strtoll(text, &end, 10), last = first;
    if (*end == '-') {
        const char *second = end + 1;
        if (*second < '0' || *second > '9')
            return not_steps(text, err);
        last = strtoll(second, &end, 10);
    }
    if (*end != '\0' || first < 1 || last < first)
        return not_steps(text, err);
    r->first = first;
    r->last = last;
    return AP_OK;
}

/* On one machine all ranks read the same clock; on several, the moment after a barrier is the same to within the time
 * of the barrier. */
static ap_status common_zero(struct ap_comm *comm, double *zero_p)
{
    struct {
        char boot[64];
        double now;
    } first, mine = {.boot = ""};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, mine.boot, sizeof(mine.boot) - 1) <= 0)
            mine.boot[0] = '\0';
        close(fd);
    }
    AP_TRY(ap_comm_barrier(comm));
    mine.now = ap_clock_monotonic();
    first = mine;
    AP_TRY(ap_comm_bcast(comm, &first, sizeof(first), 0));
    *zero_p = mine.boot[0] && strcmp(mine.boot, first.boot) == 0 ? first.now : mine.now;
    return AP_OK;
}

static ap_status file_name(const struct ap_tracing *t, int rank, char *buf, size_t size)
{
    int n = rank == 0 ? snprintf(buf, size, "%s", t->request.path)
                      : snprintf(buf, size, "%s.rank-%d", t->request.path, rank);
    return n >= 0 && (size_t)n < size ? AP_OK : AP_ERR_INPUT;
}

ap_status ap_tracing_open(struct ap_tracing *t, const struct ap_trace_request *request, struct ap_comm *comm,
                          int threads, struct ap_error *err)
{
    char path[4096], host[100] = "";
    if (!request->path)
        return AP_OK;
    t->request = *request;
    t->comm = comm;
    struct ap_trace_options opt = {
        .path = path, .host = host, .rank = comm->rank, .ranks = comm->size, .threads = threads};
    AP_TRY(common_zero(comm, &opt.zero));
    gethostname(host, sizeof(host) - 1);
    ap_status st = file_name(t, comm->rank, path, sizeof(path));
    if (st != AP_OK)
        ap_error_set(err, st, "the path of the trace is longer than %zu bytes", sizeof(path) - 1);
    else
        st = ap_trace_open(&opt, &t->trace, err);
    return ap_comm_agree(comm, st, NULL, err);
}

struct ap_trace *ap_tracing_step_begin(struct ap_tracing *t, int64_t step, struct ap_backend *be)
{
    if (!t->trace)
        return NULL;
    if (t->request.first == 0) {
        t->request.first = step;
        t->request.last = step + AP_TRACING_STEPS - 1;
    }
    if (step < t->request.first || step > t->request.last || ap_record_attach(&t->record, be, 0) != AP_OK)
        return NULL;
    t->be = be;
    t->step = step;
    be->trace = t->trace;
    ap_pool_observe(be->pool, ap_trace_task, t->trace);
    t->begin = ap_clock_monotonic();
    return t->trace;
}

void ap_tracing_step_done(struct ap_tracing *t)
{
    if (t->be)
        ap_trace_end(t->trace, "step", "step", "step", t->step, t->begin);
}

void ap_tracing_step_end(struct ap_tracing *t)
{
    if (!t->be)
        return;
    ap_pool_observe(t->be->pool, NULL, NULL);
    t->be->trace = NULL;
    ap_record_detach(t->be);
    t->be = NULL;
    ap_trace_flush(t->trace);
}

/* counts: [5 * size] send and receive bytes and offsets, and the sizes of the bodies. */
static ap_status pass_body(struct ap_tracing *t, int rank, int64_t *counts, char *piece, struct ap_error *err)
{
    int size = t->comm->size, me = t->comm->rank;
    int64_t *sb = counts, *so = sb + size, *rb = so + size, *ro = rb + size, all = counts[4 * size + rank];
    ap_status st = AP_OK;
    for (int64_t at = 0; at < all; at += PIECE) {
        int64_t n = all - at < PIECE ? all - at : PIECE;
        memset(counts, 0, 4 * (size_t)size * sizeof(*counts));
        sb[0] = me == rank ? n : 0;
        rb[rank] = me == 0 ? n : 0;
        if (me == rank && st == AP_OK)
            st = ap_trace_body_read(t->trace, at, piece, n, err);
        AP_TRY(ap_comm_alltoallv(t->comm, piece, sb, so, piece + PIECE, rb, ro));
        if (me == 0 && st == AP_OK)
            st = ap_trace_body_append(t->trace, piece + PIECE, n, at == 0, err);
    }
    return ap_comm_agree(t->comm, st, NULL, err);
}

/* Rank 0 gets the others' events, one rank after another. */
static ap_status join_files(struct ap_tracing *t, struct ap_error *err)
{
    int size = t->comm->size, me = t->comm->rank;
    int64_t *counts = calloc(6 * (size_t)size, sizeof(*counts));
    char *piece = malloc(2 * (size_t)PIECE);
    ap_status st = counts && piece ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    st = ap_comm_agree(t->comm, st, NULL, err);
    if (st == AP_OK) {
        int64_t *sizes = counts + 4 * (size_t)size, *bytes = sizes + size;
        for (int r = 0; r < size; r++)
            bytes[r] = (int64_t)sizeof(*sizes);
        sizes[me] = ap_trace_body_size(t->trace);
        st = ap_comm_allgatherv(t->comm, sizes + me, bytes, sizes);
    }
    for (int r = 1; st == AP_OK && r < size; r++)
        st = pass_body(t, r, counts, piece, err);
    free(counts);
    free(piece);
    return st;
}

void ap_tracing_close(struct ap_tracing *t, int join)
{
    char path[4096], text[1800];
    struct ap_error err = {0};
    if (!t->trace)
        return;
    ap_tracing_step_end(t);
    int64_t dropped = ap_trace_dropped(t->trace);
    if (dropped > 0)
        ap_warn("%lld spans did not fit and are not in the trace: take fewer steps", (long long)dropped);
    int several = t->comm->size > 1;
    ap_status st = join && several ? join_files(t, &err) : AP_OK;
    if (st != AP_OK) {
        ap_error_format(&err, text, sizeof(text));
        if (t->comm->rank == 0)
            ap_warn("the traces of the ranks stay apart, as %s.rank-N: %s", t->request.path, text);
    } else if (join && t->comm->rank > 0 && file_name(t, t->comm->rank, path, sizeof(path)) == AP_OK) {
        unlink(path);
    } else if (t->comm->rank == 0) {
        ap_info("trace written to %s%s", t->request.path,
                join || !several ? "" : "; the other ranks' beside it, as they could not be joined");
    }
    ap_trace_close(t->trace);
    ap_record_free(&t->record);
    *t = (struct ap_tracing){0};
}
