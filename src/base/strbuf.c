/* SPDX-License-Identifier: Apache-2.0
 * A growing text. */
#include "config.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"

/* Room for more bytes and the final NUL; 0 on success. */
static int reserve(struct ap_strbuf *b, size_t more)
{
    if (b->failed)
        return -1;
    if (more < b->capacity - b->size) /* size < capacity or both are 0 */
        return 0;
    size_t capacity = b->capacity * 2 > b->size + more + 64 ? b->capacity * 2 : b->size + more + 64;
    char *grown = realloc(b->data, capacity);
    if (grown == NULL) {
        b->failed = 1;
        return -1;
    }
    b->data = grown;
    b->capacity = capacity;
    return 0;
}

void ap_strbuf_add_bytes(struct ap_strbuf *b, const char *data, size_t size)
{
    if (reserve(b, size) != 0)
        return;
    if (size > 0)
        memcpy(b->data + b->size, data, size);
    b->size += size;
    b->data[b->size] = '\0';
}

void ap_strbuf_add(struct ap_strbuf *b, const char *text)
{
    ap_strbuf_add_bytes(b, text, strlen(text));
}

void ap_strbuf_addf(struct ap_strbuf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && reserve(b, (size_t)n) == 0) {
        vsnprintf(b->data + b->size, (size_t)n + 1, fmt, again);
        b->size += (size_t)n;
    }
    va_end(again);
}

void ap_strbuf_add_wrapped(struct ap_strbuf *b, const char *text, int column, int indent, int width)
{
    int first = 1;
    while (*text != '\0') {
        size_t word = strcspn(text, " ");
        if (!first && column + 1 + (int)word > width) {
            ap_strbuf_addf(b, "\n%*s", indent, "");
            column = indent;
        } else if (!first) {
            ap_strbuf_add(b, " ");
            column++;
        }
        ap_strbuf_add_bytes(b, text, word);
        column += (int)word;
        text += word;
        text += strspn(text, " ");
        first = 0;
    }
}

void ap_strbuf_add_double(struct ap_strbuf *b, double v)
{
    char text[40];
    if (fabs(v) < 1e15 && v == floor(v)) { /* 10, not 1e+01 */
        ap_strbuf_addf(b, "%.0f", v);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    ap_strbuf_add(b, text);
}

char *ap_strbuf_take(struct ap_strbuf *b)
{
    ap_strbuf_add_bytes(b, "", 0); /* an empty text is still a text */
    char *data = b->failed ? NULL : b->data;
    if (b->failed)
        free(b->data);
    *b = (struct ap_strbuf){NULL, 0, 0, 0};
    return data;
}

void ap_strbuf_clear(struct ap_strbuf *b)
{
    free(b->data);
    *b = (struct ap_strbuf){NULL, 0, 0, 0};
}
