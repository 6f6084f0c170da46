/* SPDX-License-Identifier: Apache-2.0
 * Tiled products in f32: blocks of 128 x 64 results, 8 x 4 a thread, 16 of k at a time through shared
 * memory, the next 16 prefetched into registers. Every result is one thread's sum in ascending k. */
#include "config.h"

#include "backend/cuda/cu_tile.h"

#define THREADS 256
#define BM      128
#define BN      64
#define BK      16

struct tile_space {
    float a[BK][BM + 4], b[BK][BN + 4];
};

/* Element (r, k) of a BR x BK panel: neighbours in memory go to neighbouring threads. */
template <int BR, bool K_FAST> struct panel {
    float v[BR * BK / THREADS];
    static __device__ __forceinline__ int row_of(int i)
    {
        return K_FAST ? i / BK : i % BR;
    }
    static __device__ __forceinline__ int k_of(int i)
    {
        return K_FAST ? i % BK : i / BR;
    }
    /* p points at (0, 0); element (r, k) is p[r * row_step + k * k_step]. */
    __device__ __forceinline__ void fetch(const float *p, int64_t row_step, int64_t k_step, int64_t rows, int64_t ks)
    {
#pragma unroll
        for (int j = 0; j < BR * BK / THREADS; j++) {
            int i = (int)threadIdx.x + j * THREADS, r = row_of(i), k = k_of(i);
            v[j] = r < rows && k < ks ? p[r * row_step + k * k_step] : 0.0f;
        }
    }
    template <typename S> __device__ __forceinline__ void put(S &shared) const
    {
#pragma unroll
        for (int j = 0; j < BR * BK / THREADS; j++) {
            int i = (int)threadIdx.x + j * THREADS;
            shared[k_of(i)][row_of(i)] = v[j];
        }
    }
};

static __device__ __forceinline__ void multiply(const tile_space &sh, int ty, int tx, float sum[8][4])
{
#pragma unroll
    for (int k = 0; k < BK; k++) {
        float x[8], y[4];
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[i] = sh.a[k][ty * 8 + i];
#pragma unroll
        for (int j = 0; j < 4; j++)
            y[j] = sh.b[k][tx * 4 + j];
#pragma unroll
        for (int i = 0; i < 8; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++)
                sum[i][j] += x[i] * y[j];
        }
    }
}

struct tile_view {
    const float *a, *b; /* (0, 0) of this block */
    float *c;
    int64_t rows, cols, ks; /* valid from there */
    int64_t a_row, a_k, b_col, b_k, ldc;
};

template <bool TA, bool TB> static __device__ void run_tile(const tile_view &v, int accumulate)
{
    AP_SHARED(tile_space, sh);
    int ty = (int)threadIdx.x / 16, tx = (int)threadIdx.x % 16;
    float sum[8][4] = {};
    panel<BM, !TA> pa;
    panel<BN, TB> pb;
    pa.fetch(v.a, v.a_row, v.a_k, v.rows, v.ks);
    pb.fetch(v.b, v.b_col, v.b_k, v.cols, v.ks);
    for (int64_t k = 0; k < v.ks; k += BK) {
        __syncthreads();
        pa.put(sh.a);
        pb.put(sh.b);
        __syncthreads();
        int64_t next = k + BK;
        if (next < v.ks) {
            pa.fetch(v.a + next * v.a_k, v.a_row, v.a_k, v.rows, v.ks - next);
            pb.fetch(v.b + next * v.b_k, v.b_col, v.b_k, v.cols, v.ks - next);
        }
        multiply(sh, ty, tx, sum);
    }
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 4; j++) {
            int64_t r = ty * 8 + i, c = tx * 4 + j;
            if (r < v.rows && c < v.cols) {
                float *out = v.c + r * v.ldc + c;
                *out = accumulate ? *out + sum[i][j] : sum[i][j];
            }
        }
    }
}

/* Rows of groups: block (n tile, row tile). */
template <bool TB> static __global__ void __launch_bounds__(THREADS) rows_kernel(cu_tile_args t)
{
    cu_tile_place p = find_tile<BM>(t.offsets, t.groups, t.m, (int)blockIdx.y);
    if (p.group < 0)
        return;
    int64_t n0 = (int64_t)blockIdx.x * BN, row = p.first + p.row;
    const float *b = (const float *)t.b + p.group * t.stride;
    tile_view v = {(const float *)t.a + row * t.k,
                   b + n0 * (TB ? t.k : 1),
                   (float *)t.c + row * t.n + n0,
                   p.count - p.row,
                   t.n - n0,
                   t.k,
                   t.k,
                   1,
                   TB ? t.k : 1,
                   TB ? 1 : t.n,
                   t.n};
    run_tile<false, TB>(v, t.accumulate);
}

/* Sums over the rows of a group: block (n tile, m tile, group). */
template <bool TB> static __global__ void __launch_bounds__(THREADS) cols_kernel(cu_tile_args t)
{
    int64_t first = t.offsets ? t.offsets[blockIdx.z] : 0, last = t.offsets ? t.offsets[blockIdx.z + 1] : t.k;
    int64_t n0 = (int64_t)blockIdx.x * BN, m0 = (int64_t)blockIdx.y * BM;
    if (first == last && t.accumulate)
        return;
    const float *b = (const float *)t.b;
    tile_view v = {(const float *)t.a + first * t.m + m0,
                   TB ? b + n0 * t.k : b + first * t.n + n0,
                   (float *)t.c + blockIdx.z * t.stride + m0 * t.n + n0,
                   t.m - m0,
                   t.n - n0,
                   last - first,
                   1,
                   t.m,
                   TB ? t.k : 1,
                   TB ? 1 : t.n,
                   t.n};
    run_tile<true, TB>(v, t.accumulate);
}

ap_status cu_tile_f32(struct cu_stream *s, const struct cu_tile_args *t)
{
    dim3 rows((unsigned)ceil_div(t->n, BN), (unsigned)(ceil_div(t->m, BM) + (t->offsets ? t->groups : 0)));
    dim3 cols((unsigned)ceil_div(t->n, BN), (unsigned)ceil_div(t->m, BM), (unsigned)t->groups);
    if (rows.y > 65535 || cols.z > 65535 || (t->offsets && t->trans_a && t->trans_b))
        return AP_ERR_UNSUPPORTED;
    if (t->trans_a && t->trans_b)
        AP_LAUNCH((cols_kernel<true>), cols, THREADS, 0, s->id, *t);
    else if (t->trans_a)
        AP_LAUNCH((cols_kernel<false>), cols, THREADS, 0, s->id, *t);
    else if (t->trans_b)
        AP_LAUNCH((rows_kernel<true>), rows, THREADS, 0, s->id, *t);
    else
        AP_LAUNCH((rows_kernel<false>), rows, THREADS, 0, s->id, *t);
    return cu_launched("tiled product");
}
