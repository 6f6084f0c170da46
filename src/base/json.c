/* SPDX-License-Identifier: Apache-2.0
 * The JSON writer. */
#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

static void add_string(struct ap_strbuf *b, const char *s)
{
    size_t size = strlen(s);
    ap_strbuf_add(b, "\"");
    while (size > 0) {
        unsigned char c = (unsigned char)*s;
        int n = ap_utf8_decode(s, size, NULL);
        if (n == 0) {
            ap_strbuf_add(b, "\xef\xbf\xbd");
            n = 1;
        } else if (c == '"' || c == '\\') {
            ap_strbuf_addf(b, "\\%c", c);
        } else if (c == '\n') {
            ap_strbuf_add(b, "\\n");
        } else if (c == '\t') {
            ap_strbuf_add(b, "\\t");
        } else if (c < 0x20 || c == 0x7f) {
            ap_strbuf_addf(b, "\\u%04x", c);
        } else {
            ap_strbuf_add_bytes(b, s, (size_t)n);
        }
        s += n;
        size -= (size_t)n;
    }
    ap_strbuf_add(b, "\"");
}

static void new_line(struct ap_json *j)
{
    if (j->indent > 0)
        ap_strbuf_addf(&j->text, "\n%*s", j->indent * j->depth, "");
}

/* Comma, line break and key before a value. */
static void before(struct ap_json *j, const char *key)
{
    if (j->depth > 0) {
        if (j->filled[j->depth - 1])
            ap_strbuf_add(&j->text, j->indent > 0 ? "," : ", ");
        j->filled[j->depth - 1] = 1;
        new_line(j);
    }
    if (key != NULL) {
        add_string(&j->text, key);
        ap_strbuf_add(&j->text, ": ");
    }
}

static void begin(struct ap_json *j, const char *key, const char *bracket)
{
    before(j, key);
    ap_strbuf_add(&j->text, bracket);
    if (j->depth < AP_JSON_DEPTH)
        j->filled[j->depth++] = 0;
    else
        j->text.failed = 1; /* deeper than any report of ours */
}

static void end(struct ap_json *j, const char *bracket)
{
    int filled = j->depth > 0 && j->filled[j->depth - 1];
    if (j->depth > 0)
        j->depth--;
    if (filled)
        new_line(j);
    ap_strbuf_add(&j->text, bracket);
}

void ap_json_begin_object(struct ap_json *j, const char *key)
{
    begin(j, key, "{");
}

void ap_json_end_object(struct ap_json *j)
{
    end(j, "}");
}

void ap_json_begin_array(struct ap_json *j, const char *key)
{
    begin(j, key, "[");
}

void ap_json_end_array(struct ap_json *j)
{
    end(j, "]");
}

void ap_json_str(struct ap_json *j, const char *key, const char *value)
{
    before(j, key);
    if (value != NULL)
        add_string(&j->text, value);
    else
        ap_strbuf_add(&j->text, "null");
}

void ap_json_int(struct ap_json *j, const char *key, int64_t value)
{
    before(j, key);
    ap_strbuf_addf(&j->text, "%" PRId64, value);
}

void ap_json_uint(struct ap_json *j, const char *key, uint64_t value)
{
    before(j, key);
    ap_strbuf_addf(&j->text, "%" PRIu64, value);
}

void ap_json_real(struct ap_json *j, const char *key, double value)
{
    before(j, key);
    if (isfinite(value))
        ap_strbuf_add_double(&j->text, value);
    else
        ap_strbuf_add(&j->text, "null");
}

void ap_json_bool(struct ap_json *j, const char *key, int value)
{
    before(j, key);
    ap_strbuf_add(&j->text, value ? "true" : "false");
}

void ap_json_null(struct ap_json *j, const char *key)
{
    before(j, key);
    ap_strbuf_add(&j->text, "null");
}

void ap_json_raw(struct ap_json *j, const char *key, const char *json)
{
    before(j, key);
    ap_strbuf_add(&j->text, json);
}
