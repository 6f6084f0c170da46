/* SPDX-License-Identifier: Apache-2.0
 * The mdoc macros (mdoc(7)). Most may stand inside the arguments of others; a line is formatted from left to
 * right into a scratch buffer, then put out as text. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "prep/roff_state.h"

/* A line while it is formatted. */
struct mdoc_line {
    struct roff *r;
    struct ap_buf raw;
    int glue; /* no space before the next word */
};

enum list_kind { LIST_PLAIN, LIST_BULLET, LIST_TAG };

enum inline_kind {
    WORDS,
    FLAG,
    ENCLOSE,
    OPEN,
    CLOSE,
    NO_SPACE,
    APOSTROPHE,
    PREFIX,
    REFERENCE,
    FUNCTION,
    FUNCTION_OPEN,
    NAME,
    PRODUCT,
    LINK,
    DROP_ONE,
    COLUMN,
    STANDARD
};

static const struct inline_macro {
    char name[4];
    enum inline_kind kind;
    const char *a, *b;
} inline_macros[] = {
    {"Ad", WORDS, "", ""},
    {"An", WORDS, "", ""},
    {"Ar", WORDS, "file ...", ""},
    {"Cd", WORDS, "", ""},
    {"Cm", WORDS, "", ""},
    {"Dv", WORDS, "", ""},
    {"Em", WORDS, "", ""},
    {"Er", WORDS, "", ""},
    {"Ev", WORDS, "", ""},
    {"Fa", WORDS, "", ""},
    {"Fd", WORDS, "", ""},
    {"Ft", WORDS, "", ""},
    {"Ic", WORDS, "", ""},
    {"In", ENCLOSE, "#include <", ">"},
    {"Li", WORDS, "", ""},
    {"Ms", WORDS, "", ""},
    {"No", WORDS, "", ""},
    {"Pa", WORDS, "~", ""},
    {"Sx", WORDS, "", ""},
    {"Sy", WORDS, "", ""},
    {"Tn", WORDS, "", ""},
    {"Va", WORDS, "", ""},
    {"Vt", WORDS, "", ""},
    {"Fl", FLAG, "", ""},
    {"Op", ENCLOSE, "[", "]"},
    {"Dq", ENCLOSE, "“", "”"},
    {"Sq", ENCLOSE, "‘", "’"},
    {"Ql", ENCLOSE, "‘", "’"},
    {"Pq", ENCLOSE, "(", ")"},
    {"Bq", ENCLOSE, "[", "]"},
    {"Aq", ENCLOSE, "<", ">"},
    {"Qq", ENCLOSE, "\"", "\""},
    {"Brq", ENCLOSE, "{", "}"},
    {"Oo", OPEN, "[", ""},
    {"Oc", CLOSE, "]", ""},
    {"Po", OPEN, "(", ""},
    {"Pc", CLOSE, ")", ""},
    {"Bo", OPEN, "[", ""},
    {"Bc", CLOSE, "]", ""},
    {"Bro", OPEN, "{", ""},
    {"Brc", CLOSE, "}", ""},
    {"Do", OPEN, "“", ""},
    {"Dc", CLOSE, "”", ""},
    {"So", OPEN, "‘", ""},
    {"Sc", CLOSE, "’", ""},
    {"Qo", OPEN, "\"", ""},
    {"Qc", CLOSE, "\"", ""},
    {"Ao", OPEN, "<", ""},
    {"Ac", CLOSE, ">", ""},
    {"Xo", WORDS, "", ""},
    {"Xc", CLOSE, "", ""},
    {"Fc", CLOSE, ")", ""},
    {"Ns", NO_SPACE, "", ""},
    {"Ap", APOSTROPHE, "", ""},
    {"Pf", PREFIX, "", ""},
    {"Xr", REFERENCE, "", ""},
    {"Fn", FUNCTION, "", ""},
    {"Fo", FUNCTION_OPEN, "", ""},
    {"Nm", NAME, "", ""},
    {"Ux", PRODUCT, "UNIX", ""},
    {"Bx", PRODUCT, "BSD", ""},
    {"Fx", PRODUCT, "FreeBSD", ""},
    {"Nx", PRODUCT, "NetBSD", ""},
    {"Ox", PRODUCT, "OpenBSD", ""},
    {"Dx", PRODUCT, "DragonFly", ""},
    {"At", PRODUCT, "AT&T UNIX", ""},
    {"Bsx", PRODUCT, "BSD/OS", ""},
    {"Lk", LINK, "", ""},
    {"Mt", DROP_ONE, "", ""},
    {"Ta", COLUMN, "", ""},
    {"St", STANDARD, "", ""},
    {"Lb", WORDS, "", ""},
};

static const struct inline_macro *find_inline(struct roff_span s)
{
    for (size_t i = 0; i < sizeof(inline_macros) / sizeof(*inline_macros); i++)
        if (roff_is(s, inline_macros[i].name))
            return &inline_macros[i];
    return NULL;
}

static int closes(struct roff_span s)
{
    return s.size == 1 && strchr(".,:;)]?!", s.text[0]) != NULL;
}

static int opens(struct roff_span s)
{
    return s.size == 1 && (s.text[0] == '(' || s.text[0] == '[');
}

static void word(struct mdoc_line *l, struct roff_span s)
{
    if (!l->glue && l->raw.size && !closes(s))
        ap_buf_char(&l->raw, ' ');
    ap_buf_append(&l->raw, s.text, s.size);
    l->glue = opens(s);
}

static void word_text(struct mdoc_line *l, const char *text)
{
    word(l, (struct roff_span){text, strlen(text)});
}

static void append(struct mdoc_line *l, const char *text)
{
    ap_buf_text(&l->raw, text);
}

static void format(struct mdoc_line *l, const struct roff_args *args, int i, int end);

/* -x for each word up to the next macro; a lone flag is a dash. */
static int flags(struct mdoc_line *l, const struct roff_args *args, int i, int end)
{
    int first = i;
    for (; i < end && !find_inline(args->arg[i]) && !closes(args->arg[i]); i++) {
        word_text(l, "-");
        ap_buf_append(&l->raw, args->arg[i].text, args->arg[i].size);
    }
    if (i == first) {
        word_text(l, "-");
        l->glue = i < end && find_inline(args->arg[i]) && !roff_is(args->arg[i], "Ar");
    }
    return i;
}

/* open ... close around the rest of the line; punctuation at its end stays outside. */
static int enclose(struct mdoc_line *l, const struct inline_macro *m, const struct roff_args *args, int i, int end)
{
    int inner = end;
    while (inner > i && closes(args->arg[inner - 1]))
        inner--;
    word_text(l, m->a);
    l->glue = 1;
    format(l, args, i, inner);
    append(l, m->b);
    l->glue = 0;
    return inner;
}

/* name(section) or name(argument, ...). */
static int called(struct mdoc_line *l, const struct roff_args *args, int i, int end, int function)
{
    if (i >= end)
        return i;
    word(l, args->arg[i++]);
    if (!function && (i >= end || closes(args->arg[i])))
        return i;
    append(l, "(");
    for (int first = i; i < end && !closes(args->arg[i]) && (function || i == first); i++) {
        append(l, i > first ? ", " : "");
        ap_buf_append(&l->raw, args->arg[i].text, args->arg[i].size);
    }
    append(l, ")");
    return i;
}

static int name_macro(struct mdoc_line *l, const struct roff_args *args, int i, int end)
{
    struct roff *r = l->r;
    if (i >= end || closes(args->arg[i]) || find_inline(args->arg[i])) {
        if (r->name[0])
            word_text(l, r->name);
        return i;
    }
    if (!r->name[0] && args->arg[i].size < sizeof(r->name)) {
        memcpy(r->name, args->arg[i].text, args->arg[i].size);
        r->name[args->arg[i].size] = '\0';
    }
    word(l, args->arg[i]);
    return i + 1;
}

static int next_is_word(const struct roff_args *args, int i, int end)
{
    return i < end && !closes(args->arg[i]) && !find_inline(args->arg[i]);
}

/* One macro at args[i - 1]; returns where to go on. */
static int inline_macro(struct mdoc_line *l, const struct inline_macro *m, const struct roff_args *args, int i, int end)
{
    switch (m->kind) {
    case WORDS:
        if (m->a[0] && !next_is_word(args, i, end))
            word_text(l, m->a);
        return i;
    case FLAG:
        return flags(l, args, i, end);
    case ENCLOSE:
        return enclose(l, m, args, i, end);
    case OPEN:
        word_text(l, m->a);
        l->glue = 1;
        return i;
    case CLOSE:
        append(l, m->a);
        l->glue = 0;
        return i;
    case NO_SPACE:
        l->glue = 1;
        return i;
    case APOSTROPHE:
        append(l, "'");
        l->glue = 1;
        return i;
    case PREFIX:
        if (i < end)
            word(l, args->arg[i++]);
        l->glue = 1;
        return i;
    case REFERENCE:
        return called(l, args, i, end, 0);
    case FUNCTION:
        return called(l, args, i, end, 1);
    case FUNCTION_OPEN:
        if (i < end)
            word(l, args->arg[i++]);
        append(l, "(");
        l->glue = 1;
        return i;
    case NAME:
        return name_macro(l, args, i, end);
    case PRODUCT:
        word_text(l, m->a);
        return i;
    case LINK:
        if (i + 1 < end && next_is_word(args, i + 1, end)) {
            for (int k = i + 1; k < end; k++)
                word(l, args->arg[k]);
            end = i + 1;
        }
        if (i < end) {
            word_text(l, "<");
            ap_buf_append(&l->raw, args->arg[i].text, args->arg[i].size);
            append(l, ">");
        }
        return ROFF_MAX_ARGS;
    case DROP_ONE:
        return i + 1;
    case COLUMN:
        append(l, "  ");
        l->glue = 1;
        return i;
    case STANDARD:
        word_text(l, "POSIX");
        return i + 1;
    }
    return i;
}

static void format(struct mdoc_line *l, const struct roff_args *args, int i, int end)
{
    while (i < end && i < args->count) {
        const struct inline_macro *m = find_inline(args->arg[i]);
        if (m)
            i = inline_macro(l, m, args, i + 1, end);
        else
            word(l, args->arg[i++]);
    }
}

static void emit_formatted(struct roff *r, const struct roff_args *args, int first, const struct inline_macro *m)
{
    struct mdoc_line l = {.r = r};
    int i = first;
    if (m)
        i = inline_macro(&l, m, args, first, args->count);
    format(&l, args, i, args->count);
    r->out->failed |= l.raw.failed;
    if (l.raw.size) {
        /* A line of punctuation or a closing bracket belongs to the word before. */
        if (!r->pending &&
            (closes((struct roff_span){l.raw.data, 1}) || (m && (m->kind == CLOSE || m->kind == NO_SPACE))))
            r->glue = 1;
        roff_emit(r, (struct roff_span){l.raw.data, l.raw.size});
        r->glue |= l.glue;
    }
    ap_buf_free(&l.raw);
}

static void begin_list(struct roff *r, const struct roff_args *args)
{
    int kind = LIST_PLAIN;
    for (int i = 0; i < args->count; i++) {
        struct roff_span a = args->arg[i];
        if (roff_is(a, "-bullet") || roff_is(a, "-dash") || roff_is(a, "-hyphen") || roff_is(a, "-enum"))
            kind = LIST_BULLET;
        if (roff_is(a, "-tag") || roff_is(a, "-hang") || roff_is(a, "-ohang") || roff_is(a, "-diag") ||
            roff_is(a, "-inset"))
            kind = LIST_TAG;
    }
    if (r->list_count < ROFF_MAX_LISTS)
        r->list[r->list_count++] = kind;
    roff_break(r, 1);
}

static void list_item(struct roff *r, const struct roff_args *args)
{
    int kind = r->list_count ? r->list[r->list_count - 1] : LIST_PLAIN;
    roff_break(r, kind == LIST_TAG ? 2 : 1);
    if (kind == LIST_BULLET)
        roff_text(r, (struct roff_span){"•", strlen("•")});
    emit_formatted(r, args, 0, NULL);
    if (kind == LIST_TAG)
        roff_break(r, 1);
}

static int block_macro(struct roff *r, struct roff_span name, const struct roff_args *args)
{
    if (roff_is(name, "Bl")) {
        begin_list(r, args);
    } else if (roff_is(name, "El")) {
        r->list_count -= r->list_count > 0;
        roff_break(r, 2);
    } else if (roff_is(name, "It")) {
        list_item(r, args);
    } else if (roff_is(name, "Bd")) {
        roff_break(r, 1);
        for (int i = 0; i < args->count; i++)
            if (roff_is(args->arg[i], "-literal") || roff_is(args->arg[i], "-unfilled"))
                r->nofill = 1;
    } else if (roff_is(name, "Ed")) {
        roff_break(r, 1);
        r->nofill = 0;
    } else if (roff_is(name, "D1") || roff_is(name, "Dl")) {
        roff_break(r, 1);
        emit_formatted(r, args, 0, NULL);
        roff_break(r, 1);
    } else if (roff_is(name, "Rs") || roff_is(name, "Re") || roff_is(name, "Pp") || roff_is(name, "Lp")) {
        roff_break(r, 2);
    } else {
        return 0;
    }
    return 1;
}

static int page_part(struct roff *r, struct roff_span name, const struct roff_args *args)
{
    struct ap_buf raw = {0};
    if (roff_is(name, "Sh") || roff_is(name, "Ss")) {
        roff_heading(r, args->rest);
    } else if (roff_is(name, "Dt")) {
        if (args->count > 1) {
            ap_buf_append(&raw, args->arg[0].text, args->arg[0].size);
            ap_buf_char(&raw, '(');
            ap_buf_append(&raw, args->arg[1].text, args->arg[1].size);
            ap_buf_char(&raw, ')');
            roff_emit(r, (struct roff_span){raw.data, raw.size});
            roff_break(r, 2);
        }
        r->out->failed |= raw.failed;
        ap_buf_free(&raw);
    } else if (roff_is(name, "Nd")) {
        roff_text(r, (struct roff_span){"-", 1});
        emit_formatted(r, args, 0, NULL);
    } else if (name.size == 2 && name.text[0] == '%') {
        emit_formatted(r, args, 0, NULL); /* a reference: author, title, date */
        r->glue = 1;
        roff_text(r, (struct roff_span){".", 1});
    } else {
        return 0;
    }
    return 1;
}

int roff_mdoc_macro(struct roff *r, struct roff_span name, const struct roff_args *args)
{
    static const char *const dropped[] = {"Dd", "Os", "Bk", "Ek", "Sm", "Bt", "Ud", "Ex",
                                          "Rv", "Bf", "Ef", "Es", "En", "Hf", "Db"};
    const struct inline_macro *m = find_inline(name);
    if (m) {
        emit_formatted(r, args, 0, m);
        return 1;
    }
    if (block_macro(r, name, args) || page_part(r, name, args))
        return 1;
    for (size_t i = 0; i < sizeof(dropped) / sizeof(*dropped); i++)
        if (roff_is(name, dropped[i]))
            return 1;
    return 0;
}
