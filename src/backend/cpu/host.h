/* SPDX-License-Identifier: Apache-2.0
 * What all backends with ordinary host memory share: aligned allocation, copies, one synchronous stream. */
#ifndef AP_BACKEND_CPU_HOST_H
#define AP_BACKEND_CPU_HOST_H

#include "backend/backend.h"

ap_status ap_host_alloc(struct ap_backend *be, size_t size, void **mem_p);
void ap_host_release(struct ap_backend *be, void *mem);
ap_status ap_host_copy(struct ap_stream *s, void *dst, const void *src, size_t size);
ap_status ap_host_fill_zero(struct ap_stream *s, void *dst, size_t size);
ap_status ap_host_stream_create(struct ap_backend *be, struct ap_stream **s_p);
void ap_host_stream_destroy(struct ap_stream *s);
ap_status ap_host_stream_sync(struct ap_stream *s);

#endif
