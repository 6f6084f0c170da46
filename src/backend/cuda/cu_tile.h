/* SPDX-License-Identifier: Apache-2.0
 * Own tiled products, grouped or not, in two forms:
 *   trans_a = 0: C[rows of group e, :] (+)= A[rows of group e, :] op(B_e), B_e = b + e * stride
 *   trans_a = 1: C_e (+)= A[rows of group e, :]^T op(B)[rows of group e, :], C_e = c + e * stride (k is the row index)
 * offsets [groups + 1] is read on the device: no host synchronisation. NULL: one group with all rows.
 * op(B) is [k, n], stored [n, k] with trans_b; with groups and trans_a, trans_b must be 0. */
#ifndef AP_BACKEND_CUDA_TILE_H
#define AP_BACKEND_CUDA_TILE_H

#include "backend/cuda/cu_backend.h"

struct cu_tile_args {
    const void *a, *b;
    void *c;
    const int32_t *offsets;
    int64_t m, n, k, stride; /* trans_a = 0: m = all rows; trans_a = 1: k = all rows */
    int groups, trans_a, trans_b, accumulate, out_f32;
};

ap_status cu_tile_f32(struct cu_stream *s, const struct cu_tile_args *t);
ap_status cu_tile_bf16(struct cu_stream *s, const struct cu_tile_args *t);

/* What one block works on: rows `first` .. first+count-1 of group `group`, its tile begins at row `row` of
 * them; group = -1: nothing. */
struct cu_tile_place {
    int group;
    int64_t first, count, row;
};

/* Tile number `tile` of the groups' rows cut into tiles of ROWS. Every thread of the block calls it. */
template <int ROWS>
static __device__ __forceinline__ cu_tile_place find_tile(const int32_t *offsets, int groups, int64_t rows, int tile)
{
    AP_SHARED(cu_tile_place, place);
    if (threadIdx.x < AP_WARP) {
        int lane = (int)threadIdx.x, before = 0;
        if (lane == 0)
            place.group = -1;
        __syncwarp();
        for (int base = 0; base < groups; base += AP_WARP) {
            int e = base + lane;
            int64_t first = offsets && e < groups ? offsets[e] : 0, last = !offsets     ? rows
                                                                           : e < groups ? offsets[e + 1]
                                                                                        : 0;
            int mine = e < groups ? (int)((last - first + ROWS - 1) / ROWS) : 0, sum = mine;
#pragma unroll
            for (int step = 1; step < AP_WARP; step *= 2) {
                int other = __shfl_up_sync(AP_FULL, sum, step);
                sum += lane >= step ? other : 0;
            }
            int begin = before + sum - mine;
            if (tile >= begin && tile < begin + mine) {
                place.group = e;
                place.first = first;
                place.count = last - first;
                place.row = (int64_t)(tile - begin) * ROWS;
            }
            before += __shfl_sync(AP_FULL, sum, AP_WARP - 1);
        }
    }
    __syncthreads();
    return place;
}

#endif
