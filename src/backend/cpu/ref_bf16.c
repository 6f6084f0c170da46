/* SPDX-License-Identifier: Apache-2.0
 * The reference operations for bf16 tensors: loaded exactly, computed in double like the others, rounded to nearest
 * even on store (by way of f32). */
#include "config.h"

#include "backend/cpu/reference.h"

/* A struct, so that an element that is used without conversion does not compile. */
struct ap_ref_bf16 {
    uint16_t bits;
};

static inline double get(struct ap_ref_bf16 x)
{
    return (double)ap_bf16_to_f32(x.bits);
}

static inline struct ap_ref_bf16 put(double x)
{
    return (struct ap_ref_bf16){ap_bf16_from_f32((float)x)};
}

#define REAL         struct ap_ref_bf16
#define STAT         float
#define GET(x)       get(x)
#define PUT(x)       put(x)
#define REF_STAT_OPS 0
#define REF(op)      ap_ref_bf16_##op
#include "backend/cpu/ref_all.h"
