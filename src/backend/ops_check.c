/* SPDX-License-Identifier: Apache-2.0
 * One check per operation; ops.h states the rules that are tested here. */
#include "config.h"

#include "backend/ops_check.h"
#include "base/log.h"

#define NEED(op, cond)                                                                                                 \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            ap_error_log("operation " op ": the descriptor violates %s", #cond);                                       \
            return AP_ERR_BUG;                                                                                         \
        }                                                                                                              \
    } while (0)

static int there(const ap_tensor *t, ap_dtype type)
{
    return t->dtype == type && (t->data || ap_tensor_count(t) == 0);
}

/* A vector of n elements; any number of dimensions. */
static int vec(const ap_tensor *t, ap_dtype type, int64_t n)
{
    return there(t, type) && ap_tensor_count(t) == n;
}

static int mat(const ap_tensor *t, ap_dtype type, int64_t rows, int64_t cols)
{
    return there(t, type) && t->ndim == 2 && t->shape[0] == rows && t->shape[1] == cols;
}

static int cube(const ap_tensor *t, ap_dtype type, int64_t x, int64_t y, int64_t z)
{
    return there(t, type) && t->ndim == 3 && t->shape[0] == x && t->shape[1] == y && t->shape[2] == z;
}

static int absent(const ap_tensor *t)
{
    return t->data == NULL;
}

static int is_real(ap_dtype t)
{
    return t == AP_F32 || t == AP_F64 || t == AP_BF16;
}

/* Type of statistics of a call whose real tensors have type t. */
static ap_dtype stat(ap_dtype t)
{
    return t == AP_F64 ? AP_F64 : AP_F32;
}

ap_status ap_check_gemm(const struct ap_gemm_args *a)
{
    int64_t m = a->a.shape[a->trans_a ? 1 : 0], k = a->a.shape[a->trans_a ? 0 : 1];
    int64_t n = a->b.shape[a->trans_b ? 0 : 1];
    NEED("gemm", is_real(a->a.dtype) && a->a.ndim == 2 && there(&a->a, a->a.dtype));
    NEED("gemm", mat(&a->b, a->a.dtype, a->trans_b ? n : k, a->trans_b ? k : n));
    NEED("gemm", a->c.dtype == a->a.dtype || (a->a.dtype == AP_BF16 && a->c.dtype == AP_F32));
    NEED("gemm", mat(&a->c, a->c.dtype, m, n));
    return AP_OK;
}

ap_status ap_check_grouped_gemm(const struct ap_grouped_gemm_args *a)
{
    int64_t groups = a->w.shape[0], in = a->w.shape[a->trans_w ? 2 : 1], out = a->w.shape[a->trans_w ? 1 : 2];
    ap_dtype t = a->x.dtype;
    NEED("grouped_gemm", is_real(t) && a->w.ndim == 3 && there(&a->w, t));
    NEED("grouped_gemm", mat(&a->x, t, a->x.shape[0], in));
    NEED("grouped_gemm", mat(&a->y, t, a->x.shape[0], out));
    NEED("grouped_gemm", vec(&a->offsets, AP_I32, groups + 1));
    NEED("grouped_gemm", a->w_stride >= in * out || groups <= 1);
    return AP_OK;
}

ap_status ap_check_grouped_wgrad(const struct ap_grouped_wgrad_args *a)
{
    int64_t groups = a->dw.shape[0], out = a->dw.shape[1], in = a->dw.shape[2];
    ap_dtype t = a->x.dtype;
    NEED("grouped_wgrad", is_real(t) && a->dw.ndim == 3 && (a->dw.dtype == t || a->dw.dtype == AP_F32));
    NEED("grouped_wgrad", there(&a->dw, a->dw.dtype));
    NEED("grouped_wgrad", mat(&a->x, t, a->x.shape[0], in));
    NEED("grouped_wgrad", mat(&a->dy, t, a->x.shape[0], out));
    NEED("grouped_wgrad", vec(&a->offsets, AP_I32, groups + 1));
    NEED("grouped_wgrad", a->w_stride >= in * out || groups <= 1);
    return AP_OK;
}

ap_status ap_check_embed_fwd(const struct ap_embed_fwd_args *a)
{
    ap_dtype t = a->table.dtype;
    NEED("embed_fwd", is_real(t) && mat(&a->table, t, a->table.shape[0], a->table.shape[1]));
    NEED("embed_fwd", there(&a->ids, AP_I32));
    NEED("embed_fwd", mat(&a->out, t, ap_tensor_count(&a->ids), a->table.shape[1]));
    return AP_OK;
}

ap_status ap_check_embed_bwd(const struct ap_embed_bwd_args *a)
{
    ap_dtype t = a->dout.dtype;
    NEED("embed_bwd", is_real(t) && (a->dtable.dtype == t || a->dtable.dtype == AP_F32));
    NEED("embed_bwd", mat(&a->dtable, a->dtable.dtype, a->dtable.shape[0], a->dtable.shape[1]));
    NEED("embed_bwd", there(&a->ids, AP_I32));
    NEED("embed_bwd", mat(&a->dout, t, ap_tensor_count(&a->ids), a->dtable.shape[1]));
    return AP_OK;
}

ap_status ap_check_rmsnorm_fwd(const struct ap_rmsnorm_fwd_args *a)
{
    int64_t rows = a->x.shape[0], d = a->x.shape[1];
    ap_dtype t = a->x.dtype;
    NEED("rmsnorm_fwd", is_real(t) && mat(&a->x, t, rows, d));
    NEED("rmsnorm_fwd", vec(&a->w, t, d));
    NEED("rmsnorm_fwd", mat(&a->y, t, rows, d));
    NEED("rmsnorm_fwd", absent(&a->rstd) || vec(&a->rstd, stat(t), rows));
    NEED("rmsnorm_fwd", a->x_stride == 0 || a->x_stride >= d);
    return AP_OK;
}

ap_status ap_check_rmsnorm_bwd(const struct ap_rmsnorm_bwd_args *a)
{
    int64_t rows = a->x.shape[0], d = a->x.shape[1];
    ap_dtype t = a->x.dtype;
    NEED("rmsnorm_bwd", is_real(t) && mat(&a->x, t, rows, d));
    NEED("rmsnorm_bwd", mat(&a->dy, t, rows, d));
    NEED("rmsnorm_bwd", vec(&a->w, t, d));
    NEED("rmsnorm_bwd", vec(&a->rstd, stat(t), rows));
    NEED("rmsnorm_bwd", mat(&a->dx, t, rows, d));
    NEED("rmsnorm_bwd", absent(&a->dw) || vec(&a->dw, a->dw.dtype == t ? t : AP_F32, d));
    NEED("rmsnorm_bwd", a->x_stride == 0 || a->x_stride >= d);
    NEED("rmsnorm_bwd", a->dx_stride == 0 || a->dx_stride >= d);
    return AP_OK;
}

ap_status ap_check_rope(const struct ap_rope_args *a)
{
    ap_dtype t = a->x.dtype;
    NEED("rope", is_real(t) && a->x.ndim == 3 && there(&a->x, t));
    NEED("rope", a->r >= 0 && a->r % 2 == 0 && a->r <= a->x.shape[2]);
    NEED("rope", a->x_stride == 0 || a->x_stride >= a->x.shape[1] * a->x.shape[2]);
    NEED("rope", mat(&a->cos, stat(t), a->cos.shape[0], a->r / 2));
    NEED("rope", mat(&a->sin, stat(t), a->cos.shape[0], a->r / 2));
    NEED("rope", vec(&a->positions, AP_I32, a->x.shape[0]));
    return AP_OK;
}

ap_status ap_check_mla_attn_fwd(const struct ap_mla_attn_fwd_args *a)
{
    int64_t rows = a->q.shape[0], heads = a->q.shape[1];
    ap_dtype t = a->q.dtype;
    NEED("mla_attn_fwd", is_real(t) && a->n >= 0 && a->r >= 0 && a->v >= 0);
    NEED("mla_attn_fwd", rows == 0 || (a->seqs > 0 && rows % a->seqs == 0));
    NEED("mla_attn_fwd", cube(&a->q, t, rows, heads, a->n + a->r));
    NEED("mla_attn_fwd", cube(&a->kv, t, rows, heads, a->n + a->v));
    NEED("mla_attn_fwd", mat(&a->kr, t, rows, a->r) && (a->kr_stride == 0 || a->kr_stride >= a->r));
    NEED("mla_attn_fwd", vec(&a->first, AP_I32, rows));
    NEED("mla_attn_fwd", cube(&a->out, t, rows, heads, a->v));
    NEED("mla_attn_fwd", mat(&a->lse, stat(t), rows, heads));
    return AP_OK;
}

ap_status ap_check_mla_attn_bwd(const struct ap_mla_attn_bwd_args *a)
{
    int64_t rows = a->q.shape[0], heads = a->q.shape[1];
    ap_dtype t = a->q.dtype;
    NEED("mla_attn_bwd", is_real(t) && a->n >= 0 && a->r >= 0 && a->v >= 0);
    NEED("mla_attn_bwd", rows == 0 || (a->seqs > 0 && rows % a->seqs == 0));
    NEED("mla_attn_bwd", cube(&a->q, t, rows, heads, a->n + a->r));
    NEED("mla_attn_bwd", cube(&a->kv, t, rows, heads, a->n + a->v));
    NEED("mla_attn_bwd", mat(&a->kr, t, rows, a->r) && (a->kr_stride == 0 || a->kr_stride >= a->r));
    NEED("mla_attn_bwd", vec(&a->first, AP_I32, rows));
    NEED("mla_attn_bwd", cube(&a->out, t, rows, heads, a->v));
    NEED("mla_attn_bwd", cube(&a->dout, t, rows, heads, a->v));
    NEED("mla_attn_bwd", mat(&a->lse, stat(t), rows, heads));
    NEED("mla_attn_bwd", cube(&a->dq, t, rows, heads, a->n + a->r));
    NEED("mla_attn_bwd", cube(&a->dkv, t, rows, heads, a->n + a->v));
    NEED("mla_attn_bwd", mat(&a->dkr, t, rows, a->r) && (a->dkr_stride == 0 || a->dkr_stride >= a->r));
    return AP_OK;
}

ap_status ap_check_swiglu_fwd(const struct ap_swiglu_fwd_args *a)
{
    ap_dtype t = a->y.dtype;
    NEED("swiglu_fwd", is_real(t) && mat(&a->y, t, a->y.shape[0], a->y.shape[1]));
    NEED("swiglu_fwd", mat(&a->gate_up, t, a->y.shape[0], 2 * a->y.shape[1]));
    return AP_OK;
}

ap_status ap_check_swiglu_bwd(const struct ap_swiglu_bwd_args *a)
{
    ap_dtype t = a->dy.dtype;
    NEED("swiglu_bwd", is_real(t) && mat(&a->dy, t, a->dy.shape[0], a->dy.shape[1]));
    NEED("swiglu_bwd", mat(&a->gate_up, t, a->dy.shape[0], 2 * a->dy.shape[1]));
    NEED("swiglu_bwd", mat(&a->dgate_up, t, a->dy.shape[0], 2 * a->dy.shape[1]));
    return AP_OK;
}

ap_status ap_check_router_fwd(const struct ap_router_fwd_args *a)
{
    int64_t rows = a->logits.shape[0], experts = a->logits.shape[1], chosen = a->ids.shape[1];
    ap_dtype t = a->logits.dtype, st = stat(t);
    NEED("router_fwd", is_real(t) && mat(&a->logits, t, rows, experts));
    NEED("router_fwd", a->kind >= AP_GATE_SOFTMAX_GREEDY && a->kind <= AP_GATE_SIGMOID_NOAUX);
    NEED("router_fwd", absent(&a->bias) || vec(&a->bias, st, experts));
    NEED("router_fwd", mat(&a->scores, st, rows, experts));
    NEED("router_fwd", mat(&a->ids, AP_I32, rows, chosen) && chosen >= 1 && chosen <= experts);
    NEED("router_fwd", mat(&a->gates, st, rows, chosen));
    NEED("router_fwd", vec(&a->counts, AP_I32, experts));
    if (a->kind != AP_GATE_SOFTMAX_GREEDY && a->groups > 1) {
        NEED("router_fwd", experts % a->groups == 0 && a->groups_kept >= 1 && a->groups_kept <= a->groups);
        NEED("router_fwd", chosen <= experts / a->groups * a->groups_kept);
    }
    return AP_OK;
}

ap_status ap_check_router_bwd(const struct ap_router_bwd_args *a)
{
    int64_t rows = a->dlogits.shape[0], experts = a->dlogits.shape[1], chosen = a->ids.shape[1];
    ap_dtype t = a->dlogits.dtype, st = stat(t);
    NEED("router_bwd", is_real(t) && mat(&a->dlogits, t, rows, experts));
    NEED("router_bwd", a->kind >= AP_GATE_SOFTMAX_GREEDY && a->kind <= AP_GATE_SIGMOID_NOAUX);
    NEED("router_bwd", mat(&a->scores, st, rows, experts));
    NEED("router_bwd", mat(&a->ids, AP_I32, rows, chosen));
    NEED("router_bwd", mat(&a->dgates, st, rows, chosen));
    NEED("router_bwd", absent(&a->dscores_extra) || mat(&a->dscores_extra, st, rows, experts));
    return AP_OK;
}

ap_status ap_check_seq_balance(const struct ap_seq_balance_args *a)
{
    int64_t rows = a->scores.shape[0], experts = a->scores.shape[1];
    ap_dtype st = a->scores.dtype;
    NEED("seq_balance", (st == AP_F32 || st == AP_F64) && mat(&a->scores, st, rows, experts));
    NEED("seq_balance", a->kind >= AP_GATE_SOFTMAX_GREEDY && a->kind <= AP_GATE_SIGMOID_NOAUX);
    NEED("seq_balance", mat(&a->ids, AP_I32, rows, a->ids.shape[1]) && a->ids.shape[1] <= experts);
    NEED("seq_balance", mat(&a->dscores, st, rows, experts));
    NEED("seq_balance", vec(&a->loss, AP_F64, 1));
    NEED("seq_balance", rows == 0 || (a->seqs > 0 && rows % a->seqs == 0));
    NEED("seq_balance", a->group_size <= 1 || experts % a->group_size == 0);
    return AP_OK;
}

ap_status ap_check_moe_plan(const struct ap_moe_plan_args *a)
{
    int64_t rows = a->ids.shape[0], chosen = a->ids.shape[1];
    NEED("moe_plan", mat(&a->ids, AP_I32, rows, chosen));
    NEED("moe_plan", there(&a->offsets, AP_I32) && ap_tensor_count(&a->offsets) >= 1);
    NEED("moe_plan", mat(&a->row_of, AP_I32, rows, chosen));
    NEED("moe_plan", vec(&a->token_of, AP_I32, rows * chosen));
    return AP_OK;
}

ap_status ap_check_moe_dispatch_fwd(const struct ap_moe_dispatch_fwd_args *a)
{
    ap_dtype t = a->x.dtype;
    NEED("moe_dispatch_fwd", is_real(t) && mat(&a->x, t, a->x.shape[0], a->x.shape[1]));
    NEED("moe_dispatch_fwd", there(&a->token_of, AP_I32));
    NEED("moe_dispatch_fwd", mat(&a->xs, t, ap_tensor_count(&a->token_of), a->x.shape[1]));
    return AP_OK;
}

ap_status ap_check_moe_dispatch_bwd(const struct ap_moe_dispatch_bwd_args *a)
{
    ap_dtype t = a->dx.dtype;
    NEED("moe_dispatch_bwd", is_real(t) && mat(&a->dx, t, a->dx.shape[0], a->dx.shape[1]));
    NEED("moe_dispatch_bwd", mat(&a->row_of, AP_I32, a->dx.shape[0], a->row_of.shape[1]));
    NEED("moe_dispatch_bwd", mat(&a->dxs, t, a->dxs.shape[0], a->dx.shape[1]));
    return AP_OK;
}

ap_status ap_check_moe_combine_fwd(const struct ap_moe_combine_fwd_args *a)
{
    ap_dtype t = a->out.dtype;
    NEED("moe_combine_fwd", is_real(t) && mat(&a->out, t, a->out.shape[0], a->out.shape[1]));
    NEED("moe_combine_fwd", mat(&a->row_of, AP_I32, a->out.shape[0], a->row_of.shape[1]));
    NEED("moe_combine_fwd", mat(&a->gates, stat(t), a->out.shape[0], a->row_of.shape[1]));
    NEED("moe_combine_fwd", mat(&a->ys, t, a->ys.shape[0], a->out.shape[1]));
    return AP_OK;
}

ap_status ap_check_moe_combine_bwd(const struct ap_moe_combine_bwd_args *a)
{
    ap_dtype t = a->dout.dtype;
    NEED("moe_combine_bwd", is_real(t) && mat(&a->dout, t, a->dout.shape[0], a->dout.shape[1]));
    NEED("moe_combine_bwd", mat(&a->row_of, AP_I32, a->dout.shape[0], a->row_of.shape[1]));
    NEED("moe_combine_bwd", mat(&a->gates, stat(t), a->dout.shape[0], a->row_of.shape[1]));
    NEED("moe_combine_bwd", mat(&a->dgates, stat(t), a->dout.shape[0], a->row_of.shape[1]));
    NEED("moe_combine_bwd", mat(&a->ys, t, a->ys.shape[0], a->dout.shape[1]));
    NEED("moe_combine_bwd", mat(&a->dys, t, a->ys.shape[0], a->dout.shape[1]));
    return AP_OK;
}

ap_status ap_check_split_cols(const struct ap_split_cols_args *a)
{
    ap_dtype t = a->src.dtype;
    NEED("split_cols", is_real(t) && mat(&a->src, t, a->src.shape[0], a->src.shape[1]));
    NEED("split_cols", mat(&a->dst, t, a->src.shape[0], a->dst.shape[1]));
    NEED("split_cols", a->cols >= 0 && a->src_col >= 0 && a->src_col + a->cols <= a->src.shape[1]);
    NEED("split_cols", a->dst_col >= 0 && a->dst_col + a->cols <= a->dst.shape[1]);
    return AP_OK;
}

ap_status ap_check_cross_entropy(const struct ap_cross_entropy_args *a)
{
    ap_dtype t = a->logits.dtype;
    NEED("cross_entropy", is_real(t) && mat(&a->logits, t, a->logits.shape[0], a->logits.shape[1]));
    NEED("cross_entropy", vec(&a->targets, AP_I32, a->logits.shape[0]));
    NEED("cross_entropy", vec(&a->loss, stat(t), a->logits.shape[0]));
    NEED("cross_entropy", absent(&a->dlogits) || mat(&a->dlogits, t, a->logits.shape[0], a->logits.shape[1]));
    return AP_OK;
}

ap_status ap_check_cross_entropy_part(const struct ap_cross_entropy_part_args *a)
{
    int64_t rows = a->logits.shape[0], cols = a->logits.shape[1];
    ap_dtype t = a->logits.dtype;
    NEED("cross_entropy_part", is_real(t) && mat(&a->logits, t, rows, cols) && cols >= 1);
    NEED("cross_entropy_part", vec(&a->targets, AP_I32, rows));
    NEED("cross_entropy_part", mat(&a->part, stat(t), rows, 3));
    return AP_OK;
}

ap_status ap_check_cross_entropy_join(const struct ap_cross_entropy_join_args *a)
{
    int64_t rows = a->logits.shape[0], cols = a->logits.shape[1], parts = a->parts.shape[0];
    ap_dtype t = a->logits.dtype;
    NEED("cross_entropy_join", is_real(t) && mat(&a->logits, t, rows, cols) && cols >= 1);
    NEED("cross_entropy_join", cube(&a->parts, stat(t), parts, rows, 3) && parts >= 1);
    NEED("cross_entropy_join", vec(&a->local_targets, AP_I32, rows));
    NEED("cross_entropy_join", vec(&a->has_target, AP_I32, rows));
    NEED("cross_entropy_join", vec(&a->loss, stat(t), rows));
    NEED("cross_entropy_join", absent(&a->dlogits) || mat(&a->dlogits, t, rows, cols));
    return AP_OK;
}

ap_status ap_check_sum_tokens(const struct ap_sum_tokens_args *a)
{
    NEED("sum_tokens", (a->x.dtype == AP_F32 || a->x.dtype == AP_F64) && there(&a->x, a->x.dtype));
    NEED("sum_tokens", vec(&a->out, AP_F64, 1));
    return AP_OK;
}

ap_status ap_check_add(const struct ap_add_args *a)
{
    NEED("add", is_real(a->a.dtype) && there(&a->a, a->a.dtype));
    NEED("add", vec(&a->b, a->a.dtype, ap_tensor_count(&a->a)));
    NEED("add", vec(&a->c, a->a.dtype, ap_tensor_count(&a->a)));
    return AP_OK;
}

ap_status ap_check_scale(const struct ap_scale_args *a)
{
    NEED("scale", is_real(a->x.dtype) && there(&a->x, a->x.dtype));
    return AP_OK;
}

ap_status ap_check_cast(const struct ap_cast_args *a)
{
    NEED("cast", is_real(a->src.dtype) && is_real(a->dst.dtype));
    NEED("cast", there(&a->src, a->src.dtype) && vec(&a->dst, a->dst.dtype, ap_tensor_count(&a->src)));
    return AP_OK;
}

/* Does a run of elements stand behind the one that ended at *end_p, within n? */
static int follows(int64_t begin, int64_t count, int64_t *end_p, int64_t n)
{
    int fits = begin >= *end_p && count >= 0 && count <= n - begin;
    *end_p = begin + count;
    return fits;
}

ap_status ap_check_sumsq(const struct ap_sumsq_args *a)
{
    NEED("sumsq", is_real(a->x.dtype) && there(&a->x, a->x.dtype));
    NEED("sumsq", vec(&a->out, AP_F64, a->runs ? a->run_count : 1));
    int64_t end = 0;
    for (int64_t i = 0; a->runs && i < a->run_count; i++)
        NEED("sumsq", follows(a->runs[i].begin, a->runs[i].count, &end, ap_tensor_count(&a->x)));
    return AP_OK;
}

ap_status ap_check_adamw(const struct ap_adamw_args *a)
{
    int64_t n = ap_tensor_count(&a->w);
    ap_dtype t = a->w.dtype;
    NEED("adamw", (t == AP_F32 || t == AP_F64) && there(&a->w, t) && a->step >= 1);
    NEED("adamw", vec(&a->g, t, n) && vec(&a->m, t, n) && vec(&a->v, t, n));
    NEED("adamw", vec(&a->w_new, t, n) && vec(&a->m_new, t, n) && vec(&a->v_new, t, n));
    NEED("adamw", absent(&a->w_bf16) || vec(&a->w_bf16, AP_BF16, n));
    int64_t end = 0;
    for (int64_t i = 0; a->segments && i < a->segment_count; i++)
        NEED("adamw", follows(a->segments[i].begin, a->segments[i].count, &end, n));
    return AP_OK;
}
