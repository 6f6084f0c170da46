/* SPDX-License-Identifier: Apache-2.0
 * The job: resolution of what a file leaves out, paths, the round trip through job.yaml, and what cannot be. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>

#include "base/dtype.h"
#include "base/io.h"
#include "plan/job.h"
#include "support/leaks.h"

#define HEAD "model: {preset: tiny-v3}\ndata: {train: corpus/train, seq_len: 64}\n"

static void quiet_environment(void)
{
    unsetenv("SLURM_SUBMIT_DIR");
    unsetenv("PBS_O_WORKDIR");
}

TestSuite(job, .init = quiet_environment);

static ap_status load(const char *text, struct ap_job **job_p, struct ap_error *err)
{
    return ap_job_load_text("dir/my.job.yaml", text, strlen(text), NULL, 0, job_p, err);
}

static struct ap_job *good(const char *text)
{
    struct ap_job *job = NULL;
    struct ap_error err = {0};
    cr_assert_eq(load(text, &job, &err), AP_OK, "%s\n%s (%s)", text, err.text, err.hint);
    return job;
}

static void bad(const char *text, long line, const char *words, const char *hint)
{
    struct ap_job *job = NULL;
    struct ap_error err = {0};
    ap_status status = load(text, &job, &err);
    cr_expect(status == AP_ERR_INPUT || status == AP_ERR_NOTFOUND, "%s", text);
    cr_expect_null(job);
    cr_expect_eq(ap_status_exit_code(status), AP_EXIT_INPUT);
    cr_expect_eq(err.line, line, "%s: line %ld", text, err.line);
    cr_expect_str_eq(err.file, "dir/my.job.yaml");
    cr_expect_not_null(strstr(err.text, words), "'%s' is not in '%s'", words, err.text);
    cr_expect_not_null(strstr(err.hint, hint), "'%s' is not in '%s'", hint, err.hint);
}

AP_TEST(job, defaults)
{
    char cwd[3000], expected[4000];
    struct ap_job *job = good(HEAD);
    cr_assert_not_null(getcwd(cwd, sizeof cwd));
    cr_expect_str_eq(job->name, "my.job");
    snprintf(expected, sizeof expected, "%s/runs/my.job", cwd);
    cr_expect_str_eq(job->run_dir, expected);
    cr_expect_null(job->checkpoint.dir);
    snprintf(expected, sizeof expected, "%s/corpus/train", cwd);
    cr_expect_str_eq(job->data.train[0].path, expected);
    cr_expect_eq(job->data.train_count, 1);
    cr_expect_eq(job->data.valid_count, 0);
    cr_expect_str_eq(job->data.tokenizer, "bytes");
    cr_expect_eq(job->data.mask_documents, 1);
    cr_expect_eq(job->batch.global_sequences, 32);
    cr_expect_eq(job->batch.global_tokens, 32 * 64);
    cr_expect_eq(job->train_steps, 1000);
    cr_expect_eq(job->train_tokens, 1000 * 32 * 64);
    cr_expect_eq(job->optim.warmup_steps, 50);
    cr_expect_eq(job->optim.decay_steps, 200);
    cr_expect_eq(job->optim.milestone_count, 2);
    cr_expect_eq(job->loss.seq_balance, 0.0001, "aux_loss_alpha of the preset");
    cr_expect_eq(job->loss.device_balance, 0);
    cr_expect_eq(job->dtype, AP_F32);
    cr_expect_eq(job->parallel.data, AP_AUTO);
    cr_expect_eq(job->threads, AP_AUTO);
    cr_expect_eq(job->checkpoint.resume, AP_AUTO);
    cr_expect_eq(job->checkpoint.keep, 3);
    cr_expect(isnan(job->expect.valid_loss_max));
    cr_expect_eq(job->model.cfg.hidden_size, 64);
    cr_expect_eq(strlen(job->content_hash), 32);
    ap_job_destroy(job);
    ap_job_destroy(NULL);
}

AP_TEST(job, lengths_and_sizes)
{
    struct ap_job *job = good(HEAD "train_tokens: 1M\nbatch: {global_tokens: 4096, micro_sequences: 4}\n");
    cr_expect_eq(job->batch.global_sequences, 64);
    cr_expect_eq(job->train_steps, 245, "rounded up");
    cr_expect_eq(job->train_tokens, 245 * 4096);
    ap_job_destroy(job);
    job = good("model: {preset: deepseek-v2}\ndata: {train: x}\ntrain_steps: 100000\n");
    cr_expect_eq(job->optim.warmup_steps, 2000);
    cr_expect_eq(job->loss.seq_balance, 0.001);
    cr_expect_eq(job->loss.device_balance, 0.05, "V2 with device groups");
    cr_expect_eq(job->loss.comm_balance, 0.02);
    ap_job_destroy(job);
}

AP_TEST(job, submission_directory_is_the_base)
{
    setenv("SLURM_SUBMIT_DIR", "/somewhere", 1);
    struct ap_job *job = good(HEAD "run_dir: out\n");
    cr_expect_str_eq(job->data.train[0].path, "/somewhere/corpus/train");
    cr_expect_str_eq(job->run_dir, "/somewhere/out");
    ap_job_destroy(job);
    unsetenv("SLURM_SUBMIT_DIR");
    setenv("PBS_O_WORKDIR", "/elsewhere", 1);
    job = good("model: {preset: tiny-v3}\ndata: {train: /abs/t.bin, valid: ./v.idx}\n");
    cr_expect_str_eq(job->data.train[0].path, "/abs/t", "an ending is taken off");
    cr_expect_str_eq(job->data.valid[0].path, "/elsewhere/v");
    ap_job_destroy(job);
}

/* Files beside the job are found from any directory; outputs still go to the current one. */
AP_TEST(job, inputs_beside_the_job_are_found)
{
    char dir[256], path[300];
    struct ap_error err = {0};
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/ap-job-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/t.idx", dir);
    cr_assert_eq(ap_io_write_durable(path, "x", 1, &err), AP_OK);
    snprintf(path, sizeof path, "%s/j.yaml", dir);
    const char *text = "model: {preset: tiny-v3}\ndata: {train: t}\n";
    cr_assert_eq(ap_io_write_durable(path, text, strlen(text), &err), AP_OK);
    struct ap_job *job = NULL;
    cr_assert_eq(ap_job_load(path, NULL, 0, &job, &err), AP_OK, "%s", err.text);
    snprintf(path, sizeof path, "%s/t", dir);
    cr_expect_str_eq(job->data.train[0].path, path);
    /* .bin is missing: told with the place of data.train */
    cr_expect_eq(ap_job_check_files(job, &err), AP_ERR_INPUT);
    cr_expect_eq(err.line, 2);
    cr_expect_not_null(strstr(err.text, "/t.bin: No such file"));
    snprintf(path, sizeof path, "%s/t.bin", dir);
    cr_assert_eq(ap_io_write_durable(path, "x", 1, &err), AP_OK);
    cr_expect_eq(ap_job_check_files(job, &err), AP_OK);
    ap_job_destroy(job);
    ap_io_remove_tree(dir, &err);
}

AP_TEST(job, written_job_is_read_back_the_same)
{
    struct ap_job *a = good(HEAD "name: x\ntrain_tokens: 100k\nseed: 9\noptim: {schedule: wsd, milestones: [0.5]}\n"
                                 "parallel: {data: 2}\nexpect: {weights_hash: 99aa06d3014798d86001c324468d497f}\n");
    char *first = ap_job_yaml(a);
    struct ap_job *b = good(first);
    char *second = ap_job_yaml(b);
    cr_expect_str_eq(first, second);
    cr_expect_eq(b->train_steps, a->train_steps);
    cr_expect_eq(b->optim.warmup_steps, a->optim.warmup_steps);
    cr_expect_str_eq(b->run_dir, a->run_dir);
    free(first);
    free(second);
    ap_job_destroy(a);
    ap_job_destroy(b);
}

AP_TEST(job, impossible_jobs)
{
    bad("data: {train: x}\n", 0, "model.preset or model.config is missing", "model: {preset: quickstart}");
    bad("model: {preset: tiny-v3}\n", 0, "data.train is missing", "give a path");
    bad("model: {preset: tiny-v3, config: x}\ndata: {train: x}\n", 1, "are both given", "keep one");
    bad("model: {preset: tiny-v4}\ndata: {train: x}\n", 1, "no model preset 'tiny-v4'", "did you mean 'tiny-v");
    bad("model: {config: /nonexistent.json}\ndata: {train: x}\n", 1, "there is no file /nonexistent.json", "");
    bad(HEAD "name: a/b\n", 3, "not fit for a directory", "");
    bad(HEAD "name: .hidden\n", 3, "not fit for a directory", "");
    bad(HEAD "batch: {global_tokens: 1000}\n", 3, "which data.seq_len 64 does not divide", "960 fits");
    bad(HEAD "batch: {global_tokens: 10}\n", 3, "does not divide", "64 fits");
    bad(HEAD "batch:\n  global_sequences: 10\n  micro_sequences: 4\n", 5, "does not divide batch.global_sequences 10",
        "2 fits");
    bad(HEAD "batch: {micro_sequences: 64}\n", 3, "batch.micro_sequences is 64", "32 fits");
    bad(HEAD "batch: {global_sequences: 4, micro_sequences: 2}\nparallel: {data: 4}\n", 4,
        "a step has only 2 micro-batches", "raise batch.global_sequences");
    bad("model: {preset: tiny-v3}\ndata:\n  train: x\n  seq_len: 8192\n", 4,
        "data.seq_len is 8192, but max_position_embeddings of the model is 4096", "");
    bad(HEAD "parallel: {tensor: 3}\n", 3, "does not divide num_attention_heads", "");
    bad(HEAD "parallel: {expert: 5}\n", 3, "does not divide n_routed_experts", "");
    bad(HEAD "parallel: {pipeline: 9}\n", 3, "the model has only 3 layers", "");
    bad(HEAD "train_steps: 10\noptim: {warmup_steps: 11}\n", 4, "more than train_steps 10", "");
    bad(HEAD "train_steps: 10\noptim: {schedule: wsd, warmup_steps: 5, decay_steps: 6}\n", 4, "together exceed", "");
    bad(HEAD "optim: {milestones: [0.9, 0.6]}\n", 3, "must ascend", "");
    bad(HEAD "train_steps: 1000000000000\nbatch: {global_sequences: 16777216}\ndtype: fp64\n", 3, "beyond what can be",
        "");
    bad(HEAD "expect: {below_bigram: true}\n", 3, "expect.below_bigram needs data.valid", "");
    bad(HEAD "expect: {valid_loss_max: 3}\n", 3, "expect.valid_loss_max needs data.valid", "");
    bad("model: {preset: tiny-v3}\ndata: {train: x, valid: y}\nexpect: {valid_loss_min: 4, valid_loss_max: 3}\n", 3,
        "is above expect.valid_loss_max", "");
    bad(HEAD "expect: {weights_hash: xyz}\n", 3, "must be 32 hex digits", "");
    bad(HEAD "dtype: fp16\n", 3, "dtype must be one of fp32, fp64, bf16", "");
    bad("---\n" HEAD, 1, "a leading --- keeps batch systems", "remove the line");
    bad("model: {preset: tiny-v3}\r\ndata: {train: x}\r\n", 1, "carriage returns", "sed -i");
    bad(HEAD "name: \"a\rb\"\n", 3, "carriage returns", "");
}

AP_TEST(job, vocabulary_must_hold_the_tokens)
{
    char dir[256], path[300], text[600];
    struct ap_error err = {0};
    struct ap_job *job = NULL;
    struct ap_model_config cfg;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/ap-voc-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    cr_assert_eq(ap_model_config_preset("tiny-v3", &cfg, &err), AP_OK);
    cfg.vocab_size = 256;
    char *json = ap_model_config_json(&cfg);
    snprintf(path, sizeof path, "%s/config.json", dir);
    cr_assert_eq(ap_io_write_durable(path, json, strlen(json), &err), AP_OK);
    snprintf(text, sizeof text, "model: {config: %s}\ndata: {train: x}\n", path);
    cr_expect_eq(load(text, &job, &err), AP_ERR_INPUT);
    cr_expect_str_eq(err.text, "the tokenizer 'bytes' has 257 ids, but vocab_size of the model is 256");
    cr_expect_eq(err.line, 1);
    free(json);
    ap_io_remove_tree(dir, &err);
}

/* The schema is JSON, closed, and knows every option. */
AP_TEST(job, schema_covers_the_table)
{
    const struct ap_option_table *t = ap_job_options();
    char *text = ap_job_schema();
    yyjson_doc *doc = yyjson_read(text, strlen(text), 0);
    cr_assert_not_null(doc);
    yyjson_val *root = yyjson_doc_get_root(doc), *top = yyjson_obj_get(root, "properties");
    cr_expect(yyjson_is_false(yyjson_obj_get(root, "additionalProperties")));
    for (size_t i = 0; i < t->count; i++) {
        char key[100];
        snprintf(key, sizeof key, "%s", t->list[i].key);
        char *dot = strchr(key, '.');
        yyjson_val *level = top;
        if (dot != NULL) {
            *dot = '\0';
            level = yyjson_obj_get(yyjson_obj_get(top, key), "properties");
        }
        yyjson_val *option = yyjson_obj_get(level, dot != NULL ? dot + 1 : key);
        cr_expect(yyjson_is_arr(yyjson_obj_get(option, "anyOf")), "%s", t->list[i].key);
        cr_expect_gt(yyjson_get_len(yyjson_obj_get(option, "description")), 10);
    }
    yyjson_doc_free(doc);
    free(text);
}

/* Keys in order of sections, no two the same, a full stop after each explanation. */
AP_TEST(job, table_is_well_formed)
{
    const struct ap_option_table *t = ap_job_options();
    for (size_t i = 0; i < t->count; i++) {
        const struct ap_option *o = &t->list[i];
        cr_expect_eq(ap_options_find(t, o->key), (int)i, "%s is there twice", o->key);
        cr_expect_eq(o->doc[strlen(o->doc) - 1], '.', "%s", o->key);
        if (o->excludes != NULL)
            cr_expect_geq(ap_options_find(t, o->excludes), 0, "%s", o->excludes);
        const char *dot = strchr(o->key, '.');
        int known = dot == NULL;
        for (size_t s = 0; dot != NULL && s < t->section_count; s++)
            known |= strlen(t->sections[s].name) == (size_t)(dot - o->key) &&
                     strncmp(t->sections[s].name, o->key, (size_t)(dot - o->key)) == 0;
        cr_expect(known, "%s is in no section", o->key);
    }
}
