/* SPDX-License-Identifier: Apache-2.0
 * Machines and models for tests of the planner: seeded random ones, and plain ones to count by hand. */
#ifndef AP_TESTS_SUPPORT_MACHINES_H
#define AP_TESTS_SUPPORT_MACHINES_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "plan/layout.h"

struct dice {
    uint64_t seed, n;
};

static inline double roll(struct dice *d)
{
    return ap_rng_uniform(d->seed, AP_RNG_TEST, d->n++);
}

static inline int pick(struct dice *d, int n)
{
    return (int)(roll(d) * n);
}

/* Between lo and hi, evenly in the logarithm. */
static inline double between(struct dice *d, double lo, double hi)
{
    return lo * pow(hi / lo, roll(d));
}

static inline struct ap_model_config model(int layers, int experts)
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
static inline struct ap_topology *machine(struct dice *d, int nodes, const int *ranks, const int *site, int alike)
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

/* One site, equal ranks, one on each node, links too quick to count. */
static inline struct ap_topology *plain(int ranks, int per_node, double memory)
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

static inline struct ap_layout_problem ask(const struct ap_topology *t, const struct ap_model_config *c,
                                           int64_t sequences)
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

#endif
