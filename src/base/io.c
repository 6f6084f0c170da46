/* SPDX-License-Identifier: Apache-2.0
 * Whole reads, mappings, positioned reads and writes, and the durable replacement of a file:
 * write a temporary file, fsync it, rename it, fsync the directory. A failed fsync is final: the kernel
 * may have dropped the dirty pages, so that a second fsync would succeed without the data being there. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

/* Error for a failed system call on path; errnum is errno as the call left it. */
static ap_status fail(struct ap_error *err, int errnum, const char *what, const char *path)
{
    ap_status status = ap_status_from_errno(errnum);
    ap_error_set(err, status, "cannot %s: %s", what, strerror(errnum));
    ap_error_at(err, path, 0, 0);
    return status;
}

/* Read until EOF or an error; returns bytes read or -1. */
static ssize_t read_full(int fd, char *buf, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, buf + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static ap_status too_large(const char *path, size_t max_size, struct ap_error *err)
{
    ap_error_set(err, AP_ERR_INPUT, "the file is larger than the %zu bytes allowed here", max_size);
    ap_error_at(err, path, 0, 0);
    return AP_ERR_INPUT;
}

static ap_status not_a_file(const char *path, const char *text, struct ap_error *err)
{
    ap_error_set(err, AP_ERR_INPUT, "%s", text);
    ap_error_at(err, path, 0, 0);
    return AP_ERR_INPUT;
}

/* fd may be a pipe (a job from standard input has no size), so grow as the data come. */
static ap_status read_stream(int fd, const char *path, size_t max_size, char **data_p, size_t *size_p,
                             struct ap_error *err)
{
    size_t capacity = 65536, size = 0;
    char *data = NULL;
    for (;;) {
        if (capacity > max_size)
            capacity = max_size;
        char *grown = realloc(data, capacity + 2);
        if (grown == NULL) {
            free(data);
            return ap_error_set(err, AP_ERR_NOMEM, "no memory for %zu bytes of %s", capacity, path);
        }
        data = grown;
        /* One byte more than allowed shows that the file is too large. */
        ssize_t n = read_full(fd, data + size, capacity + 1 - size);
        if (n < 0) {
            int e = errno;
            free(data);
            return fail(err, e, "read", path);
        }
        size += (size_t)n;
        if (size <= capacity)
            break;
        if (size > max_size) {
            free(data);
            return too_large(path, max_size, err);
        }
        capacity = capacity > SIZE_MAX / 4 ? max_size : capacity * 2;
    }
    data[size] = '\0';
    *data_p = data;
    *size_p = size;
    return AP_OK;
}

ap_status ap_io_read_file(const char *path, size_t max_size, char **data_p, size_t *size_p, struct ap_error *err)
{
    if (max_size > SSIZE_MAX - 2)
        max_size = SSIZE_MAX - 2;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(err, errno, "open", path);
    struct stat st;
    ap_status status;
    if (fstat(fd, &st) != 0)
        status = fail(err, errno, "stat", path);
    else if (S_ISDIR(st.st_mode))
        status = not_a_file(path, "this is a directory, not a file", err);
    else if (S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size > max_size)
        status = too_large(path, max_size, err);
    else
        status = read_stream(fd, path, max_size, data_p, size_p, err);
    close(fd);
    return status;
}

ap_status ap_io_read_text(const char *path, size_t max_size, char **text_p, struct ap_error *err)
{
    char *text = NULL;
    size_t size = 0;
    AP_TRY(ap_io_read_file(path, max_size, &text, &size, err));
    if (strlen(text) != size) {
        free(text);
        ap_error_set(err, AP_ERR_INPUT, "a NUL byte in the text");
        ap_error_at(err, path, 0, 0);
        return AP_ERR_INPUT;
    }
    *text_p = text;
    return AP_OK;
}

ap_status ap_io_map(const char *path, struct ap_mapping *map_p, struct ap_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(err, errno, "open", path);
    struct stat st;
    if (fstat(fd, &st) != 0) {
        int e = errno;
        close(fd);
        return fail(err, e, "stat", path);
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return not_a_file(path, "not a regular file", err);
    }
    struct ap_mapping map = {NULL, (size_t)st.st_size};
    if (map.size > 0) {
        void *p = mmap(NULL, map.size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            int e = errno;
            close(fd);
            return fail(err, e, "map", path);
        }
        map.data = p;
    }
    close(fd);
    *map_p = map;
    return AP_OK;
}

void ap_io_unmap(struct ap_mapping *map)
{
    if (map == NULL)
        return;
    if (map->data != NULL)
        munmap((void *)(uintptr_t)map->data, map->size);
    map->data = NULL;
    map->size = 0;
}

ap_status ap_io_pwrite_all(int fd, const void *data, size_t size, int64_t offset, const char *path,
                           struct ap_error *err)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = pwrite(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(err, errno, "write", path);
        if (n == 0)
            return fail(err, ENOSPC, "write", path);
        p += n;
        offset += n;
        size -= (size_t)n;
    }
    return AP_OK;
}

ap_status ap_io_pread_all(int fd, void *data, size_t size, int64_t offset, const char *path, struct ap_error *err)
{
    char *p = data;
    while (size > 0) {
        ssize_t n = pread(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail(err, errno, "read", path);
        if (n == 0) {
            ap_error_set(err, AP_ERR_CORRUPT, "the file ends at byte %lld, %zu bytes more are needed",
                         (long long)offset, size);
            ap_error_at(err, path, 0, 0);
            return AP_ERR_CORRUPT;
        }
        p += n;
        offset += n;
        size -= (size_t)n;
    }
    return AP_OK;
}

ap_status ap_io_fsync_dir(const char *path, struct ap_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(err, errno, "open directory", path);
    int rc = fsync(fd), e = errno;
    close(fd);
    /* Some network file systems refuse fsync of a directory; their renames are durable by themselves. */
    if (rc != 0 && e != EINVAL && e != ENOTSUP)
        return fail(err, e, "fsync", path);
    return AP_OK;
}

/* Folder part of path into dir: "." where there is none. */
static void parent_of(const char *path, char *dir, size_t size)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        snprintf(dir, size, ".");
    else if (slash == path)
        snprintf(dir, size, "/");
    else
        snprintf(dir, size, "%.*s", (int)(slash - path), path);
}

ap_status ap_io_write_durable(const char *path, const void *data, size_t size, struct ap_error *err)
{
    char tmp[PATH_MAX], dir[PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp)
        return fail(err, ENAMETOOLONG, "write", path);
    parent_of(path, dir, sizeof dir);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return fail(err, errno, "create", tmp);
    ap_status status = ap_io_pwrite_all(fd, data, size, 0, tmp, err);
    if (status == AP_OK && fsync(fd) != 0)
        status = fail(err, errno, "fsync", tmp);
    if (close(fd) != 0 && status == AP_OK)
        status = fail(err, errno, "close", tmp);
    if (status == AP_OK && rename(tmp, path) != 0)
        status = fail(err, errno, "rename the temporary file to", path);
    if (status != AP_OK) {
        unlink(tmp);
        return status;
    }
    return ap_io_fsync_dir(dir, err);
}

ap_status ap_io_mkdirs(const char *path, struct ap_error *err)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return fail(err, ENAMETOOLONG, "create directory", path);
    for (char *p = part + 1; part[0] != '\0'; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char keep = *p;
        *p = '\0';
        if (mkdir(part, 0777) != 0) {
            int e = errno;
            struct stat st;
            if (e != EEXIST && e != EISDIR && e != EROFS && e != EACCES)
                return fail(err, e, "create directory", part);
            /* An existing folder on a read-only or closed parent is fine. */
            if (stat(part, &st) != 0)
                return fail(err, e, "create directory", part);
            if (!S_ISDIR(st.st_mode))
                return fail(err, ENOTDIR, "create directory", part);
        }
        *p = keep;
        if (keep == '\0')
            break;
    }
    return AP_OK;
}

/* Remove name inside dirfd; path only serves messages. Deep trees cost one descriptor per level. */
static ap_status remove_at(int dirfd, const char *name, const char *path, struct ap_error *err)
{
    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return AP_OK;
    if (errno != EISDIR && errno != EPERM)
        return fail(err, errno, "remove", path);
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail(err, errno, "open directory", path);
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        int e = errno;
        close(fd);
        return fail(err, e, "open directory", path);
    }
    ap_status status = AP_OK;
    struct dirent *entry;
    while (status == AP_OK && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char child[PATH_MAX];
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        status = remove_at(fd, entry->d_name, child, err);
    }
    closedir(dir);
    if (status == AP_OK && unlinkat(dirfd, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        status = fail(err, errno, "remove", path);
    return status;
}

ap_status ap_io_remove_tree(const char *path, struct ap_error *err)
{
    return remove_at(AT_FDCWD, path, path, err);
}

int ap_io_exists(const char *path)
{
    return access(path, F_OK) == 0;
}
