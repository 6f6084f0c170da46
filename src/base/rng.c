/* SPDX-License-Identifier: Apache-2.0
 * Philox 4x32-10: key = seed, counter = (counter, stream). */
#include "config.h"

#include <math.h>
#include <Random123/philox.h>

#include "base/rng.h"

void ap_rng_bits(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4])
{
    philox4x32_ctr_t c = {{(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    philox4x32_key_t k = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t r = philox4x32(c, k);
    for (int i = 0; i < 4; i++)
        out[i] = r.v[i];
}

uint64_t ap_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t b[4];
    ap_rng_bits(seed, stream, counter, b);
    return (uint64_t)b[1] << 32 | b[0];
}

/* 53 random bits: 0, 2^-53, ... 1 - 2^-53. */
static double to_unit(uint32_t low, uint32_t high)
{
    return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53;
}

double ap_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t b[4];
    ap_rng_bits(seed, stream, counter, b);
    return to_unit(b[0], b[1]);
}

/* Values 2p and 2p+1 come from counter p: Box-Muller makes two normals of two uniforms. */
static void normal_pair(uint64_t seed, uint64_t stream, uint64_t pair, double z[2])
{
    uint32_t b[4];
    ap_rng_bits(seed, stream, pair, b);
    double u = 1.0 - to_unit(b[0], b[1]); /* (0, 1]: the logarithm is finite */
    double angle = 6.283185307179586476925 * to_unit(b[2], b[3]);
    double radius = sqrt(-2.0 * log(u));
    z[0] = radius * cos(angle);
    z[1] = radius * sin(angle);
}

void ap_rng_normal(uint64_t seed, uint64_t stream, uint64_t base, float *out, int64_t n)
{
    double z[2];
    int64_t i = 0;
    if (n > 0 && base % 2 == 1) {
        normal_pair(seed, stream, base / 2, z);
        out[i++] = (float)z[1];
    }
    for (; i + 1 < n; i += 2) {
        normal_pair(seed, stream, (base + (uint64_t)i) / 2, z);
        out[i] = (float)z[0];
        out[i + 1] = (float)z[1];
    }
    if (i < n) {
        normal_pair(seed, stream, (base + (uint64_t)i) / 2, z);
        out[i] = (float)z[0];
    }
}
