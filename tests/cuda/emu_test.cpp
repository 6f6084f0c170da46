/* SPDX-License-Identifier: Apache-2.0
 * Tests of the emulator itself, each a kernel with one mistake that it must name (the program then ends with
 * code 70), and of the multi-tensor AdamW. Usage: emu_test NAME. */
#include "config.h"

#include "backend/cuda/cu_backend.h"
#include "backend/cuda/cu_mma.h"

static float *memory(size_t count)
{
    void *p = NULL;
    if (cudaMalloc(&p, count * sizeof(float)) != cudaSuccess)
        exit(1);
    return static_cast<float *>(p);
}

static cudaStream_t stream(void)
{
    cudaStream_t s;
    if (cudaSetDevice(0) != cudaSuccess || cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) != cudaSuccess)
        exit(1);
    return s;
}

/* Neighbours read what their neighbours write, with and without a barrier between. */
static __global__ void shift_kernel(float *x, int barrier)
{
    struct space {
        float v[64];
    };
    AP_SHARED(space, sh);
    int t = (int)threadIdx.x;
    sh.v[t] = (float)t;
    if (barrier)
        __syncthreads();
    x[t] = sh.v[(t + 1) % 64];
}

/* Blocks that look at each other. */
static __global__ void blocks_kernel(float *x)
{
    if (threadIdx.x == 0)
        x[blockIdx.x] = x[(blockIdx.x + 1) % gridDim.x] + 1.0f;
}

/* A warp-wide sum that half of the warp does not reach: it ended, or waits at a barrier. */
static __global__ void divergence_kernel(float *x, int barrier)
{
    if (threadIdx.x < 16)
        x[threadIdx.x] = warp_sum(1.0f);
    if (barrier)
        __syncthreads();
}

static __global__ void overflow_kernel(float *x, int count)
{
    AP_SHARED_DYN(space);
    reinterpret_cast<float *>(space)[threadIdx.x + (unsigned)count] = 1.0f;
    x[threadIdx.x] = 0.0f;
}

static __global__ void outside_kernel(float *x, int count)
{
    x[count + (int)threadIdx.x] = 1.0f;
}

/* A copy to shared memory that is read with or without waiting for it. */
static __global__ void copy_kernel(const float *from, float *to, int wait)
{
    struct space {
        float v[32][4];
    };
    AP_SHARED(space, sh);
    int t = (int)threadIdx.x;
    cp_async16(reinterpret_cast<bf16 *>(sh.v[t]), reinterpret_cast<const bf16 *>(from + 4 * t), 16);
    cp_commit();
    if (wait)
        cp_wait<0>();
    to[t] = sh.v[t][1];
}

static int run_shift(int barrier)
{
    float *x = memory(64);
    AP_LAUNCH(shift_kernel, dim3(1), 64, 0, stream(), x, barrier);
    return cudaGetLastError() == cudaSuccess && x[63] == 0.0f && x[5] == 6.0f ? 0 : 1;
}

static int run_copy(int wait)
{
    float *from = memory(128), *to = memory(32);
    for (int i = 0; i < 128; i++)
        from[i] = (float)i;
    AP_LAUNCH(copy_kernel, dim3(1), 32, 0, stream(), from, to, wait);
    return to[7] == 29.0f ? 0 : 70;
}

/* A block of 2048 threads, and more shared memory than was allowed: errors as on a device. */
static int run_limits(void)
{
    float *x = memory(1);
    cudaStream_t s = stream();
    AP_LAUNCH(blocks_kernel, dim3(1), 2048, 0, s, x);
    if (cudaGetLastError() != cudaErrorInvalidConfiguration)
        return 1;
    AP_LAUNCH(blocks_kernel, dim3(1), 32, 100000, s, x);
    return cudaGetLastError() == cudaErrorInvalidValue ? 0 : 1;
}

struct adamw_buffers {
    float *w, *g, *m, *v;
    uint16_t *w16;
};

static adamw_buffers fill(int64_t n)
{
    adamw_buffers b = {memory((size_t)n), memory((size_t)n), memory((size_t)n), memory((size_t)n),
                       reinterpret_cast<uint16_t *>(memory((size_t)n))};
    for (int64_t i = 0; i < n; i++) {
        b.w[i] = (float)(i % 17) - 8.0f;
        b.g[i] = (float)(i % 13) * 0.25f - 1.5f;
        b.m[i] = (float)(i % 7) * 0.125f;
        b.v[i] = (float)(i % 5) * 0.5f;
        b.w16[i] = 0;
    }
    return b;
}

static struct ap_adamw_args arguments(const adamw_buffers &b, int64_t begin, int64_t count, int decay)
{
    struct ap_adamw_args a = {};
    a.w = a.w_new = ap_tensor_1d(b.w + begin, AP_F32, count);
    a.g = ap_tensor_1d(b.g + begin, AP_F32, count);
    a.m = a.m_new = ap_tensor_1d(b.m + begin, AP_F32, count);
    a.v = a.v_new = ap_tensor_1d(b.v + begin, AP_F32, count);
    a.w_bf16 = ap_tensor_1d(b.w16 + begin, AP_BF16, count);
    a.lr = 1e-2;
    a.beta1 = 0.9;
    a.beta2 = 0.95;
    a.eps = 1e-8;
    a.weight_decay = decay ? 0.1 : 0.0;
    a.grad_scale = 0.5;
    a.step = 3;
    return a;
}

/* 150 segments with gaps, one of them of several blocks, in one call against one call each: equal bits. */
static int run_multi(void)
{
    const struct ap_backend_ops *vt = ap_backend_plugin();
    struct ap_backend be = {};
    struct ap_stream *s = NULL;
    struct ap_adamw_segment list[150];
    int64_t n = 0;
    if (vt->open(&be, 0, NULL, NULL) != AP_OK || vt->stream_create(&be, &s) != AP_OK)
        return 1;
    for (int i = 0; i < 150; i++) {
        list[i].begin = n + 3;
        list[i].count = i == 40 ? 20000 : i == 41 ? 0 : 1 + i * 7 % 50;
        list[i].decay = i % 3 == 0;
        n = list[i].begin + list[i].count;
    }
    adamw_buffers one = fill(n), many = fill(n);
    struct ap_adamw_args all = arguments(one, 0, n, 1);
    all.segments = list;
    all.segment_count = 150;
    int bad = vt->ops.adamw(s, &all) != AP_OK;
    for (int i = 0; i < 150; i++) {
        struct ap_adamw_args a = arguments(many, list[i].begin, list[i].count, list[i].decay);
        bad |= vt->ops.adamw(s, &a) != AP_OK;
    }
    bad |= vt->stream_sync(s) != AP_OK;
    bad |= memcmp(one.w, many.w, (size_t)n * 4) != 0 || memcmp(one.m, many.m, (size_t)n * 4) != 0;
    bad |= memcmp(one.v, many.v, (size_t)n * 4) != 0 || memcmp(one.w16, many.w16, (size_t)n * 2) != 0;
    adamw_buffers untouched = fill(n);
    bad |= memcmp(one.w, untouched.w, (size_t)n * 4) == 0; /* something must have happened */
    vt->stream_destroy(s);
    vt->close(&be);
    return bad;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "shift") == 0)
        return run_shift(1);
    if (strcmp(name, "race") == 0)
        return run_shift(0);
    if (strcmp(name, "copy") == 0)
        return run_copy(1);
    if (strcmp(name, "copy-not-waited") == 0)
        return run_copy(0);
    if (strcmp(name, "limits") == 0)
        return run_limits();
    if (strcmp(name, "multi") == 0)
        return run_multi();
    float *x = memory(64);
    memset(x, 0, 64 * sizeof(float));
    if (strcmp(name, "blocks") == 0)
        AP_LAUNCH(blocks_kernel, dim3(4), 32, 0, stream(), x);
    else if (strcmp(name, "divergence") == 0)
        AP_LAUNCH(divergence_kernel, dim3(1), 32, 0, stream(), x, 0);
    else if (strcmp(name, "divergence-at-barrier") == 0)
        AP_LAUNCH(divergence_kernel, dim3(1), 32, 0, stream(), x, 1);
    else if (strcmp(name, "overflow") == 0)
        AP_LAUNCH(overflow_kernel, dim3(1), 32, 128, stream(), x, 8);
    else if (strcmp(name, "outside") == 0)
        AP_LAUNCH(outside_kernel, dim3(1), 32, 0, stream(), x, 40);
    else
        return 2;
    return 0;
}
