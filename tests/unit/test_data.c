/* SPDX-License-Identifier: Apache-2.0
 * The loader: properties that hold for every sample (each window once per epoch, exact mixture weights, the
 * same bits for the same number, borders of documents), and one test per error of train/data.h. */
#include "config.h"

#include <math.h>

#include "base/rng.h"
#include "support/leaks.h"
#include "text_fixture.h"
#include "train/data.h"
#include "train/data_order.h"

enum { T = 16 };

static char dir[FIXTURE_PATH], path_a[FIXTURE_PATH], path_b[FIXTURE_PATH];
static const int64_t lengths_a[] = {5, 0, 40, 1, 100, 0, 7, 64, 33}; /* 250 tokens */
static const int64_t lengths_b[] = {90, 11};                         /* 101 tokens */

static void setup(void)
{
    fixture_dir(dir);
    fixture_path(path_a, dir, "a");
    fixture_path(path_b, dir, "b");
    fixture_dataset(path_a, AP_MEGATRON_U16, lengths_a, 9, 0, 250); /* id = position: tokens tell where they are from */
    fixture_dataset(path_b, AP_MEGATRON_I32, lengths_b, 2, 300, 1000);
}

static void teardown(void)
{
    fixture_remove(dir);
}

TestSuite(data, .init = setup, .fini = teardown);

static struct ap_data *open_ok(const struct ap_data_source_spec *sources, int count, int shuffle, int mask,
                               uint64_t seed)
{
    struct ap_data_options opt = {
        .seq_len = T, .vocab_size = 1000, .seed = seed, .mask_documents = mask, .shuffle = shuffle};
    struct ap_data *d = NULL;
    struct ap_error err = {0};
    cr_assert_eq(ap_data_open(sources, count, &opt, &d, &err), AP_OK, "%s: %s", err.file, err.text);
    return d;
}

struct buffers {
    int32_t tokens[T], targets[T], first[T], positions[T];
};

static struct ap_sample view(struct buffers *b)
{
    memset(b, 0xEE, sizeof(*b));
    return (struct ap_sample){b->tokens, b->targets, b->first, b->positions};
}

AP_TEST(data, permutation_is_a_bijection)
{
    const uint64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 4097};
    for (size_t k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
        uint64_t n = sizes[k];
        char *seen = calloc(n, 1);
        cr_assert_not_null(seen);
        uint64_t moved = 0;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t j = ap_data_permute(42 + k, n, i);
            cr_assert(j < n && !seen[j], "n %llu, i %llu", (unsigned long long)n, (unsigned long long)i);
            seen[j] = 1;
            moved += j != i;
        }
        cr_assert(n < 63 || moved > n / 2, "n %llu: hardly shuffled", (unsigned long long)n);
        free(seen);
    }
    /* far too large to list: stays inside, two inputs never meet */
    uint64_t n = (UINT64_C(1) << 62) - 12345, last = n;
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t j = ap_data_permute(9, n, i);
        cr_assert(j < n && j != last);
        last = j;
    }
}

AP_TEST(data, in_order_covers_every_window)
{
    struct ap_data_source_spec sources[] = {{path_a, 1}, {path_b, 1}};
    struct ap_data *d = open_ok(sources, 2, 0, 0, 1);
    cr_assert_eq(ap_data_windows(d), 249 / T + 100 / T);
    cr_assert_eq(ap_data_tokens(d), 351);
    for (int64_t w = 0; w < ap_data_windows(d); w++) {
        struct buffers b;
        struct ap_sample out = view(&b);
        cr_assert_eq(ap_data_fetch(d, w, &out), AP_OK);
        int64_t base = w < 249 / T ? w * T : 300 + (w - 249 / T) * T;
        for (int i = 0; i < T; i++) {
            cr_assert_eq(b.tokens[i], base + i);
            cr_assert_eq(b.targets[i], base + i + 1);
            cr_assert_eq(b.first[i], 0);
            cr_assert_eq(b.positions[i], i);
        }
    }
    struct buffers b;
    struct ap_sample out = view(&b);
    cr_assert_eq(ap_data_fetch(d, ap_data_windows(d), &out), AP_ERR_INPUT);
    cr_assert_eq(ap_data_fetch(d, -1, &out), AP_ERR_INPUT);
    ap_data_close(d);
}

AP_TEST(data, every_window_once_per_epoch_and_borders_move)
{
    struct ap_data_source_spec source = {path_a, 1};
    struct ap_data *d = open_ok(&source, 1, 1, 0, 7);
    const int64_t windows = 249 / T;
    int64_t offsets[40], different = 0, orders = 0;
    cr_assert_eq(ap_data_windows(d), windows);
    for (int64_t epoch = 0; epoch < 40; epoch++) {
        char seen[250] = {0}, used[250] = {0};
        for (int64_t i = 0; i < windows; i++) {
            struct ap_data_place p;
            struct buffers b;
            struct ap_sample out = view(&b);
            cr_assert_eq(ap_data_locate(d, epoch * windows + i, &p), AP_OK);
            cr_assert_eq(p.epoch, epoch);
            cr_assert(!seen[p.window]);
            seen[p.window] = 1;
            orders += p.window != i;
            offsets[epoch] = (p.start - p.window * T % 250 + 250) % 250;
            cr_assert_eq(ap_data_fetch(d, epoch * windows + i, &out), AP_OK);
            for (int k = 0; k < T; k++) { /* ids are positions on a ring of 250 tokens */
                cr_assert_eq(b.tokens[k], (p.start + k) % 250);
                cr_assert_eq(b.targets[k], (p.start + k + 1) % 250);
                cr_assert(!used[b.tokens[k]], "token %d twice in epoch %lld", b.tokens[k], (long long)epoch);
                used[b.tokens[k]] = 1;
            }
        }
        different += epoch > 0 && offsets[epoch] != offsets[0];
    }
    cr_assert(different > 30, "window borders do not move: %lld", (long long)different);
    cr_assert(orders > 40 * windows / 2, "windows come in order");
    ap_data_close(d);
}

AP_TEST(data, mixture_is_exact)
{
    const double weights[] = {0.4, 0.3, 0.0001, 0.2, 0.0999};
    struct ap_data_source_spec sources[5];
    struct ap_data_mix mix;
    struct ap_error err;
    for (int s = 0; s < 5; s++)
        sources[s] = (struct ap_data_source_spec){path_a, 17 * weights[s]}; /* relative */
    cr_assert_eq(ap_data_mix_init(&mix, sources, 5, &err), AP_OK, "%s", err.text);
    for (int64_t n = 0; n < 5000 * mix.block; n += mix.block) {
        int64_t sum = 0;
        for (int s = 0; s < 5; s++) {
            int64_t count = ap_data_mix_count(&mix, s, n);
            cr_assert(fabs((double)count - weights[s] * (double)n) <= 1.0, "source %d, n %lld", s, (long long)n);
            cr_assert_leq(count, ap_data_mix_count(&mix, s, n + mix.block));
            sum += count;
        }
        cr_assert_eq(sum, n);
    }
    /* 2^60 samples: no overflow, still exact */
    int64_t far = (INT64_C(1) << 60) / mix.block * mix.block;
    cr_assert(fabs((double)ap_data_mix_count(&mix, 2, far) / (double)far - 0.0001) < 1e-12);
}

AP_TEST(data, mixture_numbers_each_source_without_gaps)
{
    struct ap_data_source_spec sources[] = {{path_a, 5}, {path_b, 2}, {path_a, 0.37}};
    struct ap_data_mix mix;
    cr_assert_eq(ap_data_mix_init(&mix, sources, 3, NULL), AP_OK);
    int64_t blocks = 50, n = blocks * mix.block, runs = 0;
    char *seen[3];
    int last = -1;
    for (int s = 0; s < 3; s++)
        cr_assert_not_null(seen[s] = calloc((size_t)n, 1));
    for (int64_t i = 0; i < n; i++) {
        int s;
        int64_t index;
        ap_data_mix_locate(&mix, 3, i, &s, &index);
        cr_assert(index >= 0 && index < ap_data_mix_count(&mix, s, n));
        cr_assert(!seen[s][index]);
        seen[s][index] = 1;
        runs += s != last;
        last = s;
    }
    cr_assert(runs > n / 4, "sources come in runs, not mixed: %lld", (long long)runs);
    for (int s = 0; s < 3; s++)
        free(seen[s]);
}

AP_TEST(data, same_seed_and_sample_same_bits)
{
    struct ap_data_source_spec sources[] = {{path_a, 3}, {path_b, 1}};
    struct ap_data *one = open_ok(sources, 2, 1, 1, 11), *two = open_ok(sources, 2, 1, 1, 11);
    struct ap_data *other = open_ok(sources, 2, 1, 1, 12);
    int differ = 0;
    struct buffers a, b;
    struct ap_sample va = view(&a), vb = view(&b);
    for (int64_t i = 0; i < 500; i++)
        cr_assert_eq(ap_data_fetch(two, i, &vb), AP_OK); /* another order of calls */
    for (int64_t i = 499; i >= 0; i--) {
        int64_t sample = i * INT64_C(1000000007);
        va = view(&a);
        vb = view(&b);
        cr_assert_eq(ap_data_fetch(one, sample, &va), AP_OK);
        cr_assert_eq(ap_data_fetch(two, sample, &vb), AP_OK);
        cr_assert_arr_eq(&a, &b, sizeof(a));
        vb = view(&b);
        cr_assert_eq(ap_data_fetch(other, sample, &vb), AP_OK);
        differ += memcmp(&a, &b, sizeof(a)) != 0;
    }
    cr_assert(differ > 400, "the seed hardly matters: %d", differ);
    /* one source alone: nothing but its windows to differ in */
    struct ap_data *alone = open_ok(sources, 1, 1, 1, 11), *seed2 = open_ok(sources, 1, 1, 1, 12);
    differ = 0;
    for (int64_t i = 0; i < 200; i++) {
        va = view(&a);
        vb = view(&b);
        cr_assert_eq(ap_data_fetch(alone, i, &va), AP_OK);
        cr_assert_eq(ap_data_fetch(seed2, i, &vb), AP_OK);
        differ += memcmp(&a, &b, sizeof(a)) != 0;
    }
    cr_assert(differ > 150, "the seed hardly matters for the windows: %d", differ);
    ap_data_close(alone);
    ap_data_close(seed2);
    ap_data_close(one);
    ap_data_close(two);
    ap_data_close(other);
}

/* Document of position t in source a, by walking the lengths. */
static int document_of(int64_t t)
{
    int d = 0;
    while (t >= lengths_a[d])
        t -= lengths_a[d++];
    return d;
}

AP_TEST(data, masks_follow_the_documents)
{
    struct ap_data_source_spec source = {path_a, 1};
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        struct ap_data *d = open_ok(&source, 1, shuffle, 1, 5);
        int crossings = 0, wraps = 0;
        for (int64_t s = 0; s < (shuffle ? 600 : ap_data_windows(d)); s++) {
            struct buffers b;
            struct ap_sample out = view(&b);
            cr_assert_eq(ap_data_fetch(d, s, &out), AP_OK);
            for (int i = 0; i < T; i++) {
                int64_t at = b.tokens[i], next = (at + 1) % 250;
                int same = next != 0 && document_of(at) == document_of(next);
                cr_assert_eq(b.targets[i], same ? next : -1, "sample %lld, position %d", (long long)s, i);
                int first = i;
                while (first > 0 && b.tokens[first] != 0 && document_of(b.tokens[first - 1]) == document_of(at))
                    first--;
                cr_assert_eq(b.first[i], first);
                crossings += !same;
                wraps += next == 0;
            }
        }
        cr_assert(crossings > 0 && (!shuffle || wraps > 0), "the cases did not occur");
        ap_data_close(d);
    }
}

AP_TEST(data, entropy_counts_pairs_inside_documents)
{
    /* Two documents "0 1 0 1", "0 0": pairs 01 10 01 | 00; the pair 1 -> 0 across documents is not counted. */
    char path[FIXTURE_PATH];
    const int32_t tokens[] = {0, 1, 0, 1, 0, 0};
    struct ap_megatron_writer *w;
    cr_assert_eq(ap_megatron_writer_create(fixture_path(path, dir, "e"), AP_MEGATRON_U16, &w, NULL), AP_OK);
    cr_assert_eq(ap_megatron_writer_append(w, tokens, 4, NULL), AP_OK);
    cr_assert_eq(ap_megatron_writer_end_document(w, NULL), AP_OK);
    cr_assert_eq(ap_megatron_writer_append(w, tokens + 4, 2, NULL), AP_OK);
    cr_assert_eq(ap_megatron_writer_commit(w, NULL, NULL), AP_OK);
    ap_megatron_writer_destroy(w);
    struct ap_data_source_spec source = {path, 1};
    struct ap_data_options opt = {.seq_len = 2, .vocab_size = 257};
    struct ap_data *d;
    double nats;
    cr_assert_eq(ap_data_open(&source, 1, &opt, &d, NULL), AP_OK);
    cr_assert_eq(ap_data_bigram_entropy(d, &nats, NULL), AP_OK);
    cr_assert_float_eq(nats, 0.75 * -(1.0 / 3 * log(1.0 / 3) + 2.0 / 3 * log(2.0 / 3)), 1e-12);
    ap_data_close(d);
}

/* Opening must fail with a message that has both words, in text or file. */
static void expect_error(const struct ap_data_source_spec *sources, int count, int64_t seq_len, int64_t vocab,
                         const char *word, const char *file)
{
    struct ap_data_options opt = {.seq_len = seq_len, .vocab_size = vocab, .shuffle = 1};
    struct ap_data *d = NULL;
    struct ap_error err = {0};
    cr_assert_eq(ap_data_open(sources, count, &opt, &d, &err), AP_ERR_INPUT, "expected \"%s\"", word);
    cr_assert_null(d);
    cr_assert(strstr(err.text, word), "\"%s\" does not say \"%s\"", err.text, word);
    cr_assert(strstr(err.file, file), "file \"%s\" is not \"%s\"", err.file, file);
}

AP_TEST(data, each_error_has_its_message)
{
    char missing[FIXTURE_PATH], path[FIXTURE_PATH + 4];
    struct ap_data_source_spec both[] = {{path_a, 1}, {fixture_path(missing, dir, "missing"), 1}};
    expect_error(both, 2, T, 1000, "no such data file", "missing.bin");
    fixture_write(dir, "missing.bin", "", 0);
    expect_error(both, 2, T, 1000, "no such data file", "missing.idx");
    expect_error(both, 1, T, 249, "token id 249 at position 32 of document 8 is outside the vocabulary of 249",
                 "a.bin");
    expect_error(both, 1, 250, 1000, "250 tokens, fewer than one window of seq_len + 1 = 251", "/a");
    expect_error(both, 0, T, 1000, "0 data sources", "");
    expect_error(both, 1, 0, 1000, "seq_len 0", "");
    expect_error(both, 1, T, 0, "vocab_size 0", "");
    both[0].weight = 0;
    expect_error(both, 1, T, 1000, "weight 0 of data source 0", "");
    both[0].weight = NAN;
    expect_error(both, 1, T, 1000, "not a positive number", "");
    both[0].weight = 1e-9;
    expect_error(both, 2, T, 1000, "less than one part in a million", "");
    both[0].weight = 1;
    snprintf(path, sizeof(path), "%s.bin", path_a);
    cr_assert_eq(truncate(path, 498), 0);
    expect_error(both, 1, T, 1000, "truncated .bin", "a.idx");
    snprintf(path, sizeof(path), "%s.idx", path_a);
    cr_assert_eq(truncate(path, 40), 0);
    expect_error(both, 1, T, 1000, "truncated index", "a.idx");
    fixture_dataset(path_a, AP_MEGATRON_U16, lengths_a, 2, 0, 250);
    const int64_t none[] = {0, 0, 0};
    fixture_dataset(path_b, AP_MEGATRON_U16, none, 3, 0, 250);
    both[0].path = path_b;
    expect_error(both, 1, T, 1000, "empty", "/b");
}
