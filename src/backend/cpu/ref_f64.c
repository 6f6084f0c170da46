/* SPDX-License-Identifier: Apache-2.0
 * The reference operations for f64 tensors: the oracle for finite differences. */
#include "config.h"

#define REAL         double
#define STAT         double
#define GET(x)       ((double)(x))
#define PUT(x)       ((REAL)(x))
#define REF_STAT_OPS 1
#define REF(op)      ap_ref_f64_##op
#include "backend/cpu/ref_all.h"
