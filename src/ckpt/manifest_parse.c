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

#define HEAD_BEFORE "{\"xxh3_128\":\""
#define HEAD_AFTER  "\",\n"
#define HEAD_BYTES  (sizeof HEAD_BEFORE - 1 + 32 + sizeof HEAD_AFTER - 1)

static ap_status corrupt(struct ap_error *err, const char *what)
{
    return ap_error_set(err, AP_ERR_CORRUPT, "damaged checkpoint manifest: %s", what);
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

/* Parts must tile [0, elements) in order. */
static int parse_parts(yyjson_val *list, struct ap_manifest *m, struct ap_manifest_tensor *t)
{
    size_t i, max;
    yyjson_val *p;
    int64_t pos = 0;
    t->first_part = m->part_count;
    if (!yyjson_is_arr(list))
        return 0;
    yyjson_arr_foreach(list, i, max, p)
    {
        int64_t file, part, begin, end;
        if (!yyjson_is_arr(p) || yyjson_arr_size(p) != 4 ||
            !get_i64(yyjson_arr_get(p, 0), 0, m->file_count - 1, &file) ||
            !get_i64(yyjson_arr_get(p, 1), 0, INT32_MAX, &part) || !get_i64(yyjson_arr_get(p, 2), pos, pos, &begin) ||
            !get_i64(yyjson_arr_get(p, 3), pos + 1, t->head.end, &end))
            return 0;
        m->parts[m->part_count++] = (struct ap_manifest_part){(int32_t)file, (int32_t)part, begin, end};
        pos = end;
    }
    t->part_count = m->part_count - t->first_part;
    return pos == t->head.end;
}

static ap_status parse_tensors(yyjson_val *list, struct ap_manifest *m, struct ap_error *err)
{
    size_t i, max, parts = 0;
    yyjson_val *o;
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
        if (!parse_head(o, &t->head) || (i > 0 && strcmp(m->tensors[i - 1].head.name, t->head.name) >= 0) ||
            !parse_parts(yyjson_obj_get(o, "parts"), m, t))
            return corrupt(err, "entry of a tensor");
        m->tensor_count++;
    }
    return AP_OK;
}

static ap_status parse_root(yyjson_val *root, int fits, struct ap_manifest *m, struct ap_error *err)
{
    int64_t version;
    yyjson_val *format = yyjson_obj_get(root, "format");
    if (!yyjson_is_str(format) || strcmp(yyjson_get_str(format), "antipode-checkpoint") != 0 ||
        !get_i64(yyjson_obj_get(root, "version"), 0, INT32_MAX, &version))
        return corrupt(err, "format or version is missing");
    if (version != AP_MANIFEST_VERSION) {
        ap_error_set(err, AP_ERR_FORMAT, "this checkpoint has format version %lld, this program reads version %d",
                     (long long)version, AP_MANIFEST_VERSION);
        ap_error_hint(err, "use the antipode version that wrote it, or start in another checkpoint directory");
        return AP_ERR_FORMAT;
    }
    if (fits < 0)
        return corrupt(err, "the first line does not carry its hash");
    yyjson_val *time = yyjson_obj_get(root, "time"), *meta = yyjson_obj_get(root, "meta");
    if (!get_i64(yyjson_obj_get(root, "step"), 0, INT64_MAX, &m->step))
        return corrupt(err, "step");
    if (!yyjson_is_raw(time))
        return corrupt(err, "time");
    m->time = strtod(yyjson_get_raw(time), NULL);
    AP_TRY(parse_files(yyjson_obj_get(root, "files"), m, err));
    AP_TRY(parse_tensors(yyjson_obj_get(root, "tensors"), m, err));
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
    ap_status status = yyjson_is_obj(root) ? parse_root(root, fits, &m, err) : corrupt(err, "it is not a JSON object");
    yyjson_doc_free(doc);
    if (status != AP_OK) {
        ap_manifest_free(&m);
        return status;
    }
    *m_p = m;
    return AP_OK;
}
