/* SPDX-License-Identifier: Apache-2.0
 * Multi-head latent attention (V2 report 2.1) in its expanded form: keys and values are rebuilt from the
 * latent, which is what training wants (notes in docs/architecture.md).
 *
 *   q = Wq xn, or Wqb rms(Wqa xn);  [c | kr] = Wkva xn;  kv = Wkvb rms(c);  out += Wo attn(q, kv, rope kr)
 * The latent norms use eps 1e-6 whatever rms_norm_eps says, as the published code does.
 *
 * With tensor parallelism the latents are those of the own tokens; their norms and the rope key, fewer numbers than the
 * hidden state, are gathered, and the heads of the process see all tokens. */
#include "config.h"

#include "model/model_internal.h"

#define LATENT_EPS 1e-6

void ap_mla_plan(struct ap_model *m, struct layer *L)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    int64_t N = m->tokens, own = m->own_tokens, H = m->heads;
    int many = tensor_size(m) > 1;
    if (c->q_lora_rank) {
        s->cq = new2(m, m->dt, own, c->q_lora_rank);
        s->cqn = new2(m, m->dt, own, c->q_lora_rank);
        s->rstd_q = new1(m, m->stat, own);
        s->cqn_all = many ? new2(m, m->dt, N, c->q_lora_rank) : s->cqn;
    } else {
        s->xn1_all = many ? new2(m, m->dt, N, c->hidden_size) : s->xn1;
    }
    s->q = new3(m, m->dt, N, H, c->nope_dim + c->rope_dim);
    s->kva = new2(m, m->dt, own, c->kv_lora_rank + c->rope_dim);
    s->rstd_kv = new1(m, m->stat, own);
    s->cn = new2(m, m->dt, own, c->kv_lora_rank);
    s->cn_all = many ? new2(m, m->dt, N, c->kv_lora_rank) : s->cn;
    if (many)
        s->kr_all = new2(m, m->dt, N, c->rope_dim);
    s->kv = new3(m, m->dt, N, H, c->nope_dim + c->v_dim);
    s->att = new3(m, m->dt, N, H, c->v_dim);
    s->lse = new2(m, m->stat, N, H);
}

/* The rope key inside kva: columns kl.. of each row. */
static ap_tensor rope_key(const struct ap_model *m, ap_tensor kva)
{
    return ap_tensor_2d(elem(kva, m->cfg.kv_lora_rank), kva.dtype, m->own_tokens, m->cfg.rope_dim);
}

static ap_status rotate_query(struct ap_model *m, ap_tensor q, int inverse)
{
    OP(m, rope, .x = q, .cos = m->cos, .sin = m->sin, .positions = m->cur->pos, .r = m->cfg.rope_dim,
       .inverse = inverse);
    return AP_OK;
}

static ap_status rotate_key(struct ap_model *m, ap_tensor kva, int inverse)
{
    const struct ap_model_config *c = &m->cfg;
    ap_tensor pos = ap_tensor_1d(elem(m->cur->pos, m->own_first), AP_I32, m->own_tokens);
    OP(m, rope, .x = view3(rope_key(m, kva), m->own_tokens, 1, c->rope_dim), .cos = m->cos, .sin = m->sin,
       .positions = pos, .r = c->rope_dim, .x_stride = c->kv_lora_rank + c->rope_dim, .inverse = inverse);
    return AP_OK;
}

/* Norms of the latents and the rotated rope key, of all tokens. */
static ap_status latents_forward(struct ap_model *m, struct layer *L)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    const struct layer_params *p = &L->par;
    int64_t own = m->own_tokens, h = c->hidden_size, kl = c->kv_lora_rank, row = kl + c->rope_dim;
    if (c->q_lora_rank) {
        AP_TRY(ap_linear_fwd(m, s->xn1, p->q_a, c->q_lora_rank, h, s->cq, 0));
        OP(m, rmsnorm_fwd, .x = s->cq, .w = w1(m, p->q_a_norm, c->q_lora_rank), .y = s->cqn, .rstd = s->rstd_q,
           .eps = LATENT_EPS);
    }
    AP_TRY(ap_linear_fwd(m, s->xn1, p->kv_a, row, h, s->kva, 0));
    OP(m, rmsnorm_fwd, .x = view2(s->kva, own, kl), .w = w1(m, p->kv_a_norm, kl), .y = s->cn, .rstd = s->rstd_kv,
       .eps = LATENT_EPS, .x_stride = row);
    AP_TRY(rotate_key(m, s->kva, 0));
    if (tensor_size(m) == 1)
        return AP_OK;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor kr = new2(m, m->dt, own, c->rope_dim);
    OP(m, split_cols, .src = s->kva, .dst = kr, .src_col = kl, .cols = c->rope_dim);
    AP_TRY(ap_tensor_gather(m, kr, s->kr_all));
    AP_TRY(ap_tensor_gather(m, s->cn, s->cn_all));
    ap_arena_reset(&m->arena, mark);
    return c->q_lora_rank ? ap_tensor_gather(m, s->cqn, s->cqn_all) : ap_tensor_gather(m, s->xn1, s->xn1_all);
}

/* The rope key of all tokens and its row stride. */
static ap_tensor key_of(const struct ap_model *m, const struct layer_saved *s, int64_t *stride)
{
    *stride = tensor_size(m) > 1 ? m->cfg.rope_dim : m->cfg.kv_lora_rank + m->cfg.rope_dim;
    return tensor_size(m) > 1 ? s->kr_all : rope_key(m, s->kva);
}

ap_status ap_mla_forward(struct ap_model *m, struct layer *L)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    const struct layer_params *p = &L->par;
    int64_t N = m->tokens, H = m->heads, h = c->hidden_size, qd = H * (c->nope_dim + c->rope_dim), stride;
    ap_tensor q = view2(s->q, N, qd), kv = view2(s->kv, N, H * (c->nope_dim + c->v_dim));
    ap_tensor att = view2(s->att, N, H * c->v_dim);
    AP_TRY(latents_forward(m, L));
    if (c->q_lora_rank)
        AP_TRY(ap_linear_fwd(m, s->cqn_all, p->q_b, qd, c->q_lora_rank, q, 0));
    else
        AP_TRY(ap_linear_fwd(m, s->xn1_all, p->q, qd, h, q, 0));
    AP_TRY(ap_linear_fwd(m, s->cn_all, p->kv_b, kv.shape[1], c->kv_lora_rank, kv, 0));
    AP_TRY(rotate_query(m, s->q, 0));
    ap_tensor kr = key_of(m, s, &stride);
    OP(m, mla_attn_fwd, .q = s->q, .kv = s->kv, .kr = kr, .first = m->cur->first, .out = s->att, .lse = s->lse,
       .seqs = m->opt.micro_sequences, .n = c->nope_dim, .r = c->rope_dim, .v = c->v_dim, .kr_stride = stride,
       .scale = m->attn_scale);
    if (tensor_size(m) == 1)
        return ap_linear_fwd(m, att, p->o, h, H * c->v_dim, s->x_mid, 1);
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor part = new2(m, m->dt, N, h);
    AP_TRY(ap_linear_fwd(m, att, p->o, h, H * c->v_dim, part, 0));
    AP_TRY(ap_tensor_sum(m, part, s->x_mid, 1));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

/* y = W x of all tokens and the own rows of W: dx of the own tokens from dy, =; dW += . x [N, in] */
static ap_status column_backward(struct ap_model *m, ap_tensor dy, ap_tensor x, int64_t off, ap_tensor dx)
{
    if (tensor_size(m) == 1)
        return ap_linear_bwd(m, dy, x, off, dx, 0);
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor part = new2(m, m->dt, m->tokens, x.shape[1]);
    AP_TRY(ap_linear_bwd(m, dy, x, off, part, 0));
    AP_TRY(ap_tensor_sum(m, part, dx, 0));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

/* From dq to d xn (overwritten). */
static ap_status query_backward(struct ap_model *m, struct layer *L, ap_tensor dq, ap_tensor dxn)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    if (!c->q_lora_rank)
        return column_backward(m, dq, s->xn1_all, L->par.q, dxn);
    size_t mark = ap_arena_mark(&m->arena);
    int64_t ql = c->q_lora_rank;
    ap_tensor dcqn = new2(m, m->dt, m->own_tokens, ql), dcq = dy2(m, m->dt, m->own_tokens, ql);
    AP_TRY(column_backward(m, dq, s->cqn_all, L->par.q_b, dcqn));
    AP_TRY(ap_norm_bwd(m, L->par.q_a_norm,
                       (struct ap_rmsnorm_bwd_args){.dy = dcqn, .x = s->cq, .rstd = s->rstd_q, .dx = dcq}));
    AP_TRY(ap_linear_bwd(m, dcq, s->xn1, L->par.q_a, dxn, 0));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

/* The heads' gradients: dq [N,H,n+r], dkv [N,H,n+v], and that of the rope key in dkva. */
static ap_status heads_backward(struct ap_model *m, struct layer *L, ap_tensor dout, ap_tensor dq, ap_tensor dkv,
                                ap_tensor dkva)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    int64_t N = m->tokens, H = m->heads, kl = c->kv_lora_rank, stride;
    int many = tensor_size(m) > 1;
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor datt = new3(m, m->dt, N, H, c->v_dim), all, dkr = rope_key(m, dkva), own = dkr;
    if (!many) {
        AP_TRY(ap_keep(m, dout, &all));
    } else {
        all = dy2(m, m->dt, N, c->hidden_size);
        dkr = new2(m, m->dt, N, c->rope_dim);
        own = new2(m, m->dt, m->own_tokens, c->rope_dim);
        AP_TRY(ap_tensor_gather(m, dout, all));
    }
    AP_TRY(ap_linear_bwd(m, all, view2(s->att, N, H * c->v_dim), L->par.o, view2(datt, N, H * c->v_dim), 0));
    ap_tensor kr = key_of(m, s, &stride);
    OP(m, mla_attn_bwd, .dout = datt, .q = s->q, .kv = s->kv, .kr = kr, .first = m->cur->first, .out = s->att,
       .lse = s->lse, .dq = dq, .dkv = dkv, .dkr = dkr, .seqs = m->opt.micro_sequences, .n = c->nope_dim,
       .r = c->rope_dim, .v = c->v_dim, .kr_stride = stride, .dkr_stride = stride, .scale = m->attn_scale);
    if (many) {
        AP_TRY(ap_tensor_sum(m, dkr, own, 0));
        OP(m, split_cols, .src = own, .dst = dkva, .dst_col = kl, .cols = c->rope_dim);
    }
    AP_TRY(rotate_query(m, dq, 1));
    AP_TRY(rotate_key(m, dkva, 1));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

ap_status ap_mla_backward(struct ap_model *m, struct layer *L, ap_tensor dout, ap_tensor dxn)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = saved(m, L);
    const struct layer_params *p = &L->par;
    int64_t N = m->tokens, own = m->own_tokens, H = m->heads, kl = c->kv_lora_rank, row = kl + c->rope_dim;
    int64_t qd = H * (c->nope_dim + c->rope_dim), kvd = H * (c->nope_dim + c->v_dim);
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor dq = dy3(m, m->dt, N, H, c->nope_dim + c->rope_dim), dkv = dy3(m, m->dt, N, H, c->nope_dim + c->v_dim);
    ap_tensor dkva = dy2(m, m->dt, own, row), dcn = new2(m, m->dt, own, kl);
    AP_TRY(heads_backward(m, L, dout, dq, dkv, dkva));
    AP_TRY(query_backward(m, L, view2(dq, N, qd), dxn));
    AP_TRY(column_backward(m, view2(dkv, N, kvd), s->cn_all, p->kv_b, dcn));
    AP_TRY(ap_norm_bwd(m, p->kv_a_norm,
                       (struct ap_rmsnorm_bwd_args){.dy = dcn,
                                                    .x = view2(s->kva, own, kl),
                                                    .rstd = s->rstd_kv,
                                                    .dx = view2(dkva, own, kl),
                                                    .x_stride = row,
                                                    .dx_stride = row}));
    AP_TRY(ap_linear_bwd(m, dkva, s->xn1, p->kv_a, dxn, 1));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
