/* SPDX-License-Identifier: Apache-2.0
 * The memory plan. It is made by running the layer code once with an arena that only counts (planning()); the same code
 * then runs for real in the memory so sized. Saved activations stand below all scratch; scratch is stacked and released
 * by marks. A forward-only model lets all layers share one set of activations; so does one that recomputes them layer
 * by layer in backward, for all its slots. A split backward has an arena more for each micro-batch between its halves
 * (late.c), and a head and MTP activations in this one. */
#include "config.h"

#include "model/model_internal.h"

static void plan_batch(struct ap_model *m, struct slot *s)
{
    int64_t N = m->tokens;
    s->tokens = new1(m, AP_I32, N);
    s->targets = new1(m, AP_I32, N);
    s->first = new1(m, AP_I32, N);
    s->pos = new1(m, AP_I32, N);
    s->own_targets = tensor_size(m) > 1 ? new1(m, AP_I32, N) : s->targets;
    s->sums = new1(m, AP_F64, 4);
    s->counts = new1(m, AP_I32, m->params->routers);
    s->x_out = new2(m, m->dt, m->own_tokens, m->cfg.hidden_size);
}

/* Backward starts from every layer's input; without it two are enough. */
static void plan_inputs(struct ap_model *m)
{
    int64_t first = m->part.layer_first, total = m->cfg.layers + m->cfg.mtp_depth;
    for (int64_t i = 0; i < total; i++) {
        struct layer_saved *s = &m->cur->layers[i];
        int own = i < m->cfg.layers ? i >= first && i < m->part.layer_last : m->part.last_stage;
        if (!own)
            continue;
        if (m->layers[i].moe)
            s->ids = new2(m, AP_I32, m->tokens, m->cfg.experts_per_token);
        if (i < first + 2 || !m->opt.forward_only || i == m->cfg.layers)
            s->x_in = new2(m, m->dt, m->own_tokens, m->cfg.hidden_size);
        else
            s->x_in = m->cur->layers[first + (i - first) % 2].x_in;
    }
}

/* What the layers keep for backward. mark: where shared memory begins; *high_p: the highest end so far. */
static void plan_layers(struct ap_model *m, size_t mark, size_t *high_p)
{
    for (int64_t i = m->part.layer_first; i < m->part.layer_last; i++) {
        if (m->opt.forward_only || m->opt.recompute)
            ap_arena_reset(&m->arena, mark);
        ap_block_plan(m, &m->layers[i]);
        if (ap_arena_mark(&m->arena) > *high_p)
            *high_p = ap_arena_mark(&m->arena);
    }
}

static void plan_last_stage(struct ap_model *m)
{
    int64_t N = m->tokens;
    m->token_loss = new1(m, m->stat, N);
    if (m->cfg.mtp_depth)
        m->mtp_token_loss = new1(m, m->stat, N);
    for (int k = 0; k < m->late_count; k++) {
        struct late *w = &m->lates[k];
        w->head.logits = new2(m, m->dt, N, m->vocab);
        ap_head_plan(m, &w->head);
        if (m->cfg.mtp_depth)
            ap_mtp_plan(m, w);
    }
    if (m->cfg.mtp_depth && !m->opt.forward_only)
        m->dx_mtp = new2(m, m->dt, m->own_tokens, m->cfg.hidden_size);
}

void ap_model_plan(struct ap_model *m)
{
    for (int k = 0; k < m->opt.slots; k++) {
        m->cur = &m->slots[k];
        plan_batch(m, m->cur);
        plan_inputs(m);
    }
    if (!m->opt.forward_only)
        m->dx = new2(m, m->dt, m->own_tokens, m->cfg.hidden_size);
    if (m->part.last_stage)
        plan_last_stage(m);
    size_t mark = ap_arena_mark(&m->arena), high = mark;
    for (int k = 0; k < m->opt.slots; k++) {
        m->cur = &m->slots[k];
        plan_layers(m, mark, &high);
    }
    if (!m->part.last_stage || !m->cfg.mtp_depth)
        return;
    /* The MTP block runs forward and backward at once, in one slot at a time, unless backward is split. It keeps its
     * own activations. */
    ap_arena_reset(&m->arena, m->opt.forward_only ? mark : high);
    size_t block = ap_arena_mark(&m->arena);
    for (int k = 0; k < m->opt.slots; k++) {
        m->cur = &m->slots[k];
        if (!is_split(m))
            ap_arena_reset(&m->arena, block);
        ap_block_plan(m, &m->layers[m->cfg.layers]);
    }
    if (ap_arena_mark(&m->arena) < high)
        ap_arena_reset(&m->arena, high);
}
