/* SPDX-License-Identifier: Apache-2.0
 * Top-K routing and its gradient: one warp per token. Scores and choices are formed in f64 from the stored
 * f32 scores, as the reference does, so that every backend chooses the same experts. */
#include "config.h"

#include "backend/cuda/cu_backend.h"
#include "backend/cuda/cu_topk.h"

#define WARPS 4

struct route_shape {
    int64_t rows;
    int experts, chosen, kind, groups, kept, norm;
    double scaling;
};

/* Shared memory of one warp: doubles c [E], group [G]; bytes taken [E], kept [G]. */
static __host__ __device__ __forceinline__ size_t route_bytes(int experts, int groups)
{
    return ((size_t)(experts + groups) * (sizeof(double) + 1) + 15) / 16 * 16;
}

/* s of one token into c (f64, then as stored in f32 by the caller's choice of precision). */
template <typename T> static __device__ void gate_scores(const T *logits, const route_shape &n, double *c)
{
    int lane = (int)threadIdx.x % AP_WARP;
    float top = -INFINITY;
    double sum = 0.0;
    if (n.kind == AP_GATE_SIGMOID_NOAUX) {
        for (int i = lane; i < n.experts; i += AP_WARP)
            c[i] = 1.0 / (1.0 + exp(-(double)to_float(logits[i])));
        return;
    }
    for (int i = lane; i < n.experts; i += AP_WARP)
        top = fmaxf(top, to_float(logits[i]));
    top = warp_max(top);
    for (int i = lane; i < n.experts; i += AP_WARP) {
        c[i] = exp((double)to_float(logits[i]) - (double)top);
        sum += c[i];
    }
    sum = warp_sum(sum);
    for (int i = lane; i < n.experts; i += AP_WARP)
        c[i] /= sum;
}

/* Set c of the rejected groups to -inf. */
static __device__ void limit_groups(const route_shape &n, double *c, double *group, unsigned char *kept)
{
    int lane = (int)threadIdx.x % AP_WARP, size = n.experts / n.groups;
    for (int g = lane; g < n.groups; g += AP_WARP) {
        double first = -INFINITY, second = -INFINITY;
        for (int i = g * size; i < (g + 1) * size; i++) {
            if (c[i] > first) {
                second = first;
                first = c[i];
            } else if (c[i] > second) {
                second = c[i];
            }
        }
        group[g] = n.kind == AP_GATE_SIGMOID_NOAUX && size > 1 ? first + second : first;
    }
    __syncwarp();
    warp_top_k(group, n.groups, n.kept, kept);
    for (int i = lane; i < n.experts; i += AP_WARP) {
        if (!kept[i / size])
            c[i] = -INFINITY;
    }
    __syncwarp();
}

struct route_out {
    float *scores, *gates;
    int32_t *ids, *counts;
};

/* The marked experts in ascending order, with their gates. */
static __device__ void write_choice(const route_shape &n, const float *scores, const unsigned char *taken, int64_t t,
                                    const route_out &out)
{
    int lane = (int)threadIdx.x % AP_WARP, at = 0;
    double sum = 0.0;
    for (int i = lane; i < n.experts; i += AP_WARP)
        sum += taken[i] ? (double)scores[i] : 0.0;
    sum = warp_sum(sum);
    double factor = n.norm && n.chosen > 1 ? n.scaling / (sum + 1e-20) : n.scaling;
    for (int base = 0; base < n.experts; base += AP_WARP) {
        int i = base + lane;
        int mine = i < n.experts && taken[i];
        unsigned all = __ballot_sync(AP_FULL, mine);
        int k = at + __popc(all & ((1u << lane) - 1u));
        if (mine && k < n.chosen) {
            out.ids[t * n.chosen + k] = i;
            out.gates[t * n.chosen + k] = (float)((double)scores[i] * factor);
            atomicAdd(&out.counts[i], 1); /* integers: the order does not matter */
        }
        at += __popc(all);
    }
}

template <typename T>
static __global__ void router_fwd_kernel(const T *logits, const float *bias, route_out out, route_shape n)
{
    AP_SHARED_DYN(space);
    int lane = (int)threadIdx.x % AP_WARP, warp = (int)threadIdx.x / AP_WARP;
    int64_t t = (int64_t)blockIdx.x * WARPS + warp;
    if (t >= n.rows)
        return;
    double *c = (double *)(space + (size_t)warp * route_bytes(n.experts, n.groups)), *group = c + n.experts;
    unsigned char *taken = (unsigned char *)(group + n.groups), *kept = taken + n.experts;
    float *scores = out.scores + t * n.experts;
    gate_scores(logits + t * n.experts, n, c);
    for (int i = lane; i < n.experts; i += AP_WARP) {
        scores[i] = (float)c[i];
        c[i] = (double)scores[i] + (n.kind == AP_GATE_SIGMOID_NOAUX && bias ? (double)bias[i] : 0.0);
    }
    __syncwarp();
    if (n.kind != AP_GATE_SOFTMAX_GREEDY && n.groups > 1)
        limit_groups(n, c, group, kept);
    warp_top_k(c, n.experts, n.chosen, taken);
    write_choice(n, scores, taken, t, out);
}

ap_status cu_router_fwd(struct cu_stream *s, const struct ap_router_fwd_args *a)
{
    route_shape n = {a->logits.shape[0],
                     (int)a->logits.shape[1],
                     (int)a->ids.shape[1],
                     a->kind,
                     a->groups > 1 ? a->groups : 1,
                     a->groups_kept,
                     a->norm_topk,
                     a->scaling};
    route_out out = {(float *)a->scores.data, (float *)a->gates.data, (int32_t *)a->ids.data,
                     (int32_t *)a->counts.data};
    const float *bias = (const float *)a->bias.data;
    size_t bytes = WARPS * route_bytes(n.experts, n.groups);
    if ((a->logits.dtype != AP_F32 && a->logits.dtype != AP_BF16) || bytes > 48 * 1024)
        return AP_ERR_UNSUPPORTED;
    cudaError_t e = cudaMemsetAsync(out.counts, 0, (size_t)n.experts * sizeof(int32_t), s->id);
    if (e != cudaSuccess)
        return cu_failed("router_fwd", e);
    if (n.rows == 0)
        return AP_OK;
    dim3 grid((unsigned)ceil_div(n.rows, WARPS));
    if (a->logits.dtype == AP_F32)
        AP_LAUNCH((router_fwd_kernel<float>), grid, WARPS * AP_WARP, bytes, s->id, (const float *)a->logits.data, bias,
                  out, n);
    else
        AP_LAUNCH((router_fwd_kernel<bf16>), grid, WARPS * AP_WARP, bytes, s->id, (const bf16 *)a->logits.data, bias,
                  out, n);
    return cu_launched("router_fwd");
}

struct route_in {
    const float *scores, *dgates, *extra;
    const int32_t *ids;
};

/* With normalisation g_k = c s_k / S, S = sum of the chosen s + 1e-20: ds_k = c (dg_k - sum_j dg_j s_j / S) / S. */
template <typename T> static __global__ void router_bwd_kernel(route_in in, T *dlogits, route_shape n)
{
    AP_SHARED_DYN(space);
    int lane = (int)threadIdx.x % AP_WARP, warp = (int)threadIdx.x / AP_WARP;
    int64_t t = (int64_t)blockIdx.x * WARPS + warp;
    if (t >= n.rows)
        return;
    double *ds = (double *)space + (size_t)warp * (size_t)n.experts;
    const float *s = in.scores + t * n.experts, *dgates = in.dgates + t * n.chosen;
    const int32_t *ids = in.ids + t * n.chosen;
    double total = 0.0, dot = 0.0, inner = 0.0;
    for (int i = lane; i < n.experts; i += AP_WARP)
        ds[i] = in.extra ? (double)in.extra[t * n.experts + i] : 0.0;
    for (int k = lane; k < n.chosen; k += AP_WARP) {
        total += (double)s[ids[k]];
        dot += (double)dgates[k] * (double)s[ids[k]];
    }
    total = warp_sum(total) + 1e-20;
    dot = warp_sum(dot);
    __syncwarp();
    for (int k = lane; k < n.chosen; k += AP_WARP) {
        double d = (double)dgates[k];
        ds[ids[k]] += n.scaling * (n.norm && n.chosen > 1 ? (d - dot / total) / total : d);
    }
    __syncwarp();
    for (int i = lane; i < n.experts; i += AP_WARP)
        inner += ds[i] * (double)s[i];
    inner = warp_sum(inner);
    for (int i = lane; i < n.experts; i += AP_WARP) {
        double si = (double)s[i];
        dlogits[t * n.experts + i] =
            from_float<T>((float)(n.kind == AP_GATE_SIGMOID_NOAUX ? ds[i] * si * (1.0 - si) : si * (ds[i] - inner)));
    }
}

ap_status cu_router_bwd(struct cu_stream *s, const struct ap_router_bwd_args *a)
{
    route_shape n = {a->dlogits.shape[0], (int)a->dlogits.shape[1], (int)a->ids.shape[1], a->kind, 1, 1, a->norm_topk,
                     a->scaling};
    route_in in = {(const float *)a->scores.data, (const float *)a->dgates.data, (const float *)a->dscores_extra.data,
                   (const int32_t *)a->ids.data};
    size_t bytes = WARPS * (size_t)n.experts * sizeof(double);
    if ((a->dlogits.dtype != AP_F32 && a->dlogits.dtype != AP_BF16) || bytes > 48 * 1024)
        return AP_ERR_UNSUPPORTED;
    if (n.rows == 0)
        return AP_OK;
    dim3 grid((unsigned)ceil_div(n.rows, WARPS));
    if (a->dlogits.dtype == AP_F32)
        AP_LAUNCH((router_bwd_kernel<float>), grid, WARPS * AP_WARP, bytes, s->id, in, (float *)a->dlogits.data, n);
    else
        AP_LAUNCH((router_bwd_kernel<bf16>), grid, WARPS * AP_WARP, bytes, s->id, in, (bf16 *)a->dlogits.data, n);
    return cu_launched("router_bwd");
}
