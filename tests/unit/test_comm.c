/* SPDX-License-Identifier: Apache-2.0
 * Virtual communicators: every collective against values computed by hand, agreement, a rank that leaves. */
#include "config.h"

#include <unistd.h>

#include "../support/comm_checks.h"
#include "../support/leaks.h"
#include "../support/pipe_checks.h"
#include "../support/vranks.h"

TestSuite(comm, .timeout = 120);

static void collectives(struct vrank *v)
{
    struct ap_comm *c = v->comm;
    int n = c->size, r = c->rank;
    int64_t x[2] = {r + 1, -r};
    VCHECK(v, ap_comm_sum_i64(c, x, 2) == AP_OK);
    VCHECK(v, x[0] == (int64_t)n * (n + 1) / 2 && x[1] == -(int64_t)n * (n - 1) / 2);
    int64_t m[2] = {r, -5 - r};
    VCHECK(v, ap_comm_max_i64(c, m, 2) == AP_OK);
    VCHECK(v, m[0] == n - 1 && m[1] == -5);
    int32_t b = r == n - 1 ? 4711 : 0;
    VCHECK(v, ap_comm_bcast(c, &b, sizeof(b), n - 1) == AP_OK && b == 4711);
    VCHECK(v, ap_comm_barrier(c) == AP_OK);

    /* rank i contributes i bytes of value i */
    int64_t bytes[VRANKS_MAX] = {0}, total = 0, mine = 0;
    for (int i = 0; i < n; i++) {
        bytes[i] = i;
        mine += i < r ? i : 0;
        total += i;
    }
    uint8_t all[VRANKS_MAX * VRANKS_MAX];
    memset(all, 255, sizeof(all));
    memset(all + mine, r, (size_t)r);
    VCHECK(v, ap_comm_allgatherv(c, all + mine, bytes, all) == AP_OK);
    for (int64_t i = 0, k = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++, k++)
            VCHECK(v, all[k] == i);
    VCHECK(v, all[total] == 255);
}

AP_TEST(comm, collectives)
{
    for (int n = 1; n <= 8; n++)
        vranks_run(n, collectives, NULL);
}

/* Rank a sends a + b + 1 bytes of value 16 a + b to rank b. */
static void exchange(struct vrank *v)
{
    struct ap_comm *c = v->comm;
    int n = c->size, r = c->rank;
    int64_t sb[VRANKS_MAX] = {0}, so[VRANKS_MAX] = {0}, rb[VRANKS_MAX] = {0}, ro[VRANKS_MAX] = {0}, s = 0, t = 0;
    uint8_t send[512] = {0}, recv[512] = {0};
    for (int i = 0; i < n; i++) {
        sb[i] = rb[i] = r + i + 1;
        so[i] = s;
        ro[i] = t;
        memset(send + s, 16 * r + i, (size_t)sb[i]);
        s += sb[i];
        t += rb[i];
    }
    VCHECK(v, ap_comm_alltoallv(c, send, sb, so, recv, rb, ro) == AP_OK);
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < rb[i]; k++)
            VCHECK(v, recv[ro[i] + k] == 16 * i + r);
}

AP_TEST(comm, alltoallv)
{
    for (int n = 1; n <= 8; n++)
        vranks_run(n, exchange, NULL);
}

static void splits(struct vrank *v)
{
    struct ap_comm *c = v->comm, *sub = NULL;
    /* odd and even ranks, order reversed; the last rank takes no part */
    int color = c->rank == c->size - 1 ? -1 : c->rank % 2;
    VCHECK(v, ap_comm_split(c, color, -c->rank, &sub) == AP_OK);
    VCHECK(v, (sub == NULL) == (color < 0));
    if (!sub)
        return;
    int64_t members = 0;
    for (int i = 0; i < c->size - 1; i++)
        members += i % 2 == color;
    VCHECK(v, sub->size == members && sub->rank == members - 1 - c->rank / 2);
    int64_t sum = c->rank;
    VCHECK(v, ap_comm_sum_i64(sub, &sum, 1) == AP_OK);
    int64_t want = 0;
    for (int i = color; i < c->size - 1; i += 2)
        want += i;
    VCHECK(v, sum == want);
    ap_comm_destroy(sub);
}

AP_TEST(comm, split)
{
    for (int n = 1; n <= 8; n++)
        vranks_run(n, splits, NULL);
}

static void messages(struct vrank *v)
{
    VCHECK(v, check_messages(v->comm) == 0);
    VCHECK(v, check_wrong_messages(v->comm) == 0);
}

AP_TEST(comm, messages)
{
    for (int n = 1; n <= 6; n++)
        vranks_run(n, messages, NULL);
}

static void pipelines(struct vrank *v)
{
    VCHECK(v, check_pipelines(v->comm) == 0);
}

AP_TEST(comm, pipelines)
{
    for (int n = 1; n <= 6; n++)
        vranks_run(n, pipelines, NULL);
}

static void meshes(struct vrank *v)
{
    VCHECK(v, check_meshes(v->comm) == 0);
}

AP_TEST(comm, meshes)
{
    static const int sizes[] = {1, 2, 4, 6, 8, 12, 16};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        vranks_run(sizes[i], meshes, NULL);
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

static void agreement(struct vrank *v)
{
    struct ap_comm *c = v->comm;
    struct ap_error err;
    int who = 99;
    VCHECK(v, ap_comm_agree(c, AP_OK, &who, &err) == AP_OK && who == -1);
    /* ranks 1 and 2 fail differently: all hear of rank 1 */
    ap_status local = c->rank == 1 ? AP_ERR_NOSPACE : c->rank == 2 ? AP_ERR_NUMERIC : AP_OK;
    if (local != AP_OK)
        ap_error_set(&err, local, "from rank %d", c->rank);
    VCHECK(v, ap_comm_agree(c, local, &who, &err) == AP_ERR_NOSPACE);
    VCHECK(v, who == 1 && err.status == AP_ERR_NOSPACE && strcmp(err.text, "from rank 1") == 0);
    VCHECK(v, ap_comm_agree(c, c->rank == 2 ? AP_ERR_IO : AP_OK, NULL, NULL) == AP_ERR_IO);
}

AP_TEST(comm, agree)
{
    for (int n = 3; n <= 8; n++)
        vranks_run(n, agreement, NULL);
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
