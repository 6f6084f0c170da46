/* SPDX-License-Identifier: Apache-2.0
 * Inside of the CUDA backend: its stream, scratch memory, error mapping, and one function per operation.
 * The functions are called with checked descriptors and the stream's device current; they enqueue kernels
 * and return at once. */
#ifndef AP_BACKEND_CUDA_BACKEND_H
#define AP_BACKEND_CUDA_BACKEND_H

extern "C" {
#include "backend/backend.h"
#include "base/log.h"
}
#include "backend/cuda/cu_platform.h"

struct cu_gemm_cache;

struct cu_device {
    int device;
    int processors;   /* streaming multiprocessors: never decides how sums are formed */
    int shared_limit; /* dynamic shared memory a block may ask for, bytes */
    int tf32;         /* allowed for f32 products: ANTIPODE_CUDA_TF32=1 */
    cublasLtHandle_t lt;
    struct cu_gemm_cache *gemms;
};

struct cu_stream {
    struct ap_stream base;
    struct cu_device *dev; /* borrowed from the backend */
    cudaStream_t id;
    void *scratch; /* of kernels; grows to the largest request */
    size_t scratch_size;
    void *lt_space; /* workspace of cuBLASLt */
};

#ifdef AP_CUDA_EMU
#define CU_LT_SPACE ((size_t)4096)
#else
#define CU_LT_SPACE ((size_t)32 << 20)
#endif

/* Log a failed call; AP_ERR_NOMEM or AP_ERR_ENV. */
ap_status cu_failed(const char *what, cudaError_t e);
/* After launches: AP_OK, or what kept them from starting. */
ap_status cu_launched(const char *op);
/* size bytes that live until the next call with this stream. Grows, after waiting for the stream, when a
 * larger size than ever before is asked for: not in a steady state. */
ap_status cu_scratch(struct cu_stream *s, size_t size, void **mem_p);
/* Allow a kernel its dynamic shared memory; AP_ERR_UNSUPPORTED when the device has less. */
template <typename F> static inline ap_status cu_allow_shared(struct cu_stream *s, F *kernel, size_t bytes)
{
    if (bytes <= 48 * 1024)
        return AP_OK;
    if (bytes > (size_t)s->dev->shared_limit)
        return AP_ERR_UNSUPPORTED;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    return e == cudaSuccess ? AP_OK : cu_failed("shared memory of a kernel", e);
}

#define CU_OP(op) ap_status cu_##op(struct cu_stream *s, const struct ap_##op##_args *a);
AP_OPS(CU_OP)
#undef CU_OP

/* cu_gemm.cu */
ap_status cu_gemm_open(struct cu_device *dev);
void cu_gemm_close(struct cu_device *dev);

static inline bool aligned16(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* What the plug-in exports and the registry asks for. */
extern "C" const struct ap_backend_ops *ap_backend_plugin(void);

#endif
