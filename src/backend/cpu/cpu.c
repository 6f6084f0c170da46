/* SPDX-License-Identifier: Apache-2.0
 * The cpu backend. Slots that are empty here run the reference. */
#include "config.h"

#include "backend/cpu/host.h"

static ap_status cpu_open(struct ap_backend *be, int device, struct ap_pool *pool, struct ap_error *err)
{
    (void)be;
    (void)device;
    (void)pool;
    (void)err;
    return AP_OK;
}

static void cpu_close(struct ap_backend *be)
{
    (void)be;
}

const struct ap_backend_ops ap_backend_cpu = {
    .size = sizeof(struct ap_backend_ops),
    .abi = AP_BACKEND_ABI,
    .name = "cpu",
    .is_host = 1,
    .open = cpu_open,
    .close = cpu_close,
    .alloc = ap_host_alloc,
    .release = ap_host_release,
    .copy = ap_host_copy,
    .fill_zero = ap_host_fill_zero,
    .stream_create = ap_host_stream_create,
    .stream_destroy = ap_host_stream_destroy,
    .stream_sync = ap_host_stream_sync,
};
