/* SPDX-License-Identifier: Apache-2.0
 * Writing topology.csv, and making a machine out of a plain matrix between sites. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "plan/csv_reader.h"
#include "plan/name_index.h"
#include "plan/topology.h"

/* 12 digits: what is read back and written again stays the same. */
static void add_link(struct ap_strbuf *b, const char *kind, const char *from, const char *to, struct ap_topo_link l)
{
    ap_strbuf_addf(b, "%s,%s,%s,,,,,,,,%.12g,%.12g\n", kind, from, to, l.latency * 1e6, l.bandwidth * 8 / 1e9);
}

static int alike(const struct ap_topo_rank *a, const struct ap_topo_rank *b)
{
    return a->speed == b->speed && a->memory == b->memory && a->memory_bandwidth == b->memory_bandwidth &&
           strcmp(a->device, b->device) == 0;
}

/* End of the run of equal ranks from lo that share one node. */
static int run_end(const struct ap_topology *t, int lo)
{
    int hi = lo + 1;
    while (hi < t->rank_count && t->ranks[hi].node == t->ranks[lo].node && alike(&t->ranks[lo], &t->ranks[hi]))
        hi++;
    return hi;
}

/* If the node of rank lo is PREFIX0: end of the ranks that go on like it on PREFIX1, PREFIX2, ...; else lo. */
static int range_end(const struct ap_topology *t, int lo, char prefix[AP_TOPO_NAME])
{
    const struct ap_topo_node *first = &t->nodes[t->ranks[lo].node];
    size_t length = strlen(first->name);
    int per_node = run_end(t, lo) - lo, hi = lo;
    if (length < 2 || first->name[length - 1] != '0')
        return lo;
    snprintf(prefix, AP_TOPO_NAME, "%.*s", (int)(length - 1), first->name);
    for (int k = 0; hi < t->rank_count; k++) {
        char name[AP_TOPO_NAME + 12];
        const struct ap_topo_node *node = &t->nodes[t->ranks[hi].node];
        snprintf(name, sizeof name, "%s%d", prefix, k);
        if (node->site != first->site || strcmp(node->name, name) != 0 || !alike(&t->ranks[lo], &t->ranks[hi]) ||
            run_end(t, hi) - hi != per_node)
            break;
        hi += per_node;
    }
    return hi;
}

static void add_ranks(struct ap_strbuf *b, const struct ap_topology *t)
{
    for (int lo = 0, hi; lo < t->rank_count; lo = hi) {
        const struct ap_topo_rank *r = &t->ranks[lo];
        char prefix[AP_TOPO_NAME];
        int per_node = run_end(t, lo) - lo;
        hi = range_end(t, lo, prefix);
        int range = hi > lo + per_node;
        if (!range)
            hi = lo + per_node;
        if (hi == lo + 1)
            ap_strbuf_addf(b, "rank,%d,,", lo);
        else
            ap_strbuf_addf(b, "rank,%d-%d,,", lo, hi - 1);
        ap_strbuf_addf(b, "%s,%s,", t->sites[t->nodes[r->node].site].name, range ? prefix : t->nodes[r->node].name);
        if (range)
            ap_strbuf_addf(b, "%d", per_node);
        ap_strbuf_addf(b, ",%s,%.12g,%.12g,%.12g,,\n", r->device, r->speed / 1e9, r->memory / 1e9,
                       r->memory_bandwidth / 1e9);
    }
}

static void add_work_line(struct ap_strbuf *b, const char *ranks, const char *name, const char *cut,
                          struct ap_work_time t)
{
    if (t.forward > 0 || t.backward > 0)
        ap_strbuf_addf(b, "work,%s,%s,,,,,,,,,,%s,%.12g,%.12g\n", ranks, name, cut, t.forward * 1e9, t.backward * 1e9);
}

static int same_work(const struct ap_work *a, const struct ap_work *b)
{
    int same = a->clear == b->clear && a->add == b->add;
    for (int s = 0; s < AP_WORK_SHAPES; s++)
        for (int k = 0; k < AP_WORK_KINDS; k++)
            same = same && a->at[s][k].forward == b->at[s][k].forward && a->at[s][k].backward == b->at[s][k].backward;
    return same;
}

/* Ranks in a row that take the same become one line for each kind of work. */
static void add_work(struct ap_strbuf *b, const struct ap_topology *t)
{
    static const char *const cuts[AP_WORK_SHAPES] = {"whole", "tensor2", "expert2"};
    char ranks[32];
    ap_strbuf_addf(b, "job,%s,%s\n", t->work_identity, t->work_job);
    for (int lo = 0, hi; lo < t->rank_count; lo = hi) {
        const struct ap_work *w = &t->work[lo];
        for (hi = lo + 1; hi < t->rank_count && same_work(&t->work[hi], w); hi++)
            ;
        snprintf(ranks, sizeof ranks, hi > lo + 1 ? "%d-%d" : "%d", lo, hi - 1);
        for (int s = 0; s < AP_WORK_SHAPES; s++)
            for (int k = 0; k < AP_WORK_KINDS; k++)
                add_work_line(b, ranks, ap_work_name(k), cuts[s], w->at[s][k]);
        add_work_line(b, ranks, "gradient", cuts[0], (struct ap_work_time){w->clear, w->add});
    }
}

static int same_link(struct ap_topo_link a, struct ap_topo_link b)
{
    return a.latency == b.latency && a.bandwidth == b.bandwidth;
}

/* Inside of nodes: one line for all of them where they are alike. */
static void add_nodes(struct ap_strbuf *b, const struct ap_topology *t)
{
    int same = 1;
    for (int i = 1; i < t->node_count; i++)
        same &= same_link(t->nodes[i].inside, t->nodes[0].inside) && t->nodes[i].sum == t->nodes[0].sum &&
                same_link(t->nodes[i].group, t->nodes[0].group);
    for (int i = 0; i < (same ? 1 : t->node_count); i++) {
        const struct ap_topo_node *n = &t->nodes[i];
        const char *name = same ? "*" : n->name;
        if (n->inside.bandwidth > 0)
            add_link(b, "node", name, "", n->inside);
        if (n->group.bandwidth > 0)
            add_link(b, "group", name, "", n->group);
        if (n->sum > 0)
            ap_strbuf_addf(b, "sum,%s,,,,,,,,,,%.12g\n", name, n->sum * 8 / 1e9);
    }
}

static int has_measured_groups(const struct ap_topology *t)
{
    for (int i = 0; i < t->node_count; i++)
        if (t->nodes[i].group.bandwidth > 0 || t->nodes[i].sum > 0)
            return 1;
    return 0;
}

char *ap_topology_csv(const struct ap_topology *t)
{
    struct ap_strbuf b = {0};
    int version = t->work != NULL || has_measured_groups(t) ? 2 : 1;
    ap_strbuf_addf(&b, "# antipode topology %d\n", version);
    if (t->date[0] != '\0')
        ap_strbuf_addf(&b, "# date %s\n", t->date);
    ap_strbuf_add(&b, "kind,a,b,site,node,per_node,device,gflops,memory_gb,memory_gb_per_s,latency_us,gbit_per_s");
    ap_strbuf_add(&b, version == 2 ? ",cut,forward_ns,backward_ns\n" : "\n");
    add_ranks(&b, t);
    if (t->work != NULL)
        add_work(&b, t);
    add_nodes(&b, t);
    for (int i = 0; i < t->site_count; i++)
        if (t->sites[i].inside.bandwidth > 0)
            add_link(&b, "site", t->sites[i].name, "", t->sites[i].inside);
    for (int i = 0; t->node_pairs != NULL && i < t->node_count; i++)
        for (int k = 0; k < t->node_count; k++) {
            struct ap_topo_link l = t->node_pairs[(size_t)i * (size_t)t->node_count + (size_t)k];
            if (l.bandwidth > 0)
                add_link(&b, "nodes", t->nodes[i].name, t->nodes[k].name, l);
        }
    for (int i = 0; i < t->site_count; i++)
        for (int k = 0; k < t->site_count; k++)
            if (i != k)
                add_link(&b, "link", t->sites[i].name, t->sites[k].name, t->wan[i * t->site_count + k]);
    for (int i = 0; i < t->site_count; i++) {
        const struct ap_topo_site *s = &t->sites[i];
        if (s->egress > 0)
            ap_strbuf_addf(&b, "egress,%s,,,,,,,,,,%.12g\n", s->name, s->egress * 8 / 1e9);
        if (s->ingress > 0)
            ap_strbuf_addf(&b, "ingress,%s,,,,,,,,,,%.12g\n", s->name, s->ingress * 8 / 1e9);
    }
    return ap_strbuf_take(&b);
}

/* One line of a plain matrix, its sites by number. */
struct wan_row {
    int src, dst;
    long line;
    struct ap_topo_link link; /* bandwidth 0: unknown */
};

struct wan_reader {
    struct ap_csv csv;
    struct ap_name_index sites;
    struct wan_row *rows;
    size_t count, room;
};

static ap_status take_site(struct wan_reader *r, int column, int *site_p, struct ap_error *err)
{
    const char *name;
    AP_TRY(ap_csv_name(&r->csv, column, AP_TOPO_PREFIX_MAX, &name, err));
    *site_p = ap_name_add(&r->sites, name);
    if (*site_p < 0)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the matrix");
    if (r->sites.count > AP_TOPO_MAX_SITES) {
        ap_error_set(err, AP_ERR_INPUT, "more than %d sites", AP_TOPO_MAX_SITES);
        return ap_csv_blame(&r->csv, column, err);
    }
    return AP_OK;
}

static ap_status take_row(struct wan_reader *r, const int column[4], struct ap_error *err)
{
    struct wan_row row = {.line = r->csv.line};
    AP_TRY(take_site(r, column[0], &row.src, err));
    AP_TRY(take_site(r, column[1], &row.dst, err));
    if (row.src == row.dst) {
        ap_error_set(err, AP_ERR_INPUT, "a link from '%s' to itself", r->sites.names[row.src]);
        return ap_csv_blame(&r->csv, column[1], err);
    }
    int known = *ap_csv_field(&r->csv, column[2]) != '\0' && *ap_csv_field(&r->csv, column[3]) != '\0';
    if (known) {
        AP_TRY(ap_csv_number(&r->csv, column[2], (double[]){0, 1e6}, 0.5e-3, &row.link.latency, err));
        AP_TRY(ap_csv_number(&r->csv, column[3], (double[]){1e-6, 1e6}, 1e9 / 8, &row.link.bandwidth, err));
    }
    if (r->count == r->room) {
        size_t room = 2 * r->room + 64;
        struct wan_row *grown = realloc(r->rows, room * sizeof *grown);
        if (grown == NULL)
            return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the matrix");
        r->rows = grown;
        r->room = room;
    }
    r->rows[r->count++] = row;
    return AP_OK;
}

static ap_status read_matrix(struct wan_reader *r, const char *path, const char *text, size_t size,
                             struct ap_error *err)
{
    static const char *const names[4] = {"src", "dst", "rtt_ms", "gbit_per_s"};
    int column[4], more = 0;
    r->csv.head = "src,dst,rtt_ms,gbit_per_s";
    AP_TRY(ap_csv_open(&r->csv, path, text, size, err));
    ap_status status = ap_csv_columns(&r->csv, names, 4, 4, 1, column, err);
    if (status != AP_OK && ap_csv_column(&r->csv, "kind") >= 0)
        ap_error_hint(err, "a topology.csv is given by --topology");
    AP_TRY(status);
    for (;;) {
        AP_TRY(ap_csv_next(&r->csv, &more, err));
        if (!more)
            break;
        AP_TRY(take_row(r, column, err));
    }
    if (r->sites.count > 0)
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "the matrix has no line behind its header");
    return ap_csv_blame(&r->csv, -1, err);
}

/* Sites, nodes and ranks in equal numbers; nodes are called SITE-K. */
static void lay_out(struct ap_topology *t, const struct ap_name_index *sites, const struct ap_topo_shape *shape)
{
    for (int s = 0; s < t->site_count; s++) {
        snprintf(t->sites[s].name, AP_TOPO_NAME, "%s", sites->names[s]);
        t->sites[s].inside = shape->site;
    }
    for (int n = 0; n < t->node_count; n++) {
        int site = n / shape->nodes_per_site;
        snprintf(t->nodes[n].name, AP_TOPO_NAME, "%.50s-%d", sites->names[site], n % shape->nodes_per_site);
        t->nodes[n].site = site;
        t->nodes[n].inside = shape->node;
    }
    for (int r = 0; r < t->rank_count; r++) {
        t->ranks[r] = shape->rank;
        t->ranks[r].node = r / shape->ranks_per_node;
    }
}

/* The links of all rows; each stands once. */
static ap_status join_sites(const struct wan_reader *r, struct ap_topology *t, const char *path, struct ap_error *err)
{
    for (size_t i = 0; i < r->count; i++) {
        const struct wan_row *row = &r->rows[i];
        struct ap_topo_link *to = &t->wan[row->src * t->site_count + row->dst];
        if (to->bandwidth > 0) {
            ap_error_set(err, AP_ERR_INPUT, "the link from '%s' to '%s' is here a second time",
                         r->sites.names[row->src], r->sites.names[row->dst]);
            ap_error_at(err, path, row->line, 1);
            return AP_ERR_INPUT;
        }
        *to = row->link;
    }
    return AP_OK;
}

ap_status ap_topology_from_wan(const char *path, const char *text, size_t size, const struct ap_topo_shape *shape,
                               struct ap_topology **t_p, struct ap_error *err)
{
    struct wan_reader r = {0};
    struct ap_topology *t = NULL;
    ap_status status = read_matrix(&r, path, text, size, err);
    if (status == AP_OK) {
        int64_t nodes = (int64_t)r.sites.count * shape->nodes_per_site, ranks = nodes * shape->ranks_per_node;
        if (ranks > AP_TOPO_MAX_RANKS)
            status = ap_error_set(err, AP_ERR_INPUT, "%d sites of %d nodes of %d ranks are more than %d ranks",
                                  r.sites.count, shape->nodes_per_site, shape->ranks_per_node, AP_TOPO_MAX_RANKS);
        else if ((t = ap_topology_create((int)ranks, (int)nodes, r.sites.count)) == NULL)
            status = ap_error_set(err, AP_ERR_NOMEM, "out of memory for %lld ranks", (long long)ranks);
    }
    if (status == AP_OK) {
        lay_out(t, &r.sites, shape);
        status = join_sites(&r, t, path, err);
    }
    if (status == AP_OK)
        status = ap_topology_finish(t, path, err);
    if (status == AP_OK)
        *t_p = t;
    else
        ap_topology_destroy(t);
    ap_csv_close(&r.csv);
    ap_name_clear(&r.sites);
    free(r.rows);
    return status;
}
