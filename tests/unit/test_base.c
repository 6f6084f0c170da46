/* SPDX-License-Identifier: Apache-2.0
 * Base: status, hashes, random numbers, clock, suggestions, the text buffer and the JSON writer. */
#include "config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "base/clock.h"
#include "base/dtype.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/strbuf.h"
#include "base/suggest.h"
#include "support/leaks.h"

AP_TEST(status, error_record_keeps_place_and_hint)
{
    struct ap_error err = {0};
    char text[256];
    cr_expect_eq(ap_error_set(&err, AP_ERR_INPUT, "lr is %d", 3), AP_ERR_INPUT);
    ap_error_format(&err, text, sizeof text);
    cr_expect_str_eq(text, "lr is 3");
    ap_error_at(&err, "job.yaml", 4, 7);
    ap_error_hint(&err, "did you mean '%s'?", "lr");
    ap_error_format(&err, text, sizeof text);
    cr_expect_str_eq(text, "job.yaml:4:7: lr is 3 (did you mean 'lr'?)");
    ap_error_at(&err, "job.yaml", 4, 0);
    ap_error_format(&err, text, sizeof text);
    cr_expect_str_eq(text, "job.yaml:4: lr is 3 (did you mean 'lr'?)");
    /* An error may quote the one it replaces. */
    ap_error_set(&err, AP_ERR_IO, "wrapped: %s", err.text);
    cr_expect_str_eq(err.text, "wrapped: lr is 3");
    cr_expect_str_empty(err.hint);
    cr_expect_eq(err.line, 0);
    cr_expect_eq(ap_error_set(NULL, AP_ERR_BUG, "nobody listens"), AP_ERR_BUG);
}

AP_TEST(status, long_texts_are_cut)
{
    struct ap_error err = {0};
    char big[4000], text[64];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    ap_error_set(&err, AP_ERR_INPUT, "%s", big);
    ap_error_at(&err, big, 1, 1);
    ap_error_hint(&err, "%s", big);
    cr_expect_eq(strlen(err.text), sizeof err.text - 1);
    cr_expect_eq(strlen(err.file), sizeof err.file - 1);
    cr_expect_eq(strlen(err.hint), sizeof err.hint - 1);
    cr_expect_gt(ap_error_format(&err, text, sizeof text), 64);
    cr_expect_eq(strlen(text), 63);
}

AP_TEST(status, exit_codes_are_the_documented_ones)
{
    cr_expect_eq(ap_status_exit_code(AP_OK), 0);
    cr_expect_eq(ap_status_exit_code(AP_ERR_USAGE), 2);
    cr_expect_eq(ap_status_exit_code(AP_ERR_INPUT), 3);
    cr_expect_eq(ap_status_exit_code(AP_ERR_NOSPACE), 4);
    cr_expect_eq(ap_status_exit_code(AP_ERR_STOPPED), 5);
    cr_expect_eq(ap_status_exit_code(AP_ERR_LOST), 6);
    cr_expect_eq(ap_status_exit_code(AP_ERR_INVALID), 7);
    cr_expect_eq(ap_status_from_errno(ENOSPC), AP_ERR_NOSPACE);
    cr_expect_eq(ap_status_from_errno(EDQUOT), AP_ERR_NOSPACE);
    cr_expect_eq(ap_status_from_errno(ENOENT), AP_ERR_NOTFOUND);
    cr_expect_eq(ap_status_from_errno(EACCES), AP_ERR_ENV);
    for (int s = AP_OK; s <= AP_ERR_BUG; s++)
        cr_expect_str_neq(ap_status_name((ap_status)s), "unknown");
}

AP_TEST(dtype, names_round_trip)
{
    static const size_t sizes[] = {4, 8, 2, 4, 8, 1, 2};
    for (int t = AP_F32; t <= AP_U16; t++) {
        ap_dtype back;
        cr_expect_eq(ap_dtype_parse(ap_dtype_name((ap_dtype)t), &back), 0);
        cr_expect_eq((int)back, t);
        cr_expect_eq(ap_dtype_size((ap_dtype)t), sizes[t]);
    }
    ap_dtype t = AP_F64;
    cr_expect_eq(ap_dtype_parse("f16", &t), -1);
    cr_expect_eq(t, AP_F64);
}

/* Values of the xxHash tools: xxh128sum of an empty file and of "abc". */
AP_TEST(hash, known_values)
{
    char hex[33];
    struct ap_hash128 h, back;
    ap_hash128_hex(ap_hash128("", 0), hex);
    cr_expect_str_eq(hex, "99aa06d3014798d86001c324468d497f");
    h = ap_hash128("abc", 3);
    ap_hash128_hex(h, hex);
    cr_expect_str_eq(hex, "06b05ab6733a618578af5f94892f3950");
    cr_expect_eq(ap_hash64("", 0, 0), UINT64_C(0x2d06800538d394c2));
    cr_expect_eq(ap_hash128_parse(hex, &back), 0);
    cr_expect(ap_hash128_equal(h, back));
    cr_expect_eq(ap_hash128_parse("06b05ab6733a618578af5f94892f395", &back), -1);
    cr_expect_eq(ap_hash128_parse("06b05ab6733a618578af5f94892f39500", &back), -1);
    cr_expect_eq(ap_hash128_parse("06b05ab6733a618578af5f94892f395g", &back), -1);
}

AP_TEST(hash, pieces_give_the_hash_of_the_whole)
{
    char data[5000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 31);
    struct ap_hasher *h = ap_hasher_create();
    cr_assert_not_null(h);
    for (size_t at = 0, n = 1; at < sizeof data; at += n, n = n * 2 + 1)
        ap_hasher_update(h, data + at, at + n < sizeof data ? n : sizeof data - at);
    ap_hasher_update(h, NULL, 0);
    cr_expect(ap_hash128_equal(ap_hasher_digest(h), ap_hash128(data, sizeof data)));
    ap_hasher_destroy(h);
    ap_hasher_destroy(NULL);
}

/* Known answers of Random123 (kat_vectors, philox4x32 with 10 rounds). */
AP_TEST(rng, known_answers)
{
    static const uint32_t zero[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    static const uint32_t ones[] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    static const uint32_t pi[] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    uint32_t out[4];
    ap_rng_bits(0, 0, 0, out);
    cr_expect_arr_eq(out, zero, sizeof zero);
    ap_rng_bits(UINT64_MAX, UINT64_MAX, UINT64_MAX, out);
    cr_expect_arr_eq(out, ones, sizeof ones);
    ap_rng_bits(UINT64_C(0x299f31d0a4093822), UINT64_C(0x0370734413198a2e), UINT64_C(0x85a308d3243f6a88), out);
    cr_expect_arr_eq(out, pi, sizeof pi);
}

AP_TEST(rng, normals_depend_only_on_their_counter)
{
    float whole[101], part[101];
    ap_rng_normal(7, AP_RNG_TEST, 1000, whole, 101);
    for (int begin = 0; begin < 101; begin += 13) {
        int n = begin + 13 < 101 ? 13 : 101 - begin;
        ap_rng_normal(7, AP_RNG_TEST, 1000 + (uint64_t)begin, part + begin, n);
    }
    cr_expect_arr_eq(whole, part, sizeof whole);
    ap_rng_normal(7, AP_RNG_TEST, 1050, part, 1);
    cr_expect_eq(part[0], whole[50]);
    ap_rng_normal(8, AP_RNG_TEST, 1050, part, 1);
    cr_expect_neq(part[0], whole[50]);
}

AP_TEST(rng, normals_have_the_moments_of_a_normal)
{
    enum { N = 200000 };
    float *v = malloc(N * sizeof *v);
    cr_assert_not_null(v);
    ap_rng_normal(1, AP_RNG_TEST, 0, v, N);
    double m1 = 0, m2 = 0, m4 = 0;
    for (int i = 0; i < N; i++) {
        double x = (double)v[i];
        cr_assert(isfinite(x));
        m1 += x / N;
        m2 += x * x / N;
        m4 += x * x * x * x / N;
    }
    cr_expect_lt(fabs(m1), 0.01);
    cr_expect_lt(fabs(m2 - 1), 0.02);
    cr_expect_lt(fabs(m4 - 3), 0.15);
    free(v);
}

AP_TEST(rng, uniforms_stay_in_range_and_streams_differ)
{
    double sum = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        double u = ap_rng_uniform(3, AP_RNG_TEST, i);
        cr_assert(u >= 0 && u < 1);
        sum += u / 10000;
    }
    cr_expect_lt(fabs(sum - 0.5), 0.02);
    cr_expect_neq(ap_rng_u64(3, AP_RNG_INIT, 5), ap_rng_u64(3, AP_RNG_DATA_MIX, 5));
}

AP_TEST(clock, stamps)
{
    char buf[32];
    ap_clock_iso(0, buf);
    cr_expect_str_eq(buf, "1970-01-01T00:00:00.000Z");
    ap_clock_iso(1769860800.1236, buf);
    cr_expect_str_eq(buf, "2026-01-31T12:00:00.124Z");
    ap_clock_iso(1769860799.9996, buf);
    cr_expect_str_eq(buf, "2026-01-31T12:00:00.000Z");
    double a = ap_clock_monotonic(), b = ap_clock_monotonic();
    cr_expect(b >= a);
}

AP_TEST(suggest, distances)
{
    cr_expect_eq(ap_suggest_distance("lr", "lr"), 0);
    cr_expect_eq(ap_suggest_distance("", "abc"), 3);
    cr_expect_eq(ap_suggest_distance("kitten", "sitting"), 3);
    cr_expect_eq(ap_suggest_distance("shedule", "schedule"), 1);
    cr_expect_eq(ap_suggest_distance("optmi", "optim"), 1, "a swap of neighbours counts once");
    cr_expect_eq(ap_suggest_distance("SEED", "seed"), 0);
}

AP_TEST(suggest, near_words_only)
{
    static const char *const words[] = {"train", "eval", "plan"};
    cr_expect_str_eq(ap_suggest_nearest("trian", words, 3), "train");
    cr_expect_str_eq(ap_suggest_nearest("plam", words, 3), "plan");
    cr_expect_null(ap_suggest_nearest("checkpoint", words, 3));
    cr_expect_null(ap_suggest_nearest("x", NULL, 0));
}

AP_TEST(strbuf, grows_wraps_and_prints_doubles)
{
    struct ap_strbuf b = {0};
    for (int i = 0; i < 1000; i++)
        ap_strbuf_addf(&b, "%d,", i);
    cr_expect_eq(b.size, 3890);
    char *text = ap_strbuf_take(&b);
    cr_expect_str_eq(text + 3882, "998,999,");
    free(text);

    ap_strbuf_add_wrapped(&b, "one two three four", 2, 4, 12);
    text = ap_strbuf_take(&b);
    cr_expect_str_eq(text, "one two\n    three\n    four");
    free(text);

    static const double values[] = {0.1, 3e-4, 10, 1e-8, 1.0 / 3, 123456789012345678.0, -2.5};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        ap_strbuf_add_double(&b, values[i]);
        text = ap_strbuf_take(&b);
        cr_expect_eq(strtod(text, NULL), values[i], "%s", text);
        cr_expect_lt(strlen(text), 25);
        free(text);
    }
    ap_strbuf_add_double(&b, 10);
    text = ap_strbuf_take(&b);
    cr_expect_str_eq(text, "10");
    free(text);
}

AP_TEST(json, is_read_back_by_a_parser)
{
    struct ap_json j = {0};
    ap_json_begin_object(&j, NULL);
    ap_json_str(&j, "text", "a\"b\\c\n\t\x01 \xc3\xa4 \xff end");
    ap_json_int(&j, "int", INT64_MIN);
    ap_json_uint(&j, "uint", UINT64_MAX);
    ap_json_real(&j, "real", 0.1);
    ap_json_real(&j, "nan", NAN);
    ap_json_bool(&j, "yes", 1);
    ap_json_str(&j, "nothing", NULL);
    ap_json_begin_array(&j, "list");
    ap_json_int(&j, NULL, 1);
    ap_json_begin_object(&j, NULL);
    ap_json_end_object(&j);
    ap_json_end_array(&j);
    ap_json_end_object(&j);
    char *text = ap_strbuf_take(&j.text);
    cr_assert_not_null(text);
    cr_expect_null(strchr(text, '\n'), "one line");
    yyjson_doc *doc = yyjson_read(text, strlen(text), 0);
    cr_assert_not_null(doc, "%s", text);
    yyjson_val *root = yyjson_doc_get_root(doc);
    cr_expect_str_eq(yyjson_get_str(yyjson_obj_get(root, "text")), "a\"b\\c\n\t\x01 \xc3\xa4 \xef\xbf\xbd end");
    cr_expect_eq(yyjson_get_sint(yyjson_obj_get(root, "int")), INT64_MIN);
    cr_expect_eq(yyjson_get_uint(yyjson_obj_get(root, "uint")), UINT64_MAX);
    cr_expect_eq(yyjson_get_real(yyjson_obj_get(root, "real")), 0.1);
    cr_expect(yyjson_is_null(yyjson_obj_get(root, "nan")));
    cr_expect(yyjson_get_bool(yyjson_obj_get(root, "yes")));
    cr_expect(yyjson_is_null(yyjson_obj_get(root, "nothing")));
    cr_expect_eq(yyjson_arr_size(yyjson_obj_get(root, "list")), 2);
    yyjson_doc_free(doc);
    free(text);
}

AP_TEST(json, too_deep_fails_instead_of_writing_beyond)
{
    struct ap_json j = {0};
    for (int i = 0; i < AP_JSON_DEPTH + 5; i++)
        ap_json_begin_array(&j, NULL);
    cr_expect_null(ap_strbuf_take(&j.text));
}
