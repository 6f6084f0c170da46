/* SPDX-License-Identifier: Apache-2.0
 * The MPI communicator under mpirun: every collective against values computed by hand, with the message limit
 * as shipped and lowered so far that the code for large messages runs; split, agreement, ZeRO-1 reduction with
 * the bits of the virtual one. Prints one line from rank 0 and exits 0, or says what failed and exits 1. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/pipe_checks.h"
#include "base/rng.h"
#include "parallel/comm_mpi.h"
#include "parallel/tree.h"
#include "parallel/world.h"
#include "parallel/zero.h"

static int failures;

#define CHECK(c, cond)                                                                                                 \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "rank %d: %s:%d: %s\n", (c)->rank, __FILE__, __LINE__, #cond);                             \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static void sums(struct ap_comm *c)
{
    int64_t v[3] = {c->rank, 1, -c->rank}, n = c->size;
    CHECK(c, ap_comm_sum_i64(c, v, 3) == AP_OK);
    CHECK(c, v[0] == n * (n - 1) / 2 && v[1] == n && v[2] == -v[0]);
    int64_t m[2] = {c->rank, -c->rank};
    CHECK(c, ap_comm_max_i64(c, m, 2) == AP_OK && m[0] == n - 1 && m[1] == 0);
    CHECK(c, ap_comm_barrier(c) == AP_OK);
}

static void moves(struct ap_comm *c)
{
    enum { MOST = 64 };
    int n = c->size, r = c->rank;
    int64_t sb[MOST] = {0}, so[MOST] = {0}, rb[MOST] = {0}, ro[MOST] = {0}, bytes[MOST] = {0};
    int64_t s = 0, t = 0, mine = 0;
    uint8_t *send = calloc(1, 1 << 16), *recv = calloc(1, 1 << 16), *all = calloc(1, 1 << 16);
    if (!send || !recv || !all) {
        failures++;
        return;
    }
    for (int i = 0; i < n; i++) {
        sb[i] = r == i ? 0 : 100 * r + 7 * i; /* rank 0 sends nothing to itself and little to the others */
        rb[i] = r == i ? 0 : 100 * i + 7 * r;
        so[i] = s;
        ro[i] = t;
        memset(send + s, 16 * r + i, (size_t)sb[i]);
        s += sb[i];
        t += rb[i];
        bytes[i] = 50 * i;
        mine += i < r ? bytes[i] : 0;
    }
    CHECK(c, ap_comm_alltoallv(c, send, sb, so, recv, rb, ro) == AP_OK);
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < rb[i]; k++)
            if (recv[ro[i] + k] != (uint8_t)(16 * i + r))
                failures++;
    memset(all + mine, r + 1, (size_t)bytes[r]);
    CHECK(c, ap_comm_allgatherv(c, all + mine, bytes, all) == AP_OK);
    for (int64_t i = 0, k = 0; i < n; i++)
        for (int64_t j = 0; j < bytes[i]; j++, k++)
            if (all[k] != i + 1)
                failures++;
    memset(all, r == 1 % n ? 77 : 0, 5000);
    CHECK(c, ap_comm_bcast(c, all, 5000, 1 % n) == AP_OK && all[0] == 77 && all[4999] == 77);
    free(send);
    free(recv);
    free(all);
}

static void agreement(struct ap_comm *c)
{
    struct ap_error err = {0};
    int who = 5;
    CHECK(c, ap_comm_agree(c, AP_OK, &who, &err) == AP_OK && who == -1);
    ap_status local = AP_OK;
    if (c->rank == c->size - 1)
        local = ap_error_set(&err, AP_ERR_NOSPACE, "disk of the last rank");
    CHECK(c, ap_comm_agree(c, local, &who, &err) == AP_ERR_NOSPACE);
    CHECK(c, who == c->size - 1 && strcmp(err.text, "disk of the last rank") == 0);
}

static void split(struct ap_comm *c)
{
    struct ap_comm *sub = NULL;
    int color = c->size > 1 && c->rank == 0 ? -1 : c->rank % 2;
    CHECK(c, ap_comm_split(c, color, -c->rank, &sub) == AP_OK);
    CHECK(c, (sub == NULL) == (color < 0));
    if (sub)
        sums(sub);
    ap_comm_destroy(sub);
}

enum { FLAT = 777 };

static float value(int64_t leaf, int64_t i)
{
    return (float)(ap_rng_uniform(1, AP_RNG_TEST, (uint64_t)(leaf * FLAT + i)) - 0.5);
}

static float naive(int64_t lo, int64_t hi, int64_t i)
{
    int64_t mid = lo + (hi - lo) / 2;
    return hi - lo == 1 ? value(lo, i) : naive(lo, mid, i) + naive(mid, hi, i);
}

static void reduction(struct ap_comm *c, int64_t leaves, int64_t window)
{
    struct ap_backend *be = NULL;
    struct ap_reducer *r = NULL;
    int64_t begin[65] = {0}, lo, hi;
    for (int i = 0; i <= c->size; i++)
        begin[i] = (int64_t)FLAT * i / c->size;
    struct ap_shard_map map = {c->size, begin};
    if (ap_backend_open("reference", 0, NULL, &be, NULL) != AP_OK) {
        failures++;
        return;
    }
    struct ap_reducer_options opt = {be, c, &map, AP_F32, leaves, NULL, window};
    CHECK(c, ap_reducer_create(&opt, &r, NULL) == AP_OK);
    ap_reducer_leaves(r, &lo, &hi);
    for (int64_t leaf = lo; leaf < hi; leaf++) {
        ap_tensor g;
        CHECK(c, ap_reducer_begin_leaf(r, &g) == AP_OK);
        for (int64_t i = 0; i < FLAT; i++)
            ((float *)g.data)[i] += value(leaf, i);
        CHECK(c, ap_reducer_end_leaf(r) == AP_OK);
    }
    ap_tensor shard;
    float all[FLAT];
    CHECK(c, ap_reducer_finish(r, &shard) == AP_OK);
    memcpy(all + begin[c->rank], shard.data, (size_t)(begin[c->rank + 1] - begin[c->rank]) * sizeof(float));
    struct ap_gatherer *gather = NULL;
    CHECK(c, ap_gatherer_create(be, c, &map, AP_F32, &gather) == AP_OK);
    CHECK(c, ap_gatherer_run(gather, ap_tensor_1d(all, AP_F32, FLAT)) == AP_OK);
    ap_gatherer_destroy(gather);
    for (int64_t i = 0; i < FLAT; i++) {
        float want = naive(0, leaves, i);
        if (memcmp(&want, &all[i], sizeof(want)) != 0)
            failures++;
    }
    ap_reducer_destroy(r);
    ap_backend_close(be);
}

int main(void)
{
    struct ap_world w;
    struct ap_error err = {0};
    if (ap_world_init(&w, &err) != AP_OK) {
        fprintf(stderr, "world: %s\n", err.text);
        return 1;
    }
    struct ap_comm *c = w.comm;
    int mpi = strcmp(c->vt->name, "mpi") == 0, ranks = c->size;
    /* All on one node, unless the caller has placed the same number on each of several. */
    const char *nodes = getenv("AP_TEST_NODES");
    int on_node = nodes != NULL ? c->size / (int)strtol(nodes, NULL, 10) : c->size;
    CHECK(c, w.node_ranks == on_node && w.node_rank == c->rank % on_node);
    failures += check_pipelines(c);
    for (int small = 0; small <= mpi; small++) {
        if (small)
            ap_comm_mpi_limit(c, 40);
        sums(c);
        moves(c);
        agreement(c);
        split(c);
        failures += check_messages(c) + check_wrong_messages(c);
        for (int64_t leaves = c->size; leaves < c->size + 5; leaves++)
            reduction(c, leaves, small ? 33 : 0);
    }
    failures += check_meshes(c);
    int64_t all = failures;
    CHECK(c, ap_comm_sum_i64(c, &all, 1) == AP_OK);
    if (c->rank == 0)
        printf("%s, %d ranks: %lld failures\n", c->vt->name, ranks, (long long)all);
    ap_world_end(&w, 1);
    return all != 0 || failures != 0;
}
