/* SPDX-License-Identifier: Apache-2.0
 * A small CUDA on the host, for tests: the kernels of src/backend/cuda compile against this header as plain
 * C++. Blocks run one after another; the threads of a block are fibres that switch at __syncthreads and at
 * warp-wide operations. What it checks beyond results: warps whose lanes part at a collective, barriers that
 * not all live threads reach, launches beyond the hardware's limits, shared memory that is read before it is
 * written (poisoned with NaN) or written beyond its end, asynchronous copies that nobody waited for, and, in
 * the mode "both", results that depend on the order of threads and blocks. */
#ifndef AP_TESTS_CUDA_EMU_H
#define AP_TESTS_CUDA_EMU_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct uint3 {
    unsigned x, y, z;
};
struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

/* Of the running fibre; set by the scheduler at every switch. */
extern uint3 emu_thread_idx, emu_block_idx;
extern dim3 emu_block_dim, emu_grid_dim;
#define threadIdx emu_thread_idx
#define blockIdx  emu_block_idx
#define blockDim  emu_block_dim
#define gridDim   emu_grid_dim

/* Memory of the running block: static shared memory by order of declaration, dynamic as launched. */
void *emu_shared(size_t size);
void *emu_shared_dynamic(void);
#define AP_SHARED(type, name) type &name = *static_cast<type *>(emu_shared(sizeof(type)))
#define AP_SHARED_DYN(name)   unsigned char *name = static_cast<unsigned char *>(emu_shared_dynamic())

/* Collectives. */
#define EMU_SLOT 64 /* bytes that a lane hands over in one operation */
enum emu_op { EMU_OP_SHFL, EMU_OP_BALLOT, EMU_OP_MATCH, EMU_OP_SYNCWARP, EMU_OP_MMA, EMU_OP_LDMATRIX };
/* Hand over size bytes and wait for the warp; afterwards slot i of the result is what lane i gave. */
const unsigned char (*emu_exchange(enum emu_op op, unsigned mask, const void *mine, size_t size))[EMU_SLOT];
void emu_syncthreads(void);
int emu_syncthreads_count(int predicate);
static inline int emu_lane(void)
{
    return (int)(emu_thread_idx.x + emu_block_dim.x * (emu_thread_idx.y + emu_block_dim.y * emu_thread_idx.z)) & 31;
}

#define __syncthreads() emu_syncthreads()
static inline int __syncthreads_or(int p)
{
    return emu_syncthreads_count(p != 0) > 0;
}
static inline int __syncthreads_count(int p)
{
    return emu_syncthreads_count(p != 0);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    (void)emu_exchange(EMU_OP_SYNCWARP, mask, "", 1);
}

template <typename T> static inline T emu_shfl(unsigned mask, T value, int source)
{
    static_assert(sizeof(T) <= EMU_SLOT, "shuffled value too large");
    T out;
    memcpy(&out, emu_exchange(EMU_OP_SHFL, mask, &value, sizeof(T))[source & 31], sizeof(T));
    return out;
}
template <typename T> static inline T __shfl_sync(unsigned m, T v, int src)
{
    return emu_shfl(m, v, src);
}
template <typename T> static inline T __shfl_xor_sync(unsigned m, T v, int x)
{
    return emu_shfl(m, v, emu_lane() ^ x);
}
template <typename T> static inline T __shfl_up_sync(unsigned m, T v, int d)
{
    T got = emu_shfl(m, v, emu_lane() - d);
    return emu_lane() >= d ? got : v;
}
template <typename T> static inline T __shfl_down_sync(unsigned m, T v, int d)
{
    T got = emu_shfl(m, v, emu_lane() + d);
    return emu_lane() + d < 32 ? got : v;
}
static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    unsigned char p = predicate != 0;
    const unsigned char(*s)[EMU_SLOT] = emu_exchange(EMU_OP_BALLOT, mask, &p, 1);
    unsigned out = 0;
    for (int i = 0; i < 32; i++)
        out |= (unsigned)(mask >> i & 1u & s[i][0]) << i;
    return out;
}
static inline int __any_sync(unsigned mask, int p)
{
    return __ballot_sync(mask, p) != 0;
}
static inline int __all_sync(unsigned mask, int p)
{
    return __ballot_sync(mask, !p) == 0;
}
static inline unsigned __match_any_sync(unsigned mask, int value)
{
    const unsigned char(*s)[EMU_SLOT] = emu_exchange(EMU_OP_MATCH, mask, &value, sizeof(value));
    unsigned out = 0;
    for (int i = 0; i < 32; i++)
        out |= (unsigned)(memcmp(s[i], &value, sizeof(value)) == 0) << i;
    return out & mask;
}
static inline int atomicAdd(int *p, int v)
{
    int old = *p;
    *p += v;
    return old;
}

/* Arithmetic. */
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __uint_as_float(unsigned x)
{
    float f;
    memcpy(&f, &x, 4);
    return f;
}
static inline unsigned __float_as_uint(float x)
{
    unsigned u;
    memcpy(&u, &x, 4);
    return u;
}
template <typename T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

/* Launches. */
typedef struct emu_stream_st *cudaStream_t;
void emu_launch(const void *kernel, const char *name, dim3 grid, dim3 block, size_t smem, cudaStream_t stream,
                const std::function<void()> &body);
#define AP_LAUNCH(kernel, grid, block, smem, stream, ...)                                                              \
    emu_launch(reinterpret_cast<const void *>(kernel), #kernel, (grid), (block), (smem), (stream),                     \
               [&] { (kernel)(__VA_ARGS__); })

/* Tensor core and asynchronous copy (the same names as in cu_mma.h). */
void emu_mma_bf16(float d[4], const unsigned a[4], const unsigned b[2]);
void emu_ldmatrix(unsigned *out, int count, int trans, const void *row);
void emu_cp_async(void *shared, const void *global, int size, int valid);
void emu_cp_commit(void);
void emu_cp_wait(int keep);

/* Runtime. */
typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719
} cudaError_t;
enum cudaMemcpyKind { cudaMemcpyDefault = 4 };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
#define cudaStreamNonBlocking 1u
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device);
cudaError_t cudaMalloc(void **p, size_t size);
cudaError_t cudaFree(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t size, enum cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *dst, int value, size_t size, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
typedef struct emu_event_st *cudaEvent_t;
#define cudaEventDisableTiming 2u
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaDeviceGetPCIBusId(char *name, int size, int device);
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t e);
cudaError_t emu_func_attribute(const void *kernel, enum cudaFuncAttribute attr, int value);
template <typename F> static inline cudaError_t cudaFuncSetAttribute(F *kernel, enum cudaFuncAttribute attr, int value)
{
    return emu_func_attribute(reinterpret_cast<const void *>(kernel), attr, value);
}

#include "emu_lt.h"

#endif
