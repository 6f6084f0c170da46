/* SPDX-License-Identifier: Apache-2.0
 * Multi-head latent attention (V2 report 2.1) in its expanded form: keys and values are rebuilt from the
 * latent, which is what training wants (notes in docs/architecture.md).
 *
 *   q = Wq xn, or Wqb rms(Wqa xn);  [c | kr] = Wkva xn;  kv = Wkvb rms(c);  out += Wo attn(q, kv, rope kr)
 * The latent norms use eps 1e-6 whatever rms_norm_eps says, as the published code does. */
#include "config.h"

#include "model/model_internal.h"

#define LATENT_EPS 1e-6

void ap_mla_plan(struct ap_model *m, struct layer *L)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = &L->s;
    int64_t N = m->tokens, H = c->heads;
    if (c->q_lora_rank) {
        s->cq = new2(m, m->dt, N, c->q_lora_rank);
        s->cqn = new2(m, m->dt, N, c->q_lora_rank);
        s->rstd_q = new1(m, m->stat, N);
    }
    s->q = new3(m, m->dt, N, H, c->nope_dim + c->rope_dim);
    s->kva = new2(m, m->dt, N, c->kv_lora_rank + c->rope_dim);
    s->rstd_kv = new1(m, m->stat, N);
    s->cn = new2(m, m->dt, N, c->kv_lora_rank);
    s->kv = new3(m, m->dt, N, H, c->nope_dim + c->v_dim);
    s->att = new3(m, m->dt, N, H, c->v_dim);
    s->lse = new2(m, m->stat, N, H);
}

/* The rope key inside kva: columns kl.. of each row. */
static ap_tensor rope_key(const struct ap_model *m, ap_tensor kva)
{
    return ap_tensor_2d(elem(kva, m->cfg.kv_lora_rank), kva.dtype, m->tokens, m->cfg.rope_dim);
}

static ap_status rotate(struct ap_model *m, ap_tensor q, ap_tensor kva, int inverse)
{
    const struct ap_model_config *c = &m->cfg;
    int64_t N = m->tokens, stride = c->kv_lora_rank + c->rope_dim;
    OP(m, rope, .x = q, .cos = m->cos, .sin = m->sin, .positions = m->pos_d, .r = c->rope_dim, .inverse = inverse);
    ap_tensor kr = rope_key(m, kva);
    OP(m, rope, .x = view3(kr, N, 1, c->rope_dim), .cos = m->cos, .sin = m->sin, .positions = m->pos_d,
       .r = c->rope_dim, .x_stride = stride, .inverse = inverse);
    return AP_OK;
}

ap_status ap_mla_forward(struct ap_model *m, struct layer *L)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = &L->s;
    const struct layer_params *p = &L->par;
    int64_t N = m->tokens, h = c->hidden_size, qd = c->heads * (c->nope_dim + c->rope_dim);
    int64_t kl = c->kv_lora_rank, row = kl + c->rope_dim, kvd = c->heads * (c->nope_dim + c->v_dim);
    ap_tensor q = view2(s->q, N, qd), kv = view2(s->kv, N, kvd), att = view2(s->att, N, c->heads * c->v_dim);
    if (c->q_lora_rank) {
        AP_TRY(ap_linear_fwd(m, s->xn1, p->q_a, c->q_lora_rank, h, s->cq, 0));
        OP(m, rmsnorm_fwd, .x = s->cq, .w = w1(m, p->q_a_norm, c->q_lora_rank), .y = s->cqn, .rstd = s->rstd_q,
           .eps = LATENT_EPS);
        AP_TRY(ap_linear_fwd(m, s->cqn, p->q_b, qd, c->q_lora_rank, q, 0));
    } else {
        AP_TRY(ap_linear_fwd(m, s->xn1, p->q, qd, h, q, 0));
    }
    AP_TRY(ap_linear_fwd(m, s->xn1, p->kv_a, row, h, s->kva, 0));
    OP(m, rmsnorm_fwd, .x = view2(s->kva, N, kl), .w = w1(m, p->kv_a_norm, kl), .y = s->cn, .rstd = s->rstd_kv,
       .eps = LATENT_EPS, .x_stride = row);
    AP_TRY(ap_linear_fwd(m, s->cn, p->kv_b, kvd, kl, kv, 0));
    AP_TRY(rotate(m, s->q, s->kva, 0));
    OP(m, mla_attn_fwd, .q = s->q, .kv = s->kv, .kr = rope_key(m, s->kva), .first = m->first_d, .out = s->att,
       .lse = s->lse, .seqs = m->opt.micro_sequences, .n = c->nope_dim, .r = c->rope_dim, .v = c->v_dim,
       .kr_stride = row, .scale = m->attn_scale);
    return ap_linear_fwd(m, att, p->o, h, c->heads * c->v_dim, s->x_mid, 1);
}

/* From dq to d xn (overwritten). */
static ap_status query_backward(struct ap_model *m, struct layer *L, ap_tensor dq, ap_tensor dxn)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = &L->s;
    if (!c->q_lora_rank)
        return planning(m) ? AP_OK : ap_linear_bwd(m, dq, s->xn1, L->par.q, dxn, 0);
    size_t mark = ap_arena_mark(&m->arena);
    int64_t ql = c->q_lora_rank;
    ap_tensor dcqn = new2(m, m->dt, m->tokens, ql), dcq = new2(m, m->dt, m->tokens, ql);
    if (!planning(m)) {
        AP_TRY(ap_linear_bwd(m, dq, s->cqn, L->par.q_b, dcqn, 0));
        OP(m, rmsnorm_bwd, .dy = dcqn, .x = s->cq, .w = w1(m, L->par.q_a_norm, ql), .rstd = s->rstd_q, .dx = dcq,
           .dw = g1(m, L->par.q_a_norm, ql));
        AP_TRY(ap_linear_bwd(m, dcq, s->xn1, L->par.q_a, dxn, 0));
    }
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}

ap_status ap_mla_backward(struct ap_model *m, struct layer *L, ap_tensor dout, ap_tensor dxn)
{
    const struct ap_model_config *c = &m->cfg;
    struct layer_saved *s = &L->s;
    const struct layer_params *p = &L->par;
    int64_t N = m->tokens, H = c->heads, kl = c->kv_lora_rank, row = kl + c->rope_dim;
    int64_t qd = H * (c->nope_dim + c->rope_dim), kvd = H * (c->nope_dim + c->v_dim);
    size_t mark = ap_arena_mark(&m->arena);
    ap_tensor datt = new3(m, m->dt, N, H, c->v_dim), dq = new3(m, m->dt, N, H, c->nope_dim + c->rope_dim);
    ap_tensor dkv = new3(m, m->dt, N, H, c->nope_dim + c->v_dim), dkva = new2(m, m->dt, N, row);
    ap_tensor dcn = new2(m, m->dt, N, kl);
    if (planning(m)) {
        AP_TRY(query_backward(m, L, dq, dxn));
        ap_arena_reset(&m->arena, mark);
        return AP_OK;
    }
    AP_TRY(ap_linear_bwd(m, dout, view2(s->att, N, H * c->v_dim), p->o, view2(datt, N, H * c->v_dim), 0));
    OP(m, mla_attn_bwd, .dout = datt, .q = s->q, .kv = s->kv, .kr = rope_key(m, s->kva), .first = m->first_d,
       .out = s->att, .lse = s->lse, .dq = dq, .dkv = dkv, .dkr = rope_key(m, dkva), .seqs = m->opt.micro_sequences,
       .n = c->nope_dim, .r = c->rope_dim, .v = c->v_dim, .kr_stride = row, .dkr_stride = row, .scale = m->attn_scale);
    AP_TRY(rotate(m, dq, dkva, 1));
    AP_TRY(query_backward(m, L, view2(dq, N, qd), dxn));
    AP_TRY(ap_linear_bwd(m, view2(dkv, N, kvd), s->cn, p->kv_b, dcn, 0));
    OP(m, rmsnorm_bwd, .dy = dcn, .x = view2(s->kva, N, kl), .w = w1(m, p->kv_a_norm, kl), .rstd = s->rstd_kv,
       .dx = view2(dkva, N, kl), .dw = g1(m, p->kv_a_norm, kl), .x_stride = row, .dx_stride = row);
    AP_TRY(ap_linear_bwd(m, dkva, s->xn1, p->kv_a, dxn, 1));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
