/* SPDX-License-Identifier: Apache-2.0
 * A tensor: a borrowed, dense, row-major view of memory that a backend can reach. Passed by value. */
#ifndef AP_BACKEND_TENSOR_H
#define AP_BACKEND_TENSOR_H

#include <stdint.h>
#include "base/dtype.h"

#define AP_MAX_DIMS 4

typedef struct ap_tensor {
    void *data; /* borrowed; NULL for an optional tensor that is absent */
    ap_dtype dtype;
    int32_t ndim;
    int64_t shape[AP_MAX_DIMS]; /* unused trailing entries are 1 */
} ap_tensor;

static inline int64_t ap_tensor_count(const ap_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++)
        n *= t->shape[i];
    return n;
}
static inline ap_tensor ap_tensor_1d(void *data, ap_dtype t, int64_t a)
{
    return (ap_tensor){data, t, 1, {a, 1, 1, 1}};
}
static inline ap_tensor ap_tensor_2d(void *data, ap_dtype t, int64_t a, int64_t b)
{
    return (ap_tensor){data, t, 2, {a, b, 1, 1}};
}
static inline ap_tensor ap_tensor_3d(void *data, ap_dtype t, int64_t a, int64_t b, int64_t c)
{
    return (ap_tensor){data, t, 3, {a, b, c, 1}};
}

#endif
