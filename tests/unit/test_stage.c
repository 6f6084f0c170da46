/* SPDX-License-Identifier: Apache-2.0
 * A model trained on a mesh of virtual ranks beside the same model on one: every way to share 1, 2 and 4 ranks out over
 * data, tensor, pipeline and expert gives the same gradients, losses and weights within rounding, and the same bits
 * each time; uneven stages and batches too; a zero-bubble pipeline gives the bits of 1F1B; what cannot be cut is
 * refused with the reason. */
#include "config.h"

#include <math.h>

#include "../support/fewer.h"
#include "../support/leaks.h"
#include "../support/vranks.h"
#include "base/rng.h"
#include "train/runner.h"
#include "train/weights_hash.h"

#define STEPS  20
#define LEAVES 8
#define SEQ    24

TestSuite(stage, .timeout = 300);

/* One run: what to train on which mesh, and what came of it. */
struct run {
    struct ap_model_config cfg;
    struct ap_mesh_shape shape;
    int chunks, zero_bubble;
    const int64_t *layer_begin, *leaf_begin;
    ap_dtype dtype;
    int recompute, steps;
    const struct ap_params *whole;
    void *grads; /* [whole->flat] of the first step, of dtype */
    double loss[STEPS], balance[STEPS], norm[STEPS];
    int64_t load;             /* of all routers, in all steps */
    int meshes;               /* of the run on one rank: how many it was compared with */
    char hash[33], start[33]; /* of the weights at the end, and before the first step */
};

static double get(const void *data, ap_dtype t, int64_t i)
{
    return t == AP_F64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

static void put(void *data, ap_dtype t, int64_t i, double x)
{
    if (t == AP_F64)
        ((double *)data)[i] = x;
    else
        ((float *)data)[i] = (float)x;
}

static void fill(struct ap_batches *b, const struct run *run, int64_t lo, int step)
{
    int64_t T = SEQ;
    for (int64_t k = 0; k < b->count; k++)
        for (int64_t i = 0; i < T; i++) {
            struct ap_sample s = ap_batches_row(b, k, 0);
            uint64_t at = (uint64_t)(((step * LEAVES + lo + k) * T + i) * 2), V = (uint64_t)run->cfg.vocab_size;
            s.tokens[i] = (int32_t)(ap_rng_u64(5, AP_RNG_TEST, at) % V);
            s.targets[i] = i % 7 == 3 ? -1 : (int32_t)(ap_rng_u64(5, AP_RNG_TEST, at + 1) % V % 13);
            s.first[i] = i >= T / 2 ? (int32_t)(T / 2) : 0;
            s.positions[i] = (int32_t)(i - s.first[i]);
        }
}

static struct ap_loss_weights weights_of(const struct run *run, struct ap_comm *world, const struct ap_batches *b,
                                         const struct ap_mesh *m, struct vrank *v)
{
    int64_t sum[2] = {0, 0};
    for (int64_t k = 0; k < b->count && m->coord[AP_AXIS_PIPE] == 0 && m->coord[AP_AXIS_TENSOR] == 0; k++) {
        int64_t ce, mtp;
        ap_batches_count(b, k, &ce, &mtp);
        sum[0] += ce;
        sum[1] += mtp;
    }
    VCHECK(v, ap_comm_sum_i64(world, sum, 2) == AP_OK);
    return (struct ap_loss_weights){
        .ce = 1.0 / (double)sum[0], .mtp = run->cfg.mtp_depth ? 0.3 / (double)sum[1] : 0, .seq_balance = 1e-2 / LEAVES};
}

/* Every element of the gradient comes from exactly one rank: the others leave it alone. */
static void keep_grads(struct vrank *v, const struct run *run, struct ap_stage_chunk *s)
{
    for (int i = 0; i < s->count; i++) {
        struct ap_stage_group *g = &s->groups[i];
        const struct ap_shard_map *map = ap_optimizer_map(g->optim);
        struct ap_named_set mine = {0}, all = {0};
        int64_t base = s->params->region[g->id].begin;
        VCHECK(v, ap_params_named(s->params, "g", run->dtype, g->grad.data, base + map->begin[g->comm->rank],
                                  base + map->begin[g->comm->rank + 1], &mine, NULL) == AP_OK);
        VCHECK(v, ap_params_named(run->whole, "g", run->dtype, run->grads, 0, run->whole->flat, &all, NULL) == AP_OK);
        for (int64_t k = 0; k < mine.count; k++) {
            struct ap_named to = *ap_named_set_find(&all, mine.list[k].name);
            VCHECK(v, ap_named_copy_overlap(&to, &mine.list[k]) == mine.list[k].end - mine.list[k].begin);
        }
        ap_named_set_clear(&mine);
        ap_named_set_clear(&all);
    }
}

static void one_step(struct vrank *v, struct run *run, struct ap_stage *s, struct ap_runner *r, struct ap_results *res,
                     struct ap_batches *b, int64_t *loads, ap_tensor bias, int step)
{
    struct ap_loss_weights lw;
    struct ap_optimizer_hyper h = {1e-3, 0.9, 0.95, 1e-8, 0.1, 1.0, step + 1};
    double norm = 0, loss = 0, balance = 0;
    int64_t tokens = 0;
    fill(b, run, s->lo, step);
    lw = weights_of(run, s->mesh->world, b, s->mesh, v);
    ap_stage_reset(s);
    VCHECK(v, ap_runner_train(r, b, &lw, bias, res->own, loads) == AP_OK);
    VCHECK(v, ap_results_gather(res) == AP_OK);
    VCHECK(v, ap_stage_reduce(s) == AP_OK);
    for (int c = 0; step == 0 && run->grads && c < s->chunk_count; c++)
        keep_grads(v, run, &s->chunks[c]);
    VCHECK(v, ap_stage_norm(s, &norm) == AP_OK);
    VCHECK(v, ap_stage_update(s, &h, ap_optimizer_clip_scale(norm, h.clip)) == AP_OK);
    ap_stage_flip(s);
    for (int i = 0; i < LEAVES; i++) {
        loss += res->all[i].ce;
        tokens += res->all[i].ce_tokens;
        balance += res->all[i].balance;
    }
    if (v->comm->rank == 0) {
        run->loss[step] = loss / (double)tokens;
        run->balance[step] = balance;
        run->norm[step] = norm;
    }
}

static void hash(struct vrank *v, struct run *run, struct ap_stage *s, char hex[33])
{
    struct ap_hasher *h = s->mesh->world->rank == 0 ? ap_hasher_create() : NULL;
    VCHECK(v, ap_weights_hash(s, &run->cfg, h, NULL) == AP_OK);
    if (h)
        ap_hash128_hex(ap_hasher_digest(h), hex);
    ap_hasher_destroy(h);
}

/* Layers as even as can be, where the run has no wish. begin: [MOST_STAGES + 1] */
enum { MOST_STAGES = 16 };
static const int64_t *layers_of(const struct ap_model_config *cfg, int stages, const int64_t *wish, int64_t *begin)
{
    begin[0] = 0;
    for (int s = 0; s < stages; s++)
        begin[s + 1] = begin[s] + cfg->layers / stages + (s < cfg->layers % stages);
    return wish ? wish : begin;
}

static void train(struct vrank *v)
{
    int64_t even[MOST_STAGES + 1];
    struct run *run = v->ctx;
    struct ap_pool *pool = NULL;
    struct ap_backend *be = NULL;
    struct ap_mesh *mesh = NULL;
    struct ap_stage *s = NULL;
    struct ap_runner *r = NULL;
    struct ap_results res = {0};
    struct ap_batches b = {0};
    struct ap_error err = {0};
    VCHECK(v, ap_pool_create(1, &pool, &err) == AP_OK);
    VCHECK(v, ap_backend_open(run->dtype == AP_F64 ? "reference" : "cpu", 0, pool, &be, &err) == AP_OK);
    VCHECK(v, ap_mesh_create(v->comm, &run->shape, NULL, &mesh, &err) == AP_OK);
    struct ap_stage_options opt = {
        .backend = be,
        .mesh = mesh,
        .cfg = &run->cfg,
        .kind = run->zero_bubble  ? AP_PIPE_ZERO_BUBBLE
                : run->chunks > 1 ? AP_PIPE_INTERLEAVED
                                  : AP_PIPE_1F1B,
        .chunks = run->chunks,
        .layer_begin = layers_of(&run->cfg, run->shape.size[AP_AXIS_PIPE] * (run->chunks ? run->chunks : 1),
                                 run->layer_begin, even),
        .leaf_begin = run->leaf_begin,
        .leaves = LEAVES,
        .micro_sequences = 1,
        .seq_len = SEQ,
        .dtype = run->dtype,
        .recompute = run->recompute};
    VCHECK(v, ap_stage_create(&opt, &s, &err) == AP_OK);
    if (s) {
        int64_t routers = s->chunks[0].params->routers, *loads = calloc((size_t)routers + 1, sizeof(*loads));
        double *bias = calloc((size_t)routers + 1, sizeof(*bias));
        for (int64_t i = 0; i < routers; i++)
            put(bias, run->dtype, i, (double)(i % 5) * 0.01);
        VCHECK(v, ap_runner_create(s, &r, &err) == AP_OK);
        VCHECK(v, ap_results_create(mesh, LEAVES, run->leaf_begin, &res) == AP_OK);
        VCHECK(v, ap_batches_create(s->hi - s->lo, 1, SEQ, &b) == AP_OK);
        VCHECK(v, ap_stage_init_weights(s, &run->cfg, 3) == AP_OK);
        ap_tensor bias_t = run->cfg.gate_kind == AP_GATE_SIGMOID_NOAUX
                               ? ap_tensor_1d(bias, ap_dtype_full(run->dtype), routers)
                               : (ap_tensor){0};
        hash(v, run, s, run->start);
        for (int step = 0; step < run->steps; step++)
            one_step(v, run, s, r, &res, &b, mesh->coord[AP_AXIS_TENSOR] == 0 ? loads : NULL, bias_t, step);
        hash(v, run, s, run->hash);
        VCHECK(v, ap_comm_sum_i64(v->comm, loads, routers) == AP_OK);
        for (int64_t i = 0; v->comm->rank == 0 && i < routers; i++)
            run->load += loads[i];
        free(loads);
        free(bias);
    }
    if (err.status != AP_OK && v->comm->rank == 0)
        cr_log_error("%s", err.text);
    ap_results_free(&res);
    ap_batches_free(&b);
    ap_runner_destroy(r);
    ap_stage_destroy(s);
    ap_mesh_destroy(mesh);
    ap_backend_close(be);
    ap_pool_destroy(pool);
}

static int ranks_of(const struct run *run)
{
    return (int)ap_mesh_ranks(&run->shape);
}

/* The same job on one rank. */
static struct run alone(const struct run *run)
{
    struct run one = *run;
    one.shape = (struct ap_mesh_shape){{1, 1, 1, 1}};
    one.chunks = one.zero_bubble = 0;
    one.layer_begin = one.leaf_begin = NULL;
    one.recompute = 0;
    return one;
}

static double relative(double a, double b)
{
    return fabs(a - b) / fabs(b);
}

/* Of losses and of gradients, relative. In fp32 those of the golden numbers. */
static double limit(const struct run *run)
{
    return run->dtype == AP_F64 ? 1e-10 : 1e-5;
}

static void compare_grads(const struct run *run, const struct run *one, const char *what)
{
    for (int64_t i = 0; i < run->whole->count; i++) {
        const struct ap_param *p = &run->whole->list[i];
        double diff2 = 0, norm2 = 0, diff = 0, big = 0;
        for (int64_t k = p->offset; k < p->offset + p->count; k++) {
            double want = get(one->grads, run->dtype, k), d = get(run->grads, run->dtype, k) - want;
            diff2 += d * d;
            norm2 += want * want;
            diff = fabs(d) > diff || isnan(d) ? fabs(d) : diff;
            big = fabs(want) > big ? fabs(want) : big;
        }
        cr_expect(sqrt(diff2) <= limit(run) * sqrt(norm2) && diff <= 2 * limit(run) * big,
                  "%s: gradient of %s: %g of %g, %g of %g", what, p->info.name, sqrt(diff2), sqrt(norm2), diff, big);
    }
}

static void *new_grads(const struct ap_params *p, ap_dtype dtype)
{
    void *g = malloc((size_t)p->flat * sizeof(double));
    for (int64_t i = 0; g && i < p->flat; i++)
        put(g, dtype, i, NAN);
    return g;
}

/* Instrumented builds look for other things: they take fewer steps and fewer meshes. */
static int few(void)
{
    return fewer("steps of a run on a mesh, and few of the meshes", STEPS, 2) < STEPS;
}

/* Train on the mesh, twice, and compare with one rank, which is trained where one->steps is 0. */
static void check(struct run run, struct run *one)
{
    char what[200];
    struct ap_params *whole = NULL;
    cr_assert_eq(ap_params_create(&run.cfg, NULL, &whole), AP_OK);
    run.whole = whole;
    if (one->steps == 0) {
        *one = alone(&run);
        one->grads = new_grads(whole, run.dtype);
        vranks_run(1, train, one);
    }
    snprintf(what, sizeof(what), "%s data %d expert %d tensor %d pipeline %d", run.cfg.name,
             run.shape.size[AP_AXIS_DATA], run.shape.size[AP_AXIS_EXPERT], run.shape.size[AP_AXIS_TENSOR],
             run.shape.size[AP_AXIS_PIPE]);
    if (few() && one->meshes >= 1 + 5 * (run.dtype == AP_F32 && strcmp(run.cfg.name, "tiny-v3") == 0)) {
        ap_params_destroy(whole);
        return;
    }
    one->meshes++;
    struct run again = run;
    run.grads = new_grads(whole, run.dtype);
    vranks_run(ranks_of(&run), train, &run);
    again.grads = NULL;
    again.steps = run.steps < 3 ? run.steps : 3;
    vranks_run(ranks_of(&again), train, &again);
    compare_grads(&run, one, what);
    for (int i = 0; i < run.steps; i++) {
        cr_expect(relative(run.loss[i], one->loss[i]) <= limit(&run), "%s: loss of step %d: %.9g, alone %.9g", what, i,
                  run.loss[i], one->loss[i]);
        /* a token whose choice is a tie within rounding may go to another expert */
        cr_expect(one->balance[i] == 0 || relative(run.balance[i], one->balance[i]) <= 100 * limit(&run),
                  "%s: balance loss of step %d: %.9g, alone %.9g", what, i, run.balance[i], one->balance[i]);
        if (i < again.steps)
            cr_expect(memcmp(&run.loss[i], &again.loss[i], sizeof(double)) == 0 &&
                          memcmp(&run.norm[i], &again.norm[i], sizeof(double)) == 0,
                      "%s: step %d gave other bits the second time", what, i);
    }
    cr_expect(one->loss[run.steps - 1] < one->loss[0] * (1 - 1e-3 * run.steps), "%s: nothing was learned", what);
    cr_expect_eq(run.load, one->load, "%s: %lld routes, alone %lld", what, (long long)run.load, (long long)one->load);
    cr_expect_str_eq(run.start, one->start, "%s: other weights before the first step", what);
    cr_expect(again.steps < run.steps || strcmp(run.hash, again.hash) == 0, "%s: other weights the second time", what);
    cr_expect_str_neq(run.hash, run.start);
    free(run.grads);
    ap_params_destroy(whole);
}

static struct run job(const char *model, ap_dtype dtype)
{
    struct run run = {.dtype = dtype, .steps = few() ? 2 : dtype == AP_F64 ? 5 : STEPS};
    struct ap_error err = {0};
    cr_assert_eq(ap_model_config_preset(model, &run.cfg, &err), AP_OK, "%s", err.text);
    return run;
}

static void all_factorisations(const char *model)
{
    struct run one = {0};
    for (int ranks = few() ? 4 : 2; ranks <= 4; ranks *= 2)
        for (int p = 1; p <= ranks; p *= 2)
            for (int d = 1; p * d <= ranks; d *= 2)
                for (int e = 1; p * d * e <= ranks; e *= 2) {
                    if (few() && (p > 2 || d > 2 || e > 2 || ranks / (p * d * e) > 2))
                        continue;
                    struct run run = job(model, AP_F32);
                    if (p > run.cfg.layers)
                        continue; /* refused: more_than_the_model_has */
                    run.shape = (struct ap_mesh_shape){{p, d, e, ranks / (p * d * e)}};
                    check(run, &one);
                }
    free(one.grads);
}

AP_TEST(stage, v3_is_the_same_on_every_mesh)
{
    all_factorisations("tiny-v3");
}
AP_TEST(stage, v2_is_the_same_on_every_mesh)
{
    all_factorisations("tiny-v2");
}
AP_TEST(stage, v2_lite_is_the_same_on_every_mesh)
{
    all_factorisations("tiny-v2lite");
}

static struct ap_mesh_shape mesh_of(int pipe, int data, int expert, int tensor)
{
    return (struct ap_mesh_shape){{pipe, data, expert, tensor}};
}

AP_TEST(stage, five_layers_on_three_stages)
{
    static const int64_t layers[] = {0, 1, 4, 5};
    struct run one = {0}, run = job("tiny-v3", AP_F64);
    run.cfg.layers = 5;
    run.shape = mesh_of(3, 1, 1, 1);
    check(run, &one); /* 2, 2, 1 */
    run.layer_begin = layers;
    check(run, &one);
    run.recompute = 1;
    check(run, &one);
    run.shape = mesh_of(3, 1, 2, 2);
    check(run, &one);
    free(one.grads);
}

AP_TEST(stage, interleaved_chunks)
{
    static const int64_t layers[] = {0, 1, 3, 4, 5};
    struct run one = {0}, run = job("tiny-v3", AP_F64);
    run.cfg.layers = 5;
    run.chunks = 2;
    run.shape = mesh_of(2, 1, 1, 1);
    run.layer_begin = layers;
    check(run, &one);
    run.shape = mesh_of(2, 2, 1, 2);
    check(run, &one);
    run.layer_begin = NULL;
    run.shape = mesh_of(2, 1, 2, 1);
    run.recompute = 1;
    check(run, &one);
    free(one.grads);
}

static void make_dense(struct ap_model_config *cfg)
{
    cfg->routed_experts = cfg->experts_per_token = cfg->shared_experts = 0;
    cfg->first_dense = cfg->layers;
}

/* Gradients of weights that come later are the same bits as those that come at once, whole runs long, in any mesh. */
static void zero_bubble(struct run run, struct run *one)
{
    struct run plain = run;
    run.zero_bubble = 1;
    if (one != NULL)
        check(run, one);
    run.steps = plain.steps = few() ? 2 : 4;
    vranks_run(ranks_of(&run), train, &run);
    vranks_run(ranks_of(&plain), train, &plain);
    cr_expect(memcmp(run.loss, plain.loss, (size_t)run.steps * sizeof(double)) == 0 &&
                  memcmp(run.norm, plain.norm, (size_t)run.steps * sizeof(double)) == 0,
              "%s, %d stages: zero-bubble is not the same bits as 1F1B: losses %.17g and %.17g", run.cfg.name,
              run.shape.size[AP_AXIS_PIPE], run.loss[run.steps - 1], plain.loss[run.steps - 1]);
    cr_expect_str_eq(run.hash, plain.hash, "%s, %d stages: other weights", run.cfg.name, run.shape.size[AP_AXIS_PIPE]);
    cr_expect_str_neq(run.hash, run.start);
}

AP_TEST(stage, zero_bubble_is_1f1b_to_the_bit)
{
    static const int64_t layers[] = {0, 1, 4, 5}, leaves[] = {0, 6, 8}, pairs[] = {0, 3, 6, 7, 8};
    struct run one = {0}, run = job("tiny-v3", AP_F32);
    run.shape = mesh_of(2, 1, 1, 1);
    zero_bubble(run, &one);
    run.shape = mesh_of(2, 1, 1, 2);
    zero_bubble(run, few() ? NULL : &one);
    if (!few()) {
        run.shape = mesh_of(2, 1, 2, 1);
        zero_bubble(run, &one);
        run.shape = mesh_of(2, 2, 1, 1);
        run.leaf_begin = leaves;
        zero_bubble(run, NULL);
        run.shape = mesh_of(2, 2, 2, 2);
        run.leaf_begin = pairs;
        zero_bubble(run, NULL);
        run.leaf_begin = NULL;
        run.cfg.layers = 5;
        run.shape = mesh_of(3, 1, 1, 1);
        run.layer_begin = layers;
        zero_bubble(run, NULL);
        run.layer_begin = NULL;
        run.shape = mesh_of(5, 1, 1, 1);
        zero_bubble(run, NULL);
        run.dtype = AP_BF16;
        run.shape = mesh_of(3, 1, 1, 1);
        zero_bubble(run, NULL);
    }
    free(one.grads);
}

AP_TEST(stage, zero_bubble_of_other_models)
{
    struct run run = job("tiny-v2", AP_F32);
    run.shape = mesh_of(2, 1, 1, 1);
    zero_bubble(run, NULL);
    if (few())
        return;
    run = job("tiny-v2lite", AP_F32);
    run.shape = mesh_of(2, 1, 1, 2);
    zero_bubble(run, NULL);
    run = job("tiny-v3", AP_F32);
    make_dense(&run.cfg);
    run.cfg.mtp_depth = 0;
    run.shape = mesh_of(3, 1, 1, 1);
    zero_bubble(run, NULL);
}

AP_TEST(stage, a_rank_three_times_as_fast_takes_three_times_as_much)
{
    static const int64_t leaves[] = {0, 6, 8}, pairs[] = {0, 3, 6, 7, 8};
    struct run one = {0}, run = job("tiny-v3", AP_F64);
    run.shape = mesh_of(1, 2, 1, 1);
    run.leaf_begin = leaves;
    check(run, &one);
    run.shape = mesh_of(2, 2, 1, 2);
    check(run, &one);
    run.shape = mesh_of(1, 2, 2, 1);
    run.leaf_begin = pairs;
    check(run, &one);
    free(one.grads);
}

AP_TEST(stage, tensor_parallel_of_an_odd_vocabulary_and_sequence)
{
    struct run one = {0}, run = job("tiny-v3", AP_F64);
    run.cfg.vocab_size = 271;
    run.cfg.heads = 6;
    run.cfg.intermediate_size = 96;
    run.cfg.moe_intermediate_size = 15;
    run.shape = mesh_of(1, 1, 2, 3);
    check(run, &one);
    free(one.grads);
}

/* The reason for which ap_stage_check refuses a mesh; the same on every rank. */
struct refusal {
    struct ap_model_config cfg;
    struct ap_mesh_shape shape;
    int64_t leaves;
    int zero_bubble, recompute;
    const char *reason;
};

static void refused(struct vrank *v)
{
    const struct refusal *r = v->ctx;
    struct ap_mesh *mesh = NULL;
    struct ap_stage *s = NULL;
    struct ap_error err = {0};
    int64_t even[MOST_STAGES + 1];
    VCHECK(v, ap_mesh_create(v->comm, &r->shape, NULL, &mesh, NULL) == AP_OK);
    struct ap_stage_options opt = {.mesh = mesh,
                                   .cfg = &r->cfg,
                                   .layer_begin = layers_of(&r->cfg, r->shape.size[AP_AXIS_PIPE], NULL, even),
                                   .kind = r->zero_bubble ? AP_PIPE_ZERO_BUBBLE : AP_PIPE_1F1B,
                                   .recompute = r->recompute,
                                   .leaves = r->leaves,
                                   .micro_sequences = 1,
                                   .seq_len = SEQ,
                                   .dtype = AP_F32};
    VCHECK(v, ap_stage_create(&opt, &s, &err) == AP_ERR_INPUT && !s);
    VCHECK(v, strstr(err.text, r->reason) != NULL);
    if (!strstr(err.text, r->reason) && v->comm->rank == 0)
        cr_log_error("'%s' is not in '%s'", r->reason, err.text);
    ap_mesh_destroy(mesh);
}

static void expect_refusal(const char *reason, struct ap_mesh_shape shape, int64_t leaves,
                           void (*change)(struct ap_model_config *cfg))
{
    struct refusal r = {.cfg = job("tiny-v3", AP_F32).cfg, .shape = shape, .leaves = leaves, .reason = reason};
    if (change)
        change(&r.cfg);
    vranks_run((int)ap_mesh_ranks(&shape), refused, &r);
}

AP_TEST(stage, more_than_the_model_has)
{
    expect_refusal("pipeline 4: the model has only 3 layers", mesh_of(4, 1, 1, 1), 8, NULL);
    expect_refusal("tensor 3: 4 attention heads", mesh_of(1, 1, 1, 3), 8, NULL);
    expect_refusal("expert 5: 12 routed experts", mesh_of(1, 1, 5, 1), 10, NULL);
    expect_refusal("the model has no experts", mesh_of(1, 1, 2, 1), 8, make_dense);
    expect_refusal("a step has only 3 micro-batches", mesh_of(1, 4, 1, 1), 3, NULL);
    expect_refusal("expert 2: 7 micro-batches", mesh_of(1, 2, 2, 1), 7, NULL);
}

AP_TEST(stage, zero_bubble_where_it_cannot_be)
{
    struct refusal r = {.cfg = job("tiny-v3", AP_F32).cfg, .shape = mesh_of(1, 2, 1, 1), .leaves = 8, .zero_bubble = 1};
    r.reason = "schedule zero-bubble: pipeline 1 has no bubble to fill";
    vranks_run(2, refused, &r);
    r.shape = mesh_of(2, 1, 1, 1);
    r.recompute = 1;
    r.reason =
        "schedule zero-bubble: the gradients of the weights come later, from activations that recompute does not";
    vranks_run(2, refused, &r);
}
