/* SPDX-License-Identifier: Apache-2.0
 * One connection's part of a run: how large it is, when its messages came, and the line through their times. */
#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "probe/probe_impl.h"

#define BYTES_MIN   2048 /* of a message, unless blocks are smaller */
#define LINE_POINTS 3

void ap_probe_size(const struct ap_probe_options *opt, double wanted, int messages, int64_t *bytes_p, int64_t *count_p)
{
    wanted = fmax(wanted, (double)BYTES_MIN * messages);
    int64_t bytes = (int64_t)(wanted / messages);
    bytes = bytes < BYTES_MIN ? BYTES_MIN : bytes > opt->block ? opt->block : bytes;
    *bytes_p = bytes;
    *count_p = (int64_t)ceil(wanted / (double)bytes);
}

double ap_probe_slope(const double *times, int64_t from, int64_t to, int64_t bytes)
{
    return (double)(to - from) * (double)bytes / fmax(times[to] - times[from], 1e-9);
}

/* The fit over messages first .. last of a window, first < last; times count from a window's length before it, so
 * that all are far from 0 and count alike. */
static ap_status fit(const double *times, int64_t first, int64_t last, int64_t bytes, struct ap_probe_line *line_p)
{
    int64_t offered = last - first + 1;
    double *m = malloc(2 * (size_t)offered * sizeof *m), alpha, beta, residual;
    char *keep = malloc((size_t)offered);
    ap_status status = m == NULL || keep == NULL ? AP_ERR_NOMEM : AP_OK;
    int n = 0;
    if (status == AP_OK) {
        double *t = m + offered;
        ap_probe_paced(offered, times + first, keep);
        for (int64_t i = first; i <= last; i++)
            if (keep[i - first]) {
                m[n] = (double)(i + 1) * (double)bytes;
                t[n++] = times[i] - times[first] + (times[last] - times[first]);
            }
        line_p->points = n;
        status = n < LINE_POINTS ? AP_ERR_INPUT : ap_probe_fit(n, m, t, &alpha, &beta, &residual);
    }
    if (status == AP_OK) {
        line_p->rate = 1 / beta;
        line_p->residual = residual;
    }
    free(m);
    free(keep);
    return status == AP_ERR_INPUT ? AP_OK : status; /* no line: the rate stays 0 */
}

ap_status ap_probe_line_of(const double *times, int64_t count, int64_t bytes, double lo, double hi,
                           struct ap_probe_line *line_p)
{
    int64_t first = 0, last = count - 1;
    *line_p = (struct ap_probe_line){0};
    while (first < count && times[first] < lo)
        first++;
    while (last > first && times[last] > hi)
        last--;
    if (last <= first)
        return AP_OK;
    int64_t middle = first + (last - first) / 2;
    line_p->offered = (int)(last - first + 1);
    line_p->half[0] = middle > first ? ap_probe_slope(times, first, middle, bytes) : 0;
    line_p->half[1] = ap_probe_slope(times, middle, last, bytes);
    return fit(times, first, last, bytes, line_p);
}

ap_status ap_probe_stream_expect(struct ap_probe_run *run, struct ap_probe_stream *s, int at, int from, int64_t bytes,
                                 int64_t count)
{
    if (count > s->room) {
        double *grown = realloc(s->times, (size_t)count * sizeof *grown);
        if (grown == NULL)
            return AP_ERR_NOMEM;
        s->times = grown;
        s->room = count;
    }
    s->bytes = bytes;
    s->count = count;
    s->got = 0;
    AP_TRY(run->net->vt->expect_bulk(run->net, at, from, bytes, count));
    s->asked = run->net->vt->now(run->net);
    return AP_OK;
}

int ap_probe_stream_got(struct ap_probe_stream *s, double time)
{
    s->times[s->got++] = time - s->asked;
    return s->got == s->count;
}
