/* SPDX-License-Identifier: Apache-2.0
 * The matrix reader: the header's names decide, errors carry line and column. */
#include "config.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/rng.h"
#include "base/suggest.h"
#include "wan/link_net.h"

#define COLUMNS_MAX 32
#define CELL_MAX    256
#define FILE_MAX    (16 << 20)

/* What a column feeds: a key of ap_link_params (>= 0), or one of these. */
enum { COL_UNKNOWN = -1, COL_SRC = -2, COL_DST = -3, COL_IGNORED = -4 };
struct column {
    int what;
    double factor; /* cell to key */
};

struct reader {
    const char *name;
    const char *at; /* rest of the text */
    long line;
    const char *line_start;
    struct column columns[COLUMNS_MAX];
    int n_columns, delay_column;
    struct ap_link_net *net;
    int capacity;
    double *values; /* capacity x capacity x keys, NAN: not given */
    char *given;    /* capacity x capacity */
    struct ap_error *err;
};

static ap_status fail_at(struct reader *r, const char *where, ap_status status)
{
    ap_error_at(r->err, r->name, r->line, (long)(where - r->line_start) + 1);
    return status;
}

/* The next cell of the line, blanks around it removed, into cell; *start_p: where it begins. 0: the line is over. */
static int next_cell(const char **at_p, char *cell, const char **start_p, int *too_long_p)
{
    const char *at = *at_p;
    if (at == NULL)
        return 0;
    const char *end = at + strcspn(at, ",\r\n");
    *at_p = *end == ',' ? end + 1 : NULL;
    while (at < end && isblank((unsigned char)*at))
        at++;
    while (end > at && isblank((unsigned char)end[-1]))
        end--;
    *start_p = at;
    size_t size = (size_t)(end - at);
    *too_long_p = size >= CELL_MAX;
    size = size < CELL_MAX ? size : CELL_MAX - 1;
    memcpy(cell, at, size);
    cell[size] = '\0';
    return 1;
}

static struct column column_of(const char *name)
{
    struct column c = {COL_UNKNOWN, 1};
    if (strcmp(name, "src") == 0)
        c.what = COL_SRC;
    else if (strcmp(name, "dst") == 0)
        c.what = COL_DST;
    else if (strcmp(name, "egress_usd_per_gb") == 0)
        c.what = COL_IGNORED;
    else if (strcmp(name, "rtt_ms") == 0)
        c = (struct column){ap_link_key_find("delay_ms"), 0.5};
    else if (strcmp(name, "gbit_per_s") == 0)
        c = (struct column){ap_link_key_find("rate_mbit"), 1000};
    else
        c.what = ap_link_key_find(name); /* -1: COL_UNKNOWN */
    return c;
}

static ap_status unknown_column(struct reader *r, const char *cell)
{
    struct ap_suggest s = {0};
    static const char *const others[] = {"src", "dst", "rtt_ms", "gbit_per_s", "egress_usd_per_gb"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        ap_suggest_consider(&s, cell, others[i]);
    for (int i = 0; i < ap_link_keys_n; i++)
        ap_suggest_consider(&s, cell, ap_link_keys[i].name);
    ap_status status = ap_error_set(r->err, AP_ERR_INPUT, "unknown column \"%s\"", cell);
    const char *near = ap_suggest_result(&s, cell);
    if (near != NULL)
        ap_error_hint(r->err, "did you mean \"%s\"?", near);
    return status;
}

static ap_status read_header(struct reader *r)
{
    const char *at = r->line_start, *start;
    char cell[CELL_MAX];
    int too_long, src = 0, dst = 0;
    r->delay_column = -1;
    while (next_cell(&at, cell, &start, &too_long)) {
        if (r->n_columns == COLUMNS_MAX)
            return fail_at(r, start, ap_error_set(r->err, AP_ERR_INPUT, "more than %d columns", COLUMNS_MAX));
        struct column *c = &r->columns[r->n_columns];
        *c = column_of(cell);
        if (c->what == COL_UNKNOWN)
            return fail_at(r, start, unknown_column(r, cell));
        for (int i = 0; i < r->n_columns; i++)
            if (r->columns[i].what == c->what)
                return fail_at(
                    r, start,
                    ap_error_set(r->err, AP_ERR_INPUT, "column \"%s\" says the same as column %d", cell, i + 1));
        src |= c->what == COL_SRC;
        dst |= c->what == COL_DST;
        if (c->what == ap_link_key_find("delay_ms"))
            r->delay_column = r->n_columns;
        r->n_columns++;
    }
    if (!src || !dst || r->delay_column < 0)
        return fail_at(r, r->line_start,
                       ap_error_set(r->err, AP_ERR_INPUT, "no column \"%s\"",
                                    !src   ? "src"
                                    : !dst ? "dst"
                                           : "delay_ms (or rtt_ms)"));
    return AP_OK;
}

/* A larger square for names, values and given pairs. */
static ap_status grow(struct reader *r)
{
    int old = r->capacity, new = old > 0 ? 2 * old : 16, keys = ap_link_keys_n;
    size_t cells = (size_t)new *(size_t)new;
    double *values = malloc(cells * (size_t)keys * sizeof *values);
    char *given = calloc(cells, 1);
    void *names = realloc(r->net->names, (size_t)new * sizeof *r->net->names);
    if (names != NULL)
        r->net->names = names;
    if (values == NULL || given == NULL || names == NULL) {
        free(values);
        free(given);
        return ap_error_set(r->err, AP_ERR_NOMEM, "no memory for a matrix of %d sites", new);
    }
    for (size_t i = 0; i < cells * (size_t)keys; i++)
        values[i] = NAN;
    for (int s = 0; s < r->net->n; s++)
        for (int d = 0; d < r->net->n; d++) {
            given[s * new + d] = r->given[s * old + d];
            memcpy(values + ((size_t)s * (size_t)new + (size_t)d) * (size_t)keys,
                   r->values + ((size_t)s * (size_t)old + (size_t)d) * (size_t)keys, (size_t)keys * sizeof *values);
        }
    free(r->values);
    free(r->given);
    r->values = values;
    r->given = given;
    r->capacity = new;
    return AP_OK;
}

static ap_status site_of(struct reader *r, const char *cell, const char *start, int *site_p)
{
    if (*cell == '\0')
        return fail_at(r, start, ap_error_set(r->err, AP_ERR_INPUT, "the site has no name"));
    if (strlen(cell) > AP_LINK_NAME_MAX || strpbrk(cell, "\"* \t") != NULL)
        return fail_at(r, start,
                       ap_error_set(r->err, AP_ERR_INPUT,
                                    "\"%s\" is no name of a site: at most %d bytes, no blanks, "
                                    "no quotes, no *",
                                    cell, AP_LINK_NAME_MAX));
    *site_p = ap_link_net_find(r->net, cell);
    if (*site_p >= 0)
        return AP_OK;
    if (r->net->n == AP_LINK_SITES_MAX)
        return fail_at(r, start, ap_error_set(r->err, AP_ERR_INPUT, "more than %d sites", AP_LINK_SITES_MAX));
    if (r->net->n == r->capacity)
        AP_TRY(grow(r));
    memcpy(r->net->names[r->net->n], cell, strlen(cell) + 1); /* its length is checked above */
    *site_p = r->net->n++;
    return AP_OK;
}

static ap_status number_of(struct reader *r, const char *cell, const char *start, const struct column *c, double *v_p)
{
    char *end;
    double v = strtod(cell, &end);
    if (end == cell || *end != '\0' || !isfinite(v))
        return fail_at(r, start, ap_error_set(r->err, AP_ERR_INPUT, "\"%s\" is not a number", cell));
    const struct ap_link_key *key = &ap_link_keys[c->what];
    if (v * c->factor < key->least || v * c->factor > key->most)
        return fail_at(r, start,
                       ap_error_set(r->err, AP_ERR_INPUT, "%s is outside of %g to %g", cell, key->least / c->factor,
                                    key->most / c->factor));
    *v_p = v * c->factor;
    return AP_OK;
}

static ap_status read_row(struct reader *r)
{
    const char *at = r->line_start, *start = at;
    char cell[CELL_MAX];
    int too_long, column = 0, site[2] = {-1, -1};
    double row[COLUMNS_MAX];
    for (int i = 0; i < COLUMNS_MAX; i++)
        row[i] = NAN;
    for (; next_cell(&at, cell, &start, &too_long); column++) {
        if (column == r->n_columns)
            return fail_at(r, start, ap_error_set(r->err, AP_ERR_INPUT, "more cells than the %d columns", column));
        if (too_long)
            return fail_at(r, start, ap_error_set(r->err, AP_ERR_INPUT, "a cell of %d bytes or more", CELL_MAX));
        const struct column *c = &r->columns[column];
        if (c->what == COL_SRC || c->what == COL_DST)
            AP_TRY(site_of(r, cell, start, &site[c->what == COL_DST]));
        else if (c->what != COL_IGNORED && *cell != '\0')
            AP_TRY(number_of(r, cell, start, c, &row[column]));
    }
    if (column < r->n_columns)
        return fail_at(r, start + strlen(cell),
                       ap_error_set(r->err, AP_ERR_INPUT, "%d cells, not the %d of the header", column, r->n_columns));
    int s = site[0], d = site[1];
    if (s == d)
        return fail_at(r, r->line_start, ap_error_set(r->err, AP_ERR_INPUT, "a link from a site to itself"));
    if (r->given[s * r->capacity + d])
        return fail_at(
            r, r->line_start,
            ap_error_set(r->err, AP_ERR_INPUT, "%s to %s is given twice", r->net->names[s], r->net->names[d]));
    r->given[s * r->capacity + d] = 1;
    double *values = r->values + ((size_t)s * (size_t)r->capacity + (size_t)d) * (size_t)ap_link_keys_n;
    for (int i = 0; i < r->n_columns; i++)
        if (r->columns[i].what >= 0)
            values[r->columns[i].what] = row[i];
    return AP_OK;
}

static ap_status read_lines(struct reader *r)
{
    int header = 0;
    for (; *r->at != '\0'; r->line++) {
        r->line_start = r->at;
        r->at += strcspn(r->at, "\n");
        r->at += *r->at == '\n';
        if (r->line_start[strspn(r->line_start, " \t\r")] == '\n' || *r->line_start == '#' ||
            r->line_start[strspn(r->line_start, " \t\r")] == '\0')
            continue;
        AP_TRY(header ? read_row(r) : read_header(r));
        header = 1;
    }
    r->line_start = r->at;
    if (r->net->n < 2)
        return fail_at(
            r, r->at,
            ap_error_set(r->err, AP_ERR_INPUT, "a matrix has at least two sites, this one has %d", r->net->n));
    return AP_OK;
}

/* The parameters of one link: its own cells, else the opposite direction's, else the default. */
static ap_status link_params(struct reader *r, int s, int d, struct ap_link_params *params_p)
{
    int keys = ap_link_keys_n, there = s * r->capacity + d, back = d * r->capacity + s;
    struct ap_link_params p = AP_LINK_PARAMS_DEFAULT;
    if (s == d || (!r->given[there] && !r->given[back])) {
        p.up = 0;
        *params_p = p;
        return AP_OK;
    }
    for (int k = 0; k < keys; k++) {
        double v = r->values[(size_t)there * (size_t)keys + (size_t)k];
        if (isnan(v))
            v = r->values[(size_t)back * (size_t)keys + (size_t)k];
        if (!isnan(v))
            ap_link_params_set(&p, k, v);
        else if (k == r->columns[r->delay_column].what)
            return ap_error_set(r->err, AP_ERR_INPUT, "the delay between %s and %s is given in neither direction",
                                r->net->names[s], r->net->names[d]);
    }
    ap_status status = ap_link_params_check(&p, r->err);
    if (status != AP_OK && r->err != NULL) {
        char text[sizeof r->err->text];
        memcpy(text, r->err->text, sizeof text);
        ap_error_set(r->err, status, "%.60s to %.60s: %.800s", r->net->names[s], r->net->names[d], text);
    }
    *params_p = p;
    return status;
}

static ap_status build(struct reader *r)
{
    int n = r->net->n;
    r->net->links = calloc((size_t)n * (size_t)n, sizeof *r->net->links);
    if (r->net->links == NULL)
        return ap_error_set(r->err, AP_ERR_NOMEM, "no memory for the links of %d sites", n);
    for (int s = 0; s < n; s++)
        for (int d = 0; d < n; d++) {
            struct ap_link_params p;
            ap_status status = link_params(r, s, d, &p);
            if (status != AP_OK) {
                ap_error_at(r->err, r->name, 0, 0);
                return status;
            }
            ap_link_model_init(ap_link_net_link(r->net, s, d), &p, r->net->seed,
                               (uint64_t)AP_RNG_LINK << 32 | (uint64_t)(s * n + d));
        }
    return AP_OK;
}

ap_status ap_link_net_parse(const char *text, const char *name, uint64_t seed, struct ap_link_net **net_p,
                            struct ap_error *err)
{
    struct reader r = {.name = name, .at = text, .line = 1, .line_start = text, .err = err};
    r.net = calloc(1, sizeof *r.net);
    if (r.net == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a matrix");
    r.net->seed = seed;
    ap_status status = read_lines(&r);
    if (status == AP_OK)
        status = build(&r);
    free(r.values);
    free(r.given);
    if (status != AP_OK) {
        ap_link_net_free(r.net);
        return status;
    }
    *net_p = r.net;
    return AP_OK;
}

ap_status ap_link_net_read(const char *path, uint64_t seed, struct ap_link_net **net_p, struct ap_error *err)
{
    char *text;
    AP_TRY(ap_io_read_text(path, FILE_MAX, &text, err));
    ap_status status = ap_link_net_parse(text, path, seed, net_p, err);
    free(text);
    return status;
}

void ap_link_net_free(struct ap_link_net *net)
{
    if (net == NULL)
        return;
    free(net->names);
    free(net->links);
    free(net);
}

int ap_link_net_find(const struct ap_link_net *net, const char *name)
{
    for (int i = 0; i < net->n; i++)
        if (strcmp(net->names[i], name) == 0)
            return i;
    return -1;
}

struct ap_link_model *ap_link_net_link(const struct ap_link_net *net, int src, int dst)
{
    return &net->links[src * net->n + dst];
}

double ap_link_net_rtt_ms(const struct ap_link_net *net, int a, int b)
{
    return ap_link_net_link(net, a, b)->params.delay_ms + ap_link_net_link(net, b, a)->params.delay_ms;
}

ap_status ap_link_net_unknown(const struct ap_link_net *net, const char *name, struct ap_error *err)
{
    struct ap_suggest s = {0};
    for (int i = 0; i < net->n; i++)
        ap_suggest_consider(&s, name, net->names[i]);
    ap_status status = ap_error_set(err, AP_ERR_INPUT, "no site \"%s\"", name);
    const char *near = ap_suggest_result(&s, name);
    if (near != NULL)
        ap_error_hint(err, "did you mean \"%s\"?", near);
    return status;
}
