/* SPDX-License-Identifier: Apache-2.0
 * Dense products by cuBLASLt. Row-major C = op(A) op(B) is the column-major C^T = op(B)^T op(A)^T on the same
 * memory, so B goes first. Descriptors, layouts and the algorithm are made once per shape and kept. The
 * algorithm is the first that the library's heuristic names, which depends on shape, alignment and device
 * only, never on a clock. f32 products run in full f32 (no TF32) unless ANTIPODE_CUDA_TF32=1. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cu_backend.h"
#include "backend/cuda/cu_tile.h"

#define BUCKETS 512

/* All that decides the algorithm. Compared by bytes: no padding, zeroed before use. */
struct gemm_key {
    int64_t m, n, k;
    int32_t type, out, trans_a, trans_b, align_a, align_b, align_c, unused;
};

struct gemm_plan {
    gemm_key key;
    struct gemm_plan *next;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* a: first operand of cuBLASLt, our B */
    cublasLtMatmulAlgo_t algo;
    bool usable; /* false: cuBLASLt has no algorithm, own kernels serve */
};

struct cu_gemm_cache {
    struct gemm_plan *bucket[BUCKETS];
};

ap_status cu_gemm_open(struct cu_device *dev)
{
    dev->gemms = (struct cu_gemm_cache *)calloc(1, sizeof(*dev->gemms));
    if (!dev->gemms)
        return AP_ERR_NOMEM;
    return cublasLtCreate(&dev->lt) == CUBLAS_STATUS_SUCCESS ? AP_OK : AP_ERR_ENV;
}

static void plan_free(struct gemm_plan *p)
{
    if (p->a)
        (void)cublasLtMatrixLayoutDestroy(p->a);
    if (p->b)
        (void)cublasLtMatrixLayoutDestroy(p->b);
    if (p->c)
        (void)cublasLtMatrixLayoutDestroy(p->c);
    if (p->desc)
        (void)cublasLtMatmulDescDestroy(p->desc);
    free(p);
}

void cu_gemm_close(struct cu_device *dev)
{
    for (int i = 0; dev->gemms && i < BUCKETS; i++) {
        for (struct gemm_plan *p = dev->gemms->bucket[i]; p;) {
            struct gemm_plan *next = p->next;
            plan_free(p);
            p = next;
        }
    }
    free(dev->gemms);
    dev->gemms = NULL;
    if (dev->lt)
        (void)cublasLtDestroy(dev->lt);
    dev->lt = NULL;
}

/* Largest power of two up to 256 that divides the address. */
static int32_t alignment(const void *p)
{
    uintptr_t x = (uintptr_t)p | 256u;
    return (int32_t)(x & (~x + 1));
}

static gemm_key key_of(const struct ap_gemm_args *a)
{
    gemm_key k;
    memset(&k, 0, sizeof(k));
    k.m = a->c.shape[0];
    k.n = a->c.shape[1];
    k.k = a->a.shape[a->trans_a ? 0 : 1];
    k.type = a->a.dtype;
    k.out = a->c.dtype;
    k.trans_a = a->trans_a != 0;
    k.trans_b = a->trans_b != 0;
    k.align_a = alignment(a->a.data);
    k.align_b = alignment(a->b.data);
    k.align_c = alignment(a->c.data);
    return k;
}

static cudaDataType_t lt_type(int32_t t)
{
    return t == AP_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static cublasStatus_t describe(const struct cu_device *dev, struct gemm_plan *p)
{
    const gemm_key *k = &p->key;
    int32_t op_a = k->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, op_b = k->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasComputeType_t compute = k->type == AP_F32 && dev->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasStatus_t st = cublasLtMatmulDescCreate(&p->desc, compute, CUDA_R_32F);
    if (st == CUBLAS_STATUS_SUCCESS)
        st = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof(op_a));
    if (st == CUBLAS_STATUS_SUCCESS)
        st = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof(op_b));
    /* Our B [K,N] (or [N,K]) in memory is a column-major N x K (or K x N). */
    int64_t rows = k->trans_b ? k->k : k->n, cols = k->trans_b ? k->n : k->k;
    if (st == CUBLAS_STATUS_SUCCESS)
        st = cublasLtMatrixLayoutCreate(&p->a, lt_type(k->type), (uint64_t)rows, (uint64_t)cols, rows);
    rows = k->trans_a ? k->m : k->k;
    cols = k->trans_a ? k->k : k->m;
    if (st == CUBLAS_STATUS_SUCCESS)
        st = cublasLtMatrixLayoutCreate(&p->b, lt_type(k->type), (uint64_t)rows, (uint64_t)cols, rows);
    if (st == CUBLAS_STATUS_SUCCESS)
        st = cublasLtMatrixLayoutCreate(&p->c, lt_type(k->out), (uint64_t)k->n, (uint64_t)k->m, k->n);
    return st;
}

static cublasStatus_t set_preference(const gemm_key *k, cublasLtMatmulPreference_t pref)
{
    uint64_t space = CU_LT_SPACE;
    uint32_t a = (uint32_t)k->align_b, b = (uint32_t)k->align_a, c = (uint32_t)k->align_c;
    cublasStatus_t st =
        cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &space, sizeof(space));
    if (st == CUBLAS_STATUS_SUCCESS)
        st = cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof(a));
    if (st == CUBLAS_STATUS_SUCCESS)
        st = cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, sizeof(b));
    if (st == CUBLAS_STATUS_SUCCESS)
        st = cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof(c));
    if (st == CUBLAS_STATUS_SUCCESS)
        st = cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof(c));
    return st;
}

static void choose(const struct cu_device *dev, struct gemm_plan *p)
{
    cublasLtMatmulPreference_t pref = NULL;
    cublasLtMatmulHeuristicResult_t result;
    int got = 0;
    if (cublasLtMatmulPreferenceCreate(&pref) != CUBLAS_STATUS_SUCCESS)
        return;
    if (set_preference(&p->key, pref) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulAlgoGetHeuristic(dev->lt, p->desc, p->a, p->b, p->c, p->c, pref, 1, &result, &got) ==
            CUBLAS_STATUS_SUCCESS &&
        got > 0 && result.state == CUBLAS_STATUS_SUCCESS) {
        p->algo = result.algo;
        p->usable = true;
    }
    (void)cublasLtMatmulPreferenceDestroy(pref);
}

static ap_status plan_for(struct cu_device *dev, const struct ap_gemm_args *a, struct gemm_plan **plan_p)
{
    gemm_key key = key_of(a);
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < sizeof(key); i++)
        hash = (hash ^ ((const unsigned char *)&key)[i]) * 1099511628211u;
    struct gemm_plan **head = &dev->gemms->bucket[hash % BUCKETS];
    for (struct gemm_plan *p = *head; p; p = p->next) {
        if (memcmp(&p->key, &key, sizeof(key)) == 0) {
            *plan_p = p;
            return AP_OK;
        }
    }
    struct gemm_plan *p = (struct gemm_plan *)calloc(1, sizeof(*p));
    if (!p)
        return AP_ERR_NOMEM;
    p->key = key;
    if (describe(dev, p) == CUBLAS_STATUS_SUCCESS)
        choose(dev, p);
    p->next = *head;
    *head = p;
    *plan_p = p;
    return AP_OK;
}

/* Where cuBLASLt has no algorithm: the tiles of the grouped products, with one group of all rows. */
static ap_status own_gemm(struct cu_stream *s, const struct ap_gemm_args *a)
{
    cu_tile_args t = {};
    t.a = a->a.data;
    t.b = a->b.data;
    t.c = a->c.data;
    t.m = a->c.shape[0];
    t.n = a->c.shape[1];
    t.k = a->a.shape[a->trans_a ? 0 : 1];
    t.groups = 1;
    t.trans_a = a->trans_a != 0;
    t.trans_b = a->trans_b != 0;
    t.accumulate = a->accumulate != 0;
    t.out_f32 = a->c.dtype == AP_F32;
    return a->a.dtype == AP_F32 ? cu_tile_f32(s, &t) : cu_tile_bf16(s, &t);
}

ap_status cu_gemm(struct cu_stream *s, const struct ap_gemm_args *a)
{
    int64_t m = a->c.shape[0], n = a->c.shape[1], k = a->a.shape[a->trans_a ? 0 : 1];
    struct gemm_plan *p = NULL;
    if (a->a.dtype != AP_F32 && a->a.dtype != AP_BF16)
        return AP_ERR_UNSUPPORTED;
    if (m == 0 || n == 0)
        return AP_OK;
    if (k == 0) {
        cudaError_t e = a->accumulate
                            ? cudaSuccess
                            : cudaMemsetAsync(a->c.data, 0, (size_t)(m * n) * ap_dtype_size(a->c.dtype), s->id);
        return e == cudaSuccess ? AP_OK : cu_failed("gemm", e);
    }
    AP_TRY(plan_for(s->dev, a, &p));
    if (!p->usable)
        return own_gemm(s, a);
    float one = 1.0f, beta = a->accumulate ? 1.0f : 0.0f;
    cublasStatus_t st = cublasLtMatmul(s->dev->lt, p->desc, &one, a->b.data, p->a, a->a.data, p->b, &beta, a->c.data,
                                       p->c, a->c.data, p->c, &p->algo, s->lt_space, CU_LT_SPACE, s->id);
    if (st != CUBLAS_STATUS_SUCCESS) {
        ap_error_log("cuda: product of %lld x %lld x %lld: cuBLASLt status %d", (long long)m, (long long)n,
                     (long long)k, (int)st);
        cudaError_t e = cudaStreamSynchronize(s->id); /* what is behind it, where the device itself has failed */
        return e == cudaSuccess ? AP_ERR_ENV : cu_failed("gemm", e);
    }
    return cu_launched("gemm");
}
