/* SPDX-License-Identifier: Apache-2.0
 * Internals of the roff reducer, shared by roff.c (lines, requests), roff_man.c (man macros), roff_mdoc.c
 * (mdoc macros), roff_table.c (tbl), roff_escape.c (escapes, output) and roff_chars.c (character names). */
#ifndef AP_PREP_ROFF_STATE_H
#define AP_PREP_ROFF_STATE_H

#include <stddef.h>
#include <stdint.h>
#include "prep/buf.h"

enum {
    ROFF_MAX_ARGS = 64,
    ROFF_MAX_DEPTH = 16, /* nested macros and strings */
    ROFF_MAX_DEFINITIONS = 256,
    ROFF_MAX_ELSE = 32,
    ROFF_MAX_LISTS = 16
};

/* A piece of the source or of a scratch buffer; borrowed. */
struct roff_span {
    const char *text;
    size_t size;
};

struct roff_args {
    struct roff_span arg[ROFF_MAX_ARGS];
    int count;
    struct roff_span rest; /* everything behind the name, as written */
};

/* A string (.ds) or a macro (.de) of the page. */
struct roff_definition {
    char name[32];
    int macro;
    char *text; /* owned */
    size_t size;
};

/* Lines still to come: the page or the body of a macro. */
struct roff_cursor {
    const char *at, *end;
    const struct roff_args *args; /* of the macro, NULL for the page */
};

struct roff {
    struct ap_buf *out;
    size_t start;       /* out->size when the page began */
    int pending;        /* newlines due before the next text: 0..2 */
    int glue;           /* the next text joins without a space */
    int nofill;         /* lines stay lines */
    int tag;            /* 1: the next text is the tag of a paragraph */
    size_t tag_start;   /* where it began in out */
    int tight;          /* .PD 0: no blank line between tagged paragraphs */
    int heading;        /* 1: the next line is a heading */
    size_t heading_end; /* out->size behind the last heading: no blank line follows it */
    int equation, is_mdoc, is_link;
    int table, table_cell; /* see roff_table.c */
    char table_tab;
    int else_stack[ROFF_MAX_ELSE], else_count;
    char name[64];                        /* mdoc .Nm */
    int list[ROFF_MAX_LISTS], list_count; /* mdoc .Bl kinds */
    char url[512];                        /* of .UR */
    size_t url_size;
    struct roff_definition definition[ROFF_MAX_DEFINITIONS];
    int definition_count;
    int depth;
    int64_t budget; /* bytes that may still be processed, expansions included */
};

/* roff.c */
/* Take n bytes (and one) from the budget; 0 when it is used up. */
int roff_spend(struct roff *r, size_t n);
int roff_is(struct roff_span s, const char *text);
void roff_parse_args(struct roff_span rest, struct roff_args *args);
const struct roff_definition *roff_find(const struct roff *r, struct roff_span name, int macro);
void roff_line(struct roff *r, struct roff_cursor *c, struct roff_span line);

/* roff_man.c: 1 if it was a macro or request of this set. */
int roff_man_macro(struct roff *r, struct roff_span name, const struct roff_args *args);
/* Text that is to be a heading, or the tag of a paragraph. */
void roff_heading(struct roff *r, struct roff_span raw);
void roff_tag_begin(struct roff *r);
void roff_tag_end(struct roff *r);

/* roff_mdoc.c */
int roff_mdoc_macro(struct roff *r, struct roff_span name, const struct roff_args *args);

/* roff_table.c: 1 if the line belonged to the table. */
void roff_table_begin(struct roff *r);
int roff_table_line(struct roff *r, struct roff_span line);

/* roff_escape.c */
/* Expand escapes of raw into to. Returns 1 if the text asked to be joined with the next (\c). */
int roff_expand(struct roff *r, struct roff_span raw, struct ap_buf *to);
/* Expand raw and put it out as one line of input. */
void roff_emit(struct roff *r, struct roff_span raw);
/* Put out text without escapes. */
void roff_text(struct roff *r, struct roff_span text);
/* At least n newlines before the next text: 1 a new line, 2 a new paragraph. */
void roff_break(struct roff *r, int n);
/* Length of an escape's argument in the forms a, (ab, [abc]; *name_p is the inside. */
size_t roff_escape_name(struct roff_span s, struct roff_span *name_p);

/* roff_chars.c: UTF-8 of a named character, NULL if unknown. */
const char *roff_char(struct roff_span name, char scratch[8]);

#endif
