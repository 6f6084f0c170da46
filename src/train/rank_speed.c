/* SPDX-License-Identifier: Apache-2.0
 * The parts of a step, timed in whole passes over the model: in each the caches are as a training step finds them,
 * which single layers done again and again would not show. The median of every part over the passes counts, all of them
 * scaled so that together they take as long as the median pass. */
#include "config.h"

#include <stdlib.h>

#include "base/clock.h"
#include "plan/axes.h"
#include "plan/layout.h"
#include "train/bench_step.h"
#include "train/rank_speed.h"
#include "train/runner.h"

#define PASSES 512 /* whose times are kept */
#define LEAST  3   /* passes, whatever they take */
/* Micro-batches of a pass: gradients of the second are added to those of the first, as in a run. */
#define MICROS 2
/* Parts of the time for a group of two, of each axis; the rest is for the whole model. */
#define GROUP_PART 0.2

enum what { FORWARD, BACKWARD = AP_WORK_KINDS, CLEAR = 2 * AP_WORK_KINDS, ADD, PASS, UPDATE, WHATS };

struct subject {
    const struct ap_job *job; /* of a model that fits */
    struct ap_backend *be;
    struct ap_mesh *mesh;
    struct ap_stage *stage;
    struct ap_runner *runner;
    struct ap_batches batches;
    struct ap_leaf_result results[MICROS];
    double *bias;
    ap_tensor bias_t;
    struct ap_work_clock clock;
    double elsewhere;  /* seconds inside of pretended communicators */
    double *times;     /* [WHATS][PASSES] */
    double got[WHATS]; /* their medians */
    int64_t updates;
    int passes;
};

/* This rank in a group of so many that nobody else is in. */
static ap_status pretend(struct subject *s, int tensor, int expert, struct ap_error *err)
{
    struct ap_mesh *m = calloc(1, sizeof *m);
    if (!m)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    s->mesh = m;
    m->shape = (struct ap_mesh_shape){{1, 1, expert, tensor}};
    ap_status st = AP_OK;
    for (int a = 0; st == AP_OK && a < AP_AXES; a++)
        st = ap_comm_echo(m->shape.size[a], &s->elsewhere, &m->axis[a]);
    if (st == AP_OK)
        st = ap_comm_echo(expert, &s->elsewhere, &m->batch);
    if (st == AP_OK)
        st = ap_comm_echo(tensor * expert, &s->elsewhere, &m->stage);
    if (st == AP_OK)
        st = ap_comm_echo(tensor * expert, &s->elsewhere, &m->world);
    return st == AP_OK ? AP_OK : ap_error_set(err, st, "out of memory");
}

/* pair NULL: company is pretended */
static ap_status prepare(struct subject *s, int tensor, int expert, struct ap_comm *pair, struct ap_error *err)
{
    const struct ap_job *job = s->job;
    int64_t layers[2] = {0, job->model.cfg.layers};
    const struct ap_mesh_shape two = {{1, 1, 1, 2}};
    AP_TRY(pair ? ap_mesh_create(pair, &two, NULL, &s->mesh, err) : pretend(s, tensor, expert, err));
    s->clock.apart = &s->elsewhere;
    struct ap_stage_options so = {.backend = s->be,
                                  .mesh = s->mesh,
                                  .cfg = &job->model.cfg,
                                  .kind = AP_PIPE_1F1B,
                                  .layer_begin = layers,
                                  .leaves = (int64_t)MICROS * expert,
                                  .micro_sequences = job->batch.micro_sequences,
                                  .seq_len = job->data.seq_len,
                                  .dtype = (ap_dtype)job->dtype,
                                  .recompute = job->recompute,
                                  .clock = &s->clock};
    AP_TRY(ap_stage_create(&so, &s->stage, err));
    AP_TRY(ap_runner_create(s->stage, &s->runner, err));
    int64_t routers = s->stage->chunks[0].params->routers;
    s->bias = calloc((size_t)routers + 1, sizeof *s->bias);
    s->times = calloc((size_t)WHATS * PASSES, sizeof *s->times);
    if (!s->bias || !s->times)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    s->bias_t = ap_tensor_1d(s->bias, ap_dtype_full(so.dtype), routers);
    ap_status st = ap_stage_init_weights(s->stage, &job->model.cfg, job->seed);
    return st == AP_OK ? ap_bench_batches(job, MICROS, &s->batches) : st;
}

static void finish(struct subject *s)
{
    ap_batches_free(&s->batches);
    ap_runner_destroy(s->runner);
    ap_stage_destroy(s->stage);
    ap_mesh_destroy(s->mesh);
    free(s->bias);
    free(s->times);
}

/* Sum over this rank alone, norm and update: a pretended group would leave wrong weights behind. */
static ap_status update(struct subject *s, double *seconds_p)
{
    const struct ap_job *job = s->job;
    double begin = ap_clock_monotonic(), norm;
    AP_TRY(ap_stage_reduce(s->stage));
    AP_TRY(ap_stage_norm(s->stage, &norm));
    struct ap_optimizer_hyper h = {job->optim.lr,           job->optim.beta1, job->optim.beta2, job->optim.eps,
                                   job->optim.weight_decay, job->optim.clip,  ++s->updates};
    AP_TRY(ap_stage_update(s->stage, &h, ap_optimizer_clip_scale(norm, h.clip)));
    ap_stage_flip(s->stage);
    *seconds_p = ap_clock_monotonic() - begin;
    return AP_OK;
}

/* Micro-batches there and back, their times into v. */
static ap_status pass(struct subject *s, int whole, double v[WHATS])
{
    struct ap_work_clock *c = &s->clock;
    struct ap_loss_weights lw = ap_bench_weights(s->job, MICROS * s->job->batch.micro_sequences);
    double apart = s->elsewhere, begin = ap_clock_monotonic();
    *c = (struct ap_work_clock){.apart = c->apart};
    ap_stage_reset(s->stage);
    AP_TRY(ap_runner_train(s->runner, &s->batches, &lw, s->bias_t, s->results, NULL));
    v[PASS] = ap_clock_monotonic() - begin - (s->elsewhere - apart);
    for (int k = 0; k < AP_WORK_KINDS; k++) {
        v[FORWARD + k] = c->forward[k];
        v[BACKWARD + k] = c->backward[k];
    }
    v[CLEAR] = c->clear;
    v[ADD] = c->add;
    v[UPDATE] = 0;
    return whole ? update(s, &v[UPDATE]) : AP_OK;
}

static ap_status passes(struct subject *s, int whole, double seconds)
{
    double v[WHATS], begin = 0, parts = 0;
    AP_TRY(pass(s, whole, v)); /* pages, plans of kernels */
    begin = ap_clock_monotonic();
    for (; s->passes < PASSES && (s->passes < LEAST || ap_clock_monotonic() - begin < seconds); s->passes++) {
        AP_TRY(pass(s, whole, v));
        for (int i = 0; i < WHATS; i++)
            s->times[i * PASSES + s->passes] = v[i];
    }
    for (int i = 0; i < WHATS; i++) {
        s->got[i] = ap_bench_median(s->times + (ptrdiff_t)i * PASSES, s->passes);
        parts += i < PASS ? s->got[i] : 0;
    }
    for (int i = 0; i < PASS && parts > 0; i++)
        s->got[i] *= s->got[PASS] / parts;
    return AP_OK;
}

/* Of one layer and token. */
static void take_times(const struct subject *s, struct ap_work_time at[AP_WORK_KINDS])
{
    const struct ap_job *job = s->job;
    double tokens = MICROS * (double)(job->batch.micro_sequences * job->data.seq_len);
    double count[AP_WORK_KINDS] = {[AP_WORK_FRONT] = 1, [AP_WORK_BACK] = 1};
    for (int64_t l = 0; l < job->model.cfg.layers; l++)
        count[ap_model_layer_is_moe(&job->model.cfg, l) ? AP_WORK_MOE : AP_WORK_DENSE]++;
    for (int k = 0; k < AP_WORK_KINDS; k++)
        if (count[k] > 0)
            at[k] = (struct ap_work_time){s->got[FORWARD + k] / (tokens * count[k]),
                                          s->got[BACKWARD + k] / (tokens * count[k])};
}

static double micro_flops(const struct ap_job *job)
{
    const struct ap_model_config *c = &job->model.cfg;
    double token = ap_model_train_flops_per_token(c, job->data.seq_len);
    for (int64_t l = 0; job->recompute && l < c->layers; l++) {
        struct ap_model_layer k;
        ap_model_count_layer(c, l, job->data.seq_len, 4, &k);
        token += k.flops_token / 3;
    }
    return token * (double)(job->batch.micro_sequences * job->data.seq_len);
}

static void take_whole(const struct subject *s, struct ap_rank_speed *res)
{
    struct ap_model_count n;
    ap_model_count_params(&s->job->model.cfg, &n);
    double params = (double)(n.total + n.mtp);
    res->flops_s = micro_flops(s->job) * MICROS / s->got[PASS];
    res->update_bytes_s = AP_RANK_UPDATE_BYTES * params / s->got[UPDATE];
    res->work.clear = s->got[CLEAR] / (MICROS * params);
    res->work.add = s->got[ADD] / ((MICROS - 1) * params);
    res->steps = s->passes;
}

/* One way to cut the model. Left out, with zeros, where the model cannot be cut so. */
static ap_status measure(struct ap_backend *be, const struct ap_job *job, enum ap_work_shape shape, double seconds,
                         struct ap_rank_speed *res, struct ap_error *err)
{
    int tensor = shape == AP_WORK_TENSOR2 ? 2 : 1, expert = shape == AP_WORK_EXPERT2 ? 2 : 1;
    const struct ap_axes axes = {1, tensor, 1, expert};
    struct subject s = {.job = job, .be = be};
    struct ap_error why = {0};
    if (ap_axes_check(&job->model.cfg, &axes, (int64_t)MICROS * expert, &why) != AP_OK)
        return AP_OK;
    ap_status st = prepare(&s, tensor, expert, NULL, err);
    if (st == AP_OK)
        st = passes(&s, shape == AP_WORK_WHOLE, seconds);
    if (st == AP_OK)
        take_times(&s, res->work.at[shape]);
    if (st == AP_OK && shape == AP_WORK_WHOLE)
        take_whole(&s, res);
    finish(&s);
    return st;
}

/* Micro-batches with the other rank of a pair, as many as take `seconds`, beside those with a pretended one. */
static ap_status in_step(struct subject *s, struct ap_comm *pair, double seconds, double *pass_p)
{
    double v[WHATS];
    AP_TRY(pass(s, 0, v)); /* pages, plans of kernels */
    AP_TRY(ap_comm_barrier(pair));
    AP_TRY(pass(s, 0, v));
    int64_t n = (int64_t)(seconds / v[PASS]);
    n = n < LEAST ? LEAST : n > PASSES ? PASSES : n;
    AP_TRY(ap_comm_max_i64(pair, &n, 1));
    for (; s->passes < n; s->passes++) {
        AP_TRY(ap_comm_barrier(pair));
        AP_TRY(pass(s, 0, v));
        s->times[s->passes] = v[PASS];
    }
    *pass_p = ap_bench_median(s->times, s->passes);
    return AP_OK;
}

/* A micro-batch of one rank of a tensor group of two, by itself. */
static double alone(const struct ap_job *job, const struct ap_work *w)
{
    double token = 0;
    for (int64_t l = 0; l < job->model.cfg.layers; l++) {
        int kind = ap_model_layer_is_moe(&job->model.cfg, l) ? AP_WORK_MOE : AP_WORK_DENSE;
        token += w->at[AP_WORK_TENSOR2][kind].forward + w->at[AP_WORK_TENSOR2][kind].backward;
    }
    for (int k = 0; k < AP_WORK_KINDS; k++)
        if (k == AP_WORK_FRONT || k == AP_WORK_BACK)
            token += w->at[AP_WORK_TENSOR2][k].forward + w->at[AP_WORK_TENSOR2][k].backward;
    return token * (double)(job->batch.micro_sequences * job->data.seq_len);
}

/* What a collective takes in step: what both take longer together than the slower one by itself. */
static ap_status measure_pair(const struct ap_rank_speed_options *opt, const struct ap_job *job,
                              struct ap_rank_speed *res, struct ap_error *err)
{
    struct subject s = {.job = job, .be = opt->be};
    double calls, width, together = 0, clock = 0;
    int64_t ps[2];
    ap_status st = prepare(&s, 2, 1, opt->pair, err);
    st = ap_comm_agree(opt->pair, st, NULL, err);
    if (st == AP_OK)
        st = in_step(&s, opt->pair, opt->seconds * GROUP_PART, &together);
    if (st == AP_OK) {
        clock = (s.clock.clear + s.clock.add) / MICROS;
        ps[0] = (int64_t)(1e12 * together / MICROS);
        ps[1] = (int64_t)(1e12 * (alone(job, &res->work) + clock));
        st = ap_comm_max_i64(opt->pair, ps, 2);
    }
    finish(&s);
    if (st != AP_OK)
        return st;
    ap_layout_tensor_traffic(&job->model.cfg, job->recompute, &calls, &width);
    double tokens = (double)(job->batch.micro_sequences * job->data.seq_len);
    double rows = tokens * (double)ap_dtype_size((ap_dtype)job->dtype) / 2;
    res->call_s = ps[0] > ps[1] ? 1e-12 * (double)(ps[0] - ps[1]) / calls : 0;
    res->call_bytes = rows * width / calls;
    return AP_OK;
}

static double bytes_of(const struct ap_job *job, const struct ap_model_config *c)
{
    struct ap_model_count n;
    double saved = 0, tokens = (double)(job->batch.micro_sequences * job->data.seq_len);
    ap_model_count_params(c, &n);
    for (int64_t l = 0; l < c->layers + c->mtp_depth; l++) {
        struct ap_model_layer k;
        ap_model_count_layer(c, l, job->data.seq_len, 4, &k);
        saved += k.saved_token;
    }
    return 36.0 * (double)(n.total + n.mtp) + tokens * (saved + 8.0 * (double)c->vocab_size);
}

/* The job with a model that fits: of its layers as many dense ones as there are, up to two, then all others that fit;
 * at least one of each kind, or the last resort is refused by the memory itself. */
static void shorten(struct ap_job *job, double memory)
{
    struct ap_model_config *c = &job->model.cfg;
    int64_t dense = c->routed_experts > 0 ? c->first_dense : 0;
    if (bytes_of(job, c) <= memory)
        return;
    if (dense > 1) {
        c->layers -= dense - 1;
        c->first_dense = dense = 1;
    }
    while (c->layers > dense + 1 && bytes_of(job, c) > memory)
        c->layers--;
}

static ap_status measure_all(const struct ap_rank_speed_options *opt, const struct ap_job *job,
                             struct ap_rank_speed *res, struct ap_error *err)
{
    const int wanted[AP_WORK_SHAPES] = {1, opt->tensor, opt->expert};
    double part = 1 - GROUP_PART * ((opt->tensor != 0) + (opt->expert != 0) + (opt->pair != NULL));
    if (!opt->be->vt->is_host)
        return ap_error_set(err, AP_ERR_UNSUPPORTED,
                            "the parts of a step are measured on host backends; for a GPU see bench/gpu");
    for (int shape = 0; shape < AP_WORK_SHAPES; shape++)
        if (wanted[shape])
            AP_TRY(measure(opt->be, job, shape, opt->seconds * (shape == AP_WORK_WHOLE ? part : GROUP_PART), res, err));
    if (opt->pair && ap_work_measured(&res->work, AP_WORK_TENSOR2))
        AP_TRY(measure_pair(opt, job, res, err));
    return AP_OK;
}

ap_status ap_rank_speed(const struct ap_rank_speed_options *opt, struct ap_rank_speed *res_p, struct ap_error *err)
{
    struct ap_job job = *opt->job; /* strings stay the caller's */
    struct ap_rank_speed res = {0};
    shorten(&job, opt->memory);
    err->status = AP_OK;
    ap_status st = measure_all(opt, &job, &res, err);
    if (st != AP_OK && err->status == AP_OK)
        ap_error_set(err, st, "the model of the job cannot be measured: %s", ap_status_name(st));
    res.layers = job.model.cfg.layers;
    if (st == AP_OK)
        *res_p = res;
    return st;
}
