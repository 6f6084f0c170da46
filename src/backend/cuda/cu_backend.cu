/* SPDX-License-Identifier: Apache-2.0
 * The CUDA backend: devices, memory, streams, and the table of operations that the plug-in exports. */
#include "config.h"

#include <stdlib.h>

#include "backend/cuda/cu_backend.h"
extern "C" {
#include "backend/ops_check.h"
}

#define ENV_TF32 "ANTIPODE_CUDA_TF32"

ap_status cu_failed(const char *what, cudaError_t e)
{
    ap_error_log("cuda: %s: %s", what, cudaGetErrorString(e));
    return e == cudaErrorMemoryAllocation ? AP_ERR_NOMEM : AP_ERR_ENV;
}

ap_status cu_launched(const char *op)
{
    cudaError_t e = cudaGetLastError();
    return e == cudaSuccess ? AP_OK : cu_failed(op, e);
}

/* Why there is no device, as one line with its fix. */
static ap_status no_device(cudaError_t e, struct ap_error *err)
{
    if (e == cudaErrorInsufficientDriver) {
        ap_error_set(err, AP_ERR_ENV, "backend cuda: the NVIDIA driver is missing or older than this build's CUDA");
        ap_error_hint(err, "install or update the driver, or use backend: cpu");
    } else if (e == cudaErrorNoDevice || e == cudaSuccess) {
        ap_error_set(err, AP_ERR_ENV, "backend cuda: no NVIDIA GPU is visible to this process");
        ap_error_hint(err, "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or use backend: cpu");
    } else {
        ap_error_set(err, AP_ERR_ENV, "backend cuda: %s", cudaGetErrorString(e));
        ap_error_hint(err, "look at nvidia-smi, or use backend: cpu");
    }
    return AP_ERR_ENV;
}

static ap_status find_device(int device, struct ap_error *err)
{
    int count = 0, major = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e != cudaSuccess || count < 1) {
        (void)cudaGetLastError();
        return no_device(e, err);
    }
    if (device < 0 || device >= count) {
        ap_error_set(err, AP_ERR_ENV, "backend cuda: device %d was asked for and %d %s visible", device, count,
                     count == 1 ? "is" : "are");
        ap_error_hint(err, "start at most one rank per GPU on a node, or use backend: cpu");
        return AP_ERR_ENV;
    }
    e = cudaSetDevice(device);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (e != cudaSuccess)
        return no_device(e, err);
    if (major < 8) {
        ap_error_set(err, AP_ERR_ENV, "backend cuda: device %d has compute capability %d, at least 8.0 is needed",
                     device, major);
        ap_error_hint(err, "use an Ampere GPU or newer, or backend: cpu");
        return AP_ERR_ENV;
    }
    return AP_OK;
}

static void cuda_close(struct ap_backend *be)
{
    struct cu_device *dev = (struct cu_device *)be->impl;
    if (!dev)
        return;
    cu_gemm_close(dev);
    free(dev);
    be->impl = NULL;
}

static ap_status cuda_open(struct ap_backend *be, int device, struct ap_pool *pool, struct ap_error *err)
{
    (void)pool;
    AP_TRY(find_device(device, err));
    struct cu_device *dev = (struct cu_device *)calloc(1, sizeof(*dev));
    if (!dev)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory while opening backend cuda");
    const char *tf32 = getenv(ENV_TF32);
    dev->device = device;
    dev->tf32 = tf32 && tf32[0] == '1';
    be->impl = dev;
    cudaError_t e = cudaDeviceGetAttribute(&dev->processors, cudaDevAttrMultiProcessorCount, device);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&dev->shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (e == cudaSuccess && cu_gemm_open(dev) == AP_OK)
        return AP_OK;
    cuda_close(be);
    return ap_error_set(err, AP_ERR_ENV, "backend cuda: device %d could not be set up: %s", device,
                        e == cudaSuccess ? "cuBLASLt does not start" : cudaGetErrorString(e));
}

static ap_status use(const struct ap_backend *be)
{
    cudaError_t e = cudaSetDevice(be->device);
    return e == cudaSuccess ? AP_OK : cu_failed("device", e);
}

static ap_status cuda_alloc(struct ap_backend *be, size_t size, void **mem_p)
{
    AP_TRY(use(be));
    /* An address of its own also for nothing: NULL means "absent". */
    cudaError_t e = cudaMalloc(mem_p, size ? size : 1);
    if (e == cudaSuccess)
        return AP_OK;
    (void)cudaGetLastError();
    return e == cudaErrorMemoryAllocation ? AP_ERR_NOMEM : cu_failed("memory", e);
}

static void cuda_release(struct ap_backend *be, void *mem)
{
    if (use(be) != AP_OK)
        return;
    cudaError_t e = cudaFree(mem);
    if (e != cudaSuccess)
        (void)cu_failed("release of memory", e);
}

static ap_status cuda_copy(struct ap_stream *stream, void *dst, const void *src, size_t size)
{
    struct cu_stream *s = (struct cu_stream *)stream;
    AP_TRY(use(stream->backend));
    if (size == 0)
        return AP_OK;
    cudaError_t e = cudaMemcpyAsync(dst, src, size, cudaMemcpyDefault, s->id);
    return e == cudaSuccess ? AP_OK : cu_failed("copy", e);
}

static ap_status cuda_fill_zero(struct ap_stream *stream, void *dst, size_t size)
{
    struct cu_stream *s = (struct cu_stream *)stream;
    AP_TRY(use(stream->backend));
    if (size == 0)
        return AP_OK;
    cudaError_t e = cudaMemsetAsync(dst, 0, size, s->id);
    return e == cudaSuccess ? AP_OK : cu_failed("fill", e);
}

static void cuda_stream_destroy(struct ap_stream *stream)
{
    struct cu_stream *s = (struct cu_stream *)stream;
    if (!s)
        return;
    if (use(stream->backend) == AP_OK) {
        if (s->id)
            (void)cudaStreamSynchronize(s->id);
        (void)cudaFree(s->scratch);
        (void)cudaFree(s->lt_space);
        if (s->id)
            (void)cudaStreamDestroy(s->id);
    }
    free(s);
}

static ap_status cuda_stream_create(struct ap_backend *be, struct ap_stream **s_p)
{
    AP_TRY(use(be));
    struct cu_stream *s = (struct cu_stream *)calloc(1, sizeof(*s));
    if (!s)
        return AP_ERR_NOMEM;
    s->base.backend = be;
    s->dev = (struct cu_device *)be->impl;
    cudaError_t e = cudaStreamCreateWithFlags(&s->id, cudaStreamNonBlocking);
    if (e == cudaSuccess)
        e = cudaMalloc(&s->lt_space, CU_LT_SPACE);
    if (e != cudaSuccess) {
        ap_status status = cu_failed("stream", e);
        cuda_stream_destroy(&s->base);
        return status;
    }
    *s_p = &s->base;
    return AP_OK;
}

static ap_status cuda_stream_sync(struct ap_stream *stream)
{
    struct cu_stream *s = (struct cu_stream *)stream;
    AP_TRY(use(stream->backend));
    cudaError_t e = cudaStreamSynchronize(s->id);
    if (e == cudaSuccess)
        e = cudaGetLastError();
    return e == cudaSuccess ? AP_OK : cu_failed("work on the device", e);
}

static ap_status device_name(struct ap_backend *be, char *buf, size_t size)
{
    AP_TRY(use(be));
    cudaError_t e = cudaDeviceGetPCIBusId(buf, (int)size, be->device);
    return e == cudaSuccess ? AP_OK : cu_failed("name of the device", e);
}

static void *stream_native(struct ap_stream *stream)
{
    return use(stream->backend) == AP_OK ? ((struct cu_stream *)stream)->id : NULL;
}

static ap_status mark_create(struct ap_backend *be, void **mark_p)
{
    cudaEvent_t event = NULL;
    AP_TRY(use(be));
    cudaError_t e = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (e != cudaSuccess)
        return cu_failed("event", e);
    *mark_p = event;
    return AP_OK;
}

static void mark_destroy(struct ap_backend *be, void *mark)
{
    if (mark && use(be) == AP_OK)
        (void)cudaEventDestroy((cudaEvent_t)mark);
}

static ap_status mark_set(struct ap_stream *stream, void *mark)
{
    AP_TRY(use(stream->backend));
    cudaError_t e = cudaEventRecord((cudaEvent_t)mark, ((struct cu_stream *)stream)->id);
    return e == cudaSuccess ? AP_OK : cu_failed("event", e);
}

static ap_status mark_query(struct ap_backend *be, void *mark, int *done_p)
{
    AP_TRY(use(be));
    cudaError_t e = cudaEventQuery((cudaEvent_t)mark);
    if (e != cudaSuccess && e != cudaErrorNotReady)
        return cu_failed("work on the device", e);
    *done_p = e == cudaSuccess;
    return AP_OK;
}

static const struct ap_device_ops device_ops = {
#ifdef AP_CUDA_EMU
    NULL, /* a real library would take the emulator's streams for its own */
#else
    "libnccl.so.2",
#endif
    device_name, stream_native, mark_create, mark_destroy, mark_set, mark_query,
};

ap_status cu_scratch(struct cu_stream *s, size_t size, void **mem_p)
{
    if (size > s->scratch_size) {
        /* Half as much again, so that slowly growing requests settle. */
        size_t bytes = (size + size / 2 + 4095) / 4096 * 4096;
        void *mem = NULL;
        AP_TRY(cuda_stream_sync(&s->base));
        cudaError_t e = cudaMalloc(&mem, bytes);
        if (e != cudaSuccess) {
            (void)cudaGetLastError();
            return cu_failed("scratch memory", e);
        }
        (void)cudaFree(s->scratch);
        s->scratch = mem;
        s->scratch_size = bytes;
    }
    *mem_p = s->scratch;
    return AP_OK;
}

#define CU_CHECKED(op)                                                                                                 \
    static ap_status op_##op(struct ap_stream *stream, const struct ap_##op##_args *a)                                 \
    {                                                                                                                  \
        AP_TRY(ap_check_##op(a));                                                                                      \
        AP_TRY(use(stream->backend));                                                                                  \
        return cu_##op((struct cu_stream *)stream, a);                                                                 \
    }
AP_OPS(CU_CHECKED)
#undef CU_CHECKED

#define CU_SLOT(op) op_##op,
static const struct ap_backend_ops table = {
    sizeof(struct ap_backend_ops),
    AP_BACKEND_ABI,
#ifdef AP_CUDA_EMU
    "cuda-emu",
#else
    "cuda",
#endif
    0,
    cuda_open,
    cuda_close,
    cuda_alloc,
    cuda_release,
    cuda_copy,
    cuda_fill_zero,
    cuda_stream_create,
    cuda_stream_destroy,
    cuda_stream_sync,
    &device_ops,
    {AP_OPS(CU_SLOT)},
};
#undef CU_SLOT

extern "C" __attribute__((visibility("default"))) const struct ap_backend_ops *ap_backend_plugin(void)
{
    return &table;
}
