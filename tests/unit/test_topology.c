/* SPDX-License-Identifier: Apache-2.0
 * topology.csv both ways, matrices between sites, and every mistake with its place. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/topology.h"
#include "support/leaks.h"

#define HEAD "kind,a,b,site,node,per_node,device,gflops,memory_gb,memory_gb_per_s,latency_us,gbit_per_s\n"

static ap_status parse(const char *text, struct ap_topology **t_p, struct ap_error *err)
{
    return ap_topology_parse("t.csv", text, strlen(text), t_p, err);
}

/* What is read is written, and read back to the same text. */
static void round_trip(const struct ap_topology *t)
{
    struct ap_error err = {0};
    struct ap_topology *again = NULL;
    char *first = ap_topology_csv(t);
    cr_assert_not_null(first);
    cr_assert_eq(parse(first, &again, &err), AP_OK, "%s in\n%s", err.text, first);
    char *second = ap_topology_csv(again);
    cr_assert_str_eq(first, second);
    cr_assert_eq(again->rank_count, t->rank_count);
    for (int i = 0; i < t->rank_count; i++)
        cr_expect_str_eq(t->nodes[t->ranks[i].node].name, again->nodes[again->ranks[i].node].name);
    ap_topology_destroy(again);
    free(first);
    free(second);
}

AP_TEST(topology, compact)
{
    struct ap_topology *t = NULL;
    struct ap_error err = {0};
    const char *text =
        "# antipode topology 1\n# date 2026-11-25T09:00:00Z\n" HEAD "rank,0-2047,,paris,p,8,h100,400000,80,3000,,\n"
        "rank,2048-4095,,tokyo,t,8,h100,300000,80,3000,,\n"
        "\n"
        "node,*,,,,,,,,,2,3600\n"
        "site,paris,,,,,,,,,10,400\n"
        "site,*,,,,,,,,,12,200\n"
        "link,paris,tokyo,,,,,,,,120000,10\n"
        "egress,tokyo,,,,,,,,,,25\n";
    cr_assert_eq(parse(text, &t, &err), AP_OK, "%s", err.text);
    cr_expect_eq(t->rank_count, 4096);
    cr_expect_eq(t->node_count, 512);
    cr_expect_eq(t->site_count, 2);
    cr_expect_str_eq(t->date, "2026-11-25T09:00:00Z");
    cr_expect_str_eq(t->nodes[t->ranks[2048].node].name, "t0");
    cr_expect_str_eq(t->nodes[t->ranks[4095].node].name, "t255");
    cr_expect_float_eq(t->ranks[4095].speed, 3e14, 1);
    cr_expect_float_eq(ap_topology_link(t, 0, 0).bandwidth, 4.5e11, 1);
    cr_expect_float_eq(ap_topology_link(t, 0, 1).latency, 10e-6, 1e-12);
    cr_expect_float_eq(ap_topology_link(t, 300, 301).latency, 12e-6, 1e-12);
    cr_expect_float_eq(ap_topology_link(t, 300, 0).latency, 0.12, 1e-12,
                       "a direction that is missing is like the other");
    cr_expect_float_eq(t->sites[1].egress, 25e9 / 8, 1);
    char *out = ap_topology_csv(t);
    cr_assert_not_null(out);
    int lines = 0;
    for (const char *s = out; *s != '\0'; s++)
        lines += *s == '\n';
    cr_expect_leq(lines, 12, "4096 ranks are a few lines:\n%s", out);
    free(out);
    round_trip(t);
    ap_topology_destroy(t);
}

/* Pairs of ranks as a probe lists them, columns in another order, quotes, blanks. */
AP_TEST(topology, pairs_are_folded)
{
    struct ap_topology *t = NULL;
    struct ap_error err = {0};
    const char *text =
        "gbit_per_s , latency_us,kind,a,b,site,node,gflops,memory_gb\r\n"
        ",,rank,0,,\"A\",a0,100,8\r\n,,rank,1,,A,a0,50,8\r\n,,rank,2,,A,a1,100,8\r\n,,rank,3,,B,b,100,8\n"
        "40,2,pair,0,1\n30,3,pair,1,0\n"
        "8,50,pair,0,2\n7,60,pair,1,2\n6,70,pair,2,0\n9,40,pair,2,1\n"
        "1,10000,pair,0,3\n2,11000,pair,1,3\n1,9000,pair,2,3\n0.5,9000,pair,3,2\n";
    cr_assert_eq(parse(text, &t, &err), AP_OK, "%ld:%ld %s", err.line, err.column, err.text);
    cr_expect_eq(t->node_count, 3);
    cr_expect_str_eq(t->ranks[0].device, "cpu");
    cr_expect_float_eq(t->nodes[0].inside.latency, 3e-6, 1e-12, "the slowest pair");
    cr_expect_float_eq(t->nodes[0].inside.bandwidth, 30e9 / 8, 1);
    cr_expect_float_eq(ap_topology_link(t, 0, 1).bandwidth, 7e9 / 8, 1);
    cr_expect_float_eq(ap_topology_link(t, 1, 0).latency, 70e-6, 1e-12);
    cr_expect_float_eq(ap_topology_link(t, 0, 2).latency, 9e-3, 1e-12, "the fastest pair between sites");
    cr_expect_float_eq(ap_topology_link(t, 0, 2).bandwidth, 2e9 / 8, 1);
    cr_expect_float_eq(ap_topology_link(t, 2, 0).bandwidth, 0.5e9 / 8, 1);
    round_trip(t);
    ap_topology_destroy(t);
}

AP_TEST(topology, mistakes)
{
    const char *r0 = "rank,0,,s,n,,cpu,100,8,,,\n";
    const struct {
        const char *before, *line;
        ap_status status;
        long at, column;
        const char *text;
    } cases[] = {
        {"", "", AP_ERR_INPUT, 1, 0, "no line of kind rank"},
        {"", "rnak,0,,s,n,,cpu,100,8,,,\n", AP_ERR_INPUT, 2, 1, "there is no kind of line 'rnak'"},
        {"", "rank,x,,s,n,,cpu,100,8,,,\n", AP_ERR_INPUT, 2, 6, "a rank or a range of ranks"},
        {"", "rank,5-3,,s,n,,cpu,100,8,,,\n", AP_ERR_INPUT, 2, 6, "a rank or a range of ranks"},
        {"", "rank,0-99999999,,s,n,,cpu,100,8,,,\n", AP_ERR_INPUT, 2, 6, "below 65536"},
        {"", "rank,1,,s,n,,cpu,100,8,,,\n", AP_ERR_INPUT, 2, 0, "rank 0 is missing"},
        {"", "rank,0,,,n,,cpu,100,8,,,\n", AP_ERR_INPUT, 2, 9, "site must be a name"},
        {"", "rank,0,,s,n,,cpu,fast,8,,,\n", AP_ERR_INPUT, 2, 18, "gflops must be a number"},
        {"", "rank,0,,s,n,,cpu,-1,8,,,\n", AP_ERR_INPUT, 2, 18, "gflops must be a number"},
        {"", "rank,0,,s,n,,cpu,nan,8,,,\n", AP_ERR_INPUT, 2, 18, "gflops must be a number"},
        {"", "rank,0,,s,n,,cpu,100,,,,\n", AP_ERR_INPUT, 2, 22, "memory_gb must be a number"},
        {"", "rank,0-3,,s,n,1.5,cpu,100,8,,,\n", AP_ERR_INPUT, 2, 15, "per_node must be a whole number"},
        {"", "rank,0,,s,n,,cpu,100,8,,,,,\n", AP_ERR_INPUT, 2, 27, "14 fields, but the header names 12 columns"},
        {"", "rank,\"0,,s\n", AP_ERR_INPUT, 2, 6, "the quote is not closed"},
        {r0, "rank,0,,s,n,,cpu,100,8,,,\n", AP_ERR_INPUT, 3, 6, "rank 0 was given before"},
        {r0, "rank,1,,q,n,,cpu,100,8,,,\n", AP_ERR_INPUT, 3, 9, "node 'n' stood at site 's' before"},
        {r0, "rank,1,,s,n,,cpu,100,8,,,\n", AP_ERR_INPUT, 0, 0, "node 'n' has 2 ranks, but nothing says how they are"},
        {r0, "rank,1,,s,m,,cpu,100,8,,,\n", AP_ERR_INPUT, 0, 0,
         "site 's' has 2 nodes, but nothing says how 'n' and 'm'"},
        {r0, "rank,1,,q,m,,cpu,100,8,,,\n", AP_ERR_INPUT, 0, 0, "no link joins the sites 's' and 'q'"},
        {r0, "node,x,,,,,,,,,1,1\n", AP_ERR_INPUT, 3, 6, "no rank is on node 'x'"},
        {r0, "site,s,,,,,,,,,1\n", AP_ERR_INPUT, 3, 1, "gbit_per_s must be a number"},
        {r0, "node,n,,,,,,,,,1,1\nnode,n,,,,,,,,,1,1\n", AP_ERR_INPUT, 4, 6, "this link was given before"},
        {r0, "link,s,s,,,,,,,,1,1\n", AP_ERR_INPUT, 3, 8, "both ends are 's'"},
        {r0, "pair,0,7,,,,,,,,1,1\n", AP_ERR_INPUT, 3, 8, "b must be one of the ranks 0 to 0"},
        {r0, "pair,0,0,,,,,,,,1,1\n", AP_ERR_INPUT, 3, 8, "both ends are '0'"},
        {r0, "egress,s,,,,,,,,,,0\n", AP_ERR_INPUT, 3, 19, "gbit_per_s must be a number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        struct ap_topology *t = NULL;
        struct ap_error err = {0};
        snprintf(text, sizeof text, "%s%s%s", HEAD, cases[i].before, cases[i].line);
        cr_expect_eq(parse(text, &t, &err), cases[i].status, "case %zu", i);
        cr_expect_null(t);
        cr_expect(strstr(err.text, cases[i].text) != NULL, "case %zu: '%s' has no '%s'", i, err.text, cases[i].text);
        cr_expect(err.line == cases[i].at && err.column == cases[i].column, "case %zu: at %ld:%ld: %s", i, err.line,
                  err.column, err.text);
    }
}

#define HEAD2 "# antipode topology 2\n" HEAD_OF_WORK
#define HEAD_OF_WORK                                                                                                   \
    "kind,a,b,site,node,per_node,device,gflops,memory_gb,memory_gb_per_s,latency_us,gbit_per_s,cut,forward_ns,"        \
    "backward_ns\n"
#define JOB_LINE "job,0123456789abcdef0123456789abcdef,quick\n"

/* What was measured of a job, of the ranks of a node together, and of their sums. */
AP_TEST(topology, work)
{
    struct ap_topology *t = NULL;
    struct ap_error err = {0};
    const char *text = HEAD2 "rank,0-3,,s,n,2,cpu,100,8,,,\n" JOB_LINE "work,0-2,moe,,,,,,,,,,whole,1000,2500.5\n"
                             "work,0-2,moe,,,,,,,,,,tensor2,600,1300\nwork,3,moe,,,,,,,,,,whole,4000,9000\n"
                             "work,0-2,moe,,,,,,,,,,expert2,900,2000\nwork,0-3,back,,,,,,,,,,whole,0,700\n"
                             "work,0-3,gradient,,,,,,,,,,whole,0.25,0.75\nnode,*,,,,,,,,,1,40\nsite,*,,,,,,,,,9,10\n"
                             "group,n0,,,,,,,,,7,16\ngroup,*,,,,,,,,,8,12\nsum,*,,,,,,,,,,24\n";
    cr_assert_eq(parse(text, &t, &err), AP_OK, "%ld:%ld %s", err.line, err.column, err.text);
    cr_assert_not_null(t->work);
    cr_expect_str_eq(t->work_identity, "0123456789abcdef0123456789abcdef");
    cr_expect_str_eq(t->work_job, "quick");
    cr_expect_float_eq(t->work[2].at[AP_WORK_WHOLE][AP_WORK_MOE].backward, 2500.5e-9, 1e-15);
    cr_expect_float_eq(t->work[1].at[AP_WORK_TENSOR2][AP_WORK_MOE].forward, 600e-9, 1e-15);
    cr_expect_float_eq(t->work[3].at[AP_WORK_WHOLE][AP_WORK_MOE].forward, 4000e-9, 1e-15);
    cr_expect_eq(t->work[3].at[AP_WORK_TENSOR2][AP_WORK_MOE].forward, 0);
    cr_expect_float_eq(t->work[3].clear, 0.25e-9, 1e-18);
    cr_expect_float_eq(t->work[0].add, 0.75e-9, 1e-18);
    cr_expect_float_eq(t->nodes[0].group.latency, 7e-6, 1e-12);
    cr_expect_float_eq(t->nodes[1].group.bandwidth, 12e9 / 8, 1);
    cr_expect_float_eq(t->nodes[1].sum, 24e9 / 8, 1);
    round_trip(t);
    char *out = ap_topology_csv(t);
    cr_assert_not_null(out);
    cr_expect(strncmp(out, "# antipode topology 2\n", 22) == 0, "%s", out);
    cr_expect(strstr(out, "work,0-2,moe,,,,,,,,,,tensor2,600,1300\n") != NULL, "%s", out);
    free(out);
    ap_topology_destroy(t);
}

AP_TEST(topology, work_mistakes)
{
    static const struct {
        const char *lines;
        long at, column;
        const char *text;
    } cases[] = {
        {"work,0,moe,,,,,,,,,,whole,1,1\n", 3, 0, "no line of kind job says which job"},
        {JOB_LINE "work,0,mow,,,,,,,,,,whole,1,1\n", 4, 8, "b cannot be 'mow'"},
        {JOB_LINE "work,0,moe,,,,,,,,,,half,1,1\n", 4, 21, "cut cannot be 'half'"},
        {JOB_LINE "work,0,gradient,,,,,,,,,,tensor2,1,1\n", 4, 26, "cut cannot be 'tensor2'"},
        {JOB_LINE "work,0-1,moe,,,,,,,,,,whole,1,1\n", 4, 6, "a must be some of the ranks 0 to 0"},
        {JOB_LINE "work,x,moe,,,,,,,,,,whole,1,1\n", 4, 6, "a rank or a range of ranks"},
        {JOB_LINE "work,0,moe,,,,,,,,,,whole,-1,1\n", 4, 27, "forward_ns must be a number"},
        {JOB_LINE "work,0,moe,,,,,,,,,,whole,1,\n", 4, 29, "backward_ns must be a number"},
        {JOB_LINE "work,0,moe,,,,,,,,,,whole,1,1\nwork,0,moe,,,,,,,,,,whole,1,1\n", 5, 6, "this work was given before"},
        {JOB_LINE "work,0,moe,,,,,,,,,,tensor2,1,1\n", 4, 0, "rank 0 has no line of kind work with the cut whole"},
        {"job,123,quick\n", 3, 5, "32 hex digits, not '123'"},
        {JOB_LINE JOB_LINE, 4, 5, "the job was given before"},
        {"job,0123456789abcdef0123456789abcdef,\n", 3, 38, "b must be a name"},
        {"sum,n,,,,,,,,,,0\n", 3, 16, "gbit_per_s must be a number"},
        {"sum,*,,,,,,,,,,1\nsum,*,,,,,,,,,,1\n", 4, 5, "this sum was given before"},
        {"group,m,,,,,,,,,1,1\n", 3, 7, "no rank is on node 'm'"},
        {"group,n,,,,,,,,,1,1\ngroup,n,,,,,,,,,1,1\n", 4, 7, "this link was given before"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        struct ap_topology *t = NULL;
        struct ap_error err = {0};
        snprintf(text, sizeof text, "%srank,0,,s,n,,cpu,100,8,,,\n%s", HEAD_OF_WORK, cases[i].lines);
        cr_expect_eq(parse(text, &t, &err), AP_ERR_INPUT, "case %zu", i);
        cr_expect_null(t);
        cr_expect(strstr(err.text, cases[i].text) != NULL, "case %zu: '%s' has no '%s'", i, err.text, cases[i].text);
        cr_expect(err.line == cases[i].at && err.column == cases[i].column, "case %zu: at %ld:%ld: %s", i, err.line,
                  err.column, err.text);
    }
}

AP_TEST(topology, heads)
{
    static const struct {
        const char *text, *want;
        ap_status status;
    } cases[] = {
        {"", "no header line", AP_ERR_INPUT},
        {"# only\n", "no header line", AP_ERR_INPUT},
        {"kind,b\n", "the header has no column 'a'", AP_ERR_INPUT},
        {"kind,a,kind\n", "column 'kind' stands twice", AP_ERR_INPUT},
        {"src,dst,rtt_ms,gbit_per_s\n", "the header has no column 'kind'", AP_ERR_INPUT},
        {"kind,a,site,node\nrank,0,s,n\n", "this line needs the column gflops", AP_ERR_INPUT},
        {"# antipode topology 3\n" HEAD "rank,0,,s,n,,cpu,100,8,,,\n", "version 3", AP_ERR_FORMAT},
        {HEAD JOB_LINE "rank,0,,s,n,,cpu,100,8,,,\nwork,0,moe\n", "this line needs the column cut", AP_ERR_INPUT},
        {"kind,a\xff\n", "not a text in UTF-8", AP_ERR_INPUT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ap_topology *t = NULL;
        struct ap_error err = {0};
        cr_expect_eq(parse(cases[i].text, &t, &err), cases[i].status, "case %zu", i);
        cr_expect(strstr(err.text, cases[i].want) != NULL, "case %zu: '%s' has no '%s'", i, err.text, cases[i].want);
    }
}

/* A matrix between sites; what is blank goes over other sites. */
AP_TEST(topology, wan_matrix)
{
    const char *text = "src,dst,rtt_ms,gbit_per_s,egress_usd_per_gb\n"
                       "A,B,20,4,0.1\nB,A,22,3,0.1\nB,C,100,2,0.1\nA,C,,,\n";
    struct ap_topo_shape shape = {.nodes_per_site = 2,
                                  .ranks_per_node = 3,
                                  .rank = {.device = "any", .speed = 1e11, .memory = 8e9, .memory_bandwidth = 2e10},
                                  .node = {1e-6, 1e10},
                                  .site = {3e-5, 1e9}};
    struct ap_topology *t = NULL;
    struct ap_error err = {0};
    cr_assert_eq(ap_topology_from_wan("w.csv", text, strlen(text), &shape, &t, &err), AP_OK, "%s", err.text);
    cr_expect_eq(t->rank_count, 18);
    cr_expect_eq(t->node_count, 6);
    cr_expect_eq(t->guessed_links, 2);
    cr_expect_float_eq(ap_topology_link(t, 0, 2).latency, 10e-3, 1e-12, "half of the round trip");
    cr_expect_float_eq(ap_topology_link(t, 2, 0).bandwidth, 3e9 / 8, 1);
    cr_expect_float_eq(ap_topology_link(t, 0, 4).latency, 60e-3, 1e-12);
    cr_expect_float_eq(ap_topology_link(t, 0, 4).bandwidth, 2e9 / 8, 1);
    round_trip(t);
    ap_topology_destroy(t);
    t = NULL;
    text = "src,dst,rtt_ms,gbit_per_s\nA,B,,4\n";
    cr_expect_eq(ap_topology_from_wan("w.csv", text, strlen(text), &shape, &t, &err), AP_ERR_INPUT);
    cr_expect(strstr(err.text, "no link joins the sites 'A' and 'B'") != NULL, "%s", err.text);
    text = "src,dst,rtt_ms,gbit_per_s\nA,B,12x,4\n";
    cr_expect_eq(ap_topology_from_wan("w.csv", text, strlen(text), &shape, &t, &err), AP_ERR_INPUT);
    cr_expect(err.line == 2 && err.column == 5, "%ld:%ld %s", err.line, err.column, err.text);
    text = "src,dst,rtt_ms,gbit_per_s\nA,B,12,4\nA,A,1,4\n";
    cr_expect_eq(ap_topology_from_wan("w.csv", text, strlen(text), &shape, &t, &err), AP_ERR_INPUT);
    cr_expect(err.line == 3 && err.column == 3 && strstr(err.text, "to itself") != NULL, "%s", err.text);
    text = "src,dst,rtt_ms,gbit_per_s\nA,B,12,4\nB,A,12,4\nA,B,12,5\n";
    cr_expect_eq(ap_topology_from_wan("w.csv", text, strlen(text), &shape, &t, &err), AP_ERR_INPUT);
    cr_expect(err.line == 4 && strstr(err.text, "a second time") != NULL, "%s", err.text);
    text = "src,dst,gbit_per_s\nA,B,4\n";
    cr_expect_eq(ap_topology_from_wan("w.csv", text, strlen(text), &shape, &t, &err), AP_ERR_INPUT);
    text = "src,dst,rtt_ms,gbit_per_s\n";
    cr_expect_eq(ap_topology_from_wan("w.csv", text, strlen(text), &shape, &t, &err), AP_ERR_INPUT);
    shape.nodes_per_site = 65536;
    text = "src,dst,rtt_ms,gbit_per_s\nA,B,1,4\n";
    cr_expect_eq(ap_topology_from_wan("w.csv", text, strlen(text), &shape, &t, &err), AP_ERR_INPUT);
    cr_expect(strstr(err.text, "more than 65536 ranks") != NULL, "%s", err.text);
}
