/* SPDX-License-Identifier: Apache-2.0
 * A plan as an object: making it, what must hold inside of it, and writing plan.json. Reading is in plan_read.c. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "plan/axes.h"
#include "plan/plan_file.h"

struct ap_plan *ap_plan_create(int data, int tensor, int pipeline, int expert, int chunks)
{
    struct ap_plan *p = calloc(1, sizeof *p);
    size_t batch = (size_t)data * (size_t)expert, stages = (size_t)pipeline * (size_t)chunks;
    size_t ranks = batch * (size_t)tensor * (size_t)pipeline;
    if (p == NULL)
        return NULL;
    p->data = data;
    p->tensor = tensor;
    p->pipeline = pipeline;
    p->expert = expert;
    p->chunks = chunks;
    p->machine.ranks = (int)ranks;
    p->predicted.step = NAN;
    p->stages = calloc(stages, sizeof *p->stages);
    p->micro_batches = calloc(batch, sizeof *p->micro_batches);
    p->place = calloc(ranks, sizeof *p->place);
    if (p->stages == NULL || p->micro_batches == NULL || p->place == NULL) {
        ap_plan_destroy(p);
        return NULL;
    }
    return p;
}

void ap_plan_destroy(struct ap_plan *p)
{
    if (p == NULL)
        return;
    free(p->stages);
    free(p->micro_batches);
    free(p->place);
    free(p);
}

const char *ap_plan_schedule_name(int schedule)
{
    static const char *const names[AP_PLAN_SCHEDULES] = {"1f1b", "1f1b-deep", "interleaved", "zero-bubble"};
    return schedule >= 0 && schedule < AP_PLAN_SCHEDULES ? names[schedule] : "?";
}

ap_status ap_plan_identity(int ranks, const char *const *nodes, char identity[33])
{
    struct ap_hasher *h = ap_hasher_create();
    if (h == NULL)
        return AP_ERR_NOMEM;
    for (int r = 0; r < ranks; r++)
        ap_hasher_update(h, nodes[r], strlen(nodes[r]) + 1); /* the NUL keeps "a","bc" and "ab","c" apart */
    ap_hash128_hex(ap_hasher_digest(h), identity);
    ap_hasher_destroy(h);
    return AP_OK;
}

/* ---- what must hold ---- */

static ap_status check_sizes(const struct ap_plan *p, struct ap_error *err)
{
    int64_t product = (int64_t)p->data * p->tensor * p->pipeline * p->expert;
    if (product != p->machine.ranks)
        return ap_error_set(err, AP_ERR_INPUT,
                            "parallel: data %d x tensor %d x pipeline %d x expert %d are %lld ranks, but machine.ranks "
                            "is %d",
                            p->data, p->tensor, p->pipeline, p->expert, (long long)product, p->machine.ranks);
    if (p->machine.nodes > p->machine.ranks)
        return ap_error_set(err, AP_ERR_INPUT, "machine.nodes is %d, more than machine.ranks %d", p->machine.nodes,
                            p->machine.ranks);
    if (p->machine.sites > p->machine.nodes)
        return ap_error_set(err, AP_ERR_INPUT, "machine.sites is %d, more than machine.nodes %d", p->machine.sites,
                            p->machine.nodes);
    if ((p->chunks > 1) != (p->schedule == AP_PLAN_INTERLEAVED))
        return ap_error_set(err, AP_ERR_INPUT, "chunks is %d, but schedule is %s: %s", p->chunks,
                            ap_plan_schedule_name(p->schedule),
                            p->chunks > 1 ? "only interleaved has several" : "interleaved has several");
    return AP_OK;
}

static ap_status check_stages(const struct ap_plan *p, struct ap_error *err)
{
    int64_t at = 0;
    for (int s = 0; s < p->pipeline * p->chunks; s++) {
        const struct ap_plan_stage *k = &p->stages[s];
        if (k->first_layer != at)
            return ap_error_set(err, AP_ERR_INPUT, "stages[%d].first_layer is %lld, but the layers before end at %lld",
                                s, (long long)k->first_layer, (long long)at);
        if (k->layers < 1)
            return ap_error_set(err, AP_ERR_INPUT, "stages[%d].layers is %lld: a stage has a layer at least", s,
                                (long long)k->layers);
        if (k->in_flight < 1)
            return ap_error_set(err, AP_ERR_INPUT, "stages[%d].in_flight is %lld: it is 1 at least", s,
                                (long long)k->in_flight);
        if (p->schedule == AP_PLAN_1F1B && k->in_flight > p->pipeline - s)
            return ap_error_set(err, AP_ERR_INPUT,
                                "stages[%d].in_flight is %lld: 1f1b has at most %d micro-batches in flight there", s,
                                (long long)k->in_flight, p->pipeline - s);
        if (p->schedule == AP_PLAN_ZERO_BUBBLE && k->in_flight > p->pipeline)
            return ap_error_set(err, AP_ERR_INPUT,
                                "stages[%d].in_flight is %lld: zero-bubble keeps at most %d micro-batches", s,
                                (long long)k->in_flight, p->pipeline);
        if (p->schedule <= AP_PLAN_DEEP && s > 0 && k->in_flight > k[-1].in_flight)
            return ap_error_set(err, AP_ERR_INPUT,
                                "stages[%d].in_flight is %lld, more than the %lld of the stage before: windows do not "
                                "grow along the pipeline",
                                s, (long long)k->in_flight, (long long)k[-1].in_flight);
        at += k->layers;
    }
    return AP_OK;
}

static ap_status check_batch(const struct ap_plan *p, struct ap_error *err)
{
    int64_t sum = 0;
    for (int i = 0; i < p->data * p->expert; i++) {
        int64_t n = p->micro_batches[i], first = p->micro_batches[i - i % p->expert];
        if (n < 1)
            return ap_error_set(err, AP_ERR_INPUT, "micro_batches[%d] is %lld: every rank has one at least", i,
                                (long long)n);
        if (n != first)
            return ap_error_set(err, AP_ERR_INPUT,
                                "micro_batches[%d] is %lld, but the first of its expert group has %lld: they work in "
                                "step",
                                i, (long long)n, (long long)first);
        sum += n;
    }
    if (p->global_sequences % p->micro_sequences != 0 || p->global_sequences / p->micro_sequences != sum)
        return ap_error_set(err, AP_ERR_INPUT,
                            "micro_batches add up to %lld of %lld sequences (micro_sequences), but global_sequences is "
                            "%lld",
                            (long long)sum, (long long)p->micro_sequences, (long long)p->global_sequences);
    return AP_OK;
}

/* Each slot once. */
static ap_status check_place(const struct ap_plan *p, struct ap_error *err)
{
    int n = p->machine.ranks;
    int *rank = malloc((size_t)n * sizeof *rank); /* of a slot, -1: nobody */
    ap_status status = AP_OK;
    if (rank == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the places of %d ranks", n);
    for (int i = 0; i < n; i++)
        rank[i] = -1;
    for (int r = 0; r < n && status == AP_OK; r++) {
        int slot = p->place[r];
        if (slot < 0 || slot >= n)
            status = ap_error_set(err, AP_ERR_INPUT, "place[%d] is %d: slots are from 0 to %d", r, slot, n - 1);
        else if (rank[slot] >= 0)
            status = ap_error_set(err, AP_ERR_INPUT, "place[%d] and place[%d] are both %d", rank[slot], r, slot);
        else
            rank[slot] = r;
    }
    free(rank);
    return status;
}

static ap_status check_times(const struct ap_plan *p, struct ap_error *err)
{
    const struct ap_plan_times *t = &p->predicted;
    double parts = t->compute + t->lan + t->wan + t->bubble;
    if (isnan(t->step) || fabs(parts - t->step) <= 1e-6 * t->step)
        return AP_OK;
    return ap_error_set(err, AP_ERR_INPUT,
                        "predicted.step_s is %g, but compute_s, lan_s, wan_s and bubble_s add up to %g", t->step,
                        parts);
}

static ap_status check_itself(const struct ap_plan *p, struct ap_error *err)
{
    AP_TRY(check_sizes(p, err));
    if (p->schedule == AP_PLAN_ZERO_BUBBLE)
        AP_TRY(ap_axes_check_zero_bubble(p->pipeline, 0, err));
    AP_TRY(check_stages(p, err));
    AP_TRY(check_batch(p, err));
    AP_TRY(check_place(p, err));
    return check_times(p, err);
}

ap_status ap_plan_check(const struct ap_plan *p, const struct ap_model_config *cfg, int ranks, struct ap_error *err)
{
    const struct ap_axes axes = {p->data, p->tensor, p->pipeline, p->expert};
    const struct ap_plan_stage *last = &p->stages[p->pipeline * p->chunks - 1];
    AP_TRY(check_itself(p, err));
    if (cfg == NULL)
        return AP_OK;
    if (p->machine.ranks != ranks) {
        ap_error_set(err, AP_ERR_INPUT, "the plan is for %d ranks, but there are %d", p->machine.ranks, ranks);
        ap_error_hint(err, "start %d ranks, or plan anew", p->machine.ranks);
        return AP_ERR_INPUT;
    }
    if (last->first_layer + last->layers != cfg->layers) {
        ap_error_set(err, AP_ERR_INPUT, "the stages of the plan have %lld layers, but the model has %lld",
                     (long long)(last->first_layer + last->layers), (long long)cfg->layers);
        ap_error_hint(err, "the plan was made for the model '%s': plan anew", p->model);
        return AP_ERR_INPUT;
    }
    return ap_axes_check(cfg, &axes, p->global_sequences / p->micro_sequences, err);
}

static ap_status agree(const char *what, int64_t planned, int64_t wanted, struct ap_error *err)
{
    if (planned == wanted)
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "the plan was made for %s %lld, but the job says %lld", what, (long long)planned,
                 (long long)wanted);
    ap_error_hint(err, "plan anew");
    return AP_ERR_INPUT;
}

/* The order of work that the job wants. */
static ap_status check_schedule(const struct ap_plan *p, const struct ap_job *job, struct ap_error *err)
{
    int zero_bubble = p->schedule == AP_PLAN_ZERO_BUBBLE, wish = job->parallel.schedule;
    if (zero_bubble)
        AP_TRY(ap_axes_check_zero_bubble(p->pipeline, job->recompute, err));
    if (wish == AP_PIPELINE_AUTO || (wish == AP_PIPELINE_ZERO_BUBBLE ? zero_bubble : p->schedule <= AP_PLAN_DEEP))
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "the plan's schedule is %s, but parallel.schedule of the job is %s",
                 ap_plan_schedule_name(p->schedule), wish == AP_PIPELINE_1F1B ? "1f1b" : "zero-bubble");
    ap_error_hint(err, "plan anew");
    return AP_ERR_INPUT;
}

ap_status ap_plan_check_job(const struct ap_plan *p, const struct ap_job *job, int ranks, struct ap_error *err)
{
    const struct {
        const char *key;
        int64_t planned, wanted;
    } axes[] = {{"parallel.data", p->data, job->parallel.data},
                {"parallel.tensor", p->tensor, job->parallel.tensor},
                {"parallel.pipeline", p->pipeline, job->parallel.pipeline},
                {"parallel.expert", p->expert, job->parallel.expert}};
    AP_TRY(ap_plan_check(p, &job->model.cfg, ranks, err));
    AP_TRY(agree("data.seq_len", p->seq_len, job->data.seq_len, err));
    AP_TRY(agree("batch.global_sequences", p->global_sequences, job->batch.global_sequences, err));
    for (size_t i = 0; i < sizeof axes / sizeof axes[0]; i++)
        if (axes[i].wanted != AP_AUTO)
            AP_TRY(agree(axes[i].key, axes[i].planned, axes[i].wanted, err));
    return check_schedule(p, job, err);
}

/* ---- plan.json ---- */

static void text_or_null(struct ap_json *j, const char *key, const char *text)
{
    ap_json_str(j, key, *text != '\0' ? text : NULL);
}

static void count_or_null(struct ap_json *j, const char *key, int n)
{
    if (n > 0)
        ap_json_int(j, key, n);
    else
        ap_json_null(j, key);
}

void ap_plan_axes_json(int data, int tensor, int pipeline, int expert, struct ap_json *j)
{
    ap_json_begin_object(j, "parallel");
    ap_json_int(j, "data", data);
    ap_json_int(j, "tensor", tensor);
    ap_json_int(j, "pipeline", pipeline);
    ap_json_int(j, "expert", expert);
    ap_json_end_object(j);
}

void ap_plan_times_json(const struct ap_plan_times *t, struct ap_json *j)
{
    if (isnan(t->step)) {
        ap_json_null(j, "predicted");
        return;
    }
    ap_json_begin_object(j, "predicted");
    ap_json_real(j, "step_s", t->step);
    ap_json_real(j, "compute_s", t->compute);
    ap_json_real(j, "lan_s", t->lan);
    ap_json_real(j, "wan_s", t->wan);
    ap_json_real(j, "bubble_s", t->bubble);
    ap_json_real(j, "sync_lan_s", t->sync_lan);
    ap_json_real(j, "sync_wan_s", t->sync_wan);
    ap_json_real(j, "optimizer_s", t->optimizer);
    ap_json_real(j, "memory_bytes", t->memory_bytes);
    ap_json_real(j, "memory_part", t->memory_part);
    ap_json_real(j, "simulated_step_s", t->simulated_step);
    ap_json_real(j, "tokens_per_s", t->tokens_per_s);
    ap_json_end_object(j);
}

static void stages_json(const struct ap_plan *p, struct ap_json *j)
{
    ap_json_begin_array(j, "stages");
    for (int s = 0; s < p->pipeline * p->chunks; s++) {
        ap_json_begin_object(j, NULL);
        ap_json_int(j, "first_layer", p->stages[s].first_layer);
        ap_json_int(j, "layers", p->stages[s].layers);
        ap_json_int(j, "in_flight", p->stages[s].in_flight);
        ap_json_real(j, "memory_bytes", p->stages[s].memory_bytes);
        ap_json_end_object(j);
    }
    ap_json_end_array(j);
}

void ap_plan_json(const struct ap_plan *p, struct ap_json *j)
{
    ap_json_str(j, "format", AP_PLAN_FORMAT);
    ap_json_int(j, "version", AP_PLAN_VERSION);
    text_or_null(j, "date", p->date);
    ap_json_str(j, "job", p->job);
    ap_json_str(j, "model", p->model);
    ap_json_begin_object(j, "machine");
    ap_json_int(j, "ranks", p->machine.ranks);
    count_or_null(j, "nodes", p->machine.nodes);
    count_or_null(j, "sites", p->machine.sites);
    text_or_null(j, "measured", p->machine.measured);
    ap_json_int(j, "guessed_links", p->machine.guessed_links);
    text_or_null(j, "identity", p->machine.identity);
    ap_json_end_object(j);
    ap_plan_axes_json(p->data, p->tensor, p->pipeline, p->expert, j);
    ap_json_str(j, "schedule", ap_plan_schedule_name(p->schedule));
    ap_json_int(j, "chunks", p->chunks);
    ap_json_int(j, "seq_len", p->seq_len);
    ap_json_int(j, "global_sequences", p->global_sequences);
    ap_json_int(j, "micro_sequences", p->micro_sequences);
    text_or_null(j, "between_sites", p->between_sites);
    ap_plan_times_json(&p->predicted, j);
    stages_json(p, j);
    ap_json_begin_array(j, "micro_batches");
    for (int i = 0; i < p->data * p->expert; i++)
        ap_json_int(j, NULL, p->micro_batches[i]);
    ap_json_end_array(j);
    ap_json_begin_array(j, "place");
    for (int i = 0; i < p->machine.ranks; i++)
        ap_json_int(j, NULL, p->place[i]);
    ap_json_end_array(j);
}

ap_status ap_plan_write(const struct ap_plan *p, const char *path, struct ap_error *err)
{
    struct ap_json j = {.indent = 2};
    ap_json_begin_object(&j, NULL);
    ap_plan_json(p, &j);
    ap_json_end_object(&j);
    ap_strbuf_add(&j.text, "\n");
    char *text = ap_strbuf_take(&j.text);
    if (text == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for %s", path);
    ap_status status = ap_io_write_durable(path, text, strlen(text), err);
    free(text);
    return status;
}
