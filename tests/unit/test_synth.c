/* SPDX-License-Identifier: Apache-2.0
 * All-reduce synthesis. The checker here shares nothing with the generator: it adds up loads from the trees, and
 * verifies the bound with arborescences by the textbook recursion, one root at a time. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "plan/arborescence.h"
#include "plan/packing_lp.h"
#include "plan/synth.h"
#include "plan/wan_times.h"
#include "support/fewer.h"
#include "support/leaks.h"

enum law { UNIFORM, NEAR, SPARSE, PLANE, EQUAL, DECADES, LAWS };
static const char *const law_names[LAWS] = {"uniform", "near", "sparse", "plane", "equal", "decades"};

static double uniform(int seed, int stream, int counter)
{
    return ap_rng_uniform((uint64_t)seed, AP_RNG_TEST + (uint64_t)stream, (uint64_t)counter);
}

/* Rate of a link under a law; 0: none. */
static double draw(enum law law, int seed, int n, int i, int j)
{
    double u = uniform(seed, 0, i * n + j);
    double dx = uniform(seed, 1, i) - uniform(seed, 1, j), dy = uniform(seed, 2, i) - uniform(seed, 2, j);
    switch (law) {
    case UNIFORM:
        return 0.1 + 9.9 * u;
    case NEAR:
        return 1 + 0.2 * u;
    case SPARSE:
        return j == (i + 1) % n || u < 0.3 ? 0.5 + 5 * uniform(seed, 3, i * n + j) : 0;
    case PLANE:
        return 5 / (1 + 4 * hypot(dx, dy)) * (0.9 + 0.2 * u);
    case DECADES:
        return pow(10, 2 * u - 1);
    default:
        return 1;
    }
}

static struct ap_wan *random_wan(enum law law, int seed, int n)
{
    struct ap_wan *w;
    cr_assert_eq(ap_wan_create(n, &w), AP_OK);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            if (i != j && (w->rate[i * n + j] = draw(law, seed, n, i, j)) > 0)
                w->rtt[i * n + j] = 5 + 200 * hypot(uniform(seed, 1, i) - uniform(seed, 1, j),
                                                    uniform(seed, 2, i) - uniform(seed, 2, j));
    return w;
}

/* Cost of the cheapest arborescence away from root, by contracting all cycles of the cheapest entering edges at once
 * and starting over. cost[n * n], u -> v at u * n + v. */
static double plain_arborescence(int n, const double *cost, int root)
{
    double *in = malloc((size_t)n * sizeof *in), total = 0;
    int *from = malloc((size_t)n * sizeof *from), *group = malloc((size_t)n * sizeof *group), groups = 0;
    int *mark = malloc((size_t)n * sizeof *mark);
    cr_assert(in != NULL && from != NULL && group != NULL && mark != NULL);
    for (int v = 0; v < n; v++) {
        in[v] = v == root ? 0 : INFINITY;
        from[v] = -1;
        group[v] = mark[v] = -1;
        for (int u = 0; u < n && v != root; u++)
            if (u != v && cost[u * n + v] < in[v]) {
                in[v] = cost[u * n + v];
                from[v] = u;
            }
        total += in[v];
    }
    int cycles = 0;
    for (int s = 0; s < n && isfinite(total); s++) {
        int v = s;
        while (v != root && mark[v] != s && group[v] < 0) {
            mark[v] = s;
            v = from[v];
        }
        if (v != root && group[v] < 0) {
            for (int u = from[v]; u != v; u = from[u])
                group[u] = groups;
            group[v] = groups++;
            cycles++;
        }
    }
    if (cycles > 0) {
        for (int v = 0; v < n; v++)
            if (group[v] < 0)
                group[v] = groups++;
        double *smaller = malloc((size_t)groups * (size_t)groups * sizeof *smaller);
        cr_assert_not_null(smaller);
        for (int e = 0; e < groups * groups; e++)
            smaller[e] = INFINITY;
        for (int u = 0; u < n; u++)
            for (int v = 0; v < n; v++)
                if (group[u] != group[v]) {
                    double *at = &smaller[group[u] * groups + group[v]];
                    *at = fmin(*at, cost[u * n + v] - in[v]);
                }
        total += plain_arborescence(groups, smaller, group[root]);
        free(smaller);
    }
    free(in);
    free(from);
    free(group);
    free(mark);
    return total;
}

/* Sum over all sites of the cheapest way to root (Bellman and Ford). */
static double plain_paths(int n, const double *cost, int root)
{
    double *d = malloc((size_t)n * sizeof *d), sum = 0;
    cr_assert_not_null(d);
    for (int v = 0; v < n; v++)
        d[v] = v == root ? 0 : INFINITY;
    for (int round = 0; round < n; round++)
        for (int u = 0; u < n; u++)
            for (int v = 0; v < n; v++)
                if (u != v)
                    d[u] = fmin(d[u], cost[u * n + v] + d[v]);
    for (int v = 0; v < n; v++)
        sum += d[v];
    free(d);
    return sum;
}

/* Add rate to the links from v to the root along next (towards 1) or back; fails where it does not end at the root. */
static void walk(int n, const int *next, int v, int root, double rate, double *load)
{
    int steps = 0;
    for (int u = v; u != root; u = next[u]) {
        cr_assert(next[u] >= 0 && next[u] < n, "site %d leads to %d", u, next[u]);
        cr_assert_lt(steps++, n, "a cycle at site %d", u);
        load[u * n + next[u]] += rate;
    }
}

/* Loads of the links from the trees alone. */
static void plain_loads(const struct ap_synth *s, int codec, double *load)
{
    int n = s->n;
    double *scratch = calloc((size_t)n * (size_t)n, sizeof *scratch);
    cr_assert_not_null(scratch);
    for (int k = 0; k < s->tree_count; k++) {
        const struct ap_synth_tree *t = &s->trees[k];
        cr_assert(t->rate > 0 && t->root >= 0 && t->root < n && t->in[t->root] == -1 && t->out[t->root] == -1);
        for (int v = 0; v < n; v++) {
            walk(n, t->in, v, t->root, t->rate, codec == AP_CODEC_OPAQUE ? load : scratch);
            walk(n, t->out, v, t->root, t->rate, scratch);
            if (v == t->root)
                continue;
            if (codec == AP_CODEC_ADDITIVE)
                load[v * n + t->in[v]] += t->rate;
            load[t->out[v] * n + v] += t->rate;
        }
    }
    free(scratch);
}

static void check_capacities(const struct ap_wan *w, const struct ap_synth *s, int caps, int codec)
{
    int n = w->n;
    double *load = calloc((size_t)n * (size_t)n, sizeof *load), fullest = 0;
    cr_assert_not_null(load);
    plain_loads(s, codec, load);
    for (int i = 0; i < n; i++) {
        double out = 0, in = 0, out_cap = 0, in_cap = 0;
        for (int j = 0; j < n; j++) {
            double c = w->rate[i * n + j];
            cr_expect(load[i * n + j] <= c * (1 + 1e-9), "link %d-%d carries %g of %g", i, j, load[i * n + j], c);
            if (c > 0)
                fullest = fmax(fullest, load[i * n + j] / c);
            out += load[i * n + j];
            in += load[j * n + i];
            out_cap = fmax(out_cap, c);
            in_cap = fmax(in_cap, w->rate[j * n + i]);
        }
        if (caps == AP_CAPS_PAIR)
            continue;
        cr_expect(out <= out_cap * (1 + 1e-9), "site %d sends %g of %g", i, out, out_cap);
        cr_expect(in <= in_cap * (1 + 1e-9), "site %d receives %g of %g", i, in, in_cap);
        fullest = fmax(fullest, fmax(out / out_cap, in / in_cap));
    }
    cr_expect_gt(fullest, 1 - 1e-9, "the rates could all be larger: fullest %g", fullest);
    free(load);
}

/* The certificate: prices >= 0, capacities at these prices sum up to the bound, no column costs less than 1. */
static void check_bound(const struct ap_wan *w, const struct ap_synth *s, int caps, int codec)
{
    int n = w->n;
    double *cost = malloc(2 * (size_t)n * (size_t)n * sizeof *cost), *back = cost + n * n, sum = 0, least = INFINITY;
    cr_assert_not_null(cost);
    for (int i = 0; i < n; i++) {
        double out_cap = 0, in_cap = 0;
        for (int j = 0; j < n; j++) {
            double c = w->rate[i * n + j], l = s->link_price[i * n + j];
            cr_expect(l >= 0 && (l == 0 || c > 0));
            sum += c * l;
            cost[i * n + j] = back[j * n + i] = c > 0 ? l + s->egress[i] + s->ingress[j] : INFINITY;
            out_cap = fmax(out_cap, c);
            in_cap = fmax(in_cap, w->rate[j * n + i]);
        }
        cr_expect(s->egress[i] >= 0 && s->ingress[i] >= 0);
        cr_expect(caps == AP_CAPS_SITE || (s->egress[i] == 0 && s->ingress[i] == 0));
        sum += out_cap * s->egress[i] + in_cap * s->ingress[i];
    }
    for (int r = 0; r < n; r++) {
        double up = codec == AP_CODEC_OPAQUE ? plain_paths(n, cost, r) : plain_arborescence(n, back, r);
        least = fmin(least, up + plain_arborescence(n, cost, r));
    }
    cr_expect_gt(least, 1 - 1e-9, "a column costs %g", least);
    cr_expect_lt(fabs(sum / s->bound - 1), 1e-9, "the prices give %g, not %g", sum, s->bound);
    cr_expect_leq(s->throughput, s->bound * (1 + 1e-9));
    free(cost);
}

/* Synthesise, check all, print; returns achieved / bound. */
static double check(const struct ap_wan *w, int caps, int codec, const char *name)
{
    struct ap_synth *s;
    struct ap_error err = {0};
    double start = ap_clock_monotonic(), sum = 0;
    cr_assert_eq(ap_synth_trees(w, caps, codec, &s, &err), AP_OK, "%s: %s", name, err.text);
    double spent = ap_clock_monotonic() - start, ratio = s->throughput / s->bound;
    cr_expect_leq(s->tree_count, 4 * w->n, "%s: %d trees", name, s->tree_count);
    for (int k = 0; k < s->tree_count; k++)
        sum += s->trees[k].rate;
    cr_expect_lt(fabs(sum / s->throughput - 1), 1e-12);
    check_capacities(w, s, caps, codec);
    check_bound(w, s, caps, codec);
    fprintf(stderr, "%-10s %3d sites, %s caps, %s: %9.4f Gbit/s, %.4f of the bound, %3d trees, %.1f ms\n", name, w->n,
            caps == AP_CAPS_SITE ? "site" : "pair", codec == AP_CODEC_OPAQUE ? "opaque" : "additive", s->throughput,
            ratio, s->tree_count, 1e3 * spent);
    ap_synth_destroy(s);
    return ratio;
}

AP_TEST(synth, published_matrices)
{
    static const char *const files[] = {"aws8.csv", "aws12.csv", "three-sites.csv"};
    for (int f = 0; f < 3; f++)
        for (int caps = 0; caps < 2; caps++)
            for (int codec = 0; codec < 2; codec++) {
                char path[512];
                struct ap_wan *w;
                struct ap_error err = {0};
                snprintf(path, sizeof path, "%s/wan/%s", AP_TEST_INPUTS, files[f]);
                cr_assert_eq(ap_wan_load(path, &w, &err), AP_OK, "%s", err.text);
                cr_expect_gt(check(w, caps, codec, files[f]), 0.95, "%s", path);
                ap_wan_destroy(w);
            }
}

static void random_case(enum law law, int n, int seed, int codec, double site_least, double pair_least)
{
    struct ap_wan *w = random_wan(law, seed, n);
    cr_expect_geq(check(w, AP_CAPS_SITE, codec, law_names[law]), site_least, "%s, %d sites, seed %d", law_names[law], n,
                  seed);
    cr_expect_geq(check(w, AP_CAPS_PAIR, codec, law_names[law]), pair_least, "%s, %d sites, seed %d", law_names[law], n,
                  seed);
    ap_wan_destroy(w);
}

AP_TEST(synth, random_up_to_16_sites, .timeout = 500)
{
    static const int sizes[] = {2, 3, 4, 5, 8, 12, 16};
    int seeds = fewer("seeds of up to 16 sites", 3, 1);
    for (int k = 0; k < 7; k++)
        for (int law = 0; law < DECADES; law++)
            for (int seed = 1; seed <= seeds; seed++)
                random_case((enum law)law, sizes[k], seed, AP_CODEC_ADDITIVE, 0.95, 0.95);
}

AP_TEST(synth, random_48_sites, .timeout = 500)
{
    int laws = fewer("laws of 48 sites", DECADES, 1);
    for (int law = 0; law < laws; law++)
        random_case((enum law)law, 48, 1, AP_CODEC_ADDITIVE, 0.95, 0.95);
}

/* Links that differ by two decades and independently of each other are the hardest. */
AP_TEST(synth, two_decades, .timeout = 500)
{
    static const int sizes[] = {3, 6, 12, 16, 24};
    int count = fewer("sizes with links of two decades", 5, 3);
    for (int k = 0; k < count; k++)
        for (int seed = 1; seed <= 2; seed++)
            random_case(DECADES, sizes[k], seed, AP_CODEC_ADDITIVE, 0.95, 0.95);
    for (int seed = 5; seed <= 6; seed++)
        random_case(DECADES, 48, seed, AP_CODEC_ADDITIVE, 0.95, 0.95);
}

AP_TEST(synth, opaque, .timeout = 500)
{
    static const int sizes[] = {2, 3, 5, 8, 12};
    int seeds = fewer("seeds with an opaque codec", 2, 1);
    for (int k = 0; k < 5; k++)
        for (int seed = 1; seed <= seeds; seed++)
            for (int law = 0; law < DECADES; law++)
                random_case((enum law)law, sizes[k], seed, AP_CODEC_OPAQUE, 0.95,
                            law == NEAR || law == EQUAL ? 0.95 : 0.87);
}

/* n equal links: every column moves 2 (n - 1) units; a site sends 1 at most, or a link does. */
AP_TEST(synth, known_optima)
{
    for (int n = 2; n <= 20; n += 3) {
        struct ap_wan *w = random_wan(EQUAL, 1, n);
        for (int caps = 0; caps < 2; caps++) {
            struct ap_synth *s;
            cr_assert_eq(ap_synth_trees(w, caps, AP_CODEC_ADDITIVE, &s, NULL), AP_OK);
            double best = caps == AP_CAPS_SITE ? n / (2.0 * (n - 1)) : n / 2.0;
            cr_expect_geq(s->bound, best * (1 - 1e-9));
            cr_expect_leq(s->throughput, best * (1 + 1e-9));
            cr_expect_geq(s->throughput, best * 0.985);
            ap_synth_destroy(s);
        }
        ap_wan_destroy(w);
    }
}

AP_TEST(synth, same_result_twice)
{
    struct ap_wan *w = random_wan(UNIFORM, 5, 9);
    struct ap_synth *a, *b;
    cr_assert_eq(ap_synth_trees(w, AP_CAPS_PAIR, AP_CODEC_ADDITIVE, &a, NULL), AP_OK);
    cr_assert_eq(ap_synth_trees(w, AP_CAPS_PAIR, AP_CODEC_ADDITIVE, &b, NULL), AP_OK);
    cr_expect_eq(memcmp(&a->throughput, &b->throughput, 2 * sizeof a->throughput), 0);
    cr_assert_eq(a->tree_count, b->tree_count);
    for (int k = 0; k < a->tree_count; k++)
        cr_expect_eq(memcmp(a->trees[k].in, b->trees[k].in, 18 * sizeof *a->trees[k].in), 0);
    ap_synth_destroy(a);
    ap_synth_destroy(b);
    ap_wan_destroy(w);
}

AP_TEST(synth, a_site_without_a_way_back)
{
    struct ap_wan *w;
    struct ap_synth *s;
    struct ap_error err = {0};
    cr_assert_eq(ap_wan_create(3, &w), AP_OK);
    w->rate[0 * 3 + 1] = w->rate[1 * 3 + 0] = w->rate[0 * 3 + 2] = 1;
    cr_expect_eq(ap_synth_trees(w, AP_CAPS_PAIR, AP_CODEC_ADDITIVE, &s, &err), AP_ERR_INPUT);
    cr_expect_str_eq(err.text, "the links do not join all sites in both directions");
    ap_wan_destroy(w);
}

AP_TEST(arborescence, equals_the_plain_recursion)
{
    for (int n = 1; n <= 24; n++)
        for (int seed = 0; seed < 20; seed++) {
            struct ap_arbo *a;
            double cost[24 * 24], back[24 * 24];
            int parent[24];
            cr_assert_eq(ap_arbo_create(n, &a), AP_OK);
            for (int i = 0; i < n; i++)
                for (int j = 0; j < n; j++) {
                    double u = uniform(seed, n, i * n + j);
                    /* small integers give ties, missing links give cycles that must be contracted */
                    double c = seed % 2 ? floor(4 * u) : u;
                    cost[i * n + j] = seed % 3 == 0 && u > 0.5 && j != (i + 1) % n ? INFINITY : c;
                    back[j * n + i] = cost[i * n + j];
                }
            for (int transpose = 0; transpose < 2; transpose++) {
                const double *c = transpose ? back : cost;
                cr_assert_eq(ap_arbo_contract(a, cost, transpose), 0);
                for (int r = 0; r < n; r++) {
                    double total = ap_arbo_unpack(a, r, parent), sum = 0;
                    for (int v = 0; v < n; v++) {
                        int steps = 0;
                        for (int u = v; u != r; u = parent[u])
                            cr_assert_lt(steps++, n);
                        if (v != r)
                            sum += c[parent[v] * n + v];
                    }
                    cr_expect_lt(fabs(sum - total), 1e-9);
                    cr_expect_lt(fabs(total - plain_arborescence(n, c, r)), 1e-9, "n %d seed %d root %d", n, seed, r);
                }
            }
            ap_arbo_destroy(a);
        }
}

#define ROWS    12
#define COLUMNS 30

/* Optimal by duality: feasible rates, feasible prices, the same value. without: a column that is not there, -1: none.
 */
static void check_program(const struct ap_packing *p, double use[COLUMNS][ROWS], const double *cap, int without)
{
    double price[ROWS], load[ROWS] = {0}, value = 0, dual = 0;
    ap_packing_prices(p, price);
    for (int k = 0; k < COLUMNS; k++) {
        double cost = 0, rate = k == without ? 0 : ap_packing_rate(p, k);
        value += rate;
        cr_expect_geq(rate, 0);
        for (int e = 0; e < ROWS; e++) {
            load[e] += rate * use[k][e];
            cost += use[k][e] * price[e];
        }
        cr_expect(k == without || cost > 1 - 1e-7, "column %d costs %g", k, cost);
    }
    for (int e = 0; e < ROWS; e++) {
        cr_expect(price[e] >= 0 && load[e] <= cap[e] * (1 + 1e-9));
        dual += cap[e] * price[e];
    }
    cr_expect_lt(fabs(value / ap_packing_value(p) - 1), 1e-9);
    cr_expect_lt(fabs(value / dual - 1), 1e-6, "%g below %g", value, dual);
}

AP_TEST(packing_lp, optimal_after_every_change)
{
    for (int seed = 0; seed < 30; seed++) {
        struct ap_packing *p;
        double cap[ROWS], use[COLUMNS][ROWS];
        for (int e = 0; e < ROWS; e++)
            cap[e] = seed % 2 ? 1 : 0.1 + uniform(seed, 50, e); /* equal ones make degenerate vertices */
        cr_assert_eq(ap_packing_create(ROWS, cap, COLUMNS, &p), AP_OK);
        for (int k = 0; k < COLUMNS; k++) {
            struct ap_packing_use list[ROWS];
            int count = 0;
            for (int e = 0; e < ROWS; e++) {
                use[k][e] = e == k % ROWS ? 1 : floor(2.5 * uniform(seed, 51, k * ROWS + e));
                if (use[k][e] > 0)
                    list[count++] = (struct ap_packing_use){e, use[k][e]};
            }
            ap_packing_add(p, k, list, count);
            if (k % 7 == 3)
                ap_packing_solve(p, 1000);
        }
        ap_packing_solve(p, 1000);
        check_program(p, use, cap, -1);
        int largest = 0;
        for (int k = 1; k < COLUMNS; k++)
            if (ap_packing_rate(p, k) > ap_packing_rate(p, largest))
                largest = k;
        ap_packing_remove(p, largest, 1000);
        check_program(p, use, cap, largest);
        ap_packing_destroy(p);
    }
}

/* The best slowest link over all cycles, by trying them. */
static double try_cycles(const struct ap_wan *w, int *order, int at, double slowest)
{
    int n = w->n;
    if (at == n)
        return fmin(slowest, w->rate[order[n - 1] * n + order[0]]);
    double best = 0;
    for (int k = at; k < n; k++) {
        int t = order[at];
        order[at] = order[k];
        order[k] = t;
        best = fmax(best, try_cycles(w, order, at + 1, fmin(slowest, w->rate[order[at - 1] * n + order[at]])));
        order[k] = order[at];
        order[at] = t;
    }
    return best;
}

AP_TEST(rings, best_of_all_cycles)
{
    for (int n = 2; n <= 8; n++)
        for (int seed = 1; seed <= 4; seed++)
            for (int law = 0; law < LAWS; law++) {
                struct ap_wan *w = random_wan((enum law)law, seed, n);
                struct ap_wan_ring ring;
                int order[8] = {0, 1, 2, 3, 4, 5, 6, 7}, found, seen = 0;
                cr_assert_eq(ap_wan_ring_best(w, &ring, &found), AP_OK);
                double best = try_cycles(w, order, 1, INFINITY);
                cr_assert_eq(found, best > 0);
                cr_expect_eq(ring.slowest, best, "%s, %d sites", law_names[law], n);
                cr_expect(ring.exact && ring.limit >= best);
                for (int k = 0; k < n; k++)
                    seen |= 1 << ring.order[k];
                cr_expect_eq(seen, (1 << n) - 1);
                cr_expect_lt(fabs(ring.rate - best * n / (2.0 * (n - 1))), 1e-12);
                ap_wan_ring_clear(&ring);
                ap_wan_destroy(w);
            }
}

AP_TEST(rings, none_in_a_star_and_good_ones_for_many_sites)
{
    struct ap_wan *w;
    struct ap_wan_ring ring = {0};
    int found = 1;
    cr_assert_eq(ap_wan_create(4, &w), AP_OK);
    for (int i = 1; i < 4; i++)
        w->rate[i] = w->rate[i * 4] = 1;
    cr_assert_eq(ap_wan_ring_best(w, &ring, &found), AP_OK);
    cr_expect_eq(found, 0);
    ap_wan_destroy(w);
    for (int n = 17; n <= 40; n += 23) {
        w = random_wan(UNIFORM, 3, n);
        char seen[40] = {0};
        cr_assert_eq(ap_wan_ring_best(w, &ring, &found), AP_OK);
        cr_assert(found);
        double slowest = INFINITY;
        for (int k = 0; k < n; k++) {
            cr_expect_eq(seen[ring.order[k]]++, 0);
            slowest = fmin(slowest, w->rate[ring.order[k] * n + ring.order[(k + 1) % n]]);
        }
        cr_expect_eq(slowest, ring.slowest);
        cr_expect(slowest <= ring.limit && slowest > 0.5 * ring.limit, "%g of %g", slowest, ring.limit);
        cr_expect_gt(ring.rate, 3 * ap_wan_ring_listed(w));
        ap_wan_ring_clear(&ring);
        ap_wan_destroy(w);
    }
}

AP_TEST(times, latency_tree_is_least_eccentric)
{
    for (int seed = 1; seed <= 5; seed++) {
        enum { N = 9 };
        struct ap_wan *w = random_wan(SPARSE, seed, N);
        struct ap_wan_latency l;
        int found;
        double d[N][N], least = INFINITY, floor_ms = 0;
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                d[i][j] = i == j ? 0 : w->rate[i * N + j] > 0 ? w->rtt[i * N + j] / 2 : INFINITY;
        for (int k = 0; k < N; k++)
            for (int i = 0; i < N; i++)
                for (int j = 0; j < N; j++)
                    d[i][j] = fmin(d[i][j], d[i][k] + d[k][j]);
        for (int r = 0; r < N; r++) {
            double up = 0, down = 0;
            for (int v = 0; v < N; v++) {
                up = fmax(up, d[v][r]);
                down = fmax(down, d[r][v]);
            }
            least = fmin(least, up + down);
            floor_ms = fmax(floor_ms, down);
        }
        cr_assert_eq(ap_wan_latency_tree(w, AP_CAPS_SITE, AP_CODEC_ADDITIVE, &l, &found), AP_OK);
        cr_assert(found);
        cr_expect_lt(fabs(l.up_ms + l.down_ms - least), 1e-9);
        cr_expect_lt(fabs(l.floor_ms - floor_ms), 1e-9);
        cr_expect_lt(fabs(ap_wan_tree_delay(w, &l.tree) - least), 1e-9);
        /* alone it fits the capacities, and fills one */
        struct ap_synth one = {.n = N, .tree_count = 1, .trees = &l.tree};
        check_capacities(w, &one, AP_CAPS_SITE, AP_CODEC_ADDITIVE);
        l.tree.rate = ap_wan_tree_rate(w, AP_CAPS_PAIR, AP_CODEC_OPAQUE, &l.tree);
        check_capacities(w, &one, AP_CAPS_PAIR, AP_CODEC_OPAQUE);
        ap_wan_latency_clear(&l);
        ap_wan_destroy(w);
    }
}

AP_TEST(times, two_sites_by_hand)
{
    static const char text[] = "src,dst,rtt_ms,gbit_per_s,egress_usd_per_gb\na,b,40,2,0.05\nb,a,40,4,0.01\n";
    struct ap_wan *w;
    struct ap_synth *s;
    struct ap_wan_ring ring;
    struct ap_wan_latency l;
    int found;
    cr_assert_eq(ap_wan_parse(text, sizeof text - 1, "x.csv", &w, NULL), AP_OK);
    cr_assert_eq(ap_synth_trees(w, AP_CAPS_SITE, AP_CODEC_ADDITIVE, &s, NULL), AP_OK);
    cr_assert_eq(ap_wan_ring_best(w, &ring, &found), AP_OK);
    cr_assert_eq(ap_wan_latency_tree(w, AP_CAPS_SITE, AP_CODEC_ADDITIVE, &l, &found), AP_OK);
    /* one byte each way for each byte: 2 Gbit/s; 1 GB: 4 s and a round trip */
    cr_expect_lt(fabs(s->throughput - 2), 1e-9);
    cr_expect_lt(fabs(ap_wan_time_trees(w, s, 1e9) - 4.04), 1e-9);
    cr_expect_lt(fabs(ap_wan_time_latency(&l, 1e9) - 4.04), 1e-9);
    cr_expect_lt(fabs(ap_wan_time_ring(w, &ring, 1e9) - 4.04), 1e-9);
    cr_expect_lt(fabs(ap_wan_usd_per_gb(w, s, AP_CODEC_ADDITIVE) - 0.06), 1e-9);
    w->rtt[1] = NAN;
    cr_expect(isnan(ap_wan_time_trees(w, s, 1e9)) && isnan(ap_wan_time_ring(w, &ring, 1e9)));
    ap_wan_latency_clear(&l);
    cr_assert_eq(ap_wan_latency_tree(w, AP_CAPS_SITE, AP_CODEC_ADDITIVE, &l, &found), AP_OK);
    cr_expect_eq(found, 0);
    ap_synth_destroy(s);
    ap_wan_ring_clear(&ring);
    ap_wan_destroy(w);
}
