/* SPDX-License-Identifier: Apache-2.0
 * Megatron index: bytes as Megatron writes them, round trips of every type, and one test per way in which a
 * pair of files can lie. Also UTF-8, the byte tokenizer and the bigram entropy. */
#include "config.h"

#include <math.h>

#include "base/rng.h"
#include "text/bigram.h"
#include "text/tokenizer.h"
#include "base/utf8.h"
#include "support/leaks.h"
#include "text_fixture.h"

static char dir[FIXTURE_PATH], prefix[FIXTURE_PATH];

static void setup(void)
{
    fixture_dir(dir);
    fixture_path(prefix, dir, "set");
}

static void teardown(void)
{
    fixture_remove(dir);
}

TestSuite(megatron, .init = setup, .fini = teardown);

/* What numpy writes for two documents {1, 2, 3} and {4, 500} as uint16, spelled out. */
static const uint8_t golden_idx[] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0, /* magic */
                                     1,   0,   0,   0,   0,   0,   0,   0,    /* version */
                                     8,                                       /* uint16 */
                                     2,   0,   0,   0,   0,   0,   0,   0,    /* sequences */
                                     3,   0,   0,   0,   0,   0,   0,   0,    /* document entries */
                                     3,   0,   0,   0,   2,   0,   0,   0,    /* lengths */
                                     0,   0,   0,   0,   0,   0,   0,   0, 6, 0, 0, 0, 0, 0, 0, 0, /* pointers */
                                     0,   0,   0,   0,   0,   0,   0,   0, 1, 0, 0, 0, 0, 0, 0, 0,
                                     2,   0,   0,   0,   0,   0,   0,   0};
static const uint8_t golden_bin[] = {1, 0, 2, 0, 3, 0, 4, 0, 0xF4, 1};

AP_TEST(megatron, writes_the_golden_bytes)
{
    const int32_t tokens[] = {1, 2, 3, 4, 500};
    struct ap_megatron_writer *w;
    struct ap_megatron_written written;
    struct ap_error err;
    cr_assert_eq(ap_megatron_writer_create(prefix, AP_MEGATRON_U16, &w, &err), AP_OK, "%s", err.text);
    cr_assert_eq(ap_megatron_writer_append(w, tokens, 3, &err), AP_OK);
    cr_assert_eq(ap_megatron_writer_end_document(w, &err), AP_OK);
    cr_assert_eq(ap_megatron_writer_append(w, tokens + 3, 2, &err), AP_OK);
    cr_assert_eq(ap_megatron_writer_commit(w, &written, &err), AP_OK, "%s", err.text);
    ap_megatron_writer_destroy(w);
    size_t size;
    char *idx = fixture_read(dir, "set.idx", &size);
    cr_assert_eq(size, sizeof(golden_idx));
    cr_assert_arr_eq(idx, golden_idx, size);
    cr_assert(ap_hash128_equal(written.idx_hash, ap_hash128(idx, size)));
    char *bin = fixture_read(dir, "set.bin", &size);
    cr_assert_eq(size, sizeof(golden_bin));
    cr_assert_arr_eq(bin, golden_bin, size);
    cr_assert(ap_hash128_equal(written.bin_hash, ap_hash128(bin, size)));
    cr_assert_eq(written.tokens, 5);
    cr_assert_eq(written.documents, 2);
    free(idx);
    free(bin);
}

AP_TEST(megatron, reads_the_golden_bytes_with_and_without_modes)
{
    for (size_t modes = 0; modes <= 2; modes += 2) {
        uint8_t idx[sizeof(golden_idx) + 2] = {0};
        struct ap_megatron *m;
        struct ap_error err;
        memcpy(idx, golden_idx, sizeof(golden_idx));
        fixture_write(dir, "set.idx", idx, sizeof(golden_idx) + modes);
        fixture_write(dir, "set.bin", golden_bin, sizeof(golden_bin));
        cr_assert_eq(ap_megatron_open(prefix, &m, &err), AP_OK, "%s", err.text);
        int32_t out[5];
        const int32_t want[] = {1, 2, 3, 4, 500};
        ap_megatron_read(m, 0, 5, out);
        cr_assert_arr_eq(out, want, sizeof(want));
        cr_assert_eq(ap_megatron_documents(m), 2);
        cr_assert_eq(ap_megatron_document_start(m, 1), 3);
        cr_assert_eq(ap_megatron_document_start(m, 2), 5);
        ap_megatron_close(m);
    }
}

AP_TEST(megatron, every_type_and_every_document)
{
    const int types[] = {AP_MEGATRON_U8,  AP_MEGATRON_I8,  AP_MEGATRON_I16,
                         AP_MEGATRON_I32, AP_MEGATRON_I64, AP_MEGATRON_U16};
    enum { DOCS = 300 };
    int64_t lengths[DOCS], starts[DOCS + 1] = {0};
    for (int d = 0; d < DOCS; d++) { /* empty documents too, first and last included */
        lengths[d] = d % 7 == 0 || d == DOCS - 1 ? 0 : (int64_t)(ap_rng_u64(5, AP_RNG_TEST, (uint64_t)d) % 50);
        starts[d + 1] = starts[d] + lengths[d];
    }
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        struct ap_megatron *m;
        struct ap_error err;
        fixture_dataset(prefix, types[i], lengths, DOCS, 3, 127);
        cr_assert_eq(ap_megatron_open(prefix, &m, &err), AP_OK, "%s", err.text);
        cr_assert_eq(ap_megatron_dtype(m), types[i]);
        cr_assert_eq(ap_megatron_documents(m), DOCS);
        cr_assert_eq(ap_megatron_tokens(m), starts[DOCS]);
        for (int d = 0; d <= DOCS; d++)
            cr_assert_eq(ap_megatron_document_start(m, d), starts[d]);
        for (int64_t t = 0; t < starts[DOCS]; t++) {
            int64_t d = ap_megatron_document_of(m, t);
            int32_t id;
            ap_megatron_read(m, t, 1, &id);
            cr_assert_eq(id, (3 + t) % 127);
            cr_assert(starts[d] <= t && t < starts[d + 1], "token %lld", (long long)t);
        }
        cr_assert_eq(ap_megatron_check_ids(m, 127, &err), AP_OK, "%s", err.text);
        cr_assert_eq(ap_megatron_check_ids(m, 126, &err), AP_ERR_INPUT);
        ap_megatron_close(m);
    }
}

/* Open the golden pair with some bytes of the index changed; expect a message that contains `word`. */
static void expect_bad(size_t at, const void *bytes, size_t count, ap_status status, const char *word)
{
    uint8_t idx[sizeof(golden_idx)];
    struct ap_megatron *m = NULL;
    struct ap_error err = {0};
    memcpy(idx, golden_idx, sizeof(idx));
    memcpy(idx + at, bytes, count);
    fixture_write(dir, "set.idx", idx, sizeof(idx));
    fixture_write(dir, "set.bin", golden_bin, sizeof(golden_bin));
    cr_assert_eq(ap_megatron_open(prefix, &m, &err), status, "byte %zu: status %d", at, err.status);
    cr_assert_null(m);
    cr_assert(strstr(err.text, word), "\"%s\" does not say \"%s\"", err.text, word);
    cr_assert(strstr(err.file, "set.idx"), "file \"%s\"", err.file);
}

AP_TEST(megatron, refuses_each_wrong_field)
{
    const uint8_t huge[8] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    const uint8_t wrap[8] = {0x56, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55}; /* 12 * this wraps to 8 */
    expect_bad(0, "X", 1, AP_ERR_INPUT, "not a Megatron index");
    expect_bad(0, "TNTIDX\0\0", 8, AP_ERR_INPUT, "TNTIDX");
    expect_bad(9, "\2", 1, AP_ERR_FORMAT, "version 2");
    expect_bad(17, "\0", 1, AP_ERR_INPUT, "dtype code 0");
    expect_bad(17, "\11", 1, AP_ERR_INPUT, "dtype code 9");
    expect_bad(17, "\7", 1, AP_ERR_INPUT, "floating-point");
    expect_bad(18, huge, 8, AP_ERR_INPUT, "sequences need");
    expect_bad(18, wrap, 8, AP_ERR_INPUT, "sequences need");
    expect_bad(18, "\1", 1, AP_ERR_INPUT, "too many");
    expect_bad(26, huge, 8, AP_ERR_INPUT, "document entries need");
    expect_bad(26, "\0", 1, AP_ERR_INPUT, "too many");
    expect_bad(34, huge, 4, AP_ERR_INPUT, "length -1");
    expect_bad(34, "\377\377\377\177", 4, AP_ERR_INPUT, "truncated .bin");
    expect_bad(34, "\4", 1, AP_ERR_INPUT, "expected 8");
    expect_bad(38, "\1", 1, AP_ERR_INPUT, "not a pair");
    expect_bad(42, "\2", 1, AP_ERR_INPUT, "expected 0");
    expect_bad(50, huge, 8, AP_ERR_INPUT, "byte -1");
    expect_bad(58, "\1", 1, AP_ERR_INPUT, "expected 0");
    expect_bad(66, "\3", 1, AP_ERR_INPUT, "outside 0..2");
    expect_bad(74, "\1", 1, AP_ERR_INPUT, "number of sequences");
    expect_bad(74, huge, 8, AP_ERR_INPUT, "outside");
    /* 2 sequences and 0 entries are as long as 2 sequences, 0 entries and 24 bytes: an index of no sequences */
    uint8_t none[34];
    memcpy(none, golden_idx, sizeof(none));
    memset(none + 18, 0, 16);
    struct ap_megatron_index index;
    struct ap_error err;
    cr_assert_eq(ap_megatron_index_parse(none, sizeof(none), 0, "x.idx", &index, &err), AP_ERR_INPUT);
    cr_assert(strstr(err.text, "document count 0"));
}

AP_TEST(megatron, refuses_each_truncation_of_the_index)
{
    struct ap_megatron_index index;
    struct ap_error err;
    for (size_t size = 0; size < sizeof(golden_idx); size++) {
        uint8_t *copy = malloc(size ? size : 1); /* exact allocation: a sanitizer sees any overrun */
        cr_assert_not_null(copy);
        memcpy(copy, golden_idx, size);
        cr_assert_eq(ap_megatron_index_parse(copy, size, sizeof(golden_bin), "x.idx", &index, &err), AP_ERR_INPUT,
                     "size %zu", size);
        free(copy);
    }
}

AP_TEST(megatron, refuses_missing_and_short_files)
{
    struct ap_megatron *m = NULL;
    struct ap_error err;
    cr_assert_eq(ap_megatron_open(prefix, &m, &err), AP_ERR_INPUT);
    cr_assert(strstr(err.file, "set.bin") && strstr(err.text, "no such"));
    fixture_write(dir, "set.bin", golden_bin, sizeof(golden_bin) - 1);
    cr_assert_eq(ap_megatron_open(prefix, &m, &err), AP_ERR_INPUT);
    cr_assert(strstr(err.file, "set.idx") && strstr(err.text, "no such"));
    fixture_write(dir, "set.idx", golden_idx, sizeof(golden_idx));
    cr_assert_eq(ap_megatron_open(prefix, &m, &err), AP_ERR_INPUT);
    cr_assert(strstr(err.text, "truncated .bin"), "%s", err.text);
    char name[FIXTURE_PATH + 4];
    snprintf(name, sizeof(name), "%s.bin", prefix);
    cr_assert_eq(ap_megatron_open(name, &m, &err), AP_ERR_INPUT);
    cr_assert(strstr(err.hint, "without .bin"));
    cr_assert_null(m);
}

AP_TEST(megatron, names_the_place_of_a_bad_id)
{
    const int types[] = {AP_MEGATRON_I32, AP_MEGATRON_I64};
    for (int i = 0; i < 2; i++) {
        struct ap_megatron_writer *w;
        struct ap_megatron *m;
        struct ap_error err;
        int32_t id = 7;
        cr_assert_eq(ap_megatron_writer_create(prefix, types[i], &w, &err), AP_OK);
        for (int t = 0; t < 200000; t++) {
            int32_t v = t == 150003 ? 300000 : id;
            cr_assert_eq(ap_megatron_writer_append(w, &v, 1, &err), AP_OK);
            if (t % 1000 == 999)
                cr_assert_eq(ap_megatron_writer_end_document(w, &err), AP_OK);
        }
        cr_assert_eq(ap_megatron_writer_commit(w, NULL, &err), AP_OK);
        ap_megatron_writer_destroy(w);
        cr_assert_eq(ap_megatron_open(prefix, &m, &err), AP_OK);
        cr_assert_eq(ap_megatron_check_ids(m, 300001, &err), AP_OK);
        cr_assert_eq(ap_megatron_check_ids(m, 1000, &err), AP_ERR_INPUT);
        cr_assert(strstr(err.text, "id 300000 at position 3 of document 150 "), "%s", err.text);
        cr_assert(strstr(err.file, "set.bin"));
        ap_megatron_close(m);
        /* a negative id, patched into the file */
        char path[FIXTURE_PATH + 4];
        snprintf(path, sizeof(path), "%s.bin", prefix);
        FILE *f = fopen(path, "r+b");
        cr_assert_not_null(f);
        cr_assert_eq(fseek(f, 8 * 100, SEEK_SET), 0);
        cr_assert_eq(fwrite("\377\377\377\377\377\377\377\377", 1, 8, f), 8);
        fclose(f);
        cr_assert_eq(ap_megatron_open(prefix, &m, &err), AP_OK);
        cr_assert_eq(ap_megatron_check_ids(m, INT64_C(1) << 31, &err), AP_ERR_INPUT);
        cr_assert(strstr(err.text, "id -1 "), "%s", err.text);
        ap_megatron_close(m);
    }
}

AP_TEST(megatron, writer_refuses_what_does_not_fit_and_cleans_up)
{
    struct ap_megatron_writer *w;
    struct ap_error err;
    const int32_t wide = 256, negative = -1;
    cr_assert_eq(ap_megatron_writer_create(prefix, AP_MEGATRON_U8, &w, &err), AP_OK);
    cr_assert_eq(ap_megatron_writer_append(w, &wide, 1, &err), AP_ERR_INPUT);
    cr_assert_eq(ap_megatron_writer_append(w, &negative, 1, &err), AP_ERR_INPUT);
    ap_megatron_writer_destroy(w);
    cr_assert_eq(rmdir(dir), 0, "temporary files left behind");
    cr_assert_neq(ap_megatron_writer_create(prefix, AP_MEGATRON_U8, &w, &err), AP_OK);
    cr_assert(strstr(err.text, "cannot create"), "%s", err.text);
    cr_assert_eq(mkdir(dir, 0777), 0);
}

AP_TEST(megatron, abandoned_writer_leaves_the_old_pair)
{
    const int64_t lengths[] = {4, 4};
    const int32_t id = 1;
    struct ap_megatron_writer *w;
    struct ap_megatron *m;
    struct ap_error err;
    fixture_dataset(prefix, AP_MEGATRON_U16, lengths, 2, 0, 10);
    cr_assert_eq(ap_megatron_writer_create(prefix, AP_MEGATRON_U16, &w, &err), AP_OK);
    cr_assert_eq(ap_megatron_writer_append(w, &id, 1, &err), AP_OK);
    ap_megatron_writer_destroy(w);
    cr_assert_eq(ap_megatron_open(prefix, &m, &err), AP_OK, "%s", err.text);
    cr_assert_eq(ap_megatron_tokens(m), 8);
    ap_megatron_close(m);
}

AP_TEST(utf8, accepts_and_refuses_by_the_table)
{
    const char *good[] = {"",
                          "plain",
                          "gr\xC3\xBC\xC3\x9F",
                          "\xE6\x97\xA5\xE6\x9C\xAC",
                          "\xF0\x9F\x98\x80",
                          "\xED\x9F\xBF",
                          "\xF4\x8F\xBF\xBF"};
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        cr_assert_eq(ap_utf8_validate(good[i], strlen(good[i])), strlen(good[i]), "case %zu", i);
    const struct {
        const char *text;
        size_t at;
    } bad[] = {{"ab\x80", 2},       {"\xC0\x80", 0},         {"\xC1\xBF", 0},         {"\xE0\x9F\xBF", 0},
               {"\xED\xA0\x80", 0}, {"\xF0\x8F\xBF\xBF", 0}, {"\xF4\x90\x80\x80", 0}, {"\xF5\x80\x80\x80", 0},
               {"12345678\xFF", 8}, {"1234567\xC3", 7},      {"\xE2\x82", 0}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        cr_assert_eq(ap_utf8_validate(bad[i].text, strlen(bad[i].text)), bad[i].at, "case %zu", i);
}

AP_TEST(utf8, every_code_point_round_trips)
{
    for (uint32_t c = 0; c <= 0x110000; c++) {
        char text[4];
        uint32_t back = 0;
        int n = ap_utf8_encode(c, text);
        if ((c >= 0xD800 && c <= 0xDFFF) || c > 0x10FFFF) {
            cr_assert_eq(n, 0);
            continue;
        }
        cr_assert_eq(ap_utf8_decode(text, (size_t)n, &back), n);
        cr_assert_eq(back, c);
        cr_assert_eq(ap_utf8_validate(text, (size_t)n), (size_t)n);
    }
}

AP_TEST(utf8, repairs_maximal_subparts)
{
    /* The example of the Unicode Standard, table 3-11. */
    const char *in = "\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64";
    const char *want = "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                       "b\xEF\xBF\xBD"
                       "c\xEF\xBF\xBD\xEF\xBF\xBD"
                       "d";
    char out[64];
    size_t replaced, n = ap_utf8_repair(in, strlen(in), out, &replaced);
    cr_assert_eq(n, strlen(want));
    cr_assert_arr_eq(out, want, n);
    cr_assert_eq(replaced, 6);
}

AP_TEST(tokenizer, bytes_round_trip)
{
    struct ap_tokenizer *t;
    struct ap_error err;
    char text[256], back[300];
    int32_t ids[256 + 2];
    int64_t count;
    size_t size;
    cr_assert_eq(ap_tokenizer_open("bytes", &t, &err), AP_OK);
    cr_assert_eq(ap_tokenizer_vocab_size(t), 257);
    cr_assert_eq(ap_tokenizer_end_of_document(t), 256);
    for (int i = 0; i < 256; i++)
        text[i] = (char)i;
    cr_assert_eq(ap_tokenizer_encode(t, text, 256, ids, &count, &err), AP_OK);
    cr_assert_eq(count, 256);
    ids[256] = 256;
    ids[257] = 300; /* padding of a model */
    cr_assert_eq(ap_tokenizer_decode(t, ids, 258, back, &size, &err), AP_OK);
    cr_assert_eq(size, 256);
    cr_assert_arr_eq(text, back, 256);
    ap_tokenizer_close(t);
    cr_assert_eq(ap_tokenizer_open("nonesuch", &t, &err), AP_ERR_INPUT);
    cr_assert(strstr(err.text, "nonesuch") && strstr(err.hint, "bytes"));
}

AP_TEST(bigram, small_case_by_hand)
{
    /* 0 0 1 0 1: pairs 00 once, 01 twice, 10 once. H = 3/4 H(1/3) + 0. */
    const int32_t tokens[] = {0, 0, 1, 0, 1};
    const int64_t vocab[] = {2, 5000}; /* dense table, hash */
    for (int i = 0; i < 2; i++) {
        struct ap_bigram *b;
        cr_assert_eq(ap_bigram_create(vocab[i], &b, NULL), AP_OK);
        cr_assert_eq(ap_bigram_add(b, tokens, 5, NULL), AP_OK);
        double want = 0.75 * -(1.0 / 3 * log(1.0 / 3) + 2.0 / 3 * log(2.0 / 3));
        cr_assert_float_eq(ap_bigram_entropy(b), want, 1e-12);
        cr_assert_eq(ap_bigram_pairs(b), 4);
        ap_bigram_destroy(b);
    }
}

AP_TEST(bigram, hash_and_table_agree_over_chunks_and_documents)
{
    enum { N = 60000 };
    int32_t *tokens = malloc(N * sizeof(*tokens));
    struct ap_bigram *dense, *hash;
    cr_assert_not_null(tokens);
    for (int i = 0; i < N; i++) /* enough different pairs to make the hash grow */
        tokens[i] = (int32_t)(ap_rng_u64(1, AP_RNG_TEST, (uint64_t)i) % 1900);
    cr_assert_eq(ap_bigram_create(2000, &dense, NULL), AP_OK);
    cr_assert_eq(ap_bigram_create(3000, &hash, NULL), AP_OK);
    cr_assert_eq(ap_bigram_add(dense, tokens, N, NULL), AP_OK);
    cr_assert_eq(ap_bigram_add(hash, tokens, N, NULL), AP_OK);
    cr_assert_float_eq(ap_bigram_entropy(dense), ap_bigram_entropy(hash), 1e-9);
    ap_bigram_destroy(hash);
    free(tokens);
    ap_bigram_destroy(dense);
}
