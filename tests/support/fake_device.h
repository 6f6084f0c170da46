/* SPDX-License-Identifier: Apache-2.0
 * A device for threads of one process: the reference backend, whose memory is called a device's, with streams on which
 * tests/support/fake_nccl.c leaves work. Unlike the emulated CUDA backend it runs in any build and any number of
 * threads; it has no kernels of its own. */
#ifndef AP_TESTS_FAKE_DEVICE_H
#define AP_TESTS_FAKE_DEVICE_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "emu_stream.h"

struct fake_stream {
    struct ap_stream base;
    struct emu_stream_st native;
};

struct fake_device {
    struct ap_backend *be;
    struct ap_backend_ops vt; /* what be->vt points to */
};

static inline ap_status fake_stream_create(struct ap_backend *be, struct ap_stream **s_p)
{
    struct fake_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return AP_ERR_NOMEM;
    s->base.backend = be;
    *s_p = &s->base;
    return AP_OK;
}

static inline ap_status fake_stream_sync(struct ap_stream *stream)
{
    struct emu_stream_st *s = &((struct fake_stream *)stream)->native;
    while (s->busy && s->busy(s->work))
        sched_yield();
    return AP_OK;
}

static inline void fake_stream_destroy(struct ap_stream *stream)
{
    fake_stream_sync(stream);
    free(stream);
}

static inline ap_status fake_mark_create(struct ap_backend *be, void **mark_p)
{
    (void)be;
    *mark_p = calloc(1, sizeof(struct emu_event_st));
    return *mark_p ? AP_OK : AP_ERR_NOMEM;
}

static inline void fake_mark_destroy(struct ap_backend *be, void *mark)
{
    (void)be;
    free(mark);
}

static inline ap_status fake_mark_set(struct ap_stream *stream, void *mark)
{
    struct emu_stream_st *s = &((struct fake_stream *)stream)->native;
    *(struct emu_event_st *)mark = (struct emu_event_st){s, s->submitted};
    return AP_OK;
}

static inline ap_status fake_mark_query(struct ap_backend *be, void *mark, int *done_p)
{
    struct emu_event_st *e = mark;
    (void)be;
    if (e->stream->busy)
        (void)e->stream->busy(e->stream->work);
    *done_p = e->stream->completed >= e->at;
    return AP_OK;
}

static inline void *fake_stream_native(struct ap_stream *stream)
{
    return &((struct fake_stream *)stream)->native;
}

static inline ap_status fake_copy(struct ap_stream *s, void *dst, const void *src, size_t size)
{
    fake_stream_sync(s);
    return ap_backend_reference.copy(s, dst, src, size);
}

static inline ap_status fake_name(struct ap_backend *be, char *buf, size_t size)
{
    snprintf(buf, size, "fake %d", be->device);
    return AP_OK;
}

static inline ap_status fake_device_open(struct fake_device *d, int device)
{
    static const struct ap_device_ops ops = {
        NULL, fake_name, fake_stream_native, fake_mark_create, fake_mark_destroy, fake_mark_set, fake_mark_query};
    AP_TRY(ap_backend_open("reference", device, NULL, &d->be, NULL));
    d->be->vt->stream_destroy(d->be->stream);
    d->vt = *d->be->vt;
    d->vt.name = "fake";
    d->vt.is_host = 0;
    d->vt.device = &ops;
    d->vt.copy = fake_copy;
    d->vt.stream_create = fake_stream_create;
    d->vt.stream_destroy = fake_stream_destroy;
    d->vt.stream_sync = fake_stream_sync;
    d->be->vt = &d->vt;
    return fake_stream_create(d->be, &d->be->stream);
}

static inline void fake_device_close(struct fake_device *d)
{
    ap_backend_close(d->be);
}

#endif
