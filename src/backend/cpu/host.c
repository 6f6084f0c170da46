/* SPDX-License-Identifier: Apache-2.0
 * Memory and stream of host backends. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/host.h"
#include "base/memory.h"

ap_status ap_host_alloc(struct ap_backend *be, size_t size, void **mem_p)
{
    (void)be;
    void *mem = ap_memory_alloc(size);
    if (!mem)
        return AP_ERR_NOMEM;
    *mem_p = mem;
    return AP_OK;
}

void ap_host_release(struct ap_backend *be, void *mem)
{
    (void)be;
    free(mem);
}

ap_status ap_host_copy(struct ap_stream *s, void *dst, const void *src, size_t size)
{
    (void)s;
    if (size)
        memcpy(dst, src, size);
    return AP_OK;
}

ap_status ap_host_fill_zero(struct ap_stream *s, void *dst, size_t size)
{
    (void)s;
    if (size)
        memset(dst, 0, size);
    return AP_OK;
}

ap_status ap_host_stream_create(struct ap_backend *be, struct ap_stream **s_p)
{
    struct ap_stream *s = malloc(sizeof(*s));
    if (!s)
        return AP_ERR_NOMEM;
    s->backend = be;
    *s_p = s;
    return AP_OK;
}

void ap_host_stream_destroy(struct ap_stream *s)
{
    free(s);
}

ap_status ap_host_stream_sync(struct ap_stream *s)
{
    (void)s;
    return AP_OK;
}
