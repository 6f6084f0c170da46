/* SPDX-License-Identifier: Apache-2.0
 * Parts of a model: what can be cut, and which slice of a tensor goes where. */
#include "config.h"

#include "model/part.h"
#include "plan/axes.h"

struct ap_model_part ap_model_whole(const struct ap_model_config *cfg)
{
    return (struct ap_model_part){
        .layer_last = cfg->layers, .first_stage = 1, .last_stage = 1, .tensor_size = 1, .expert_size = 1};
}

ap_status ap_model_part_check(const struct ap_model_config *cfg, const struct ap_model_part *part, struct ap_error *err)
{
    struct ap_axes axes = {.data = 1, .tensor = part->tensor_size, .pipeline = 1, .expert = part->expert_size};
    if (part->layer_first < 0 || part->layer_last > cfg->layers || part->layer_first >= part->layer_last)
        return ap_error_set(err, AP_ERR_INPUT,
                            "a stage of layers %lld to %lld of a model of %lld layers: each needs one",
                            (long long)part->layer_first, (long long)part->layer_last - 1, (long long)cfg->layers);
    if (part->tensor_size < 1 || part->tensor_rank < 0 || part->tensor_rank >= part->tensor_size ||
        part->expert_size < 1 || part->expert_rank < 0 || part->expert_rank >= part->expert_size ||
        (part->layer_first == 0) != (part->first_stage != 0) ||
        (part->layer_last == cfg->layers) != (part->last_stage != 0))
        return ap_error_set(err, AP_ERR_BUG, "impossible part of a model");
    return ap_axes_check(cfg, &axes, part->expert_size, err); /* as many micro-batches as they need */
}

static int held(const struct ap_model_config *cfg, const struct ap_model_part *part, const struct ap_param_info *info)
{
    int64_t E = cfg->routed_experts;
    if (info->role == AP_PARAM_EMBEDDING)
        return part->first_stage || (part->last_stage && cfg->mtp_depth > 0);
    int main_layer = info->layer >= 0 && info->layer < cfg->layers; /* else norm, head, MTP */
    if (main_layer ? info->layer < part->layer_first || info->layer >= part->layer_last : !part->last_stage)
        return 0;
    return info->role != AP_PARAM_EXPERT || (info->expert >= ap_share(E, part->expert_rank, part->expert_size) &&
                                             info->expert < ap_share(E, part->expert_rank + 1, part->expert_size));
}

static int group_of(const struct ap_model_config *cfg, const struct ap_model_part *part,
                    const struct ap_param_info *info)
{
    int whole = part->first_stage && part->last_stage;
    if (info->role == AP_PARAM_EMBEDDING && cfg->mtp_depth > 0 && !whole)
        return AP_GROUP_ENDS;
    if (info->role == AP_PARAM_EXPERT && part->expert_size > 1)
        return AP_GROUP_EXPERT;
    return info->cut == AP_CUT_NONE && part->tensor_size > 1 ? AP_GROUP_SHARED : AP_GROUP_SPLIT;
}

int ap_model_part_slice(const struct ap_model_config *cfg, const struct ap_model_part *part, struct ap_param *e)
{
    const struct ap_param_info *info = &e->info;
    int t = part->tensor_rank, T = part->tensor_size;
    if (!held(cfg, part, info))
        return 0;
    e->group = group_of(cfg, part, info);
    e->rows = info->shape[0];
    e->cols = info->ndim > 1 ? info->shape[1] : 1;
    if (info->cut == AP_CUT_ROWS) {
        e->row = ap_share(info->shape[0], t, T);
        e->rows = ap_share(info->shape[0], t + 1, T) - e->row;
    } else if (info->cut == AP_CUT_COLS) {
        e->col = ap_share(info->shape[1], t, T);
        e->cols = ap_share(info->shape[1], t + 1, T) - e->col;
    }
    e->count = e->rows * e->cols;
    return 1;
}
