/* SPDX-License-Identifier: Apache-2.0
 * Things that are due at a time: a binary heap that gives the earliest first and, among equal times, the one put in
 * first. Zero-initialised is empty. Items are borrowed. One thread. */
#ifndef AP_WAN_DUE_HEAP_H
#define AP_WAN_DUE_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct ap_due {
    int64_t due_ns;
    uint64_t number; /* order of arrival */
    void *item;
};
struct ap_due_heap {
    struct ap_due *entries;
    size_t n, capacity;
    uint64_t number;
};

/* 0, or -1: out of memory, nothing changed. */
int ap_due_heap_put(struct ap_due_heap *h, int64_t due_ns, void *item);
/* The earliest, NULL when empty; valid until the next call. */
const struct ap_due *ap_due_heap_first(const struct ap_due_heap *h);
/* Remove and return the earliest item; NULL when empty. */
void *ap_due_heap_take(struct ap_due_heap *h);
/* Frees the heap itself, not the items. */
void ap_due_heap_clear(struct ap_due_heap *h);

#endif
