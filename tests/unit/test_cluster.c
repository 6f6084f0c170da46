/* SPDX-License-Identifier: Apache-2.0
 * Clusters of latency matrices with known groups, and the cheapest path against all permutations. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "plan/cluster.h"
#include "plan/route_order.h"
#include "support/leaks.h"

/* Points with a node, a site and a region each; times by the level at which two differ, with 20 % of noise. */
static void fill(int n, const int (*where)[3], double *rtt, uint64_t seed)
{
    static const double base[4] = {2e-6, 60e-6, 2e-3, 120e-3};
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            int level = where[a][2] != where[b][2] ? 3 : where[a][1] != where[b][1] ? 2 : where[a][0] != where[b][0];
            double noise = 1 + 0.2 * ap_rng_uniform(seed, AP_RNG_TEST, (uint64_t)(a * n + b));
            rtt[a * n + b] = a == b ? 0 : base[level] * noise;
        }
}

AP_TEST(cluster, nodes_sites_regions)
{
    enum { N = 48 };
    int where[N][3];
    double rtt[N * N];
    struct ap_clusters c;
    for (int i = 0; i < N; i++) {
        where[i][0] = i / 4;
        where[i][1] = i / 12;
        where[i][2] = i / 24;
    }
    fill(N, (const int(*)[3])where, rtt, 1);
    cr_assert_eq(ap_cluster_build(N, rtt, &c), AP_OK);
    cr_assert_eq(c.levels, 3);
    const int groups[3] = {12, 4, 2};
    for (int k = 0; k < 3; k++) {
        cr_expect_eq(c.level[k].groups, groups[k]);
        for (int i = 0; i < N; i++)
            cr_expect_eq(c.level[k].group[i], where[i][k], "point %d at level %d", i, k);
        cr_expect_lt(c.level[k].inside * AP_CLUSTER_GAP, c.level[k].outside);
    }
    cr_expect_eq(c.main, 2, "120 ms over 2 ms is the largest gap");
    ap_cluster_clear(&c);
}

/* The smaller direction counts, unknown pairs keep apart. */
AP_TEST(cluster, directions_and_unknown)
{
    double rtt[16];
    struct ap_clusters c;
    for (int i = 0; i < 16; i++)
        rtt[i] = NAN;
    rtt[0 * 4 + 1] = 9;
    rtt[1 * 4 + 0] = 1e-3;
    rtt[2 * 4 + 3] = 1.1e-3;
    cr_assert_eq(ap_cluster_build(4, rtt, &c), AP_OK);
    cr_assert_eq(c.levels, 1);
    cr_expect_eq(c.level[0].groups, 2);
    cr_expect_eq(c.level[0].group[1], 0);
    cr_expect_eq(c.level[0].group[3], 1);
    cr_expect(isinf(c.level[0].outside));
    ap_cluster_clear(&c);
}

AP_TEST(cluster, one_level_and_small)
{
    struct ap_clusters c;
    double flat[9] = {0, 1, 1.2, 1, 0, 1.1, 1.2, 1.1, 0};
    for (int n = 0; n <= 3; n++) {
        cr_assert_eq(ap_cluster_build(n, flat, &c), AP_OK);
        cr_expect_eq(c.levels, 0);
        cr_expect_eq(c.main, -1);
        ap_cluster_clear(&c);
    }
}

static double best_of_all(int n, const double *cost, int *order, int at)
{
    if (at == n)
        return ap_route_length(n, cost, order);
    double best = INFINITY;
    for (int i = at; i < n; i++) {
        int t = order[at];
        order[at] = order[i];
        order[i] = t;
        best = fmin(best, best_of_all(n, cost, order, at + 1));
        order[i] = order[at];
        order[at] = t;
    }
    return best;
}

static int is_order(int n, const int *order)
{
    unsigned long long seen = 0;
    for (int i = 0; i < n; i++)
        seen |= 1ull << order[i];
    return seen == (n == 64 ? ~0ull : (1ull << n) - 1);
}

AP_TEST(cluster, cheapest_path)
{
    for (int k = 0; k < 40; k++) {
        int n = 1 + k % 8, order[8], all[8];
        double cost[64];
        for (int i = 0; i < n * n; i++)
            cost[i] = ap_rng_uniform((uint64_t)k, AP_RNG_TEST, (uint64_t)i);
        for (int i = 0; i < n; i++)
            all[i] = i;
        cr_assert_eq(ap_route_order(n, cost, order), AP_OK);
        cr_expect(is_order(n, order));
        cr_expect_float_eq(ap_route_length(n, cost, order), best_of_all(n, cost, all, 0), 1e-12, "%d points", n);
    }
}

/* Points on a line, shuffled: the path is the line. */
AP_TEST(cluster, long_path)
{
    enum { N = 40 };
    int order[N];
    double cost[N * N], at[N];
    for (int i = 0; i < N; i++)
        at[i] = (double)(i * 17 % N);
    for (int i = 0; i < N * N; i++)
        cost[i] = fabs(at[i / N] - at[i % N]);
    cr_assert_eq(ap_route_order(N, cost, order), AP_OK);
    cr_expect(is_order(N, order));
    cr_expect_float_eq(ap_route_length(N, cost, order), N - 1, 1e-9);
}
