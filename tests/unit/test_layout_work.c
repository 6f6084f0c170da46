/* SPDX-License-Identifier: Apache-2.0
 * What the planner makes of measured kinds of work, collectives and sums: the same as of one speed where they say the
 * same, and every term by hand. */
#include "config.h"

#include <criterion/criterion.h>

#include "plan/layout_model.h"
#include "support/leaks.h"
#include "support/machines.h"

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
