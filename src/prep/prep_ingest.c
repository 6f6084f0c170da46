/* SPDX-License-Identifier: Apache-2.0
 * Reading documents: decompress, reduce roff, take the text of JSON lines, mend or refuse invalid UTF-8, and
 * put the text into the spool. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "base/utf8.h"
#include "prep/prep_state.h"
#include "prep/roff.h"
#include "prep/stream.h"

enum { SPOOL_BUFFER = 1 << 22, MAX_LINE = 1 << 30 };

/* Scratch of one file, reused for the next. */
struct scratch {
    struct ap_buf raw, fixed, text;
};

static ap_status no_memory(struct ap_error *err)
{
    return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
}

static ap_status spool_flush(struct prep *p, struct ap_error *err)
{
    AP_TRY(
        ap_io_pwrite_all(p->spool_fd, p->spool_buffer.data, p->spool_buffer.size, p->spool_size, p->opt->out_dir, err));
    p->spool_size += (int64_t)p->spool_buffer.size;
    ap_buf_clear(&p->spool_buffer);
    return AP_OK;
}

/* Index of a language in the report, -1 when the table is full. */
static int language_index(struct prep *p, const char *name)
{
    struct ap_prep_report *r = &p->report;
    for (int i = 0; i < r->language_count; i++)
        if (strcmp(r->language[i].name, name) == 0)
            return i;
    if (r->language_count == AP_PREP_MAX_LANGUAGES)
        return -1;
    memcpy(r->language[r->language_count].name, name, strlen(name) + 1);
    return r->language_count++;
}

static ap_status add_document(struct prep *p, const char *text, size_t size, const char *language, int page,
                              struct ap_error *err)
{
    if (p->document_count == p->document_capacity) {
        int64_t capacity = p->document_capacity ? 2 * p->document_capacity : 4096;
        struct prep_document *grown = realloc(p->documents, (size_t)capacity * sizeof(*grown));
        if (!grown)
            return no_memory(err);
        p->documents = grown;
        p->document_capacity = capacity;
    }
    int index = language_index(p, language);
    if (index < 0)
        return ap_error_set(err, AP_ERR_INPUT, "more than %d languages in the input; choose with --languages",
                            AP_PREP_MAX_LANGUAGES);
    p->documents[p->document_count++] = (struct prep_document){.hash = ap_hash128(text, size),
                                                               .offset = p->spool_size + (int64_t)p->spool_buffer.size,
                                                               .size = (int64_t)size,
                                                               .language = index,
                                                               .page = page};
    ap_buf_append(&p->spool_buffer, text, size);
    if (p->spool_buffer.failed)
        return no_memory(err);
    return p->spool_buffer.size >= SPOOL_BUFFER ? spool_flush(p, err) : AP_OK;
}

/* Replace raw by valid UTF-8 in *text_p, or leave it out: *text_p is then NULL. */
static ap_status clean(struct prep *p, struct scratch *s, const char *raw, size_t size, const char **text_p,
                       size_t *size_p, struct ap_error *err)
{
    *text_p = raw;
    *size_p = size;
    if (size >= 3 && memcmp(raw, "\xEF\xBB\xBF", 3) == 0) { /* byte order mark */
        *text_p += 3;
        *size_p -= 3;
    }
    if (ap_utf8_validate(*text_p, *size_p) == *size_p)
        return AP_OK;
    p->report.invalid_documents++;
    ap_buf_clear(&s->fixed);
    char *out = ap_buf_reserve(&s->fixed, ap_utf8_repair_bound(*size_p));
    size_t replaced = 0;
    if (!out)
        return no_memory(err);
    *size_p = ap_utf8_repair(*text_p, *size_p, out, &replaced);
    p->report.invalid_sequences += (int64_t)replaced;
    /* More than one wrong place in a hundred bytes: another encoding, which no repair turns into text. */
    int hopeless = replaced > size / 100 + 1;
    *text_p = p->opt->invalid == AP_PREP_REPAIR && !hopeless ? out : NULL;
    p->report.invalid_skipped += *text_p == NULL;
    return AP_OK;
}

/* Is name in the comma-separated list? NULL: everything is. */
static int wanted(const char *list, const char *name)
{
    size_t n = strlen(name);
    if (!list)
        return 1;
    for (const char *at = list; *at;) {
        size_t part = strcspn(at, ",");
        if (part == n && memcmp(at, name, n) == 0)
            return 1;
        at += part + (at[part] == ',');
    }
    return 0;
}

static ap_status add_text(struct prep *p, struct scratch *s, const char *language, struct ap_error *err)
{
    const char *text;
    size_t size;
    if (s->raw.size && memchr(s->raw.data, '\0', s->raw.size)) {
        p->report.binary++;
        return AP_OK;
    }
    AP_TRY(clean(p, s, s->raw.data, s->raw.size, &text, &size, err));
    if (!text)
        return AP_OK;
    if (size == 0) {
        p->report.empty++;
        return AP_OK;
    }
    return add_document(p, text, size, language, 0, err);
}

static ap_status add_page(struct prep *p, struct scratch *s, const char *language, struct ap_error *err)
{
    const char *source;
    size_t size;
    int link = 0;
    AP_TRY(clean(p, s, s->raw.data, s->raw.size, &source, &size, err));
    if (!source)
        return AP_OK;
    ap_buf_clear(&s->text);
    AP_TRY(ap_roff_to_text(source, size, &s->text, &link, err));
    if (s->text.size == 0) {
        p->report.links += link;
        p->report.empty += !link;
        return AP_OK;
    }
    return add_document(p, s->text.data, s->text.size, language, 1, err);
}

static ap_status line_error(struct ap_error *err, const char *path, long line, const char *what, const char *hint)
{
    ap_error_set(err, AP_ERR_INPUT, "%s", what);
    ap_error_at(err, path, line, 0);
    ap_error_hint(err, "%s", hint);
    return AP_ERR_INPUT;
}

static ap_status add_json_line(struct prep *p, struct scratch *s, const struct ap_walk_file *f, long number,
                               const char *line, size_t size, struct ap_error *err)
{
    const char *text, *key = p->opt->jsonl_key ? p->opt->jsonl_key : "text";
    size_t blank = 0;
    while (blank < size && strchr(" \t\r", line[blank]) && line[blank])
        blank++;
    if (blank == size)
        return AP_OK;
    AP_TRY(clean(p, s, line, size, &text, &size, err));
    if (!text)
        return AP_OK;
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, size, 0, NULL, &why);
    if (!doc) {
        char message[256];
        snprintf(message, sizeof(message), "not JSON: %s at byte %zu of the line", why.msg, why.pos);
        return line_error(err, f->path, number, message, "JSON lines have one complete object on each line");
    }
    yyjson_val *value = yyjson_obj_get(yyjson_doc_get_root(doc), key);
    ap_status status = AP_OK;
    if (!yyjson_is_str(value)) {
        char message[256];
        snprintf(message, sizeof(message), "no string field \"%.100s\"", key);
        status = line_error(err, f->path, number, message, "name the field that holds the text with --jsonl-key");
    } else if (yyjson_get_len(value) == 0) {
        p->report.empty++;
    } else {
        status = add_document(p, yyjson_get_str(value), yyjson_get_len(value),
                              p->opt->language ? p->opt->language : "und", 0, err);
    }
    yyjson_doc_free(doc);
    return status;
}

static ap_status ingest_lines(struct prep *p, struct scratch *s, const struct ap_walk_file *f, struct ap_stream *stream,
                              struct ap_error *err)
{
    long number = 0;
    size_t scanned = 0;
    for (;;) {
        size_t got = 0;
        char *to = ap_buf_reserve(&s->raw, 1 << 16);
        if (!to)
            return no_memory(err);
        AP_TRY(ap_stream_read(stream, to, 1 << 16, &got, err));
        s->raw.size += got;
        size_t begin = 0;
        const char *newline;
        while (scanned < s->raw.size && (newline = memchr(s->raw.data + scanned, '\n', s->raw.size - scanned))) {
            size_t end = (size_t)(newline - s->raw.data);
            AP_TRY(add_json_line(p, s, f, ++number, s->raw.data + begin, end - begin, err));
            begin = scanned = end + 1;
        }
        memmove(s->raw.data, s->raw.data + begin, s->raw.size - begin);
        s->raw.size -= begin;
        scanned = s->raw.size;
        if (got == 0)
            return s->raw.size ? add_json_line(p, s, f, ++number, s->raw.data, s->raw.size, err) : AP_OK;
        if (s->raw.size > MAX_LINE)
            return line_error(err, f->path, number + 1, "a line of more than 1 GiB", "is this a JSON lines file?");
    }
}

/* The path component that ends before `end`; empty at the beginning of the path. */
static const char *component(const char *path, const char *end, size_t *size_p)
{
    const char *begin = end;
    while (begin > path && begin[-1] != '/')
        begin--;
    *size_p = (size_t)(end - begin);
    return begin;
}

/* de, pt_BR, sr@latin, with a codeset (ru.UTF-8) cut off into *size_p. */
static int is_locale(const char *name, size_t *size_p)
{
    const char *dot = memchr(name, '.', *size_p);
    size_t n = dot ? (size_t)(dot - name) : *size_p, letters = 0;
    while (letters < n && name[letters] >= 'a' && name[letters] <= 'z')
        letters++;
    for (size_t i = letters; i < n; i++)
        if (!strchr("_@", name[i]) && !((name[i] | 32) >= 'a' && (name[i] | 32) <= 'z'))
            return 0;
    *size_p = n;
    return letters >= 2 && letters <= 3 && n < 24 && (letters == n || name[letters] == '_' || name[letters] == '@');
}

/* Language of a manual page from its path: .../man/LANG/manN/page or LANG/manN/page; without LANG it is
 * English. 0 if the page does not lie in a folder manN. */
static int page_language(const char *path, char language[24])
{
    size_t n, above;
    const char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    const char *section = component(path, slash, &n);
    if (n < 4 || memcmp(section, "man", 3) != 0)
        return 0;
    memcpy(language, "en", 3);
    if (section == path)
        return 1;
    const char *name = component(path, section - 1, &n);
    const char *parent = name > path ? component(path, name - 1, &above) : NULL;
    if (parent && !(above == 3 && memcmp(parent, "man", 3) == 0))
        return 1;
    if (!is_locale(name, &n) || (n == 3 && memcmp(name, "man", 3) == 0))
        return 1;
    memcpy(language, name, n);
    language[n] = '\0';
    return 1;
}

static int has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), k = strlen(suffix);
    return n >= k && strcmp(path + n - k, suffix) == 0;
}

static int is_jsonl(const char *path)
{
    static const char *const suffixes[] = {".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst"};
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++)
        if (has_suffix(path, suffixes[i]))
            return 1;
    return 0;
}

static ap_status ingest_file(struct prep *p, struct scratch *s, const struct ap_walk_file *f, struct ap_error *err)
{
    char language[24] = "und";
    int pages = p->opt->inputs[f->input].kind == AP_PREP_MANPAGES;
    if (pages && (!page_language(f->path, language) || !wanted(p->opt->languages, language)))
        return AP_OK;
    struct ap_stream *stream;
    AP_TRY(ap_stream_open(f->path, &stream, err));
    ap_buf_clear(&s->raw);
    ap_status status;
    if (!pages && is_jsonl(f->path)) {
        status = ingest_lines(p, s, f, stream, err);
    } else {
        status = ap_stream_read_all(stream, AP_PREP_MAX_DOCUMENT, &s->raw, err);
        if (status == AP_OK && pages)
            status = add_page(p, s, language, err);
        else if (status == AP_OK)
            status = add_text(p, s, p->opt->language ? p->opt->language : "und", err);
    }
    ap_stream_close(stream);
    p->report.files++;
    p->report.input_bytes += f->size;
    return status;
}

ap_status prep_ingest(struct prep *p, struct ap_error *err)
{
    struct scratch s = {0};
    ap_status status = AP_OK;
    for (int64_t i = 0; i < p->list.count && status == AP_OK; i++)
        status = ingest_file(p, &s, &p->list.files[i], err);
    if (status == AP_OK)
        status = spool_flush(p, err);
    ap_buf_free(&s.raw);
    ap_buf_free(&s.fixed);
    ap_buf_free(&s.text);
    return status;
}
