/* SPDX-License-Identifier: Apache-2.0
 * Reading a manifest, which may be damaged or hostile: the hash of the first line is checked before anything
 * is believed, and every number, size and name is bounded all the same, since a hash can be forged. Nothing is
 * allocated by a number that the text states; counts come from the text itself. */
#include "config.h"
#include "ckpt/manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "state/tiling.h"

#define TIME_MAX    253402300800.0 /* the year 10000 */
#define HEAD_BEFORE "{\"xxh3_128\":\""
#define HEAD_AFTER  "\",\n"
#define HEAD_BYTES  (sizeof HEAD_BEFORE - 1 + 32 + sizeof HEAD_AFTER - 1)

struct parser {
    struct ap_manifest *m;
    int64_t version;
    struct ap_tiling tiling; /* its memory serves one tensor after the other */
};

static ap_status corrupt(struct ap_error *err, const char *what)
{
    return ap_error_set(err, AP_ERR_CORRUPT, "damaged checkpoint manifest: %s", what);
}

static ap_status tensor_fault(struct ap_error *err, const struct ap_named *t, const char *what)
{
    return ap_error_set(err, AP_ERR_CORRUPT, "damaged checkpoint manifest: tensor %s: %s", t->name, what);
}

/* 1: the first line is there and its hash fits; 0: the line is there, the hash does not fit; -1: no such line. */
static int hash_fits(const char *text, size_t size)
{
    char hex[33];
    if (size < HEAD_BYTES || memcmp(text, HEAD_BEFORE, sizeof HEAD_BEFORE - 1) != 0 ||
        memcmp(text + HEAD_BYTES - (sizeof HEAD_AFTER - 1), HEAD_AFTER, sizeof HEAD_AFTER - 1) != 0)
        return -1;
    ap_hash128_hex(ap_hash128(text + HEAD_BYTES, size - HEAD_BYTES), hex);
    return memcmp(hex, text + sizeof HEAD_BEFORE - 1, 32) == 0; /* as text: one way to write a hash */
}

/* Numbers arrive as text, so that those of meta keep their digits. */
static int get_i64(yyjson_val *v, int64_t low, int64_t high, int64_t *out)
{
    const char *raw = yyjson_is_raw(v) ? yyjson_get_raw(v) : NULL;
    char *end;
    if (raw == NULL)
        return 0;
    errno = 0;
    long long n = strtoll(raw, &end, 10);
    if (errno != 0 || end != raw + yyjson_get_len(v) || n < low || n > high)
        return 0;
    *out = n;
    return 1;
}

static int get_hash(yyjson_val *obj, const char *key, struct ap_hash128 *out)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_str(v) && yyjson_get_len(v) == 32 && ap_hash128_parse(yyjson_get_str(v), out) == 0;
}

static ap_status parse_files(yyjson_val *list, struct ap_manifest *m, struct ap_error *err)
{
    size_t n = yyjson_arr_size(list), i, max;
    yyjson_val *o;
    if (n < 1 || n > AP_MANIFEST_FILES_MAX)
        return corrupt(err, "list of files");
    m->files = calloc(n, sizeof *m->files);
    if (m->files == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a checkpoint manifest");
    m->file_count = (int)n;
    yyjson_arr_foreach(list, i, max, o)
    {
        struct ap_image_info *f = &m->files[i];
        const int64_t most = INT64_C(1) << 60;
        if (!get_i64(yyjson_obj_get(o, "bytes"), 1, most, &f->bytes) ||
            !get_i64(yyjson_obj_get(o, "index_offset"), 0, f->bytes, &f->index_offset) ||
            !get_i64(yyjson_obj_get(o, "index_bytes"), 0, f->bytes - f->index_offset, &f->index_bytes) ||
            f->index_bytes % AP_CHUNK_ROW_BYTES != 0 || !get_hash(o, "xxh3_128", &f->file_hash) ||
            !get_hash(o, "index_xxh3_128", &f->index_hash) || !get_hash(o, "rest_xxh3_128", &f->rest_hash))
            return corrupt(err, "entry of a file");
    }
    return AP_OK;
}

static int parse_head(yyjson_val *o, struct ap_named *t)
{
    yyjson_val *name = yyjson_obj_get(o, "name"), *dtype = yyjson_obj_get(o, "dtype"),
               *shape = yyjson_obj_get(o, "shape"), *v;
    size_t i, max;
    if (!yyjson_is_str(name) || yyjson_get_len(name) >= AP_NAME_MAX || !ap_named_name_ok(yyjson_get_str(name)) ||
        strlen(yyjson_get_str(name)) != yyjson_get_len(name))
        return 0;
    memcpy(t->name, yyjson_get_str(name), yyjson_get_len(name) + 1);
    if (!yyjson_is_str(dtype) || ap_dtype_parse(yyjson_get_str(dtype), &t->dtype) != 0)
        return 0;
    if (!yyjson_is_arr(shape) || yyjson_arr_size(shape) > 4)
        return 0;
    t->ndim = (int)yyjson_arr_size(shape);
    yyjson_arr_foreach(shape, i, max, v)
    {
        if (!get_i64(v, 0, INT64_MAX, &t->shape[i]))
            return 0;
    }
    t->end = ap_named_elements(t);
    return t->end >= 0;
}

/* One part: [file, part, begin, end], and in the version with slabs [file, part, begin, end, col, width] for a part of
 * some columns only. */
static int parse_part(yyjson_val *p, const struct parser *ps, struct ap_manifest_part *part)
{
    size_t n = yyjson_arr_size(p);
    int64_t file, ordinal;
    struct ap_slab *s = &part->range;
    if (!yyjson_is_arr(p) || (n != 4 && !(n == 6 && ps->version >= AP_MANIFEST_VERSION_SLABS)) ||
        !get_i64(yyjson_arr_get(p, 0), 0, ps->m->file_count - 1, &file) ||
        !get_i64(yyjson_arr_get(p, 1), 0, INT32_MAX, &ordinal) ||
        !get_i64(yyjson_arr_get(p, 2), 0, INT64_MAX - 1, &s->begin) ||
        !get_i64(yyjson_arr_get(p, 3), s->begin + 1, INT64_MAX, &s->end))
        return 0;
    if (n == 6 && (!get_i64(yyjson_arr_get(p, 4), 0, INT64_MAX, &s->col) ||
                   !get_i64(yyjson_arr_get(p, 5), 1, INT64_MAX, &s->width)))
        return 0;
    part->file = (int32_t)file;
    part->part = (int32_t)ordinal;
    return 1;
}

/* Parts are in order, have one way to be written, and tile the tensor. */
static ap_status parse_parts(yyjson_val *list, struct parser *ps, struct ap_manifest_tensor *t, struct ap_error *err)
{
    size_t i, max;
    yyjson_val *p;
    struct ap_error why;
    t->first_part = ps->m->part_count;
    ap_tiling_begin(&ps->tiling, &t->head);
    if (!yyjson_is_arr(list))
        return corrupt(err, "list of the parts of a tensor");
    yyjson_arr_foreach(list, i, max, p)
    {
        struct ap_manifest_part *part = &ps->m->parts[ps->m->part_count];
        if (!parse_part(p, ps, part))
            return tensor_fault(err, &t->head, "ill-formed part");
        struct ap_named range = ap_named_part(&t->head, &part->range);
        if (ap_named_fault(&range) != NULL)
            return tensor_fault(err, &t->head, ap_named_fault(&range));
        if (range.col == 0 && range.width > 0 && range.width == range.shape[1])
            return tensor_fault(err, &t->head, "a part of all columns is written as a slab");
        if (i > 0 && !ap_manifest_before(&part[-1].range, &part->range))
            return tensor_fault(err, &t->head, "its parts are out of order");
        AP_TRY(ap_tiling_add(&ps->tiling, &part->range, err));
        ps->m->part_count++;
    }
    t->part_count = ps->m->part_count - t->first_part;
    ap_status status = ap_tiling_check(&ps->tiling, &t->head, AP_ERR_CORRUPT, &why);
    if (status == AP_ERR_CORRUPT)
        return corrupt(err, why.text);
    return status == AP_OK ? AP_OK : ap_error_set(err, status, "%s", why.text);
}

static ap_status parse_tensors(yyjson_val *list, struct parser *ps, struct ap_error *err)
{
    size_t i, max, parts = 0;
    yyjson_val *o;
    struct ap_manifest *m = ps->m;
    if (!yyjson_is_arr(list))
        return corrupt(err, "list of tensors");
    yyjson_arr_foreach(list, i, max, o)
    {
        parts += yyjson_arr_size(yyjson_obj_get(o, "parts"));
    }
    m->tensors = calloc(yyjson_arr_size(list) + 1, sizeof *m->tensors);
    m->parts = calloc(parts + 1, sizeof *m->parts);
    if (m->tensors == NULL || m->parts == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a checkpoint manifest");
    yyjson_arr_foreach(list, i, max, o)
    {
        struct ap_manifest_tensor *t = &m->tensors[i];
        if (!parse_head(o, &t->head) || (i > 0 && strcmp(m->tensors[i - 1].head.name, t->head.name) >= 0))
            return corrupt(err, "entry of a tensor");
        AP_TRY(parse_parts(yyjson_obj_get(o, "parts"), ps, t, err));
        m->tensor_count++;
    }
    return AP_OK;
}

static ap_status parse_root(yyjson_val *root, int fits, struct parser *ps, struct ap_error *err)
{
    struct ap_manifest *m = ps->m;
    yyjson_val *format = yyjson_obj_get(root, "format");
    if (!yyjson_is_str(format) || strcmp(yyjson_get_str(format), "antipode-checkpoint") != 0 ||
        !get_i64(yyjson_obj_get(root, "version"), 0, INT32_MAX, &ps->version))
        return corrupt(err, "format or version is missing");
    if (ps->version < AP_MANIFEST_VERSION || ps->version > AP_MANIFEST_VERSION_SLABS) {
        ap_error_set(err, AP_ERR_FORMAT,
                     "this checkpoint has format version %lld, this program reads versions %d and %d",
                     (long long)ps->version, AP_MANIFEST_VERSION, AP_MANIFEST_VERSION_SLABS);
        ap_error_hint(err, "use the antipode version that wrote it, or start in another checkpoint directory");
        return AP_ERR_FORMAT;
    }
    if (fits < 0)
        return corrupt(err, "the first line does not carry its hash");
    yyjson_val *time = yyjson_obj_get(root, "time"), *meta = yyjson_obj_get(root, "meta");
    if (!get_i64(yyjson_obj_get(root, "step"), 0, INT64_MAX, &m->step))
        return corrupt(err, "step");
    m->time = yyjson_is_raw(time) ? strtod(yyjson_get_raw(time), NULL) : -1;
    if (!(m->time >= 0 && m->time < TIME_MAX))
        return corrupt(err, "time");
    AP_TRY(parse_files(yyjson_obj_get(root, "files"), m, err));
    AP_TRY(parse_tensors(yyjson_obj_get(root, "tensors"), ps, err));
    if (!yyjson_is_obj(meta))
        return corrupt(err, "meta");
    m->meta = yyjson_val_write(meta, 0, NULL);
    return m->meta != NULL ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "no memory for a checkpoint manifest");
}

ap_status ap_manifest_parse(const char *text, size_t size, struct ap_manifest *m_p, struct ap_error *err)
{
    if (size > AP_MANIFEST_BYTES_MAX)
        return corrupt(err, "it is too large");
    int fits = hash_fits(text, size);
    if (fits == 0)
        return corrupt(err, "its hash does not fit its content");
    /* Without a first line of ours it may still be one of another format version: find out. */
    yyjson_doc *doc = yyjson_read(text, size, YYJSON_READ_NUMBER_AS_RAW);
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct ap_manifest m = {0};
    struct parser ps = {.m = &m};
    ap_status status = yyjson_is_obj(root) ? parse_root(root, fits, &ps, err) : corrupt(err, "it is not a JSON object");
    ap_tiling_clear(&ps.tiling);
    yyjson_doc_free(doc);
    if (status != AP_OK) {
        ap_manifest_free(&m);
        return status;
    }
    *m_p = m;
    return AP_OK;
}
