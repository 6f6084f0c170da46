/* SPDX-License-Identifier: Apache-2.0
 * The model object: parameter look-up, and one micro-batch forward and backward. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model_internal.h"

static int64_t offset_of(const struct ap_params *p, const char *fmt, int64_t layer)
{
    char name[160];
    snprintf(name, sizeof name, fmt, (long long)layer);
    const struct ap_param *e = ap_params_find(p, name);
    return e ? e->offset : -1;
}

static int64_t expert_offset(const struct ap_params *p, int64_t layer, int64_t expert, const char *matrix)
{
    char name[160];
    snprintf(name, sizeof name, "model.layers.%lld.mlp.experts.%lld.%s.weight", (long long)layer, (long long)expert,
             matrix);
    const struct ap_param *e = ap_params_find(p, name);
    return e ? e->offset : -1;
}

static void find_experts(const struct ap_model *m, struct layer *L, int64_t i)
{
    const struct ap_params *p = m->params;
    int64_t first = ap_share(m->cfg.routed_experts, m->part.expert_rank, m->part.expert_size);
    L->par.router = offset_of(p, "model.layers.%lld.mlp.gate.weight", i);
    L->par.e_gate_up = expert_offset(p, i, first, "gate_proj");
    L->par.e_down = expert_offset(p, i, first, "down_proj");
    if (m->experts > 1) {
        L->par.e_gate_up_stride = expert_offset(p, i, first + 1, "gate_proj") - L->par.e_gate_up;
        L->par.e_down_stride = expert_offset(p, i, first + 1, "down_proj") - L->par.e_down;
    }
    L->par.s_gate_up = offset_of(p, "model.layers.%lld.mlp.shared_experts.gate_proj.weight", i);
    L->par.s_down = offset_of(p, "model.layers.%lld.mlp.shared_experts.down_proj.weight", i);
}

static void find_layer(struct ap_model *m, int64_t i, int64_t *routers)
{
    const struct ap_params *p = m->params;
    struct layer *L = &m->layers[i];
    L->par = (struct layer_params){
        .input_norm = offset_of(p, "model.layers.%lld.input_layernorm.weight", i),
        .post_norm = offset_of(p, "model.layers.%lld.post_attention_layernorm.weight", i),
        .q = offset_of(p, "model.layers.%lld.self_attn.q_proj.weight", i),
        .q_a = offset_of(p, "model.layers.%lld.self_attn.q_a_proj.weight", i),
        .q_a_norm = offset_of(p, "model.layers.%lld.self_attn.q_a_layernorm.weight", i),
        .q_b = offset_of(p, "model.layers.%lld.self_attn.q_b_proj.weight", i),
        .kv_a = offset_of(p, "model.layers.%lld.self_attn.kv_a_proj_with_mqa.weight", i),
        .kv_a_norm = offset_of(p, "model.layers.%lld.self_attn.kv_a_layernorm.weight", i),
        .kv_b = offset_of(p, "model.layers.%lld.self_attn.kv_b_proj.weight", i),
        .o = offset_of(p, "model.layers.%lld.self_attn.o_proj.weight", i),
        .gate_up = offset_of(p, "model.layers.%lld.mlp.gate_proj.weight", i),
        .down = offset_of(p, "model.layers.%lld.mlp.down_proj.weight", i),
    };
    L->moe = ap_model_layer_is_moe(&m->cfg, i);
    if (L->moe) {
        L->router_index = (*routers)++;
        find_experts(m, L, i);
    }
}

static void find_params(struct ap_model *m)
{
    const struct ap_params *p = m->params;
    int64_t routers = 0;
    for (int64_t i = 0; i < m->cfg.layers + m->cfg.mtp_depth; i++)
        find_layer(m, i, &routers);
    m->off_embed = offset_of(p, "model.embed_tokens.weight", 0);
    m->off_norm = offset_of(p, "model.norm.weight", 0);
    m->off_head = offset_of(p, "lm_head.weight", 0);
    if (m->cfg.mtp_depth) {
        int64_t n = m->cfg.layers;
        m->mtp.enorm = offset_of(p, "model.layers.%lld.enorm.weight", n);
        m->mtp.hnorm = offset_of(p, "model.layers.%lld.hnorm.weight", n);
        m->mtp.eh_proj = offset_of(p, "model.layers.%lld.eh_proj.weight", n);
        m->mtp.norm = offset_of(p, "model.layers.%lld.shared_head.norm.weight", n);
    }
}

static ap_tensor layer_output(const struct ap_model *m, int64_t i)
{
    return i + 1 < m->part.layer_last ? m->cur->layers[i + 1].x_in : m->cur->x_out;
}

/* What was done since the lap before was of that kind. */
static void lap(struct ap_model *m, int backward, enum ap_work_kind kind)
{
    struct ap_work_clock *c = m->opt.clock;
    if (c && !planning(m))
        ap_work_lap(c, backward ? &c->backward[kind] : &c->forward[kind]);
}

static enum ap_work_kind kind_of(const struct ap_model *m, int64_t layer)
{
    return m->layers[layer].moe ? AP_WORK_MOE : AP_WORK_DENSE;
}

static ap_status forward_layers(struct ap_model *m)
{
    for (int64_t i = m->part.layer_first; i < m->part.layer_last; i++) {
        AP_TRY(ap_block_forward(m, &m->layers[i], layer_output(m, i)));
        lap(m, 0, kind_of(m, i));
    }
    return AP_OK;
}

/* The layers share one set of activations: fill it again from the layer's input. Same code, same bits. */
static ap_status recompute_layer(struct ap_model *m, int64_t i)
{
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor out = new2(m, m->dt, m->own_tokens, m->cfg.hidden_size);
    m->recomputing = 1;
    ap_status st = ap_block_forward(m, &m->layers[i], out);
    m->recomputing = 0;
    ap_arena_reset(&m->arena, mark);
    return st;
}

static ap_status backward_layers(struct ap_model *m)
{
    for (int64_t i = m->part.layer_last - 1; i >= m->part.layer_first; i--) {
        /* with one slot the last layer's are still there */
        if (m->opt.recompute && (i < m->part.layer_last - 1 || m->opt.slots > 1))
            AP_TRY(recompute_layer(m, i));
        AP_TRY(ap_block_backward(m, &m->layers[i], m->dx));
        lap(m, 1, kind_of(m, i));
    }
    return AP_OK;
}

static ap_status main_head(struct ap_model *m)
{
    struct slot *s = m->cur;
    return ap_head_step(m, &m->late->head, s->x_out, m->off_norm, s->targets, s->own_targets, m->token_loss, m->lw.ce,
                        0, m->dx);
}

/* Every layer function once, counting only. */
static ap_status plan_scratch(struct ap_model *m)
{
    int64_t unused;
    m->with_grads = !m->opt.forward_only;
    if (m->part.first_stage)
        AP_TRY(ap_embed_forward(m, m->cur->tokens, m->cur->layers[0].x_in));
    AP_TRY(forward_layers(m));
    if (m->part.last_stage)
        AP_TRY(main_head(m));
    if (m->part.last_stage && m->cfg.mtp_depth)
        AP_TRY(ap_mtp_step(m, NULL, &unused, m->dx));
    if (m->opt.forward_only)
        return AP_OK;
    AP_TRY(backward_layers(m));
    return m->part.first_stage ? ap_embed_backward(m, m->cur->tokens, m->dx) : AP_OK;
}

static ap_status make_tables(struct ap_model *m)
{
    int64_t T = m->opt.seq_len, n = T * (m->cfg.rope_dim / 2);
    size_t width = ap_dtype_size(m->stat);
    double *host = malloc((size_t)(2 * n) * sizeof *host);
    if (!host)
        return AP_ERR_NOMEM;
    ap_rope_fill(&m->cfg, T, host, host + n);
    if (m->stat == AP_F32) {
        float *f = (float *)host; /* narrowing in place, front to back */
        for (int64_t i = 0; i < 2 * n; i++) {
            float v = (float)host[i];
            memcpy(&f[i], &v, sizeof v);
        }
    }
    ap_status st = m->be->vt->alloc(m->be, (size_t)(2 * n) * width, &m->tables_mem);
    if (st == AP_OK)
        st = m->be->vt->copy(m->be->stream, m->tables_mem, host, (size_t)(2 * n) * width);
    if (st == AP_OK)
        st = m->be->vt->stream_sync(m->be->stream);
    free(host);
    m->cos = ap_tensor_2d(m->tables_mem, m->stat, T, m->cfg.rope_dim / 2);
    m->sin = ap_tensor_2d((char *)m->tables_mem + (size_t)n * width, m->stat, T, m->cfg.rope_dim / 2);
    return st;
}

/* What follows from the part: own tokens, heads, columns, experts. */
static ap_status take_shares(struct ap_model *m)
{
    const struct ap_model_config *c = &m->cfg;
    int t = m->part.tensor_rank, T = m->part.tensor_size;
    m->token_rows = calloc(2 * (size_t)T, sizeof *m->token_rows);
    if (!m->token_rows)
        return AP_ERR_NOMEM;
    for (int r = 0; r < T; r++) {
        m->token_rows[r] = ap_share(m->tokens, r + 1, T) - ap_share(m->tokens, r, T);
        m->token_rows[T + r] = m->tokens;
    }
    m->own_first = ap_share(m->tokens, t, T);
    m->own_tokens = m->token_rows[t];
    m->heads = c->heads / T;
    m->dense_width = c->intermediate_size / T;
    m->moe_width = c->moe_intermediate_size / T;
    m->vocab_first = ap_share(c->vocab_size, t, T);
    m->vocab = ap_share(c->vocab_size, t + 1, T) - m->vocab_first;
    m->experts = c->routed_experts / m->part.expert_size;
    if (T > 1)
        AP_TRY(ap_exchange_create(m->be, m->opt.tensor, &m->tensor));
    return m->part.expert_size > 1 ? ap_exchange_create(m->be, m->opt.expert, &m->expert) : AP_OK;
}

static ap_status make_slots(struct ap_model *m)
{
    size_t total = (size_t)(m->cfg.layers + m->cfg.mtp_depth), ranks = (size_t)m->part.expert_size;
    size_t count = (size_t)m->opt.slots, capacity = ranks > 1 ? (size_t)ap_moe_capacity(m) : 0;
    m->slots = calloc(count, sizeof *m->slots);
    m->layers = calloc(total, sizeof *m->layers);
    m->host_counts = calloc((size_t)m->params->routers + 1, sizeof *m->host_counts);
    m->host_ids = calloc(5 * (size_t)m->tokens, sizeof *m->host_ids);
    m->host_rows = calloc(2 * capacity + 2 * (size_t)m->cfg.routed_experts + 2, sizeof *m->host_rows);
    m->host_load = calloc(ranks * (2 * (size_t)m->experts + 1), sizeof *m->host_load);
    m->host_pairs = calloc(2 * ranks * total * count, sizeof *m->host_pairs);
    if (!m->slots || !m->layers || !m->host_counts || !m->host_ids || !m->host_rows || !m->host_load || !m->host_pairs)
        return AP_ERR_NOMEM;
    int64_t *pair = m->host_pairs;
    for (size_t k = 0; k < count; k++) {
        m->slots[k].layers = calloc(total, sizeof *m->slots[k].layers);
        if (!m->slots[k].layers)
            return AP_ERR_NOMEM;
        for (size_t i = 0; i < total; i++, pair += 2 * ranks) {
            m->slots[k].layers[i].ex.send = pair;
            m->slots[k].layers[i].ex.recv = pair + ranks;
        }
    }
    return AP_OK;
}

static ap_status setup(struct ap_model *m, struct ap_error *err)
{
    AP_TRY(ap_params_create(&m->cfg, &m->part, &m->params));
    AP_TRY(take_shares(m));
    AP_TRY(make_slots(m));
    find_params(m);
    AP_TRY(make_tables(m));
    AP_TRY(ap_late_create(m));
    ap_arena_init(&m->arena, m->be, "model");
    ap_model_plan(m);
    AP_TRY(plan_scratch(m));
    AP_TRY(ap_arena_fix(&m->arena, err));
    AP_TRY(ap_late_fix(m, err));
    ap_model_plan(m);
    return AP_OK;
}

static ap_status check_options(const struct ap_model_options *opt, const struct ap_model_part *part,
                               struct ap_backend *be, struct ap_error *err)
{
    if (opt->dtype != AP_F32 && opt->dtype != AP_F64 && opt->dtype != AP_BF16)
        return ap_error_set(err, AP_ERR_UNSUPPORTED, "dtype %s is not supported by the model on backend %s",
                            ap_dtype_name(opt->dtype), be->vt->name);
    if (opt->micro_sequences < 1 || opt->seq_len < 1 || opt->micro_sequences > INT32_MAX / opt->seq_len)
        return ap_error_set(err, AP_ERR_INPUT, "a micro-batch of %lld sequences of %lld tokens is impossible",
                            (long long)opt->micro_sequences, (long long)opt->seq_len);
    if (opt->micro_sequences * opt->seq_len < part->tensor_size)
        return ap_error_set(err, AP_ERR_INPUT, "a micro-batch of %lld tokens for parallel.tensor %d",
                            (long long)(opt->micro_sequences * opt->seq_len), part->tensor_size);
    if ((part->tensor_size > 1 && (!opt->tensor || opt->tensor->size != part->tensor_size)) ||
        (part->expert_size > 1 && (!opt->expert || opt->expert->size != part->expert_size)) || opt->slots < 0 ||
        opt->late < 0)
        return ap_error_set(err, AP_ERR_BUG, "a part of a model without its communicators");
    if (opt->late > 0 && (opt->recompute || opt->forward_only))
        return ap_error_set(err, AP_ERR_INPUT,
                            "a backward in two halves needs the activations in both: it cannot recompute them");
    return AP_OK;
}

ap_status ap_model_create(struct ap_backend *be, const struct ap_model_config *cfg, const struct ap_model_options *opt,
                          struct ap_model **model_p, struct ap_error *err)
{
    AP_TRY(ap_model_config_check(cfg, err));
    struct ap_model_part part = opt->part ? *opt->part : ap_model_whole(cfg);
    AP_TRY(ap_model_part_check(cfg, &part, err));
    AP_TRY(check_options(opt, &part, be, err));
    struct ap_model *m = calloc(1, sizeof *m);
    if (!m)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the model");
    m->be = be;
    m->cfg = *cfg;
    m->opt = *opt;
    m->opt.part = NULL;
    m->opt.slots = opt->slots > 0 ? opt->slots : 1;
    m->part = part;
    m->tokens = opt->micro_sequences * opt->seq_len;
    m->dt = opt->dtype;
    m->stat = ap_dtype_full(opt->dtype);
    m->attn_scale = ap_rope_attn_scale(cfg);
    if (err)
        err->status = AP_OK;
    ap_status st = setup(m, err);
    if (st != AP_OK) {
        ap_model_destroy(m);
        if (err && err->status == AP_OK)
            ap_error_set(err, st, "the model's memory could not be set up on backend %s", be->vt->name);
        return st;
    }
    *model_p = m;
    return AP_OK;
}

void ap_model_destroy(struct ap_model *m)
{
    if (!m)
        return;
    ap_arena_free(&m->arena);
    ap_late_destroy(m);
    if (m->tables_mem)
        m->be->vt->release(m->be, m->tables_mem);
    ap_params_destroy(m->params);
    ap_exchange_destroy(m->tensor);
    ap_exchange_destroy(m->expert);
    for (int k = 0; m->slots && k < m->opt.slots; k++)
        free(m->slots[k].layers);
    free(m->slots);
    free(m->layers);
    free(m->token_rows);
    free(m->host_counts);
    free(m->host_ids);
    free(m->host_rows);
    free(m->host_load);
    free(m->host_pairs);
    free(m);
}

const struct ap_params *ap_model_params(const struct ap_model *m)
{
    return m->params;
}

size_t ap_model_memory(const struct ap_model *m)
{
    return m->arena.size + ap_late_memory(m);
}

int64_t ap_model_own_tokens(const struct ap_model *m)
{
    return m->own_tokens;
}

static ap_status upload(struct ap_model *m, const struct ap_batch *b)
{
    size_t bytes = (size_t)m->tokens * sizeof(int32_t);
    struct ap_stream *stream = m->be->stream;
    struct slot *s = m->cur;
    const int32_t *tokens = b->tokens;
    if (tensor_size(m) > 1) {
        int32_t *own = m->host_ids, *own_targets = own + m->tokens;
        ap_own_ids(m, b->tokens, own);
        ap_own_ids(m, b->targets, own_targets);
        AP_TRY(m->be->vt->copy(stream, s->own_targets.data, own_targets, bytes));
        tokens = own;
    }
    AP_TRY(m->be->vt->copy(stream, s->tokens.data, tokens, bytes));
    AP_TRY(m->be->vt->copy(stream, s->targets.data, b->targets, bytes));
    AP_TRY(m->be->vt->copy(stream, s->first.data, b->first, bytes));
    AP_TRY(m->be->vt->copy(stream, s->pos.data, b->positions, bytes));
    AP_TRY(ap_model_zero(m, s->sums));
    return ap_model_zero(m, s->counts);
}

static ap_status read_back(struct ap_model *m, struct ap_model_result *r, int64_t *expert_load)
{
    double sums[3];
    struct ap_stream *stream = m->be->stream;
    AP_TRY(m->be->vt->copy(stream, sums, m->cur->sums.data, sizeof sums));
    if (expert_load)
        AP_TRY(
            m->be->vt->copy(stream, m->host_counts, m->cur->counts.data, (size_t)m->params->routers * sizeof(int32_t)));
    AP_TRY(m->be->vt->stream_sync(stream));
    r->ce_sum = sums[0];
    r->mtp_sum = sums[1];
    r->balance = sums[2];
    for (int64_t i = 0; expert_load && i < m->params->routers; i++)
        expert_load[i] += m->host_counts[i];
    return AP_OK;
}

/* Buffers as the part needs them: weights, or gradients. */
static int fit(const struct ap_model *m, const ap_tensor *list, ap_dtype t)
{
    for (int g = 0; g < AP_GROUPS; g++) {
        int64_t n = m->params->region[g].end - m->params->region[g].begin;
        if (n > 0 && (!list[g].data || list[g].dtype != t || ap_tensor_count(&list[g]) != n))
            return 0;
    }
    return 1;
}

/* A call begins: what its layer functions read. */
static ap_status begin(struct ap_model *m, int slot, const struct ap_model_buffers *b, const struct ap_loss_weights *lw,
                       int with_grads)
{
    if (slot < 0 || slot >= m->opt.slots || (with_grads && m->opt.forward_only) || !fit(m, b->weights, m->dt) ||
        (b->router_bias.data && b->router_bias.dtype != m->stat))
        return AP_ERR_BUG;
    m->b = b;
    m->lw = *lw;
    m->cur = &m->slots[slot];
    m->late = m->lates;
    m->with_grads = with_grads;
    ap_work_begin(m->opt.clock);
    return AP_OK;
}

static int is_input(const struct ap_model *m, const ap_tensor *t)
{
    return t->data && t->dtype == m->dt && ap_tensor_count(t) == m->own_tokens * m->cfg.hidden_size;
}

static ap_status forward(struct ap_model *m, ap_tensor in)
{
    ap_tensor x = m->cur->layers[m->part.layer_first].x_in;
    if (m->part.first_stage)
        AP_TRY(ap_embed_forward(m, m->cur->tokens, x));
    else
        AP_TRY(ap_model_copy(m, x, in));
    lap(m, 0, AP_WORK_FRONT);
    return forward_layers(m);
}

ap_status ap_model_forward(struct ap_model *m, int slot, const struct ap_model_buffers *b, const struct ap_batch *batch,
                           const struct ap_loss_weights *lw, ap_tensor in, ap_tensor *out_p)
{
    AP_TRY(begin(m, slot, b, lw, 0));
    if (!m->part.first_stage && !is_input(m, &in))
        return AP_ERR_BUG;
    AP_TRY(upload(m, batch));
    SPAN(m, "forward", NULL, 0, forward(m, in));
    *out_p = m->cur->x_out;
    return AP_OK;
}

/* Losses of the last stage and, with gradients, m->dx. */
static ap_status losses(struct ap_model *m, const struct ap_batch *batch, struct ap_model_result *r)
{
    SPAN(m, "loss", NULL, 0, main_head(m));
    for (int64_t i = 0; i < m->tokens; i++)
        r->ce_tokens += batch->targets[i] >= 0;
    if (m->cfg.mtp_depth && m->lw.mtp != 0.0)
        SPAN(m, "MTP", NULL, 0, ap_mtp_step(m, batch, &r->mtp_tokens, m->dx));
    return AP_OK;
}

static ap_status backward(struct ap_model *m)
{
    AP_TRY(backward_layers(m));
    return m->part.first_stage ? ap_embed_backward(m, m->cur->tokens, m->dx) : AP_OK;
}

/* Backward of the slot that the call began with, without the gradients of weights if it is split. */
static ap_status run_backward(struct ap_model *m, const struct ap_batch *batch, ap_tensor dout, ap_tensor *din_p,
                              struct ap_model_result *result_p, int64_t *expert_load)
{
    struct ap_model_result r = {0};
    if (!m->part.last_stage && !is_input(m, &dout))
        return AP_ERR_BUG;
    if (m->part.last_stage)
        AP_TRY(losses(m, batch, &r));
    else
        AP_TRY(ap_model_copy(m, m->dx, dout));
    lap(m, 1, AP_WORK_BACK);
    SPAN(m, "backward", NULL, 0, backward(m));
    AP_TRY(read_back(m, &r, expert_load));
    lap(m, 1, AP_WORK_FRONT);
    *din_p = m->part.first_stage ? (ap_tensor){0} : m->dx;
    *result_p = r;
    return AP_OK;
}

ap_status ap_model_backward(struct ap_model *m, int slot, const struct ap_model_buffers *b,
                            const struct ap_batch *batch, const struct ap_loss_weights *lw, ap_tensor dout,
                            ap_tensor *din_p, struct ap_model_result *result_p, int64_t *expert_load)
{
    AP_TRY(begin(m, slot, b, lw, 1));
    if (is_split(m) || !fit(m, b->grads, m->stat))
        return AP_ERR_BUG;
    return run_backward(m, batch, dout, din_p, result_p, expert_load);
}

ap_status ap_model_backward_input(struct ap_model *m, const struct ap_model_half *half,
                                  const struct ap_model_buffers *b, const struct ap_batch *batch,
                                  const struct ap_loss_weights *lw, struct ap_model_result *result_p,
                                  int64_t *expert_load)
{
    AP_TRY(begin(m, half->slot, b, lw, 1));
    if (half->late < 0 || half->late >= m->opt.late)
        return AP_ERR_BUG;
    m->late = &m->lates[half->late];
    m->late->slot = m->cur;
    m->late->count = 0; /* of a step that failed */
    ap_arena_reset(&m->late->arena, 0);
    return run_backward(m, batch, half->dout, half->din_p, result_p, expert_load);
}

ap_status ap_model_backward_weight(struct ap_model *m, int late, const struct ap_model_buffers *b,
                                   ap_model_pulse *pulse, void *ctx)
{
    if (late < 0 || late >= m->opt.late || !fit(m, b->grads, m->stat))
        return AP_ERR_BUG;
    m->b = b;
    m->late = &m->lates[late];
    m->cur = m->late->slot;
    SPAN(m, "weight gradients", NULL, 0, ap_late_run(m, pulse, ctx));
    return AP_OK;
}

ap_status ap_model_loss(struct ap_model *m, int slot, const struct ap_model_buffers *b, const struct ap_batch *batch,
                        const struct ap_loss_weights *lw, struct ap_model_result *result_p, int64_t *expert_load)
{
    struct ap_model_result r = {0};
    AP_TRY(begin(m, slot, b, lw, 0));
    if (m->part.last_stage)
        AP_TRY(losses(m, batch, &r));
    AP_TRY(read_back(m, &r, expert_load));
    *result_p = r;
    return AP_OK;
}

ap_status ap_model_step(struct ap_model *m, ap_tensor weights, ap_tensor grads, ap_tensor router_bias,
                        const struct ap_batch *batch, const struct ap_loss_weights *lw,
                        struct ap_model_result *result_p, int64_t *expert_load)
{
    struct ap_model_buffers b = {.router_bias = router_bias};
    ap_tensor none = {0}, out, din;
    b.weights[AP_GROUP_SPLIT] = weights;
    b.grads[AP_GROUP_SPLIT] = grads;
    if (m->params->region[AP_GROUP_SPLIT].end != m->params->flat || !m->part.first_stage || !m->part.last_stage)
        return AP_ERR_BUG;
    AP_TRY(ap_model_forward(m, 0, &b, batch, lw, none, &out));
    return grads.data ? ap_model_backward(m, 0, &b, batch, lw, none, &din, result_p, expert_load)
                      : ap_model_loss(m, 0, &b, batch, lw, result_p, expert_load);
}

ap_tensor ap_model_token_loss(const struct ap_model *m)
{
    return m->token_loss;
}

ap_tensor ap_model_logits(const struct ap_model *m)
{
    return m->lates[0].head.logits;
}

ap_tensor ap_model_routing(const struct ap_model *m, int64_t moe_layer)
{
    for (int64_t i = 0; i < m->cfg.layers + m->cfg.mtp_depth; i++)
        if (m->layers[i].moe && m->layers[i].router_index == moe_layer)
            return m->cur->layers[i].ids;
    return (ap_tensor){0};
}
