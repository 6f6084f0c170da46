/* SPDX-License-Identifier: Apache-2.0
 * A plan out of a job's own numbers: where no machine was measured, the best guess is an even one. */
#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/axes.h"
#include "plan/pipe_schedule.h"
#include "plan/plan_file.h"

/* Operations per token of the layers before each one, of [layers + 1]; the last entry has head and MTP too. */
static double *layer_sums(const struct ap_job *job)
{
    const struct ap_model_config *c = &job->model.cfg;
    double head = 6.0 * (double)(c->vocab_size * c->hidden_size), *sum = calloc((size_t)c->layers + 1, sizeof *sum);
    if (sum == NULL)
        return NULL;
    for (int64_t l = 0; l < c->layers + c->mtp_depth; l++) {
        struct ap_model_layer k;
        ap_model_count_layer(c, l, job->data.seq_len, 4, &k);
        if (l < c->layers)
            sum[l + 1] = sum[l] + k.flops_token;
        else
            sum[c->layers] += k.flops_token + head;
    }
    sum[c->layers] += head; /* the embedding is a copy */
    return sum;
}

/* Layers over stages by dynamic programming over (stage, first layers): least[k][j] is the best for j layers on k
 * stages. limit INFINITY: the least largest stage; else the least sum of squares with no stage above it, so that the
 * stages that do not decide are even as well. Of equal ones the earlier stages have more layers. Returns the value. */
static double split(int layers, int stages, const double *sum, double limit, double *least, int *from)
{
    int width = layers + 1, squares = isfinite(limit);
    for (int j = 0; j <= layers; j++)
        least[j] = j == 0 ? 0 : INFINITY;
    for (int k = 1; k <= stages; k++)
        for (int j = 0; j <= layers; j++) {
            double best = INFINITY;
            for (int i = j - 1; i >= k - 1; i--) {
                double load = sum[j] - sum[i], before = least[(k - 1) * width + i];
                if (load > limit || (!squares && load >= best))
                    break;
                double now = squares ? before + load * load : fmax(before, load);
                if (now < best * (1 - 1e-12)) {
                    best = now;
                    from[k * width + j] = i;
                }
            }
            least[k * width + j] = best;
        }
    return least[stages * width + layers];
}

static ap_status split_layers(const struct ap_job *job, struct ap_plan *p, struct ap_error *err)
{
    int layers = (int)job->model.cfg.layers, stages = p->pipeline, end = layers;
    size_t cells = ((size_t)layers + 1) * ((size_t)stages + 1);
    double *sum = layer_sums(job), *least = malloc(cells * sizeof *least);
    int *from = calloc(cells, sizeof *from);
    ap_status status = AP_OK;
    if (sum != NULL && least != NULL && from != NULL) {
        double largest = split(layers, stages, sum, INFINITY, least, from);
        split(layers, stages, sum, largest * (1 + 1e-9), least, from);
        for (int k = stages; k > 0; k--) {
            int first = from[k * (layers + 1) + end];
            p->stages[k - 1].first_layer = first;
            p->stages[k - 1].layers = end - first;
            end = first;
        }
    } else {
        status = ap_error_set(err, AP_ERR_NOMEM, "out of memory for the stages of a plan");
    }
    free(sum);
    free(least);
    free(from);
    return status;
}

/* The sizes of the axes: auto is 1, and for data all ranks that are left. */
static ap_status choose_axes(const struct ap_job *job, int ranks, struct ap_axes *a_p, struct ap_error *err)
{
    struct ap_axes a = {job->parallel.data, job->parallel.tensor, job->parallel.pipeline, job->parallel.expert};
    int64_t *fixed[] = {&a.tensor, &a.pipeline, &a.expert}, inner = 1;
    for (size_t i = 0; i < 3; i++) {
        if (*fixed[i] == AP_AUTO)
            *fixed[i] = 1;
        inner = inner > ranks || *fixed[i] > ranks ? (int64_t)ranks + 1 : inner * *fixed[i];
    }
    if (inner > ranks || ranks % inner != 0) {
        ap_error_set(err, AP_ERR_INPUT,
                     "parallel: %d ranks cannot be shared out by tensor %" PRId64 " x pipeline %" PRId64
                     " x expert %" PRId64,
                     ranks, a.tensor, a.pipeline, a.expert);
        ap_error_hint(err, "start a multiple of their product, or lower one of them");
        return AP_ERR_INPUT;
    }
    if (a.data == AP_AUTO)
        a.data = ranks / inner;
    if (a.data != ranks / inner) {
        ap_error_set(err, AP_ERR_INPUT,
                     "parallel: data %" PRId64 " x tensor %" PRId64 " x pipeline %" PRId64 " x expert %" PRId64
                     " are not %d ranks",
                     a.data, a.tensor, a.pipeline, a.expert, ranks);
        ap_error_hint(err, "start as many ranks as their product, or leave parallel.data out: it is %" PRId64 " then",
                      ranks / inner);
        return AP_ERR_INPUT;
    }
    *a_p = a;
    return AP_OK;
}

/* Micro-batches as even as can be, windows of the schedule, every rank at its own number. */
static void fill(struct ap_plan *p)
{
    int64_t rounds = p->global_sequences / p->micro_sequences / p->expert, most = (rounds + p->data - 1) / p->data;
    for (int i = 0; i < p->data * p->expert; i++)
        p->micro_batches[i] = rounds / p->data + (i / p->expert < rounds % p->data);
    for (int s = 0; s < p->pipeline; s++) {
        struct ap_pipe_spec spec = {p->schedule == AP_PLAN_ZERO_BUBBLE ? AP_PIPE_ZERO_BUBBLE : AP_PIPE_1F1B,
                                    p->pipeline, 1, most, NULL};
        p->stages[s].in_flight = ap_pipe_slots(&spec, s);
        p->stages[s].memory_bytes = NAN;
    }
    for (int r = 0; r < p->machine.ranks; r++)
        p->place[r] = r;
}

static int distinct(int ranks, const char *const *nodes)
{
    int count = 0;
    for (int r = 0; r < ranks; r++) {
        int k = r - 1; /* mostly the rank before is on the same node */
        while (k >= 0 && strcmp(nodes[k], nodes[r]) != 0)
            k--;
        count += k < 0;
    }
    return count;
}

ap_status ap_plan_from_job(const struct ap_job *job, int ranks, const char *const *nodes, struct ap_plan **plan_p,
                           struct ap_error *err)
{
    struct ap_axes a;
    ap_status status = choose_axes(job, ranks, &a, err);
    if (status == AP_OK)
        status = ap_axes_check(&job->model.cfg, &a, job->batch.global_sequences / job->batch.micro_sequences, err);
    if (status == AP_OK && job->parallel.schedule == AP_PIPELINE_ZERO_BUBBLE)
        status = ap_axes_check_zero_bubble(a.pipeline, job->recompute, err);
    if (status != AP_OK) {
        ap_error_at(err, job->file, 0, 0);
        return status;
    }
    struct ap_plan *p = ap_plan_create((int)a.data, (int)a.tensor, (int)a.pipeline, (int)a.expert, 1);
    if (p == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for a plan of %d ranks", ranks);
    snprintf(p->job, sizeof p->job, "%s", job->name);
    snprintf(p->model, sizeof p->model, "%s", job->model.cfg.name);
    p->schedule = job->parallel.schedule == AP_PIPELINE_ZERO_BUBBLE ? AP_PLAN_ZERO_BUBBLE : AP_PLAN_1F1B;
    p->seq_len = job->data.seq_len;
    p->global_sequences = job->batch.global_sequences;
    p->micro_sequences = job->batch.micro_sequences;
    fill(p);
    status = split_layers(job, p, err);
    if (status == AP_OK && nodes != NULL) {
        p->machine.nodes = distinct(ranks, nodes);
        status = ap_plan_identity(ranks, nodes, p->machine.identity);
        if (status != AP_OK)
            ap_error_set(err, status, "out of memory for the names of %d nodes", ranks);
    }
    if (status == AP_OK)
        *plan_p = p;
    else
        ap_plan_destroy(p);
    return status;
}
