/* SPDX-License-Identifier: Apache-2.0
 * One row for each operand; tests/unit/test_trace.c checks that no operation lacks one. */
#include "config.h"

#include <stddef.h>

#include "backend/operands.h"

#define OPERAND(op, name) {AP_OP_##op, #name, offsetof(struct ap_##op##_args, name)}

/* clang-format off */
static const struct {
    enum ap_op_id op;
    const char *name;
    size_t offset;
} operands[] = {
    OPERAND(gemm, a),
    OPERAND(gemm, b),
    OPERAND(gemm, c),
    OPERAND(grouped_gemm, x),
    OPERAND(grouped_gemm, w),
    OPERAND(grouped_gemm, y),
    OPERAND(grouped_wgrad, dy),
    OPERAND(grouped_wgrad, x),
    OPERAND(grouped_wgrad, dw),
    OPERAND(embed_fwd, table),
    OPERAND(embed_fwd, ids),
    OPERAND(embed_fwd, out),
    OPERAND(embed_bwd, dtable),
    OPERAND(embed_bwd, ids),
    OPERAND(embed_bwd, dout),
    OPERAND(rmsnorm_fwd, x),
    OPERAND(rmsnorm_fwd, w),
    OPERAND(rmsnorm_bwd, x),
    OPERAND(rmsnorm_bwd, w),
    OPERAND(rmsnorm_bwd, dx),
    OPERAND(rmsnorm_bwd, dw),
    OPERAND(rope, x),
    OPERAND(mla_attn_fwd, q),
    OPERAND(mla_attn_fwd, kv),
    OPERAND(mla_attn_fwd, kr),
    OPERAND(mla_attn_fwd, out),
    OPERAND(mla_attn_bwd, q),
    OPERAND(mla_attn_bwd, kv),
    OPERAND(mla_attn_bwd, kr),
    OPERAND(mla_attn_bwd, dout),
    OPERAND(swiglu_fwd, gate_up),
    OPERAND(swiglu_fwd, y),
    OPERAND(swiglu_bwd, gate_up),
    OPERAND(swiglu_bwd, dy),
    OPERAND(router_fwd, logits),
    OPERAND(router_fwd, ids),
    OPERAND(router_fwd, bias),
    OPERAND(router_bwd, dlogits),
    OPERAND(router_bwd, ids),
    OPERAND(seq_balance, scores),
    OPERAND(seq_balance, ids),
    OPERAND(moe_plan, ids),
    OPERAND(moe_plan, offsets),
    OPERAND(moe_dispatch_fwd, x),
    OPERAND(moe_dispatch_fwd, xs),
    OPERAND(moe_dispatch_bwd, dxs),
    OPERAND(moe_dispatch_bwd, dx),
    OPERAND(moe_combine_fwd, ys),
    OPERAND(moe_combine_fwd, out),
    OPERAND(moe_combine_fwd, gates),
    OPERAND(moe_combine_bwd, ys),
    OPERAND(moe_combine_bwd, dout),
    OPERAND(moe_combine_bwd, gates),
    OPERAND(split_cols, src),
    OPERAND(split_cols, dst),
    OPERAND(cross_entropy, logits),
    OPERAND(cross_entropy, targets),
    OPERAND(cross_entropy, dlogits),
    OPERAND(cross_entropy_part, logits),
    OPERAND(cross_entropy_part, targets),
    OPERAND(cross_entropy_part, part),
    OPERAND(cross_entropy_join, logits),
    OPERAND(cross_entropy_join, parts),
    OPERAND(cross_entropy_join, dlogits),
    OPERAND(sum_tokens, x),
    OPERAND(add, a),
    OPERAND(add, b),
    OPERAND(add, c),
    OPERAND(scale, x),
    OPERAND(cast, src),
    OPERAND(cast, dst),
    OPERAND(sumsq, x),
    OPERAND(adamw, w),
    OPERAND(adamw, m),
    OPERAND(adamw, w_bf16),
};
/* clang-format on */

void ap_operands_describe(enum ap_op_id op, const void *args, struct ap_trace_args *t)
{
    for (size_t i = 0; i < sizeof(operands) / sizeof(operands[0]); i++) {
        if (operands[i].op != op || t->shapes == AP_TRACE_SHAPES)
            continue;
        const ap_tensor *x = (const ap_tensor *)((const char *)args + operands[i].offset);
        if (!x->data && t->shapes > 0)
            continue;
        struct ap_trace_shape *s = &t->shape[t->shapes++];
        s->key = operands[i].name;
        s->ndim = x->ndim;
        for (int d = 0; d < AP_MAX_DIMS; d++)
            s->dim[d] = x->shape[d];
        if (!t->dtype)
            t->dtype = ap_dtype_name(x->dtype);
    }
}
