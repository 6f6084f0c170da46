/* SPDX-License-Identifier: Apache-2.0
 * The machine of a probe, and its topology.csv. */
#include "config.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "probe/probe_report.h"

#define NAME_BYTES      48  /* of hosts and sites, room for a number behind */
#define PAIRS_MAX_NODES 512 /* with more nodes a site's pairs are not listed */

/* A name that the format can hold. */
static void clean(char out[AP_TOPO_NAME], const char *name)
{
    int n = 0;
    for (; *name != '\0' && n < NAME_BYTES; name++)
        out[n++] = *name == ',' || *name == '"' || *name == '*' || !isgraph((unsigned char)*name) ? '-' : *name;
    out[n] = '\0';
    if (n == 0)
        snprintf(out, AP_TOPO_NAME, "host");
}

static int taken(const char *names, size_t stride, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names + (size_t)i * stride, name) == 0)
            return 1;
    return 0;
}

/* name, or with the first number behind it that makes it one of its own. */
static void unique(const char *names, size_t stride, int n, char name[AP_TOPO_NAME])
{
    char base[AP_TOPO_NAME];
    snprintf(base, sizeof base, "%s", name);
    for (int k = 2; taken(names, stride, n, name); k++)
        snprintf(name, AP_TOPO_NAME, "%.48s-%d", base, k);
}

/* What the names of a site's nodes begin with, without digits and dashes at its end; a single node's name as it is. */
static void site_name(const struct ap_probe_report *r, const struct ap_topology *t, int site, char out[AP_TOPO_NAME])
{
    int nodes = 0;
    size_t length = 0;
    for (int i = 0; i < t->node_count; i++) {
        if (t->nodes[i].site != site)
            continue;
        if (nodes++ == 0) {
            snprintf(out, AP_TOPO_NAME, "%s", t->nodes[i].name);
            length = strlen(out);
        }
        size_t same = 0;
        while (same < length && out[same] == t->nodes[i].name[same])
            same++;
        length = same;
    }
    while (nodes > 1 && length > 0 && !isalpha((unsigned char)out[length - 1]))
        length--;
    out[length] = '\0';
    if (r->site_names != NULL)
        clean(out, r->site_names[site]);
    else if (length == 0)
        snprintf(out, AP_TOPO_NAME, "site%d", site);
}

static void fill_names(const struct ap_probe_report *r, struct ap_topology *t)
{
    const struct ap_probe_places *p = r->places;
    for (int i = 0; i < t->node_count; i++)
        t->nodes[i].site = p->site[i];
    for (int k = 0; k < t->rank_count; k++) {
        struct ap_topo_rank *rank = &t->ranks[k];
        const struct ap_probe_fact *f = &r->facts[k];
        rank->node = p->node[k];
        snprintf(rank->device, sizeof rank->device, "%s", f->device);
        rank->speed = f->flops;
        rank->memory = f->memory;
        rank->memory_bandwidth = f->memory_bandwidth;
        struct ap_topo_node *node = &t->nodes[rank->node];
        if (t->work != NULL)
            t->work[k] = f->work;
        if (node->name[0] != '\0')
            continue;
        node->group = f->group;
        node->sum = f->sum;
        char name[AP_TOPO_NAME];
        clean(name, f->host);
        unique(t->nodes[0].name, sizeof t->nodes[0], t->node_count, name);
        snprintf(node->name, sizeof node->name, "%s", name);
    }
    for (int s = 0; s < t->site_count; s++) {
        char name[AP_TOPO_NAME];
        site_name(r, t, s, name);
        unique(t->sites[0].name, sizeof t->sites[0], s, name);
        snprintf(t->sites[s].name, sizeof t->sites[s].name, "%s", name);
    }
}

/* All ranks of a group wait for its slowest pair. */
static void worsen(struct ap_topo_link *l, const struct ap_probe_sample *s)
{
    if (s->rtt > 0)
        l->latency = fmax(l->latency, s->rtt / 2);
    if (s->rate > 0)
        l->bandwidth = l->bandwidth > 0 ? fmin(l->bandwidth, s->rate) : s->rate;
}

static void set(struct ap_topo_link *ab, struct ap_topo_link *ba, const struct ap_probe_sample *s)
{
    if (s->rtt > 0)
        ab->latency = ba->latency = s->rtt / 2;
    if (s->rate > 0)
        ab->bandwidth = s->rate;
}

static void fill_links(const struct ap_probe_report *r, struct ap_topology *t)
{
    for (int64_t i = 0; i < r->result->count; i++) {
        const struct ap_probe_sample *s = &r->result->samples[i];
        size_t a = (size_t)t->ranks[s->from].node, b = (size_t)t->ranks[s->to].node, nodes = (size_t)t->node_count;
        int sa = t->nodes[a].site, sb = t->nodes[b].site, sites = t->site_count;
        if (s->kind == AP_PROBE_NODE) {
            worsen(&t->nodes[a].inside, s);
        } else if (s->kind == AP_PROBE_SITE) {
            worsen(&t->sites[sa].inside, s);
            if (t->node_pairs != NULL)
                set(&t->node_pairs[a * nodes + b], &t->node_pairs[b * nodes + a], s);
        } else if (s->kind == AP_PROBE_FAR || s->kind == AP_PROBE_WAN) {
            set(&t->wan[sa * sites + sb], &t->wan[sb * sites + sa], s);
        }
    }
    for (int s = 0; s < t->site_count; s++) {
        t->sites[s].egress = r->result->caps[s].egress;
        t->sites[s].ingress = r->result->caps[s].ingress;
    }
}

ap_status ap_probe_report_topology(const struct ap_probe_report *r, struct ap_topology **t_p, struct ap_error *err)
{
    const struct ap_probe_places *p = r->places;
    struct ap_topology *t = ap_topology_create(p->ranks, p->nodes, p->sites);
    if (t == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for a machine of %d ranks", p->ranks);
    snprintf(t->date, sizeof t->date, "%s", r->date);
    if (p->nodes > p->sites + 1 && p->nodes <= PAIRS_MAX_NODES) {
        t->node_pairs = calloc((size_t)p->nodes * (size_t)p->nodes, sizeof *t->node_pairs);
        if (t->node_pairs == NULL) {
            ap_topology_destroy(t);
            return ap_error_set(err, AP_ERR_NOMEM, "out of memory for pairs of %d nodes", p->nodes);
        }
    }
    if (r->job != NULL) {
        t->work = calloc((size_t)p->ranks, sizeof *t->work);
        if (t->work == NULL) {
            ap_topology_destroy(t);
            return ap_error_set(err, AP_ERR_NOMEM, "out of memory for a machine of %d ranks", p->ranks);
        }
        clean(t->work_job, r->job);
        snprintf(t->work_identity, sizeof t->work_identity, "%s", r->job_identity);
    }
    fill_names(r, t);
    fill_links(r, t);
    ap_status status = ap_topology_finish(t, "the measurement", err);
    if (status == AP_OK)
        *t_p = t;
    else
        ap_topology_destroy(t);
    return status;
}

/* Ranks with the same facts in a row: one comment. */
static void add_facts(struct ap_strbuf *b, const struct ap_probe_report *r)
{
    int n = r->places->ranks;
    for (int lo = 0, hi; lo < n; lo = hi) {
        const struct ap_probe_fact *f = &r->facts[lo];
        for (hi = lo + 1; hi < n; hi++)
            if (strcmp(r->facts[hi].host, f->host) != 0 || strcmp(r->facts[hi].place, f->place) != 0 ||
                strcmp(r->facts[hi].device, f->device) != 0)
                break;
        ap_strbuf_addf(b, "# rank %d", lo);
        if (hi > lo + 1)
            ap_strbuf_addf(b, "-%d", hi - 1);
        ap_strbuf_addf(b, ": host %s, %s, device %s\n", f->host, f->place, f->device);
    }
}

char *ap_probe_report_csv(const struct ap_probe_report *r, const struct ap_topology *t)
{
    char *csv = ap_topology_csv(t);
    if (csv == NULL)
        return NULL;
    struct ap_strbuf b = {0};
    double worst = 0;
    for (int64_t i = 0; i < r->result->count; i++)
        worst = fmax(worst, r->result->samples[i].residual);
    ap_strbuf_add(&b, csv);
    free(csv);
    ap_strbuf_addf(&b, "# measured in %.1f s; largest distance of a time from its fit %.1f %%\n", r->result->seconds,
                   100 * worst);
    ap_strbuf_addf(&b, "# speed of ranks by %s\n", r->measured_by);
    add_facts(&b, r);
    return ap_strbuf_take(&b);
}
