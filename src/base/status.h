/* SPDX-License-Identifier: Apache-2.0
 * Status codes, the caller-supplied error record, and process exit codes.
 *
 * A function that can fail returns ap_status. One that talks to a user (parsers, files, options) also
 * takes a struct ap_error * as its last argument (NULL allowed): the function that decides that
 * something is an error fills it, once; callers pass it on. Only main() prints it and exits.
 * Outputs are set only on AP_OK. Nothing here is collective; everything is thread-safe. */
#ifndef AP_BASE_STATUS_H
#define AP_BASE_STATUS_H

#include <stddef.h>

typedef enum ap_status {
    AP_OK = 0,
    AP_ERR_USAGE,   /* command line */
    AP_ERR_INPUT,   /* job file, data file, shapes: the user can mend it */
    AP_ERR_ENV,     /* missing library, device, permission, MPI set-up */
    AP_ERR_IO,      /* read, write, fsync failed */
    AP_ERR_NOSPACE, /* ENOSPC, EDQUOT */
    AP_ERR_NOMEM,
    AP_ERR_CORRUPT,     /* stored hash and content disagree, truncated file */
    AP_ERR_FORMAT,      /* another format version */
    AP_ERR_LOCKED,      /* another job owns the directory */
    AP_ERR_UNSUPPORTED, /* a backend has no such operation or dtype */
    AP_ERR_COMM,        /* a communication call failed: a peer is gone */
    AP_ERR_NUMERIC,     /* NaN or infinity */
    AP_ERR_NOTFOUND,
    AP_ERR_STOPPED, /* stopped early on request, resumable */
    AP_ERR_LOST,    /* more lost than can be brought back */
    AP_ERR_INVALID, /* the run ended but its result fails its own criteria */
    AP_ERR_BUG      /* an invariant of ours is broken */
} ap_status;

/* Exit codes of every verb (documented in antipode(1)). */
enum ap_exit {
    AP_EXIT_OK = 0,
    AP_EXIT_USAGE = 2,
    AP_EXIT_INPUT = 3,
    AP_EXIT_ENV = 4,
    AP_EXIT_STOPPED = 5,
    AP_EXIT_LOST = 6,
    AP_EXIT_INVALID = 7
};

/* What went wrong and where. text is one sentence without a final newline; hint, if not empty, is the
 * fix ("did you mean ...?"). line and column count from 1; 0 means unknown. */
struct ap_error {
    ap_status status;
    char file[512];
    long line, column;
    char text[1024];
    char hint[512];
};

/* Fill err (NULL: ignored) and return status, so that `return ap_error_set(err, AP_ERR_INPUT, ...)` works.
 * Resets file, line, column and hint. */
ap_status ap_error_set(struct ap_error *err, ap_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
#ifdef __clang_analyzer__ /* it sees one file at a time: tell it what is returned */
#define ap_error_set(err, status, ...) ((ap_error_set)((err), (status), __VA_ARGS__), (status))
#endif
/* Add the place or the fix to an error already set. */
void ap_error_at(struct ap_error *err, const char *file, long line, long column);
void ap_error_hint(struct ap_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Status for the current errno of a failed system call: ENOSPC/EDQUOT, ENOMEM, EACCES... */
ap_status ap_status_from_errno(int errnum);
/* "file:line:column: text (hint)" into buf; returns the length snprintf would. */
int ap_error_format(const struct ap_error *err, char *buf, size_t size);
/* Short lower-case name of a status ("input", "corrupt"): static storage. */
const char *ap_status_name(ap_status status);
int ap_status_exit_code(ap_status status);

/* Return early with a status that is not AP_OK. */
#define AP_TRY(expr)                                                                                                   \
    do {                                                                                                               \
        ap_status ap_try_status_ = (expr);                                                                             \
        if (ap_try_status_ != AP_OK)                                                                                   \
            return ap_try_status_;                                                                                     \
    } while (0)

#endif
