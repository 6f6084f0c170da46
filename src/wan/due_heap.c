/* SPDX-License-Identifier: Apache-2.0
 * Binary heap by (time, order of arrival). */
#include "config.h"

#include <stdlib.h>

#include "wan/due_heap.h"

static int before(const struct ap_due *a, const struct ap_due *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->number < b->number;
}

int ap_due_heap_put(struct ap_due_heap *h, int64_t due_ns, void *item)
{
    if (h->n == h->capacity) {
        size_t capacity = h->capacity > 0 ? 2 * h->capacity : 1024;
        void *more = realloc(h->entries, capacity * sizeof *h->entries);
        if (more == NULL)
            return -1;
        h->entries = more;
        h->capacity = capacity;
    }
    struct ap_due new = {due_ns, h->number++, item};
    size_t i = h->n++;
    for (; i > 0 && before(&new, &h->entries[(i - 1) / 2]); i = (i - 1) / 2)
        h->entries[i] = h->entries[(i - 1) / 2];
    h->entries[i] = new;
    return 0;
}

const struct ap_due *ap_due_heap_first(const struct ap_due_heap *h)
{
    return h->n > 0 ? &h->entries[0] : NULL;
}

void *ap_due_heap_take(struct ap_due_heap *h)
{
    if (h->n == 0)
        return NULL;
    void *item = h->entries[0].item;
    struct ap_due last = h->entries[--h->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && before(&h->entries[child + 1], &h->entries[child]))
            child++;
        if (!before(&h->entries[child], &last))
            break;
        h->entries[i] = h->entries[child];
        i = child;
    }
    if (h->n > 0)
        h->entries[i] = last;
    return item;
}

void ap_due_heap_clear(struct ap_due_heap *h)
{
    free(h->entries);
    *h = (struct ap_due_heap){0};
}
