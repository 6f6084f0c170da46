/* SPDX-License-Identifier: Apache-2.0
 * oneDNN products whose second operand is in the library's own packed layout, for the replay: operands are
 * arbitrary, so no packing takes place and b is read as if it were packed. */
#ifndef AP_BACKEND_CPU_PACKED_H
#define AP_BACKEND_CPU_PACKED_H

#include "backend/cpu/k_gemm.h"
#include "base/status.h"

struct ap_packed_table;

/* One thread's primitives, by shape number. NULL without oneDNN or memory. destroy(NULL) is fine. */
struct ap_packed_table *ap_packed_create(void);
void ap_packed_destroy(struct ap_packed_table *t);
/* g->b: memory of the packed size (k n elements plus padding to tiles). Types as in
 * ap_dnnl_sgemm. */
ap_status ap_packed_sgemm(struct ap_packed_table *t, int64_t shape, const struct ap_sgemm *g);

#endif
