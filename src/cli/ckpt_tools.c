/* SPDX-License-Identifier: Apache-2.0
 * Comparing two states tensor by tensor, and writing one as Hugging Face files. Tensors are read and checked
 * one at a time, in pieces of bounded size for the comparison. */
#include "config.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "base/dtype.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "ckpt/store.h"
#include "cli/ckpt_tools.h"
#include "hf/safetensors.h"

#define PIECE_ELEMENTS (INT64_C(1) << 20)
#define PARAM_PREFIX   "param/"

ap_status ap_ckpt_tool_open(const char *path, struct ap_ckpt_reader **reader_p, struct ap_error *err)
{
    char manifest[PATH_MAX];
    if (snprintf(manifest, sizeof manifest, "%s/%s", path, AP_MANIFEST_NAME) < (int)sizeof manifest &&
        ap_io_exists(manifest))
        return ap_ckpt_reader_open(path, reader_p, err);
    struct ap_ckpt_entry *list;
    int count;
    AP_TRY(ap_ckpt_list(path, &list, &count, err));
    ap_status status;
    if (count > 0)
        status = ap_ckpt_reader_open(list[0].path, reader_p, err);
    else
        status = ap_error_set(err, AP_ERR_NOTFOUND, "%s holds no state", path);
    free(list);
    return status;
}

/* ---- diff ---- */

struct diff {
    struct ap_ckpt_reader *a, *b;
    void *piece_a, *piece_b;
    int64_t same, changed, only_a, only_b;
    struct ap_json *json; /* NULL: table */
};

/* Element i as a number; bytes decide equality, this only the size of a difference. */
static double element(const void *data, ap_dtype dtype, int64_t i)
{
    uint32_t bits;
    float f;
    switch (dtype) {
    case AP_F32:
        return (double)((const float *)data)[i];
    case AP_F64:
        return ((const double *)data)[i];
    case AP_BF16:
        bits = (uint32_t)((const uint16_t *)data)[i] << 16;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    case AP_I32:
        return (double)((const int32_t *)data)[i];
    case AP_I64:
        return (double)((const int64_t *)data)[i];
    case AP_U8:
        return (double)((const uint8_t *)data)[i];
    case AP_U16:
        return (double)((const uint16_t *)data)[i];
    }
    return 0;
}

static void count_piece(const struct diff *d, const struct ap_named *t, int64_t n, int64_t *differ_p, double *worst_p)
{
    size_t size = ap_dtype_size(t->dtype);
    if (memcmp(d->piece_a, d->piece_b, (size_t)n * size) == 0)
        return;
    for (int64_t i = 0; i < n; i++) {
        size_t at = (size_t)i * size;
        if (memcmp((const char *)d->piece_a + at, (const char *)d->piece_b + at, size) == 0)
            continue;
        ++*differ_p;
        double delta = fabs(element(d->piece_a, t->dtype, i) - element(d->piece_b, t->dtype, i));
        if (delta > *worst_p || isnan(delta))
            *worst_p = delta;
    }
}

static void report_row(struct diff *d, const char *name, const char *what, int64_t differ, double worst)
{
    if (d->json == NULL && differ > 0)
        ap_out("%-72s %s: %" PRId64 " elements, largest difference %.9g\n", name, what, differ, worst);
    else if (d->json == NULL)
        ap_out("%-72s %s\n", name, what);
    if (d->json == NULL)
        return;
    ap_json_begin_object(d->json, NULL);
    ap_json_str(d->json, "name", name);
    ap_json_str(d->json, "what", what);
    ap_json_int(d->json, "elements", differ);
    ap_json_real(d->json, "largest", worst);
    ap_json_end_object(d->json);
}

/* mt: of the first state; the second has it with the same dtype and shape. Read by the parts of the first state, so
 * that columns come as they lie there. */
static ap_status diff_tensor(struct diff *d, const struct ap_manifest_tensor *mt, struct ap_error *err)
{
    const struct ap_manifest_part *parts = ap_ckpt_reader_manifest(d->a)->parts + mt->first_part;
    int64_t differ = 0;
    double worst = 0;
    for (int64_t i = 0; i < mt->part_count; i++) {
        const struct ap_slab *range = &parts[i].range;
        struct ap_named t = ap_named_part(&mt->head, range);
        for (; t.begin < range->end; t.begin = t.end) {
            t.end = t.begin + PIECE_ELEMENTS < range->end ? t.begin + PIECE_ELEMENTS : range->end;
            t.data = d->piece_a;
            AP_TRY(ap_ckpt_reader_fill(d->a, &t, err));
            t.data = d->piece_b;
            AP_TRY(ap_ckpt_reader_fill(d->b, &t, err));
            count_piece(d, &t, t.end - t.begin, &differ, &worst);
        }
    }
    d->same += differ == 0;
    d->changed += differ != 0;
    if (differ > 0)
        report_row(d, mt->head.name, "differs", differ, worst);
    return AP_OK;
}

/* A tensor of a state by where it was stored. */
struct place {
    const struct ap_manifest_tensor *mt;
    int64_t kind; /* the least `at` of all tensors whose names are the same up to the first '/' */
    int64_t at;   /* file and part of its first part */
};

static int by_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->mt < y->mt ? -1 : x->mt > y->mt;
}

static int64_t first_at(const struct ap_manifest *m, const struct ap_manifest_tensor *mt)
{
    int64_t least = INT64_MAX;
    for (int64_t i = 0; i < mt->part_count; i++) {
        const struct ap_manifest_part *p = &m->parts[mt->first_part + i];
        int64_t at = ((int64_t)p->file << 32) + p->part;
        least = at < least ? at : least;
    }
    return least;
}

/* All tensors of a state in the order in which the ranks stored them, kind by kind (parameters, then moments): the
 * model's, where the manifest has them by name. */
static ap_status stored_order(const struct ap_manifest *m, struct place **list_p, struct ap_error *err)
{
    struct place *list = calloc((size_t)m->tensor_count + 1, sizeof *list);
    if (list == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory to compare states");
    for (int64_t i = 0, next; i < m->tensor_count; i = next) {
        const char *name = m->tensors[i].head.name;
        size_t kind = strcspn(name, "/") + 1;
        int64_t least = INT64_MAX;
        /* Names are sorted: those of one kind stand together. */
        for (next = i; next < m->tensor_count && strncmp(m->tensors[next].head.name, name, kind) == 0; next++) {
            list[next] = (struct place){.mt = &m->tensors[next], .at = first_at(m, &m->tensors[next])};
            least = list[next].at < least ? list[next].at : least;
        }
        for (int64_t k = i; k < next; k++)
            list[k].kind = least;
    }
    qsort(list, (size_t)m->tensor_count, sizeof *list, by_place);
    *list_p = list;
    return AP_OK;
}

static ap_status diff_one(struct diff *d, const struct ap_manifest_tensor *mt, struct ap_error *err)
{
    const struct ap_manifest_tensor *other = ap_manifest_find(ap_ckpt_reader_manifest(d->b), mt->head.name);
    if (other == NULL) {
        d->only_a++;
        report_row(d, mt->head.name, "only in the first", 0, 0);
    } else if (!ap_named_same_tensor(&mt->head, &other->head)) {
        d->changed++;
        report_row(d, mt->head.name, "has another shape or type", 0, 0);
    } else {
        return diff_tensor(d, mt, err);
    }
    return AP_OK;
}

static ap_status diff_all(struct diff *d, struct ap_error *err)
{
    const struct ap_manifest *ma = ap_ckpt_reader_manifest(d->a), *mb = ap_ckpt_reader_manifest(d->b);
    struct place *a = NULL, *b = NULL;
    ap_status status = stored_order(ma, &a, err);
    if (status == AP_OK)
        status = stored_order(mb, &b, err);
    for (int64_t i = 0; status == AP_OK && i < ma->tensor_count; i++)
        status = diff_one(d, a[i].mt, err);
    for (int64_t i = 0; status == AP_OK && i < mb->tensor_count; i++)
        if (ap_manifest_find(ma, b[i].mt->head.name) == NULL) {
            d->only_b++;
            report_row(d, b[i].mt->head.name, "only in the second", 0, 0);
        }
    free(a);
    free(b);
    return status;
}

static void diff_summary(struct diff *d)
{
    int64_t steps[2] = {ap_ckpt_reader_manifest(d->a)->step, ap_ckpt_reader_manifest(d->b)->step};
    if (d->json == NULL) {
        ap_out("steps %" PRId64 " and %" PRId64 ": %" PRId64 " tensors the same, %" PRId64 " differ, %" PRId64
               " only in the first, %" PRId64 " only in the second\n",
               steps[0], steps[1], d->same, d->changed, d->only_a, d->only_b);
        return;
    }
    ap_json_end_array(d->json);
    ap_json_int(d->json, "step_first", steps[0]);
    ap_json_int(d->json, "step_second", steps[1]);
    ap_json_int(d->json, "same", d->same);
    ap_json_int(d->json, "differ", d->changed);
    ap_json_int(d->json, "only_first", d->only_a);
    ap_json_int(d->json, "only_second", d->only_b);
    ap_json_end_object(d->json);
    char *text = ap_strbuf_take(&d->json->text);
    if (text != NULL)
        ap_out("%s\n", text);
    free(text);
}

ap_status ap_ckpt_tool_diff(const char *a, const char *b, int json, struct ap_error *err)
{
    struct ap_json j = {.indent = 2};
    struct diff d = {.json = json ? &j : NULL};
    d.piece_a = malloc((size_t)PIECE_ELEMENTS * sizeof(double));
    d.piece_b = malloc((size_t)PIECE_ELEMENTS * sizeof(double));
    ap_status status = AP_OK;
    if (d.piece_a == NULL || d.piece_b == NULL)
        status = ap_error_set(err, AP_ERR_NOMEM, "no memory to compare states");
    if (status == AP_OK)
        status = ap_ckpt_tool_open(a, &d.a, err);
    if (status == AP_OK)
        status = ap_ckpt_tool_open(b, &d.b, err);
    if (status == AP_OK) {
        if (json) {
            ap_json_begin_object(&j, NULL);
            ap_json_begin_array(&j, "tensors");
        }
        status = diff_all(&d, err);
    }
    if (status == AP_OK) {
        diff_summary(&d);
        if (d.changed + d.only_a + d.only_b > 0)
            status = ap_error_set(err, AP_ERR_INVALID, "the states differ");
    }
    ap_strbuf_clear(&j.text);
    ap_ckpt_reader_destroy(d.a);
    ap_ckpt_reader_destroy(d.b);
    free(d.piece_a);
    free(d.piece_b);
    return status;
}

/* ---- export ---- */

/* Read every parameter whole into memory of its own, owned by the set's entries. */
static ap_status read_params(struct ap_ckpt_reader *reader, struct ap_named_set *set, struct ap_error *err)
{
    const struct ap_manifest *m = ap_ckpt_reader_manifest(reader);
    for (int64_t i = 0; i < m->tensor_count; i++) {
        struct ap_named t = m->tensors[i].head;
        if (strncmp(t.name, PARAM_PREFIX, strlen(PARAM_PREFIX)) != 0)
            continue;
        size_t size = (size_t)t.end * ap_dtype_size(t.dtype);
        t.data = malloc(size > 0 ? size : 1);
        if (t.data == NULL)
            return ap_error_set(err, AP_ERR_NOMEM, "no memory for %zu bytes of %s", size, t.name);
        ap_status status = ap_ckpt_reader_fill(reader, &t, err);
        if (status == AP_OK)
            status = ap_named_set_add(set, &t, err);
        if (status != AP_OK) {
            free(t.data);
            return status;
        }
    }
    if (set->count == 0)
        return ap_error_set(err, AP_ERR_INPUT, "the state has no tensors named %s...", PARAM_PREFIX);
    return AP_OK;
}

/* The model's config.json out of the meta record. */
static ap_status write_config(const struct ap_manifest *m, const char *out, struct ap_error *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/config.json", out) >= (int)sizeof path)
        return ap_error_set(err, AP_ERR_INPUT, "the path %.100s is too long", out);
    yyjson_doc *doc = yyjson_read(m->meta, strlen(m->meta), 0);
    yyjson_val *model = yyjson_obj_get(yyjson_doc_get_root(doc), "model");
    size_t size = 0;
    char *text = yyjson_is_obj(model) ? yyjson_val_write(model, YYJSON_WRITE_PRETTY_TWO_SPACES, &size) : NULL;
    yyjson_doc_free(doc);
    if (text == NULL)
        return ap_error_set(err, AP_ERR_INPUT, "the state does not say which model it belongs to");
    ap_status status = ap_io_write_durable(path, text, size, err);
    free(text);
    return status;
}

ap_status ap_ckpt_tool_export(const char *state, const char *out, struct ap_error *err)
{
    char path[PATH_MAX];
    struct ap_ckpt_reader *reader = NULL;
    struct ap_named_set set = {0};
    if (snprintf(path, sizeof path, "%s/model.safetensors", out) >= (int)sizeof path)
        return ap_error_set(err, AP_ERR_INPUT, "the path %.100s is too long", out);
    AP_TRY(ap_ckpt_tool_open(state, &reader, err));
    ap_status status = ap_io_mkdirs(out, err);
    if (status == AP_OK)
        status = read_params(reader, &set, err);
    if (status == AP_OK)
        status = write_config(ap_ckpt_reader_manifest(reader), out, err);
    if (status == AP_OK)
        status = ap_safetensors_write(path, &set, PARAM_PREFIX, err);
    if (status == AP_OK)
        ap_out("%s: %" PRId64 " tensors of step %" PRId64 "\n", path, set.count, ap_ckpt_reader_manifest(reader)->step);
    for (int64_t i = 0; i < set.count; i++)
        free(set.list[i].data);
    ap_named_set_clear(&set);
    ap_ckpt_reader_destroy(reader);
    return status;
}
