/* SPDX-License-Identifier: Apache-2.0
 * Benchmark of one training step and of its replay. Steps and replays alternate, so that both see the same
 * machine; medians are compared. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "train/bench_step.h"
#include "train/environment.h"
#include "train/peak.h"
#include "train/runner.h"

#define WARM_UP 1

struct bench {
    const struct ap_bench_step_options *opt;
    const struct ap_job *job;
    struct ap_pool *pool;
    struct ap_backend *be;
    struct ap_plan *plan;
    struct ap_stage_layout layout;
    struct ap_mesh *mesh;
    struct ap_stage *stage;
    struct ap_runner *runner;
    struct ap_record record;
    struct ap_tracing tracing;
    struct ap_replay *replay;
    struct ap_batches batches;
    struct ap_leaf_result *results; /* [own micro-batches] */
    double *bias, *times;           /* times: [3][repeats] step, replay, compute */
    int repeats;                    /* room in times */
    int64_t updates;
    ap_tensor bias_t;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double ap_bench_median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

static void spread(double *v, int n, double *median, double *least, double *most)
{
    *median = ap_bench_median(v, n);
    *least = v[0];
    *most = v[n - 1];
}

ap_status ap_bench_batches(const struct ap_job *job, int64_t count, struct ap_batches *batches)
{
    int64_t T = job->data.seq_len, B = job->batch.micro_sequences, n = B * T;
    uint64_t V = (uint64_t)job->model.cfg.vocab_size;
    AP_TRY(ap_batches_create(count, B, T, batches));
    for (int64_t k = 0; k < count; k++)
        for (int64_t i = 0; i < n; i++) {
            struct ap_sample s = ap_batches_row(batches, k, i / T);
            s.tokens[i % T] = (int32_t)(ap_rng_u64(job->seed, AP_RNG_TEST, (uint64_t)i) % V);
            s.targets[i % T] = (int32_t)(ap_rng_u64(job->seed, AP_RNG_TEST, (uint64_t)(i + n)) % V);
            s.positions[i % T] = (int32_t)(i % T);
            s.first[i % T] = 0;
        }
    return AP_OK;
}

struct ap_loss_weights ap_bench_weights(const struct ap_job *job, int64_t sequences)
{
    double n = (double)(sequences * job->data.seq_len);
    return (struct ap_loss_weights){.ce = 1.0 / n,
                                    .mtp = job->model.cfg.mtp_depth ? job->loss.mtp_weight / n : 0,
                                    .seq_balance = job->loss.seq_balance / (double)sequences};
}

static ap_status make_batches(struct bench *b)
{
    int64_t own = b->stage->hi - b->stage->lo;
    AP_TRY(ap_bench_batches(b->job, own, &b->batches));
    b->results = calloc((size_t)own, sizeof *b->results);
    b->times = calloc(3 * (size_t)b->repeats, sizeof *b->times);
    return b->results && b->times ? AP_OK : AP_ERR_NOMEM;
}

static ap_status make_state(struct bench *b, struct ap_error *err)
{
    const struct ap_job *job = b->job;
    AP_TRY(ap_plan_from_job(job, b->opt->comm->size, NULL, &b->plan, err));
    AP_TRY(ap_stage_layout(b->plan, &b->layout, err));
    AP_TRY(ap_mesh_create(b->opt->comm, &b->layout.shape, NULL, &b->mesh, err));
    struct ap_stage_options so = {.backend = b->be,
                                  .mesh = b->mesh,
                                  .cfg = &job->model.cfg,
                                  .kind = b->layout.kind,
                                  .chunks = b->layout.chunks,
                                  .layer_begin = b->layout.layer_begin,
                                  .leaf_begin = b->layout.leaf_begin,
                                  .window = b->layout.window,
                                  .leaves = job->batch.global_sequences / job->batch.micro_sequences,
                                  .micro_sequences = job->batch.micro_sequences,
                                  .seq_len = job->data.seq_len,
                                  .dtype = (ap_dtype)job->dtype,
                                  .recompute = b->opt->recompute || job->recompute};
    AP_TRY(ap_stage_create(&so, &b->stage, err));
    AP_TRY(ap_runner_create(b->stage, &b->runner, err));
    int64_t routers = b->stage->chunks[0].params->routers;
    b->bias = calloc((size_t)routers + 1, sizeof *b->bias);
    if (!b->bias)
        return AP_ERR_NOMEM;
    b->bias_t = ap_tensor_1d(b->bias, ap_dtype_full(so.dtype), routers);
    return ap_stage_init_weights(b->stage, &job->model.cfg, job->seed);
}

static ap_status setup(struct bench *b, struct ap_error *err)
{
    const struct ap_job *job = b->job;
    int threads = b->opt->threads > 0 ? b->opt->threads : ap_environment_threads(b->opt->comm->size);
    AP_TRY(ap_tracing_open(&b->tracing, &b->opt->trace, b->opt->comm, threads, err));
    AP_TRY(ap_pool_create(threads, &b->pool, err));
    AP_TRY(ap_backend_open(b->opt->backend ? b->opt->backend : job->backend, 0, b->pool, &b->be, err));
    if (!b->be->vt->is_host)
        return ap_error_set(err, AP_ERR_UNSUPPORTED, "bench step measures host backends; for a GPU see bench/gpu");
    AP_TRY(make_state(b, err));
    return make_batches(b);
}

static ap_status compute(struct bench *b)
{
    struct ap_loss_weights lw = ap_bench_weights(b->job, b->job->batch.global_sequences);
    return ap_runner_train(b->runner, &b->batches, &lw, b->bias_t, b->results, NULL);
}

/* A step as the trainer makes it, without loader and files. */
static ap_status step(struct bench *b, double *seconds_p, double *compute_p)
{
    const struct ap_job *job = b->job;
    AP_TRY(ap_comm_barrier(b->opt->comm));
    double begin = ap_clock_monotonic(), norm;
    AP_TRY(compute(b));
    *compute_p = ap_clock_monotonic() - begin;
    struct ap_trace *trace = b->be->trace;
    AP_TRACE_TRY(trace, "step", "gradient reduction", NULL, 0, ap_stage_reduce(b->stage));
    AP_TRACE_TRY(trace, "step", "gradient norm", NULL, 0, ap_stage_norm(b->stage, &norm));
    struct ap_optimizer_hyper h = {job->optim.lr,           job->optim.beta1, job->optim.beta2, job->optim.eps,
                                   job->optim.weight_decay, job->optim.clip,  ++b->updates};
    AP_TRACE_TRY(trace, "step", "optimizer", NULL, 0,
                 ap_stage_update(b->stage, &h, ap_optimizer_clip_scale(norm, h.clip)));
    ap_stage_flip(b->stage);
    AP_TRY(ap_comm_barrier(b->opt->comm));
    *seconds_p = ap_clock_monotonic() - begin;
    return AP_OK;
}

/* A step, in the trace if it is one of those wanted. */
static ap_status traced_step(struct bench *b, double *seconds_p, double *compute_p)
{
    ap_tracing_step_begin(&b->tracing, b->updates + 1, b->be);
    ap_status st = step(b, seconds_p, compute_p);
    ap_tracing_step_done(&b->tracing);
    ap_tracing_step_end(&b->tracing);
    return st;
}

/* One recorded step gives the list. */
static ap_status make_replay(struct bench *b, struct ap_bench_step_result *res, struct ap_error *err)
{
    double t, c;
    AP_TRY(ap_record_attach(&b->record, b->be, 1));
    ap_status st = step(b, &t, &c);
    ap_record_detach(b->be);
    AP_TRY(st);
    if (b->record.failed)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the list of products");
    memcpy(res->ops, b->record.total, sizeof res->ops);
    if (b->job->dtype == AP_F64 || b->opt->no_replay)
        return AP_OK;
    AP_TRY(ap_replay_create(b->record.products, b->record.product_count, b->pool, &b->replay, err));
    ap_replay_info(b->replay, &res->replay);
    return AP_OK;
}

static ap_status measure(struct bench *b, struct ap_bench_step_result *res, struct ap_error *err)
{
    int n = b->opt->repeats;
    double *t = b->times, *replay = t + n, *compute = t + 2 * n, unused[2];
    for (int i = 0; i < WARM_UP; i++)
        AP_TRY(traced_step(b, &unused[0], &unused[1]));
    AP_TRY(make_replay(b, res, err));
    if (b->replay)
        AP_TRY(ap_replay_run(b->replay, &unused[0]));
    for (int i = 0; i < n; i++) {
        AP_TRY(traced_step(b, &t[i], &compute[i]));
        if (b->replay)
            AP_TRY(ap_replay_run(b->replay, &replay[i]));
    }
    spread(t, n, &res->step_s, &res->step_min_s, &res->step_max_s);
    if (b->replay)
        spread(replay, n, &res->replay_s, &res->replay_min_s, &res->replay_max_s);
    spread(compute, n, &res->compute_s, &unused[0], &unused[1]);
    return AP_OK;
}

#define COPY_BYTES  ((size_t)128 << 20)
#define COPY_PIECES 64

static void copy_task(void *ctx, int64_t task, int worker)
{
    char *const *mem = ctx;
    size_t piece = COPY_BYTES / COPY_PIECES;
    (void)worker;
    memcpy(mem[0] + (size_t)task * piece, mem[1] + (size_t)task * piece, piece);
}

/* Best of five copies of a block far larger than the caches. */
static ap_status copy_bandwidth(struct ap_pool *pool, double *bytes_s_p)
{
    char *mem[2] = {malloc(COPY_BYTES), malloc(COPY_BYTES)};
    ap_status st = mem[0] && mem[1] ? AP_OK : AP_ERR_NOMEM;
    double best = 0;
    if (st == AP_OK) {
        memset(mem[0], 1, COPY_BYTES);
        memset(mem[1], 2, COPY_BYTES);
    }
    for (int i = 0; st == AP_OK && i < 5; i++) {
        double begin = ap_clock_monotonic();
        ap_pool_run(pool, COPY_PIECES, copy_task, mem);
        double rate = 2.0 * (double)COPY_BYTES / (ap_clock_monotonic() - begin);
        best = rate > best ? rate : best;
    }
    free(mem[0]);
    free(mem[1]);
    *bytes_s_p = best;
    return st;
}

static ap_status run(struct bench *b, struct ap_bench_step_result *res, struct ap_error *err)
{
    const struct ap_job *job = b->job;
    AP_TRY(setup(b, err));
    AP_TRY(measure(b, res, err));
    AP_TRY(ap_peak_gemm(b->be, job->dtype == AP_BF16 ? AP_BF16 : AP_F32, 1024, 0.5, &res->peak_flops));
    AP_TRY(copy_bandwidth(b->pool, &res->copy_bytes_s));
    strncpy(res->backend, b->be->vt->name, sizeof res->backend - 1);
    res->ranks = b->opt->comm->size;
    res->threads = ap_pool_threads(b->pool);
    res->tokens = job->batch.global_sequences * job->data.seq_len;
    res->model_flops = (double)res->tokens * ap_model_train_flops_per_token(&job->model.cfg, job->data.seq_len);
    res->activation_bytes = ap_stage_model_bytes(b->stage);
    res->peak_bytes = ap_environment_memory();
    return AP_OK;
}

static void clear(struct bench *b)
{
    ap_replay_destroy(b->replay);
    ap_record_free(&b->record);
    ap_runner_destroy(b->runner);
    ap_stage_destroy(b->stage);
    ap_mesh_destroy(b->mesh);
    ap_stage_layout_free(&b->layout);
    ap_plan_destroy(b->plan);
    ap_batches_free(&b->batches);
    ap_backend_close(b->be);
    ap_pool_destroy(b->pool);
    free(b->results);
    free(b->bias);
    free(b->times);
}

ap_status ap_bench_step(const struct ap_bench_step_options *opt, struct ap_bench_step_result *res_p,
                        struct ap_error *err)
{
    struct bench b = {.opt = opt, .job = opt->job, .repeats = opt->repeats};
    struct ap_bench_step_result res = {0};
    struct ap_error own = {0};
    if (!err)
        err = &own;
    err->status = AP_OK;
    ap_status st = run(&b, &res, err);
    if (st != AP_OK && err->status == AP_OK)
        ap_error_set(err, st, "the benchmark step failed: %s", ap_status_name(st));
    ap_tracing_close(&b.tracing, st == AP_OK);
    clear(&b);
    if (st == AP_OK)
        *res_p = res;
    return st;
}
