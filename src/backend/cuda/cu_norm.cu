/* SPDX-License-Identifier: Apache-2.0
 * RMSNorm, forward and backward. A row belongs to a group of LANES threads: one warp for short rows, a block
 * for long ones; statistics in f32. The weight gradient is a column sum over all rows in a fixed order:
 * every block sums a fixed range of rows, a second kernel adds these partial sums in ascending order. */
#include "config.h"

#include "backend/cuda/cu_backend.h"

#define ROW_THREADS  128  /* block size of the one-warp-per-row variant */
#define LONG_THREADS 256  /* block size of the one-block-per-row variant */
#define LONG_ROW     2048 /* elements from which a row gets a block */

struct norm_shape {
    int64_t rows, d, x_stride, dx_stride;
    float eps;
    int accumulate;
};

template <int LANES> static __device__ __forceinline__ int64_t group_row(void)
{
    return LANES == AP_WARP ? (int64_t)blockIdx.x * (ROW_THREADS / AP_WARP) + threadIdx.x / AP_WARP
                            : (int64_t)blockIdx.x;
}

template <typename T, int V, int LANES>
static __global__ void rmsnorm_fwd_kernel(const T *x, const T *w, T *y, float *rstd, norm_shape n)
{
    struct space {
        float sums[LONG_THREADS / AP_WARP];
    };
    AP_SHARED(space, sh);
    int64_t row = group_row<LANES>();
    int lane = (int)threadIdx.x % LANES;
    if (row >= n.rows)
        return;
    const T *xr = x + row * n.x_stride;
    float sum = 0.0f;
    for (int64_t i = (int64_t)lane * V; i < n.d; i += LANES * V) {
        pack<T, V> p = load<T, V>(xr + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum += to_float(p.v[j]) * to_float(p.v[j]);
    }
    sum = group_sum<LANES>(sum, sh.sums);
    float r = 1.0f / sqrtf(sum / (float)n.d + n.eps);
    for (int64_t i = (int64_t)lane * V; i < n.d; i += LANES * V) {
        pack<T, V> p = load<T, V>(xr + i), q = load<T, V>(w + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            p.v[j] = from_float<T>(to_float(p.v[j]) * r * to_float(q.v[j]));
        store<T, V>(y + row * n.d + i, p);
    }
    if (rstd && lane == 0)
        rstd[row] = r;
}

template <typename T, int V>
static void rmsnorm_fwd_launch(struct cu_stream *s, const struct ap_rmsnorm_fwd_args *a, norm_shape n)
{
    const T *x = (const T *)a->x.data, *w = (const T *)a->w.data;
    T *y = (T *)a->y.data;
    float *rstd = (float *)a->rstd.data;
    if (n.d < LONG_ROW)
        AP_LAUNCH((rmsnorm_fwd_kernel<T, V, AP_WARP>), dim3((unsigned)ceil_div(n.rows, ROW_THREADS / AP_WARP)),
                  ROW_THREADS, 0, s->id, x, w, y, rstd, n);
    else
        AP_LAUNCH((rmsnorm_fwd_kernel<T, V, LONG_THREADS>), dim3((unsigned)n.rows), LONG_THREADS, 0, s->id, x, w, y,
                  rstd, n);
}

template <typename T> static ap_status rmsnorm_fwd_any(struct cu_stream *s, const struct ap_rmsnorm_fwd_args *a)
{
    constexpr int V = pack_width<T>;
    norm_shape n = {a->x.shape[0], a->x.shape[1], a->x_stride ? a->x_stride : a->x.shape[1], 0, (float)a->eps, 0};
    if (n.rows == 0)
        return AP_OK;
    if ((n.d | n.x_stride) % V == 0 && aligned16(a->x.data) && aligned16(a->w.data) && aligned16(a->y.data))
        rmsnorm_fwd_launch<T, V>(s, a, n);
    else
        rmsnorm_fwd_launch<T, 1>(s, a, n);
    return cu_launched("rmsnorm_fwd");
}

ap_status cu_rmsnorm_fwd(struct cu_stream *s, const struct ap_rmsnorm_fwd_args *a)
{
    if (a->x.dtype == AP_F32)
        return rmsnorm_fwd_any<float>(s, a);
    return a->x.dtype == AP_BF16 ? rmsnorm_fwd_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}

/* With u = x rstd and g = dy w: dx = rstd (g - u mean(g u)). */
template <typename T, int V, int LANES>
static __global__ void rmsnorm_dx_kernel(const T *dy, const T *x, const T *w, const float *rstd, T *dx, norm_shape n)
{
    struct space {
        float sums[LONG_THREADS / AP_WARP];
    };
    AP_SHARED(space, sh);
    int64_t row = group_row<LANES>();
    int lane = (int)threadIdx.x % LANES;
    if (row >= n.rows)
        return;
    const T *xr = x + row * n.x_stride, *dyr = dy + row * n.d;
    T *out = dx + row * n.dx_stride;
    float r = rstd[row], sum = 0.0f;
    for (int64_t i = (int64_t)lane * V; i < n.d; i += LANES * V) {
        pack<T, V> p = load<T, V>(xr + i), q = load<T, V>(w + i), g = load<T, V>(dyr + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum += to_float(g.v[j]) * to_float(q.v[j]) * (to_float(p.v[j]) * r);
    }
    float mean = group_sum<LANES>(sum, sh.sums) / (float)n.d;
    for (int64_t i = (int64_t)lane * V; i < n.d; i += LANES * V) {
        pack<T, V> p = load<T, V>(xr + i), q = load<T, V>(w + i), g = load<T, V>(dyr + i), old;
        if (n.accumulate)
            old = load<T, V>(out + i);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float v = r * (to_float(g.v[j]) * to_float(q.v[j]) - to_float(p.v[j]) * r * mean);
            p.v[j] = from_float<T>(n.accumulate ? to_float(old.v[j]) + v : v);
        }
        store<T, V>(out + i, p);
    }
}

template <typename T, int V>
static void rmsnorm_dx_launch(struct cu_stream *s, const struct ap_rmsnorm_bwd_args *a, norm_shape n)
{
    const T *dy = (const T *)a->dy.data, *x = (const T *)a->x.data, *w = (const T *)a->w.data;
    const float *rstd = (const float *)a->rstd.data;
    T *dx = (T *)a->dx.data;
    if (n.d < LONG_ROW)
        AP_LAUNCH((rmsnorm_dx_kernel<T, V, AP_WARP>), dim3((unsigned)ceil_div(n.rows, ROW_THREADS / AP_WARP)),
                  ROW_THREADS, 0, s->id, dy, x, w, rstd, dx, n);
    else
        AP_LAUNCH((rmsnorm_dx_kernel<T, V, LONG_THREADS>), dim3((unsigned)n.rows), LONG_THREADS, 0, s->id, dy, x, w,
                  rstd, dx, n);
}

/* Partial column sums of dy x rstd: blocks of 32 column packs and 8 row lanes; part [chunks, d]. */
#define DW_ROWS   8
#define DW_CHUNKS 128

template <typename T, int V>
static __global__ void rmsnorm_dw_kernel(const T *dy, const T *x, const float *rstd, float *part, norm_shape n,
                                         int64_t chunk)
{
    struct space {
        float sums[DW_ROWS][AP_WARP * V];
    };
    AP_SHARED(space, sh);
    int64_t col = ((int64_t)blockIdx.x * AP_WARP + threadIdx.x) * V;
    int64_t first = (int64_t)blockIdx.y * chunk, last = first + chunk < n.rows ? first + chunk : n.rows;
    float sum[V];
#pragma unroll
    for (int j = 0; j < V; j++)
        sum[j] = 0.0f;
    for (int64_t row = first + threadIdx.y; row < last && col < n.d; row += DW_ROWS) {
        pack<T, V> p = load<T, V>(x + row * n.x_stride + col), g = load<T, V>(dy + row * n.d + col);
        float r = rstd[row];
#pragma unroll
        for (int j = 0; j < V; j++)
            sum[j] += to_float(g.v[j]) * (to_float(p.v[j]) * r);
    }
#pragma unroll
    for (int j = 0; j < V; j++)
        sh.sums[threadIdx.y][threadIdx.x * V + j] = sum[j];
    __syncthreads();
    for (int c = (int)(threadIdx.y * AP_WARP + threadIdx.x); c < AP_WARP * V; c += AP_WARP * DW_ROWS) {
        int64_t at = (int64_t)blockIdx.x * AP_WARP * V + c;
        float total = 0.0f;
#pragma unroll
        for (int i = 0; i < DW_ROWS; i++)
            total += sh.sums[i][c];
        if (at < n.d)
            part[blockIdx.y * n.d + at] = total;
    }
}

template <typename D> static __global__ void rmsnorm_dw_join_kernel(const float *part, D *dw, int64_t d, int chunks)
{
    int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0.0f;
    if (col >= d)
        return;
    for (int i = 0; i < chunks; i++)
        sum += part[i * d + col];
    dw[col] = from_float<D>(to_float(dw[col]) + sum);
}

template <typename T, int V>
static ap_status rmsnorm_dw(struct cu_stream *s, const struct ap_rmsnorm_bwd_args *a, norm_shape n)
{
    int64_t chunks = ceil_div(n.rows, 4 * DW_ROWS) < DW_CHUNKS ? ceil_div(n.rows, 4 * DW_ROWS) : DW_CHUNKS;
    int64_t chunk = ceil_div(n.rows, chunks);
    void *part;
    AP_TRY(cu_scratch(s, (size_t)(chunks * n.d) * sizeof(float), &part));
    AP_LAUNCH((rmsnorm_dw_kernel<T, V>), dim3((unsigned)ceil_div(n.d, AP_WARP * V), (unsigned)chunks),
              dim3(AP_WARP, DW_ROWS), 0, s->id, (const T *)a->dy.data, (const T *)a->x.data,
              (const float *)a->rstd.data, (float *)part, n, chunk);
    dim3 grid((unsigned)ceil_div(n.d, 256));
    if (a->dw.dtype == AP_F32)
        AP_LAUNCH((rmsnorm_dw_join_kernel<float>), grid, 256, 0, s->id, (const float *)part, (float *)a->dw.data, n.d,
                  (int)chunks);
    else
        AP_LAUNCH((rmsnorm_dw_join_kernel<bf16>), grid, 256, 0, s->id, (const float *)part, (bf16 *)a->dw.data, n.d,
                  (int)chunks);
    return AP_OK;
}

template <typename T> static ap_status rmsnorm_bwd_any(struct cu_stream *s, const struct ap_rmsnorm_bwd_args *a)
{
    constexpr int V = pack_width<T>;
    norm_shape n = {a->x.shape[0], a->x.shape[1], a->x_stride, a->dx_stride, 0.0f, a->accumulate};
    n.x_stride = n.x_stride ? n.x_stride : n.d;
    n.dx_stride = n.dx_stride ? n.dx_stride : n.d;
    if (n.rows * n.d == 0)
        return AP_OK;
    bool wide = (n.d | n.x_stride) % V == 0 && aligned16(a->x.data) && aligned16(a->dy.data);
    if (a->dw.data)
        AP_TRY(wide ? (rmsnorm_dw<T, V>(s, a, n)) : (rmsnorm_dw<T, 1>(s, a, n)));
    if (wide && n.dx_stride % V == 0 && aligned16(a->w.data) && aligned16(a->dx.data))
        rmsnorm_dx_launch<T, V>(s, a, n);
    else
        rmsnorm_dx_launch<T, 1>(s, a, n);
    return cu_launched("rmsnorm_bwd");
}

ap_status cu_rmsnorm_bwd(struct cu_stream *s, const struct ap_rmsnorm_bwd_args *a)
{
    if (a->x.dtype == AP_F32)
        return rmsnorm_bwd_any<float>(s, a);
    return a->x.dtype == AP_BF16 ? rmsnorm_bwd_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}
