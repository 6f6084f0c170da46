/* SPDX-License-Identifier: Apache-2.0
 * A process's part of the model with its groups of parameters. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/tree.h"
#include "plan/axes.h"
#include "train/stage.h"

static int size_of(const struct ap_mesh *m, enum ap_axis a)
{
    return m->shape.size[a];
}

ap_status ap_stage_layout(const struct ap_plan *plan, struct ap_stage_layout *l_p, struct ap_error *err)
{
    struct ap_stage_layout l = {.shape = {{plan->pipeline, plan->data, plan->expert, plan->tensor}},
                                .kind = plan->schedule == AP_PLAN_ZERO_BUBBLE   ? AP_PIPE_ZERO_BUBBLE
                                        : plan->schedule == AP_PLAN_INTERLEAVED ? AP_PIPE_INTERLEAVED
                                                                                : AP_PIPE_1F1B,
                                .chunks = plan->chunks};
    int batch = plan->data * plan->expert, stages = plan->pipeline * plan->chunks;
    int windows = l.kind == AP_PIPE_1F1B;
    l.layer_begin = calloc((size_t)stages + 1, sizeof(*l.layer_begin));
    l.leaf_begin = calloc((size_t)batch + 1, sizeof(*l.leaf_begin));
    l.window = windows ? calloc((size_t)stages, sizeof(*l.window)) : NULL;
    *l_p = l;
    if (!l.layer_begin || !l.leaf_begin || (windows && !l.window))
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for a plan of %d ranks", plan->machine.ranks);
    for (int s = 0; s < stages; s++) {
        l.layer_begin[s + 1] = plan->stages[s].first_layer + plan->stages[s].layers;
        if (l.window)
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

static int chunks_of(const struct ap_stage_options *opt)
{
    return opt->chunks > 0 ? opt->chunks : 1;
}

static struct ap_model_part part_of(const struct ap_mesh *m, const int64_t *layer_begin, int chunks,
                                    const int coord[AP_AXES], int chunk)
{
    int stages = size_of(m, AP_AXIS_PIPE), s = chunk * stages + coord[AP_AXIS_PIPE];
    return (struct ap_model_part){
        .layer_first = layer_begin[s],
        .layer_last = layer_begin[s + 1],
        .first_stage = s == 0,
        .last_stage = s == stages * chunks - 1,
        .tensor_rank = coord[AP_AXIS_TENSOR],
        .tensor_size = size_of(m, AP_AXIS_TENSOR),
        .expert_rank = coord[AP_AXIS_EXPERT],
        .expert_size = size_of(m, AP_AXIS_EXPERT),
    };
}

static ap_status check_parts(const struct ap_stage_options *opt, struct ap_error *err)
{
    const int *n = opt->mesh->shape.size;
    struct ap_axes axes = {n[AP_AXIS_DATA], n[AP_AXIS_TENSOR], n[AP_AXIS_PIPE], n[AP_AXIS_EXPERT]};
    AP_TRY(ap_axes_check(opt->cfg, &axes, opt->leaves, err));
    int coord[AP_AXES] = {0};
    for (int chunk = 0; chunk < chunks_of(opt); chunk++)
        for (coord[AP_AXIS_PIPE] = 0; coord[AP_AXIS_PIPE] < n[AP_AXIS_PIPE]; coord[AP_AXIS_PIPE]++) {
            struct ap_model_part part = part_of(opt->mesh, opt->layer_begin, chunks_of(opt), coord, chunk);
            AP_TRY(ap_model_part_check(opt->cfg, &part, err));
        }
    if (opt->kind == AP_PIPE_ZERO_BUBBLE)
        return ap_axes_check_zero_bubble(n[AP_AXIS_PIPE], opt->recompute, err);
    return AP_OK;
}

ap_status ap_stage_check(const struct ap_stage_options *opt, struct ap_error *err)
{
    int64_t *leaves = calloc((size_t)opt->mesh->batch->size + 1, sizeof(*leaves));
    ap_status st = AP_ERR_NOMEM;
    if (leaves) {
        take_leaves(opt, leaves);
        st = check_parts(opt, err);
        if (st == AP_OK)
            st = check_leaves(opt, leaves, err);
    }
    free(leaves);
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

static ap_status make_group(struct ap_stage *s, struct ap_stage_chunk *k, int id, int64_t *batch, struct ap_error *err)
{
    struct ap_stage_group *g = &k->groups[k->count];
    *g = (struct ap_stage_group){.id = id, .comm = comm_of(s->mesh, id)};
    k->count++;
    struct ap_optimizer_options oo = {
        .backend = s->be, .comm = g->comm, .params = k->params, .group = id, .dtype = s->dtype};
    AP_TRY(ap_optimizer_create(&oo, &g->optim, err));
    int64_t *begin = calloc((size_t)g->comm->size + 1, sizeof(*begin));
    if (!begin)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    struct ap_run *added = NULL;
    int64_t added_count = 0;
    ap_status st = ap_params_added(k->params, id, &added, &added_count);
    group_leaves(s->mesh, id, batch, begin);
    struct ap_reducer_options ro = {.backend = s->be,
                                    .comm = g->comm,
                                    .map = ap_optimizer_map(g->optim),
                                    .dtype = ap_dtype_full(s->dtype),
                                    .leaves = begin[g->comm->size],
                                    .leaf_begin = begin,
                                    .added = added,
                                    .added_count = added_count};
    if (st == AP_OK)
        st = ap_reducer_create(&ro, &g->reducer, err);
    free(begin);
    free(added);
    return st;
}

static ap_status make_chunk(struct ap_stage *s, const struct ap_stage_options *opt, int chunk, int64_t *batch,
                            struct ap_error *err)
{
    struct ap_stage_chunk *k = &s->chunks[chunk];
    k->part = part_of(s->mesh, s->layer_begin, s->chunk_count, s->mesh->coord, chunk);
    struct ap_model_options mo = {
        .micro_sequences = opt->micro_sequences,
        .seq_len = opt->seq_len,
        .dtype = opt->dtype,
        .recompute = opt->recompute,
        .part = &k->part,
        .tensor = s->mesh->axis[AP_AXIS_TENSOR],
        .expert = s->mesh->axis[AP_AXIS_EXPERT],
        .slots = k->slots,
        .write_grads = 1,
        .late = k->late,
        .clock = opt->clock,
    };
    AP_TRY(ap_model_create(s->be, opt->cfg, &mo, &k->model, err));
    k->params = ap_model_params(k->model);
    for (int id = 0; id < AP_GROUPS; id++)
        if (k->params->region[id].end > k->params->region[id].begin)
            AP_TRY(make_group(s, k, id, batch, err));
    return AP_OK;
}

/* The schedule has one pool of slots for all chunks; each chunk's model has its own. */
static ap_status make_slots(struct ap_stage *s)
{
    const struct ap_pipe_schedule *p = s->schedule;
    int64_t micros = s->hi - s->lo;
    int *of = calloc((size_t)(s->chunk_count * micros), sizeof(*of));
    char *busy = calloc((size_t)(s->chunk_count * p->slot_count) + 1, 1);
    s->slot = calloc((size_t)p->op_count + 1, sizeof(*s->slot));
    for (int64_t i = 0; of && busy && s->slot && i < p->op_count; i++) {
        const struct ap_pipe_op *op = &p->ops[i];
        char *taken = busy + op->chunk * p->slot_count;
        int *slot = &of[op->chunk * micros + op->micro];
        if (op->work == AP_PIPE_FORWARD) {
            for (*slot = 0; taken[*slot]; ++*slot)
                ;
            if (*slot >= s->chunks[op->chunk].slots)
                s->chunks[op->chunk].slots = *slot + 1;
        }
        taken[*slot] = op->work == AP_PIPE_FORWARD || op->work == AP_PIPE_BACKWARD_INPUT;
        s->slot[i] = *slot;
    }
    ap_status st = of && busy && s->slot ? AP_OK : AP_ERR_NOMEM;
    free(of);
    free(busy);
    return st;
}

static ap_status allocate(struct ap_stage *s, const struct ap_stage_options *opt)
{
    int world = s->mesh->world->size;
    s->chunk_count = chunks_of(opt);
    s->chunks = calloc((size_t)s->chunk_count, sizeof(*s->chunks));
    s->sums = calloc((size_t)world, sizeof(*s->sums));
    s->sum_bytes = calloc((size_t)world, sizeof(*s->sum_bytes));
    s->layer_begin = calloc((size_t)(size_of(s->mesh, AP_AXIS_PIPE) * s->chunk_count) + 1, sizeof(*s->layer_begin));
    if (!s->chunks || !s->sums || !s->sum_bytes || !s->layer_begin)
        return AP_ERR_NOMEM;
    for (int r = 0; r < world; r++)
        s->sum_bytes[r] = (int64_t)sizeof(*s->sums);
    memcpy(s->layer_begin, opt->layer_begin,
           ((size_t)(size_of(s->mesh, AP_AXIS_PIPE) * s->chunk_count) + 1) * sizeof(*s->layer_begin));
    return AP_OK;
}

/* batch: [batch ranks + 1] */
static ap_status build(struct ap_stage *s, const struct ap_stage_options *opt, int64_t *batch, struct ap_error *err)
{
    ap_status st = allocate(s, opt);
    take_leaves(opt, batch);
    s->lo = batch[s->mesh->batch->rank];
    s->hi = batch[s->mesh->batch->rank + 1];
    struct ap_pipe_spec spec = {.kind = opt->kind,
                                .stages = size_of(s->mesh, AP_AXIS_PIPE),
                                .chunks = chunks_of(opt),
                                .micros = s->hi - s->lo,
                                .window = opt->window};
    if (st == AP_OK)
        AP_TRY(ap_pipe_schedule_create(&spec, s->mesh->coord[AP_AXIS_PIPE], &s->schedule, err));
    if (st == AP_OK)
        st = make_slots(s);
    if (st != AP_OK)
        return ap_error_set(err, st, "out of memory");
    for (int c = 0; c < s->chunk_count; c++) {
        s->chunks[c].late = (int)ap_pipe_late(&spec, s->mesh->coord[AP_AXIS_PIPE]);
        AP_TRY(make_chunk(s, opt, c, batch, err));
    }
    return AP_OK;
}

ap_status ap_stage_create(const struct ap_stage_options *opt, struct ap_stage **s_p, struct ap_error *err)
{
    AP_TRY(ap_stage_check(opt, err));
    struct ap_stage *s = calloc(1, sizeof(*s));
    int64_t *batch = calloc((size_t)opt->mesh->batch->size + 1, sizeof(*batch));
    if (!s || !batch) {
        free(s);
        free(batch);
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    }
    s->be = opt->backend;
    s->mesh = opt->mesh;
    s->hidden = opt->cfg->hidden_size;
    s->dtype = opt->dtype;
    s->clock = opt->clock;
    ap_status st = build(s, opt, batch, err);
    free(batch);
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
    for (int c = 0; s->chunks && c < s->chunk_count; c++) {
        struct ap_stage_chunk *k = &s->chunks[c];
        for (int i = 0; i < k->count; i++) {
            ap_reducer_destroy(k->groups[i].reducer);
            ap_optimizer_destroy(k->groups[i].optim);
        }
        ap_model_destroy(k->model);
    }
    ap_pipe_schedule_destroy(s->schedule);
    free(s->slot);
    free(s->chunks);
    free(s->sums);
    free(s->sum_bytes);
    free(s->layer_begin);
    free(s);
}

ap_status ap_stage_part(const struct ap_stage *s, const int coord[AP_AXES], int chunk, struct ap_model_part *part_p)
{
    for (int a = 0; a < AP_AXES; a++)
        if (coord[a] < 0 || coord[a] >= size_of(s->mesh, a))
            return AP_ERR_BUG;
    if (chunk < 0 || chunk >= s->chunk_count)
        return AP_ERR_BUG;
    *part_p = part_of(s->mesh, s->layer_begin, s->chunk_count, coord, chunk);
    return AP_OK;
}

static ap_status init_chunk(struct ap_stage_chunk *k, const struct ap_model_config *cfg, uint64_t seed)
{
    float *w = malloc((size_t)(k->params->flat + 1) * sizeof(*w));
    if (!w)
        return AP_ERR_NOMEM;
    ap_status st = AP_OK;
    ap_params_init(k->params, cfg, seed, w);
    for (int i = 0; st == AP_OK && i < k->count; i++)
        st = ap_optimizer_set_weights(k->groups[i].optim, w + k->params->region[k->groups[i].id].begin);
    free(w);
    return st;
}

ap_status ap_stage_init_weights(struct ap_stage *s, const struct ap_model_config *cfg, uint64_t seed)
{
    for (int c = 0; c < s->chunk_count; c++)
        AP_TRY(init_chunk(&s->chunks[c], cfg, seed));
    return AP_OK;
}

size_t ap_stage_model_bytes(const struct ap_stage *s)
{
    size_t bytes = 0;
    for (int c = 0; c < s->chunk_count; c++)
        bytes += ap_model_memory(s->chunks[c].model);
    return bytes;
}

/* The next group of the stage, chunk after chunk; NULL: that was the last. *at: counts them, from 0. */
static struct ap_stage_group *next_group(struct ap_stage *s, int *at)
{
    int i = (*at)++;
    for (int c = 0; c < s->chunk_count; c++) {
        if (i < s->chunks[c].count)
            return &s->chunks[c].groups[i];
        i -= s->chunks[c].count;
    }
    return NULL;
}

int64_t ap_stage_gradient_bytes(const struct ap_stage *s)
{
    int64_t bytes = 0;
    for (int c = 0; c < s->chunk_count; c++)
        for (int i = 0; i < s->chunks[c].count; i++)
            bytes += ap_reducer_bytes(s->chunks[c].groups[i].reducer);
    return bytes;
}

struct ap_model_buffers ap_stage_buffers(const struct ap_stage *s, int chunk, ap_tensor router_bias)
{
    const struct ap_stage_chunk *k = &s->chunks[chunk];
    struct ap_model_buffers b = {.router_bias = router_bias};
    for (int i = 0; i < k->count; i++)
        b.weights[k->groups[i].id] = ap_optimizer_weights(k->groups[i].optim);
    return b;
}

void ap_stage_reset(struct ap_stage *s)
{
    struct ap_stage_group *g;
    for (int at = 0; (g = next_group(s, &at)) != NULL;)
        ap_reducer_reset(g->reducer);
}

ap_status ap_stage_begin_leaf(struct ap_stage *s, int chunk, struct ap_model_buffers *b)
{
    struct ap_stage_chunk *k = &s->chunks[chunk];
    ap_work_begin(s->clock);
    for (int i = 0; i < k->count; i++)
        AP_TRY(ap_reducer_begin_leaf(k->groups[i].reducer, &b->grads[k->groups[i].id]));
    ap_work_lap(s->clock, s->clock ? &s->clock->clear : NULL);
    return AP_OK;
}

ap_status ap_stage_end_leaf(struct ap_stage *s, int chunk)
{
    struct ap_stage_chunk *k = &s->chunks[chunk];
    ap_work_begin(s->clock);
    for (int i = 0; i < k->count; i++)
        AP_TRY(ap_reducer_end_leaf(k->groups[i].reducer));
    ap_work_lap(s->clock, s->clock ? &s->clock->add : NULL);
    return AP_OK;
}

ap_status ap_stage_reduce(struct ap_stage *s)
{
    struct ap_stage_group *g;
    for (int at = 0; (g = next_group(s, &at)) != NULL;)
        AP_TRY(ap_reducer_finish(g->reducer, &g->grad));
    return AP_OK;
}

/* Each group's sum counts once in the world, at the first rank of its communicator; added in slot order. */
ap_status ap_stage_norm(struct ap_stage *s, double *norm_p)
{
    struct ap_comm *world = s->mesh->world;
    struct ap_stage_group *g;
    double own = 0, sum = 0;
    for (int at = 0; (g = next_group(s, &at)) != NULL;) {
        double part;
        AP_TRY(ap_optimizer_sumsq(g->optim, g->grad, &part));
        own += g->comm->rank == 0 ? part : 0;
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
    struct ap_stage_group *g;
    for (int at = 0; (g = next_group(s, &at)) != NULL;)
        AP_TRY(ap_optimizer_update(g->optim, h, g->grad, grad_scale));
    return AP_OK;
}

void ap_stage_flip(struct ap_stage *s)
{
    struct ap_stage_group *g;
    for (int at = 0; (g = next_group(s, &at)) != NULL;)
        ap_optimizer_flip(g->optim);
}

ap_status ap_stage_named(struct ap_stage *s, int all_weights, struct ap_named_set *set, struct ap_error *err)
{
    struct ap_stage_group *g;
    for (int at = 0; (g = next_group(s, &at)) != NULL;)
        AP_TRY(ap_optimizer_named(g->optim, all_weights, set, err));
    return AP_OK;
}

ap_status ap_stage_loaded(struct ap_stage *s)
{
    struct ap_stage_group *g;
    for (int at = 0; (g = next_group(s, &at)) != NULL;)
        AP_TRY(ap_optimizer_loaded(g->optim));
    return AP_OK;
}
