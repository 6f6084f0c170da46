/* SPDX-License-Identifier: Apache-2.0
 * Balance losses. Tokens of a sequence are counted by blocks of a fixed number of tokens; one block per
 * sequence adds the parts in order and forms the factors and the loss; one warp per token writes the
 * gradient; one thread adds the losses of the sequences in order. f64 throughout: the work is small. */
#include "config.h"

#include "backend/cuda/cu_backend.h"
#include "backend/cuda/cu_topk.h"

#define WARPS 4
#define CHUNK 64 /* tokens counted by one block */

struct balance_shape {
    int64_t seqs, len, chunks;
    int experts, chosen, kind, accumulate, group, comm_kept;
    double weight;
};

/* Scratch in device memory: hits [B, chunks, E], mean [B, chunks, E], factor [B, E], loss [B]. */
struct balance_space {
    double *mean, *factor, *loss;
    int32_t *hits;
};

/* Shared memory of one warp: doubles c [E], mean [E]; i32 hits [E]; bytes taken [E]. */
static __host__ __device__ __forceinline__ size_t balance_bytes(int experts)
{
    return ((size_t)experts * (2 * sizeof(double) + sizeof(int32_t) + 1) + 15) / 16 * 16;
}

/* taken = the choice of token t: the K largest s for the sigmoid gate, ids otherwise. */
static __device__ void choice_of(const float *scores, const int32_t *ids, const balance_shape &n, double *c,
                                 unsigned char *taken)
{
    int lane = (int)threadIdx.x % AP_WARP;
    if (n.kind == AP_GATE_SIGMOID_NOAUX) {
        for (int i = lane; i < n.experts; i += AP_WARP)
            c[i] = (double)scores[i];
        __syncwarp();
        warp_top_k(c, n.experts, n.chosen, taken);
        return;
    }
    for (int i = lane; i < n.experts; i += AP_WARP)
        taken[i] = 0;
    __syncwarp();
    for (int k = lane; k < n.chosen; k += AP_WARP)
        taken[ids[k]] = 1;
    __syncwarp();
}

static __device__ void count_token(const float *scores, const int32_t *ids, const balance_shape &n,
                                   unsigned char *space)
{
    int lane = (int)threadIdx.x % AP_WARP;
    double *c = (double *)space, *mean = c + n.experts, total = 0.0;
    int32_t *hits = (int32_t *)(mean + n.experts);
    unsigned char *taken = (unsigned char *)(hits + n.experts);
    choice_of(scores, ids, n, c, taken);
    for (int i = lane; i < n.experts; i += AP_WARP)
        total += (double)scores[i];
    total = n.kind == AP_GATE_SIGMOID_NOAUX ? warp_sum(total) : 1.0;
    for (int i = lane; i < n.experts; i += AP_WARP) {
        mean[i] += (double)scores[i] / total / (double)n.len;
        if (!n.comm_kept)
            hits[i] += taken[i];
    }
    for (int g = lane; n.comm_kept && g < n.experts / n.group; g += AP_WARP) {
        int any = 0;
        for (int i = g * n.group; i < (g + 1) * n.group; i++)
            any |= taken[i];
        hits[g] += any;
    }
    __syncwarp();
}

/* Block (chunk, sequence). */
static __global__ void balance_count_kernel(const float *scores, const int32_t *ids, balance_space out, balance_shape n)
{
    AP_SHARED_DYN(space);
    int lane = (int)threadIdx.x % AP_WARP, warp = (int)threadIdx.x / AP_WARP, warps = (int)blockDim.x / AP_WARP;
    size_t bytes = balance_bytes(n.experts);
    unsigned char *mine = space + (size_t)warp * bytes;
    double *mean = (double *)mine + n.experts;
    int32_t *hits = (int32_t *)(mean + n.experts);
    for (int i = lane; i < n.experts; i += AP_WARP) {
        mean[i] = 0.0;
        hits[i] = 0;
    }
    int64_t base = (int64_t)blockIdx.y * n.len, first = (int64_t)blockIdx.x * CHUNK;
    int64_t last = first + CHUNK < n.len ? first + CHUNK : n.len;
    for (int64_t t = first + warp; t < last; t += warps)
        count_token(scores + (base + t) * n.experts, ids + (base + t) * n.chosen, n, mine);
    __syncthreads();
    int64_t at = ((int64_t)blockIdx.y * n.chunks + blockIdx.x) * n.experts;
    for (int i = (int)threadIdx.x; i < n.experts; i += (int)blockDim.x) {
        double sum = 0.0;
        int32_t count = 0;
        for (int w = 0; w < warps; w++) {
            const double *m = (const double *)(space + (size_t)w * bytes) + n.experts;
            sum += m[i];
            count += ((const int32_t *)(m + n.experts))[i];
        }
        out.mean[at + i] = sum;
        out.hits[at + i] = count;
    }
}

/* What P_i is multiplied by, from the hits [E] of the sequence. */
static __device__ double factor_of(const int32_t *hits, int i, const balance_shape &n)
{
    double f = 0.0;
    int d = i / n.group;
    if (n.comm_kept)
        return (double)hits[d] * (double)(n.experts / n.group) / ((double)n.comm_kept * (double)n.len);
    for (int j = d * n.group; j < (d + 1) * n.group; j++)
        f += (double)hits[j] * (double)n.experts / ((double)n.chosen * (double)n.len) / (double)n.group;
    return f;
}

/* One block per sequence; shared: doubles product [E], i32 hits [E]. */
static __global__ void balance_factor_kernel(balance_space p, balance_shape n)
{
    AP_SHARED_DYN(space);
    double *product = (double *)space;
    int32_t *hits = (int32_t *)(product + n.experts);
    int64_t at = (int64_t)blockIdx.x * n.chunks * n.experts;
    for (int i = (int)threadIdx.x; i < n.experts; i += (int)blockDim.x) {
        double sum = 0.0;
        int32_t count = 0;
        for (int64_t c = 0; c < n.chunks; c++) {
            sum += p.mean[at + c * n.experts + i];
            count += p.hits[at + c * n.experts + i];
        }
        product[i] = sum;
        hits[i] = count;
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n.experts; i += (int)blockDim.x) {
        double f = factor_of(hits, i, n);
        p.factor[(int64_t)blockIdx.x * n.experts + i] = f;
        product[i] *= f;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double loss = 0.0;
        for (int i = 0; i < n.experts; i++)
            loss += product[i];
        p.loss[blockIdx.x] = n.weight * loss;
    }
}

static __global__ void balance_loss_kernel(const double *part, int64_t seqs, double *loss)
{
    double sum = 0.0;
    for (int64_t b = 0; b < seqs; b++)
        sum += part[b];
    *loss += sum;
}

/* One warp per token. */
static __global__ void balance_grad_kernel(const float *scores, const double *factor, float *dscores, balance_shape n)
{
    int lane = (int)threadIdx.x % AP_WARP;
    int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / AP_WARP;
    if (t >= n.seqs * n.len)
        return;
    const float *s = scores + t * n.experts;
    const double *f = factor + t / n.len * n.experts;
    double total = 0.0, dot = 0.0;
    for (int i = lane; i < n.experts; i += AP_WARP) {
        total += (double)s[i];
        dot += f[i] * (double)s[i];
    }
    total = warp_sum(total);
    dot = warp_sum(dot);
    for (int i = lane; i < n.experts; i += AP_WARP) {
        double d = n.kind == AP_GATE_SIGMOID_NOAUX ? (f[i] - dot / total) / total : f[i];
        float *out = dscores + t * n.experts + i;
        d *= n.weight / (double)n.len;
        *out = (float)(n.accumulate ? (double)*out + d : d);
    }
}

static ap_status balance_memory(struct cu_stream *s, const balance_shape &n, balance_space *p)
{
    size_t parts = (size_t)(n.seqs * n.chunks * n.experts), factors = (size_t)(n.seqs * n.experts);
    void *mem;
    AP_TRY(cu_scratch(s, (parts + factors + (size_t)n.seqs) * sizeof(double) + parts * sizeof(int32_t), &mem));
    p->mean = (double *)mem;
    p->factor = p->mean + parts;
    p->loss = p->factor + factors;
    p->hits = (int32_t *)(p->loss + n.seqs);
    return AP_OK;
}

ap_status cu_seq_balance(struct cu_stream *s, const struct ap_seq_balance_args *a)
{
    int64_t rows = a->scores.shape[0], experts = a->scores.shape[1];
    if (a->scores.dtype != AP_F32)
        return AP_ERR_UNSUPPORTED;
    if (rows * experts == 0)
        return AP_OK;
    balance_shape n = {a->seqs,
                       rows / a->seqs,
                       ceil_div(rows / a->seqs, CHUNK),
                       (int)experts,
                       (int)a->ids.shape[1],
                       a->kind,
                       a->accumulate_dscores,
                       a->group_size > 1 ? (int)a->group_size : 1,
                       (int)a->comm_groups_kept,
                       a->weight};
    size_t bytes = balance_bytes(n.experts);
    int warps = WARPS * bytes <= 48 * 1024 ? WARPS : 1;
    if ((size_t)warps * bytes > 48 * 1024 || n.seqs > 65535)
        return AP_ERR_UNSUPPORTED;
    balance_space p;
    AP_TRY(balance_memory(s, n, &p));
    const float *scores = (const float *)a->scores.data;
    AP_LAUNCH(balance_count_kernel, dim3((unsigned)n.chunks, (unsigned)n.seqs), warps * AP_WARP, (size_t)warps * bytes,
              s->id, scores, (const int32_t *)a->ids.data, p, n);
    AP_LAUNCH(balance_factor_kernel, dim3((unsigned)n.seqs), 256, (size_t)n.experts * 12, s->id, p, n);
    AP_LAUNCH(balance_grad_kernel, dim3((unsigned)ceil_div(rows, WARPS)), WARPS * AP_WARP, 0, s->id, scores, p.factor,
              (float *)a->dscores.data, n);
    AP_LAUNCH(balance_loss_kernel, dim3(1), 1, 0, s->id, p.loss, n.seqs, (double *)a->loss.data);
    return cu_launched("seq_balance");
}
