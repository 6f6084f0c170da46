/* SPDX-License-Identifier: Apache-2.0
 * Pieces of the tensor-core attention kernels: loads of rows of one head into padded tiles, products of tiles,
 * and the step from scores to operands. A warp owns 16 rows of the stationary side. */
#ifndef AP_BACKEND_CUDA_ATTN_MMA_H
#define AP_BACKEND_CUDA_ATTN_MMA_H

#include "backend/cuda/cu_attn.h"
#include "backend/cuda/cu_mma.h"

#define LOG2E   1.4426950408889634f
#define LN2     0.6931471805599453f
#define NOTHING 0x7fffffff /* first visible token of a query beyond the end: none */

/* Elements from row to row of a tile that is D wide: 16 bytes of padding make ldmatrix free of bank conflicts. */
template <int D> constexpr int tile_ld = D + 8;

/* Rows of one (sequence, head) by token; NULL where there is nothing to read. */
struct mma_rows {
    const attn_data<bf16> &d;
    const attn_shape &n;
    int64_t base, head;
    __device__ __forceinline__ const bf16 *q(int64_t t, int c) const
    {
        return t < n.len && c < n.n + n.r ? d.q + ((base + t) * n.heads + head) * (n.n + n.r) + c : NULL;
    }
    __device__ __forceinline__ const bf16 *key(int64_t t, int c) const
    {
        if (t >= n.len || c >= n.n + n.r)
            return NULL;
        return c < n.n ? d.kv + ((base + t) * n.heads + head) * (n.n + n.v) + c
                       : d.kr + (base + t) * n.kr_stride + c - n.n;
    }
    __device__ __forceinline__ const bf16 *value(int64_t t, int c) const
    {
        return t < n.len && c < n.v ? d.kv + ((base + t) * n.heads + head) * (n.n + n.v) + n.n + c : NULL;
    }
    __device__ __forceinline__ const bf16 *dout(int64_t t, int c) const
    {
        return t < n.len && c < n.v ? d.dout + ((base + t) * n.heads + head) * n.v + c : NULL;
    }
};

/* ROWS x D elements from at(row, column) into a tile, 16 bytes a copy; zero where at gives NULL. */
template <int ROWS, int D, int THREADS, typename F>
static __device__ __forceinline__ void load_rows(bf16 *tile, const bf16 *any, F at)
{
#pragma unroll
    for (int c = (int)threadIdx.x; c < ROWS * (D / 8); c += THREADS) {
        int row = c / (D / 8), col = c % (D / 8) * 8;
        const bf16 *from = at(row, col);
        cp_async16(tile + row * tile_ld<D> + col, from ? from : any, from ? 16 : 0);
    }
}

/* s [16, N] = rows row .. row+15 of tile a times rows of tile b transposed, both D wide. */
template <int D, int N>
static __device__ __forceinline__ void scores(float s[N / 8][4], const bf16 *a, int row, const bf16 *b)
{
#pragma unroll
    for (int j = 0; j < N / 8; j++)
        s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        uint32_t fa[4];
        load_a(fa, a, tile_ld<D>, row, k);
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            uint32_t fb[2][2];
            load_b2(fb, b, tile_ld<D>, 16 * j, k);
            mma_bf16(s[2 * j], fa, fb[0]);
            mma_bf16(s[2 * j + 1], fa, fb[1]);
        }
    }
}

/* sum [16, D] += p [16, N] (in registers, rounded to bf16) times tile b [N, D]. */
template <int D, int N>
static __device__ __forceinline__ void accumulate(float sum[D / 8][4], const float p[N / 8][4], const bf16 *b)
{
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        uint32_t fa[4] = {pack_bf16(p[2 * k][0], p[2 * k][1]), pack_bf16(p[2 * k][2], p[2 * k][3]),
                          pack_bf16(p[2 * k + 1][0], p[2 * k + 1][1]), pack_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            uint32_t fb[2][2];
            load_b2_trans(fb, b, tile_ld<D>, 16 * j, 16 * k);
            mma_bf16(sum[2 * j], fa, fb[0]);
            mma_bf16(sum[2 * j + 1], fa, fb[1]);
        }
    }
}

/* Two neighbouring results at an even place. */
static __device__ __forceinline__ void put2(bf16 *p, float x, float y)
{
    *reinterpret_cast<uint32_t *>(p) = pack_bf16(x, y);
}

#endif
