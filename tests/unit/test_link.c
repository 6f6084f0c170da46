/* SPDX-License-Identifier: Apache-2.0
 * Links as arithmetic on a virtual clock: delay, rate, queue, loss, reordering; the heap of arrivals; the matrix, the
 * commands and the scenarios, with the place of every error. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "support/leaks.h"
#include "wan/due_heap.h"
#include "wan/link_command.h"

#define MS  INT64_C(1000000)
#define SEC INT64_C(1000000000)

static struct ap_error err;

static struct ap_link_model link_of(struct ap_link_params p)
{
    struct ap_link_model l;
    p.up = 1;
    cr_assert_eq(ap_link_params_check(&p, &err), AP_OK);
    ap_link_model_init(&l, &p, 7, 1);
    return l;
}

static int64_t arrival(struct ap_link_model *l, int64_t now, int64_t bytes)
{
    int64_t at = -1;
    cr_expect_eq(ap_link_model_send(l, now, bytes, &at), AP_LINK_PASS);
    return at;
}

AP_TEST(link_model, delay_and_rate)
{
    struct ap_link_model l = link_of((struct ap_link_params){.delay_ms = 25, .rate_mbit = 12});
    cr_expect_eq(arrival(&l, 0, 1500), 26 * MS); /* 12000 bits take 1 ms */
    cr_expect_eq(arrival(&l, 0, 1500), 27 * MS);
    cr_expect_eq(arrival(&l, MS / 2, 750), 27 * MS + MS / 2);
    cr_expect_eq(arrival(&l, 100 * MS, 1500), 126 * MS, "an idle line is free at once");
    struct ap_link_model free = link_of((struct ap_link_params){.delay_ms = 0.25});
    for (int i = 0; i < 1000; i++)
        cr_expect_eq(arrival(&free, 5, 65535), 5 + MS / 4);
}

/* Offered one and a half times the rate for 10 s, the line delivers the rate to 1 in 10^5 and loses the rest. */
AP_TEST(link_model, long_run_rate)
{
    static const double rates[] = {1, 33.3, 100, 1000, 9999};
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        struct ap_link_model l = link_of((struct ap_link_params){.rate_mbit = rates[r], .delay_ms = 10});
        int64_t first = -1, last = 0, bytes = 0;
        double gap = 1500 * 8e3 / (1.5 * rates[r]);
        int64_t n = rates[r] < 1000 ? (int64_t)(10e9 / gap) : 200000;
        for (int64_t i = 0; i < n; i++) {
            int64_t at;
            if (ap_link_model_send(&l, llround((double)i * gap), 1500, &at) != AP_LINK_PASS)
                continue;
            bytes += first >= 0 ? 1500 : 0;
            first = first < 0 ? at : first;
            last = at;
        }
        double got = (double)bytes * 8e3 / (double)(last - first);
        cr_expect_float_eq(got, rates[r], rates[r] * 1e-5, "%g Mbit/s gave %g", rates[r], got);
        cr_expect_gt(l.packets[AP_LINK_QUEUE_FULL], 0);
        cr_expect_eq(l.packets[AP_LINK_PASS] + l.packets[AP_LINK_QUEUE_FULL], (uint64_t)n);
    }
}

AP_TEST(link_model, queue_drops_the_tail)
{
    struct ap_link_model l = link_of((struct ap_link_params){.rate_mbit = 12, .queue_kb = 6});
    int64_t at;
    for (int i = 1; i <= 4; i++)
        cr_expect_eq(arrival(&l, 0, 1500), i * MS);
    cr_expect_eq(ap_link_model_send(&l, 0, 1500, &at), AP_LINK_QUEUE_FULL);
    cr_expect_eq(ap_link_model_send(&l, MS - 2000, 1500, &at), AP_LINK_QUEUE_FULL);
    cr_expect_eq(arrival(&l, MS, 1500), 5 * MS, "one has left: one fits");
    cr_expect_eq(l.bytes[AP_LINK_QUEUE_FULL], 3000);
    struct ap_link_model tiny = link_of((struct ap_link_params){.rate_mbit = 12, .queue_kb = 0.1});
    cr_expect_eq(arrival(&tiny, 0, 1500), MS, "an idle line takes any packet");
    cr_expect_eq(ap_link_model_send(&tiny, 0, 1500, &at), AP_LINK_QUEUE_FULL);
    struct ap_link_params p = {.rate_mbit = 100, .delay_ms = 75};
    cr_expect_float_eq(ap_link_queue_bytes(&p), 1875000, 1e-6);
    p.delay_ms = 1;
    cr_expect_float_eq(ap_link_queue_bytes(&p), 256000, 1e-6);
}

/* Number of lost ones among n, and of runs of them. */
static int64_t losses(struct ap_link_model *l, int64_t n, int64_t *runs_p)
{
    int64_t lost = 0, before = 0;
    *runs_p = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t at;
        int now = ap_link_model_send(l, i * MS, 100, &at) == AP_LINK_LOST;
        lost += now;
        *runs_p += now && !before;
        before = now;
    }
    return lost;
}

AP_TEST(link_model, loss_is_as_set_and_seeded)
{
    const int64_t n = 200000;
    static const double rates[] = {0.001, 0.01, 0.3};
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        int64_t runs;
        struct ap_link_model l = link_of((struct ap_link_params){.loss = rates[r]});
        double lost = (double)losses(&l, n, &runs), sigma = sqrt((double)n * rates[r] * (1 - rates[r]));
        cr_expect_lt(fabs(lost - (double)n * rates[r]), 4 * sigma, "%g of %g", lost, (double)n * rates[r]);
        cr_expect_float_eq(lost / (double)runs, 1 / (1 - rates[r]), 0.05, "independent losses");
    }
    struct ap_link_model a = link_of((struct ap_link_params){.loss = 0.5}), b = a, other = a, stream = a;
    other.seed = 8;
    stream.stream = 2;
    int differ[3] = {0};
    for (int i = 0; i < 1000; i++) {
        int64_t at;
        enum ap_link_fate f = ap_link_model_send(&a, i, 100, &at);
        differ[0] += f != ap_link_model_send(&b, 2 * i, 900, &at); /* neither time nor size matters */
        differ[1] += f != ap_link_model_send(&other, i, 100, &at);
        differ[2] += f != ap_link_model_send(&stream, i, 100, &at);
    }
    cr_expect_eq(differ[0], 0);
    cr_expect(differ[1] > 400 && differ[1] < 600 && differ[2] > 400 && differ[2] < 600, "%d %d", differ[1], differ[2]);
    struct ap_link_model all = link_of((struct ap_link_params){.loss = 1});
    int64_t runs;
    cr_expect_eq(losses(&all, 1000, &runs), 1000);
}

AP_TEST(link_model, losses_in_runs)
{
    const int64_t n = 1000000;
    int64_t runs;
    struct ap_link_model l = link_of((struct ap_link_params){.loss = 0.02, .burst = 5});
    double lost = (double)losses(&l, n, &runs);
    /* Runs of 5 make the count's variance about 2 x 5 - 1 = 9 times that of independent losses: sigma is 420. */
    cr_expect_float_eq(lost, 20000, 1700, "%g lost", lost);
    cr_expect_float_eq(lost / (double)runs, 5, 0.4, "runs of %g", lost / (double)runs);
}

AP_TEST(link_model, lost_packets_use_the_line)
{
    struct ap_link_model l = link_of((struct ap_link_params){.rate_mbit = 12, .loss = 0.5});
    int64_t at = 0, last = 0;
    for (int i = 1; i <= 100; i++)
        if (ap_link_model_send(&l, 0, 1500, &at) == AP_LINK_PASS)
            cr_expect_eq(at, (last = i * MS));
    cr_expect_gt(last, 90 * MS);
}

AP_TEST(link_model, jitter_keeps_order)
{
    struct ap_link_model l = link_of((struct ap_link_params){.delay_ms = 20, .jitter_ms = 5});
    double sum = 0;
    int64_t least = INT64_MAX, most = 0, last = 0;
    for (int i = 0; i < 20000; i++) { /* far apart: every packet has its own delay */
        int64_t way = arrival(&l, i * 10 * MS, 100) - i * 10 * MS;
        sum += (double)way * 1e-6;
        least = way < least ? way : least;
        most = way > most ? way : most;
    }
    cr_expect(least >= 20 * MS && least < 20 * MS + 5000 && most <= 25 * MS && most > 25 * MS - 5000);
    cr_expect_float_eq(sum / 20000, 22.5, 4 * 5 / sqrt(12 * 20000.0));
    for (int i = 0; i < 20000; i++, last = most) { /* close together */
        most = arrival(&l, SEC * 1000 + i * MS / 10, 100);
        cr_expect_geq(most, last);
    }
}

AP_TEST(link_model, reordered_ones_are_overtaken)
{
    struct ap_link_model l = link_of((struct ap_link_params){.delay_ms = 20, .reorder = 0.1});
    int held = 0;
    for (int i = 0; i < 10000; i++) {
        int64_t way = arrival(&l, i * MS, 100) - i * MS;
        cr_expect(way == 20 * MS || way == 25 * MS, "%lld", (long long)way);
        held += way == 25 * MS;
    }
    cr_expect_float_eq(held, 1000, 120, "%d held back", held);
    struct ap_link_model near = link_of((struct ap_link_params){.delay_ms = 1, .reorder = 1});
    cr_expect_eq(arrival(&near, 0, 100), 2 * MS);
}

AP_TEST(link_model, spike_ends_and_keeps_order)
{
    struct ap_link_model l = link_of((struct ap_link_params){.delay_ms = 25});
    ap_link_model_spike(&l, 10 * SEC, 500, 2);
    cr_expect_eq(arrival(&l, 10 * SEC, 100), 10 * SEC + 525 * MS);
    cr_expect_eq(arrival(&l, 12 * SEC - 1, 100), 12 * SEC - 1 + 525 * MS);
    cr_expect_eq(arrival(&l, 12 * SEC, 100), 12 * SEC - 1 + 525 * MS, "none overtakes those in the spike");
    cr_expect_eq(arrival(&l, 13 * SEC, 100), 13 * SEC + 25 * MS);
}

AP_TEST(link_model, cut_and_changed_rate)
{
    struct ap_link_model l = link_of((struct ap_link_params){.rate_mbit = 12, .delay_ms = 5});
    struct ap_link_params p = l.params;
    int64_t at = -1;
    cr_expect_eq(arrival(&l, 0, 1500), 6 * MS);
    p.up = 0;
    ap_link_model_change(&l, &p);
    cr_expect_eq(ap_link_model_send(&l, 0, 1500, &at), AP_LINK_DOWN);
    cr_expect_eq(at, -1, "set on success only");
    p.up = 1;
    p.rate_mbit = 1.2;
    ap_link_model_change(&l, &p);
    cr_expect_eq(arrival(&l, 0, 1500), 1 * MS + 10 * MS + 5 * MS, "the line is busy until the first has left");
    cr_expect_eq(l.packets[AP_LINK_DOWN], 1);
}

AP_TEST(link_model, senseless_parameters)
{
    static const struct {
        struct ap_link_params p;
        const char *text;
    } bad[] = {
        {{.delay_ms = -1, .up = 1}, "delay_ms is -1, outside of 0 to 60000"},
        {{.loss = 1.5, .up = 1}, "loss is 1.5"},
        {{.rate_mbit = NAN, .up = 1}, "rate_mbit is"},
        {{.queue_kb = INFINITY, .up = 1}, "queue_kb is inf"},
        {{.up = 0.5}, "neither 0 nor 1"},
        {{.burst = 0.5, .up = 1}, "at least one"},
        {{.burst = 2, .loss = 0.7, .up = 1}, "at most 0.666667"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_eq(ap_link_params_check(&bad[i].p, &err), AP_ERR_INPUT);
        cr_expect_not_null(strstr(err.text, bad[i].text), "%s", err.text);
    }
    struct ap_link_params p = AP_LINK_PARAMS_DEFAULT;
    cr_expect_eq(ap_link_params_check(&p, &err), AP_OK);
}

AP_TEST(due_heap, earliest_first_and_equal_ones_in_order)
{
    struct ap_due_heap h = {0};
    enum { N = 5000 };
    static int items[N];
    cr_expect_null(ap_due_heap_take(&h));
    cr_expect_null(ap_due_heap_first(&h));
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            items[i] = (int)(ap_rng_u64(1, AP_RNG_TEST, (uint64_t)(round * N + i)) % 500);
            cr_assert_eq(ap_due_heap_put(&h, items[i], &items[i]), 0);
        }
        for (int i = 0, *last = NULL; i < N; i++) {
            cr_expect_eq(ap_due_heap_first(&h)->item, ap_due_heap_first(&h)->item);
            int *now = ap_due_heap_take(&h);
            if (last != NULL)
                cr_expect(*now > *last || (*now == *last && now > last));
            last = now;
        }
        cr_expect_null(ap_due_heap_take(&h));
    }
    ap_due_heap_clear(&h);
    ap_due_heap_clear(&h);
}

static struct ap_link_net *net_of(const char *text)
{
    struct ap_link_net *net = NULL;
    ap_status status = ap_link_net_parse(text, "m.csv", 3, &net, &err);
    cr_assert_eq(status, AP_OK, "%s", err.text);
    return net;
}

AP_TEST(link_net, header_names_decide)
{
    struct ap_link_net *net = net_of("# a comment\n"
                                     "loss, dst ,src,delay_ms,queue_kb,rate_mbit\r\n"
                                     "0.1,b,a,25,,100\n"
                                     "\n"
                                     ",c,b,5,64,\n"
                                     "0,b,c,6,,10"); /* no newline at the end */
    cr_assert_eq(net->n, 3);
    /* in the order of the rows' cells: b, a, c */
    cr_expect_eq(ap_link_net_find(net, "b"), 0);
    cr_expect_eq(ap_link_net_find(net, "a"), 1);
    cr_expect_eq(ap_link_net_find(net, "c"), 2);
    cr_expect_eq(ap_link_net_find(net, "d"), -1);
    const struct ap_link_params *ab = &ap_link_net_link(net, 1, 0)->params, *ba = &ap_link_net_link(net, 0, 1)->params;
    const struct ap_link_params *bc = &ap_link_net_link(net, 0, 2)->params, *cb = &ap_link_net_link(net, 2, 0)->params;
    cr_expect(ab->loss == 0.1 && ab->delay_ms == 25 && ab->rate_mbit == 100 && ab->up == 1 && ab->queue_kb == 0);
    cr_expect_eq(memcmp(ab, ba, sizeof *ab), 0, "given in one direction: alike in both");
    cr_expect(bc->delay_ms == 5 && bc->queue_kb == 64 && bc->rate_mbit == 10, "blank: as the opposite direction");
    cr_expect(cb->delay_ms == 6 && cb->queue_kb == 64 && cb->rate_mbit == 10 && cb->loss == 0);
    cr_expect_eq(ap_link_net_rtt_ms(net, 0, 2), 11);
    cr_expect_eq(ap_link_net_link(net, 1, 2)->params.up, 0, "a pair not given is down");
    cr_expect_eq(ap_link_net_link(net, 1, 1)->params.up, 0);
    ap_link_net_free(net);
    ap_link_net_free(NULL);
}

AP_TEST(link_net, measured_matrix)
{
    struct ap_link_net *net = net_of("src,dst,rtt_ms,gbit_per_s,egress_usd_per_gb\n"
                                     "aws:us-east-1,aws:eu-west-1,68.25,4.352,0.02\n"
                                     "aws:eu-west-1,aws:us-east-1,,4.1,0.02\n");
    const struct ap_link_params *there = &ap_link_net_link(net, 0, 1)->params;
    const struct ap_link_params *back = &ap_link_net_link(net, 1, 0)->params;
    cr_expect_float_eq(there->delay_ms, 34.125, 1e-12);
    cr_expect_float_eq(there->rate_mbit, 4352, 1e-9);
    cr_expect_float_eq(back->delay_ms, 34.125, 1e-12);
    cr_expect_float_eq(back->rate_mbit, 4100, 1e-9);
    ap_link_net_free(net);
}

/* More sites than fit at first; every link keeps its own cells and draws its own numbers. */
AP_TEST(link_net, large_matrix)
{
    enum { N = 70 };
    char *text = malloc(N * N * 40);
    cr_assert_not_null(text);
    int at = sprintf(text, "src,dst,delay_ms,loss\n");
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            if (i != j)
                at += sprintf(text + at, "s%d,s%d,%d,0.5\n", i, j, 100 * i + j);
    struct ap_link_net *net = net_of(text);
    cr_assert_eq(net->n, N);
    int alike = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            char name[20];
            sprintf(name, "s%d", j);
            int s = ap_link_net_find(net, (sprintf(name, "s%d", i), name));
            int d = ap_link_net_find(net, (sprintf(name, "s%d", j), name));
            if (i == j)
                continue;
            cr_expect_eq(ap_link_net_link(net, s, d)->params.delay_ms, 100 * i + j);
            uint64_t bits = 0;
            for (int k = 0; k < 60; k++) {
                int64_t t;
                bits = bits << 1 | (ap_link_model_send(ap_link_net_link(net, s, d), 0, 1, &t) == AP_LINK_LOST);
            }
            alike += bits == 0;
        }
    cr_expect_eq(alike, 0);
    ap_link_net_free(net);
    free(text);
}

AP_TEST(link_net, errors_have_their_place)
{
    static const struct {
        const char *text, *message, *hint;
        long line, column;
    } bad[] = {
        {"", "no header line that names the columns", "begin with src,dst,delay_ms", 0, 0},
        {"src,dst,delay_ms\n", "at least two sites", "", 1, 0},
        {"src,dst,rate_mbit\na,b,1\n", "the header has no column 'delay_ms'", "", 1, 1},
        {"src,delay_ms\na,1\n", "the header has no column 'dst'", "", 1, 1},
        {"src,dst, delya_ms\na,b,1\n", "there is no column 'delya_ms'", "delay_ms", 1, 10},
        {"src,dst,delay_ms,qqqqqqqq\n", "there is no column 'qqqqqqqq'", "begin with", 1, 18},
        {"src,dst,delay_ms,rtt_ms\n", "column 'rtt_ms' says the same as 'delay_ms'", "", 1, 18},
        {"src,dst,src,delay_ms\n", "column 'src' stands twice", "", 1, 9},
        {"src,dst,delay_ms\na,b,1x\n", "delay_ms must be a number from 0 to 60000, not '1x'", "", 2, 5},
        {"src,dst,delay_ms\na,b,nan\n", "delay_ms must be a number from 0 to 60000, not 'nan'", "", 2, 5},
        {"#\n\nsrc,dst,delay_ms\na,b,  -4\n", "delay_ms must be a number from 0 to 60000, not '-4'", "", 4, 7},
        {"src,dst,rtt_ms\na,b,120001\n", "rtt_ms must be a number from 0 to 120000, not '120001'", "", 2, 5},
        {"src,dst,delay_ms\na,b\n", "2 fields, but the header names 3 columns", "its comma", 2, 3},
        {"src,dst,delay_ms\na,b,1,2\n", "4 fields, but the header names 3 columns", "", 2, 7},
        {"src,dst,delay_ms\na,,1\n", "dst must be a name of 1 to 63 bytes", "", 2, 3},
        {"src,dst,delay_ms\na,b c,1\n", "is no name of a site", "", 2, 3},
        {"src,dst,delay_ms\n*,b,1\n", "src must be a name of 1 to 63 bytes", "", 2, 1},
        {"src,dst,delay_ms\na*,b,1\n", "is no name of a site", "", 2, 1},
        {"src,dst,delay_ms\na,a,1\n", "from a site to itself", "", 2, 1},
        {"src,dst,delay_ms\na,b,1\na,b,1\n", "a to b is given twice", "", 3, 1},
        {"src,dst,delay_ms\na,b,\nb,a,\n", "between a and b is given in neither direction", "", 0, 0},
        {"src,dst,delay_ms,loss,burst\na,b,1,0.9,2\n", "a to b: runs of 2 lost packets", "", 0, 0},
        {"src,dst,delay_ms,up\na,b,1,0.5\n", "a to b: up is 0.5", "", 0, 0},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ap_link_net *net = NULL;
        cr_expect_eq(ap_link_net_parse(bad[i].text, "m.csv", 1, &net, &err), AP_ERR_INPUT);
        cr_expect_null(net);
        cr_expect_not_null(strstr(err.text, bad[i].message), "case %zu: %s", i, err.text);
        cr_expect_not_null(strstr(err.hint, bad[i].hint), "case %zu: %s", i, err.hint);
        cr_expect_str_eq(err.file, "m.csv");
        cr_expect(err.line == bad[i].line && err.column == bad[i].column, "case %zu: %ld:%ld", i, err.line, err.column);
    }
    struct ap_link_net *net = NULL;
    char text[] = "src,dst,delay_ms\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,b,1\n";
    cr_expect_eq(ap_link_net_parse(text, "m.csv", 1, &net, NULL), AP_ERR_INPUT);
    cr_expect_neq(ap_link_net_read("/no/such/file.csv", 1, &net, &err), AP_OK);
}

static const char *const three = "src,dst,delay_ms,loss\na,b,10,0\na,c,20,0.5\nb,c,30,0\n";

static void do_line(struct ap_link_net *net, const char *line)
{
    struct ap_link_command c;
    cr_assert_eq(ap_link_command_parse(net, line, &c, &err), AP_OK, "%s: %s", line, err.text);
    cr_assert_eq(ap_link_command_apply(net, &c, 5 * SEC, &err), AP_OK, "%s: %s", line, err.text);
}

static double value(const struct ap_link_net *net, int s, int d, const char *key)
{
    return ap_link_params_get(&ap_link_net_link(net, s, d)->params, ap_link_key_find(key));
}

AP_TEST(link_command, changes_what_it_names)
{
    struct ap_link_net *net = net_of(three);
    do_line(net, "  set a b rate_mbit=10 delay_ms=12.5 \n");
    cr_expect(value(net, 0, 1, "rate_mbit") == 10 && value(net, 0, 1, "delay_ms") == 12.5);
    cr_expect(value(net, 1, 0, "rate_mbit") == 0 && value(net, 1, 0, "delay_ms") == 10, "one direction");
    do_line(net, "cut a b");
    cr_expect(value(net, 0, 1, "up") == 0 && value(net, 1, 0, "up") == 0 && value(net, 0, 2, "up") == 1);
    do_line(net, "heal b a");
    cr_expect(value(net, 0, 1, "up") == 1 && value(net, 1, 0, "up") == 1 && value(net, 0, 1, "rate_mbit") == 10);
    do_line(net, "cut-oneway a c");
    cr_expect(value(net, 0, 2, "up") == 0 && value(net, 2, 0, "up") == 1);
    do_line(net, "heal-oneway a c");
    do_line(net, "cut b *");
    cr_expect(value(net, 0, 1, "up") == 0 && value(net, 1, 0, "up") == 0 && value(net, 2, 1, "up") == 0 &&
                  value(net, 0, 2, "up") == 1,
              "a whole site");
    do_line(net, "heal * *");
    for (int s = 0; s < 3; s++)
        for (int d = 0; d < 3; d++)
            cr_expect_eq(value(net, s, d, "up"), s != d, "the diagonal stays down");
    do_line(net, "spike a b 500 2");
    cr_expect_eq(arrival(ap_link_net_link(net, 0, 1), 6 * SEC, 1250), 6 * SEC + 513 * MS + MS / 2);
    cr_expect_eq(arrival(ap_link_net_link(net, 1, 0), 6 * SEC, 100), 6 * SEC + 10 * MS);
    ap_link_net_free(net);
}

AP_TEST(link_command, caps_of_sites)
{
    struct ap_link_net *net = net_of(three);
    int64_t at;
    do_line(net, "cap * ingress_mbit=40");
    do_line(net, "cap b egress_mbit=80 ingress_mbit=0");
    for (int s = 0; s < 3; s++) {
        cr_expect_eq(net->egress[s].params.rate_mbit, s == 1 ? 80 : 0);
        cr_expect_eq(net->ingress[s].params.rate_mbit, s == 1 ? 0 : 40);
        cr_expect_eq(value(net, s, (s + 1) % 3, "rate_mbit"), 0, "links stay as they are");
    }
    /* All that leaves the site queues for one line, the longest round trip or 256 KB of it; then the tail is dropped.
     */
    cr_expect_eq(net->egress[1].params.queue_kb, 600, "60 ms of 10 MB/s");
    cr_expect_eq(net->ingress[0].params.queue_kb, 300);
    for (int k = 1; k <= 600; k++) {
        cr_expect_eq(ap_link_model_send(&net->egress[1], 0, 1000, &at), AP_LINK_PASS);
        cr_expect_eq(at, k * MS / 10);
    }
    cr_expect_eq(ap_link_model_send(&net->egress[1], 0, 1000, &at), AP_LINK_QUEUE_FULL);
    do_line(net, "set * * delay_ms=200");
    do_line(net, "cap b egress_mbit=80");
    cr_expect_eq(net->egress[1].params.queue_kb, 4000, "0.4 s of 10 MB/s");
    ap_link_net_free(net);
}

AP_TEST(link_command, all_or_none)
{
    struct ap_link_net *net = net_of(three);
    struct ap_link_command c;
    cr_assert_eq(ap_link_command_parse(net, "set * * burst=0.5 loss=0.1", &c, &err), AP_OK);
    cr_expect_eq(ap_link_command_apply(net, &c, 0, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "burst is 0.5"));
    cr_assert_eq(ap_link_command_parse(net, "set a * burst=1", &c, &err), AP_OK);
    do_line(net, "set a c loss=0.8"); /* too much for runs of one */
    cr_expect_eq(ap_link_command_apply(net, &c, 0, &err), AP_ERR_INPUT);
    for (int s = 0; s < 3; s++)
        for (int d = 0; d < 3; d++)
            cr_expect_eq(value(net, s, d, "burst"), 0);
    ap_link_net_free(net);
}

AP_TEST(link_command, errors_have_their_column)
{
    static const struct {
        const char *text, *message, *hint;
        long column;
    } bad[] = {
        {"", "no command", "", 1},
        {"  ct a b", "no command \"ct\"", "cut", 3},
        {"cut a", "cut takes more words: cut A B", "", 1},
        {"cut a b c", "takes fewer words", "", 1},
        {"cut a d", "no site \"d\"", "", 7},
        {"cut a a", "from a site to itself", "", 7},
        {"set a b", "takes more words: set SRC DST key=value", "", 1},
        {"set a b rate=4", "no parameter \"rate\"", "", 9},
        {"set a b delay_m=4", "no parameter \"delay_m\"", "delay_ms", 9},
        {"set a b loss", "\"loss\" has no value", "", 9},
        {"set a b loss=0.1 delay_ms=x", "\"x\" is not a number", "", 27},
        {"set a b loss=2", "2 is outside of 0 to 1", "", 14},
        {"spike a b 500", "takes more words: spike SRC DST MS SECONDS", "", 1},
        {"spike a b -5 1", "-5 is outside", "", 11},
        {"spike a b 5 1e9", "outside", "", 13},
        {"cap a", "takes more words: cap SITE key=value", "", 1},
        {"cap d egress_mbit=4", "no site \"d\"", "", 5},
        {"cap a egres_mbit=4", "no parameter \"egres_mbit\"", "egress_mbit", 7},
        {"cap a egress_mbit=-4", "-4 is outside", "", 19},
        {"cap a egress_mbit=4 rate_mbit=4", "no parameter \"rate_mbit\"", "", 21},
    };
    struct ap_link_net *net = net_of(three);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ap_link_command c;
        cr_expect_eq(ap_link_command_parse(net, bad[i].text, &c, &err), AP_ERR_INPUT);
        cr_expect_not_null(strstr(err.text, bad[i].message), "case %zu: %s", i, err.text);
        cr_expect_not_null(strstr(err.hint, bad[i].hint), "case %zu: %s", i, err.hint);
        cr_expect_eq(err.column, bad[i].column, "case %zu: column %ld", i, err.column);
    }
    ap_link_net_free(net);
}

AP_TEST(link_scenario, is_read_in_order)
{
    struct ap_link_net *net = net_of(three);
    struct ap_link_scenario s;
    cr_assert_eq(ap_link_scenario_parse(net,
                                        "# seconds command\n\n0.5 cut a b # gone\n 0.5 spike b c 100 1\n2 heal a b",
                                        "s.txt", &s, &err),
                 AP_OK, "%s", err.text);
    cr_assert_eq(s.n, 3);
    cr_expect(s.commands[0].at_ns == SEC / 2 && s.commands[0].verb == AP_LINK_CUT);
    cr_expect(s.commands[1].at_ns == SEC / 2 && s.commands[1].verb == AP_LINK_SPIKE && s.commands[1].ms == 100);
    cr_expect(s.commands[2].at_ns == 2 * SEC && s.commands[2].verb == AP_LINK_HEAL);
    ap_link_scenario_clear(&s);
    ap_link_scenario_clear(&s);
    cr_assert_eq(ap_link_scenario_parse(net, "", "s.txt", &s, &err), AP_OK);
    cr_expect_eq(s.n, 0);
    ap_link_net_free(net);
}

AP_TEST(link_scenario, errors_have_their_place)
{
    static const struct {
        const char *text, *message;
        long line, column;
    } bad[] = {
        {"1 cut a b\n0.5 heal a b\n", "before that of the command above", 2, 1},
        {"# one\nnow cut a b\n", "\"now\" is not a number", 2, 1},
        {"-1 cut a b\n", "-1 is outside", 1, 1},
        {"1\n", "no command after the time", 1, 1},
        {"1 cut a b\n\n  2  cut a x\n", "no site \"x\"", 3, 12},
        {"1 set a b los=1\n", "no parameter \"los\"", 1, 11},
    };
    struct ap_link_net *net = net_of(three);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ap_link_scenario s;
        cr_expect_eq(ap_link_scenario_parse(net, bad[i].text, "s.txt", &s, &err), AP_ERR_INPUT);
        cr_expect_not_null(strstr(err.text, bad[i].message), "case %zu: %s", i, err.text);
        cr_expect_str_eq(err.file, "s.txt");
        cr_expect(err.line == bad[i].line && err.column == bad[i].column, "case %zu: %ld:%ld", i, err.line, err.column);
    }
    ap_link_net_free(net);
}
