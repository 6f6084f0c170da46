/* SPDX-License-Identifier: Apache-2.0
 * Files: whole reads, mappings, and writes that survive a crash.
 * Errors carry the path and the system's reason. Thread-safe. */
#ifndef AP_BASE_IO_H
#define AP_BASE_IO_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

/* Whole file into malloc'ed memory, NUL-terminated behind *size_p bytes; owned by the caller (free).
 * Files over max_size are refused. */
ap_status ap_io_read_file(const char *path, size_t max_size, char **data_p, size_t *size_p, struct ap_error *err);

/* The same for a text that is read as a C string: a NUL byte in it is AP_ERR_INPUT. */
ap_status ap_io_read_text(const char *path, size_t max_size, char **text_p, struct ap_error *err);

/* Read-only mapping. An empty file maps to size 0, data NULL. Unmap(zeroed) is fine. */
struct ap_mapping {
    const uint8_t *data;
    size_t size;
};
ap_status ap_io_map(const char *path, struct ap_mapping *map_p, struct ap_error *err);
void ap_io_unmap(struct ap_mapping *map);

/* Write all size bytes at offset, retrying short writes and EINTR. */
ap_status ap_io_pwrite_all(int fd, const void *data, size_t size, int64_t offset, const char *path,
                           struct ap_error *err);
/* Read exactly size bytes at offset; a shorter file is AP_ERR_CORRUPT. */
ap_status ap_io_pread_all(int fd, void *data, size_t size, int64_t offset, const char *path, struct ap_error *err);

/* Durable replacement: PATH.tmp, write, fsync, rename over PATH, fsync of the directory. On failure PATH
 * is as before and the temporary file is gone. An fsync error is never retried. */
ap_status ap_io_write_durable(const char *path, const void *data, size_t size, struct ap_error *err);
ap_status ap_io_fsync_dir(const char *path, struct ap_error *err);
/* mkdir -p. */
ap_status ap_io_mkdirs(const char *path, struct ap_error *err);
/* Remove a directory tree or file; a missing path is AP_OK. Does not follow symbolic links. */
ap_status ap_io_remove_tree(const char *path, struct ap_error *err);
int ap_io_exists(const char *path);

#endif
