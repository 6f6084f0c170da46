/* SPDX-License-Identifier: Apache-2.0
 * Streaming writer of Megatron indexed datasets: tokens go to a temporary .bin as they come, the index is
 * kept in memory (12 bytes per sequence and document) and written at commit. */
#include "config.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "text/megatron.h"

enum { BUFFER_SIZE = 1 << 20 };

/* One output file while it is written: a buffer, the bytes already on disk, and the hash of everything. */
struct out_file {
    char *path, *temporary;
    int fd;
    int64_t size;
    struct ap_hasher *hasher;
    uint8_t *buffer;
    size_t used;
};

struct ap_megatron_writer {
    struct out_file bin, idx;
    int dtype, width;
    int64_t tokens;
    int32_t *lengths; /* [sequences] */
    int64_t sequences, sequence_capacity;
    int64_t *documents; /* [document_count + 1], first entry 0 */
    int64_t document_count, document_capacity;
    int64_t open_tokens; /* of the sequence not yet ended */
    int open_document, committed;
};

static ap_status fail_errno(struct ap_error *err, const char *what, const char *path)
{
    int e = errno;
    ap_status status = ap_error_set(err, ap_status_from_errno(e), "cannot %s: %s", what, strerror(e));
    ap_error_at(err, path, 0, 0);
    return status;
}

static ap_status out_open(struct out_file *f, const char *prefix, const char *suffix, struct ap_error *err)
{
    size_t size = strlen(prefix) + strlen(suffix) + 5;
    f->fd = -1;
    f->path = malloc(size);
    f->temporary = malloc(size);
    f->buffer = malloc(BUFFER_SIZE);
    f->hasher = ap_hasher_create();
    if (!f->path || !f->temporary || !f->buffer || !f->hasher)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    snprintf(f->path, size, "%s%s", prefix, suffix);
    snprintf(f->temporary, size, "%s%s.tmp", prefix, suffix);
    f->fd = open(f->temporary, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
    return f->fd < 0 ? fail_errno(err, "create", f->temporary) : AP_OK;
}

static ap_status out_flush(struct out_file *f, struct ap_error *err)
{
    AP_TRY(ap_io_pwrite_all(f->fd, f->buffer, f->used, f->size, f->temporary, err));
    ap_hasher_update(f->hasher, f->buffer, f->used);
    f->size += (int64_t)f->used;
    f->used = 0;
    return AP_OK;
}

static ap_status out_write(struct out_file *f, const void *data, size_t size, struct ap_error *err)
{
    const uint8_t *p = data;
    while (size > 0) {
        size_t room = BUFFER_SIZE - f->used, n = size < room ? size : room;
        memcpy(f->buffer + f->used, p, n);
        f->used += n;
        p += n;
        size -= n;
        if (f->used == BUFFER_SIZE)
            AP_TRY(out_flush(f, err));
    }
    return AP_OK;
}

static ap_status out_sync(struct out_file *f, struct ap_error *err)
{
    AP_TRY(out_flush(f, err));
    if (fsync(f->fd) != 0)
        return fail_errno(err, "sync", f->temporary);
    int closed = close(f->fd);
    f->fd = -1;
    return closed != 0 ? fail_errno(err, "close", f->temporary) : AP_OK;
}

/* discard: also remove the temporary file. */
static void out_free(struct out_file *f, int discard)
{
    if (f->fd >= 0)
        close(f->fd);
    if (discard && f->temporary)
        unlink(f->temporary);
    ap_hasher_destroy(f->hasher);
    free(f->buffer);
    free(f->temporary);
    free(f->path);
}

int ap_megatron_dtype_for(int64_t vocab_size)
{
    return vocab_size < 65500 ? AP_MEGATRON_U16 : AP_MEGATRON_I32;
}

static int writer_width(int dtype)
{
    switch (dtype) {
    case AP_MEGATRON_U8:
    case AP_MEGATRON_I8:
        return 1;
    case AP_MEGATRON_I16:
    case AP_MEGATRON_U16:
        return 2;
    case AP_MEGATRON_I32:
        return 4;
    case AP_MEGATRON_I64:
        return 8;
    default:
        return 0;
    }
}

ap_status ap_megatron_writer_create(const char *prefix, int dtype, struct ap_megatron_writer **w_p,
                                    struct ap_error *err)
{
    int width = writer_width(dtype);
    if (!width)
        return ap_error_set(err, AP_ERR_BUG, "dtype code %d cannot be written", dtype);
    struct ap_megatron_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    w->dtype = dtype;
    w->width = width;
    w->bin.fd = w->idx.fd = -1;
    w->document_capacity = 1024;
    w->documents = calloc((size_t)w->document_capacity, sizeof(*w->documents));
    ap_status status = w->documents ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    if (status == AP_OK)
        status = out_open(&w->bin, prefix, ".bin", err);
    if (status == AP_OK)
        status = out_open(&w->idx, prefix, ".idx", err);
    if (status != AP_OK) {
        ap_megatron_writer_destroy(w);
        return status;
    }
    *w_p = w;
    return AP_OK;
}

/* Highest id + 1 that the type holds. */
static int64_t dtype_limit(int dtype)
{
    static const int64_t limit[] = {0, 256, 128, 32768, INT64_C(1) << 31, INT64_C(1) << 31, 0, 0, 65536};
    return limit[dtype];
}

static size_t store(const struct ap_megatron_writer *w, int32_t id, uint8_t *out)
{
    uint16_t v16 = htole16((uint16_t)id);
    uint32_t v32 = htole32((uint32_t)id);
    uint64_t v64 = htole64((uint64_t)id);
    switch (w->width) {
    case 1:
        *out = (uint8_t)id;
        break;
    case 2:
        memcpy(out, &v16, 2);
        break;
    case 4:
        memcpy(out, &v32, 4);
        break;
    default:
        memcpy(out, &v64, 8);
        break;
    }
    return (size_t)w->width;
}

static ap_status end_sequence(struct ap_megatron_writer *w, struct ap_error *err)
{
    if (w->sequences == w->sequence_capacity) {
        int64_t capacity = w->sequence_capacity ? 2 * w->sequence_capacity : 1024;
        int32_t *grown = realloc(w->lengths, (size_t)capacity * sizeof(*grown));
        if (!grown)
            return ap_error_set(err, AP_ERR_NOMEM, "out of memory: index of %lld sequences", (long long)capacity);
        w->lengths = grown;
        w->sequence_capacity = capacity;
    }
    w->lengths[w->sequences++] = (int32_t)w->open_tokens;
    w->open_tokens = 0;
    return AP_OK;
}

ap_status ap_megatron_writer_append(struct ap_megatron_writer *w, const int32_t *tokens, int64_t count,
                                    struct ap_error *err)
{
    const int64_t limit = dtype_limit(w->dtype);
    uint8_t block[4096];
    w->open_document = 1;
    for (int64_t i = 0; i < count;) {
        size_t used = 0;
        for (; i < count && used + 8 <= sizeof(block) && w->open_tokens < INT32_MAX; i++) {
            if (tokens[i] < 0 || tokens[i] >= limit)
                return ap_error_set(err, AP_ERR_INPUT, "token id %d does not fit dtype code %d", tokens[i], w->dtype);
            used += store(w, tokens[i], block + used);
            w->open_tokens++;
            w->tokens++;
        }
        AP_TRY(out_write(&w->bin, block, used, err));
        /* A length is 32 bits: a longer document becomes several sequences. */
        if (w->open_tokens == INT32_MAX)
            AP_TRY(end_sequence(w, err));
    }
    return AP_OK;
}

ap_status ap_megatron_writer_end_document(struct ap_megatron_writer *w, struct ap_error *err)
{
    AP_TRY(end_sequence(w, err));
    if (w->document_count + 2 > w->document_capacity) {
        int64_t capacity = 2 * w->document_capacity;
        int64_t *grown = realloc(w->documents, (size_t)capacity * sizeof(*grown));
        if (!grown)
            return ap_error_set(err, AP_ERR_NOMEM, "out of memory: index of %lld documents", (long long)capacity);
        w->documents = grown;
        w->document_capacity = capacity;
    }
    w->documents[++w->document_count] = w->sequences;
    w->open_document = 0;
    return AP_OK;
}

static ap_status write_u64(struct out_file *f, uint64_t v, struct ap_error *err)
{
    v = htole64(v);
    return out_write(f, &v, sizeof(v), err);
}

static ap_status write_index(struct ap_megatron_writer *w, struct ap_error *err)
{
    struct out_file *f = &w->idx;
    uint8_t code = (uint8_t)w->dtype;
    AP_TRY(out_write(f, "MMIDIDX\0\0", 9, err));
    AP_TRY(write_u64(f, 1, err));
    AP_TRY(out_write(f, &code, 1, err));
    AP_TRY(write_u64(f, (uint64_t)w->sequences, err));
    AP_TRY(write_u64(f, (uint64_t)w->document_count + 1, err));
    for (int64_t s = 0; s < w->sequences; s++) {
        uint32_t v = htole32((uint32_t)w->lengths[s]);
        AP_TRY(out_write(f, &v, sizeof(v), err));
    }
    uint64_t at = 0;
    for (int64_t s = 0; s < w->sequences; s++) {
        AP_TRY(write_u64(f, at, err));
        at += (uint64_t)w->lengths[s] * (uint64_t)w->width;
    }
    for (int64_t d = 0; d <= w->document_count; d++)
        AP_TRY(write_u64(f, (uint64_t)w->documents[d], err));
    return AP_OK;
}

ap_status ap_megatron_writer_commit(struct ap_megatron_writer *w, struct ap_megatron_written *written_p,
                                    struct ap_error *err)
{
    if (w->open_document)
        AP_TRY(ap_megatron_writer_end_document(w, err));
    AP_TRY(write_index(w, err));
    AP_TRY(out_sync(&w->bin, err));
    AP_TRY(out_sync(&w->idx, err));
    /* Between here and the second rename there is no .idx: a crash cannot pair new tokens with an old index. */
    if (unlink(w->idx.path) != 0 && errno != ENOENT)
        return fail_errno(err, "remove", w->idx.path);
    if (rename(w->bin.temporary, w->bin.path) != 0)
        return fail_errno(err, "rename to", w->bin.path);
    if (rename(w->idx.temporary, w->idx.path) != 0)
        return fail_errno(err, "rename to", w->idx.path);
    w->committed = 1;
    char *slash = strrchr(w->idx.path, '/');
    size_t n = slash ? (size_t)(slash - w->idx.path) : 0;
    char *dir = slash ? strndup(w->idx.path, n ? n : 1) : strdup(".");
    if (!dir)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    ap_status status = ap_io_fsync_dir(dir, err);
    free(dir);
    AP_TRY(status);
    if (written_p)
        *written_p = (struct ap_megatron_written){.tokens = w->tokens,
                                                  .documents = w->document_count,
                                                  .bin_size = w->bin.size,
                                                  .idx_size = w->idx.size,
                                                  .bin_hash = ap_hasher_digest(w->bin.hasher),
                                                  .idx_hash = ap_hasher_digest(w->idx.hasher)};
    return AP_OK;
}

void ap_megatron_writer_destroy(struct ap_megatron_writer *w)
{
    if (!w)
        return;
    out_free(&w->bin, !w->committed);
    out_free(&w->idx, !w->committed);
    free(w->lengths);
    free(w->documents);
    free(w);
}
