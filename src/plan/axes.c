/* SPDX-License-Identifier: Apache-2.0
 * What an axis needs of the model and of the batch. */
#include "config.h"

#include "plan/axes.h"

static long long show(int64_t v)
{
    return v;
}

/* things go in equal numbers to n ranks of the axis. */
static ap_status even(const char *axis, int64_t n, int64_t things, const char *what, struct ap_error *err)
{
    int64_t fit = n < things ? n : things;
    if (things % n == 0)
        return AP_OK;
    while (fit > 1 && things % fit != 0)
        fit--;
    ap_error_set(err, AP_ERR_INPUT, "%s %lld: %lld %s cannot be shared out evenly%s", axis, show(n), show(things), what,
                 things < n ? ", there are fewer of them" : "");
    ap_error_hint(err, "%s %lld fits them", axis, show(fit > 0 ? fit : 1));
    return AP_ERR_INPUT;
}

static int has_dense_layer(const struct ap_model_config *c)
{
    int64_t l = 0;
    while (l < c->layers && ap_model_layer_is_moe(c, l))
        l++;
    return l < c->layers;
}

static ap_status check_tensor(const struct ap_model_config *c, int64_t n, struct ap_error *err)
{
    AP_TRY(even("tensor", n, c->heads, "attention heads", err));
    if (has_dense_layer(c))
        AP_TRY(even("tensor", n, c->intermediate_size, "columns of the MLP", err));
    if (c->routed_experts > 0) /* those of the shared experts are a multiple of it */
        AP_TRY(even("tensor", n, c->moe_intermediate_size, "columns of an expert", err));
    if (n <= c->vocab_size) /* slices of the vocabulary may be uneven, but none is empty */
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "tensor %lld: the vocabulary has only %lld entries", show(n), show(c->vocab_size));
    ap_error_hint(err, "at most tensor %lld", show(c->vocab_size));
    return AP_ERR_INPUT;
}

static ap_status check_expert(const struct ap_model_config *c, int64_t n, struct ap_error *err)
{
    if (n == 1)
        return AP_OK;
    if (c->routed_experts > 0)
        return even("expert", n, c->routed_experts, "routed experts", err);
    ap_error_set(err, AP_ERR_INPUT, "expert %lld: the model has no experts", show(n));
    ap_error_hint(err, "expert 1; a dense model is split by tensor and pipeline");
    return AP_ERR_INPUT;
}

/* The ranks of an expert group exchange rows in every micro-batch, so each does the same number of them; every rank of
 * the batch has one at least. */
static ap_status check_batch(const struct ap_axes *a, int64_t micro_batches, struct ap_error *err)
{
    AP_TRY(even("expert", a->expert, micro_batches, "micro-batches of a step", err));
    if (micro_batches / a->expert >= a->data)
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "data %lld x expert %lld: a step has only %lld micro-batches", show(a->data),
                 show(a->expert), show(micro_batches));
    ap_error_hint(err, "raise batch.global_sequences, lower batch.micro_sequences, or have at most data %lld",
                  show(micro_batches / a->expert));
    return AP_ERR_INPUT;
}

ap_status ap_axes_check(const struct ap_model_config *c, const struct ap_axes *a, int64_t micro_batches,
                        struct ap_error *err)
{
    AP_TRY(check_tensor(c, a->tensor, err));
    AP_TRY(check_expert(c, a->expert, err));
    if (a->pipeline > c->layers) {
        ap_error_set(err, AP_ERR_INPUT, "pipeline %lld: the model has only %lld layers", show(a->pipeline),
                     show(c->layers));
        ap_error_hint(err, "at most pipeline %lld", show(c->layers));
        return AP_ERR_INPUT;
    }
    return check_batch(a, micro_batches, err);
}

ap_status ap_axes_check_zero_bubble(int64_t pipeline, int recompute, struct ap_error *err)
{
    if (pipeline < 2) {
        ap_error_set(err, AP_ERR_INPUT, "schedule zero-bubble: pipeline %lld has no bubble to fill", show(pipeline));
        ap_error_hint(err, "parallel.pipeline: 2 or more, or parallel.schedule: auto");
        return AP_ERR_INPUT;
    }
    if (recompute) {
        ap_error_set(err, AP_ERR_INPUT,
                     "schedule zero-bubble: the gradients of the weights come later, from activations that "
                     "recompute does not keep");
        ap_error_hint(err, "recompute: false, or parallel.schedule: 1f1b");
        return AP_ERR_INPUT;
    }
    return AP_OK;
}
