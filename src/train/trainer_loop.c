/* SPDX-License-Identifier: Apache-2.0
 * From step to step: evaluation, metrics, console, checkpoints, and the reasons to stop. All branches follow
 * from values that are the same on every rank. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "train/evaluate.h"
#include "train/trainer_impl.h"

static int due(int64_t step, int64_t every)
{
    return every > 0 && step % every == 0;
}

static ap_status loss_of(void *ctx, const struct ap_batch *batch, struct ap_leaf_result *result)
{
    struct ap_trainer *t = ctx;
    return ap_runner_loss(t->runner, batch, ap_router_bias_tensor(t->bias), result);
}

/* *improved_p: this is the best validation loss so far. */
static ap_status evaluate(struct ap_trainer *t, int *improved_p, struct ap_error *err)
{
    struct ap_train_state *s = &t->state;
    struct ap_evaluate_args a = {
        .loss = loss_of,
        .ctx = t,
        .mesh = t->mesh,
        .data = t->valid,
        .micro_sequences = t->seqs,
        .seq_len = t->len,
        .sequences = t->job->eval.sequences,
    };
    struct ap_evaluate_result r = {0};
    AP_TRY(ap_evaluate(&a, &r, err));
    s->valid_loss = r.loss;
    s->valid_step = s->step;
    *improved_p = isfinite(r.loss) && !(s->best_loss <= r.loss);
    if (*improved_p) {
        s->best_loss = r.loss;
        s->best_step = s->step;
    }
    ap_events_emit(t->events, AP_LOG_INFO, s->step, "eval", "validation loss %.4f over %lld tokens, perplexity %.3f%s",
                   r.loss, (long long)r.tokens, exp(r.loss), *improved_p ? ", the best so far" : "");
    return AP_OK;
}

static void remember_time(struct ap_trainer *t, double ms)
{
    t->step_ms[t->step_count++ % t->step_capacity] = ms;
}

/* Seconds to go, by the mean of up to 20 last steps. */
static double eta(const struct ap_trainer *t)
{
    int64_t n = t->step_count < 20 ? t->step_count : 20;
    n = n < t->step_capacity ? n : t->step_capacity;
    double ms = 0;
    for (int64_t i = 0; i < n; i++)
        ms += t->step_ms[(t->step_count - 1 - i) % t->step_capacity];
    return n > 0 ? ms / (double)n * 1e-3 * (double)(t->job->train_steps - t->state.step) : -1;
}

/* Rank 0: the line of the step in the file and, at the cadence of the job, on the console. */
static ap_status record(struct ap_trainer *t, const struct ap_step_report *r, double step_s, double eval_s, int durable,
                        struct ap_error *err)
{
    const struct ap_train_state *s = &t->state;
    double tokens = (double)(t->leaves * t->seqs * t->len);
    struct ap_metrics m = {
        .step = s->step,
        .loss = r->loss,
        .mtp_loss = r->mtp_loss,
        .balance_loss = r->balance_loss,
        .grad_norm = r->grad_norm,
        .loss_z = r->loss_z,
        .norm_z = r->norm_z,
        .lr = r->lr,
        .tokens = s->tokens,
        .skipped = s->skipped,
        .load_max = r->load_max,
        .valid_loss = s->valid_step == s->step ? s->valid_loss : NAN,
        .tokens_per_s = tokens / step_s,
        .step_ms = 1e3 * step_s,
        .compute_ms = 1e3 * r->compute_s,
        .lan_ms = 1e3 * r->lan_s,
        .ckpt_ms = t->ckpt_ms_open,
        .data_ms = 1e3 * r->data_s,
        .eval_ms = 1e3 * eval_s,
        .mfu = t->peak_flops > 0 ? tokens * t->flops_per_token / step_s / t->peak_flops : NAN,
        .memory = r->memory,
        .ranks = t->comm->size,
    };
    char line[512];
    t->ckpt_ms_open = 0;
    AP_TRY(ap_metrics_write(t->metrics, &m, durable, err));
    if (due(s->step, t->job->monitor.log_every) || s->step == t->job->train_steps || r->skipped) {
        ap_metrics_console(&m, t->job->train_steps, eta(t), line, sizeof(line));
        ap_out("%s\n", line);
    }
    return AP_OK;
}

static ap_status check_finite(struct ap_trainer *t, const struct ap_step_report *r, struct ap_error *err)
{
    const struct ap_train_state *s = &t->state;
    if (!r->skipped)
        return AP_OK;
    ap_events_emit(
        t->events, AP_LOG_WARN, s->step, "skip",
        "step %lld skipped: loss %g, gradient norm %g; the weights are unchanged (%lld in a row, %lld in all)",
        (long long)s->step, r->loss, r->grad_norm, (long long)s->skipped_row, (long long)s->skipped);
    if (t->job->limits.nan_steps <= 0 || s->skipped_row < t->job->limits.nan_steps)
        return AP_OK;
    ap_error_set(err, AP_ERR_INVALID, "loss or gradient was not finite in steps %lld to %lld (limits.nan_steps %lld)",
                 (long long)(s->step - s->skipped_row + 1), (long long)s->step, (long long)t->job->limits.nan_steps);
    if (t->saved_step >= 0)
        ap_error_hint(err, "the state of step %lld is kept; lower optim.lr or look at the data of these steps",
                      (long long)t->saved_step);
    else
        ap_error_hint(err, "lower optim.lr or look at the data of these steps");
    return AP_ERR_INVALID;
}

/* What follows the commit of a step. */
static ap_status after_step(struct ap_trainer *t, const struct ap_step_report *r, double step_s, struct ap_error *err)
{
    const struct ap_job *job = t->job;
    int64_t step = t->state.step;
    int last = step == job->train_steps, improved = 0, stop = r->stop && !last;
    double begin = ap_clock_monotonic();
    ap_status nan_st = check_finite(t, r, err);
    if (t->valid && nan_st == AP_OK && (last || due(step, job->eval.every)))
        AP_TRACE_TRY(t->be->trace, "run", "evaluation", "step", step, evaluate(t, &improved, err));
    int save = nan_st == AP_OK && (last || stop || improved || due(step, job->checkpoint.every));

    /* Metrics reach the disk before a state that makes them history. */
    remember_time(t, 1e3 * step_s);
    double now = ap_trace_begin(t->be->trace);
    ap_status st = t->comm->rank == 0 ? record(t, r, step_s, ap_clock_monotonic() - begin, save, err) : AP_OK;
    ap_trace_end(t->be->trace, "run", "metrics", NULL, 0, now);
    AP_TRY(ap_comm_agree(t->comm, st, NULL, err));
    AP_TRY(nan_st);
    if (save)
        AP_TRACE_TRY(t->be->trace, "run", "checkpoint save", "step", step, ap_trainer_save(t, improved, err));
    if (!stop)
        return AP_OK;
    ap_events_emit(t->events, AP_LOG_INFO, step, "stop", "stopped after step %lld, state saved", (long long)step);
    ap_error_set(err, AP_ERR_STOPPED, "stopped on request after step %lld of %lld; the state is saved", (long long)step,
                 (long long)job->train_steps);
    ap_error_hint(err, "start the same job again to go on");
    return AP_ERR_STOPPED;
}

static ap_status one_step(struct ap_trainer *t, struct ap_error *err)
{
    struct ap_step_report r;
    double begin = ap_clock_monotonic();
    ap_status st = ap_trainer_step(t, &r, err);
    ap_tracing_step_done(&t->tracing);
    return st == AP_OK ? after_step(t, &r, ap_clock_monotonic() - begin, err) : st;
}

ap_status ap_trainer_loop(struct ap_trainer *t, struct ap_error *err)
{
    while (t->state.step < t->job->train_steps) {
        int64_t step = t->state.step + 1;
        if (t->mark)
            t->mark(step, 0);
        ap_tracing_step_begin(&t->tracing, step, t->be);
        ap_status st = one_step(t, err);
        ap_tracing_step_end(&t->tracing);
        if (t->mark)
            t->mark(step, 1);
        AP_TRY(st);
    }
    return AP_OK;
}
