/* SPDX-License-Identifier: Apache-2.0
 * The probe on simulated machines whose truth is known: round trips within 1 % or 1 ms, bandwidth and caps within 5 %.
 */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "probe/probe_comm.h"
#include "probe/probe_report.h"
#include "probe/probe_sim.h"
#include "support/fewer.h"
#include "support/leaks.h"

#define GBIT (1e9 / 8)
#define PING 64 /* bytes */

struct machine {
    struct ap_link_net *net;
    struct ap_probe_sim_site *sites;
    struct ap_probe_sim_window window;
    struct ap_probe_net *probe;
    struct ap_probe_places places;
    struct ap_probe_result result;
};

static void make(struct machine *m, const char *csv, uint64_t seed)
{
    struct ap_error err = {0};
    memset(m, 0, sizeof *m);
    cr_assert_eq(ap_link_net_parse(csv, "m.csv", seed, &m->net, &err), AP_OK, "%s", err.text);
    m->sites = calloc((size_t)m->net->n, sizeof *m->sites);
    cr_assert_not_null(m->sites);
    for (int i = 0; i < m->net->n; i++)
        m->sites[i] = (struct ap_probe_sim_site){
            .nodes = 2 + i % 2, .ranks_per_node = 2, .node_us = 1, .node_gbit = 80, .site_us = 15, .site_gbit = 25};
}

static void measure_by(struct machine *m, uint64_t seed, struct ap_probe_sim_window window,
                       const struct ap_probe_options *o, int known)
{
    struct ap_error err = {0};
    m->window = window;
    cr_assert_eq(ap_probe_sim_create(m->net, m->sites, seed, window, &m->probe), AP_OK);
    cr_assert_eq(ap_probe_sim_places(m->probe, &m->places), AP_OK);
    if (!known)
        m->places.sites = 0;
    cr_assert_eq(ap_probe_run(m->probe, o, &m->places, &m->result, &err), AP_OK, "%s", err.text);
}

static void measure(struct machine *m, uint64_t seed, const struct ap_probe_options *o, int known)
{
    measure_by(m, seed, (struct ap_probe_sim_window){0}, o, known);
}

static void clear(struct machine *m)
{
    ap_probe_result_clear(&m->result);
    free(m->places.node);
    free(m->places.site);
    ap_probe_sim_destroy(m->probe);
    ap_link_net_free(m->net);
    free(m->sites);
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int streams(const struct machine *m, int a, int b)
{
    return least(AP_PROBE_OPTIONS_DEFAULT.streams,
                 least(m->sites[a].nodes * m->sites[a].ranks_per_node, m->sites[b].nodes * m->sites[b].ranks_per_node));
}

/* What one pair of sites could reach alone: link and caps, the cards of the nodes that take part, the windows. */
static double truth(const struct machine *m, int a, int b)
{
    int n = streams(m, a, b);
    double mbit = ap_link_net_link(m->net, a, b)->params.rate_mbit;
    mbit = fmin(mbit, m->sites[a].site_gbit * 1e3 * least(n, m->sites[a].nodes));
    mbit = fmin(mbit, m->sites[b].site_gbit * 1e3 * least(n, m->sites[b].nodes));
    mbit = m->sites[a].egress_mbit > 0 ? fmin(mbit, m->sites[a].egress_mbit) : mbit;
    mbit = m->sites[b].ingress_mbit > 0 ? fmin(mbit, m->sites[b].ingress_mbit) : mbit;
    if (m->window.most > 0)
        mbit = fmin(mbit, n * (double)m->window.most * 8e-3 / ap_link_net_rtt_ms(m->net, a, b));
    return mbit * 1e6 / 8 * (1 - ap_link_net_link(m->net, a, b)->params.loss);
}

static void expect_rate(double measured, double expected, const char *what, int a, int b)
{
    cr_expect(fabs(measured / expected - 1) < 0.05, "%s from %d to %d: %.4g, not %.4g bytes/s (%.2f %%)", what, a, b,
              measured, expected, 100 * (measured / expected - 1));
}

static void expect_rtt(double measured, double expected, const char *what, int a, int b)
{
    cr_expect(fabs(measured - expected) < fmax(1e-3, 0.01 * expected), "%s between %d and %d: %.6f, not %.6f s", what,
              a, b, measured, expected);
}

/* Every pair of every level was measured, and is true. */
static void expect_true(const struct machine *m)
{
    int n = m->net->n, wan = 0, far = 0, inside = 0, near = 0;
    for (int64_t i = 0; i < m->result.count; i++) {
        const struct ap_probe_sample *s = &m->result.samples[i];
        int a = m->places.site[m->places.node[s->from]], b = m->places.site[m->places.node[s->to]];
        const struct ap_probe_sim_site *at = &m->sites[a];
        switch (s->kind) {
        case AP_PROBE_FAR:
            far++;
            expect_rtt(s->rtt, ap_link_net_rtt_ms(m->net, a, b) * 1e-3, "round trip", a, b);
            break;
        case AP_PROBE_WAN:
            wan++;
            expect_rate(s->rate, truth(m, a, b), "bandwidth", a, b);
            cr_expect_eq(s->streams, streams(m, a, b), "%d connections from %d to %d", s->streams, a, b);
            break;
        case AP_PROBE_NODE:
            inside++;
            if (s->rtt > 0)
                cr_expect_float_eq(s->rtt, 2e-6 * at->node_us + 2 * PING / (at->node_gbit * GBIT), 1e-8,
                                   "node round trip %g", s->rtt);
            else
                expect_rate(s->rate, at->node_gbit * GBIT, "node", s->from, s->to);
            break;
        case AP_PROBE_SITE:
            near++;
            if (s->rtt > 0)
                cr_expect_float_eq(s->rtt, 2e-6 * at->site_us + 2 * PING / (at->site_gbit * GBIT), 1e-8,
                                   "site round trip %g", s->rtt);
            else
                expect_rate(s->rate, at->site_gbit * GBIT, "site", s->from, s->to);
            break;
        default:
            break;
        }
    }
    int inside_pairs = 0, near_pairs = 0;
    for (int i = 0; i < n; i++) {
        const struct ap_probe_sim_site *at = &m->sites[i];
        inside_pairs += at->nodes * at->ranks_per_node * (at->ranks_per_node - 1) / 2;
        near_pairs += at->nodes * (at->nodes - 1) / 2;
    }
    cr_expect_eq(far, n * (n - 1) / 2);
    cr_expect_eq(wan, n * (n - 1), "each direction counts once");
    cr_expect_eq(inside, 3 * inside_pairs, "a round trip and two directions of each pair");
    cr_expect_eq(near, 3 * near_pairs);
}

/* egress, ingress: Mbit/s, 0: none is to be found. */
static void expect_caps(const struct machine *m, const double *egress, const double *ingress)
{
    for (int i = 0; i < m->net->n; i++) {
        const struct ap_probe_site_caps *c = &m->result.caps[i];
        double found[2] = {c->egress, c->ingress}, set[2] = {egress[i], ingress[i]};
        for (int k = 0; k < 2; k++) {
            if (set[k] > 0)
                expect_rate(found[k], set[k] * 1e6 / 8, k ? "ingress" : "egress", i, i);
            else
                cr_expect_eq(found[k], 0, "site %d has no %s cap, not %.4g of %.4g", i, k ? "ingress" : "egress",
                             found[k], k ? c->sum_in : c->sum_out);
        }
    }
}

AP_TEST(probe, circle)
{
    for (int n = 0; n < 14; n++) {
        char met[14][14] = {{0}};
        for (int round = 0; round < ap_probe_rounds(n); round++)
            for (int i = 0; i < n; i++) {
                int k = ap_probe_partner(n, i, round);
                if (k < 0) {
                    cr_expect_eq(n % 2, 1, "%d of %d is left over in round %d", i, n, round);
                    continue;
                }
                cr_assert(k < n && k != i);
                cr_expect_eq(ap_probe_partner(n, k, round), i);
                met[i][k]++;
            }
        for (int i = 0; i < n; i++)
            for (int k = 0; k < n; k++)
                cr_expect_eq(met[i][k], i != k, "%d and %d of %d met %d times", i, k, n, met[i][k]);
    }
}

AP_TEST(probe, fit)
{
    double m[8], t[8], alpha, beta, residual;
    for (int i = 0; i < 8; i++) { /* each size twice; the slower one does not count */
        m[i] = 1000 << (i / 2 * 2);
        t[i] = (0.01 + m[i] / 1e8) * (i % 2 ? 1 : 1.7);
    }
    cr_assert_eq(ap_probe_fit(8, m, t, &alpha, &beta, &residual), AP_OK);
    cr_expect_float_eq(alpha, 0.01, 1e-12);
    cr_expect_float_eq(1 / beta, 1e8, 1e-2);
    cr_expect_lt(residual, 1e-12);
    /* Relative: an error of 10 % in a small time is as bad as one in a large time. */
    double m2[3] = {1e6, 2e6, 1e9}, t2[3] = {1.1, 2, 1000};
    cr_assert_eq(ap_probe_fit(3, m2, t2, &alpha, &beta, &residual), AP_OK);
    cr_expect(residual > 0.02 && residual < 0.1, "%g", residual);
    double one_m[2] = {5, 5}, one_t[2] = {1, 2};
    cr_expect_eq(ap_probe_fit(2, one_m, one_t, &alpha, &beta, &residual), AP_ERR_INPUT);
    double falling_m[2] = {5, 6}, falling_t[2] = {2, 1};
    cr_expect_eq(ap_probe_fit(2, falling_m, falling_t, &alpha, &beta, &residual), AP_ERR_INPUT);
}

AP_TEST(probe, sites_by_round_trips)
{
    double near = 40e-6, metro = 1.2e-3, far = 90e-3, rtt[36];
    int site[6];
    for (int a = 0; a < 6; a++) /* 0 1 2 | 3 4 metro, 5 far */
        for (int b = 0; b < 6; b++)
            rtt[a * 6 + b] = a == b ? 0 : a / 3 == b / 3 && a != 5 && b != 5 ? near : a == 5 || b == 5 ? far : metro;
    cr_expect_eq(ap_probe_find_sites(6, rtt, site), 3);
    cr_expect(site[0] == site[2] && site[3] == site[4] && site[0] != site[3] && site[5] != site[3]);
    for (int a = 0; a < 9; a++)
        rtt[a] = a % 4 == 0 ? 0 : 4e-3 + 1e-3 * (a % 3 + a / 3);
    cr_expect_eq(ap_probe_find_sites(3, rtt, site), 3, "no gap, but all far apart");
    for (int a = 0; a < 9; a++)
        rtt[a] = a % 4 == 0 ? 0 : 40e-6;
    cr_expect_eq(ap_probe_find_sites(3, rtt, site), 1);
    rtt[0 * 3 + 1] = rtt[1 * 3 + 0] = 4e-6;
    cr_expect_eq(ap_probe_find_sites(3, rtt, site), 1, "a gap between two racks is none between sites");
    cr_expect_eq(ap_probe_find_sites(1, (double[]){0}, site), 1);
}

static const char asymmetric[] =
    "src,dst,delay_ms,rate_mbit,jitter_ms,loss\n"
    "a,b,20,400,1,0\nb,a,30,100,1,0\na,c,60,1000,0,0.001\nc,a,60,300,2,0\n"
    "b,c,45,50,0,0\nc,b,5,800,0.5,0.002\na,d,100,10000,0,0\nb,d,90,200,0,0\nc,d,110,20,1,0\n";

AP_TEST(probe, asymmetric_links)
{
    struct ap_probe_options quick = AP_PROBE_OPTIONS_QUICK, thorough = AP_PROBE_OPTIONS_DEFAULT;
    for (uint64_t seed = 1; seed <= 4; seed += (uint64_t)fewer("seeds, every so many", 1, 2)) {
        struct machine m;
        int is_quick = seed > 2;
        make(&m, asymmetric, seed);
        /* The one run of a quick probe is over before a loss on a long link is mended: docs/probe.md says so. */
        for (int i = 0; i < 16 && is_quick; i++)
            m.net->links[i].params.loss = 0;
        measure(&m, seed, is_quick ? &quick : &thorough, seed % 2 == 0);
        cr_expect_eq(m.places.sites, 4);
        expect_true(&m);
        expect_caps(&m, (double[4]){0}, (double[4]){0});
        clear(&m);
    }
}

/* Nodes of a site that are far apart for a site, on slow cards: sizes go on until bytes tell. */
AP_TEST(probe, slow_inside)
{
    struct ap_probe_options o = AP_PROBE_OPTIONS_DEFAULT;
    struct machine m;
    make(&m, "src,dst,delay_ms,rate_mbit\na,b,20,100\n", 6);
    m.sites[0].site_us = 2000;
    m.sites[0].site_gbit = 0.2;
    m.sites[1].site_us = 900;
    m.sites[1].site_gbit = 10;
    m.sites[1].node_gbit = 0.05;
    ap_link_net_link(m.net, 0, 1)->params.delay_ms -= 2; /* a node's own way comes before the link */
    ap_link_net_link(m.net, 1, 0)->params.delay_ms -= 0.9;
    measure(&m, 6, &o, 1);
    ap_link_net_link(m.net, 0, 1)->params.delay_ms += 2;
    ap_link_net_link(m.net, 1, 0)->params.delay_ms += 0.9;
    expect_true(&m);
    clear(&m);
}

/* Connections that open up slowly: the rate is that behind the start. */
AP_TEST(probe, slow_start)
{
    struct ap_probe_options o = AP_PROBE_OPTIONS_DEFAULT;
    struct machine m;
    make(&m, "src,dst,delay_ms,rate_mbit\na,b,20,1000\na,c,75,500\nb,c,60,200\nc,b,60,90\n", 4);
    measure_by(&m, 4, (struct ap_probe_sim_window){.first = 14480}, &o, 1);
    expect_true(&m);
    expect_caps(&m, (double[4]){0}, (double[4]){0});
    clear(&m);
}

/* Connections that never have more than a window under way, the longer the round trip the slower: four of them reach
 * more, where a site has so many ranks; that one alone is slower is no cap of the site. */
AP_TEST(probe, several_connections)
{
    struct ap_probe_options o = AP_PROBE_OPTIONS_DEFAULT;
    struct machine m;
    make(&m, "src,dst,delay_ms,rate_mbit\na,b,20,350\na,c,80,600\nb,c,5,300\na,d,40,500\nb,d,25,200\nc,d,30,400\n", 4);
    m.sites[3].nodes = m.sites[3].ranks_per_node = 1;
    const struct ap_probe_sim_window window = {.most = 500000}; /* 100 Mbit/s over 40 ms */
    measure_by(&m, 4, window, &o, 1);
    cr_expect_eq(streams(&m, 0, 1), 4);
    cr_expect_eq(streams(&m, 0, 3), 1);
    expect_true(&m);
    expect_caps(&m, (double[4]){0}, (double[4]){0});
    int one = 0;
    for (int64_t i = 0; i < m.result.count; i++) {
        const struct ap_probe_sample *s = &m.result.samples[i];
        if (s->kind != AP_PROBE_GUESS)
            continue;
        int a = m.places.site[m.places.node[s->from]], b = m.places.site[m.places.node[s->to]];
        double alone = fmin(ap_link_net_link(m.net, a, b)->params.rate_mbit * 1e6 / 8,
                            (double)window.most / (ap_link_net_rtt_ms(m.net, a, b) * 1e-3));
        expect_rate(s->rate, alone, "one connection", a, b);
        one++;
    }
    cr_expect_eq(one, 12);
    clear(&m);
}

/* Caps of one side, of both, and none, with few sites (all turns apart) and more. */
AP_TEST(probe, capped_sites)
{
    struct ap_probe_options o = AP_PROBE_OPTIONS_QUICK;
    for (uint64_t seed = 1; seed <= (uint64_t)fewer("seeds", 3, 1); seed++) {
        struct machine m;
        double egress[7] = {0, 600, 0, 0, 1000, 0, 0}, ingress[7] = {0, 0, 500, 0, 1500, 0, 0};
        struct ap_strbuf csv = {0};
        int n = seed == 1 ? 4 : 7;
        ap_strbuf_add(&csv, "src,dst,delay_ms,rate_mbit,jitter_ms\n");
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++)
                if (a != b)
                    ap_strbuf_addf(&csv, "s%d,s%d,%g,%g,%g\n", a, b,
                                   5 + 100 *
                                           ap_rng_uniform(seed, AP_RNG_TEST, (uint64_t)(a < b ? a * n + b : b * n + a)),
                                   200 + 500 * ap_rng_uniform(seed, AP_RNG_TEST, (uint64_t)(1000 + a * n + b)),
                                   seed == 3 ? 0.5 : 0.0);
        char *text = ap_strbuf_take(&csv);
        make(&m, text, seed);
        free(text);
        for (int i = 0; i < n; i++) {
            m.sites[i].egress_mbit = egress[i];
            m.sites[i].ingress_mbit = ingress[i];
        }
        measure(&m, seed, &o, 1);
        expect_true(&m);
        expect_caps(&m, egress, ingress);
        clear(&m);
    }
}

/* 4096 ranks on 12 sites, the measured round trips of a cloud, a gateway before each site. */
AP_TEST(probe, thousands)
{
    struct ap_error err = {0};
    struct ap_probe_options o = AP_PROBE_OPTIONS_DEFAULT;
    struct machine m;
    char *text = NULL;
    double cap[12];
    int nodes = fewer("nodes of a site", 43, 2);
    o.block = fewer("bytes of a message", (int)o.block, 1 << 19);
    cr_assert_eq(ap_io_read_text(AP_TEST_INPUTS "/wan/aws12.csv", 1 << 20, &text, &err), AP_OK, "%s", err.text);
    make(&m, text, 1);
    free(text);
    cr_assert_eq(m.net->n, 12);
    for (int i = 0; i < 12; i++) {
        m.sites[i].nodes = i < 8 ? nodes : nodes - 1;
        m.sites[i].ranks_per_node = 8;
        m.sites[i].site_gbit = 100;
        m.sites[i].node_gbit = 2400;
        cap[i] = i % 3 == 2 ? 0 : 10000;
        m.sites[i].egress_mbit = m.sites[i].ingress_mbit = cap[i];
    }
    measure(&m, 1, &o, 1);
    cr_expect_eq(m.places.ranks, nodes == 43 ? 4096 : 160);
    const double *spent = m.result.spent;
    cr_log_info("%d ranks: %.2f s of simulated time: round trips %.2f, inside %.2f, sites %.2f, again %.2f, load %.2f, "
                "told %.2f",
                m.places.ranks, m.result.seconds, spent[AP_PROBE_STEP_TRIPS], spent[AP_PROBE_STEP_INSIDE],
                spent[AP_PROBE_STEP_WAN], spent[AP_PROBE_STEP_AGAIN], spent[AP_PROBE_STEP_LOAD],
                spent[AP_PROBE_STEP_SHARE]);
    double sum = 0;
    for (int i = 0; i < AP_PROBE_STEPS; i++)
        sum += spent[i];
    cr_expect_float_eq(sum, m.result.seconds, 1e-6, "%g of %g s", sum, m.result.seconds);
    expect_true(&m);
    expect_caps(&m, cap, cap);
    cr_expect_lt(m.result.seconds, 10, "%g s", m.result.seconds);
    clear(&m);
}

/* ---- what is written */

static struct ap_probe_fact *invent_facts(const struct machine *m)
{
    struct ap_probe_fact *facts = calloc((size_t)m->places.ranks, sizeof *facts);
    cr_assert_not_null(facts);
    for (int r = 0; r < m->places.ranks; r++) {
        int node = m->places.node[r];
        facts[r] = (struct ap_probe_fact){.flops = 1e11 * (1 + node % 2), .memory = 8e9, .memory_bandwidth = 2e10};
        /* Names that the format cannot hold, one of them twice. */
        snprintf(facts[r].host, sizeof facts[r].host, "%s", node < 2 ? "al,pha 1" : "");
        if (node >= 2)
            snprintf(facts[r].host, sizeof facts[r].host, "beta<%d>", node);
        snprintf(facts[r].device, sizeof facts[r].device, "cpu");
        facts[r].work.at[AP_WORK_WHOLE][AP_WORK_DENSE] = (struct ap_work_time){1e-6 * (r + 1), 2e-6};
        facts[r].work.add = 3e-9;
        facts[r].group = (struct ap_topo_link){1e-5 * (node + 1), 2e9};
        facts[r].sum = 1e9;
        snprintf(facts[r].place, sizeof facts[r].place, "socket 0, NUMA %d", r % 2);
    }
    return facts;
}

static int count_text(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
        n++;
    return n;
}

AP_TEST(probe, written_and_read_back)
{
    struct ap_probe_options o = AP_PROBE_OPTIONS_QUICK;
    struct ap_error err = {0};
    struct machine m;
    make(&m, "src,dst,delay_ms,rate_mbit\na,b,10,400\nb,a,10,100\na,c,60,200\nb,c,55,200\n", 3);
    m.sites[1].egress_mbit = 150;
    measure(&m, 3, &o, 1);
    struct ap_probe_fact *facts = invent_facts(&m);
    struct ap_probe_report r = {.places = &m.places,
                                .result = &m.result,
                                .facts = facts,
                                .date = "2026-11-25T09:00:00Z",
                                .job = "jo,b",
                                .job_identity = "0123456789abcdef0123456789abcdef",
                                .measured_by = "invention"};
    struct ap_topology *t = NULL, *back = NULL;
    cr_assert_eq(ap_probe_report_topology(&r, &t, &err), AP_OK, "%s", err.text);
    cr_expect_str_eq(t->nodes[0].name, "al-pha-1");
    cr_expect_str_eq(t->nodes[1].name, "al-pha-1-2");
    cr_expect_str_eq(t->sites[0].name, "al-pha");
    cr_expect_str_eq(t->sites[1].name, "beta");
    cr_expect_str_eq(t->sites[2].name, "beta-2");
    expect_rate(t->wan[0 * 3 + 1].bandwidth, 400e6 / 8, "link", 0, 1);
    expect_rate(t->wan[1 * 3 + 0].bandwidth, 100e6 / 8, "link", 1, 0);
    expect_rate(t->sites[1].egress, 150e6 / 8, "egress", 1, 1);
    char *csv = ap_probe_report_csv(&r, t), *text = ap_probe_report_text(&r, t), *json = ap_probe_report_json(&r, t);
    char *svg = ap_probe_report_svg(&r, t);
    cr_assert(csv != NULL && text != NULL && json != NULL && svg != NULL);
    cr_expect_str_eq(t->work_job, "jo-b");
    cr_expect_eq(t->work[5].at[AP_WORK_WHOLE][AP_WORK_DENSE].forward, 6e-6);
    cr_expect_eq(t->work[5].add, 3e-9);
    cr_expect_eq(t->nodes[1].group.latency, 2e-5);
    cr_expect_eq(t->nodes[1].sum, 1e9);
    cr_expect(strstr(text, "a token there and back: front") == NULL && strstr(text, " dense 3 us") != NULL, "%s", text);
    cr_assert_eq(ap_topology_parse("topology.csv", csv, strlen(csv), &back, &err), AP_OK, "%s", err.text);
    cr_expect_str_eq(back->date, r.date);
    cr_expect_eq(back->rank_count, m.places.ranks);
    cr_expect_eq(back->guessed_links, 0);
    for (int a = 0; a < t->node_count; a++)
        for (int b = 0; b < t->node_count; b++) {
            struct ap_topo_link x = ap_topology_link(t, a, b), y = ap_topology_link(back, a, b);
            cr_expect(fabs(x.latency - y.latency) < 1e-9 && fabs(x.bandwidth / y.bandwidth - 1) < 1e-9, "%d %d", a, b);
        }
    cr_expect_not_null(strstr(csv, "# rank 0: host al,pha 1, socket 0, NUMA 0, device cpu\n"));
    cr_expect_not_null(strstr(text, "14 ranks on 7 nodes at 3 sites"), "%s", text);
    cr_expect_not_null(strstr(text, "asymmetric: al-pha to beta "), "%s", text);
    cr_expect_not_null(strstr(text, "regions: 2, within 20"), "%s", text);
    cr_expect_not_null(strstr(text, "connections between two sites: 4\n"), "%s", text);
    cr_expect_not_null(strstr(text, "between sites 0."), "%s", text);
    cr_expect_not_null(strstr(json, "\"connections\": 4"), "%s", json);
    cr_expect_not_null(strstr(json, "\"egress_gbit_per_s\": 0.1"), "%s", json);
    cr_expect_eq(count_text(svg, "<rect"), 1 + 2 * (14 * 14 + 48));
    cr_expect_eq(count_text(svg, "<text"), count_text(svg, "</text>"));
    cr_expect_eq(count_text(svg, "beta<"), 0, "text is escaped");
    free(csv);
    free(text);
    free(json);
    free(svg);
    free(facts);
    ap_topology_destroy(t);
    ap_topology_destroy(back);
    clear(&m);
}

/* ---- the same over communicators, in real time: what is measured is this machine, so only its form is checked */

#define THREADS 6

struct worker {
    struct ap_comm *comm;
    struct ap_probe_result result;
    struct ap_probe_places places;
    ap_status status;
    int nodes, sites;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct ap_probe_net *net = NULL;
    struct ap_error err = {0};
    struct ap_probe_options o = AP_PROBE_OPTIONS_QUICK;
    o.seconds = o.seconds_least = 0.002;
    o.lan_bytes = 1 << 18;
    o.most_bytes = 1 << 20; /* round trips between threads vary a lot: runs would get long */
    o.settle = w->sites > 1;
    o.repeats = w->sites > 1 ? 3 : 2;
    w->places = (struct ap_probe_places){.ranks = THREADS, .nodes = w->nodes, .sites = w->sites};
    w->places.node = calloc(THREADS, sizeof *w->places.node);
    w->places.site = calloc(THREADS, sizeof *w->places.site);
    if (w->places.node == NULL || w->places.site == NULL)
        return NULL;
    for (int r = 0; r < THREADS; r++)
        w->places.node[r] = r * w->nodes / THREADS;
    for (int i = 0; i < w->nodes && w->sites > 0; i++)
        w->places.site[i] = i * w->sites / w->nodes;
    w->status = ap_probe_comm_create(w->comm, &net);
    if (w->status == AP_OK)
        w->status = ap_probe_run(net, &o, &w->places, &w->result, &err);
    ap_probe_comm_destroy(net, w->status == AP_OK);
    ap_comm_destroy(w->comm);
    return NULL;
}

static int count_kind(const struct ap_probe_result *r, int kind)
{
    int n = 0;
    for (int64_t i = 0; i < r->count; i++)
        n += r->samples[i].kind == kind;
    return n;
}

static void over_threads(int nodes, int sites)
{
    struct worker w[THREADS] = {0};
    struct ap_comm *comms[THREADS];
    pthread_t id[THREADS];
    cr_assert_eq(ap_comm_virtual(THREADS, comms), AP_OK);
    for (int r = 0; r < THREADS; r++) {
        w[r] = (struct worker){.comm = comms[r], .nodes = nodes, .sites = sites, .status = AP_ERR_BUG};
        cr_assert_eq(pthread_create(&id[r], NULL, work, &w[r]), 0);
    }
    for (int r = 0; r < THREADS; r++)
        pthread_join(id[r], NULL);
    int per_node = THREADS / nodes, found = w[0].places.sites;
    cr_log_info("%d nodes at %d sites: %.2f s, %d directions once", nodes, sites, w[0].result.seconds,
                count_kind(&w[0].result, AP_PROBE_GUESS));
    for (int r = 0; r < THREADS; r++) {
        const struct ap_probe_result *res = &w[r].result;
        cr_assert_eq(w[r].status, AP_OK, "rank %d: %s", r, ap_status_name(w[r].status));
        cr_expect_eq(w[r].places.sites, found);
        cr_assert_eq(res->count, w[0].result.count);
        cr_expect_eq(memcmp(res->samples, w[0].result.samples, (size_t)res->count * sizeof *res->samples), 0,
                     "every rank has the same samples");
        cr_expect_eq(count_kind(res, AP_PROBE_NODE), nodes * 3 * per_node * (per_node - 1) / 2);
        if (sites > 0) {
            cr_expect_eq(count_kind(res, AP_PROBE_WAN), sites * (sites - 1));
            cr_expect_eq(count_kind(res, AP_PROBE_FAR), sites * (sites - 1) / 2);
            int connections = sites > 2 ? sites * (sites - 1) * (THREADS / sites) : 0;
            cr_expect_eq(count_kind(res, AP_PROBE_LOAD_IN), connections);
            cr_expect_eq(count_kind(res, AP_PROBE_LOAD_OUT), connections);
        } else {
            cr_expect_eq(count_kind(res, AP_PROBE_NEAR), nodes * (nodes - 1) / 2);
        }
        for (int64_t i = 0; i < res->count; i++)
            cr_expect(res->samples[i].rtt > 0 || res->samples[i].rate > 0 || res->samples[i].kind >= AP_PROBE_LOAD_OUT);
    }
    for (int r = 0; r < THREADS; r++) {
        ap_probe_result_clear(&w[r].result);
        free(w[r].places.node);
        free(w[r].places.site);
    }
}

AP_TEST(probe, over_communicators, .timeout = 300)
{
    over_threads(1, 1);
    over_threads(3, 0);
    over_threads(6, 3);
    over_threads(3, 2);
}
