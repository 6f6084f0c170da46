/* SPDX-License-Identifier: Apache-2.0
 * A process's part of the model with its groups of parameters. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/tree.h"
#include "train/stage.h"

void ap_stage_even(int64_t layers, int n, int64_t *begin)
{
    begin[0] = 0;
    for (int s = 0; s < n; s++)
        begin[s + 1] = begin[s] + layers / n + (s < layers % n);
}

static int size_of(const struct ap_mesh *m, enum ap_axis a)
{
    return m->shape.size[a];
}

ap_status ap_stage_shape(const struct ap_job *job, int ranks, struct ap_mesh_shape *shape, struct ap_error *err)
{
    int64_t wish[AP_AXES], others = 1;
    wish[AP_AXIS_DATA] = job->parallel.data;
    wish[AP_AXIS_TENSOR] = job->parallel.tensor;
    wish[AP_AXIS_PIPE] = job->parallel.pipeline;
    wish[AP_AXIS_EXPERT] = job->parallel.expert;
    for (int a = 0; a < AP_AXES; a++) {
        if (a != AP_AXIS_DATA && wish[a] == AP_AUTO)
            wish[a] = 1;
        if (wish[a] > ranks)
            return ap_error_set(err, AP_ERR_INPUT, "parallel.%s is %lld, but %d ranks were started", ap_axis_name(a),
                                (long long)wish[a], ranks);
        others *= a == AP_AXIS_DATA ? 1 : wish[a];
    }
    if (wish[AP_AXIS_DATA] == AP_AUTO) {
        if (ranks % others != 0) {
            ap_error_set(err, AP_ERR_INPUT, "tensor %lld x pipeline %lld x expert %lld does not divide the %d ranks",
                         (long long)wish[AP_AXIS_TENSOR], (long long)wish[AP_AXIS_PIPE],
                         (long long)wish[AP_AXIS_EXPERT], ranks);
            ap_error_hint(err, "start a multiple of %lld ranks", (long long)others);
            return AP_ERR_INPUT;
        }
        wish[AP_AXIS_DATA] = ranks / others;
    }
    for (int a = 0; a < AP_AXES; a++)
        shape->size[a] = (int)wish[a];
    return AP_OK;
}

/* Micro-batches of each batch rank. begin: [batch ranks + 1] */
static void take_leaves(const struct ap_stage_options *opt, int64_t *begin)
{
    int n = opt->mesh->batch->size;
    int64_t lo;
    if (opt->leaf_begin) {
        memcpy(begin, opt->leaf_begin, ((size_t)n + 1) * sizeof(*begin));
        return;
    }
    begin[0] = 0;
    for (int i = 0; i < n; i++)
        ap_tree_leaves(opt->leaves, i, n, &lo, &begin[i + 1]);
}

static ap_status check_leaves(const struct ap_stage_options *opt, const int64_t *begin, struct ap_error *err)
{
    int n = opt->mesh->batch->size, E = size_of(opt->mesh, AP_AXIS_EXPERT);
    for (int i = 0; i < n; i++)
        if (begin[i + 1] <= begin[i]) {
            ap_error_set(err, AP_ERR_INPUT,
                         "data %d x expert %d for a global batch of %lld micro-batches: each needs at least one",
                         size_of(opt->mesh, AP_AXIS_DATA), E, (long long)opt->leaves);
            ap_error_hint(err, "raise batch.global_sequences or lower batch.micro_sequences");
            return AP_ERR_INPUT;
        }
    for (int i = 0; i < n; i++) {
        int first = i / E * E;
        if (begin[i + 1] - begin[i] != begin[first + 1] - begin[first]) {
            ap_error_set(
                err, AP_ERR_INPUT,
                "%lld micro-batches for data %d x expert %d: the ranks of an expert group work in step and need "
                "the same number each",
                (long long)opt->leaves, size_of(opt->mesh, AP_AXIS_DATA), E);
            ap_error_hint(err, "choose batch.global_sequences and batch.micro_sequences so that their quotient is a "
                               "multiple of data x expert");
            return AP_ERR_INPUT;
        }
    }
    return AP_OK;
}

static struct ap_model_part part_of(const struct ap_mesh *m, const int64_t *layer_begin, const int coord[AP_AXES])
{
    int s = coord[AP_AXIS_PIPE];
    return (struct ap_model_part){
        .layer_first = layer_begin[s],
        .layer_last = layer_begin[s + 1],
        .first_stage = s == 0,
        .last_stage = s == size_of(m, AP_AXIS_PIPE) - 1,
        .tensor_rank = coord[AP_AXIS_TENSOR],
        .tensor_size = size_of(m, AP_AXIS_TENSOR),
        .expert_rank = coord[AP_AXIS_EXPERT],
        .expert_size = size_of(m, AP_AXIS_EXPERT),
    };
}

/* begin: [stages + 1] */
static void take_layers(const struct ap_stage_options *opt, int64_t *begin)
{
    int stages = size_of(opt->mesh, AP_AXIS_PIPE);
    if (opt->layer_begin)
        memcpy(begin, opt->layer_begin, ((size_t)stages + 1) * sizeof(*begin));
    else
        ap_stage_even(opt->cfg->layers, stages, begin);
}

static ap_status check_parts(const struct ap_stage_options *opt, const int64_t *layers, struct ap_error *err)
{
    int stages = size_of(opt->mesh, AP_AXIS_PIPE);
    if (layers[0] != 0 || layers[stages] != opt->cfg->layers || opt->cfg->layers < stages) {
        ap_error_set(err, AP_ERR_INPUT, "parallel.pipeline %d: model %s has %lld layers", stages, opt->cfg->name,
                     (long long)opt->cfg->layers);
        ap_error_hint(err, "each stage needs at least one layer");
        return AP_ERR_INPUT;
    }
    int coord[AP_AXES] = {0};
    for (; coord[AP_AXIS_PIPE] < stages; coord[AP_AXIS_PIPE]++) {
        struct ap_model_part part = part_of(opt->mesh, layers, coord);
        AP_TRY(ap_model_part_check(opt->cfg, &part, err));
    }
    return AP_OK;
}

ap_status ap_stage_check(const struct ap_stage_options *opt, struct ap_error *err)
{
    int64_t *leaves = calloc((size_t)opt->mesh->batch->size + 1, sizeof(*leaves));
    int64_t *layers = calloc((size_t)size_of(opt->mesh, AP_AXIS_PIPE) + 1, sizeof(*layers));
    ap_status st = AP_ERR_NOMEM;
    if (leaves && layers) {
        take_leaves(opt, leaves);
        take_layers(opt, layers);
        st = check_leaves(opt, leaves, err);
        if (st == AP_OK)
            st = check_parts(opt, layers, err);
    }
    free(leaves);
    free(layers);
    return st == AP_ERR_NOMEM ? ap_error_set(err, st, "out of memory") : st;
}

static struct ap_comm *comm_of(const struct ap_mesh *m, int group)
{
    switch (group) {
    case AP_GROUP_SHARED:
        return m->stage;
    case AP_GROUP_EXPERT:
        return m->axis[AP_AXIS_DATA];
    case AP_GROUP_ENDS:
        return m->ends;
    default:
        return m->batch;
    }
}

/* Leaves of each rank of a group's communicator, from those of each batch rank. begin: [ranks + 1] */
static void group_leaves(const struct ap_mesh *m, int group, const int64_t *batch, int64_t *begin)
{
    int T = size_of(m, AP_AXIS_TENSOR), E = size_of(m, AP_AXIS_EXPERT), ranks = comm_of(m, group)->size;
    begin[0] = 0;
    for (int r = 0; r < ranks; r++) {
        int b = group == AP_GROUP_SHARED ? r / T : group == AP_GROUP_EXPERT ? r * E : r % m->batch->size;
        begin[r + 1] = begin[r] + batch[b + 1] - batch[b];
    }
}

static ap_status make_group(struct ap_stage *s, const struct ap_stage_options *opt, int id, const int64_t *batch,
                            struct ap_error *err)
{
    struct ap_stage_group *g = &s->groups[s->count];
    *g = (struct ap_stage_group){.id = id, .comm = comm_of(s->mesh, id)};
    s->count++;
    struct ap_optimizer_options oo = {
        .backend = s->be, .comm = g->comm, .params = s->params, .group = id, .dtype = opt->dtype};
    AP_TRY(ap_optimizer_create(&oo, &g->optim, err));
    int64_t *begin = calloc((size_t)g->comm->size + 1, sizeof(*begin));
    if (!begin)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    group_leaves(s->mesh, id, batch, begin);
    struct ap_reducer_options ro = {.backend = s->be,
                                    .comm = g->comm,
                                    .map = ap_optimizer_map(g->optim),
                                    .dtype = ap_dtype_full(opt->dtype),
                                    .leaves = begin[g->comm->size],
                                    .leaf_begin = begin};
    ap_status st = ap_reducer_create(&ro, &g->reducer, err);
    free(begin);
    return st;
}

static ap_status make_groups(struct ap_stage *s, const struct ap_stage_options *opt, const int64_t *batch,
                             struct ap_error *err)
{
    for (int id = 0; id < AP_GROUPS; id++)
        if (s->params->region[id].end > s->params->region[id].begin)
            AP_TRY(make_group(s, opt, id, batch, err));
    return AP_OK;
}

static ap_status make_model(struct ap_stage *s, const struct ap_stage_options *opt, struct ap_error *err)
{
    struct ap_pipe_spec spec = {
        .kind = AP_PIPE_1F1B, .stages = size_of(s->mesh, AP_AXIS_PIPE), .chunks = 1, .micros = s->hi - s->lo};
    take_layers(opt, s->layer_begin);
    s->part = part_of(s->mesh, s->layer_begin, s->mesh->coord);
    AP_TRY(ap_pipe_schedule_create(&spec, s->mesh->coord[AP_AXIS_PIPE], &s->schedule, err));
    struct ap_model_options mo = {
        .micro_sequences = opt->micro_sequences,
        .seq_len = opt->seq_len,
        .dtype = opt->dtype,
        .recompute = opt->recompute,
        .part = &s->part,
        .tensor = s->mesh->axis[AP_AXIS_TENSOR],
        .expert = s->mesh->axis[AP_AXIS_EXPERT],
        .slots = s->schedule->slot_count,
    };
    AP_TRY(ap_model_create(s->be, opt->cfg, &mo, &s->model, err));
    s->params = ap_model_params(s->model);
    return AP_OK;
}

static ap_status build(struct ap_stage *s, const struct ap_stage_options *opt, struct ap_error *err)
{
    int world = s->mesh->world->size;
    int64_t *leaf = calloc((size_t)s->mesh->batch->size + 1, sizeof(*leaf));
    s->sums = calloc((size_t)world, sizeof(*s->sums));
    s->sum_bytes = calloc((size_t)world, sizeof(*s->sum_bytes));
    s->layer_begin = calloc((size_t)size_of(s->mesh, AP_AXIS_PIPE) + 1, sizeof(*s->layer_begin));
    if (!leaf || !s->sums || !s->sum_bytes || !s->layer_begin) {
        free(leaf);
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    }
    for (int r = 0; r < world; r++)
        s->sum_bytes[r] = (int64_t)sizeof(*s->sums);
    take_leaves(opt, leaf);
    s->lo = leaf[s->mesh->batch->rank];
    s->hi = leaf[s->mesh->batch->rank + 1];
    ap_status st = make_model(s, opt, err);
    if (st == AP_OK)
        st = make_groups(s, opt, leaf, err);
    free(leaf);
    return st;
}

ap_status ap_stage_create(const struct ap_stage_options *opt, struct ap_stage **s_p, struct ap_error *err)
{
    AP_TRY(ap_stage_check(opt, err));
    struct ap_stage *s = calloc(1, sizeof(*s));
    if (!s)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    s->be = opt->backend;
    s->mesh = opt->mesh;
    s->hidden = opt->cfg->hidden_size;
    s->dtype = opt->dtype;
    ap_status st = build(s, opt, err);
    if (st != AP_OK) {
        ap_stage_destroy(s);
        return st;
    }
    *s_p = s;
    return AP_OK;
}

void ap_stage_destroy(struct ap_stage *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->count; i++) {
        ap_reducer_destroy(s->groups[i].reducer);
        ap_optimizer_destroy(s->groups[i].optim);
    }
    ap_model_destroy(s->model);
    ap_pipe_schedule_destroy(s->schedule);
    free(s->sums);
    free(s->sum_bytes);
    free(s->layer_begin);
    free(s);
}

ap_status ap_stage_part(const struct ap_stage *s, const int coord[AP_AXES], struct ap_model_part *part_p)
{
    for (int a = 0; a < AP_AXES; a++)
        if (coord[a] < 0 || coord[a] >= size_of(s->mesh, a))
            return AP_ERR_BUG;
    *part_p = part_of(s->mesh, s->layer_begin, coord);
    return AP_OK;
}

ap_status ap_stage_init_weights(struct ap_stage *s, const struct ap_model_config *cfg, uint64_t seed)
{
    float *w = malloc((size_t)(s->params->flat + 1) * sizeof(*w));
    if (!w)
        return AP_ERR_NOMEM;
    ap_status st = AP_OK;
    ap_params_init(s->params, cfg, seed, w);
    for (int i = 0; st == AP_OK && i < s->count; i++)
        st = ap_optimizer_set_weights(s->groups[i].optim, w + s->params->region[s->groups[i].id].begin);
    free(w);
    return st;
}

int64_t ap_stage_gradient_bytes(const struct ap_stage *s)
{
    int64_t bytes = 0;
    for (int i = 0; i < s->count; i++)
        bytes += ap_reducer_bytes(s->groups[i].reducer);
    return bytes;
}

struct ap_model_buffers ap_stage_buffers(const struct ap_stage *s, ap_tensor router_bias)
{
    struct ap_model_buffers b = {.router_bias = router_bias};
    for (int i = 0; i < s->count; i++)
        b.weights[s->groups[i].id] = ap_optimizer_weights(s->groups[i].optim);
    return b;
}

void ap_stage_reset(struct ap_stage *s)
{
    for (int i = 0; i < s->count; i++)
        ap_reducer_reset(s->groups[i].reducer);
}

ap_status ap_stage_begin_leaf(struct ap_stage *s, struct ap_model_buffers *b)
{
    for (int i = 0; i < s->count; i++)
        AP_TRY(ap_reducer_begin_leaf(s->groups[i].reducer, &b->grads[s->groups[i].id]));
    return AP_OK;
}

ap_status ap_stage_end_leaf(struct ap_stage *s)
{
    for (int i = 0; i < s->count; i++)
        AP_TRY(ap_reducer_end_leaf(s->groups[i].reducer));
    return AP_OK;
}

ap_status ap_stage_reduce(struct ap_stage *s)
{
    for (int i = 0; i < s->count; i++)
        AP_TRY(ap_reducer_finish(s->groups[i].reducer, &s->groups[i].grad));
    return AP_OK;
}

/* Each group's sum counts once in the world, at the first rank of its communicator; added in slot order. */
ap_status ap_stage_norm(struct ap_stage *s, double *norm_p)
{
    struct ap_comm *world = s->mesh->world;
    double own = 0, sum = 0;
    for (int i = 0; i < s->count; i++) {
        double part;
        AP_TRY(ap_optimizer_sumsq(s->groups[i].optim, s->groups[i].grad, &part));
        own += s->groups[i].comm->rank == 0 ? part : 0;
    }
    s->sums[world->rank] = own;
    AP_TRY(ap_comm_allgatherv(world, &s->sums[world->rank], s->sum_bytes, s->sums));
    for (int r = 0; r < world->size; r++)
        sum += s->sums[r];
    *norm_p = sqrt(sum);
    return AP_OK;
}

ap_status ap_stage_update(struct ap_stage *s, const struct ap_optimizer_hyper *h, double grad_scale)
{
    for (int i = 0; i < s->count; i++)
        AP_TRY(ap_optimizer_update(s->groups[i].optim, h, s->groups[i].grad, grad_scale));
    return AP_OK;
}

void ap_stage_flip(struct ap_stage *s)
{
    for (int i = 0; i < s->count; i++)
        ap_optimizer_flip(s->groups[i].optim);
}

ap_status ap_stage_named(struct ap_stage *s, int all_weights, struct ap_named_set *set, struct ap_error *err)
{
    for (int i = 0; i < s->count; i++)
        AP_TRY(ap_optimizer_named(s->groups[i].optim, all_weights, set, err));
    return AP_OK;
}

ap_status ap_stage_loaded(struct ap_stage *s)
{
    for (int i = 0; i < s->count; i++)
        AP_TRY(ap_optimizer_loaded(s->groups[i].optim));
    return AP_OK;
}
