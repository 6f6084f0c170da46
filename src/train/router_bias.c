/* SPDX-License-Identifier: Apache-2.0
 * Router bias: update, state, load figure. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/ops.h"
#include "model/params.h"
#include "train/router_bias.h"

struct ap_router_bias {
    struct ap_backend *be; /* borrowed */
    struct ap_model_config cfg;
    int64_t layers, experts; /* layers 0: no bias */
    ap_dtype dtype;
    size_t bytes; /* of one copy */
    int now;
    void *host[2], *dev[2]; /* dev is backend memory */
};

ap_status ap_router_bias_create(struct ap_backend *be, const struct ap_model_config *cfg, int64_t layers,
                                ap_dtype dtype, struct ap_router_bias **b_p, struct ap_error *err)
{
    struct ap_router_bias *b = calloc(1, sizeof(*b));
    if (!b)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    b->be = be;
    b->cfg = *cfg;
    b->dtype = dtype;
    b->layers = cfg->gate_kind == AP_GATE_SIGMOID_NOAUX ? layers : 0;
    b->experts = cfg->routed_experts;
    b->bytes = (size_t)(b->layers * b->experts) * ap_dtype_size(dtype);
    for (int i = 0; b->bytes > 0 && i < 2; i++) {
        b->host[i] = calloc(1, b->bytes);
        ap_status st = b->host[i] ? be->vt->alloc(be, b->bytes, &b->dev[i]) : AP_ERR_NOMEM;
        if (st == AP_OK)
            st = be->vt->fill_zero(be->stream, b->dev[i], b->bytes);
        if (st != AP_OK) {
            ap_router_bias_destroy(b);
            return ap_error_set(err, st, "no memory for the router bias");
        }
    }
    *b_p = b;
    return AP_OK;
}

void ap_router_bias_destroy(struct ap_router_bias *b)
{
    if (!b)
        return;
    for (int i = 0; i < 2; i++) {
        free(b->host[i]);
        if (b->dev[i])
            b->be->vt->release(b->be, b->dev[i]);
    }
    free(b);
}

ap_tensor ap_router_bias_tensor(const struct ap_router_bias *b)
{
    if (b->bytes == 0)
        return (ap_tensor){0};
    return ap_tensor_1d(b->dev[b->now], b->dtype, b->layers * b->experts);
}

const void *ap_router_bias_host(const struct ap_router_bias *b, size_t *bytes_p)
{
    *bytes_p = b->bytes;
    return b->bytes > 0 ? b->host[b->now] : NULL;
}

/* sign(mean - load) in exact integers: load * experts against the total of the layer. */
static int direction(int64_t load, int64_t experts, int64_t total)
{
    int64_t scaled = load * experts;
    return scaled < total ? 1 : scaled > total ? -1 : 0;
}

ap_status ap_router_bias_update(struct ap_router_bias *b, const int64_t *loads, double gamma)
{
    if (b->bytes == 0)
        return AP_OK;
    void *from = b->host[b->now], *to = b->host[1 - b->now];
    for (int64_t l = 0; l < b->layers; l++) {
        const int64_t *load = loads + l * b->experts;
        int64_t total = 0;
        for (int64_t e = 0; e < b->experts; e++)
            total += load[e];
        for (int64_t e = 0; e < b->experts; e++) {
            int64_t i = l * b->experts + e;
            double step = gamma * direction(load[e], b->experts, total);
            if (b->dtype == AP_F32)
                ((float *)to)[i] = (float)((double)((float *)from)[i] + step);
            else
                ((double *)to)[i] = ((double *)from)[i] + step;
        }
    }
    AP_TRY(b->be->vt->copy(b->be->stream, b->dev[1 - b->now], to, b->bytes));
    return b->be->vt->stream_sync(b->be->stream);
}

void ap_router_bias_flip(struct ap_router_bias *b)
{
    b->now = 1 - b->now;
}

ap_status ap_router_bias_named(struct ap_router_bias *b, int owner, struct ap_named_set *set, struct ap_error *err)
{
    for (int64_t l = 0; l < b->layers; l++) {
        char name[AP_NAME_MAX - 8];
        struct ap_named t = {.dtype = b->dtype, .ndim = 1, .shape = {b->experts, 1, 1, 1}};
        ap_params_router_name(&b->cfg, l, name, sizeof(name));
        snprintf(t.name, sizeof(t.name), "param/%s", name);
        t.end = owner ? b->experts : 0;
        t.data = (uint8_t *)b->host[b->now] + (size_t)(l * b->experts) * ap_dtype_size(b->dtype);
        AP_TRY(ap_named_set_add(set, &t, err));
    }
    return AP_OK;
}

ap_status ap_router_bias_loaded(struct ap_router_bias *b)
{
    if (b->bytes == 0)
        return AP_OK;
    AP_TRY(b->be->vt->copy(b->be->stream, b->dev[b->now], b->host[b->now], b->bytes));
    return b->be->vt->stream_sync(b->be->stream);
}

double ap_router_load_max(const int64_t *loads, int64_t layers, int64_t experts)
{
    double worst = NAN;
    for (int64_t l = 0; l < layers; l++) {
        int64_t total = 0, most = 0;
        for (int64_t e = 0; e < experts; e++) {
            int64_t n = loads[l * experts + e];
            total += n;
            most = n > most ? n : most;
        }
        double ratio = total > 0 ? (double)(most * experts) / (double)total : NAN;
        if (isfinite(ratio) && !(worst >= ratio))
            worst = ratio;
    }
    return worst;
}
