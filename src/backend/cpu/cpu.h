/* SPDX-License-Identifier: Apache-2.0
 * Inside of the cpu backend: its state, how work is split over the pool, and its operations.
 *
 * Splitting rule: what a task computes depends only on shapes and the number of threads, and no two tasks
 * write the same memory. With the own GEMM kernel and the vector kernels the bits do not even depend on the
 * number of threads. f64 goes to the reference; bf16 is computed in f32. */
#ifndef AP_BACKEND_CPU_CPU_H
#define AP_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/k_gemm.h"
#include "backend/cpu/kernels.h"

struct ap_dnnl; /* oneDNN engine and primitives of one worker (cpu_dnnl.c) */

/* Memory that grows to what the largest call needs and then stays. */
struct cpu_buffer {
    void *mem;
    size_t size;
};

struct cpu_worker {
    const struct ap_sgemm_kernel *gemm;
    void *gemm_scratch;
    struct ap_dnnl *dnnl;   /* NULL: own GEMM kernel */
    int dnnl_bf16;          /* oneDNN for bf16 too: it has kernels for this CPU */
    struct cpu_buffer attn; /* one (sequence, head) */
};

struct cpu_impl {
    const struct ap_kernels *k;
    int threads;
    struct cpu_worker *workers; /* threads */
    struct cpu_buffer partial;  /* partial sums, task lists */
};

static inline struct cpu_impl *cpu_of(struct ap_stream *s)
{
    return (struct cpu_impl *)s->backend->impl;
}

/* Kernels for elements of type f32 or bf16. */
static inline const struct ap_typed_kernels *cpu_typed(struct ap_stream *s, ap_dtype t)
{
    return t == AP_BF16 ? cpu_of(s)->k->bf16 : cpu_of(s)->k->f32;
}

/* At least `size` bytes, 64-byte aligned, content undefined; AP_ERR_NOMEM. */
ap_status cpu_buffer_need(struct cpu_buffer *b, size_t size);
/* Run a range kernel over `count` items on the pool. cost: elements touched per item; small work runs here. */
void cpu_ranges(struct ap_stream *s, ap_range *range, const void *args, int64_t count, int64_t cost);
/* One product on one worker. fixed: the shape is the same in every step (a oneDNN primitive may be kept). */
ap_status cpu_sgemm(struct cpu_worker *w, const struct ap_sgemm *g, int fixed);

/* oneDNN. NULL from create: not available. destroy(NULL) is fine. */
struct ap_dnnl *ap_dnnl_create(void);
void ap_dnnl_destroy(struct ap_dnnl *d);
/* Whether it has bf16 products on this CPU. */
int ap_dnnl_has_bf16(struct ap_dnnl *d);
/* a and b of one type; c of the same, or f32. */
ap_status ap_dnnl_sgemm(struct ap_dnnl *d, const struct ap_sgemm *g, int fixed);

/* Operations; all others are range kernels wrapped in cpu.c. */
ap_status cpu_gemm(struct ap_stream *s, const struct ap_gemm_args *a);
ap_status cpu_grouped_gemm(struct ap_stream *s, const struct ap_grouped_gemm_args *a);
ap_status cpu_grouped_wgrad(struct ap_stream *s, const struct ap_grouped_wgrad_args *a);
ap_status cpu_mla_attn_fwd(struct ap_stream *s, const struct ap_mla_attn_fwd_args *a);
ap_status cpu_mla_attn_bwd(struct ap_stream *s, const struct ap_mla_attn_bwd_args *a);

#endif
