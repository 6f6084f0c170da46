/* SPDX-License-Identifier: Apache-2.0
 * A growing byte buffer. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "prep/buf.h"

char *ap_buf_reserve(struct ap_buf *b, size_t size)
{
    if (b->failed)
        return NULL;
    if (b->capacity - b->size >= size)
        return b->data + b->size;
    if (size > SIZE_MAX / 2 - b->size) {
        b->failed = 1;
        return NULL;
    }
    size_t capacity = b->capacity ? b->capacity : 4096;
    while (capacity < b->size + size)
        capacity *= 2;
    char *grown = realloc(b->data, capacity);
    if (!grown) {
        b->failed = 1;
        return NULL;
    }
    b->data = grown;
    b->capacity = capacity;
    return b->data + b->size;
}

void ap_buf_append(struct ap_buf *b, const void *data, size_t size)
{
    char *to = size ? ap_buf_reserve(b, size) : NULL;
    if (!to)
        return;
    memcpy(to, data, size);
    b->size += size;
}

void ap_buf_char(struct ap_buf *b, char c)
{
    ap_buf_append(b, &c, 1);
}

void ap_buf_text(struct ap_buf *b, const char *text)
{
    ap_buf_append(b, text, strlen(text));
}

void ap_buf_clear(struct ap_buf *b)
{
    b->size = 0;
}

void ap_buf_free(struct ap_buf *b)
{
    free(b->data);
    *b = (struct ap_buf){0};
}
