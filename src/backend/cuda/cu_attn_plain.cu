/* SPDX-License-Identifier: Apache-2.0
 * Attention for any shape in plain f32 arithmetic: f32 tensors, and bf16 tensors that the tensor-core kernels
 * do not take. Blocks of 64 queries by 64 keys; a thread owns 4 x 4 scores and 4 rows of the results. */
#include "config.h"

#include "backend/cuda/cu_attn.h"

#define THREADS 256
#define TILE    ATTN_TILE
#define DEPTH   32 /* of a product's inner dimension in shared memory */
#define STEP    16 /* rows of the other operand of an update in shared memory */
#define LD      (TILE + 4)

/* Operand panels of products and of updates share their memory; weights holds P or dS, [inner][row]. */
struct attn_space {
    union {
        struct {
            float a[DEPTH][LD], b[DEPTH][LD];
        } in;
        float rows[STEP][192 + 4];
    };
    float weights[TILE][LD];
    int low[THREADS / AP_WARP];
};

static __device__ __forceinline__ int thread_row(void)
{
    return (int)threadIdx.x / 16 * 4;
}
static __device__ __forceinline__ int thread_col(void)
{
    return (int)threadIdx.x % 16 * 4;
}
/* Column j of a thread's part of a [64, 16 N] result: 4 neighbours in every 64. */
static __device__ __forceinline__ int result_col(int j)
{
    return j / 4 * 64 + thread_col() + j % 4;
}

/* s[i][j] = sum over k < depth of a(row i, k) b(col j, k); a and b give 0 beyond their rows. */
template <typename FA, typename FB>
static __device__ __forceinline__ void product(attn_space &sh, int depth, FA a, FB b, float s[4][4])
{
    int row = thread_row(), col = thread_col();
#pragma unroll
    for (int i = 0; i < 16; i++)
        s[i / 4][i % 4] = 0.0f;
    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < TILE * DEPTH; i += THREADS) {
            int k = i % DEPTH, at = i / DEPTH;
            sh.in.a[k][at] = k0 + k < depth ? a(at, k0 + k) : 0.0f;
            sh.in.b[k][at] = k0 + k < depth ? b(at, k0 + k) : 0.0f;
        }
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < DEPTH; k++) {
            float x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[i] = sh.in.a[k][row + i];
                y[i] = sh.in.b[k][col + i];
            }
#pragma unroll
            for (int i = 0; i < 16; i++)
                s[i / 4][i % 4] += x[i / 4] * y[i % 4];
        }
    }
}

/* sum[i][j] += sum over the 64 inner rows of weights[inner][row i] b(inner, column j); b: 0 beyond its size. */
template <int N, typename FB> static __device__ __forceinline__ void update(attn_space &sh, FB b, float sum[4][N])
{
    int row = thread_row();
    for (int r0 = 0; r0 < TILE; r0 += STEP) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < STEP * 16 * N; i += THREADS)
            sh.rows[i / (16 * N)][i % (16 * N)] = b(r0 + i / (16 * N), i % (16 * N));
        __syncthreads();
        for (int r = 0; r < STEP; r++) {
            float p[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[i] = sh.weights[r0 + r][row + i];
#pragma unroll
            for (int j = 0; j < N; j++) {
                float x = sh.rows[r][result_col(j)];
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sum[i][j] += p[i] * x;
            }
        }
    }
}

static __device__ __forceinline__ void put_weights(attn_space &sh, const float s[4][4])
{
#pragma unroll
    for (int i = 0; i < 16; i++)
        sh.weights[thread_col() + i % 4][thread_row() + i / 4] = s[i / 4][i % 4];
}

/* Reads of one (sequence, head) by token of the sequence; 0 beyond its end. */
template <typename T> struct attn_view {
    const attn_data<T> &d;
    const attn_shape &n;
    int64_t base, head; /* first row of the sequence */
    __device__ __forceinline__ float q(int64_t t, int k) const
    {
        return t < n.len ? to_float(d.q[((base + t) * n.heads + head) * (n.n + n.r) + k]) : 0.0f;
    }
    __device__ __forceinline__ float key(int64_t t, int k) const
    {
        if (t >= n.len)
            return 0.0f;
        return to_float(k < n.n ? d.kv[((base + t) * n.heads + head) * (n.n + n.v) + k]
                                : d.kr[(base + t) * n.kr_stride + k - n.n]);
    }
    __device__ __forceinline__ float value(int64_t t, int j) const
    {
        return t < n.len ? to_float(d.kv[((base + t) * n.heads + head) * (n.n + n.v) + n.n + j]) : 0.0f;
    }
    __device__ __forceinline__ float dout(int64_t t, int j) const
    {
        return t < n.len ? to_float(d.dout[((base + t) * n.heads + head) * n.v + j]) : 0.0f;
    }
    /* First visible token of query t; beyond the end: none is visible. */
    __device__ __forceinline__ int first(int64_t t) const
    {
        return t < n.len ? d.first[base + t] : 0x7fffffff;
    }
};

/* One step of the online softmax over a tile of scores: s becomes exp(s - top); sum and the factor of what was
 * summed before are updated. A row's 64 columns are 4 each of 16 neighbouring lanes. */
static __device__ __forceinline__ void softmax_step(float s[4][4], float top[4], float sum[4], float factor[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float high = fmaxf(fmaxf(s[i][0], s[i][1]), fmaxf(s[i][2], s[i][3])), part = 0.0f;
#pragma unroll
        for (int step = 8; step > 0; step /= 2)
            high = fmaxf(high, __shfl_xor_sync(AP_FULL, high, step));
        high = fmaxf(high, top[i]);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[i][j] = s[i][j] == -INFINITY ? 0.0f : expf(s[i][j] - high);
            part += s[i][j];
        }
#pragma unroll
        for (int step = 8; step > 0; step /= 2)
            part += __shfl_xor_sync(AP_FULL, part, step);
        factor[i] = top[i] == -INFINITY ? 0.0f : expf(top[i] - high);
        sum[i] = sum[i] * factor[i] + part;
        top[i] = high;
    }
}

/* Block (query tile, head, sequence), the longest tiles first. N: 16ths of v. */
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS) plain_fwd_kernel(attn_data<T> d, attn_shape n)
{
    AP_SHARED(attn_space, sh);
    int64_t q0 = (int64_t)(gridDim.x - 1 - blockIdx.x) * TILE, base = blockIdx.z * n.len;
    attn_view<T> view = {d, n, base, blockIdx.y};
    int row = thread_row(), col = thread_col(), first[4], low = 0x7fffffff;
    float top[4], total[4], factor[4], sum[4][N] = {}, s[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        first[i] = view.first(q0 + row + i);
        low = min(low, first[i]);
        top[i] = -INFINITY;
        total[i] = 0.0f;
    }
    low = block_min<THREADS>(low, sh.low);
    for (int64_t k0 = low / TILE * TILE; k0 <= q0; k0 += TILE) {
        product(
            sh, (int)(n.n + n.r), [&](int r, int k) { return view.q(q0 + r, k); },
            [&](int r, int k) { return view.key(k0 + r, k); }, s);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            int64_t q = q0 + row + i / 4, k = k0 + col + i % 4;
            s[i / 4][i % 4] = k <= q && k >= first[i / 4] ? s[i / 4][i % 4] * n.scale : -INFINITY;
        }
        softmax_step(s, top, total, factor);
        put_weights(sh, s);
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < N; j++)
                sum[i][j] *= factor[i];
        }
        update<N>(sh, [&](int r, int c) { return c < n.v ? view.value(k0 + r, c) : 0.0f; }, sum);
    }
    for (int i = 0; i < 4; i++) {
        int64_t q = q0 + row + i, at = (base + q) * n.heads + blockIdx.y;
        for (int j = 0; j < N && q < n.len; j++) {
            if (result_col(j) < n.v)
                d.out[at * n.v + result_col(j)] = from_float<T>(sum[i][j] / total[i]);
        }
        if (col == 0 && q < n.len)
            d.lse[at] = top[i] + logf(total[i]);
    }
}

/* Probability and its gradient at (query q, key k) from the raw score and dout . v. */
static __device__ __forceinline__ void gradient(bool visible, const attn_shape &n, float lse, float delta, float *s,
                                                float *dp)
{
    float p = visible ? expf(*s * n.scale - lse) : 0.0f;
    *s = p;
    *dp = p * (*dp - delta) * n.scale;
}

/* dQ: block (query tile, head, sequence). N: 16ths of n + r. */
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS) plain_dq_kernel(attn_data<T> d, attn_shape n)
{
    AP_SHARED(attn_space, sh);
    int64_t q0 = (int64_t)(gridDim.x - 1 - blockIdx.x) * TILE, base = blockIdx.z * n.len;
    attn_view<T> view = {d, n, base, blockIdx.y};
    int row = thread_row(), col = thread_col(), first[4], low = 0x7fffffff, width = (int)(n.n + n.r);
    float lse[4], delta[4], sum[4][N] = {}, s[4][4], dp[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int64_t q = q0 + row + i, at = (base + q) * n.heads + blockIdx.y;
        first[i] = view.first(q);
        low = min(low, first[i]);
        lse[i] = q < n.len ? d.lse[at] : 0.0f;
        delta[i] = q < n.len ? d.delta[at] : 0.0f;
    }
    low = block_min<THREADS>(low, sh.low);
    for (int64_t k0 = low / TILE * TILE; k0 <= q0; k0 += TILE) {
        product(
            sh, width, [&](int r, int k) { return view.q(q0 + r, k); },
            [&](int r, int k) { return view.key(k0 + r, k); }, s);
        product(
            sh, (int)n.v, [&](int r, int k) { return view.dout(q0 + r, k); },
            [&](int r, int k) { return view.value(k0 + r, k); }, dp);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            int64_t q = q0 + row + i / 4, k = k0 + col + i % 4;
            gradient(k <= q && k >= first[i / 4], n, lse[i / 4], delta[i / 4], &s[i / 4][i % 4], &dp[i / 4][i % 4]);
        }
        put_weights(sh, dp);
        update<N>(sh, [&](int r, int c) { return c < width ? view.key(k0 + r, c) : 0.0f; }, sum);
    }
    for (int i = 0; i < 4; i++) {
        int64_t q = q0 + row + i;
        for (int j = 0; j < N && q < n.len; j++) {
            if (result_col(j) < width)
                d.dq[((base + q) * n.heads + blockIdx.y) * width + result_col(j)] = from_float<T>(sum[i][j]);
        }
    }
}

/* Write dK and dV of one head; what belongs to the rope key stays in dk. */
template <typename T, int NK, int NV>
static __device__ void put_head(const attn_data<T> &d, const attn_shape &n, int64_t row0, int64_t left, int64_t head,
                                float dk[4][NK], float dv[4][NV])
{
    for (int i = 0; i < 4; i++) {
        int64_t at = ((row0 + i) * n.heads + head) * (n.n + n.v);
#pragma unroll
        for (int j = 0; j < NK; j++) {
            if (result_col(j) < n.n) {
                if (i < left)
                    d.dkv[at + result_col(j)] = from_float<T>(dk[i][j]);
                dk[i][j] = 0.0f;
            }
        }
#pragma unroll
        for (int j = 0; j < NV; j++) {
            if (i < left && result_col(j) < n.v)
                d.dkv[at + n.n + result_col(j)] = from_float<T>(dv[i][j]);
            dv[i][j] = 0.0f;
        }
    }
}

/* The rope key's gradient of a head group: into dkr, or into the group's part. rows: of the whole call. */
template <typename T, int NK>
static __device__ void put_rope(const attn_data<T> &d, const attn_shape &n, int64_t row0, int64_t left, int64_t rows,
                                const float dk[4][NK])
{
    for (int i = 0; i < 4 && i < left; i++) {
#pragma unroll
        for (int j = 0; j < NK; j++) {
            int64_t k = result_col(j) - n.n;
            if (k < 0 || k >= n.r)
                continue;
            if (d.dkr_part)
                d.dkr_part[(blockIdx.y * rows + row0 + i) * n.r + k] = dk[i][j];
            else
                d.dkr[(row0 + i) * n.dkr_stride + k] = from_float<T>(dk[i][j]);
        }
    }
}

/* dK, dV of one key tile from one query tile; rows are keys, columns queries. */
template <typename T, int NK, int NV>
static __device__ void key_step(attn_space &sh, const attn_view<T> &view, int64_t k0, int64_t q0, float dk[4][NK],
                                float dv[4][NV])
{
    const attn_shape &n = view.n;
    int row = thread_row(), col = thread_col(), first[4], seen = 0, width = (int)(n.n + n.r);
    float s[4][4], dp[4][4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        first[j] = view.first(q0 + col + j);
        seen |= first[j] < k0 + TILE;
    }
    if (!__syncthreads_or(seen)) /* the documents of these queries begin after these keys */
        return;
    product(
        sh, width, [&](int r, int k) { return view.key(k0 + r, k); }, [&](int r, int k) { return view.q(q0 + r, k); },
        s);
    product(
        sh, (int)n.v, [&](int r, int k) { return view.value(k0 + r, k); },
        [&](int r, int k) { return view.dout(q0 + r, k); }, dp);
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int64_t q = q0 + col + i % 4, k = k0 + row + i / 4, at = (view.base + q) * n.heads + view.head;
        bool visible = k <= q && k >= first[i % 4];
        gradient(visible, n, visible ? view.d.lse[at] : 0.0f, visible ? view.d.delta[at] : 0.0f, &s[i / 4][i % 4],
                 &dp[i / 4][i % 4]);
    }
    put_weights(sh, s);
    update<NV>(sh, [&](int r, int c) { return c < n.v ? view.dout(q0 + r, c) : 0.0f; }, dv);
    __syncthreads();
    put_weights(sh, dp);
    update<NK>(sh, [&](int r, int c) { return c < width ? view.q(q0 + r, c) : 0.0f; }, dk);
    __syncthreads();
}

/* dK, dV: block (key tile, head group, sequence). */
template <typename T, int NK, int NV>
static __global__ void __launch_bounds__(THREADS) plain_dkv_kernel(attn_data<T> d, attn_shape n)
{
    AP_SHARED(attn_space, sh);
    int64_t k0 = (int64_t)blockIdx.x * TILE, base = blockIdx.z * n.len;
    int64_t row0 = base + k0 + thread_row(), left = n.len - (k0 + thread_row());
    float dk[4][NK] = {}, dv[4][NV] = {};
    int64_t last =
        (int64_t)(blockIdx.y + 1) * n.head_group < n.heads ? (int64_t)(blockIdx.y + 1) * n.head_group : n.heads;
    for (int64_t head = (int64_t)blockIdx.y * n.head_group; head < last; head++) {
        attn_view<T> view = {d, n, base, head};
        for (int64_t q0 = k0; q0 < n.len; q0 += TILE)
            key_step<T, NK, NV>(sh, view, k0, q0, dk, dv);
        put_head<T, NK, NV>(d, n, row0, left, head, dk, dv);
    }
    put_rope<T, NK>(d, n, row0, left, gridDim.z * n.len, dk);
}

template <typename T>
static ap_status plain_fwd(struct cu_stream *s, const attn_data<T> &d, const attn_shape &n, int64_t seqs)
{
    dim3 grid((unsigned)attn_tiles(n.len), (unsigned)n.heads, (unsigned)seqs);
    if (n.v <= 64)
        AP_LAUNCH((plain_fwd_kernel<T, 4>), grid, THREADS, 0, s->id, d, n);
    else
        AP_LAUNCH((plain_fwd_kernel<T, 8>), grid, THREADS, 0, s->id, d, n);
    return cu_launched("mla_attn_fwd");
}

template <typename T>
static ap_status plain_bwd(struct cu_stream *s, const attn_data<T> &d, const attn_shape &n, int64_t seqs)
{
    dim3 grid((unsigned)attn_tiles(n.len), (unsigned)n.heads, (unsigned)seqs);
    dim3 keys(grid.x, (unsigned)ceil_div(n.heads, n.head_group), grid.z);
    if (n.n + n.r <= 64 && n.v <= 64) {
        AP_LAUNCH((plain_dkv_kernel<T, 4, 4>), keys, THREADS, 0, s->id, d, n);
        AP_LAUNCH((plain_dq_kernel<T, 4>), grid, THREADS, 0, s->id, d, n);
    } else {
        AP_LAUNCH((plain_dkv_kernel<T, 12, 8>), keys, THREADS, 0, s->id, d, n);
        AP_LAUNCH((plain_dq_kernel<T, 12>), grid, THREADS, 0, s->id, d, n);
    }
    return cu_launched("mla_attn_bwd");
}

ap_status attn_plain_fwd(struct cu_stream *s, const attn_data<float> &d, const attn_shape &n, int64_t seqs)
{
    return plain_fwd(s, d, n, seqs);
}
ap_status attn_plain_fwd(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs)
{
    return plain_fwd(s, d, n, seqs);
}
ap_status attn_plain_bwd(struct cu_stream *s, const attn_data<float> &d, const attn_shape &n, int64_t seqs)
{
    return plain_bwd(s, d, n, seqs);
}
ap_status attn_plain_bwd(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs)
{
    return plain_bwd(s, d, n, seqs);
}
