/* SPDX-License-Identifier: Apache-2.0
 * The cpu backend: state, the split over the pool, and the operations that are range kernels. Slots that
 * are empty here run the reference. Two names share the code: "cpu" takes oneDNN for matrix products where
 * it is the faster one (AVX-512) and the own kernel elsewhere; "onednn" always takes oneDNN. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "backend/adamw_segments.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/host.h"
#include "backend/cpu/reference.h"
#include "backend/ops_check.h"
#include "base/memory.h"

/* Elements below which waking other threads costs more than it gives. */
#define PARALLEL_MIN 32768

ap_status cpu_buffer_need(struct cpu_buffer *b, size_t size)
{
    if (size <= b->size)
        return AP_OK;
    if (size > SIZE_MAX / 2)
        return AP_ERR_NOMEM;
    size_t rounded = size + size / 4;
    void *mem = ap_memory_alloc(rounded);
    if (!mem)
        return AP_ERR_NOMEM;
    free(b->mem);
    b->mem = mem;
    b->size = rounded;
    return AP_OK;
}

struct range_job {
    ap_range *range;
    const void *args;
    int64_t count, parts;
};

static void range_task(void *ctx, int64_t task, int worker)
{
    const struct range_job *j = ctx;
    (void)worker;
    j->range(j->args, j->count * task / j->parts, j->count * (task + 1) / j->parts);
}

void cpu_ranges(struct ap_stream *s, ap_range *range, const void *args, int64_t count, int64_t cost)
{
    struct range_job job = {range, args, count, cpu_of(s)->threads};
    if (job.parts <= 1 || count < 2 || count * cost < PARALLEL_MIN) {
        range(args, 0, count);
        return;
    }
    if (job.parts > count)
        job.parts = count;
    ap_pool_run(s->backend->pool, job.parts, range_task, &job);
}

static ap_status join_targets(const struct ap_cross_entropy_join_args *a)
{
    AP_TRY(ap_check_ids("cross_entropy_join", a->local_targets.data, a->logits.shape[0], -1, a->logits.shape[1]));
    return ap_check_ids("cross_entropy_join", a->has_target.data, a->logits.shape[0], -1, (int64_t)INT32_MAX + 1);
}

/* An operation made of one range kernel over `count` items. valid: conditions on index tensors. */
#define RANGE_OP(op, field, count, cost, valid)                                                                        \
    static ap_status cpu_##op(struct ap_stream *s, const struct ap_##op##_args *a)                                     \
    {                                                                                                                  \
        if (a->field.dtype == AP_F64)                                                                                  \
            return ap_backend_reference.ops.op(s, a);                                                                  \
        AP_TRY(ap_check_##op(a));                                                                                      \
        AP_TRY(valid);                                                                                                 \
        cpu_ranges(s, cpu_typed(s, a->field.dtype)->op, a, count, cost);                                               \
        return AP_OK;                                                                                                  \
    }

RANGE_OP(embed_fwd, table, a->out.shape[0], a->out.shape[1],
         ap_check_ids("embed_fwd", a->ids.data, a->out.shape[0], -1, a->table.shape[0]))
RANGE_OP(rmsnorm_fwd, x, a->x.shape[0], a->x.shape[1], AP_OK)
RANGE_OP(rope, x, a->x.shape[0], a->x.shape[1] * a->r,
         ap_check_ids("rope", a->positions.data, a->x.shape[0], 0, a->cos.shape[0]))
RANGE_OP(swiglu_fwd, y, a->y.shape[0], 4 * a->y.shape[1], AP_OK)
RANGE_OP(swiglu_bwd, dy, a->dy.shape[0], 4 * a->dy.shape[1], AP_OK)
RANGE_OP(moe_dispatch_fwd, x, a->xs.shape[0], a->xs.shape[1],
         ap_check_ids("moe_dispatch_fwd", a->token_of.data, a->xs.shape[0], 0, a->x.shape[0]))
RANGE_OP(moe_dispatch_bwd, dx, a->dx.shape[0], a->dx.shape[1] * a->row_of.shape[1],
         ap_check_ids("moe_dispatch_bwd", a->row_of.data, ap_tensor_count(&a->row_of), 0, a->dxs.shape[0]))
RANGE_OP(moe_combine_fwd, out, a->out.shape[0], a->out.shape[1] * a->row_of.shape[1],
         ap_check_ids("moe_combine_fwd", a->row_of.data, ap_tensor_count(&a->row_of), 0, a->ys.shape[0]))
RANGE_OP(moe_combine_bwd, dout, a->dout.shape[0], a->dout.shape[1] * a->row_of.shape[1],
         ap_check_ids("moe_combine_bwd", a->row_of.data, ap_tensor_count(&a->row_of), 0, a->ys.shape[0]))
RANGE_OP(split_cols, src, a->src.shape[0], a->cols, AP_OK)
RANGE_OP(cross_entropy, logits, a->logits.shape[0], 4 * a->logits.shape[1],
         ap_check_ids("cross_entropy", a->targets.data, a->logits.shape[0], -1, a->logits.shape[1]))
RANGE_OP(cross_entropy_part, logits, a->logits.shape[0], 4 * a->logits.shape[1],
         ap_check_ids("cross_entropy_part", a->targets.data, a->logits.shape[0], -1, a->logits.shape[1]))
RANGE_OP(cross_entropy_join, logits, a->logits.shape[0], 4 * a->logits.shape[1], join_targets(a))
RANGE_OP(add, a, ap_tensor_count(&a->a), 1, AP_OK)
RANGE_OP(scale, x, ap_tensor_count(&a->x), 1, AP_OK)

struct segmented {
    const struct ap_adamw_args *args;
    ap_range *range;
};

/* begin .. end-1: of the segments' elements, one after the other. */
static void adamw_segments(const void *arg, int64_t begin, int64_t end)
{
    const struct segmented *job = arg;
    int64_t at = 0;
    for (int64_t i = 0; i < job->args->segment_count && at < end; i++) {
        int64_t count = job->args->segments[i].count;
        int64_t lo = begin > at ? begin - at : 0, hi = end - at < count ? end - at : count;
        if (lo < hi) {
            struct ap_adamw_args part = ap_adamw_segment_args(job->args, i);
            job->range(&part, lo, hi);
        }
        at += count;
    }
}

static ap_status cpu_adamw(struct ap_stream *s, const struct ap_adamw_args *a)
{
    if (a->w.dtype != AP_F32)
        return ap_backend_reference.ops.adamw(s, a);
    AP_TRY(ap_check_adamw(a));
    struct segmented job = {a, cpu_of(s)->k->adamw};
    int64_t count = 0;
    for (int64_t i = 0; a->segments && i < a->segment_count; i++)
        count += a->segments[i].count;
    if (a->segments)
        cpu_ranges(s, adamw_segments, &job, count, 4);
    else
        cpu_ranges(s, job.range, a, ap_tensor_count(&a->w), 4);
    return AP_OK;
}

static ap_status cpu_cast(struct ap_stream *s, const struct ap_cast_args *a)
{
    int narrow = a->src.dtype == AP_F32 && a->dst.dtype == AP_BF16;
    int widen = a->src.dtype == AP_BF16 && a->dst.dtype == AP_F32;
    if (!narrow && !widen)
        return ap_backend_reference.ops.cast(s, a);
    AP_TRY(ap_check_cast(a));
    cpu_ranges(s, cpu_of(s)->k->cast, a, ap_tensor_count(&a->src), 1);
    return AP_OK;
}

static ap_status cpu_router_bwd(struct ap_stream *s, const struct ap_router_bwd_args *a)
{
    if (a->dlogits.dtype != AP_F32)
        return ap_backend_reference.ops.router_bwd(s, a);
    AP_TRY(ap_check_router_bwd(a));
    AP_TRY(ap_check_ids("router_bwd", a->ids.data, ap_tensor_count(&a->ids), 0, a->dlogits.shape[1]));
    cpu_ranges(s, cpu_of(s)->k->router_bwd, a, a->dlogits.shape[0], a->dlogits.shape[1]);
    return AP_OK;
}

/* Threads own columns, so that rows of one id are added in ascending order whatever the number of threads. */
static ap_status cpu_embed_bwd(struct ap_stream *s, const struct ap_embed_bwd_args *a)
{
    if (a->dout.dtype == AP_F64 || a->dtable.dtype != AP_F32)
        return ap_backend_reference.ops.embed_bwd(s, a);
    AP_TRY(ap_check_embed_bwd(a));
    AP_TRY(ap_check_ids("embed_bwd", a->ids.data, a->dout.shape[0], -1, a->dtable.shape[0]));
    cpu_ranges(s, cpu_typed(s, a->dout.dtype)->embed_bwd, a, a->dout.shape[1], a->dout.shape[0]);
    return AP_OK;
}

static ap_status cpu_rmsnorm_bwd(struct ap_stream *s, const struct ap_rmsnorm_bwd_args *a)
{
    struct cpu_impl *impl = cpu_of(s);
    if (a->x.dtype == AP_F64 || (a->dw.data && a->dw.dtype != AP_F32))
        return ap_backend_reference.ops.rmsnorm_bwd(s, a);
    AP_TRY(ap_check_rmsnorm_bwd(a));
    int64_t d = a->x.shape[1], blocks = (a->x.shape[0] + AP_NORM_ROWS - 1) / AP_NORM_ROWS;
    struct ap_norm_bwd job = {a, NULL};
    if (a->dw.data) {
        AP_TRY(cpu_buffer_need(&impl->partial, (size_t)(blocks * d) * sizeof(float)));
        job.partial = impl->partial.mem;
    }
    cpu_ranges(s, cpu_typed(s, a->x.dtype)->rmsnorm_bwd, &job, blocks, 2 * AP_NORM_ROWS * d);
    if (a->dw.data)
        cpu_ranges(s, cpu_typed(s, a->x.dtype)->rmsnorm_dw, &job, d, blocks);
    return AP_OK;
}

static ap_status cpu_router_fwd(struct ap_stream *s, const struct ap_router_fwd_args *a)
{
    int64_t choices = ap_tensor_count(&a->ids);
    if (a->logits.dtype != AP_F32 || a->logits.shape[1] > AP_ROUTER_MAX)
        return ap_backend_reference.ops.router_fwd(s, a);
    AP_TRY(ap_check_router_fwd(a));
    cpu_ranges(s, cpu_of(s)->k->router_fwd, a, a->logits.shape[0], 8 * a->logits.shape[1]);
    int32_t *counts = a->counts.data;
    const int32_t *ids = a->ids.data;
    memset(counts, 0, (size_t)ap_tensor_count(&a->counts) * sizeof(*counts));
    for (int64_t i = 0; i < choices; i++)
        counts[ids[i]]++;
    return AP_OK;
}

static ap_status cpu_seq_balance(struct ap_stream *s, const struct ap_seq_balance_args *a)
{
    struct cpu_impl *impl = cpu_of(s);
    if (a->scores.dtype != AP_F32)
        return ap_backend_reference.ops.seq_balance(s, a);
    AP_TRY(ap_check_seq_balance(a));
    AP_TRY(cpu_buffer_need(&impl->partial, AP_REF_BALANCE_BYTES(a->scores.shape[1]) + 1));
    return ap_ref_f32_seq_balance_in(a, impl->partial.mem);
}

static ap_status cpu_sum_tokens(struct ap_stream *s, const struct ap_sum_tokens_args *a)
{
    if (a->x.dtype != AP_F32)
        return ap_backend_reference.ops.sum_tokens(s, a);
    AP_TRY(ap_check_sum_tokens(a));
    *(double *)a->out.data += cpu_of(s)->k->tree_sum(a->x.data, ap_tensor_count(&a->x));
    return AP_OK;
}

struct square_sums {
    const float *x;
    double *out;
    const struct ap_run *runs;
    double (*sum)(const float *x, int64_t n);
};

static void square_sum_range(const void *args, int64_t begin, int64_t end)
{
    const struct square_sums *job = args;
    for (int64_t i = begin; i < end; i++)
        job->out[i] = job->sum(job->x + job->runs[i].begin, job->runs[i].count);
}

static ap_status cpu_sumsq(struct ap_stream *s, const struct ap_sumsq_args *a)
{
    if (a->x.dtype != AP_F32)
        return ap_backend_reference.ops.sumsq(s, a);
    AP_TRY(ap_check_sumsq(a));
    struct ap_run all = {0, ap_tensor_count(&a->x)};
    struct square_sums job = {a->x.data, a->out.data, a->runs ? a->runs : &all, cpu_of(s)->k->tree_sumsq};
    int64_t count = a->runs ? a->run_count : 1;
    cpu_ranges(s, square_sum_range, &job, count, count > 0 ? ap_tensor_count(&a->x) / count : 0);
    return AP_OK;
}

struct block {
    char *to;
    const char *from;
};

static void zero_range(const void *args, int64_t begin, int64_t end)
{
    const struct block *b = args;
    memset(b->to + begin, 0, (size_t)(end - begin));
}

static void copy_range(const void *args, int64_t begin, int64_t end)
{
    const struct block *b = args;
    memcpy(b->to + begin, b->from + begin, (size_t)(end - begin));
}

static ap_status cpu_fill_zero(struct ap_stream *s, void *dst, size_t size)
{
    cpu_ranges(s, zero_range, &(struct block){dst, NULL}, (int64_t)size, 1);
    return AP_OK;
}

static ap_status cpu_copy(struct ap_stream *s, void *dst, const void *src, size_t size)
{
    cpu_ranges(s, copy_range, &(struct block){dst, src}, (int64_t)size, 1);
    return AP_OK;
}

static void impl_free(struct cpu_impl *impl)
{
    for (int i = 0; impl->workers && i < impl->threads; i++) {
        free(impl->workers[i].gemm_scratch);
        free(impl->workers[i].attn.mem);
        ap_dnnl_destroy(impl->workers[i].dnnl);
    }
    free(impl->workers);
    free(impl->partial.mem);
    free(impl);
}

static ap_status open_worker(struct cpu_worker *w, enum ap_isa isa, int onednn, struct ap_error *err)
{
    w->gemm = ap_sgemm_choose(isa);
    w->gemm_scratch = ap_memory_alloc(ap_sgemm_scratch());
    if (!w->gemm_scratch)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for the cpu backend");
    if (onednn && !(w->dnnl = ap_dnnl_create()))
        return ap_error_set(err, AP_ERR_ENV, "oneDNN does not start on this CPU");
    w->dnnl_bf16 = onednn && ap_isa_bf16() && ap_dnnl_has_bf16(w->dnnl);
    return AP_OK;
}

static ap_status open_with(struct ap_backend *be, struct ap_pool *pool, enum ap_isa isa, int onednn,
                           struct ap_error *err)
{
    struct cpu_impl *impl = calloc(1, sizeof(*impl));
    if (!impl)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for the cpu backend");
    impl->k = ap_kernels_choose(isa);
    impl->threads = pool ? ap_pool_threads(pool) : 1;
    impl->workers = calloc((size_t)impl->threads, sizeof(*impl->workers));
    ap_status status = impl->workers ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "no memory for the cpu backend");
    for (int i = 0; status == AP_OK && i < impl->threads; i++)
        status = open_worker(&impl->workers[i], isa, onednn, err);
    if (status != AP_OK) {
        impl_free(impl);
        return status;
    }
    be->impl = impl;
    return AP_OK;
}

static ap_status cpu_open(struct ap_backend *be, int device, struct ap_pool *pool, struct ap_error *err)
{
    enum ap_isa isa;
    (void)device;
    AP_TRY(ap_isa_choose(&isa, err));
#ifdef AP_HAVE_ONEDNN
    return open_with(be, pool, isa, isa == AP_ISA_AVX512, err);
#else
    return open_with(be, pool, isa, 0, err);
#endif
}

static void cpu_close(struct ap_backend *be)
{
    impl_free(be->impl);
}

#define CPU_BACKEND(title, opener)                                                                                     \
    {                                                                                                                  \
        .size = sizeof(struct ap_backend_ops),                                                                         \
        .abi = AP_BACKEND_ABI,                                                                                         \
        .name = title,                                                                                                 \
        .is_host = 1,                                                                                                  \
        .open = opener,                                                                                                \
        .close = cpu_close,                                                                                            \
        .alloc = ap_host_alloc,                                                                                        \
        .release = ap_host_release,                                                                                    \
        .copy = cpu_copy,                                                                                              \
        .fill_zero = cpu_fill_zero,                                                                                    \
        .stream_create = ap_host_stream_create,                                                                        \
        .stream_destroy = ap_host_stream_destroy,                                                                      \
        .stream_sync = ap_host_stream_sync,                                                                            \
        .ops =                                                                                                         \
            {                                                                                                          \
                .gemm = cpu_gemm,                                                                                      \
                .grouped_gemm = cpu_grouped_gemm,                                                                      \
                .grouped_wgrad = cpu_grouped_wgrad,                                                                    \
                .embed_fwd = cpu_embed_fwd,                                                                            \
                .embed_bwd = cpu_embed_bwd,                                                                            \
                .rmsnorm_fwd = cpu_rmsnorm_fwd,                                                                        \
                .rmsnorm_bwd = cpu_rmsnorm_bwd,                                                                        \
                .rope = cpu_rope,                                                                                      \
                .mla_attn_fwd = cpu_mla_attn_fwd,                                                                      \
                .mla_attn_bwd = cpu_mla_attn_bwd,                                                                      \
                .swiglu_fwd = cpu_swiglu_fwd,                                                                          \
                .swiglu_bwd = cpu_swiglu_bwd,                                                                          \
                .router_fwd = cpu_router_fwd,                                                                          \
                .router_bwd = cpu_router_bwd,                                                                          \
                .seq_balance = cpu_seq_balance,                                                                        \
                .moe_dispatch_fwd = cpu_moe_dispatch_fwd,                                                              \
                .moe_dispatch_bwd = cpu_moe_dispatch_bwd,                                                              \
                .moe_combine_fwd = cpu_moe_combine_fwd,                                                                \
                .moe_combine_bwd = cpu_moe_combine_bwd,                                                                \
                .split_cols = cpu_split_cols,                                                                          \
                .cross_entropy = cpu_cross_entropy,                                                                    \
                .cross_entropy_part = cpu_cross_entropy_part,                                                          \
                .cross_entropy_join = cpu_cross_entropy_join,                                                          \
                .sum_tokens = cpu_sum_tokens,                                                                          \
                .add = cpu_add,                                                                                        \
                .scale = cpu_scale,                                                                                    \
                .sumsq = cpu_sumsq,                                                                                    \
                .cast = cpu_cast,                                                                                      \
                .adamw = cpu_adamw,                                                                                    \
            },                                                                                                         \
    }

const struct ap_backend_ops ap_backend_cpu = CPU_BACKEND("cpu", cpu_open);

#ifdef AP_HAVE_ONEDNN
static ap_status onednn_open(struct ap_backend *be, int device, struct ap_pool *pool, struct ap_error *err)
{
    enum ap_isa isa;
    (void)device;
    AP_TRY(ap_isa_choose(&isa, err));
    return open_with(be, pool, isa, 1, err);
}

const struct ap_backend_ops ap_backend_onednn = CPU_BACKEND("onednn", onednn_open);
#endif
