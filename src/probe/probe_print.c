/* SPDX-License-Identifier: Apache-2.0
 * A probe for people and programs: summary, JSON, heat map. */
#include "config.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/cluster.h"
#include "probe/heat_map.h"
#include "probe/probe_report.h"

#define GBIT       (8 / 1e9)
#define MATRIX_MAX 16  /* sites whose links are printed as a table */
#define ASYMMETRIC 1.2 /* of the two directions' bandwidths */
#define ONE_ENOUGH 0.9 /* of a pair's rate: what a single connection reaches is worth a word if it is less */
#define MAP_RANKS  24  /* what a heat map shows: ranks up to so many, */
#define MAP_NODES  96  /* else nodes up to so many, else sites */

/* "8 ranks on 2 nodes at 1 site" */
static void counted(char *buf, size_t size, const struct ap_topology *t)
{
    snprintf(buf, size, "%d %s on %d %s at %d %s", t->rank_count, t->rank_count == 1 ? "rank" : "ranks", t->node_count,
             t->node_count == 1 ? "node" : "nodes", t->site_count, t->site_count == 1 ? "site" : "sites");
}

/* By enum ap_probe_step, for people and for JSON. */
static const char *const steps[AP_PROBE_STEPS][2] = {{"round trips", "trips"}, {"inside of sites", "inside"},
                                                     {"between sites", "wan"}, {"again", "again"},
                                                     {"under load", "load"},   {"telling all", "share"}};

static void print_spent(const struct ap_probe_report *r, struct ap_strbuf *b)
{
    ap_strbuf_add(b, "seconds:");
    for (int i = 0; i < AP_PROBE_STEPS; i++)
        ap_strbuf_addf(b, "%s %s %.1f", i > 0 ? "," : "", steps[i][0], r->result->spent[i]);
    ap_strbuf_add(b, "\n");
}

struct level {
    const char *name, *key;
    int rtt_kind, rate_kind;
};
static const struct level levels[] = {{"inside nodes", "node", AP_PROBE_NODE, AP_PROBE_NODE},
                                      {"between nodes of a site", "site", AP_PROBE_SITE, AP_PROBE_SITE},
                                      {"between sites", "wan", AP_PROBE_FAR, AP_PROBE_WAN}};
#define LEVELS 3

struct range {
    int pairs;
    double rtt[2], rate[2], residual; /* least and most */
};

static struct range range_of(const struct ap_probe_report *r, const struct level *l)
{
    struct range g = {0, {INFINITY, 0}, {INFINITY, 0}, 0};
    for (int64_t i = 0; i < r->result->count; i++) {
        const struct ap_probe_sample *s = &r->result->samples[i];
        if (s->kind == l->rtt_kind && s->rtt > 0) {
            g.pairs++;
            g.rtt[0] = fmin(g.rtt[0], s->rtt);
            g.rtt[1] = fmax(g.rtt[1], s->rtt);
        }
        if (s->kind == l->rate_kind && s->rate > 0) {
            g.rate[0] = fmin(g.rate[0], s->rate);
            g.rate[1] = fmax(g.rate[1], s->rate);
            g.residual = fmax(g.residual, s->residual);
        }
    }
    return g;
}

static void print_time(struct ap_strbuf *b, double s)
{
    char text[32];
    if (s < 1e-3)
        snprintf(text, sizeof text, "%.1f us", 1e6 * s);
    else
        snprintf(text, sizeof text, "%.2f ms", 1e3 * s);
    ap_strbuf_addf(b, "%11s", text);
}

static int site_at(const struct ap_probe_report *r, int rank)
{
    return r->places->site[r->places->node[rank]];
}

/* What one connection reaches, [sites][sites] by direction, 0: it was not measured alone. NULL: out of memory. */
static double *rates_of_one(const struct ap_probe_report *r)
{
    size_t n = (size_t)r->places->sites;
    double *one = calloc(n * n + 1, sizeof *one);
    for (int64_t i = 0; one != NULL && i < r->result->count; i++) {
        const struct ap_probe_sample *s = &r->result->samples[i];
        if (s->kind == AP_PROBE_GUESS)
            one[(size_t)site_at(r, s->from) * n + (size_t)site_at(r, s->to)] = s->rate;
    }
    return one;
}

static void print_streams(const struct ap_probe_report *r, struct ap_strbuf *b)
{
    int least = INT_MAX, most = 0, n = r->places->sites;
    double part = 1, *one = rates_of_one(r);
    b->failed |= one == NULL;
    for (int64_t i = 0; one != NULL && i < r->result->count; i++) {
        const struct ap_probe_sample *s = &r->result->samples[i];
        if (s->kind != AP_PROBE_WAN)
            continue;
        double alone = one[site_at(r, s->from) * n + site_at(r, s->to)];
        least = s->streams < least ? s->streams : least;
        most = s->streams > most ? s->streams : most;
        part = alone > 0 && s->rate > 0 ? fmin(part, alone / s->rate) : part;
    }
    free(one);
    if (most < 2)
        return;
    ap_strbuf_addf(b, "  connections between two sites: %d", least);
    if (most > least)
        ap_strbuf_addf(b, " to %d", most);
    if (part < ONE_ENOUGH)
        ap_strbuf_addf(b, "; one alone reaches as little as %.0f %% of what they reach together", 100 * part);
    ap_strbuf_add(b, "\n");
}

static void print_levels(const struct ap_probe_report *r, struct ap_strbuf *b)
{
    ap_strbuf_addf(b, "%-26s %6s %11s%11s %10s%10s %9s\n", "", "pairs", "round trip", "to", "Gbit/s", "to", "off fit");
    for (int i = 0; i < LEVELS; i++) {
        struct range g = range_of(r, &levels[i]);
        if (g.pairs == 0)
            continue;
        ap_strbuf_addf(b, "  %-24s %6d ", levels[i].name, g.pairs);
        print_time(b, g.rtt[0]);
        print_time(b, g.rtt[1]);
        ap_strbuf_addf(b, " %10.4g%10.4g %7.1f %%\n", g.rate[0] * GBIT, g.rate[1] * GBIT, 100 * g.residual);
    }
    print_streams(r, b);
}

static void print_cap(struct ap_strbuf *b, double cap)
{
    if (cap > 0)
        ap_strbuf_addf(b, " %11.4g", cap * GBIT);
    else
        ap_strbuf_addf(b, " %11s", "-");
}

static void print_sites(const struct ap_topology *t, struct ap_strbuf *b)
{
    ap_strbuf_addf(b, "%-24s %6s %6s %10s %11s %11s\n", "sites", "nodes", "ranks", "GFLOP/s", "egress cap",
                   "ingress cap");
    for (int s = 0; s < t->site_count; s++) {
        double speed = 0;
        for (int k = 0; k < t->rank_count; k++)
            speed += ap_topology_site(t, k) == s ? t->ranks[k].speed : 0;
        ap_strbuf_addf(b, "  %2d %-19.40s %6d %6d %10.1f", s + 1, t->sites[s].name, t->sites[s].nodes,
                       t->sites[s].ranks, speed / 1e9);
        print_cap(b, t->sites[s].egress);
        print_cap(b, t->sites[s].ingress);
        ap_strbuf_add(b, "\n");
    }
}

/* Round trip in ms above, Gbit/s below, from row to column. */
static void print_matrix(const struct ap_topology *t, struct ap_strbuf *b)
{
    int n = t->site_count;
    ap_strbuf_addf(b, "%-24s", "links: ms, Gbit/s to");
    for (int k = 0; k < n; k++)
        ap_strbuf_addf(b, " %9d", k + 1);
    for (int i = 0; i < n; i++)
        for (int row = 0; row < 2; row++) {
            if (row == 0)
                ap_strbuf_addf(b, "\n  from %2d %-14.40s", i + 1, t->sites[i].name);
            else
                ap_strbuf_addf(b, "\n%-24s", "");
            for (int k = 0; k < n; k++) {
                struct ap_topo_link l = t->wan[i * n + k];
                if (i == k)
                    ap_strbuf_addf(b, " %9s", "");
                else
                    ap_strbuf_addf(b, " %9.4g", row == 0 ? 2e3 * l.latency : l.bandwidth * GBIT);
            }
        }
    ap_strbuf_add(b, "\n");
}

static void print_asymmetric(const struct ap_topology *t, struct ap_strbuf *b)
{
    int n = t->site_count;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            double there = t->wan[i * n + k].bandwidth, back = t->wan[k * n + i].bandwidth;
            if (i != k && there > ASYMMETRIC * back)
                ap_strbuf_addf(b, "asymmetric: %s to %s %.4g Gbit/s, back %.4g\n", t->sites[i].name, t->sites[k].name,
                               there * GBIT, back * GBIT);
        }
}

/* Groups of sites at each gap of their round trips. */
static ap_status print_regions(const struct ap_topology *t, struct ap_strbuf *b, struct ap_json *j)
{
    size_t n = (size_t)t->site_count;
    struct ap_clusters c;
    double *rtt = malloc((n * n + 1) * sizeof *rtt);
    if (rtt == NULL)
        return AP_ERR_NOMEM;
    for (size_t i = 0; i < n * n; i++)
        rtt[i] = 2 * t->wan[i].latency;
    ap_status status = ap_cluster_build((int)n, rtt, &c);
    free(rtt);
    AP_TRY(status);
    for (int k = 0; k < c.levels; k++) {
        const struct ap_cluster_level *l = &c.level[k];
        if (b != NULL)
            ap_strbuf_addf(b, "regions: %d, within %.4g ms, %.4g ms apart:", l->groups, 1e3 * l->inside,
                           1e3 * l->outside);
        if (j != NULL)
            ap_json_begin_array(j, NULL);
        for (int g = 0; g < l->groups; g++) {
            if (b != NULL)
                ap_strbuf_add(b, g > 0 ? " |" : "");
            if (j != NULL)
                ap_json_begin_array(j, NULL);
            for (size_t i = 0; i < n; i++) {
                if (l->group[i] != g)
                    continue;
                if (b != NULL)
                    ap_strbuf_addf(b, " %s", t->sites[i].name);
                if (j != NULL)
                    ap_json_str(j, NULL, t->sites[i].name);
            }
            if (j != NULL)
                ap_json_end_array(j);
        }
        if (b != NULL)
            ap_strbuf_add(b, "\n");
        if (j != NULL)
            ap_json_end_array(j);
    }
    ap_cluster_clear(&c);
    return AP_OK;
}

/* Of the slowest rank. */
static void print_work(const struct ap_topology *t, struct ap_strbuf *b)
{
    int slowest = 0;
    for (int k = 1; k < t->rank_count && t->work != NULL; k++)
        slowest = t->ranks[k].speed < t->ranks[slowest].speed ? k : slowest;
    if (t->work != NULL)
        ap_strbuf_add(b, "a token there and back:");
    const char *between = "";
    for (int k = 0; t->work != NULL && k < AP_WORK_KINDS; k++) {
        struct ap_work_time whole = t->work[slowest].at[AP_WORK_WHOLE][k];
        if (whole.forward + whole.backward <= 0)
            continue;
        ap_strbuf_addf(b, "%s %s %.3g us", between, ap_work_name(k), 1e6 * (whole.forward + whole.backward));
        between = ",";
    }
    if (t->work != NULL)
        ap_strbuf_addf(b, " (rank %d, the slowest)\n", slowest);
    if (t->nodes[0].sum > 0)
        ap_strbuf_addf(b, "on node %s: sums of gradients %.3g GB/s, gathers %.3g GB/s\n", t->nodes[0].name,
                       t->nodes[0].sum / 1e9, t->nodes[0].group.bandwidth / 1e9);
}

char *ap_probe_report_text(const struct ap_probe_report *r, const struct ap_topology *t)
{
    struct ap_strbuf b = {0};
    double least = INFINITY, most = 0;
    for (int k = 0; k < t->rank_count; k++) {
        least = fmin(least, t->ranks[k].speed);
        most = fmax(most, t->ranks[k].speed);
    }
    char what[96];
    counted(what, sizeof what, t);
    ap_strbuf_addf(&b, "probe: %s, measured in %.1f s, %s\n", what, r->result->seconds, r->date);
    if (t->site_count > 1)
        print_spent(r, &b);
    ap_strbuf_addf(&b, "speed of a rank: %.1f to %.1f GFLOP/s, by %s\n", least / 1e9, most / 1e9, r->measured_by);
    print_work(t, &b);
    if (t->rank_count > 1)
        print_levels(r, &b);
    print_sites(t, &b);
    if (t->site_count > 1) {
        if (t->site_count <= MATRIX_MAX)
            print_matrix(t, &b);
        print_asymmetric(t, &b);
        if (print_regions(t, &b, NULL) != AP_OK)
            b.failed = 1;
    }
    return ap_strbuf_take(&b);
}

static void json_level(struct ap_json *j, const struct level *l, const struct range *g)
{
    ap_json_begin_object(j, l->key);
    ap_json_int(j, "pairs", g->pairs);
    ap_json_real(j, "rtt_least_s", g->rtt[0]);
    ap_json_real(j, "rtt_most_s", g->rtt[1]);
    ap_json_real(j, "gbit_per_s_least", g->rate[0] * GBIT);
    ap_json_real(j, "gbit_per_s_most", g->rate[1] * GBIT);
    ap_json_real(j, "residual_most", g->residual);
    ap_json_end_object(j);
}

static void json_links(struct ap_json *j, const struct ap_probe_report *r, const struct ap_topology *t)
{
    int n = t->site_count;
    double *one = rates_of_one(r);
    ap_json_begin_array(j, "links");
    for (int64_t i = 0; i < r->result->count; i++) {
        const struct ap_probe_sample *s = &r->result->samples[i];
        int a = ap_topology_site(t, s->from), b = ap_topology_site(t, s->to);
        if (s->kind != AP_PROBE_WAN)
            continue;
        ap_json_begin_object(j, NULL);
        ap_json_str(j, "from", t->sites[a].name);
        ap_json_str(j, "to", t->sites[b].name);
        ap_json_real(j, "rtt_ms", 2e3 * t->wan[a * n + b].latency);
        ap_json_real(j, "gbit_per_s", s->rate * GBIT);
        ap_json_real(j, "residual", s->residual);
        ap_json_int(j, "connections", s->streams);
        double alone = one != NULL ? one[a * n + b] : 0;
        ap_json_real(j, "gbit_per_s_one", alone > 0 ? alone * GBIT : NAN);
        ap_json_bool(j, "doubtful", s->doubtful);
        ap_json_end_object(j);
    }
    free(one);
    ap_json_end_array(j);
}

static void json_places(struct ap_json *j, const struct ap_probe_report *r, const struct ap_topology *t)
{
    ap_json_begin_array(j, "sites");
    for (int s = 0; s < t->site_count; s++) {
        ap_json_begin_object(j, NULL);
        ap_json_str(j, "name", t->sites[s].name);
        ap_json_int(j, "nodes", t->sites[s].nodes);
        ap_json_int(j, "ranks", t->sites[s].ranks);
        ap_json_real(j, "egress_gbit_per_s", t->sites[s].egress > 0 ? t->sites[s].egress * GBIT : NAN);
        ap_json_real(j, "ingress_gbit_per_s", t->sites[s].ingress > 0 ? t->sites[s].ingress * GBIT : NAN);
        ap_json_end_object(j);
    }
    ap_json_end_array(j);
    ap_json_begin_array(j, "ranks");
    for (int k = 0; k < t->rank_count; k++) {
        const struct ap_probe_fact *f = &r->facts[k];
        ap_json_begin_object(j, NULL);
        ap_json_str(j, "node", t->nodes[t->ranks[k].node].name);
        ap_json_str(j, "site", t->sites[ap_topology_site(t, k)].name);
        ap_json_str(j, "host", f->host);
        ap_json_str(j, "place", f->place);
        ap_json_str(j, "device", f->device);
        ap_json_real(j, "gflops", f->flops / 1e9);
        ap_json_real(j, "memory_gb", f->memory / 1e9);
        ap_json_real(j, "memory_gb_per_s", f->memory_bandwidth / 1e9);
        ap_json_end_object(j);
    }
    ap_json_end_array(j);
}

char *ap_probe_report_json(const struct ap_probe_report *r, const struct ap_topology *t)
{
    struct ap_json j = {.indent = 2};
    ap_json_begin_object(&j, NULL);
    ap_json_str(&j, "format", "antipode-probe");
    ap_json_int(&j, "version", 1);
    ap_json_str(&j, "date", r->date);
    ap_json_real(&j, "seconds", r->result->seconds);
    ap_json_begin_object(&j, "spent_s");
    for (int i = 0; i < AP_PROBE_STEPS; i++)
        ap_json_real(&j, steps[i][1], r->result->spent[i]);
    ap_json_end_object(&j);
    ap_json_str(&j, "speed_by", r->measured_by);
    ap_json_begin_object(&j, "levels");
    for (int i = 0; i < LEVELS; i++) {
        struct range g = range_of(r, &levels[i]);
        if (g.pairs > 0)
            json_level(&j, &levels[i], &g);
    }
    ap_json_end_object(&j);
    json_places(&j, r, t);
    json_links(&j, r, t);
    ap_json_begin_array(&j, "regions");
    if (print_regions(t, NULL, &j) != AP_OK)
        j.text.failed = 1;
    ap_json_end_array(&j);
    ap_json_end_object(&j);
    return ap_strbuf_take(&j.text);
}

/* ---- heat map */

struct picture {
    int n, what; /* 0: ranks, 1: nodes, 2: sites */
    double *ms, *gbit;
    char (*labels)[AP_TOPO_NAME + 12];
    const char **label_p;
};

static int item_of(const struct picture *p, const struct ap_topology *t, int rank)
{
    return p->what == 0 ? rank : p->what == 1 ? t->ranks[rank].node : ap_topology_site(t, rank);
}

/* Ranks of one node stand for each other towards other nodes, and nodes of a site towards other sites. */
static void fill_picture(struct picture *p, const struct ap_probe_report *r, const struct ap_topology *t)
{
    size_t n = (size_t)p->n;
    for (int a = 0; a < t->rank_count; a++)
        for (int b = 0; b < t->rank_count; b++) {
            size_t at = (size_t)item_of(p, t, a) * n + (size_t)item_of(p, t, b);
            struct ap_topo_link l = ap_topology_link(t, t->ranks[a].node, t->ranks[b].node);
            if (item_of(p, t, a) == item_of(p, t, b) || l.bandwidth <= 0)
                continue;
            p->ms[at] = 2e3 * l.latency;
            p->gbit[at] = l.bandwidth * GBIT;
        }
    for (int64_t i = 0; i < r->result->count && p->what == 0; i++) {
        const struct ap_probe_sample *s = &r->result->samples[i];
        size_t there = (size_t)s->from * n + (size_t)s->to, back = (size_t)s->to * n + (size_t)s->from;
        if (s->kind == AP_PROBE_NODE && s->rtt > 0)
            p->ms[there] = p->ms[back] = 1e3 * s->rtt;
        if (s->kind == AP_PROBE_NODE && s->rate > 0)
            p->gbit[there] = s->rate * GBIT;
    }
}

/* Sites in the order of their numbers, their nodes and ranks beneath: items of a site stand together. */
static void sort_picture(struct picture *p, const struct ap_topology *t, int *order)
{
    int k = 0;
    for (int s = 0; s < t->site_count; s++) {
        if (p->what == 2) {
            order[k++] = s;
            continue;
        }
        for (int node = 0; node < t->node_count; node++) {
            if (t->nodes[node].site != s)
                continue;
            if (p->what == 1) {
                order[k++] = node;
                continue;
            }
            for (int rank = 0; rank < t->rank_count; rank++)
                if (t->ranks[rank].node == node)
                    order[k++] = rank;
        }
    }
}

static void reorder(int n, double *table, const int *order, double *scratch)
{
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            scratch[a * n + b] = table[order[a] * n + order[b]];
    memcpy(table, scratch, (size_t)n * (size_t)n * sizeof *table);
}

static void label(struct picture *p, const struct ap_topology *t, const int *order)
{
    for (int i = 0; i < p->n; i++) {
        int item = order[i];
        if (p->what == 0)
            snprintf(p->labels[i], sizeof p->labels[i], "%d %.20s", item, t->nodes[t->ranks[item].node].name);
        else
            snprintf(p->labels[i], sizeof p->labels[i], "%.24s",
                     p->what == 1 ? t->nodes[item].name : t->sites[item].name);
        p->label_p[i] = p->labels[i];
    }
}

static char *draw(struct picture *p, const struct ap_probe_report *r, const struct ap_topology *t, int *order)
{
    static const char *const what[] = {"ranks", "nodes", "sites"};
    char title[128], note[256];
    size_t n = (size_t)p->n;
    double *scratch = malloc(n * n * sizeof *scratch);
    if (scratch == NULL)
        return NULL;
    fill_picture(p, r, t);
    sort_picture(p, t, order);
    label(p, t, order);
    reorder(p->n, p->ms, order, scratch);
    reorder(p->n, p->gbit, order, scratch);
    free(scratch);
    double longest = 0;
    for (size_t i = 0; i < n * n; i++)
        longest = fmax(longest, p->ms[i]);
    int micro = longest < 1;
    for (size_t i = 0; i < n * n && micro; i++)
        p->ms[i] *= 1e3;
    counted(title, sizeof title, t);
    snprintf(note, sizeof note, "between %s, from row to column, measured %s", what[p->what], r->date);
    struct ap_heat_map maps[2] = {
        {micro ? "round trip, microseconds" : "round trip, ms", micro ? "us" : "ms", p->ms, 1},
        {"bandwidth, Gbit/s", "Gbit/s", p->gbit, 0}};
    return ap_heat_map_svg(title, note, p->n, p->label_p, maps, 2);
}

char *ap_probe_report_svg(const struct ap_probe_report *r, const struct ap_topology *t)
{
    struct picture p = {.what = 2, .n = t->site_count};
    if (t->rank_count <= MAP_RANKS || (t->site_count < 2 && t->node_count < 2 && t->rank_count <= MAP_NODES)) {
        p = (struct picture){.what = 0, .n = t->rank_count};
    } else if (t->node_count <= MAP_NODES || t->site_count < 2) {
        p = (struct picture){.what = 1, .n = t->node_count};
    }
    size_t n = (size_t)p.n;
    p.ms = calloc(n * n, sizeof *p.ms);
    p.gbit = calloc(n * n, sizeof *p.gbit);
    p.labels = calloc(n, sizeof *p.labels);
    p.label_p = calloc(n, sizeof(char *));
    int *order = calloc(n, sizeof *order);
    char *svg = NULL;
    if (p.ms != NULL && p.gbit != NULL && p.labels != NULL && p.label_p != NULL && order != NULL)
        svg = draw(&p, r, t, order);
    free(p.ms);
    free(p.gbit);
    free(p.labels);
    free(p.label_p);
    free(order);
    return svg;
}
