/* SPDX-License-Identifier: Apache-2.0
 * What every kind of communicator does, as functions of one rank each (tests/support/vranks.h): each collective against
 * values computed by hand, splits, single messages, the lists of pipelines, meshes, agreement. */
#ifndef AP_TESTS_COMM_CONFORMANCE_H
#define AP_TESTS_COMM_CONFORMANCE_H

#include "pipe_checks.h"
#include "vranks.h"

static inline void conform_collectives(struct vrank *v)
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

/* Rank a sends a + b + 1 bytes of value 16 a + b to rank b. */
static inline void conform_exchange(struct vrank *v)
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

static inline void conform_splits(struct vrank *v)
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

static inline void conform_messages(struct vrank *v)
{
    VCHECK(v, check_messages(v->comm) == 0);
    VCHECK(v, check_wrong_messages(v->comm) == 0);
}

static inline void conform_pipelines(struct vrank *v)
{
    VCHECK(v, check_pipelines(v->comm) == 0);
}

static inline void conform_meshes(struct vrank *v)
{
    VCHECK(v, check_meshes(v->comm) == 0);
}

static inline void conform_agreement(struct vrank *v)
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

#endif
