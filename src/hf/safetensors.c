/* SPDX-License-Identifier: Apache-2.0
 * Reader and writer of the safetensors format. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

#include "base/io.h"
#include "hf/safetensors.h"

#define MAX_HEADER (100u << 20)

struct ap_safetensors {
    struct ap_mapping map;
    yyjson_doc *doc; /* owns the names */
    struct ap_safetensor *list;
    int64_t count;
    size_t data_begin;
};

static const struct {
    const char *name;
    ap_dtype type;
} dtypes[] = {{"F32", AP_F32}, {"F64", AP_F64}, {"BF16", AP_BF16}, {"I32", AP_I32},
              {"I64", AP_I64}, {"U8", AP_U8},   {"U16", AP_U16}};
#define DTYPES (sizeof dtypes / sizeof dtypes[0])

static ap_status parse_dtype(struct ap_safetensor *t, yyjson_val *v, const char *path, struct ap_error *err)
{
    const char *s = yyjson_get_str(v);
    for (size_t i = 0; s && i < DTYPES; i++)
        if (strcmp(s, dtypes[i].name) == 0) {
            t->dtype = dtypes[i].type;
            return AP_OK;
        }
    return ap_error_set(err, AP_ERR_INPUT, "%s: tensor %s has dtype %s, which is not supported", path, t->name,
                        s ? s : "(none)");
}

static ap_status parse_shape(struct ap_safetensor *t, yyjson_val *v, const char *path, struct ap_error *err)
{
    t->count = 1;
    if (!yyjson_is_arr(v) || yyjson_arr_size(v) > 4)
        return ap_error_set(err, AP_ERR_INPUT, "%s: tensor %s has no shape of at most 4 dimensions", path, t->name);
    for (size_t i = 0; i < yyjson_arr_size(v); i++) {
        yyjson_val *d = yyjson_arr_get(v, i);
        if (!yyjson_is_uint(d) || yyjson_get_uint(d) > INT64_MAX ||
            __builtin_mul_overflow(t->count, (int64_t)yyjson_get_uint(d), &t->count))
            return ap_error_set(err, AP_ERR_INPUT, "%s: tensor %s has an unusable shape", path, t->name);
        t->shape[t->ndim++] = (int64_t)yyjson_get_uint(d);
    }
    return AP_OK;
}

/* Offsets of one tensor, relative to the end of the header; *end_p is where the next one must begin. */
static ap_status parse_entry(struct ap_safetensors *f, struct ap_safetensor *t, yyjson_val *v, const char *path,
                             struct ap_error *err)
{
    AP_TRY(parse_dtype(t, yyjson_obj_get(v, "dtype"), path, err));
    AP_TRY(parse_shape(t, yyjson_obj_get(v, "shape"), path, err));
    yyjson_val *off = yyjson_obj_get(v, "data_offsets");
    yyjson_val *b = yyjson_arr_get(off, 0), *e = yyjson_arr_get(off, 1);
    int64_t bytes;
    if (!yyjson_is_uint(b) || !yyjson_is_uint(e) || yyjson_get_uint(e) > f->map.size - f->data_begin ||
        yyjson_get_uint(b) > yyjson_get_uint(e))
        return ap_error_set(err, AP_ERR_INPUT, "%s: data_offsets of tensor %s lie outside the file", path, t->name);
    if (__builtin_mul_overflow(t->count, (int64_t)ap_dtype_size(t->dtype), &bytes) ||
        (uint64_t)bytes != yyjson_get_uint(e) - yyjson_get_uint(b))
        return ap_error_set(err, AP_ERR_INPUT, "%s: data_offsets of tensor %s do not fit its shape", path, t->name);
    t->data = f->map.data + f->data_begin + yyjson_get_uint(b);
    return AP_OK;
}

static int by_address(const void *a, const void *b)
{
    const struct ap_safetensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->count > y->count) - (x->count < y->count); /* empty tensors first */
}

/* The tensors tile the data section: no hole, no overlap. */
static ap_status check_tiling(struct ap_safetensors *f, const char *path, struct ap_error *err)
{
    qsort(f->list, (size_t)f->count, sizeof *f->list, by_address);
    const uint8_t *at = f->map.data + f->data_begin;
    for (int64_t i = 0; i < f->count; i++) {
        if ((const uint8_t *)f->list[i].data != at)
            return ap_error_set(err, AP_ERR_INPUT, "%s: a hole or overlap in the data before tensor %s", path,
                                f->list[i].name);
        at += (size_t)f->list[i].count * ap_dtype_size(f->list[i].dtype);
    }
    if (at != f->map.data + f->map.size)
        return ap_error_set(err, AP_ERR_INPUT, "%s: %zu bytes behind the last tensor", path,
                            (size_t)(f->map.data + f->map.size - at));
    return AP_OK;
}

static ap_status parse(struct ap_safetensors *f, const char *path, struct ap_error *err)
{
    uint64_t len = 0;
    if (f->map.size < 8)
        return ap_error_set(err, AP_ERR_INPUT, "%s is too short for a safetensors file", path);
    for (int i = 7; i >= 0; i--)
        len = len << 8 | f->map.data[i];
    if (len > MAX_HEADER || len > f->map.size - 8)
        return ap_error_set(err, AP_ERR_INPUT, "%s: header length %llu is beyond the file or 100 MB", path,
                            (unsigned long long)len);
    f->data_begin = 8 + (size_t)len;
    yyjson_read_err je;
    f->doc = yyjson_read_opts((char *)(uintptr_t)(f->map.data + 8), (size_t)len, YYJSON_READ_NOFLAG, NULL, &je);
    yyjson_val *root = yyjson_doc_get_root(f->doc);
    if (!yyjson_is_obj(root))
        return ap_error_set(err, AP_ERR_INPUT, "%s: the header is not a JSON object (%s)", path,
                            f->doc ? "another type" : je.msg);
    f->list = calloc(yyjson_obj_size(root) + 1, sizeof *f->list);
    if (!f->list)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory reading %s", path);
    size_t i, n;
    yyjson_val *key, *val;
    yyjson_obj_foreach(root, i, n, key, val)
    {
        if (strcmp(yyjson_get_str(key), "__metadata__") == 0)
            continue;
        struct ap_safetensor *t = &f->list[f->count++];
        t->name = yyjson_get_str(key);
        AP_TRY(parse_entry(f, t, val, path, err));
    }
    return check_tiling(f, path, err);
}

ap_status ap_safetensors_open(const char *path, struct ap_safetensors **f_p, struct ap_error *err)
{
    struct ap_safetensors *f = calloc(1, sizeof *f);
    if (!f)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory reading %s", path);
    ap_status st = ap_io_map(path, &f->map, err);
    if (st == AP_OK)
        st = parse(f, path, err);
    if (st != AP_OK) {
        ap_safetensors_close(f);
        return st;
    }
    *f_p = f;
    return AP_OK;
}

void ap_safetensors_close(struct ap_safetensors *f)
{
    if (!f)
        return;
    yyjson_doc_free(f->doc);
    ap_io_unmap(&f->map);
    free(f->list);
    free(f);
}

int64_t ap_safetensors_count(const struct ap_safetensors *f)
{
    return f->count;
}

const struct ap_safetensor *ap_safetensors_at(const struct ap_safetensors *f, int64_t i)
{
    return &f->list[i];
}

const struct ap_safetensor *ap_safetensors_find(const struct ap_safetensors *f, const char *name)
{
    for (int64_t i = 0; i < f->count; i++)
        if (strcmp(f->list[i].name, name) == 0)
            return &f->list[i];
    return NULL;
}

/* ---- writer ---- */

static const char *dtype_text(ap_dtype t)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (dtypes[i].type == t)
            return dtypes[i].name;
    return NULL;
}

/* JSON header padded with spaces to a multiple of 8 bytes; malloc'ed. */
static char *make_header(const struct ap_named_set *set, const char *strip, size_t *len_p)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_val *meta = yyjson_mut_obj_add_obj(doc, root, "__metadata__");
    yyjson_mut_obj_add_str(doc, meta, "format", "pt");
    uint64_t at = 0;
    size_t skip = strip ? strlen(strip) : 0;
    for (int64_t i = 0; i < set->count; i++) {
        const struct ap_named *t = &set->list[i];
        const char *name = skip && strncmp(t->name, strip, skip) == 0 ? t->name + skip : t->name;
        yyjson_mut_val *o = yyjson_mut_obj_add_obj(doc, root, name);
        yyjson_mut_obj_add_str(doc, o, "dtype", dtype_text(t->dtype));
        yyjson_mut_val *shape = yyjson_mut_obj_add_arr(doc, o, "shape");
        for (int d = 0; d < t->ndim; d++)
            yyjson_mut_arr_add_int(doc, shape, t->shape[d]);
        yyjson_mut_val *off = yyjson_mut_obj_add_arr(doc, o, "data_offsets");
        yyjson_mut_arr_add_uint(doc, off, at);
        at += (uint64_t)ap_named_elements(t) * ap_dtype_size(t->dtype);
        yyjson_mut_arr_add_uint(doc, off, at);
    }
    size_t len = 0;
    char *json = yyjson_mut_write(doc, 0, &len);
    yyjson_mut_doc_free(doc);
    size_t padded = (len + 7) / 8 * 8;
    char *text = json ? malloc(padded + 1) : NULL;
    if (text) {
        memcpy(text, json, len);
        memset(text + len, ' ', padded - len);
        text[padded] = '\0';
        *len_p = padded;
    }
    free(json);
    return text;
}

static ap_status write_all(int fd, const char *path, const struct ap_named_set *set, const char *header, size_t len,
                           struct ap_error *err)
{
    uint8_t prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (uint8_t)((uint64_t)len >> (8 * i));
    AP_TRY(ap_io_pwrite_all(fd, prefix, 8, 0, path, err));
    AP_TRY(ap_io_pwrite_all(fd, header, len, 8, path, err));
    int64_t at = 8 + (int64_t)len;
    for (int64_t i = 0; i < set->count; i++) {
        size_t bytes = (size_t)ap_named_elements(&set->list[i]) * ap_dtype_size(set->list[i].dtype);
        AP_TRY(ap_io_pwrite_all(fd, set->list[i].data, bytes, at, path, err));
        at += (int64_t)bytes;
    }
    if (fsync(fd) != 0)
        return ap_error_set(err, ap_status_from_errno(errno), "cannot sync %s: %s", path, strerror(errno));
    return AP_OK;
}

static ap_status check_set(const struct ap_named_set *set, struct ap_error *err)
{
    for (int64_t i = 0; i < set->count; i++) {
        const struct ap_named *t = &set->list[i];
        if (t->begin != 0 || t->end != ap_named_elements(t))
            return ap_error_set(err, AP_ERR_BUG, "tensor %s is not whole", t->name);
        if (!dtype_text(t->dtype))
            return ap_error_set(err, AP_ERR_UNSUPPORTED, "dtype %s cannot be exported", ap_dtype_name(t->dtype));
    }
    return AP_OK;
}

ap_status ap_safetensors_write(const char *path, const struct ap_named_set *set, const char *strip,
                               struct ap_error *err)
{
    AP_TRY(check_set(set, err));
    char tmp[4096];
    int n = snprintf(tmp, sizeof tmp, "%s.tmp", path);
    if (n < 0 || (size_t)n >= sizeof tmp)
        return ap_error_set(err, AP_ERR_INPUT, "path too long: %.200s", path);
    size_t len = 0;
    char *header = make_header(set, strip, &len);
    if (!header)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the header of %s", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    ap_status st = AP_OK;
    if (fd < 0)
        st = ap_error_set(err, ap_status_from_errno(errno), "cannot create %s: %s", tmp, strerror(errno));
    else
        st = write_all(fd, tmp, set, header, len, err);
    free(header);
    if (fd >= 0 && close(fd) != 0 && st == AP_OK)
        st = ap_error_set(err, ap_status_from_errno(errno), "cannot close %s: %s", tmp, strerror(errno));
    if (st == AP_OK && rename(tmp, path) != 0)
        st = ap_error_set(err, ap_status_from_errno(errno), "cannot rename %s to %s: %s", tmp, path, strerror(errno));
    if (st != AP_OK) {
        if (fd >= 0)
            unlink(tmp);
        return st;
    }
    const char *slash = strrchr(path, '/');
    char dir[4096];
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return ap_io_fsync_dir(dir[0] ? dir : "/", err);
}
