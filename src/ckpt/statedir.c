/* SPDX-License-Identifier: Apache-2.0
 * Whole-state operations in a checkpoint directory. Every change is a rename, so that a kill between any two
 * system calls leaves each state either there or not there. */
#include "config.h"
#include "ckpt/statedir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"

#define STEP_FORMAT "step-%012" PRId64

static ap_status sys_fail(struct ap_error *err, const char *what, const char *path)
{
    int e = errno;
    ap_status status = ap_status_from_errno(e);
    if (status == AP_OK) /* a failure without a reason is still one */
        status = AP_ERR_IO;
    ap_error_set(err, status, "cannot %s: %s", what, strerror(e));
    ap_error_at(err, path, 0, 0);
    return status;
}

/* printf into buf; AP_ERR_INPUT if it does not fit. */
__attribute__((format(printf, 4, 5))) static ap_status path_print(char *buf, size_t size, struct ap_error *err,
                                                                  const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, size, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= size)
        return ap_error_set(err, AP_ERR_INPUT, "the path of the checkpoint directory is too long");
    return AP_OK;
}

/* Step of "step-<12 or more digits>" with nothing behind it, or -1. */
static int64_t step_of(const char *name)
{
    int64_t step;
    char back[64];
    if (sscanf(name, "step-%" SCNd64, &step) != 1 || step < 0)
        return -1;
    snprintf(back, sizeof back, STEP_FORMAT, step);
    return strcmp(back, name) == 0 ? step : -1;
}

int64_t ap_statedir_step(const char *path)
{
    char name[64];
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] == '/')
        n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/')
        start--;
    if (n - start >= sizeof name)
        return -1;
    snprintf(name, sizeof name, "%.*s", (int)(n - start), path + start);
    return step_of(name);
}

ap_status ap_statedir_path(const char *dir, int64_t step, char *buf, size_t size, struct ap_error *err)
{
    return path_print(buf, size, err, "%s/" STEP_FORMAT, dir, step);
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

ap_status ap_statedir_scan(const char *dir, int64_t **steps_p, int *count_p, struct ap_error *err)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return sys_fail(err, "open the checkpoint directory", dir);
    int64_t *steps = NULL;
    int count = 0, capacity = 0;
    ap_status status = AP_OK;
    struct dirent *e;
    while ((errno = 0, e = readdir(d)) != NULL) {
        int64_t step = step_of(e->d_name);
        if (step < 0)
            continue;
        if (count == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 16;
            int64_t *grown = realloc(steps, (size_t)capacity * sizeof *steps);
            if (grown == NULL) {
                status = ap_error_set(err, AP_ERR_NOMEM, "no memory for a list of checkpoints");
                break;
            }
            steps = grown;
        }
        steps[count++] = step;
    }
    if (e == NULL && errno != 0)
        status = sys_fail(err, "read the checkpoint directory", dir);
    closedir(d);
    if (status != AP_OK) {
        free(steps);
        return status;
    }
    if (count > 0)
        qsort(steps, (size_t)count, sizeof *steps, newest_first);
    *steps_p = steps;
    *count_p = count;
    return AP_OK;
}

int64_t ap_statedir_best(const char *dir)
{
    char path[AP_STATE_PATH_BYTES], target[256];
    if (path_print(path, sizeof path, NULL, "%s/best", dir) != AP_OK)
        return -1;
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n <= 0)
        return -1;
    target[n] = '\0';
    return step_of(target);
}

ap_status ap_statedir_set_best(const char *dir, int64_t step, struct ap_error *err)
{
    char target[64], tmp[AP_STATE_PATH_BYTES], path[AP_STATE_PATH_BYTES];
    snprintf(target, sizeof target, STEP_FORMAT, step);
    AP_TRY(path_print(tmp, sizeof tmp, err, "%s/best.tmp", dir));
    AP_TRY(path_print(path, sizeof path, err, "%s/best", dir));
    if (unlink(tmp) != 0 && errno != ENOENT)
        return sys_fail(err, "remove", tmp);
    if (symlink(target, tmp) != 0)
        return sys_fail(err, "link the best state", tmp);
    if (rename(tmp, path) != 0)
        return sys_fail(err, "link the best state", path);
    return ap_io_fsync_dir(dir, err);
}

ap_status ap_statedir_begin(const char *dir, int64_t step, int nonce, char *buf, size_t size, struct ap_error *err)
{
    char host[65] = "host";
    gethostname(host, sizeof host - 1);
    /* Host, process and counter: a rank of a killed job that still writes can never write here. */
    AP_TRY(path_print(buf, size, err, "%s/" STEP_FORMAT ".%s-%ld-%d.tmp", dir, step, host, (long)getpid(), nonce));
    AP_TRY(ap_io_remove_tree(buf, err));
    if (mkdir(buf, 0777) != 0)
        return sys_fail(err, "create directory", buf);
    return AP_OK;
}

/* Move a directory out of the way under name.SUFFIX, name.SUFFIX-2, ... */
static ap_status move_aside(const char *path, const char *suffix, char *buf, size_t size, struct ap_error *err)
{
    for (int i = 1; i < 10000; i++) {
        AP_TRY(i == 1 ? path_print(buf, size, err, "%s.%s", path, suffix)
                      : path_print(buf, size, err, "%s.%s-%d", path, suffix, i));
        if (rename(path, buf) == 0)
            return AP_OK;
        if (errno != ENOTEMPTY && errno != EEXIST)
            break;
    }
    return sys_fail(err, "rename", path);
}

ap_status ap_statedir_commit(const char *dir, const char *tmp, int64_t step, struct ap_error *err)
{
    char path[AP_STATE_PATH_BYTES], aside[AP_STATE_PATH_BYTES];
    AP_TRY(ap_statedir_path(dir, step, path, sizeof path, err));
    AP_TRY(ap_io_fsync_dir(tmp, err));
    if (rename(tmp, path) == 0)
        return ap_io_fsync_dir(dir, err);
    if (errno != ENOTEMPTY && errno != EEXIST)
        return sys_fail(err, "rename the new state to", path);
    /* A state of this step is there (the run went back and came by again): swap them in one call where the file
     * system can, so that one of them is there at any time. */
    if (renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        AP_TRY(ap_io_fsync_dir(dir, err));
        return ap_io_remove_tree(tmp, err);
    }
    AP_TRY(path_print(aside, sizeof aside, err, "%s.old", path));
    AP_TRY(ap_io_remove_tree(aside, err));
    if (rename(path, aside) != 0)
        return sys_fail(err, "rename", path);
    if (rename(tmp, path) != 0) {
        ap_status status = sys_fail(err, "rename the new state to", path);
        (void)!rename(aside, path); /* or the next open does it */
        return status;
    }
    AP_TRY(ap_io_fsync_dir(dir, err));
    return ap_io_remove_tree(aside, err);
}

ap_status ap_statedir_quarantine(const char *dir, int64_t step, char *buf, size_t size, struct ap_error *err)
{
    char path[AP_STATE_PATH_BYTES];
    AP_TRY(ap_statedir_path(dir, step, path, sizeof path, err));
    AP_TRY(move_aside(path, "corrupt", buf, size, err));
    return ap_io_fsync_dir(dir, err);
}

ap_status ap_statedir_supersede(const char *dir, int64_t step, int *count_p, struct ap_error *err)
{
    int64_t *steps = NULL, best = ap_statedir_best(dir);
    int count = 0, moved = 0;
    char path[AP_STATE_PATH_BYTES], aside[AP_STATE_PATH_BYTES];
    AP_TRY(ap_statedir_scan(dir, &steps, &count, err));
    ap_status status = AP_OK;
    for (int i = 0; status == AP_OK && i < count && steps[i] > step; i++) {
        if (steps[i] == best) {
            status = path_print(path, sizeof path, err, "%s/best", dir);
            if (status == AP_OK && unlink(path) != 0)
                status = sys_fail(err, "remove", path);
        }
        if (status == AP_OK)
            status = ap_statedir_path(dir, steps[i], path, sizeof path, err);
        if (status == AP_OK)
            status = move_aside(path, "superseded", aside, sizeof aside, err);
        moved += status == AP_OK;
    }
    free(steps);
    if (status == AP_OK && moved > 0)
        status = ap_io_fsync_dir(dir, err);
    *count_p = moved;
    return status;
}

ap_status ap_statedir_retain(const char *dir, int64_t keep, struct ap_error *err)
{
    int64_t *steps = NULL, best = ap_statedir_best(dir);
    int count = 0;
    AP_TRY(ap_statedir_scan(dir, &steps, &count, err));
    ap_status status = AP_OK;
    for (int64_t i = keep > 1 ? keep : 1; status == AP_OK && i < count; i++) {
        char path[AP_STATE_PATH_BYTES], aside[AP_STATE_PATH_BYTES];
        if (steps[i] == best)
            continue;
        status = ap_statedir_path(dir, steps[i], path, sizeof path, err);
        if (status == AP_OK)
            status = move_aside(path, "del", aside, sizeof aside, err);
        if (status == AP_OK)
            status = ap_io_remove_tree(aside, err);
    }
    free(steps);
    return status;
}

/* 1: to be removed; 2: a state moved aside for its replacement; 0: neither. */
static int leftover_kind(const char *name)
{
    size_t n = strlen(name);
    if (strcmp(name, "best.tmp") == 0)
        return 1;
    if (strncmp(name, "step-", 5) != 0)
        return 0;
    const char *dot = strchr(name, '.');
    if (dot != NULL && strcmp(dot, ".old") == 0)
        return 2;
    if (dot != NULL && strncmp(dot, ".del", 4) == 0 && (dot[4] == '\0' || dot[4] == '-'))
        return 1;
    return n > 4 && strcmp(name + n - 4, ".tmp") == 0;
}

/* step-N.old: remove it, or give it its name back if the kill came before the new state had it. */
static ap_status settle_old(const char *dir, const char *name, struct ap_error *err)
{
    char old[AP_STATE_PATH_BYTES], path[AP_STATE_PATH_BYTES];
    AP_TRY(path_print(old, sizeof old, err, "%s/%s", dir, name));
    AP_TRY(path_print(path, sizeof path, err, "%s/%.*s", dir, (int)strcspn(name, "."), name));
    if (ap_io_exists(path))
        return ap_io_remove_tree(old, err);
    if (rename(old, path) != 0)
        return sys_fail(err, "rename", old);
    return ap_io_fsync_dir(dir, err);
}

ap_status ap_statedir_clean(const char *dir, struct ap_error *err)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return sys_fail(err, "open the checkpoint directory", dir);
    ap_status status = AP_OK;
    struct dirent *e;
    while (status == AP_OK && (e = readdir(d)) != NULL) {
        char path[AP_STATE_PATH_BYTES];
        int kind = leftover_kind(e->d_name);
        if (kind == 2)
            status = settle_old(dir, e->d_name, err);
        if (kind != 1)
            continue;
        status = path_print(path, sizeof path, err, "%s/%s", dir, e->d_name);
        if (status == AP_OK)
            status = ap_io_remove_tree(path, err);
    }
    closedir(d);
    return status;
}

int64_t ap_statedir_free_bytes(const char *dir)
{
    struct statvfs v;
    if (statvfs(dir, &v) != 0 || v.f_frsize == 0 || v.f_bavail > (uint64_t)INT64_MAX / v.f_frsize)
        return -1;
    return (int64_t)(v.f_bavail * v.f_frsize);
}

ap_status ap_statedir_lock(const char *dir, int *fd_p, struct ap_error *err)
{
    char path[AP_STATE_PATH_BYTES], text[256] = "", host[65] = "host", when[40];
    AP_TRY(path_print(path, sizeof path, err, "%s/LOCK", dir));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return sys_fail(err, "open the lock of the checkpoint directory", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int e = errno;
        if (e != EWOULDBLOCK) {
            close(fd);
            errno = e;
            return sys_fail(err, "lock the checkpoint directory", path);
        }
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        close(fd);
        ap_error_set(err, AP_ERR_LOCKED, "another job writes checkpoints here: %s",
                     text[0] != '\0' ? text : "unknown holder");
        ap_error_at(err, path, 0, 0);
        ap_error_hint(err, "end that job or give this one another checkpoint directory");
        return AP_ERR_LOCKED;
    }
    gethostname(host, sizeof host - 1);
    ap_clock_iso(ap_clock_wall(), when);
    int n = snprintf(text, sizeof text, "process %ld on %s since %s\n", (long)getpid(), host, when);
    ap_status status = AP_OK;
    if (ftruncate(fd, 0) != 0)
        status = sys_fail(err, "write the lock of the checkpoint directory", path);
    else
        status = ap_io_pwrite_all(fd, text, (size_t)n, 0, path, err);
    if (status != AP_OK && status != AP_ERR_NOSPACE) { /* a full disk must not keep anyone from resuming */
        close(fd);
        return status;
    }
    *fd_p = fd;
    return AP_OK;
}
