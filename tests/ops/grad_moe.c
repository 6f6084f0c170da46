/* SPDX-License-Identifier: Apache-2.0
 * Finite differences in f64: attention, routing with every gate, the three balance losses, moving tokens. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define T1(p, a)       ap_tensor_1d(p, AP_F64, a)
#define T2(p, a, b)    ap_tensor_2d(p, AP_F64, a, b)
#define T3(p, a, b, c) ap_tensor_3d(p, AP_F64, a, b, c)
#define I1(p, a)       ap_tensor_1d(p, AP_I32, a)
#define I2(p, a, b)    ap_tensor_2d(p, AP_I32, a, b)

/* 2 sequences of 6 tokens, 2 heads, n 3, r 2, v 4; rope keys inside rows of 5. */
enum { SEQS = 2, LEN = 6, ROWS = SEQS * LEN, HEADS = 2, NOPE = 3, ROPE = 2, VDIM = 4, KR = 5 };

struct attn {
    struct gx *g;
    double *q, *kv, *kr, *out, *lse, *u;
    int32_t *first;
};

static double attn_loss(void *ctx)
{
    struct attn *l = ctx;
    struct ap_mla_attn_fwd_args a = {T3(l->q, ROWS, HEADS, NOPE + ROPE),
                                     T3(l->kv, ROWS, HEADS, NOPE + VDIM),
                                     T2(l->kr, ROWS, ROPE),
                                     I1(l->first, ROWS),
                                     T3(l->out, ROWS, HEADS, VDIM),
                                     T2(l->lse, ROWS, HEADS),
                                     SEQS,
                                     NOPE,
                                     ROPE,
                                     VDIM,
                                     KR,
                                     0.6};
    gx_status(l->g, "mla_attn_fwd", l->g->be->ops.mla_attn_fwd(l->g->be->stream, &a));
    return gx_dot(l->out, l->u, (int64_t)ROWS * HEADS * VDIM);
}

static void attention_with(struct gx *g, const char *kind, int32_t *first)
{
    enum { NQ = ROWS * HEADS * (NOPE + ROPE), NKV = ROWS * HEADS * (NOPE + VDIM), NKR = ROWS * KR };
    struct attn l = {g,
                     gx_random(g, NQ, 1),
                     gx_random(g, NKV, 1),
                     gx_random(g, NKR, 1),
                     gx_zeros(ROWS * HEADS * VDIM),
                     gx_zeros(ROWS * HEADS),
                     gx_random(g, ROWS * HEADS * VDIM, 1),
                     first};
    double *dq = gx_zeros(NQ), *dkv = gx_zeros(NKV), *dkr = gx_zeros(NKR);
    struct ap_mla_attn_bwd_args b = {T3(l.u, ROWS, HEADS, VDIM),
                                     T3(l.q, ROWS, HEADS, NOPE + ROPE),
                                     T3(l.kv, ROWS, HEADS, NOPE + VDIM),
                                     T2(l.kr, ROWS, ROPE),
                                     I1(first, ROWS),
                                     T3(l.out, ROWS, HEADS, VDIM),
                                     T2(l.lse, ROWS, HEADS),
                                     T3(dq, ROWS, HEADS, NOPE + ROPE),
                                     T3(dkv, ROWS, HEADS, NOPE + VDIM),
                                     T2(dkr, ROWS, ROPE),
                                     SEQS,
                                     NOPE,
                                     ROPE,
                                     VDIM,
                                     KR,
                                     KR,
                                     0.6};
    char what[96];
    attn_loss(&l);
    gx_status(g, "mla_attn_bwd", g->be->ops.mla_attn_bwd(g->be->stream, &b));
    snprintf(what, sizeof(what), "mla_attn, %s, queries", kind);
    gx_compare(g, what, attn_loss, &l, l.q, dq, NQ);
    snprintf(what, sizeof(what), "mla_attn, %s, keys and values", kind);
    gx_compare(g, what, attn_loss, &l, l.kv, dkv, NKV);
    snprintf(what, sizeof(what), "mla_attn, %s, shared rope keys", kind);
    gx_compare(g, what, attn_loss, &l, l.kr, dkr, NKR);
    free(l.q), free(l.kv), free(l.kr), free(l.out), free(l.lse), free(l.u), free(dq), free(dkv), free(dkr);
}

void gx_attention(struct gx *g)
{
    int32_t whole[ROWS] = {0}, documents[ROWS] = {0, 0, 2, 2, 2, 5, 0, 1, 1, 1, 1, 1};
    attention_with(g, "whole sequences", whole);
    attention_with(g, "document boundaries", documents);
}

enum { TOKENS = 6, EXPERTS = 12, CHOSEN = 3 };

struct route {
    struct gx *g;
    int kind, groups, kept, norm;
    double *logits, *bias, *scores, *gates, *u, *v;
    int32_t ids[TOKENS * CHOSEN], counts[EXPERTS];
};

static ap_status route(struct route *l)
{
    struct ap_router_fwd_args a = {T2(l->logits, TOKENS, EXPERTS),
                                   T1(l->kind == AP_GATE_SIGMOID_NOAUX ? l->bias : NULL, EXPERTS),
                                   T2(l->scores, TOKENS, EXPERTS),
                                   I2(l->ids, TOKENS, CHOSEN),
                                   T2(l->gates, TOKENS, CHOSEN),
                                   I1(l->counts, EXPERTS),
                                   l->kind,
                                   l->groups,
                                   l->kept,
                                   l->norm,
                                   2.5};
    return l->g->be->ops.router_fwd(l->g->be->stream, &a);
}

/* Gates and scores both enter the loss: the latter through dscores_extra. */
static double route_loss(void *ctx)
{
    struct route *l = ctx;
    gx_status(l->g, "router_fwd", route(l));
    return gx_dot(l->gates, l->u, TOKENS * CHOSEN) + gx_dot(l->scores, l->v, TOKENS * EXPERTS);
}

static ap_status route_gradient(struct route *l, double *dgates, double *dscores, double *dlogits)
{
    struct ap_router_bwd_args b = {T2(l->scores, TOKENS, EXPERTS),
                                   I2(l->ids, TOKENS, CHOSEN),
                                   T2(l->gates, TOKENS, CHOSEN),
                                   T2(dgates, TOKENS, CHOSEN),
                                   T2(dscores, TOKENS, EXPERTS),
                                   T2(dlogits, TOKENS, EXPERTS),
                                   l->kind,
                                   l->norm,
                                   2.5};
    return l->g->be->ops.router_bwd(l->g->be->stream, &b);
}

static void route_init(struct gx *g, struct route *l, int kind, int norm)
{
    *l = (struct route){.g = g, .kind = kind, .norm = norm, .groups = 4, .kept = 2};
    l->logits = gx_random(g, TOKENS * EXPERTS, 1);
    l->bias = gx_random(g, EXPERTS, 0.1);
    l->scores = gx_zeros(TOKENS * EXPERTS);
    l->gates = gx_zeros(TOKENS * CHOSEN);
    l->u = gx_random(g, TOKENS * CHOSEN, 1);
    l->v = gx_random(g, TOKENS * EXPERTS, 1);
}

static void route_free(struct route *l)
{
    free(l->logits), free(l->bias), free(l->scores), free(l->gates), free(l->u), free(l->v);
}

void gx_routing(struct gx *g)
{
    static const char *const kinds[] = {"softmax greedy", "softmax group limited", "sigmoid noaux"};
    for (int flags = 0; flags < 6; flags++) {
        struct route l;
        char what[96];
        route_init(g, &l, flags / 2, flags % 2);
        double *dlogits = gx_zeros(TOKENS * EXPERTS);
        gx_status(g, "router_fwd", route(&l));
        gx_status(g, "router_bwd", route_gradient(&l, l.u, l.v, dlogits));
        snprintf(what, sizeof(what), "router, %s, norm_topk %d", kinds[l.kind], l.norm);
        gx_compare(g, what, route_loss, &l, l.logits, dlogits, TOKENS * EXPERTS);
        free(dlogits);
        route_free(&l);
    }
}

/* A balance loss as a function of the logits: router forward, then the loss. */
struct balance {
    struct route r;
    struct ap_seq_balance_args a;
    double *dscores, loss;
};

static double balance_loss(void *ctx)
{
    struct balance *b = ctx;
    b->loss = 0;
    gx_status(b->r.g, "router_fwd", route(&b->r));
    gx_status(b->r.g, "seq_balance", b->r.g->be->ops.seq_balance(b->r.g->be->stream, &b->a));
    return b->loss;
}

static const struct {
    const char *name;
    int64_t group, kept;
} losses[] = {{"expert-level", 0, 0}, {"device-level", 3, 0}, {"communication", 3, 2}};

static void balance_init(struct gx *g, struct balance *b, int kind, size_t loss)
{
    route_init(g, &b->r, kind, 1);
    b->dscores = gx_zeros(TOKENS * EXPERTS);
    b->loss = 0;
    b->a = (struct ap_seq_balance_args){.scores = T2(b->r.scores, TOKENS, EXPERTS),
                                        .ids = I2(b->r.ids, TOKENS, CHOSEN),
                                        .dscores = T2(b->dscores, TOKENS, EXPERTS),
                                        .loss = T1(&b->loss, 1),
                                        .seqs = 2,
                                        .kind = kind,
                                        .group_size = losses[loss].group,
                                        .comm_groups_kept = losses[loss].kept,
                                        .weight = 0.7};
}

/* Known values, softmax gate: with equal scores P_i = 1/E, so that the expert and device losses are the
 * weight per sequence; when the choices of every token lie in exactly M groups so is the communication loss. */
static void balance_values(struct gx *g, size_t loss)
{
    struct balance b;
    char what[96];
    balance_init(g, &b, AP_GATE_SOFTMAX_GREEDY, loss);
    for (int i = 0; i < TOKENS * EXPERTS; i++)
        b.r.scores[i] = 1.0 / EXPERTS;
    for (int t = 0; t < TOKENS; t++) { /* two experts of group t % 4, one of the next */
        int base = t % 4 * 3, other = (t + 1) % 4 * 3 + t % 3;
        int first = other < base;
        b.r.ids[t * CHOSEN + (first ? 1 : 0)] = base;
        b.r.ids[t * CHOSEN + (first ? 2 : 1)] = base + 1;
        b.r.ids[t * CHOSEN + (first ? 0 : 2)] = other;
    }
    gx_status(g, "seq_balance", g->be->ops.seq_balance(g->be->stream, &b.a));
    snprintf(what, sizeof(what), "%s balance loss of equal scores", losses[loss].name);
    gx_expect(g, what, b.loss, 0.7 * 2, 1e-12);
    free(b.dscores);
    route_free(&b.r);
}

/* All tokens to the same experts with scores 1/K there: the worst case, f_i P_i = E/K * 1/K on K experts. */
static void balance_worst(struct gx *g)
{
    struct balance b;
    balance_init(g, &b, AP_GATE_SIGMOID_NOAUX, 0);
    for (int i = 0; i < TOKENS * EXPERTS; i++)
        b.r.scores[i] = i % EXPERTS < CHOSEN ? 0.9 : 0.0;
    gx_status(g, "seq_balance", g->be->ops.seq_balance(g->be->stream, &b.a));
    gx_expect(g, "expert-level balance loss of one hot set, sigmoid gate", b.loss, 0.7 * 2 * EXPERTS / CHOSEN, 1e-12);
    free(b.dscores);
    route_free(&b.r);
}

void gx_balance(struct gx *g)
{
    for (size_t loss = 0; loss < 3; loss++) {
        for (int kind = 0; kind < 3; kind++) {
            struct balance b;
            char what[96];
            balance_init(g, &b, kind, loss);
            double *dlogits = gx_zeros(TOKENS * EXPERTS), *none = gx_zeros(TOKENS * CHOSEN);
            balance_loss(&b);
            gx_status(g, "router_bwd", route_gradient(&b.r, none, b.dscores, dlogits));
            snprintf(what, sizeof(what), "%s balance loss, gate kind %d", losses[loss].name, kind);
            gx_compare(g, what, balance_loss, &b, b.r.logits, dlogits, TOKENS * EXPERTS);
            free(dlogits), free(none), free(b.dscores);
            route_free(&b.r);
        }
        balance_values(g, loss);
    }
    balance_worst(g);
}
