/* SPDX-License-Identifier: Apache-2.0
 * The reader of all comma-separated tables: machines (topology.csv), links between sites, matrices of the emulator. Row
 * by row: blank lines and lines that begin with # are passed over, the first other line names the columns, in any
 * order; fields may stand in double quotes ("" is a quote), blanks around them do not count. Every field knows its line
 * and column, and every error names them. Thread-safe. */
#ifndef AP_PLAN_CSV_READER_H
#define AP_PLAN_CSV_READER_H

#include <stddef.h>
#include "base/status.h"

#define AP_CSV_MAX_COLUMNS 64

struct ap_csv {
    const char *path;                             /* borrowed, for errors */
    const char *head;                             /* a header to begin with, for hints, borrowed; NULL: none */
    int whole;                                    /* 1: a row has as many fields as the header; 0: missing are "" */
    char *text, *at, *end;                        /* own copy, cut up while reading */
    long line;                                    /* of the row read last */
    int columns;                                  /* of the header */
    char *names[AP_CSV_MAX_COLUMNS];              /* of the columns; valid until close */
    char *fields[AP_CSV_MAX_COLUMNS];             /* of the row read last, blanks trimmed; missing ones are "" */
    long column[AP_CSV_MAX_COLUMNS];              /* where each begins */
    void (*comment)(void *ctx, const char *text); /* called with each comment line, without #; NULL: dropped */
    void *ctx;
};

/* Reads the header. Set head, whole, comment and ctx before. ap_csv_close in any case. */
ap_status ap_csv_open(struct ap_csv *c, const char *path, const char *text, size_t size, struct ap_error *err);
/* The next row; *more_p is 0 at the end. A row with more fields than the header is an error. */
ap_status ap_csv_next(struct ap_csv *c, int *more_p, struct ap_error *err);
void ap_csv_close(struct ap_csv *c);
/* Where each of these columns stands into column, -1 if it is not there; the first `needed` of them have to be. Others
 * are an error, with the nearest name as the hint, or with more_too passed over. */
ap_status ap_csv_columns(const struct ap_csv *c, const char *const *names, int count, int needed, int more_too,
                         int *column, struct ap_error *err);
/* Index of a column, -1 if there is none. */
int ap_csv_column(const struct ap_csv *c, const char *name);
/* The field of a column, "" where the column is missing (-1). */
const char *ap_csv_field(const struct ap_csv *c, int column);
/* Give err the place of a field of this row (column -1: the row) and return its status. */
ap_status ap_csv_blame(const struct ap_csv *c, int column, struct ap_error *err);
/* A name: 1 to max bytes without comma, quote and control characters, and not the word "*". Valid until the next row.
 */
ap_status ap_csv_name(const struct ap_csv *c, int column, size_t max, const char **name_p, struct ap_error *err);
/* A finite decimal number from min to max out of a field, in units of scale. An empty field is an error. */
ap_status ap_csv_number(const struct ap_csv *c, int column, const double range[2], double scale, double *value_p,
                        struct ap_error *err);

#endif
