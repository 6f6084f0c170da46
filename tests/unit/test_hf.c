/* SPDX-License-Identifier: Apache-2.0
 * safetensors and .npy files: round trip, and every way a file can lie about its contents. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../support/leaks.h"
#include "hf/npy.h"
#include "hf/safetensors.h"

static char path[256];

static void temp(void)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/ap-hf-%d", dir ? dir : "/tmp", (int)getpid());
}

static void cleanup(void)
{
    unlink(path);
}

TestSuite(hf, .init = temp, .fini = cleanup);

static void write_file(const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(data, 1, size, f), size);
    cr_assert_eq(fclose(f), 0);
}

/* A safetensors file with this header and `bytes` of zero data. */
static ap_status open_header(const char *header, size_t bytes, struct ap_error *err)
{
    size_t len = strlen(header);
    char *file = calloc(1, 8 + len + bytes + 1);
    cr_assert_not_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (char)(len >> (8 * i));
    memcpy(file + 8, header, len);
    write_file(file, 8 + len + bytes);
    free(file);
    struct ap_safetensors *f;
    ap_status st = ap_safetensors_open(path, &f, err);
    if (st == AP_OK)
        ap_safetensors_close(f);
    return st;
}

AP_TEST(hf, safetensors_round_trip)
{
    float a[6] = {1, 2, 3, 4, 5, 6};
    int64_t b[2] = {-1, 1LL << 60};
    struct ap_named_set set = {0};
    struct ap_named ta = {
        .name = "param/x.weight", .dtype = AP_F32, .ndim = 2, .shape = {2, 3, 1, 1}, .end = 6, .data = a};
    struct ap_named tb = {.name = "param/y", .dtype = AP_I64, .ndim = 1, .shape = {2, 1, 1, 1}, .end = 2, .data = b};
    struct ap_error err = {0};
    cr_assert_eq(ap_named_set_add(&set, &ta, &err), AP_OK);
    cr_assert_eq(ap_named_set_add(&set, &tb, &err), AP_OK);
    cr_assert_eq(ap_safetensors_write(path, &set, "param/", &err), AP_OK, "%s", err.text);
    struct ap_safetensors *f;
    cr_assert_eq(ap_safetensors_open(path, &f, &err), AP_OK, "%s", err.text);
    cr_expect_eq(ap_safetensors_count(f), 2);
    const struct ap_safetensor *x = ap_safetensors_find(f, "x.weight"), *y = ap_safetensors_find(f, "y");
    cr_assert(x && y);
    cr_expect_eq(x->ndim, 2);
    cr_expect_eq(x->shape[1], 3);
    cr_expect_eq(memcmp(x->data, a, sizeof a), 0);
    cr_expect_eq(memcmp(y->data, b, sizeof b), 0);
    cr_expect_null(ap_safetensors_find(f, "param/x.weight"));
    ap_safetensors_close(f);
    ta.end = 5;
    ap_named_set_clear(&set);
    cr_assert_eq(ap_named_set_add(&set, &ta, &err), AP_OK);
    cr_expect_eq(ap_safetensors_write(path, &set, NULL, &err), AP_ERR_BUG, "a part of a tensor was written as a whole");
    ap_named_set_clear(&set);
}

AP_TEST(hf, safetensors_that_lie)
{
    static const struct {
        const char *header;
        size_t bytes;
        const char *word;
    } bad[] = {
        {"[]", 0, "object"},
        {"{\"a\":", 0, "object"},
        {"{\"a\":{\"dtype\":\"F8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype F8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "do not fit its shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole or overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "behind the last"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "unusable shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}}", 4, "unusable shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,4]}}", 4,
         "do not fit its shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "hole or overlap"},
    };
    struct ap_error err;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_eq(open_header(bad[i].header, bad[i].bytes, &err), AP_ERR_INPUT, "accepted: %s", bad[i].header);
        cr_expect_not_null(strstr(err.text, bad[i].word), "%s: message is \"%s\"", bad[i].header, err.text);
    }
    write_file("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    struct ap_safetensors *f;
    cr_expect_eq(ap_safetensors_open(path, &f, &err), AP_ERR_INPUT);
    write_file("abc", 3);
    cr_expect_eq(ap_safetensors_open(path, &f, &err), AP_ERR_INPUT);
    cr_expect_eq(open_header("{\"__metadata__\":{\"format\":\"pt\"}}", 0, &err), AP_OK, "%s", err.text);
    unlink(path);
    cr_expect_neq(ap_safetensors_open(path, &f, &err), AP_OK);
    char text[2048];
    ap_error_format(&err, text, sizeof text);
    cr_expect_not_null(strstr(text, path), "no path in \"%s\"", text);
}

static ap_status open_npy(const char *header, size_t bytes, struct ap_npy *a, struct ap_error *err)
{
    char file[512] = "\x93NUMPY\x01\x00";
    size_t len = strlen(header);
    file[8] = (char)len;
    file[9] = 0;
    memcpy(file + 10, header, len);
    memset(file + 10 + len, 1, bytes);
    write_file(file, 10 + len + bytes);
    return ap_npy_open(path, a, err);
}

AP_TEST(hf, npy)
{
    struct ap_npy a;
    struct ap_error err;
    cr_assert_eq(open_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }\n", 24, &a, &err), AP_OK, "%s",
                 err.text);
    cr_expect_eq(a.dtype, AP_I32);
    cr_expect_eq(a.ndim, 2);
    cr_expect_eq(a.shape[0] * 10 + a.shape[1], 23);
    cr_expect_eq(((const int8_t *)a.data)[0], 1);
    ap_npy_close(&a);
    cr_expect_eq(open_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }\n", 23, &a, &err), AP_ERR_INPUT);
    cr_expect_eq(open_npy("{'descr': '>i4', 'fortran_order': False, 'shape': (2, 3), }\n", 24, &a, &err), AP_ERR_INPUT);
    cr_expect_eq(open_npy("{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3), }\n", 24, &a, &err), AP_ERR_INPUT);
    cr_expect_eq(open_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (-2, 3), }\n", 24, &a, &err),
                 AP_ERR_INPUT);
    cr_expect_eq(
        open_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (9223372036854775807, 3), }\n", 24, &a, &err),
        AP_ERR_INPUT);
    cr_expect_eq(open_npy("{'descr': '<i4', 'fortran_order': False}\n", 24, &a, &err), AP_ERR_INPUT);
    cr_expect_eq(open_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n", 4, &a, &err), AP_OK, "%s",
                 err.text);
    cr_expect_eq(a.count, 1);
    ap_npy_close(&a);
    write_file("no array", 8);
    cr_expect_eq(ap_npy_open(path, &a, &err), AP_ERR_INPUT);
}
