/* SPDX-License-Identifier: Apache-2.0
 * The list of trained parameters in canonical order, their counts, and the training FLOPs.
 *
 * e_score_correction_bias (one per routed expert and MoE layer of V3) is no trained parameter: it gets no
 * gradient, the balance update moves it. It is left out of the list and the counts. With it V3 would have
 * 671,026,419,200 parameters; without it the count is 671,026,404,352, as published (671.026B). */
#include "config.h"

#include <stdio.h>

#include "plan/model_config.h"

int ap_model_layer_is_moe(const struct ap_model_config *cfg, int64_t layer)
{
    if (cfg->routed_experts == 0)
        return 0;
    if (layer >= cfg->layers) /* the MTP block */
        return 1;
    return layer >= cfg->first_dense && layer % cfg->moe_layer_freq == 0;
}

/* Matrix elements of one layer's attention: norms apart. */
static int64_t attention_matrices(const struct ap_model_config *c)
{
    int64_t qd = c->heads * (c->nope_dim + c->rope_dim);
    int64_t q = c->q_lora_rank > 0 ? c->q_lora_rank * c->hidden_size + qd * c->q_lora_rank : qd * c->hidden_size;
    int64_t kv =
        (c->kv_lora_rank + c->rope_dim) * c->hidden_size + c->heads * (c->nope_dim + c->v_dim) * c->kv_lora_rank;
    return q + kv + c->hidden_size * c->heads * c->v_dim;
}

static int64_t expert_size(const struct ap_model_config *c)
{
    return 3 * c->hidden_size * c->moe_intermediate_size;
}

static int64_t layer_norms(const struct ap_model_config *c)
{
    return 2 * c->hidden_size + c->q_lora_rank + c->kv_lora_rank;
}

/* Elements of one MoE feed-forward; active: only the experts a token uses. */
static int64_t moe_size(const struct ap_model_config *c, int active)
{
    int64_t routed = active ? c->experts_per_token : c->routed_experts;
    return (routed + c->shared_experts) * expert_size(c) + c->routed_experts * c->hidden_size;
}

void ap_model_count_params(const struct ap_model_config *c, struct ap_model_count *count_p)
{
    struct ap_model_count n = {0};
    int64_t h = c->hidden_size, inactive = 0;
    n.embedding = 2 * c->vocab_size * h; /* embedding and head */
    n.norm = h;
    for (int64_t l = 0; l < c->layers; l++) {
        n.attention += attention_matrices(c);
        n.norm += layer_norms(c);
        if (ap_model_layer_is_moe(c, l)) {
            n.moe_routed += c->routed_experts * expert_size(c);
            n.moe_shared += c->shared_experts * expert_size(c);
            n.router += c->routed_experts * h;
            inactive += (c->routed_experts - c->experts_per_token) * expert_size(c);
        } else {
            n.dense_mlp += 3 * h * c->intermediate_size;
        }
    }
    n.total = n.embedding + n.attention + n.dense_mlp + n.moe_routed + n.moe_shared + n.router + n.norm;
    n.active = n.total - inactive;
    for (int64_t l = c->layers; l < c->layers + c->mtp_depth; l++) {
        int64_t ffn = ap_model_layer_is_moe(c, l) ? moe_size(c, 0) : 3 * h * c->intermediate_size;
        /* enorm, hnorm, shared_head.norm; eh_proj [h, 2h] */
        n.mtp += attention_matrices(c) + layer_norms(c) + ffn + 3 * h + 2 * h * h;
    }
    *count_p = n;
}

double ap_model_train_flops_per_token(const struct ap_model_config *c, int64_t seq_len)
{
    double matrices = 0;
    int64_t h = c->hidden_size, blocks = c->layers + c->mtp_depth;
    for (int64_t l = 0; l < blocks; l++) {
        matrices += (double)attention_matrices(c);
        matrices += (double)(ap_model_layer_is_moe(c, l) ? moe_size(c, 1) : 3 * h * c->intermediate_size);
    }
    /* The head once for the model and once per MTP block, which also has eh_proj. The embedding is a copy. */
    matrices += (double)(c->vocab_size * h * (1 + c->mtp_depth) + 2 * h * h * c->mtp_depth);
    /* A token sees (T + 1) / 2 tokens on average; scores cost n + r, values v multiply-adds per head, two
     * operations each, once forward and twice backward. */
    double width = (double)(c->heads * (c->nope_dim + c->rope_dim + c->v_dim));
    double attention = 3.0 * (double)(seq_len + 1) * width * (double)blocks;
    return 6.0 * matrices + attention;
}

/* Bytes that attention and norms of a layer keep per token (model/block.c, model/mla.c). */
static double attention_saved(const struct ap_model_config *c, double e)
{
    int64_t heads = c->heads;
    double n = (double)(4 * c->hidden_size + heads * (c->nope_dim + c->rope_dim) + 2 * c->kv_lora_rank + c->rope_dim +
                        heads * (c->nope_dim + 2 * c->v_dim) + 2 * c->q_lora_rank);
    return n * e + 4.0 * (double)(heads + 3 + (c->q_lora_rank > 0));
}

/* The same of the feed-forward part (model/ffn.c, model/moe.c). */
static double ffn_saved(const struct ap_model_config *c, int moe, double e)
{
    if (!moe)
        return 3.0 * (double)c->intermediate_size * e;
    double k = (double)c->experts_per_token, width = (double)c->moe_intermediate_size;
    double rows = 2 * k * (double)c->hidden_size + 3 * (k + (double)c->shared_experts) * width;
    return rows * e + 4.0 * (2 * (double)c->routed_experts + 4 * k);
}

/* Gradients inside a layer: those of attention or of the feed-forward part, whichever need more. */
static double layer_scratch(const struct ap_model_config *c, int moe, double e)
{
    double k = (double)c->experts_per_token, routed = (double)c->routed_experts;
    double attention = (double)(c->heads * (2 * c->v_dim + 2 * c->nope_dim + c->rope_dim) + 2 * c->kv_lora_rank +
                                c->rope_dim + 2 * c->q_lora_rank);
    double ffn = 3.0 * (double)c->intermediate_size;
    if (moe)
        ffn = k * (double)(c->hidden_size + 3 * c->moe_intermediate_size) +
              (4 * (k + routed) + (e < 4 ? e * routed : 0)) / e;
    return e * ((double)c->hidden_size + (ffn > attention ? ffn : attention));
}

/* Gradients of the outputs of all matrices in a layer (model/late.c). */
static double layer_late(const struct ap_model_config *c, int moe, double e)
{
    int64_t k = c->experts_per_token, I = c->moe_intermediate_size;
    int64_t attention = c->hidden_size + c->heads * (2 * c->nope_dim + c->rope_dim + c->v_dim) + c->kv_lora_rank +
                        c->rope_dim + c->q_lora_rank;
    int64_t ffn = c->hidden_size + 2 * c->intermediate_size;
    if (moe)
        ffn = c->hidden_size * (1 + k) + 2 * I * (k + c->shared_experts) + c->routed_experts;
    return e * (double)(attention + ffn);
}

void ap_model_count_layer(const struct ap_model_config *c, int64_t layer, int64_t seq_len, int element_size,
                          struct ap_model_layer *layer_p)
{
    struct ap_model_layer n = {0};
    int moe = ap_model_layer_is_moe(c, layer), mtp = layer >= c->layers;
    int64_t h = c->hidden_size, dense_mlp = 3 * h * c->intermediate_size;
    int64_t matrices = attention_matrices(c) + (moe ? moe_size(c, 1) : dense_mlp) + (mtp ? 2 * h * h : 0);
    double width = (double)(c->heads * (c->nope_dim + c->rope_dim + c->v_dim));
    n.routed = moe ? c->routed_experts * expert_size(c) : 0;
    n.dense = attention_matrices(c) + layer_norms(c) + (moe ? moe_size(c, 0) - n.routed : dense_mlp);
    n.dense += mtp ? 3 * h + 2 * h * h : 0;
    n.shared =
        layer_norms(c) + (c->kv_lora_rank + c->rope_dim + c->q_lora_rank) * h + (moe ? c->routed_experts * h : 0);
    n.shared += mtp ? 3 * h + 2 * h * h : 0;
    n.latent = c->kv_lora_rank + c->rope_dim + (c->q_lora_rank > 0 ? c->q_lora_rank : h);
    n.flops_token = 6.0 * (double)matrices + 3.0 * (double)(seq_len + 1) * width;
    n.saved_token = attention_saved(c, element_size) + ffn_saved(c, moe, element_size);
    n.flops_weight = 2.0 * (double)matrices;
    n.scratch_token = layer_scratch(c, moe, element_size);
    n.late_token = layer_late(c, moe, element_size) + (mtp ? 2.0 * (double)h * element_size : 0);
    n.saved_token += mtp ? 4.0 * (double)h * element_size + 20 : 0;
    *layer_p = n;
}

/* The visitor in flight: what every call of it shares. */
struct walk {
    const struct ap_model_config *cfg;
    ap_status (*visit)(void *ctx, const struct ap_param_info *p);
    void *ctx;
    int layer; /* -1 outside layers */
};

/* expert: -1 outside routed experts; cols 0: a vector */
static ap_status emit(const struct walk *w, const char *name, enum ap_param_role role, enum ap_param_cut cut,
                      int expert, int64_t rows, int64_t cols)
{
    struct ap_param_info p = {.role = (int)role, .layer = w->layer, .expert = expert, .cut = (int)cut};
    if (w->layer >= 0)
        snprintf(p.name, sizeof p.name, "model.layers.%d.%s.weight", w->layer, name);
    else
        snprintf(p.name, sizeof p.name, "%s.weight", name);
    p.ndim = cols > 0 ? 2 : 1;
    p.shape[0] = rows;
    p.shape[1] = cols > 0 ? cols : 1;
    p.decay = cols > 0;
    return w->visit(w->ctx, &p);
}

static ap_status matrix(const struct walk *w, const char *name, enum ap_param_cut cut, int64_t rows, int64_t cols)
{
    return emit(w, name, AP_PARAM_MATRIX, cut, -1, rows, cols);
}

static ap_status norm(const struct walk *w, const char *name, int64_t n)
{
    return emit(w, name, AP_PARAM_NORM, AP_CUT_NONE, -1, n, 0);
}

static ap_status walk_attention(const struct walk *w)
{
    const struct ap_model_config *c = w->cfg;
    int64_t qd = c->heads * (c->nope_dim + c->rope_dim);
    if (c->q_lora_rank > 0) {
        AP_TRY(matrix(w, "self_attn.q_a_proj", AP_CUT_NONE, c->q_lora_rank, c->hidden_size));
        AP_TRY(norm(w, "self_attn.q_a_layernorm", c->q_lora_rank));
        AP_TRY(matrix(w, "self_attn.q_b_proj", AP_CUT_ROWS, qd, c->q_lora_rank));
    } else {
        AP_TRY(matrix(w, "self_attn.q_proj", AP_CUT_ROWS, qd, c->hidden_size));
    }
    AP_TRY(matrix(w, "self_attn.kv_a_proj_with_mqa", AP_CUT_NONE, c->kv_lora_rank + c->rope_dim, c->hidden_size));
    AP_TRY(norm(w, "self_attn.kv_a_layernorm", c->kv_lora_rank));
    AP_TRY(matrix(w, "self_attn.kv_b_proj", AP_CUT_ROWS, c->heads * (c->nope_dim + c->v_dim), c->kv_lora_rank));
    return matrix(w, "self_attn.o_proj", AP_CUT_COLS, c->hidden_size, c->heads * c->v_dim);
}

static ap_status walk_mlp(const struct walk *w, const char *prefix, int64_t width)
{
    char name[64];
    int64_t h = w->cfg->hidden_size;
    snprintf(name, sizeof name, "%s.gate_proj", prefix);
    AP_TRY(matrix(w, name, AP_CUT_ROWS, width, h));
    snprintf(name, sizeof name, "%s.up_proj", prefix);
    AP_TRY(matrix(w, name, AP_CUT_ROWS, width, h));
    snprintf(name, sizeof name, "%s.down_proj", prefix);
    return matrix(w, name, AP_CUT_COLS, h, width);
}

static ap_status walk_moe(const struct walk *w)
{
    const struct ap_model_config *c = w->cfg;
    int64_t h = c->hidden_size, width = c->moe_intermediate_size;
    char name[64];
    AP_TRY(emit(w, "mlp.gate", AP_PARAM_ROUTER, AP_CUT_NONE, -1, c->routed_experts, h));
    for (int e = 0; e < (int)c->routed_experts; e++) {
        snprintf(name, sizeof name, "mlp.experts.%d.gate_proj", e);
        AP_TRY(emit(w, name, AP_PARAM_EXPERT, AP_CUT_ROWS, e, width, h));
        snprintf(name, sizeof name, "mlp.experts.%d.up_proj", e);
        AP_TRY(emit(w, name, AP_PARAM_EXPERT, AP_CUT_ROWS, e, width, h));
    }
    for (int e = 0; e < (int)c->routed_experts; e++) {
        snprintf(name, sizeof name, "mlp.experts.%d.down_proj", e);
        AP_TRY(emit(w, name, AP_PARAM_EXPERT, AP_CUT_COLS, e, h, width));
    }
    if (c->shared_experts == 0)
        return AP_OK;
    return walk_mlp(w, "mlp.shared_experts", width * c->shared_experts);
}

static ap_status walk_block(const struct walk *w)
{
    const struct ap_model_config *c = w->cfg;
    AP_TRY(norm(w, "input_layernorm", c->hidden_size));
    AP_TRY(walk_attention(w));
    AP_TRY(norm(w, "post_attention_layernorm", c->hidden_size));
    if (ap_model_layer_is_moe(c, w->layer))
        return walk_moe(w);
    return walk_mlp(w, "mlp", c->intermediate_size);
}

ap_status ap_model_visit_params(const struct ap_model_config *cfg,
                                ap_status (*visit)(void *ctx, const struct ap_param_info *p), void *ctx)
{
    struct walk w = {cfg, visit, ctx, -1};
    int64_t h = cfg->hidden_size;
    AP_TRY(emit(&w, "model.embed_tokens", AP_PARAM_EMBEDDING, AP_CUT_ROWS, -1, cfg->vocab_size, h));
    for (w.layer = 0; w.layer < cfg->layers; w.layer++)
        AP_TRY(walk_block(&w));
    w.layer = -1;
    AP_TRY(norm(&w, "model.norm", h));
    AP_TRY(emit(&w, "lm_head", AP_PARAM_HEAD, AP_CUT_ROWS, -1, cfg->vocab_size, h));
    for (int64_t l = cfg->layers; l < cfg->layers + cfg->mtp_depth; l++) {
        w.layer = (int)l;
        AP_TRY(norm(&w, "enorm", h));
        AP_TRY(norm(&w, "hnorm", h));
        AP_TRY(matrix(&w, "eh_proj", AP_CUT_NONE, h, 2 * h));
        AP_TRY(walk_block(&w));
        AP_TRY(norm(&w, "shared_head.norm", h));
    }
    return AP_OK;
}
