/* SPDX-License-Identifier: Apache-2.0
 * Building and printing a manifest, and what both directions share. Parsing is in manifest_parse.c. */
#include "config.h"
#include "ckpt/manifest.h"

#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "base/clock.h"
#include "state/tiling.h"

void ap_manifest_free(struct ap_manifest *m)
{
    free(m->files);
    free(m->tensors);
    free(m->parts);
    free(m->meta);
    memset(m, 0, sizeof *m);
}

const struct ap_manifest_tensor *ap_manifest_find(const struct ap_manifest *m, const char *name)
{
    int64_t low = 0, high = m->tensor_count;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        int c = strcmp(m->tensors[mid].head.name, name);
        if (c == 0)
            return &m->tensors[mid];
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static ap_status nomem(struct ap_error *err)
{
    return ap_error_set(err, AP_ERR_NOMEM, "no memory for a checkpoint manifest");
}

/* ---- build ---- */

struct entry { /* one range of one rank */
    const struct ap_named *t;
    int32_t file, part;
};

int ap_manifest_before(const struct ap_slab *a, const struct ap_slab *b)
{
    if (a->col != b->col)
        return a->col < b->col;
    if (a->width != b->width)
        return a->width < b->width;
    return a->begin < b->begin;
}

static int by_name_range(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int c = strcmp(x->t->name, y->t->name);
    if (c != 0)
        return c;
    struct ap_slab p = ap_named_slab(x->t), q = ap_named_slab(y->t);
    if (ap_manifest_before(&p, &q) || ap_manifest_before(&q, &p))
        return ap_manifest_before(&p, &q) ? -1 : 1;
    if (x->t->end != y->t->end)
        return x->t->end < y->t->end ? -1 : 1;
    return x->file - y->file;
}

/* Entries e[0..n) are one tensor: append it and its parts. */
static ap_status tensor_append(struct ap_manifest *m, const struct entry *e, int64_t n, struct ap_tiling *tiling,
                               struct ap_error *err)
{
    struct ap_manifest_tensor *mt = &m->tensors[m->tensor_count];
    struct ap_slab all = {.end = ap_named_elements(e[0].t)};
    mt->head = ap_named_part(e[0].t, &all);
    mt->first_part = m->part_count;
    ap_tiling_begin(tiling, &mt->head);
    for (int64_t i = 0; i < n; i++) {
        const struct ap_named *t = e[i].t;
        if (!ap_named_same_tensor(t, e[0].t))
            return ap_error_set(err, AP_ERR_BUG, "tensor %s: ranks %d and %d disagree on its dtype or shape", t->name,
                                e[0].file, e[i].file);
        if (t->begin == t->end)
            continue;
        struct ap_slab range = ap_named_slab(t);
        AP_TRY(ap_tiling_add(tiling, &range, err));
        m->parts[m->part_count++] = (struct ap_manifest_part){e[i].file, e[i].part, range};
    }
    AP_TRY(ap_tiling_check(tiling, &mt->head, AP_ERR_BUG, err));
    mt->part_count = m->part_count - mt->first_part;
    m->tensor_count++;
    return AP_OK;
}

static ap_status meta_check(const char *text, struct ap_error *err)
{
    yyjson_doc *doc = yyjson_read(text, strlen(text), YYJSON_READ_NUMBER_AS_RAW);
    int ok = doc != NULL && yyjson_is_obj(yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    return ok ? AP_OK : ap_error_set(err, AP_ERR_BUG, "the meta text of a checkpoint is not a JSON object");
}

static ap_status build(const struct ap_named *tensors, const int64_t *offsets, int ranks, struct entry *entries,
                       struct ap_manifest *m, struct ap_error *err)
{
    struct ap_tiling tiling = {0};
    ap_status status = AP_OK;
    int64_t n = offsets[ranks];
    for (int r = 0; r < ranks; r++) {
        int32_t part = 0;
        for (int64_t i = offsets[r]; i < offsets[r + 1]; i++)
            entries[i] = (struct entry){&tensors[i], r, tensors[i].end > tensors[i].begin ? part++ : -1};
    }
    qsort(entries, (size_t)n, sizeof *entries, by_name_range);
    for (int64_t i = 0, j; i < n && status == AP_OK; i = j) {
        for (j = i + 1; j < n && strcmp(entries[i].t->name, entries[j].t->name) == 0;)
            j++;
        status = tensor_append(m, entries + i, j - i, &tiling, err);
    }
    ap_tiling_clear(&tiling);
    return status;
}

ap_status ap_manifest_build(const struct ap_named *tensors, const int64_t *offsets, int ranks, const char *meta_json,
                            int64_t step, struct ap_manifest *m_p, struct ap_error *err)
{
    size_t n = (size_t)offsets[ranks] + 1;
    struct ap_manifest m = {.step = step, .time = ap_clock_wall(), .file_count = ranks};
    struct entry *entries = calloc(n, sizeof *entries);
    m.files = calloc((size_t)ranks, sizeof *m.files);
    m.tensors = calloc(n, sizeof *m.tensors);
    m.parts = calloc(n, sizeof *m.parts);
    m.meta = strdup(meta_json != NULL ? meta_json : "{}");
    ap_status status = AP_OK;
    if (entries == NULL || m.files == NULL || m.tensors == NULL || m.parts == NULL || m.meta == NULL)
        status = nomem(err);
    if (status == AP_OK)
        status = meta_check(m.meta, err);
    if (status == AP_OK)
        status = build(tensors, offsets, ranks, entries, &m, err);
    free(entries);
    if (status != AP_OK) {
        ap_manifest_free(&m);
        return status;
    }
    *m_p = m;
    return AP_OK;
}

/* ---- print ---- */

static int put_hash(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key, struct ap_hash128 h)
{
    char hex[33];
    ap_hash128_hex(h, hex);
    return yyjson_mut_obj_add_strcpy(doc, obj, key, hex);
}

static yyjson_mut_val *print_files(yyjson_mut_doc *doc, const struct ap_manifest *m)
{
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    for (int i = 0; i < m->file_count; i++) {
        const struct ap_image_info *f = &m->files[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
        if (o == NULL || !yyjson_mut_obj_add_sint(doc, o, "bytes", f->bytes) ||
            !put_hash(doc, o, "xxh3_128", f->file_hash) ||
            !yyjson_mut_obj_add_sint(doc, o, "index_offset", f->index_offset) ||
            !yyjson_mut_obj_add_sint(doc, o, "index_bytes", f->index_bytes) ||
            !put_hash(doc, o, "index_xxh3_128", f->index_hash) || !put_hash(doc, o, "rest_xxh3_128", f->rest_hash))
            return NULL;
    }
    return list;
}

static int print_tensor(yyjson_mut_doc *doc, yyjson_mut_val *o, const struct ap_manifest *m,
                        const struct ap_manifest_tensor *t)
{
    yyjson_mut_val *shape = yyjson_mut_arr_with_sint64(doc, t->head.shape, (size_t)t->head.ndim);
    yyjson_mut_val *parts = yyjson_mut_arr(doc);
    if (!yyjson_mut_obj_add_str(doc, o, "name", t->head.name) ||
        !yyjson_mut_obj_add_str(doc, o, "dtype", ap_dtype_name(t->head.dtype)) ||
        !yyjson_mut_obj_add_val(doc, o, "shape", shape) || !yyjson_mut_obj_add_val(doc, o, "parts", parts))
        return 0;
    for (int64_t i = 0; i < t->part_count; i++) {
        const struct ap_manifest_part *p = &m->parts[t->first_part + i];
        int64_t v[6] = {p->file, p->part, p->range.begin, p->range.end, p->range.col, p->range.width};
        if (!yyjson_mut_arr_append(parts, yyjson_mut_arr_with_sint64(doc, v, p->range.width > 0 ? 6 : 4)))
            return 0;
    }
    return 1;
}

static yyjson_mut_val *print_tensors(yyjson_mut_doc *doc, const struct ap_manifest *m)
{
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    for (int64_t i = 0; i < m->tensor_count; i++) {
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
        if (o == NULL || !print_tensor(doc, o, m, &m->tensors[i]))
            return NULL;
    }
    return list;
}

static int version_of(const struct ap_manifest *m)
{
    for (int64_t i = 0; i < m->part_count; i++)
        if (m->parts[i].range.width > 0)
            return AP_MANIFEST_VERSION_SLABS;
    return AP_MANIFEST_VERSION;
}

/* Everything behind the first line. */
static char *print_body(const struct ap_manifest *m, yyjson_doc *meta, size_t *size_p)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    char *text = NULL, iso[40];
    ap_clock_iso(m->time, iso);
    yyjson_mut_val *root = doc != NULL ? yyjson_mut_obj(doc) : NULL;
    if (root != NULL) {
        yyjson_mut_doc_set_root(doc, root);
        if (yyjson_mut_obj_add_str(doc, root, "format", "antipode-checkpoint") &&
            yyjson_mut_obj_add_sint(doc, root, "version", version_of(m)) &&
            yyjson_mut_obj_add_sint(doc, root, "step", m->step) &&
            yyjson_mut_obj_add_real(doc, root, "time", m->time) && yyjson_mut_obj_add_str(doc, root, "written", iso) &&
            yyjson_mut_obj_add_val(doc, root, "files", print_files(doc, m)) &&
            yyjson_mut_obj_add_val(doc, root, "tensors", print_tensors(doc, m)) &&
            yyjson_mut_obj_add_val(doc, root, "meta", yyjson_val_mut_copy(doc, yyjson_doc_get_root(meta))))
            text = yyjson_mut_write(doc, 0, size_p);
    }
    yyjson_mut_doc_free(doc);
    return text;
}

ap_status ap_manifest_print(const struct ap_manifest *m, char **text_p, size_t *size_p, struct ap_error *err)
{
    yyjson_doc *meta = yyjson_read(m->meta, strlen(m->meta), YYJSON_READ_NUMBER_AS_RAW);
    size_t body_size = 0;
    char *body = meta != NULL ? print_body(m, meta, &body_size) : NULL;
    char *text = body != NULL ? malloc(body_size + 64) : NULL;
    yyjson_doc_free(meta);
    if (text == NULL) {
        free(body);
        return nomem(err);
    }
    char hex[33];
    body[body_size] = '\n'; /* over the terminating NUL */
    /* The body's opening brace is given to the first line; the hash covers what follows that line. */
    ap_hash128_hex(ap_hash128(body + 1, body_size), hex);
    int head = snprintf(text, 64, "{\"xxh3_128\":\"%s\",\n", hex);
    memcpy(text + head, body + 1, body_size);
    free(body);
    if ((size_t)head + body_size > AP_MANIFEST_BYTES_MAX) {
        free(text);
        return ap_error_set(err, AP_ERR_UNSUPPORTED, "the manifest would exceed %zu bytes", AP_MANIFEST_BYTES_MAX);
    }
    *text_p = text;
    *size_p = (size_t)head + body_size;
    return AP_OK;
}
