/* SPDX-License-Identifier: Apache-2.0
 * Everything before the first step. Rank 0 owns the run directory and takes the decisions; each phase ends
 * with an agreement, so that all ranks leave together with one message. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "parallel/mesh_device.h"
#include "parallel/tree.h"
#include "train/peak.h"
#include "train/trainer_impl.h"

#define STEP_TIMES_MAX ((int64_t)1 << 20)

ap_status ap_trainer_path(const struct ap_trainer *t, const char *name, char *buf, size_t size, struct ap_error *err)
{
    if (snprintf(buf, size, "%s/%s", t->job->run_dir, name) >= (int)size)
        return ap_error_set(err, AP_ERR_INPUT, "the path of the run directory is longer than %zu bytes", size - 1);
    return AP_OK;
}

static struct ap_stage_options stage_options(const struct ap_trainer *t)
{
    return (struct ap_stage_options){
        .backend = t->be,
        .mesh = t->mesh,
        .cfg = &t->job->model.cfg,
        .kind = t->layout.kind,
        .chunks = t->layout.chunks,
        .layer_begin = t->layout.layer_begin,
        .leaf_begin = t->layout.leaf_begin,
        .window = t->layout.window,
        .leaves = t->leaves,
        .micro_sequences = t->seqs,
        .seq_len = t->len,
        .dtype = (ap_dtype)t->job->dtype,
        .recompute = t->job->recompute,
    };
}

/* One job for a run directory. The lock goes with the process, however it ends. */
static ap_status lock_run(struct ap_trainer *t, struct ap_error *err)
{
    char path[4096];
    AP_TRY(ap_trainer_path(t, "LOCK", path, sizeof(path), err));
    t->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (t->lock_fd < 0) {
        int e = errno;
        ap_error_set(err, ap_status_from_errno(e), "cannot write to the run directory: %s", strerror(e));
        ap_error_at(err, path, 0, 0);
        ap_error_hint(err, "set run_dir to a directory that you may write to");
        return ap_status_from_errno(e);
    }
    if (flock(t->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        int e = errno;
        if (e != EWOULDBLOCK)
            return ap_error_set(err, ap_status_from_errno(e), "cannot lock the run directory: %s", strerror(e));
        ap_error_set(err, AP_ERR_LOCKED, "another job is running in this run directory");
        ap_error_at(err, t->job->run_dir, 0, 0);
        ap_error_hint(err, "wait for it to end, or give this job another name or run_dir");
        return AP_ERR_LOCKED;
    }
    return AP_OK;
}

static ap_status open_run_dir(struct ap_trainer *t, struct ap_error *err)
{
    char path[4096], dir[4096];
    AP_TRY(ap_io_mkdirs(t->job->run_dir, err));
    AP_TRY(lock_run(t, err));
    AP_TRY(ap_trainer_path(t, "log.txt", path, sizeof(path), err));
    if (ap_log_open(path) != 0)
        return ap_error_set(err, AP_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    AP_TRY(ap_trainer_path(t, "job.yaml", path, sizeof(path), err));
    char *yaml = ap_job_yaml(t->job);
    ap_status st =
        yaml ? ap_io_write_durable(path, yaml, strlen(yaml), err) : ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    free(yaml);
    AP_TRY(st);
    AP_TRY(ap_trainer_path(t, "events.jsonl", path, sizeof(path), err));
    AP_TRY(ap_events_open(path, INT64_MAX, &t->events, err));
    AP_TRY(ap_trainer_path(t, "decisions.jsonl", path, sizeof(path), err));
    AP_TRY(ap_journal_open(path, &t->journal, err));
    if (t->opt.replay)
        AP_TRY(ap_journal_read(t->opt.replay, &t->replay, err));
    AP_TRY(ap_trainer_ckpt_dir(t, dir, sizeof(dir), err));
    return ap_trainer_restore_journal(t, dir, err);
}

/* What `backend: auto` is here: cuda where every rank has a device of its own, else cpu. */
static ap_status find_backend(struct ap_trainer *t)
{
    int64_t without = 0;
    if (!t->job->backend || strcmp(t->job->backend, "auto") == 0)
        without = strcmp(ap_backend_auto(t->opt.node_rank), "cuda") != 0;
    AP_TRY(ap_comm_sum_i64(t->comm, &without, 1));
    if (without > 0 && without < t->comm->size && t->comm->rank == 0)
        ap_info("backend auto takes cpu: %lld of %d ranks have no GPU of their own", (long long)without, t->comm->size);
    snprintf(t->backend_name, sizeof(t->backend_name), "%s", without ? "cpu" : "cuda");
    return AP_OK;
}

/* What the machine chooses when the job does not: taken from this run's journal, else from the run to replay,
 * else decided now. A new value is in the journal before it is used. */
static ap_status settle_backend(struct ap_trainer *t, struct ap_error *err)
{
    const struct ap_decision *d = ap_journal_find(t->journal, "backend", INT64_MAX), *r = NULL;
    char before[32] = "", isa[32] = "", value[128];
    if (t->replay)
        r = ap_journal_find(t->replay, "backend", INT64_MAX);
    if (t->job->backend && strcmp(t->job->backend, "auto") != 0)
        snprintf(t->backend_name, sizeof(t->backend_name), "%s", t->job->backend);
    else if (d || r)
        AP_TRY(ap_decision_text(d ? d : r, "name", t->backend_name, sizeof(t->backend_name)));
    if (d) {
        ap_decision_text(d, "name", before, sizeof(before));
        ap_decision_text(d, "isa", isa, sizeof(isa));
    }
    const char *now = ap_environment_isa();
    if (d && strcmp(isa, now) != 0)
        ap_events_emit(t->events, AP_LOG_WARN, 0, "changed",
                       "the instruction set was %s and is %s now: the bits of the run may differ", isa, now);
    if (d && strcmp(before, t->backend_name) == 0 && strcmp(isa, now) == 0)
        return AP_OK;
    snprintf(value, sizeof(value), "{\"name\":\"%s\",\"isa\":\"%s\"}", t->backend_name, now);
    return ap_journal_decide(t->journal, 1, "backend", value, err);
}

static ap_status settle_threads(struct ap_trainer *t, struct ap_error *err)
{
    const struct ap_decision *d = ap_journal_find(t->journal, "threads", INT64_MAX), *r = NULL;
    int64_t n = t->opt.reprod ? 1 : ap_environment_threads(t->opt.node_ranks), before = -1;
    char value[64];
    if (t->replay)
        r = ap_journal_find(t->replay, "threads", INT64_MAX);
    if (d)
        AP_TRY(ap_decision_i64(d, "per_rank", &before));
    if (t->job->threads != AP_AUTO)
        n = t->job->threads;
    else if (d)
        n = before;
    else if (r)
        AP_TRY(ap_decision_i64(r, "per_rank", &n));
    t->threads = (int)n;
    if (n == before)
        return AP_OK;
    snprintf(value, sizeof(value), "{\"per_rank\":%lld}", (long long)n);
    return ap_journal_decide(t->journal, 1, "threads", value, err);
}

static ap_status settle(struct ap_trainer *t, struct ap_error *err)
{
    ap_status st = settle_backend(t, err);
    if (st == AP_OK)
        st = settle_threads(t, err);
    return st == AP_ERR_NOTFOUND ? ap_error_set(err, AP_ERR_CORRUPT, "a decision in the journal lacks its value") : st;
}

/* Batch split and mesh, once the step they hold from is known. The number of data ranks does not change the bits. The
 * journal may know of later steps, of a state that is damaged now: what counts is what held for the next step. */
static ap_status note_split(struct ap_trainer *t, struct ap_error *err)
{
    char batch[128], world[160];
    struct {
        const char *kind, *value;
    } note[2] = {{"batch", batch}, {"world", world}};
    snprintf(batch, sizeof(batch), "{\"micro_batches\":%lld,\"micro_sequences\":%lld}", (long long)t->leaves,
             (long long)t->seqs);
    const int *n = t->mesh->shape.size;
    snprintf(world, sizeof(world), "{\"ranks\":%d}", t->comm->size);
    if (n[AP_AXIS_DATA] != t->comm->size)
        snprintf(world, sizeof(world), "{\"ranks\":%d,\"pipeline\":%d,\"data\":%d,\"expert\":%d,\"tensor\":%d}",
                 t->comm->size, n[AP_AXIS_PIPE], n[AP_AXIS_DATA], n[AP_AXIS_EXPERT], n[AP_AXIS_TENSOR]);
    for (int i = 0; i < 2; i++) {
        const struct ap_decision *d = ap_journal_find(t->journal, note[i].kind, t->state.step + 1);
        if (!d || strcmp(d->value, note[i].value) != 0)
            AP_TRY(ap_journal_decide(t->journal, t->state.step + 1, note[i].kind, note[i].value, err));
    }
    return AP_OK;
}

static ap_status open_data(struct ap_trainer *t, struct ap_error *err)
{
    const struct ap_job *job = t->job;
    struct ap_data_options opt = {.seq_len = t->len,
                                  .vocab_size = job->model.cfg.vocab_size,
                                  .seed = job->seed,
                                  .mask_documents = job->data.mask_documents,
                                  .shuffle = 1};
    AP_TRY(ap_data_open(job->data.train, job->data.train_count, &opt, &t->train, err));
    if (job->data.valid_count == 0)
        return AP_OK;
    opt.shuffle = 0;
    return ap_data_open(job->data.valid, job->data.valid_count, &opt, &t->valid, err);
}

static ap_status open_model(struct ap_trainer *t, struct ap_error *err)
{
    const struct ap_job *job = t->job;
    struct ap_stage_options so = stage_options(t);
    AP_TRY(ap_stage_create(&so, &t->stage, err));
    AP_TRY(ap_runner_create(t->stage, &t->runner, err));
    t->params = t->stage->chunks[0].params;
    t->routers = t->params->routers;
    t->lo = t->stage->lo;
    t->hi = t->stage->hi;
    AP_TRY(
        ap_router_bias_create(t->be, &job->model.cfg, t->params->moe_layers, ap_dtype_full(so.dtype), &t->bias, err));
    ap_status st = ap_stage_init_weights(t->stage, &job->model.cfg, job->seed);
    return st == AP_OK ? st : ap_error_set(err, st, "the initial weights could not be stored");
}

static ap_status open_buffers(struct ap_trainer *t, struct ap_error *err)
{
    ap_status st = ap_batches_create(t->hi - t->lo, t->seqs, t->len, &t->batches);
    if (st == AP_OK)
        st = ap_results_create(t->mesh, t->leaves, t->layout.leaf_begin, &t->results);
    t->loads = calloc((size_t)t->routers + 1, sizeof(*t->loads));
    if (st != AP_OK || !t->loads)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for %lld micro-batches", (long long)t->leaves);
    return AP_OK;
}

/* The local parts of each rank: before and after the ranks' devices are joined. */
static ap_status open_device(struct ap_trainer *t, struct ap_error *err)
{
    AP_TRY(open_data(t, err));
    AP_TRY(ap_pool_create(t->threads, &t->pool, err));
    return ap_backend_open(t->backend_name, t->opt.node_rank, t->pool, &t->be, err);
}

static ap_status open_work(struct ap_trainer *t, struct ap_error *err)
{
    AP_TRY(open_model(t, err));
    return open_buffers(t, err);
}

static ap_status open_rank(struct ap_trainer *t, struct ap_error *err)
{
    AP_TRY(ap_comm_agree(t->comm, open_device(t, err), NULL, err));
    AP_TRY(ap_mesh_attach(t->mesh, t->be, (enum ap_mesh_path)t->job->parallel.device_comm,
                          t->job->parallel.device_timeout, err));
    return ap_comm_agree(t->comm, open_work(t, err), NULL, err);
}

/* All ranks at once, so that shared processors count as shared; the better of two sizes, since a plain kernel
 * is fast only inside the caches. A figure for MFU only. */
static ap_status measure_peak(struct ap_trainer *t, struct ap_error *err)
{
    static const int64_t sizes[] = {96, 512};
    double best = 0;
    t->flops_per_token = ap_model_train_flops_per_token(&t->job->model.cfg, t->len);
    t->peak_flops = t->job->monitor.peak_gflops * 1e9;
    if (!isnan(t->peak_flops))
        return AP_OK;
    AP_TRY(ap_comm_barrier(t->comm));
    int plain = strcmp(t->backend_name, "reference") == 0;
    ap_status st = AP_OK;
    for (int i = 0; st == AP_OK && i < 2 - plain; i++) {
        double flops = 0;
        st = ap_peak_gemm(t->be, (ap_dtype)t->job->dtype, sizes[i], 0.1, &flops);
        best = flops > best ? flops : best;
    }
    if (st != AP_OK)
        ap_error_set(err, st, "a GEMM on backend %s failed: %s", t->backend_name, ap_status_name(st));
    AP_TRY(ap_comm_agree(t->comm, st, NULL, err));
    int64_t sum = (int64_t)best;
    AP_TRY(ap_comm_sum_i64(t->comm, &sum, 1));
    t->peak_flops = (double)sum;
    return AP_OK;
}

static ap_status open_store(struct ap_trainer *t, struct ap_error *err)
{
    char dir[4096];
    AP_TRY(ap_trainer_ckpt_dir(t, dir, sizeof(dir), err));
    struct ap_ckpt_options opt = {.dir = dir, .keep = t->job->checkpoint.keep, .pool = t->pool};
    AP_TRY(ap_ckpt_store_open(&opt, t->comm, &t->store, err));
    if (t->job->checkpoint.resume)
        return ap_trainer_resume(t, err);
    /* Without resume a state in the directory would be mixed with the new run's. */
    int64_t count = 0;
    if (t->comm->rank == 0) {
        struct ap_ckpt_entry *list = NULL;
        int n = 0;
        if (ap_ckpt_list(dir, &list, &n, NULL) == AP_OK)
            count = n;
        free(list);
    }
    AP_TRY(ap_comm_max_i64(t->comm, &count, 1));
    if (count == 0)
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "checkpoint.resume is off, but %lld states of an earlier run are here",
                 (long long)count);
    ap_error_at(err, dir, 0, 0);
    ap_error_hint(err, "choose another run_dir, or set checkpoint.resume to auto");
    return AP_ERR_INPUT;
}

/* The files of rank 0 that follow the resumed step. */
static ap_status open_records(struct ap_trainer *t, struct ap_error *err)
{
    char path[4096];
    AP_TRY(ap_trainer_path(t, "metrics.jsonl", path, sizeof(path), err));
    AP_TRY(ap_metrics_open(path, t->state.step, &t->metrics, err));
    ap_events_close(t->events);
    t->events = NULL;
    AP_TRY(ap_trainer_path(t, "events.jsonl", path, sizeof(path), err));
    AP_TRY(ap_events_open(path, t->state.step, &t->events, err));
    return note_split(t, err);
}

static void announce(struct ap_trainer *t)
{
    const struct ap_job *job = t->job;
    struct ap_model_count n;
    char pool[64] = "";
    ap_model_count_params(&job->model.cfg, &n);
    if (t->threads > 1)
        snprintf(pool, sizeof(pool), " of %d threads", t->threads);
    ap_events_emit(
        t->events, AP_LOG_INFO, t->state.step, "start",
        "%s: %s, %.2fM parameters (%.2fM with MTP, %.2fM active), %lld steps of %lld sequences of %lld tokens, "
        "%d rank%s%s, backend %s (%s), seed %llu",
        job->name, job->model.cfg.name, (double)n.total / 1e6, (double)(n.total + n.mtp) / 1e6, (double)n.active / 1e6,
        (long long)job->train_steps, (long long)job->batch.global_sequences, (long long)t->len, t->comm->size,
        t->comm->size == 1 ? "" : "s", pool, t->backend_name, t->env.isa, (unsigned long long)job->seed);
    ap_info("MFU is relative to %.1f GFLOP/s, %s", t->peak_flops / 1e9,
            isnan(job->monitor.peak_gflops) ? "measured now with a plain GEMM on all ranks at once"
                                            : "as the job says");
    const int *axes = t->mesh->shape.size;
    if (axes[AP_AXIS_DATA] != t->comm->size)
        ap_info("mesh: data %d x expert %d x tensor %d x pipeline %d", axes[AP_AXIS_DATA], axes[AP_AXIS_EXPERT],
                axes[AP_AXIS_TENSOR], axes[AP_AXIS_PIPE]);
    ap_info("memory for each rank: model %.1f MiB, gradients %.1f MiB",
            (double)ap_stage_model_bytes(t->stage) / 1048576, (double)ap_stage_gradient_bytes(t->stage) / 1048576);
}

/* Before the threads are decided: what they can come to. */
static int most_threads(const struct ap_trainer *t)
{
    int64_t n = t->job->threads;
    return n != AP_AUTO ? (int)n : ap_environment_threads(1);
}

/* Step times are kept for medians, the newest ones of a very long run. */
static ap_status open_times(struct ap_trainer *t, struct ap_error *err)
{
    int64_t n = t->job->train_steps - t->state.step;
    t->step_capacity = n < 1 ? 1 : n > STEP_TIMES_MAX ? STEP_TIMES_MAX : n;
    t->step_ms = calloc((size_t)t->step_capacity, sizeof(*t->step_ms));
    ap_status st = t->step_ms ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "out of memory for step times");
    return ap_comm_agree(t->comm, st, NULL, err);
}

ap_status ap_trainer_setup(struct ap_trainer *t, struct ap_error *err)
{
    struct {
        char backend[32];
        int threads;
    } choice = {"", 0};
    t->lock_fd = -1;
    t->saved_step = -1;
    t->begun = ap_clock_monotonic();
    t->state = (struct ap_train_state){.loss = NAN, .valid_loss = NAN, .best_loss = NAN};
    t->mark = ap_step_mark_find();
    AP_TRY(ap_trainer_plan_check(t, err));
    AP_TRY(ap_tracing_open(&t->tracing, &t->opt.trace, t->comm, most_threads(t), err));
    AP_TRY(find_backend(t));
    ap_status st = AP_OK;
    if (t->comm->rank == 0) {
        st = open_run_dir(t, err);
        if (st == AP_OK)
            st = settle(t, err);
        snprintf(choice.backend, sizeof(choice.backend), "%s", t->backend_name);
        choice.threads = t->threads;
    }
    AP_TRY(ap_comm_agree(t->comm, st, NULL, err));
    AP_TRY(ap_comm_bcast(t->comm, &choice, sizeof(choice), 0));
    snprintf(t->backend_name, sizeof(t->backend_name), "%s", choice.backend);
    t->threads = choice.threads;
    AP_TRY(ap_trainer_plan(t, err));
    AP_TRY(ap_environment_gather(t->comm, t->opt.mpi_version, &t->env));
    AP_TRY(open_rank(t, err));
    AP_TRY(open_store(t, err));
    AP_TRY(open_times(t, err));
    AP_TRY(measure_peak(t, err));
    st = t->comm->rank == 0 ? open_records(t, err) : AP_OK;
    AP_TRY(ap_comm_agree(t->comm, st, NULL, err));
    if (t->comm->rank == 0)
        announce(t);
    t->begun = ap_clock_monotonic();
    return AP_OK;
}

void ap_trainer_teardown(struct ap_trainer *t)
{
    ap_metrics_close(t->metrics);
    ap_events_close(t->events);
    ap_journal_close(t->journal);
    ap_journal_close(t->replay);
    ap_ckpt_store_close(t->store);
    ap_batches_free(&t->batches);
    ap_results_free(&t->results);
    free(t->loads);
    free(t->step_ms);
    if (t->be) {
        ap_router_bias_destroy(t->bias);
        ap_runner_destroy(t->runner);
        ap_stage_destroy(t->stage);
        ap_mesh_detach(t->mesh);
        ap_backend_close(t->be);
    }
    ap_mesh_destroy(t->mesh);
    ap_stage_layout_free(&t->layout);
    ap_plan_destroy(t->plan);
    ap_pool_destroy(t->pool);
    ap_data_close(t->train);
    ap_data_close(t->valid);
    if (t->lock_fd >= 0)
        close(t->lock_fd);
}
