/* SPDX-License-Identifier: Apache-2.0
 * Reading files that may be compressed: gzip (if zlib was found at configure time) and zstd, told by their
 * first bytes, not their names. Not thread-safe. */
#ifndef AP_PREP_STREAM_H
#define AP_PREP_STREAM_H

#include <stddef.h>
#include "base/status.h"
#include "prep/buf.h"

struct ap_stream;

ap_status ap_stream_open(const char *path, struct ap_stream **s_p, struct ap_error *err);
void ap_stream_close(struct ap_stream *s);
/* Up to size bytes of the uncompressed data; *got_p = 0 is the end. AP_ERR_CORRUPT for damaged or
 * truncated compressed data. */
ap_status ap_stream_read(struct ap_stream *s, void *data, size_t size, size_t *got_p, struct ap_error *err);
/* Append everything that is left to out. More than limit bytes is AP_ERR_INPUT. */
ap_status ap_stream_read_all(struct ap_stream *s, size_t limit, struct ap_buf *out, struct ap_error *err);

#endif
