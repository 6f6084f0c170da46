/* SPDX-License-Identifier: Apache-2.0
 * Top-K by one warp over values in shared memory; equal values: the lower index wins, as in the reference. */
#ifndef AP_BACKEND_CUDA_TOPK_H
#define AP_BACKEND_CUDA_TOPK_H

#include "backend/cuda/cu_platform.h"

/* Mark the k largest of c[count] in taken (overwritten). All lanes call it; both arrays are the warp's own. */
static __device__ __forceinline__ void warp_top_k(const double *c, int count, int k, unsigned char *taken)
{
    int lane = (int)threadIdx.x % AP_WARP;
    for (int i = lane; i < count; i += AP_WARP)
        taken[i] = 0;
    __syncwarp();
    for (int round = 0; round < k; round++) {
        int best = -1;
        double high = 0.0;
        for (int i = lane; i < count; i += AP_WARP) {
            if (!taken[i] && (best < 0 || c[i] > high)) {
                best = i;
                high = c[i];
            }
        }
#pragma unroll
        for (int step = AP_WARP / 2; step > 0; step /= 2) {
            int best2 = __shfl_xor_sync(AP_FULL, best, step);
            double high2 = __shfl_xor_sync(AP_FULL, high, step);
            if (best2 >= 0 && (best < 0 || high2 > high || (high2 == high && best2 < best))) {
                best = best2;
                high = high2;
            }
        }
        /* Lane 0 decides: with NaN among the values the lanes may disagree. */
        best = __shfl_sync(AP_FULL, best, 0);
        if (lane == 0 && best >= 0)
            taken[best] = 1;
        __syncwarp();
    }
}

#endif
