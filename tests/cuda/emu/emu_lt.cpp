/* SPDX-License-Identifier: Apache-2.0
 * cuBLASLt of the emulator: D = alpha op(A) op(B) + beta C, column-major, f32 accumulation. */
#include "emu_state.h"

#include <vector>

struct emu_lt {
    int unused;
};
struct emu_lt_desc {
    int trans_a, trans_b;
};
struct emu_lt_layout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
};
struct emu_lt_pref {
    uint32_t align[4];
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    *h = new emu_lt{0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute, cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *d = new emu_lt_desc{0, 0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attr,
                                              const void *value, size_t size)
{
    int32_t op;
    if (size != sizeof(op))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&op, value, sizeof(op));
    if (op != CUBLAS_OP_N && op != CUBLAS_OP_T)
        return CUBLAS_STATUS_INVALID_VALUE;
    (attr == CUBLASLT_MATMUL_DESC_TRANSA ? d->trans_a : d->trans_b) = op == CUBLAS_OP_T;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    delete d;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t cols,
                                          int64_t ld)
{
    if (rows == 0 || cols == 0 || ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    *l = new emu_lt_layout{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    *p = new emu_lt_pref{{256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attr, const void *value,
                                                    size_t size)
{
    if (attr == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return size == sizeof(uint64_t) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    if (size != sizeof(uint32_t))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&p->align[attr - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}

/* The algorithm remembers the alignment it was chosen for, and cublasLtMatmul holds callers to it. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t dl, cublasLtMatmulPreference_t p, int want,
                                              cublasLtMatmulHeuristicResult_t *results, int *got)
{
    (void)h, (void)d, (void)a, (void)b, (void)c, (void)dl;
    *got = 0;
    if (want < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(results, 0, sizeof(*results));
    for (int i = 0; i < 4; i++)
        results->algo.data[i] = p->align[i];
    *got = 1;
    return CUBLAS_STATUS_SUCCESS;
}

static float element(const void *m, const emu_lt_layout *l, uint64_t row, uint64_t col)
{
    size_t at = (size_t)row + (size_t)col * (size_t)l->ld;
    if (l->type == CUDA_R_32F)
        return static_cast<const float *>(m)[at];
    return __uint_as_float((unsigned)static_cast<const uint16_t *>(m)[at] << 16);
}

static void store(void *m, const emu_lt_layout *l, uint64_t row, uint64_t col, float value)
{
    size_t at = (size_t)row + (size_t)col * (size_t)l->ld;
    if (l->type == CUDA_R_32F) {
        static_cast<float *>(m)[at] = value;
        return;
    }
    unsigned u = __float_as_uint(value);
    static_cast<uint16_t *>(m)[at] = value != value ? 0x7fff : (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* op(X) as [rows of op][cols of op] of floats, row-major. */
static void unpack(const void *m, const emu_lt_layout *l, int trans, std::vector<float> *out)
{
    uint64_t rows = trans ? l->cols : l->rows, cols = trans ? l->rows : l->cols;
    out->resize((size_t)(rows * cols));
    for (uint64_t i = 0; i < rows; i++) {
        for (uint64_t j = 0; j < cols; j++)
            (*out)[(size_t)(i * cols + j)] = trans ? element(m, l, j, i) : element(m, l, i, j);
    }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t al, const void *b, cublasLtMatrixLayout_t bl, const void *beta,
                              const void *c, cublasLtMatrixLayout_t cl, void *out, cublasLtMatrixLayout_t dl,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_size,
                              cudaStream_t stream)
{
    (void)h, (void)workspace, (void)workspace_size;
    float scale = *static_cast<const float *>(alpha), keep = *static_cast<const float *>(beta);
    uint64_t m = d->trans_a ? al->cols : al->rows, k = d->trans_a ? al->rows : al->cols;
    uint64_t n = d->trans_b ? bl->rows : bl->cols, kb = d->trans_b ? bl->cols : bl->rows;
    if (k != kb || dl->rows != m || dl->cols != n || cl->rows != m || cl->cols != n || al->type != bl->type ||
        (uintptr_t)a % algo->data[0] || (uintptr_t)b % algo->data[1] || (uintptr_t)c % algo->data[2] ||
        (uintptr_t)out % algo->data[3])
        return CUBLAS_STATUS_INVALID_VALUE;
    if (emu_stream_ok(stream) != cudaSuccess)
        return CUBLAS_STATUS_INVALID_VALUE;
    std::vector<float> x, y, row((size_t)n);
    unpack(a, al, d->trans_a, &x);
    unpack(b, bl, d->trans_b, &y);
    for (uint64_t i = 0; i < m; i++) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (uint64_t p = 0; p < k; p++) {
            float xi = x[(size_t)(i * k + p)];
            for (uint64_t j = 0; j < n; j++)
                row[(size_t)j] += xi * y[(size_t)(p * n + j)];
        }
        for (uint64_t j = 0; j < n; j++)
            store(out, dl, i, j, scale * row[(size_t)j] + (keep != 0.0f ? keep * element(c, cl, i, j) : 0.0f));
    }
    return CUBLAS_STATUS_SUCCESS;
}
