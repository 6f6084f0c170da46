/* SPDX-License-Identifier: Apache-2.0
 * Replay of recorded matrix products. A task is one product on one thread; a batch is a range of tasks that
 * run in parallel and is waited for. Shapes are numbered, engines are tried per shape at creation. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/k_gemm.h"
#include "backend/cpu/packed.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/replay.h"
#include "base/bf16.h"
#include "base/clock.h"
#include "base/memory.h"

#define ARENA_BYTES ((size_t)96 << 20) /* of each operand: three times a large last-level cache */
#define ROW_UNIT    48                 /* pieces as the backend cuts them */
#define TRIALS      3
#define PADDING     ((size_t)4 << 20) /* bytes; packed weights are padded to whole tiles */

struct shape {
    int64_t m, n, k;
    int trans_a, trans_b, accumulate, constant_b, bf16, c_bf16;
    enum ap_replay_engine best;
    int64_t uses;
};

struct task {
    int32_t shape;
    size_t a, b, c;
}; /* offsets in the arenas, bytes */
struct batch {
    int64_t first, count;
};

struct worker {
    void *scratch;
    struct ap_dnnl *dnnl;           /* NULL where oneDNN is absent */
    struct ap_packed_table *packed; /* likewise */
};

struct ap_replay {
    struct ap_pool *pool;
    int threads;
    const struct ap_sgemm_kernel *own;
    struct worker *workers;
    struct shape *shapes;
    int64_t shape_count, shape_capacity;
    struct task *tasks;
    int64_t task_count, task_capacity;
    struct batch *batches;
    int64_t batch_count, batch_capacity;
    char *arena[3];
    size_t bytes, at[3];
    int dnnl_bf16; /* oneDNN has bf16 products here */
    ap_status failed;
    double flops;
    int64_t products;
};

static const char *const names[AP_REPLAY_ENGINES] = {"own kernel", "oneDNN", "oneDNN packed"};

const char *ap_replay_engine_name(enum ap_replay_engine e)
{
    return names[e];
}

static int grow(void **list, int64_t *capacity, int64_t count, size_t size)
{
    if (count < *capacity)
        return 1;
    int64_t n = *capacity ? 2 * *capacity : 256;
    void *p = realloc(*list, (size_t)n * size);
    if (!p)
        return 0;
    *list = p;
    *capacity = n;
    return 1;
}

static int64_t shape_of(struct ap_replay *r, const struct ap_product *p)
{
    struct shape s = {p->m,
                      p->n,
                      p->k,
                      p->trans_a,
                      p->trans_b,
                      p->accumulate,
                      p->constant_b,
                      p->dtype == AP_BF16,
                      p->c_dtype == AP_BF16,
                      AP_REPLAY_OWN,
                      0};
    for (int64_t i = 0; i < r->shape_count; i++) {
        struct shape *o = &r->shapes[i];
        if (o->m == s.m && o->n == s.n && o->k == s.k && o->trans_a == s.trans_a && o->trans_b == s.trans_b &&
            o->accumulate == s.accumulate && o->constant_b == s.constant_b && o->bf16 == s.bf16 &&
            o->c_bf16 == s.c_bf16)
            return i;
    }
    if (!grow((void **)&r->shapes, &r->shape_capacity, r->shape_count, sizeof s))
        return -1;
    r->shapes[r->shape_count] = s;
    return r->shape_count++;
}

static size_t size_of(int bf16)
{
    return bf16 ? sizeof(uint16_t) : sizeof(float);
}

/* Next place for an operand of n elements: round and round. */
static size_t place(struct ap_replay *r, int arena, int64_t n, int bf16)
{
    size_t need = ((size_t)n * size_of(bf16) + 63) / 64 * 64;
    if (r->at[arena] + need > r->bytes)
        r->at[arena] = 0;
    size_t at = r->at[arena];
    r->at[arena] += need;
    return at;
}

static ap_status add_task(struct ap_replay *r, const struct ap_product *p)
{
    int64_t shape = shape_of(r, p);
    if (shape < 0 || !grow((void **)&r->tasks, &r->task_capacity, r->task_count, sizeof *r->tasks))
        return AP_ERR_NOMEM;
    struct shape *s = &r->shapes[shape];
    s->uses++;
    r->tasks[r->task_count++] = (struct task){(int32_t)shape, place(r, 0, p->m * p->k, s->bf16),
                                              place(r, 1, p->k * p->n, s->bf16), place(r, 2, p->m * p->n, s->c_bf16)};
    return AP_OK;
}

/* A single product is cut by rows, or by columns where there are more of them. */
static ap_status add_pieces(struct ap_replay *r, const struct ap_product *p)
{
    int by_columns = p->n > p->m;
    int64_t total = by_columns ? p->n : p->m, units = (total + ROW_UNIT - 1) / ROW_UNIT;
    for (int i = 0; i < r->threads; i++) {
        int64_t begin = units * i / r->threads * ROW_UNIT, end = units * (i + 1) / r->threads * ROW_UNIT;
        struct ap_product piece = *p;
        *(by_columns ? &piece.n : &piece.m) = (end < total ? end : total) - begin;
        if (begin < total && end > begin)
            AP_TRY(add_task(r, &piece));
    }
    return AP_OK;
}

static int same_call(const struct ap_product *a, const struct ap_product *b)
{
    if (a->kind != b->kind || a->kind == AP_PRODUCT_GEMM)
        return 0;
    /* grouped products of one call differ in the routed dimension only */
    return a->kind == AP_PRODUCT_ATTENTION || (a->trans_a == b->trans_a && a->trans_b == b->trans_b &&
                                               (a->trans_a ? a->m == b->m : a->k == b->k) && a->n == b->n);
}

static ap_status add_products(struct ap_replay *r, const struct ap_product *list, int64_t count)
{
    for (int64_t i = 0; i < count;) {
        if (!grow((void **)&r->batches, &r->batch_capacity, r->batch_count, sizeof *r->batches))
            return AP_ERR_NOMEM;
        struct batch *b = &r->batches[r->batch_count++];
        b->first = r->task_count;
        int64_t j = i;
        do {
            if (list[j].dtype != AP_F32 && list[j].dtype != AP_BF16)
                return AP_ERR_UNSUPPORTED;
            AP_TRY(list[j].kind == AP_PRODUCT_GEMM ? add_pieces(r, &list[j]) : add_task(r, &list[j]));
            r->flops += 2.0 * (double)list[j].m * (double)list[j].n * (double)list[j].k;
            j++;
        } while (j < count && same_call(&list[i], &list[j]));
        r->batches[r->batch_count - 1].count = r->task_count - r->batches[r->batch_count - 1].first;
        i = j;
    }
    r->products = count;
    return AP_OK;
}

static ap_status run_product(struct ap_replay *r, const struct task *t, enum ap_replay_engine e, struct worker *w)
{
    const struct shape *s = &r->shapes[t->shape];
    struct ap_sgemm g = {s->m,
                         s->n,
                         s->k,
                         r->arena[0] + t->a,
                         r->arena[1] + t->b,
                         r->arena[2] + t->c,
                         s->trans_a ? s->m : s->k,
                         s->trans_b ? s->k : s->n,
                         s->n,
                         s->trans_a,
                         s->trans_b,
                         s->accumulate,
                         s->bf16,
                         s->bf16,
                         s->c_bf16};
    if (e == AP_REPLAY_OWN) {
        ap_sgemm_blocked(r->own, &g, w->scratch);
        return AP_OK;
    }
    if (e == AP_REPLAY_PACKED)
        return ap_packed_sgemm(w->packed, t->shape, &g);
    return ap_dnnl_sgemm(w->dnnl, &g, 1);
}

static void run_task(void *ctx, int64_t index, int worker)
{
    struct ap_replay *r = ((void **)ctx)[0];
    const struct batch *b = ((void **)ctx)[1];
    const struct task *t = &r->tasks[b->first + index];
    ap_status st = run_product(r, t, r->shapes[t->shape].best, &r->workers[worker]);
    if (st != AP_OK)
        __atomic_store_n(&r->failed, st, __ATOMIC_RELAXED);
}

/* Time of one product of this shape, on this thread, as the minimum over trials with fresh operands. */
static ap_status try_engine(struct ap_replay *r, int32_t shape, enum ap_replay_engine e, double *seconds_p)
{
    const struct shape *s = &r->shapes[shape];
    double best = 1e30;
    for (int i = 0; i <= TRIALS; i++) {
        struct task t = {shape, place(r, 0, s->m * s->k, s->bf16), place(r, 1, s->k * s->n, s->bf16),
                         place(r, 2, s->m * s->n, s->c_bf16)};
        double begin = ap_clock_monotonic();
        AP_TRY(run_product(r, &t, e, &r->workers[0]));
        double took = ap_clock_monotonic() - begin;
        if (i > 0 && took < best) /* the first one makes the primitive */
            best = took;
    }
    *seconds_p = best;
    return AP_OK;
}

static ap_status choose_engines(struct ap_replay *r)
{
    for (int32_t i = 0; i < r->shape_count; i++) {
        double best = 1e30, took;
        for (int e = 0; e < AP_REPLAY_ENGINES; e++) {
            if (e != AP_REPLAY_OWN && (!r->workers[0].dnnl || (r->shapes[i].bf16 && !r->dnnl_bf16)))
                continue;
            if (e == AP_REPLAY_PACKED && !r->shapes[i].constant_b)
                continue;
            AP_TRY(try_engine(r, i, (enum ap_replay_engine)e, &took));
            if (took < best) {
                best = took;
                r->shapes[i].best = (enum ap_replay_engine)e;
            }
        }
    }
    return AP_OK;
}

static ap_status make_workers(struct ap_replay *r)
{
    r->workers = calloc((size_t)r->threads, sizeof *r->workers);
    if (!r->workers)
        return AP_ERR_NOMEM;
    for (int i = 0; i < r->threads; i++) {
        r->workers[i].scratch = ap_memory_alloc(ap_sgemm_scratch());
        r->workers[i].dnnl = ap_dnnl_create();
        r->workers[i].packed = ap_packed_create();
        if (!r->workers[i].scratch)
            return AP_ERR_NOMEM;
    }
    r->dnnl_bf16 = r->workers[0].dnnl && ap_dnnl_has_bf16(r->workers[0].dnnl);
    return AP_OK;
}

/* Small numbers: as bf16, and as f32, whose upper half is one. */
static ap_status make_arenas(struct ap_replay *r, const struct ap_product *list, int64_t count)
{
    int bf16 = count > 0 && list[0].dtype == AP_BF16;
    r->bytes = ARENA_BYTES;
    for (int64_t i = 0; i < count; i++) {
        size_t big[3] = {(size_t)(list[i].m * list[i].k), (size_t)(list[i].k * list[i].n),
                         (size_t)(list[i].m * list[i].n)};
        for (int j = 0; j < 3; j++)
            if ((big[j] + 16) * sizeof(float) > r->bytes)
                r->bytes = (big[j] + 31) / 16 * 16 * sizeof(float);
    }
    size_t all = r->bytes + PADDING;
    for (int j = 0; j < 3; j++) {
        r->arena[j] = ap_memory_alloc(all);
        if (!r->arena[j])
            return AP_ERR_NOMEM;
        for (size_t i = 0; i < all / size_of(bf16); i++) {
            float x = (float)(i % 61) * 1e-3f;
            if (bf16)
                ((uint16_t *)(void *)r->arena[j])[i] = ap_bf16_from_f32(x);
            else
                ((float *)(void *)r->arena[j])[i] = x;
        }
    }
    return AP_OK;
}

ap_status ap_replay_create(const struct ap_product *list, int64_t count, struct ap_pool *pool, struct ap_replay **r_p,
                           struct ap_error *err)
{
    enum ap_isa isa;
    AP_TRY(ap_isa_choose(&isa, err));
    struct ap_replay *r = calloc(1, sizeof *r);
    if (!r)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the replay");
    r->pool = pool;
    r->threads = pool ? ap_pool_threads(pool) : 1;
    r->own = ap_sgemm_choose(isa);
    ap_status st = make_workers(r);
    if (st == AP_OK)
        st = make_arenas(r, list, count);
    if (st == AP_OK)
        st = add_products(r, list, count);
    if (st == AP_OK)
        st = choose_engines(r);
    if (st != AP_OK) {
        ap_replay_destroy(r);
        return ap_error_set(err, st, "the replay of %lld products could not be set up: %s", (long long)count,
                            ap_status_name(st));
    }
    *r_p = r;
    return AP_OK;
}

ap_status ap_replay_run(struct ap_replay *r, double *seconds_p)
{
    double begin = ap_clock_monotonic();
    r->failed = AP_OK;
    for (int64_t i = 0; i < r->batch_count; i++) {
        void *ctx[2] = {r, &r->batches[i]};
        ap_pool_run(r->pool, r->batches[i].count, run_task, ctx);
    }
    *seconds_p = ap_clock_monotonic() - begin;
    return r->failed;
}

void ap_replay_info(const struct ap_replay *r, struct ap_replay_info *info)
{
    memset(info, 0, sizeof *info);
    info->flops = r->flops;
    info->products = r->products;
    info->shapes = r->shape_count;
    for (int64_t i = 0; i < r->shape_count; i++) {
        const struct shape *s = &r->shapes[i];
        info->engine_flops[s->best] += 2.0 * (double)s->uses * (double)s->m * (double)s->n * (double)s->k;
    }
}

void ap_replay_destroy(struct ap_replay *r)
{
    if (!r)
        return;
    for (int i = 0; r->workers && i < r->threads; i++) {
        free(r->workers[i].scratch);
        ap_dnnl_destroy(r->workers[i].dnnl);
        ap_packed_destroy(r->workers[i].packed);
    }
    free(r->workers);
    free(r->shapes);
    free(r->tasks);
    free(r->batches);
    for (int j = 0; j < 3; j++)
        free(r->arena[j]);
    free(r);
}
