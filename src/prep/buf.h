/* SPDX-License-Identifier: Apache-2.0
 * A growing byte buffer. Running out of memory is sticky: appends become no-ops and failed is set, so that
 * long chains of appends need one check at their end. Not thread-safe. */
#ifndef AP_PREP_BUF_H
#define AP_PREP_BUF_H

#include <stddef.h>

/* Zero-initialised is empty. data is owned, not NUL-terminated, valid until the next append or free. */
struct ap_buf {
    char *data;
    size_t size, capacity;
    int failed;
};

void ap_buf_append(struct ap_buf *b, const void *data, size_t size);
void ap_buf_char(struct ap_buf *b, char c);
void ap_buf_text(struct ap_buf *b, const char *text);
/* Room for size more bytes at data + size; NULL (and failed) when out of memory. */
char *ap_buf_reserve(struct ap_buf *b, size_t size);
/* Empty it, keep the memory. */
void ap_buf_clear(struct ap_buf *b);
void ap_buf_free(struct ap_buf *b);

#endif
