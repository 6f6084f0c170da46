/* SPDX-License-Identifier: Apache-2.0
 * The best ring: a search for the largest rate at which the links that have it still hold a Hamiltonian cycle. */
#include "config.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "plan/wan_times.h"

#define EXACT_SITES 16
#define TRIES       16 /* starts of the path growing */
#define STEPS       30 /* of each, per site */

struct search {
    const struct ap_wan *wan;
    int n;
    double least;   /* links below this are not there */
    uint16_t *ends; /* [2^(n-1)] last sites of paths from site n - 1 through a subset of the others */
    uint64_t counter;
    int order[AP_WAN_MAX_SITES], best[AP_WAN_MAX_SITES];
};

static int joined(const struct search *s, int i, int j)
{
    double rate = s->wan->rate[i * s->n + j];
    return i != j && rate > 0 && rate >= s->least;
}

/* Held and Karp 1962, for existence only: ends[set] holds a bit for each site at which a path from site n - 1 through
 * exactly the sites of set can end. */
static int cycle_exact(struct search *s)
{
    int m = s->n - 1;
    uint16_t before[EXACT_SITES] = {0}, closing = 0;
    for (int j = 0; j < m; j++) {
        for (int i = 0; i < m; i++)
            before[j] |= (uint16_t)(joined(s, i, j) << i);
        closing |= (uint16_t)(joined(s, j, m) << j);
    }
    for (uint32_t set = 1; set < 1u << m; set++) {
        s->ends[set] = 0;
        for (int j = 0; j < m; j++)
            if (set >> j & 1) {
                uint32_t rest = set & ~(1u << j);
                int ok = rest == 0 ? joined(s, m, j) : (s->ends[rest] & before[j]) != 0;
                s->ends[set] |= (uint16_t)(ok << j);
            }
    }
    uint32_t set = (1u << m) - 1;
    uint16_t last = s->ends[set] & closing;
    if (last == 0)
        return 0;
    s->order[0] = m;
    for (int at = m; at >= 1; at--) {
        int j = __builtin_ctz(last);
        s->order[at] = j;
        set &= ~(1u << j);
        last = set != 0 ? s->ends[set] & before[j] : 0;
    }
    return 1;
}

/* Put the site at position p behind position q of a path of count sites if all links that this makes are there. */
static int reinsert(struct search *s, int count, int site)
{
    int from = (int)(ap_rng_u64(7, AP_RNG_ROUTES, s->counter++) % (uint64_t)count);
    for (int k = 0; k < count; k++) {
        int q = (from + k) % count;
        if (!joined(s, s->order[q], site) || (q + 1 < count && !joined(s, site, s->order[q + 1])))
            continue;
        memmove(s->order + q + 2, s->order + q + 1, (size_t)(count - q - 1) * sizeof *s->order);
        s->order[q + 1] = site;
        return 1;
    }
    return 0;
}

/* Grow a path: a site is put in wherever two links allow; where none fits, a part of the path is cut off at its end and
 * its sites wait again. A path through all sites is turned until its ends join. */
static int grow(struct search *s, int first)
{
    int n = s->n, count = 1, waiting[AP_WAN_MAX_SITES], left = 0;
    s->order[0] = first;
    for (int v = 0; v < n; v++)
        if (v != first)
            waiting[left++] = v;
    for (int step = 0; step < STEPS * n; step++) {
        int placed = 0;
        for (int k = 0; k < left && !placed; k++) {
            int at = (int)((ap_rng_u64(7, AP_RNG_ROUTES, s->counter) + (uint64_t)k) % (uint64_t)left),
                site = waiting[at];
            if (reinsert(s, count, site)) {
                waiting[at] = waiting[--left];
                count++;
                placed = 1;
            }
        }
        s->counter++;
        if (left == 0 && joined(s, s->order[n - 1], s->order[0]))
            return 1;
        if (!placed) { /* cut 1 .. count / 2 sites off, at either end */
            int most = count / 2 < 1 ? 1 : count / 2;
            int cut = 1 + (int)(ap_rng_u64(7, AP_RNG_ROUTES, s->counter++) % (uint64_t)most), front = step % 2;
            if (cut >= count)
                return 0;
            for (int k = 0; k < cut; k++)
                waiting[left++] = s->order[front ? k : count - 1 - k];
            count -= cut;
            if (front)
                memmove(s->order, s->order + cut, (size_t)count * sizeof *s->order);
        }
    }
    return 0;
}

static int cycle(struct search *s)
{
    if (s->n <= EXACT_SITES)
        return cycle_exact(s);
    for (int t = 0; t < TRIES; t++)
        if (grow(s, t * s->n / TRIES))
            return 1;
    return 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Every site has a link out and one in on a cycle: its best ones bound the slowest. */
static double limit(const struct ap_wan *w)
{
    double least = INFINITY;
    for (int i = 0; i < w->n; i++)
        least = fmin(least, fmin(ap_synth_site_cap(w, AP_CAPS_SITE, i, 1), ap_synth_site_cap(w, AP_CAPS_SITE, i, 0)));
    return least;
}

/* Bisect the sorted rates; with an inexact search the answer is a cycle, not always the best. */
static int bisect(struct search *s, const double *rates, int count)
{
    int low = -1, high = count;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        s->least = rates[middle];
        if (cycle(s)) {
            low = middle;
            memcpy(s->best, s->order, (size_t)s->n * sizeof *s->best);
        } else {
            high = middle;
        }
    }
    return low >= 0;
}

ap_status ap_wan_ring_best(const struct ap_wan *w, struct ap_wan_ring *ring_p, int *found_p)
{
    struct search s = {.wan = w, .n = w->n};
    double *rates = malloc((size_t)w->n * (size_t)w->n * sizeof *rates);
    int *order = malloc((size_t)w->n * sizeof *order), count = 0;
    if (w->n <= EXACT_SITES)
        s.ends = malloc(((size_t)1 << (w->n - 1)) * sizeof *s.ends);
    if (rates == NULL || order == NULL || (w->n <= EXACT_SITES && s.ends == NULL)) {
        free(rates);
        free(order);
        free(s.ends);
        return AP_ERR_NOMEM;
    }
    double most = limit(w);
    for (int e = 0; e < w->n * w->n; e++)
        if (w->rate[e] > 0 && w->rate[e] <= most)
            rates[count++] = w->rate[e];
    qsort(rates, (size_t)count, sizeof *rates, ascending);
    *found_p = bisect(&s, rates, count);
    free(rates);
    free(s.ends);
    if (!*found_p) {
        free(order);
        return AP_OK;
    }
    struct ap_wan_ring ring = {.order = order, .slowest = INFINITY, .limit = most};
    memcpy(order, s.best, (size_t)w->n * sizeof *order);
    for (int k = 0; k < w->n; k++)
        ring.slowest = fmin(ring.slowest, w->rate[order[k] * w->n + order[(k + 1) % w->n]]);
    ring.rate = ring.slowest * w->n / (2.0 * (w->n - 1));
    ring.exact = w->n <= EXACT_SITES || ring.slowest >= ring.limit;
    *ring_p = ring;
    return AP_OK;
}

double ap_wan_ring_listed(const struct ap_wan *w)
{
    double slowest = INFINITY;
    for (int k = 0; k < w->n; k++)
        slowest = fmin(slowest, w->rate[k * w->n + (k + 1) % w->n]);
    return slowest * w->n / (2.0 * (w->n - 1));
}

void ap_wan_ring_clear(struct ap_wan_ring *ring)
{
    free(ring->order);
    *ring = (struct ap_wan_ring){0};
}
