/* SPDX-License-Identifier: Apache-2.0
 * Attention backward on tensor cores. Both passes hold 64 rows of one side (keys, or queries) and walk the
 * other side 32 rows at a time, two tiles in flight. In the key pass scores are formed transposed, so that
 * probabilities come out of the tensor core as the left operand of the next product and never pass through
 * shared memory. dS stays unscaled until the results are written. */
#include "config.h"

#include "backend/cuda/cu_attn_mma.h"

#define THREADS 128
#define HELD    64 /* rows of the stationary side, 16 a warp */
#define WALKED  32

template <int DK, int DV>
static constexpr size_t tiles_bytes = ((size_t)(HELD + 2 * WALKED) * (tile_ld<DK> + tile_ld<DV>)) * sizeof(bf16);

/* Two tiles of the held side, two stages of two tiles of the walked side. _k: DK wide, _v: DV wide. */
template <int DK, int DV> struct bwd_tiles {
    bf16 *held_k, *held_v, *walked;
    __device__ __forceinline__ explicit bwd_tiles(unsigned char *space)
    {
        held_k = reinterpret_cast<bf16 *>(space);
        held_v = held_k + HELD * tile_ld<DK>;
        walked = held_v + HELD * tile_ld<DV>;
    }
    __device__ __forceinline__ bf16 *walk_k(int stage) const
    {
        return walked + stage * WALKED * (tile_ld<DK> + tile_ld<DV>);
    }
    __device__ __forceinline__ bf16 *walk_v(int stage) const
    {
        return walk_k(stage) + WALKED * tile_ld<DK>;
    }
};

/* What the key pass knows of 32 queries. */
struct walked_queries {
    float lse2[WALKED], delta[WALKED];
    int first[WALKED];
};

template <int DK, int DV>
static __device__ __forceinline__ void fetch_queries(const mma_rows &rows, int64_t q0, bf16 *tq, bf16 *tdo,
                                                     walked_queries *w)
{
    const attn_shape &n = rows.n;
    load_rows<WALKED, DK, THREADS>(tq, rows.d.q, [&](int r, int c) { return rows.q(q0 + r, c); });
    load_rows<WALKED, DV, THREADS>(tdo, rows.d.q, [&](int r, int c) { return rows.dout(q0 + r, c); });
    if (threadIdx.x < WALKED) {
        int64_t q = q0 + threadIdx.x, at = (rows.base + q) * n.heads + rows.head;
        w->lse2[threadIdx.x] = q < n.len ? rows.d.lse[at] * LOG2E : 0.0f;
        w->delta[threadIdx.x] = q < n.len ? rows.d.delta[at] : 0.0f;
        w->first[threadIdx.x] = q < n.len ? rows.d.first[rows.base + q] : NOTHING;
    }
}

/* dK, dV of 16 keys from 32 queries; key: of the thread's first row. */
template <int DK, int DV>
static __device__ __forceinline__ void key_step(const bwd_tiles<DK, DV> &t, int stage, const walked_queries &w,
                                                float scale2, int64_t key, int64_t q0, float dk[DK / 8][4],
                                                float dv[DV / 8][4])
{
    int row = (int)threadIdx.x / AP_WARP * 16, col = (int)threadIdx.x % 4 * 2;
    float s[WALKED / 8][4], dp[WALKED / 8][4];
    scores<DK, WALKED>(s, t.held_k, row, t.walk_k(stage));
    scores<DV, WALKED>(dp, t.held_v, row, t.walk_v(stage));
#pragma unroll
    for (int j = 0; j < WALKED / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int at = 8 * j + col + e % 2;
            int64_t k = key + e / 2 * 8;
            bool seen = k <= q0 + at && k >= w.first[at];
            s[j][e] = seen ? exp2f(s[j][e] * scale2 - w.lse2[at]) : 0.0f;
            dp[j][e] = s[j][e] * (dp[j][e] - w.delta[at]);
        }
    }
    accumulate<DV, WALKED>(dv, s, t.walk_v(stage));
    accumulate<DK, WALKED>(dk, dp, t.walk_k(stage));
}

/* Write dK (without rope) and dV of one head and clear them. */
template <int DK, int DV>
static __device__ __forceinline__ void put_head(const mma_rows &rows, int64_t key, float dk[DK / 8][4],
                                                float dv[DV / 8][4])
{
    const attn_shape &n = rows.n;
    int col = (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t t = key + 8 * i;
        bf16 *out = rows.d.dkv + ((rows.base + t) * n.heads + rows.head) * (n.n + n.v) + col;
#pragma unroll
        for (int j = 0; j < DK / 8; j++) {
            if (8 * j < n.n) {
                if (t < n.len)
                    put2(out + 8 * j, dk[j][2 * i] * n.scale, dk[j][2 * i + 1] * n.scale);
                dk[j][2 * i] = dk[j][2 * i + 1] = 0.0f;
            }
        }
#pragma unroll
        for (int j = 0; j < DV / 8; j++) {
            if (8 * j < n.v && t < n.len)
                put2(out + n.n + 8 * j, dv[j][2 * i], dv[j][2 * i + 1]);
            dv[j][2 * i] = dv[j][2 * i + 1] = 0.0f;
        }
    }
}

/* The rope key's gradient of this block's heads. tokens: of the whole call. */
template <int DK>
static __device__ __forceinline__ void put_rope(const mma_rows &rows, int64_t key, int64_t tokens,
                                                const float dk[DK / 8][4])
{
    const attn_shape &n = rows.n;
    int col = (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t t = rows.base + key + 8 * i;
        if (key + 8 * i >= n.len)
            continue;
#pragma unroll
        for (int j = 0; j < DK / 8; j++) {
            int64_t c = 8 * j - n.n + col;
            if (8 * j < n.n || 8 * j >= n.n + n.r)
                continue;
            float x = dk[j][2 * i] * n.scale, y = dk[j][2 * i + 1] * n.scale;
            if (rows.d.dkr_part) {
                float *part = rows.d.dkr_part + (blockIdx.y * tokens + t) * n.r + c;
                part[0] = x;
                part[1] = y;
            } else {
                put2(rows.d.dkr + t * n.dkr_stride + c, x, y);
            }
        }
    }
}

/* dK, dV: block (key tile, head group, sequence). */
template <int DK, int DV>
static __global__ void __launch_bounds__(THREADS) mma_dkv_kernel(attn_data<bf16> d, attn_shape n)
{
    AP_SHARED_DYN(space);
    struct both {
        walked_queries stage[2];
    };
    AP_SHARED(both, w);
    bwd_tiles<DK, DV> t(space);
    int64_t k0 = (int64_t)blockIdx.x * HELD, key = k0 + threadIdx.x / AP_WARP * 16 + threadIdx.x % AP_WARP / 4;
    int64_t head = (int64_t)blockIdx.y * n.head_group,
            last = head + n.head_group < n.heads ? head + n.head_group : n.heads;
    int lane = (int)threadIdx.x % AP_WARP;
    float dk[DK / 8][4] = {}, dv[DV / 8][4] = {};
    for (; head < last; head++) {
        mma_rows rows = {d, n, blockIdx.z * n.len, head};
        __syncthreads();
        load_rows<HELD, DK, THREADS>(t.held_k, d.q, [&](int r, int c) { return rows.key(k0 + r, c); });
        load_rows<HELD, DV, THREADS>(t.held_v, d.q, [&](int r, int c) { return rows.value(k0 + r, c); });
        fetch_queries<DK, DV>(rows, k0, t.walk_k(0), t.walk_v(0), &w.stage[0]);
        cp_commit();
        int stage = 0;
        for (int64_t q0 = k0; q0 < n.len; q0 += WALKED, stage ^= 1) {
            if (q0 + WALKED < n.len)
                fetch_queries<DK, DV>(rows, q0 + WALKED, t.walk_k(stage ^ 1), t.walk_v(stage ^ 1), &w.stage[stage ^ 1]);
            cp_commit();
            cp_wait<1>();
            __syncthreads();
            /* Nothing to do when the documents of all 32 queries begin after these keys. */
            if (__any_sync(AP_FULL, w.stage[stage].first[lane] < k0 + HELD))
                key_step<DK, DV>(t, stage, w.stage[stage], n.scale * LOG2E, key, q0, dk, dv);
            __syncthreads();
        }
        put_head<DK, DV>(rows, key, dk, dv);
    }
    mma_rows rows = {d, n, blockIdx.z * n.len, 0};
    put_rope<DK>(rows, key, gridDim.z * n.len, dk);
}

struct held_queries {
    float lse2[2], delta[2];
    int first[2];
    int64_t query;
};

static __device__ __forceinline__ int lowest(const held_queries &h)
{
    typedef int warps[THREADS / AP_WARP];
    AP_SHARED(warps, low);
    return block_min<THREADS>(min(h.first[0], h.first[1]), low);
}

/* dQ of 16 queries from 32 keys. */
template <int DK, int DV>
static __device__ __forceinline__ void query_step(const bwd_tiles<DK, DV> &t, int stage, const held_queries &h,
                                                  float scale2, int64_t k0, float dq[DK / 8][4])
{
    int row = (int)threadIdx.x / AP_WARP * 16, col = (int)threadIdx.x % 4 * 2;
    float s[WALKED / 8][4], dp[WALKED / 8][4];
    scores<DK, WALKED>(s, t.held_k, row, t.walk_k(stage));
    scores<DV, WALKED>(dp, t.held_v, row, t.walk_v(stage));
#pragma unroll
    for (int j = 0; j < WALKED / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int64_t k = k0 + 8 * j + col + e % 2;
            bool seen = k <= h.query + e / 2 * 8 && k >= h.first[e / 2];
            float p = seen ? exp2f(s[j][e] * scale2 - h.lse2[e / 2]) : 0.0f;
            dp[j][e] = p * (dp[j][e] - h.delta[e / 2]);
        }
    }
    accumulate<DK, WALKED>(dq, dp, t.walk_k(stage));
}

template <int DK, int DV>
static __device__ __forceinline__ void fetch_keys(const mma_rows &rows, int64_t k0, bf16 *tk, bf16 *tv)
{
    load_rows<WALKED, DK, THREADS>(tk, rows.d.q, [&](int r, int c) { return rows.key(k0 + r, c); });
    load_rows<WALKED, DV, THREADS>(tv, rows.d.q, [&](int r, int c) { return rows.value(k0 + r, c); });
}

static __device__ __forceinline__ held_queries hold(const mma_rows &rows, int64_t query)
{
    const attn_shape &n = rows.n;
    held_queries h;
    h.query = query;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t q = query + 8 * i, at = (rows.base + q) * n.heads + rows.head;
        h.lse2[i] = q < n.len ? rows.d.lse[at] * LOG2E : 0.0f;
        h.delta[i] = q < n.len ? rows.d.delta[at] : 0.0f;
        h.first[i] = q < n.len ? rows.d.first[rows.base + q] : NOTHING;
    }
    return h;
}

/* dQ: block (query tile, head, sequence), the longest tiles first. */
template <int DK, int DV>
static __global__ void __launch_bounds__(THREADS) mma_dq_kernel(attn_data<bf16> d, attn_shape n)
{
    AP_SHARED_DYN(space);
    bwd_tiles<DK, DV> t(space);
    int64_t q0 = (int64_t)(gridDim.x - 1 - blockIdx.x) * HELD, end = q0 + HELD < n.len ? q0 + HELD : n.len;
    mma_rows rows = {d, n, blockIdx.z * n.len, blockIdx.y};
    held_queries h = hold(rows, q0 + threadIdx.x / AP_WARP * 16 + threadIdx.x % AP_WARP / 4);
    int64_t k0 = lowest(h) / WALKED * WALKED;
    float dq[DK / 8][4] = {};
    int stage = 0, col = (int)threadIdx.x % 4 * 2;
    load_rows<HELD, DK, THREADS>(t.held_k, d.q, [&](int r, int c) { return rows.q(q0 + r, c); });
    load_rows<HELD, DV, THREADS>(t.held_v, d.q, [&](int r, int c) { return rows.dout(q0 + r, c); });
    fetch_keys<DK, DV>(rows, k0, t.walk_k(0), t.walk_v(0));
    cp_commit();
    for (; k0 < end; k0 += WALKED, stage ^= 1) {
        if (k0 + WALKED < end)
            fetch_keys<DK, DV>(rows, k0 + WALKED, t.walk_k(stage ^ 1), t.walk_v(stage ^ 1));
        cp_commit();
        cp_wait<1>();
        __syncthreads();
        query_step<DK, DV>(t, stage, h, n.scale * LOG2E, k0, dq);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t q = h.query + 8 * i;
#pragma unroll
        for (int j = 0; j < DK / 8; j++) {
            if (q < n.len && 8 * j < n.n + n.r)
                put2(d.dq + ((rows.base + q) * n.heads + rows.head) * (n.n + n.r) + 8 * j + col, dq[j][2 * i] * n.scale,
                     dq[j][2 * i + 1] * n.scale);
        }
    }
}

template <int DK, int DV>
static ap_status launch(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs, bool keys)
{
    size_t bytes = tiles_bytes<DK, DV>;
    dim3 grid((unsigned)ceil_div(n.len, HELD), (unsigned)(keys ? ceil_div(n.heads, n.head_group) : n.heads),
              (unsigned)seqs);
    if (keys) {
        AP_TRY(cu_allow_shared(s, mma_dkv_kernel<DK, DV>, bytes));
        AP_LAUNCH((mma_dkv_kernel<DK, DV>), grid, THREADS, bytes, s->id, d, n);
    } else {
        AP_TRY(cu_allow_shared(s, mma_dq_kernel<DK, DV>, bytes));
        AP_LAUNCH((mma_dq_kernel<DK, DV>), grid, THREADS, bytes, s->id, d, n);
    }
    return cu_launched("mla_attn_bwd");
}

static ap_status choose(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs, bool keys)
{
    if (n.n + n.r <= 64 && n.v <= 64)
        return launch<64, 64>(s, d, n, seqs, keys);
    return n.n + n.r <= 96 && n.v <= 64 ? launch<96, 64>(s, d, n, seqs, keys) : launch<192, 128>(s, d, n, seqs, keys);
}

ap_status attn_mma_dkv(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs)
{
    return choose(s, d, n, seqs, true);
}

ap_status attn_mma_dq(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs)
{
    return choose(s, d, n, seqs, false);
}
