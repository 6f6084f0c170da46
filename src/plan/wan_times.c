/* SPDX-License-Identifier: Apache-2.0
 * Latency trees, and predicted times of trees and rings. */
#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "plan/wan_times.h"

/* One-way delay in ms of link i -> j, INFINITY where there is none or it is unknown. */
static double delay(const struct ap_wan *w, int i, int j)
{
    double rtt = w->rtt[i * w->n + j];
    return w->rate[i * w->n + j] > 0 && isfinite(rtt) ? rtt / 2 : INFINITY;
}

/* Quickest paths from root (up 0) or to it (up 1): distance[n], next[n] (towards the root). Dijkstra, dense. */
static void quickest(const struct ap_wan *w, int root, int up, double *distance, int *next)
{
    char done[AP_WAN_MAX_SITES] = {0};
    for (int v = 0; v < w->n; v++) {
        distance[v] = v == root ? 0 : INFINITY;
        next[v] = -1;
    }
    for (int step = 0; step < w->n; step++) {
        int u = -1;
        for (int v = 0; v < w->n; v++)
            if (!done[v] && (u < 0 || distance[v] < distance[u]))
                u = v;
        done[u] = 1;
        for (int v = 0; v < w->n; v++) {
            double d = distance[u] + (up ? delay(w, v, u) : delay(w, u, v));
            if (!done[v] && d < distance[v]) {
                distance[v] = d;
                next[v] = u;
            }
        }
    }
}

static double deepest(const struct ap_wan *w, const double *distance)
{
    double most = 0;
    for (int v = 0; v < w->n; v++)
        most = fmax(most, distance[v]);
    return most;
}

ap_status ap_wan_latency_tree(const struct ap_wan *w, int caps, int codec, struct ap_wan_latency *l_p, int *found_p)
{
    double distance[AP_WAN_MAX_SITES], least = INFINITY;
    struct ap_wan_latency l = {.tree.root = -1};
    int *links = malloc(2 * (size_t)w->n * sizeof *links);
    if (links == NULL)
        return AP_ERR_NOMEM;
    l.tree.in = links;
    l.tree.out = links + w->n;
    for (int r = 0; r < w->n; r++) {
        quickest(w, r, 1, distance, l.tree.in);
        double up = deepest(w, distance);
        quickest(w, r, 0, distance, l.tree.out);
        double down = deepest(w, distance);
        l.floor_ms = fmax(l.floor_ms, down);
        if (up + down < least) {
            least = up + down;
            l.up_ms = up;
            l.down_ms = down;
            l.tree.root = r;
        }
    }
    *found_p = l.tree.root >= 0;
    if (!*found_p) {
        free(links);
        return AP_OK;
    }
    quickest(w, l.tree.root, 1, distance, l.tree.in);
    quickest(w, l.tree.root, 0, distance, l.tree.out);
    l.tree.rate = ap_wan_tree_rate(w, caps, codec, &l.tree);
    *l_p = l;
    return AP_OK;
}

void ap_wan_latency_clear(struct ap_wan_latency *l)
{
    free(l->tree.in);
    *l = (struct ap_wan_latency){0};
}

/* Deepest way along next[] to the root; forward: a link goes from next[v] to v. NaN where a delay is unknown. */
static double depth(const struct ap_wan *w, int root, const int *next, int forward)
{
    double most = 0;
    for (int v = 0; v < w->n; v++) {
        double sum = 0;
        for (int u = v; u != root; u = next[u])
            sum += forward ? delay(w, next[u], u) : delay(w, u, next[u]);
        most = fmax(most, sum);
    }
    return isfinite(most) ? most : NAN;
}

double ap_wan_tree_delay(const struct ap_wan *w, const struct ap_synth_tree *t)
{
    return depth(w, t->root, t->in, 0) + depth(w, t->root, t->out, 1);
}

/* Sites whose parts the link of the in-tree out of v carries. */
static int behind(const struct ap_wan *w, const struct ap_synth_tree *t, int codec, int v)
{
    int count = 0;
    if (codec == AP_CODEC_ADDITIVE)
        return 1;
    for (int u = 0; u < w->n; u++)
        for (int x = u; x != t->root; x = t->in[x])
            count += x == v;
    return count;
}

double ap_wan_tree_rate(const struct ap_wan *w, int caps, int codec, const struct ap_synth_tree *t)
{
    double out[AP_WAN_MAX_SITES] = {0}, in[AP_WAN_MAX_SITES] = {0}, most = 0;
    for (int v = 0; v < w->n; v++) {
        int p = t->in[v], q = t->out[v];
        if (v == t->root)
            continue;
        double up = behind(w, t, codec, v);
        out[v] += up;
        in[p] += up;
        out[q] += 1;
        in[v] += 1;
        /* the link v -> p carries the way up and, where v feeds p on the way down, that too */
        most = fmax(most, (up + (t->out[p] == v)) / w->rate[v * w->n + p]);
        most = fmax(most, 1 / w->rate[q * w->n + v]);
    }
    for (int v = 0; v < w->n; v++)
        most = fmax(most, fmax(out[v] / ap_synth_site_cap(w, caps, v, 1), in[v] / ap_synth_site_cap(w, caps, v, 0)));
    return 1 / most;
}

static double seconds(double bytes, double rate)
{
    return 8 * bytes / (1e9 * rate);
}

double ap_wan_time_trees(const struct ap_wan *w, const struct ap_synth *s, double bytes)
{
    double most = 0;
    for (int k = 0; k < s->tree_count; k++) {
        double d = ap_wan_tree_delay(w, &s->trees[k]);
        if (isnan(d))
            return NAN;
        most = fmax(most, d);
    }
    return most / 1e3 + seconds(bytes, s->throughput);
}

double ap_wan_time_latency(const struct ap_wan_latency *l, double bytes)
{
    return (l->up_ms + l->down_ms) / 1e3 + seconds(bytes, l->tree.rate);
}

double ap_wan_time_ring(const struct ap_wan *w, const struct ap_wan_ring *ring, double bytes)
{
    double worst = 0;
    int n = w->n;
    for (int start = 0; start < n; start++) {
        double sum = 0;
        for (int k = 0; k < 2 * (n - 1); k++)
            sum += delay(w, ring->order[(start + k) % n], ring->order[(start + k + 1) % n]);
        worst = fmax(worst, sum);
    }
    return isfinite(worst) ? worst / 1e3 + seconds(bytes, ring->rate) : NAN;
}

double ap_wan_usd_per_gb(const struct ap_wan *w, const struct ap_synth *s, int codec)
{
    double sum = 0;
    for (int k = 0; k < s->tree_count; k++) {
        const struct ap_synth_tree *t = &s->trees[k];
        for (int v = 0; v < w->n; v++)
            if (v != t->root)
                sum += t->rate * (behind(w, t, codec, v) * w->usd[v * w->n + t->in[v]] + w->usd[t->out[v] * w->n + v]);
    }
    return sum / s->throughput;
}
