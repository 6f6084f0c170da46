/* SPDX-License-Identifier: Apache-2.0
 * Embedding rows. The gradient of one table row is the sum over the tokens with its id in ascending order:
 * a first kernel links every token to the next one with the same id, a second one lets the first token of
 * each id walk its chain. No atomics, no sort. */
#include "config.h"

#include "backend/cuda/cu_backend.h"

#define THREADS 256

template <typename T, int V>
static __global__ void embed_fwd_kernel(const T *table, const int32_t *ids, T *out, int64_t rows, int64_t h)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, cols = h / V;
    if (i >= rows * cols)
        return;
    int64_t row = i / cols, col = i % cols * V, id = ids[row];
    pack<T, V> p;
    if (id >= 0) {
        p = load<T, V>(table + id * h + col);
    } else {
#pragma unroll
        for (int j = 0; j < V; j++)
            p.v[j] = from_float<T>(0.0f);
    }
    store<T, V>(out + row * h + col, p);
}

template <typename T> static ap_status embed_fwd_any(struct cu_stream *s, const struct ap_embed_fwd_args *a)
{
    constexpr int V = pack_width<T>;
    int64_t rows = a->out.shape[0], h = a->out.shape[1];
    const T *table = (const T *)a->table.data;
    const int32_t *ids = (const int32_t *)a->ids.data;
    T *out = (T *)a->out.data;
    if (rows * h == 0)
        return AP_OK;
    if (h % V == 0 && aligned16(table) && aligned16(out))
        AP_LAUNCH((embed_fwd_kernel<T, V>), dim3((unsigned)ceil_div(rows * (h / V), THREADS)), THREADS, 0, s->id, table,
                  ids, out, rows, h);
    else
        AP_LAUNCH((embed_fwd_kernel<T, 1>), dim3((unsigned)ceil_div(rows * h, THREADS)), THREADS, 0, s->id, table, ids,
                  out, rows, h);
    return cu_launched("embed_fwd");
}

ap_status cu_embed_fwd(struct cu_stream *s, const struct ap_embed_fwd_args *a)
{
    if (a->table.dtype == AP_F32)
        return embed_fwd_any<float>(s, a);
    return a->table.dtype == AP_BF16 ? embed_fwd_any<bf16>(s, a) : AP_ERR_UNSUPPORTED;
}

/* One warp per token i: next[i] = the next token with the same id, -1 if none; follows[next[i]] = 1. follows
 * is zero before; every token has at most one predecessor, so no two warps write the same place. Tokens whose row is
 * elsewhere (id -1) have no chain. */
static __global__ void embed_link_kernel(const int32_t *ids, int32_t *next, int32_t *follows, int64_t rows)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / AP_WARP, found = -1;
    int lane = (int)threadIdx.x % AP_WARP;
    if (i >= rows || ids[i] < 0)
        return;
    int32_t id = ids[i];
    for (int64_t j = i + 1; j < rows && found < 0; j += AP_WARP) {
        unsigned hits = __ballot_sync(AP_FULL, j + lane < rows && ids[j + lane] == id);
        if (hits)
            found = j + __ffs((int)hits) - 1;
    }
    if (lane == 0) {
        next[i] = (int32_t)found;
        if (found >= 0)
            follows[found] = 1;
    }
}

/* Block x: the chain that starts at token x, if one does; thread: one column. */
template <typename T, typename D>
static __global__ void embed_bwd_kernel(const T *dout, const int32_t *ids, const int32_t *next, const int32_t *follows,
                                        D *dtable, int64_t h)
{
    int64_t first = blockIdx.x, col = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (follows[first] || ids[first] < 0 || col >= h)
        return;
    D *out = dtable + ids[first] * h + col;
    float sum = to_float(*out);
    for (int64_t i = first; i >= 0;) {
        int64_t after = next[i];
        sum += to_float(dout[i * h + col]);
        i = after;
    }
    *out = from_float<D>(sum);
}

ap_status cu_embed_bwd(struct cu_stream *s, const struct ap_embed_bwd_args *a)
{
    int64_t rows = a->dout.shape[0], h = a->dout.shape[1];
    const int32_t *ids = (const int32_t *)a->ids.data;
    if (a->dout.dtype != AP_F32 && a->dout.dtype != AP_BF16)
        return AP_ERR_UNSUPPORTED;
    if (rows * h == 0)
        return AP_OK;
    void *mem;
    AP_TRY(cu_scratch(s, (size_t)rows * 2 * sizeof(int32_t), &mem));
    int32_t *next = (int32_t *)mem, *follows = next + rows;
    cudaError_t e = cudaMemsetAsync(follows, 0, (size_t)rows * sizeof(int32_t), s->id);
    if (e != cudaSuccess)
        return cu_failed("embed_bwd", e);
    AP_LAUNCH(embed_link_kernel, dim3((unsigned)ceil_div(rows * AP_WARP, THREADS)), THREADS, 0, s->id, ids, next,
              follows, rows);
    dim3 grid((unsigned)rows, (unsigned)ceil_div(h, THREADS));
    if (a->dout.dtype == AP_F32)
        AP_LAUNCH((embed_bwd_kernel<float, float>), grid, THREADS, 0, s->id, (const float *)a->dout.data, ids, next,
                  follows, (float *)a->dtable.data, h);
    else if (a->dtable.dtype == AP_F32)
        AP_LAUNCH((embed_bwd_kernel<bf16, float>), grid, THREADS, 0, s->id, (const bf16 *)a->dout.data, ids, next,
                  follows, (float *)a->dtable.data, h);
    else
        AP_LAUNCH((embed_bwd_kernel<bf16, bf16>), grid, THREADS, 0, s->id, (const bf16 *)a->dout.data, ids, next,
                  follows, (bf16 *)a->dtable.data, h);
    return cu_launched("embed_bwd");
}
