/* SPDX-License-Identifier: Apache-2.0
 * Attention forward on tensor cores: 128 queries a block, 16 a warp, 64 keys a step. The next keys are copied
 * while probabilities meet values, the values while queries meet keys. Softmax in base 2. */
#include "config.h"

#include "backend/cuda/cu_attn_mma.h"

#define THREADS 256
#define QUERIES 128
#define KEYS    64

/* A query's state: two rows of every thread, the lane's g and g + 8. */
struct online {
    float top[2], sum[2];
};

/* Smallest first visible token of the block. */
static __device__ __forceinline__ int block_low(int x)
{
    typedef int warps[THREADS / AP_WARP];
    AP_SHARED(warps, low);
    return block_min<THREADS>(x, low);
}

/* Scores to base 2, hidden ones to -inf. key: of column 0; query: of the thread's first row. */
static __device__ __forceinline__ void mask(float s[KEYS / 8][4], float scale2, int64_t key, int64_t query,
                                            const int first[2])
{
    bool all = key + KEYS - 1 <= query && key >= first[0] && key >= first[1];
    int col = (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int64_t k = key + 8 * j + col + e % 2;
            bool seen = all || (k <= query + e / 2 * 8 && k >= first[e / 2]);
            s[j][e] = seen ? s[j][e] * scale2 : -INFINITY;
        }
    }
}

/* s becomes exp2(s - top); factor: of what was summed before. A row's columns lie in 4 neighbouring lanes. */
static __device__ __forceinline__ void softmax_step(float s[KEYS / 8][4], online *o, float factor[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float high = o->top[i], part = 0.0f;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
            high = fmaxf(high, fmaxf(s[j][2 * i], s[j][2 * i + 1]));
        high = fmaxf(high, __shfl_xor_sync(AP_FULL, high, 1));
        high = fmaxf(high, __shfl_xor_sync(AP_FULL, high, 2));
        float base = high == -INFINITY ? 0.0f : high; /* nothing visible yet: every term is exp2(-inf) */
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
            s[j][2 * i] = exp2f(s[j][2 * i] - base);
            s[j][2 * i + 1] = exp2f(s[j][2 * i + 1] - base);
            part += s[j][2 * i] + s[j][2 * i + 1];
        }
        part += __shfl_xor_sync(AP_FULL, part, 1);
        part += __shfl_xor_sync(AP_FULL, part, 2);
        factor[i] = exp2f(o->top[i] - base);
        o->sum[i] = o->sum[i] * factor[i] + part;
        o->top[i] = high;
    }
}

template <int DV>
static __device__ __forceinline__ void put_out(const mma_rows &rows, float sum[DV / 8][4], const online &o,
                                               int64_t query)
{
    const attn_shape &n = rows.n;
    int lane = (int)threadIdx.x % AP_WARP;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t t = query + 8 * i, at = (rows.base + t) * n.heads + rows.head;
        if (t >= n.len)
            continue;
        float scale = 1.0f / o.sum[i];
#pragma unroll
        for (int j = 0; j < DV / 8; j++) {
            if (8 * j < n.v)
                put2(rows.d.out + at * n.v + 8 * j + lane % 4 * 2, sum[j][2 * i] * scale, sum[j][2 * i + 1] * scale);
        }
        if (lane % 4 == 0)
            rows.d.lse[at] = (o.top[i] + log2f(o.sum[i])) * LN2;
    }
}

/* Block (query tile, head, sequence), the longest tiles first. */
template <int DK, int DV>
static __global__ void __launch_bounds__(THREADS) mma_fwd_kernel(attn_data<bf16> d, attn_shape n)
{
    AP_SHARED_DYN(space);
    bf16 *tq = reinterpret_cast<bf16 *>(space), *tk = tq + QUERIES * tile_ld<DK>, *tv = tk + KEYS * tile_ld<DK>;
    int64_t q0 = (int64_t)(gridDim.x - 1 - blockIdx.x) * QUERIES;
    mma_rows rows = {d, n, blockIdx.z * n.len, blockIdx.y};
    int warp = (int)threadIdx.x / AP_WARP, lane = (int)threadIdx.x % AP_WARP, first[2];
    int64_t query = q0 + 16 * warp + lane / 4;
    online o = {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
    float sum[DV / 8][4] = {}, s[KEYS / 8][4], factor[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
        first[i] = query + 8 * i < n.len ? d.first[rows.base + query + 8 * i] : NOTHING;
    int64_t key = block_low(min(first[0], first[1])) / KEYS * KEYS, end = q0 + QUERIES < n.len ? q0 + QUERIES : n.len;
    load_rows<QUERIES, DK, THREADS>(tq, d.q, [&](int r, int c) { return rows.q(q0 + r, c); });
    load_rows<KEYS, DK, THREADS>(tk, d.q, [&](int r, int c) { return rows.key(key + r, c); });
    cp_commit();
    for (; key < end; key += KEYS) {
        load_rows<KEYS, DV, THREADS>(tv, d.q, [&](int r, int c) { return rows.value(key + r, c); });
        cp_commit();
        cp_wait<1>();
        __syncthreads();
        scores<DK, KEYS>(s, tq, 16 * warp, tk);
        mask(s, n.scale * LOG2E, key, query, first);
        softmax_step(s, &o, factor);
        cp_wait<0>();
        __syncthreads(); /* the values are here, and everyone is done with the keys */
        if (key + KEYS < end) {
            load_rows<KEYS, DK, THREADS>(tk, d.q, [&](int r, int c) { return rows.key(key + KEYS + r, c); });
            cp_commit();
        }
#pragma unroll
        for (int j = 0; j < DV / 8; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                sum[j][e] *= factor[e / 2];
        }
        accumulate<DV, KEYS>(sum, s, tv);
        __syncthreads(); /* everyone is done with the values */
    }
    put_out<DV>(rows, sum, o, query);
}

template <int DK, int DV>
static ap_status launch(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs)
{
    size_t bytes = ((size_t)(QUERIES + KEYS) * tile_ld<DK> + (size_t)KEYS * tile_ld<DV>)*sizeof(bf16);
    dim3 grid((unsigned)ceil_div(n.len, QUERIES), (unsigned)n.heads, (unsigned)seqs);
    AP_TRY(cu_allow_shared(s, mma_fwd_kernel<DK, DV>, bytes));
    AP_LAUNCH((mma_fwd_kernel<DK, DV>), grid, THREADS, bytes, s->id, d, n);
    return cu_launched("mla_attn_fwd");
}

ap_status attn_mma_fwd(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs)
{
    if (n.n + n.r <= 64 && n.v <= 64)
        return launch<64, 64>(s, d, n, seqs);
    return n.n + n.r <= 96 && n.v <= 64 ? launch<96, 64>(s, d, n, seqs) : launch<192, 128>(s, d, n, seqs);
}
