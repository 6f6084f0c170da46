/* SPDX-License-Identifier: Apache-2.0
 * Element types: sizes and names. */
#include "config.h"

#include <string.h>

#include "base/dtype.h"

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [AP_F32] = {"f32", 4}, [AP_F64] = {"f64", 8}, [AP_BF16] = {"bf16", 2}, [AP_I32] = {"i32", 4},
    [AP_I64] = {"i64", 8}, [AP_U8] = {"u8", 1},   [AP_U16] = {"u16", 2},
};

#define TYPE_COUNT (sizeof types / sizeof types[0])

size_t ap_dtype_size(ap_dtype t)
{
    return (size_t)t < TYPE_COUNT ? types[t].size : 0;
}

ap_dtype ap_dtype_full(ap_dtype t)
{
    return t == AP_BF16 ? AP_F32 : t;
}

const char *ap_dtype_name(ap_dtype t)
{
    return (size_t)t < TYPE_COUNT ? types[t].name : "unknown";
}

int ap_dtype_parse(const char *name, ap_dtype *t_p)
{
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        if (strcmp(name, types[i].name) == 0) {
            *t_p = (ap_dtype)i;
            return 0;
        }
    }
    return -1;
}
