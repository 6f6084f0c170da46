/* SPDX-License-Identifier: Apache-2.0
 * The runtime API of the CUDA emulator: device memory is host memory between guards, streams are names,
 * errors are sticky as on a device. */
#include "emu_state.h"

#include <sched.h>
#include <string>

#include "../../support/emu_stream.h"

#define GUARD        64
#define GUARD_BYTE   0x5a
#define SMEM_DEFAULT 49152
#define SMEM_OPTIN   232448 /* Hopper: 227 KiB */
#define MAX_DEVICES  2

namespace
{

struct runtime {
    std::map<char *, size_t> live;
    std::map<const void *, int> smem;
    size_t used;
    cudaError_t last, broken; /* broken: every later call fails with it */
    long launches;
    int device;
};

runtime R;

const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

cudaError_t note(cudaError_t e)
{
    if (e != cudaSuccess)
        R.last = e;
    return e;
}

int devices(cudaError_t *e)
{
    const char *value = setting("ANTIPODE_EMU_DEVICES");
    *e = cudaSuccess;
    if (value && strcmp(value, "none") == 0)
        *e = cudaErrorNoDevice;
    else if (value && strcmp(value, "nodriver") == 0)
        *e = cudaErrorInsufficientDriver;
    return *e != cudaSuccess ? 0 : value ? (int)strtol(value, NULL, 10) : MAX_DEVICES;
}

} // namespace

enum emu_order emu_order(void)
{
    static const char *value = setting("ANTIPODE_EMU_ORDER");
    if (value && strcmp(value, "both") == 0)
        return EMU_BOTH;
    return value && strcmp(value, "reverse") == 0 ? EMU_REVERSE : EMU_FORWARD;
}

const std::map<char *, size_t> &emu_allocations(void)
{
    return R.live;
}

void emu_check_guards(const char *kernel)
{
    for (const auto &a : R.live) {
        for (size_t i = 0; i < GUARD; i++) {
            if ((unsigned char)a.first[-1 - (long)i] != GUARD_BYTE ||
                (unsigned char)a.first[a.second + i] != GUARD_BYTE) {
                fprintf(stderr, "emu: kernel %s wrote outside of an allocation of %zu bytes\n", kernel, a.second);
                exit(70);
            }
        }
    }
}

static cudaError_t usable(cudaStream_t s)
{
    if (R.broken != cudaSuccess)
        return R.broken;
    return s && s->device == R.device ? cudaSuccess : cudaErrorInvalidValue;
}

/* Work comes behind what the stream holds already: here that is waited for. */
cudaError_t emu_stream_ok(cudaStream_t s)
{
    cudaError_t e = usable(s);
    while (e == cudaSuccess && s->busy && s->busy(s->work))
        sched_yield();
    return e;
}

size_t emu_dynamic_limit(const void *kernel)
{
    auto it = R.smem.find(kernel);
    return it == R.smem.end() ? SMEM_DEFAULT : (size_t)it->second;
}

void emu_set_error(cudaError_t e)
{
    note(e);
}

int emu_count_launch(void)
{
    static const char *value = setting("ANTIPODE_EMU_FAULT");
    R.launches++;
    if (value && strtol(value, NULL, 10) == R.launches) {
        R.broken = cudaErrorIllegalAddress;
        return 0;
    }
    return 1;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    cudaError_t e;
    *count = devices(&e);
    return note(e);
}

cudaError_t cudaSetDevice(int device)
{
    cudaError_t e;
    int n = devices(&e);
    if (e == cudaSuccess && (device < 0 || device >= n))
        e = cudaErrorInvalidDevice;
    if (e == cudaSuccess)
        R.device = device;
    return note(e);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    (void)device;
    *value = attr == cudaDevAttrMultiProcessorCount            ? 8
             : attr == cudaDevAttrComputeCapabilityMajor       ? 9
             : attr == cudaDevAttrMaxSharedMemoryPerBlockOptin ? SMEM_OPTIN
                                                               : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t size)
{
    const char *limit = setting("ANTIPODE_EMU_MEMORY");
    if (R.broken != cudaSuccess)
        return note(R.broken);
    if (size == 0) {
        *p = NULL;
        return cudaSuccess;
    }
    if (limit && R.used + size > (size_t)strtoull(limit, NULL, 10))
        return note(cudaErrorMemoryAllocation);
    /* Device memory is aligned to 256 bytes. */
    size_t whole = (size + 256 + GUARD + 255) / 256 * 256;
    char *mem = static_cast<char *>(aligned_alloc(256, whole));
    if (!mem)
        return note(cudaErrorMemoryAllocation);
    memset(mem, GUARD_BYTE, whole);
    memset(mem + 256, 0xff, size);
    R.live[mem + 256] = size;
    R.used += size;
    *p = mem + 256;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    if (!p)
        return cudaSuccess;
    auto it = R.live.find(static_cast<char *>(p));
    if (it == R.live.end())
        return note(cudaErrorInvalidValue);
    R.used -= it->second;
    free(it->first - 256);
    R.live.erase(it);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t size, enum cudaMemcpyKind kind, cudaStream_t s)
{
    cudaError_t e = kind == cudaMemcpyDefault ? emu_stream_ok(s) : cudaErrorInvalidValue;
    if (e == cudaSuccess && size)
        memmove(dst, src, size);
    return note(e);
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t size, cudaStream_t s)
{
    cudaError_t e = emu_stream_ok(s);
    if (e == cudaSuccess && size)
        memset(dst, value, size);
    return note(e);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    if (flags != cudaStreamNonBlocking)
        return note(cudaErrorInvalidValue);
    *s = new emu_stream_st{R.device, NULL, NULL, 0, 0};
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    return note(emu_stream_ok(s));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    if (flags != cudaEventDisableTiming)
        return note(cudaErrorInvalidValue);
    *e = new emu_event_st{NULL, 0};
    return note(R.broken);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    cudaError_t ok = usable(s);
    if (ok == cudaSuccess)
        *e = emu_event_st{s, s->submitted};
    return note(ok);
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    if (R.broken != cudaSuccess || !e->stream)
        return note(R.broken);
    if (e->stream->busy)
        (void)e->stream->busy(e->stream->work);
    return e->stream->completed >= e->at ? cudaSuccess : cudaErrorNotReady; /* no error that stays */
}

cudaError_t cudaDeviceGetPCIBusId(char *name, int size, int device)
{
    int n = snprintf(name, (size_t)size, "0000:%02x:00.0", (unsigned)device);
    return note(n < size ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = R.last;
    R.last = R.broken;
    return e;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    }
    return "unrecognized error code";
}

cudaError_t emu_func_attribute(const void *kernel, enum cudaFuncAttribute attr, int value)
{
    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > SMEM_OPTIN)
        return note(cudaErrorInvalidValue);
    R.smem[kernel] = value;
    return cudaSuccess;
}
