/* SPDX-License-Identifier: Apache-2.0
 * A DeepSeek-V2/V3 transformer on one backend: forward and backward of one micro-batch. Knows no MPI, no
 * files, no optimizer. All memory is planned at creation. One thread at a time per model.
 *
 * Parameters live in one flat buffer for each group (params.h says where each stands); gradients have the same layout.
 * The caller owns both and passes them per call, so that shadow buffers can flip under it.
 *
 * A process may hold a part of the model. Then every process of the tensor group is given the same micro-batch and has
 * the same results; the residual stream is cut along its tokens: process t of T holds rows [N t / T, N (t+1) / T), in
 * norms, latent projections and at the borders of stages, while attention, MLPs, embedding and head work on all tokens
 * with the process's own heads, columns and part of the vocabulary (Megatron's tensor and sequence parallelism,
 * arXiv 2205.05198, but latents are gathered instead of the hidden state). Processes of the expert group work on
 * micro-batches of their own in step with each other. Gradients of AP_GROUP_SHARED are parts: their sum over the tensor
 * group is the gradient. */
#ifndef AP_MODEL_MODEL_H
#define AP_MODEL_MODEL_H

#include "backend/backend.h"
#include "model/params.h"
#include "parallel/comm.h"
#include "plan/work.h"

struct ap_model;

struct ap_model_options {
    int64_t micro_sequences, seq_len; /* B, T of every micro-batch */
    ap_dtype dtype;                   /* of weights and activations: AP_F32, AP_BF16, AP_F64 (reference backend) */
    int forward_only;                 /* evaluation: no gradients, less memory */
    int recompute;                    /* keep only the inputs of layers and run each forward again in
                                       * backward: the same bits, less memory, about a third more work */
    int write_grads; /* gradients of `written` parameters (params.h) are written, whatever stood there: for
                      * micro-batches with a buffer of their own. 0: they are added to */
    const struct ap_model_part *part; /* copied; NULL: all of it */
    struct ap_comm *tensor, *expert;  /* borrowed; of part->tensor_size, expert_size ranks; NULL where that is 1 */
    int slots;                        /* micro-batches between forward and backward at a time; 0: one */
    int late;                         /* 0: backward is whole. Else it is in two halves, with so many micro-batches
                                       * between them at a time, which stay in their slots; not with recompute */
    struct ap_work_clock *clock;      /* borrowed; NULL: nobody asks which layers take how long. Host backends */
};

/* Backend memory of the parameters' groups that the part has, each [region's elements]: weights of the model's dtype,
 * grads of Stat (f32 for a bf16 model). router_bias: Stat [moe_layers * routed_experts] (all layers with a router of
 * the whole model in order, MTP block last) or absent. */
struct ap_model_buffers {
    ap_tensor weights[AP_GROUPS], grads[AP_GROUPS], router_bias;
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

/* Sums over the micro-batch, in f64, of unweighted terms; balance: weighted sum of all balance losses of the part's
 * layers. Losses and tokens are 0 before the last stage. */
struct ap_model_result {
    double ce_sum, mtp_sum, balance;
    int64_t ce_tokens, mtp_tokens;
};

/* cfg is copied. be is borrowed and must outlive the model. Not collective. */
ap_status ap_model_create(struct ap_backend *be, const struct ap_model_config *cfg, const struct ap_model_options *opt,
                          struct ap_model **model_p, struct ap_error *err);
void ap_model_destroy(struct ap_model *m);
const struct ap_params *ap_model_params(const struct ap_model *m);
/* Bytes of device memory planned (activations and scratch). */
size_t ap_model_memory(const struct ap_model *m);

/* A model with one group of parameters (a whole one): forward, and backward if grads.data is set: grads += d(weighted
 * loss)/d(weights). weights, grads: [params->flat]. expert_load: host i64 [moe_layers * routed_experts], += tokens
 * routed; NULL: not wanted. Blocking. The MTP module runs only when lw->mtp is not 0. */
ap_status ap_model_step(struct ap_model *m, ap_tensor weights, ap_tensor grads, ap_tensor router_bias,
                        const struct ap_batch *batch, const struct ap_loss_weights *lw,
                        struct ap_model_result *result_p, int64_t *expert_load);

/* The same in halves, for parts. Collective over the tensor and the expert group, in the same order on all their ranks.
 *
 * forward: the layers of the part, in memory of that slot. in: what the stage before gave out, [own tokens, h] in
 * backend memory, copied; absent on the first stage. *out_p: own tokens of the last layer's output, valid until the
 * slot's next forward. */
ap_status ap_model_forward(struct ap_model *m, int slot, const struct ap_model_buffers *b, const struct ap_batch *batch,
                           const struct ap_loss_weights *lw, ap_tensor in, ap_tensor *out_p);
/* After forward, which it undoes: gradients += . On the last stage the losses come first; elsewhere dout is the
 * gradient of what forward gave out, copied. *din_p: gradient of `in`, valid until the next call; absent on the first
 * stage. */
ap_status ap_model_backward(struct ap_model *m, int slot, const struct ap_model_buffers *b,
                            const struct ap_batch *batch, const struct ap_loss_weights *lw, ap_tensor dout,
                            ap_tensor *din_p, struct ap_model_result *result_p, int64_t *expert_load);
/* The same in two halves (zero-bubble pipelines), where opt.late says so: the gradient of the input at once, those of
 * the weights later, from what the first half left in `late`: the same bits. Others may come in between, in other slots
 * and lates. The first half needs no grads; the second touches the gradients alone, and is for one process alone. */
struct ap_model_half {
    int slot, late;
    ap_tensor dout, *din_p; /* as of backward */
};
ap_status ap_model_backward_input(struct ap_model *m, const struct ap_model_half *half,
                                  const struct ap_model_buffers *b, const struct ap_batch *batch,
                                  const struct ap_loss_weights *lw, struct ap_model_result *result_p,
                                  int64_t *expert_load);
/* pulse is called between the gradients (messages on their way need that); its errors end the call. NULL: nobody. */
typedef ap_status ap_model_pulse(void *ctx);
ap_status ap_model_backward_weight(struct ap_model *m, int late, const struct ap_model_buffers *b,
                                   ap_model_pulse *pulse, void *ctx);
/* In place of backward: losses alone. */
ap_status ap_model_loss(struct ap_model *m, int slot, const struct ap_model_buffers *b, const struct ap_batch *batch,
                        const struct ap_loss_weights *lw, struct ap_model_result *result_p, int64_t *expert_load);
/* Own tokens of a micro-batch, rows of `in` and *out_p. */
int64_t ap_model_own_tokens(const struct ap_model *m);

/* What a model reads from what the optimizer keeps: host [n] of Stat type becomes weights [n] of the model's dtype, a
 * copy or, in bf16, rounded to nearest even. Blocking. */
ap_status ap_model_load_weights(struct ap_backend *be, const void *host, ap_tensor weights);

/* Of the last call, valid until the next one, in backend memory: token-wise losses Stat [B*T]; logits
 * [B*T, own part of V] (dtype of the model) of the main head, meaningful only after a call without gradients and with
 * lw->mtp == 0 (the gradient and the MTP head reuse their memory). */
ap_tensor ap_model_token_loss(const struct ap_model *m);
ap_tensor ap_model_logits(const struct ap_model *m);
/* Chosen experts of moe layer i (of the whole model) in the last forward: i32 [N, K], backend memory; absent where the
 * part does not have the layer. */
ap_tensor ap_model_routing(const struct ap_model *m, int64_t moe_layer);

#endif
