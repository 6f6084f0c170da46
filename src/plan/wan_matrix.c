/* SPDX-License-Identifier: Apache-2.0
 * The CSV of links: one pass over the lines that collects links and names, then the matrices. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/suggest.h"
#include "base/utf8.h"
#include "plan/wan_matrix.h"

#define MAX_BYTES (4u << 20)
#define MAX_FIELD 64

enum column { COL_SRC, COL_DST, COL_RTT, COL_RATE, COL_USD, COLUMNS };
static const char *const column_names[COLUMNS] = {"src", "dst", "rtt_ms", "gbit_per_s", "egress_usd_per_gb"};

struct field {
    const char *text; /* not terminated */
    size_t size;
    long column; /* from 1, in bytes */
};

struct reader {
    const char *file;
    long line;
    struct field fields[COLUMNS + 1];
    int count;
    int place[COLUMNS]; /* position of a column in a line, -1: absent */
    struct ap_wan *wan; /* with room for AP_WAN_MAX_SITES, n of them used */
    long *first_line;   /* [MAX * MAX] line of a link, 0: none */
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

static ap_status bad(struct reader *r, const struct field *f, const char *text, const char *hint)
{
    ap_error_set(r->err, AP_ERR_INPUT, text, f != NULL ? (int)(f->size < 80 ? f->size : 80) : 0,
                 f != NULL ? f->text : "");
    ap_error_at(r->err, r->file, r->line, f != NULL ? f->column : 0);
    if (hint != NULL)
        ap_error_hint(r->err, "%s", hint);
    return AP_ERR_INPUT;
}

/* Cut a line at its commas, blanks around a field left out. */
static ap_status split(struct reader *r, const char *line, size_t size)
{
    size_t at = 0;
    r->count = 0;
    for (;;) {
        size_t end = at;
        while (end < size && line[end] != ',')
            end++;
        struct field f = {line + at, end - at, (long)at + 1};
        while (f.size > 0 && (f.text[0] == ' ' || f.text[0] == '\t')) {
            f.text++;
            f.size--;
            f.column++;
        }
        while (f.size > 0 && (f.text[f.size - 1] == ' ' || f.text[f.size - 1] == '\t'))
            f.size--;
        if (r->count > COLUMNS - 1)
            return bad(r, &f, "one field too many: '%.*s'", "src,dst,rtt_ms,gbit_per_s[,egress_usd_per_gb]");
        if (memchr(f.text, '"', f.size) != NULL)
            return bad(r, &f, "quoted fields are not read: %.*s", "write names without quotes and commas");
        r->fields[r->count++] = f;
        if (end == size)
            return AP_OK;
        at = end + 1;
    }
}

static ap_status header(struct reader *r)
{
    for (int c = 0; c < COLUMNS; c++)
        r->place[c] = -1;
    for (int i = 0; i < r->count; i++) {
        char word[MAX_FIELD];
        int found = -1;
        snprintf(word, sizeof word, "%.*s", (int)(r->fields[i].size < 60 ? r->fields[i].size : 60), r->fields[i].text);
        for (int c = 0; c < COLUMNS; c++)
            if (strcmp(word, column_names[c]) == 0)
                found = c;
        if (found < 0) {
            const char *near = ap_suggest_nearest(word, column_names, COLUMNS);
            bad(r, &r->fields[i], "there is no column '%.*s'", "src,dst,rtt_ms,gbit_per_s[,egress_usd_per_gb]");
            if (near != NULL)
                ap_error_hint(r->err, "did you mean '%s'?", near);
            return AP_ERR_INPUT;
        }
        if (r->place[found] >= 0)
            return bad(r, &r->fields[i], "column '%.*s' stands twice", "name each column once");
        r->place[found] = i;
    }
    for (int c = 0; c <= COL_RATE; c++)
        if (r->place[c] < 0) {
            struct field f = {column_names[c], strlen(column_names[c]), 1};
            return bad(r, &f, "the first line does not name the column '%.*s'",
                       "begin with src,dst,rtt_ms,gbit_per_s[,egress_usd_per_gb]");
        }
    return AP_OK;
}

/* Index of a site by name, a new one where it was not seen before. */
static ap_status site(struct reader *r, const struct field *f, int *index_p)
{
    struct ap_wan *w = r->wan;
    if (f->size == 0)
        return bad(r, f, "a site without a name%.*s", "src and dst name the sites that a link joins");
    if (f->size >= AP_WAN_NAME_SIZE)
        return bad(r, f, "the name is too long: '%.*s...'", "at most 63 bytes");
    for (size_t i = 0; i < f->size; i++)
        if ((unsigned char)f->text[i] < 0x20 || f->text[i] == 0x7f)
            return bad(r, f, "a control character in a name%.*s", "names are printable text");
    for (int i = 0; i < w->n; i++)
        if (strlen(w->names[i]) == f->size && memcmp(w->names[i], f->text, f->size) == 0) {
            *index_p = i;
            return AP_OK;
        }
    if (w->n == AP_WAN_MAX_SITES)
        return bad(r, f, "more than 128 sites, at '%.*s'", "join near sites into one");
    memcpy(w->names[w->n], f->text, f->size);
    *index_p = w->n++;
    return AP_OK;
}

/* A number from least up to 10^6, or NaN for a blank field where blank is allowed. */
static ap_status number(struct reader *r, enum column c, double least, int blank, double *v_p)
{
    static const struct field none = {"", 0, 0};
    const struct field *f = r->place[c] >= 0 ? &r->fields[r->place[c]] : &none;
    char text[MAX_FIELD], *end;
    if (f->size == 0 && blank) {
        *v_p = NAN;
        return AP_OK;
    }
    if (f->size == 0)
        return bad(r, f, "a link without gbit_per_s%.*s", "give its rate, or leave the line out if there is no link");
    if (f->size >= sizeof text || strspn(f->text, "0123456789+-.eE") < f->size)
        return bad(r, f, "'%.*s' is not a number",
                   "a decimal number such as 4.5; blank means unknown, for rtt_ms only");
    memcpy(text, f->text, f->size);
    text[f->size] = '\0';
    double v = strtod(text, &end);
    if (*end != '\0' || !isfinite(v))
        return bad(r, f, "'%.*s' is not a number", "a decimal number such as 4.5");
    if (v < least || v > 1e6) {
        bad(r, f, "%.*s is out of range", NULL);
        ap_error_hint(r->err, "%s is from %g to 1e6", column_names[c], least);
        return AP_ERR_INPUT;
    }
    *v_p = v;
    return AP_OK;
}

static ap_status link_line(struct reader *r)
{
    struct ap_wan *w = r->wan;
    int a, b, wanted = 0;
    double rtt, rate, usd;
    for (int c = 0; c < COLUMNS; c++)
        wanted += r->place[c] >= 0;
    if (r->count != wanted) {
        bad(r, &r->fields[r->count - 1], "not as many fields as the first line has, at '%.*s'", NULL);
        ap_error_hint(r->err, "%d fields, not %d; a blank field still has its comma", wanted, r->count);
        return AP_ERR_INPUT;
    }
    AP_TRY(site(r, &r->fields[r->place[COL_SRC]], &a));
    AP_TRY(site(r, &r->fields[r->place[COL_DST]], &b));
    AP_TRY(number(r, COL_RTT, 0, 1, &rtt));
    AP_TRY(number(r, COL_RATE, 1e-6, 0, &rate));
    AP_TRY(number(r, COL_USD, 0, 1, &usd));
    if (a == b)
        return bad(r, &r->fields[r->place[COL_DST]], "a link from '%.*s' to itself", "leave the line out");
    size_t at = (size_t)a * AP_WAN_MAX_SITES + (size_t)b;
    if (r->first_line[at] != 0) {
        bad(r, &r->fields[r->place[COL_SRC]], "the link from '%.*s' is here a second time", NULL);
        ap_error_hint(r->err, "the first is in line %ld; keep one of them", r->first_line[at]);
        return AP_ERR_INPUT;
    }
    r->first_line[at] = r->line;
    w->rate[at] = rate;
    w->rtt[at] = rtt;
    w->usd[at] = usd;
    return AP_OK;
}

static ap_status lines(struct reader *r, const char *data, size_t size)
{
    int seen_header = 0;
    size_t valid = ap_utf8_validate(data, size);
    for (size_t at = 0; at < size;) {
        const char *newline = memchr(data + at, '\n', size - at);
        size_t end = newline != NULL ? (size_t)(newline - data) : size, length = end - at;
        r->line++;
        if (valid < end) {
            struct field f = {"", 0, (long)(valid - at) + 1};
            return bad(r, &f, "a byte that is no UTF-8%.*s", "save the file as UTF-8");
        }
        if (length > 0 && data[end - 1] == '\r')
            length--;
        if (length > 0 && data[at] != '#' && strspn(data + at, " \t") < length) {
            AP_TRY(split(r, data + at, length));
            AP_TRY(seen_header ? link_line(r) : header(r));
            seen_header = 1;
        }
        at = end + 1;
    }
    if (!seen_header)
        return bad(r, NULL, "the file is empty%.*s", "begin with src,dst,rtt_ms,gbit_per_s[,egress_usd_per_gb]");
    return AP_OK;
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
    struct reader r = {.file = file, .err = err};
    struct ap_wan *w = NULL;
    ap_status status = alloc(AP_WAN_MAX_SITES, &r.wan);
    if (status == AP_OK) {
        r.first_line = calloc((size_t)AP_WAN_MAX_SITES * AP_WAN_MAX_SITES, sizeof *r.first_line);
        if (r.first_line == NULL)
            status = AP_ERR_NOMEM;
    }
    if (status == AP_OK)
        status = lines(&r, data, size);
    if (status == AP_OK && r.wan->n > 0)
        status = narrow(r.wan, &w);
    if (status == AP_OK)
        status = whole(w != NULL ? w : r.wan, file, err);
    if (status == AP_ERR_NOMEM)
        ap_error_set(err, status, "no memory for the links of %s", file);
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
