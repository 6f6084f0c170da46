/* SPDX-License-Identifier: Apache-2.0
 * A DeepSeek-V2/V3 transformer on one backend: forward and backward of one micro-batch. Knows no MPI, no
 * files, no optimizer. All memory is planned at creation. One thread at a time per model.
 *
 * Parameters live in one flat buffer (params.h says where each stands); gradients have the same layout.
 * The caller owns both and passes them per call, so that shadow buffers can flip under it. */
#ifndef AP_MODEL_MODEL_H
#define AP_MODEL_MODEL_H

#include "backend/backend.h"
#include "model/params.h"
#include "plan/model_config.h"

struct ap_model;

struct ap_model_options {
    int64_t micro_sequences, seq_len; /* B, T of every micro-batch */
    ap_dtype dtype;                   /* of weights and activations: AP_F32, AP_BF16, AP_F64 (reference backend) */
    int forward_only;                 /* evaluation: no gradients, less memory */
    int recompute;                    /* keep only the inputs of layers and run each forward again in
                                       * backward: the same bits, less memory, about a third more work */
};

/* One micro-batch in host memory: i32 [B*T] each, borrowed for the call. */
struct ap_batch {
    const int32_t *tokens, *targets, *first, *positions;
};

/* What multiplies each loss term in the gradient of this micro-batch. */
struct ap_loss_weights {
    double ce;          /* per token with a target: 1 / tokens of the global batch */
    double mtp;         /* per MTP token: lambda / (D * MTP tokens of the global batch) */
    double seq_balance; /* per sequence: alpha / sequences of the global batch */
    double device_balance, comm_balance;
};

/* Sums over the micro-batch, in f64, of unweighted terms; balance: weighted sum of all balance losses. */
struct ap_model_result {
    double ce_sum, mtp_sum, balance;
    int64_t ce_tokens, mtp_tokens;
};

/* cfg is copied. be is borrowed and must outlive the model. */
ap_status ap_model_create(struct ap_backend *be, const struct ap_model_config *cfg, const struct ap_model_options *opt,
                          struct ap_model **model_p, struct ap_error *err);
void ap_model_destroy(struct ap_model *m);
const struct ap_params *ap_model_params(const struct ap_model *m);
/* Bytes of device memory planned (activations and scratch). */
size_t ap_model_memory(const struct ap_model *m);

/* Forward, and backward if grads.data is set: grads += d(weighted loss)/d(weights).
 * weights, grads: [params->flat] in backend memory; weights of the model's dtype, grads of Stat (f32 for a bf16
 * model). router_bias: Stat
 * [moe_layers * routed_experts] (all layers with a router in order, MTP block last) or absent.
 * expert_load: host i64, same shape, += tokens routed; NULL: not wanted. Blocking.
 * The MTP module runs only when lw->mtp is not 0. */
ap_status ap_model_step(struct ap_model *m, ap_tensor weights, ap_tensor grads, ap_tensor router_bias,
                        const struct ap_batch *batch, const struct ap_loss_weights *lw,
                        struct ap_model_result *result_p, int64_t *expert_load);

/* What a model reads from what the optimizer keeps: host [n] of Stat type becomes weights [n] of the model's dtype, a
 * copy or, in bf16, rounded to nearest even. Blocking. */
ap_status ap_model_load_weights(struct ap_backend *be, const void *host, ap_tensor weights);

/* Of the last call, valid until the next one, in backend memory: token-wise losses Stat [B*T]; logits
 * [B*T, V] (dtype of the model) of the main head, meaningful only after a call without gradients and with lw->mtp == 0
 * (the gradient and the MTP head reuse their memory). */
ap_tensor ap_model_token_loss(const struct ap_model *m);
ap_tensor ap_model_logits(const struct ap_model *m);
/* Chosen experts of moe layer i in the last forward: i32 [N, K], backend memory. */
ap_tensor ap_model_routing(const struct ap_model *m, int64_t moe_layer);

#endif
