/* SPDX-License-Identifier: Apache-2.0
 * tbl(1): the layout of a table is dropped, its cells stay, two spaces apart, one row per line. A cell in
 * T{ ... T} is ordinary text with macros. */
#include "config.h"

#include <string.h>

#include "prep/roff_state.h"

/* Values of roff.table. */
enum { NONE, OPTIONS, FORMAT, DATA };

void roff_table_begin(struct roff *r)
{
    roff_break(r, 2);
    r->tag = 0;
    r->table = OPTIONS;
    r->table_tab = '\t';
    r->table_cell = 0;
}

static char last_char(struct roff_span s)
{
    while (s.size && (s.text[s.size - 1] == ' ' || s.text[s.size - 1] == '\t'))
        s.size--;
    return s.size ? s.text[s.size - 1] : '\0';
}

/* The separator of tab(x) or tab (x), if the options name one. */
static void options(struct roff *r, struct roff_span s)
{
    for (size_t i = 0; i + 4 < s.size; i++) {
        if (memcmp(s.text + i, "tab", 3) != 0)
            continue;
        size_t at = i + 3;
        while (at < s.size && s.text[at] == ' ')
            at++;
        if (at + 1 < s.size && s.text[at] == '(' && (uint8_t)s.text[at + 1] < 0x80)
            r->table_tab = s.text[at + 1];
    }
}

static void row(struct roff *r, struct roff_span s, int first)
{
    for (int cell = first; cell == first || s.text; cell++) {
        const char *tab = s.size ? memchr(s.text, r->table_tab, s.size) : NULL;
        struct roff_span text = {s.text, tab ? (size_t)(tab - s.text) : s.size};
        s = tab ? (struct roff_span){tab + 1, s.size - text.size - 1} : (struct roff_span){NULL, 0};
        if (cell > 0 && !r->pending) {
            ap_buf_text(r->out, "  ");
            r->glue = 1;
        }
        if (text.size >= 2 && memcmp(text.text, "T{", 2) == 0) {
            r->table_cell = 1;
            return;
        }
        if (text.size == 0 || roff_is(text, "_") || roff_is(text, "\\_") || roff_is(text, "=") || roff_is(text, "\\^"))
            continue;
        int nofill = r->nofill;
        r->nofill = 0;
        roff_emit(r, text);
        r->nofill = nofill;
    }
    roff_break(r, 1);
}

/* The end of a T{ cell, and the cells that follow on its line. */
static void end_cell(struct roff *r, struct roff_span s)
{
    r->table_cell = 0;
    r->pending = 0;
    if (s.size > 2 && s.text[2] == r->table_tab)
        row(r, (struct roff_span){s.text + 3, s.size - 3}, 1);
    else
        roff_break(r, 1);
}

int roff_table_line(struct roff *r, struct roff_span line)
{
    if (line.size >= 3 && memcmp(line.text, ".TE", 3) == 0) {
        r->table = NONE;
        roff_break(r, 2);
        return 1;
    }
    if (r->table == OPTIONS) {
        r->table = FORMAT;
        if (last_char(line) == ';') {
            options(r, line);
            return 1;
        }
    }
    if (r->table == FORMAT) {
        if (last_char(line) == '.')
            r->table = DATA;
        return 1;
    }
    if (line.size >= 2 && memcmp(line.text, "T}", 2) == 0 && r->table_cell) {
        end_cell(r, line);
        return 1;
    }
    if (line.size >= 3 && memcmp(line.text, ".T&", 3) == 0) {
        r->table = FORMAT;
        return 1;
    }
    if (r->table_cell)
        return 0;
    if (line.size && (line.text[0] == '.' || line.text[0] == '\''))
        return line.size < 3 || memcmp(line.text + 1, "if", 2) != 0; /* layout between rows */
    if (line.size && !roff_is(line, "_") && !roff_is(line, "=")) {
        roff_break(r, 1);
        row(r, line, 0);
    }
    return 1;
}
