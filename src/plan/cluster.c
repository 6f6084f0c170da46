/* SPDX-License-Identifier: Apache-2.0
 * Single linkage: the joining times are the edges of a minimum spanning tree (Prim), sorted; a cut between two of them
 * that lie far apart in logarithm is a level; union-find gives its groups. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/cluster.h"

/* Shorter times are one time: clocks do not tell them apart. */
#define FLOOR 1e-7

struct edge {
    int a, b;
    double rtt;
};

static double between(int n, const double *rtt, int a, int b)
{
    double x = rtt[(size_t)a * (size_t)n + (size_t)b], y = rtt[(size_t)b * (size_t)n + (size_t)a];
    double best = !(x >= 0) ? y : !(y >= 0) ? x : fmin(x, y);
    return best >= 0 ? fmax(best, FLOOR) : INFINITY;
}

static int by_rtt(const void *a, const void *b)
{
    const struct edge *x = a, *y = b;
    return (x->rtt > y->rtt) - (x->rtt < y->rtt);
}

static int root(int *parent, int a)
{
    while (parent[a] != a)
        a = parent[a] = parent[parent[a]];
    return a;
}

/* edges[n - 1] of a minimum spanning tree; near, from: scratch [n]. */
static void span(int n, const double *rtt, struct edge *edges, double *near, int *from)
{
    for (int i = 0; i < n; i++) {
        near[i] = INFINITY;
        from[i] = 0;
    }
    for (int k = 0, last = 0; k < n - 1; k++) {
        int next = -1;
        near[last] = -1; /* on the tree */
        for (int i = 0; i < n; i++) {
            if (near[i] < 0)
                continue;
            double d = between(n, rtt, last, i);
            if (d < near[i]) {
                near[i] = d;
                from[i] = last;
            }
            if (next < 0 || near[i] < near[next])
                next = i;
        }
        edges[k] = (struct edge){from[next], next, near[next]};
        last = next;
    }
}

/* The level below the joining times edges[cut .. ]; parent: scratch [2 n]. */
static ap_status add_level(struct ap_clusters *c, const struct edge *edges, int cut, int *parent)
{
    int n = c->n;
    struct ap_cluster_level *grown = realloc(c->level, ((size_t)c->levels + 1) * sizeof *grown);
    if (grown == NULL)
        return AP_ERR_NOMEM;
    c->level = grown;
    struct ap_cluster_level *l = &c->level[c->levels];
    *l = (struct ap_cluster_level){.inside = cut > 0 ? edges[cut - 1].rtt : 0, .outside = edges[cut].rtt};
    l->group = malloc((size_t)n * sizeof *l->group);
    if (l->group == NULL)
        return AP_ERR_NOMEM;
    c->levels++;
    int *seen = parent + n; /* group of a root */
    for (int i = 0; i < n; i++) {
        parent[i] = i;
        seen[i] = -1;
    }
    for (int k = 0; k < cut; k++)
        parent[root(parent, edges[k].a)] = root(parent, edges[k].b);
    for (int i = 0; i < n; i++) {
        int r = root(parent, i);
        if (seen[r] < 0)
            seen[r] = l->groups++;
        l->group[i] = seen[r];
    }
    return AP_OK;
}

ap_status ap_cluster_build(int n, const double *rtt, struct ap_clusters *c)
{
    double largest = 0;
    struct edge *edges = malloc(((size_t)n + 1) * sizeof *edges);
    double *near = malloc(((size_t)n + 1) * sizeof *near);
    int *scratch = malloc(((size_t)n + 1) * 2 * sizeof *scratch);
    ap_status status = edges != NULL && near != NULL && scratch != NULL ? AP_OK : AP_ERR_NOMEM;
    *c = (struct ap_clusters){.n = n, .main = -1};
    if (status == AP_OK && n > 1) {
        span(n, rtt, edges, near, scratch);
        qsort(edges, (size_t)n - 1, sizeof *edges, by_rtt);
    }
    for (int k = 1; k < n - 1 && status == AP_OK; k++) {
        double ratio = edges[k].rtt / edges[k - 1].rtt;
        if (!(ratio >= AP_CLUSTER_GAP)) /* also where both are unknown */
            continue;
        status = add_level(c, edges, k, scratch);
        if (status == AP_OK && ratio > largest) {
            largest = ratio;
            c->main = c->levels - 1;
        }
    }
    free(edges);
    free(near);
    free(scratch);
    if (status != AP_OK)
        ap_cluster_clear(c);
    return status;
}

void ap_cluster_clear(struct ap_clusters *c)
{
    for (int i = 0; i < c->levels; i++)
        free(c->level[i].group);
    free(c->level);
    *c = (struct ap_clusters){.main = -1};
}
