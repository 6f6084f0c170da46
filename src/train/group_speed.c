/* SPDX-License-Identifier: Apache-2.0
 * Times of a node's collectives: of empty and of full-sized ones, which gives latency and bandwidth, and of the sum of
 * gradients with the gather of weights behind it. The number of repetitions is agreed, the slowest rank's median
 * counts. */
#include "config.h"

#include <stdlib.h>

#include "base/clock.h"
#include "parallel/zero.h"
#include "train/bench_step.h"
#include "train/group_speed.h"

#define SMALL       ((int64_t)64)       /* bytes to each rank */
#define MOST_BYTES  ((int64_t)64 << 20) /* of activations */
#define MOST_PARAMS ((int64_t)16 << 20)
#define LEAST       5
#define MOST        101
#define SECONDS     0.15 /* for each of the three */

/* One timed run of something collective. */
typedef ap_status (*run_fn)(void *ctx, double *seconds_p);

/* The median of as many runs as take SECONDS, on the slowest rank. */
static ap_status repeat(struct ap_comm *comm, run_fn run, void *ctx, double *seconds_p)
{
    double t[MOST], first;
    AP_TRY(run(ctx, &first)); /* pages and connections */
    AP_TRY(run(ctx, &first));
    int64_t n = (int64_t)(SECONDS / (first > 1e-9 ? first : 1e-9));
    n = n < LEAST ? LEAST : n > MOST ? MOST : n;
    AP_TRY(ap_comm_max_i64(comm, &n, 1));
    for (int64_t i = 0; i < n; i++)
        AP_TRY(run(ctx, &t[i]));
    int64_t ps = (int64_t)(1e12 * ap_bench_median(t, (int)n));
    AP_TRY(ap_comm_max_i64(comm, &ps, 1));
    *seconds_p = 1e-12 * (double)ps;
    return AP_OK;
}

/* ---- collectives ---- */

struct exchange {
    struct ap_comm *comm;
    uint8_t *send, *recv;
    int64_t each, *bytes, *off; /* to each rank */
};

/* A gather and an all-to-all of as many bytes from each to each; half of both. */
static ap_status exchange(void *ctx, double *seconds_p)
{
    struct exchange *x = ctx;
    for (int r = 0; r < x->comm->size; r++) {
        x->bytes[r] = x->each;
        x->off[r] = r * x->each;
    }
    AP_TRY(ap_comm_barrier(x->comm));
    double begin = ap_clock_monotonic();
    AP_TRY(ap_comm_allgatherv(x->comm, x->send, x->bytes, x->recv));
    AP_TRY(ap_comm_alltoallv(x->comm, x->send, x->bytes, x->off, x->recv, x->bytes, x->off));
    *seconds_p = 0.5 * (ap_clock_monotonic() - begin);
    return AP_OK;
}

static ap_status measure_group(struct exchange *x, int64_t each, struct ap_topo_link *group_p)
{
    double small, large, others = x->comm->size - 1;
    x->each = SMALL;
    AP_TRY(repeat(x->comm, exchange, x, &small));
    x->each = each;
    AP_TRY(repeat(x->comm, exchange, x, &large));
    /* A large one that is no slower than a small one was disturbed less: as if both had been. */
    double beyond = large > 1.01 * small ? large - small : 0.01 * large;
    group_p->latency = small / others;
    group_p->bandwidth = others * (double)each / beyond;
    return AP_OK;
}

static ap_status group(const struct ap_job *job, struct ap_comm *comm, struct ap_group_speed *res)
{
    int64_t all = job->batch.micro_sequences * job->data.seq_len * job->model.cfg.hidden_size *
                  (int64_t)ap_dtype_size((ap_dtype)job->dtype);
    int64_t each = (all < MOST_BYTES ? all : MOST_BYTES) / comm->size;
    each = each < 2 * SMALL ? 2 * SMALL : each;
    size_t bytes = (size_t)(each * comm->size);
    struct exchange x = {.comm = comm, .send = calloc(1, bytes), .recv = calloc(1, bytes)};
    x.bytes = calloc(2 * (size_t)comm->size, sizeof *x.bytes);
    ap_status st = x.send && x.recv && x.bytes ? AP_OK : AP_ERR_NOMEM;
    st = ap_comm_agree(comm, st, NULL, NULL);
    if (st == AP_OK) {
        x.off = x.bytes + comm->size;
        st = measure_group(&x, each, &res->group);
    }
    free(x.send);
    free(x.recv);
    free(x.bytes);
    return st;
}

/* ---- the sum of gradients ---- */

struct sum {
    struct ap_comm *comm;
    struct ap_backend *be;
    struct ap_shard_map map;
    struct ap_reducer *reducer;
    struct ap_gatherer *gatherer;
    void *weights;
    ap_tensor flat;
};

static ap_status sum_once(void *ctx, double *seconds_p)
{
    struct sum *s = ctx;
    ap_tensor grads, shard;
    AP_TRY(ap_reducer_begin_leaf(s->reducer, &grads));
    AP_TRY(ap_reducer_end_leaf(s->reducer));
    AP_TRY(ap_comm_barrier(s->comm));
    double begin = ap_clock_monotonic();
    AP_TRY(ap_reducer_finish(s->reducer, &shard));
    AP_TRY(ap_gatherer_run(s->gatherer, s->flat));
    AP_TRY(s->be->vt->stream_sync(s->be->stream));
    *seconds_p = ap_clock_monotonic() - begin;
    return AP_OK;
}

static ap_status make_sum(struct sum *s, int64_t params, ap_dtype dtype, struct ap_error *err)
{
    int size = s->comm->size;
    s->map = (struct ap_shard_map){size, calloc((size_t)size + 1, sizeof *s->map.begin)};
    if (!s->map.begin)
        return AP_ERR_NOMEM;
    for (int r = 0; r <= size; r++)
        s->map.begin[r] = params / size * r;
    struct ap_reducer_options ro = {
        .backend = s->be, .comm = s->comm, .map = &s->map, .dtype = ap_dtype_full(dtype), .leaves = size};
    AP_TRY(ap_reducer_create(&ro, &s->reducer, err));
    AP_TRY(ap_gatherer_create(s->be, s->comm, &s->map, dtype, &s->gatherer));
    size_t bytes = (size_t)s->map.begin[size] * ap_dtype_size(dtype);
    AP_TRY(s->be->vt->alloc(s->be, bytes, &s->weights));
    s->flat = ap_tensor_1d(s->weights, dtype, s->map.begin[size]);
    return s->be->vt->fill_zero(s->be->stream, s->weights, bytes);
}

static ap_status sum(const struct ap_job *job, struct ap_comm *comm, struct ap_backend *be, struct ap_group_speed *res,
                     struct ap_error *err)
{
    struct ap_model_count n;
    struct sum s = {.comm = comm, .be = be};
    ap_dtype dtype = (ap_dtype)job->dtype;
    ap_model_count_params(&job->model.cfg, &n);
    int64_t params = n.total + n.mtp < MOST_PARAMS ? n.total + n.mtp : MOST_PARAMS;
    double seconds = 0, size = comm->size;
    ap_status st = ap_comm_agree(comm, make_sum(&s, params, dtype, err), NULL, err);
    if (st == AP_OK)
        st = repeat(comm, sum_once, &s, &seconds);
    if (st == AP_OK && seconds > 0) {
        double bytes =
            (double)s.map.begin[comm->size] * (double)(ap_dtype_size(ap_dtype_full(dtype)) + ap_dtype_size(dtype));
        res->sum = (size - 1) / size * bytes / seconds;
    }
    if (s.weights)
        be->vt->release(be, s.weights);
    ap_gatherer_destroy(s.gatherer);
    ap_reducer_destroy(s.reducer);
    free(s.map.begin);
    return st;
}

ap_status ap_group_speed(const struct ap_job *job, struct ap_comm *comm, struct ap_backend *be,
                         struct ap_group_speed *res_p, struct ap_error *err)
{
    struct ap_group_speed res = {0};
    err->status = AP_OK;
    ap_status st = comm->size > 1 ? group(job, comm, &res) : AP_OK;
    if (st == AP_OK && comm->size > 1)
        st = sum(job, comm, be, &res, err);
    if (st != AP_OK && err->status == AP_OK)
        ap_error_set(err, st, "the ranks of a node cannot be measured together: %s", ap_status_name(st));
    if (st == AP_OK)
        *res_p = res;
    return st;
}
