/* SPDX-License-Identifier: Apache-2.0
 * Planned memory: count first, allocate once, then hand out the same addresses every step. */
#include "config.h"

#include <string.h>

#include "backend/arena.h"
#include "base/log.h"

#define ALIGN 64u

void ap_arena_init(struct ap_arena *a, struct ap_backend *be, const char *label)
{
    memset(a, 0, sizeof(*a));
    a->backend = be;
    a->label = label;
}

ap_tensor ap_arena_tensor(struct ap_arena *a, ap_dtype t, int ndim, const int64_t *shape)
{
    ap_tensor out = {NULL, t, ndim, {1, 1, 1, 1}};
    for (int i = 0; i < ndim && i < AP_MAX_DIMS; i++)
        out.shape[i] = shape[i];
    size_t bytes = (size_t)ap_tensor_count(&out) * ap_dtype_size(t);
    /* An empty tensor still gets an address of its own: NULL means "absent". */
    bytes = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    if (a->base && a->used + bytes > a->size) {
        ap_error_log("arena %s: the plan of %zu bytes is exceeded", a->label, a->size);
        return out;
    }
    out.data = a->base ? (void *)(a->base + a->used) : (void *)(uintptr_t)(ALIGN + a->used);
    a->used += bytes;
    if (a->used > a->peak)
        a->peak = a->used;
    return out;
}

size_t ap_arena_mark(const struct ap_arena *a)
{
    return a->used;
}

void ap_arena_reset(struct ap_arena *a, size_t mark)
{
    a->used = mark;
}

ap_status ap_arena_fix(struct ap_arena *a, struct ap_error *err)
{
    void *mem = NULL;
    size_t size = a->peak ? a->peak : ALIGN;
    ap_status status = a->backend->vt->alloc(a->backend, size, &mem);
    if (status != AP_OK)
        return ap_error_set(err, status, "no memory for %zu bytes of %s", size, a->label);
    a->base = mem;
    a->size = size;
    a->used = 0;
    return AP_OK;
}

void ap_arena_free(struct ap_arena *a)
{
    if (!a || !a->base)
        return;
    a->backend->vt->release(a->backend, a->base);
    a->base = NULL;
    a->used = a->peak = a->size = 0;
}
