/* SPDX-License-Identifier: Apache-2.0
 * The table of links: one pass over the rows that collects links and names, then the matrices. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "plan/csv_reader.h"
#include "plan/wan_matrix.h"

#define MAX_BYTES (4u << 20)

enum column { COL_SRC, COL_DST, COL_RTT, COL_RATE, COL_USD, COLUMNS };
static const char *const column_names[COLUMNS] = {"src", "dst", "rtt_ms", "gbit_per_s", "egress_usd_per_gb"};

struct reader {
    struct ap_csv csv;
    int column[COLUMNS]; /* -1: absent */
    struct ap_wan *wan;  /* with room for AP_WAN_MAX_SITES, n of them used */
    long *first_line;    /* [MAX * MAX] line of a link, 0: none */
    struct ap_error *err;
};

static ap_status alloc(int room, struct ap_wan **wan_p)
{
    size_t n = (size_t)room;
    struct ap_wan *w = calloc(1, sizeof *w);
    if (w == NULL)
        return AP_ERR_NOMEM;
    w->names = calloc(n, sizeof *w->names);
    w->rate = calloc(n * n, sizeof *w->rate);
    w->rtt = malloc(n * n * sizeof *w->rtt);
    w->usd = malloc(n * n * sizeof *w->usd);
    if (w->names == NULL || w->rate == NULL || w->rtt == NULL || w->usd == NULL) {
        ap_wan_destroy(w);
        return AP_ERR_NOMEM;
    }
    for (size_t i = 0; i < n * n; i++)
        w->rtt[i] = w->usd[i] = NAN;
    *wan_p = w;
    return AP_OK;
}

ap_status ap_wan_create(int n, struct ap_wan **wan_p)
{
    AP_TRY(alloc(n, wan_p));
    (*wan_p)->n = n;
    (*wan_p)->directed = 1;
    for (int i = 0; i < n; i++)
        snprintf((*wan_p)->names[i], AP_WAN_NAME_SIZE, "s%d", i);
    return AP_OK;
}

void ap_wan_destroy(struct ap_wan *w)
{
    if (w == NULL)
        return;
    free(w->names);
    free(w->rate);
    free(w->rtt);
    free(w->usd);
    free(w);
}

/* The error set last is about that column of the row. */
static ap_status blame(struct reader *r, enum column c, const char *hint)
{
    ap_error_hint(r->err, "%s", hint);
    return ap_csv_blame(&r->csv, r->column[c], r->err);
}

/* Index of a site by name, a new one where it was not seen before. */
static ap_status site(struct reader *r, enum column c, int *index_p)
{
    struct ap_wan *w = r->wan;
    const char *name;
    AP_TRY(ap_csv_name(&r->csv, r->column[c], AP_WAN_NAME_SIZE - 1, &name, r->err));
    for (int i = 0; i < w->n; i++)
        if (strcmp(w->names[i], name) == 0) {
            *index_p = i;
            return AP_OK;
        }
    if (w->n == AP_WAN_MAX_SITES) {
        ap_error_set(r->err, AP_ERR_INPUT, "more than %d sites, at '%s'", AP_WAN_MAX_SITES, name);
        return blame(r, c, "join near sites into one");
    }
    snprintf(w->names[w->n], AP_WAN_NAME_SIZE, "%s", name);
    *index_p = w->n++;
    return AP_OK;
}

/* A number from least up to 10^6; a blank field or a column that is not there: NaN. */
static ap_status number(struct reader *r, enum column c, double least, double *v_p)
{
    *v_p = NAN;
    if (*ap_csv_field(&r->csv, r->column[c]) == '\0')
        return AP_OK;
    return ap_csv_number(&r->csv, r->column[c], (double[]){least, 1e6}, 1, v_p, r->err);
}

static ap_status link_line(struct reader *r)
{
    struct ap_wan *w = r->wan;
    int a, b;
    double rtt, rate, usd;
    AP_TRY(site(r, COL_SRC, &a));
    AP_TRY(site(r, COL_DST, &b));
    AP_TRY(number(r, COL_RTT, 0, &rtt));
    AP_TRY(number(r, COL_RATE, 1e-6, &rate));
    AP_TRY(number(r, COL_USD, 0, &usd));
    if (isnan(rate)) {
        ap_error_set(r->err, AP_ERR_INPUT, "a link without gbit_per_s");
        return blame(r, COL_RATE, "give its rate, or leave the line out if there is no link");
    }
    if (a == b) {
        ap_error_set(r->err, AP_ERR_INPUT, "a link from '%s' to itself", w->names[a]);
        return blame(r, COL_DST, "leave the line out");
    }
    size_t at = (size_t)a * AP_WAN_MAX_SITES + (size_t)b;
    if (r->first_line[at] != 0) {
        ap_error_set(r->err, AP_ERR_INPUT, "the link from '%s' is here a second time", w->names[a]);
        ap_error_hint(r->err, "the first is in line %ld; keep one of them", r->first_line[at]);
        return ap_csv_blame(&r->csv, r->column[COL_SRC], r->err);
    }
    r->first_line[at] = r->csv.line;
    w->rate[at] = rate;
    w->rtt[at] = rtt;
    w->usd[at] = usd;
    return AP_OK;
}

static ap_status lines(struct reader *r, const char *file, const char *data, size_t size)
{
    r->csv = (struct ap_csv){.head = "src,dst,rtt_ms,gbit_per_s[,egress_usd_per_gb]", .whole = 1};
    AP_TRY(ap_csv_open(&r->csv, file, data, size, r->err));
    AP_TRY(ap_csv_columns(&r->csv, column_names, COLUMNS, COL_RATE + 1, 0, r->column, r->err));
    for (int more = 0;;) {
        AP_TRY(ap_csv_next(&r->csv, &more, r->err));
        if (!more)
            return AP_OK;
        AP_TRY(link_line(r));
    }
}

/* From the wide matrices of the reader to n x n, and both directions of an undirected list. */
static ap_status narrow(struct ap_wan *from, struct ap_wan **wan_p)
{
    int n = from->n, both = 0;
    struct ap_wan *w;
    AP_TRY(ap_wan_create(n, &w));
    memcpy(w->names, from->names, (size_t)n * sizeof *w->names);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            both |= from->rate[i * AP_WAN_MAX_SITES + j] > 0 && from->rate[j * AP_WAN_MAX_SITES + i] > 0;
    w->directed = both;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            int at = i * AP_WAN_MAX_SITES + j;
            if (!both && from->rate[at] == 0)
                at = j * AP_WAN_MAX_SITES + i;
            w->rate[i * n + j] = from->rate[at];
            w->rtt[i * n + j] = from->rtt[at];
            w->usd[i * n + j] = from->usd[at];
        }
    *wan_p = w;
    return AP_OK;
}

/* Vertices reached from site 0 (backward: that reach it); the first that is not, -1: none. */
static int unreached(const struct ap_wan *w, int backward)
{
    int pending[AP_WAN_MAX_SITES] = {0}, count = 1;
    char seen[AP_WAN_MAX_SITES] = {1};
    while (count > 0) {
        int i = pending[--count];
        for (int j = 0; j < w->n; j++)
            if (!seen[j] && w->rate[backward ? j * w->n + i : i * w->n + j] > 0) {
                seen[j] = 1;
                pending[count++] = j;
            }
    }
    for (int j = 0; j < w->n; j++)
        if (!seen[j])
            return j;
    return -1;
}

int ap_wan_disconnected(const struct ap_wan *w, int *from_p, int *to_p)
{
    int there = unreached(w, 0), back = unreached(w, 1);
    if (there < 0 && back < 0)
        return 0;
    *from_p = there >= 0 ? 0 : back;
    *to_p = there >= 0 ? there : 0;
    return 1;
}

static ap_status whole(const struct ap_wan *w, const char *file, struct ap_error *err)
{
    int from, to;
    if (w->n < 2) {
        ap_error_set(err, AP_ERR_INPUT, "there are no links, so there are not two sites");
        ap_error_at(err, file, 0, 0);
        ap_error_hint(err, "one line for each link: src,dst,rtt_ms,gbit_per_s");
        return AP_ERR_INPUT;
    }
    if (ap_wan_disconnected(w, &from, &to)) {
        ap_error_set(err, AP_ERR_INPUT, "no path leads from site '%s' to site '%s'", w->names[from], w->names[to]);
        ap_error_at(err, file, 0, 0);
        ap_error_hint(err, w->directed ? "lines are single directions here, because a pair stands in both: add the "
                                         "missing directions, or take out a site"
                                       : "add the missing links, or take out a site");
        return AP_ERR_INPUT;
    }
    return AP_OK;
}

ap_status ap_wan_parse(const char *data, size_t size, const char *file, struct ap_wan **wan_p, struct ap_error *err)
{
    struct reader r = {.err = err};
    struct ap_wan *w = NULL;
    ap_status status = alloc(AP_WAN_MAX_SITES, &r.wan);
    if (status == AP_OK) {
        r.first_line = calloc((size_t)AP_WAN_MAX_SITES * AP_WAN_MAX_SITES, sizeof *r.first_line);
        if (r.first_line == NULL)
            status = AP_ERR_NOMEM;
    }
    if (status == AP_OK)
        status = lines(&r, file, data, size);
    if (status == AP_OK && r.wan->n > 0)
        status = narrow(r.wan, &w);
    if (status == AP_OK)
        status = whole(w != NULL ? w : r.wan, file, err);
    if (status == AP_ERR_NOMEM)
        ap_error_set(err, status, "no memory for the links of %s", file);
    ap_csv_close(&r.csv);
    ap_wan_destroy(r.wan);
    free(r.first_line);
    if (status == AP_OK)
        *wan_p = w;
    else
        ap_wan_destroy(w);
    return status;
}

ap_status ap_wan_load(const char *path, struct ap_wan **wan_p, struct ap_error *err)
{
    char *data;
    size_t size;
    AP_TRY(ap_io_read_file(path, MAX_BYTES, &data, &size, err));
    ap_status status = ap_wan_parse(data, size, path, wan_p, err);
    free(data);
    return status;
}
