/* SPDX-License-Identifier: Apache-2.0
 * Comma-separated text, row by row, with the place of every field. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "base/utf8.h"
#include "plan/csv_reader.h"

static int blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

ap_status ap_csv_blame(const struct ap_csv *c, int column, struct ap_error *err)
{
    ap_error_at(err, c->path, c->line, column >= 0 ? c->column[column] : 1);
    return err != NULL ? err->status : AP_ERR_INPUT;
}

/* Cut the quoted field at s (behind the quote) in place; *end_p is behind the closing quote, NULL: there is none. */
static char *unquote(char *s, char **end_p)
{
    char *to = s;
    *end_p = NULL;
    for (char *from = s; *from != '\0'; from++) {
        if (*from == '"' && from[1] != '"') {
            *end_p = from + 1;
            break;
        }
        if (*from == '"')
            from++;
        *to++ = *from;
    }
    if (*end_p != NULL)
        *to = '\0';
    return s;
}

/* Split the line into fields[0 .. *count_p). */
static ap_status split(struct ap_csv *c, char *line, int *count_p, struct ap_error *err)
{
    int n = 0;
    for (char *s = line;;) {
        if (n == AP_CSV_MAX_COLUMNS) {
            ap_error_set(err, AP_ERR_INPUT, "more than %d fields in a line", AP_CSV_MAX_COLUMNS);
            return ap_csv_blame(c, -1, err);
        }
        while (blank(*s))
            s++;
        c->column[n] = (long)(s - line) + 1;
        char *end = s, *stop;
        if (*s == '"') {
            c->fields[n] = unquote(s + 1, &end);
            if (end == NULL) {
                ap_error_set(err, AP_ERR_INPUT, "the quote is not closed");
                return ap_csv_blame(c, n, err);
            }
            for (stop = end; blank(*stop);)
                stop++;
            if (*stop != ',' && *stop != '\0') {
                ap_error_set(err, AP_ERR_INPUT, "text behind the closing quote");
                return ap_csv_blame(c, n, err);
            }
        } else {
            c->fields[n] = s;
            for (stop = s; *stop != ',' && *stop != '\0'; stop++)
                if (!blank(*stop))
                    end = stop + 1;
        }
        int last = *stop == '\0';
        if (c->fields[n] == s)
            *end = '\0';
        n++;
        if (last)
            break;
        s = stop + 1;
    }
    *count_p = n;
    return AP_OK;
}

/* The next line that is neither empty nor a comment, cut from the text; NULL at the end. */
static char *next_line(struct ap_csv *c)
{
    while (c->at < c->end) {
        char *line = c->at, *stop = memchr(line, '\n', (size_t)(c->end - line));
        if (stop == NULL)
            stop = c->end;
        c->at = stop + (stop < c->end);
        *stop = '\0';
        c->line++;
        for (char *s = line; s < stop; s++) {
            if (*s == '#' && c->comment != NULL) {
                char *tail = stop;
                while (tail > s && blank(tail[-1]))
                    *--tail = '\0';
                c->comment(c->ctx, s + 1);
            }
            if (*s == '#')
                break;
            if (!blank(*s))
                return line;
        }
    }
    return NULL;
}

/* The text is UTF-8 without a NUL, or err has the place where it is not. */
static ap_status check_text(const char *path, const char *text, size_t size, struct ap_error *err)
{
    const char *nul = memchr(text, '\0', size);
    size_t valid = ap_utf8_validate(text, nul != NULL ? (size_t)(nul - text) : size);
    long line = 1, column = 1;
    if (valid == size)
        return AP_OK;
    for (size_t i = 0; i < valid; i++) {
        line += text[i] == '\n';
        column = text[i] == '\n' ? 1 : column + 1;
    }
    ap_error_set(err, AP_ERR_INPUT, "not a text in UTF-8");
    ap_error_at(err, path, line, column);
    ap_error_hint(err, "save the file as UTF-8");
    return AP_ERR_INPUT;
}

static void hint_head(const struct ap_csv *c, struct ap_error *err)
{
    if (c->head != NULL)
        ap_error_hint(err, "begin with %s", c->head);
}

ap_status ap_csv_open(struct ap_csv *c, const char *path, const char *text, size_t size, struct ap_error *err)
{
    c->path = path;
    c->line = 0;
    c->columns = 0;
    c->text = malloc(size + 1);
    if (c->text == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for a table of %zu bytes", size);
    if (size > 0)
        memcpy(c->text, text, size);
    c->text[size] = '\0';
    c->at = c->text;
    c->end = c->text + size;
    AP_TRY(check_text(path, c->text, size, err));
    char *line = next_line(c);
    if (line == NULL) {
        ap_error_set(err, AP_ERR_INPUT, "no header line that names the columns");
        ap_error_at(err, path, c->line, 0);
        hint_head(c, err);
        return AP_ERR_INPUT;
    }
    AP_TRY(split(c, line, &c->columns, err));
    for (int i = 0; i < c->columns; i++) {
        c->names[i] = c->fields[i];
        for (int k = 0; k < i; k++)
            if (strcmp(c->names[k], c->names[i]) == 0) {
                ap_error_set(err, AP_ERR_INPUT, "column '%.60s' stands twice", c->names[i]);
                ap_error_hint(err, "name each column once");
                return ap_csv_blame(c, i, err);
            }
    }
    return AP_OK;
}

ap_status ap_csv_columns(const struct ap_csv *c, const char *const *names, int count, int needed, int more_too,
                         int *column, struct ap_error *err)
{
    for (int i = 0; i < c->columns && !more_too; i++) {
        int k = 0;
        while (k < count && strcmp(c->names[i], names[k]) != 0)
            k++;
        if (k < count)
            continue;
        const char *near = ap_suggest_nearest(c->names[i], names, (size_t)count);
        ap_error_set(err, AP_ERR_INPUT, "there is no column '%.60s'", c->names[i]);
        if (near != NULL)
            ap_error_hint(err, "did you mean '%s'?", near);
        else
            hint_head(c, err);
        return ap_csv_blame(c, i, err);
    }
    for (int k = 0; k < count; k++) {
        column[k] = ap_csv_column(c, names[k]);
        if (column[k] >= 0 || k >= needed)
            continue;
        ap_error_set(err, AP_ERR_INPUT, "the header has no column '%s'", names[k]);
        hint_head(c, err);
        return ap_csv_blame(c, -1, err);
    }
    return AP_OK;
}

ap_status ap_csv_next(struct ap_csv *c, int *more_p, struct ap_error *err)
{
    char *line = next_line(c);
    int n;
    *more_p = line != NULL;
    if (line == NULL)
        return AP_OK;
    AP_TRY(split(c, line, &n, err));
    if (n > c->columns) {
        ap_error_set(err, AP_ERR_INPUT, "%d fields, but the header names %d columns", n, c->columns);
        return ap_csv_blame(c, c->columns, err);
    }
    if (n < c->columns && c->whole) {
        ap_error_set(err, AP_ERR_INPUT, "%d fields, but the header names %d columns", n, c->columns);
        ap_error_hint(err, "a blank field still has its comma");
        return ap_csv_blame(c, n - 1, err);
    }
    for (; n < c->columns; n++) {
        c->fields[n] = c->end; /* its closing NUL */
        c->column[n] = 1;
    }
    return AP_OK;
}

void ap_csv_close(struct ap_csv *c)
{
    free(c->text);
    c->text = NULL;
}

int ap_csv_column(const struct ap_csv *c, const char *name)
{
    for (int i = 0; i < c->columns; i++)
        if (strcmp(c->names[i], name) == 0)
            return i;
    return -1;
}

const char *ap_csv_field(const struct ap_csv *c, int column)
{
    return column >= 0 ? c->fields[column] : "";
}

static const char *column_name(const struct ap_csv *c, int column)
{
    return column >= 0 ? c->names[column] : "a column that is missing";
}

ap_status ap_csv_name(const struct ap_csv *c, int column, size_t max, const char **name_p, struct ap_error *err)
{
    const char *text = ap_csv_field(c, column);
    int good = *text != '\0' && strlen(text) <= max && strcmp(text, "*") != 0;
    for (const char *s = text; *s != '\0' && good; s++)
        good = (unsigned char)*s >= 0x20 && *s != 0x7f && *s != ',' && *s != '"';
    if (!good) {
        ap_error_set(err, AP_ERR_INPUT,
                     "%s must be a name of 1 to %zu bytes without comma, quote and control characters, not '%.80s'",
                     column_name(c, column), max, text);
        return ap_csv_blame(c, column, err);
    }
    *name_p = text;
    return AP_OK;
}

ap_status ap_csv_number(const struct ap_csv *c, int column, const double range[2], double scale, double *value_p,
                        struct ap_error *err)
{
    const char *text = ap_csv_field(c, column);
    char *end;
    double v = strtod(text, &end);
    /* strtod also takes hexadecimal numbers, infinity and nan */
    if (*text == '\0' || *end != '\0' || text[strspn(text, "0123456789+-.eE")] != '\0' || !isfinite(v) ||
        v < range[0] || v > range[1]) {
        ap_error_set(err, AP_ERR_INPUT, "%s must be a number from %g to %g, not '%.40s'", column_name(c, column),
                     range[0], range[1], text);
        return ap_csv_blame(c, column, err);
    }
    *value_p = v * scale;
    return AP_OK;
}
