/* SPDX-License-Identifier: Apache-2.0
 * A file in memory with a path, for parsers that open their input by name. */
#ifndef AP_FUZZ_MEMORY_FILE_H
#define AP_FUZZ_MEMORY_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* Descriptor of a file that holds the bytes, and its path into path[size_path]; -1 on failure. The caller closes. */
static inline int memory_file(const uint8_t *data, size_t size, char *path, size_t size_path)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    if (write(fd, data, size) != (ssize_t)size) {
        close(fd);
        return -1;
    }
    snprintf(path, size_path, "/proc/self/fd/%d", fd);
    return fd;
}

#endif
