/* SPDX-License-Identifier: Apache-2.0
 * antipode eval JOB: validation loss of a saved state. Every rank loads all weights and takes its share of the
 * validation windows; the sums are those that training would compute. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "ckpt/store.h"
#include "cli/verbs.h"
#include "parallel/world.h"
#include "train/environment.h"
#include "train/evaluate.h"
#include "train/router_bias.h"

struct eval {
    const struct ap_job *job;
    struct ap_world world;
    struct ap_mesh *mesh;
    struct ap_pool *pool;
    struct ap_backend *be;
    struct ap_model *model;
    struct ap_router_bias *bias;
    struct ap_data *data;
    void *host, *weights; /* [flat]: loaded, and in backend memory */
    int64_t step;         /* asked for, then found */
    char dir[4096];
};

static ap_status parse_step(const char *text, int64_t *step_p, struct ap_error *err)
{
    char *end = NULL;
    if (!text || strcmp(text, "newest") == 0) {
        *step_p = AP_CKPT_LATEST;
        return AP_OK;
    }
    if (strcmp(text, "best") == 0) {
        *step_p = AP_CKPT_BEST;
        return AP_OK;
    }
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end || n < 0)
        return ap_error_set(err, AP_ERR_USAGE, "--step %.80s: must be newest, best or a step number", text);
    *step_p = n;
    return AP_OK;
}

/* The local part of a rank. */
static ap_status open_rank(struct eval *e, struct ap_error *err)
{
    const struct ap_job *job = e->job;
    struct ap_data_options dopt = {.seq_len = job->data.seq_len,
                                   .vocab_size = job->model.cfg.vocab_size,
                                   .seed = job->seed,
                                   .mask_documents = job->data.mask_documents};
    struct ap_model_options mopt = {.micro_sequences = job->batch.micro_sequences,
                                    .seq_len = job->data.seq_len,
                                    .dtype = (ap_dtype)job->dtype,
                                    .forward_only = 1};
    int threads = job->threads == AP_AUTO ? ap_environment_threads(e->world.node_ranks) : (int)job->threads;
    AP_TRY(ap_data_open(job->data.valid, job->data.valid_count, &dopt, &e->data, err));
    AP_TRY(ap_pool_create(threads, &e->pool, err));
    AP_TRY(ap_backend_open(job->backend, 0, e->pool, &e->be, err));
    AP_TRY(ap_model_create(e->be, &job->model.cfg, &mopt, &e->model, err));
    const struct ap_params *p = ap_model_params(e->model);
    AP_TRY(ap_router_bias_create(e->be, &job->model.cfg, p->moe_layers, ap_dtype_full(mopt.dtype), &e->bias, err));
    size_t bytes = (size_t)p->flat * ap_dtype_size(mopt.dtype);
    e->host = calloc((size_t)p->flat, ap_dtype_size(ap_dtype_full(mopt.dtype)));
    if (!e->host || e->be->vt->alloc(e->be, bytes, &e->weights) != AP_OK)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for the weights");
    return AP_OK;
}

static ap_status load(struct eval *e, struct ap_error *err)
{
    const struct ap_params *p = ap_model_params(e->model);
    ap_dtype dtype = (ap_dtype)e->job->dtype;
    struct ap_ckpt_options opt = {.dir = e->dir, .keep = 1, .read_only = 1, .pool = e->pool};
    struct ap_ckpt_store *store = NULL;
    struct ap_named_set set = {0};
    char *meta = NULL;
    AP_TRY(ap_ckpt_store_open(&opt, e->world.comm, &store, err));
    ap_status st = ap_params_named(p, "param", ap_dtype_full(dtype), e->host, 0, p->flat, &set, err);
    if (st == AP_OK)
        st = ap_router_bias_named(e->bias, 1, &set, err);
    st = ap_comm_agree(e->world.comm, st, NULL, err);
    if (st == AP_OK)
        st = ap_ckpt_load(store, e->step, &set, &meta, &e->step, err);
    if (st == AP_OK) {
        st = ap_model_load_weights(e->be, e->host, ap_tensor_1d(e->weights, dtype, p->flat));
        if (st == AP_OK)
            st = ap_router_bias_loaded(e->bias);
        st = ap_comm_agree(e->world.comm, st, NULL, err);
    }
    free(meta);
    ap_named_set_clear(&set);
    ap_ckpt_store_close(store);
    return st;
}

static ap_status print(const struct eval *e, const struct ap_evaluate_result *r, double bigram, int json,
                       struct ap_error *err)
{
    if (!json) {
        ap_out("state              step %lld of %s\n", (long long)e->step, e->dir);
        ap_out("validation loss    %.6f nat over %lld tokens in %lld sequences\n", r->loss, (long long)r->tokens,
               (long long)r->sequences);
        ap_out("perplexity         %.4f\n", exp(r->loss));
        ap_out("bigram entropy     %.6f nat: the loss is %s it\n", bigram, r->loss < bigram ? "below" : "not below");
        return AP_OK;
    }
    struct ap_json j = {.indent = 2};
    ap_json_begin_object(&j, NULL);
    ap_json_int(&j, "step", e->step);
    ap_json_str(&j, "dir", e->dir);
    ap_json_real(&j, "loss", r->loss);
    ap_json_real(&j, "perplexity", exp(r->loss));
    ap_json_int(&j, "tokens", r->tokens);
    ap_json_int(&j, "sequences", r->sequences);
    ap_json_real(&j, "bigram_entropy", bigram);
    ap_json_bool(&j, "below_bigram", r->loss < bigram);
    ap_json_end_object(&j);
    char *text = ap_strbuf_take(&j.text);
    if (!text)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for the report");
    ap_out("%s\n", text);
    free(text);
    return AP_OK;
}

static ap_status loss_of(void *ctx, const struct ap_batch *batch, struct ap_leaf_result *result)
{
    struct eval *e = ctx;
    struct ap_loss_weights none = {0};
    struct ap_model_result r = {0};
    ap_tensor weights = ap_tensor_1d(e->weights, (ap_dtype)e->job->dtype, ap_model_params(e->model)->flat);
    AP_TRY(ap_model_step(e->model, weights, (ap_tensor){0}, ap_router_bias_tensor(e->bias), batch, &none, &r, NULL));
    *result = (struct ap_leaf_result){.ce = r.ce_sum, .ce_tokens = r.ce_tokens};
    return AP_OK;
}

static ap_status evaluate(struct eval *e, int json, struct ap_error *err)
{
    const struct ap_job *job = e->job;
    struct ap_evaluate_result r;
    double bigram = NAN;
    AP_TRY(ap_comm_agree(e->world.comm, open_rank(e, err), NULL, err));
    AP_TRY(load(e, err));
    struct ap_mesh_shape shape = {{1, 1, 1, 1}};
    shape.size[AP_AXIS_DATA] = e->world.comm->size;
    AP_TRY(ap_mesh_create(e->world.comm, &shape, NULL, &e->mesh, err));
    struct ap_evaluate_args a = {
        .loss = loss_of,
        .ctx = e,
        .mesh = e->mesh,
        .data = e->data,
        .micro_sequences = job->batch.micro_sequences,
        .seq_len = job->data.seq_len,
        .sequences = job->eval.sequences,
    };
    AP_TRY(ap_evaluate(&a, &r, err));
    ap_status st = AP_OK;
    if (e->world.comm->rank == 0) {
        st = ap_data_bigram_entropy(e->data, &bigram, err);
        if (st == AP_OK)
            st = print(e, &r, bigram, json, err);
    }
    return ap_comm_agree(e->world.comm, st, NULL, err);
}

static void close_rank(struct eval *e)
{
    if (e->be) {
        ap_router_bias_destroy(e->bias);
        ap_model_destroy(e->model);
        if (e->weights)
            e->be->vt->release(e->be, e->weights);
        ap_backend_close(e->be);
    }
    ap_mesh_destroy(e->mesh);
    ap_pool_destroy(e->pool);
    ap_data_close(e->data);
    free(e->host);
}

static ap_status run(const struct ap_cli_args *args, const struct ap_eval_flags *flags, struct ap_error *err)
{
    struct ap_job *job = NULL;
    struct eval e = {0};
    AP_TRY(parse_step(flags->step, &e.step, err));
    AP_TRY(ap_job_load(args->operands[0], args->sets, args->set_count, &job, err));
    ap_status st = ap_job_check_files(job, err);
    if (st == AP_OK && job->data.valid_count == 0) {
        st = ap_error_set(err, AP_ERR_INPUT, "the job has no validation data");
        ap_error_at(err, args->operands[0], 0, 0);
        ap_error_hint(err, "add data.valid");
    }
    const char *dir = flags->dir ? flags->dir : job->checkpoint.dir;
    int n = dir ? snprintf(e.dir, sizeof(e.dir), "%s", dir) : snprintf(e.dir, sizeof(e.dir), "%s/ckpt", job->run_dir);
    if (st == AP_OK && n >= (int)sizeof(e.dir))
        st = ap_error_set(err, AP_ERR_INPUT, "the path of the checkpoint directory is too long");
    e.job = job;
    if (st == AP_OK)
        st = ap_world_init(&e.world, err);
    if (st == AP_OK) {
        st = evaluate(&e, args->json, err);
        close_rank(&e);
        ap_world_end(&e.world, st != AP_ERR_COMM);
    }
    ap_job_destroy(job);
    return st;
}

int ap_tverb_eval(int argc, char **argv)
{
    struct ap_cli_args args;
    struct ap_eval_flags flags = {0};
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_eval, argc, argv, &args, &flags);
    if (code >= 0)
        return code;
    ap_status st = run(&args, &flags, &err);
    ap_cli_clear(&ap_verb_desc_eval, &args, &flags);
    return ap_cli_end(st, &err);
}
