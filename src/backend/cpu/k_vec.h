/* SPDX-License-Identifier: Apache-2.0
 * Template: vectors of VL floats by the compiler's vector extension, loads and stores of rows of f32 and bf16 and of
 * their tails, exp.
 * Contraction to fused multiply-add is the compiler's default and wanted; nothing here needs -ffast-math. */
#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend/cpu/kernels.h"
#include "backend/cpu/pairwise.h"
#include "base/bf16.h"

typedef float vf __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * VL), aligned(2), may_alias));
typedef double vd8 __attribute__((vector_size(64), aligned(8)));

static inline vf vset(float x)
{
    return (vf){0} + x;
}

/* bf16: the upper half of an f32. The compilers' own conversions take twice the instructions on AVX2. */
static inline vf hwiden(vh x)
{
#if defined(__x86_64__) && VL == 8
    return (vf)((vu)_mm256_cvtepu16_epi32((__m128i)x) << 16);
#else
    return (vf)(__builtin_convertvector(x, vu) << 16);
#endif
}

/* To nearest even; NaN, whose bits without the sign are above infinity's, stays NaN. */
static inline vh hround(vf x)
{
    vu b = (vu)x, nan = (vu)((b & 0x7fffffffu) > 0x7f800000u);
    vu even = b + 0x7fffu + ((b >> 16) & 1u);
    vu half = ((even & ~nan) | ((b | 0x400000u) & nan)) >> 16;
#if defined(__x86_64__) && VL == 8
    return (vh)_mm_packus_epi32(_mm256_castsi256_si128((__m256i)half), _mm256_extracti128_si256((__m256i)half, 1));
#else
    return __builtin_convertvector(half, vh);
#endif
}

/* The first min(left, VL) values at p, the rest zero. */
static inline vf vld_f32(const float *p, int64_t left)
{
    if (left >= VL)
        return *(const vf *)p;
    float t[VL] = {0};
    memcpy(t, p, (size_t)left * sizeof(float));
    return *(const vf *)t;
}

static inline vf vld_bf16(const uint16_t *p, int64_t left)
{
    if (left >= VL)
        return hwiden(*(const vh *)p);
    uint16_t t[VL] = {0};
    memcpy(t, p, (size_t)left * sizeof(uint16_t));
    return hwiden(*(const vh *)t);
}

static inline void vst_f32(float *p, vf x, int64_t left)
{
    if (left >= VL)
        *(vf *)p = x;
    else
        memcpy(p, &x, (size_t)left * sizeof(float));
}

/* All lanes, around the caches: for results that are not read soon. p: aligned to the vector. */
static inline void vst_stream(float *p, vf x)
{
#if defined(__x86_64__) && VL == 16
    _mm512_stream_ps(p, (__m512)x);
#elif defined(__x86_64__) && VL == 8
    _mm256_stream_ps(p, (__m256)x);
#else
    *(vf *)p = x;
#endif
}

/* Before others read what was streamed. */
static inline void vstream_end(void)
{
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

static inline int valigned(const void *p)
{
    return (uintptr_t)p % sizeof(vf) == 0;
}

static inline void vst_bf16(uint16_t *p, vf x, int64_t left)
{
    vh half = hround(x);
    if (left >= VL)
        *(vh *)p = half;
    else
        memcpy(p, &half, (size_t)left * sizeof(uint16_t));
}

/* Memory of f32 or bf16 and vectors of f32. */
#define vld(p, left)                                                                                                   \
    _Generic((p), const float *: vld_f32, float *: vld_f32, const uint16_t *: vld_bf16, uint16_t *: vld_bf16)(p, left)
#define vst(p, x, left) _Generic((p), float *: vst_f32, uint16_t *: vst_bf16)(p, x, left)

/* One value. */
static inline float one_f32(float x)
{
    return x;
}
#define one(x)    _Generic((x), float: one_f32, uint16_t: ap_bf16_to_f32)(x)
#define put(p, x) _Generic((p), float *: put_f32, uint16_t *: put_bf16)(p, x)
static inline void put_f32(float *p, float x)
{
    *p = x;
}
static inline void put_bf16(uint16_t *p, float x)
{
    *p = ap_bf16_from_f32(x);
}

/* Lane by lane: a where mask is -1, b where it is 0. */
static inline vf vselect(vi mask, vf a, vf b)
{
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

static inline vf vmax(vf a, vf b)
{
    return vselect(a > b, a, b);
}

static inline vf vsqrt(vf x)
{
#if defined(__x86_64__) && VL == 16
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__x86_64__) && VL == 8
    return (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(__x86_64__) && VL == 4
    return (vf)_mm_sqrt_ps((__m128)x);
#else
    vf r;
    for (int j = 0; j < VL; j++)
        r[j] = sqrtf(x[j]);
    return r;
#endif
}

/* Sum and maximum of the lanes, always in the same tree. */
static inline float vsum(vf x)
{
    float t[VL];
    memcpy(t, &x, sizeof(t));
    for (int half = VL / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; j++)
            t[j] += t[j + half];
    }
    return t[0];
}

static inline float vtop(vf x)
{
    float t[VL];
    memcpy(t, &x, sizeof(t));
    for (int half = VL / 2; half > 0; half /= 2) {
        for (int j = 0; j < half; j++)
            t[j] = t[j] > t[j + half] ? t[j] : t[j + half];
    }
    return t[0];
}

/* e^x to about 1 unit in the last place (polynomial of Cephes' expf after x = n ln 2 + r). Below -87.33 it
 * is 0, above 88.37 it stays at e^88.37; NaN stays NaN. */
static inline vf vexp(vf x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    vi tiny = x < -87.33f;
    vf y = vselect(tiny, vset(-87.33f), x);
    y = vselect(y > 88.37f, vset(88.37f), y);
    vf n = (y * 1.44269504088896341f + magic) - magic;
    vf r = (y - n * 0.693359375f) - n * -2.12194440e-4f;
    vf p = vset(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    vi exponent = __builtin_convertvector(n, vi);
    vf scale = (vf)((exponent + 127) << 23);
    return vselect(tiny, vset(0), p * scale);
}

static inline vf vsigmoid(vf x)
{
    return 1.0f / (1.0f + vexp(-x));
}

static inline int64_t kmin(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
