/* SPDX-License-Identifier: Apache-2.0
 * plan.json: what is written is read back; every field that is missing, impossible or at odds with another is named;
 * plans out of a job's own numbers, their layers against every other split, and what cannot be. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plan/plan_report.h"
#include "support/leaks.h"

static struct ap_job *job_of(const char *preset)
{
    struct ap_job *job = NULL;
    struct ap_error err = {0};
    char text[200];
    snprintf(text, sizeof text, "model: {preset: %s}\ndata: {train: t, seq_len: 64}\nbatch: {global_sequences: 32}\n",
             preset);
    cr_assert_eq(ap_job_load_text("j.yaml", text, strlen(text), NULL, 0, &job, &err), AP_OK, "%s", err.text);
    return job;
}

static void fix(struct ap_job *job, int64_t data, int64_t tensor, int64_t pipeline, int64_t expert)
{
    job->parallel.data = data;
    job->parallel.tensor = tensor;
    job->parallel.pipeline = pipeline;
    job->parallel.expert = expert;
}

static struct ap_plan *plan_of(const struct ap_job *job, int ranks)
{
    struct ap_plan *p = NULL;
    struct ap_error err = {0};
    cr_assert_eq(ap_plan_from_job(job, ranks, NULL, &p, &err), AP_OK, "%s", err.text);
    cr_expect_eq(ap_plan_check_job(p, job, ranks, &err), AP_OK, "%s", err.text);
    return p;
}

/* On one line; free. */
static char *text_of(const struct ap_plan *p)
{
    struct ap_json j = {0};
    ap_json_begin_object(&j, NULL);
    ap_plan_json(p, &j);
    ap_json_end_object(&j);
    char *text = ap_strbuf_take(&j.text);
    cr_assert_not_null(text);
    return text;
}

static void round_trip(const struct ap_plan *p)
{
    struct ap_plan *again = NULL;
    struct ap_error err = {0};
    char *first = text_of(p);
    cr_assert_eq(ap_plan_parse("p.json", first, strlen(first), &again, &err), AP_OK, "%s", err.text);
    char *second = text_of(again);
    cr_expect_str_eq(first, second);
    free(first);
    free(second);
    ap_plan_destroy(again);
}

AP_TEST(plan_file, from_job)
{
    struct ap_job *job = job_of("tiny-v3");
    struct ap_plan *p = plan_of(job, 3);
    cr_expect(p->data == 3 && p->tensor == 1 && p->pipeline == 1 && p->expert == 1, "data takes all ranks");
    cr_expect(p->micro_batches[0] == 11 && p->micro_batches[1] == 11 && p->micro_batches[2] == 10);
    cr_expect_eq(p->stages[0].layers, 3);
    round_trip(p);
    ap_plan_destroy(p);

    fix(job, AP_AUTO, 2, 3, 4);
    p = plan_of(job, 72);
    cr_expect_eq(p->data, 3);
    for (int i = 0; i < 12; i++)
        cr_expect_eq(p->micro_batches[i], i < 8 ? 3 : 2, "8 rounds of 4: 3, 3 and 2");
    for (int s = 0; s < 3; s++) {
        cr_expect_eq(p->stages[s].first_layer, s);
        cr_expect_eq(p->stages[s].in_flight, 3 - s);
    }
    for (int r = 0; r < 72; r++)
        cr_expect_eq(p->place[r], r);
    round_trip(p);
    ap_plan_destroy(p);
    ap_job_destroy(job);
}

/* Operations of layers [a, b) with what goes along at the end, from the counts alone. */
static double load(const struct ap_model_config *c, int64_t a, int64_t b, int64_t seq)
{
    double sum = 0, head = 6.0 * (double)(c->vocab_size * c->hidden_size);
    for (int64_t l = a; l < b + (b == c->layers ? c->mtp_depth : 0); l++) {
        struct ap_model_layer k;
        ap_model_count_layer(c, l, seq, 4, &k);
        sum += k.flops_token + (l >= c->layers ? head : 0);
    }
    return sum + (b == c->layers ? head : 0);
}

/* The least largest stage over all splits of layers [a, ...) into `stages`. */
static double best_split(const struct ap_model_config *c, int64_t a, int stages)
{
    double best = INFINITY;
    if (stages == 1)
        return load(c, a, c->layers, 64);
    for (int64_t b = a + 1; b <= c->layers - (stages - 1); b++)
        best = fmin(best, fmax(load(c, a, b, 64), best_split(c, b, stages - 1)));
    return best;
}

AP_TEST(plan_file, layers_are_balanced)
{
    static const char *const presets[] = {"tiny-v3", "dense-30m", "deepseek-v2-lite"};
    for (size_t i = 0; i < 3; i++) {
        struct ap_job *job = job_of(presets[i]);
        const struct ap_model_config *c = &job->model.cfg;
        for (int stages = 1; stages <= 4 && stages <= c->layers; stages++) {
            fix(job, AP_AUTO, 1, stages, 1);
            struct ap_plan *p = plan_of(job, stages);
            double largest = 0;
            for (int s = 0; s < stages; s++)
                largest = fmax(largest,
                               load(c, p->stages[s].first_layer, p->stages[s].first_layer + p->stages[s].layers, 64));
            cr_expect_float_eq(largest / best_split(c, 0, stages), 1, 1e-9, "%s on %d", presets[i], stages);
            ap_plan_destroy(p);
        }
        ap_job_destroy(job);
    }
    /* Of equal layers the first stages get the remainder, where the ends do not count. */
    struct ap_job *job = job_of("dense-30m");
    job->model.cfg.vocab_size = 2;
    fix(job, AP_AUTO, 1, 3, 1);
    struct ap_plan *p = plan_of(job, 3);
    cr_expect(p->stages[0].layers == 3 && p->stages[1].layers == 3 && p->stages[2].layers == 2);
    ap_plan_destroy(p);
    ap_job_destroy(job);
}

AP_TEST(plan_file, what_cannot_be)
{
    const struct {
        int64_t data, tensor, pipeline, expert;
        int ranks;
        int64_t heads, columns, expert_columns, routed; /* 0: the model's */
        const char *says, *hint;
    } cases[] = {
        {AP_AUTO, 2, AP_AUTO, AP_AUTO, 3, 0, 0, 0, 0, "3 ranks cannot be shared out by tensor 2 x", "a multiple"},
        {AP_AUTO, 2, 3, AP_AUTO, 4, 0, 0, 0, 0, "4 ranks cannot be shared out by tensor 2 x pipeline 3", "a multiple"},
        {2, AP_AUTO, AP_AUTO, AP_AUTO, 4, 0, 0, 0, 0, "expert 1 are not 4 ranks", "it is 4 then"},
        {1, 8, 1, 1, 8, 0, 0, 0, 0, "tensor 8: 4 attention heads cannot be shared out evenly, there are fewer",
         "tensor 4 fits"},
        {1, 3, 1, 1, 3, 0, 0, 0, 0, "tensor 3: 4 attention heads", "tensor 2 fits"},
        {1, 2, 1, 1, 2, 0, 113, 0, 0, "tensor 2: 113 columns of the MLP", "tensor 1 fits"},
        {1, 2, 1, 1, 2, 0, 0, 15, 0, "tensor 2: 15 columns of an expert", "tensor 1 fits"},
        {1, 512, 1, 1, 512, 1024, 1024, 1024, 0, "tensor 512: the vocabulary has only 272 entries", "at most"},
        {1, 1, 1, 8, 8, 0, 0, 0, 0, "expert 8: 12 routed experts cannot be shared out evenly", "expert 6 fits"},
        {1, 1, 1, 24, 24, 0, 0, 0, 0, "expert 24: 12 routed experts", "expert 12 fits"},
        {1, 1, 1, 2, 2, 0, 0, 0, -1, "expert 2: the model has no experts", "expert 1"},
        {1, 1, 4, 1, 4, 0, 0, 0, 0, "pipeline 4: the model has only 3 layers", "at most pipeline 3"},
        {1, 1, 1, 3, 3, 0, 0, 0, 0, "expert 3: 32 micro-batches of a step cannot be shared out evenly", "expert 2"},
        {64, 1, 1, 1, 64, 0, 0, 0, 0, "data 64 x expert 1: a step has only 32 micro-batches", "at most data 32"},
        {16, 1, 1, 4, 64, 0, 0, 0, 0, "data 16 x expert 4: a step has only 32 micro-batches", "at most data 8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ap_job *job = job_of("tiny-v3");
        struct ap_model_config *c = &job->model.cfg;
        struct ap_plan *p = NULL;
        struct ap_error err = {0};
        fix(job, cases[i].data, cases[i].tensor, cases[i].pipeline, cases[i].expert);
        c->heads = cases[i].heads > 0 ? cases[i].heads : c->heads;
        c->intermediate_size = cases[i].columns > 0 ? cases[i].columns : c->intermediate_size;
        c->moe_intermediate_size = cases[i].expert_columns > 0 ? cases[i].expert_columns : c->moe_intermediate_size;
        c->routed_experts = cases[i].routed < 0 ? 0 : c->routed_experts;
        cr_expect_eq(ap_plan_from_job(job, cases[i].ranks, NULL, &p, &err), AP_ERR_INPUT, "case %zu", i);
        cr_expect_null(p);
        cr_expect_not_null(strstr(err.text, cases[i].says), "case %zu says: %s", i, err.text);
        cr_expect_not_null(strstr(err.hint, cases[i].hint), "case %zu hints: %s", i, err.hint);
        cr_expect_str_eq(err.file, "j.yaml");
        ap_job_destroy(job);
    }
}

/* The job's schedule: slots of zero-bubble, and what it does not go with. */
AP_TEST(plan_file, zero_bubble)
{
    struct ap_job *job = job_of("tiny-v3");
    struct ap_plan *p = NULL;
    struct ap_error err = {0};
    job->parallel.schedule = AP_PIPELINE_ZERO_BUBBLE;
    fix(job, AP_AUTO, 1, 3, 1);
    p = plan_of(job, 3);
    cr_expect_eq(p->schedule, AP_PLAN_ZERO_BUBBLE);
    for (int s = 0; s < 3; s++)
        cr_expect_eq(p->stages[s].in_flight, 3);
    job->recompute = 1;
    cr_expect_eq(ap_plan_check_job(p, job, 3, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "recompute does not keep"), "%s", err.text);
    job->recompute = 0;
    job->parallel.schedule = AP_PIPELINE_1F1B;
    cr_expect_eq(ap_plan_check_job(p, job, 3, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "schedule is zero-bubble, but parallel.schedule of the job is 1f1b"), "%s",
                       err.text);
    job->parallel.schedule = AP_PIPELINE_AUTO;
    cr_expect_eq(ap_plan_check_job(p, job, 3, &err), AP_OK, "%s", err.text);
    p->stages[1].in_flight = 4;
    cr_expect_eq(ap_plan_check(p, NULL, 0, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "zero-bubble keeps at most 3 micro-batches"), "%s", err.text);
    ap_plan_destroy(p);
    p = NULL;
    job->parallel.schedule = AP_PIPELINE_ZERO_BUBBLE;
    fix(job, AP_AUTO, 1, AP_AUTO, 1);
    cr_expect_eq(ap_plan_from_job(job, 2, NULL, &p, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "pipeline 1 has no bubble to fill"), "%s", err.text);
    cr_expect_null(p);
    ap_job_destroy(job);
}

/* A plan with every field filled: 2 x 2 x 2 ranks, expert 1. */
static struct ap_plan *full(struct ap_job *job)
{
    fix(job, AP_AUTO, 2, 2, 1);
    struct ap_plan *p = plan_of(job, 8);
    snprintf(p->date, sizeof p->date, "2026-11-25T09:00:00Z");
    snprintf(p->machine.measured, sizeof p->machine.measured, "2026-11-24");
    snprintf(p->machine.identity, sizeof p->machine.identity, "0123456789abcdef0123456789abcdef");
    snprintf(p->between_sites, sizeof p->between_sites, "data");
    p->machine.nodes = 4;
    p->machine.sites = 2;
    p->predicted =
        (struct ap_plan_times){.step = 10, .compute = 6, .lan = 2, .wan = 1, .bubble = 1, .simulated_step = NAN};
    p->stages[0].memory_bytes = 1.5e9;
    return p;
}

/* text with the first `from` replaced; free. */
static char *swapped(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    cr_assert_not_null(at, "%s is not in %s", from, text);
    size_t size = strlen(text) + strlen(to) + 1;
    char *out = malloc(size);
    cr_assert_not_null(out);
    snprintf(out, size, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

AP_TEST(plan_file, mistakes)
{
    static const struct {
        const char *from, *to, *says, *hint;
    } cases[] = {
        {"\"antipode-plan\"", "\"x\"", "format must be \"antipode-plan\"", ""},
        {"\"version\": 1, ", "", "version is missing", ""},
        {"\"job\": \"", "\"jib\": \"", "there is no field jib", "did you mean 'job'?"},
        {"\"job\": \"j\"", "\"job\": 7", "job must be a text", ""},
        {"\"date\": \"2026-11-25T09:00:00Z\"", "\"date\": \"\"", "date must be a text", ""},
        {"\"machine\": {", "\"machine\": 3, \"x\": {", "there is no field x", ""},
        {"\"ranks\": 8", "\"ranks\": 9", "are 8 ranks, but machine.ranks is 9", ""},
        {"\"ranks\": 8", "\"ranks\": 1e9", "machine.ranks must be a whole number from 1 to 65536", ""},
        {"\"nodes\": 4", "\"nodes\": 9", "machine.nodes is 9, more than machine.ranks 8", ""},
        {"\"sites\": 2", "\"sites\": 5", "machine.sites is 5, more than machine.nodes 4", ""},
        {"\"0123456789abcdef", "\"0123", "machine.identity must be 32 hex digits", ""},
        {"\"tensor\": 2", "\"tensor\": 0", "parallel.tensor must be a whole number from 1 to 65536", ""},
        {"\"tensor\": 2", "\"tensor\": 2.0", "parallel.tensor must be a whole number", ""},
        {"\"tensor\": 2, ", "", "parallel.tensor is missing", ""},
        {"\"tensor\": 2", "\"tensor\": 2, \"tensor\": 2", "parallel.tensor stands twice", ""},
        {"\"tensor\": 2", "\"tensr\": 2", "there is no field parallel.tensr", "did you mean 'tensor'?"},
        {"\"data\": 2", "\"data\": 65536", "more than 65536 ranks", ""},
        {"\"1f1b\"", "\"gpipe\"", "schedule must be one of 1f1b 1f1b-deep interleaved zero-bubble", ""},
        {"\"1f1b\"", "\"interleaved\"", "chunks is 1, but schedule is interleaved", ""},
        {"\"chunks\": 1", "\"chunks\": 2", "stages has 2 entries, but there are 4: parallel.pipeline times chunks", ""},
        {"\"seq_len\": 64", "\"seq_len\": null", "seq_len must be a whole number from 1", ""},
        {"\"global_sequences\": 32", "\"global_sequences\": 33", "add up to 32 of 1 sequences", ""},
        {"\"step_s\": 10", "\"step_s\": 12", "predicted.step_s is 12, but compute_s, lan_s, wan_s and bubble_s", ""},
        {"\"lan_s\": 2", "\"lan_s\": -2", "predicted.lan_s must be a number of 0 or more", ""},
        {"\"lan_s\": 2", "\"lan_s\": null", "predicted.lan_s must be a number of 0 or more", ""},
        {"\"first_layer\": 0", "\"first_layer\": 1", "stages[0].first_layer is 1, but the layers before end at 0", ""},
        {"\"layers\": 2", "\"layers\": 0", "stages[0].layers must be a whole number from 1", ""},
        {"\"in_flight\": 2", "\"in_flight\": 3", "stages[0].in_flight is 3: 1f1b has at most 2", ""},
        {"\"in_flight\": 1", "\"in_flight\": 1, \"x\": 1", "there is no field stages[1].x", ""},
        {"\"memory_bytes\": null", "\"memory_bytes\": \"a\"",
         "stages[1].memory_bytes must be a number of 0 or more, or", ""},
        {"[16, 16]", "[16, 15]", "micro_batches add up to 31 of 1 sequences", ""},
        {"[16, 16]", "[32]", "micro_batches has 1 entries, but there are 2", ""},
        {"[16, 16]", "[32, 0]", "micro_batches[1] must be a whole number from 1", ""},
        {"[16, 16]", "7", "micro_batches must be a list", ""},
        {"\"place\": [0, 1,", "\"place\": [1, 1,", "place[0] and place[1] are both 1", ""},
        {"\"place\": [0, 1,", "\"place\": [8, 1,", "place[0] must be a whole number from 0 to 7", ""},
        {"\"place\": [0, 1,", "\"place\": [1,", "place has 7 entries, but there are 8: machine.ranks", ""},
        {"{", "", "not valid JSON", ""},
    };
    struct ap_job *job = job_of("tiny-v3");
    struct ap_plan *p = full(job);
    round_trip(p);
    char *good = text_of(p);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = swapped(good, cases[i].from, cases[i].to);
        struct ap_plan *none = NULL;
        struct ap_error err = {0};
        cr_expect_eq(ap_plan_parse("p.json", text, strlen(text), &none, &err), AP_ERR_INPUT, "case %zu", i);
        cr_expect_null(none);
        cr_expect_not_null(strstr(err.text, cases[i].says), "case %zu says: %s", i, err.text);
        cr_expect_not_null(strstr(err.hint, cases[i].hint), "case %zu hints: %s", i, err.hint);
        cr_expect_str_eq(err.file, "p.json");
        free(text);
    }
    /* Leave out each field in turn: nothing has a silent default. */
    static const char *const keys[] = {"format",           "version",         "date",          "job",       "model",
                                       "machine",          "parallel",        "schedule",      "chunks",    "seq_len",
                                       "global_sequences", "micro_sequences", "between_sites", "predicted", "stages",
                                       "micro_batches",    "place",           "nodes",         "measured",  "identity",
                                       "in_flight",        "memory_part"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char from[40], to[40];
        struct ap_plan *none = NULL;
        struct ap_error err = {0};
        snprintf(from, sizeof from, "\"%s\": ", keys[i]);
        snprintf(to, sizeof to, "\"runners_up\": ");
        char *text = swapped(good, from, to);
        cr_expect_eq(ap_plan_parse("p.json", text, strlen(text), &none, &err), AP_ERR_INPUT, "without %s", keys[i]);
        cr_expect(strstr(err.text, keys[i]) != NULL || strstr(err.text, "runners_up") != NULL, "%s", err.text);
        free(text);
    }
    free(good);
    ap_plan_destroy(p);
    ap_job_destroy(job);
}

AP_TEST(plan_file, other_version)
{
    struct ap_job *job = job_of("tiny-v3");
    struct ap_plan *p = full(job), *none = NULL;
    struct ap_error err = {0};
    char *good = text_of(p), *text = swapped(good, "\"version\": 1", "\"version\": 2, \"future\": 1");
    cr_expect_eq(ap_plan_parse("p.json", text, strlen(text), &none, &err), AP_ERR_FORMAT);
    cr_expect_not_null(strstr(err.text, "version 2 of plan.json, this program reads version 1"), "%s", err.text);
    cr_expect_eq(ap_plan_parse("p.json", "[]", 2, &none, &err), AP_ERR_INPUT);
    cr_expect_eq(ap_plan_parse("p.json", "", 0, &none, &err), AP_ERR_INPUT);
    cr_expect_eq(ap_plan_read("/no/such/plan.json", &none, &err), AP_ERR_NOTFOUND, "%s", err.text);
    cr_expect_null(none);
    free(good);
    free(text);
    ap_plan_destroy(p);
    ap_job_destroy(job);
}

/* Deep windows may be larger than 1F1B's, but a later stage has none larger than the one before. */
AP_TEST(plan_file, windows)
{
    struct ap_job *job = job_of("tiny-v3");
    struct ap_plan *p = full(job);
    struct ap_error err = {0};
    p->schedule = AP_PLAN_DEEP;
    p->stages[0].in_flight = 9;
    p->stages[1].in_flight = 9;
    round_trip(p);
    p->stages[1].in_flight = 10;
    cr_expect_eq(ap_plan_check(p, NULL, 0, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "stages[1].in_flight is 10, more than the 9 of the stage before"), "%s",
                       err.text);
    ap_plan_destroy(p);
    ap_job_destroy(job);
}

/* Fields that each are possible, but not for this model, these ranks, this job. */
AP_TEST(plan_file, for_another_run)
{
    struct ap_job *job = job_of("tiny-v3");
    struct ap_plan *p = full(job);
    struct ap_error err = {0};
    cr_expect_eq(ap_plan_check(p, &job->model.cfg, 4, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "the plan is for 8 ranks, but there are 4"), "%s", err.text);
    job->model.cfg.layers = 4;
    cr_expect_eq(ap_plan_check(p, &job->model.cfg, 8, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "have 3 layers, but the model has 4"), "%s", err.text);
    job->model.cfg.layers = 3;
    job->model.cfg.heads = 5;
    cr_expect_eq(ap_plan_check(p, &job->model.cfg, 8, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "tensor 2: 5 attention heads"), "%s", err.text);
    job->model.cfg.heads = 4;
    job->data.seq_len = 32;
    cr_expect_eq(ap_plan_check_job(p, job, 8, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "made for data.seq_len 64, but the job says 32"), "%s", err.text);
    job->data.seq_len = 64;
    job->parallel.pipeline = 1;
    cr_expect_eq(ap_plan_check_job(p, job, 8, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "made for parallel.pipeline 2, but the job says 1"), "%s", err.text);
    job->parallel.pipeline = 2;
    job->parallel.schedule = AP_PIPELINE_ZERO_BUBBLE;
    cr_expect_eq(ap_plan_check_job(p, job, 8, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "schedule is 1f1b, but parallel.schedule of the job is zero-bubble"), "%s",
                       err.text);
    job->parallel.schedule = AP_PIPELINE_1F1B;
    cr_expect_eq(ap_plan_check_job(p, job, 8, &err), AP_OK, "%s", err.text);
    ap_plan_destroy(p);
    fix(job, AP_AUTO, 1, 1, 2);
    p = plan_of(job, 4);
    p->micro_batches[0]++;
    p->micro_batches[1]--;
    cr_expect_eq(ap_plan_check(p, NULL, 0, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "micro_batches[1] is 7, but the first of its expert group has 9"), "%s",
                       err.text);
    ap_plan_destroy(p);
    ap_job_destroy(job);
}

AP_TEST(plan_file, nodes_have_an_identity)
{
    static const char *const a[] = {"n0", "n0", "n1", "n1"}, *const b[] = {"n0", "n1", "n0", "n1"},
                             *const c[] = {"n", "0n0", "n1", "n1"};
    char ida[33], again[33], idb[33], idc[33];
    struct ap_job *job = job_of("tiny-v3");
    struct ap_plan *p = NULL;
    struct ap_error err = {0};
    cr_assert_eq(ap_plan_identity(4, a, ida), AP_OK);
    cr_assert_eq(ap_plan_identity(4, a, again), AP_OK);
    cr_assert_eq(ap_plan_identity(4, b, idb), AP_OK);
    cr_assert_eq(ap_plan_identity(4, c, idc), AP_OK);
    cr_expect_str_eq(ida, again);
    cr_expect_str_neq(ida, idb);
    cr_expect_str_neq(ida, idc);
    cr_assert_eq(ap_plan_from_job(job, 4, b, &p, &err), AP_OK);
    cr_expect_str_eq(p->machine.identity, idb);
    cr_expect_eq(p->machine.nodes, 2);
    round_trip(p);
    ap_plan_destroy(p);
    ap_job_destroy(job);
}

/* What the search found, as a file on disk and back. */
AP_TEST(plan_file, of_a_search)
{
    struct ap_job *job = job_of("tiny-v3");
    struct ap_topology *t = NULL;
    struct ap_error err = {0};
    const struct ap_topo_shape shape = {2, 2, {0, "any", 1e11, 8e9, 2e10}, {1e-6, 1e10}, {3e-5, 1e9}};
    const char *wan = "src,dst,rtt_ms,gbit_per_s\nA,B,20,4\n";
    cr_assert_eq(ap_topology_from_wan("w.csv", wan, strlen(wan), &shape, &t, &err), AP_OK, "%s", err.text);
    t->ranks[5].speed /= 2;
    struct ap_layout_problem q = {.topo = t, .cfg = &job->model.cfg, .seq_len = 64, .global_sequences = 32};
    q.element_size = 4;
    q.data = q.tensor = q.pipeline = q.expert = -1;
    struct ap_layout_model *m = NULL;
    struct ap_layout_plan found = {0};
    cr_assert_eq(ap_layout_model_create(&q, &m, &err), AP_OK, "%s", err.text);
    cr_assert_eq(ap_layout_search(m, 3, &found, &err), AP_OK, "%s", err.text);
    struct ap_plan_report r = {.problem = &q, .model = m, .plan = &found, .job = "j", .date = "today", .simulated = 1};
    struct ap_plan *p = NULL, *again = NULL;
    cr_assert_eq(ap_plan_report_plan(&r, &p), AP_OK);
    cr_expect_eq(ap_plan_check_job(p, job, 8, &err), AP_OK, "%s", err.text);
    const struct ap_layout *l = found.best[0];
    for (int slot = 0; slot < 8; slot++)
        cr_expect_eq(p->place[l->rank[slot]], slot);
    cr_expect_eq(p->predicted.step, l->cost.step);
    round_trip(p);
    struct ap_json j = {.indent = 2};
    ap_plan_report_json(&r, p, &j);
    char *text = ap_strbuf_take(&j.text), path[600];
    cr_assert_not_null(text);
    cr_expect_eq(ap_plan_parse("p.json", text, strlen(text), &again, &err), AP_OK, "%s", err.text);
    ap_plan_destroy(again);
    const char *dir = getenv("TMPDIR");
    snprintf(path, sizeof path, "%.500s/plan-%ld.json", dir != NULL ? dir : "/tmp", (long)getpid());
    cr_assert_eq(ap_plan_write(p, path, &err), AP_OK, "%s", err.text);
    cr_expect_eq(ap_plan_read(path, &again, &err), AP_OK, "%s", err.text);
    cr_expect_eq(memcmp(again->place, p->place, 8 * sizeof *p->place), 0);
    unlink(path);
    free(text);
    ap_plan_destroy(p);
    ap_plan_destroy(again);
    ap_layout_plan_clear(&found);
    ap_layout_model_destroy(m);
    ap_topology_destroy(t);
    ap_job_destroy(job);
}
