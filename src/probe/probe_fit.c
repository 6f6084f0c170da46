/* SPDX-License-Identifier: Apache-2.0
 * Pure arithmetic of the probe: whose turn it is, the line through measured times, and what a site is. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/cluster.h"
#include "probe/probe.h"

/* Of many points the late ones are left out, so many times. */
#define TRIMS       3
#define TRIM_POINTS 12
#define LATE        3.0
#define LATE_LEAST  1e-3
#define PACED       0.25 /* of the usual time between two messages */

int ap_probe_rounds(int n)
{
    return n < 2 ? 0 : n % 2 == 0 ? n - 1 : n;
}

/* All but the last member of an even number sit around a circle: who is at i meets who is at 2 round - i; who would
 * meet himself meets the last. With an odd number the last seat is empty. */
int ap_probe_partner(int n, int i, int round)
{
    int seats = n % 2 == 0 ? n : n + 1, circle = seats - 1, partner;
    if (n < 2)
        return -1;
    if (i == circle) {
        partner = round;
    } else {
        partner = ((2 * round - i) % circle + circle) % circle;
        if (partner == i)
            partner = circle;
    }
    return partner < n ? partner : -1;
}

struct point {
    double m, t;
};

static int by_size(const void *a, const void *b)
{
    const struct point *x = a, *y = b;
    return x->m != y->m ? (x->m > y->m) - (x->m < y->m) : (x->t > y->t) - (x->t < y->t);
}

/* Weights 1 / t^2: the sum of (alpha + beta m - t)^2 / t^2 is least. */
static ap_status line(int n, const double *m, const double *t, double *alpha_p, double *beta_p)
{
    double w = 0, wm = 0, wt = 0, mm = 0, mt = 0;
    for (int i = 0; i < n; i++) {
        double v = 1 / (t[i] * t[i]);
        w += v;
        wm += v * m[i];
        wt += v * t[i];
    }
    double mean_m = wm / w, mean_t = wt / w;
    for (int i = 0; i < n; i++) {
        double v = 1 / (t[i] * t[i]);
        mm += v * (m[i] - mean_m) * (m[i] - mean_m);
        mt += v * (m[i] - mean_m) * (t[i] - mean_t);
    }
    if (n < 2 || !(mm > 0) || !(mt > 0))
        return AP_ERR_INPUT;
    *beta_p = mt / mm;
    *alpha_p = mean_t - *beta_p * mean_m;
    return AP_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Without the points that are later than the line by far more than most: what waited for something lost. How many are
 * left; distance: scratch [n]. */
static int drop_late(int n, double *m, double *t, const double line_of[2], double *distance)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        distance[i] = fabs(line_of[0] + line_of[1] * m[i] - t[i]) / t[i];
    qsort(distance, (size_t)n, sizeof *distance, by_value);
    double limit = fmax(LATE * distance[n / 2], LATE_LEAST);
    for (int i = 0; i < n; i++)
        if (t[i] - (line_of[0] + line_of[1] * m[i]) <= limit * t[i]) {
            m[kept] = m[i];
            t[kept++] = t[i];
        }
    return kept;
}

ap_status ap_probe_fit(int n, double *m, double *t, double *alpha_p, double *beta_p, double *residual_p)
{
    struct point *p = malloc(((size_t)n + 1) * sizeof *p);
    double *distance = malloc(((size_t)n + 1) * sizeof *distance), l[2];
    if (p == NULL || distance == NULL) {
        free(p);
        free(distance);
        return AP_ERR_NOMEM;
    }
    for (int i = 0; i < n; i++)
        p[i] = (struct point){m[i], t[i]};
    qsort(p, (size_t)n, sizeof *p, by_size);
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (p[i].t > 0 && (kept == 0 || p[i].m != m[kept - 1])) {
            m[kept] = p[i].m;
            t[kept++] = p[i].t;
        }
    ap_status status = line(kept, m, t, &l[0], &l[1]);
    for (int k = 0; k < TRIMS && status == AP_OK && kept >= TRIM_POINTS; k++) {
        kept = drop_late(kept, m, t, l, distance);
        status = line(kept, m, t, &l[0], &l[1]);
    }
    free(p);
    free(distance);
    AP_TRY(status);
    *alpha_p = l[0];
    *beta_p = l[1];
    *residual_p = 0;
    for (int i = 0; i < kept; i++)
        *residual_p = fmax(*residual_p, fabs(l[0] + l[1] * m[i] - t[i]) / t[i]);
    return AP_OK;
}

int ap_probe_paced(int64_t count, const double *times, char *keep)
{
    int kept = 0;
    double usual = count > 1 ? (times[count - 1] - times[0]) / (double)(count - 1) : 0;
    for (int64_t i = 0; i < count; i++) {
        keep[i] = i == count - 1 || times[i + 1] - times[i] >= PACED * usual;
        kept += keep[i];
    }
    return kept;
}

/* The largest gap around the step from microseconds to milliseconds. Where there is none, all nodes are as near as a
 * site's or all as far apart as sites. */
int ap_probe_find_sites(int n, const double *rtt, int *site)
{
    struct ap_clusters c;
    const struct ap_cluster_level *best = NULL;
    double least = INFINITY;
    if (ap_cluster_build(n, rtt, &c) != AP_OK)
        return -1;
    for (int k = 0; k < c.levels; k++) {
        const struct ap_cluster_level *l = &c.level[k];
        if (l->outside >= AP_PROBE_SITE_RTT / 2 && l->inside < AP_PROBE_SITE_RTT * 2 &&
            (best == NULL || l->outside / l->inside > best->outside / best->inside))
            best = l;
    }
    for (int i = 0; i < n * n; i++)
        if (i / n != i % n && rtt[i] >= 0)
            least = fmin(least, rtt[i]);
    int apart = n > 1 && least >= AP_PROBE_SITE_RTT, groups = best != NULL ? best->groups : apart ? n : 1;
    for (int i = 0; i < n; i++)
        site[i] = best != NULL ? best->group[i] : apart ? i : 0;
    ap_cluster_clear(&c);
    return groups;
}
