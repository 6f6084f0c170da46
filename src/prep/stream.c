/* SPDX-License-Identifier: Apache-2.0
 * Plain, gzip and zstd input behind one read call. Concatenated gzip members and zstd frames are one
 * stream, as their tools have it. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>
#ifdef AP_HAVE_ZLIB
#include <zlib.h>
#endif

#include "prep/stream.h"

enum { INPUT_SIZE = 1 << 16 };

enum kind { PLAIN, GZIP, ZSTD };

struct ap_stream {
    int fd;
    char *path;
    enum kind kind;
    uint8_t in[INPUT_SIZE];
    size_t at, filled; /* unread part of in */
    int eof;           /* no more in the file */
    int open_frame;    /* inside a compressed member or frame */
    ZSTD_DStream *zstd;
#ifdef AP_HAVE_ZLIB
    z_stream z;
#endif
};

static ap_status fail(struct ap_stream *s, ap_status status, struct ap_error *err, const char *text)
{
    ap_error_set(err, status, "%s", text);
    ap_error_at(err, s->path, 0, 0);
    return status;
}

/* Refill the input when it is used up. */
static ap_status fill(struct ap_stream *s, struct ap_error *err)
{
    while (s->at == s->filled && !s->eof) {
        ssize_t n = read(s->fd, s->in, sizeof(s->in));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int e = errno;
            ap_error_set(err, ap_status_from_errno(e), "cannot read: %s", strerror(e));
            ap_error_at(err, s->path, 0, 0);
            return ap_status_from_errno(e);
        }
        s->at = 0;
        s->filled = (size_t)n;
        s->eof = n == 0;
    }
    return AP_OK;
}

static ap_status detect(struct ap_stream *s, struct ap_error *err)
{
    AP_TRY(fill(s, err));
    if (s->filled >= 4 && memcmp(s->in, "\x28\xB5\x2F\xFD", 4) == 0) {
        s->kind = ZSTD;
        s->zstd = ZSTD_createDStream();
        return s->zstd ? AP_OK : fail(s, AP_ERR_NOMEM, err, "out of memory");
    }
    if (s->filled >= 3 && memcmp(s->in, "\x1F\x8B\x08", 3) == 0) {
#ifdef AP_HAVE_ZLIB
        s->kind = GZIP;
        if (inflateInit2(&s->z, 15 + 16) != Z_OK) {
            s->kind = PLAIN;
            return fail(s, AP_ERR_NOMEM, err, "out of memory");
        }
#else
        return fail(s, AP_ERR_UNSUPPORTED, err, "gzip data, but this antipode was built without zlib");
#endif
    }
    return AP_OK;
}

ap_status ap_stream_open(const char *path, struct ap_stream **s_p, struct ap_error *err)
{
    struct ap_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    ap_status status = AP_OK;
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        int e = errno;
        status =
            ap_error_set(err, e == ENOENT ? AP_ERR_INPUT : ap_status_from_errno(e), "cannot open: %s", strerror(e));
        ap_error_at(err, path, 0, 0);
    } else if (!(s->path = strdup(path))) {
        status = ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    } else {
        status = detect(s, err);
    }
    if (status != AP_OK) {
        ap_stream_close(s);
        return status;
    }
    *s_p = s;
    return AP_OK;
}

void ap_stream_close(struct ap_stream *s)
{
    if (!s)
        return;
#ifdef AP_HAVE_ZLIB
    if (s->kind == GZIP)
        inflateEnd(&s->z);
#endif
    ZSTD_freeDStream(s->zstd);
    if (s->fd >= 0)
        close(s->fd);
    free(s->path);
    free(s);
}

static ap_status read_zstd(struct ap_stream *s, void *data, size_t size, size_t *got_p, struct ap_error *err)
{
    ZSTD_outBuffer out = {data, size, 0};
    while (out.pos == 0) {
        AP_TRY(fill(s, err));
        if (s->at == s->filled && !s->open_frame)
            break;
        ZSTD_inBuffer in = {s->in, s->filled, s->at};
        size_t hint = ZSTD_decompressStream(s->zstd, &out, &in);
        if (ZSTD_isError(hint))
            return fail(s, AP_ERR_CORRUPT, err, "damaged zstd data");
        if (in.pos == s->at && out.pos == 0 && s->eof)
            return fail(s, AP_ERR_CORRUPT, err, "truncated zstd data");
        s->at = in.pos;
        s->open_frame = hint != 0;
    }
    *got_p = out.pos;
    return AP_OK;
}

#ifdef AP_HAVE_ZLIB
static ap_status read_gzip(struct ap_stream *s, void *data, size_t size, size_t *got_p, struct ap_error *err)
{
    s->z.next_out = data;
    s->z.avail_out = size > 1 << 30 ? 1 << 30 : (uInt)size;
    uInt room = s->z.avail_out;
    while (s->z.avail_out == room) {
        AP_TRY(fill(s, err));
        if (s->at == s->filled && !s->open_frame)
            break;
        s->z.next_in = s->in + s->at;
        s->z.avail_in = (uInt)(s->filled - s->at);
        int rc = inflate(&s->z, Z_NO_FLUSH);
        s->at = s->filled - s->z.avail_in;
        s->open_frame = rc != Z_STREAM_END;
        if (rc == Z_STREAM_END)
            inflateReset(&s->z);
        else if (rc == Z_BUF_ERROR && s->eof)
            return fail(s, AP_ERR_CORRUPT, err, "truncated gzip data");
        else if (rc != Z_OK && rc != Z_BUF_ERROR)
            return fail(s, AP_ERR_CORRUPT, err, "damaged gzip data");
    }
    *got_p = room - s->z.avail_out;
    return AP_OK;
}
#endif

ap_status ap_stream_read(struct ap_stream *s, void *data, size_t size, size_t *got_p, struct ap_error *err)
{
    if (s->kind == ZSTD)
        return read_zstd(s, data, size, got_p, err);
#ifdef AP_HAVE_ZLIB
    if (s->kind == GZIP)
        return read_gzip(s, data, size, got_p, err);
#endif
    AP_TRY(fill(s, err));
    size_t n = s->filled - s->at < size ? s->filled - s->at : size;
    memcpy(data, s->in + s->at, n);
    s->at += n;
    *got_p = n;
    return AP_OK;
}

ap_status ap_stream_read_all(struct ap_stream *s, size_t limit, struct ap_buf *out, struct ap_error *err)
{
    size_t total = 0;
    for (;;) {
        char *to = ap_buf_reserve(out, INPUT_SIZE);
        size_t got = 0;
        if (!to)
            return fail(s, AP_ERR_NOMEM, err, "out of memory");
        AP_TRY(ap_stream_read(s, to, INPUT_SIZE, &got, err));
        if (got == 0)
            return AP_OK;
        out->size += got;
        total += got;
        if (total > limit) {
            ap_error_set(err, AP_ERR_INPUT, "larger than the %zu bytes that one document may have", limit);
            ap_error_at(err, s->path, 0, 0);
            ap_error_hint(err, "split it, or give it as JSON lines");
            return AP_ERR_INPUT;
        }
    }
}
