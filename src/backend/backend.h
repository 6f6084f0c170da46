/* SPDX-License-Identifier: Apache-2.0
 * Compute backends: a vtable per kind of device. "reference" (plain C, f32 and f64, the oracle), "cpu"
 * (oneDNN and fused kernels), later "cuda", "hip", "opencl" as plug-ins opened at run time.
 *
 * A backend fills the slots it has; ap_backend_open replaces empty ones by stubs that return
 * AP_ERR_UNSUPPORTED, or by the reference where the backend is a host backend, so callers never test a slot.
 * One backend object belongs to one thread at a time. Streams order work; work on one stream runs in order. */
#ifndef AP_BACKEND_BACKEND_H
#define AP_BACKEND_BACKEND_H

#include "backend/ops.h"
#include "base/pool.h"
#include "base/status.h"

#define AP_BACKEND_ABI 4

struct ap_backend;
struct ap_trace;  /* base/trace.h */
struct ap_stream; /* opaque to callers; host backends use one synchronous stream */

#define AP_OP_SLOT(op) ap_status (*op)(struct ap_stream * stream, const struct ap_##op##_args *args);
struct ap_op_table {
    AP_OPS(AP_OP_SLOT)
};
#undef AP_OP_SLOT

#define AP_OP_ID(op) AP_OP_##op,
enum ap_op_id { AP_OPS(AP_OP_ID) AP_OP_COUNT };
#undef AP_OP_ID
/* "gemm", ...: static storage. */
const char *ap_op_name(enum ap_op_id id);

/* What communicators on a device's own memory need (parallel/comm_nccl.h). Each function makes the device current for
 * the calling thread. */
struct ap_device_ops {
    const char
        *nccl; /* library with NCCL's interface that knows these streams; NULL: none, unless the user names one */
    ap_status (*name)(struct ap_backend *be, char *buf, size_t size); /* of no other device of this host */
    void *(*stream_native)(struct ap_stream *s);                      /* what that library takes; borrowed */
    /* A mark is done when all is done that the stream held when it was set last. */
    ap_status (*mark_create)(struct ap_backend *be, void **mark_p);
    void (*mark_destroy)(struct ap_backend *be, void *mark); /* NULL is fine */
    ap_status (*mark_set)(struct ap_stream *s, void *mark);
    ap_status (*mark_query)(struct ap_backend *be, void *mark, int *done_p); /* does not block */
};

/* What a backend library exports. size and abi come first so that a plug-in of another age is refused. */
struct ap_backend_ops {
    size_t size; /* sizeof(struct ap_backend_ops) */
    int abi;     /* AP_BACKEND_ABI */
    const char *name;
    int is_host; /* memory is ordinary host memory; copies are memcpy */
    ap_status (*open)(struct ap_backend *be, int device, struct ap_pool *pool, struct ap_error *err);
    void (*close)(struct ap_backend *be);
    ap_status (*alloc)(struct ap_backend *be, size_t size, void **mem_p); /* 64-byte aligned or better */
    void (*release)(struct ap_backend *be, void *mem);
    /* Either side may be host or device memory. Ordered on the stream; blocking for host backends. */
    ap_status (*copy)(struct ap_stream *s, void *dst, const void *src, size_t size);
    ap_status (*fill_zero)(struct ap_stream *s, void *dst, size_t size);
    ap_status (*stream_create)(struct ap_backend *be, struct ap_stream **s_p);
    void (*stream_destroy)(struct ap_stream *s);
    ap_status (*stream_sync)(struct ap_stream *s); /* also reports errors of earlier asynchronous work */
    const struct ap_device_ops *device;            /* NULL on host backends */
    struct ap_op_table ops;
};

struct ap_backend {
    const struct ap_backend_ops *vt; /* borrowed, static in the backend */
    struct ap_op_table ops;          /* resolved: every slot callable */
    struct ap_pool *pool;            /* borrowed; NULL = serial */
    struct ap_stream *stream;        /* default stream, owned */
    void *impl;                      /* backend's own */
    struct ap_record *record;        /* attached by record.h, else NULL */
    int device;
    struct ap_trace *trace; /* borrowed; spans go here, NULL: off */
};

/* First member of every backend's stream type. */
struct ap_stream {
    struct ap_backend *backend;
};

/* Open a backend by name: "reference", "cpu", "onednn" where compiled in, "cuda" and other plug-ins
 * (backend/plugin.h), or "auto": cuda where its plug-in and a device are there, else cpu, with a notice of the
 * reason when the machine has a device. A known backend that cannot be used: AP_ERR_ENV with cause and fix.
 * device: number of the GPU. pool is borrowed and must outlive it. */
ap_status ap_backend_open(const char *name, int device, struct ap_pool *pool, struct ap_backend **be_p,
                          struct ap_error *err);
/* What "auto" is for this device: "cuda" or "cpu" (static). Tries to open it; the same notice. */
const char *ap_backend_auto(int device);
/* NULL is fine. All memory of the backend must have been released. */
void ap_backend_close(struct ap_backend *be);
/* Names compiled in, NULL-terminated: static storage. */
const char *const *ap_backend_names(void);

extern const struct ap_backend_ops ap_backend_reference;
extern const struct ap_backend_ops ap_backend_cpu;
extern const struct ap_backend_ops ap_backend_onednn; /* "cpu" with every matrix product by oneDNN; AP_HAVE_ONEDNN */

#endif
