/* SPDX-License-Identifier: Apache-2.0
 * The man macros (groff_man(7)) and the plain requests that change the text, not only its looks. */
#include "config.h"

#include <string.h>

#include "base/utf8.h"
#include "prep/roff_state.h"

/* Layout that leaves the text as it is. */
static const char *const ignored[] = {
    "ad",    "af",   "am",    "AT",   "bd",     "bp",       "brp",  "c2",    "cc",   "ce", "cf",    "ch",  "color",
    "cs",    "cu",   "DT",    "ec",   "eo",     "ev",       "evc",  "fam",   "fp",   "ft", "fzoom", "hc",  "hcode",
    "hla",   "hlm",  "hpf",   "hw",   "hy",     "hym",      "hys",  "in",    "it",   "IX", "kern",  "lc",  "lf",
    "lg",    "ll",   "ls",    "lt",   "mk",     "mso",      "na",   "ne",    "nh",   "nm", "nn",    "nop", "nr",
    "ns",    "nx",   "os",    "pc",   "PD",     "pi",       "pl",   "pn",    "po",   "ps", "ptr",   "rd",  "rm",
    "rn",    "rr",   "rs",    "rt",   "sizes",  "special",  "ss",   "sv",    "sy",   "ta", "tc",    "ti",  "tkf",
    "tl",    "tm",   "tr",    "trin", "uf",     "ul",       "UC",   "vs",    "warn", "wh", "do",    "als", "aln",
    "rchar", "char", "fchar", "hl",   "INDENT", "UNINDENT", "HTML", "PSPIC", "TE",   "T&",
};

static int in_list(struct roff_span name, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (roff_is(name, list[i]))
            return 1;
    return 0;
}

/* Put out arguments first.. with the given separator. */
static void emit_args(struct roff *r, const struct roff_args *args, int first, const char *separator)
{
    struct ap_buf raw = {0};
    for (int i = first; i < args->count; i++) {
        if (i > first)
            ap_buf_text(&raw, separator);
        ap_buf_append(&raw, args->arg[i].text, args->arg[i].size);
    }
    r->out->failed |= raw.failed;
    if (raw.size)
        roff_emit(r, (struct roff_span){raw.data, raw.size});
    ap_buf_free(&raw);
}

void roff_heading(struct roff *r, struct roff_span raw)
{
    r->tag = r->heading = r->nofill = 0;
    roff_break(r, 2);
    roff_emit(r, raw);
    roff_break(r, 1);
    r->heading_end = r->out->size;
}

void roff_tag_begin(struct roff *r)
{
    roff_break(r, r->tight ? 1 : 2);
    r->tag = 1;
    r->tag_start = r->out->size;
}

/* A bullet or a number stays on the line of its text, anything longer stands on its own. */
static int is_bullet(const char *tag, size_t size)
{
    if (size == 0 || size > 6)
        return size == 0;
    char last = tag[size - 1];
    return (size_t)ap_utf8_decode(tag, size, NULL) == size || (tag[0] != '-' && (last == '.' || last == ')'));
}

void roff_tag_end(struct roff *r)
{
    size_t from = r->tag_start;
    while (from < r->out->size && r->out->data[from] == '\n')
        from++;
    r->tag = 0;
    if (is_bullet(r->out->data + from, r->out->size - from))
        r->pending = 0;
    else
        roff_break(r, 1);
}

static void heading_macro(struct roff *r, const struct roff_args *args)
{
    struct ap_buf raw = {0};
    if (args->count == 0) {
        r->heading = 1;
        return;
    }
    for (int i = 0; i < args->count; i++) {
        if (i)
            ap_buf_char(&raw, ' ');
        ap_buf_append(&raw, args->arg[i].text, args->arg[i].size);
    }
    r->out->failed |= raw.failed;
    roff_heading(r, (struct roff_span){raw.data, raw.size});
    ap_buf_free(&raw);
}

/* NAME(section), from .TH name section ... */
static void title(struct roff *r, const struct roff_args *args)
{
    struct ap_buf raw = {0};
    if (args->count == 0)
        return;
    ap_buf_append(&raw, args->arg[0].text, args->arg[0].size);
    if (args->count > 1 && args->arg[1].size) {
        ap_buf_char(&raw, '(');
        ap_buf_append(&raw, args->arg[1].text, args->arg[1].size);
        ap_buf_char(&raw, ')');
    }
    r->out->failed |= raw.failed;
    roff_emit(r, (struct roff_span){raw.data, raw.size});
    roff_break(r, 2);
    ap_buf_free(&raw);
}

static int paragraph_macro(struct roff *r, struct roff_span name, const struct roff_args *args)
{
    static const char *const paragraphs[] = {"PP", "P", "LP", "HP", "Sp", "YS", "sp"};
    if (in_list(name, paragraphs, sizeof(paragraphs) / sizeof(*paragraphs))) {
        r->tag = 0;
        roff_break(r, 2);
    } else if (roff_is(name, "TP")) {
        roff_tag_begin(r);
    } else if (roff_is(name, "TQ")) {
        roff_break(r, 1);
        r->tag = 1;
        r->tag_start = r->out->size;
    } else if (roff_is(name, "IP")) {
        r->tag = 0;
        if (args->count && args->arg[0].size) {
            roff_tag_begin(r);
            size_t before = r->out->size;
            roff_emit(r, args->arg[0]);
            if (r->out->size > before)
                roff_tag_end(r);
            r->tag = 0;
        } else {
            roff_break(r, r->tight ? 1 : 2);
        }
    } else if (roff_is(name, "SH") || roff_is(name, "SS")) {
        r->tight = 0;
        heading_macro(r, args);
    } else if (roff_is(name, "TH")) {
        title(r, args);
    } else if (roff_is(name, "PD")) {
        r->tight = args->count && roff_is(args->arg[0], "0");
    } else if (roff_is(name, "RS") || roff_is(name, "RE") || roff_is(name, "br") || roff_is(name, "ti")) {
        r->tag = 0;
        roff_break(r, 1);
    } else {
        return 0;
    }
    return 1;
}

static int font_macro(struct roff *r, struct roff_span name, const struct roff_args *args)
{
    static const char *const fonts[] = {"B", "I", "R", "SM", "SB", "C", "CW", "nop"};
    static const char *const mixed[] = {"BR", "RB", "BI", "IB", "IR", "RI"};
    if (in_list(name, fonts, sizeof(fonts) / sizeof(*fonts)))
        emit_args(r, args, 0, " ");
    else if (in_list(name, mixed, sizeof(mixed) / sizeof(*mixed)))
        emit_args(r, args, 0, "");
    else
        return 0;
    return 1;
}

static int example_macro(struct roff *r, struct roff_span name)
{
    static const char *const begin[] = {"nf", "EX", "Vb", "CS"}, *const end[] = {"fi", "EE", "Ve", "CE"};
    if (in_list(name, begin, 4)) {
        roff_break(r, 1);
        r->nofill = 1;
    } else if (in_list(name, end, 4)) {
        roff_break(r, 1);
        r->nofill = 0;
    } else {
        return 0;
    }
    return 1;
}

static void end_link(struct roff *r, const struct roff_args *args)
{
    struct ap_buf raw = {0};
    if (r->url_size) {
        ap_buf_char(&raw, '<');
        ap_buf_append(&raw, r->url, r->url_size);
        ap_buf_char(&raw, '>');
    }
    if (args->count)
        ap_buf_append(&raw, args->arg[0].text, args->arg[0].size);
    r->out->failed |= raw.failed;
    if (!r->url_size)
        r->glue = 1; /* only the punctuation that follows */
    if (raw.size)
        roff_emit(r, (struct roff_span){raw.data, raw.size});
    ap_buf_free(&raw);
}

/* .UR/.UE keep the address; .MT/.ME drop it, as roff_text does. */
static int link_macro(struct roff *r, struct roff_span name, const struct roff_args *args)
{
    if (roff_is(name, "UR") || roff_is(name, "MT")) {
        size_t n = name.text[0] == 'U' && args->count ? args->arg[0].size : 0;
        r->url_size = n < sizeof(r->url) ? n : 0;
        memcpy(r->url, n ? args->arg[0].text : "", r->url_size);
    } else if (roff_is(name, "UE") || roff_is(name, "ME")) {
        end_link(r, args);
        r->url_size = 0;
    } else if (roff_is(name, "MR")) {
        struct ap_buf raw = {0};
        for (int i = 0; i < args->count && i < 3; i++) {
            ap_buf_text(&raw, i == 1 ? "(" : "");
            ap_buf_append(&raw, args->arg[i].text, args->arg[i].size);
            ap_buf_text(&raw, i == 1 ? ")" : "");
        }
        r->out->failed |= raw.failed;
        roff_emit(r, (struct roff_span){raw.data, raw.size});
        ap_buf_free(&raw);
    } else {
        return 0;
    }
    return 1;
}

static int synopsis_macro(struct roff *r, struct roff_span name, const struct roff_args *args)
{
    struct ap_buf raw = {0};
    if (roff_is(name, "SY")) {
        roff_break(r, 1);
        emit_args(r, args, 0, " ");
        return 1;
    }
    if (!roff_is(name, "OP"))
        return 0;
    ap_buf_char(&raw, '[');
    for (int i = 0; i < args->count; i++) {
        ap_buf_text(&raw, i ? " " : "");
        ap_buf_append(&raw, args->arg[i].text, args->arg[i].size);
    }
    ap_buf_char(&raw, ']');
    r->out->failed |= raw.failed;
    roff_emit(r, (struct roff_span){raw.data, raw.size});
    ap_buf_free(&raw);
    return 1;
}

int roff_man_macro(struct roff *r, struct roff_span name, const struct roff_args *args)
{
    if (roff_is(name, "Dd")) {
        r->is_mdoc = 1;
        return 1;
    }
    return paragraph_macro(r, name, args) || font_macro(r, name, args) || example_macro(r, name) ||
           link_macro(r, name, args) || synopsis_macro(r, name, args) ||
           in_list(name, ignored, sizeof(ignored) / sizeof(*ignored));
}
