/* SPDX-License-Identifier: Apache-2.0
 * The decision journal. */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "base/io.h"
#include "monitor/decisions.h"
#include "monitor/jsonl.h"

#define JOURNAL_MAX ((size_t)1 << 30)

struct ap_journal {
    struct ap_decision *list;
    int64_t count, capacity;
    struct ap_jsonl *file; /* NULL: memory only or read only */
    int read_only;
};

static ap_status push(struct ap_journal *j, int64_t step, const char *kind, const char *value)
{
    if (j->count == j->capacity) {
        int64_t capacity = j->capacity > 0 ? 2 * j->capacity : 16;
        struct ap_decision *list = realloc(j->list, (size_t)capacity * sizeof(*list));
        if (!list)
            return AP_ERR_NOMEM;
        j->list = list;
        j->capacity = capacity;
    }
    /* One spelling, so that entries of different origin compare as text. */
    yyjson_doc *doc = yyjson_read(value, strlen(value), 0);
    struct ap_decision d = {.number = j->count + 1, .step = step, .value = yyjson_write(doc, 0, NULL)};
    yyjson_doc_free(doc);
    if (!d.value)
        return AP_ERR_NOMEM;
    snprintf(d.kind, sizeof(d.kind), "%s", kind);
    j->list[j->count++] = d;
    return AP_OK;
}

/* One entry as it stands in the file and in a checkpoint. */
static void entry_json(const struct ap_decision *d, struct ap_json *j)
{
    ap_json_begin_object(j, NULL);
    ap_json_int(j, "v", AP_DECISIONS_VERSION);
    ap_json_int(j, "n", d->number);
    ap_json_int(j, "step", d->step);
    ap_json_str(j, "kind", d->kind);
    ap_json_raw(j, "value", d->value);
    ap_json_end_object(j);
}

static ap_status take_entry(struct ap_journal *j, yyjson_val *v, struct ap_error *err)
{
    yyjson_val *version = yyjson_obj_get(v, "v"), *n = yyjson_obj_get(v, "n"), *step = yyjson_obj_get(v, "step");
    const char *kind = yyjson_get_str(yyjson_obj_get(v, "kind"));
    yyjson_val *value = yyjson_obj_get(v, "value");
    if (yyjson_is_int(version) && yyjson_get_sint(version) != AP_DECISIONS_VERSION)
        return ap_error_set(err, AP_ERR_FORMAT, "decision of format version %lld, this program reads version %d",
                            (long long)yyjson_get_sint(version), AP_DECISIONS_VERSION);
    if (!yyjson_is_int(version) || !yyjson_is_int(n) || !yyjson_is_int(step) || !kind || !yyjson_is_obj(value) ||
        strlen(kind) >= sizeof(j->list->kind))
        return ap_error_set(err, AP_ERR_CORRUPT, "not a decision");
    if (yyjson_get_sint(n) != j->count + 1)
        return ap_error_set(err, AP_ERR_CORRUPT, "decision %lld where number %lld is due",
                            (long long)yyjson_get_sint(n), (long long)j->count + 1);
    char *text = yyjson_val_write(value, 0, NULL);
    ap_status st = text ? push(j, yyjson_get_sint(step), kind, text) : AP_ERR_NOMEM;
    free(text);
    return st == AP_OK ? st : ap_error_set(err, st, "out of memory for the journal");
}

static ap_status parse(struct ap_journal *j, const char *path, char *data, size_t size, struct ap_error *err)
{
    long line = 1;
    for (size_t at = 0; at < size; line++) {
        char *nl = memchr(data + at, '\n', size - at);
        if (!nl)
            break; /* torn: it was never reported as decided */
        size_t n = (size_t)(nl - (data + at));
        yyjson_doc *doc = yyjson_read(data + at, n, 0);
        ap_status st = take_entry(j, yyjson_doc_get_root(doc), err);
        yyjson_doc_free(doc);
        if (st != AP_OK) {
            ap_error_at(err, path, line, 0);
            if (err && st == AP_ERR_CORRUPT)
                ap_error_hint(err, "move the file away: the newest checkpoint brings its decisions back");
            return st;
        }
        at += n + 1;
    }
    return AP_OK;
}

/* repair: cut a torn last line off the file. */
static ap_status load(const char *path, int repair, struct ap_journal **j_p, struct ap_error *err)
{
    struct ap_journal *j = calloc(1, sizeof(*j));
    if (!j)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    ap_status st = AP_OK;
    char *data = NULL;
    size_t size = 0;
    if (path && ap_io_exists(path))
        st = ap_io_read_file(path, JOURNAL_MAX, &data, &size, err);
    if (st == AP_OK && size > 0)
        st = parse(j, path, data, size, err);
    if (st == AP_OK && size > 0 && data[size - 1] != '\n' && repair) {
        size_t kept = size;
        while (kept > 0 && data[kept - 1] != '\n')
            kept--;
        st = ap_io_write_durable(path, data, kept, err);
    }
    free(data);
    if (st != AP_OK) {
        ap_journal_close(j);
        return st;
    }
    *j_p = j;
    return AP_OK;
}

ap_status ap_journal_open(const char *path, struct ap_journal **j_p, struct ap_error *err)
{
    struct ap_journal *j = NULL;
    AP_TRY(load(path, 1, &j, err));
    ap_status st = path ? ap_jsonl_open(path, &j->file, err) : AP_OK;
    if (st != AP_OK) {
        ap_journal_close(j);
        return st;
    }
    *j_p = j;
    return AP_OK;
}

ap_status ap_journal_read(const char *path, struct ap_journal **j_p, struct ap_error *err)
{
    struct ap_journal *j = NULL;
    if (!ap_io_exists(path)) {
        ap_error_set(err, AP_ERR_INPUT, "no journal of decisions here");
        ap_error_at(err, path, 0, 0);
        ap_error_hint(err, "a run leaves it as decisions.jsonl in its run directory");
        return AP_ERR_INPUT;
    }
    AP_TRY(load(path, 0, &j, err));
    j->read_only = 1;
    *j_p = j;
    return AP_OK;
}

void ap_journal_close(struct ap_journal *j)
{
    if (!j)
        return;
    for (int64_t i = 0; i < j->count; i++)
        free(j->list[i].value);
    ap_jsonl_close(j->file);
    free(j->list);
    free(j);
}

int64_t ap_journal_count(const struct ap_journal *j)
{
    return j->count;
}

const struct ap_decision *ap_journal_at(const struct ap_journal *j, int64_t i)
{
    return i >= 0 && i < j->count ? &j->list[i] : NULL;
}

const struct ap_decision *ap_journal_find(const struct ap_journal *j, const char *kind, int64_t step)
{
    for (int64_t i = j->count - 1; i >= 0; i--)
        if (j->list[i].step <= step && strcmp(j->list[i].kind, kind) == 0)
            return &j->list[i];
    return NULL;
}

ap_status ap_journal_decide(struct ap_journal *j, int64_t step, const char *kind, const char *value,
                            struct ap_error *err)
{
    if (j->read_only || strlen(kind) >= sizeof(j->list->kind))
        return ap_error_set(err, AP_ERR_BUG, "journal: decision %s refused", kind);
    if (push(j, step, kind, value) != AP_OK)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the journal");
    struct ap_json line = {0};
    ap_status st = AP_OK;
    entry_json(&j->list[j->count - 1], &line);
    if (j->file)
        st = ap_jsonl_append(j->file, &line, 1, err);
    ap_strbuf_clear(&line.text);
    if (st != AP_OK)
        free(j->list[--j->count].value);
    return st;
}

char *ap_journal_json(const struct ap_journal *j)
{
    struct ap_json text = {0};
    ap_json_begin_array(&text, NULL);
    for (int64_t i = 0; i < j->count; i++)
        entry_json(&j->list[i], &text);
    ap_json_end_array(&text);
    return ap_strbuf_take(&text.text);
}

ap_status ap_journal_restore(struct ap_journal *j, const char *json_array, struct ap_error *err)
{
    yyjson_doc *doc = yyjson_read(json_array, strlen(json_array), 0);
    yyjson_val *root = yyjson_doc_get_root(doc), *v;
    struct ap_journal saved = {0};
    ap_status st =
        yyjson_is_arr(root) ? AP_OK : ap_error_set(err, AP_ERR_CORRUPT, "no list of decisions in the checkpoint");
    size_t i, n;
    yyjson_arr_foreach(root, i, n, v)
    {
        if (st == AP_OK)
            st = take_entry(&saved, v, err);
    }
    for (int64_t k = 0; st == AP_OK && k < saved.count; k++) {
        const struct ap_decision *d = &saved.list[k];
        if (k >= j->count)
            st = ap_journal_decide(j, d->step, d->kind, d->value, err);
        else if (d->step != j->list[k].step || strcmp(d->kind, j->list[k].kind) != 0 ||
                 strcmp(d->value, j->list[k].value) != 0)
            st = ap_error_set(err, AP_ERR_CORRUPT,
                              "decision %" PRId64 " (%s) differs between the journal and the checkpoint", d->number,
                              d->kind);
    }
    for (int64_t k = 0; k < saved.count; k++)
        free(saved.list[k].value);
    free(saved.list);
    yyjson_doc_free(doc);
    return st;
}

ap_status ap_decision_i64(const struct ap_decision *d, const char *key, int64_t *v_p)
{
    yyjson_doc *doc = yyjson_read(d->value, strlen(d->value), 0);
    yyjson_val *v = yyjson_obj_get(yyjson_doc_get_root(doc), key);
    ap_status st = yyjson_is_int(v) ? AP_OK : AP_ERR_NOTFOUND;
    if (st == AP_OK)
        *v_p = yyjson_get_sint(v);
    yyjson_doc_free(doc);
    return st;
}

ap_status ap_decision_text(const struct ap_decision *d, const char *key, char *buf, size_t size)
{
    yyjson_doc *doc = yyjson_read(d->value, strlen(d->value), 0);
    const char *text = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), key));
    ap_status st = text && strlen(text) < size ? AP_OK : AP_ERR_NOTFOUND;
    if (st == AP_OK)
        memcpy(buf, text, strlen(text) + 1);
    yyjson_doc_free(doc);
    return st;
}
