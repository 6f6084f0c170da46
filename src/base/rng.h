/* SPDX-License-Identifier: Apache-2.0
 * Counter-based random numbers (Philox 4x32-10, Salmon et al., SC'11, by Random123): a value depends only
 * on (seed, stream, counter), never on the order of calls, the rank or the thread. Stateless, thread-safe. */
#ifndef AP_BASE_RNG_H
#define AP_BASE_RNG_H

#include <stdint.h>

/* Streams in use: one number per purpose, so that no two purposes share values. */
enum ap_rng_stream {
    AP_RNG_INIT = 1,
    AP_RNG_DATA_MIX = 2,
    AP_RNG_DATA_SHUFFLE = 3,
    AP_RNG_LINK = 4,
    AP_RNG_PLAN = 5,
    AP_RNG_ROUTES = 6,
    AP_RNG_TEST = 100
};

/* 128 random bits for one counter value. */
void ap_rng_bits(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);
/* Uniform 64-bit integer; uniform double in [0, 1). */
uint64_t ap_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter);
double ap_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter);
/* n standard normal values for counters base, base+1, ... (Box-Muller in fp64, rounded to float). Value i
 * depends only on base + i. */
void ap_rng_normal(uint64_t seed, uint64_t stream, uint64_t base, float *out, int64_t n);

#endif
