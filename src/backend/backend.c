/* SPDX-License-Identifier: Apache-2.0
 * The backend registry: names, opening, and the resolution of empty slots. Stubs and names are generated
 * from AP_OPS, so that a new operation cannot be forgotten here. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/plugin.h"
#include "base/log.h"

#define AP_OP_NAME(op) #op,
static const char *const op_names[] = {AP_OPS(AP_OP_NAME)};
#undef AP_OP_NAME

#define AP_OP_STUB(op)                                                                                                 \
    static ap_status unsupported_##op(struct ap_stream *stream, const struct ap_##op##_args *args)                     \
    {                                                                                                                  \
        (void)stream;                                                                                                  \
        (void)args;                                                                                                    \
        return AP_ERR_UNSUPPORTED;                                                                                     \
    }
AP_OPS(AP_OP_STUB)
#undef AP_OP_STUB

static const struct ap_backend_ops *const registry[] = {
    &ap_backend_cpu,
    &ap_backend_reference,
#ifdef AP_HAVE_ONEDNN
    &ap_backend_onednn,
#endif
};
#define REGISTRY_COUNT (sizeof(registry) / sizeof(registry[0]))

const char *ap_op_name(enum ap_op_id id)
{
    return id >= 0 && id < AP_OP_COUNT ? op_names[id] : "unknown";
}

const char *const *ap_backend_names(void)
{
#ifdef AP_HAVE_ONEDNN
    static const char *const names[] = {"reference", "cpu", "onednn", NULL};
#else
    static const char *const names[] = {"reference", "cpu", NULL};
#endif
    return names;
}

static const struct ap_backend_ops *find(const char *name)
{
    for (size_t i = 0; i < REGISTRY_COUNT; i++) {
        if (strcmp(registry[i]->name, name) == 0)
            return registry[i];
    }
    return NULL;
}

/* A slot the backend left empty: the reference for memory that the host can read, otherwise the stub. */
static void resolve(struct ap_backend *be)
{
    const struct ap_op_table *own = &be->vt->ops;
    const struct ap_op_table *ref = &ap_backend_reference.ops;
#define AP_OP_RESOLVE(op) be->ops.op = own->op ? own->op : be->vt->is_host && ref->op ? ref->op : unsupported_##op;
    AP_OPS(AP_OP_RESOLVE)
#undef AP_OP_RESOLVE
}

/* A compiled-in backend or a plug-in. */
static ap_status lookup(const char *name, const struct ap_backend_ops **vt_p, struct ap_error *err)
{
    *vt_p = find(name);
    if (*vt_p)
        return AP_OK;
    ap_status status = ap_backend_plugin_open(name, vt_p, err);
    if (status != AP_ERR_NOTFOUND)
        return status;
    if (strcmp(name, "cuda") == 0) { /* a known name: the environment lacks it */
        if (err)
            err->status = AP_ERR_ENV;
        return AP_ERR_ENV;
    }
    ap_error_set(err, AP_ERR_UNSUPPORTED, "there is no backend named '%s'", name);
#ifdef AP_HAVE_ONEDNN
    ap_error_hint(err, "backends of this build: auto, cpu, onednn, reference; as a plug-in: cuda");
#else
    ap_error_hint(err, "backends of this build: auto, cpu, reference; as a plug-in: cuda");
#endif
    return AP_ERR_UNSUPPORTED;
}

static ap_status open_named(const char *name, int device, struct ap_pool *pool, struct ap_backend **be_p,
                            struct ap_error *err)
{
    const struct ap_backend_ops *vt = NULL;
    AP_TRY(lookup(name, &vt, err));
    struct ap_backend *be = calloc(1, sizeof(*be));
    if (!be)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory while opening backend %s", vt->name);
    be->vt = vt;
    be->pool = pool;
    be->device = device;
    resolve(be);
    ap_status status = vt->open(be, device, pool, err);
    if (status != AP_OK) {
        free(be);
        return status;
    }
    status = vt->stream_create(be, &be->stream);
    if (status != AP_OK) {
        ap_error_set(err, status, "backend %s could not make a stream", vt->name);
        vt->close(be);
        free(be);
        return status;
    }
    *be_p = be;
    return AP_OK;
}

const char *ap_backend_auto(int device)
{
    struct ap_backend *be = NULL;
    struct ap_error why = {0};
    if (!ap_backend_plugin_likely("cuda"))
        return "cpu";
    if (open_named("cuda", device, NULL, &be, &why) == AP_OK) {
        ap_backend_close(be);
        return "cuda";
    }
    ap_info("backend auto takes cpu: %s", why.text);
    return "cpu";
}

ap_status ap_backend_open(const char *name, int device, struct ap_pool *pool, struct ap_backend **be_p,
                          struct ap_error *err)
{
    return open_named(name && strcmp(name, "auto") != 0 ? name : ap_backend_auto(device), device, pool, be_p, err);
}

void ap_backend_close(struct ap_backend *be)
{
    if (!be)
        return;
    be->vt->stream_destroy(be->stream);
    be->vt->close(be);
    free(be);
}
