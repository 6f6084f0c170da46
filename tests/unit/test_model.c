/* SPDX-License-Identifier: Apache-2.0
 * The model's gradients against finite differences in fp64, for every parameter tensor: V3 gate with MTP and
 * sequence balance, V2 gates with expert, device and communication balance, document boundaries. Also the
 * layout of the flat buffer and what must not depend on it. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../support/leaks.h"
#include "base/rng.h"
#include "model/model.h"
#include "plan/layout_model.h"

struct fixture {
    struct ap_backend *be;
    struct ap_model *m;
    const struct ap_params *p;
    double *w, *g, *bias;
    int32_t *tokens, *targets, *first, *positions;
    struct ap_batch batch;
    struct ap_loss_weights lw;
    int64_t N;
};

static struct ap_model_config v3_config(void)
{
    return (struct ap_model_config){.name = "fd-v3",
                                    .version = 3,
                                    .vocab_size = 23,
                                    .hidden_size = 14,
                                    .intermediate_size = 18,
                                    .moe_intermediate_size = 5,
                                    .layers = 2,
                                    .heads = 3,
                                    .q_lora_rank = 9,
                                    .kv_lora_rank = 7,
                                    .nope_dim = 5,
                                    .rope_dim = 4,
                                    .v_dim = 3,
                                    .shared_experts = 1,
                                    .routed_experts = 6,
                                    .experts_per_token = 2,
                                    .groups = 3,
                                    .groups_kept = 2,
                                    .first_dense = 1,
                                    .moe_layer_freq = 1,
                                    .gate_kind = AP_GATE_SIGMOID_NOAUX,
                                    .norm_topk = 1,
                                    .routed_scaling = 2.5,
                                    .rms_eps = 1e-6,
                                    .rope_theta = 10000.0,
                                    .init_std = 0.4,
                                    .mtp_depth = 1,
                                    .max_position = 64};
}

static struct ap_model_config v2_config(void)
{
    struct ap_model_config c = v3_config();
    c.version = 2;
    c.q_lora_rank = 0;
    c.shared_experts = 2;
    c.gate_kind = AP_GATE_SOFTMAX_GROUP;
    c.norm_topk = 0;
    c.device_groups = 3;
    c.device_groups_kept = 2;
    c.mtp_depth = 0;
    return c;
}

static void *zeros(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    cr_assert_not_null(p);
    return p;
}

static void make_batch(struct fixture *f, int64_t B, int64_t T, int64_t V, int boundary)
{
    f->N = B * T;
    f->tokens = zeros((size_t)f->N, 4);
    f->targets = zeros((size_t)f->N, 4);
    f->first = zeros((size_t)f->N, 4);
    f->positions = zeros((size_t)f->N, 4);
    for (int64_t i = 0; i < f->N; i++)
        f->tokens[i] = (int32_t)(ap_rng_u64(7, AP_RNG_TEST, (uint64_t)i) % (uint64_t)V);
    for (int64_t i = 0; i < f->N; i++) {
        int64_t t = i % T;
        f->positions[i] = (int32_t)t;
        f->targets[i] = t == T - 1 ? (int32_t)(i % V) : f->tokens[i + 1];
        if (boundary) {
            f->first[i] = t >= boundary ? boundary : 0;
            if (t == boundary - 1)
                f->targets[i] = -1;
        }
    }
    f->batch = (struct ap_batch){f->tokens, f->targets, f->first, f->positions};
}

static void setup(struct fixture *f, const struct ap_model_config *c, int64_t B, int64_t T, int boundary)
{
    struct ap_error err;
    memset(f, 0, sizeof *f);
    cr_assert_eq(ap_backend_open("reference", 0, NULL, &f->be, &err), AP_OK, "%s", err.text);
    struct ap_model_options opt = {.micro_sequences = B, .seq_len = T, .dtype = AP_F64};
    cr_assert_eq(ap_model_create(f->be, c, &opt, &f->m, &err), AP_OK, "%s", err.text);
    f->p = ap_model_params(f->m);
    float *init = zeros((size_t)f->p->flat, sizeof *init);
    f->w = zeros((size_t)f->p->flat, sizeof *f->w);
    f->g = zeros((size_t)f->p->flat, sizeof *f->g);
    f->bias = zeros((size_t)f->p->routers, sizeof *f->bias);
    ap_params_init(f->p, c, 11, init);
    for (int64_t i = 0; i < f->p->flat; i++)
        f->w[i] = init[i];
    /* norm weights away from 1, router biases away from 0 */
    for (int64_t i = 0; i < f->p->count; i++)
        for (int64_t j = 0; f->p->list[i].info.role == AP_PARAM_NORM && j < f->p->list[i].count; j++)
            f->w[f->p->list[i].offset + j] += 0.3 * (ap_rng_uniform(3, AP_RNG_TEST, (uint64_t)(i * 1000 + j)) - 0.5);
    for (int64_t i = 0; i < f->p->routers; i++)
        f->bias[i] = 0.2 * (ap_rng_uniform(5, AP_RNG_TEST, (uint64_t)i) - 0.5);
    make_batch(f, B, T, c->vocab_size, boundary);
    free(init);
}

static void teardown(struct fixture *f)
{
    ap_model_destroy(f->m);
    ap_backend_close(f->be);
    free(f->w);
    free(f->g);
    free(f->bias);
    free(f->tokens);
    free(f->targets);
    free(f->first);
    free(f->positions);
}

/* The weighted loss; with gradients into f->g if asked. */
static double loss_of(struct fixture *f, int grads, struct ap_model_result *r_p)
{
    struct ap_model_result r;
    ap_tensor g = {0};
    if (grads) {
        memset(f->g, 0, (size_t)f->p->flat * sizeof *f->g);
        g = ap_tensor_1d(f->g, AP_F64, f->p->flat);
    }
    ap_status st = ap_model_step(f->m, ap_tensor_1d(f->w, AP_F64, f->p->flat), g,
                                 ap_tensor_1d(f->bias, AP_F64, f->p->routers), &f->batch, &f->lw, &r, NULL);
    cr_assert_eq(st, AP_OK);
    if (r_p)
        *r_p = r;
    return f->lw.ce * r.ce_sum + f->lw.mtp * r.mtp_sum + r.balance;
}

/* Up to `samples` elements of each tensor. */
static void compare_with_differences(struct fixture *f, int samples)
{
    loss_of(f, 1, NULL);
    double *g = zeros((size_t)f->p->flat, sizeof *g);
    memcpy(g, f->g, (size_t)f->p->flat * sizeof *g);
    for (int64_t i = 0; i < f->p->count; i++) {
        const struct ap_param *p = &f->p->list[i];
        int64_t step = p->count <= samples ? 1 : p->count / samples;
        for (int64_t j = i % step; j < p->count; j += step) {
            double *w = &f->w[p->offset + j], keep = *w, eps = 1e-5;
            *w = keep + eps;
            double up = loss_of(f, 0, NULL);
            *w = keep - eps;
            double down = loss_of(f, 0, NULL);
            *w = keep;
            double fd = (up - down) / (2 * eps), have = g[p->offset + j];
            cr_expect(fabs(fd - have) <= 2e-8 + 2e-6 * fabs(fd), "%s[%lld]: gradient %.12g, difference %.12g",
                      p->info.name, (long long)j, have, fd);
        }
    }
    free(g);
}

AP_TEST(model, v3_gradients_with_mtp_and_balance)
{
    struct fixture f;
    struct ap_model_config c = v3_config();
    setup(&f, &c, 2, 9, 0);
    f.lw = (struct ap_loss_weights){.ce = 1.0 / 18, .mtp = 0.3 / 14, .seq_balance = 0.07};
    struct ap_model_result r;
    loss_of(&f, 1, &r);
    cr_expect_eq(r.ce_tokens, 18);
    cr_expect_eq(r.mtp_tokens, 16);
    cr_expect_gt(r.balance, 0.0);
    cr_expect_gt(r.mtp_sum, 0.0);
    compare_with_differences(&f, 12);
    teardown(&f);
}

AP_TEST(model, v3_gradients_with_document_boundaries)
{
    struct fixture f;
    struct ap_model_config c = v3_config();
    c.yarn = (struct ap_yarn){1, 40, 32, 1, 0.7, 1.0, 4096};
    setup(&f, &c, 1, 11, 4);
    f.lw = (struct ap_loss_weights){.ce = 0.1, .mtp = 0.05};
    struct ap_model_result r;
    loss_of(&f, 1, &r);
    cr_expect_eq(r.ce_tokens, 10);
    /* no MTP target at the last position, at the boundary, and one before it (t+2 lies beyond) */
    cr_expect_eq(r.mtp_tokens, 8);
    compare_with_differences(&f, 8);
    teardown(&f);
}

AP_TEST(model, v2_gradients_with_three_balance_losses)
{
    struct fixture f;
    struct ap_model_config c = v2_config();
    setup(&f, &c, 2, 7, 0);
    f.lw = (struct ap_loss_weights){.ce = 1.0 / 14, .seq_balance = 0.03, .device_balance = 0.05, .comm_balance = 0.02};
    compare_with_differences(&f, 12);
    teardown(&f);
}

AP_TEST(model, v2_lite_greedy_gate_and_no_shared_expert)
{
    struct fixture f;
    struct ap_model_config c = v2_config();
    c.gate_kind = AP_GATE_SOFTMAX_GREEDY;
    c.shared_experts = 0;
    c.groups = c.groups_kept = 1;
    c.device_groups = c.device_groups_kept = 0;
    setup(&f, &c, 1, 8, 0);
    f.lw = (struct ap_loss_weights){.ce = 0.125, .seq_balance = 0.01};
    compare_with_differences(&f, 10);
    teardown(&f);
}

/* A document behind a boundary must not notice the document before it. */
AP_TEST(model, documents_do_not_see_each_other)
{
    struct fixture f;
    struct ap_model_config c = v3_config();
    setup(&f, &c, 1, 10, 5);
    f.lw = (struct ap_loss_weights){.ce = 1.0};
    loss_of(&f, 0, NULL);
    double before[10], *now = ap_model_token_loss(f.m).data;
    memcpy(before, now, sizeof before);
    f.tokens[2] = (f.tokens[2] + 1) % 23;
    loss_of(&f, 0, NULL);
    cr_expect(memcmp(before + 5, now + 5, 5 * sizeof *now) == 0, "tokens behind the boundary changed");
    cr_expect(memcmp(before + 2, now + 2, 2 * sizeof *now) != 0, "tokens before the boundary did not change");
    teardown(&f);
}

/* Gradients add up: two micro-batches into one buffer equal the sum of two buffers. */
AP_TEST(model, gradients_accumulate_and_load_is_counted)
{
    struct fixture f;
    struct ap_model_config c = v3_config();
    setup(&f, &c, 1, 6, 0);
    f.lw = (struct ap_loss_weights){.ce = 1.0, .mtp = 0.3};
    loss_of(&f, 1, NULL);
    double *once = zeros((size_t)f.p->flat, sizeof *once);
    memcpy(once, f.g, (size_t)f.p->flat * sizeof *once);
    struct ap_model_result r;
    int64_t load[12] = {0};
    cr_assert_eq(f.p->routers, 12);
    cr_assert_eq(ap_model_step(f.m, ap_tensor_1d(f.w, AP_F64, f.p->flat), ap_tensor_1d(f.g, AP_F64, f.p->flat),
                               ap_tensor_1d(f.bias, AP_F64, f.p->routers), &f.batch, &f.lw, &r, load),
                 AP_OK);
    for (int64_t i = 0; i < f.p->flat; i++)
        cr_assert_float_eq(f.g[i], 2 * once[i], 1e-12 + 1e-9 * fabs(once[i]));
    for (int l = 0; l < 2; l++) {
        int64_t sum = 0;
        for (int e = 0; e < 6; e++)
            sum += load[6 * l + e];
        cr_expect_eq(sum, 6 * 2, "layer %d routed %lld choices", l, (long long)sum);
    }
    free(once);
    teardown(&f);
}

/* Recomputed activations: the same losses and gradients to the last bit, in less memory. */
AP_TEST(model, recomputation_changes_no_bit)
{
    struct fixture f;
    struct ap_model_config c = v3_config();
    c.layers = 4;
    setup(&f, &c, 2, 9, 0);
    f.lw = (struct ap_loss_weights){.ce = 1.0 / 18, .mtp = 0.3 / 14, .seq_balance = 0.07};
    struct ap_model_result kept, again;
    loss_of(&f, 1, &kept);
    double *g = zeros((size_t)f.p->flat, sizeof *g);
    memcpy(g, f.g, (size_t)f.p->flat * sizeof *g);
    size_t memory = ap_model_memory(f.m);
    struct ap_model *lean, *full = f.m;
    struct ap_model_options opt = {.micro_sequences = 2, .seq_len = 9, .dtype = AP_F64, .recompute = 1};
    cr_assert_eq(ap_model_create(f.be, &c, &opt, &lean, NULL), AP_OK);
    f.m = lean;
    f.p = ap_model_params(lean);
    loss_of(&f, 1, &again);
    cr_expect(memcmp(&kept, &again, sizeof kept) == 0, "losses differ: balance %.17g and %.17g", kept.balance,
              again.balance);
    cr_expect(memcmp(g, f.g, (size_t)f.p->flat * sizeof *g) == 0, "gradients differ");
    cr_expect_lt(ap_model_memory(lean), memory);
    ap_model_destroy(full);
    free(g);
    teardown(&f);
}

/* What a micro-batch writes it writes whatever stood there, and nothing else. */
static void writes_are_whole(const struct ap_model_config *c, double mtp)
{
    struct fixture f;
    struct ap_model_result r;
    struct ap_error err = {0};
    struct ap_model *writer = NULL;
    struct ap_run *added = NULL;
    int64_t count = 0, sum = 0, written = 0;
    setup(&f, c, 2, 7, 3);
    f.lw = (struct ap_loss_weights){.ce = 1.0 / 14, .mtp = mtp};
    loss_of(&f, 1, &r);
    struct ap_model_options opt = {.micro_sequences = 2, .seq_len = 7, .dtype = AP_F64, .write_grads = 1};
    cr_assert_eq(ap_model_create(f.be, c, &opt, &writer, &err), AP_OK, "%s", err.text);
    cr_assert_eq(ap_params_added(f.p, 0, &added, &count), AP_OK);
    double *g = zeros((size_t)f.p->flat, sizeof *g);
    for (int64_t i = 0; i < f.p->flat; i++)
        g[i] = NAN;
    for (int64_t k = 0; k < count; k++) {
        memset(g + added[k].begin, 0, (size_t)added[k].count * sizeof *g);
        sum += added[k].count;
    }
    cr_assert_eq(ap_model_step(writer, ap_tensor_1d(f.w, AP_F64, f.p->flat), ap_tensor_1d(g, AP_F64, f.p->flat),
                               ap_tensor_1d(f.bias, AP_F64, f.p->routers), &f.batch, &f.lw, &r, NULL),
                 AP_OK);
    for (int64_t i = 0; i < f.p->flat; i++)
        cr_assert(g[i] == f.g[i], "element %lld: %g instead of %g", (long long)i, g[i], f.g[i]);
    for (int64_t i = 0; i < f.p->count; i++)
        written += f.p->list[i].written ? f.p->list[i].count : 0;
    cr_assert_eq(sum + written, f.p->flat);
    cr_assert_gt(written, f.p->flat / 4);
    free(g);
    free(added);
    ap_model_destroy(writer);
    teardown(&f);
}

AP_TEST(model, gradients_of_matrices_may_be_written)
{
    struct ap_model_config c = v3_config();
    writes_are_whole(&c, 0.3 / 14);
    writes_are_whole(&c, 0); /* the MTP module does not run */
    c = v2_config();
    writes_are_whole(&c, 0);
}

/* The tokens of micro-batch k, shifted from those of the fixture. */
static void take_batch(struct fixture *f, const struct ap_model_config *c, int k)
{
    for (int64_t i = 0; i < f->N; i++)
        f->tokens[i] = (int32_t)((ap_rng_u64(7, AP_RNG_TEST, (uint64_t)i) + 5 * (uint64_t)k) % (uint64_t)c->vocab_size);
}

static ap_status count_pulse(void *ctx)
{
    ++*(int *)ctx;
    return AP_OK;
}

/* Two micro-batches through a model whose backward is split, the halves in turn: the gradients of a whole one. */
static void split_is_whole(const struct ap_model_config *c)
{
    enum { MICROS = 2 };
    struct fixture f;
    struct ap_model *split = NULL, *none = NULL;
    struct ap_error err = {0};
    setup(&f, c, 2, 9, 4);
    f.lw = (struct ap_loss_weights){.ce = 1.0 / 18, .mtp = c->mtp_depth ? 0.3 / 14 : 0, .seq_balance = 0.07};
    size_t bytes = (size_t)f.p->flat * sizeof(double);
    struct ap_model_options opt = {
        .micro_sequences = 2, .seq_len = 9, .dtype = AP_F64, .slots = MICROS, .late = MICROS};
    cr_assert_eq(ap_model_create(f.be, c, &opt, &split, &err), AP_OK, "%s", err.text);
    struct ap_model_buffers b = {.router_bias = ap_tensor_1d(f.bias, AP_F64, f.p->routers)};
    b.weights[AP_GROUP_SPLIT] = ap_tensor_1d(f.w, AP_F64, f.p->flat);
    double *want[MICROS];
    struct ap_model_result whole[MICROS], half;
    ap_tensor absent = {0}, out;
    int pulses = 0;
    for (int k = 0; k < MICROS; k++) {
        take_batch(&f, c, k);
        loss_of(&f, 1, &whole[k]);
        want[k] = zeros(1, bytes);
        memcpy(want[k], f.g, bytes);
        cr_assert_eq(ap_model_forward(split, k, &b, &f.batch, &f.lw, absent, &out), AP_OK);
    }
    for (int k = MICROS - 1; k >= 0; k--) {
        struct ap_model_half h = {.slot = k, .late = MICROS - 1 - k, .din_p = &out};
        take_batch(&f, c, k);
        cr_assert_eq(ap_model_backward_input(split, &h, &b, &f.batch, &f.lw, &half, NULL), AP_OK);
        cr_expect(memcmp(&half, &whole[k], sizeof half) == 0, "losses differ");
    }
    b.grads[AP_GROUP_SPLIT] = ap_tensor_1d(f.g, AP_F64, f.p->flat);
    for (int k = 0; k < MICROS; k++) {
        memset(f.g, 0, bytes);
        cr_assert_eq(ap_model_backward_weight(split, MICROS - 1 - k, &b, count_pulse, &pulses), AP_OK);
        cr_expect(memcmp(want[k], f.g, bytes) == 0, "%s: gradients of micro-batch %d differ", c->name, k);
        free(want[k]);
    }
    cr_expect_geq(pulses, MICROS * 20, "messages wait for too long");
    cr_expect_eq(ap_model_backward_weight(split, 0, &b, NULL, NULL), AP_ERR_BUG, "a second half without a first");
    cr_expect_eq(ap_model_backward(split, 0, &b, &f.batch, &f.lw, absent, &out, &half, NULL), AP_ERR_BUG);
    struct ap_model_half h = {.slot = 0, .late = 0, .din_p = &out};
    cr_expect_eq(ap_model_backward_input(f.m, &h, &b, &f.batch, &f.lw, &half, NULL), AP_ERR_BUG);
    opt.recompute = 1;
    cr_expect_eq(ap_model_create(f.be, c, &opt, &none, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "cannot recompute"), "%s", err.text);
    ap_model_destroy(split);
    teardown(&f);
}

AP_TEST(model, split_backward_changes_no_bit)
{
    struct ap_model_config c = v3_config();
    split_is_whole(&c);
    c = v2_config();
    split_is_whole(&c);
    c.routed_experts = c.shared_experts = c.experts_per_token = 0;
    c.first_dense = c.layers;
    c.device_groups = 0;
    split_is_whole(&c);
}

AP_TEST(model, shards_tile_the_flat_buffer)
{
    struct ap_params *p;
    struct ap_model_config c = v3_config();
    cr_assert_eq(ap_params_create(&c, NULL, &p), AP_OK);
    for (int size = 1; size <= 9; size++) {
        int64_t chunk = 0, at = p->chunks[0].offset;
        for (int rank = 0; rank < size; rank++) {
            int64_t c0, c1, b, e;
            ap_params_shard(p, AP_GROUP_SPLIT, rank, size, &c0, &c1, &b, &e);
            cr_expect_eq(c0, chunk);
            cr_expect_eq(b, at);
            cr_expect_leq(b, e);
            chunk = c1;
            at = e;
        }
        cr_expect_eq(chunk, p->chunk_count);
        cr_expect_eq(at, p->flat);
    }
    const struct ap_param *g = ap_params_find(p, "model.layers.1.mlp.experts.3.gate_proj.weight");
    const struct ap_param *u = ap_params_find(p, "model.layers.1.mlp.experts.3.up_proj.weight");
    cr_assert(g && u);
    cr_expect_eq(u->offset, g->offset + g->count);
    ap_params_destroy(p);
}

/* Bytes that one more sequence in the micro-batch costs the model, and costs the planner on one rank. late: one more
 * micro-batch between the halves of a split backward, in a slot of its own. */
static double planned_growth(const struct ap_model_config *c, int element_size, int recompute, int late)
{
    double bytes[2];
    for (int i = 0; i < 2; i++) {
        struct ap_error err = {0};
        struct ap_layout_model *m;
        struct ap_topology *t = ap_topology_create(1, 1, 1);
        struct ap_layout *l = ap_layout_create(1, 1, 1, 1);
        cr_assert(t != NULL && l != NULL);
        t->ranks[0] = (struct ap_topo_rank){0, "cpu", 1e9, 1e12, 1e9};
        struct ap_layout_problem p = {.topo = t,
                                      .cfg = c,
                                      .seq_len = 64,
                                      .global_sequences = late ? 1 : i + 1,
                                      .micro_sequences = late ? 1 : i + 1,
                                      .element_size = element_size,
                                      .recompute = recompute};
        cr_assert_eq(ap_topology_finish(t, "test", &err), AP_OK, "%s", err.text);
        cr_assert_eq(ap_layout_model_create(&p, &m, &err), AP_OK, "%s", err.text);
        l->micro_sequences = p.micro_sequences;
        l->first[1] = (int)c->layers;
        ap_layout_cost(m, l);
        struct ap_layout_chunks whole = {1, l->first};
        bytes[i] = ap_layout_memory(m, l, 0);
        if (late)
            bytes[i] = ap_layout_chunk_memory(m, l, 0, &whole, (struct ap_layout_flight){1 + i, 1 + i});
        ap_layout_destroy(l);
        ap_layout_model_destroy(m);
        ap_topology_destroy(t);
    }
    return bytes[1] - bytes[0];
}

static double model_growth(const struct ap_model_config *c, ap_dtype dtype, int recompute, int late)
{
    double bytes[2];
    for (int i = 0; i < 2; i++) {
        struct ap_backend *be;
        struct ap_model *m;
        struct ap_error err = {0};
        struct ap_model_options opt = {.micro_sequences = i + 1, .seq_len = 64, .dtype = dtype, .recompute = recompute};
        if (late) {
            opt.micro_sequences = 1;
            opt.slots = opt.late = i + 1;
        }
        cr_assert_eq(ap_backend_open("reference", 0, NULL, &be, &err), AP_OK, "%s", err.text);
        cr_assert_eq(ap_model_create(be, c, &opt, &m, &err), AP_OK, "%s", err.text);
        bytes[i] = (double)ap_model_memory(m);
        ap_model_destroy(m);
        ap_backend_close(be);
    }
    return bytes[1] - bytes[0];
}

/* The planner's count of activations is what the model plans, within a twentieth. */
AP_TEST(model, planner_knows_the_activations)
{
    static const char *const names[] = {"tiny-v3", "tiny-v2", "dense-30m", "quickstart"};
    for (int i = 0; i < 16; i++) {
        struct ap_model_config c;
        struct ap_error err = {0};
        cr_assert_eq(ap_model_config_preset(names[i / 4], &c, &err), AP_OK, "%s", err.text);
        double model = model_growth(&c, i & 1 ? AP_BF16 : AP_F32, i >> 1 & 1, 0);
        double plan = planned_growth(&c, i & 1 ? 2 : 4, i >> 1 & 1, 0);
        cr_expect_lt(fabs(plan / model - 1), 0.05, "%s %s%s: the planner counts %g, the model %g", c.name,
                     i & 1 ? "bf16" : "fp32", i >> 1 & 1 ? " recompute" : "", plan, model);
        model = model_growth(&c, i & 1 ? AP_BF16 : AP_F32, 0, 1);
        plan = planned_growth(&c, i & 1 ? 2 : 4, 0, 1);
        cr_expect_lt(fabs(plan / model - 1), 0.05, "%s %s, split backward: the planner counts %g, the model %g", c.name,
                     i & 1 ? "bf16" : "fp32", plan, model);
    }
}
