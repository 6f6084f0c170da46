/* SPDX-License-Identifier: Apache-2.0
 * Sharded AdamW: against the formula in f64, the same bits for any number of ranks on every host backend,
 * clipping, the global norm, and a committed state that a failed step leaves whole. */
#include "config.h"

#include <math.h>

#include "../support/leaks.h"
#include "../support/vranks.h"
#include "base/bf16.h"
#include "base/rng.h"
#include "train/optimizer.h"

/* A parameter list of odd sizes with gaps, norms between matrices, and one tensor of several chunks. */
#define PARAMS 5
static const int64_t sizes[PARAMS] = {1000, 17, 2 * AP_PARAM_CHUNK + 333, 65, 4096};
static const int decays[PARAMS] = {1, 0, 1, 0, 1};
static struct ap_param list[PARAMS];
static struct ap_param_chunk chunks[PARAMS + 2];
static struct ap_params params;

static void make_params(void)
{
    int64_t at = 0, n = 0;
    for (int i = 0; i < PARAMS; i++) {
        list[i] = (struct ap_param){.rows = sizes[i], .cols = 1, .offset = at, .count = sizes[i]};
        list[i].info = (struct ap_param_info){.ndim = 1, .shape = {sizes[i], 1}, .decay = decays[i]};
        snprintf(list[i].info.name, sizeof(list[i].info.name), "t%d", i);
        for (int64_t k = 0; k < sizes[i]; k += AP_PARAM_CHUNK)
            chunks[n++] =
                (struct ap_param_chunk){i, at + k, sizes[i] - k < AP_PARAM_CHUNK ? sizes[i] - k : AP_PARAM_CHUNK};
        at = (at + sizes[i] + AP_PARAM_ALIGN - 1) / AP_PARAM_ALIGN * AP_PARAM_ALIGN;
    }
    params = (struct ap_params){.list = list, .count = PARAMS, .chunks = chunks, .chunk_count = n, .flat = at};
    for (int g = 0; g < AP_GROUPS; g++)
        params.region[g] = (struct ap_param_region){at, at, n, n};
    params.region[AP_GROUP_SPLIT] = (struct ap_param_region){0, at, 0, n};
}
TestSuite(optimizer, .init = make_params, .timeout = 120);

static int in_gap(int64_t i)
{
    for (int p = 0; p < PARAMS; p++)
        if (i >= list[p].offset && i < list[p].offset + list[p].count)
            return 0;
    return 1;
}

static int decay_of(int64_t i)
{
    for (int p = 0; p < PARAMS; p++)
        if (i >= list[p].offset && i < list[p].offset + list[p].count)
            return list[p].info.decay;
    return 0;
}

static double noise(int stream, int64_t i)
{
    return ap_rng_uniform(3, AP_RNG_TEST + (uint64_t)stream, (uint64_t)i) - 0.5;
}

static float grad_of(int step, int64_t i)
{
    return in_gap(i) ? 0 : (float)noise(1 + step, i);
}

struct train {
    const char *backend;
    ap_dtype dtype;
    double clip;
    int steps;
    void *weights; /* [flat] of rank 0 after the steps */
    double norm[8];
};

static const struct ap_optimizer_hyper hyper = {1e-2, 0.9, 0.95, 1e-8, 0.1, 0, 1};

static void fill_grad(ap_tensor g, int64_t begin, int step)
{
    for (int64_t i = 0; i < g.shape[0]; i++) {
        float x = grad_of(step, begin + i);
        if (g.dtype == AP_F32)
            ((float *)g.data)[i] = x;
        else
            ((double *)g.data)[i] = x;
    }
}

static void train(struct vrank *v)
{
    struct train *t = v->ctx;
    struct ap_backend *be = NULL;
    struct ap_optimizer *o = NULL;
    struct ap_error err = {0};
    VCHECK(v, ap_backend_open(t->backend, 0, NULL, &be, &err) == AP_OK);
    struct ap_optimizer_options opt = {be, v->comm, &params, AP_GROUP_SPLIT, t->dtype};
    VCHECK(v, ap_optimizer_create(&opt, &o, &err) == AP_OK);
    const struct ap_shard_map *map = ap_optimizer_map(o);
    int64_t begin = map->begin[v->comm->rank], n = map->begin[v->comm->rank + 1] - begin;
    size_t es = ap_dtype_size(t->dtype);
    ap_dtype full = ap_dtype_full(t->dtype);
    float *w = calloc((size_t)params.flat, sizeof(*w));
    void *g = malloc((size_t)(n > 0 ? n : 1) * ap_dtype_size(full));
    for (int64_t i = 0; i < params.flat; i++)
        w[i] = in_gap(i) ? 0 : (float)noise(0, i);
    VCHECK(v, ap_optimizer_set_weights(o, w) == AP_OK);
    for (int s = 0; s < t->steps; s++) {
        ap_tensor grad = ap_tensor_1d(g, full, n);
        fill_grad(grad, begin, s);
        double norm = 0;
        VCHECK(v, ap_optimizer_sumsq(o, grad, &norm) == AP_OK);
        norm = sqrt(norm);
        struct ap_optimizer_hyper h = hyper;
        h.t = s + 1;
        VCHECK(v, ap_optimizer_update(o, &h, grad, ap_optimizer_clip_scale(norm, t->clip)) == AP_OK);
        ap_optimizer_flip(o);
        if (v->comm->rank == 0)
            t->norm[s] = norm;
    }
    const void *host = NULL;
    VCHECK(v, ap_optimizer_host_weights(o, &host) == AP_OK);
    if (v->comm->rank == 0)
        memcpy(t->weights, host, (size_t)params.flat * es);
    free(w);
    free(g);
    ap_optimizer_destroy(o);
    ap_backend_close(be);
}

/* The formula, in f64, with all state in one place. */
static void expected(int steps, double clip, double *w, double *norms)
{
    double *m = calloc((size_t)params.flat, sizeof(*m)), *x = calloc((size_t)params.flat, sizeof(*x));
    for (int64_t i = 0; i < params.flat; i++)
        w[i] = in_gap(i) ? 0 : (float)noise(0, i);
    for (int s = 0; s < steps; s++) {
        double sum = 0;
        for (int64_t i = 0; i < params.flat; i++)
            sum += (double)grad_of(s, i) * grad_of(s, i);
        norms[s] = sqrt(sum);
        double scale = clip > 0 && clip < norms[s] ? clip / (norms[s] + 1e-6) : 1;
        double c1 = 1 - pow(0.9, s + 1), c2 = 1 - pow(0.95, s + 1);
        for (int64_t i = 0; i < params.flat; i++) {
            double g = grad_of(s, i) * scale;
            m[i] = 0.9 * m[i] + (1 - 0.9) * g;
            x[i] = 0.95 * x[i] + (1 - 0.95) * g * g;
            w[i] = w[i] * (1 - 1e-2 * (decay_of(i) ? 0.1 : 0)) - 1e-2 * (m[i] / c1) / (sqrt(x[i] / c2) + 1e-8);
        }
    }
    free(m);
    free(x);
}

static void against_formula(ap_dtype dtype, double clip, double tolerance)
{
    double *want = calloc((size_t)params.flat, sizeof(*want)), norms[8];
    struct train t = {.backend = "reference", .dtype = dtype, .clip = clip, .steps = 5};
    t.weights = calloc((size_t)params.flat, sizeof(double));
    vranks_run(3, train, &t);
    expected(5, clip, want, norms);
    for (int64_t i = 0; i < params.flat; i++) {
        double got = dtype == AP_F32 ? (double)((float *)t.weights)[i] : ((double *)t.weights)[i];
        cr_assert(fabs(got - want[i]) <= tolerance, "element %lld: %.17g, want %.17g", (long long)i, got, want[i]);
    }
    for (int s = 0; s < 5; s++)
        cr_expect_float_eq(t.norm[s], norms[s], 1e-9 * norms[s]);
    free(t.weights);
    free(want);
}

AP_TEST(optimizer, equals_the_formula)
{
    against_formula(AP_F64, 0, 1e-13);
    against_formula(AP_F64, 1.0, 1e-13);
    against_formula(AP_F32, 1.0, 1e-5);
}

AP_TEST(optimizer, same_bits_for_any_number_of_ranks)
{
    for (const char *const *name = ap_backend_names(); *name; name++) {
        size_t bytes = (size_t)params.flat * sizeof(float);
        struct train one = {.backend = *name, .dtype = AP_F32, .clip = 1, .steps = 4, .weights = calloc(1, bytes)};
        vranks_run(1, train, &one);
        for (int ranks = 2; ranks <= 10; ranks++) {
            struct train t = one;
            t.weights = calloc(1, bytes);
            vranks_run(ranks, train, &t);
            cr_expect(memcmp(t.weights, one.weights, bytes) == 0, "%s: weights differ with %d ranks", *name, ranks);
            cr_expect(memcmp(t.norm, one.norm, sizeof(t.norm)) == 0, "%s: norms differ with %d ranks", *name, ranks);
            free(t.weights);
        }
        free(one.weights);
    }
}

/* Equal gradients, so the masters take the way of f32: what the model reads must be they, rounded once. */
AP_TEST(optimizer, bf16_weights_are_the_masters_rounded)
{
    for (const char *const *name = ap_backend_names(); *name; name++) {
        struct train f32 = {.backend = *name, .dtype = AP_F32, .clip = 1, .steps = 4};
        f32.weights = calloc((size_t)params.flat, sizeof(float));
        vranks_run(2, train, &f32);
        for (int ranks = 1; ranks <= 4; ranks++) {
            struct train t = {.backend = *name, .dtype = AP_BF16, .clip = 1, .steps = 4};
            t.weights = calloc((size_t)params.flat, sizeof(uint16_t));
            vranks_run(ranks, train, &t);
            for (int64_t i = 0; i < params.flat; i++)
                cr_assert_eq(((uint16_t *)t.weights)[i], ap_bf16_from_f32(((float *)f32.weights)[i]),
                             "%s, %d ranks: element %lld", *name, ranks, (long long)i);
            free(t.weights);
        }
        free(f32.weights);
    }
}

/* Copy what one optimizer saves (its shards) to what another lists for loading; one rank. */
static void carry(struct vrank *v, struct ap_optimizer *from, struct ap_optimizer *to)
{
    struct ap_named_set saved = {0}, wanted = {0};
    VCHECK(v, ap_optimizer_named(from, 0, &saved, NULL) == AP_OK);
    VCHECK(v, ap_optimizer_named(to, 1, &wanted, NULL) == AP_OK);
    VCHECK(v, saved.count == wanted.count && saved.count > 0);
    for (int64_t i = 0; i < saved.count; i++) {
        const struct ap_named *a = &saved.list[i], *b = &wanted.list[i];
        VCHECK(v, strcmp(a->name, b->name) == 0 && a->dtype == AP_F32 && b->dtype == AP_F32);
        VCHECK(v, a->begin == b->begin && a->end == b->end);
        memcpy(b->data, a->data, (size_t)(a->end - a->begin) * sizeof(float));
    }
    VCHECK(v, ap_optimizer_loaded(to) == AP_OK);
    ap_named_set_clear(&saved);
    ap_named_set_clear(&wanted);
}

static void update(struct vrank *v, struct ap_optimizer *o, float *g, int step)
{
    struct ap_optimizer_hyper h = hyper;
    h.t = step + 1;
    fill_grad(ap_tensor_1d(g, AP_F32, params.flat), 0, step);
    VCHECK(v, ap_optimizer_update(o, &h, ap_tensor_1d(g, AP_F32, params.flat), 1) == AP_OK);
    ap_optimizer_flip(o);
}

static void bf16_resume(struct vrank *v)
{
    struct ap_backend *be = NULL;
    struct ap_optimizer *o[2] = {NULL, NULL};
    VCHECK(v, ap_backend_open("reference", 0, NULL, &be, NULL) == AP_OK);
    struct ap_optimizer_options opt = {be, v->comm, &params, AP_GROUP_SPLIT, AP_BF16};
    size_t bytes = (size_t)params.flat * sizeof(uint16_t);
    float *w = calloc((size_t)params.flat, sizeof(*w)), *g = calloc((size_t)params.flat, sizeof(*g));
    for (int64_t i = 0; i < params.flat; i++)
        w[i] = in_gap(i) ? 0 : (float)noise(0, i);
    for (int i = 0; i < 2; i++)
        VCHECK(v, ap_optimizer_create(&opt, &o[i], NULL) == AP_OK);
    VCHECK(v, ap_optimizer_set_weights(o[0], w) == AP_OK);
    update(v, o[0], g, 0);
    carry(v, o[0], o[1]);
    VCHECK(v, memcmp(ap_optimizer_weights(o[0]).data, ap_optimizer_weights(o[1]).data, bytes) == 0);
    /* Small steps that bf16 weights alone would lose: the masters must have come along. */
    for (int s = 1; s < 6; s++) {
        update(v, o[0], g, s);
        update(v, o[1], g, s);
    }
    VCHECK(v, memcmp(ap_optimizer_weights(o[0]).data, ap_optimizer_weights(o[1]).data, bytes) == 0);
    free(w);
    free(g);
    ap_optimizer_destroy(o[0]);
    ap_optimizer_destroy(o[1]);
    ap_backend_close(be);
}

AP_TEST(optimizer, bf16_goes_on_from_the_masters)
{
    vranks_run(1, bf16_resume, NULL);
}

AP_TEST(optimizer, clip_scale)
{
    cr_expect_eq(ap_optimizer_clip_scale(5, 0), 1);
    cr_expect_eq(ap_optimizer_clip_scale(0.5, 1), 1);
    cr_expect_float_eq(ap_optimizer_clip_scale(4, 1), 0.25, 1e-6);
    cr_expect_eq(ap_optimizer_clip_scale(0, 1), 1);
}

static void shadow(struct vrank *v)
{
    struct ap_backend *be = NULL;
    struct ap_optimizer *o = NULL;
    VCHECK(v, ap_backend_open("reference", 0, NULL, &be, NULL) == AP_OK);
    ap_dtype dtype = *(const ap_dtype *)v->ctx;
    struct ap_optimizer_options opt = {be, v->comm, &params, AP_GROUP_SPLIT, dtype};
    VCHECK(v, ap_optimizer_create(&opt, &o, NULL) == AP_OK);
    const struct ap_shard_map *map = ap_optimizer_map(o);
    int64_t begin = map->begin[v->comm->rank], n = map->begin[v->comm->rank + 1] - begin;
    size_t bytes = (size_t)params.flat * ap_dtype_size(dtype);
    float *w = calloc((size_t)params.flat, sizeof(*w)), *g = calloc((size_t)n + 1, sizeof(*g));
    uint16_t *half = calloc((size_t)params.flat, sizeof(*half));
    const void *before = dtype == AP_BF16 ? (void *)half : w;
    for (int64_t i = 0; i < params.flat; i++)
        w[i] = in_gap(i) ? 0 : (float)noise(0, i);
    for (int64_t i = 0; i < params.flat; i++)
        half[i] = ap_bf16_from_f32(w[i]);
    VCHECK(v, ap_optimizer_set_weights(o, w) == AP_OK);
    fill_grad(ap_tensor_1d(g, AP_F32, n), begin, 0);
    VCHECK(v, ap_optimizer_update(o, &hyper, ap_tensor_1d(g, AP_F32, n), 1) == AP_OK);
    VCHECK(v, memcmp(ap_optimizer_weights(o).data, before, bytes) == 0); /* not flipped: nothing happened */
    ap_optimizer_flip(o);
    VCHECK(v, memcmp(ap_optimizer_weights(o).data, before, bytes) != 0);
    struct ap_named_set set = {0};
    VCHECK(v, ap_optimizer_named(o, 0, &set, NULL) == AP_OK);
    int64_t held[3] = {0};
    static const char *const prefix[3] = {"param/", "adam.m/", "adam.v/"};
    for (int64_t i = 0; i < set.count; i++)
        for (int k = 0; k < 3; k++)
            held[k] +=
                strncmp(set.list[i].name, prefix[k], strlen(prefix[k])) == 0 ? set.list[i].end - set.list[i].begin : 0;
    VCHECK(v, held[0] == held[1] && held[1] == held[2]);
    VCHECK(v, ap_comm_sum_i64(v->comm, held, 1) == AP_OK);
    int64_t all = 0;
    for (int p = 0; p < PARAMS; p++)
        all += sizes[p];
    VCHECK(v, held[0] == all);
    ap_named_set_clear(&set);
    free(w);
    free(g);
    free(half);
    ap_optimizer_destroy(o);
    ap_backend_close(be);
}

AP_TEST(optimizer, an_update_is_invisible_until_the_flip)
{
    ap_dtype dtypes[] = {AP_F32, AP_BF16};
    for (int n = 1; n <= 4; n++)
        for (int i = 0; i < 2; i++)
            vranks_run(n, shadow, &dtypes[i]);
}

static void not_finite(struct vrank *v)
{
    struct ap_backend *be = NULL;
    struct ap_optimizer *o = NULL;
    VCHECK(v, ap_backend_open("reference", 0, NULL, &be, NULL) == AP_OK);
    struct ap_optimizer_options opt = {be, v->comm, &params, AP_GROUP_SPLIT, AP_F32};
    VCHECK(v, ap_optimizer_create(&opt, &o, NULL) == AP_OK);
    const struct ap_shard_map *map = ap_optimizer_map(o);
    int64_t n = map->begin[v->comm->rank + 1] - map->begin[v->comm->rank];
    float *g = calloc((size_t)n + 1, sizeof(*g));
    if (v->comm->rank == v->comm->size - 1)
        g[n / 2] = NAN; /* lies in a tensor for these sizes */
    double norm = 0;
    VCHECK(v, ap_optimizer_sumsq(o, ap_tensor_1d(g, AP_F32, n), &norm) == AP_OK);
    VCHECK(v, !isfinite(norm)); /* on every rank */
    free(g);
    ap_optimizer_destroy(o);
    ap_backend_close(be);
}

AP_TEST(optimizer, one_bad_element_shows_in_the_norm_of_every_rank)
{
    vranks_run(3, not_finite, NULL);
}
