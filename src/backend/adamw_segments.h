/* SPDX-License-Identifier: Apache-2.0
 * One segment of an AdamW call as a call of its own, for backends on the host. */
#ifndef AP_BACKEND_ADAMW_SEGMENTS_H
#define AP_BACKEND_ADAMW_SEGMENTS_H

#include "backend/ops.h"

static inline void ap_adamw_view(ap_tensor *t, int64_t begin, int64_t count)
{
    if (t->data)
        *t = ap_tensor_1d((char *)t->data + (size_t)begin * ap_dtype_size(t->dtype), t->dtype, count);
}

/* Segment i of a, whose tensors must be checked. */
static inline struct ap_adamw_args ap_adamw_segment_args(const struct ap_adamw_args *a, int64_t i)
{
    struct ap_adamw_args s = *a;
    const struct ap_adamw_segment *part = &a->segments[i];
    ap_tensor *views[] = {&s.w, &s.g, &s.m, &s.v, &s.w_new, &s.m_new, &s.v_new, &s.w_bf16};
    for (size_t k = 0; k < sizeof(views) / sizeof(views[0]); k++)
        ap_adamw_view(views[k], part->begin, part->count);
    if (!part->decay)
        s.weight_decay = 0;
    s.segments = NULL;
    s.segment_count = 0;
    return s;
}

#endif
