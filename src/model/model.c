/* SPDX-License-Identifier: Apache-2.0
 * The model object: parameter look-up, memory plan, and one micro-batch forward and backward.
 *
 * Memory is planned by running the layer code once with an arena that only counts (planning()); the same
 * code then runs for real in the memory so sized. Saved activations stand below all scratch; scratch is
 * stacked and released by marks. A forward-only model lets all layers share one set of activations; so does
 * one that recomputes them layer by layer in backward. */
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

static void find_experts(const struct ap_model *m, struct layer *L, int64_t i)
{
    const struct ap_params *p = m->params;
    L->par.router = offset_of(p, "model.layers.%lld.mlp.gate.weight", i);
    L->par.e_gate_up = offset_of(p, "model.layers.%lld.mlp.experts.0.gate_proj.weight", i);
    L->par.e_down = offset_of(p, "model.layers.%lld.mlp.experts.0.down_proj.weight", i);
    if (m->cfg.routed_experts > 1) {
        L->par.e_gate_up_stride =
            offset_of(p, "model.layers.%lld.mlp.experts.1.gate_proj.weight", i) - L->par.e_gate_up;
        L->par.e_down_stride = offset_of(p, "model.layers.%lld.mlp.experts.1.down_proj.weight", i) - L->par.e_down;
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

/* The fixed tensors, in an order that planning and use share. */
static void plan_fixed(struct ap_model *m)
{
    int64_t N = m->tokens, h = m->cfg.hidden_size, total = m->cfg.layers + m->cfg.mtp_depth;
    m->tokens_d = new1(m, AP_I32, N);
    m->targets_d = new1(m, AP_I32, N);
    m->first_d = new1(m, AP_I32, N);
    m->pos_d = new1(m, AP_I32, N);
    m->sums = new1(m, AP_F64, 4);
    m->counts = new1(m, AP_I32, m->params->routers);
    m->x_out = new2(m, m->dt, N, h);
    m->logits = new2(m, m->dt, N, m->cfg.vocab_size);
    m->token_loss = new1(m, m->stat, N);
    m->head.xf = new2(m, m->dt, N, h);
    m->head.rstd = new1(m, m->stat, N);
    if (!m->opt.forward_only)
        m->dx = new2(m, m->dt, N, h);
    for (int64_t i = 0; i < total; i++) {
        struct layer_saved *s = &m->layers[i].s;
        if (m->layers[i].moe)
            s->ids = new2(m, AP_I32, N, m->cfg.experts_per_token);
        if (i < 2 || !m->opt.forward_only || i == m->cfg.layers) /* backward starts from every layer's input */
            s->x_in = new2(m, m->dt, N, h);
        else
            s->x_in = m->layers[i % 2].s.x_in;
    }
    size_t mark = ap_arena_mark(&m->arena), high = mark;
    for (int64_t i = 0; i < total; i++) {
        if (m->opt.forward_only || (m->opt.recompute && i < m->cfg.layers))
            ap_arena_reset(&m->arena, mark);
        else if (m->opt.recompute)
            ap_arena_reset(&m->arena, high); /* the MTP block keeps its own activations */
        ap_block_plan(m, &m->layers[i]);
        if (ap_arena_mark(&m->arena) > high)
            high = ap_arena_mark(&m->arena);
    }
    ap_arena_reset(&m->arena, high);
    if (m->cfg.mtp_depth) {
        ap_mtp_plan(m);
        if (!m->opt.forward_only)
            m->dx_mtp = new2(m, m->dt, N, h);
    }
}

static ap_tensor layer_output(const struct ap_model *m, int64_t i)
{
    return i + 1 < m->cfg.layers ? m->layers[i + 1].s.x_in : m->x_out;
}

static ap_status forward_layers(struct ap_model *m)
{
    for (int64_t i = 0; i < m->cfg.layers; i++)
        AP_TRY(ap_block_forward(m, &m->layers[i], layer_output(m, i)));
    return AP_OK;
}

/* The layers share one set of activations: fill it again from the layer's input. Same code, same bits. */
static ap_status recompute_layer(struct ap_model *m, int64_t i)
{
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor out = new2(m, m->dt, m->tokens, m->cfg.hidden_size);
    m->recomputing = 1;
    ap_status st = ap_block_forward(m, &m->layers[i], out);
    m->recomputing = 0;
    ap_arena_reset(&m->arena, mark);
    return st;
}

static ap_status backward_layers(struct ap_model *m)
{
    for (int64_t i = m->cfg.layers - 1; i >= 0; i--) {
        if (m->opt.recompute && i < m->cfg.layers - 1) /* the last layer's are still there */
            AP_TRY(recompute_layer(m, i));
        AP_TRY(ap_block_backward(m, &m->layers[i], m->dx));
    }
    return AP_OK;
}

/* Every layer function once, counting only. */
static ap_status plan_scratch(struct ap_model *m)
{
    AP_TRY(forward_layers(m));
    AP_TRY(ap_head_step(m, &m->head, m->x_out, 0, m->targets_d, m->token_loss, 0, 0, m->dx));
    int64_t unused;
    if (m->cfg.mtp_depth)
        AP_TRY(ap_mtp_step(m, NULL, &unused, m->dx));
    return m->opt.forward_only ? AP_OK : backward_layers(m);
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

static ap_status setup(struct ap_model *m, struct ap_error *err)
{
    AP_TRY(ap_params_create(&m->cfg, &m->params));
    m->layers = calloc((size_t)(m->cfg.layers + m->cfg.mtp_depth), sizeof *m->layers);
    m->host_counts = calloc((size_t)m->params->routers + 1, sizeof *m->host_counts);
    m->host_mtp = calloc((size_t)(2 * m->tokens), sizeof *m->host_mtp);
    if (!m->layers || !m->host_counts || !m->host_mtp)
        return AP_ERR_NOMEM;
    find_params(m);
    AP_TRY(make_tables(m));
    ap_arena_init(&m->arena, m->be, "model");
    plan_fixed(m);
    AP_TRY(plan_scratch(m));
    AP_TRY(ap_arena_fix(&m->arena, err));
    plan_fixed(m);
    return AP_OK;
}

ap_status ap_model_create(struct ap_backend *be, const struct ap_model_config *cfg, const struct ap_model_options *opt,
                          struct ap_model **model_p, struct ap_error *err)
{
    AP_TRY(ap_model_config_check(cfg, err));
    if (opt->dtype != AP_F32 && opt->dtype != AP_F64 && opt->dtype != AP_BF16)
        return ap_error_set(err, AP_ERR_UNSUPPORTED, "dtype %s is not supported by the model on backend %s",
                            ap_dtype_name(opt->dtype), be->vt->name);
    if (opt->micro_sequences < 1 || opt->seq_len < 1 || opt->micro_sequences > INT32_MAX / opt->seq_len)
        return ap_error_set(err, AP_ERR_INPUT, "a micro-batch of %lld sequences of %lld tokens is impossible",
                            (long long)opt->micro_sequences, (long long)opt->seq_len);
    struct ap_model *m = calloc(1, sizeof *m);
    if (!m)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the model");
    m->be = be;
    m->cfg = *cfg;
    m->opt = *opt;
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
    if (m->tables_mem)
        m->be->vt->release(m->be, m->tables_mem);
    ap_params_destroy(m->params);
    free(m->layers);
    free(m->host_counts);
    free(m->host_mtp);
    free(m);
}

const struct ap_params *ap_model_params(const struct ap_model *m)
{
    return m->params;
}

size_t ap_model_memory(const struct ap_model *m)
{
    return m->arena.size;
}

static ap_status upload(struct ap_model *m, const struct ap_batch *b)
{
    size_t bytes = (size_t)m->tokens * sizeof(int32_t);
    struct ap_stream *s = m->be->stream;
    AP_TRY(m->be->vt->copy(s, m->tokens_d.data, b->tokens, bytes));
    AP_TRY(m->be->vt->copy(s, m->targets_d.data, b->targets, bytes));
    AP_TRY(m->be->vt->copy(s, m->first_d.data, b->first, bytes));
    AP_TRY(m->be->vt->copy(s, m->pos_d.data, b->positions, bytes));
    AP_TRY(ap_model_zero(m, m->sums));
    return ap_model_zero(m, m->counts);
}

static ap_status read_back(struct ap_model *m, struct ap_model_result *r, int64_t *expert_load)
{
    double sums[3];
    struct ap_stream *s = m->be->stream;
    AP_TRY(m->be->vt->copy(s, sums, m->sums.data, sizeof sums));
    if (expert_load)
        AP_TRY(m->be->vt->copy(s, m->host_counts, m->counts.data, (size_t)m->params->routers * sizeof(int32_t)));
    AP_TRY(m->be->vt->stream_sync(s));
    r->ce_sum = sums[0];
    r->mtp_sum = sums[1];
    r->balance = sums[2];
    for (int64_t i = 0; expert_load && i < m->params->routers; i++)
        expert_load[i] += m->host_counts[i];
    return AP_OK;
}

static ap_status forward(struct ap_model *m)
{
    OP(m, embed_fwd, .table = w2(m, m->off_embed, m->cfg.vocab_size, m->cfg.hidden_size), .ids = m->tokens_d,
       .out = m->layers[0].s.x_in);
    return forward_layers(m);
}

static ap_status backward(struct ap_model *m)
{
    AP_TRY(backward_layers(m));
    OP(m, embed_bwd, .dout = m->dx, .ids = m->tokens_d,
       .dtable = g2(m, m->off_embed, m->cfg.vocab_size, m->cfg.hidden_size));
    return AP_OK;
}

static ap_status run(struct ap_model *m, const struct ap_batch *batch, struct ap_model_result *r)
{
    SPAN(m, "forward", NULL, 0, forward(m));
    SPAN(m, "loss", NULL, 0,
         ap_head_step(m, &m->head, m->x_out, m->off_norm, m->targets_d, m->token_loss, m->lw.ce, 0, m->dx));
    for (int64_t i = 0; i < m->tokens; i++)
        r->ce_tokens += batch->targets[i] >= 0;
    if (m->cfg.mtp_depth && m->lw.mtp != 0.0)
        SPAN(m, "MTP", NULL, 0, ap_mtp_step(m, batch, &r->mtp_tokens, m->dx));
    if (with_grads(m))
        SPAN(m, "backward", NULL, 0, backward(m));
    return AP_OK;
}

ap_status ap_model_step(struct ap_model *m, ap_tensor weights, ap_tensor grads, ap_tensor router_bias,
                        const struct ap_batch *batch, const struct ap_loss_weights *lw,
                        struct ap_model_result *result_p, int64_t *expert_load)
{
    if (weights.dtype != m->dt || ap_tensor_count(&weights) != m->params->flat ||
        (grads.data && (m->opt.forward_only || grads.dtype != m->stat || ap_tensor_count(&grads) != m->params->flat)) ||
        (router_bias.data && router_bias.dtype != m->stat))
        return AP_ERR_BUG;
    m->weights = weights;
    m->grads = grads;
    m->router_bias = router_bias;
    m->lw = *lw;
    struct ap_model_result r = {0};
    AP_TRY(upload(m, batch));
    AP_TRY(run(m, batch, &r));
    AP_TRY(read_back(m, &r, expert_load));
    *result_p = r;
    return AP_OK;
}

ap_tensor ap_model_token_loss(const struct ap_model *m)
{
    return m->token_loss;
}

ap_tensor ap_model_logits(const struct ap_model *m)
{
    return m->logits;
}

ap_tensor ap_model_routing(const struct ap_model *m, int64_t moe_layer)
{
    for (int64_t i = 0; i < m->cfg.layers + m->cfg.mtp_depth; i++)
        if (m->layers[i].moe && m->layers[i].router_index == moe_layer)
            return m->layers[i].s.ids;
    return (ap_tensor){0};
}
