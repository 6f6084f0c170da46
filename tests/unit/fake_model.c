/* SPDX-License-Identifier: Apache-2.0
 * The stand-in model; see fake_model.h. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "fake_model.h"
#include "model/model.h"

struct ap_model {
    struct ap_model_config cfg;
    struct ap_model_options opt;
    struct ap_params *params;
};

ap_status ap_model_create(struct ap_backend *be, const struct ap_model_config *cfg, const struct ap_model_options *opt,
                          struct ap_model **model_p, struct ap_error *err)
{
    (void)be;
    struct ap_model *m = calloc(1, sizeof(*m));
    if (!m)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    m->cfg = *cfg;
    m->opt = *opt;
    if (ap_params_create(cfg, NULL, &m->params) != AP_OK) {
        free(m);
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    }
    *model_p = m;
    return AP_OK;
}

void ap_model_destroy(struct ap_model *m)
{
    if (!m)
        return;
    ap_params_destroy(m->params);
    free(m);
}

const struct ap_params *ap_model_params(const struct ap_model *m)
{
    return m->params;
}

size_t ap_model_memory(const struct ap_model *m)
{
    (void)m;
    return 0;
}

/* Parameter that token `tok` and target `target` pull, and where to. */
static int64_t pulled(const struct ap_model *m, int32_t tok, int32_t target)
{
    int32_t key[2] = {tok, target};
    uint64_t h = ap_hash64(key, sizeof(key), 1);
    const struct ap_param *p = &m->params->list[h % (uint64_t)m->params->count];
    return p->offset + (int64_t)((h >> 20) % (uint64_t)p->count);
}

static void token(const struct ap_model *m, const float *w, float *g, const struct ap_batch *b, int64_t i,
                  double weight, double *loss)
{
    int64_t at = pulled(m, b->tokens[i], b->targets[i]);
    double bias = 0.1 * (double)w[m->params->list[0].offset];
    double d = (double)w[at] + bias - 0.05 * (double)(b->targets[i] % 11);
    *loss += d * d;
    if (g) {
        g[at] += (float)(2 * weight * d);
        g[m->params->list[0].offset] += (float)(0.2 * weight * d);
    }
}

static ap_status step(struct ap_model *m, ap_tensor weights, ap_tensor grads, ap_tensor router_bias,
                      const struct ap_batch *batch, const struct ap_loss_weights *lw, struct ap_model_result *result_p,
                      int64_t *expert_load)
{
    int64_t n = m->opt.micro_sequences * m->opt.seq_len, T = m->opt.seq_len;
    const float *bias = router_bias.data;
    struct ap_model_result r = {0};
    for (int64_t i = 0; grads.data && m->opt.write_grads && i < m->params->count; i++) {
        const struct ap_param *p = &m->params->list[i];
        if (p->written)
            memset((float *)grads.data + p->offset, 0, (size_t)p->count * sizeof(float));
    }
    for (int64_t i = 0; i < n; i++) {
        if (batch->tokens[i] == FAKE_POISON)
            r.ce_sum = NAN;
        r.mtp_tokens += m->cfg.mtp_depth > 0 && lw->mtp != 0 && batch->targets[i] >= 0 && i % T != T - 1 &&
                        batch->targets[i + 1] >= 0;
        for (int64_t l = 0; expert_load && l < m->params->moe_layers; l++) {
            int64_t k = l * m->cfg.routed_experts;
            /* the bias steers, as in the real router */
            int64_t e = (batch->tokens[i] * batch->tokens[i]) % m->cfg.routed_experts;
            if (bias && bias[k + e] < 0)
                e = (e + 1) % m->cfg.routed_experts;
            expert_load[k + e]++;
        }
        if (batch->targets[i] < 0)
            continue;
        r.ce_tokens++;
        token(m, weights.data, grads.data, batch, i, lw->ce, &r.ce_sum);
    }
    if (isnan(r.ce_sum) && grads.data)
        ((float *)grads.data)[m->params->list[0].offset] = NAN;
    *result_p = r;
    return AP_OK;
}

int64_t ap_model_own_tokens(const struct ap_model *m)
{
    return m->opt.micro_sequences * m->opt.seq_len;
}

ap_status ap_model_forward(struct ap_model *m, int slot, const struct ap_model_buffers *b, const struct ap_batch *batch,
                           const struct ap_loss_weights *lw, ap_tensor in, ap_tensor *out_p)
{
    (void)m, (void)slot, (void)b, (void)batch, (void)lw, (void)in;
    *out_p = (ap_tensor){0};
    return AP_OK;
}

ap_status ap_model_backward(struct ap_model *m, int slot, const struct ap_model_buffers *b,
                            const struct ap_batch *batch, const struct ap_loss_weights *lw, ap_tensor dout,
                            ap_tensor *din_p, struct ap_model_result *result_p, int64_t *expert_load)
{
    (void)slot, (void)dout;
    *din_p = (ap_tensor){0};
    return step(m, b->weights[0], b->grads[0], b->router_bias, batch, lw, result_p, expert_load);
}

/* It has one stage: no schedule splits its backward. */
ap_status ap_model_backward_input(struct ap_model *m, const struct ap_model_half *half,
                                  const struct ap_model_buffers *b, const struct ap_batch *batch,
                                  const struct ap_loss_weights *lw, struct ap_model_result *result_p,
                                  int64_t *expert_load)
{
    (void)m, (void)half, (void)b, (void)batch, (void)lw, (void)result_p, (void)expert_load;
    return AP_ERR_BUG;
}

ap_status ap_model_backward_weight(struct ap_model *m, int late, const struct ap_model_buffers *b,
                                   ap_model_pulse *pulse, void *ctx)
{
    (void)m, (void)late, (void)b, (void)pulse, (void)ctx;
    return AP_ERR_BUG;
}

ap_status ap_model_loss(struct ap_model *m, int slot, const struct ap_model_buffers *b, const struct ap_batch *batch,
                        const struct ap_loss_weights *lw, struct ap_model_result *result_p, int64_t *expert_load)
{
    (void)slot;
    return step(m, b->weights[0], (ap_tensor){0}, b->router_bias, batch, lw, result_p, expert_load);
}
