/* SPDX-License-Identifier: Apache-2.0
 * A growing text. Zero-initialised is empty. Running out of memory sticks: later calls do nothing and take
 * returns NULL, so that only the end needs a check. */
#ifndef AP_BASE_STRBUF_H
#define AP_BASE_STRBUF_H

#include <stddef.h>

struct ap_strbuf {
    char *data;
    size_t size, capacity;
    int failed;
};

void ap_strbuf_add(struct ap_strbuf *b, const char *text);
void ap_strbuf_add_bytes(struct ap_strbuf *b, const char *data, size_t size);
void ap_strbuf_addf(struct ap_strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* text in lines of at most width columns, each but the first after indent spaces; column is where the
 * first one begins. Breaks at spaces only. No newline at the end. */
void ap_strbuf_add_wrapped(struct ap_strbuf *b, const char *text, int column, int indent, int width);
/* Shortest decimal text that reads back as the same double. */
void ap_strbuf_add_double(struct ap_strbuf *b, double v);
/* The text, NUL-terminated, owned by the caller (free); the buffer is empty again. NULL: out of memory. */
char *ap_strbuf_take(struct ap_strbuf *b);
void ap_strbuf_clear(struct ap_strbuf *b);

#endif
