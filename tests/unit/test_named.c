/* SPDX-License-Identifier: Apache-2.0
 * Named tensors: the list, its refusals, range and slab arithmetic, and whether ranges tile. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/leaks.h"
#include "base/rng.h"
#include "state/named.h"
#include "state/tiling.h"

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

/* ---- slabs of columns ---- */

static struct ap_named slab(int64_t rows, int64_t cols, int64_t col, int64_t width, int64_t begin, int64_t end,
                            void *data)
{
    struct ap_named t = tensor("param/w", AP_I32, rows, cols, begin, end, data);
    t.col = col;
    t.width = width;
    return t;
}

AP_TEST(named, malformed_slabs_are_refused)
{
    static const struct {
        int64_t col, width, begin, end;
        const char *text;
    } bad[] = {
        {0, 5, 0, 1, "outside its shape"},    {3, 2, 0, 1, "outside its shape"},
        {4, 1, 0, 1, "outside its shape"},    {-1, 2, 0, 1, "outside its shape"},
        {1, -1, 0, 0, "outside its shape"},   {1, 0, 0, 1, "outside its shape"},
        {1, INT64_MAX, 0, 1, "outside its"},  {INT64_MAX, 1, 0, 1, "outside its"},
        {1, 2, 0, 7, "outside its elements"}, {1, 2, -1, 2, "outside its elements"},
        {1, 2, 3, 2, "outside its elements"},
    };
    struct ap_named_set set = {0};
    struct ap_error err;
    int32_t x[12];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct ap_named t = slab(3, 4, bad[i].col, bad[i].width, bad[i].begin, bad[i].end, x);
        cr_expect_eq(ap_named_set_add(&set, &t, &err), AP_ERR_BUG, "case %zu", i);
        cr_expect(strstr(err.text, bad[i].text) && strstr(err.text, "param/w"), "case %zu: %s", i, err.text);
    }
    for (int ndim = 0; ndim <= 3; ndim++) {
        struct ap_named t = slab(3, 4, 1, 2, 0, 1, x);
        t.ndim = ndim;
        t.shape[2] = 1;
        cr_expect_eq(ap_named_set_add(&set, &t, &err), ndim == 2 ? AP_OK : AP_ERR_BUG, "%d dimensions", ndim);
        cr_expect(ndim == 2 || strstr(err.text, "not 2-D"), "%s", err.text);
    }
    struct ap_named t = slab(3, 4, 1, 2, 0, 6, x);
    cr_expect_eq(ap_named_set_add(&set, &t, &err), AP_ERR_BUG, "twice");
    t = slab(3, 4, 3, 1, 0, 3, x);
    cr_expect_eq(ap_named_set_add(&set, &t, &err), AP_OK, "another slab may begin at the same element");
    t = slab(3, 4, 0, 4, 0, 12, x);
    t.name[6] = 'v';
    cr_expect_eq(ap_named_set_add(&set, &t, &err), AP_OK);
    cr_expect_eq(ap_named_set_find(&set, "param/v")->width, 0, "all columns are no slab");
    ap_named_set_clear(&set);
}

#define SIDE_MAX   12
#define PIECES_MAX (4 * SIDE_MAX * 3)

static int64_t below(uint64_t *at, int64_t n)
{
    return (int64_t)(ap_rng_u64(2027, AP_RNG_TEST, (*at)++) % (uint64_t)n);
}

/* Elements of columns [col, col + width) among the first e of a tensor of that many columns. */
static int64_t slab_elements_before(int64_t e, int64_t cols, int64_t col, int64_t width)
{
    int64_t in_row = e % cols - col;
    return e / cols * width + (in_row < 0 ? 0 : in_row > width ? width : in_row);
}

/* A random tiling: up to 4 bands that end at any element, each cut into groups of columns (or none), each of them into
 * up to 3 ranges at any element. In any order; ranges may be empty. */
static int random_tiling(uint64_t *at, int64_t rows, int64_t cols, struct ap_named *out)
{
    int n = 0, bands = 1 + (int)below(at, 4);
    for (int64_t band = 0, e0 = 0, e1; band < bands; band++, e0 = e1) {
        e1 = band == bands - 1 ? rows * cols : e0 + below(at, rows * cols - e0 + 1);
        for (int64_t col = 0, width; col < cols; col += width) {
            width = below(at, 3) == 0 ? cols - col : 1 + below(at, cols - col);
            int64_t begin = slab_elements_before(e0, cols, col, width),
                    end = slab_elements_before(e1, cols, col, width);
            for (int pieces = 1 + (int)below(at, 3); pieces > 0; pieces--) {
                int64_t cut = pieces == 1 ? end : begin + below(at, end - begin + 1);
                /* Now and then all columns are given by number. */
                int flat = width == cols && below(at, 8) != 0;
                out[n++] = slab(rows, cols, col, flat ? 0 : width, begin, cut, NULL);
                begin = cut;
            }
        }
    }
    for (int i = n - 1; i > 0; i--) {
        int j = (int)below(at, i + 1);
        struct ap_named t = out[i];
        out[i] = out[j];
        out[j] = t;
    }
    return n;
}

/* The element of the global tensor that element i of t's slab is. */
static int64_t global_element(const struct ap_named *t, int64_t i)
{
    return t->width > 0 ? i / t->width * t->shape[1] + t->col + i % t->width : i;
}

AP_TEST(named, any_tiling_copies_into_any_other)
{
    static int32_t from[PIECES_MAX][SIDE_MAX * SIDE_MAX], to[PIECES_MAX][SIDE_MAX * SIDE_MAX];
    static struct ap_named src[PIECES_MAX], dst[PIECES_MAX];
    uint64_t at = 0;
    int64_t slabs = 0;
    for (int round = 0; round < 1500; round++) {
        int64_t rows = 1 + below(&at, SIDE_MAX), cols = 1 + below(&at, SIDE_MAX), total = 0;
        int n = random_tiling(&at, rows, cols, src), m = random_tiling(&at, rows, cols, dst);
        for (int i = 0; i < n; i++) {
            src[i].data = from[i];
            for (int64_t k = src[i].begin; k < src[i].end; k++)
                from[i][k - src[i].begin] = (int32_t)global_element(&src[i], k);
            slabs += src[i].width > 0;
        }
        for (int j = 0; j < m; j++) {
            dst[j].data = to[j];
            memset(to[j], 0xff, sizeof to[j]);
            for (int i = 0; i < n; i++)
                total += ap_named_copy_overlap(&dst[j], &src[i]);
            for (int64_t k = dst[j].begin; k < dst[j].end; k++)
                cr_assert_eq(to[j][k - dst[j].begin], global_element(&dst[j], k), "round %d", round);
            for (int64_t k = dst[j].end - dst[j].begin; k < SIDE_MAX * SIDE_MAX; k++)
                cr_assert_eq(to[j][k], -1, "round %d: written behind the range", round);
        }
        cr_assert_eq(total, rows * cols, "round %d: %lld elements copied", round, (long long)total);
    }
    cr_expect_gt(slabs, 3000);
}

AP_TEST(named, overlap_runs_are_as_long_as_rows_allow)
{
    struct ap_overlap o;
    int64_t a, b, n, runs = 0;
    struct ap_named x = slab(100, 8, 0, 0, 3, 700, NULL), y = slab(100, 8, 0, 0, 5, 800, NULL);
    ap_overlap_begin(&o, &x, &y);
    cr_assert(ap_overlap_next(&o, &a, &b, &n));
    cr_expect(a == 5 && b == 5 && n == 695, "two flat ranges: one run");
    cr_expect(!ap_overlap_next(&o, &a, &b, &n));
    x = slab(100, 8, 2, 4, 3, 300, NULL);
    y = slab(100, 8, 2, 4, 0, 250, NULL);
    ap_overlap_begin(&o, &x, &y);
    cr_assert(ap_overlap_next(&o, &a, &b, &n));
    cr_expect(a == 3 && b == 3 && n == 247, "the same slab: one run");
    y = slab(100, 8, 0, 0, 0, 800, NULL);
    ap_overlap_begin(&o, &x, &y);
    while (ap_overlap_next(&o, &a, &b, &n)) {
        cr_assert(b == a / 4 * 8 + 2 + a % 4 && (n == 4 || (runs == 0 && n == 1)), "run %lld", (long long)runs);
        runs++;
    }
    cr_expect_eq(runs, 75, "a slab and a flat range: one run per row");
    y = slab(100, 8, 6, 2, 0, 200, NULL);
    ap_overlap_begin(&o, &x, &y);
    cr_expect(!ap_overlap_next(&o, &a, &b, &n), "columns beside each other");
}

/* What ap_tiling says, against counting how often each element is held. */
static void check_tiling(struct ap_tiling *g, const struct ap_named *list, int n, int64_t rows, int64_t cols, int *bad)
{
    int64_t held[SIDE_MAX * SIDE_MAX] = {0}, want = 0, want_at = 0, excess, at;
    struct ap_named head = slab(rows, cols, 0, 0, 0, rows * cols, NULL);
    ap_tiling_begin(g, &head);
    for (int i = 0; i < n; i++) {
        struct ap_slab s = ap_named_slab(&list[i]);
        cr_assert_eq(ap_tiling_add(g, &s, NULL), AP_OK);
        for (int64_t k = s.begin; k < s.end; k++)
            held[global_element(&list[i], k)]++;
    }
    for (int64_t i = rows * cols - 1; i >= 0; i--)
        if (held[i] != 1) {
            want = held[i] - 1;
            want_at = i;
        }
    cr_assert_eq(ap_tiling_end(g, &excess, &at, NULL), AP_OK);
    cr_assert_eq(excess, want, "%lld, not %lld", (long long)excess, (long long)want);
    cr_assert(want == 0 || at == want_at, "at %lld, not %lld", (long long)at, (long long)want_at);
    *bad += want != 0;
}

AP_TEST(named, tiling_finds_the_first_hole_or_overlap)
{
    static struct ap_named list[PIECES_MAX + 2];
    struct ap_tiling g = {0};
    uint64_t at = 1 << 30;
    int bad = 0, rounds = 3000;
    for (int round = 0; round < rounds; round++) {
        int64_t rows = 1 + below(&at, SIDE_MAX), cols = 1 + below(&at, SIDE_MAX);
        int n = random_tiling(&at, rows, cols, list), none = 0, i;
        check_tiling(&g, list, n, rows, cols, &none);
        cr_assert_eq(none, 0);
        struct ap_named *t = &list[i = (int)below(&at, n)];
        struct ap_named hurt = *t;
        switch (round % 5) {
        case 0: /* one is lost */
            list[i] = list[--n];
            break;
        case 1: /* there twice, in all three times */
            list[n++] = hurt;
            if (round % 2)
                list[n++] = hurt;
            break;
        case 2:
            t->begin += t->begin < t->end;
            break;
        case 3: /* one column to the right */
            t->col += t->width > 0 && t->col + t->width < cols;
            break;
        default: /* what one holds too much another one lacks: the number of elements is right */
            list[n++] = hurt;
            list[(int)below(&at, n - 1)].end = 0;
            for (int k = 0; k < n; k++)
                list[k].begin = list[k].begin < list[k].end ? list[k].begin : list[k].end;
        }
        check_tiling(&g, list, n, rows, cols, &bad);
    }
    cr_expect_gt(bad, rounds / 3, "%d of %d lists were wrong", bad, rounds);
    ap_tiling_clear(&g);
}

AP_TEST(named, tiling_names_tensor_place_and_kind)
{
    struct ap_tiling g = {0};
    struct ap_error err;
    struct ap_named head = slab(4, 6, 0, 0, 0, 24, NULL);
    static const struct ap_slab holes[] = {{0, 2, 0, 8}, {2, 4, 0, 9}, {2, 4, 10, 16}};
    static const struct ap_slab twice[] = {{0, 2, 0, 8}, {1, 5, 3, 20}, {2, 4, 0, 4}};
    ap_tiling_begin(&g, &head);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(ap_tiling_add(&g, &holes[i], NULL), AP_OK);
    cr_expect_eq(ap_tiling_check(&g, &head, AP_ERR_CORRUPT, &err), AP_ERR_CORRUPT);
    cr_expect_str_eq(err.text, "tensor param/w: the ranks' ranges leave a gap at element 15 (row 2, column 3)");
    ap_tiling_begin(&g, &head);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(ap_tiling_add(&g, &twice[i], NULL), AP_OK);
    cr_expect_eq(ap_tiling_check(&g, &head, AP_ERR_BUG, &err), AP_ERR_BUG);
    cr_expect_str_eq(err.text, "tensor param/w: the ranks' ranges overlap at element 4 (row 0, column 4)");
    head.ndim = 0; /* a scalar, and one without elements */
    ap_tiling_begin(&g, &head);
    cr_assert_eq(ap_tiling_check(&g, &head, AP_ERR_BUG, &err), AP_ERR_BUG);
    cr_expect_str_eq(err.text, "tensor param/w: the ranks' ranges leave a gap at element 0");
    head.ndim = 1;
    head.shape[0] = 0;
    ap_tiling_begin(&g, &head);
    cr_assert_eq(ap_tiling_check(&g, &head, AP_ERR_BUG, &err), AP_OK);
    ap_tiling_clear(&g);
}
