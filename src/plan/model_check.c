/* SPDX-License-Identifier: Apache-2.0
 * Constraints on the shapes of a model. Messages use the field names of config.json and name both fields
 * that disagree. The upper bounds keep every product of sizes inside int64. */
#include "config.h"

#include <math.h>
#include <stdio.h>

#include "backend/ops.h"
#include "plan/model_config.h"

#define SIZE_LIMIT (INT64_C(1) << 24)

static ap_status in_range(const char *key, int64_t value, int64_t low, int64_t high, struct ap_error *err)
{
    if (value >= low && value <= high)
        return AP_OK;
    return ap_error_set(err, AP_ERR_INPUT, "%s is %lld, it must be between %lld and %lld", key, (long long)value,
                        (long long)low, (long long)high);
}

static ap_status check_sizes(const struct ap_model_config *c, struct ap_error *err)
{
    AP_TRY(in_range("vocab_size", c->vocab_size, 2, SIZE_LIMIT, err));
    AP_TRY(in_range("hidden_size", c->hidden_size, 1, SIZE_LIMIT, err));
    AP_TRY(in_range("intermediate_size", c->intermediate_size, 1, SIZE_LIMIT, err));
    AP_TRY(in_range("num_hidden_layers", c->layers, 1, 4096, err));
    AP_TRY(in_range("num_attention_heads", c->heads, 1, 4096, err));
    AP_TRY(in_range("q_lora_rank", c->q_lora_rank, 0, SIZE_LIMIT, err));
    AP_TRY(in_range("kv_lora_rank", c->kv_lora_rank, 1, SIZE_LIMIT, err));
    AP_TRY(in_range("qk_nope_head_dim", c->nope_dim, 1, 4096, err));
    AP_TRY(in_range("qk_rope_head_dim", c->rope_dim, 2, 4096, err));
    AP_TRY(in_range("v_head_dim", c->v_dim, 1, 4096, err));
    AP_TRY(in_range("max_position_embeddings", c->max_position, 1, INT64_C(1) << 30, err));
    AP_TRY(in_range("num_nextn_predict_layers", c->mtp_depth, 0, 1, err));
    if (c->rope_dim % 2 != 0)
        return ap_error_set(err, AP_ERR_INPUT, "qk_rope_head_dim is %lld, it must be even: pairs are rotated",
                            (long long)c->rope_dim);
    return AP_OK;
}

static ap_status check_reals(const struct ap_model_config *c, struct ap_error *err)
{
    if (!(c->rms_eps > 0 && c->rms_eps < 1))
        return ap_error_set(err, AP_ERR_INPUT, "rms_norm_eps is %g, it must be above 0 and below 1", c->rms_eps);
    if (!(c->init_std > 0 && c->init_std <= 10))
        return ap_error_set(err, AP_ERR_INPUT, "initializer_range is %g, it must be above 0 and at most 10",
                            c->init_std);
    if (!(c->rope_theta > 1 && isfinite(c->rope_theta)))
        return ap_error_set(err, AP_ERR_INPUT, "rope_theta is %g, it must be above 1", c->rope_theta);
    if (!(c->routed_scaling > 0 && isfinite(c->routed_scaling)))
        return ap_error_set(err, AP_ERR_INPUT, "routed_scaling_factor is %g, it must be above 0", c->routed_scaling);
    if (!(c->aux_loss_alpha >= 0 && isfinite(c->aux_loss_alpha)))
        return ap_error_set(err, AP_ERR_INPUT, "aux_loss_alpha is %g, it must not be negative", c->aux_loss_alpha);
    return AP_OK;
}

static ap_status check_yarn(const struct ap_yarn *y, struct ap_error *err)
{
    if (!y->enabled)
        return AP_OK;
    if (!(y->factor >= 1 && isfinite(y->factor)))
        return ap_error_set(err, AP_ERR_INPUT, "rope_scaling.factor is %g, it must be at least 1", y->factor);
    if (!(y->beta_slow > 0 && y->beta_fast > y->beta_slow && isfinite(y->beta_fast)))
        return ap_error_set(err, AP_ERR_INPUT,
                            "rope_scaling.beta_fast is %g and beta_slow is %g: beta_fast must be the larger, both "
                            "above 0",
                            y->beta_fast, y->beta_slow);
    if (!(y->mscale >= 0 && y->mscale_all_dim >= 0 && isfinite(y->mscale) && isfinite(y->mscale_all_dim)))
        return ap_error_set(err, AP_ERR_INPUT, "rope_scaling.mscale and mscale_all_dim must not be negative");
    return in_range("rope_scaling.original_max_position_embeddings", y->original_max_position, 1, INT64_C(1) << 30,
                    err);
}

/* Two fields of which the second must divide the first. */
static ap_status divides(const char *a_key, int64_t a, const char *b_key, int64_t b, struct ap_error *err)
{
    if (a % b == 0)
        return AP_OK;
    return ap_error_set(err, AP_ERR_INPUT, "%s is %lld, which %s %lld does not divide", a_key, (long long)a, b_key,
                        (long long)b);
}

static ap_status check_groups(const struct ap_model_config *c, struct ap_error *err)
{
    AP_TRY(in_range("n_group", c->groups, 1, c->routed_experts, err));
    if (c->gate_kind == AP_GATE_SOFTMAX_GREEDY)
        return AP_OK; /* this gate looks at no groups */
    AP_TRY(divides("n_routed_experts", c->routed_experts, "n_group", c->groups, err));
    if (c->groups_kept < 1 || c->groups_kept > c->groups)
        return ap_error_set(err, AP_ERR_INPUT, "topk_group is %lld, it must be between 1 and n_group, which is %lld",
                            (long long)c->groups_kept, (long long)c->groups);
    int64_t per_group = c->routed_experts / c->groups;
    if (c->experts_per_token > c->groups_kept * per_group)
        return ap_error_set(err, AP_ERR_INPUT,
                            "num_experts_per_tok is %lld, but topk_group %lld groups of %lld experts hold only %lld",
                            (long long)c->experts_per_token, (long long)c->groups_kept, (long long)per_group,
                            (long long)(c->groups_kept * per_group));
    if (c->gate_kind == AP_GATE_SIGMOID_NOAUX && c->groups > 1 && per_group < 2)
        return ap_error_set(err, AP_ERR_INPUT,
                            "n_routed_experts %lld in n_group %lld leaves one expert a group; topk_method noaux_tc "
                            "adds the two best of each",
                            (long long)c->routed_experts, (long long)c->groups);
    return AP_OK;
}

static ap_status check_moe(const struct ap_model_config *c, struct ap_error *err)
{
    AP_TRY(in_range("n_routed_experts", c->routed_experts, 0, 65536, err));
    AP_TRY(in_range("n_shared_experts", c->shared_experts, 0, 1024, err));
    if (c->routed_experts == 0) {
        if (c->shared_experts > 0)
            return ap_error_set(err, AP_ERR_INPUT, "n_shared_experts is %lld, but n_routed_experts is 0",
                                (long long)c->shared_experts);
        return AP_OK;
    }
    AP_TRY(in_range("moe_intermediate_size", c->moe_intermediate_size, 1, SIZE_LIMIT, err));
    AP_TRY(in_range("first_k_dense_replace", c->first_dense, 0, c->layers, err));
    AP_TRY(in_range("moe_layer_freq", c->moe_layer_freq, 1, 4096, err));
    if (c->experts_per_token < 1 || c->experts_per_token > c->routed_experts)
        return ap_error_set(err, AP_ERR_INPUT,
                            "num_experts_per_tok is %lld, it must be between 1 and n_routed_experts, which is %lld",
                            (long long)c->experts_per_token, (long long)c->routed_experts);
    AP_TRY(check_groups(c, err));
    AP_TRY(in_range("device_groups", c->device_groups, 0, c->routed_experts, err));
    if (c->device_groups > 0) {
        AP_TRY(divides("n_routed_experts", c->routed_experts, "device_groups", c->device_groups, err));
        AP_TRY(in_range("device_groups_kept", c->device_groups_kept, 1, c->device_groups, err));
    }
    return AP_OK;
}

/* The bounds on single sizes still allow products beyond int64; estimate the largest in floating point. */
static ap_status check_total(const struct ap_model_config *c, struct ap_error *err)
{
    double h = (double)c->hidden_size;
    double experts = (double)(c->routed_experts + c->shared_experts) * 3.0 * h * (double)c->moe_intermediate_size;
    double heads = (double)c->heads * (double)(c->nope_dim + c->rope_dim + c->v_dim);
    double attention = heads * (h + (double)c->q_lora_rank + (double)c->kv_lora_rank);
    double dense = 3.0 * h * (double)c->intermediate_size;
    double total = (double)(c->layers + 1) * (experts + attention + dense) + 2.0 * (double)c->vocab_size * h;
    if (total < 0x1p60)
        return AP_OK;
    return ap_error_set(err, AP_ERR_INPUT, "about %.3g parameters are more than this program can count", total);
}

ap_status ap_model_config_check(const struct ap_model_config *c, struct ap_error *err)
{
    AP_TRY(check_sizes(c, err));
    AP_TRY(check_reals(c, err));
    AP_TRY(check_yarn(&c->yarn, err));
    AP_TRY(check_moe(c, err));
    AP_TRY(check_total(c, err));
    if ((c->version == 3) != (c->gate_kind == AP_GATE_SIGMOID_NOAUX) && c->routed_experts > 0)
        return ap_error_set(err, AP_ERR_INPUT,
                            "model_type deepseek_v%d and topk_method disagree: noaux_tc belongs to deepseek_v3, the "
                            "others to deepseek_v2",
                            c->version);
    return AP_OK;
}
