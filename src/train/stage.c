/* SPDX-License-Identifier: Apache-2.0
 * A process's part of the model with its groups of parameters. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/tree.h"
#include "plan/axes.h"
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

ap_status ap_stage_layout(const struct ap_plan *plan, struct ap_stage_layout *l_p, struct ap_error *err)
{
    struct ap_stage_layout l = {{{plan->pipeline, plan->data, plan->expert, plan->tensor}}, NULL, NULL, NULL};
    int batch = plan->data * plan->expert;
    *l_p = l;
    if (plan->chunks > 1 || (plan->schedule != AP_PLAN_1F1B && plan->schedule != AP_PLAN_DEEP)) {
        ap_error_set(err, AP_ERR_UNSUPPORTED, "the plan's schedule is %s: this version trains with 1f1b and deep",
                     ap_plan_schedule_name(plan->schedule));
        return AP_ERR_UNSUPPORTED;
    }
    l.layer_begin = calloc((size_t)plan->pipeline + 1, sizeof(*l.layer_begin));
    l.leaf_begin = calloc((size_t)batch + 1, sizeof(*l.leaf_begin));
    l.window = calloc((size_t)plan->pipeline, sizeof(*l.window));
    *l_p = l;
    if (!l.layer_begin || !l.leaf_begin || !l.window)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for a plan of %d ranks", plan->machine.ranks);
    for (int s = 0; s < plan->pipeline; s++) {
        l.layer_begin[s + 1] = plan->stages[s].first_layer + plan->stages[s].layers;
        l.window[s] = plan->stages[s].in_flight;
    }
    for (int i = 0; i < batch; i++)
        l.leaf_begin[i + 1] = l.leaf_begin[i] + plan->micro_batches[i];
    return AP_OK;
}

void ap_stage_layout_free(struct ap_stage_layout *l)
{
    free(l->layer_begin);
    free(l->leaf_begin);
    free(l->window);
    *l = (struct ap_stage_layout){0};
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

/* Whoever made the distribution has kept to these rules. */
static ap_status check_leaves(const struct ap_stage_options *opt, const int64_t *begin, struct ap_error *err)
{
    int n = opt->mesh->batch->size, E = size_of(opt->mesh, AP_AXIS_EXPERT);
    int bad = begin[0] != 0 || begin[n] != opt->leaves;
    for (int i = 0; i < n; i++) {
        int first = i / E * E;
        bad |= begin[i + 1] <= begin[i] || begin[i + 1] - begin[i] != begin[first + 1] - begin[first];
    }
    return bad ? ap_error_set(err, AP_ERR_BUG, "impossible distribution of %lld micro-batches", (long long)opt->leaves)
               : AP_OK;
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
    const int *n = opt->mesh->shape.size;
    struct ap_axes axes = {n[AP_AXIS_DATA], n[AP_AXIS_TENSOR], n[AP_AXIS_PIPE], n[AP_AXIS_EXPERT]};
    AP_TRY(ap_axes_check(opt->cfg, &axes, opt->leaves, err));
    int coord[AP_AXES] = {0};
    for (; coord[AP_AXIS_PIPE] < n[AP_AXIS_PIPE]; coord[AP_AXIS_PIPE]++) {
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
        st = check_parts(opt, layers, err);
        if (st == AP_OK)
            st = check_leaves(opt, leaves, err);
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
    struct ap_pipe_spec spec = {.kind = AP_PIPE_1F1B,
                                .stages = size_of(s->mesh, AP_AXIS_PIPE),
                                .chunks = 1,
                                .micros = s->hi - s->lo,
                                .window = opt->window};
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
