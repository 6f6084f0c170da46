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
#include "support/machines.h"

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

/* What ap_pipe_decide makes of l, whose schedules are choice: 1F1B and zero-bubble, then others. */
static void check_decision(struct ap_layout_model *m, struct ap_layout *l, const struct ap_pipe_choice *choice)
{
    double room = m->p.topo->ranks[0].memory, some = (choice[0].memory + choice[1].memory) / 2;
    const struct {
        int schedule, recompute, want;
        double memory;
    } cases[] = {{AP_LAYOUT_1F1B, 0, AP_PLAN_1F1B, room},
                 {AP_LAYOUT_ANY, 0, AP_PLAN_ZERO_BUBBLE, room},
                 {AP_LAYOUT_ANY, 0, AP_PLAN_1F1B, some / AP_LAYOUT_MEMORY_SHARE},
                 {AP_LAYOUT_ZERO_BUBBLE, 0, -1, some / AP_LAYOUT_MEMORY_SHARE},
                 {AP_LAYOUT_ZERO_BUBBLE, 1, -1, room},
                 {AP_LAYOUT_ZERO_BUBBLE, 0, AP_PLAN_ZERO_BUBBLE, room},
                 {AP_LAYOUT_1F1B, 0, AP_PLAN_1F1B, room}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ap_layout_plan plan = {.count = 1, .best = (struct ap_layout *[]){l, NULL}};
        struct ap_pipe_choice chosen = {.schedule = -1};
        m->p.schedule = cases[i].schedule;
        m->p.recompute = cases[i].recompute;
        for (int r = 0; r < 4; r++)
            m->p.topo->ranks[r].memory = cases[i].memory;
        ap_status status = ap_pipe_decide(m, &plan, &chosen, NULL), want = cases[i].want < 0 ? AP_ERR_INPUT : AP_OK;
        cr_expect(status == want && chosen.schedule == cases[i].want, "case %zu: %d", i, chosen.schedule);
        if (cases[i].want == AP_PLAN_ZERO_BUBBLE)
            cr_expect(chosen.step == choice[1].step && chosen.memory == choice[1].memory, "case %zu", i);
    }
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
    check_decision(m, l, choice);
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
