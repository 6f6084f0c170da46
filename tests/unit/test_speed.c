/* SPDX-License-Identifier: Apache-2.0
 * Measured kinds of work: between and beyond what was measured, whose job it was, the collectives that the planner
 * counts beside those that the model makes, and the measurements themselves, of which only the form is judged. */
#include "config.h"

#include <math.h>

#include "../support/leaks.h"
#include "../support/vranks.h"
#include "plan/layout_model.h"
#include "train/bench_step.h"
#include "train/group_speed.h"
#include "train/rank_speed.h"
#include "train/runner.h"

TestSuite(speed, .timeout = 120);

static void make_job(struct ap_job *job, const char *preset)
{
    struct ap_error err = {0};
    memset(job, 0, sizeof *job);
    cr_assert_eq(ap_model_config_preset(preset, &job->model.cfg, &err), AP_OK, "%s", err.text);
    job->data.seq_len = 16;
    job->batch.global_sequences = job->batch.micro_sequences = 2;
    job->dtype = AP_F32;
    job->seed = 3;
    job->loss.mtp_weight = 0.3;
    job->loss.seq_balance = 1e-3;
    job->optim.lr = 1e-3;
    job->optim.beta1 = 0.9;
    job->optim.beta2 = 0.95;
    job->optim.eps = 1e-8;
    job->optim.clip = 1;
}

static double both(struct ap_work_time t)
{
    return t.forward + t.backward;
}

AP_TEST(speed, between_shapes)
{
    struct ap_work w = {.at = {[AP_WORK_WHOLE] = {[AP_WORK_MOE] = {10, 20}},
                               [AP_WORK_TENSOR2] = {[AP_WORK_MOE] = {6, 8}},
                               [AP_WORK_EXPERT2] = {[AP_WORK_MOE] = {9, 22}}}};
    struct ap_work_time t = ap_work_at(&w, AP_WORK_MOE, 1, 1);
    cr_expect(t.forward == 10 && t.backward == 20);
    t = ap_work_at(&w, AP_WORK_MOE, 2, 1);
    cr_expect(t.forward == 6 && t.backward == 8, "as measured, even where less than half");
    t = ap_work_at(&w, AP_WORK_MOE, 4, 1);
    cr_expect_float_eq(t.forward, 4, 1e-12, "2 by all, 8 shared out");
    cr_expect_float_eq(t.backward, 4, 1e-12, "nothing by all");
    t = ap_work_at(&w, AP_WORK_MOE, 1, 2);
    cr_expect_float_eq(both(t), 31, 1e-12);
    t = ap_work_at(&w, AP_WORK_MOE, 1, 8);
    cr_expect_float_eq(t.forward, 8 + 2.0 / 8, 1e-12);
    cr_expect_float_eq(t.backward, 24 - 4.0 / 8, 1e-12, "what grows has an end");
    t = ap_work_at(&w, AP_WORK_MOE, 2, 2);
    cr_expect_float_eq(t.forward, 6 * 0.9, 1e-12);
    cr_expect_eq(both(ap_work_at(&w, AP_WORK_DENSE, 4, 4)), 0, "no such layers");
    memset(&w.at[AP_WORK_TENSOR2], 0, 2 * sizeof w.at[0]);
    t = ap_work_at(&w, AP_WORK_MOE, 4, 4);
    cr_expect(t.forward == 2.5 && t.backward == 5, "shared out without loss where it was not measured");
    cr_expect(ap_work_measured(&w, AP_WORK_WHOLE) && !ap_work_measured(&w, AP_WORK_TENSOR2));
}

AP_TEST(speed, identity)
{
    struct ap_job job, other;
    char a[33], b[33];
    make_job(&job, "tiny-v3");
    cr_assert_eq(ap_work_identity(&job, a), AP_OK);
    cr_expect_eq(strlen(a), 32);
    for (int i = 0; i < 8; i++) {
        other = job;
        other.batch.micro_sequences = 4; /* does not count */
        other.seed = 8;
        other.model.cfg.layers += i == 1;
        other.data.seq_len += i == 2;
        other.dtype = i == 3 ? AP_BF16 : other.dtype;
        other.recompute = i == 4;
        other.model.cfg.experts_per_token -= i == 5;
        other.loss.mtp_weight = i == 6 ? 0 : other.loss.mtp_weight;
        other.model.cfg.hidden_size *= i == 7 ? 2 : 1;
        cr_assert_eq(ap_work_identity(&other, b), AP_OK);
        cr_expect_eq(strcmp(a, b) == 0, i == 0, "change %d", i);
    }
}

/* ---- collectives ---- */

/* An echo that counts. */
struct counting {
    struct ap_comm comm; /* first */
    struct ap_comm *echo;
    int64_t calls, bytes; /* sent */
};

static ap_status count_gather(struct ap_comm *c, const void *send, const int64_t *bytes, void *recv)
{
    struct counting *x = (struct counting *)(void *)c;
    x->calls++;
    for (int r = 1; r < c->size; r++)
        x->bytes += bytes[r];
    return ap_comm_allgatherv(x->echo, send, bytes, recv);
}

static ap_status count_exchange(struct ap_comm *c, const void *send, const int64_t *send_bytes, const int64_t *send_off,
                                void *recv, const int64_t *recv_bytes, const int64_t *recv_off)
{
    struct counting *x = (struct counting *)(void *)c;
    x->calls++;
    for (int r = 1; r < c->size; r++)
        x->bytes += send_bytes[r];
    return ap_comm_alltoallv(x->echo, send, send_bytes, send_off, recv, recv_bytes, recv_off);
}

static const struct ap_comm_ops counting_ops = {
    .size = sizeof counting_ops, .name = "counting", .allgatherv = count_gather, .alltoallv = count_exchange};

static void make_counting(struct counting *x, int size)
{
    *x = (struct counting){.comm = {.vt = &counting_ops, .size = size}};
    cr_assert_eq(ap_comm_echo(size, NULL, &x->echo), AP_OK);
}

/* One micro-batch there and back on a rank of such groups. */
static void micro_batch(const struct ap_job *job, struct counting *tensor, struct counting *expert)
{
    struct ap_model_part part = ap_model_whole(&job->model.cfg);
    struct ap_pool *pool = NULL;
    struct ap_backend *be = NULL;
    struct ap_model *model = NULL;
    struct ap_batches batches;
    struct ap_error err = {0};
    part.tensor_size = tensor->comm.size;
    part.expert_size = expert->comm.size;
    struct ap_model_options o = {.micro_sequences = job->batch.micro_sequences,
                                 .seq_len = job->data.seq_len,
                                 .dtype = AP_F32,
                                 .part = &part,
                                 .tensor = part.tensor_size > 1 ? &tensor->comm : NULL,
                                 .expert = part.expert_size > 1 ? &expert->comm : NULL};
    cr_assert_eq(ap_pool_create(1, &pool, &err), AP_OK);
    cr_assert_eq(ap_backend_open("reference", 0, pool, &be, &err), AP_OK, "%s", err.text);
    cr_assert_eq(ap_model_create(be, &job->model.cfg, &o, &model, &err), AP_OK, "%s", err.text);
    cr_assert_eq(ap_bench_batches(job, 1, &batches), AP_OK);
    const struct ap_params *params = ap_model_params(model);
    float *weights = calloc((size_t)params->flat, sizeof *weights),
          *grads = calloc((size_t)params->flat, sizeof *grads);
    cr_assert(weights != NULL && grads != NULL);
    ap_params_init(params, &job->model.cfg, 1, weights);
    struct ap_model_buffers b = {0};
    for (int g = 0; g < AP_GROUPS; g++) {
        int64_t from = params->region[g].begin, n = params->region[g].end - from;
        b.weights[g] = ap_tensor_1d(weights + from, AP_F32, n);
        b.grads[g] = ap_tensor_1d(grads + from, AP_F32, n);
    }
    struct ap_loss_weights lw = ap_bench_weights(job, job->batch.micro_sequences);
    struct ap_batch batch = ap_batches_get(&batches, 0);
    struct ap_model_result result;
    ap_tensor none = {0}, out, din;
    cr_assert_eq(ap_model_forward(model, 0, &b, &batch, &lw, none, &out), AP_OK);
    cr_assert_eq(ap_model_backward(model, 0, &b, &batch, &lw, none, &din, &result, NULL), AP_OK);
    ap_batches_free(&batches);
    ap_model_destroy(model);
    ap_backend_close(be);
    ap_pool_destroy(pool);
    free(weights);
    free(grads);
}

static struct ap_stage_load load_of(const struct ap_job *job)
{
    struct ap_topology *t = ap_topology_create(1, 1, 1);
    struct ap_layout_model *m = NULL;
    struct ap_stage_load load;
    struct ap_error err = {0};
    cr_assert_not_null(t);
    t->ranks[0] = (struct ap_topo_rank){0, "cpu", 1e9, 64e9, 1e9};
    cr_assert_eq(ap_topology_finish(t, "test", &err), AP_OK, "%s", err.text);
    struct ap_layout_problem p = {
        .topo = t, .cfg = &job->model.cfg, .seq_len = job->data.seq_len, .global_sequences = 2, .element_size = 4};
    cr_assert_eq(ap_layout_model_create(&p, &m, &err), AP_OK, "%s", err.text);
    ap_layout_load(m, 0, (int)job->model.cfg.layers, &load);
    ap_layout_model_destroy(m);
    ap_topology_destroy(t);
    return load;
}

/* What a rank sends in a micro-batch is what the planner prices: in a tensor group, with a latent of queries and
 * without one, to the byte; in an expert group as many messages, and about as many rows as there would be evenly. */
AP_TEST(speed, collectives_are_those_of_the_model)
{
    static const char *const presets[] = {"tiny-v3", "tiny-v2lite"};
    for (int i = 0; i < 2; i++) {
        struct ap_job job;
        struct counting tensor, expert;
        make_job(&job, presets[i]);
        const struct ap_model_config *c = &job.model.cfg;
        struct ap_stage_load load = load_of(&job);
        double tokens = (double)(job.batch.micro_sequences * job.data.seq_len);
        make_counting(&tensor, 2);
        make_counting(&expert, 1);
        micro_batch(&job, &tensor, &expert);
        /* The planner leaves out three statistics of the loss per token and head. */
        double calls, width;
        ap_layout_tensor_traffic(c, 0, &calls, &width);
        cr_expect(calls == load.calls && width == load.width, "%g of %g numbers, not %g of %g", calls, width,
                  load.calls, load.width);
        double want = tokens * 4 * load.width / 2 + tokens * 12 * (double)(1 + c->mtp_depth);
        cr_expect_float_eq((double)tensor.calls, load.calls, 1e-9, "%s: %d calls, not %g", presets[i],
                           (int)tensor.calls, load.calls);
        cr_expect_float_eq((double)tensor.bytes, want, 1e-6, "%s: %d bytes, not %g", presets[i], (int)tensor.bytes,
                           want);
        ap_comm_destroy(tensor.echo);
        ap_comm_destroy(expert.echo);

        make_counting(&tensor, 1);
        make_counting(&expert, 2);
        micro_batch(&job, &tensor, &expert);
        want = tokens * (double)(c->experts_per_token * c->hidden_size) * 4 / 2 * load.exchanges;
        cr_expect_float_eq((double)expert.calls, load.exchanges * 1.25, 1e-9, "%s: %d exchanges, not %g", presets[i],
                           (int)expert.calls, load.exchanges * 1.25);
        cr_expect(fabs((double)expert.bytes / want - 1) < 0.5, "%s: %d bytes of rows, not %g", presets[i],
                  (int)expert.bytes, want);
        ap_comm_destroy(tensor.echo);
        ap_comm_destroy(expert.echo);
    }
}

/* The parameters that a tensor group does not share out are those that the model has in that group. */
AP_TEST(speed, shared_parameters)
{
    static const char *const presets[] = {"tiny-v3", "tiny-v2lite", "dense-30m"};
    for (int i = 0; i < 3; i++) {
        struct ap_job job;
        struct ap_params *params = NULL;
        int64_t shared = 0;
        make_job(&job, presets[i]);
        struct ap_model_part part = ap_model_whole(&job.model.cfg);
        part.tensor_size = 2;
        cr_assert_eq(ap_params_create(&job.model.cfg, &part, &params), AP_OK);
        for (int64_t k = 0; k < params->count; k++)
            shared += params->list[k].group == AP_GROUP_SHARED ? params->list[k].count : 0;
        double want = load_of(&job).shared;
        cr_expect_float_eq((double)shared, want, 1e-9, "%s: %d, not %g", presets[i], (int)shared, want);
        ap_params_destroy(params);
    }
}

/* ---- measurements ---- */

static void open_backend(struct ap_pool **pool, struct ap_backend **be)
{
    struct ap_error err = {0};
    cr_assert_eq(ap_pool_create(1, pool, &err), AP_OK);
    cr_assert_eq(ap_backend_open("cpu", 0, *pool, be, &err), AP_OK, "%s", err.text);
}

/* Every kind that the model has, whole and for groups of two, and together what a micro-batch takes. */
AP_TEST(speed, of_a_rank)
{
    struct ap_pool *pool;
    struct ap_backend *be;
    struct ap_error err = {0};
    struct ap_rank_speed r;
    struct ap_job job;
    make_job(&job, "tiny-v3");
    open_backend(&pool, &be);
    struct ap_rank_speed_options o = {.job = &job, .be = be, .memory = 1e12, .tensor = 1, .expert = 1};
    cr_assert_eq(ap_rank_speed(&o, &r, &err), AP_OK, "%s", err.text);
    const struct ap_model_config *c = &job.model.cfg;
    double token = 0, count[AP_WORK_KINDS] = {1, 0, 0, 1};
    for (int64_t l = 0; l < c->layers; l++)
        count[ap_model_layer_is_moe(c, l) ? AP_WORK_MOE : AP_WORK_DENSE]++;
    for (int s = 0; s < AP_WORK_SHAPES; s++) {
        cr_expect(ap_work_measured(&r.work, s));
        for (int k = 0; k < AP_WORK_KINDS; k++) {
            cr_expect_eq(both(r.work.at[s][k]) > 0, count[k] > 0, "%d, %s", s, ap_work_name(k));
            token += s == AP_WORK_WHOLE ? count[k] * both(r.work.at[s][k]) : 0;
        }
    }
    cr_expect_eq(r.work.at[0][AP_WORK_BACK].forward, 0, "head and losses are part of the backward");
    cr_expect(r.work.clear > 0 && r.work.add > 0 && r.update_bytes_s > 0 && r.steps >= 3);
    cr_expect_eq(r.layers, c->layers);
    struct ap_model_count n;
    ap_model_count_params(c, &n);
    double tokens = (double)(job.batch.micro_sequences * job.data.seq_len);
    double micro = tokens * token + (double)(n.total + n.mtp) * (r.work.clear + r.work.add / 2);
    double flops = tokens * ap_model_train_flops_per_token(c, job.data.seq_len);
    cr_expect_float_eq(flops / micro / r.flops_s, 1, 1e-6, "%g FLOP/s, not %g", r.flops_s, flops / micro);

    /* Three heads cannot be shared out to two. */
    job.model.cfg.heads = 3;
    cr_assert_eq(ap_rank_speed(&o, &r, &err), AP_OK, "%s", err.text);
    cr_expect(ap_work_measured(&r.work, AP_WORK_WHOLE) && !ap_work_measured(&r.work, AP_WORK_TENSOR2));
    cr_expect(ap_work_measured(&r.work, AP_WORK_EXPERT2));
    o.tensor = o.expert = 0;
    cr_assert_eq(ap_rank_speed(&o, &r, &err), AP_OK, "%s", err.text);
    cr_expect(!ap_work_measured(&r.work, AP_WORK_EXPERT2), "a rank alone has no group");
    /* A model that does not fit loses layers, none of a kind altogether. */
    o.memory = 1;
    cr_assert_eq(ap_rank_speed(&o, &r, &err), AP_OK, "%s", err.text);
    cr_expect(r.layers < c->layers && both(r.work.at[0][AP_WORK_MOE]) > 0 && both(r.work.at[0][AP_WORK_DENSE]) > 0);
    ap_backend_close(be);
    ap_pool_destroy(pool);
}

static void measure_group(struct vrank *v)
{
    const struct ap_job *job = v->ctx;
    struct ap_pool *pool = NULL;
    struct ap_backend *be = NULL;
    struct ap_group_speed r = {.sum = -1};
    struct ap_error err = {0};
    VCHECK(v, ap_pool_create(1, &pool, &err) == AP_OK && ap_backend_open("cpu", 0, pool, &be, &err) == AP_OK);
    VCHECK(v, ap_group_speed(job, v->comm, be, &r, &err) == AP_OK);
    if (v->comm->size > 1)
        VCHECK(v, r.group.latency > 0 && r.group.bandwidth > 0 && isfinite(r.group.bandwidth) && r.sum > 0);
    else
        VCHECK(v, r.group.bandwidth == 0 && r.sum == 0);
    int64_t bits[2];
    double sum = r.sum;
    memcpy(&bits[0], &sum, sizeof bits[0]);
    bits[1] = -bits[0];
    int64_t own = bits[0];
    VCHECK(v, ap_comm_max_i64(v->comm, bits, 2) == AP_OK && bits[0] == own && -bits[1] == own);
    ap_backend_close(be);
    ap_pool_destroy(pool);
}

AP_TEST(speed, of_groups)
{
    struct ap_job job;
    make_job(&job, "tiny-v3");
    for (int n = 1; n <= 3; n++)
        vranks_run(n, measure_group, &job);
}

static void measure_pair(struct vrank *v)
{
    struct ap_pool *pool = NULL;
    struct ap_backend *be = NULL;
    struct ap_rank_speed r;
    struct ap_error err = {0};
    struct ap_rank_speed_options o = {.job = v->ctx, .memory = 1e12, .tensor = 1, .pair = v->comm};
    VCHECK(v, ap_pool_create(1, &pool, &err) == AP_OK && ap_backend_open("cpu", 0, pool, &be, &err) == AP_OK);
    o.be = be;
    VCHECK(v, ap_rank_speed(&o, &r, &err) == AP_OK);
    VCHECK(v, r.call_s >= 0 && isfinite(r.call_s) && r.call_bytes > 0);
    ap_backend_close(be);
    ap_pool_destroy(pool);
}

/* Two ranks that work in step: what they take beyond themselves. */
AP_TEST(speed, of_a_pair)
{
    struct ap_job job;
    make_job(&job, "tiny-v3");
    vranks_run(2, measure_pair, &job);
}
