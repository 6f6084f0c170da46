/* SPDX-License-Identifier: Apache-2.0
 * The one place that knows what compiles the kernels: nvcc, or a C++ compiler with the emulator of
 * tests/cuda/emu. Kernels use these names only:
 *   AP_LAUNCH(kernel, grid, block, smem, stream, arguments...)   a launch; template kernels in parentheses
 *   AP_SHARED(type, name)      shared memory of the block, `name` is a reference to a `type`
 *   AP_SHARED_DYN(name)        the launch's dynamic shared memory as unsigned char *, 16-byte aligned */
#ifndef AP_BACKEND_CUDA_PLATFORM_H
#define AP_BACKEND_CUDA_PLATFORM_H

#include <stdint.h>

#ifdef AP_CUDA_EMU
#include "emu.h"
#else
#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <cublasLt.h>

#define AP_LAUNCH(kernel, grid, block, smem, stream, ...) kernel<<<(grid), (block), (smem), (stream)>>>(__VA_ARGS__)
#define AP_SHARED(type, name)                                                                                          \
    __shared__ __align__(16) unsigned char name##_bytes[sizeof(type)];                                                 \
    type &name = *reinterpret_cast<type *>(name##_bytes)
#define AP_SHARED_DYN(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#define AP_WARP 32
#define AP_FULL 0xffffffffu

/* A bf16 number; arithmetic happens in float. */
struct bf16 {
    uint16_t bits;
};

static __device__ __forceinline__ float to_float(float x)
{
    return x;
}
static __device__ __forceinline__ float to_float(bf16 x)
{
    return __uint_as_float((unsigned)x.bits << 16);
}

/* Two floats as a pair of bf16, x in the low half; round to nearest even. */
static __device__ __forceinline__ uint32_t pack_bf16(float x, float y)
{
#ifdef AP_CUDA_EMU
    unsigned a = __float_as_uint(x), b = __float_as_uint(y);
    a = x != x ? 0x7fffu : (a + 0x7fffu + (a >> 16 & 1u)) >> 16;
    b = y != y ? 0x7fffu : (b + 0x7fffu + (b >> 16 & 1u)) >> 16;
    return a | b << 16;
#else
    __nv_bfloat162 p = __floats2bfloat162_rn(x, y);
    return (uint32_t)__bfloat16_as_ushort(p.x) | (uint32_t)__bfloat16_as_ushort(p.y) << 16;
#endif
}

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
    return bf16{(uint16_t)pack_bf16(x, 0.0f)};
}

/* V neighbouring elements moved as one access: V is 1 or what fits 16 bytes. */
template <typename T, int V> struct pack {
    T v[V];
};
template <> struct pack<float, 4> {
    union {
        uint4 raw;
        float v[4];
    };
};
template <> struct pack<bf16, 8> {
    union {
        uint4 raw;
        bf16 v[8];
    };
};
template <typename T> constexpr int pack_width = 16 / (int)sizeof(T);

template <typename T, int V> static __device__ __forceinline__ pack<T, V> load(const T *p)
{
    return *reinterpret_cast<const pack<T, V> *>(p);
}
template <typename T, int V> static __device__ __forceinline__ void store(T *p, const pack<T, V> &x)
{
    *reinterpret_cast<pack<T, V> *>(p) = x;
}

/* Sum over the lanes; every lane gets the same bits. */
template <typename T> static __device__ __forceinline__ T warp_sum(T x)
{
#pragma unroll
    for (int step = AP_WARP / 2; step > 0; step /= 2)
        x += __shfl_xor_sync(AP_FULL, x, step);
    return x;
}

static __device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int step = AP_WARP / 2; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(AP_FULL, x, step));
    return x;
}

/* Smallest over a block of THREADS; every thread gets it. space: one int per warp, free for use on entry. */
template <int THREADS> static __device__ __forceinline__ int block_min(int x, int *space)
{
#pragma unroll
    for (int step = AP_WARP / 2; step > 0; step /= 2)
        x = min(x, __shfl_xor_sync(AP_FULL, x, step));
    if (threadIdx.x % AP_WARP == 0)
        space[threadIdx.x / AP_WARP] = x;
    __syncthreads();
    for (int i = 0; i < THREADS / AP_WARP; i++)
        x = min(x, space[i]);
    return x;
}

/* Sum over a group of LANES threads (one warp, or a block of LANES threads); every thread gets the same bits.
 * space: one float per warp, free for use on entry; not needed for a warp. */
template <int LANES> static __device__ __forceinline__ float group_sum(float x, float *space)
{
    x = warp_sum(x);
    if (LANES == AP_WARP)
        return x;
    __syncthreads();
    if (threadIdx.x % AP_WARP == 0)
        space[threadIdx.x / AP_WARP] = x;
    __syncthreads();
    x = 0.0f;
#pragma unroll
    for (int i = 0; i < LANES / AP_WARP; i++)
        x += space[i];
    return x;
}

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

#endif
