/* SPDX-License-Identifier: Apache-2.0
 * The end of a run: hash of the weights, summary.json, FOM lines, and VALID or INVALID as the last line. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "train/trainer_impl.h"
#include "train/weights_hash.h"

#define SUMMARY_VERSION 1

/* Bytes of a message; 512 is the error record's own limit less its place. */
#define REASON 768

ap_status ap_trainer_weights_hash(struct ap_trainer *t, char hex[33], struct ap_error *err)
{
    size_t bytes = 0;
    int first = t->mesh->world->rank == 0;
    struct ap_hasher *h = first ? ap_hasher_create() : NULL;
    ap_status st = first && !h ? ap_error_set(err, AP_ERR_NOMEM, "out of memory") : AP_OK;
    AP_TRY(ap_comm_agree(t->comm, st, NULL, err));
    st = ap_weights_hash(t->stage, &t->job->model.cfg, h, err);
    const void *bias = ap_router_bias_host(t->bias, &bytes);
    if (h && bias)
        ap_hasher_update(h, bias, bytes);
    if (h)
        ap_hash128_hex(ap_hasher_digest(h), hex);
    ap_hasher_destroy(h);
    AP_TRY(ap_comm_agree(t->comm, st, NULL, err));
    /* The first slot of the mesh need not be the rank that writes the summary. */
    return ap_comm_bcast(t->mesh->world, hex, 33, 0);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median of the step times of this process (of its newest ones, in a very long run); NaN without a step. */
static double median_ms(const struct ap_trainer *t)
{
    int64_t n = t->step_count < t->step_capacity ? t->step_count : t->step_capacity;
    double *sorted = n > 0 ? malloc((size_t)n * sizeof(*sorted)) : NULL;
    if (!sorted)
        return NAN;
    memcpy(sorted, t->step_ms, (size_t)n * sizeof(*sorted));
    qsort(sorted, (size_t)n, sizeof(*sorted), by_value);
    double m = n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]);
    free(sorted);
    return m;
}

/* The job's own criteria, worst first. Empty reason: valid. */
static void judge(const struct ap_trainer *t, double bigram, const char *hash, char *reason, size_t size)
{
    const struct ap_job *job = t->job;
    double best = t->state.best_loss;
    int band = isfinite(job->expect.valid_loss_max) || isfinite(job->expect.valid_loss_min) || job->expect.below_bigram;
    reason[0] = 0;
    if (!isfinite(t->state.loss))
        snprintf(reason, size, "the last training loss is not finite");
    else if (t->valid && !isfinite(best))
        snprintf(reason, size, "no evaluation gave a finite validation loss");
    else if (band && !isfinite(best))
        snprintf(reason, size, "the job states a validation loss, but has no validation data");
    else if (isfinite(job->expect.valid_loss_max) && best > job->expect.valid_loss_max)
        snprintf(reason, size, "best validation loss %.4f is above expect.valid_loss_max %.4f", best,
                 job->expect.valid_loss_max);
    else if (isfinite(job->expect.valid_loss_min) && best < job->expect.valid_loss_min)
        snprintf(reason, size, "best validation loss %.4f is below expect.valid_loss_min %.4f", best,
                 job->expect.valid_loss_min);
    else if (job->expect.below_bigram && !(best < bigram))
        snprintf(reason, size, "best validation loss %.4f is not below the bigram entropy %.4f of the validation data",
                 best, bigram);
    else if (job->expect.weights_hash && job->expect.weights_hash[0] && strcmp(job->expect.weights_hash, hash) != 0)
        snprintf(reason, size, "weights hash %s is not expect.weights_hash %s", hash, job->expect.weights_hash);
}

struct ending {
    const char *verdict; /* valid, invalid, stopped */
    const char *reason, *hash;
    double bigram, median_ms, tokens_per_s, mfu;
};

static ap_status write_summary(struct ap_trainer *t, const struct ending *e, struct ap_error *err)
{
    const struct ap_train_state *s = &t->state;
    char path[4096];
    struct ap_json j = {.indent = 2};
    ap_json_begin_object(&j, NULL);
    ap_json_str(&j, "format", "antipode-summary");
    ap_json_int(&j, "version", SUMMARY_VERSION);
    ap_json_str(&j, "name", t->job->name);
    ap_json_str(&j, "verdict", e->verdict);
    ap_json_str(&j, "reason", e->reason[0] ? e->reason : NULL);
    ap_json_str(&j, "job_hash", t->job->content_hash);
    ap_json_uint(&j, "seed", t->job->seed);
    ap_json_int(&j, "steps", s->step);
    ap_json_int(&j, "train_steps", t->job->train_steps);
    ap_json_int(&j, "tokens", s->tokens);
    ap_json_real(&j, "final_loss", s->loss);
    ap_json_real(&j, "valid_loss", s->valid_loss);
    ap_json_real(&j, "best_valid_loss", s->best_loss);
    ap_json_int(&j, "best_step", s->best_step);
    ap_json_real(&j, "bigram_entropy", e->bigram);
    ap_json_str(&j, "weights_xxh3_128", e->hash[0] ? e->hash : NULL);
    ap_json_real(&j, "wall_seconds", s->seconds + ap_clock_monotonic() - t->begun);
    ap_json_real(&j, "step_ms_median", e->median_ms);
    ap_json_real(&j, "step_ms_predicted", 1e3 * t->plan->predicted.step);
    ap_json_real(&j, "tokens_per_s", e->tokens_per_s);
    ap_json_real(&j, "mfu", e->mfu);
    ap_json_real(&j, "peak_flops_measured", isnan(t->job->monitor.peak_gflops) ? t->peak_flops : NAN);
    ap_json_int(&j, "resumes", s->resumes);
    ap_json_int(&j, "steps_skipped", s->skipped);
    ap_json_str(&j, "backend", t->backend_name);
    ap_json_int(&j, "threads_per_rank", t->threads);
    ap_json_int(&j, "micro_batches", t->leaves);
    ap_json_bool(&j, "reprod", t->opt.reprod);
    ap_environment_json(&t->env, "environment", &j);
    ap_json_end_object(&j);
    ap_strbuf_add(&j.text, "\n");
    char *text = ap_strbuf_take(&j.text);
    ap_status st = text ? ap_trainer_path(t, "summary.json", path, sizeof(path), err)
                        : ap_error_set(err, AP_ERR_NOMEM, "out of memory for the summary");
    if (st == AP_OK)
        st = ap_io_write_durable(path, text, strlen(text), err);
    free(text);
    return st;
}

static void fom(const char *name, double value, const char *unit)
{
    if (isfinite(value))
        ap_out("FOM %s=%.6g %s\n", name, value, unit);
}

static void print_ending(const struct ap_trainer *t, const struct ending *e)
{
    fom("step_ms", e->median_ms, "ms");
    fom("predicted_step_ms", 1e3 * t->plan->predicted.step, "ms");
    fom("tokens_per_s", e->tokens_per_s, "token/s");
    fom("mfu", 100 * e->mfu, "%");
    fom("peak", t->peak_flops / 1e9, "GFLOP/s");
    fom("final_loss", t->state.loss, "nat");
    fom("valid_loss", t->state.best_loss, "nat");
    fom("bigram_entropy", e->bigram, "nat");
    fom("skipped", (double)t->state.skipped, "step");
    if (e->hash[0])
        ap_out("weights xxh3-128 %s\n", e->hash);
    if (e->reason[0])
        ap_out("INVALID: %s\n", e->reason);
    else
        ap_out("VALID %lld steps, training loss %.4f, best validation loss %.4f\n", (long long)t->state.step,
               t->state.loss, t->state.best_loss);
}

/* Rank 0. Fills reason. */
static ap_status conclude(struct ap_trainer *t, ap_status status, char *reason, struct ap_train_result *res,
                          struct ap_error *err)
{
    struct ending e = {.verdict = "stopped", .reason = reason, .hash = res->weights_hash, .bigram = NAN};
    e.median_ms = median_ms(t);
    e.tokens_per_s = (double)(t->leaves * t->seqs * t->len) / (1e-3 * e.median_ms);
    e.mfu = t->peak_flops > 0 ? e.tokens_per_s * t->flops_per_token / t->peak_flops : NAN;
    if (t->valid && status == AP_OK)
        AP_TRY(ap_data_bigram_entropy(t->valid, &e.bigram, err));
    if (status == AP_OK)
        judge(t, e.bigram, res->weights_hash, reason, REASON);
    if (status != AP_ERR_STOPPED)
        e.verdict = reason[0] ? "invalid" : "valid";
    AP_TRY(write_summary(t, &e, err));
    if (status == AP_ERR_STOPPED)
        return AP_OK;
    ap_events_emit(t->events, AP_LOG_DEBUG, t->state.step, "end", "%s after step %lld%s%s", e.verdict,
                   (long long)t->state.step, reason[0] ? ": " : "", reason);
    print_ending(t, &e);
    return AP_OK;
}

ap_status ap_trainer_verdict(struct ap_trainer *t, ap_status status, struct ap_train_result *res, struct ap_error *err)
{
    struct {
        char reason[REASON], hash[33];
    } shared = {"", ""};
    const struct ap_train_state *s = &t->state;
    *res = (struct ap_train_result){s->step, s->loss, s->valid_loss, s->best_loss, s->best_step, s->skipped, ""};
    if (status != AP_OK && status != AP_ERR_STOPPED && status != AP_ERR_INVALID)
        return status;
    ap_status st = AP_OK;
    struct ap_error late = {0};
    if (status == AP_OK)
        st = ap_trainer_weights_hash(t, res->weights_hash, &late);
    if (st == AP_OK && t->comm->rank == 0) {
        if (status == AP_ERR_INVALID && err)
            snprintf(shared.reason, sizeof(shared.reason), "%.700s", err->text);
        if (status == AP_ERR_INVALID && err && err->hint[0])
            ap_info("%s", err->hint);
        st = conclude(t, status, shared.reason, res, &late);
        memcpy(shared.hash, res->weights_hash, sizeof(shared.hash));
    }
    st = ap_comm_agree(t->comm, st, NULL, &late);
    if (st == AP_OK)
        st = ap_comm_bcast(t->comm, &shared, sizeof(shared), 0);
    if (st != AP_OK) {
        if (err)
            *err = late;
        return st;
    }
    memcpy(res->weights_hash, shared.hash, sizeof(shared.hash));
    if (status == AP_OK && shared.reason[0])
        return ap_error_set(err, AP_ERR_INVALID, "%s", shared.reason);
    return status;
}
