/* SPDX-License-Identifier: Apache-2.0
 * The simulated network against the link model it is made of, and against arithmetic. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "support/leaks.h"
#include "wan/link_sim.h"

static struct ap_link_net *parse(const char *csv)
{
    struct ap_link_net *net = NULL;
    struct ap_error err = {0};
    cr_assert_eq(ap_link_net_parse(csv, "m.csv", 5, &net, &err), AP_OK, "%s", err.text);
    return net;
}

static struct ap_link_sim_event next(struct ap_link_sim *s)
{
    struct ap_link_sim_event e = {0};
    cr_assert_eq(ap_link_sim_next(s, &e), AP_OK);
    return e;
}

AP_TEST(link_sim, same_as_the_model)
{
    struct ap_link_net *net = parse("src,dst,delay_ms,rate_mbit,jitter_ms,loss,burst,reorder,queue_kb\n"
                                    "a,b,20,10,3,0.05,3,0.1,30\n");
    struct ap_link_sim *s = NULL;
    struct ap_link_model model;
    static int item[400];
    int route[3], lost = 0, full = 0;
    cr_assert_eq(ap_link_sim_create(5, &s), AP_OK);
    cr_assert_eq(ap_link_sim_add_net(s, net, NULL, NULL), AP_OK);
    cr_assert_eq(ap_link_sim_route(s, 0, 1, route), 1);
    ap_link_model_init(&model, &net->links[1].params, 5, ap_link_sim_line(s, route[0])->stream);
    int64_t expected[400];
    for (int i = 0; i < 400; i++) { /* 1500 bytes every ms: 12 Mbit/s on a line of 10 */
        enum ap_link_fate fate = ap_link_model_send(&model, i * 1000000LL, 1500, &expected[i]);
        if (fate != AP_LINK_PASS)
            expected[i] = -1;
        lost += fate == AP_LINK_LOST;
        full += fate == AP_LINK_QUEUE_FULL;
        cr_assert_eq(ap_link_sim_timer(s, i * 1000000LL, &item[i]), AP_OK);
    }
    cr_assert_gt(lost, 0);
    cr_assert_gt(full, 0);
    int seen = 0;
    for (struct ap_link_sim_event e; (e = next(s)).kind != AP_LINK_SIM_IDLE;) {
        int i = (int)((int *)e.item - item);
        if (e.kind == AP_LINK_SIM_TIMER) {
            cr_assert_eq(ap_link_sim_now(s), i * 1000000LL);
            cr_assert_eq(ap_link_sim_send(s, route, 1, 1500, e.item), AP_OK);
            continue;
        }
        seen++;
        cr_assert_eq(e.bytes, 1500);
        if (e.kind == AP_LINK_SIM_LOST)
            cr_expect_eq(expected[i], -1, "packet %d", i);
        else
            cr_expect_eq(ap_link_sim_now(s), expected[i], "packet %d", i);
    }
    cr_expect_eq(seen, 400);
    ap_link_sim_destroy(s);
    ap_link_net_free(net);
}

/* Three sites; what leaves a is capped at 10 Mbit/s, what enters c at 5. */
AP_TEST(link_sim, caps)
{
    struct ap_link_net *net = parse("src,dst,delay_ms,rate_mbit\na,b,10,100\na,c,30,100\nb,c,20,100\n");
    struct ap_link_sim *s = NULL;
    int ab[3], ac[3], bc[3], cb[3], to_b = 1, to_c = 2;
    double last_b = 0, last_c = 0;
    cr_assert_eq(ap_link_sim_create(1, &s), AP_OK);
    cr_assert_eq(ap_link_sim_add_net(s, net, (double[]){10, 0, 0}, (double[]){0, 0, 5}), AP_OK);
    cr_expect_eq(ap_link_sim_route(s, 0, 1, ab), 2);
    cr_expect_eq(ap_link_sim_route(s, 0, 2, ac), 3);
    cr_expect_eq(ap_link_sim_route(s, 1, 2, bc), 2);
    cr_expect_eq(ap_link_sim_route(s, 2, 1, cb), 1);
    for (int i = 0; i < 100; i++) { /* 1.25 MB to each: far more than a queue of 256 kB */
        cr_assert_eq(ap_link_sim_send(s, ab, 2, 12500, &to_b), AP_OK);
        cr_assert_eq(ap_link_sim_send(s, ac, 3, 12500, &to_c), AP_OK);
    }
    for (struct ap_link_sim_event e; (e = next(s)).kind != AP_LINK_SIM_IDLE;) {
        cr_assert_eq(e.kind, AP_LINK_SIM_ARRIVED, "a cap drops nothing");
        *(e.item == &to_b ? &last_b : &last_c) = (double)ap_link_sim_now(s) * 1e-9;
    }
    /* 2.5 MB at 10 Mbit/s, and the link's own 1 ms and delay; c takes 5 Mbit/s, which is its half: nothing waits. */
    cr_expect_float_eq(last_b, 1.99 + 0.001 + 0.01, 1e-6, "%f", last_b);
    cr_expect_float_eq(last_c, 2.0 + 0.001 + 0.03 + 0.02, 1e-6, "%f", last_c);
    cr_expect_eq(ap_link_sim_add_net(s, net, NULL, NULL), AP_ERR_BUG, "once for a simulation");
    cr_expect_eq(ap_link_sim_send(s, ab, AP_LINK_SIM_HOPS + 1, 1, NULL), AP_ERR_BUG);
    ap_link_sim_destroy(s);
    ap_link_net_free(net);
}

/* Equal times in the order of the calls; a line can be disturbed on its way; what is on its way is freed at the end. */
AP_TEST(link_sim, order_and_changes)
{
    struct ap_link_sim *s = NULL;
    struct ap_link_params p = AP_LINK_PARAMS_DEFAULT;
    int line, item[3];
    p.delay_ms = 5;
    cr_assert_eq(ap_link_sim_create(1, &s), AP_OK);
    cr_assert_eq(ap_link_sim_add(s, &p, &line), AP_OK);
    cr_assert_eq(ap_link_sim_timer(s, 5000000, &item[0]), AP_OK);
    cr_assert_eq(ap_link_sim_send(s, &line, 1, 100, &item[1]), AP_OK);
    cr_assert_eq(ap_link_sim_send(s, NULL, 0, 100, &item[2]), AP_OK);
    cr_expect_eq(next(s).item, &item[2]);
    cr_expect_eq(next(s).item, &item[0]);
    cr_expect_eq(next(s).item, &item[1]);
    ap_link_model_spike(ap_link_sim_line(s, line), ap_link_sim_now(s), 100, 1);
    cr_assert_eq(ap_link_sim_send(s, &line, 1, 100, &item[1]), AP_OK);
    cr_expect_eq(next(s).kind, AP_LINK_SIM_ARRIVED);
    cr_expect_eq(ap_link_sim_now(s), 110000000);
    p.up = 0;
    ap_link_model_change(ap_link_sim_line(s, line), &p);
    cr_assert_eq(ap_link_sim_send(s, &line, 1, 100, &item[1]), AP_OK);
    cr_expect_eq(next(s).kind, AP_LINK_SIM_LOST);
    cr_expect_eq(next(s).kind, AP_LINK_SIM_IDLE);
    cr_assert_eq(ap_link_sim_timer(s, 1, &item[0]), AP_OK);
    ap_link_sim_destroy(s);
    ap_link_sim_destroy(NULL);
}
