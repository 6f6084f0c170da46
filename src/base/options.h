/* SPDX-License-Identifier: Apache-2.0
 * One table says everything about every option: key, type, where its value goes, default, bounds, choices,
 * unit and documentation. Parsing (YAML, --set, command-line flags), help, man page, JSON Schema, completion
 * and "did you mean" all come from it.
 *
 * Keys are "name" or "section.name". A value has the C type of its kind at `offset` in a struct of the
 * caller: INT int64_t, UINT uint64_t, REAL double, BOOL and CHOICE int, TEXT and PATH char * (malloc'ed, NULL:
 * unset), REALS double[max_count] with the number as int at count_offset, SOURCES { char *path; double weight; }
 * [max_count], likewise. "auto", where the flag allows it, is stored as -1 (INT, BOOL) or NaN (REAL).
 * Order of calls: init, apply (the file), set (overrides), finish; then the values may be used. */
#ifndef AP_BASE_OPTIONS_H
#define AP_BASE_OPTIONS_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "base/strbuf.h"
#include "base/yaml.h"

enum ap_option_kind {
    AP_OPT_INT, /* 4096, 16Ki, 1M, 1e6 */
    AP_OPT_UINT,
    AP_OPT_REAL,
    AP_OPT_BOOL,
    AP_OPT_CHOICE, /* stored as its index in choices */
    AP_OPT_TEXT,   /* with choices: one of them */
    AP_OPT_PATH,
    AP_OPT_REALS,
    AP_OPT_SOURCES /* a path, a list of paths, or a list of {path, weight} */
};

enum ap_option_flag {
    AP_OPT_AUTO = 1, /* the word auto is allowed */
    AP_OPT_REQUIRED = 2,
    AP_OPT_ABOVE_MIN = 4, /* min itself is not allowed */
    AP_OPT_BELOW_MAX = 8  /* max itself is not allowed */
};

struct ap_option {
    const char *key;
    int kind; /* enum ap_option_kind */
    size_t offset;
    const char *fallback; /* default as text; NULL: unset (numbers 0, REAL NaN) */
    double min, max;      /* numbers and the entries of REALS; both 0: unbounded */
    const char *choices;  /* "a|b|c" */
    const char *unit;     /* "tokens", NULL: none */
    const char *doc;      /* one or two sentences */
    unsigned flags;
    const char *excludes;      /* key that must not be given together with this one */
    const char *also;          /* "a|b": other names that people try; only for hints */
    const char *default_words; /* default in words where it is computed ("runs/NAME") */
    size_t count_offset;
    int max_count;
};

struct ap_option_section {
    const char *name, *doc;
};
struct ap_option_table {
    const struct ap_option *list;
    size_t count;
    const struct ap_option_section *sections;
    size_t section_count;
};

enum ap_option_source { AP_OPT_FROM_DEFAULT = 0, AP_OPT_FROM_FILE, AP_OPT_FROM_SET };
struct ap_option_mark {
    int source;
    long line, column;
};

/* A filling in progress. Fields are borrowed but marks. */
struct ap_options {
    const struct ap_option_table *table;
    void *values;
    const char *file;             /* NULL: none */
    const char *prefix;           /* before a key from the command line in messages: "--set " (default) or "--" */
    struct ap_option_mark *marks; /* per option of the table */
};

/* Fill values (zeroed by the caller) with the defaults. */
ap_status ap_options_init(struct ap_options *o, const struct ap_option_table *table, void *values,
                          struct ap_error *err);
/* Take the values of a document. file must live until clear. */
ap_status ap_options_apply(struct ap_options *o, const char *file, const struct ap_yaml_node *root,
                           struct ap_error *err);
/* Take one value from the command line; wins over the file. */
ap_status ap_options_set(struct ap_options *o, const char *key, const char *value, struct ap_error *err);
/* Required and mutually exclusive options: of two that exclude each other, the one from the command line wins
 * over the file's; two from one source are an error. */
ap_status ap_options_finish(struct ap_options *o, struct ap_error *err);
/* Frees the book-keeping, not the values. */
void ap_options_clear(struct ap_options *o);
/* Frees the strings among the values. */
void ap_options_free_values(const struct ap_option_table *table, void *values);

/* Index of a key, -1 if there is none. */
int ap_options_find(const struct ap_option_table *table, const char *key);
/* Where the value of key came from: enum ap_option_source. */
int ap_options_source(const struct ap_options *o, const char *key);
/* Give err the place where key was given (file:line:column, or --set KEY). */
void ap_options_place(const struct ap_options *o, const char *key, struct ap_error *err);

/* Calls f for each choice of "a|b|c" with its index until f returns non-zero; returns that or 0. */
int ap_options_each_choice(const char *choices, int (*f)(void *ctx, int index, const char *word), void *ctx);

/* ---- documentation and output, from options_print.c ---- */
/* "an integer between 1 and 4096, or auto" into buf. */
void ap_option_domain(const struct ap_option *opt, char *buf, size_t size);
/* Plain text for a terminal. */
void ap_options_help(const struct ap_option_table *table, struct ap_strbuf *b);
/* roff for a man page: one .SS per section, one .TP per option. */
void ap_options_man(const struct ap_option_table *table, struct ap_strbuf *b);
/* text with the characters that roff would eat escaped. */
void ap_options_roff(struct ap_strbuf *b, const char *text);
/* JSON Schema (draft 2020-12); malloc'ed, NULL: out of memory. */
char *ap_options_schema(const struct ap_option_table *table, const char *title);
/* The values as YAML that apply reads back to the same; unset ones and those for which skip (NULL: none)
 * returns 1 are left out. Malloc'ed, NULL: out of memory. */
char *ap_options_dump(const struct ap_option_table *table, const void *values, int (*skip)(const char *key));

#endif
