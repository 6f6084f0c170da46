/* SPDX-License-Identifier: Apache-2.0
 * Status names, error records and the map from status to exit code. */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

ap_status(ap_error_set)(struct ap_error *err, ap_status status, const char *fmt, ...)
{
    if (err == NULL)
        return status;
    /* The arguments may point into err itself (an error that quotes the one it wraps): format first. */
    char text[sizeof err->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err->status = status;
    err->file[0] = '\0';
    err->line = 0;
    err->column = 0;
    err->hint[0] = '\0';
    memcpy(err->text, text, sizeof text);
    return status;
}

void ap_error_at(struct ap_error *err, const char *file, long line, long column)
{
    if (err == NULL)
        return;
    snprintf(err->file, sizeof err->file, "%s", file != NULL ? file : "");
    err->line = line;
    err->column = column;
}

void ap_error_hint(struct ap_error *err, const char *fmt, ...)
{
    if (err == NULL)
        return;
    char hint[sizeof err->hint];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(hint, sizeof hint, fmt, ap);
    va_end(ap);
    memcpy(err->hint, hint, sizeof hint);
}

ap_status ap_status_from_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
        return AP_ERR_NOSPACE;
    case ENOMEM:
        return AP_ERR_NOMEM;
    case ENOENT:
    case ENOTDIR:
        return AP_ERR_NOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS:
    case EMFILE:
    case ENFILE:
        return AP_ERR_ENV;
    default:
        return AP_ERR_IO;
    }
}

int ap_error_format(const struct ap_error *err, char *buf, size_t size)
{
    char place[640] = "";
    if (err->file[0] != '\0' && err->line > 0 && err->column > 0)
        snprintf(place, sizeof place, "%s:%ld:%ld: ", err->file, err->line, err->column);
    else if (err->file[0] != '\0' && err->line > 0)
        snprintf(place, sizeof place, "%s:%ld: ", err->file, err->line);
    else if (err->file[0] != '\0')
        snprintf(place, sizeof place, "%s: ", err->file);
    if (err->hint[0] != '\0')
        return snprintf(buf, size, "%s%s (%s)", place, err->text, err->hint);
    return snprintf(buf, size, "%s%s", place, err->text);
}

const char *ap_status_name(ap_status status)
{
    switch (status) {
    case AP_OK:
        return "ok";
    case AP_ERR_USAGE:
        return "usage";
    case AP_ERR_INPUT:
        return "input";
    case AP_ERR_ENV:
        return "environment";
    case AP_ERR_IO:
        return "io";
    case AP_ERR_NOSPACE:
        return "no space";
    case AP_ERR_NOMEM:
        return "no memory";
    case AP_ERR_CORRUPT:
        return "corrupt";
    case AP_ERR_FORMAT:
        return "format";
    case AP_ERR_LOCKED:
        return "locked";
    case AP_ERR_UNSUPPORTED:
        return "unsupported";
    case AP_ERR_COMM:
        return "communication";
    case AP_ERR_NUMERIC:
        return "numeric";
    case AP_ERR_NOTFOUND:
        return "not found";
    case AP_ERR_STOPPED:
        return "stopped";
    case AP_ERR_LOST:
        return "lost";
    case AP_ERR_INVALID:
        return "invalid";
    case AP_ERR_BUG:
        return "bug";
    }
    return "unknown";
}

int ap_status_exit_code(ap_status status)
{
    switch (status) {
    case AP_OK:
        return AP_EXIT_OK;
    case AP_ERR_USAGE:
        return AP_EXIT_USAGE;
    case AP_ERR_INPUT:
    case AP_ERR_CORRUPT:
    case AP_ERR_FORMAT:
    case AP_ERR_NOTFOUND:
    case AP_ERR_UNSUPPORTED:
        return AP_EXIT_INPUT;
    case AP_ERR_ENV:
    case AP_ERR_IO:
    case AP_ERR_NOSPACE:
    case AP_ERR_NOMEM:
    case AP_ERR_LOCKED:
    case AP_ERR_BUG:
        return AP_EXIT_ENV;
    case AP_ERR_STOPPED:
        return AP_EXIT_STOPPED;
    case AP_ERR_COMM:
    case AP_ERR_LOST:
        return AP_EXIT_LOST;
    case AP_ERR_NUMERIC:
    case AP_ERR_INVALID:
        return AP_EXIT_INVALID;
    }
    return AP_EXIT_ENV;
}
