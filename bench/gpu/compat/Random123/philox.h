/* SPDX-License-Identifier: Apache-2.0
 * Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) for machines without
 * the Random123 package: the names that src/base/rng.c uses, the same numbers. */
#ifndef AP_BENCH_GPU_PHILOX_H
#define AP_BENCH_GPU_PHILOX_H

#include <stdint.h>

typedef struct {
    uint32_t v[4];
} philox4x32_ctr_t;
typedef struct {
    uint32_t v[2];
} philox4x32_key_t;

static inline philox4x32_ctr_t philox4x32(philox4x32_ctr_t c, philox4x32_key_t k)
{
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c.v[0], b = (uint64_t)0xCD9E8D57u * c.v[2];
        philox4x32_ctr_t next = {
            {(uint32_t)(b >> 32) ^ c.v[1] ^ k.v[0], (uint32_t)b, (uint32_t)(a >> 32) ^ c.v[3] ^ k.v[1], (uint32_t)a}};
        c = next;
        k.v[0] += 0x9E3779B9u;
        k.v[1] += 0xBB67AE85u;
    }
    return c;
}

#endif
