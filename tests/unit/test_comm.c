/* SPDX-License-Identifier: Apache-2.0
 * Virtual communicators: every collective against values computed by hand, agreement, a rank that leaves. */
#include "config.h"

#include <unistd.h>

#include "../support/comm_conformance.h"
#include "../support/leaks.h"

TestSuite(comm, .timeout = 120);

AP_TEST(comm, collectives)
{
    for (int n = 1; n <= 8; n++)
        vranks_run(n, conform_collectives, NULL);
}

AP_TEST(comm, alltoallv)
{
    for (int n = 1; n <= 8; n++)
        vranks_run(n, conform_exchange, NULL);
}

AP_TEST(comm, split)
{
    for (int n = 1; n <= 8; n++)
        vranks_run(n, conform_splits, NULL);
}

AP_TEST(comm, messages)
{
    for (int n = 1; n <= 6; n++)
        vranks_run(n, conform_messages, NULL);
}

AP_TEST(comm, pipelines)
{
    for (int n = 1; n <= 6; n++)
        vranks_run(n, conform_pipelines, NULL);
}

AP_TEST(comm, meshes)
{
    static const int sizes[] = {1, 2, 4, 6, 8, 12, 16};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        vranks_run(sizes[i], conform_meshes, NULL);
}

/* Who waits for a rank that left hears of it; the messages of the others still arrive. */
static void leaver_message(struct vrank *v)
{
    struct ap_comm_request r;
    int32_t x = 0;
    if (v->comm->rank == 1)
        return;
    if (v->comm->rank == 0) {
        VCHECK(v, ap_comm_recv_start(v->comm, &x, sizeof(x), 1, 0, &r) == AP_OK);
        VCHECK(v, ap_comm_wait(v->comm, &r) == AP_ERR_COMM);
        VCHECK(v, ap_comm_recv_start(v->comm, &x, sizeof(x), 1, 0, &r) == AP_OK);
        VCHECK(v, wait_by_tests(v->comm, &r) == AP_ERR_COMM);
        x = 5;
        VCHECK(v, ap_comm_send_start(v->comm, &x, sizeof(x), 2, 0, &r) == AP_OK);
        VCHECK(v, ap_comm_wait(v->comm, &r) == AP_OK);
    } else if (v->comm->rank == 2) {
        VCHECK(v, ap_comm_recv_start(v->comm, &x, sizeof(x), 0, 0, &r) == AP_OK);
        VCHECK(v, ap_comm_wait(v->comm, &r) == AP_OK && x == 5);
    }
}

AP_TEST(comm, a_message_of_a_rank_that_left_is_an_error_and_no_hang)
{
    vranks_run(3, leaver_message, NULL);
}

AP_TEST(comm, agree)
{
    for (int n = 3; n <= 8; n++)
        vranks_run(n, conform_agreement, NULL);
}

static void leaver(struct vrank *v)
{
    if (v->comm->rank == 1)
        return; /* the harness destroys its handle */
    VCHECK(v, ap_comm_barrier(v->comm) == AP_ERR_COMM);
    int64_t x = 1;
    VCHECK(v, ap_comm_sum_i64(v->comm, &x, 1) == AP_ERR_COMM);
}

AP_TEST(comm, a_rank_that_left_is_an_error_and_no_hang)
{
    vranks_run(4, leaver, NULL);
}

static void cancelled(struct vrank *v)
{
    struct ap_comm_request gone, r;
    int32_t lost = 7, x = 0;
    VCHECK(v, ap_comm_recv_start(v->comm, &lost, sizeof(lost), 0, 3, &gone) == AP_OK);
    ap_comm_cancel(v->comm, &gone);
    VCHECK(v, ap_comm_barrier(v->comm) == AP_OK);
    VCHECK(v, ap_comm_recv_start(v->comm, &x, sizeof(x), 0, 3, &r) == AP_OK);
    for (int to = 0; v->comm->rank == 0 && to < v->comm->size; to++) {
        struct ap_comm_request s;
        int32_t y = 100 + to;
        VCHECK(v, ap_comm_send_start(v->comm, &y, sizeof(y), to, 3, &s) == AP_OK);
        VCHECK(v, ap_comm_wait(v->comm, &s) == AP_OK);
    }
    VCHECK(v, ap_comm_wait(v->comm, &r) == AP_OK && x == 100 + v->comm->rank && lost == 7);
}

AP_TEST(comm, a_cancelled_receive_takes_no_message)
{
    vranks_run(3, cancelled, NULL);
}

/* A rank that only pretends to have company: others send what they would be sent. */
AP_TEST(comm, echo)
{
    struct ap_comm *c = NULL, *part = NULL;
    struct ap_comm_request request;
    double seconds = 0;
    int64_t sums[2] = {5, -2}, most = 7, bytes[3] = {2, 3, 1};
    int64_t to[3] = {2, 1, 4}, to_at[3] = {0, 2, 3}, from[3] = {2, 1, 3}, from_at[3] = {5, 3, 0};
    uint8_t all[8] = "ab....", out[8] = "abcdefg", in[8] = ".......";
    cr_assert_eq(ap_comm_echo(3, &seconds, &c), AP_OK);
    cr_expect(c->rank == 0 && c->size == 3);
    cr_expect_eq(ap_comm_sum_i64(c, sums, 2), AP_OK);
    cr_expect(sums[0] == 15 && sums[1] == -6);
    cr_expect_eq(ap_comm_max_i64(c, &most, 1), AP_OK);
    cr_expect_eq(most, 7);
    cr_expect_eq(ap_comm_agree(c, AP_OK, NULL, NULL), AP_OK);
    cr_expect_eq(ap_comm_agree(c, AP_ERR_NOMEM, NULL, NULL), AP_ERR_NOMEM);
    cr_expect_eq(ap_comm_barrier(c), AP_OK);
    cr_expect_eq(ap_comm_allgatherv(c, all, bytes, all), AP_OK);
    cr_expect_str_eq((char *)all, "abab.a", "pieces as far as the own one reaches");
    cr_expect_eq(ap_comm_alltoallv(c, out, to, to_at, in, from, from_at), AP_OK);
    cr_expect_str_eq((char *)in, "defc.ab", "what goes to a rank comes from it: %s", (char *)in);
    cr_expect_gt(seconds, 0);
    cr_expect_eq(ap_comm_send_start(c, all, 1, 1, 0, &request), AP_ERR_UNSUPPORTED);
    cr_expect_eq(ap_comm_split(c, 0, 0, &part), AP_ERR_UNSUPPORTED);
    ap_comm_destroy(c);
    cr_expect_eq(ap_comm_echo(0, NULL, &c), AP_ERR_BUG);
}
