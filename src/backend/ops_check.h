/* SPDX-License-Identifier: Apache-2.0
 * Checks of operation descriptors, shared by all backends: shapes that agree, dtypes that belong together,
 * required tensors present. They look at descriptors only, never at tensor memory. A violation is a bug of
 * the caller: it is logged with the condition that failed and AP_ERR_BUG comes back. */
#ifndef AP_BACKEND_OPS_CHECK_H
#define AP_BACKEND_OPS_CHECK_H

#include "backend/ops.h"
#include "base/status.h"

#define AP_OP_CHECK(op) ap_status ap_check_##op(const struct ap_##op##_args *a);
AP_OPS(AP_OP_CHECK)
#undef AP_OP_CHECK

#endif
