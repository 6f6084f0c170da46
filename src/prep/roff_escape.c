/* SPDX-License-Identifier: Apache-2.0
 * Escapes of roff (groff(7), "Escape sequences") and the output side: filling lines into paragraphs.
 * East Asian text has no spaces between words: two lines that meet in wide characters join without one. */
#include "config.h"

#include <string.h>

#include "base/utf8.h"
#include "prep/roff_state.h"

size_t roff_escape_name(struct roff_span s, struct roff_span *name_p)
{
    *name_p = (struct roff_span){s.text, 0};
    if (s.size == 0)
        return 0;
    if (s.text[0] == '(') { /* two characters, not two bytes */
        size_t n = 1;
        for (int k = 0; k < 2 && n < s.size; k++) {
            int length = ap_utf8_decode(s.text + n, s.size - n, NULL);
            n += length ? (size_t)length : 1;
        }
        *name_p = (struct roff_span){s.text + 1, n - 1};
        return n;
    }
    if (s.text[0] == '[') {
        const char *close = memchr(s.text, ']', s.size);
        size_t n = close ? (size_t)(close - s.text) : s.size;
        *name_p = (struct roff_span){s.text + 1, n - 1};
        return close ? n + 1 : n;
    }
    int n = ap_utf8_decode(s.text, s.size, NULL);
    *name_p = (struct roff_span){s.text, n ? (size_t)n : 1};
    return name_p->size;
}

/* Length of an argument between two equal delimiters, 'like this'; *inside_p what is between them. */
static size_t quoted(struct roff_span s, struct roff_span *inside_p)
{
    *inside_p = (struct roff_span){s.text, 0};
    if (s.size == 0 || (uint8_t)s.text[0] >= 0x80)
        return 0;
    const char *close = memchr(s.text + 1, s.text[0], s.size - 1);
    size_t n = close ? (size_t)(close - s.text) : s.size;
    *inside_p = (struct roff_span){s.text + 1, n - 1};
    return close ? n + 1 : n;
}

/* The \s escape: sN, s±N, s±NN after 3 or less, s(NN, s[N], s'N'. */
static size_t size_escape(struct roff_span s)
{
    struct roff_span inside;
    size_t i = 0;
    if (s.size && (s.text[0] == '+' || s.text[0] == '-'))
        i = 1;
    if (i >= s.size)
        return i;
    if (s.text[i] == '(' || s.text[i] == '[')
        return i + roff_escape_name((struct roff_span){s.text + i, s.size - i}, &inside);
    if (s.text[i] == '\'')
        return i + quoted((struct roff_span){s.text + i, s.size - i}, &inside);
    if (s.text[i] < '0' || s.text[i] > '9')
        return i;
    if (s.text[i] >= '1' && s.text[i] <= '3' && i == 0 && s.size > 1 && s.text[1] >= '0' && s.text[1] <= '9')
        return 2;
    return i + 1;
}

/* Predefined strings of the man and mdoc packages. */
static const char *predefined(struct roff_span name)
{
    static const char *const strings[][2] = {
        {"R", "®"},  {"Tm", "™"}, {"lq", "“"}, {"rq", "”"},   {"Lt", "<"}, {"Gt", ">"}, {"Le", "≤"},
        {"Ge", "≥"}, {"Ne", "≠"}, {"Pm", "±"}, {"Am", "&"},   {"Ba", "|"}, {"q", "\""}, {"Lq", "“"},
        {"Rq", "”"}, {"If", "∞"}, {"Pi", "π"}, {"Na", "NaN"}, {"aa", "´"}, {"ga", "`"}, {"Aq", "'"},
    };
    for (size_t i = 0; i < sizeof(strings) / sizeof(*strings); i++)
        if (roff_is(name, strings[i][0]))
            return strings[i][1];
    return NULL;
}

static void expand_string(struct roff *r, struct roff_span name, struct ap_buf *to)
{
    const struct roff_definition *d = roff_find(r, name, 0);
    if (!d) {
        const char *text = predefined(name);
        ap_buf_text(to, text ? text : "");
        return;
    }
    if (r->depth >= ROFF_MAX_DEPTH || !roff_spend(r, d->size))
        return;
    r->depth++;
    roff_expand(r, (struct roff_span){d->text, d->size}, to);
    r->depth--;
}

static void put_char(struct roff_span name, struct ap_buf *to)
{
    char scratch[8];
    const char *text = roff_char(name, scratch);
    if (text)
        ap_buf_text(to, text);
}

/* Escapes whose argument is dropped. Returns the length behind the letter, or -1 if c is none of them. */
static long dropped(char c, struct roff_span s)
{
    struct roff_span inside;
    size_t sign;
    switch (c) {
    case 'f':
    case 'F':
    case 'm':
    case 'M':
    case 'g':
    case 'k':
    case 'V':
    case 'Y':
    case 'O':
        return (long)roff_escape_name(s, &inside);
    case 'n':
        sign = s.size && (s.text[0] == '+' || s.text[0] == '-');
        return (long)(sign + roff_escape_name((struct roff_span){s.text + sign, s.size - sign}, &inside));
    case 's':
        return (long)size_escape(s);
    case 'v':
    case 'w':
    case 'l':
    case 'L':
    case 'D':
    case 'b':
    case 'x':
    case 'X':
    case 'R':
    case 'H':
    case 'S':
    case 'A':
    case 'B':
        return (long)quoted(s, &inside);
    case '&':
    case ',':
    case '/':
    case '|':
    case '^':
    case ':':
    case '%':
    case ')':
    case '{':
    case '}':
    case 'd':
    case 'u':
    case 'r':
    case 'p':
    case 'a':
    case 'z':
    case '!':
    case '?':
    case '\n':
        return 0;
    default:
        return -1;
    }
}

/* Escapes that stand for text. s is what follows the letter c; returns how much of it was used. */
static size_t written(struct roff *r, char c, struct roff_span s, struct ap_buf *to)
{
    struct roff_span name;
    size_t used = 0;
    char n_escape[6] = "N'";
    switch (c) {
    case '(':
    case '[':
        used = roff_escape_name((struct roff_span){s.text - 1, s.size + 1}, &name) - 1;
        put_char(name, to);
        break;
    case '*':
        used = roff_escape_name(s, &name);
        expand_string(r, name, to);
        break;
    case 'C':
        used = quoted(s, &name);
        put_char(name, to);
        break;
    case 'N':
        used = quoted(s, &name);
        if (name.size <= 3)
            memcpy(n_escape + 2, name.text, name.size);
        put_char((struct roff_span){n_escape, name.size <= 3 ? name.size + 2 : 0}, to);
        break;
    case 'o': /* overstrike: the first of them */
        used = quoted(s, &name);
        if (name.size && name.text[0] != '\\')
            ap_buf_append(to, name.text, (size_t)ap_utf8_decode(name.text, name.size, NULL));
        break;
    case 'h': /* a move to the right is what separates a bullet from its text */
        used = quoted(s, &name);
        if (name.size && name.text[0] == '+')
            ap_buf_char(to, ' ');
        break;
    case 'Z':
        used = quoted(s, &name);
        break;
    case 'e':
    case 'E':
    case '\\':
        ap_buf_char(to, '\\');
        break;
    case ' ':
    case '~':
    case '0':
        ap_buf_char(to, ' ');
        break;
    case 't':
        ap_buf_char(to, '\t');
        break;
    case '\'':
        ap_buf_char(to, '\'');
        break;
    default: /* \- \. \` \_ and the like: the character itself */
        ap_buf_char(to, c);
        break;
    }
    return used;
}

int roff_expand(struct roff *r, struct roff_span raw, struct ap_buf *to)
{
    int glue = 0;
    size_t i = 0;
    while (i < raw.size) {
        const char *slash = memchr(raw.text + i, '\\', raw.size - i);
        size_t plain = slash ? (size_t)(slash - raw.text) - i : raw.size - i;
        if (plain) {
            ap_buf_append(to, raw.text + i, plain);
            glue = 0;
        }
        i += plain + 1;
        if (!slash || i >= raw.size)
            break;
        char c = raw.text[i++];
        struct roff_span rest = {raw.text + i, raw.size - i};
        if (c == '"' || c == '#')
            break;
        if (c == 'c') {
            glue = 1;
            continue;
        }
        long skip = dropped(c, rest);
        if (skip >= 0) {
            i += (size_t)skip;
        } else {
            i += written(r, c, rest, to);
            glue = 0;
        }
    }
    return glue;
}

void roff_break(struct roff *r, int n)
{
    if (n > 1 && r->out->size == r->heading_end)
        n = 1;
    if (r->pending < n)
        r->pending = n;
    r->glue = 0;
}

/* Characters next to which a line end is no space: CJK ideographs, kana and their punctuation; not hangul. */
static int is_wide(uint32_t code)
{
    return (code >= 0x2E80 && code <= 0x9FFF) || (code >= 0xF900 && code <= 0xFAFF) ||
           (code >= 0xFF00 && code <= 0xFFEF) || (code >= 0x20000 && code <= 0x3FFFF);
}

static uint32_t last_code(const struct roff *r)
{
    const char *data = r->out->data;
    size_t size = r->out->size, at = size;
    uint32_t code = 0;
    while (at > r->start && size - at < 4) {
        at--;
        if (((uint8_t)data[at] & 0xC0) != 0x80)
            break;
    }
    ap_utf8_decode(data + at, size - at, &code);
    return code;
}

/* Newlines that are due, or the space between two pieces of a paragraph. */
static void join(struct roff *r, const char *text, size_t size)
{
    if (r->out->size == r->start) {
        r->pending = 0;
        return;
    }
    if (r->pending) {
        ap_buf_append(r->out, "\n\n", (size_t)r->pending);
        r->pending = 0;
        return;
    }
    uint32_t next = 0;
    ap_utf8_decode(text, size, &next);
    char last = r->out->data[r->out->size - 1];
    if (!r->glue && last != ' ' && last != '\n' && !(is_wide(next) && is_wide(last_code(r))))
        ap_buf_char(r->out, ' ');
}

/* Length of <user@host> at p, 0 if there is none: people's mail addresses are nothing to learn. */
static size_t mail_address(const char *p, size_t size)
{
    size_t n = 1, at = 0;
    if (*p != '<')
        return 0;
    for (; n < size && n < 256 && p[n] != '>'; n++) {
        if (p[n] == ' ' || p[n] == '<' || p[n] == '/')
            return 0;
        at += p[n] == '@';
    }
    return n < size && n < 256 && at ? n + 1 : 0;
}

void roff_text(struct roff *r, struct roff_span text)
{
    const char *p = text.text;
    size_t size = text.size;
    int leading = 0;
    while (size && (p[size - 1] == ' ' || p[size - 1] == '\t'))
        size--;
    for (; !r->nofill && size && (*p == ' ' || *p == '\t'); p++, size--)
        leading = 1;
    if (size == 0 || r->out->failed)
        return;
    if (leading && !r->glue && !r->pending)
        roff_break(r, 1); /* roff: a leading space ends the line before */
    join(r, p, size);
    if (r->out->failed)
        return;
    for (size_t i = 0; i < size; i++) {
        int space = p[i] == ' ' || p[i] == '\t';
        if (!r->nofill && space && i + 1 < size && (p[i + 1] == ' ' || p[i + 1] == '\t'))
            continue;
        size_t mail = mail_address(p + i, size - i);
        if (mail) {
            if (r->out->size > r->start && r->out->data[r->out->size - 1] == ' ')
                r->out->size--;
            i += mail - 1;
            continue;
        }
        uint8_t c = (uint8_t)p[i];
        if (c >= 0x20 || c == '\t')
            ap_buf_char(r->out, !r->nofill && space ? ' ' : p[i]);
    }
    r->glue = 0;
}

void roff_emit(struct roff *r, struct roff_span raw)
{
    struct ap_buf text = {0};
    size_t before = r->out->size;
    int glue = roff_expand(r, raw, &text);
    r->out->failed |= text.failed;
    roff_text(r, (struct roff_span){text.data, text.size});
    int space = text.size && text.data[text.size - 1] == ' ';
    ap_buf_free(&text);
    if (r->out->size == before)
        return;
    if (glue && space)
        ap_buf_char(r->out, ' ');
    if (r->nofill && !glue)
        roff_break(r, 1);
    r->glue = glue;
}
