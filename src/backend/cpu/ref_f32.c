/* SPDX-License-Identifier: Apache-2.0
 * The reference operations for f32 tensors. */
#include "config.h"

#define REAL         float
#define STAT         float
#define GET(x)       ((double)(x))
#define PUT(x)       ((REAL)(x))
#define REF_STAT_OPS 1
#define REF(op)      ap_ref_f32_##op
#include "backend/cpu/ref_all.h"
