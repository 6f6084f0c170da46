/* SPDX-License-Identifier: Apache-2.0
 * Attention: the descriptors' side, delta = dout . out, and the sum of the rope key's gradient over head groups. */
#include "config.h"

#include "backend/cuda/cu_attn.h"

#define THREADS 256

/* One warp per (token, head). */
template <typename T>
static __global__ void delta_kernel(const T *dout, const T *out, float *delta, int64_t rows, int64_t v)
{
    int64_t row = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / AP_WARP;
    if (row >= rows)
        return;
    float sum = 0.0f;
    for (int64_t j = threadIdx.x % AP_WARP; j < v; j += AP_WARP)
        sum += to_float(dout[row * v + j]) * to_float(out[row * v + j]);
    sum = warp_sum(sum);
    if (threadIdx.x % AP_WARP == 0)
        delta[row] = sum;
}

/* dkr[t, j] = sum over groups in order of part[group, t, j]. */
template <typename T>
static __global__ void dkr_kernel(const float *part, T *dkr, int64_t rows, int64_t r, int64_t stride, int groups)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * r)
        return;
    float sum = 0.0f;
    for (int g = 0; g < groups; g++)
        sum += part[g * rows * r + i];
    dkr[i / r * stride + i % r] = from_float<T>(sum);
}

/* Of either call; dkr_stride: of the gradient of the shared key. */
template <typename A> static attn_shape shape_of(const A *a, int64_t dkr_stride)
{
    return attn_shape{a->q.shape[0] / a->seqs,
                      a->q.shape[1],
                      a->n,
                      a->r,
                      a->v,
                      a->kr_stride ? a->kr_stride : a->r,
                      dkr_stride,
                      (float)a->scale,
                      1};
}

/* Whether the tensor-core kernels take it. */
static bool fits_mma(const attn_data<bf16> &d, const attn_shape &n)
{
    return (n.n | n.r | n.v | n.kr_stride | n.dkr_stride) % 8 == 0 && n.n + n.r <= 192 && n.v <= 128 && n.v > 0 &&
           n.n + n.r > 0 && aligned16(d.q) && aligned16(d.kv) && aligned16(d.kr) && aligned16(d.out) &&
           aligned16(d.dout) && aligned16(d.dq) && aligned16(d.dkv) && aligned16(d.dkr);
}
static bool fits_mma(const attn_data<float> &, const attn_shape &)
{
    return false;
}
static ap_status mma_fwd(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs)
{
    return attn_mma_fwd(s, d, n, seqs);
}
static ap_status mma_fwd(struct cu_stream *, const attn_data<float> &, const attn_shape &, int64_t)
{
    return AP_ERR_UNSUPPORTED;
}
static ap_status mma_bwd(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs)
{
    AP_TRY(attn_mma_dkv(s, d, n, seqs));
    return attn_mma_dq(s, d, n, seqs);
}
static ap_status mma_bwd(struct cu_stream *, const attn_data<float> &, const attn_shape &, int64_t)
{
    return AP_ERR_UNSUPPORTED;
}

template <typename T> static ap_status fwd(struct cu_stream *s, const struct ap_mla_attn_fwd_args *a)
{
    attn_data<T> d = {};
    attn_shape n = shape_of(a, 0);
    d.q = (const T *)a->q.data;
    d.kv = (const T *)a->kv.data;
    d.kr = (const T *)a->kr.data;
    d.first = (const int32_t *)a->first.data;
    d.out = (T *)a->out.data;
    d.lse = (float *)a->lse.data;
    return fits_mma(d, n) ? mma_fwd(s, d, n, a->seqs) : attn_plain_fwd(s, d, n, a->seqs);
}

static bool too_large(const attn_shape &n, int64_t seqs)
{
    return n.n + n.r > 192 || n.v > 128 || n.heads > 65535 || seqs > 65535;
}

ap_status cu_mla_attn_fwd(struct cu_stream *s, const struct ap_mla_attn_fwd_args *a)
{
    if (a->q.dtype != AP_F32 && a->q.dtype != AP_BF16)
        return AP_ERR_UNSUPPORTED;
    if (a->q.shape[0] * a->q.shape[1] == 0)
        return AP_OK;
    if (too_large(shape_of(a, 0), a->seqs))
        return AP_ERR_UNSUPPORTED;
    return a->q.dtype == AP_F32 ? fwd<float>(s, a) : fwd<bf16>(s, a);
}

template <typename T> static ap_status bwd(struct cu_stream *s, const struct ap_mla_attn_bwd_args *a)
{
    attn_data<T> d = {};
    attn_shape n = shape_of(a, a->dkr_stride ? a->dkr_stride : a->r);
    int64_t rows = a->q.shape[0] * n.heads, tiles = a->seqs * attn_tiles(n.len);
    int64_t groups = tiles >= ATTN_BLOCKS                     ? 1
                     : ceil_div(ATTN_BLOCKS, tiles) < n.heads ? ceil_div(ATTN_BLOCKS, tiles)
                                                              : n.heads;
    n.head_group = (int)ceil_div(n.heads, groups);
    groups = ceil_div(n.heads, n.head_group);
    void *mem;
    AP_TRY(cu_scratch(s, (size_t)(rows + (groups > 1 ? groups * a->q.shape[0] * n.r : 0)) * sizeof(float), &mem));
    d.q = (const T *)a->q.data;
    d.kv = (const T *)a->kv.data;
    d.kr = (const T *)a->kr.data;
    d.first = (const int32_t *)a->first.data;
    d.dout = (const T *)a->dout.data;
    d.lse = (float *)a->lse.data;
    d.dq = (T *)a->dq.data;
    d.dkv = (T *)a->dkv.data;
    d.dkr = (T *)a->dkr.data;
    d.delta = (float *)mem;
    d.dkr_part = groups > 1 ? d.delta + rows : NULL;
    AP_LAUNCH((delta_kernel<T>), dim3((unsigned)ceil_div(rows * AP_WARP, THREADS)), THREADS, 0, s->id, d.dout,
              (const T *)a->out.data, d.delta, rows, n.v);
    AP_TRY(fits_mma(d, n) ? mma_bwd(s, d, n, a->seqs) : attn_plain_bwd(s, d, n, a->seqs));
    int64_t items = a->q.shape[0] * n.r;
    if (d.dkr_part && items > 0)
        AP_LAUNCH((dkr_kernel<T>), dim3((unsigned)ceil_div(items, THREADS)), THREADS, 0, s->id,
                  (const float *)d.dkr_part, d.dkr, a->q.shape[0], n.r, n.dkr_stride, (int)groups);
    return cu_launched("mla_attn_bwd");
}

ap_status cu_mla_attn_bwd(struct cu_stream *s, const struct ap_mla_attn_bwd_args *a)
{
    if (a->q.dtype != AP_F32 && a->q.dtype != AP_BF16)
        return AP_ERR_UNSUPPORTED;
    if (a->q.shape[0] * a->q.shape[1] == 0)
        return AP_OK;
    if (a->n + a->r > 192 || a->v > 128 || a->q.shape[1] > 65535 || a->seqs > 65535)
        return AP_ERR_UNSUPPORTED;
    return a->q.dtype == AP_F32 ? bwd<float>(s, a) : bwd<bf16>(s, a);
}
