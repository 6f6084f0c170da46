/* SPDX-License-Identifier: Apache-2.0
 * Finite differences in f64: moving tokens and cross-entropy; fixed-tree sums; AdamW against the formula
 * written once more, by hand, for one element. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define T1(p, a)    ap_tensor_1d(p, AP_F64, a)
#define T2(p, a, b) ap_tensor_2d(p, AP_F64, a, b)
#define I1(p, a)    ap_tensor_1d(p, AP_I32, a)
#define I2(p, a, b) ap_tensor_2d(p, AP_I32, a, b)

/* Plan, dispatch, an elementwise square in between (so that combine sees rows that depend on x), combine. */
enum { TOKENS = 5, CHOSEN = 2, EXPERTS = 4, WIDTH = 3, SORTED = TOKENS * CHOSEN };

struct moe {
    struct gx *g;
    double *x, *gates, *xs, *ys, *out, *base, *u;
    int32_t ids[SORTED], offsets[EXPERTS + 1], row_of[SORTED], token_of[SORTED];
};

static double moe_loss(void *ctx)
{
    struct moe *l = ctx;
    struct ap_moe_dispatch_fwd_args d = {T2(l->x, TOKENS, WIDTH), I1(l->token_of, SORTED), T2(l->xs, SORTED, WIDTH)};
    struct ap_moe_combine_fwd_args c = {T2(l->ys, SORTED, WIDTH), T2(l->gates, TOKENS, CHOSEN),
                                        I2(l->row_of, TOKENS, CHOSEN), T2(l->out, TOKENS, WIDTH)};
    gx_status(l->g, "moe_dispatch_fwd", l->g->be->ops.moe_dispatch_fwd(l->g->be->stream, &d));
    for (int i = 0; i < SORTED * WIDTH; i++)
        l->ys[i] = l->xs[i] * l->xs[i] * (1 + i % 7);
    memcpy(l->out, l->base, TOKENS * WIDTH * sizeof(double));
    gx_status(l->g, "moe_combine_fwd", l->g->be->ops.moe_combine_fwd(l->g->be->stream, &c));
    return gx_dot(l->out, l->u, TOKENS * WIDTH);
}

static void check_moe(struct gx *g)
{
    static const int32_t ids[SORTED] = {1, 3, 0, 1, 1, 2, 0, 3, 0, 1};
    struct moe l = {.g = g,
                    .x = gx_random(g, TOKENS * WIDTH, 1),
                    .gates = gx_random(g, SORTED, 1),
                    .xs = gx_zeros(SORTED * WIDTH),
                    .ys = gx_zeros(SORTED * WIDTH),
                    .out = gx_zeros(TOKENS * WIDTH),
                    .base = gx_random(g, TOKENS * WIDTH, 1),
                    .u = gx_random(g, TOKENS * WIDTH, 1)};
    double *dx = gx_zeros(TOKENS * WIDTH), *dgates = gx_zeros(SORTED), *dys = gx_zeros(SORTED * WIDTH);
    memcpy(l.ids, ids, sizeof(ids));
    struct ap_moe_plan_args p = {I2(l.ids, TOKENS, CHOSEN), I1(l.offsets, EXPERTS + 1), I2(l.row_of, TOKENS, CHOSEN),
                                 I1(l.token_of, SORTED)};
    struct ap_moe_combine_bwd_args c = {T2(l.u, TOKENS, WIDTH),      T2(l.ys, SORTED, WIDTH),
                                        T2(l.gates, TOKENS, CHOSEN), I2(l.row_of, TOKENS, CHOSEN),
                                        T2(dys, SORTED, WIDTH),      T2(dgates, TOKENS, CHOSEN)};
    struct ap_moe_dispatch_bwd_args d = {T2(dys, SORTED, WIDTH), I2(l.row_of, TOKENS, CHOSEN), T2(dx, TOKENS, WIDTH)};
    gx_status(g, "moe_plan", g->be->ops.moe_plan(g->be->stream, &p));
    moe_loss(&l);
    gx_status(g, "moe_combine_bwd", g->be->ops.moe_combine_bwd(g->be->stream, &c));
    for (int i = 0; i < SORTED * WIDTH; i++)
        dys[i] *= 2 * l.xs[i] * (1 + i % 7);
    gx_status(g, "moe_dispatch_bwd", g->be->ops.moe_dispatch_bwd(g->be->stream, &d));
    gx_compare(g, "moe dispatch and combine, tokens", moe_loss, &l, l.x, dx, TOKENS * WIDTH);
    gx_compare(g, "moe combine, gates", moe_loss, &l, l.gates, dgates, SORTED);
    gx_compare(g, "moe combine, what it adds to", moe_loss, &l, l.base, l.u, TOKENS * WIDTH);
    for (int i = 0; i < SORTED; i++) { /* sorted by expert, stable in (token, k), and each other's inverse */
        int row = l.row_of[i], before = 0;
        for (int j = 0; j < SORTED; j++)
            before += ids[j] < ids[i] || (ids[j] == ids[i] && j < i);
        if (row != before || l.token_of[row] != i / CHOSEN) {
            g->failures++;
            printf("not ok moe_plan: choice %d stands in row %d, expected %d\n", i, row, before);
        }
    }
    free(l.x), free(l.gates), free(l.xs), free(l.ys), free(l.out), free(l.base), free(l.u), free(dx), free(dgates),
        free(dys);
}

enum { ROWS = 5, VOCAB = 7 };

struct entropy {
    struct gx *g;
    double *logits, *loss, *dlogits;
    int32_t *targets;
};

/* Sum of the token losses through sum_tokens, so that both are tested. */
static double entropy_loss(void *ctx)
{
    struct entropy *l = ctx;
    double sum = 0;
    struct ap_cross_entropy_args a = {T2(l->logits, ROWS, VOCAB), I1(l->targets, ROWS), T1(l->loss, ROWS),
                                      T2(l->dlogits, ROWS, VOCAB), 0.3};
    struct ap_sum_tokens_args s = {T1(l->loss, ROWS), T1(&sum, 1)};
    gx_status(l->g, "cross_entropy", l->g->be->ops.cross_entropy(l->g->be->stream, &a));
    gx_status(l->g, "sum_tokens", l->g->be->ops.sum_tokens(l->g->be->stream, &s));
    return 0.3 * sum;
}

static void check_entropy(struct gx *g)
{
    int32_t targets[ROWS] = {0, 6, -1, 3, 3};
    struct entropy l = {g, gx_random(g, ROWS * VOCAB, 1), gx_zeros(ROWS), gx_zeros(ROWS * VOCAB), targets};
    double grad[ROWS * VOCAB];
    entropy_loss(&l);
    memcpy(grad, l.dlogits, sizeof(grad));
    gx_compare(g, "cross_entropy, one token without target", entropy_loss, &l, l.logits, grad, ROWS * VOCAB);
    for (int i = 0; i < ROWS * VOCAB; i++)
        l.logits[i] = 4.0;
    entropy_loss(&l);
    gx_expect(g, "cross_entropy of equal logits is log V", l.loss[1], log(VOCAB), 1e-14);
    gx_expect(g, "cross_entropy without target is 0", l.loss[2], 0, 0);
    free(l.logits), free(l.loss), free(l.dlogits);
}

/* The same rows as two blocks of columns, one after the other in memory. */
enum { SPLIT = 3 };

struct blocks {
    struct gx *g;
    double *logits, *dlogits, *parts, loss[2][ROWS];
    int32_t targets[ROWS], local[2][ROWS];
};

static double blocks_loss(void *ctx)
{
    struct blocks *l = ctx;
    struct ap_backend *be = l->g->be;
    double sum = 0;
    ap_tensor x[2], parts = ap_tensor_3d(l->parts, AP_F64, 2, ROWS, 3);
    for (int p = 0; p < 2; p++) {
        x[p] = T2(l->logits + p * ROWS * SPLIT, ROWS, p ? VOCAB - SPLIT : SPLIT);
        struct ap_cross_entropy_part_args a = {x[p], I1(l->local[p], ROWS), T2(l->parts + p * ROWS * 3, ROWS, 3)};
        gx_status(l->g, "cross_entropy_part", be->ops.cross_entropy_part(be->stream, &a));
    }
    for (int p = 0; p < 2; p++) {
        ap_tensor d = T2(l->dlogits + p * ROWS * SPLIT, ROWS, x[p].shape[1]);
        struct ap_cross_entropy_join_args a = {
            parts, x[p], I1(l->local[p], ROWS), I1(l->targets, ROWS), T1(l->loss[p], ROWS), d, 0.3};
        gx_status(l->g, "cross_entropy_join", be->ops.cross_entropy_join(be->stream, &a));
    }
    for (int i = 0; i < ROWS; i++)
        sum += l->loss[0][i];
    return 0.3 * sum;
}

static void check_blocks(struct gx *g)
{
    static const int32_t targets[ROWS] = {0, 6, -1, 3, 2};
    struct blocks l = {.g = g,
                       .logits = gx_random(g, ROWS * VOCAB, 1),
                       .dlogits = gx_zeros(ROWS * VOCAB),
                       .parts = gx_zeros(2 * ROWS * 3)};
    double grad[ROWS * VOCAB], worst = 0;
    for (int i = 0; i < ROWS; i++) {
        l.targets[i] = targets[i];
        l.local[0][i] = targets[i] < SPLIT ? targets[i] : -1;
        l.local[1][i] = targets[i] >= SPLIT ? targets[i] - SPLIT : -1;
    }
    blocks_loss(&l);
    memcpy(grad, l.dlogits, sizeof(grad));
    gx_compare(g, "cross_entropy in two blocks of columns", blocks_loss, &l, l.logits, grad, ROWS * VOCAB);
    for (int i = 0; i < ROWS; i++)
        worst = fmax(worst, fabs(l.loss[0][i] - l.loss[1][i]));
    gx_expect(g, "both blocks find the same losses", worst, 0, 0);
    for (int i = 0; i < ROWS * VOCAB; i++)
        l.logits[i] = -4.0;
    blocks_loss(&l);
    gx_expect(g, "cross_entropy_join of equal logits is log V", l.loss[1][1], log(VOCAB), 1e-14);
    gx_expect(g, "cross_entropy_join without target is 0", l.loss[1][2], 0, 0);
    free(l.logits), free(l.dlogits), free(l.parts);
}

static void check_sums(struct gx *g)
{
    enum { N = 5001 };
    double *x = gx_zeros(N), sum = 10, square = 0;
    for (int i = 0; i < N; i++)
        x[i] = i + 1;
    struct ap_sum_tokens_args s = {T1(x, N), T1(&sum, 1)};
    struct ap_sumsq_args q = {.x = T1(x, N), .out = T1(&square, 1)};
    gx_status(g, "sum_tokens", g->be->ops.sum_tokens(g->be->stream, &s));
    gx_status(g, "sumsq", g->be->ops.sumsq(g->be->stream, &q));
    gx_expect(g, "sum_tokens adds 1 + .. + 5001", sum, 10 + 5001.0 * 5002 / 2, 0);
    gx_expect(g, "sumsq of 1 .. 5001", square, 5001.0 * 5002 * 10003 / 6, 0);
    free(x);
}

void gx_loss(struct gx *g)
{
    check_moe(g);
    check_entropy(g);
    check_blocks(g);
    check_sums(g);
}

/* Bias corrections here come from running products of the betas, not from pow. */
void gx_adamw(struct gx *g)
{
    enum { STEPS = 4 };
    static const double grads[STEPS] = {0.3, -1.2, 0.05, 2.0};
    const double lr = 0.01, b1 = 0.8, b2 = 0.95, eps = 1e-6, wd = 0.2, gs = 0.5;
    double w = 1.5, m = 0, v = 0, ww = 1.5, mm = 0, vv = 0, b1t = 1, b2t = 1;
    uint16_t bf16 = 0;
    for (int t = 0; t < STEPS; t++) {
        double grad = grads[t], w1 = 0, m1 = 0, v1 = 0;
        struct ap_adamw_args a = {T1(&w, 1),  T1(&grad, 1), T1(&m, 1),  T1(&v, 1),
                                  T1(&w1, 1), T1(&m1, 1),   T1(&v1, 1), ap_tensor_1d(&bf16, AP_BF16, 1),
                                  lr,         b1,           b2,         eps,
                                  wd,         gs,           t + 1};
        gx_status(g, "adamw", g->be->ops.adamw(g->be->stream, &a));
        w = w1, m = m1, v = v1;
        double gg = grads[t] * gs, m_hat, v_hat;
        b1t *= b1;
        b2t *= b2;
        mm = mm * b1 + gg - gg * b1;
        vv = vv * b2 + gg * gg - gg * gg * b2;
        m_hat = mm / (1 - b1t);
        v_hat = vv / (1 - b2t);
        ww = ww - ww * lr * wd - lr * m_hat / (sqrt(v_hat) + eps);
    }
    gx_expect(g, "adamw after 4 steps, weight", w, ww, 1e-14);
    gx_expect(g, "adamw after 4 steps, first moment", m, mm, 1e-15);
    gx_expect(g, "adamw after 4 steps, second moment", v, vv, 1e-15);
    uint32_t bits;
    float f = (float)ww;
    memcpy(&bits, &f, sizeof(bits));
    gx_expect(g, "adamw writes the bf16 copy", fabs((double)bf16 - (double)bits / 65536.0) <= 0.5, 1, 0);
}
