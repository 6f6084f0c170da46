/* SPDX-License-Identifier: Apache-2.0
 * bf16, the upper half of an f32, one value at a time. */
#ifndef AP_BASE_BF16_H
#define AP_BASE_BF16_H

#include <stdint.h>
#include <string.h>

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t ap_bf16_from_f32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float ap_bf16_to_f32(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

#endif
