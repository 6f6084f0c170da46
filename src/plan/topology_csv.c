/* SPDX-License-Identifier: Apache-2.0
 * Reading topology.csv (docs/formats-topology.md). Two passes: the ranks with their nodes and sites, then the links.
 * What pairs of ranks were measured is folded apart and used where no line says it outright. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/suggest.h"
#include "plan/csv_reader.h"
#include "plan/name_index.h"
#include "plan/topology.h"

#define MAX_BYTES ((size_t)1 << 26)

enum column {
    KIND,
    A,
    B,
    SITE,
    NODE,
    PER_NODE,
    DEVICE,
    SPEED,
    MEMORY,
    MEMORY_BW,
    LATENCY,
    BANDWIDTH,
    CUT,
    FORWARD,
    BACKWARD,
    COLUMNS
};
static const char *const column_names[COLUMNS] = {"kind",       "a",          "b",      "site",       "node",
                                                  "per_node",   "device",     "gflops", "memory_gb",  "memory_gb_per_s",
                                                  "latency_us", "gbit_per_s", "cut",    "forward_ns", "backward_ns"};

enum kind { RANK, INSIDE_NODE, INSIDE_SITE, NODES, LINK, PAIR, EGRESS, INGRESS, JOB, WORK, GROUP, SUM, KINDS };
static const char *const kind_names[KINDS] = {"rank",   "node",    "site", "nodes", "link",  "pair",
                                              "egress", "ingress", "job",  "work",  "group", "sum"};

struct reader {
    const char *path;
    struct ap_csv csv;
    int column[COLUMNS];
    struct ap_name_index nodes, sites;
    int *node_site;             /* per node */
    size_t node_room;           /* of node_site */
    struct ap_topo_rank *ranks; /* [AP_TOPO_MAX_RANKS]; device "" where not yet given */
    int rank_end;               /* one more than the highest rank */
    char date[sizeof((struct ap_topology *)0)->date];
    int version;
    struct ap_topology *t;                      /* from the second pass on */
    struct ap_topo_link every_node, every_site; /* of the lines with * */
    struct ap_topo_link every_group;
    double every_sum;
    struct ap_topo_link *fold_node, *fold_pair, *fold_wan;
    struct ap_error *err;
};

static ap_status blame(struct reader *r, int column)
{
    return ap_csv_blame(&r->csv, column >= 0 ? r->column[column] : -1, r->err);
}

static const char *field(const struct reader *r, int column)
{
    return ap_csv_field(&r->csv, r->column[column]);
}

static ap_status no_memory(struct reader *r)
{
    return ap_error_set(r->err, AP_ERR_NOMEM, "out of memory for the topology");
}

/* The header names the column that this line needs. */
static ap_status has_column(struct reader *r, int column)
{
    if (r->column[column] >= 0)
        return AP_OK;
    ap_error_set(r->err, AP_ERR_INPUT, "this line needs the column %s", column_names[column]);
    ap_error_hint(r->err, "name it in the header line");
    return blame(r, -1);
}

static ap_status number(struct reader *r, int column, double min, double max, double scale, double *value_p)
{
    AP_TRY(has_column(r, column));
    return ap_csv_number(&r->csv, r->column[column], (double[]){min, max}, scale, value_p, r->err);
}

/* "# date 2026-11-25T09:00:00Z" and "# antipode topology 2". */
static void take_comment(void *ctx, const char *text)
{
    struct reader *r = ctx;
    int version;
    if (sscanf(text, " antipode topology %d", &version) == 1)
        r->version = version;
    else if (strncmp(text, " date ", 6) == 0 && strlen(text + 6) < sizeof r->date)
        snprintf(r->date, sizeof r->date, "%s", text + 6);
}

static ap_status take_name(struct reader *r, int column, size_t max)
{
    const char *name;
    AP_TRY(has_column(r, column));
    return ap_csv_name(&r->csv, r->column[column], max, &name, r->err);
}

static ap_status take_kind(struct reader *r, int *kind_p)
{
    const char *text = field(r, KIND);
    for (int k = 0; k < KINDS; k++)
        if (strcmp(text, kind_names[k]) == 0) {
            *kind_p = k;
            return AP_OK;
        }
    ap_error_set(r->err, AP_ERR_INPUT, "there is no kind of line '%.40s'", text);
    const char *near = ap_suggest_nearest(text, kind_names, KINDS);
    if (near != NULL)
        ap_error_hint(r->err, "did you mean '%s'?", near);
    else
        ap_error_hint(r->err, "rank, node, site, nodes, link, pair, egress, ingress, job, work, group, sum");
    return blame(r, KIND);
}

/* "7" or "0-511". */
static ap_status take_range(struct reader *r, int column, int *lo_p, int *hi_p)
{
    const char *text = field(r, column);
    char *end;
    long lo = strtol(text, &end, 10), hi = lo;
    int good = *text >= '0' && *text <= '9';
    if (good && *end == '-' && end[1] >= '0' && end[1] <= '9')
        hi = strtol(end + 1, &end, 10);
    if (!good || *end != '\0' || lo < 0 || hi < lo || hi >= AP_TOPO_MAX_RANKS) {
        ap_error_set(r->err, AP_ERR_INPUT, "%s must be a rank or a range of ranks such as 0-511 below %d, not '%.40s'",
                     column_names[column], AP_TOPO_MAX_RANKS, text);
        return blame(r, column);
    }
    *lo_p = (int)lo;
    *hi_p = (int)hi;
    return AP_OK;
}

/* Number of a node, made if need be; it stays at its site. */
static ap_status take_node(struct reader *r, const char *name, int site, int *node_p)
{
    int known = ap_name_find(&r->nodes, name);
    if (known >= 0 && r->node_site[known] != site) {
        ap_error_set(r->err, AP_ERR_INPUT, "node '%s' stood at site '%s' before", name,
                     r->sites.names[r->node_site[known]]);
        return blame(r, SITE);
    }
    int node = ap_name_add(&r->nodes, name);
    if (node < 0)
        return no_memory(r);
    if ((size_t)node >= r->node_room) {
        size_t room = 2 * (size_t)node + 16;
        int *grown = realloc(r->node_site, room * sizeof *grown);
        if (grown == NULL)
            return no_memory(r);
        r->node_site = grown;
        r->node_room = room;
    }
    r->node_site[node] = site;
    *node_p = node;
    return AP_OK;
}

static ap_status take_device(struct reader *r, struct ap_topo_rank *one)
{
    const char *device = field(r, DEVICE);
    if (*device == '\0')
        device = "cpu";
    if (strlen(device) >= sizeof one->device || strpbrk(device, ",\"") != NULL) {
        ap_error_set(r->err, AP_ERR_INPUT, "device must be a word of up to %zu bytes", sizeof one->device - 1);
        return blame(r, DEVICE);
    }
    snprintf(one->device, sizeof one->device, "%s", device);
    AP_TRY(number(r, SPEED, 1e-3, 1e9, 1e9, &one->speed));
    AP_TRY(number(r, MEMORY, 1e-3, 1e6, 1e9, &one->memory));
    /* Where it was not measured: DDR4 of one channel, HBM2. */
    one->memory_bandwidth = strncmp(device, "cpu", 3) == 0 ? 20e9 : 1000e9;
    if (*field(r, MEMORY_BW) != '\0')
        AP_TRY(number(r, MEMORY_BW, 1e-3, 1e6, 1e9, &one->memory_bandwidth));
    return AP_OK;
}

static ap_status take_ranks(struct reader *r)
{
    int lo, hi;
    double per_node = 0;
    struct ap_topo_rank one = {0};
    AP_TRY(take_range(r, A, &lo, &hi));
    AP_TRY(take_name(r, SITE, AP_TOPO_NAME_MAX));
    AP_TRY(take_name(r, NODE, *field(r, PER_NODE) != '\0' ? AP_TOPO_PREFIX_MAX : AP_TOPO_NAME_MAX));
    AP_TRY(take_device(r, &one));
    if (*field(r, PER_NODE) != '\0')
        AP_TRY(number(r, PER_NODE, 1, AP_TOPO_MAX_RANKS, 1, &per_node));
    if (per_node != floor(per_node)) {
        ap_error_set(r->err, AP_ERR_INPUT, "per_node must be a whole number");
        return blame(r, PER_NODE);
    }
    int site = ap_name_add(&r->sites, field(r, SITE));
    if (site < 0)
        return no_memory(r);
    if (r->sites.count > AP_TOPO_MAX_SITES) {
        ap_error_set(r->err, AP_ERR_INPUT, "more than %d sites", AP_TOPO_MAX_SITES);
        return blame(r, SITE);
    }
    for (int i = lo; i <= hi; i++) {
        char name[AP_TOPO_NAME];
        int index = per_node > 0 ? (i - lo) / (int)per_node : 0;
        snprintf(name, sizeof name, per_node > 0 ? "%.63s%d" : "%.63s", field(r, NODE), index);
        if (i == lo || (per_node > 0 && (i - lo) % (int)per_node == 0))
            AP_TRY(take_node(r, name, site, &one.node));
        if (r->ranks[i].device[0] != '\0') {
            ap_error_set(r->err, AP_ERR_INPUT, "rank %d was given before", i);
            return blame(r, A);
        }
        r->ranks[i] = one;
    }
    r->rank_end = hi + 1 > r->rank_end ? hi + 1 : r->rank_end;
    return AP_OK;
}

/* A node or site named in column; its number. */
static ap_status take_known(struct reader *r, int column, const struct ap_name_index *x, int *index_p)
{
    const char *name = field(r, column);
    *index_p = ap_name_find(x, name);
    if (*index_p >= 0)
        return AP_OK;
    const char *what = x == &r->nodes ? "node" : "site";
    ap_error_set(r->err, AP_ERR_INPUT, "no rank is on %s '%.60s'", what, name);
    const char *near = ap_suggest_nearest(name, (const char *const *)x->names, (size_t)x->count);
    if (near != NULL)
        ap_error_hint(r->err, "did you mean '%s'?", near);
    return blame(r, column);
}

static ap_status take_link(struct reader *r, struct ap_topo_link *to)
{
    struct ap_topo_link l;
    AP_TRY(number(r, LATENCY, 0, 1e9, 1e-6, &l.latency));
    AP_TRY(number(r, BANDWIDTH, 1e-6, 1e9, 1e9 / 8, &l.bandwidth));
    if (to->bandwidth > 0) {
        ap_error_set(r->err, AP_ERR_INPUT, "this link was given before");
        return blame(r, A);
    }
    *to = l;
    return AP_OK;
}

/* One more measurement of a link that stands for several: the slowest counts, or the fastest. */
static void fold(struct ap_topo_link *to, struct ap_topo_link l, int fastest)
{
    if (to->bandwidth <= 0) {
        *to = l;
        return;
    }
    to->latency = fastest ? fmin(to->latency, l.latency) : fmax(to->latency, l.latency);
    to->bandwidth = fastest ? fmax(to->bandwidth, l.bandwidth) : fmin(to->bandwidth, l.bandwidth);
}

/* Cell [a][b] of a table of n by n that is made when first needed. */
static ap_status cell(struct reader *r, struct ap_topo_link **table, int n, const int at[2],
                      struct ap_topo_link **cell_p)
{
    if (*table == NULL && table != &r->t->wan && table != &r->fold_wan && n > AP_TOPO_MAX_PAIRED_NODES) {
        ap_error_set(r->err, AP_ERR_INPUT, "pairs of nodes can be listed for up to %d nodes, not %d",
                     AP_TOPO_MAX_PAIRED_NODES, n);
        ap_error_hint(r->err, "give one line of kind site for each site");
        return blame(r, KIND);
    }
    if (*table == NULL)
        *table = calloc((size_t)n * (size_t)n, sizeof **table);
    if (*table == NULL)
        return no_memory(r);
    *cell_p = &(*table)[(size_t)at[0] * (size_t)n + (size_t)at[1]];
    return AP_OK;
}

static ap_status same_ends(struct reader *r)
{
    ap_error_set(r->err, AP_ERR_INPUT, "both ends are '%.60s'", field(r, A));
    return blame(r, B);
}

static ap_status take_pair(struct reader *r)
{
    int end[2], hi[2], node[2], site[2];
    struct ap_topo_link l = {0}, *to;
    for (int i = 0; i < 2; i++) {
        AP_TRY(take_range(r, A + i, &end[i], &hi[i]));
        if (hi[i] != end[i] || end[i] >= r->rank_end) {
            ap_error_set(r->err, AP_ERR_INPUT, "%s must be one of the ranks 0 to %d", column_names[A + i],
                         r->rank_end - 1);
            return blame(r, A + i);
        }
        node[i] = r->ranks[end[i]].node;
        site[i] = r->node_site[node[i]];
    }
    if (end[0] == end[1])
        return same_ends(r);
    AP_TRY(take_link(r, &l));
    if (node[0] == node[1])
        to = &r->fold_node[node[0]];
    else if (site[0] == site[1])
        AP_TRY(cell(r, &r->fold_pair, r->nodes.count, node, &to));
    else
        AP_TRY(cell(r, &r->fold_wan, r->sites.count, site, &to));
    fold(to, l, site[0] != site[1]);
    return AP_OK;
}

/* A line of kind nodes or link: two names of x, one link from a to b. */
static ap_status take_between(struct reader *r, const struct ap_name_index *x)
{
    int end[2];
    struct ap_topo_link *to;
    AP_TRY(take_known(r, A, x, &end[0]));
    AP_TRY(take_known(r, B, x, &end[1]));
    if (end[0] == end[1])
        return same_ends(r);
    if (x == &r->nodes && r->node_site[end[0]] != r->node_site[end[1]]) {
        ap_error_set(r->err, AP_ERR_INPUT, "the nodes '%s' and '%s' are at two sites", field(r, A), field(r, B));
        ap_error_hint(r->err, "a line of kind link joins sites");
        return blame(r, B);
    }
    AP_TRY(cell(r, x == &r->nodes ? &r->t->node_pairs : &r->t->wan, x->count, end, &to));
    return take_link(r, to);
}

static ap_status take_cap(struct reader *r, int kind)
{
    int site;
    AP_TRY(take_known(r, A, &r->sites, &site));
    double *to = kind == EGRESS ? &r->t->sites[site].egress : &r->t->sites[site].ingress;
    if (*to > 0) {
        ap_error_set(r->err, AP_ERR_INPUT, "this cap was given before");
        return blame(r, A);
    }
    return number(r, BANDWIDTH, 1e-6, 1e9, 1e9 / 8, to);
}

/* ---- what was measured of a job ---- */

static ap_status take_job(struct reader *r)
{
    const char *identity = field(r, A);
    struct ap_hash128 h;
    if (ap_hash128_parse(identity, &h) != 0) {
        ap_error_set(r->err, AP_ERR_INPUT, "a must be the job's identity, 32 hex digits, not '%.40s'", identity);
        return blame(r, A);
    }
    if (r->t->work_identity[0] != '\0') {
        ap_error_set(r->err, AP_ERR_INPUT, "the job was given before");
        return blame(r, A);
    }
    AP_TRY(take_name(r, B, AP_TOPO_NAME_MAX));
    ap_hash128_hex(h, r->t->work_identity);
    snprintf(r->t->work_job, sizeof r->t->work_job, "%s", field(r, B));
    return AP_OK;
}

/* Which of some words a field is; others are an error. */
static ap_status take_word(struct reader *r, int column, const char *const *words, int count, int *index_p)
{
    const char *text = field(r, column);
    AP_TRY(has_column(r, column));
    for (int i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0) {
            *index_p = i;
            return AP_OK;
        }
    ap_error_set(r->err, AP_ERR_INPUT, "%s cannot be '%.40s'", column_names[column], text);
    const char *near = ap_suggest_nearest(text, words, (size_t)count);
    ap_error_hint(r->err, "%s%s%s", near != NULL ? "did you mean '" : "see docs/formats-topology.md",
                  near != NULL ? near : "", near != NULL ? "'?" : "");
    return blame(r, column);
}

static ap_status take_times(struct reader *r, double *forward, double *backward)
{
    if (*forward > 0 || *backward > 0) {
        ap_error_set(r->err, AP_ERR_INPUT, "this work was given before");
        return blame(r, A);
    }
    AP_TRY(number(r, FORWARD, 0, 1e15, 1e-9, forward));
    return number(r, BACKWARD, 0, 1e15, 1e-9, backward);
}

static ap_status take_work(struct reader *r)
{
    static const char *const cuts[AP_WORK_SHAPES] = {"whole", "tensor2", "expert2"};
    const char *names[AP_WORK_KINDS + 1];
    int lo, hi, kind, shape;
    for (int k = 0; k < AP_WORK_KINDS; k++)
        names[k] = ap_work_name(k);
    names[AP_WORK_KINDS] = "gradient";
    AP_TRY(take_range(r, A, &lo, &hi));
    if (hi >= r->rank_end) {
        ap_error_set(r->err, AP_ERR_INPUT, "a must be some of the ranks 0 to %d", r->rank_end - 1);
        return blame(r, A);
    }
    AP_TRY(take_word(r, B, names, AP_WORK_KINDS + 1, &kind));
    AP_TRY(take_word(r, CUT, cuts, kind < AP_WORK_KINDS ? AP_WORK_SHAPES : 1, &shape));
    if (r->t->work == NULL)
        r->t->work = calloc((size_t)r->rank_end, sizeof *r->t->work);
    if (r->t->work == NULL)
        return no_memory(r);
    for (int i = lo; i <= hi; i++) {
        struct ap_work *w = &r->t->work[i];
        struct ap_work_time *t = kind < AP_WORK_KINDS ? &w->at[shape][kind] : NULL;
        AP_TRY(take_times(r, t != NULL ? &t->forward : &w->clear, t != NULL ? &t->backward : &w->add));
    }
    return AP_OK;
}

/* Behind all lines. */
static ap_status check_work(struct reader *r)
{
    const struct ap_topology *t = r->t;
    if (t->work == NULL)
        return AP_OK;
    ap_status status = AP_OK;
    if (t->work_identity[0] == '\0')
        status = ap_error_set(r->err, AP_ERR_INPUT, "no line of kind job says which job the lines of kind work are of");
    for (int i = 0; i < t->rank_count && status == AP_OK; i++)
        if (!ap_work_measured(&t->work[i], AP_WORK_WHOLE))
            status = ap_error_set(r->err, AP_ERR_INPUT,
                                  "rank %d has no line of kind work with the cut whole, and others have", i);
    if (status != AP_OK)
        ap_error_at(r->err, r->path, r->csv.line, 0);
    return status;
}

static ap_status take_sum(struct reader *r, double *to)
{
    if (*to > 0) {
        ap_error_set(r->err, AP_ERR_INPUT, "this sum was given before");
        return blame(r, A);
    }
    return number(r, BANDWIDTH, 1e-6, 1e9, 1e9 / 8, to);
}

/* A line of kind node, group or sum. */
static ap_status take_in_node(struct reader *r, int kind)
{
    struct ap_topo_node *node = NULL;
    int index;
    if (strcmp(field(r, A), "*") != 0) {
        AP_TRY(take_known(r, A, &r->nodes, &index));
        node = &r->t->nodes[index];
    }
    if (kind == SUM)
        return take_sum(r, node != NULL ? &node->sum : &r->every_sum);
    if (kind == GROUP)
        return take_link(r, node != NULL ? &node->group : &r->every_group);
    return take_link(r, node != NULL ? &node->inside : &r->every_node);
}

static ap_status take_line(struct reader *r, int kind)
{
    int index;
    switch (kind) {
    case INSIDE_NODE:
    case GROUP:
    case SUM:
        return take_in_node(r, kind);
    case JOB:
        return take_job(r);
    case WORK:
        return take_work(r);
    case INSIDE_SITE:
        if (strcmp(field(r, A), "*") == 0)
            return take_link(r, &r->every_site);
        AP_TRY(take_known(r, A, &r->sites, &index));
        return take_link(r, &r->t->sites[index].inside);
    case NODES:
        return take_between(r, &r->nodes);
    case LINK:
        return take_between(r, &r->sites);
    case PAIR:
        return take_pair(r);
    case EGRESS:
    case INGRESS:
        return take_cap(r, kind);
    default:
        return AP_OK;
    }
}

/* pass 0: lines of kind rank; pass 1: all others. */
static ap_status read_pass(struct reader *r, const char *text, size_t size, int pass)
{
    int more = 0, kind = 0;
    r->csv = (struct ap_csv){.comment = take_comment, .ctx = r};
    AP_TRY(ap_csv_open(&r->csv, r->path, text, size, r->err));
    if (r->version < 1 || r->version > 2) {
        ap_error_set(r->err, AP_ERR_FORMAT, "version %d of topology.csv, this program reads versions 1 and 2",
                     r->version);
        ap_error_at(r->err, r->path, 1, 1);
        return AP_ERR_FORMAT;
    }
    ap_status status = ap_csv_columns(&r->csv, column_names, COLUMNS, A + 1, 1, r->column, r->err);
    if (status != AP_OK && ap_csv_column(&r->csv, "rtt_ms") >= 0)
        ap_error_hint(r->err, "a plain matrix between sites is given by --wan");
    AP_TRY(status);
    for (;;) {
        AP_TRY(ap_csv_next(&r->csv, &more, r->err));
        if (!more)
            return AP_OK;
        AP_TRY(take_kind(r, &kind));
        if (pass == 0 && kind == RANK)
            AP_TRY(take_ranks(r));
        else if (pass == 1 && kind != RANK)
            AP_TRY(take_line(r, kind));
    }
}

/* Between the passes: every rank is there; make the machine. */
static ap_status make(struct reader *r)
{
    if (r->rank_end == 0) {
        ap_error_set(r->err, AP_ERR_INPUT, "no line of kind rank");
        ap_error_at(r->err, r->path, r->csv.line, 0);
        return AP_ERR_INPUT;
    }
    for (int i = 0; i < r->rank_end; i++)
        if (r->ranks[i].device[0] == '\0') {
            ap_error_set(r->err, AP_ERR_INPUT, "rank %d is missing: ranks count from 0 to the highest, here %d", i,
                         r->rank_end - 1);
            ap_error_at(r->err, r->path, r->csv.line, 0);
            return AP_ERR_INPUT;
        }
    r->t = ap_topology_create(r->rank_end, r->nodes.count, r->sites.count);
    r->fold_node = calloc((size_t)r->nodes.count, sizeof *r->fold_node);
    if (r->t == NULL || r->fold_node == NULL)
        return no_memory(r);
    memcpy(r->t->ranks, r->ranks, (size_t)r->rank_end * sizeof *r->ranks);
    memcpy(r->t->date, r->date, sizeof r->date);
    for (int i = 0; i < r->nodes.count; i++) {
        snprintf(r->t->nodes[i].name, AP_TOPO_NAME, "%s", r->nodes.names[i]);
        r->t->nodes[i].site = r->node_site[i];
    }
    for (int i = 0; i < r->sites.count; i++)
        snprintf(r->t->sites[i].name, AP_TOPO_NAME, "%s", r->sites.names[i]);
    return AP_OK;
}

/* Where no line spoke of a link itself: the folded pairs, then the line with *. */
static void fill(struct reader *r)
{
    struct ap_topology *t = r->t;
    for (int i = 0; i < t->node_count; i++) {
        if (t->nodes[i].inside.bandwidth <= 0)
            t->nodes[i].inside = r->fold_node[i].bandwidth > 0 ? r->fold_node[i] : r->every_node;
        if (t->nodes[i].group.bandwidth <= 0)
            t->nodes[i].group = r->every_group;
        if (t->nodes[i].sum <= 0)
            t->nodes[i].sum = r->every_sum;
    }
    for (int i = 0; i < t->site_count; i++)
        if (t->sites[i].inside.bandwidth <= 0)
            t->sites[i].inside = r->every_site;
    for (int i = 0; r->fold_wan != NULL && i < t->site_count * t->site_count; i++)
        if (t->wan[i].bandwidth <= 0)
            t->wan[i] = r->fold_wan[i];
    if (t->node_pairs == NULL) {
        t->node_pairs = r->fold_pair;
        r->fold_pair = NULL;
    }
    for (size_t i = 0; r->fold_pair != NULL && i < (size_t)t->node_count * (size_t)t->node_count; i++)
        if (t->node_pairs[i].bandwidth <= 0)
            t->node_pairs[i] = r->fold_pair[i];
}

ap_status ap_topology_parse(const char *path, const char *text, size_t size, struct ap_topology **t_p,
                            struct ap_error *err)
{
    struct reader r = {.path = path, .err = err, .version = 1};
    r.ranks = calloc(AP_TOPO_MAX_RANKS, sizeof *r.ranks);
    ap_status status = r.ranks == NULL ? no_memory(&r) : AP_OK;
    for (int pass = 0; pass < 2 && status == AP_OK; pass++) {
        status = read_pass(&r, text, size, pass);
        if (status == AP_OK)
            status = pass == 0 ? make(&r) : check_work(&r);
        ap_csv_close(&r.csv);
    }
    if (status == AP_OK) {
        fill(&r);
        status = ap_topology_finish(r.t, path, err);
    }
    if (status == AP_OK)
        *t_p = r.t;
    else
        ap_topology_destroy(r.t);
    ap_name_clear(&r.nodes);
    ap_name_clear(&r.sites);
    free(r.node_site);
    free(r.ranks);
    free(r.fold_node);
    free(r.fold_pair);
    free(r.fold_wan);
    return status;
}

ap_status ap_topology_load(const char *path, struct ap_topology **t_p, struct ap_error *err)
{
    char *text = NULL;
    size_t size = 0;
    AP_TRY(ap_io_read_file(path, MAX_BYTES, &text, &size, err));
    ap_status status = ap_topology_parse(path, text, size, t_p, err);
    free(text);
    return status;
}
