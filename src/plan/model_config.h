/* SPDX-License-Identifier: Apache-2.0
 * The model's configuration (field names of the Hugging Face config.json of DeepSeek-V2/V3), its parameter
 * list and count. Pure arithmetic, no MPI, thread-safe. Sources: arXiv 2405.04434 (V2), 2412.19437 (V3). */
#ifndef AP_PLAN_MODEL_CONFIG_H
#define AP_PLAN_MODEL_CONFIG_H

#include <stdint.h>
#include "base/status.h"

struct ap_yarn {
    int enabled;
    double factor, beta_fast, beta_slow, mscale, mscale_all_dim;
    int64_t original_max_position;
};

struct ap_model_config {
    char name[64]; /* preset name or file stem */
    int version;   /* 2 or 3: model_type deepseek_v2 / deepseek_v3 */
    int64_t vocab_size, hidden_size, intermediate_size, moe_intermediate_size;
    int64_t layers, heads, q_lora_rank /* 0: none */, kv_lora_rank, nope_dim, rope_dim, v_dim;
    int64_t shared_experts, routed_experts /* 0: dense model */, experts_per_token;
    int64_t groups, groups_kept, first_dense, moe_layer_freq;
    int gate_kind; /* enum ap_gate_kind of backend/ops.h */
    int norm_topk, seq_aux;
    double routed_scaling, rms_eps, rope_theta, init_std;
    double aux_loss_alpha;      /* config.json's; the job's loss section may override */
    int64_t device_groups;      /* V2 device-level and communication balance: D (0: off) */
    int64_t device_groups_kept; /* V2: M */
    int64_t mtp_depth;          /* num_nextn_predict_layers, 0 or 1 */
    int64_t max_position;
    struct ap_yarn yarn;
};

/* Preset by name ("deepseek-v3", "tiny-v3", ...) from compiled-in defaults or DATADIR/models/NAME.json.
 * AP_ERR_NOTFOUND with a "did you mean" hint. */
ap_status ap_model_config_preset(const char *name, struct ap_model_config *cfg_p, struct ap_error *err);
/* A config.json file. Unknown fields are ignored (hub files carry many); missing or impossible ones are
 * AP_ERR_INPUT. */
ap_status ap_model_config_load(const char *path, struct ap_model_config *cfg_p, struct ap_error *err);
/* Every constraint on the shapes; the message names both fields that disagree. */
ap_status ap_model_config_check(const struct ap_model_config *cfg, struct ap_error *err);
/* config.json text (malloc'ed, owned by the caller), canonical field order; NULL when out of memory. */
char *ap_model_config_json(const struct ap_model_config *cfg);
/* 1 if layer (0-based; layers .. layers+mtp_depth-1 are the MTP blocks) has routed experts. */
int ap_model_layer_is_moe(const struct ap_model_config *cfg, int64_t layer);

struct ap_model_count {
    int64_t total, active, embedding, attention, dense_mlp, moe_routed, moe_shared, router, norm, mtp;
};
/* total excludes MTP (the published numbers), mtp holds it; active counts experts_per_token routed experts. */
void ap_model_count_params(const struct ap_model_config *cfg, struct ap_model_count *count_p);
/* Training FLOPs (6 per active matrix parameter and token, plus causal attention) for one token at
 * sequence length seq_len; the definition behind MFU. */
double ap_model_train_flops_per_token(const struct ap_model_config *cfg, int64_t seq_len);

/* What one layer (0-based; layers: the MTP block with its projection and norms, without the shared head and
 * embedding) is made of. */
struct ap_model_layer {
    int64_t dense, routed; /* parameters that every process of an expert group holds, and those it shares out */
    int64_t shared;        /* of the dense ones, those that every process of a tensor group holds */
    int64_t latent;        /* numbers per token that such a group gathers for attention: latents and the rope key */
    double flops_token;    /* training operations for one token: forward is a third of them */
    double flops_weight;   /* of these, gradients of weights */
    double saved_token;    /* bytes kept for backward per token, the layer's input included */
    double scratch_token;  /* bytes of backward's own results per token, gone after the layer */
    double late_token;     /* bytes of them per token that a split backward keeps for the gradients of the weights */
};
/* element_size: bytes of an activation (4: fp32, 2: bf16). The sums over all layers, the embedding, head and final norm
 * are those of the two functions above; saved_token, scratch_token and late_token are what model/
 * allocates. */
void ap_model_count_layer(const struct ap_model_config *cfg, int64_t layer, int64_t seq_len, int element_size,
                          struct ap_model_layer *layer_p);

enum ap_param_role {
    AP_PARAM_MATRIX,
    AP_PARAM_NORM,
    AP_PARAM_EMBEDDING,
    AP_PARAM_HEAD,
    AP_PARAM_ROUTER,
    AP_PARAM_EXPERT
};
/* How tensor parallelism shares a matrix out: column-parallel maps by rows (outputs), row-parallel ones by columns. */
enum ap_param_cut { AP_CUT_NONE, AP_CUT_ROWS, AP_CUT_COLS };
struct ap_param_info {
    char name[160]; /* hub name */
    int ndim;
    int64_t shape[2];
    int role, layer, expert; /* layer -1, expert -1 where not applicable */
    int cut;                 /* enum ap_param_cut */
    int decay;               /* weight decay applies (2-D tensors) */
};
/* Calls visit for every trained parameter in the canonical order (embedding, layers, norm, head, MTP); the
 * per-layer routed experts come as all gate_proj/up_proj pairs, then all down_proj: see model/params.h for
 * the memory layout. Stops and returns when visit does not return AP_OK. */
ap_status ap_model_visit_params(const struct ap_model_config *cfg,
                                ap_status (*visit)(void *ctx, const struct ap_param_info *p), void *ctx);

#endif
