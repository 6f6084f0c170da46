/* SPDX-License-Identifier: Apache-2.0
 * The layout search against exhaustive search over every assignment of ranks and layers, written apart here, on seeded
 * random machines; the cost model against hand-made cases and against the simulation; what must be refused. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "plan/layout_model.h"
#include "plan/pipe_choice.h"
#include "plan/simulate.h"
#include "support/fewer.h"
#include "support/leaks.h"

/* ---- machines and models ---- */

struct dice {
    uint64_t seed, n;
};

static double roll(struct dice *d)
{
    return ap_rng_uniform(d->seed, AP_RNG_TEST, d->n++);
}

static int pick(struct dice *d, int n)
{
    return (int)(roll(d) * n);
}

/* Between lo and hi, evenly in the logarithm. */
static double between(struct dice *d, double lo, double hi)
{
    return lo * pow(hi / lo, roll(d));
}

static struct ap_model_config model(int layers, int experts)
{
    struct ap_model_config c;
    struct ap_error err = {0};
    cr_assert_eq(ap_model_config_preset(experts > 0 ? "tiny-v3" : "dense-30m", &c, &err), AP_OK, "%s", err.text);
    c.layers = layers;
    if (experts > 0)
        c.routed_experts = experts;
    return c;
}

/* nodes[] ranks on each node, site[] of each node. Speeds and links drawn; alike: ranks of a node are equal. */
static struct ap_topology *machine(struct dice *d, int nodes, const int *ranks, const int *site, int alike)
{
    int total = 0, sites = 0, r = 0;
    for (int i = 0; i < nodes; i++) {
        total += ranks[i];
        sites = site[i] + 1 > sites ? site[i] + 1 : sites;
    }
    struct ap_topology *t = ap_topology_create(total, nodes, sites);
    struct ap_error err = {0};
    cr_assert_not_null(t);
    int uneven = pick(d, 3) > 0, paired = pick(d, 2);
    double memory = pick(d, 4) > 0 ? 64e9 : between(d, 2e7, 4e8); /* sometimes tight */
    if (paired) {
        t->node_pairs = calloc((size_t)nodes * (size_t)nodes, sizeof *t->node_pairs);
        cr_assert_not_null(t->node_pairs);
    }
    for (int i = 0; i < nodes; i++) {
        snprintf(t->nodes[i].name, sizeof t->nodes[i].name, "n%d", i);
        t->nodes[i].site = site[i];
        t->nodes[i].inside = (struct ap_topo_link){between(d, 1e-6, 5e-6), between(d, 5e9, 50e9)};
        double speed = uneven ? between(d, 30e9, 300e9) : 100e9;
        for (int k = 0; k < ranks[i]; k++, r++) {
            t->ranks[r] = (struct ap_topo_rank){.node = i, .device = "cpu", .memory = memory, .memory_bandwidth = 20e9};
            t->ranks[r].speed = alike || !uneven ? speed : between(d, 30e9, 300e9);
        }
        for (int k = 0; paired && k < nodes; k++)
            if (k != i && site[k] == site[i])
                t->node_pairs[i * nodes + k] = (struct ap_topo_link){between(d, 1e-5, 1e-3), between(d, 1e8, 5e9)};
    }
    for (int i = 0; i < sites; i++) {
        snprintf(t->sites[i].name, sizeof t->sites[i].name, "s%d", i);
        t->sites[i].inside = (struct ap_topo_link){between(d, 1e-5, 1e-4), between(d, 1e9, 10e9)};
        if (pick(d, 3) == 0)
            t->sites[i].egress = between(d, 1e7, 1e9);
        for (int k = 0; k < sites; k++)
            if (k != i)
                t->wan[i * sites + k] = (struct ap_topo_link){between(d, 1e-3, 1e-1), between(d, 1e7, 1e9)};
    }
    cr_assert_eq(ap_topology_finish(t, "test", &err), AP_OK, "%s", err.text);
    return t;
}

/* ---- exhaustive search ---- */

struct brute {
    struct ap_layout_model *m;
    const struct ap_topology *t;
    int layers;
    struct ap_layout *l;
    char used[32];
    double best;
    char text[300]; /* the best in words */
    long tried;
};

static void describe(const struct ap_layout *l, char *buf, size_t size)
{
    int at = snprintf(buf, size, "tensor %d expert %d pipeline %d data %d micro %d deep %d: ranks", l->tensor,
                      l->expert, l->pipeline, l->data, (int)l->micro_sequences, l->deep);
    for (int i = 0; i < l->tensor * l->expert * l->pipeline * l->data; i++)
        at += snprintf(buf + at, size - (size_t)at, " %d", l->rank[i]);
    at += snprintf(buf + at, size - (size_t)at, ", layers from");
    for (int i = 0; i < l->pipeline; i++)
        at += snprintf(buf + at, size - (size_t)at, " %d", l->first[i]);
}

static int alike(const struct ap_topology *t, int a, int b)
{
    return t->ranks[a].node == t->ranks[b].node && t->ranks[a].speed == t->ranks[b].speed;
}

/* Every split of the layers from stage s on. */
static void splits(struct brute *b, int s)
{
    struct ap_layout *l = b->l;
    if (s == l->pipeline) {
        l->first[s] = b->layers;
        for (l->deep = 0; l->deep < (l->pipeline > 1 ? 2 : 1); l->deep++) {
            ap_layout_cost(b->m, l);
            b->tried++;
            if (l->cost.memory_part <= 1 && l->cost.step < b->best) {
                b->best = l->cost.step;
                describe(l, b->text, sizeof b->text);
            }
        }
        return;
    }
    int lo = s == 0 ? 0 : l->first[s - 1] + 1, hi = s == 0 ? 0 : b->layers - (l->pipeline - s);
    for (int i = lo; i <= hi; i++) {
        l->first[s] = i;
        splits(b, s + 1);
    }
}

/* Every assignment from grid position `at` on. Left out is only what is the same by symmetry: equal ranks of a node
 * exchanged, the order inside a tensor group, the order of whole pipelines. */
static void assign(struct brute *b, int at)
{
    struct ap_layout *l = b->l;
    int n = b->t->rank_count, tp = l->tensor, width = l->expert * tp;
    if (at == n) {
        splits(b, 0);
        return;
    }
    int d = at / width % l->data, stage0 = at < l->data * width;
    for (int r = 0; r < n; r++) {
        int twin = 0;
        for (int k = 0; k < r && !twin; k++)
            twin = !b->used[k] && alike(b->t, k, r);
        if (b->used[r] || twin)
            continue;
        if (at % tp > 0 && (b->t->ranks[r].node != b->t->ranks[l->rank[at - 1]].node || r < l->rank[at - 1]))
            continue;
        if (at % width > 0 && ap_topology_site(b->t, r) != ap_topology_site(b->t, l->rank[at - 1]))
            continue;
        if (stage0 && at % width == 0 && d > 0 && r < l->rank[at - width])
            continue;
        b->used[r] = 1;
        l->rank[at] = r;
        assign(b, at + 1);
        b->used[r] = 0;
    }
}

static double exhaustive(struct ap_layout_model *m, const struct ap_layout_problem *p, long *tried_p, char text[300])
{
    struct brute b = {.m = m, .t = p->topo, .layers = (int)p->cfg->layers, .best = INFINITY};
    int n = p->topo->rank_count;
    for (int tp = 1; tp <= n; tp++)
        for (int ep = 1; ep <= n / tp; ep++)
            for (int pp = 1; pp <= n / tp / ep; pp++)
                for (int64_t micro = 1; micro <= p->global_sequences; micro++) {
                    char why[160];
                    int dp = n / tp / ep / pp;
                    if (tp * ep * pp * dp != n || p->global_sequences % micro != 0)
                        continue;
                    if ((p->micro_sequences > 0 && p->micro_sequences != micro) || (p->tensor > 0 && p->tensor != tp) ||
                        (p->pipeline > 0 && p->pipeline != pp))
                        continue;
                    b.l = ap_layout_create(tp, ep, pp, dp);
                    cr_assert_not_null(b.l);
                    b.l->micro_sequences = micro;
                    if (!ap_layout_refused(m, b.l, why, sizeof why))
                        assign(&b, 0);
                    ap_layout_destroy(b.l);
                }
    *tried_p += b.tried;
    memcpy(text, b.text, sizeof b.text);
    return b.best;
}

/* Search and exhaustive search on one problem; returns found over best. */
static double compare(const struct ap_layout_problem *p, long *tried_p)
{
    struct ap_layout_model *m;
    struct ap_layout_plan plan;
    struct ap_error err = {0};
    cr_assert_eq(ap_layout_model_create(p, &m, &err), AP_OK, "%s", err.text);
    char want[300] = "", got[300];
    double best = exhaustive(m, p, tried_p, want), ratio = 1;
    ap_status status = ap_layout_search(m, 3, &plan, &err);
    if (!isfinite(best)) {
        cr_expect_eq(status, AP_ERR_INPUT, "a layout where none can be");
    } else {
        cr_assert_eq(status, AP_OK, "%s", err.text);
        cr_expect(ap_layout_placed(m, plan.best[0]));
        cr_expect_geq(plan.best[0]->cost.step, best * (1 - 1e-9), "better than every assignment");
        ratio = plan.best[0]->cost.step / best;
        describe(plan.best[0], got, sizeof got);
        if (ratio > 1 + 1e-9)
            printf("%.4f times the best: found %s\n    best is %s\n", ratio, got, want);
    }
    ap_layout_plan_clear(&plan);
    ap_layout_model_destroy(m);
    return ratio;
}

/* Up to 8 devices, all different. */
AP_TEST(layout, near_exhaustive_search, .timeout = 300)
{
    double worst = 1;
    long tried = 0;
    int same = 0, cases = fewer("machines of unlike ranks", 150, 18);
    for (int i = 0; i < cases; i++) {
        struct dice d = {(uint64_t)i + 1, 0};
        int n = i % 6 == 5 ? 8 : 2 + pick(&d, 6), nodes = 0, ranks[8], site[8], left = n;
        while (left > 0) {
            int k = nodes == 7 ? left : 1 + pick(&d, left < 4 ? left : 4);
            ranks[nodes] = k;
            site[nodes] = nodes == 0 ? 0 : site[nodes - 1] + (pick(&d, 2) == 0);
            nodes++;
            left -= k;
        }
        struct ap_model_config c = model(2 + pick(&d, n >= 7 ? 3 : 5), pick(&d, 2) ? 8 : 0);
        struct ap_topology *t = machine(&d, nodes, ranks, site, 0);
        struct ap_layout_problem p = {.topo = t, .cfg = &c, .seq_len = 256, .global_sequences = 4 << pick(&d, 3)};
        p.micro_sequences = pick(&d, 2) ? 1 : 0;
        p.element_size = pick(&d, 2) ? 4 : 2;
        p.recompute = pick(&d, 2);
        p.data = p.tensor = p.pipeline = p.expert = -1;
        if (n >= 6)
            p.micro_sequences = 1; /* less to try */
        double ratio = compare(&p, &tried);
        cr_expect_leq(ratio, 1.02, "case %d: %.4f times the best of %d ranks", i, ratio, n);
        worst = fmax(worst, ratio);
        same += ratio < 1 + 1e-9;
        ap_topology_destroy(t);
    }
    printf("%d cases, %d with the best layout, worst %.4f times the best, %ld layouts tried exhaustively\n", cases,
           same, worst, tried);
}

/* Up to 16 devices, equal inside of a node. */
AP_TEST(layout, near_exhaustive_search_of_nodes, .timeout = 300)
{
    double worst = 1;
    long tried = 0;
    int cases = fewer("machines of nodes", 16, 4);
    for (int i = 0; i < cases; i++) {
        struct dice d = {(uint64_t)i + 1000, 0};
        int four = i % 2, nodes = four ? 4 : 2, ranks[4], site[4];
        for (int k = 0; k < nodes; k++) {
            ranks[k] = four ? 4 : i % 4 == 0 ? 8 : 6;
            site[k] = k == 0 ? 0 : site[k - 1] + pick(&d, 2);
        }
        struct ap_model_config c = model(2 + pick(&d, 3), pick(&d, 2) ? 8 : 0);
        struct ap_topology *t = machine(&d, nodes, ranks, site, 1);
        struct ap_layout_problem p = {.topo = t, .cfg = &c, .seq_len = 128, .global_sequences = 16 << pick(&d, 2)};
        p.micro_sequences = 1;
        p.element_size = 4;
        p.data = p.pipeline = p.expert = -1;
        p.tensor = four ? (pick(&d, 2) ? 2 : 4) : -1;
        double ratio = compare(&p, &tried);
        cr_expect_leq(ratio, 1.02, "case %d: %.4f times the best", i, ratio);
        worst = fmax(worst, ratio);
        ap_topology_destroy(t);
    }
    printf("worst %.4f times the best, %ld layouts tried exhaustively\n", worst, tried);
}

/* ---- the simulation ---- */

/* Closed form against discrete events, on the layouts that a search finds and on arbitrary ones. */
AP_TEST(layout, simulation_agrees, .timeout = 120)
{
    double worst = 0, sum = 0;
    int count = 0, cases = fewer("simulated layouts", 600, 100);
    for (int i = 0; i < cases; i++) {
        struct dice d = {(uint64_t)i + 5000, 0};
        int ranks[20], site[20], nodes = 2 + pick(&d, i % 2 ? 7 : 19), pp = 1 + pick(&d, nodes);
        for (int k = 0; k < nodes; k++) {
            ranks[k] = 1;
            site[k] = k == 0 ? 0 : site[k - 1] + pick(&d, 2);
        }
        while (nodes % pp != 0)
            pp--;
        struct ap_model_config c = model(nodes + pick(&d, 8), 0);
        struct ap_topology *t = machine(&d, nodes, ranks, site, 0);
        struct ap_layout_problem p = {.topo = t, .cfg = &c, .seq_len = 256, .element_size = 4, .micro_sequences = 1};
        struct ap_layout_model *m;
        struct ap_error err = {0};
        double seconds = 0;
        p.global_sequences = (1 << pick(&d, 7)) * (nodes / pp);
        p.data = p.tensor = p.pipeline = p.expert = -1;
        cr_assert_eq(ap_layout_model_create(&p, &m, &err), AP_OK, "%s", err.text);
        struct ap_layout *l = ap_layout_create(1, 1, pp, nodes / pp);
        cr_assert_not_null(l);
        l->micro_sequences = 1;
        l->deep = pick(&d, 2);
        for (int k = 0; k < nodes; k++)
            l->rank[k] = k;
        for (int k = 0; k <= pp; k++)
            l->first[k] = (int)((int64_t)c.layers * k / pp);
        ap_layout_cost(m, l);
        cr_assert_eq(ap_simulate_step(m, l, &seconds, &err), AP_OK, "%s", err.text);
        double error = fabs(seconds - l->cost.step) / seconds;
        cr_expect_leq(error, 0.05, "case %d: closed form %.4f, simulated %.4f", i, l->cost.step, seconds);
        worst = fmax(worst, error);
        count++;
        sum += error;
        double parts = l->cost.compute + l->cost.lan + l->cost.wan + l->cost.bubble;
        cr_expect_float_eq(parts / l->cost.step, 1, 1e-9, "the parts are the step");
        ap_layout_destroy(l);
        ap_layout_model_destroy(m);
        ap_topology_destroy(t);
    }
    cr_expect_leq(sum / count, 0.005, "on average");
    printf("closed form against simulation: mean error %.4f, worst %.4f\n", sum / count, worst);
}

/* ---- by hand ---- */

/* One site, equal ranks, one on each node, links too quick to count. */
static struct ap_topology *plain(int ranks, int per_node, double memory)
{
    struct ap_topology *t = ap_topology_create(ranks, ranks / per_node, 1);
    struct ap_error err = {0};
    cr_assert_not_null(t);
    for (int i = 0; i < ranks; i++)
        t->ranks[i] = (struct ap_topo_rank){i / per_node, "cpu", 100e9, memory, 1e15};
    for (int i = 0; i < ranks / per_node; i++) {
        snprintf(t->nodes[i].name, sizeof t->nodes[i].name, "n%d", i);
        t->nodes[i].inside = (struct ap_topo_link){1e-9, 1e15};
    }
    snprintf(t->sites[0].name, sizeof t->sites[0].name, "here");
    t->sites[0].inside = (struct ap_topo_link){1e-9, 1e15};
    cr_assert_eq(ap_topology_finish(t, "test", &err), AP_OK, "%s", err.text);
    return t;
}

static struct ap_layout_problem ask(const struct ap_topology *t, const struct ap_model_config *c, int64_t sequences)
{
    return (struct ap_layout_problem){.topo = t,
                                      .cfg = c,
                                      .seq_len = 256,
                                      .global_sequences = sequences,
                                      .micro_sequences = 1,
                                      .element_size = 4,
                                      .data = -1,
                                      .tensor = -1,
                                      .pipeline = -1,
                                      .expert = -1};
}

/* Search; the error's text into why where there is no layout. The first layout's sizes into sizes[4]. */
static ap_status solve(const struct ap_layout_problem *p, struct ap_layout_cost *cost, int sizes[4],
                       struct ap_error *err)
{
    struct ap_layout_model *m = NULL;
    struct ap_layout_plan plan = {0};
    ap_status status = ap_layout_model_create(p, &m, err);
    if (status == AP_OK)
        status = ap_layout_search(m, 3, &plan, err);
    if (status == AP_OK) {
        const struct ap_layout *l = plan.best[0];
        *cost = l->cost;
        sizes[0] = l->data;
        sizes[1] = l->tensor;
        sizes[2] = l->pipeline;
        sizes[3] = l->expert;
        for (int i = 1; i < plan.count; i++)
            cr_expect_leq(plan.best[i - 1]->cost.step, plan.best[i]->cost.step, "runners-up in order");
    }
    ap_layout_plan_clear(&plan);
    ap_layout_model_destroy(m);
    return status;
}

/* The operations of a step on one rank are those that the model counts; with free links data parallel is ideal. */
AP_TEST(layout, compute_is_the_operations)
{
    struct ap_model_config c = model(4, 0);
    for (int ranks = 1; ranks <= 8; ranks *= 2) {
        struct ap_topology *t = plain(ranks, 1, 64e9);
        struct ap_layout_problem p = ask(t, &c, 16);
        struct ap_layout_cost cost = {0};
        struct ap_error err = {0};
        int sizes[4];
        p.data = ranks;
        cr_assert_eq(solve(&p, &cost, sizes, &err), AP_OK, "%s", err.text);
        double want = 16 * 256 * ap_model_train_flops_per_token(&c, 256) / 100e9 / ranks;
        cr_expect_float_eq(cost.step / want, 1, 1e-4, "%d ranks: %g, not %g", ranks, cost.step, want);
        ap_topology_destroy(t);
    }
}

/* Layers add up to the counts of the whole model. */
AP_TEST(layout, layers_add_up)
{
    static const char *const names[] = {"tiny-v3", "deepseek-v2-lite", "deepseek-v3", "dense-30m"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct ap_model_config c;
        struct ap_model_count n;
        struct ap_error err = {0};
        cr_assert_eq(ap_model_config_preset(names[i], &c, &err), AP_OK, "%s", err.text);
        ap_model_count_params(&c, &n);
        int64_t params = n.embedding + c.hidden_size, all = n.total + n.mtp;
        double flops = 6.0 * (double)(c.vocab_size * c.hidden_size * (1 + c.mtp_depth));
        for (int64_t l = 0; l < c.layers + c.mtp_depth; l++) {
            struct ap_model_layer k;
            ap_model_count_layer(&c, l, 512, 4, &k);
            params += k.dense + k.routed;
            flops += k.flops_token;
        }
        cr_expect_eq(params, all, "%s: %lld parameters, not %lld", names[i], (long long)params, (long long)all);
        cr_expect_float_eq(flops / ap_model_train_flops_per_token(&c, 512), 1, 1e-12, "%s", names[i]);
    }
}

/* What the kinds of a model's layers would take on a rank of that speed, cut without loss. */
static struct ap_work work_of_speed(const struct ap_model_config *c, double speed)
{
    struct ap_work w = {0};
    struct ap_model_layer n;
    double head = 6.0 * (double)(c->vocab_size * c->hidden_size), back = head;
    for (int64_t l = 0; l < c->layers + c->mtp_depth; l++) {
        ap_model_count_layer(c, l, 256, 4, &n);
        if (l >= c->layers)
            back += n.flops_token + head;
        else
            w.at[0][ap_model_layer_is_moe(c, l) ? AP_WORK_MOE : AP_WORK_DENSE] =
                (struct ap_work_time){n.flops_token / 3 / speed, n.flops_token * 2 / 3 / speed};
    }
    w.at[0][AP_WORK_BACK].backward = back / speed;
    for (int k = 0; k < AP_WORK_KINDS; k++) {
        struct ap_work_time t = w.at[AP_WORK_EXPERT2][k] = w.at[0][k];
        w.at[AP_WORK_TENSOR2][k] = (struct ap_work_time){t.forward / 2, t.backward / 2};
    }
    return w;
}

/* Ranks whose layers were measured to take what their operations take at the ranks' speeds cost the same as by these
 * speeds, in every layout. */
AP_TEST(layout, work_of_one_speed)
{
    for (int i = 0; i < 60; i++) {
        struct dice d = {(uint64_t)i + 9000, 0};
        int tp = 1 << pick(&d, 3), ep = 1 << pick(&d, 2), pp = 1 + pick(&d, 3), dp = 1 + pick(&d, 2), ranks[6], site[6];
        for (int k = 0; k < pp * dp; k++) {
            ranks[k] = tp * ep;
            site[k] = k / 2;
        }
        struct ap_model_config c = model(5, 8);
        struct ap_topology *t = machine(&d, pp * dp, ranks, site, 0);
        struct ap_layout_problem p = {.topo = t, .cfg = &c, .seq_len = 256, .element_size = 4, .micro_sequences = 1};
        struct ap_work work[6 * 16];
        struct ap_layout *l[2];
        struct ap_error err = {0};
        p.global_sequences = dp * ep * (1 + pick(&d, 6));
        p.data = p.tensor = p.pipeline = p.expert = -1;
        for (int r = 0; r < t->rank_count; r++)
            work[r] = work_of_speed(&c, t->ranks[r].speed);
        for (int by_work = 0; by_work < 2; by_work++) {
            struct ap_layout_model *m;
            p.work = by_work ? work : NULL;
            cr_assert_eq(ap_layout_model_create(&p, &m, &err), AP_OK, "%s", err.text);
            l[by_work] = ap_layout_create(tp, ep, pp, dp);
            cr_assert_not_null(l[by_work]);
            l[by_work]->micro_sequences = 1;
            for (int k = 0; k < t->rank_count; k++)
                l[by_work]->rank[k] = k;
            ap_layout_split(m, l[by_work], 1);
            double bound = ap_layout_lower_bound(m, l[by_work]);
            cr_expect_leq(bound, l[by_work]->cost.step * (1 + 1e-9), "case %d: %g below the bound", i,
                          l[by_work]->cost.step);
            ap_layout_model_destroy(m);
        }
        cr_expect_float_eq(l[1]->cost.step / l[0]->cost.step, 1, 1e-9, "case %d: %g, not %g", i, l[1]->cost.step,
                           l[0]->cost.step);
        cr_expect_float_eq(l[1]->cost.compute / l[0]->cost.compute, 1, 1e-9, "case %d", i);
        ap_layout_destroy(l[0]);
        ap_layout_destroy(l[1]);
        ap_topology_destroy(t);
    }
}

/* Costs of one layout on a machine of equal ranks of one node, no model of it left behind. */
static struct ap_layout_cost cost_of(const struct ap_layout_problem *p, int tensor, int expert, int pipeline, int data)
{
    struct ap_layout_model *m;
    struct ap_error err = {0};
    struct ap_layout *l = ap_layout_create(tensor, expert, pipeline, data);
    cr_assert_not_null(l);
    cr_assert_eq(ap_layout_model_create(p, &m, &err), AP_OK, "%s", err.text);
    l->micro_sequences = 1;
    for (int k = 0; k < tensor * expert * pipeline * data; k++)
        l->rank[k] = k;
    ap_layout_split(m, l, 1);
    struct ap_layout_cost cost = l->cost;
    ap_layout_destroy(l);
    ap_layout_model_destroy(m);
    return cost;
}

/* Every term of what was measured, by hand. */
AP_TEST(layout, measured_terms)
{
    struct ap_model_config c = model(5, 8);
    struct ap_topology *one = plain(1, 1, 64e9), *two = plain(2, 2, 64e9);
    struct ap_model_count count;
    struct ap_work work[2] = {{.clear = 1e-9, .add = 3e-9}};
    const double dense = (double)c.first_dense, moe = 5 - dense, tokens = 256, rounds = 8;
    ap_model_count_params(&c, &count);
    double params = (double)(count.total + count.mtp);
    for (int k = 0; k < AP_WORK_KINDS; k++) {
        work[0].at[AP_WORK_WHOLE][k] = (struct ap_work_time){1e-5 * (k + 1), 3e-5 * (k + 1)};
        work[0].at[AP_WORK_TENSOR2][k] = (struct ap_work_time){0.7e-5 * (k + 1), 2e-5 * (k + 1)};
        work[0].at[AP_WORK_EXPERT2][k] = (struct ap_work_time){0.9e-5 * (k + 1), 2.5e-5 * (k + 1)};
    }
    work[1] = work[0];
    struct ap_layout_problem p = ask(one, &c, (int64_t)rounds);
    p.work = work;
    double units = tokens * (1 + 2 * dense + 3 * moe + 4);
    double leaves = params * (rounds * 1e-9 + (rounds - 1) * 3e-9), update = 28 * params / 1e15;
    double step = cost_of(&p, 1, 1, 1, 1).step, want = rounds * units * 4e-5 + leaves + update;
    cr_expect_float_eq(step / want, 1, 1e-9, "one rank: %g, not %g", step, want);

    p.topo = two;
    two->nodes[0].sum = 1e9;
    two->nodes[0].group = (struct ap_topo_link){1e-5, 1e9};
    leaves = params * (rounds / 2 * 1e-9 + (rounds / 2 - 1) * 3e-9);
    step = cost_of(&p, 1, 1, 1, 2).step;
    want = rounds / 2 * units * 4e-5 + leaves + update / 2 + params * 8 / 2 / 1e9;
    cr_expect_float_eq(step / want, 1, 1e-6, "data 2: %g, not %g", step, want);

    /* The half that each rank of a tensor group holds, the parameters that both hold, and their parts' sum. */
    double shared = (double)c.hidden_size, latent = (double)(c.kv_lora_rank + c.rope_dim + c.q_lora_rank);
    for (int64_t i = 0; i < c.layers + c.mtp_depth; i++) {
        struct ap_model_layer n;
        ap_model_count_layer(&c, i, 256, 4, &n);
        shared += (double)n.shared;
    }
    double held = (params - shared) / 2 + shared, h = (double)c.hidden_size;
    double width = 12 * latent + 36 * h + 2 * h + 2 * h + 2 * h + 2 * h, calls = 6 * 12 + 2 * 3 + 2 * 2;
    leaves = held * (rounds * 1e-9 + (rounds - 1) * 3e-9);
    step = cost_of(&p, 2, 1, 1, 1).step;
    want = rounds * (units * 2.7e-5 + calls * 1e-5 + tokens * 4 * width / 2 / 1e9) + leaves + update / 2 +
           shared * 8 / 2 / 1e9;
    cr_expect_float_eq(step / want, 1, 1e-6, "tensor 2: %g, not %g", step, want);

    /* Each MoE layer, MTP's with them, has four exchanges of rows and one of their numbers. */
    double rows = tokens * (double)c.experts_per_token * h * 4, routed = (double)count.moe_routed * (moe + 1) / moe;
    leaves = (params - routed / 2) * (rounds / 2 * 1e-9 + (rounds / 2 - 1) * 3e-9);
    step = cost_of(&p, 1, 2, 1, 1).step;
    want = rounds / 2 * (units * 3.4e-5 + (moe + 1) * (4 * rows / 2 / 1e9 + 5e-5)) + leaves + update / 2 +
           (params - routed) * 8 / 2 / 1e9;
    cr_expect_float_eq(step / want, 1, 1e-6, "expert 2: %g, not %g", step, want);
    ap_topology_destroy(one);
    ap_topology_destroy(two);
}

/* A rank of a third of the speed gets a third of the micro-batches. */
AP_TEST(layout, slow_rank_gets_less)
{
    struct ap_model_config c = model(4, 0);
    struct ap_topology *t = plain(2, 1, 64e9);
    struct ap_error err = {0};
    struct ap_layout_model *m;
    t->ranks[1].speed /= 3;
    struct ap_layout_problem p = ask(t, &c, 16);
    cr_assert_eq(ap_layout_model_create(&p, &m, &err), AP_OK);
    struct ap_layout *l = ap_layout_create(1, 1, 1, 2);
    cr_assert_not_null(l);
    l->micro_sequences = 1;
    l->rank[1] = 1;
    l->first[1] = (int)c.layers;
    ap_layout_cost(m, l);
    cr_expect_eq(l->rounds[0], 12);
    cr_expect_eq(l->rounds[1], 4);
    ap_layout_destroy(l);
    ap_layout_model_destroy(m);
    ap_topology_destroy(t);
}

/* The share of rounds is the best of all shares. */
AP_TEST(layout, rounds_are_the_best)
{
    for (int i = 0; i < 40; i++) {
        struct dice d = {(uint64_t)i + 300, 0};
        struct ap_model_config c = model(4, 0);
        struct ap_topology *t = plain(6, 1, 64e9);
        struct ap_error err = {0};
        struct ap_layout_model *m;
        for (int r = 0; r < 6; r++)
            t->ranks[r].speed = between(&d, 30e9, 300e9);
        struct ap_layout_problem p = ask(t, &c, 3 + pick(&d, 20));
        cr_assert_eq(ap_layout_model_create(&p, &m, &err), AP_OK);
        struct ap_layout *l = ap_layout_create(1, 1, 2, 3), *one = ap_layout_create(1, 1, 2, 1);
        cr_assert(l != NULL && one != NULL);
        l->micro_sequences = 1;
        l->first[1] = 2;
        l->first[2] = 4;
        for (int r = 0; r < 6; r++)
            l->rank[r] = r;
        ap_layout_cost(m, l);
        cr_expect_eq(l->rounds[0] + l->rounds[1] + l->rounds[2], p.global_sequences);
        /* Slowest stage of each pipeline alone: with free links a pipeline of n rounds takes its fill and n - 1 of
         * them at most; the best share is found by trying all. */
        double best = INFINITY, found = 0, pace[3], fill[3];
        for (int k = 0; k < 3; k++) {
            const struct ap_layout_stage *a = ap_layout_stage(m, l, 0, k), *b = ap_layout_stage(m, l, 1, k);
            double x = a->forward + a->backward, y = b->forward + b->backward;
            fill[k] = x + y;
            pace[k] = fmax(x, y);
            found = fmax(found, fill[k] + (double)(l->rounds[k] - 1) * pace[k]);
        }
        for (int64_t a = 1; a < p.global_sequences - 1; a++)
            for (int64_t b = 1; a + b < p.global_sequences; b++) {
                double end = fill[0] + (double)(a - 1) * pace[0];
                end = fmax(end, fill[1] + (double)(b - 1) * pace[1]);
                end = fmax(end, fill[2] + (double)(p.global_sequences - a - b - 1) * pace[2]);
                best = fmin(best, end);
            }
        /* A first stage that is the slowest saves half a round of the fill. */
        cr_expect_leq(l->cost.pipe, best * (1 + 1e-5), "case %d: %g, the best is %g", i, l->cost.pipe, best);
        cr_expect_leq(l->cost.pipe, found * (1 + 1e-5));
        ap_layout_destroy(l);
        ap_layout_destroy(one);
        ap_layout_model_destroy(m);
        ap_topology_destroy(t);
    }
}

/* Which of the two is taken of the layout's schedules: 1F1B and zero-bubble in choice[0] and [1]. */
static void check_decision(struct ap_layout_model *m, struct ap_layout *l, const struct ap_pipe_choice *choice,
                           struct ap_error *err)
{
    struct ap_layout *list[2] = {l, NULL};
    struct ap_layout_plan plan = {.count = 1, .best = list};
    struct ap_pipe_choice chosen;
    struct ap_topo_rank *rank = m->p.topo->ranks;
    double room = rank[0].memory;
    cr_assert_eq(ap_pipe_decide(m, &plan, &chosen, err), AP_OK, "%s", err->text);
    cr_expect_eq(chosen.schedule, AP_PLAN_1F1B, "the problem wants no other");
    m->p.schedule = AP_LAYOUT_ANY;
    cr_assert_eq(ap_pipe_decide(m, &plan, &chosen, err), AP_OK, "%s", err->text);
    cr_expect_eq(chosen.schedule, AP_PLAN_ZERO_BUBBLE);
    cr_expect_eq(chosen.step, choice[1].step);
    cr_expect_eq(chosen.memory, choice[1].memory);
    cr_expect_gt(choice[1].memory, choice[0].memory);
    for (int r = 0; r < 4; r++) /* room for 1F1B alone */
        rank[r].memory = (choice[0].memory + choice[1].memory) / 2 / AP_LAYOUT_MEMORY_SHARE;
    cr_assert_eq(ap_pipe_decide(m, &plan, &chosen, err), AP_OK, "%s", err->text);
    cr_expect_eq(chosen.schedule, AP_PLAN_1F1B, "there is no room for zero-bubble");
    m->p.schedule = AP_LAYOUT_ZERO_BUBBLE;
    cr_expect_eq(ap_pipe_decide(m, &plan, &chosen, err), AP_ERR_INPUT, "there is no room for it");
    for (int r = 0; r < 4; r++)
        rank[r].memory = room;
    m->p.recompute = 1;
    cr_expect_eq(ap_pipe_decide(m, &plan, &chosen, err), AP_ERR_INPUT, "it does not go with recomputation");
    m->p.recompute = 0;
    cr_assert_eq(ap_pipe_decide(m, &plan, &chosen, err), AP_OK, "%s", err->text);
    cr_expect_eq(chosen.schedule, AP_PLAN_ZERO_BUBBLE);
    cr_expect_eq(l->cost.memory, choice[1].memory, "the search counts its memory");
    m->p.schedule = AP_LAYOUT_1F1B;
    ap_layout_cost(m, l);
}

/* Other schedules of the same layout: bubbles of the papers, memory of their slots. */
AP_TEST(layout, schedules)
{
    struct ap_model_config c = model(16, 0);
    struct ap_topology *t = plain(4, 1, 64e9);
    struct ap_error err = {0};
    struct ap_layout_model *m;
    struct ap_pipe_choice choice[AP_PIPE_CHOICES];
    int count = -1;
    c.vocab_size = 64; /* ends that weigh nothing: equal stages */
    struct ap_layout_problem p = ask(t, &c, 8);
    cr_assert_eq(ap_layout_model_create(&p, &m, &err), AP_OK, "%s", err.text);
    struct ap_layout *l = ap_layout_create(1, 1, 4, 1), *one = ap_layout_create(1, 1, 1, 4);
    cr_assert(l != NULL && one != NULL);
    l->micro_sequences = one->micro_sequences = 1;
    for (int r = 0; r < 4; r++)
        l->rank[r] = one->rank[r] = r;
    for (int s = 0; s <= 4; s++)
        l->first[s] = 4 * s;
    one->first[1] = 16;
    ap_layout_cost(m, one);
    cr_assert_eq(ap_pipe_choices(m, one, choice, &count, &err), AP_OK, "%s", err.text);
    cr_expect_eq(count, 0, "one stage has no schedule");
    ap_layout_cost(m, l);
    struct ap_layout_stage k = *ap_layout_stage(m, l, 1, 0);
    double both = k.forward + k.backward, after = l->cost.step - l->cost.pipe;
    cr_assert_eq(ap_pipe_choices(m, l, choice, &count, &err), AP_OK, "%s", err.text);
    cr_assert_eq(count, 5);
    const double bubble[] = {3 * both, 3 * (both - 2 * k.weight), 3 * both / 2, 3 * both / 3, 3 * both / 4};
    for (int i = 0; i < 5; i++) {
        const struct ap_pipe_choice *x = &choice[i];
        cr_expect_eq(x->schedule, i == 0 ? AP_PLAN_1F1B : i == 1 ? AP_PLAN_ZERO_BUBBLE : AP_PLAN_INTERLEAVED);
        cr_expect_eq(x->chunks, i < 2 ? 1 : i);
        double want = 8 * both + bubble[i] + after, got = x->step;
        if (i != 3) /* 16 layers are no multiple of 12 chunks */
            cr_expect_float_eq(got / want, 1, 0.01, "%s, %d chunks: %g s, not %g", ap_plan_schedule_name(x->schedule),
                               x->chunks, got, want);
        cr_expect_leq(x->memory_part, 1);
        cr_expect_geq(x->memory, i == 0 ? l->cost.memory : choice[0].memory * (1 - 1e-9), "%d", i);
    }
    cr_expect_eq(choice[0].memory, l->cost.memory);
    check_decision(m, l, choice, &err);
    cr_expect_eq(ap_layout_stage(m, l, 1, 0)->forward, k.forward, "the model's stages are as they were");
    cr_expect_eq(ap_layout_stage(m, l, 3, 0)->ahead.latency, 0);
    ap_layout_destroy(l);
    ap_layout_destroy(one);
    ap_layout_model_destroy(m);
    ap_topology_destroy(t);
}

/* What cannot be says why. */
AP_TEST(layout, refusals)
{
    struct ap_model_config moe = model(4, 8), dense = model(4, 0);
    const struct {
        const struct ap_model_config *c;
        int ranks, per_node;
        int64_t data, tensor, pipeline, expert, sequences;
        double memory;
        const char *text;
    } cases[] = {
        {&dense, 16, 16, -1, 16, -1, -1, 64, 64e9, "tensor 16: 8 attention heads cannot be shared out evenly"},
        {&dense, 4, 2, -1, 4, -1, -1, 64, 64e9, "tensor 4: node 'n0' has 2 ranks"},
        {&dense, 4, 4, -1, -1, -1, 4, 64, 64e9, "expert 4: the model has no experts"},
        {&moe, 3, 3, -1, -1, -1, 3, 63, 64e9, "expert 3: 8 routed experts cannot be shared out evenly"},
        {&dense, 8, 8, -1, -1, 8, -1, 64, 64e9, "pipeline 8: the model has only 4 layers"},
        {&dense, 8, 8, 8, -1, -1, -1, 4, 64e9, "data 8 x expert 1: a step has only 4 micro-batches"},
        {&dense, 8, 8, 3, -1, -1, -1, 64, 64e9, "8 ranks cannot be shared out as the job's parallel section says"},
        {&dense, 8, 8, 2, 2, 1, 1, 64, 64e9, "8 ranks cannot be shared out as the job's parallel section says"},
        {&dense, 4, 4, -1, -1, -1, -1, 64, 1e6, "fits into memory: the smallest"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ap_topology *t = plain(cases[i].ranks, cases[i].per_node, cases[i].memory);
        struct ap_layout_problem p = ask(t, cases[i].c, cases[i].sequences);
        struct ap_layout_cost cost;
        struct ap_error err = {0};
        int sizes[4];
        p.data = cases[i].data;
        p.tensor = cases[i].tensor;
        p.pipeline = cases[i].pipeline;
        p.expert = cases[i].expert;
        cr_expect_eq(solve(&p, &cost, sizes, &err), AP_ERR_INPUT, "case %zu", i);
        cr_expect(strstr(err.text, cases[i].text) != NULL, "case %zu: '%s' has no '%s'", i, err.text, cases[i].text);
        ap_topology_destroy(t);
    }
    struct ap_topology *t = plain(2, 1, 64e9);
    struct ap_layout_problem p = ask(t, &dense, 15);
    struct ap_layout_model *m = NULL;
    struct ap_error err = {0};
    p.micro_sequences = 2;
    cr_expect_eq(ap_layout_model_create(&p, &m, &err), AP_ERR_INPUT);
    ap_topology_destroy(t);
}

/* What the job fixes stays, and what does not fit alone is split. */
AP_TEST(layout, fixed_axes_and_memory)
{
    struct ap_model_config c = model(4, 8);
    struct ap_topology *t = plain(8, 8, 64e9);
    struct ap_layout_problem p = ask(t, &c, 64);
    struct ap_layout_cost cost = {0}, tight = {0};
    struct ap_error err = {0};
    int sizes[4];
    p.pipeline = 2;
    p.expert = 2;
    cr_assert_eq(solve(&p, &cost, sizes, &err), AP_OK, "%s", err.text);
    cr_expect_eq(sizes[2], 2);
    cr_expect_eq(sizes[3], 2);
    cr_expect_eq(sizes[0] * sizes[1], 2);
    p.pipeline = p.expert = -1;
    cr_assert_eq(solve(&p, &cost, sizes, &err), AP_OK, "%s", err.text);
    for (int i = 0; i < 8; i++)
        t->ranks[i].memory = 0.6 * cost.memory / AP_LAYOUT_MEMORY_SHARE;
    cr_assert_eq(solve(&p, &tight, sizes, &err), AP_OK, "%s", err.text);
    cr_expect_leq(tight.memory_part, 1);
    cr_expect_lt(tight.memory, cost.memory);
    ap_topology_destroy(t);
}
