/* SPDX-License-Identifier: Apache-2.0
 * Blocked f32 GEMM (Goto & van de Geijn 2008): panels of op(a) and op(b) are packed so that the innermost
 * kernel reads both with unit stride and keeps an MR x NR tile of c in registers. Tiles at the edges are
 * padded with zeros and go through the same kernel, so that an element's bits do not depend on where it lies. */
#include "config.h"

#include <string.h>

#include "backend/cpu/k_gemm.h"

/* Block sizes: a block of op(a) (BLOCK_M x BLOCK_K) stays in L2, a panel of op(b) (BLOCK_K x NR) in L1.
 * BLOCK_M is a multiple of every MR, BLOCK_N of every NR. */
#define BLOCK_M       144
#define BLOCK_N       512
#define BLOCK_K       256
#define MR_MAX        12
#define DIRECT_PANELS 4
#define NR_MAX        32
#define PACK_SLACK    16 /* elements a pack may write behind its block */

typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float vec16 __attribute__((vector_size(64), aligned(4), may_alias));

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
typedef void pack_panel(float *to, const float *from, int64_t lines, int64_t k, int64_t step, int along);

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

/* The stores of 8 values overlap the next group when WIDTH is no multiple of 8: they run in ascending order,
 * and the last one ends at most 7 values behind the panel (PACK_SLACK). */
#define DEFINE_PACK(name, attributes, WIDTH)                                                                           \
    attributes static void name(float *to, const float *from, int64_t lines, int64_t k, int64_t step, int along)       \
    {                                                                                                                  \
        enum { CHUNKS = (WIDTH + 7) / 8 };                                                                             \
        int64_t p = 0;                                                                                                 \
        if (along) {                                                                                                   \
            for (; lines == WIDTH && p < k; p++)                                                                       \
                memcpy(to + p * WIDTH, from + p * step, WIDTH * sizeof(float));                                        \
            for (; p < k; p++) {                                                                                       \
                for (int64_t j = 0; j < WIDTH; j++)                                                                    \
                    to[p * WIDTH + j] = j < lines ? from[p * step + j] : 0.0f;                                         \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        for (; p + 8 <= k; p += 8) {                                                                                   \
            vec8 r[CHUNKS][8];                                                                                         \
            _Pragma("GCC unroll 4") for (int c = 0; c < CHUNKS; c++)                                                   \
            {                                                                                                          \
                _Pragma("GCC unroll 8") for (int q = 0; q < 8; q++) r[c][q] =                                          \
                    8 * c + q < WIDTH && 8 * c + q < lines ? *(const vec8 *)(from + (8 * c + q) * step + p)            \
                                                           : (vec8){0};                                                \
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
                to[p * WIDTH + j] = j < lines ? from[j * step + p] : 0.0f;                                             \
        }                                                                                                              \
    }

struct ap_sgemm_kernel {
    micro_kernel *kernel;
    pack_panel *pack_a, *pack_b;
    int mr, nr;
};

DEFINE_MICRO(micro_generic, , vec4, 4, 2)
DEFINE_PACK(pack4_generic, , 4)
DEFINE_PACK(pack8_generic, , 8)
static const struct ap_sgemm_kernel generic = {micro_generic, pack4_generic, pack8_generic, 4, 8};

#if defined(__x86_64__)
#define AVX2   __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma")))
DEFINE_MICRO(micro_avx2, AVX2, vec8, 6, 2)
DEFINE_PACK(pack6_avx2, AVX2, 6)
DEFINE_PACK(pack16_avx2, AVX2, 16)
DEFINE_MICRO(micro_avx512, AVX512, vec16, 12, 2)
DEFINE_PACK(pack12_avx512, AVX512, 12)
DEFINE_PACK(pack32_avx512, AVX512, 32)
static const struct ap_sgemm_kernel avx2 = {micro_avx2, pack6_avx2, pack16_avx2, 6, 16};
static const struct ap_sgemm_kernel avx512 = {micro_avx512, pack12_avx512, pack32_avx512, 12, 32};
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

size_t ap_sgemm_scratch(void)
{
    return sizeof(float) * (BLOCK_K * (BLOCK_M + BLOCK_N) + 2 * PACK_SLACK + MR_MAX * NR_MAX);
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Pack count lines into panels of `width`. */
static void pack(pack_panel *panel, int width, float *to, const float *from, int64_t count, int64_t k, int64_t ld,
                 int along)
{
    for (int64_t i = 0; i < count; i += width)
        panel(to + i * k, from + i * (along ? 1 : ld), min64(width, count - i), k, ld, along);
}

/* A block of op(a): packed, or where it stands. */
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

void ap_sgemm_blocked(const struct ap_sgemm_kernel *v, const struct ap_sgemm *g, void *scratch)
{
    float *pa = scratch, *pb = pa + BLOCK_M * BLOCK_K + PACK_SLACK;
    float *tile = pb + BLOCK_N * BLOCK_K + PACK_SLACK;
    int64_t a_line = g->trans_a ? 1 : g->lda, a_step = g->trans_a ? g->lda : 1;
    int64_t b_line = g->trans_b ? g->ldb : 1, b_step = g->trans_b ? 1 : g->ldb;
    /* Packing op(a) pays when each packed value is used by several panels of op(b). */
    int direct = g->n <= DIRECT_PANELS * v->nr;
    if (g->k == 0 && !g->accumulate) {
        for (int64_t i = 0; i < g->m; i++)
            memset(g->c + i * g->ldc, 0, (size_t)g->n * sizeof(float));
    }
    for (int64_t j = 0; j < g->n; j += BLOCK_N) {
        int64_t n = min64(BLOCK_N, g->n - j);
        for (int64_t p = 0; p < g->k; p += BLOCK_K) {
            int64_t k = min64(BLOCK_K, g->k - p);
            pack(v->pack_b, v->nr, pb, g->b + j * b_line + p * b_step, n, k, g->ldb, !g->trans_b);
            for (int64_t i = 0; i < g->m; i += BLOCK_M) {
                int64_t m = min64(BLOCK_M, g->m - i);
                struct block block = {g->a + i * a_line + p * a_step, a_line, a_step, 0};
                if (!direct) {
                    pack(v->pack_a, v->mr, pa, block.a, m, k, g->lda, g->trans_a);
                    block = (struct block){pa, 1, v->mr, 1};
                }
                multiply(v, &block, pb, m, n, k, g->c + i * g->ldc + j, g->ldc, g->accumulate || p > 0, tile);
            }
        }
    }
}
