/* SPDX-License-Identifier: Apache-2.0
 * The matrix reader: the header's names decide, errors carry line and column. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/rng.h"
#include "base/suggest.h"
#include "plan/csv_reader.h"
#include "wan/link_net.h"

#define FILE_MAX (16 << 20)

/* The columns of a matrix: both ends, the form of measured WAN matrices, then the keys of ap_link_params. */
enum { COL_SRC = 0, COL_DST = 1, COL_USD, COL_RTT, COL_GBIT, COL_KEYS };
static const char *const first_names[COL_KEYS] = {"src", "dst", "egress_usd_per_gb", "rtt_ms", "gbit_per_s"};
#define NAMES_MAX 48

struct reader {
    struct ap_csv csv;
    const char *names[NAMES_MAX]; /* first_names, then the keys' */
    int column[NAMES_MAX];        /* -1: absent */
    struct ap_link_net *net;
    int capacity;
    double *values; /* capacity x capacity x keys, NAN: not given */
    char *given;    /* capacity x capacity */
    struct ap_error *err;
};

/* What a column feeds: a key and the factor from field to key; -1: none. */
static int key_of(int name, double *factor_p)
{
    *factor_p = name == COL_RTT ? 0.5 : name == COL_GBIT ? 1000 : 1;
    if (name == COL_RTT)
        return ap_link_key_find("delay_ms");
    if (name == COL_GBIT)
        return ap_link_key_find("rate_mbit");
    return name < COL_KEYS ? -1 : name - COL_KEYS;
}

static ap_status read_header(struct reader *r)
{
    int count = COL_KEYS + ap_link_keys_n, from[NAMES_MAX];
    double factor;
    if (count > NAMES_MAX)
        return ap_error_set(r->err, AP_ERR_BUG, "%d columns of a matrix, room for %d", count, NAMES_MAX);
    for (int i = 0; i < count; i++)
        r->names[i] = i < COL_KEYS ? first_names[i] : ap_link_keys[i - COL_KEYS].name;
    AP_TRY(ap_csv_columns(&r->csv, r->names, count, COL_DST + 1, 0, r->column, r->err));
    for (int k = 0; k < NAMES_MAX; k++)
        from[k] = -1;
    for (int i = 0; i < count; i++) {
        int key = key_of(i, &factor);
        if (key < 0 || r->column[i] < 0)
            continue;
        if (from[key] >= 0) {
            int later = r->column[i] > r->column[from[key]] ? i : from[key], other = later == i ? from[key] : i;
            ap_error_set(r->err, AP_ERR_INPUT, "column '%s' says the same as '%s'", r->names[later], r->names[other]);
            return ap_csv_blame(&r->csv, r->column[later], r->err);
        }
        from[key] = i;
    }
    if (from[ap_link_key_find("delay_ms")] >= 0)
        return AP_OK;
    ap_error_set(r->err, AP_ERR_INPUT, "the header has no column 'delay_ms' (or 'rtt_ms')");
    return ap_csv_blame(&r->csv, -1, r->err);
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

static ap_status site_of(struct reader *r, int column, int *site_p)
{
    const char *name;
    AP_TRY(ap_csv_name(&r->csv, column, AP_LINK_NAME_MAX, &name, r->err));
    if (strpbrk(name, " *") != NULL) { /* commands of a scenario are words, and * stands for all */
        ap_error_set(r->err, AP_ERR_INPUT, "'%s' is no name of a site: it has a blank or *", name);
        return ap_csv_blame(&r->csv, column, r->err);
    }
    *site_p = ap_link_net_find(r->net, name);
    if (*site_p >= 0)
        return AP_OK;
    if (r->net->n == AP_LINK_SITES_MAX) {
        ap_error_set(r->err, AP_ERR_INPUT, "more than %d sites", AP_LINK_SITES_MAX);
        return ap_csv_blame(&r->csv, column, r->err);
    }
    if (r->net->n == r->capacity)
        AP_TRY(grow(r));
    memcpy(r->net->names[r->net->n], name, strlen(name) + 1); /* its length is checked above */
    *site_p = r->net->n++;
    return AP_OK;
}

static ap_status read_row(struct reader *r)
{
    int end[2], first = r->column[COL_DST] < r->column[COL_SRC] ? COL_DST : COL_SRC; /* as they appear */
    AP_TRY(site_of(r, r->column[first], &end[first]));
    AP_TRY(site_of(r, r->column[COL_DST - first], &end[COL_DST - first]));
    int s = end[COL_SRC], d = end[COL_DST];
    if (s == d) {
        ap_error_set(r->err, AP_ERR_INPUT, "a link from a site to itself");
        return ap_csv_blame(&r->csv, -1, r->err);
    }
    if (r->given[s * r->capacity + d]) {
        ap_error_set(r->err, AP_ERR_INPUT, "%s to %s is given twice", r->net->names[s], r->net->names[d]);
        return ap_csv_blame(&r->csv, -1, r->err);
    }
    r->given[s * r->capacity + d] = 1;
    double *values = r->values + ((size_t)s * (size_t)r->capacity + (size_t)d) * (size_t)ap_link_keys_n;
    for (int i = 0; i < COL_KEYS + ap_link_keys_n; i++) {
        double factor;
        int key = key_of(i, &factor);
        if (key < 0 || *ap_csv_field(&r->csv, r->column[i]) == '\0')
            continue;
        const double range[2] = {ap_link_keys[key].least / factor, ap_link_keys[key].most / factor};
        AP_TRY(ap_csv_number(&r->csv, r->column[i], range, factor, &values[key], r->err));
    }
    return AP_OK;
}

static ap_status read_lines(struct reader *r, const char *name, const char *text)
{
    r->csv = (struct ap_csv){.head = "src,dst,delay_ms", .whole = 1};
    AP_TRY(ap_csv_open(&r->csv, name, text, strlen(text), r->err));
    AP_TRY(read_header(r));
    for (int more = 0;;) {
        AP_TRY(ap_csv_next(&r->csv, &more, r->err));
        if (!more)
            break;
        AP_TRY(read_row(r));
    }
    if (r->net->n >= 2)
        return AP_OK;
    ap_error_set(r->err, AP_ERR_INPUT, "a matrix has at least two sites, this one has %d", r->net->n);
    ap_error_at(r->err, name, r->csv.line, 0);
    return AP_ERR_INPUT;
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
        else if (k == ap_link_key_find("delay_ms"))
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
    r->net->egress = calloc((size_t)n, sizeof *r->net->egress);
    r->net->ingress = calloc((size_t)n, sizeof *r->net->ingress);
    if (r->net->links == NULL || r->net->egress == NULL || r->net->ingress == NULL)
        return ap_error_set(r->err, AP_ERR_NOMEM, "no memory for the links of %d sites", n);
    for (int k = 0; k < 2 * n; k++)
        ap_link_model_init(k < n ? &r->net->egress[k] : &r->net->ingress[k - n], &AP_LINK_PARAMS_DEFAULT, r->net->seed,
                           (uint64_t)AP_RNG_LINK << 32 | (uint64_t)(n * n + k));
    for (int s = 0; s < n; s++)
        for (int d = 0; d < n; d++) {
            struct ap_link_params p;
            ap_status status = link_params(r, s, d, &p);
            if (status != AP_OK) {
                ap_error_at(r->err, r->csv.path, 0, 0);
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
    struct reader r = {.err = err};
    r.net = calloc(1, sizeof *r.net);
    if (r.net == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a matrix");
    r.net->seed = seed;
    ap_status status = read_lines(&r, name, text);
    if (status == AP_OK)
        status = build(&r);
    ap_csv_close(&r.csv);
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
    free(net->egress);
    free(net->ingress);
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

void ap_link_net_cap(struct ap_link_net *net, int site, int ingress, double mbit)
{
    struct ap_link_params p = AP_LINK_PARAMS_DEFAULT;
    double longest = 0;
    for (int a = 0; a < net->n; a++)
        for (int b = 0; b < a; b++)
            longest = fmax(longest, ap_link_net_rtt_ms(net, a, b));
    p.rate_mbit = mbit;
    p.queue_kb = fmin(fmax(mbit * longest / 8, 256), ap_link_keys[ap_link_key_find("queue_kb")].most);
    ap_link_model_change(ingress ? &net->ingress[site] : &net->egress[site], &p);
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
