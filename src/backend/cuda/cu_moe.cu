/* SPDX-License-Identifier: Apache-2.0
 * Moving token rows to their experts and back. moe_plan is a counting sort in three kernels: histogram of
 * chunks of choices, prefix sums over chunks and experts, and ranks inside a chunk by one warp that walks it
 * in order, so that the sort is stable and its result unique. */
#include "config.h"

#include "backend/cuda/cu_backend.h"

#define THREADS 256
#define CHUNK   1024 /* choices of one histogram */

/* hist [chunks, E] = choices of the chunk per expert. Shared: i32 [E]. */
static __global__ void plan_count_kernel(const int32_t *ids, int64_t choices, int experts, int32_t *hist)
{
    AP_SHARED_DYN(space);
    int *count = (int *)space;
    for (int e = (int)threadIdx.x; e < experts; e += THREADS)
        count[e] = 0;
    __syncthreads();
    int64_t first = (int64_t)blockIdx.x * CHUNK, last = first + CHUNK < choices ? first + CHUNK : choices;
    for (int64_t i = first + threadIdx.x; i < last; i += THREADS)
        atomicAdd(&count[ids[i]], 1); /* integers: the order does not matter */
    __syncthreads();
    for (int e = (int)threadIdx.x; e < experts; e += THREADS)
        hist[(int64_t)blockIdx.x * experts + e] = count[e];
}

/* hist becomes the number of earlier choices of the expert; offsets the first row of each expert. One block. */
static __global__ void plan_scan_kernel(int32_t *hist, int chunks, int experts, int32_t *offsets)
{
    AP_SHARED_DYN(space);
    int *total = (int *)space;
    for (int e = (int)threadIdx.x; e < experts; e += THREADS) {
        int sum = 0;
        for (int c = 0; c < chunks; c++) {
            int32_t *at = &hist[(int64_t)c * experts + e];
            int count = *at;
            *at = sum;
            sum += count;
        }
        total[e] = sum;
    }
    __syncthreads();
    if (threadIdx.x >= AP_WARP)
        return;
    int lane = (int)threadIdx.x, before = 0;
    for (int base = 0; base < experts; base += AP_WARP) {
        int mine = base + lane < experts ? total[base + lane] : 0, sum = mine;
#pragma unroll
        for (int step = 1; step < AP_WARP; step *= 2) {
            int other = __shfl_up_sync(AP_FULL, sum, step);
            sum += lane >= step ? other : 0;
        }
        if (base + lane < experts)
            offsets[base + lane] = before + sum - mine;
        before += __shfl_sync(AP_FULL, sum, AP_WARP - 1);
    }
    if (lane == 0)
        offsets[experts] = before;
}

struct plan_shape {
    int experts, chosen;
};
struct plan_out {
    int32_t *row_of, *token_of;
};

/* One warp per chunk; shared: i32 next row of each expert [E]. */
static __global__ void plan_rank_kernel(const int32_t *ids, const int32_t *hist, const int32_t *offsets, plan_out out,
                                        int64_t choices, plan_shape n)
{
    AP_SHARED_DYN(space);
    int *next = (int *)space, lane = (int)threadIdx.x;
    for (int e = lane; e < n.experts; e += AP_WARP)
        next[e] = hist[(int64_t)blockIdx.x * n.experts + e] + offsets[e];
    __syncwarp();
    int64_t first = (int64_t)blockIdx.x * CHUNK, last = first + CHUNK < choices ? first + CHUNK : choices;
    for (int64_t base = first; base < last; base += AP_WARP) {
        int64_t i = base + lane;
        int id = i < last ? ids[i] : -1;
        unsigned peers = __match_any_sync(AP_FULL, id);
        int before = __popc(peers & ((1u << lane) - 1u));
        if (id >= 0) {
            int row = next[id] + before;
            out.row_of[i] = row;
            out.token_of[row] = (int32_t)(i / n.chosen);
        }
        __syncwarp();
        if (id >= 0 && before == 0)
            next[id] += __popc(peers);
        __syncwarp();
    }
}

ap_status cu_moe_plan(struct cu_stream *s, const struct ap_moe_plan_args *a)
{
    int64_t choices = ap_tensor_count(&a->ids), chunks = ceil_div(choices, CHUNK);
    plan_shape n = {(int)ap_tensor_count(&a->offsets) - 1, (int)a->ids.shape[1]};
    size_t bytes = (size_t)n.experts * sizeof(int);
    const int32_t *ids = (const int32_t *)a->ids.data;
    int32_t *offsets = (int32_t *)a->offsets.data;
    plan_out out = {(int32_t *)a->row_of.data, (int32_t *)a->token_of.data};
    void *mem;
    if (bytes > 48 * 1024)
        return AP_ERR_UNSUPPORTED;
    AP_TRY(cu_scratch(s, (size_t)(chunks + 1) * bytes + 4, &mem));
    if (chunks > 0)
        AP_LAUNCH(plan_count_kernel, dim3((unsigned)chunks), THREADS, bytes, s->id, ids, choices, n.experts,
                  (int32_t *)mem);
    AP_LAUNCH(plan_scan_kernel, dim3(1), THREADS, bytes, s->id, (int32_t *)mem, (int)chunks, n.experts, offsets);
    if (chunks > 0)
        AP_LAUNCH(plan_rank_kernel, dim3((unsigned)chunks), AP_WARP, bytes, s->id, ids, (const int32_t *)mem, offsets,
                  out, choices, n);
    return cu_launched("moe_plan");
}

struct move_shape {
    int64_t rows, h, chosen;
};

/* Thread: V columns of one row. */
template <typename T, int V>
static __global__ void dispatch_fwd_kernel(const T *x, const int32_t *token_of, T *xs, move_shape n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, cols = n.h / V;
    if (i >= n.rows * cols)
        return;
    int64_t row = i / cols, col = i % cols * V;
    store<T, V>(xs + row * n.h + col, load<T, V>(x + (int64_t)token_of[row] * n.h + col));
}

/* out[t] += sum over k of (gate) ys[row_of[t,k]], in the order of k; gates NULL: 1. */
template <typename T, int V>
static __global__ void gather_kernel(const T *ys, const float *gates, const int32_t *row_of, T *out, move_shape n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, cols = n.h / V;
    if (i >= n.rows * cols)
        return;
    int64_t t = i / cols, col = i % cols * V;
    pack<T, V> p = load<T, V>(out + t * n.h + col);
    float sum[V];
#pragma unroll
    for (int j = 0; j < V; j++)
        sum[j] = to_float(p.v[j]);
    for (int64_t k = 0; k < n.chosen; k++) {
        pack<T, V> y = load<T, V>(ys + (int64_t)row_of[t * n.chosen + k] * n.h + col);
        float gate = gates ? gates[t * n.chosen + k] : 1.0f;
#pragma unroll
        for (int j = 0; j < V; j++)
            sum[j] += gate * to_float(y.v[j]);
    }
#pragma unroll
    for (int j = 0; j < V; j++)
        p.v[j] = from_float<T>(sum[j]);
    store<T, V>(out + t * n.h + col, p);
}

struct combine_in {
    const float *gates;
    const int32_t *row_of;
    float *dgates;
};

/* One warp per choice (t,k): dys[row] = gate dout[t], dgates = dout[t] . ys[row]. */
template <typename T, int V>
static __global__ void combine_bwd_kernel(const T *dout, const T *ys, T *dys, combine_in in, move_shape n)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / AP_WARP;
    int lane = (int)threadIdx.x % AP_WARP;
    if (i >= n.rows * n.chosen)
        return;
    int64_t row = in.row_of[i];
    const T *d = dout + i / n.chosen * n.h, *y = ys + row * n.h;
    float gate = in.gates[i], sum = 0.0f;
    for (int64_t c = (int64_t)lane * V; c < n.h; c += AP_WARP * V) {
        pack<T, V> p = load<T, V>(d + c), q = load<T, V>(y + c);
#pragma unroll
        for (int j = 0; j < V; j++) {
            sum += to_float(p.v[j]) * to_float(q.v[j]);
            p.v[j] = from_float<T>(gate * to_float(p.v[j]));
        }
        store<T, V>(dys + row * n.h + c, p);
    }
    sum = warp_sum(sum);
    if (lane == 0)
        in.dgates[i] = sum;
}

template <typename T> static ap_status dispatch_fwd(struct cu_stream *s, const struct ap_moe_dispatch_fwd_args *a)
{
    constexpr int V = pack_width<T>;
    move_shape n = {a->xs.shape[0], a->x.shape[1], 0};
    const T *x = (const T *)a->x.data;
    const int32_t *token_of = (const int32_t *)a->token_of.data;
    T *xs = (T *)a->xs.data;
    if (n.rows * n.h == 0)
        return AP_OK;
    if (n.h % V == 0 && aligned16(x) && aligned16(xs))
        AP_LAUNCH((dispatch_fwd_kernel<T, V>), dim3((unsigned)ceil_div(n.rows * (n.h / V), THREADS)), THREADS, 0, s->id,
                  x, token_of, xs, n);
    else
        AP_LAUNCH((dispatch_fwd_kernel<T, 1>), dim3((unsigned)ceil_div(n.rows * n.h, THREADS)), THREADS, 0, s->id, x,
                  token_of, xs, n);
    return cu_launched("moe_dispatch_fwd");
}

ap_status cu_moe_dispatch_fwd(struct cu_stream *s, const struct ap_moe_dispatch_fwd_args *a)
{
    if (a->x.dtype == AP_F32)
        return dispatch_fwd<float>(s, a);
    return a->x.dtype == AP_BF16 ? dispatch_fwd<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}

template <typename T>
static ap_status gather(struct cu_stream *s, const ap_tensor *ys, const ap_tensor *gates, const ap_tensor *row_of,
                        const ap_tensor *out)
{
    constexpr int V = pack_width<T>;
    move_shape n = {out->shape[0], out->shape[1], row_of->shape[1]};
    const T *y = (const T *)ys->data;
    const float *g = gates ? (const float *)gates->data : NULL;
    const int32_t *rows = (const int32_t *)row_of->data;
    T *o = (T *)out->data;
    if (n.rows * n.h == 0)
        return AP_OK;
    if (n.h % V == 0 && aligned16(y) && aligned16(o))
        AP_LAUNCH((gather_kernel<T, V>), dim3((unsigned)ceil_div(n.rows * (n.h / V), THREADS)), THREADS, 0, s->id, y, g,
                  rows, o, n);
    else
        AP_LAUNCH((gather_kernel<T, 1>), dim3((unsigned)ceil_div(n.rows * n.h, THREADS)), THREADS, 0, s->id, y, g, rows,
                  o, n);
    return cu_launched("moe gather");
}

ap_status cu_moe_dispatch_bwd(struct cu_stream *s, const struct ap_moe_dispatch_bwd_args *a)
{
    if (a->dx.dtype == AP_F32)
        return gather<float>(s, &a->dxs, NULL, &a->row_of, &a->dx);
    return a->dx.dtype == AP_BF16 ? gather<bf16>(s, &a->dxs, NULL, &a->row_of, &a->dx) : AP_ERR_UNSUPPORTED;
}

ap_status cu_moe_combine_fwd(struct cu_stream *s, const struct ap_moe_combine_fwd_args *a)
{
    if (a->out.dtype == AP_F32)
        return gather<float>(s, &a->ys, &a->gates, &a->row_of, &a->out);
    return a->out.dtype == AP_BF16 ? gather<bf16>(s, &a->ys, &a->gates, &a->row_of, &a->out) : AP_ERR_UNSUPPORTED;
}

template <typename T> static ap_status combine_bwd(struct cu_stream *s, const struct ap_moe_combine_bwd_args *a)
{
    constexpr int V = pack_width<T>;
    move_shape n = {a->dout.shape[0], a->dout.shape[1], a->row_of.shape[1]};
    combine_in in = {(const float *)a->gates.data, (const int32_t *)a->row_of.data, (float *)a->dgates.data};
    const T *d = (const T *)a->dout.data, *y = (const T *)a->ys.data;
    T *out = (T *)a->dys.data;
    if (n.rows * n.chosen == 0)
        return AP_OK;
    dim3 grid((unsigned)ceil_div(n.rows * n.chosen * AP_WARP, THREADS));
    if (n.h % V == 0 && aligned16(d) && aligned16(y) && aligned16(out))
        AP_LAUNCH((combine_bwd_kernel<T, V>), grid, THREADS, 0, s->id, d, y, out, in, n);
    else
        AP_LAUNCH((combine_bwd_kernel<T, 1>), grid, THREADS, 0, s->id, d, y, out, in, n);
    return cu_launched("moe_combine_bwd");
}

ap_status cu_moe_combine_bwd(struct cu_stream *s, const struct ap_moe_combine_bwd_args *a)
{
    if (a->dout.dtype == AP_F32)
        return combine_bwd<float>(s, a);
    return a->dout.dtype == AP_BF16 ? combine_bwd<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}
