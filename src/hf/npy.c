/* SPDX-License-Identifier: Apache-2.0
 * Reader of NumPy's .npy format (the format is described in NumPy's numpy.lib.format). */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hf/npy.h"

/* The value text behind 'key': in the header dictionary, or NULL. */
static const char *value_of(const char *header, const char *key)
{
    const char *p = strstr(header, key);
    if (!p)
        return NULL;
    p += strlen(key);
    while (*p == ' ' || *p == ':')
        p++;
    return p;
}

static ap_status parse_shape(struct ap_npy *a, const char *text, const char *path, struct ap_error *err)
{
    if (!text || *text != '(')
        return ap_error_set(err, AP_ERR_INPUT, "%s: no shape in the header", path);
    a->count = 1;
    for (text++; *text && *text != ')';) {
        if (*text == ' ' || *text == ',') {
            text++;
            continue;
        }
        char *end;
        errno = 0;
        long long n = strtoll(text, &end, 10);
        if (end == text || errno || n < 0 || a->ndim == 4 || __builtin_mul_overflow(a->count, (int64_t)n, &a->count))
            return ap_error_set(err, AP_ERR_INPUT, "%s: unusable shape %.60s", path, text);
        a->shape[a->ndim++] = n;
        text = end;
    }
    return AP_OK;
}

static ap_status parse_header(struct ap_npy *a, const char *header, const char *path, struct ap_error *err)
{
    static const struct {
        const char *descr;
        ap_dtype type;
    } known[] = {{"'<f4'", AP_F32}, {"'<f8'", AP_F64}, {"'<i4'", AP_I32}, {"'<i8'", AP_I64}};
    const char *descr = value_of(header, "'descr'"), *order = value_of(header, "'fortran_order'");
    size_t i, n = sizeof known / sizeof known[0];
    for (i = 0; descr && i < n; i++)
        if (strncmp(descr, known[i].descr, 5) == 0)
            break;
    if (!descr || i == n)
        return ap_error_set(err, AP_ERR_INPUT, "%s: element type %.8s is not one of <f4, <f8, <i4, <i8", path,
                            descr ? descr : "(none)");
    if (!order || strncmp(order, "False", 5) != 0)
        return ap_error_set(err, AP_ERR_INPUT, "%s: only C order is supported", path);
    a->dtype = known[i].type;
    return parse_shape(a, value_of(header, "'shape'"), path, err);
}

static ap_status parse(struct ap_npy *a, const char *path, struct ap_error *err)
{
    const uint8_t *d = a->map.data;
    if (a->map.size < 12 || memcmp(d, "\x93NUMPY", 6) != 0 || (d[6] != 1 && d[6] != 2))
        return ap_error_set(err, AP_ERR_INPUT, "%s is not a .npy file of version 1 or 2", path);
    size_t len = d[8] | (size_t)d[9] << 8, begin = 10;
    if (d[6] == 2) {
        len |= (size_t)d[10] << 16 | (size_t)d[11] << 24;
        begin = 12;
    }
    if (len > a->map.size - begin || len > 65536)
        return ap_error_set(err, AP_ERR_INPUT, "%s: header of %zu bytes is beyond the file", path, len);
    char *header = malloc(len + 1);
    if (!header)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory reading %s", path);
    memcpy(header, d + begin, len);
    header[len] = '\0';
    ap_status st = parse_header(a, header, path, err);
    free(header);
    AP_TRY(st);
    int64_t bytes;
    if (__builtin_mul_overflow(a->count, (int64_t)ap_dtype_size(a->dtype), &bytes) ||
        (size_t)bytes != a->map.size - begin - len)
        return ap_error_set(err, AP_ERR_INPUT, "%s: %zu bytes of data do not fit the shape", path,
                            a->map.size - begin - len);
    a->data = d + begin + len;
    return AP_OK;
}

ap_status ap_npy_open(const char *path, struct ap_npy *a_p, struct ap_error *err)
{
    struct ap_npy a = {0};
    AP_TRY(ap_io_map(path, &a.map, err));
    ap_status st = parse(&a, path, err);
    if (st != AP_OK) {
        ap_io_unmap(&a.map);
        return st;
    }
    *a_p = a;
    return AP_OK;
}

void ap_npy_close(struct ap_npy *a)
{
    ap_io_unmap(&a->map);
    memset(a, 0, sizeof *a);
}
