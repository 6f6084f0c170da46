/* SPDX-License-Identifier: Apache-2.0
 * Range reads from the images of one state, by the chunk index and plain pread; HDF5 is not involved. */
#include "config.h"
#include "ckpt/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "ckpt/codec.h"

#define PATH_BYTES     4096
#define OPEN_MAX_FILES 32

struct file_state {
    int fd;                    /* -1: not open */
    struct ap_chunk_row *rows; /* NULL: not read; sorted by (part, begin) */
    int64_t row_count;
};

struct ap_ckpt_reader {
    char path[PATH_BYTES];
    struct ap_manifest m;
    struct file_state *files;
    struct ap_codec *codec;
    uint8_t *stored, *raw; /* one chunk each, grown on demand */
    size_t stored_size, raw_size;
    int open_files[OPEN_MAX_FILES], open_next; /* ring of open files, -1: free; descriptors are scarce */
};

void ap_ckpt_file_path(const char *state_path, int i, char *buf, size_t size)
{
    if (snprintf(buf, size, "%s/rank-%05d.h5", state_path, i) >= (int)size)
        buf[0] = '\0'; /* opening it fails */
}

ap_status ap_ckpt_manifest_read(const char *state_path, struct ap_manifest *m_p, struct ap_error *err)
{
    char path[PATH_BYTES];
    char *text;
    size_t size;
    if (snprintf(path, sizeof path, "%s/%s", state_path, AP_MANIFEST_NAME) >= (int)sizeof path)
        return ap_error_set(err, AP_ERR_INPUT, "the path of the checkpoint is too long");
    ap_status status = ap_io_read_file(path, AP_MANIFEST_BYTES_MAX, &text, &size, err);
    if (status == AP_ERR_INPUT) { /* larger than any that we write */
        ap_error_set(err, AP_ERR_CORRUPT, "damaged checkpoint manifest: it is too large");
        ap_error_at(err, path, 0, 0);
        return AP_ERR_CORRUPT;
    }
    AP_TRY(status);
    status = ap_manifest_parse(text, size, m_p, err);
    if (status != AP_OK)
        ap_error_at(err, path, 0, 0);
    free(text);
    return status;
}

ap_status ap_ckpt_reader_create(const char *path, struct ap_manifest *m, struct ap_ckpt_reader **reader_p,
                                struct ap_error *err)
{
    struct ap_ckpt_reader *r = calloc(1, sizeof *r);
    if (r == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a checkpoint reader");
    memset(r->open_files, -1, sizeof r->open_files);
    r->files = calloc((size_t)m->file_count, sizeof *r->files);
    if (r->files == NULL || snprintf(r->path, sizeof r->path, "%s", path) >= (int)sizeof r->path ||
        ap_codec_create(&r->codec, NULL) != AP_OK) {
        ap_ckpt_reader_destroy(r);
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a checkpoint reader, or too long a path");
    }
    for (int i = 0; i < m->file_count; i++)
        r->files[i].fd = -1;
    r->m = *m;
    memset(m, 0, sizeof *m);
    *reader_p = r;
    return AP_OK;
}

ap_status ap_ckpt_reader_open(const char *path, struct ap_ckpt_reader **reader_p, struct ap_error *err)
{
    struct ap_manifest m;
    AP_TRY(ap_ckpt_manifest_read(path, &m, err));
    ap_status status = ap_ckpt_reader_create(path, &m, reader_p, err);
    if (status != AP_OK)
        ap_manifest_free(&m);
    return status;
}

void ap_ckpt_reader_destroy(struct ap_ckpt_reader *r)
{
    if (r == NULL)
        return;
    for (int i = 0; r->files != NULL && i < r->m.file_count; i++) {
        if (r->files[i].fd >= 0)
            close(r->files[i].fd);
        free(r->files[i].rows);
    }
    free(r->files);
    free(r->stored);
    free(r->raw);
    ap_codec_destroy(r->codec);
    ap_manifest_free(&r->m);
    free(r);
}

const struct ap_manifest *ap_ckpt_reader_manifest(const struct ap_ckpt_reader *r)
{
    return &r->m;
}

/* ---- errors with their place ---- */

static ap_status corrupt(const struct ap_ckpt_reader *r, int file, const char *what, struct ap_error *err)
{
    char path[PATH_BYTES];
    ap_ckpt_file_path(r->path, file, path, sizeof path);
    ap_error_set(err, AP_ERR_CORRUPT, "damaged checkpoint file: %s", what);
    ap_error_at(err, path, 0, 0);
    return AP_ERR_CORRUPT;
}

/* ---- files and indexes ---- */

static ap_status file_open(struct ap_ckpt_reader *r, int file, struct ap_error *err)
{
    struct file_state *f = &r->files[file];
    struct stat st;
    char path[PATH_BYTES];
    if (f->fd >= 0)
        return AP_OK;
    int oldest = r->open_files[r->open_next];
    if (oldest >= 0) {
        close(r->files[oldest].fd);
        r->files[oldest].fd = -1;
        r->open_files[r->open_next] = -1;
    }
    ap_ckpt_file_path(r->path, file, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return corrupt(r, file, "it is missing", err);
    if (fd < 0 || fstat(fd, &st) != 0) {
        int e = errno;
        if (fd >= 0)
            close(fd);
        ap_error_set(err, ap_status_from_errno(e), "cannot open: %s", strerror(e));
        ap_error_at(err, path, 0, 0);
        return ap_status_from_errno(e);
    }
    if (!S_ISREG(st.st_mode) || st.st_size != r->m.files[file].bytes) {
        close(fd);
        return corrupt(r, file, "its length is not the one in the manifest", err);
    }
    f->fd = fd;
    r->open_files[r->open_next] = file;
    r->open_next = (r->open_next + 1) % OPEN_MAX_FILES;
    return AP_OK;
}

static int rows_sane(const struct ap_chunk_row *rows, int64_t count, int64_t bytes)
{
    for (int64_t i = 0; i < count; i++) {
        const struct ap_chunk_row *c = &rows[i];
        if (c->offset > (uint64_t)bytes || c->stored_bytes > (uint64_t)bytes - c->offset || c->raw_bytes == 0 ||
            c->raw_bytes > (uint64_t)AP_IMAGE_CHUNK_BYTES_MAX || c->stored_bytes > ap_codec_bound(c->raw_bytes) ||
            c->count == 0 || c->count > c->raw_bytes || c->begin > (uint64_t)INT64_MAX / 2)
            return 0;
        if (i > 0 && (c->part < c[-1].part || (c->part == c[-1].part && c->begin != c[-1].begin + c[-1].count)))
            return 0;
    }
    return 1;
}

static ap_status index_load(struct ap_ckpt_reader *r, int file, struct ap_error *err)
{
    struct file_state *f = &r->files[file];
    const struct ap_image_info *info = &r->m.files[file];
    char path[PATH_BYTES];
    AP_TRY(file_open(r, file, err));
    if (f->rows != NULL)
        return AP_OK;
    /* index_bytes fits the file's real length: file_open compared it with the manifest's. */
    struct ap_chunk_row *rows = malloc((size_t)info->index_bytes + 1);
    if (rows == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a chunk index of %lld bytes",
                            (long long)info->index_bytes);
    ap_ckpt_file_path(r->path, file, path, sizeof path);
    ap_status status = ap_io_pread_all(f->fd, rows, (size_t)info->index_bytes, info->index_offset, path, err);
    if (status == AP_OK && !ap_hash128_equal(ap_hash128(rows, (size_t)info->index_bytes), info->index_hash))
        status = corrupt(r, file, "its chunk index does not fit its hash", err);
    int64_t count = info->index_bytes / AP_CHUNK_ROW_BYTES;
    if (status == AP_OK && !rows_sane(rows, count, info->bytes))
        status = corrupt(r, file, "its chunk index is inconsistent", err);
    if (status != AP_OK) {
        free(rows);
        return status;
    }
    f->rows = rows;
    f->row_count = count;
    return AP_OK;
}

/* ---- chunks ---- */

static ap_status reserve(uint8_t **buf, size_t *have, size_t need, struct ap_error *err)
{
    if (need <= *have)
        return AP_OK;
    uint8_t *grown = realloc(*buf, need);
    if (grown == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a chunk of %zu bytes", need);
    *buf = grown;
    *have = need;
    return AP_OK;
}

/* Read, check and decode one chunk into raw (raw_bytes of its row). */
static ap_status chunk_read(struct ap_ckpt_reader *r, int file, const struct ap_chunk_row *c, size_t width,
                            uint8_t *raw, struct ap_error *err)
{
    char path[PATH_BYTES];
    ap_ckpt_file_path(r->path, file, path, sizeof path);
    AP_TRY(reserve(&r->stored, &r->stored_size, c->stored_bytes, err));
    AP_TRY(ap_io_pread_all(r->files[file].fd, r->stored, c->stored_bytes, (int64_t)c->offset, path, err));
    struct ap_hash128 stored = {c->stored_high, c->stored_low}, decoded = {c->raw_high, c->raw_low};
    if (!ap_hash128_equal(ap_hash128(r->stored, c->stored_bytes), stored))
        return corrupt(r, file, "a chunk does not fit its hash", err);
    ap_status status =
        ap_codec_decode(r->codec, r->stored, c->stored_bytes, (uint32_t)c->mask, width, raw, c->raw_bytes);
    if (status == AP_ERR_NOMEM)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory to decode a chunk");
    if (status != AP_OK)
        return corrupt(r, file, "a chunk cannot be decoded", err);
    if (!ap_hash128_equal(ap_hash128(raw, c->raw_bytes), decoded))
        return corrupt(r, file, "a decoded chunk does not fit its hash", err);
    return AP_OK;
}

/* First row of a part whose end lies behind element at; row_count if none. */
static int64_t row_find(const struct file_state *f, int32_t part, int64_t at)
{
    int64_t low = 0, high = f->row_count;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        const struct ap_chunk_row *c = &f->rows[mid];
        if (c->part < (uint64_t)part || (c->part == (uint64_t)part && (int64_t)(c->begin + c->count) <= at))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Common elements of t and a part, and the first of them as an element of the part. */
static int64_t overlap_count(const struct ap_named *t, const struct ap_named *part, int64_t *first_p)
{
    struct ap_overlap o;
    int64_t at, from, n, total = 0;
    ap_overlap_begin(&o, t, part);
    while (ap_overlap_next(&o, &at, &from, &n)) {
        if (total == 0)
            *first_p = from;
        total += n;
    }
    return total;
}

/* What t and one chunk have in common, chunk being its elements inside of its part; *got_p counts them. A chunk that
 * has nothing for t is not read. */
static ap_status fill_from_chunk(struct ap_ckpt_reader *r, const struct ap_named *t, int file,
                                 const struct ap_chunk_row *c, const struct ap_named *chunk, int64_t *got_p,
                                 struct ap_error *err)
{
    size_t size = ap_dtype_size(t->dtype);
    struct ap_overlap o;
    int64_t at, from, n, begin = (int64_t)c->begin;
    uint8_t *data = t->data;
    ap_overlap_begin(&o, t, chunk);
    if (!ap_overlap_next(&o, &at, &from, &n))
        return AP_OK;
    if (n == (int64_t)c->count && c->raw_bytes == c->count * size) { /* the whole chunk in one run: no copy */
        *got_p += n;
        return chunk_read(r, file, c, size, data + (size_t)(at - t->begin) * size, err);
    }
    AP_TRY(reserve(&r->raw, &r->raw_size, c->raw_bytes, err));
    AP_TRY(chunk_read(r, file, c, size, r->raw, err));
    do {
        memcpy(data + (size_t)(at - t->begin) * size, r->raw + (size_t)(from - begin) * size, (size_t)n * size);
        *got_p += n;
    } while (ap_overlap_next(&o, &at, &from, &n));
    return AP_OK;
}

/* What t and one part have in common. */
static ap_status fill_from_part(struct ap_ckpt_reader *r, const struct ap_named *t, const struct ap_manifest_part *p,
                                struct ap_error *err)
{
    struct ap_named part = ap_named_part(t, &p->range);
    int64_t first = 0, got = 0, want = overlap_count(t, &part, &first);
    if (want == 0)
        return AP_OK;
    AP_TRY(index_load(r, p->file, err));
    const struct file_state *f = &r->files[p->file];
    size_t size = ap_dtype_size(t->dtype);
    for (int64_t i = row_find(f, p->part, first); got < want; i++) {
        const struct ap_chunk_row *c = &f->rows[i];
        if (i >= f->row_count || c->part != (uint64_t)p->part || (int64_t)c->begin >= p->range.end ||
            c->count > c->raw_bytes / size)
            return corrupt(r, p->file, "its chunk index lacks elements that the manifest lists", err);
        part.begin = p->range.begin > (int64_t)c->begin ? p->range.begin : (int64_t)c->begin;
        part.end = (int64_t)(c->begin + c->count);
        part.end = part.end < p->range.end ? part.end : p->range.end;
        if (part.begin < part.end)
            AP_TRY(fill_from_chunk(r, t, p->file, c, &part, &got, err));
    }
    return AP_OK;
}

ap_status ap_ckpt_reader_fill(struct ap_ckpt_reader *r, const struct ap_named *t, struct ap_error *err)
{
    const struct ap_manifest_tensor *mt = ap_manifest_find(&r->m, t->name);
    if (mt == NULL || !ap_named_same_tensor(&mt->head, t))
        return ap_error_set(err, AP_ERR_BUG, "tensor %s was not matched with the checkpoint", t->name);
    if (ap_named_fault(t) != NULL)
        return ap_error_set(err, AP_ERR_BUG, "tensor %s: %s", t->name, ap_named_fault(t));
    for (int64_t i = 0; i < mt->part_count; i++)
        AP_TRY(fill_from_part(r, t, &r->m.parts[mt->first_part + i], err));
    return AP_OK;
}

static void shape_text(const struct ap_named *t, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "%s [", ap_dtype_name(t->dtype));
    for (int i = 0; i < t->ndim && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%lld", i > 0 ? ", " : "", (long long)t->shape[i]);
    if (n < size)
        snprintf(buf + n, size - n, "]");
}

ap_status ap_ckpt_reader_match(const struct ap_ckpt_reader *r, const struct ap_named_set *tensors, struct ap_error *err)
{
    for (int64_t i = 0; i < tensors->count; i++) {
        const struct ap_named *t = &tensors->list[i];
        const struct ap_manifest_tensor *mt = ap_manifest_find(&r->m, t->name);
        char want[128], have[128];
        if (mt != NULL && ap_named_same_tensor(&mt->head, t))
            continue;
        shape_text(t, want, sizeof want);
        if (mt == NULL) {
            ap_error_set(err, AP_ERR_INPUT, "the checkpoint of step %lld has no tensor %s (%s)", (long long)r->m.step,
                         t->name, want);
        } else {
            shape_text(&mt->head, have, sizeof have);
            ap_error_set(err, AP_ERR_INPUT, "tensor %s is %s in the checkpoint of step %lld but %s in this model",
                         t->name, have, (long long)r->m.step, want);
        }
        ap_error_at(err, r->path, 0, 0);
        ap_error_hint(err,
                      "the checkpoint belongs to another model: use its job file, or another checkpoint directory");
        return AP_ERR_INPUT;
    }
    return AP_OK;
}

/* ---- whole files ---- */

ap_status ap_ckpt_reader_check_rest(struct ap_ckpt_reader *r, int file, struct ap_error *err)
{
    char path[PATH_BYTES];
    struct ap_hash128 hash;
    AP_TRY(index_load(r, file, err));
    const struct ap_image_info *info = &r->m.files[file];
    struct file_state *f = &r->files[file];
    ap_ckpt_file_path(r->path, file, path, sizeof path);
    AP_TRY(ap_image_rest_hash(NULL, f->fd, info->bytes, f->rows, f->row_count, path, &hash, err));
    return ap_hash128_equal(hash, info->rest_hash) ? AP_OK
                                                   : corrupt(r, file, "its HDF5 metadata does not fit its hash", err);
}

ap_status ap_ckpt_reader_check_whole(struct ap_ckpt_reader *r, int file, struct ap_error *err)
{
    char path[PATH_BYTES];
    AP_TRY(file_open(r, file, err));
    AP_TRY(reserve(&r->raw, &r->raw_size, (size_t)AP_IMAGE_CHUNK_BYTES, err));
    struct ap_hasher *h = ap_hasher_create();
    if (h == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a hash");
    ap_ckpt_file_path(r->path, file, path, sizeof path);
    ap_status status = AP_OK;
    int64_t bytes = r->m.files[file].bytes;
    for (int64_t pos = 0; status == AP_OK && pos < bytes;) {
        int64_t n = bytes - pos < AP_IMAGE_CHUNK_BYTES ? bytes - pos : AP_IMAGE_CHUNK_BYTES;
        status = ap_io_pread_all(r->files[file].fd, r->raw, (size_t)n, pos, path, err);
        if (status == AP_OK)
            ap_hasher_update(h, r->raw, (size_t)n);
        pos += n;
    }
    if (status == AP_OK && !ap_hash128_equal(ap_hasher_digest(h), r->m.files[file].file_hash))
        status = corrupt(r, file, "its content does not fit its hash", err);
    ap_hasher_destroy(h);
    return status;
}

static int by_part(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The parts of one file in their order in it. */
static ap_status file_parts(const struct ap_ckpt_reader *r, int file, struct ap_image_part **parts_p, int64_t *count_p,
                            struct ap_error *err)
{
    struct key {
        int64_t part; /* first: by_part sorts on it */
        struct ap_image_part p;
    } *keys = calloc((size_t)r->m.part_count + 1, sizeof *keys);
    struct ap_image_part *parts = calloc((size_t)r->m.part_count + 1, sizeof *parts);
    int64_t n = 0;
    ap_status status = AP_OK;
    if (keys == NULL || parts == NULL)
        status = ap_error_set(err, AP_ERR_NOMEM, "no memory to check a checkpoint file");
    for (int64_t t = 0; status == AP_OK && t < r->m.tensor_count; t++)
        for (int64_t i = 0; i < r->m.tensors[t].part_count; i++) {
            const struct ap_manifest_part *p = &r->m.parts[r->m.tensors[t].first_part + i];
            if (p->file == file)
                keys[n++] = (struct key){p->part, {&r->m.tensors[t].head, p->range}};
        }
    if (status == AP_OK)
        qsort(keys, (size_t)n, sizeof *keys, by_part);
    for (int64_t i = 0; status == AP_OK && i < n; i++) {
        parts[i] = keys[i].p;
        if (keys[i].part != i)
            status = corrupt(r, file, "the manifest does not number its parts", err);
    }
    free(keys);
    if (status != AP_OK) {
        free(parts);
        return status;
    }
    *parts_p = parts;
    *count_p = n;
    return AP_OK;
}

ap_status ap_ckpt_reader_check_deep(struct ap_ckpt_reader *r, int file, struct ap_error *err)
{
    char path[PATH_BYTES];
    struct ap_image_part *parts;
    int64_t count;
    AP_TRY(ap_ckpt_reader_check_whole(r, file, err));
    AP_TRY(ap_ckpt_reader_check_rest(r, file, err));
    AP_TRY(file_parts(r, file, &parts, &count, err));
    ap_ckpt_file_path(r->path, file, path, sizeof path);
    ap_status status = ap_image_check(path, parts, count, err);
    free(parts);
    return status;
}
