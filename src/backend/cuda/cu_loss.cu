/* SPDX-License-Identifier: Apache-2.0
 * Cross-entropy of one row per block: one pass for the maximum and the sum (online), one that writes the
 * gradient, in place if wanted. Probabilities are exp(l - max) / sum, so that rows far from zero lose nothing. */
#include "config.h"

#include "backend/cuda/cu_backend.h"

#define THREADS 256
#define WARPS   (THREADS / AP_WARP)

struct loss_shape {
    int64_t rows, vocab;
    float weight;
};

/* Join (max, sum of exp relative to it) of two sets; -inf stands for an empty one. */
static __device__ __forceinline__ void join(float *top, float *sum, float top2, float sum2)
{
    float high = fmaxf(*top, top2);
    if (high == -INFINITY)
        return;
    *sum = *sum * expf(*top - high) + sum2 * expf(top2 - high);
    *top = high;
}

template <typename T, int V>
static __device__ void row_statistics(const T *x, int64_t vocab, float *top_p, float *sum_p)
{
    struct space {
        float top[WARPS], sum[WARPS];
    };
    AP_SHARED(space, sh);
    float top = -INFINITY, sum = 0.0f;
    for (int64_t i = (int64_t)threadIdx.x * V; i < vocab; i += THREADS * V) {
        pack<T, V> p = load<T, V>(x + i);
        float high = top;
#pragma unroll
        for (int j = 0; j < V; j++)
            high = fmaxf(high, to_float(p.v[j]));
        if (high == -INFINITY)
            continue;
        sum *= expf(top - high);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum += expf(to_float(p.v[j]) - high);
        top = high;
    }
#pragma unroll
    for (int step = AP_WARP / 2; step > 0; step /= 2) {
        float top2 = __shfl_down_sync(AP_FULL, top, step), sum2 = __shfl_down_sync(AP_FULL, sum, step);
        join(&top, &sum, top2, sum2);
    }
    if (threadIdx.x % AP_WARP == 0) {
        sh.top[threadIdx.x / AP_WARP] = top;
        sh.sum[threadIdx.x / AP_WARP] = sum;
    }
    __syncthreads();
    top = sh.top[0];
    sum = sh.sum[0];
    for (int i = 1; i < WARPS; i++)
        join(&top, &sum, sh.top[i], sh.sum[i]);
    *top_p = top;
    *sum_p = sum;
}

/* dlogits may be logits: every thread rewrites what it alone reads, after the target's logit was read. */
template <typename T, int V>
static __global__ void cross_entropy_kernel(const T *logits, const int32_t *targets, float *loss, T *dlogits,
                                            loss_shape n)
{
    int64_t row = blockIdx.x;
    const T *x = logits + row * n.vocab;
    T *dx = dlogits ? dlogits + row * n.vocab : NULL;
    int32_t target = targets[row];
    float top = 0.0f, sum = 1.0f, weight = target < 0 ? 0.0f : n.weight;
    if (target >= 0)
        row_statistics<T, V>(x, n.vocab, &top, &sum);
    if (threadIdx.x == 0)
        loss[row] = target < 0 ? 0.0f : logf(sum) - (to_float(x[target]) - top);
    if (!dx)
        return;
    __syncthreads();
    float scale = 1.0f / sum;
    for (int64_t i = (int64_t)threadIdx.x * V; i < n.vocab; i += THREADS * V) {
        pack<T, V> p = load<T, V>(x + i);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float prob = expf(to_float(p.v[j]) - top) * scale;
            p.v[j] = from_float<T>(target < 0 ? 0.0f : (prob - (i + j == target ? 1.0f : 0.0f)) * weight);
        }
        store<T, V>(dx + i, p);
    }
}

template <typename T> static ap_status cross_entropy_any(struct cu_stream *s, const struct ap_cross_entropy_args *a)
{
    constexpr int V = pack_width<T>;
    loss_shape n = {a->logits.shape[0], a->logits.shape[1], (float)a->weight};
    const T *x = (const T *)a->logits.data;
    T *dx = (T *)a->dlogits.data;
    const int32_t *targets = (const int32_t *)a->targets.data;
    if (n.rows == 0)
        return AP_OK;
    if (n.vocab % V == 0 && aligned16(x) && aligned16(dx))
        AP_LAUNCH((cross_entropy_kernel<T, V>), dim3((unsigned)n.rows), THREADS, 0, s->id, x, targets,
                  (float *)a->loss.data, dx, n);
    else
        AP_LAUNCH((cross_entropy_kernel<T, 1>), dim3((unsigned)n.rows), THREADS, 0, s->id, x, targets,
                  (float *)a->loss.data, dx, n);
    return cu_launched("cross_entropy");
}

ap_status cu_cross_entropy(struct cu_stream *s, const struct ap_cross_entropy_args *a)
{
    if (a->logits.dtype == AP_F32)
        return cross_entropy_any<float>(s, a);
    return a->logits.dtype == AP_BF16 ? cross_entropy_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}
