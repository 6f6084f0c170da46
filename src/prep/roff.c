/* SPDX-License-Identifier: Apache-2.0
 * The roff reducer: lines, arguments, conditions and definitions. The page is read once, line by line; a
 * macro of the page is expanded by reading its body the same way. Everything read or expanded is taken from a
 * budget and nesting is bounded, so that a hostile page ends. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "prep/roff.h"
#include "prep/roff_state.h"

/* A page may cost so many bytes of work for each of its own, and so many at least. Real pages cost about three. */
enum { COST_PER_BYTE = 64, LEAST_BUDGET = 1 << 20, MAX_LINE = 1 << 20 };

int roff_spend(struct roff *r, size_t n)
{
    if (r->budget < 0)
        return 0;
    r->budget -= n < MAX_LINE ? (int64_t)n + 1 : MAX_LINE;
    return r->budget >= 0;
}

int roff_is(struct roff_span s, const char *text)
{
    return strlen(text) == s.size && memcmp(text, s.text, s.size) == 0;
}

static struct roff_span trim(struct roff_span s)
{
    while (s.size && (*s.text == ' ' || *s.text == '\t')) {
        s.text++;
        s.size--;
    }
    return s;
}

void roff_parse_args(struct roff_span rest, struct roff_args *args)
{
    args->count = 0;
    args->rest = rest = trim(rest);
    while (rest.size && args->count < ROFF_MAX_ARGS) {
        size_t n = 0;
        int quote = rest.text[0] == '"';
        const char *begin = rest.text + quote;
        size_t room = rest.size - (size_t)quote;
        while (n < room && (quote ? begin[n] != '"' : begin[n] != ' ' && begin[n] != '\t'))
            n += begin[n] == '\\' && n + 1 < room ? 2 : 1; /* an escaped space is no end */
        args->arg[args->count++] = (struct roff_span){begin, n};
        size_t used = n + (size_t)quote + (quote && n < room);
        rest = trim((struct roff_span){rest.text + used, rest.size - used});
    }
}

const struct roff_definition *roff_find(const struct roff *r, struct roff_span name, int macro)
{
    for (int i = r->definition_count - 1; i >= 0; i--)
        if (r->definition[i].macro == macro && roff_is(name, r->definition[i].name))
            return &r->definition[i];
    return NULL;
}

/* Takes over text (owned). A definition that does not fit the table is dropped. */
static void define(struct roff *r, struct roff_span name, int macro, struct ap_buf *text)
{
    struct roff_definition *d = (struct roff_definition *)roff_find(r, name, macro);
    if (name.size == 0 || name.size >= sizeof(d->name) || text->failed ||
        (!d && r->definition_count == ROFF_MAX_DEFINITIONS)) {
        ap_buf_free(text);
        return;
    }
    if (d)
        free(d->text);
    else
        d = &r->definition[r->definition_count++];
    memcpy(d->name, name.text, name.size);
    d->name[name.size] = '\0';
    d->macro = macro;
    d->text = text->data;
    d->size = text->size;
}

/* The next line without its newline; 0 at the end. */
static int raw_line(struct roff *r, struct roff_cursor *c, struct roff_span *line)
{
    if (c->at >= c->end)
        return 0;
    const char *newline = memchr(c->at, '\n', (size_t)(c->end - c->at));
    const char *stop = newline ? newline : c->end;
    *line = (struct roff_span){c->at, (size_t)(stop - c->at)};
    if (line->size && line->text[line->size - 1] == '\r')
        line->size--;
    c->at = newline ? newline + 1 : c->end;
    return roff_spend(r, line->size);
}

/* Length of the line before a comment (\" or \#). */
static size_t before_comment(struct roff_span s)
{
    for (size_t i = 0; i + 1 < s.size; i++) {
        if (s.text[i] != '\\')
            continue;
        if (s.text[i + 1] == '"' || s.text[i + 1] == '#')
            return i;
        i++;
    }
    return s.size;
}

/* Put one logical line into buf: comments cut, lines that end in a backslash continued, arguments of the
 * running macro filled in. *comment_p: the line was nothing but a comment. 0 at the end. */
static int logical_line(struct roff *r, struct roff_cursor *c, struct ap_buf *buf, int *comment_p)
{
    struct roff_span line;
    ap_buf_clear(buf);
    *comment_p = 0;
    if (!raw_line(r, c, &line))
        return 0;
    for (;;) {
        size_t n = before_comment(line), slashes = 0;
        *comment_p |=
            n < line.size && (n == 0 || (n == 1 && buf->size == 0 && (line.text[0] == '.' || line.text[0] == '\'')));
        int cut = n < line.size;
        while (slashes < n && line.text[n - 1 - slashes] == '\\')
            slashes++;
        int more = !cut && slashes % 2 == 1;
        struct roff_span part = {line.text, n - (size_t)more};
        for (size_t i = 0; i < part.size; i++) {
            int dollar = c->args && part.text[i] == '\\' && i + 2 < part.size + 1 && i + 1 < part.size &&
                         part.text[i + 1] == '$';
            if (!dollar || i + 2 >= part.size) {
                ap_buf_char(buf, part.text[i]);
                continue;
            }
            char which = part.text[i + 2];
            if (which >= '1' && which <= '9' && which - '1' < c->args->count)
                ap_buf_append(buf, c->args->arg[which - '1'].text, c->args->arg[which - '1'].size);
            else if (which == '*' || which == '@')
                ap_buf_append(buf, c->args->rest.text, c->args->rest.size);
            i += (uint8_t)which < 0x80 ? 2 : 1; /* a character of several bytes stays whole */
        }
        if (!more || buf->size > MAX_LINE || !raw_line(r, c, &line))
            return !buf->failed && roff_spend(r, buf->size);
    }
}

/* Read the body of .de, .am or .ig up to its end mark; copy mode halves double backslashes. */
static void read_body(struct roff *r, struct roff_cursor *c, struct roff_span end, struct ap_buf *body)
{
    struct roff_span line;
    while (raw_line(r, c, &line)) {
        struct roff_span name = line;
        if (name.size && (name.text[0] == '.' || name.text[0] == '\'')) {
            name = trim((struct roff_span){name.text + 1, name.size - 1});
            size_t n = 0;
            while (n < name.size && name.text[n] != ' ' && name.text[n] != '\t' && name.text[n] != '\\')
                n++;
            if (n == end.size && n && memcmp(name.text, end.text, n) == 0)
                return;
        }
        for (size_t i = 0; body && i < line.size; i++) {
            ap_buf_char(body, line.text[i]);
            if (line.text[i] == '\\' && i + 1 < line.size && line.text[i + 1] == '\\')
                i++;
        }
        if (body)
            ap_buf_char(body, '\n');
    }
}

/* Numeric conditions: numbers, \n(.g = 1 (we claim to be groff), other registers 0; operators from left to
 * right without precedence, as roff has it. */
struct number_parser {
    struct roff_span s;
    int depth;
};

static long parse_sum(struct roff *r, struct number_parser *p);

static long parse_number(struct roff *r, struct number_parser *p)
{
    struct roff_span name;
    if (!p->s.size)
        return 0;
    char c = *p->s.text;
    if (c == '(' && p->depth < ROFF_MAX_DEPTH) {
        p->s = (struct roff_span){p->s.text + 1, p->s.size - 1};
        p->depth++;
        long v = parse_sum(r, p);
        p->depth--;
        if (p->s.size && *p->s.text == ')')
            p->s = (struct roff_span){p->s.text + 1, p->s.size - 1};
        return v;
    }
    if (c == '\\' && p->s.size > 1 && p->s.text[1] == 'n') {
        size_t n = roff_escape_name((struct roff_span){p->s.text + 2, p->s.size - 2}, &name);
        p->s = (struct roff_span){p->s.text + 2 + n, p->s.size - 2 - n};
        return roff_is(name, ".g");
    }
    long v = 0, sign = 1;
    if (c == '-' || c == '+' || c == '!') {
        sign = c == '-' ? -1 : 1;
        p->s = (struct roff_span){p->s.text + 1, p->s.size - 1};
    }
    while (p->s.size && *p->s.text >= '0' && *p->s.text <= '9' && v < 100000000) {
        v = 10 * v + (*p->s.text - '0');
        p->s = (struct roff_span){p->s.text + 1, p->s.size - 1};
    }
    if (p->s.size && strchr("icpmnuvPsfM", *p->s.text)) /* unit */
        p->s = (struct roff_span){p->s.text + 1, p->s.size - 1};
    return sign * v;
}

static long parse_sum(struct roff *r, struct number_parser *p)
{
    long v = parse_number(r, p);
    while (p->s.size && strchr("+-*/%<>=&:", *p->s.text)) {
        char op = *p->s.text;
        p->s = (struct roff_span){p->s.text + 1, p->s.size - 1};
        int equal = p->s.size && *p->s.text == '=';
        if (equal)
            p->s = (struct roff_span){p->s.text + 1, p->s.size - 1};
        long w = parse_number(r, p);
        switch (op) {
        case '+':
            v = (v + w) % 1000000000;
            break;
        case '-':
            v = (v - w) % 1000000000;
            break;
        case '*':
            v = v % 30000 * (w % 30000);
            break;
        case '/':
        case '%':
            v = w ? (op == '/' ? v / w : v % w) : 0;
            break;
        case '<':
            v = equal ? v <= w : v < w;
            break;
        case '>':
            v = equal ? v >= w : v > w;
            break;
        case '=':
            v = v == w;
            break;
        case '&':
            v = v > 0 && w > 0;
            break;
        default:
            v = v > 0 || w > 0;
            break;
        }
    }
    return v;
}

/* 'one'two': are both the same after expansion? *used_p: length of the condition. */
static int same_strings(struct roff *r, struct roff_span s, size_t *used_p)
{
    char quote = s.text[0]; /* ' or ": one byte */
    const char *middle = memchr(s.text + 1, quote, s.size - 1);
    const char *close = middle ? memchr(middle + 1, quote, (size_t)(s.text + s.size - middle - 1)) : NULL;
    *used_p = s.size;
    if (!close)
        return 0;
    struct ap_buf a = {0}, b = {0};
    roff_expand(r, (struct roff_span){s.text + 1, (size_t)(middle - s.text - 1)}, &a);
    roff_expand(r, (struct roff_span){middle + 1, (size_t)(close - middle - 1)}, &b);
    int same = a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
    ap_buf_free(&a);
    ap_buf_free(&b);
    *used_p = (size_t)(close - s.text) + 1;
    return same;
}

/* Evaluate a condition; *rest is what follows it. */
static int condition(struct roff *r, struct roff_span s, struct roff_span *rest)
{
    int negate = 0, value = 0;
    size_t used = 1;
    s = trim(s);
    while (s.size && *s.text == '!') {
        negate = !negate;
        s = (struct roff_span){s.text + 1, s.size - 1};
    }
    if (s.size == 0) {
        used = 0;
    } else if (strchr("ntoe", *s.text) && (s.size == 1 || s.text[1] == ' ' || s.text[1] == '\\' || s.text[1] == '.')) {
        value = *s.text == 'n' || *s.text == 'o'; /* nroff, odd page */
    } else if (strchr("dcrmFSv", *s.text) && s.size > 1) {
        while (used < s.size && s.text[used] == ' ')
            used++;
        while (used < s.size && s.text[used] != ' ')
            used++;
        value = *s.text == 'd' && roff_find(r, trim((struct roff_span){s.text + 1, used - 1}), 1) != NULL;
    } else if (*s.text == '\'' || *s.text == '"') {
        value = same_strings(r, s, &used);
    } else {
        struct number_parser p = {s, 0};
        value = parse_sum(r, &p) > 0;
        used = (size_t)(p.s.text - s.text);
    }
    *rest = trim((struct roff_span){s.text + used, s.size - used});
    return negate ? !value : value;
}

/* Opening minus closing braces of a block. */
static long braces(struct roff_span s)
{
    long depth = 0;
    for (size_t i = 0; i + 1 < s.size; i++)
        if (s.text[i] == '\\') {
            depth += (s.text[i + 1] == '{') - (s.text[i + 1] == '}');
            i++;
        }
    return depth;
}

/* Go on with the guarded line, or skip it and the block it opens. */
static void guarded(struct roff *r, struct roff_cursor *c, struct roff_span rest, int value)
{
    if (!value) {
        long depth = braces(rest);
        struct roff_span line;
        while (depth > 0 && raw_line(r, c, &line))
            depth += braces(line);
        return;
    }
    while (rest.size > 1 && rest.text[0] == '\\' && rest.text[1] == '{')
        rest = trim((struct roff_span){rest.text + 2, rest.size - 2});
    if (rest.size && r->depth < ROFF_MAX_DEPTH) {
        r->depth++;
        roff_line(r, c, rest);
        r->depth--;
    }
}

static void define_string(struct roff *r, const struct roff_args *args, int append)
{
    struct ap_buf text = {0};
    if (args->count == 0)
        return;
    struct roff_span name = args->arg[0];
    const char *end = args->rest.text + args->rest.size;
    struct roff_span value = trim((struct roff_span){name.text + name.size, (size_t)(end - name.text) - name.size});
    if (value.size && value.text[0] == '"')
        value = (struct roff_span){value.text + 1, value.size - 1};
    const struct roff_definition *old = append ? roff_find(r, name, 0) : NULL;
    if (old && old->size < MAX_LINE)
        ap_buf_append(&text, old->text, old->size);
    ap_buf_append(&text, value.text, value.size);
    define(r, name, 0, &text);
}

/* Requests that steer the reader itself. */
static int control_request(struct roff *r, struct roff_cursor *c, struct roff_span name, const struct roff_args *args)
{
    struct roff_span rest;
    if (roff_is(name, "if") || roff_is(name, "ie") || roff_is(name, "while")) {
        int value = condition(r, args->rest, &rest);
        if (name.text[1] == 'e' && r->else_count < ROFF_MAX_ELSE)
            r->else_stack[r->else_count++] = !value;
        guarded(r, c, rest, value && name.size == 2); /* loops only compute layout */
    } else if (roff_is(name, "el")) {
        int value = r->else_count > 0 && r->else_stack[--r->else_count];
        guarded(r, c, args->rest, value);
    } else if (roff_is(name, "de") || roff_is(name, "de1") || roff_is(name, "am") || roff_is(name, "ig")) {
        int ignore = name.text[0] == 'i', at = ignore ? 0 : 1;
        struct roff_span end = args->count > at ? args->arg[at] : (struct roff_span){".", 1};
        struct ap_buf body = {0};
        read_body(r, c, end, ignore ? NULL : &body);
        if (!ignore && args->count && name.text[0] == 'd')
            define(r, args->arg[0], 1, &body);
        else
            ap_buf_free(&body);
    } else if (roff_is(name, "ds") || roff_is(name, "ds1") || roff_is(name, "as")) {
        define_string(r, args, name.text[0] == 'a');
    } else if (roff_is(name, "so")) {
        r->is_link = 1;
    } else if (roff_is(name, "TS")) {
        roff_table_begin(r);
    } else if (roff_is(name, "EQ")) {
        r->equation = 1;
    } else if (roff_is(name, "EN")) {
        r->equation = 0;
    } else {
        return 0;
    }
    return 1;
}

static void run(struct roff *r, struct roff_cursor *c);

/* A macro that the page itself defined. */
static void page_macro(struct roff *r, struct roff_span name, const struct roff_args *args)
{
    const struct roff_definition *d = roff_find(r, name, 1);
    if (!d || r->depth >= ROFF_MAX_DEPTH)
        return;
    /* The body may redefine the macro while it runs. */
    struct ap_buf body = {0};
    ap_buf_append(&body, d->text, d->size);
    if (body.data) {
        struct roff_cursor c = {body.data, body.data + body.size, args};
        r->depth++;
        run(r, &c);
        r->depth--;
    }
    ap_buf_free(&body);
}

static void control_line(struct roff *r, struct roff_cursor *c, struct roff_span line)
{
    struct roff_args args;
    size_t n = 0;
    line = trim(line);
    while (n < line.size && line.text[n] != ' ' && line.text[n] != '\t' && line.text[n] != '\\')
        n++;
    struct roff_span name = {line.text, n};
    if (n == 0)
        return;
    roff_parse_args((struct roff_span){line.text + n, line.size - n}, &args);
    if (control_request(r, c, name, &args) || r->equation)
        return;
    if (r->is_mdoc ? roff_mdoc_macro(r, name, &args) : roff_man_macro(r, name, &args))
        return;
    if (r->is_mdoc && roff_man_macro(r, name, &args))
        return;
    page_macro(r, name, &args);
}

void roff_line(struct roff *r, struct roff_cursor *c, struct roff_span line)
{
    size_t before = r->out->size;
    int heading = r->heading, tag = r->tag;
    if (r->table && roff_table_line(r, line))
        return;
    if (line.size && (line.text[0] == '.' || line.text[0] == '\'')) {
        control_line(r, c, (struct roff_span){line.text + 1, line.size - 1});
    } else if (r->equation) {
        return;
    } else if (heading) {
        r->heading = 0;
        roff_heading(r, line);
        return;
    } else if (trim(line).size == 0) {
        roff_break(r, 2);
    } else {
        roff_emit(r, line);
    }
    if (tag && r->tag && r->out->size > before && !r->glue)
        roff_tag_end(r);
}

static void run(struct roff *r, struct roff_cursor *c)
{
    struct ap_buf line = {0};
    int comment;
    while (logical_line(r, c, &line, &comment))
        if (!comment)
            roff_line(r, c, (struct roff_span){line.data, line.size});
    r->out->failed |= line.failed;
    ap_buf_free(&line);
}

ap_status ap_roff_to_text(const char *source, size_t size, struct ap_buf *out, int *link_p, struct ap_error *err)
{
    struct roff *r = calloc(1, sizeof(*r));
    if (!r)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    r->out = out;
    r->start = out->size;
    r->budget = LEAST_BUDGET + COST_PER_BYTE * (int64_t)size;
    struct roff_cursor c = {source, source + size, NULL};
    run(r, &c);
    if (out->size > r->start)
        ap_buf_char(out, '\n');
    if (link_p)
        *link_p = r->is_link && out->size == r->start;
    for (int i = 0; i < r->definition_count; i++)
        free(r->definition[i].text);
    free(r);
    return out->failed ? ap_error_set(err, AP_ERR_NOMEM, "out of memory") : AP_OK;
}
