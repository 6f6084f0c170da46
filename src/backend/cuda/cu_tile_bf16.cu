/* SPDX-License-Identifier: Apache-2.0
 * Tiled products in bf16 on tensor cores: blocks of 128 x 128 results, 8 warps of 64 x 32, 32 of k at a time,
 * a ring of 3 tiles in shared memory filled by asynchronous copies. Tiles keep the layout of memory; the
 * transposing forms of ldmatrix make the fragments. Rows of a tile are padded by 16 bytes, which makes
 * ldmatrix free of bank conflicts. f32 accumulation, ascending k. */
#include "config.h"

#include "backend/cuda/cu_mma.h"
#include "backend/cuda/cu_tile.h"

#define THREADS 256
#define BM      128
#define BN      128
#define BK      32
#define STAGES  3
#define PAD     8
#define WM      64 /* rows and columns of a warp */
#define WN      32

/* One tile of one operand: [R][BK] or [BK][R]. */
template <int R, bool K_FAST> struct operand {
    static constexpr int stride = (K_FAST ? BK : R) + PAD;
    static constexpr int size = (K_FAST ? R : BK) * stride;
};

struct mma_view {
    const bf16 *a, *b;
    int64_t rows, cols, ks; /* valid from (0, 0) of this block */
    int64_t lda, ldb;
    bool vec_a, vec_b;
};

template <bool TA, bool TB> static __device__ __forceinline__ void fetch(const mma_view &v, int64_t k, bf16 *a, bf16 *b)
{
    int64_t left = v.ks - k;
    if (TA)
        load_tile<BK, BM, THREADS>(a, operand<BM, false>::stride, v.a + k * v.lda, v.lda, left, v.rows, v.vec_a);
    else
        load_tile<BM, BK, THREADS>(a, operand<BM, true>::stride, v.a + k, v.lda, v.rows, left, v.vec_a);
    if (TB)
        load_tile<BN, BK, THREADS>(b, operand<BN, true>::stride, v.b + k, v.ldb, v.cols, left, v.vec_b);
    else
        load_tile<BK, BN, THREADS>(b, operand<BN, false>::stride, v.b + k * v.ldb, v.ldb, left, v.cols, v.vec_b);
}

template <bool TA, bool TB>
static __device__ __forceinline__ void multiply(const bf16 *a, const bf16 *b, int m, int n, float d[WM / 16][WN / 8][4])
{
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
        uint32_t fa[WM / 16][4], fb[WN / 16][2][2];
#pragma unroll
        for (int i = 0; i < WM / 16; i++) {
            if (TA)
                load_a_trans(fa[i], a, operand<BM, false>::stride, m + 16 * i, k);
            else
                load_a(fa[i], a, operand<BM, true>::stride, m + 16 * i, k);
        }
#pragma unroll
        for (int j = 0; j < WN / 16; j++) {
            if (TB)
                load_b2(fb[j], b, operand<BN, true>::stride, n + 16 * j, k);
            else
                load_b2_trans(fb[j], b, operand<BN, false>::stride, n + 16 * j, k);
        }
#pragma unroll
        for (int i = 0; i < WM / 16; i++) {
#pragma unroll
            for (int j = 0; j < WN / 8; j++)
                mma_bf16(d[i][j], fa[i], fb[j / 2][j % 2]);
        }
    }
}

template <bool TA, bool TB>
static __device__ __forceinline__ void run_mma(const mma_view &v, float d[WM / 16][WN / 8][4])
{
    AP_SHARED_DYN(space);
    constexpr int A = operand<BM, !TA>::size, B = operand<BN, TB>::size;
    bf16 *ring = reinterpret_cast<bf16 *>(space);
    int warp = (int)threadIdx.x / AP_WARP, m = warp / (BN / WN) * WM, n = warp % (BN / WN) * WN;
    int64_t steps = (v.ks + BK - 1) / BK;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        if (i < steps)
            fetch<TA, TB>(v, (int64_t)i * BK, ring + i * (A + B), ring + i * (A + B) + A);
        cp_commit();
    }
    for (int64_t step = 0; step < steps; step++) {
        cp_wait<STAGES - 2>();
        __syncthreads();
        int64_t next = step + STAGES - 1;
        bf16 *to = ring + (int)(next % STAGES) * (A + B), *from = ring + (int)(step % STAGES) * (A + B);
        if (next < steps)
            fetch<TA, TB>(v, next * BK, to, to + A);
        cp_commit();
        multiply<TA, TB>(from, from + A, m, n, d);
    }
}

struct mma_out {
    void *c;
    int64_t rows, cols, ldc;
    int accumulate, f32;
};

static __device__ __forceinline__ void put(const mma_out &o, int64_t row, int64_t col, float x)
{
    if (row >= o.rows || col >= o.cols)
        return;
    int64_t at = row * o.ldc + col;
    if (o.f32) {
        float *p = (float *)o.c + at;
        *p = o.accumulate ? *p + x : x;
    } else {
        bf16 *p = (bf16 *)o.c + at;
        *p = from_float<bf16>(o.accumulate ? to_float(*p) + x : x);
    }
}

static __device__ __forceinline__ void write_out(const mma_out &o, float d[WM / 16][WN / 8][4])
{
    int warp = (int)threadIdx.x / AP_WARP, lane = (int)threadIdx.x % AP_WARP;
    int64_t m = warp / (BN / WN) * WM + lane / 4, n = warp % (BN / WN) * WN + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < WM / 16; i++) {
#pragma unroll
        for (int j = 0; j < WN / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                put(o, m + 16 * i + e / 2 * 8, n + 8 * j + e % 2, d[i][j][e]);
        }
    }
}

/* Rows of groups: block (n tile, row tile). vec: bit 0 for A, bit 1 for B. */
template <bool TB> static __global__ void __launch_bounds__(THREADS) rows_mma_kernel(cu_tile_args t, int vec)
{
    cu_tile_place p = find_tile<BM>(t.offsets, t.groups, t.m, (int)blockIdx.y);
    if (p.group < 0)
        return;
    int64_t n0 = (int64_t)blockIdx.x * BN, row = p.first + p.row;
    const bf16 *b = (const bf16 *)t.b + p.group * t.stride;
    mma_view v = {(const bf16 *)t.a + row * t.k,
                  b + n0 * (TB ? t.k : 1),
                  p.count - p.row,
                  t.n - n0,
                  t.k,
                  t.k,
                  TB ? t.k : t.n,
                  (vec & 1) != 0,
                  (vec & 2) != 0};
    float d[WM / 16][WN / 8][4] = {};
    run_mma<false, TB>(v, d);
    int64_t at = row * t.n + n0;
    write_out({t.out_f32 ? (void *)((float *)t.c + at) : (void *)((bf16 *)t.c + at), v.rows, v.cols, t.n, t.accumulate,
               t.out_f32},
              d);
}

/* Sums over the rows of a group: block (n tile, m tile, group). */
template <bool TB> static __global__ void __launch_bounds__(THREADS) cols_mma_kernel(cu_tile_args t, int vec)
{
    int64_t first = t.offsets ? t.offsets[blockIdx.z] : 0, last = t.offsets ? t.offsets[blockIdx.z + 1] : t.k;
    int64_t n0 = (int64_t)blockIdx.x * BN, m0 = (int64_t)blockIdx.y * BM;
    if (first == last && t.accumulate)
        return;
    const bf16 *b = (const bf16 *)t.b;
    mma_view v = {(const bf16 *)t.a + first * t.m + m0,
                  TB ? b + n0 * t.k : b + first * t.n + n0,
                  t.m - m0,
                  t.n - n0,
                  last - first,
                  t.m,
                  TB ? t.k : t.n,
                  (vec & 1) != 0,
                  (vec & 2) != 0};
    float d[WM / 16][WN / 8][4] = {};
    run_mma<true, TB>(v, d);
    int64_t at = blockIdx.z * t.stride + m0 * t.n + n0;
    write_out({t.out_f32 ? (void *)((float *)t.c + at) : (void *)((bf16 *)t.c + at), v.rows, v.cols, t.n, t.accumulate,
               t.out_f32},
              d);
}

template <bool TA, bool TB> static ap_status launch(struct cu_stream *s, const struct cu_tile_args *t, int vec)
{
    size_t bytes = STAGES * (size_t)(operand<BM, !TA>::size + operand<BN, TB>::size) * sizeof(bf16);
    if (TA) {
        dim3 grid((unsigned)ceil_div(t->n, BN), (unsigned)ceil_div(t->m, BM), (unsigned)t->groups);
        AP_TRY(cu_allow_shared(s, cols_mma_kernel<TB>, bytes));
        AP_LAUNCH((cols_mma_kernel<TB>), grid, THREADS, bytes, s->id, *t, vec);
    } else {
        dim3 grid((unsigned)ceil_div(t->n, BN), (unsigned)(ceil_div(t->m, BM) + (t->offsets ? t->groups : 0)));
        AP_TRY(cu_allow_shared(s, rows_mma_kernel<TB>, bytes));
        AP_LAUNCH((rows_mma_kernel<TB>), grid, THREADS, bytes, s->id, *t, vec);
    }
    return cu_launched("tiled product");
}

ap_status cu_tile_bf16(struct cu_stream *s, const struct cu_tile_args *t)
{
    /* Rows of an operand in memory: A [m][k] or [k][m], B [n][k] or [k][n]. */
    int64_t row_a = t->trans_a ? t->m : t->k, row_b = t->trans_b ? t->k : t->n;
    bool vec_a = aligned16(t->a) && row_a % 8 == 0;
    bool vec_b =
        aligned16(t->b) && row_b % 8 == 0 && (t->trans_a || t->stride % 8 == 0); /* trans_a: the stride is C's */
    int vec = (vec_a ? 1 : 0) | (vec_b ? 2 : 0);
    if (ceil_div(t->m, BM) + t->groups > 65535 || (t->offsets && t->trans_a && t->trans_b))
        return AP_ERR_UNSUPPORTED;
    if (t->trans_a)
        return t->trans_b ? launch<true, true>(s, t, vec) : launch<true, false>(s, t, vec);
    return t->trans_b ? launch<false, true>(s, t, vec) : launch<false, false>(s, t, vec);
}
