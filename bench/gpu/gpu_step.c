/* SPDX-License-Identifier: Apache-2.0
 * A whole training step with the model's own code on one device: gradients, their norm, AdamW. Reported:
 * tokens per second, the model's work per step as counted by the operations, and its part of the product
 * rates measured in the same run (and of the data sheet's, where the device is known). */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/record.h"
#include "base/clock.h"
#include "base/dtype.h"
#include "gpu.h"
#include "model/model.h"

struct stepper {
    struct bench *b;
    struct ap_model *m;
    ap_tensor w, master, g, mean, var, sum, bias; /* master: f32 weights of a bf16 step, else absent */
    struct ap_batch batch;
    struct ap_loss_weights lw;
    int32_t *host; /* tokens, targets, first, positions [4N] */
    int64_t tokens, step;
    double loss;
};

static ap_status make_batch(struct stepper *s, int64_t vocab, int64_t len)
{
    int64_t N = s->tokens;
    s->host = calloc((size_t)(4 * N), sizeof(*s->host));
    if (!s->host)
        return AP_ERR_NOMEM;
    for (int64_t i = 0; i < N; i++) {
        s->host[i] = (int32_t)((i * 7919 + 13) % vocab);
        s->host[N + i] = (int32_t)(((i + 1) * 7919 + 13) % vocab);
        s->host[3 * N + i] = (int32_t)(i % len);
    }
    s->batch = (struct ap_batch){s->host, s->host + N, s->host + 2 * N, s->host + 3 * N};
    s->lw = (struct ap_loss_weights){.ce = 1.0 / (double)N};
    return AP_OK;
}

static ap_status make_state(struct stepper *s, ap_dtype dtype)
{
    const struct ap_params *p = ap_model_params(s->m);
    struct bench *b = s->b;
    s->w = bench_tensor(b, dtype, 1, &p->flat);
    s->g = bench_tensor(b, AP_F32, 1, &p->flat);
    s->mean = bench_tensor(b, AP_F32, 1, &p->flat);
    s->var = bench_tensor(b, AP_F32, 1, &p->flat);
    s->sum = bench_tensor(b, AP_F64, 1, &(int64_t){1});
    s->bias = bench_tensor(b, AP_F32, 1, &(int64_t){p->routers + 1});
    if (dtype == AP_BF16)
        s->master = bench_tensor(b, AP_F32, 1, &p->flat);
    if (!s->w.data || (dtype == AP_BF16 && !s->master.data) || !s->g.data || !s->mean.data || !s->var.data ||
        !s->sum.data || !s->bias.data)
        return AP_ERR_NOMEM;
    size_t bytes = (size_t)p->flat * sizeof(float);
    s->bias.shape[0] = p->routers;
    if (s->master.data) {
        struct ap_cast_args cast = {.src = s->w, .dst = s->master};
        AP_TRY(b->be->ops.cast(b->be->stream, &cast));
    }
    AP_TRY(b->be->vt->fill_zero(b->be->stream, s->mean.data, bytes));
    AP_TRY(b->be->vt->fill_zero(b->be->stream, s->bias.data, (size_t)(p->routers + 1) * sizeof(float)));
    return b->be->vt->fill_zero(b->be->stream, s->var.data, bytes);
}

static ap_status one_step(struct stepper *s)
{
    struct ap_backend *be = s->b->be;
    struct ap_model_result r;
    double sum = 0;
    size_t bytes = (size_t)ap_tensor_count(&s->g) * sizeof(float);
    AP_TRY(be->vt->fill_zero(be->stream, s->g.data, bytes));
    AP_TRY(ap_model_step(s->m, s->w, s->g, s->bias, &s->batch, &s->lw, &r, NULL));
    struct ap_sumsq_args sq = {.x = s->g, .out = s->sum};
    AP_TRY(be->ops.sumsq(be->stream, &sq));
    AP_TRY(be->vt->copy(be->stream, &sum, s->sum.data, sizeof(sum)));
    AP_TRY(be->vt->stream_sync(be->stream));
    ap_tensor kept = s->master.data ? s->master : s->w;
    struct ap_adamw_args a = {.w = kept,
                              .g = s->g,
                              .m = s->mean,
                              .v = s->var,
                              .w_new = kept,
                              .m_new = s->mean,
                              .v_new = s->var,
                              .w_bf16 = s->master.data ? s->w : (ap_tensor){0},
                              .lr = 1e-4,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .eps = 1e-8,
                              .weight_decay = 0.1,
                              .grad_scale = fmin(1.0, 1.0 / (sqrt(sum) + 1e-6)),
                              .step = ++s->step};
    AP_TRY(be->ops.adamw(be->stream, &a));
    s->loss = r.ce_sum / (double)r.ce_tokens;
    return be->vt->stream_sync(be->stream);
}

/* Work of one step, counted by a recorder that is not attached while the clock runs. */
static ap_status count_flops(struct stepper *s, double *flops_p)
{
    struct ap_record rec = {0};
    AP_TRY(ap_record_attach(&rec, s->b->be, 0));
    ap_status st = one_step(s);
    ap_record_detach(s->b->be);
    for (int op = 0; op < AP_OP_COUNT; op++) {
        if (op == AP_OP_gemm || op == AP_OP_grouped_gemm || op == AP_OP_grouped_wgrad || op == AP_OP_mla_attn_fwd ||
            op == AP_OP_mla_attn_bwd)
            *flops_p += rec.total[op].flops;
    }
    ap_record_free(&rec);
    return st;
}

static void report(const struct stepper *s, const struct step_options *o, double seconds, double low, double flops)
{
    struct bench *b = s->b;
    const struct ap_params *p = ap_model_params(s->m);
    double rate = flops / seconds, best = b->gemm_rate[o->dtype == AP_BF16];
    fprintf(
        b->out,
        "{\"section\": \"step\", \"config\": \"%s\", \"layers\": %lld, \"dtype\": \"%s\", \"sequences\": %lld, "
        "\"length\": %lld, \"parameters\": %lld, \"seconds\": %.5g, \"best_seconds\": %.5g, \"tokens_per_s\": %.5g, "
        "\"tflops\": %.4g, \"of_measured_product_rate\": %.3f, \"of_nominal_bf16\": %.3f, "
        "\"activation_bytes\": %zu, \"loss\": %.5f}\n",
        o->config, (long long)o->layers, ap_dtype_name(o->dtype), (long long)o->sequences, (long long)o->seq_len,
        (long long)p->flat, seconds, low, (double)s->tokens / seconds, rate * 1e-12, best > 0 ? rate / best : 0,
        b->nominal_bf16 > 0 ? rate / b->nominal_bf16 : 0, ap_model_memory(s->m), s->loss);
    printf("step %s %s: %.1f ms, %.0f tokens/s, %.2f TFLOP/s = %.1f%% of the product rate of this run, loss %.3f\n",
           o->config, ap_dtype_name(o->dtype), seconds * 1e3, (double)s->tokens / seconds, rate * 1e-12,
           best > 0 ? 100 * rate / best : 0, s->loss);
}

static ap_status time_steps(struct stepper *s, const struct step_options *o, struct ap_error *err)
{
    double flops = 0, total = 0, low = INFINITY;
    AP_TRY(one_step(s));
    AP_TRY(count_flops(s, &flops));
    for (int64_t i = 0; i < o->steps; i++) {
        double start = ap_clock_monotonic();
        AP_TRY(one_step(s));
        double seconds = ap_clock_monotonic() - start;
        total += seconds;
        low = fmin(low, seconds);
    }
    if (!isfinite(s->loss))
        return ap_error_set(err, AP_ERR_NUMERIC, "the loss of %s is not finite", o->config);
    report(s, o, total / (double)o->steps, low, flops);
    return AP_OK;
}

static ap_status load_config(const struct step_options *o, struct ap_model_config *cfg, struct ap_error *err)
{
    AP_TRY(ap_model_config_load(o->config, cfg, err));
    if (o->layers > 0 && o->layers < cfg->layers)
        cfg->layers = o->layers;
    cfg->mtp_depth = 0;
    return AP_OK;
}

ap_status bench_step(struct bench *b, const struct step_options *o, struct ap_error *err)
{
    struct stepper s = {.b = b, .tokens = o->sequences * o->seq_len};
    struct ap_model_config cfg;
    struct ap_model_options opt = {.micro_sequences = o->sequences, .seq_len = o->seq_len, .dtype = o->dtype};
    AP_TRY(load_config(o, &cfg, err));
    AP_TRY(ap_model_create(b->be, &cfg, &opt, &s.m, err));
    ap_status st = make_batch(&s, cfg.vocab_size, o->seq_len);
    if (st == AP_OK)
        st = make_state(&s, o->dtype);
    if (st == AP_OK)
        st = time_steps(&s, o, err);
    if (st != AP_OK && !err->text[0])
        ap_error_set(err, st, "a step of %s failed", o->config);
    ap_tensor *all[] = {&s.w, &s.master, &s.g, &s.mean, &s.var, &s.sum, &s.bias};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        bench_release(b, all[i]);
    ap_model_destroy(s.m);
    free(s.host);
    return st;
}
