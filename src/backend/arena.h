/* SPDX-License-Identifier: Apache-2.0
 * Planned memory. An arena first runs in planning mode, where allocations only count; then it is fixed and
 * the same sequence of calls hands out the memory. No allocation happens inside a step. One thread. */
#ifndef AP_BACKEND_ARENA_H
#define AP_BACKEND_ARENA_H

#include <stddef.h>
#include "backend/backend.h"

struct ap_arena {
    struct ap_backend *backend; /* borrowed */
    uint8_t *base;              /* NULL while planning */
    size_t used, peak, size;    /* bytes */
    const char *label;
};

/* Start planning. */
void ap_arena_init(struct ap_arena *a, struct ap_backend *be, const char *label);
/* Memory for shape elements of t, 64-byte aligned. While planning returns a non-NULL address that must not
 * be touched. After fix: AP_ERR_BUG in the returned tensor (data NULL) if the plan is exceeded. */
ap_tensor ap_arena_tensor(struct ap_arena *a, ap_dtype t, int ndim, const int64_t *shape);
/* Mark and return to a mark: stack discipline for scratch. */
size_t ap_arena_mark(const struct ap_arena *a);
void ap_arena_reset(struct ap_arena *a, size_t mark);
/* Allocate the peak seen and leave planning mode; used = 0 afterwards. */
ap_status ap_arena_fix(struct ap_arena *a, struct ap_error *err);
void ap_arena_free(struct ap_arena *a);

#endif
