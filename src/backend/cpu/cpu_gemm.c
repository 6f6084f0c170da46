/* SPDX-License-Identifier: Apache-2.0
 * Matrix products of the cpu backend: single-thread products on row (or column) blocks, one per task. */
#include "config.h"

#include "backend/cpu/cpu.h"
#include "backend/cpu/reference.h"
#include "backend/ops_check.h"

/* Below this many multiply-adds a product stays on one thread. */
#define PARALLEL_MIN_MACS 200000
/* Rows of one task are a multiple of this, so that register tiles are full. */
#define ROW_UNIT 48
/* More pieces than threads, so that a thread that is held up does not hold up the others, where that costs no more
 * packing: the kernel packs op(a) anew for every so many columns, op(b) for every piece of rows. */
#define PIECE_COLUMNS 512
#define PIECE_ROWS    1008
/* Rows of one expert task when there are several threads. */
#define EXPERT_ROWS 192

ap_status cpu_sgemm(struct cpu_worker *w, const struct ap_sgemm *g, int fixed)
{
    if (g->m == 0 || g->n == 0)
        return AP_OK;
    if (w->dnnl && g->k > 0 && (!g->a_bf16 || w->dnnl_bf16))
        return ap_dnnl_sgemm(w->dnnl, g, fixed);
    ap_sgemm_blocked(w->gemm, g, w->gemm_scratch);
    return AP_OK;
}

/* Cut `count` into at most `parts` pieces of a multiple of `unit`; piece i is [*begin_p, *end_p). */
static void piece(int64_t count, int64_t parts, int64_t unit, int64_t i, int64_t *begin_p, int64_t *end_p)
{
    int64_t units = (count + unit - 1) / unit;
    int64_t begin = units * i / parts * unit, end = units * (i + 1) / parts * unit;
    *begin_p = begin < count ? begin : count;
    *end_p = end < count ? end : count;
}

struct gemm_job {
    struct cpu_impl *impl;
    struct ap_sgemm g;
    int64_t row_parts, column_parts, column_unit;
    ap_status *status; /* one per task */
};

static void gemm_task(void *ctx, int64_t task, int worker)
{
    struct gemm_job *j = ctx;
    struct ap_sgemm g = j->g;
    int64_t begin, end;
    piece(j->g.m, j->row_parts, ROW_UNIT, task / j->column_parts, &begin, &end);
    g.a = ap_sgemm_at(g.a, g.a_bf16, begin * (g.trans_a ? 1 : g.lda));
    g.c = ap_sgemm_at(g.c, g.c_bf16, begin * g.ldc);
    g.m = end - begin;
    piece(j->g.n, j->column_parts, j->column_unit, task % j->column_parts, &begin, &end);
    g.b = ap_sgemm_at(g.b, g.b_bf16, begin * (g.trans_b ? g.ldb : 1));
    g.c = ap_sgemm_at(g.c, g.c_bf16, begin);
    g.n = end - begin;
    j->status[task] = cpu_sgemm(&j->impl->workers[worker], &g, 1);
}

static ap_status first_error(const ap_status *status, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        AP_TRY(status[i]);
    return AP_OK;
}

/* Pieces of whole blocks of the kernel where there are enough of them for all threads, else one per thread. */
static int64_t cut(struct gemm_job *j, int64_t threads)
{
    int64_t rows = j->g.m / PIECE_ROWS, columns = (j->g.n + PIECE_COLUMNS - 1) / PIECE_COLUMNS;
    j->row_parts = j->g.n > j->g.m ? 1 : rows > threads ? rows : threads;
    j->column_parts = j->g.n > j->g.m && columns < threads ? threads : columns;
    j->column_unit = j->column_parts == columns ? PIECE_COLUMNS : ROW_UNIT;
    return j->row_parts * j->column_parts;
}

ap_status cpu_gemm(struct ap_stream *s, const struct ap_gemm_args *a)
{
    struct cpu_impl *impl = cpu_of(s);
    if (a->a.dtype == AP_F64)
        return ap_backend_reference.ops.gemm(s, a);
    AP_TRY(ap_check_gemm(a));
    struct gemm_job job = {.impl = impl};
    int half = a->a.dtype == AP_BF16;
    job.g = (struct ap_sgemm){a->c.shape[0], a->c.shape[1], a->a.shape[a->trans_a ? 0 : 1],
                              a->a.data,     a->b.data,     a->c.data,
                              a->a.shape[1], a->b.shape[1], a->c.shape[1],
                              a->trans_a,    a->trans_b,    a->accumulate,
                              half,          half,          a->c.dtype == AP_BF16};
    if (impl->threads == 1 || job.g.m * job.g.n * job.g.k < PARALLEL_MIN_MACS)
        return cpu_sgemm(&impl->workers[0], &job.g, 1);
    int64_t tasks = cut(&job, impl->threads);
    AP_TRY(cpu_buffer_need(&impl->partial, (size_t)tasks * sizeof(*job.status)));
    job.status = impl->partial.mem;
    ap_pool_run(s->backend->pool, tasks, gemm_task, &job);
    return first_error(job.status, tasks);
}

/* Tasks over (group, block): first[e] is the first task of group e. */
struct grouped_job {
    struct cpu_impl *impl;
    const void *args;
    int64_t groups, block, parts;
    const int32_t *offsets;
    int64_t *first;
    ap_status *status;
};

static int64_t group_of_task(const struct grouped_job *j, int64_t task)
{
    int64_t low = 0, high = j->groups - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (j->first[middle] <= task)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static void grouped_task(void *ctx, int64_t task, int worker)
{
    struct grouped_job *j = ctx;
    const struct ap_grouped_gemm_args *a = j->args;
    int64_t e = group_of_task(j, task), begin = j->offsets[e] + (task - j->first[e]) * j->block;
    int64_t end = begin + j->block < j->offsets[e + 1] ? begin + j->block : j->offsets[e + 1];
    int64_t in = a->x.shape[1], out = a->y.shape[1];
    int half = a->x.dtype == AP_BF16;
    struct ap_sgemm g = {end - begin,
                         out,
                         in,
                         ap_sgemm_at(a->x.data, half, begin * in),
                         ap_sgemm_at(a->w.data, half, e * a->w_stride),
                         ap_sgemm_at(a->y.data, half, begin * out),
                         in,
                         a->trans_w ? in : out,
                         out,
                         0,
                         a->trans_w,
                         a->accumulate,
                         half,
                         half,
                         half};
    j->status[task] = cpu_sgemm(&j->impl->workers[worker], &g, 0);
}

/* Memory for first[groups + 1] and one status per task. */
static ap_status grouped_lists(struct grouped_job *j, int64_t tasks_max)
{
    size_t lists = (size_t)(j->groups + 1) * sizeof(int64_t);
    AP_TRY(cpu_buffer_need(&j->impl->partial, lists + (size_t)tasks_max * sizeof(ap_status)));
    j->first = j->impl->partial.mem;
    j->status = (ap_status *)((char *)j->impl->partial.mem + lists);
    return AP_OK;
}

ap_status cpu_grouped_gemm(struct ap_stream *s, const struct ap_grouped_gemm_args *a)
{
    struct cpu_impl *impl = cpu_of(s);
    if (a->x.dtype == AP_F64)
        return ap_backend_reference.ops.grouped_gemm(s, a);
    AP_TRY(ap_check_grouped_gemm(a));
    struct grouped_job job = {.impl = impl, .args = a, .groups = a->w.shape[0], .offsets = a->offsets.data};
    AP_TRY(ap_check_offsets(job.offsets, job.groups, a->x.shape[0]));
    job.block = impl->threads > 1 ? EXPERT_ROWS : INT32_MAX;
    AP_TRY(grouped_lists(&job, job.groups + a->x.shape[0] / job.block + 1));
    job.first[0] = 0;
    for (int64_t e = 0; e < job.groups; e++) {
        int64_t rows = job.offsets[e + 1] - job.offsets[e];
        job.first[e + 1] = job.first[e] + (rows + job.block - 1) / job.block;
    }
    ap_pool_run(s->backend->pool, job.first[job.groups], grouped_task, &job);
    return first_error(job.status, job.first[job.groups]);
}

static void wgrad_task(void *ctx, int64_t task, int worker)
{
    struct grouped_job *j = ctx;
    const struct ap_grouped_wgrad_args *a = j->args;
    int64_t e = task / j->parts, begin, end, out = a->dw.shape[1], in = a->dw.shape[2];
    int half = a->x.dtype == AP_BF16;
    piece(out, j->parts, ROW_UNIT, task % j->parts, &begin, &end);
    struct ap_sgemm g = {end - begin,
                         in,
                         j->offsets[e + 1] - j->offsets[e],
                         ap_sgemm_at(a->dy.data, half, j->offsets[e] * out + begin),
                         ap_sgemm_at(a->x.data, half, j->offsets[e] * in),
                         ap_sgemm_at(a->dw.data, a->dw.dtype == AP_BF16, e * a->w_stride + begin * in),
                         out,
                         in,
                         in,
                         1,
                         0,
                         a->accumulate,
                         half,
                         half,
                         a->dw.dtype == AP_BF16};
    j->status[task] = cpu_sgemm(&j->impl->workers[worker], &g, 0);
}

ap_status cpu_grouped_wgrad(struct ap_stream *s, const struct ap_grouped_wgrad_args *a)
{
    struct cpu_impl *impl = cpu_of(s);
    if (a->x.dtype == AP_F64)
        return ap_backend_reference.ops.grouped_wgrad(s, a);
    AP_TRY(ap_check_grouped_wgrad(a));
    struct grouped_job job = {.impl = impl, .args = a, .groups = a->dw.shape[0], .offsets = a->offsets.data};
    AP_TRY(ap_check_offsets(job.offsets, job.groups, a->x.shape[0]));
    if (job.groups == 0)
        return AP_OK;
    /* Few groups: cut the rows of dw so that every thread has work. */
    job.parts = impl->threads == 1 ? 1 : (2 * impl->threads + job.groups - 1) / job.groups;
    AP_TRY(grouped_lists(&job, job.groups * job.parts));
    ap_pool_run(s->backend->pool, job.groups * job.parts, wgrad_task, &job);
    return first_error(job.status, job.groups * job.parts);
}
