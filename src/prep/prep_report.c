/* SPDX-License-Identifier: Apache-2.0
 * prep.json, which says what a folder of datasets holds and lets a repeated run see that nothing changed; and
 * the table for people. docs/formats-data.md describes the fields. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yyjson.h>

#include "base/log.h"
#include "prep/prep_state.h"
#include "text/megatron.h"

enum { MAX_JSON = 1 << 24 };

struct prep_json {
    yyjson_mut_doc *doc;
    yyjson_mut_val *root, *files;
};

ap_status prep_json_create(struct prep_json **json_p, struct ap_error *err)
{
    struct prep_json *j = calloc(1, sizeof(*j));
    if (j && (j->doc = yyjson_mut_doc_new(NULL))) {
        j->root = yyjson_mut_obj(j->doc);
        j->files = yyjson_mut_arr(j->doc);
        yyjson_mut_doc_set_root(j->doc, j->root);
    }
    if (!j || !j->files || !j->root) {
        prep_json_destroy(j);
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    }
    *json_p = j;
    return AP_OK;
}

void prep_json_destroy(struct prep_json *j)
{
    if (!j)
        return;
    yyjson_mut_doc_free(j->doc);
    free(j);
}

static int add_hash(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key, struct ap_hash128 h)
{
    char hex[33];
    ap_hash128_hex(h, hex);
    return yyjson_mut_obj_add_strcpy(doc, obj, key, hex);
}

ap_status prep_json_add_file(struct prep_json *j, const char *path, const char *language,
                             const struct ap_megatron_written *w, struct ap_error *err)
{
    yyjson_mut_val *f = yyjson_mut_arr_add_obj(j->doc, j->files);
    int ok = f && yyjson_mut_obj_add_strcpy(j->doc, f, "path", path) &&
             (language ? yyjson_mut_obj_add_strcpy(j->doc, f, "language", language)
                       : yyjson_mut_obj_add_null(j->doc, f, "language")) &&
             yyjson_mut_obj_add_int(j->doc, f, "documents", w->documents) &&
             yyjson_mut_obj_add_int(j->doc, f, "tokens", w->tokens) &&
             yyjson_mut_obj_add_int(j->doc, f, "bin_bytes", w->bin_size) &&
             yyjson_mut_obj_add_int(j->doc, f, "idx_bytes", w->idx_size) &&
             add_hash(j->doc, f, "bin_xxh128", w->bin_hash) && add_hash(j->doc, f, "idx_xxh128", w->idx_hash);
    return ok ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "out of memory");
}

/* The counts of the report by name: one table for writing and reading back. */
struct count {
    const char *name;
    int64_t *value;
};
enum { COUNTS = 15 };

static void counts_of(struct ap_prep_report *r, struct count out[COUNTS])
{
    const struct count all[COUNTS] = {{"input_files", &r->files},
                                      {"input_bytes", &r->input_bytes},
                                      {"documents", &r->documents},
                                      {"bytes", &r->bytes},
                                      {"train_tokens", &r->train_tokens},
                                      {"valid_tokens", &r->valid_tokens},
                                      {"duplicates", &r->duplicates},
                                      {"empty", &r->empty},
                                      {"links", &r->links},
                                      {"binary", &r->binary},
                                      {"invalid_documents", &r->invalid_documents},
                                      {"invalid_sequences", &r->invalid_sequences},
                                      {"invalid_skipped", &r->invalid_skipped},
                                      {"over_limit", &r->over_limit},
                                      {"boilerplate_bytes", &r->boilerplate_bytes}};
    memcpy(out, all, sizeof(all));
}

static int add_languages(struct prep_json *j, const struct ap_prep_report *r)
{
    yyjson_mut_val *list = yyjson_mut_obj_add_arr(j->doc, j->root, "languages");
    for (int i = 0; list && i < r->language_count; i++) {
        const struct ap_prep_language *l = &r->language[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(j->doc, list);
        if (!o || !yyjson_mut_obj_add_strcpy(j->doc, o, "language", l->name) ||
            !yyjson_mut_obj_add_int(j->doc, o, "documents", l->documents) ||
            !yyjson_mut_obj_add_int(j->doc, o, "bytes", l->bytes) ||
            !yyjson_mut_obj_add_int(j->doc, o, "train_tokens", l->train_tokens) ||
            !yyjson_mut_obj_add_int(j->doc, o, "valid_tokens", l->valid_tokens) ||
            !yyjson_mut_obj_add_real(j->doc, o, "valid_bigram_entropy", l->valid_entropy))
            return 0;
    }
    return list != NULL;
}

static int fill(struct prep *p, struct prep_json *j)
{
    struct ap_prep_report *r = &p->report;
    struct count counts[COUNTS];
    counts_of(r, counts);
    int ok = yyjson_mut_obj_add_int(j->doc, j->root, "format", AP_PREP_FORMAT) &&
             yyjson_mut_obj_add_str(j->doc, j->root, "version", PACKAGE_VERSION) &&
             add_hash(j->doc, j->root, "fingerprint", p->fingerprint) &&
             yyjson_mut_obj_add_strcpy(j->doc, j->root, "tokenizer", ap_tokenizer_name(p->tokenizer)) &&
             yyjson_mut_obj_add_int(j->doc, j->root, "vocab_size", ap_tokenizer_vocab_size(p->tokenizer)) &&
             yyjson_mut_obj_add_real(j->doc, j->root, "valid_fraction", p->opt->valid_fraction);
    for (int i = 0; ok && i < COUNTS; i++)
        ok = yyjson_mut_obj_add_int(j->doc, j->root, counts[i].name, *counts[i].value);
    return ok && yyjson_mut_obj_add_real(j->doc, j->root, "valid_bigram_entropy", r->valid_entropy) &&
           add_languages(j, r) && yyjson_mut_obj_add_val(j->doc, j->root, "files", j->files);
}

/* OUT/name, malloc'ed. */
static char *out_path(const struct prep *p, const char *name, const char *suffix)
{
    size_t size = strlen(p->opt->out_dir) + strlen(name) + strlen(suffix) + 2;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s/%s%s", p->opt->out_dir, name, suffix);
    return path;
}

ap_status prep_json_commit(struct prep *p, struct prep_json *j, struct ap_error *err)
{
    size_t size = 0;
    char *path = out_path(p, "prep.json", "");
    char *text = path && fill(p, j) ? yyjson_mut_write(j->doc, YYJSON_WRITE_PRETTY, &size) : NULL;
    ap_status status =
        text ? ap_io_write_durable(path, text, size, err) : ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    free(text);
    free(path);
    return status;
}

/* The parsed prep.json or NULL if there is none that can be read. */
static yyjson_doc *read_old(const struct prep *p)
{
    char *path = out_path(p, "prep.json", ""), *text = NULL;
    size_t size = 0;
    yyjson_doc *doc = NULL;
    if (path && ap_io_read_file(path, MAX_JSON, &text, &size, NULL) == AP_OK)
        doc = yyjson_read(text, size, 0);
    free(text);
    free(path);
    return doc;
}

static int has_size(const struct prep *p, const char *name, const char *suffix, int64_t size)
{
    struct stat st;
    char *path = out_path(p, name, suffix);
    int same = path && stat(path, &st) == 0 && st.st_size == size;
    free(path);
    return same;
}

static void read_report(struct prep *p, yyjson_val *root)
{
    struct ap_prep_report *r = &p->report;
    struct count counts[COUNTS];
    yyjson_val *o;
    size_t i, max;
    counts_of(r, counts);
    for (int k = 0; k < COUNTS; k++)
        *counts[k].value = yyjson_get_sint(yyjson_obj_get(root, counts[k].name));
    r->valid_entropy = yyjson_get_num(yyjson_obj_get(root, "valid_bigram_entropy"));
    r->language_count = 0;
    yyjson_arr_foreach(yyjson_obj_get(root, "languages"), i, max, o)
    {
        const char *name = yyjson_get_str(yyjson_obj_get(o, "language"));
        if (!name || strlen(name) >= sizeof(r->language->name) || r->language_count == AP_PREP_MAX_LANGUAGES)
            continue;
        struct ap_prep_language *l = &r->language[r->language_count++];
        memcpy(l->name, name, strlen(name) + 1);
        l->documents = yyjson_get_sint(yyjson_obj_get(o, "documents"));
        l->bytes = yyjson_get_sint(yyjson_obj_get(o, "bytes"));
        l->train_tokens = yyjson_get_sint(yyjson_obj_get(o, "train_tokens"));
        l->valid_tokens = yyjson_get_sint(yyjson_obj_get(o, "valid_tokens"));
        l->valid_entropy = yyjson_get_num(yyjson_obj_get(o, "valid_bigram_entropy"));
    }
}

int prep_json_matches(struct prep *p)
{
    char hex[33];
    yyjson_val *f;
    size_t i, max;
    yyjson_doc *doc = read_old(p);
    yyjson_val *root = yyjson_doc_get_root(doc);
    ap_hash128_hex(p->fingerprint, hex);
    int same = yyjson_equals_str(yyjson_obj_get(root, "fingerprint"), hex) &&
               yyjson_arr_size(yyjson_obj_get(root, "files")) > 0;
    yyjson_arr_foreach(yyjson_obj_get(root, "files"), i, max, f)
    {
        const char *path = yyjson_get_str(yyjson_obj_get(f, "path"));
        same = same && path && has_size(p, path, ".bin", yyjson_get_sint(yyjson_obj_get(f, "bin_bytes"))) &&
               has_size(p, path, ".idx", yyjson_get_sint(yyjson_obj_get(f, "idx_bytes")));
    }
    if (same) {
        read_report(p, root);
        p->report.unchanged = 1;
    }
    yyjson_doc_free(doc);
    return same;
}

/* prep.json is a file that anyone may have edited: only names that we would have written are removed. */
static int is_our_name(const char *path)
{
    const char *slash = strchr(path, '/'), *base = slash ? slash + 1 : path;
    return path[0] != '/' && path[0] != '.' && (strcmp(base, "train") == 0 || strcmp(base, "valid") == 0);
}

static ap_status remove_file(const struct prep *p, const char *name, const char *suffix, struct ap_error *err)
{
    char *path = out_path(p, name, suffix);
    ap_status status = path ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    if (path && unlink(path) != 0 && errno != ENOENT) {
        int e = errno;
        status = ap_error_set(err, ap_status_from_errno(e), "cannot remove: %s", strerror(e));
        ap_error_at(err, path, 0, 0);
    }
    free(path);
    return status;
}

ap_status prep_json_remove_old(struct prep *p, struct ap_error *err)
{
    yyjson_val *f;
    size_t i, max;
    yyjson_doc *doc = read_old(p);
    ap_status status = remove_file(p, "prep", ".json", err);
    yyjson_arr_foreach(yyjson_obj_get(yyjson_doc_get_root(doc), "files"), i, max, f)
    {
        const char *path = yyjson_get_str(yyjson_obj_get(f, "path"));
        if (status != AP_OK || !path || !is_our_name(path))
            continue;
        status = remove_file(p, path, ".idx", err);
        if (status == AP_OK)
            status = remove_file(p, path, ".bin", err);
    }
    yyjson_doc_free(doc);
    return status;
}

static void print_row(const char *name, const struct ap_prep_language *l)
{
    ap_out("%-10s %10" PRId64 " %10.2f %13" PRId64 " %13" PRId64, name, l->documents, (double)l->bytes / 1e6,
           l->train_tokens, l->valid_tokens);
    if (l->valid_entropy > 0)
        ap_out(" %10.4f\n", l->valid_entropy);
    else
        ap_out(" %10s\n", "-");
}

void ap_prep_print(const struct ap_prep_report *r, const char *out_dir)
{
    struct ap_prep_language total = {.documents = r->documents,
                                     .bytes = r->bytes,
                                     .train_tokens = r->train_tokens,
                                     .valid_tokens = r->valid_tokens,
                                     .valid_entropy = r->valid_entropy};
    ap_out("%-10s %10s %10s %13s %13s %10s\n", "language", "documents", "MB", "train tokens", "valid tokens",
           "bigram H");
    for (int i = 0; i < r->language_count; i++)
        print_row(r->language[i].name, &r->language[i]);
    if (r->language_count > 1)
        print_row("all", &total);
    ap_out("%" PRId64 " files, %.2f MB read; left out: %" PRId64 " duplicates, %" PRId64 " empty, %" PRId64
           " links, %" PRId64 " binary, %" PRId64 " over the limit\n",
           r->files, (double)r->input_bytes / 1e6, r->duplicates, r->empty, r->links, r->binary, r->over_limit);
    if (r->boilerplate_bytes)
        ap_out("%.2f MB of paragraphs that many pages share left out\n", (double)r->boilerplate_bytes / 1e6);
    if (r->invalid_documents)
        ap_out("invalid UTF-8 in %" PRId64 " documents (%" PRId64 " of them left out), %" PRId64 " places\n",
               r->invalid_documents, r->invalid_skipped, r->invalid_sequences);
    ap_out("%s %s\n", r->unchanged ? "unchanged:" : "written to", out_dir);
}
