/* SPDX-License-Identifier: Apache-2.0
 * The logger. One line is formatted whole and written by one write call, so that lines of several ranks
 * and threads do not mix on a shared terminal or in an appended file. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define LINE_MAX_BYTES 4096

static struct {
    pthread_mutex_t mutex;
    ap_log_level level;
    int rank;
    int fd; /* log.txt, -1: none */
} logger = {PTHREAD_MUTEX_INITIALIZER, AP_LOG_INFO, -1, -1};

void ap_log_setup(ap_log_level level, int rank)
{
    pthread_mutex_lock(&logger.mutex);
    logger.level = level;
    logger.rank = rank;
    pthread_mutex_unlock(&logger.mutex);
}

int ap_log_open(const char *path)
{
    int fd = -1;
    if (path != NULL) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (fd < 0)
            return -1;
    }
    pthread_mutex_lock(&logger.mutex);
    int old = logger.fd;
    logger.fd = fd;
    pthread_mutex_unlock(&logger.mutex);
    if (old >= 0)
        close(old);
    return 0;
}

/* A log that cannot be written must not stop a run: what fails here is dropped. */
static void write_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, text, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        text += n;
        size -= (size_t)n;
    }
}

static const char *level_prefix(ap_log_level level)
{
    switch (level) {
    case AP_LOG_ERROR:
        return "error: ";
    case AP_LOG_WARN:
        return "warning: ";
    case AP_LOG_INFO:
        return "";
    case AP_LOG_DEBUG:
        return "debug: ";
    }
    return "";
}

void ap_log(ap_log_level level, const char *fmt, ...)
{
    pthread_mutex_lock(&logger.mutex);
    if (level > logger.level || (logger.rank > 0 && level > AP_LOG_WARN)) {
        pthread_mutex_unlock(&logger.mutex);
        return;
    }
    char rank[24] = "";
    if (logger.rank > 0)
        snprintf(rank, sizeof rank, "rank %d: ", logger.rank);

    char line[LINE_MAX_BYTES];
    int head = snprintf(line, sizeof line, "%s%s", level_prefix(level), rank);
    va_list ap;
    va_start(ap, fmt);
    int body = vsnprintf(line + head, sizeof line - (size_t)head - 1, fmt, ap);
    va_end(ap);
    size_t size = (size_t)head + (body > 0 ? (size_t)body : 0);
    if (size > sizeof line - 2)
        size = sizeof line - 2;
    line[size++] = '\n';
    write_all(STDERR_FILENO, line, size);
    if (logger.fd >= 0) {
        char stamped[LINE_MAX_BYTES + 40];
        char stamp[32];
        ap_clock_iso(ap_clock_wall(), stamp);
        int n = snprintf(stamped, sizeof stamped, "%s ", stamp);
        memcpy(stamped + n, line, size);
        write_all(logger.fd, stamped, (size_t)n + size);
    }
    pthread_mutex_unlock(&logger.mutex);
}

void ap_out(const char *fmt, ...)
{
    char small[LINE_MAX_BYTES];
    char *text = small;
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof small) {
        /* Schemas and tables are longer than any line. */
        text = malloc((size_t)n + 1);
        if (text != NULL) {
            vsnprintf(text, (size_t)n + 1, fmt, again);
        } else {
            text = small;
            n = (int)sizeof small - 1;
        }
    }
    va_end(again);
    if (n > 0) {
        pthread_mutex_lock(&logger.mutex);
        if (logger.rank <= 0) {
            write_all(STDOUT_FILENO, text, (size_t)n);
            if (logger.fd >= 0)
                write_all(logger.fd, text, (size_t)n);
        }
        pthread_mutex_unlock(&logger.mutex);
    }
    if (text != small)
        free(text);
}
