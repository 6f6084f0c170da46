/* SPDX-License-Identifier: Apache-2.0
 * AdamW in one pass over the memory, one tensor or many segments of flat buffers in one launch. f32 state;
 * the bias corrections and products of constants are formed in f64 on the host. */
#include "config.h"

#include <math.h>

#include "backend/cuda/cu_backend.h"

#define THREADS  256
#define V        4
#define SEGMENTS 64   /* segments that travel as kernel arguments */
#define SPAN     8192 /* elements of one block of the multi-tensor kernel */

struct adamw_factors {
    float beta1, one_minus_beta1, beta2, one_minus_beta2, step, eps, keep, grad_scale, v_scale;
};
struct adamw_memory {
    const float *w, *g, *m, *v;
    float *w_new, *m_new, *v_new;
    bf16 *w_bf16;
};

/* step = lr / (1 - b1^t), v_scale = 1 / (1 - b2^t), keep = 1 - lr wd. */
static adamw_factors factors_of(const struct ap_adamw_args *a, int decay)
{
    double m_bias = 1.0 - pow(a->beta1, (double)a->step), v_bias = 1.0 - pow(a->beta2, (double)a->step);
    return adamw_factors{(float)a->beta1,
                         (float)(1.0 - a->beta1),
                         (float)a->beta2,
                         (float)(1.0 - a->beta2),
                         (float)(a->lr / m_bias),
                         (float)a->eps,
                         decay ? (float)(1.0 - a->lr * a->weight_decay) : 1.0f,
                         (float)a->grad_scale,
                         (float)(1.0 / v_bias)};
}

static adamw_memory memory_of(const struct ap_adamw_args *a)
{
    return adamw_memory{(const float *)a->w.data, (const float *)a->g.data, (const float *)a->m.data,
                        (const float *)a->v.data, (float *)a->w_new.data,   (float *)a->m_new.data,
                        (float *)a->v_new.data,   (bf16 *)a->w_bf16.data};
}

template <int N>
static __device__ __forceinline__ void adamw_at(const adamw_memory &p, const adamw_factors &f, int64_t i)
{
    pack<float, N> w = load<float, N>(p.w + i), g = load<float, N>(p.g + i), m = load<float, N>(p.m + i),
                   v = load<float, N>(p.v + i);
#pragma unroll
    for (int j = 0; j < N; j++) {
        float grad = f.grad_scale * g.v[j];
        m.v[j] = f.beta1 * m.v[j] + f.one_minus_beta1 * grad;
        v.v[j] = f.beta2 * v.v[j] + f.one_minus_beta2 * grad * grad;
        w.v[j] = w.v[j] * f.keep - f.step * m.v[j] / (sqrtf(v.v[j] * f.v_scale) + f.eps);
    }
    store<float, N>(p.w_new + i, w);
    store<float, N>(p.m_new + i, m);
    store<float, N>(p.v_new + i, v);
    if (p.w_bf16) {
#pragma unroll
        for (int j = 0; j < N; j++)
            p.w_bf16[i + j] = from_float<bf16>(w.v[j]);
    }
}

template <int N> static __global__ void adamw_kernel(adamw_memory p, adamw_factors f, int64_t n)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (i < n)
        adamw_at<N>(p, f, i);
}

static bool wide(const adamw_memory &p)
{
    return aligned16(p.w) && aligned16(p.g) && aligned16(p.m) && aligned16(p.v) && aligned16(p.w_new) &&
           aligned16(p.m_new) && aligned16(p.v_new);
}

/* Blocks first_block[i] .. first_block[i+1]-1 belong to segment i. */
struct adamw_segments {
    int64_t begin[SEGMENTS], count[SEGMENTS];
    int first_block[SEGMENTS + 1], decay[SEGMENTS];
    int used, wide;
};

static __global__ void adamw_multi_kernel(adamw_memory p, adamw_factors plain, adamw_factors decayed,
                                          adamw_segments list)
{
    int low = 0, high = list.used - 1, block = (int)blockIdx.x;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (list.first_block[middle] <= block)
            low = middle;
        else
            high = middle - 1;
    }
    const adamw_factors &f = list.decay[low] ? decayed : plain;
    int64_t at = (int64_t)(block - list.first_block[low]) * SPAN, left = list.count[low] - at;
    int64_t first = list.begin[low] + at, count = left < SPAN ? left : SPAN;
    int64_t packed = list.wide && first % V == 0 ? count / V * V : 0;
    for (int64_t i = (int64_t)threadIdx.x * V; i < packed; i += THREADS * V)
        adamw_at<V>(p, f, first + i);
    for (int64_t i = packed + threadIdx.x; i < count; i += THREADS)
        adamw_at<1>(p, f, first + i);
}

static ap_status multi(struct cu_stream *s, const struct ap_adamw_args *a)
{
    const struct ap_adamw_segment *list = a->segments;
    adamw_memory p = memory_of(a);
    adamw_factors plain = factors_of(a, 0), decayed = factors_of(a, 1);
    for (int64_t at = 0; at < a->segment_count;) {
        adamw_segments part = {};
        int64_t blocks = 0;
        part.wide = wide(p);
        for (; at < a->segment_count && part.used < SEGMENTS && blocks < (1 << 20); at++) {
            if (list[at].count <= 0)
                continue;
            part.begin[part.used] = list[at].begin;
            part.count[part.used] = list[at].count;
            part.decay[part.used] = list[at].decay;
            part.first_block[part.used++] = (int)blocks;
            blocks += ceil_div(list[at].count, SPAN);
        }
        part.first_block[part.used] = (int)blocks;
        if (blocks > 0)
            AP_LAUNCH(adamw_multi_kernel, dim3((unsigned)blocks), THREADS, 0, s->id, p, plain, decayed, part);
    }
    return cu_launched("adamw_multi");
}

ap_status cu_adamw(struct cu_stream *s, const struct ap_adamw_args *a)
{
    int64_t n = ap_tensor_count(&a->w);
    adamw_memory p = memory_of(a);
    adamw_factors f = factors_of(a, 1);
    if (a->w.dtype != AP_F32)
        return AP_ERR_UNSUPPORTED;
    if (n == 0)
        return AP_OK;
    if (a->segments)
        return multi(s, a);
    if (n % V == 0 && wide(p))
        AP_LAUNCH((adamw_kernel<V>), dim3((unsigned)ceil_div(n / V, THREADS)), THREADS, 0, s->id, p, f, n);
    else
        AP_LAUNCH((adamw_kernel<1>), dim3((unsigned)ceil_div(n, THREADS)), THREADS, 0, s->id, p, f, n);
    return cu_launched("adamw");
}
