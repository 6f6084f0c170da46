/* SPDX-License-Identifier: Apache-2.0
 * Blocked GEMM in f32 arithmetic (Goto & van de Geijn 2008): panels of op(a) and op(b) are packed so that the innermost
 * kernel reads both with unit stride and keeps an MR x NR tile of c in registers. Tiles at the edges are
 * padded with zeros and go through the same kernel, so that an element's bits do not depend on where it lies. bf16
 * operands are widened while they are packed, a bf16 result is summed in f32 and rounded once. */
#include "config.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "backend/cpu/k_gemm.h"
#include "base/bf16.h"

/* Block sizes: a block of op(a) (BLOCK_M x BLOCK_K) stays in L2, a panel of op(b) (BLOCK_K x NR) in L1.
 * BLOCK_M is a multiple of every MR, BLOCK_N of every NR. */
#define BLOCK_M 144
#define BLOCK_N 512
#define BLOCK_K 256
#define SUM_M   (4 * BLOCK_M) /* rows of f32 sums of a bf16 product */
#define MR_MAX  12
/* Panels of op(b) up to which op(a) is read where it stands: its lines along k, or across. */
#define DIRECT_ALONG  24
#define DIRECT_ACROSS 8
#define NR_MAX        32
#define PACK_SLACK    16 /* elements a pack may write behind its block */

typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float vec16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t bits8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint16_t half8 __attribute__((vector_size(16), aligned(2), may_alias));

/* One tile: c[MR,NR] (= or +=) sum over k of op(a)[i][p] b[p][j], b packed. op(a)[i][p] = a[i * line + p * step];
 * packed: line 1, step MR. Only `rows` lines of a exist; the last one stands in for the others, whose results
 * the caller drops. */
typedef void micro_kernel(int64_t k, const float *a, int64_t line, int64_t step, int64_t rows, const float *b, float *c,
                          int64_t ldc, int accumulate);

#define DEFINE_MICRO(name, attributes, vec, MR, NV)                                                                    \
    attributes static inline __attribute__((always_inline)) void name##_body(                                          \
        int64_t k, const float *a, int64_t line, int64_t step, int64_t rows, const float *b, float *c, int64_t ldc,    \
        int accumulate)                                                                                                \
    {                                                                                                                  \
        enum { LANES = sizeof(vec) / sizeof(float) };                                                                  \
        vec acc[MR][NV];                                                                                               \
        const float *from[MR];                                                                                         \
        _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++)                                                          \
        {                                                                                                              \
            from[i] = a + (i < rows ? i : rows - 1) * line;                                                            \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) acc[i][j] = (vec){0};                                 \
        }                                                                                                              \
        for (int64_t p = 0; p < k; p++) {                                                                              \
            vec bv[NV];                                                                                                \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) bv[j] = *(const vec *)(b + j * LANES);                \
            _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++)                                                      \
            {                                                                                                          \
                _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++) acc[i][j] += from[i][p * step] * bv[j];           \
            }                                                                                                          \
            b += NV * LANES;                                                                                           \
        }                                                                                                              \
        _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++)                                                          \
        {                                                                                                              \
            _Pragma("GCC unroll 4") for (int j = 0; j < NV; j++)                                                       \
            {                                                                                                          \
                vec *to = (vec *)(c + i * ldc + j * LANES);                                                            \
                if (accumulate)                                                                                        \
                    acc[i][j] += *to;                                                                                  \
                *to = acc[i][j];                                                                                       \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    attributes static void name(int64_t k, const float *a, int64_t line, int64_t step, int64_t rows, const float *b,   \
                                float *c, int64_t ldc, int accumulate)                                                 \
    {                                                                                                                  \
        if (line == 1 && step == MR && rows == MR)                                                                     \
            name##_body(k, a, 1, MR, MR, b, c, ldc, accumulate);                                                       \
        else if (step == 1)                                                                                            \
            name##_body(k, a, line, 1, rows, b, c, ldc, accumulate);                                                   \
        else                                                                                                           \
            name##_body(k, a, line, step, rows, b, c, ldc, accumulate);                                                \
    }

/* Pack `lines` <= WIDTH lines of k values into one panel: k groups of WIDTH values, missing lines zero.
 * step: elements between values of neighbouring lines at one k (along == 0: between lines; 1: along k). */
typedef void pack_panel(float *to, const void *from, int64_t lines, int64_t k, int64_t step, int along);

/* Rows r[0..7] of 8 values become columns. */
#define TRANSPOSE8(r)                                                                                                  \
    do {                                                                                                               \
        vec8 u[8], w[8];                                                                                               \
        _Pragma("GCC unroll 4") for (int q = 0; q < 4; q++)                                                            \
        {                                                                                                              \
            u[2 * q] = __builtin_shufflevector((r)[2 * q], (r)[2 * q + 1], 0, 8, 1, 9, 4, 12, 5, 13);                  \
            u[2 * q + 1] = __builtin_shufflevector((r)[2 * q], (r)[2 * q + 1], 2, 10, 3, 11, 6, 14, 7, 15);            \
        }                                                                                                              \
        _Pragma("GCC unroll 2") for (int q = 0; q < 2; q++)                                                            \
        {                                                                                                              \
            w[4 * q] = __builtin_shufflevector(u[4 * q], u[4 * q + 2], 0, 1, 8, 9, 4, 5, 12, 13);                      \
            w[4 * q + 1] = __builtin_shufflevector(u[4 * q], u[4 * q + 2], 2, 3, 10, 11, 6, 7, 14, 15);                \
            w[4 * q + 2] = __builtin_shufflevector(u[4 * q + 1], u[4 * q + 3], 0, 1, 8, 9, 4, 5, 12, 13);              \
            w[4 * q + 3] = __builtin_shufflevector(u[4 * q + 1], u[4 * q + 3], 2, 3, 10, 11, 6, 7, 14, 15);            \
        }                                                                                                              \
        _Pragma("GCC unroll 4") for (int q = 0; q < 4; q++)                                                            \
        {                                                                                                              \
            (r)[q] = __builtin_shufflevector(w[q], w[q + 4], 0, 1, 2, 3, 8, 9, 10, 11);                                \
            (r)[q + 4] = __builtin_shufflevector(w[q], w[q + 4], 4, 5, 6, 7, 12, 13, 14, 15);                          \
        }                                                                                                              \
    } while (0)

/* Loads of the two element types, one value and eight; bf16 is the upper half of an f32. The last is bf16 on AVX2,
 * where the compilers' own conversion takes twice the instructions. */
#define ONE_f32(p)        (*(p))
#define ONE_bf16(p)       ap_bf16_to_f32(*(p))
#define ONE_bf16avx2(p)   ap_bf16_to_f32(*(p))
#define EIGHT_f32(p)      (*(const vec8 *)(p))
#define EIGHT_bf16(p)     ((vec8)(__builtin_convertvector(*(const half8 *)(p), bits8) << 16))
#define EIGHT_bf16avx2(p) ((vec8)((bits8)_mm256_cvtepu16_epi32((__m128i) * (const half8 *)(p)) << 16))

/* Eight values below 65536 at p. */
#define NARROW_bf16(p, x) (*(half8 *)(p) = __builtin_convertvector(x, half8))
#define NARROW_bf16avx2(p, x)                                                                                          \
    do {                                                                                                               \
        __m256i wide = (__m256i)(x);                                                                                   \
        *(half8 *)(p) = (half8)_mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));      \
    } while (0)

/* The stores of 8 values overlap the next group when WIDTH is no multiple of 8: they run in ascending order,
 * and the last one ends at most 7 values behind the panel (PACK_SLACK). */
#define DEFINE_PACK(name, attributes, WIDTH, element, kind)                                                            \
    attributes static void name(float *to, const void *lines_at, int64_t lines, int64_t k, int64_t step, int along)    \
    {                                                                                                                  \
        enum { CHUNKS = (WIDTH + 7) / 8 };                                                                             \
        const element *from = lines_at;                                                                                \
        int64_t p = 0;                                                                                                 \
        if (along) {                                                                                                   \
            for (; lines == WIDTH && p < k; p++) {                                                                     \
                _Pragma("GCC unroll 4") for (int c = 0; c + 8 <= WIDTH; c += 8) * (vec8 *)(to + p * WIDTH + c) =       \
                    EIGHT_##kind(from + p * step + c);                                                                 \
                _Pragma("GCC unroll 8") for (int c = WIDTH / 8 * 8; c < WIDTH; c++) to[p * WIDTH + c] =                \
                    ONE_##kind(from + p * step + c);                                                                   \
            }                                                                                                          \
            for (; p < k; p++) {                                                                                       \
                for (int64_t j = 0; j < WIDTH; j++)                                                                    \
                    to[p * WIDTH + j] = j < lines ? ONE_##kind(from + p * step + j) : 0.0f;                            \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        for (; p + 8 <= k; p += 8) {                                                                                   \
            vec8 r[CHUNKS][8];                                                                                         \
            _Pragma("GCC unroll 4") for (int c = 0; c < CHUNKS; c++)                                                   \
            {                                                                                                          \
                _Pragma("GCC unroll 8") for (int q = 0; q < 8; q++) r[c][q] =                                          \
                    8 * c + q < WIDTH && 8 * c + q < lines ? EIGHT_##kind(from + (8 * c + q) * step + p) : (vec8){0};  \
                TRANSPOSE8(r[c]);                                                                                      \
            }                                                                                                          \
            _Pragma("GCC unroll 8") for (int q = 0; q < 8; q++)                                                        \
            {                                                                                                          \
                _Pragma("GCC unroll 4") for (int c = 0; c < CHUNKS; c++) * (vec8 *)(to + (p + q) * WIDTH + 8 * c) =    \
                    r[c][q];                                                                                           \
            }                                                                                                          \
        }                                                                                                              \
        for (; p < k; p++) {                                                                                           \
            for (int64_t j = 0; j < WIDTH; j++)                                                                        \
                to[p * WIDTH + j] = j < lines ? ONE_##kind(from + j * step + p) : 0.0f;                                \
        }                                                                                                              \
    }

/* A block of f32 sums and a bf16 matrix: sums = matrix (widen), matrix = sums rounded to nearest even (narrow). */
typedef void exchange(float *sums, int64_t ld, uint16_t *c, int64_t ldc, int64_t rows, int64_t cols);

#define DEFINE_EXCHANGE(isa, attributes, half)                                                                         \
    attributes static void widen_##isa(float *sums, int64_t ld, uint16_t *c, int64_t ldc, int64_t rows, int64_t cols)  \
    {                                                                                                                  \
        for (int64_t i = 0; i < rows; i++) {                                                                           \
            int64_t j = 0;                                                                                             \
            for (; j + 8 <= cols; j += 8)                                                                              \
                *(vec8 *)(sums + i * ld + j) = EIGHT_##half(c + i * ldc + j);                                          \
            for (; j < cols; j++)                                                                                      \
                sums[i * ld + j] = ap_bf16_to_f32(c[i * ldc + j]);                                                     \
        }                                                                                                              \
    }                                                                                                                  \
    attributes static void narrow_##isa(float *sums, int64_t ld, uint16_t *c, int64_t ldc, int64_t rows, int64_t cols) \
    {                                                                                                                  \
        for (int64_t i = 0; i < rows; i++) {                                                                           \
            int64_t j = 0;                                                                                             \
            for (; j + 8 <= cols; j += 8) {                                                                            \
                bits8 b = *(const bits8 *)(sums + i * ld + j);                                                         \
                bits8 nan = (bits8)((vec8)b != (vec8)b), even = b + 0x7fffu + ((b >> 16) & 1u);                        \
                NARROW_##half(c + i * ldc + j, ((even & ~nan) | ((b | 0x400000u) & nan)) >> 16);                       \
            }                                                                                                          \
            for (; j < cols; j++)                                                                                      \
                c[i * ldc + j] = ap_bf16_from_f32(sums[i * ld + j]);                                                   \
        }                                                                                                              \
    }

/* pack_*[0] reads f32, pack_*[1] bf16. */
struct ap_sgemm_kernel {
    micro_kernel *kernel;
    pack_panel *pack_a[2], *pack_b[2];
    exchange *widen, *narrow;
    int mr, nr;
};

#define DEFINE_PACKS(isa, attributes, WIDTH, half)                                                                     \
    DEFINE_PACK(pack##WIDTH##_##isa, attributes, WIDTH, float, f32)                                                    \
    DEFINE_PACK(pack##WIDTH##_##isa##_bf16, attributes, WIDTH, uint16_t, half)
#define PACKS(isa, WIDTH)   {pack##WIDTH##_##isa, pack##WIDTH##_##isa##_bf16}
#define KERNEL(isa, MR, NR) {micro_##isa, PACKS(isa, MR), PACKS(isa, NR), widen_##isa, narrow_##isa, MR, NR}

DEFINE_MICRO(micro_generic, , vec4, 4, 2)
DEFINE_PACKS(generic, , 4, bf16)
DEFINE_PACKS(generic, , 8, bf16)
DEFINE_EXCHANGE(generic, , bf16)
static const struct ap_sgemm_kernel generic = KERNEL(generic, 4, 8);

#if defined(__x86_64__)
#define AVX2   __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma")))
DEFINE_MICRO(micro_avx2, AVX2, vec8, 6, 2)
DEFINE_PACKS(avx2, AVX2, 6, bf16avx2)
DEFINE_PACKS(avx2, AVX2, 16, bf16avx2)
DEFINE_EXCHANGE(avx2, AVX2, bf16avx2)
DEFINE_MICRO(micro_avx512, AVX512, vec16, 12, 2)
DEFINE_PACKS(avx512, AVX512, 12, bf16avx2)
DEFINE_PACKS(avx512, AVX512, 32, bf16avx2)
DEFINE_EXCHANGE(avx512, AVX512, bf16avx2)
static const struct ap_sgemm_kernel avx2 = KERNEL(avx2, 6, 16);
static const struct ap_sgemm_kernel avx512 = KERNEL(avx512, 12, 32);
#endif

const struct ap_sgemm_kernel *ap_sgemm_choose(enum ap_isa isa)
{
#if defined(__x86_64__)
    if (isa != AP_ISA_GENERIC)
        return isa == AP_ISA_AVX512 ? &avx512 : &avx2;
#else
    (void)isa;
#endif
    return &generic;
}

/* Pack A, pack B, one tile, sums of a bf16 product. */
size_t ap_sgemm_scratch(void)
{
    return sizeof(float) * (BLOCK_K * (BLOCK_M + BLOCK_N) + 2 * PACK_SLACK + MR_MAX * NR_MAX + SUM_M * BLOCK_N);
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* One operand of a product: values of a line are `step` apart, lines `line`. */
struct operand {
    const void *at;
    int64_t line, step;
    int bf16;
};

/* Pack count lines into panels of `width`. */
static void pack(pack_panel *const panel[2], int width, float *to, const struct operand *o, int64_t count, int64_t k)
{
    int along = o->line == 1 && o->step != 1;
    for (int64_t i = 0; i < count; i += width)
        panel[o->bf16](to + i * k, ap_sgemm_at(o->at, o->bf16, i * o->line), min64(width, count - i), k,
                       along ? o->step : o->line, along);
}

/* A block of op(a): packed, or f32 where it stands. */
struct block {
    const float *a;
    int64_t line, step;
    int packed;
};

/* All tiles of c[m,n] from a block of op(a) and a packed block of op(b). */
static void multiply(const struct ap_sgemm_kernel *v, const struct block *a, const float *pb, int64_t m, int64_t n,
                     int64_t k, float *c, int64_t ldc, int accumulate, float *tile)
{
    for (int64_t j = 0; j < n; j += v->nr) {
        for (int64_t i = 0; i < m; i += v->mr) {
            int64_t rows = min64(v->mr, m - i), cols = min64(v->nr, n - j);
            const float *from = a->a + i * (a->packed ? k : a->line);
            float *to = c + i * ldc + j;
            if (rows == v->mr && cols == v->nr) {
                v->kernel(k, from, a->line, a->step, rows, pb + j * k, to, ldc, accumulate);
                continue;
            }
            v->kernel(k, from, a->line, a->step, a->packed ? v->mr : rows, pb + j * k, tile, v->nr, 0);
            for (int64_t r = 0; r < rows; r++) {
                for (int64_t s = 0; s < cols; s++)
                    to[r * ldc + s] = accumulate ? to[r * ldc + s] + tile[r * v->nr + s] : tile[r * v->nr + s];
            }
        }
    }
}

/* One product of up to BLOCK_N columns, c f32. direct: op(a) is read where it stands. */
struct columns {
    const struct ap_sgemm_kernel *v;
    struct operand a, b;
    int64_t m, n, k;
    float *c;
    int64_t ldc;
    int accumulate, direct;
};

static void run_columns(const struct columns *g, float *scratch)
{
    float *pa = scratch, *pb = pa + BLOCK_M * BLOCK_K + PACK_SLACK;
    float *tile = pb + BLOCK_N * BLOCK_K + PACK_SLACK;
    for (int64_t p = 0; p < g->k; p += BLOCK_K) {
        int64_t k = min64(BLOCK_K, g->k - p);
        struct operand b = g->b;
        b.at = ap_sgemm_at(b.at, b.bf16, p * b.step);
        pack(g->v->pack_b, g->v->nr, pb, &b, g->n, k);
        for (int64_t i = 0; i < g->m; i += BLOCK_M) {
            int64_t m = min64(BLOCK_M, g->m - i);
            struct operand a = g->a;
            a.at = ap_sgemm_at(a.at, a.bf16, i * a.line + p * a.step);
            struct block block = {a.at, a.line, a.step, 0};
            if (!g->direct) {
                pack(g->v->pack_a, g->v->mr, pa, &a, m, k);
                block = (struct block){pa, 1, g->v->mr, 1};
            }
            multiply(g->v, &block, pb, m, g->n, k, g->c + i * g->ldc, g->ldc, g->accumulate || p > 0, tile);
        }
    }
}

/* c bf16: the sums of SUM_M rows stay f32 until all of k is in, and are rounded once. */
static void run_columns_bf16(const struct columns *whole, uint16_t *c, float *scratch)
{
    struct columns g = *whole;
    g.c = scratch + BLOCK_K * (BLOCK_M + BLOCK_N) + 2 * PACK_SLACK + MR_MAX * NR_MAX;
    g.ldc = BLOCK_N;
    for (int64_t i = 0; i < whole->m; i += SUM_M, c += SUM_M * whole->ldc) {
        g.m = min64(SUM_M, whole->m - i);
        g.a.at = ap_sgemm_at(whole->a.at, whole->a.bf16, i * whole->a.line);
        if (g.accumulate)
            g.v->widen(g.c, g.ldc, c, whole->ldc, g.m, g.n);
        else if (g.k == 0)
            memset(g.c, 0, sizeof(float) * BLOCK_N * (size_t)g.m);
        run_columns(&g, scratch);
        g.v->narrow(g.c, g.ldc, c, whole->ldc, g.m, g.n);
    }
}

void ap_sgemm_blocked(const struct ap_sgemm_kernel *v, const struct ap_sgemm *g, void *scratch)
{
    struct columns part = {.v = v,
                           .a = {g->a, g->trans_a ? 1 : g->lda, g->trans_a ? g->lda : 1, g->a_bf16},
                           .m = g->m,
                           .k = g->k,
                           .ldc = g->ldc,
                           .accumulate = g->accumulate};
    struct operand b = {g->b, g->trans_b ? g->ldb : 1, g->trans_b ? 1 : g->ldb, g->b_bf16};
    /* Packing op(a) pays when each packed value is used by several panels of op(b). */
    part.direct = g->n <= (g->trans_a ? DIRECT_ACROSS : DIRECT_ALONG) * v->nr && !g->a_bf16;
    if (g->k == 0 && !g->accumulate && !g->c_bf16) {
        for (int64_t i = 0; i < g->m; i++)
            memset((float *)g->c + i * g->ldc, 0, (size_t)g->n * sizeof(float));
    }
    for (int64_t j = 0; j < g->n; j += BLOCK_N) {
        part.n = min64(BLOCK_N, g->n - j);
        part.b = b;
        part.b.at = ap_sgemm_at(b.at, b.bf16, j * b.line);
        if (g->c_bf16) {
            run_columns_bf16(&part, (uint16_t *)g->c + j, scratch);
        } else {
            part.c = (float *)g->c + j;
            run_columns(&part, scratch);
        }
    }
}
