/* SPDX-License-Identifier: Apache-2.0
 * Small parts of the trainer: z-scores, router bias, target counts, thread counts. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>

#include "../support/leaks.h"
#include "train/batches.h"
#include "train/environment.h"
#include "train/router_bias.h"
#include "train/zscore.h"

TestSuite(train_parts, .timeout = 120);

AP_TEST(train_parts, zscore)
{
    struct ap_zscore z = {0};
    for (int i = 0; i < AP_ZSCORE_MIN; i++)
        cr_expect(isnan(ap_zscore_push(&z, i % 2)), "too early at %d", i);
    /* 16 values, half 0 and half 1: mean 0.5, deviation 0.5 */
    double score = ap_zscore_push(&z, 2); /* the macros evaluate more than once */
    cr_expect_float_eq(score, 3, 1e-12);
    cr_expect(isnan(ap_zscore_push(&z, NAN)) && isnan(ap_zscore_push(&z, INFINITY)));
    cr_expect_eq(z.count, AP_ZSCORE_MIN + 1);
    for (int i = 0; i < 2 * AP_ZSCORE_WINDOW; i++)
        ap_zscore_push(&z, 7);
    cr_expect_eq(z.count, AP_ZSCORE_WINDOW);
    cr_expect(isnan(ap_zscore_push(&z, 8)), "all equal: no deviation");
    score = ap_zscore_push(&z, 8);
    cr_expect(score > 5);
}

static struct ap_model_config moe(int gate)
{
    return (struct ap_model_config){
        .layers = 3, .first_dense = 1, .moe_layer_freq = 1, .routed_experts = 4, .gate_kind = gate};
}

static void bias_moves(ap_dtype dtype)
{
    struct ap_backend *be = NULL;
    struct ap_router_bias *b = NULL;
    struct ap_model_config cfg = moe(AP_GATE_SIGMOID_NOAUX);
    /* layer 0: mean 10; layer 1: mean 2.5, which no integer equals */
    static const int64_t loads[8] = {10, 20, 0, 10, 2, 3, 3, 2};
    static const double want[8] = {0, -1, 1, 0, 1, -1, -1, 1};
    size_t bytes;
    cr_assert_eq(ap_backend_open("reference", 0, NULL, &be, NULL), AP_OK);
    cr_assert_eq(ap_router_bias_create(be, &cfg, 2, dtype, &b, NULL), AP_OK);
    for (int step = 1; step <= 3; step++) {
        cr_assert_eq(ap_router_bias_update(b, loads, 0.25), AP_OK);
        cr_expect(ap_router_bias_host(b, &bytes) != NULL);
        ap_router_bias_flip(b);
        ap_tensor t = ap_router_bias_tensor(b);
        cr_assert_eq(ap_tensor_count(&t), 8);
        for (int i = 0; i < 8; i++) {
            double got = dtype == AP_F32 ? (double)((float *)t.data)[i] : ((double *)t.data)[i];
            cr_expect_eq(got, 0.25 * step * want[i], "step %d, entry %d: %g", step, i, got);
        }
    }
    /* not flipped: unchanged */
    cr_assert_eq(ap_router_bias_update(b, loads, 100), AP_OK);
    ap_tensor t = ap_router_bias_tensor(b);
    cr_expect(fabs(dtype == AP_F32 ? (double)((float *)t.data)[1] : ((double *)t.data)[1]) < 1);
    ap_router_bias_destroy(b);
    ap_backend_close(be);
}

AP_TEST(train_parts, router_bias_moves_by_the_sign_of_the_difference_to_the_mean)
{
    bias_moves(AP_F32);
    bias_moves(AP_F64);
}

AP_TEST(train_parts, router_bias_is_saved_by_one_rank_and_loaded_by_all)
{
    struct ap_backend *be = NULL;
    struct ap_router_bias *b = NULL;
    struct ap_model_config cfg = moe(AP_GATE_SIGMOID_NOAUX);
    struct ap_named_set set = {0};
    cr_assert_eq(ap_backend_open("reference", 0, NULL, &be, NULL), AP_OK);
    cr_assert_eq(ap_router_bias_create(be, &cfg, 2, AP_F32, &b, NULL), AP_OK);
    cr_assert_eq(ap_router_bias_named(b, 1, &set, NULL), AP_OK);
    cr_assert_eq(set.count, 2);
    cr_expect(set.list[0].end == 4 && set.list[1].shape[0] == 4);
    cr_expect_neq(strcmp(set.list[0].name, set.list[1].name), 0);
    ((float *)set.list[1].data)[3] = 5;
    cr_assert_eq(ap_router_bias_loaded(b), AP_OK);
    cr_expect_eq(((float *)ap_router_bias_tensor(b).data)[7], 5);
    ap_named_set_clear(&set);
    cr_assert_eq(ap_router_bias_named(b, 0, &set, NULL), AP_OK);
    cr_expect(set.list[0].begin == set.list[0].end);
    ap_named_set_clear(&set);
    ap_router_bias_destroy(b);
    ap_backend_close(be);
}

AP_TEST(train_parts, gates_without_bias)
{
    struct ap_backend *be = NULL;
    struct ap_router_bias *b = NULL;
    struct ap_model_config cfg = moe(AP_GATE_SOFTMAX_GREEDY);
    static const int64_t loads[8] = {1};
    cr_assert_eq(ap_backend_open("reference", 0, NULL, &be, NULL), AP_OK);
    cr_assert_eq(ap_router_bias_create(be, &cfg, 2, AP_F32, &b, NULL), AP_OK);
    cr_expect_null(ap_router_bias_tensor(b).data);
    cr_expect_eq(ap_router_bias_update(b, loads, 1), AP_OK);
    ap_router_bias_destroy(b);
    ap_backend_close(be);
}

AP_TEST(train_parts, load_max)
{
    static const int64_t loads[] = {5, 5, 1, 9};
    cr_expect_float_eq(ap_router_load_max(loads, 2, 2), 1.8, 1e-12);
    cr_expect(isnan(ap_router_load_max(loads, 0, 2)));
}

AP_TEST(train_parts, targets_are_counted_as_the_model_counts_them)
{
    struct ap_batches b;
    int64_t ce, mtp;
    cr_assert_eq(ap_batches_create(2, 2, 4, &b), AP_OK);
    struct ap_sample r0 = ap_batches_row(&b, 1, 0), r1 = ap_batches_row(&b, 1, 1);
    static const int32_t t0[4] = {1, 2, -1, 4}, t1[4] = {5, 6, 7, 8};
    memcpy(r0.targets, t0, sizeof(t0));
    memcpy(r1.targets, t1, sizeof(t1));
    ap_batches_count(&b, 1, &ce, &mtp);
    cr_expect_eq(ce, 7);
    /* row 0: only position 0 has a target and a next one; row 1: positions 0..2, never across rows */
    cr_expect_eq(mtp, 4);
    cr_expect_eq(ap_batches_get(&b, 1).targets[4], 5);
    ap_batches_free(&b);
}

AP_TEST(train_parts, threads_of_a_rank)
{
    int64_t online;
    int64_t cpus = ap_environment_cpus(&online);
    cr_expect(cpus >= 1 && cpus <= online);
    cr_expect_eq(ap_environment_threads(100000), cpus < online ? cpus : 1);
    cr_expect_eq(ap_environment_threads(1), cpus);
    cr_expect(ap_environment_memory() > 1 << 20);
}
