/* SPDX-License-Identifier: Apache-2.0
 * The reference backend: every operation as plain C for f32, f64 and bf16, serial, accumulating in double. It is
 * the oracle of the parity harness and the fallback of host backends, and it stays for ever. */
#include "config.h"

#include <string.h>

#include "backend/cpu/host.h"
#include "backend/cpu/reference.h"
#include "backend/ops_check.h"
#include "base/log.h"

ap_status ap_check_first(const int32_t *first, int64_t tokens, int64_t seqs)
{
    int64_t len = seqs ? tokens / seqs : 0;
    for (int64_t i = 0; i < tokens; i++) {
        if (first[i] < 0 || first[i] > i % len) {
            ap_error_log("operation mla_attn: token %lld of its sequence begins at %d", (long long)(i % len), first[i]);
            return AP_ERR_BUG;
        }
    }
    return AP_OK;
}

ap_status ap_check_offsets(const int32_t *offsets, int64_t groups, int64_t rows)
{
    for (int64_t e = 0; e < groups; e++) {
        if (offsets[e] < 0 || offsets[e + 1] < offsets[e] || offsets[e + 1] > rows) {
            ap_error_log("operation grouped_gemm: rows %d to %d of group %lld, only %lld rows", offsets[e],
                         offsets[e + 1], (long long)e, (long long)rows);
            return AP_ERR_BUG;
        }
    }
    return AP_OK;
}

ap_status ap_check_ids(const char *op, const int32_t *ids, int64_t count, int64_t low, int64_t limit)
{
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] < low || ids[i] >= limit) {
            ap_error_log("operation %s: index %d at %lld is outside %lld to %lld", op, ids[i], (long long)i,
                         (long long)low, (long long)limit - 1);
            return AP_ERR_BUG;
        }
    }
    return AP_OK;
}

#define REF_OP(op, field)                                                                                              \
    static ap_status op_##op(struct ap_stream *stream, const struct ap_##op##_args *a)                                 \
    {                                                                                                                  \
        (void)stream;                                                                                                  \
        AP_TRY(ap_check_##op(a));                                                                                      \
        if (a->field.dtype == AP_F32)                                                                                  \
            return ap_ref_f32_##op(a);                                                                                 \
        return a->field.dtype == AP_F64 ? ap_ref_f64_##op(a) : ap_ref_bf16_##op(a);                                    \
    }
AP_REF_REAL_OPS(REF_OP)
#undef REF_OP

#define REF_STAT_OP(op, field)                                                                                         \
    static ap_status op_##op(struct ap_stream *stream, const struct ap_##op##_args *a)                                 \
    {                                                                                                                  \
        (void)stream;                                                                                                  \
        AP_TRY(ap_check_##op(a));                                                                                      \
        return a->field.dtype == AP_F32 ? ap_ref_f32_##op(a) : ap_ref_f64_##op(a);                                     \
    }
AP_REF_STAT_OPS(REF_STAT_OP)
#undef REF_STAT_OP

/* Counting sort: stable in (token, k) because the choices are walked in that order. */
static ap_status op_moe_plan(struct ap_stream *stream, const struct ap_moe_plan_args *a)
{
    (void)stream;
    AP_TRY(ap_check_moe_plan(a));
    int64_t choices = ap_tensor_count(&a->ids), chosen = a->ids.shape[1], experts = ap_tensor_count(&a->offsets) - 1;
    const int32_t *ids = a->ids.data;
    int32_t *offsets = a->offsets.data, *row_of = a->row_of.data, *token_of = a->token_of.data;
    AP_TRY(ap_check_ids("moe_plan", ids, choices, 0, experts));
    memset(offsets, 0, (size_t)(experts + 1) * sizeof(*offsets));
    for (int64_t i = 0; i < choices; i++)
        offsets[ids[i] + 1]++;
    for (int64_t e = 0; e < experts; e++)
        offsets[e + 1] += offsets[e];
    /* offsets[e] serves as the cursor of expert e and ends where e+1 begins: shift back afterwards. */
    for (int64_t i = 0; i < choices; i++) {
        row_of[i] = offsets[ids[i]]++;
        token_of[row_of[i]] = (int32_t)(i / chosen);
    }
    for (int64_t e = experts; e > 0; e--)
        offsets[e] = offsets[e - 1];
    offsets[0] = 0;
    return AP_OK;
}

static double load(const ap_tensor *t, int64_t i)
{
    if (t->dtype == AP_F32)
        return (double)((const float *)t->data)[i];
    if (t->dtype == AP_F64)
        return ((const double *)t->data)[i];
    return (double)ap_bf16_to_f32(((const uint16_t *)t->data)[i]);
}

static ap_status op_cast(struct ap_stream *stream, const struct ap_cast_args *a)
{
    (void)stream;
    AP_TRY(ap_check_cast(a));
    int64_t n = ap_tensor_count(&a->src);
    for (int64_t i = 0; i < n; i++) {
        double x = load(&a->src, i);
        if (a->dst.dtype == AP_F32)
            ((float *)a->dst.data)[i] = (float)x;
        else if (a->dst.dtype == AP_F64)
            ((double *)a->dst.data)[i] = x;
        else
            ((uint16_t *)a->dst.data)[i] = ap_bf16_from_f32((float)x);
    }
    return AP_OK;
}

static ap_status reference_open(struct ap_backend *be, int device, struct ap_pool *pool, struct ap_error *err)
{
    (void)be;
    (void)device;
    (void)pool;
    (void)err;
    return AP_OK;
}

static void reference_close(struct ap_backend *be)
{
    (void)be;
}

#define REF_SLOT(op) .op = op_##op,
const struct ap_backend_ops ap_backend_reference = {
    .size = sizeof(struct ap_backend_ops),
    .abi = AP_BACKEND_ABI,
    .name = "reference",
    .is_host = 1,
    .open = reference_open,
    .close = reference_close,
    .alloc = ap_host_alloc,
    .release = ap_host_release,
    .copy = ap_host_copy,
    .fill_zero = ap_host_fill_zero,
    .stream_create = ap_host_stream_create,
    .stream_destroy = ap_host_stream_destroy,
    .stream_sync = ap_host_stream_sync,
    .ops = {AP_OPS(REF_SLOT)},
};
