/* SPDX-License-Identifier: Apache-2.0
 * The machine in memory: links looked up by level, what is missing filled in, and the order of nodes in rings. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/route_order.h"
#include "plan/topology.h"

struct ap_topology *ap_topology_create(int ranks, int nodes, int sites)
{
    struct ap_topology *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->rank_count = ranks;
    t->node_count = nodes;
    t->site_count = sites;
    t->ranks = calloc((size_t)ranks + 1, sizeof *t->ranks);
    t->nodes = calloc((size_t)nodes + 1, sizeof *t->nodes);
    t->sites = calloc((size_t)sites + 1, sizeof *t->sites);
    t->wan = calloc((size_t)sites * (size_t)sites + 1, sizeof *t->wan);
    if (t->ranks == NULL || t->nodes == NULL || t->sites == NULL || t->wan == NULL) {
        ap_topology_destroy(t);
        return NULL;
    }
    return t;
}

void ap_topology_destroy(struct ap_topology *t)
{
    if (t == NULL)
        return;
    free(t->ranks);
    free(t->nodes);
    free(t->sites);
    free(t->wan);
    free(t->node_pairs);
    free(t->work);
    free(t);
}

int ap_topology_site(const struct ap_topology *t, int rank)
{
    return t->nodes[t->ranks[rank].node].site;
}

struct ap_topo_link ap_topology_link(const struct ap_topology *t, int a, int b)
{
    if (a == b)
        return t->nodes[a].inside;
    int sa = t->nodes[a].site, sb = t->nodes[b].site;
    if (sa != sb)
        return t->wan[sa * t->site_count + sb];
    if (t->node_pairs != NULL) {
        struct ap_topo_link l = t->node_pairs[(size_t)a * (size_t)t->node_count + (size_t)b];
        if (l.bandwidth > 0)
            return l;
    }
    return t->sites[sa].inside;
}

/* A direction that was not given is like the other one. */
static void mirror(int n, struct ap_topo_link *table)
{
    for (int a = 0; table != NULL && a < n; a++)
        for (int b = 0; b < a; b++) {
            struct ap_topo_link *ab = &table[(size_t)a * (size_t)n + (size_t)b],
                                *ba = &table[(size_t)b * (size_t)n + (size_t)a];
            if (ab->bandwidth <= 0)
                *ab = *ba;
            else if (ba->bandwidth <= 0)
                *ba = *ab;
        }
}

/* Unknown links between sites become the quickest way over others: latencies add, the narrowest bandwidth counts. */
static ap_status fill_wan(struct ap_topology *t, const char *path, struct ap_error *err)
{
    int n = t->site_count;
    mirror(n, t->wan);
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            t->guessed_links += a != b && t->wan[a * n + b].bandwidth <= 0;
    if (t->guessed_links == 0)
        return AP_OK;
    struct ap_topo_link *way = malloc((size_t)n * (size_t)n * sizeof *way);
    if (way == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the ways between %d sites", n);
    memcpy(way, t->wan, (size_t)n * (size_t)n * sizeof *way);
    for (int k = 0; k < n; k++)
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++) {
                struct ap_topo_link x = way[a * n + k], y = way[k * n + b], *to = &way[a * n + b];
                if (a == b || a == k || b == k || x.bandwidth <= 0 || y.bandwidth <= 0)
                    continue;
                if (to->bandwidth <= 0 || x.latency + y.latency < to->latency)
                    *to = (struct ap_topo_link){x.latency + y.latency, fmin(x.bandwidth, y.bandwidth)};
            }
    ap_status status = AP_OK;
    for (int a = 0; a < n && status == AP_OK; a++)
        for (int b = 0; b < n && status == AP_OK; b++) {
            if (a == b || t->wan[a * n + b].bandwidth > 0)
                continue;
            t->wan[a * n + b] = way[a * n + b];
            if (way[a * n + b].bandwidth > 0)
                continue;
            status = ap_error_set(err, AP_ERR_INPUT, "no link joins the sites '%s' and '%s', not even over others",
                                  t->sites[a].name, t->sites[b].name);
            ap_error_hint(err, "add a line for the link between them");
            ap_error_at(err, path, 0, 0);
        }
    free(way);
    return status;
}

/* Rings go through a site's nodes along a cheap path where pairs of nodes were measured, else as numbered. */
static ap_status order_nodes(struct ap_topology *t, int site, struct ap_error *err)
{
    int n = t->sites[site].nodes, k = 0;
    int *nodes = malloc(((size_t)n + 1) * 2 * sizeof *nodes);
    double *cost = malloc(((size_t)n * (size_t)n + 1) * sizeof *cost);
    ap_status status = AP_ERR_NOMEM;
    if (nodes != NULL && cost != NULL) {
        int *order = nodes + n;
        for (int i = 0; i < t->node_count; i++)
            if (t->nodes[i].site == site)
                nodes[k++] = i;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++)
                cost[(size_t)i * (size_t)n + (size_t)j] = ap_topology_link(t, nodes[i], nodes[j]).latency;
        status = ap_route_order(n, cost, order);
        for (int i = 0; i < n && status == AP_OK; i++)
            t->nodes[nodes[order[i]]].order = i;
    }
    free(nodes);
    free(cost);
    return status == AP_OK ? AP_OK : ap_error_set(err, status, "out of memory for the order of %d nodes", n);
}

/* Every level that is used has a link. */
static ap_status check_links(const struct ap_topology *t, const char *path, struct ap_error *err)
{
    for (int i = 0; i < t->node_count; i++)
        if (t->nodes[i].ranks > 1 && t->nodes[i].inside.bandwidth <= 0) {
            ap_error_set(err, AP_ERR_INPUT, "node '%s' has %d ranks, but nothing says how they are linked",
                         t->nodes[i].name, t->nodes[i].ranks);
            ap_error_hint(err, "add a line of kind node, with * for all nodes");
            ap_error_at(err, path, 0, 0);
            return AP_ERR_INPUT;
        }
    for (int a = 0; a < t->node_count; a++) {
        const struct ap_topo_site *s = &t->sites[t->nodes[a].site];
        if (s->nodes < 2 || s->inside.bandwidth > 0)
            continue;
        for (int b = 0; b < t->node_count; b++)
            if (a != b && t->nodes[b].site == t->nodes[a].site && ap_topology_link(t, a, b).bandwidth <= 0) {
                ap_error_set(err, AP_ERR_INPUT, "site '%s' has %d nodes, but nothing says how '%s' and '%s' are linked",
                             s->name, s->nodes, t->nodes[a].name, t->nodes[b].name);
                ap_error_hint(err, "add a line of kind site, with * for all sites");
                ap_error_at(err, path, 0, 0);
                return AP_ERR_INPUT;
            }
    }
    return AP_OK;
}

ap_status ap_topology_finish(struct ap_topology *t, const char *path, struct ap_error *err)
{
    for (int i = 0; i < t->node_count; i++)
        t->nodes[i].ranks = 0;
    for (int i = 0; i < t->site_count; i++)
        t->sites[i].ranks = t->sites[i].nodes = 0;
    for (int r = 0; r < t->rank_count; r++)
        t->nodes[t->ranks[r].node].ranks++;
    for (int i = 0; i < t->node_count; i++) {
        struct ap_topo_site *s = &t->sites[t->nodes[i].site];
        t->nodes[i].order = s->nodes++;
        s->ranks += t->nodes[i].ranks;
    }
    mirror(t->node_count, t->node_pairs);
    AP_TRY(check_links(t, path, err));
    for (int s = 0; s < t->site_count && t->node_pairs != NULL; s++)
        AP_TRY(order_nodes(t, s, err));
    return fill_wan(t, path, err);
}
