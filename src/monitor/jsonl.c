/* SPDX-License-Identifier: Apache-2.0
 * Append-only files of JSON lines. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

#include "base/io.h"
#include "monitor/jsonl.h"

#define FILE_MAX ((size_t)8 << 30)

struct ap_jsonl {
    int fd;
    char *path;
};

static ap_status fail(struct ap_error *err, const char *what, const char *path)
{
    int e = errno;
    ap_error_set(err, ap_status_from_errno(e), "cannot %s: %s", what, strerror(e));
    ap_error_at(err, path, 0, 0);
    return ap_status_from_errno(e);
}

ap_status ap_jsonl_open(const char *path, struct ap_jsonl **f_p, struct ap_error *err)
{
    struct ap_jsonl *f = calloc(1, sizeof(*f));
    char *copy = strdup(path);
    if (!f || !copy) {
        free(f);
        free(copy);
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    }
    f->path = copy;
    f->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (f->fd < 0) {
        ap_status st = fail(err, "open for appending", path);
        free(copy);
        free(f);
        return st;
    }
    *f_p = f;
    return AP_OK;
}

void ap_jsonl_close(struct ap_jsonl *f)
{
    if (!f)
        return;
    close(f->fd);
    free(f->path);
    free(f);
}

static ap_status write_line(struct ap_jsonl *f, const char *text, size_t size, struct ap_error *err)
{
    off_t start = lseek(f->fd, 0, SEEK_END);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(f->fd, text + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            ap_status st = fail(err, "append", f->path);
            if (start >= 0 && ftruncate(f->fd, start) != 0)
                ap_error_hint(err, "the last line of the file is torn; the next start removes it");
            return st;
        }
        done += (size_t)n;
    }
    return AP_OK;
}

ap_status ap_jsonl_append(struct ap_jsonl *f, struct ap_json *line, int durable, struct ap_error *err)
{
    ap_strbuf_add(&line->text, "\n");
    struct ap_strbuf text = line->text;
    ap_status st = text.failed ? ap_error_set(err, AP_ERR_NOMEM, "out of memory for a line of %s", f->path)
                               : write_line(f, text.data, text.size, err);
    /* Empty, with its memory: a file of one line for each step allocates once. */
    *line = (struct ap_json){.text = {.data = text.data, .capacity = text.capacity}};
    if (st == AP_OK && durable && fsync(f->fd) != 0)
        return fail(err, "fsync", f->path);
    return st;
}

/* 1 if the line is one JSON object whose step, if it has one, is at most last_step. */
static int keeps(const char *line, size_t n, int64_t last_step)
{
    yyjson_doc *doc = yyjson_read(line, n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *step = yyjson_obj_get(root, "step");
    int keep = yyjson_is_obj(root) && (!yyjson_is_int(step) || yyjson_get_sint(step) <= last_step);
    yyjson_doc_free(doc);
    return keep;
}

ap_status ap_jsonl_trim(const char *path, int64_t last_step, int64_t *dropped_p, struct ap_error *err)
{
    char *data = NULL;
    size_t size = 0, kept = 0;
    int64_t dropped = 0;
    if (!ap_io_exists(path)) {
        if (dropped_p)
            *dropped_p = 0;
        return AP_OK;
    }
    AP_TRY(ap_io_read_file(path, FILE_MAX, &data, &size, err));
    for (size_t at = 0; at < size;) {
        char *nl = memchr(data + at, '\n', size - at);
        size_t n = nl ? (size_t)(nl - (data + at)) : size - at;
        if (nl && keeps(data + at, n, last_step)) {
            memmove(data + kept, data + at, n + 1);
            kept += n + 1;
        } else {
            dropped++;
        }
        at += n + 1;
    }
    ap_status st = dropped > 0 ? ap_io_write_durable(path, data, kept, err) : AP_OK;
    free(data);
    if (st == AP_OK && dropped_p)
        *dropped_p = dropped;
    return st;
}
