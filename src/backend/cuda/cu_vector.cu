/* SPDX-License-Identifier: Apache-2.0
 * Elementwise operations: add, scale, cast, SwiGLU, rotary embedding, column copies. Memory-bound: every
 * element is read and written once, 16 bytes an access where shapes and addresses allow. */
#include "config.h"

#include "backend/cuda/cu_backend.h"

#define THREADS 256

static dim3 grid_for(int64_t items)
{
    return dim3((unsigned)ceil_div(items, THREADS));
}

static __device__ __forceinline__ int64_t thread_index(void)
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

template <typename T, int V> static __global__ void add_kernel(const T *a, const T *b, T *c, int64_t n)
{
    int64_t i = thread_index() * V;
    if (i >= n)
        return;
    pack<T, V> x = load<T, V>(a + i), y = load<T, V>(b + i);
#pragma unroll
    for (int j = 0; j < V; j++)
        x.v[j] = from_float<T>(to_float(x.v[j]) + to_float(y.v[j]));
    store<T, V>(c + i, x);
}

template <typename T> static ap_status add_any(struct cu_stream *s, const struct ap_add_args *a)
{
    constexpr int V = pack_width<T>;
    int64_t n = ap_tensor_count(&a->a);
    const T *x = (const T *)a->a.data, *y = (const T *)a->b.data;
    T *z = (T *)a->c.data;
    if (n == 0)
        return AP_OK;
    if (n % V == 0 && aligned16(x) && aligned16(y) && aligned16(z))
        AP_LAUNCH((add_kernel<T, V>), grid_for(n / V), THREADS, 0, s->id, x, y, z, n);
    else
        AP_LAUNCH((add_kernel<T, 1>), grid_for(n), THREADS, 0, s->id, x, y, z, n);
    return cu_launched("add");
}

ap_status cu_add(struct cu_stream *s, const struct ap_add_args *a)
{
    if (a->a.dtype == AP_F32)
        return add_any<float>(s, a);
    return a->a.dtype == AP_BF16 ? add_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}

template <typename T, int V> static __global__ void scale_kernel(T *x, float factor, int64_t n)
{
    int64_t i = thread_index() * V;
    if (i >= n)
        return;
    pack<T, V> p = load<T, V>(x + i);
#pragma unroll
    for (int j = 0; j < V; j++)
        p.v[j] = from_float<T>(to_float(p.v[j]) * factor);
    store<T, V>(x + i, p);
}

template <typename T> static ap_status scale_any(struct cu_stream *s, const struct ap_scale_args *a)
{
    constexpr int V = pack_width<T>;
    int64_t n = ap_tensor_count(&a->x);
    T *x = (T *)a->x.data;
    if (n == 0)
        return AP_OK;
    if (n % V == 0 && aligned16(x))
        AP_LAUNCH((scale_kernel<T, V>), grid_for(n / V), THREADS, 0, s->id, x, (float)a->factor, n);
    else
        AP_LAUNCH((scale_kernel<T, 1>), grid_for(n), THREADS, 0, s->id, x, (float)a->factor, n);
    return cu_launched("scale");
}

ap_status cu_scale(struct cu_stream *s, const struct ap_scale_args *a)
{
    if (a->x.dtype == AP_F32)
        return scale_any<float>(s, a);
    return a->x.dtype == AP_BF16 ? scale_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}

/* Conversions; f64 takes part here and nowhere else. */
static __device__ __forceinline__ void convert(float x, float *y)
{
    *y = x;
}
static __device__ __forceinline__ void convert(float x, double *y)
{
    *y = (double)x;
}
static __device__ __forceinline__ void convert(float x, bf16 *y)
{
    *y = from_float<bf16>(x);
}
static __device__ __forceinline__ void convert(double x, float *y)
{
    *y = (float)x;
}
static __device__ __forceinline__ void convert(double x, double *y)
{
    *y = x;
}
static __device__ __forceinline__ void convert(double x, bf16 *y)
{
    *y = from_float<bf16>((float)x);
}
static __device__ __forceinline__ void convert(bf16 x, float *y)
{
    *y = to_float(x);
}
static __device__ __forceinline__ void convert(bf16 x, double *y)
{
    *y = (double)to_float(x);
}
static __device__ __forceinline__ void convert(bf16 x, bf16 *y)
{
    *y = x;
}

/* Each thread converts V neighbours; V > 1 only when both sides are whole, aligned packs. */
template <typename S, typename D, int V> static __global__ void cast_kernel(const S *src, D *dst, int64_t n)
{
    int64_t i = thread_index() * V;
    if (i >= n)
        return;
    struct alignas(sizeof(S) * V) in {
        S v[V];
    };
    struct alignas(sizeof(D) * V) out {
        D v[V];
    };
    in x = *reinterpret_cast<const in *>(src + i);
    out y;
#pragma unroll
    for (int j = 0; j < V; j++)
        convert(x.v[j], &y.v[j]);
    *reinterpret_cast<out *>(dst + i) = y;
}

template <typename S, typename D> static ap_status cast_pair(struct cu_stream *s, const struct ap_cast_args *a)
{
    constexpr int V = 16 / (int)(sizeof(S) > sizeof(D) ? sizeof(S) : sizeof(D));
    int64_t n = ap_tensor_count(&a->src);
    const S *src = (const S *)a->src.data;
    D *dst = (D *)a->dst.data;
    if (n == 0)
        return AP_OK;
    if (n % V == 0 && aligned16(src) && aligned16(dst))
        AP_LAUNCH((cast_kernel<S, D, V>), grid_for(n / V), THREADS, 0, s->id, src, dst, n);
    else
        AP_LAUNCH((cast_kernel<S, D, 1>), grid_for(n), THREADS, 0, s->id, src, dst, n);
    return cu_launched("cast");
}

template <typename S> static ap_status cast_from(struct cu_stream *s, const struct ap_cast_args *a)
{
    if (a->dst.dtype == AP_F32)
        return cast_pair<S, float>(s, a);
    return a->dst.dtype == AP_F64 ? cast_pair<S, double>(s, a) : cast_pair<S, bf16>(s, a);
}

ap_status cu_cast(struct cu_stream *s, const struct ap_cast_args *a)
{
    if (a->src.dtype == AP_F32)
        return cast_from<float>(s, a);
    return a->src.dtype == AP_F64 ? cast_from<double>(s, a) : cast_from<bf16>(s, a);
}

/* sigmoid without overflow on either side: exp of a large negative number is 0, of a large positive one inf. */
static __device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

/* One thread: V neighbours of one row. cols = width / V. */
template <typename T, int V>
static __global__ void swiglu_fwd_kernel(const T *gate_up, T *y, int64_t rows, int64_t width)
{
    int64_t i = thread_index(), cols = width / V;
    if (i >= rows * cols)
        return;
    int64_t row = i / cols, col = i % cols * V;
    pack<T, V> g = load<T, V>(gate_up + row * 2 * width + col), u = load<T, V>(gate_up + row * 2 * width + width + col);
#pragma unroll
    for (int j = 0; j < V; j++) {
        float x = to_float(g.v[j]);
        g.v[j] = from_float<T>(x * sigmoid(x) * to_float(u.v[j]));
    }
    store<T, V>(y + row * width + col, g);
}

template <typename T> static ap_status swiglu_fwd_any(struct cu_stream *s, const struct ap_swiglu_fwd_args *a)
{
    constexpr int V = pack_width<T>;
    int64_t rows = a->y.shape[0], width = a->y.shape[1];
    const T *x = (const T *)a->gate_up.data;
    T *y = (T *)a->y.data;
    if (rows * width == 0)
        return AP_OK;
    if (width % V == 0 && aligned16(x) && aligned16(y))
        AP_LAUNCH((swiglu_fwd_kernel<T, V>), grid_for(rows * (width / V)), THREADS, 0, s->id, x, y, rows, width);
    else
        AP_LAUNCH((swiglu_fwd_kernel<T, 1>), grid_for(rows * width), THREADS, 0, s->id, x, y, rows, width);
    return cu_launched("swiglu_fwd");
}

ap_status cu_swiglu_fwd(struct cu_stream *s, const struct ap_swiglu_fwd_args *a)
{
    if (a->y.dtype == AP_F32)
        return swiglu_fwd_any<float>(s, a);
    return a->y.dtype == AP_BF16 ? swiglu_fwd_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}

template <typename T, int V>
static __global__ void swiglu_bwd_kernel(const T *dy, const T *gate_up, T *out, int64_t rows, int64_t width)
{
    int64_t i = thread_index(), cols = width / V;
    if (i >= rows * cols)
        return;
    int64_t row = i / cols, col = i % cols * V, at = row * 2 * width + col;
    pack<T, V> g = load<T, V>(gate_up + at), u = load<T, V>(gate_up + at + width),
               d = load<T, V>(dy + row * width + col);
#pragma unroll
    for (int j = 0; j < V; j++) {
        float x = to_float(g.v[j]), sig = sigmoid(x), grad = to_float(d.v[j]);
        g.v[j] = from_float<T>(grad * to_float(u.v[j]) * sig * (1.0f + x * (1.0f - sig)));
        u.v[j] = from_float<T>(grad * x * sig);
    }
    store<T, V>(out + at, g);
    store<T, V>(out + at + width, u);
}

template <typename T> static ap_status swiglu_bwd_any(struct cu_stream *s, const struct ap_swiglu_bwd_args *a)
{
    constexpr int V = pack_width<T>;
    int64_t rows = a->dy.shape[0], width = a->dy.shape[1];
    const T *dy = (const T *)a->dy.data, *x = (const T *)a->gate_up.data;
    T *out = (T *)a->dgate_up.data;
    if (rows * width == 0)
        return AP_OK;
    if (width % V == 0 && aligned16(x) && aligned16(dy) && aligned16(out))
        AP_LAUNCH((swiglu_bwd_kernel<T, V>), grid_for(rows * (width / V)), THREADS, 0, s->id, dy, x, out, rows, width);
    else
        AP_LAUNCH((swiglu_bwd_kernel<T, 1>), grid_for(rows * width), THREADS, 0, s->id, dy, x, out, rows, width);
    return cu_launched("swiglu_bwd");
}

ap_status cu_swiglu_bwd(struct cu_stream *s, const struct ap_swiglu_bwd_args *a)
{
    if (a->dy.dtype == AP_F32)
        return swiglu_bwd_any<float>(s, a);
    return a->dy.dtype == AP_BF16 ? swiglu_bwd_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}

struct rope_shape {
    int64_t rows, heads, width, half, stride;
    float sign;
};

/* One thread: one pair of one head of one token. */
template <typename T>
static __global__ void rope_kernel(T *x, const float *cos_table, const float *sin_table, const int32_t *positions,
                                   rope_shape n)
{
    int64_t i = thread_index();
    if (i >= n.rows * n.heads * n.half)
        return;
    int64_t pair = i % n.half, head = i / n.half % n.heads, row = i / (n.half * n.heads);
    T *p = x + row * n.stride + head * n.width + (n.width - 2 * n.half) + 2 * pair;
    int64_t at = positions[row] * n.half + pair;
    float c = cos_table[at], s = n.sign * sin_table[at], even = to_float(p[0]), odd = to_float(p[1]);
    p[0] = from_float<T>(even * c - odd * s);
    p[1] = from_float<T>(even * s + odd * c);
}

ap_status cu_rope(struct cu_stream *s, const struct ap_rope_args *a)
{
    rope_shape n = {a->x.shape[0], a->x.shape[1], a->x.shape[2], a->r / 2, a->x_stride, a->inverse ? -1.0f : 1.0f};
    n.stride = n.stride ? n.stride : n.heads * n.width;
    int64_t items = n.rows * n.heads * n.half;
    const float *c = (const float *)a->cos.data, *sn = (const float *)a->sin.data;
    const int32_t *pos = (const int32_t *)a->positions.data;
    if (a->x.dtype != AP_F32 && a->x.dtype != AP_BF16)
        return AP_ERR_UNSUPPORTED;
    if (items == 0)
        return AP_OK;
    if (a->x.dtype == AP_F32)
        AP_LAUNCH((rope_kernel<float>), grid_for(items), THREADS, 0, s->id, (float *)a->x.data, c, sn, pos, n);
    else
        AP_LAUNCH((rope_kernel<bf16>), grid_for(items), THREADS, 0, s->id, (bf16 *)a->x.data, c, sn, pos, n);
    return cu_launched("rope");
}

struct cols_shape {
    int64_t rows, cols, src_width, dst_width, src_col, dst_col;
    int accumulate;
};

template <typename T, int V> static __global__ void split_cols_kernel(const T *src, T *dst, cols_shape n)
{
    int64_t i = thread_index(), cols = n.cols / V;
    if (i >= n.rows * cols)
        return;
    int64_t row = i / cols, col = i % cols * V;
    T *out = dst + row * n.dst_width + n.dst_col + col;
    pack<T, V> x = load<T, V>(src + row * n.src_width + n.src_col + col);
    if (n.accumulate) {
        pack<T, V> y = load<T, V>(out);
#pragma unroll
        for (int j = 0; j < V; j++)
            x.v[j] = from_float<T>(to_float(y.v[j]) + to_float(x.v[j]));
    }
    store<T, V>(out, x);
}

template <typename T> static ap_status split_cols_any(struct cu_stream *s, const struct ap_split_cols_args *a)
{
    constexpr int V = pack_width<T>;
    cols_shape n = {a->src.shape[0], a->cols, a->src.shape[1], a->dst.shape[1], a->src_col, a->dst_col, a->accumulate};
    const T *src = (const T *)a->src.data;
    T *dst = (T *)a->dst.data;
    if (n.rows * n.cols == 0)
        return AP_OK;
    if ((n.cols | n.src_width | n.dst_width | n.src_col | n.dst_col) % V == 0 && aligned16(src) && aligned16(dst))
        AP_LAUNCH((split_cols_kernel<T, V>), grid_for(n.rows * (n.cols / V)), THREADS, 0, s->id, src, dst, n);
    else
        AP_LAUNCH((split_cols_kernel<T, 1>), grid_for(n.rows * n.cols), THREADS, 0, s->id, src, dst, n);
    return cu_launched("split_cols");
}

ap_status cu_split_cols(struct cu_stream *s, const struct ap_split_cols_args *a)
{
    if (a->src.dtype == AP_F32)
        return split_cols_any<float>(s, a);
    return a->src.dtype == AP_BF16 ? split_cols_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}
