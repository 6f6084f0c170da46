/* SPDX-License-Identifier: Apache-2.0
 * One training step. Everything until the commit works beside the committed state: gradients, the shadow
 * weights, the shadow router bias. The ranks agree, then everybody flips; a step that fails on any rank
 * changes nothing on any. A step whose loss or gradient is not finite commits without an update. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "parallel/tree.h"
#include "train/schedule.h"
#include "train/trainer_impl.h"

/* Sequences of the own leaves: leaf i of a step takes samples cursor + i*B .. cursor + (i+1)*B - 1. */
static ap_status fetch(struct ap_trainer *t, int64_t counts[2])
{
    counts[0] = counts[1] = 0;
    for (int64_t leaf = t->lo; leaf < t->hi; leaf++) {
        for (int64_t row = 0; row < t->seqs; row++) {
            struct ap_sample s = ap_batches_row(&t->batches, leaf - t->lo, row);
            AP_TRY(ap_data_fetch(t->train, t->state.samples + leaf * t->seqs + row, &s));
        }
        int64_t ce, mtp;
        ap_batches_count(&t->batches, leaf - t->lo, &ce, &mtp);
        counts[0] += ce;
        counts[1] += mtp;
    }
    return AP_OK;
}

/* The loss is a mean over the global batch, so its weights follow from the agreed counts of targets. */
static struct ap_loss_weights loss_weights(const struct ap_trainer *t, const int64_t counts[2])
{
    const struct ap_job *job = t->job;
    double sequences = (double)(t->leaves * t->seqs);
    int64_t depth = job->model.cfg.mtp_depth;
    return (struct ap_loss_weights){
        .ce = counts[0] > 0 ? 1.0 / (double)counts[0] : 0,
        .mtp = depth > 0 && counts[1] > 0 ? job->loss.mtp_weight / ((double)depth * (double)counts[1]) : 0,
        .seq_balance = job->loss.seq_balance / sequences,
        .device_balance = job->loss.device_balance / sequences,
        .comm_balance = job->loss.comm_balance / sequences,
    };
}

/* Is this rank one that counts the tokens and routes of its micro-batches for all that work on them? */
static int counts_batch(const struct ap_trainer *t)
{
    return t->mesh->coord[AP_AXIS_PIPE] == 0 && t->mesh->coord[AP_AXIS_TENSOR] == 0;
}

static ap_status compute(struct ap_trainer *t, const struct ap_loss_weights *lw, struct ap_error *err)
{
    memset(t->loads, 0, (size_t)(t->routers + 1) * sizeof(*t->loads));
    ap_status st = ap_runner_train(t->runner, &t->batches, lw, ap_router_bias_tensor(t->bias), t->results.own,
                                   t->mesh->coord[AP_AXIS_TENSOR] == 0 ? t->loads : NULL);
    if (st == AP_OK)
        return st;
    return ap_error_set(err, st, "step %lld: a micro-batch of %lld to %lld failed on rank %d: %s",
                        (long long)t->state.step + 1, (long long)t->lo, (long long)t->hi - 1, t->comm->rank,
                        ap_status_name(st));
}

/* Sums over all leaves, in their order; false if the model counted other targets than the loader. */
static int sum_results(const struct ap_trainer *t, const int64_t counts[2], int with_mtp, struct ap_leaf_result *sum)
{
    *sum = (struct ap_leaf_result){0};
    for (int64_t i = 0; i < t->leaves; i++) {
        sum->ce += t->results.all[i].ce;
        sum->mtp += t->results.all[i].mtp;
        sum->balance += t->results.all[i].balance;
        sum->ce_tokens += t->results.all[i].ce_tokens;
        sum->mtp_tokens += t->results.all[i].mtp_tokens;
    }
    return sum->ce_tokens == counts[0] && (!with_mtp || sum->mtp_tokens == counts[1]);
}

static ap_status gather(struct ap_trainer *t, const int64_t counts[2], int with_mtp, struct ap_step_report *r,
                        struct ap_error *err)
{
    struct ap_leaf_result sum;
    AP_TRY(ap_results_gather(&t->results));
    AP_TRY(ap_comm_sum_i64(t->comm, t->loads, t->routers));
    if (!sum_results(t, counts, with_mtp, &sum))
        return ap_error_set(err, AP_ERR_BUG, "the model counted %lld and %lld targets, the loader %lld and %lld",
                            (long long)sum.ce_tokens, (long long)sum.mtp_tokens, (long long)counts[0],
                            (long long)counts[1]);
    r->loss = counts[0] > 0 ? sum.ce / (double)counts[0] : NAN;
    r->mtp_loss = with_mtp ? sum.mtp / (double)counts[1] : NAN;
    r->balance_loss = sum.balance;
    r->load_max = ap_router_load_max(t->loads, t->params->moe_layers, t->job->model.cfg.routed_experts);
    return AP_OK;
}

/* Shadow weights and shadow bias of the next state. */
static ap_status prepare(struct ap_trainer *t, int64_t step, struct ap_step_report *r)
{
    const struct ap_job *job = t->job;
    struct ap_optimizer_hyper h = {
        .lr = r->lr,
        .beta1 = job->optim.beta1,
        .beta2 = job->optim.beta2,
        .eps = job->optim.eps,
        .weight_decay = job->optim.weight_decay,
        .clip = job->optim.clip,
        .t = t->state.updates + 1,
    };
    /* The collective part first: what fails on one rank alone comes last and is agreed on by the commit. */
    AP_TRY(ap_stage_update(t->stage, &h, ap_optimizer_clip_scale(r->grad_norm, h.clip)));
    return ap_router_bias_update(t->bias, t->loads, ap_schedule_bias_rate(job, step));
}

/* The ranks agree that all is well, hear of a stop request and share figures; then the state moves on. */
static ap_status commit(struct ap_trainer *t, ap_status local, struct ap_step_report *r, struct ap_error *err)
{
    AP_TRY(ap_comm_agree(t->comm, local, NULL, err));
    int64_t most[2] = {ap_signals_count(t->opt.signals), ap_environment_memory()};
    if (t->comm->rank == 0 && t->opt.deadline > 0) {
        double margin = 30 + 2 * t->ckpt_s + 2 * (ap_clock_monotonic() - t->begun) / (double)(t->step_count + 1);
        most[0] += ap_clock_wall() + margin > t->opt.deadline;
    }
    AP_TRY(ap_comm_max_i64(t->comm, most, 2));
    r->stop = most[0] > 0;
    r->memory = most[1];

    struct ap_train_state *s = &t->state;
    if (r->skipped) {
        s->skipped++;
        s->skipped_row++;
    } else {
        ap_stage_flip(t->stage);
        ap_router_bias_flip(t->bias);
        s->updates++;
        s->skipped_row = 0;
    }
    s->step++;
    s->samples += t->leaves * t->seqs;
    s->tokens += t->leaves * t->seqs * t->len;
    s->loss = r->loss;
    r->loss_z = ap_zscore_push(&s->loss_z, r->loss);
    r->norm_z = ap_zscore_push(&s->norm_z, r->grad_norm);
    return AP_OK;
}

static ap_status first_half(struct ap_trainer *t, struct ap_step_report *r, int64_t counts[2],
                            struct ap_loss_weights *lw, struct ap_error *err)
{
    double begin = ap_clock_monotonic();
    int64_t sums[3];
    ap_status st = fetch(t, counts);
    if (st != AP_OK)
        ap_error_set(err, st, "step %lld: the loader failed on rank %d: %s", (long long)t->state.step + 1,
                     t->comm->rank, ap_status_name(st));
    ap_trace_end(t->be->trace, "step", "data", NULL, 0, begin);
    r->data_s = ap_clock_monotonic() - begin;
    sums[0] = counts_batch(t) ? counts[0] : 0;
    sums[1] = counts_batch(t) ? counts[1] : 0;
    sums[2] = st != AP_OK;
    AP_TRY(ap_comm_sum_i64(t->comm, sums, 3));
    if (sums[2] > 0)
        return ap_comm_agree(t->comm, st, NULL, err);
    counts[0] = sums[0];
    counts[1] = sums[1];
    *lw = loss_weights(t, counts);
    begin = ap_clock_monotonic();
    st = compute(t, lw, err);
    r->compute_s = ap_clock_monotonic() - begin;
    /* Ranks that work on one micro-batch wait for each other inside it: there is no agreement with them then. */
    if (st != AP_OK && t->mesh->batch->size != t->comm->size)
        return st;
    return ap_comm_agree(t->comm, st, NULL, err);
}

/* Own shards of the summed gradient, and what is known of the global batch. */
static ap_status reduce(struct ap_trainer *t, const int64_t counts[2], int with_mtp, struct ap_step_report *r,
                        struct ap_error *err)
{
    struct ap_trace *trace = t->be->trace;
    AP_TRACE_TRY(trace, "step", "loss gather", NULL, 0, gather(t, counts, with_mtp, r, err));
    AP_TRACE_TRY(trace, "step", "gradient reduction", NULL, 0, ap_stage_reduce(t->stage));
    AP_TRACE_TRY(trace, "step", "gradient norm", NULL, 0, ap_stage_norm(t->stage, &r->grad_norm));
    return AP_OK;
}

ap_status ap_trainer_step(struct ap_trainer *t, struct ap_step_report *r, struct ap_error *err)
{
    int64_t counts[2], step = t->state.step + 1;
    struct ap_loss_weights lw;
    memset(r, 0, sizeof(*r));
    r->lr = ap_schedule_lr(t->job, step);
    ap_stage_reset(t->stage);
    AP_TRY(first_half(t, r, counts, &lw, err));

    double begin = ap_clock_monotonic();
    ap_status st = reduce(t, counts, lw.mtp != 0, r, err);
    /* Loss and norm are the same bits on every rank, so all take the same branch. */
    r->skipped = !isfinite(r->loss) || !isfinite(r->grad_norm);
    if (st == AP_OK && !r->skipped) {
        double now = ap_trace_begin(t->be->trace);
        st = prepare(t, step, r);
        ap_trace_end(t->be->trace, "step", "optimizer", NULL, 0, now);
    }
    if (st == AP_ERR_COMM)
        return ap_error_set(err, st, "step %lld: a rank is gone", (long long)step);
    double now = ap_trace_begin(t->be->trace);
    st = commit(t, st, r, err);
    ap_trace_end(t->be->trace, "step", "commit", NULL, 0, now);
    r->lan_s = ap_clock_monotonic() - begin;
    return st;
}
