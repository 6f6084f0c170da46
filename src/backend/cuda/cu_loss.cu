/* SPDX-License-Identifier: Apache-2.0
 * Cross-entropy of one row per block: one pass for the maximum and the sum (online), one that writes the
 * gradient, in place if wanted. Probabilities are exp(l - max) / sum, so that rows far from zero lose nothing. With
 * the columns in parts, the two passes are two kernels. */
#include "config.h"

#include "backend/cuda/cu_backend.h"

#define THREADS 256
#define WARPS   (THREADS / AP_WARP)

struct loss_shape {
    int64_t rows, vocab;
    float weight;
};

/* Join (max, sum of exp relative to it) of two sets; -inf stands for a set of nothing but -inf and NaN, whose sum is 0
 * or NaN. */
static __device__ __forceinline__ void join(float *top, float *sum, float top2, float sum2)
{
    float high = fmaxf(*top, top2);
    if (high == -INFINITY) {
        *sum += sum2;
        return;
    }
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
        if (high == -INFINITY) {
#pragma unroll
            for (int j = 0; j < V; j++)
                sum += expf(to_float(p.v[j])); /* 0 or NaN */
            continue;
        }
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

/* dlogits of one row, which may be its logits: every thread rewrites what it alone reads. target -1: not in this row;
 * none: no loss at this token. */
template <typename T, int V>
static __device__ __forceinline__ void row_gradient(const T *x, T *dx, loss_shape n, float top, float sum,
                                                    int64_t target, bool none)
{
    float scale = 1.0f / sum;
    for (int64_t i = (int64_t)threadIdx.x * V; i < n.vocab; i += THREADS * V) {
        pack<T, V> p = load<T, V>(x + i);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float prob = expf(to_float(p.v[j]) - top) * scale;
            p.v[j] = from_float<T>(none ? 0.0f : (prob - (i + j == target ? 1.0f : 0.0f)) * n.weight);
        }
        store<T, V>(dx + i, p);
    }
}

/* The target's logit is read before its place may be written. */
template <typename T, int V>
static __global__ void cross_entropy_kernel(const T *logits, const int32_t *targets, float *loss, T *dlogits,
                                            loss_shape n)
{
    int64_t row = blockIdx.x;
    const T *x = logits + row * n.vocab;
    T *dx = dlogits ? dlogits + row * n.vocab : NULL;
    int32_t target = targets[row];
    float top = 0.0f, sum = 1.0f;
    if (target >= 0)
        row_statistics<T, V>(x, n.vocab, &top, &sum);
    if (threadIdx.x == 0)
        loss[row] = target < 0 ? 0.0f : logf(sum) - (to_float(x[target]) - top);
    if (!dx)
        return;
    __syncthreads();
    row_gradient<T, V>(x, dx, n, top, sum, target, target < 0);
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

template <typename T, int V>
static __global__ void cross_entropy_part_kernel(const T *logits, const int32_t *targets, float *part, int64_t cols)
{
    int64_t row = blockIdx.x;
    const T *x = logits + row * cols;
    float top, sum;
    row_statistics<T, V>(x, cols, &top, &sum);
    if (threadIdx.x == 0) {
        part[row * 3] = top;
        part[row * 3 + 1] = sum;
        part[row * 3 + 2] = targets[row] < 0 ? 0.0f : to_float(x[targets[row]]);
    }
}

template <typename T> static ap_status part_any(struct cu_stream *s, const struct ap_cross_entropy_part_args *a)
{
    constexpr int V = pack_width<T>;
    int64_t rows = a->logits.shape[0], cols = a->logits.shape[1];
    const T *x = (const T *)a->logits.data;
    const int32_t *targets = (const int32_t *)a->targets.data;
    if (rows == 0)
        return AP_OK;
    if (cols % V == 0 && aligned16(x))
        AP_LAUNCH((cross_entropy_part_kernel<T, V>), dim3((unsigned)rows), THREADS, 0, s->id, x, targets,
                  (float *)a->part.data, cols);
    else
        AP_LAUNCH((cross_entropy_part_kernel<T, 1>), dim3((unsigned)rows), THREADS, 0, s->id, x, targets,
                  (float *)a->part.data, cols);
    return cu_launched("cross_entropy_part");
}

ap_status cu_cross_entropy_part(struct cu_stream *s, const struct ap_cross_entropy_part_args *a)
{
    if (a->logits.dtype == AP_F32)
        return part_any<float>(s, a);
    return a->logits.dtype == AP_BF16 ? part_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}

/* The few parts of a row are joined by every thread for itself. */
struct join_args {
    const float *parts; /* [count, rows, 3] */
    int64_t count;
    const int32_t *targets, *has_target;
    float *loss;
};

template <typename T, int V>
static __global__ void cross_entropy_join_kernel(const T *logits, T *dlogits, join_args a, loss_shape n)
{
    int64_t row = blockIdx.x;
    bool none = a.has_target[row] < 0;
    float top = -INFINITY, sum = 0.0f, at = 0.0f;
    for (int64_t p = 0; p < a.count; p++)
        top = fmaxf(top, a.parts[(p * n.rows + row) * 3]);
    for (int64_t p = 0; p < a.count; p++) {
        const float *part = a.parts + (p * n.rows + row) * 3;
        sum += part[1] * expf(part[0] - top);
        at += part[2];
    }
    if (threadIdx.x == 0)
        a.loss[row] = none ? 0.0f : logf(sum) - (at - top);
    if (dlogits)
        row_gradient<T, V>(logits + row * n.vocab, dlogits + row * n.vocab, n, top, sum, a.targets[row], none);
}

template <typename T> static ap_status join_any(struct cu_stream *s, const struct ap_cross_entropy_join_args *a)
{
    constexpr int V = pack_width<T>;
    loss_shape n = {a->logits.shape[0], a->logits.shape[1], (float)a->weight};
    join_args j = {(const float *)a->parts.data, a->parts.shape[0], (const int32_t *)a->local_targets.data,
                   (const int32_t *)a->has_target.data, (float *)a->loss.data};
    const T *x = (const T *)a->logits.data;
    T *dx = (T *)a->dlogits.data;
    if (n.rows == 0)
        return AP_OK;
    if (n.vocab % V == 0 && aligned16(x) && aligned16(dx))
        AP_LAUNCH((cross_entropy_join_kernel<T, V>), dim3((unsigned)n.rows), THREADS, 0, s->id, x, dx, j, n);
    else
        AP_LAUNCH((cross_entropy_join_kernel<T, 1>), dim3((unsigned)n.rows), THREADS, 0, s->id, x, dx, j, n);
    return cu_launched("cross_entropy_join");
}

ap_status cu_cross_entropy_join(struct cu_stream *s, const struct ap_cross_entropy_join_args *a)
{
    if (a->logits.dtype == AP_F32)
        return join_any<float>(s, a);
    return a->logits.dtype == AP_BF16 ? join_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}
