/* SPDX-License-Identifier: Apache-2.0
 * Named tensors: the list, its refusals, and range arithmetic. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "../support/leaks.h"
#include "state/named.h"

static struct ap_named tensor(const char *name, ap_dtype dtype, int64_t rows, int64_t cols, int64_t begin, int64_t end,
                              void *data)
{
    struct ap_named t = {.dtype = dtype, .ndim = 2, .shape = {rows, cols}, .begin = begin, .end = end, .data = data};
    snprintf(t.name, sizeof t.name, "%s", name);
    return t;
}

AP_TEST(named, set_finds_every_name_through_growth)
{
    struct ap_named_set set = {0};
    float x = 0;
    for (int i = 0; i < 5000; i++) {
        char name[64];
        snprintf(name, sizeof name, "param/model.layers.%d.mlp.experts.%d.up_proj.weight", i % 60, i);
        struct ap_named t = tensor(name, AP_F32, 1, 1, 0, 1, &x);
        cr_assert_eq(ap_named_set_add(&set, &t, NULL), AP_OK);
    }
    for (int i = 0; i < 5000; i++) {
        char name[64];
        snprintf(name, sizeof name, "param/model.layers.%d.mlp.experts.%d.up_proj.weight", i % 60, i);
        const struct ap_named *t = ap_named_set_find(&set, name);
        cr_assert_not_null(t);
        cr_assert_eq(t - set.list, i);
    }
    cr_assert_null(ap_named_set_find(&set, "param/none"));
    ap_named_set_clear(&set);
    cr_assert_null(ap_named_set_find(&set, "param/model.layers.0.mlp.experts.0.up_proj.weight"));
}

AP_TEST(named, several_ranges_of_one_name_come_first_added_first)
{
    struct ap_named_set set = {0};
    float x[12];
    for (int64_t b = 8; b >= 0; b -= 4) {
        struct ap_named t = tensor("param/w", AP_F32, 3, 4, b, b + 4, x + b);
        cr_assert_eq(ap_named_set_add(&set, &t, NULL), AP_OK);
    }
    for (int i = 0; i < 200; i++) { /* force rehashing in between */
        char name[32];
        snprintf(name, sizeof name, "a/%d", i);
        struct ap_named t = tensor(name, AP_F32, 1, 1, 0, 1, x);
        cr_assert_eq(ap_named_set_add(&set, &t, NULL), AP_OK);
    }
    cr_assert_eq(ap_named_set_find(&set, "param/w")->begin, 8);
    ap_named_set_clear(&set);
}

AP_TEST(named, add_refuses_what_no_state_may_hold)
{
    struct ap_named_set set = {0};
    struct ap_error err;
    float x[12];
    struct ap_named good = tensor("param/w", AP_F32, 3, 4, 0, 6, x);
    cr_assert_eq(ap_named_set_add(&set, &good, &err), AP_OK);
    struct ap_named bad = good;
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "duplicate");
    cr_expect(strstr(err.text, "param/w") != NULL, "%s", err.text);
    bad.begin = 6;
    bad.end = 13;
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "behind the end");
    bad.end = 5;
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "end before begin");
    bad.begin = -1;
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "negative");
    bad = tensor("param/w", AP_F32, 4, 3, 6, 12, x);
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "another shape");
    bad = tensor("param/w", AP_BF16, 3, 4, 6, 12, x);
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "another dtype");
    bad = tensor("param/v", AP_F32, 3, 4, 0, 12, NULL);
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "no data");
    bad = tensor("param/v", AP_F32, INT64_C(1) << 40, INT64_C(1) << 40, 0, 1, x);
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "overflow");
    bad = tensor("param/v", (ap_dtype)77, 3, 4, 0, 1, x);
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "no such dtype");
    const char *names[] = {"",    "/",   "/a",   "a/",   "a//b", "a/../b",  "..",
                           "./a", "a b", "a\"b", "a\\b", "a\nb", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bad = tensor(names[i], AP_F32, 3, 4, 0, 12, x);
        cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG, "name \"%s\"", names[i]);
    }
    memset(bad.name, 'a', sizeof bad.name); /* no end */
    cr_expect_eq(ap_named_set_add(&set, &bad, &err), AP_ERR_BUG);
    cr_expect_eq(set.count, 1);
    ap_named_set_clear(&set);
}

AP_TEST(named, intersect_matches_counting_elements)
{
    for (int64_t a0 = 0; a0 < 6; a0++)
        for (int64_t a1 = a0; a1 < 6; a1++)
            for (int64_t b0 = 0; b0 < 6; b0++)
                for (int64_t b1 = b0; b1 < 6; b1++) {
                    int64_t begin, end, n = 0, first = -1;
                    for (int64_t i = 0; i < 6; i++)
                        if (i >= a0 && i < a1 && i >= b0 && i < b1) {
                            n++;
                            first = first < 0 ? i : first;
                        }
                    cr_assert_eq(ap_range_intersect(a0, a1, b0, b1, &begin, &end), n);
                    cr_assert_eq(end - begin, n);
                    if (n > 0)
                        cr_assert_eq(begin, first);
                }
}

AP_TEST(named, copy_overlap_moves_the_common_elements_only)
{
    uint16_t src_data[6], dst_data[8];
    for (int i = 0; i < 6; i++)
        src_data[i] = (uint16_t)(100 + i); /* elements 4..9 */
    memset(dst_data, 0, sizeof dst_data);
    struct ap_named src = tensor("w", AP_BF16, 3, 4, 4, 10, src_data), dst = tensor("w", AP_BF16, 3, 4, 0, 8, dst_data);
    cr_assert_eq(ap_named_copy_overlap(&dst, &src), 4);
    for (int i = 0; i < 8; i++)
        cr_expect_eq(dst_data[i], i < 4 ? 0 : 100 + i - 4);
    dst.dtype = AP_U16;
    cr_assert_eq(ap_named_copy_overlap(&dst, &src), -1);
    dst = tensor("w", AP_BF16, 3, 4, 10, 12, dst_data);
    cr_assert_eq(ap_named_copy_overlap(&dst, &src), 0);
}
