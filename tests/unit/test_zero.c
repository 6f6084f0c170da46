/* SPDX-License-Identifier: Apache-2.0
 * Canonical tree and ZeRO-1 reduction: the bits of the sum are those of the naive recursive sum for every
 * number of leaves and ranks, every shard cut and window. */
#include "config.h"

#include <math.h>

#include "../support/leaks.h"
#include "../support/vranks.h"
#include "base/rng.h"
#include "parallel/tree.h"
#include "parallel/zero.h"

TestSuite(zero, .timeout = 120);

TestSuite(tree, .timeout = 120);

#define FLAT 1003

/* Values of very different size, so that another order of additions shows in the bits. */
static float leaf_value(int64_t leaf, int64_t i)
{
    double u = ap_rng_uniform(7, AP_RNG_TEST, (uint64_t)(leaf * FLAT + i));
    double e = ap_rng_uniform(8, AP_RNG_TEST, (uint64_t)(leaf * FLAT + i));
    return (float)((u - 0.5) * pow(10, 8 * e - 4));
}

static float naive(int64_t lo, int64_t hi, int64_t i)
{
    if (hi - lo == 1)
        return leaf_value(lo, i);
    int64_t mid = lo + (hi - lo) / 2;
    return naive(lo, mid, i) + naive(mid, hi, i);
}

AP_TEST(tree, cover_is_maximal_and_complete)
{
    struct ap_tree_node n[AP_TREE_COVER_MAX];
    for (int64_t m = 1; m <= 33; m++)
        for (int64_t lo = 0; lo < m; lo++)
            for (int64_t hi = lo + 1; hi <= m; hi++) {
                int k = ap_tree_cover(m, lo, hi, n);
                cr_assert_eq(n[0].lo, lo);
                cr_assert_eq(n[k - 1].hi, hi);
                for (int i = 1; i < k; i++) {
                    cr_assert_eq(n[i].lo, n[i - 1].hi);
                    cr_assert(!ap_tree_siblings(m, n[i - 1], n[i]), "not maximal");
                }
            }
    cr_assert_eq(ap_tree_cover(8, 0, 8, n), 1);
    cr_assert_eq(ap_tree_cover(8, 3, 3, n), 0);
}

AP_TEST(tree, siblings)
{
    cr_assert(ap_tree_siblings(8, (struct ap_tree_node){0, 4}, (struct ap_tree_node){4, 8}));
    cr_assert(ap_tree_siblings(5, (struct ap_tree_node){0, 2}, (struct ap_tree_node){2, 5}));
    cr_assert(!ap_tree_siblings(8, (struct ap_tree_node){1, 2}, (struct ap_tree_node){2, 3}));
    cr_assert(!ap_tree_siblings(8, (struct ap_tree_node){2, 4}, (struct ap_tree_node){4, 6}));
    cr_assert(!ap_tree_siblings(8, (struct ap_tree_node){0, 1}, (struct ap_tree_node){2, 3}));
}

AP_TEST(tree, leaves_are_contiguous_and_balanced)
{
    for (int64_t m = 1; m <= 40; m++)
        for (int size = 1; size <= m; size++) {
            int64_t at = 0, lo, hi;
            for (int r = 0; r < size; r++) {
                ap_tree_leaves(m, r, size, &lo, &hi);
                cr_assert_eq(lo, at);
                cr_assert(hi - lo == m / size || hi - lo == m / size + 1);
                at = hi;
            }
            cr_assert_eq(at, m);
        }
}

struct reduce_case {
    int64_t leaves, window, flat;
    ap_dtype dtype;
    int cut;     /* how the flat buffer is cut into shards */
    float *sum;  /* [flat] result, put together by the ranks */
    int buffers; /* of rank 0 */
};

static void fill_map(const struct reduce_case *k, int size, int64_t *begin)
{
    for (int r = 0; r <= size; r++)
        begin[r] = k->cut == 0 ? k->flat * r / size : r == 0 ? 0 : r == size ? k->flat : k->flat / 2; /* empty shards */
}

static void reduce(struct vrank *v)
{
    struct reduce_case *k = v->ctx;
    struct ap_backend *be = NULL;
    struct ap_error err = {0};
    int64_t begin[VRANKS_MAX + 1] = {0}, lo, hi;
    fill_map(k, v->comm->size, begin);
    struct ap_shard_map map = {v->comm->size, begin};
    VCHECK(v, ap_backend_open("reference", 0, NULL, &be, &err) == AP_OK);
    struct ap_reducer_options opt = {be, v->comm, &map, k->dtype, k->leaves, NULL, k->window};
    struct ap_reducer *r = NULL;
    VCHECK(v, ap_reducer_create(&opt, &r, &err) == AP_OK);
    if (v->comm->rank == 0)
        k->buffers = ap_reducer_buffers(r);
    ap_reducer_leaves(r, &lo, &hi);
    for (int pass = 0; pass < 3; pass++) { /* buffers are used again; a reset step leaves nothing behind */
        for (int64_t leaf = lo; leaf < hi; leaf++) {
            ap_tensor g = {0};
            VCHECK(v, ap_reducer_begin_leaf(r, &g) == AP_OK);
            for (int64_t i = 0; g.data && i < k->flat; i++)
                ((float *)g.data)[i] += leaf_value(leaf, i);
            if (pass == 1)
                break;
            VCHECK(v, ap_reducer_end_leaf(r) == AP_OK);
        }
        ap_tensor shard = {0};
        if (pass == 1) {
            ap_reducer_reset(r);
            continue;
        }
        VCHECK(v, ap_reducer_finish(r, &shard) == AP_OK);
        VCHECK(v, ap_tensor_count(&shard) == begin[v->comm->rank + 1] - begin[v->comm->rank]);
        memcpy(k->sum + begin[v->comm->rank], shard.data, (size_t)ap_tensor_count(&shard) * sizeof(float));
    }
    ap_reducer_destroy(r);
    ap_backend_close(be);
}

static void check_case(struct reduce_case k, int ranks)
{
    float sum[FLAT];
    memset(sum, 0, sizeof(sum));
    k.sum = sum;
    vranks_run(ranks, reduce, &k);
    for (int64_t i = 0; i < k.flat; i++) {
        float want = naive(0, k.leaves, i);
        cr_assert(memcmp(&want, &sum[i], sizeof(want)) == 0,
                  "%d ranks, %lld leaves, window %lld, element %lld: %a, want %a", ranks, (long long)k.leaves,
                  (long long)k.window, (long long)i, (double)sum[i], (double)want);
    }
    int aligned = (k.leaves & (k.leaves - 1)) == 0 && k.leaves == ranks;
    cr_expect(!aligned || k.buffers == 1, "one leaf for each rank takes one buffer, not %d", k.buffers);
}

AP_TEST(zero, same_bits_for_any_number_of_ranks)
{
    for (int64_t m = 1; m <= 17; m++)
        for (int ranks = 1; ranks <= 8 && ranks <= m; ranks++)
            check_case((struct reduce_case){.leaves = m, .flat = FLAT, .dtype = AP_F32}, ranks);
}

AP_TEST(zero, windows_and_empty_shards)
{
    static const int64_t windows[] = {1, 7, 64, 5000};
    for (size_t w = 0; w < sizeof(windows) / sizeof(windows[0]); w++)
        for (int ranks = 2; ranks <= 5; ranks++) {
            check_case((struct reduce_case){.leaves = 11, .flat = 101, .window = windows[w], .dtype = AP_F32}, ranks);
            check_case((struct reduce_case){.leaves = 8, .flat = 101, .window = windows[w], .dtype = AP_F32, .cut = 1},
                       ranks);
        }
}

static void too_many(struct vrank *v)
{
    int64_t begin[6] = {0, 1, 2, 3, 4, 5};
    struct ap_shard_map map = {v->comm->size, begin};
    struct ap_backend *be = NULL;
    struct ap_error err = {0};
    VCHECK(v, ap_backend_open("reference", 0, NULL, &be, &err) == AP_OK);
    struct ap_reducer_options opt = {be, v->comm, &map, AP_F32, 3, NULL, 0};
    struct ap_reducer *r = NULL;
    VCHECK(v, ap_reducer_create(&opt, &r, &err) == AP_ERR_INPUT && !r);
    VCHECK(v, strstr(err.text, "5 ranks") && strstr(err.hint, "start 3 ranks"));
    ap_backend_close(be);
}

AP_TEST(zero, more_ranks_than_leaves_is_refused_with_the_nearest_count)
{
    vranks_run(5, too_many, NULL);
}

static void out_of_order(struct vrank *v)
{
    int64_t begin[2] = {0, 5};
    struct ap_shard_map map = {1, begin};
    struct ap_backend *be = NULL;
    struct ap_reducer *r = NULL;
    ap_tensor g;
    VCHECK(v, ap_backend_open("reference", 0, NULL, &be, NULL) == AP_OK);
    struct ap_reducer_options opt = {be, v->comm, &map, AP_F32, 2, NULL, 0};
    VCHECK(v, ap_reducer_create(&opt, &r, NULL) == AP_OK);
    VCHECK(v, ap_reducer_end_leaf(r) == AP_ERR_BUG);
    VCHECK(v, ap_reducer_begin_leaf(r, &g) == AP_OK);
    VCHECK(v, ap_reducer_begin_leaf(r, &g) == AP_ERR_BUG);
    VCHECK(v, ap_reducer_end_leaf(r) == AP_OK);
    VCHECK(v, ap_reducer_finish(r, &g) == AP_ERR_BUG);
    ap_reducer_destroy(r);
    ap_backend_close(be);
}

AP_TEST(zero, calls_out_of_order_are_rejected)
{
    vranks_run(1, out_of_order, NULL);
}

static void gather(struct vrank *v)
{
    struct ap_backend *be = NULL;
    int64_t begin[VRANKS_MAX + 1] = {0};
    int n = v->comm->size, r = v->comm->rank;
    VCHECK(v, ap_backend_open("reference", 0, NULL, &be, NULL) == AP_OK);
    for (int i = 0; i <= n; i++)
        begin[i] = (int64_t)i * i;
    struct ap_shard_map map = {n, begin};
    double x[VRANKS_MAX * VRANKS_MAX];
    for (int64_t i = 0; i < begin[n]; i++)
        x[i] = i >= begin[r] && i < begin[r + 1] ? (double)i : -1;
    struct ap_gatherer *g = NULL;
    VCHECK(v, ap_gatherer_create(be, v->comm, &map, AP_F64, &g) == AP_OK);
    VCHECK(v, ap_gatherer_run(g, ap_tensor_1d(x, AP_F32, begin[n])) == AP_ERR_BUG);
    VCHECK(v, ap_gatherer_run(g, ap_tensor_1d(x, AP_F64, begin[n])) == AP_OK);
    for (int64_t i = 0; i < begin[n]; i++)
        VCHECK(v, x[i] == (double)i);
    ap_gatherer_destroy(g);
    ap_backend_close(be);
}

AP_TEST(zero, allgather)
{
    for (int n = 1; n <= 8; n++)
        vranks_run(n, gather, NULL);
}
