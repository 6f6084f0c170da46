/* SPDX-License-Identifier: Apache-2.0
 * Model configurations: published counts to the last parameter, the parameter list, JSON both ways, and every
 * shape that cannot be. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/ops.h"
#include "plan/model_config.h"
#include "support/leaks.h"

static struct ap_model_config preset(const char *name)
{
    struct ap_model_config c;
    struct ap_error err = {0};
    cr_assert_eq(ap_model_config_preset(name, &c, &err), AP_OK, "%s: %s", name, err.text);
    return c;
}

static const char *const all[] = {"deepseek-v2-lite", "deepseek-v2", "deepseek-v3", "tiny-v2lite", "tiny-v2",
                                  "tiny-v3",          "quickstart",  "bench-s",     "bench-m"};
#define PRESETS (sizeof all / sizeof all[0])

AP_TEST(model_config, published_counts)
{
    static const struct {
        const char *name;
        int64_t total, mtp;
        double active;
    } known[] = {
        {"deepseek-v2-lite", INT64_C(15706484224), 0, 2.4e9},
        {"deepseek-v2", INT64_C(235741434880), 0, 21e9},
        {"deepseek-v3", INT64_C(671026404352), INT64_C(11610067968), 37e9},
    };
    for (size_t i = 0; i < 3; i++) {
        struct ap_model_config c = preset(known[i].name);
        struct ap_model_count n;
        ap_model_count_params(&c, &n);
        cr_expect_eq(n.total, known[i].total, "%s", known[i].name);
        cr_expect_eq(n.mtp, known[i].mtp);
        cr_expect_lt(fabs((double)n.active / known[i].active - 1), 0.12, "%s: %g active", known[i].name,
                     (double)n.active);
    }
}

struct sums {
    int64_t main, mtp, layers, experts, last_expert;
    int visits, stop_after;
};

static ap_status add(void *ctx, const struct ap_param_info *p)
{
    struct sums *s = ctx;
    int64_t n = p->shape[0] * p->shape[1];
    if (p->layer >= s->layers)
        s->mtp += n;
    else
        s->main += n;
    if (p->role == AP_PARAM_EXPERT)
        s->experts += n;
    if (p->decay != (p->ndim == 2))
        return AP_ERR_BUG;
    return ++s->visits == s->stop_after ? AP_ERR_LOST : AP_OK;
}

AP_TEST(model_config, the_list_has_as_many_as_the_count)
{
    for (size_t i = 0; i < PRESETS; i++) {
        struct ap_model_config c = preset(all[i]);
        struct ap_model_count n;
        struct sums s = {.layers = c.layers};
        ap_model_count_params(&c, &n);
        cr_expect_eq(ap_model_visit_params(&c, add, &s), AP_OK);
        cr_expect_eq(s.main, n.total, "%s", all[i]);
        cr_expect_eq(s.mtp, n.mtp, "%s", all[i]);
        cr_expect_eq(n.total,
                     n.embedding + n.attention + n.dense_mlp + n.moe_routed + n.moe_shared + n.router + n.norm);
    }
    struct ap_model_config c = preset("tiny-v3");
    struct sums s = {.layers = c.layers, .stop_after = 5};
    cr_expect_eq(ap_model_visit_params(&c, add, &s), AP_ERR_LOST);
    cr_expect_eq(s.visits, 5);
}

/* Names in order, written down from the contract. */
static ap_status check_name(void *ctx, const struct ap_param_info *p)
{
    const char *const **next = ctx;
    cr_assert_not_null(**next, "one too many: %s", p->name);
    cr_expect_str_eq(p->name, **next);
    ++*next;
    return AP_OK;
}

AP_TEST(model_config, names_and_order)
{
#define L0 "model.layers.0."
#define L1 "model.layers.1."
#define L2 "model.layers.2."
#define W  ".weight"
    static const char *const expected[] = {"model.embed_tokens" W,
                                           L0 "input_layernorm" W,
                                           L0 "self_attn.q_a_proj" W,
                                           L0 "self_attn.q_a_layernorm" W,
                                           L0 "self_attn.q_b_proj" W,
                                           L0 "self_attn.kv_a_proj_with_mqa" W,
                                           L0 "self_attn.kv_a_layernorm" W,
                                           L0 "self_attn.kv_b_proj" W,
                                           L0 "self_attn.o_proj" W,
                                           L0 "post_attention_layernorm" W,
                                           L0 "mlp.gate_proj" W,
                                           L0 "mlp.up_proj" W,
                                           L0 "mlp.down_proj" W,
                                           L1 "input_layernorm" W,
                                           L1 "self_attn.q_a_proj" W,
                                           L1 "self_attn.q_a_layernorm" W,
                                           L1 "self_attn.q_b_proj" W,
                                           L1 "self_attn.kv_a_proj_with_mqa" W,
                                           L1 "self_attn.kv_a_layernorm" W,
                                           L1 "self_attn.kv_b_proj" W,
                                           L1 "self_attn.o_proj" W,
                                           L1 "post_attention_layernorm" W,
                                           L1 "mlp.gate" W,
                                           L1 "mlp.experts.0.gate_proj" W,
                                           L1 "mlp.experts.0.up_proj" W,
                                           L1 "mlp.experts.1.gate_proj" W,
                                           L1 "mlp.experts.1.up_proj" W,
                                           L1 "mlp.experts.0.down_proj" W,
                                           L1 "mlp.experts.1.down_proj" W,
                                           L1 "mlp.shared_experts.gate_proj" W,
                                           L1 "mlp.shared_experts.up_proj" W,
                                           L1 "mlp.shared_experts.down_proj" W,
                                           "model.norm" W,
                                           "lm_head" W,
                                           L2 "enorm" W,
                                           L2 "hnorm" W,
                                           L2 "eh_proj" W,
                                           L2 "input_layernorm" W,
                                           L2 "self_attn.q_a_proj" W,
                                           L2 "self_attn.q_a_layernorm" W,
                                           L2 "self_attn.q_b_proj" W,
                                           L2 "self_attn.kv_a_proj_with_mqa" W,
                                           L2 "self_attn.kv_a_layernorm" W,
                                           L2 "self_attn.kv_b_proj" W,
                                           L2 "self_attn.o_proj" W,
                                           L2 "post_attention_layernorm" W,
                                           L2 "mlp.gate" W,
                                           L2 "mlp.experts.0.gate_proj" W,
                                           L2 "mlp.experts.0.up_proj" W,
                                           L2 "mlp.experts.1.gate_proj" W,
                                           L2 "mlp.experts.1.up_proj" W,
                                           L2 "mlp.experts.0.down_proj" W,
                                           L2 "mlp.experts.1.down_proj" W,
                                           L2 "mlp.shared_experts.gate_proj" W,
                                           L2 "mlp.shared_experts.up_proj" W,
                                           L2 "mlp.shared_experts.down_proj" W,
                                           L2 "shared_head.norm" W,
                                           NULL};
    struct ap_model_config c = preset("tiny-v3");
    struct ap_error err = {0};
    c.layers = 2;
    c.routed_experts = 2;
    c.experts_per_token = 1;
    c.groups = c.groups_kept = 1;
    cr_assert_eq(ap_model_config_check(&c, &err), AP_OK, "%s", err.text);
    const char *const *next = expected;
    cr_expect_eq(ap_model_visit_params(&c, check_name, &next), AP_OK);
    cr_expect_null(*next, "missing: %s", *next);
}

AP_TEST(model_config, json_round_trip)
{
    char path[300];
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/ap-config-%d.json", tmp != NULL ? tmp : "/tmp", (int)getpid());
    for (size_t i = 0; i < PRESETS; i++) {
        struct ap_model_config c = preset(all[i]), back;
        struct ap_error err = {0};
        char *text = ap_model_config_json(&c);
        FILE *f = fopen(path, "w");
        cr_assert_not_null(f);
        fputs(text, f);
        fclose(f);
        cr_assert_eq(ap_model_config_load(path, &back, &err), AP_OK, "%s: %s", all[i], err.text);
        memcpy(back.name, c.name, sizeof c.name);
        char *again = ap_model_config_json(&back);
        cr_expect_str_eq(text, again);
        cr_expect_eq(back.routed_scaling, c.routed_scaling);
        cr_expect_eq(back.device_groups, c.device_groups);
        cr_expect_eq(back.yarn.mscale, c.yarn.mscale);
        free(text);
        free(again);
    }
    unlink(path);
}

AP_TEST(model_config, shipped_values)
{
    struct ap_model_config c = preset("deepseek-v2");
    cr_expect_eq(c.version, 2);
    cr_expect_eq(c.gate_kind, AP_GATE_SOFTMAX_GROUP);
    cr_expect_eq(c.device_groups, 8);
    cr_expect_eq(c.device_groups_kept, 3);
    cr_expect_eq(c.routed_scaling, 16.0);
    c = preset("deepseek-v2-lite");
    cr_expect_eq(c.q_lora_rank, 0);
    cr_expect_eq(c.gate_kind, AP_GATE_SOFTMAX_GREEDY);
    cr_expect_eq(c.device_groups, 0);
    c = preset("quickstart");
    struct ap_model_count n;
    ap_model_count_params(&c, &n);
    cr_expect_geq(n.total, 5000000);
    cr_expect_eq(c.version, 3);
    cr_expect_eq(c.gate_kind, AP_GATE_SIGMOID_NOAUX);
    cr_expect_geq(c.vocab_size, 257, "bytes and the end of a document");
    cr_expect_eq(c.mtp_depth, 1);
}

/* One token of a dense model worked out by hand: 6 times the matrix elements, and causal attention. */
AP_TEST(model_config, flops_by_hand)
{
    struct ap_model_config c = {.version = 2,
                                .vocab_size = 10,
                                .hidden_size = 4,
                                .intermediate_size = 6,
                                .layers = 1,
                                .heads = 2,
                                .kv_lora_rank = 3,
                                .nope_dim = 2,
                                .rope_dim = 2,
                                .v_dim = 5};
    double q = 2 * 4 * 4, kva = (3 + 2) * 4, kvb = 2 * (2 + 5) * 3, o = 4 * 2 * 5, mlp = 3 * 4 * 6, head = 10 * 4;
    double attention = 3.0 * (7 + 1) * 2 * (2 + 2 + 5);
    cr_expect_eq(ap_model_train_flops_per_token(&c, 7), 6 * (q + kva + kvb + o + mlp + head) + attention);
}

AP_TEST(model_config, unknown_preset_names_the_nearest)
{
    struct ap_model_config c;
    struct ap_error err = {0};
    cr_expect_eq(ap_model_config_preset("deepsek-v3", &c, &err), AP_ERR_NOTFOUND);
    cr_expect_str_eq(err.hint, "did you mean 'deepseek-v3'?");
    cr_expect_eq(ap_model_config_preset("zzzzzzz", &c, &err), AP_ERR_NOTFOUND);
    cr_expect_not_null(strstr(err.hint, "quickstart"));
    cr_expect_eq(ap_model_config_preset("../models/tiny-v3", &c, &err), AP_ERR_NOTFOUND);
    cr_expect_not_null(strstr(err.hint, "model.config"));
    cr_expect_eq(ap_model_config_preset("", &c, &err), AP_ERR_NOTFOUND);
}

#define BROKEN(change, words)                                                                                          \
    do {                                                                                                               \
        struct ap_model_config c = preset("tiny-v3");                                                                  \
        struct ap_error err = {0};                                                                                     \
        change;                                                                                                        \
        cr_expect_eq(ap_model_config_check(&c, &err), AP_ERR_INPUT, "%s", #change);                                    \
        cr_expect_not_null(strstr(err.text, words), "%s: %s", #change, err.text);                                      \
    } while (0)

AP_TEST(model_config, impossible_shapes)
{
    BROKEN(c.rope_dim = 7, "qk_rope_head_dim is 7, it must be even");
    BROKEN(c.hidden_size = 0, "hidden_size is 0");
    BROKEN(c.hidden_size = INT64_MAX, "hidden_size");
    BROKEN(c.layers = -1, "num_hidden_layers");
    BROKEN(c.vocab_size = 1, "vocab_size");
    BROKEN(c.experts_per_token = 13,
           "num_experts_per_tok is 13, it must be between 1 and n_routed_experts, which is 12");
    BROKEN(c.groups = 5, "n_routed_experts is 12, which n_group 5 does not divide");
    BROKEN(c.groups_kept = 4, "topk_group is 4, it must be between 1 and n_group, which is 3");
    BROKEN(c.experts_per_token = 9, "num_experts_per_tok is 9, but topk_group 2 groups of 4 experts hold only 8");
    BROKEN((c.groups = 12, c.groups_kept = 12), "leaves one expert a group");
    BROKEN(c.first_dense = 4, "first_k_dense_replace");
    BROKEN(c.moe_layer_freq = 0, "moe_layer_freq");
    BROKEN(c.mtp_depth = 2, "num_nextn_predict_layers");
    BROKEN(c.rms_eps = 0, "rms_norm_eps");
    BROKEN(c.init_std = NAN, "initializer_range");
    BROKEN(c.rope_theta = 1, "rope_theta");
    BROKEN(c.routed_scaling = -1, "routed_scaling_factor");
    BROKEN(c.gate_kind = AP_GATE_SOFTMAX_GREEDY, "model_type deepseek_v3 and topk_method disagree");
    BROKEN(
        (c.routed_experts = 65536, c.moe_intermediate_size = c.hidden_size = 1 << 24, c.groups = 1, c.groups_kept = 1),
        "more than this program can count");
    BROKEN(c.routed_experts = 0, "n_shared_experts is 1, but n_routed_experts is 0");
    BROKEN((c.yarn.enabled = 1, c.yarn.factor = 0.5), "rope_scaling.factor");
    BROKEN((c.yarn.enabled = 1, c.yarn.factor = 4, c.yarn.beta_fast = 1, c.yarn.beta_slow = 2), "beta_fast");
}

/* A file with `from` replaced by `to` in the tiny-v3 preset. */
static void broken_file(const char *from, const char *to, long line, const char *words)
{
    char path[300];
    const char *tmp = getenv("TMPDIR");
    struct ap_model_config c = preset("tiny-v3");
    struct ap_error err = {0};
    char *text = ap_model_config_json(&c);
    char *at = strstr(text, from);
    cr_assert_not_null(at, "%s", from);
    snprintf(path, sizeof path, "%s/ap-broken-%d.json", tmp != NULL ? tmp : "/tmp", (int)getpid());
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fprintf(f, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    fclose(f);
    cr_expect_eq(ap_model_config_load(path, &c, &err), AP_ERR_INPUT, "%s", to);
    cr_expect_not_null(strstr(err.text, words), "%s: %s", to, err.text);
    cr_expect_str_eq(err.file, path);
    cr_expect_eq(err.line, line, "%s: line %ld", to, err.line);
    unlink(path);
    free(text);
}

AP_TEST(model_config, broken_files)
{
    broken_file("\"hidden_size\": 64", "\"hidden_size\": \"64\"", 7, "hidden_size must be an integer");
    broken_file("\"hidden_size\": 64", "\"hidden_size\": 64.5", 7, "hidden_size must be an integer");
    broken_file("\"hidden_size\": 64,", "", 0, "has no hidden_size");
    broken_file("\"hidden_size\": 64,", "\"hidden_size\": 64", 8, "not valid JSON");
    broken_file("\"deepseek_v3\"", "\"llama\"", 5, "model_type 'llama' is not one this program trains");
    broken_file("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", 39,
                "tie_word_embeddings must be false");
    broken_file("\"silu\"", "\"gelu\"", 36, "hidden_act must be silu");
    broken_file("\"sigmoid\"", "\"softmax\"", 35, "scoring_func must be sigmoid");
    broken_file("\"noaux_tc\"", "\"other\"", 34, "topk_method must be");
    broken_file("\"num_key_value_heads\": 4", "\"num_key_value_heads\": 2", 33, "num_key_value_heads must be equal");
    broken_file("\"qk_rope_head_dim\": 8", "\"qk_rope_head_dim\": 9", 0, "must be even");
    broken_file("\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"linear\"}", 40,
                "rope_scaling must be null or of type yarn");
    broken_file("\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"yarn\"}", 0, "has no factor");
}
