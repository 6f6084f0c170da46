/* SPDX-License-Identifier: Apache-2.0
 * A small JSON reader behind the names of compat/yyjson.h: recursive descent into a tree of nodes, RFC 8259
 * grammar, nesting up to 64, UTF-8 passed through. For our own files on machines without yyjson. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <yyjson.h>

#define MAX_DEPTH 64

enum kind { K_NULL, K_BOOL, K_UINT, K_SINT, K_REAL, K_STR, K_ARR, K_OBJ };

struct yyjson_val {
    enum kind kind;
    uint64_t bits; /* bool, unsigned, signed as two's complement */
    double real;
    char *text; /* in the document's copy */
    size_t count;
    struct yyjson_val *first, *last, *next;
};

struct yyjson_doc {
    char *text;
    yyjson_val *root;
};

struct parser {
    char *at;
    const char *problem;
    int depth;
};

static yyjson_val *parse_value(struct parser *p);

static void free_tree(yyjson_val *v)
{
    while (v) {
        yyjson_val *next = v->next;
        free_tree(v->first);
        free(v);
        v = next;
    }
}

static yyjson_val *node(struct parser *p, enum kind kind)
{
    yyjson_val *v = calloc(1, sizeof(*v));
    if (!v)
        p->problem = "out of memory";
    else
        v->kind = kind;
    return v;
}

static void skip_blank(struct parser *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')
        p->at++;
}

static int hex4(const char *s, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef", *d;
        char c = s[i] >= 'A' && s[i] <= 'F' ? (char)(s[i] - 'A' + 'a') : s[i];
        if (!c || !(d = strchr(digits, c)))
            return 0;
        *out = *out << 4 | (unsigned)(d - digits);
    }
    return 1;
}

static char *put_utf8(char *out, unsigned c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* One escape at p->at (behind the backslash); NULL: malformed. */
static char *parse_escape(struct parser *p, char *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    unsigned c, low;
    const char *f = *p->at ? strchr(from, *p->at) : NULL;
    if (f) {
        *out++ = to[f - from];
        p->at++;
        return out;
    }
    if (*p->at != 'u' || !hex4(p->at + 1, &c))
        return NULL;
    p->at += 5;
    if (c >= 0xd800 && c < 0xdc00) {
        if (p->at[0] != '\\' || p->at[1] != 'u' || !hex4(p->at + 2, &low) || low < 0xdc00 || low > 0xdfff)
            return NULL;
        p->at += 6;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    return put_utf8(out, c);
}

/* A string, unescaped in place: the result is never longer. */
static yyjson_val *parse_string(struct parser *p)
{
    char *start = ++p->at, *out = start;
    while (*p->at != '"') {
        if ((unsigned char)*p->at < 0x20) {
            p->problem = "unterminated string";
            return NULL;
        }
        if (*p->at == '\\') {
            p->at++;
            out = parse_escape(p, out);
            if (!out) {
                p->problem = "invalid escape";
                return NULL;
            }
        } else {
            *out++ = *p->at++;
        }
    }
    p->at++;
    *out = '\0';
    yyjson_val *v = node(p, K_STR);
    if (v)
        v->text = start;
    return v;
}

static yyjson_val *parse_number(struct parser *p)
{
    char *start = p->at, *end;
    int negative = *start == '-', whole = 1;
    const char *digits = start + negative;
    if (*digits < '0' || *digits > '9' || (*digits == '0' && digits[1] >= '0' && digits[1] <= '9')) {
        p->problem = "invalid number";
        return NULL;
    }
    for (const char *c = digits; strchr("0123456789.eE+-", *c) && *c; c++)
        whole &= *c >= '0' && *c <= '9';
    yyjson_val *v = node(p, K_REAL);
    if (!v)
        return NULL;
    v->real = strtod(start, &end);
    if (whole && end - digits <= 18) {
        v->kind = negative ? K_SINT : K_UINT;
        v->bits = (uint64_t)strtoll(start, NULL, 10);
    }
    p->at = end;
    return v;
}

static int append(yyjson_val *parent, yyjson_val *child)
{
    if (!child)
        return 0;
    if (parent->last)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
    return 1;
}

/* One element of an array, or one key and value of an object. */
static int parse_member(struct parser *p, yyjson_val *parent)
{
    skip_blank(p);
    if (parent->kind == K_OBJ) {
        if (*p->at != '"') {
            p->problem = "a key is missing";
            return 0;
        }
        if (!append(parent, parse_string(p)))
            return 0;
        skip_blank(p);
        if (*p->at++ != ':') {
            p->problem = "':' is missing";
            return 0;
        }
    }
    parent->count++;
    return append(parent, parse_value(p));
}

static yyjson_val *parse_container(struct parser *p, enum kind kind, char close)
{
    yyjson_val *v = node(p, kind);
    p->at++;
    skip_blank(p);
    if (v && *p->at == close) {
        p->at++;
        return v;
    }
    while (v && parse_member(p, v)) {
        skip_blank(p);
        char c = *p->at++;
        if (c == close)
            return v;
        if (c != ',') {
            p->problem = "',' or the end is missing";
            break;
        }
    }
    free_tree(v);
    return NULL;
}

static yyjson_val *parse_word(struct parser *p)
{
    static const struct {
        const char *word;
        enum kind kind;
        uint64_t bits;
    } words[] = {{"null", K_NULL, 0}, {"true", K_BOOL, 1}, {"false", K_BOOL, 0}};
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i].word);
        if (strncmp(p->at, words[i].word, n) == 0) {
            yyjson_val *v = node(p, words[i].kind);
            if (v)
                v->bits = words[i].bits;
            p->at += n;
            return v;
        }
    }
    return parse_number(p);
}

static yyjson_val *parse_value(struct parser *p)
{
    yyjson_val *v;
    skip_blank(p);
    if (++p->depth > MAX_DEPTH) {
        p->problem = "too deep";
        return NULL;
    }
    if (*p->at == '{')
        v = parse_container(p, K_OBJ, '}');
    else if (*p->at == '[')
        v = parse_container(p, K_ARR, ']');
    else
        v = *p->at == '"' ? parse_string(p) : parse_word(p);
    p->depth--;
    return v;
}

yyjson_doc *yyjson_read_opts(char *text, size_t size, unsigned flags, const void *alc, yyjson_read_err *err)
{
    (void)flags;
    (void)alc;
    yyjson_doc *doc = calloc(1, sizeof(*doc));
    char *copy = doc ? malloc(size + 1) : NULL;
    struct parser p = {copy, copy ? NULL : "out of memory", 0};
    if (copy) {
        memcpy(copy, text, size);
        copy[size] = '\0';
        doc->text = copy;
        doc->root = parse_value(&p);
        skip_blank(&p);
        if (doc->root && p.at != copy + size)
            p.problem = "something follows the value";
    }
    if (!p.problem)
        return doc;
    if (err)
        *err = (yyjson_read_err){1, p.problem, copy ? (size_t)(p.at - copy) : 0};
    if (doc)
        yyjson_doc_free(doc);
    return NULL;
}

yyjson_doc *yyjson_read(const char *text, size_t size, unsigned flags)
{
    return yyjson_read_opts((char *)(uintptr_t)text, size, flags, NULL, NULL);
}

void yyjson_doc_free(yyjson_doc *doc)
{
    if (!doc)
        return;
    free_tree(doc->root);
    free(doc->text);
    free(doc);
}

yyjson_val *yyjson_doc_get_root(yyjson_doc *doc)
{
    return doc ? doc->root : NULL;
}

static bool is(yyjson_val *v, enum kind kind)
{
    return v && v->kind == kind;
}

bool yyjson_is_null(yyjson_val *v)
{
    return is(v, K_NULL);
}
bool yyjson_is_bool(yyjson_val *v)
{
    return is(v, K_BOOL);
}
bool yyjson_is_uint(yyjson_val *v)
{
    return is(v, K_UINT);
}
bool yyjson_is_int(yyjson_val *v)
{
    return is(v, K_UINT) || is(v, K_SINT);
}
bool yyjson_is_num(yyjson_val *v)
{
    return yyjson_is_int(v) || is(v, K_REAL);
}
bool yyjson_is_str(yyjson_val *v)
{
    return is(v, K_STR);
}
bool yyjson_is_arr(yyjson_val *v)
{
    return is(v, K_ARR);
}
bool yyjson_is_obj(yyjson_val *v)
{
    return is(v, K_OBJ);
}
bool yyjson_get_bool(yyjson_val *v)
{
    return is(v, K_BOOL) && v->bits;
}
uint64_t yyjson_get_uint(yyjson_val *v)
{
    return yyjson_is_int(v) ? v->bits : 0;
}
int64_t yyjson_get_sint(yyjson_val *v)
{
    return yyjson_is_int(v) ? (int64_t)v->bits : 0;
}
double yyjson_get_num(yyjson_val *v)
{
    return yyjson_is_num(v) ? v->real : 0.0;
}
const char *yyjson_get_str(yyjson_val *v)
{
    return is(v, K_STR) ? v->text : NULL;
}
size_t yyjson_arr_size(yyjson_val *v)
{
    return is(v, K_ARR) ? v->count : 0;
}
size_t yyjson_obj_size(yyjson_val *v)
{
    return is(v, K_OBJ) ? v->count : 0;
}
yyjson_val *yyjson_first_child(yyjson_val *v)
{
    return v ? v->first : NULL;
}
yyjson_val *yyjson_next_sibling(yyjson_val *v)
{
    return v ? v->next : NULL;
}

yyjson_val *yyjson_arr_get(yyjson_val *v, size_t index)
{
    yyjson_val *at = yyjson_arr_size(v) > index ? v->first : NULL;
    for (; at && index > 0; index--)
        at = at->next;
    return at;
}

yyjson_val *yyjson_obj_get(yyjson_val *v, const char *key)
{
    yyjson_val *k = is(v, K_OBJ) ? v->first : NULL;
    for (; k; k = k->next->next) {
        if (strcmp(k->text, key) == 0)
            return k->next;
    }
    return NULL;
}
