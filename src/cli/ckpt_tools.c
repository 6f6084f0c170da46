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

/* head: whole tensor of both states, equal dtype and shape. */
static ap_status diff_tensor(struct diff *d, const struct ap_named *head, struct ap_error *err)
{
    int64_t differ = 0;
    double worst = 0;
    for (int64_t begin = head->begin; begin < head->end; begin += PIECE_ELEMENTS) {
        struct ap_named t = *head;
        t.begin = begin;
        t.end = begin + PIECE_ELEMENTS < head->end ? begin + PIECE_ELEMENTS : head->end;
        t.data = d->piece_a;
        AP_TRY(ap_ckpt_reader_fill(d->a, &t, err));
        t.data = d->piece_b;
        AP_TRY(ap_ckpt_reader_fill(d->b, &t, err));
        count_piece(d, &t, t.end - t.begin, &differ, &worst);
    }
    d->same += differ == 0;
    d->changed += differ != 0;
    if (differ > 0)
        report_row(d, head->name, "differs", differ, worst);
    return AP_OK;
}

static int same_shape(const struct ap_named *x, const struct ap_named *y)
{
    if (x->dtype != y->dtype || x->ndim != y->ndim)
        return 0;
    for (int i = 0; i < x->ndim; i++)
        if (x->shape[i] != y->shape[i])
            return 0;
    return 1;
}

static ap_status diff_all(struct diff *d, struct ap_error *err)
{
    const struct ap_manifest *ma = ap_ckpt_reader_manifest(d->a), *mb = ap_ckpt_reader_manifest(d->b);
    for (int64_t i = 0; i < ma->tensor_count; i++) {
        const struct ap_named *head = &ma->tensors[i].head;
        const struct ap_manifest_tensor *other = ap_manifest_find(mb, head->name);
        if (other == NULL) {
            d->only_a++;
            report_row(d, head->name, "only in the first", 0, 0);
        } else if (!same_shape(head, &other->head)) {
            d->changed++;
            report_row(d, head->name, "has another shape or type", 0, 0);
        } else {
            AP_TRY(diff_tensor(d, head, err));
        }
    }
    for (int64_t i = 0; i < mb->tensor_count; i++)
        if (ap_manifest_find(ma, mb->tensors[i].head.name) == NULL) {
            d->only_b++;
            report_row(d, mb->tensors[i].head.name, "only in the second", 0, 0);
        }
    return AP_OK;
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
