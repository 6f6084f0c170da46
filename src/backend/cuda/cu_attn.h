/* SPDX-License-Identifier: Apache-2.0
 * What the attention kernels share: the shape, addresses of rows, and the entry points per kind of kernel.
 *
 * Forward: a block owns 64 or 128 queries of one head and walks the keys once with an online softmax (Dao et
 * al., arXiv 2205.14135), so memory is linear in T. Backward: from P = exp(scale s - lse) and
 * delta = dout . out, one pass owns keys (dK, dV: walks the queries) and one owns queries (dQ: walks the
 * keys); nothing is added by atomics, so results repeat bit for bit. The rope key belongs to all heads: a
 * block of the key pass walks a group of heads and sums its gradient in registers; the groups' sums are then
 * added in order. */
#ifndef AP_BACKEND_CUDA_ATTN_H
#define AP_BACKEND_CUDA_ATTN_H

#include "backend/cuda/cu_backend.h"

struct attn_shape {
    int64_t len, heads, n, r, v, kr_stride, dkr_stride; /* len: T */
    float scale;
    int head_group; /* heads that one block of the key pass walks */
};

/* All of one call; the forward leaves the gradients NULL. delta f32 [N,H]; dkr_part f32 [groups, N, r] or NULL. */
template <typename T> struct attn_data {
    const T *q, *kv, *kr, *dout;
    T *out, *dq, *dkv, *dkr;
    float *lse, *delta, *dkr_part;
    const int32_t *first;
};

#define ATTN_TILE 64
#ifdef AP_CUDA_EMU
#define ATTN_BLOCKS 8 /* small, so that small tests see groups of several heads */
#else
#define ATTN_BLOCKS 512 /* blocks of the key pass that heads are grouped for */
#endif

static inline int64_t attn_tiles(int64_t len)
{
    return ceil_div(len, ATTN_TILE);
}

/* Kernels for any shape (n + r <= 192, v <= 128), plain arithmetic. */
ap_status attn_plain_fwd(struct cu_stream *s, const attn_data<float> &d, const attn_shape &n, int64_t seqs);
ap_status attn_plain_fwd(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs);
ap_status attn_plain_bwd(struct cu_stream *s, const attn_data<float> &d, const attn_shape &n, int64_t seqs);
ap_status attn_plain_bwd(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs);
/* Tensor-core kernels: n, r, v and the strides multiples of 8, addresses aligned to 16 bytes. */
ap_status attn_mma_fwd(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs);
ap_status attn_mma_dkv(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs);
ap_status attn_mma_dq(struct cu_stream *s, const attn_data<bf16> &d, const attn_shape &n, int64_t seqs);

#endif
