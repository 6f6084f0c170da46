/* SPDX-License-Identifier: Apache-2.0
 * Gradients of weights, apart from those of activations. A whole backward makes each at once. A split one (zero-bubble
 * pipelines) only notes the operands; when the gradient of the stage's input is long on its way, the notes are worked
 * off in the same order, with the same operands: the same bits. Operands are activations, which lie in the
 * micro-batch's slot, and gradients of outputs, for which each late has planned memory of its own. */
#include "config.h"

#include <stdlib.h>

#include "model/model_internal.h"

ap_status ap_late_create(struct ap_model *m)
{
    m->late_count = is_split(m) ? m->opt.late : 1;
    m->lates = calloc((size_t)m->late_count, sizeof *m->lates);
    if (!m->lates)
        return AP_ERR_NOMEM;
    for (int k = 0; k < m->late_count; k++)
        ap_arena_init(&m->lates[k].arena, m->be, "gradients of outputs");
    m->late = m->lates;
    return AP_OK;
}

/* What planning counted for the first is what each needs. */
ap_status ap_late_fix(struct ap_model *m, struct ap_error *err)
{
    m->late_most = m->lates[0].count;
    for (int k = 0; k < m->late_count && is_split(m); k++) {
        struct late *w = &m->lates[k];
        w->arena.peak = m->lates[0].arena.peak > w->arena.peak ? m->lates[0].arena.peak : w->arena.peak;
        AP_TRY(ap_arena_fix(&w->arena, err));
        w->work = calloc((size_t)m->late_most + 1, sizeof *w->work);
        if (!w->work)
            return AP_ERR_NOMEM;
        w->count = 0;
    }
    return AP_OK;
}

void ap_late_destroy(struct ap_model *m)
{
    for (int k = 0; m->lates && k < m->late_count; k++) {
        ap_arena_free(&m->lates[k].arena);
        free(m->lates[k].work);
    }
    free(m->lates);
}

size_t ap_late_memory(const struct ap_model *m)
{
    size_t bytes = 0;
    for (int k = 0; k < m->late_count; k++)
        bytes += m->lates[k].arena.size;
    return bytes;
}

/* Is the gradient at this offset the only term? */
static int is_written(const struct ap_model *m, int64_t off)
{
    const struct ap_param *list = m->params->list;
    int64_t low = 0, high = m->params->count - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (list[middle].offset <= off)
            low = middle;
        else
            high = middle - 1;
    }
    return m->opt.write_grads && list[low].written;
}

static ap_status run(struct ap_model *m, const struct late_work *w)
{
    ap_tensor g;
    switch (w->kind) {
    case LATE_LINEAR:
        OP(m, gemm, .a = w->dy, .b = w->x, .c = g2(m, w->off, w->dy.shape[1], w->x.shape[1]), .trans_a = 1,
           .accumulate = !is_written(m, w->off));
        break;
    case LATE_GROUPED:
        g = ap_tensor_3d(grad(m, w->off), m->stat, m->experts, w->dy.shape[1], w->x.shape[1]);
        OP(m, grouped_wgrad, .dy = w->dy, .x = w->x, .dw = g, .offsets = w->offsets, .w_stride = w->stride,
           .accumulate = !is_written(m, w->off));
        break;
    case LATE_VECTOR:
        g = g1(m, w->off, w->dy.shape[0]);
        OP(m, add, .a = g, .b = w->dy, .c = g);
        break;
    case LATE_ROWS:
        OP(m, embed_bwd, .dout = w->dy, .ids = w->x, .dtable = g2(m, w->off, m->vocab, w->dy.shape[1]));
        break;
    }
    return AP_OK;
}

ap_status ap_weight_gradient(struct ap_model *m, const struct late_work *work)
{
    struct late *w = m->late;
    if (!is_split(m))
        return run(m, work);
    if (!planning(m) && w->count >= m->late_most)
        return AP_ERR_BUG;
    if (!planning(m))
        w->work[w->count] = *work;
    w->count++;
    return AP_OK;
}

ap_status ap_late_run(struct ap_model *m, ap_model_pulse *pulse, void *ctx)
{
    struct late *w = m->late;
    if (w->count == 0)
        return AP_ERR_BUG; /* its first half has not been */
    for (int64_t i = 0; i < w->count; i++) {
        AP_TRY(run(m, &w->work[i]));
        if (pulse)
            AP_TRY(pulse(ctx));
    }
    w->count = 0;
    return AP_OK;
}

ap_status ap_keep(struct ap_model *m, ap_tensor t, ap_tensor *kept_p)
{
    *kept_p = t;
    if (!is_split(m))
        return AP_OK;
    *kept_p = dy2(m, t.dtype, t.shape[0], t.shape[1]);
    return ap_model_copy(m, *kept_p, t);
}

ap_status ap_norm_bwd(struct ap_model *m, int64_t off, struct ap_rmsnorm_bwd_args a)
{
    int64_t n = a.dy.shape[1];
    a.w = w1(m, off, n);
    a.dw = g1(m, off, n);
    if (is_split(m)) { /* the sum is a by-product of dx: it is made now and added later */
        a.dw = ap_arena_tensor(dy_arena(m), m->stat, 1, (int64_t[]){n});
        AP_TRY(ap_model_zero(m, a.dw));
        AP_TRY(ap_weight_gradient(m, &(struct late_work){.kind = LATE_VECTOR, .off = off, .dy = a.dw}));
    }
    return planning(m) ? AP_OK : m->be->ops.rmsnorm_bwd(m->be->stream, &a);
}
