/* SPDX-License-Identifier: Apache-2.0
 * From the values of the table to a job that can run: paths, model, batch, schedule, criteria. */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"
#include "plan/axes.h"
#include "plan/job_internal.h"
#include "text/tokenizer.h"

#define NAME_MAX_BYTES 64

/* The error in err belongs to option key. */
static ap_status blame(const struct ap_options *o, const char *key, struct ap_error *err)
{
    ap_options_place(o, key, err);
    return err != NULL ? err->status : AP_ERR_INPUT;
}

/* ---- paths ---- */

/* Absolute folder that relative paths start from. */
static ap_status base_dir(char *buf, size_t size, struct ap_error *err)
{
    static const char *const names[] = {"SLURM_SUBMIT_DIR", "PBS_O_WORKDIR"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *dir = getenv(names[i]);
        if (dir != NULL && dir[0] == '/' && snprintf(buf, size, "%s", dir) < (int)size)
            return AP_OK;
    }
    if (getcwd(buf, size) == NULL)
        return ap_error_set(err, AP_ERR_ENV, "cannot tell the current directory: %s", strerror(errno));
    return AP_OK;
}

static ap_status join(const char *dir, const char *path, char **out_p, struct ap_error *err)
{
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    if (strlen(dir) + strlen(path) + 2 > PATH_MAX)
        return ap_error_set(err, AP_ERR_INPUT, "the path %.100s is too long", path);
    char *text = NULL;
    if (asprintf(&text, "%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", path) < 0)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a path");
    *out_p = text;
    return AP_OK;
}

static int exists_with(const char *path, const char *suffix)
{
    char full[PATH_MAX];
    return snprintf(full, sizeof full, "%s%s", path, suffix) < (int)sizeof full && ap_io_exists(full);
}

/* Make *path absolute. suffix NULL: something to be written; else what to look for when it is to be read. */
static ap_status absolute(const struct ap_job *job, char **path, const char *suffix, struct ap_error *err)
{
    char base[PATH_MAX], folder[PATH_MAX];
    char *first, *second = NULL;
    if (*path == NULL || (*path)[0] == '/')
        return AP_OK;
    AP_TRY(base_dir(base, sizeof base, err));
    AP_TRY(join(base, *path, &first, err));
    if (suffix != NULL && !exists_with(first, suffix) && realpath(job->file, folder) != NULL) {
        char *slash = strrchr(folder, '/');
        slash[slash == folder] = '\0';
        ap_status status = join(folder, *path, &second, err);
        if (status != AP_OK) {
            free(first);
            return status;
        }
        if (exists_with(second, suffix)) {
            free(first);
            first = second;
        } else {
            free(second);
        }
    }
    free(*path);
    *path = first;
    return AP_OK;
}

/* data/x.bin and data/x.idx are meant as data/x. */
static void strip_ending(char *path)
{
    size_t n = strlen(path);
    if (n > 4 && (strcmp(path + n - 4, ".bin") == 0 || strcmp(path + n - 4, ".idx") == 0))
        path[n - 4] = '\0';
}

static ap_status resolve_sources(const struct ap_job *job, struct ap_data_source_spec *list, int count,
                                 struct ap_error *err)
{
    for (int i = 0; i < count; i++) {
        strip_ending(list[i].path);
        AP_TRY(absolute(job, &list[i].path, ".idx", err));
    }
    return AP_OK;
}

static ap_status remember_place(const struct ap_options *o, const char *key, char **file, long *line, long *column,
                                struct ap_error *err)
{
    struct ap_error place = {0};
    ap_options_place(o, key, &place);
    *file = strdup(place.file);
    *line = place.line;
    *column = place.column;
    return *file != NULL ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "no memory for a job");
}

static ap_status resolve_paths(struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    AP_TRY(resolve_sources(job, job->data.train, job->data.train_count, err));
    AP_TRY(resolve_sources(job, job->data.valid, job->data.valid_count, err));
    AP_TRY(absolute(job, &job->model.config, "", err));
    AP_TRY(absolute(job, &job->run_dir, NULL, err));
    AP_TRY(absolute(job, &job->checkpoint.dir, NULL, err));
    AP_TRY(
        remember_place(o, "data.train", &job->train_place.file, &job->train_place.line, &job->train_place.column, err));
    return remember_place(o, "data.valid", &job->valid_place.file, &job->valid_place.line, &job->valid_place.column,
                          err);
}

/* ---- name ---- */

static int name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
}

static ap_status resolve_name(struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    if (job->name == NULL) {
        const char *slash = strrchr(job->file, '/');
        const char *stem = slash != NULL ? slash + 1 : job->file;
        const char *dot = strrchr(stem, '.');
        job->name = strndup(stem, dot != NULL && dot > stem ? (size_t)(dot - stem) : strlen(stem));
        if (job->name == NULL)
            return ap_error_set(err, AP_ERR_NOMEM, "no memory for a job");
    }
    size_t n = 0;
    while (name_char(job->name[n]))
        n++;
    if (job->name[n] != '\0' || n > NAME_MAX_BYTES || job->name[0] == '.' || job->name[0] == '-') {
        ap_error_set(err, AP_ERR_INPUT,
                     "the name '%.100s' is not fit for a directory: at most %d letters, digits, '_', '-', '.', "
                     "beginning with neither '.' nor '-'",
                     job->name, NAME_MAX_BYTES);
        return blame(o, "name", err);
    }
    if (job->run_dir != NULL)
        return AP_OK;
    char relative[NAME_MAX_BYTES + 8];
    snprintf(relative, sizeof relative, "runs/%s", job->name);
    job->run_dir = strdup(relative);
    return job->run_dir != NULL ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "no memory for a job");
}

/* ---- model ---- */

/* A limit of the layout must divide a size of the model. */
static ap_status check_split(const struct ap_options *o, const char *key, int64_t ways, const char *what, int64_t size,
                             struct ap_error *err)
{
    if (ways <= 1 || (size > 0 && size % ways == 0))
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "%s is %lld, which does not divide %s of the model, %lld", key, (long long)ways,
                 what, (long long)size);
    return blame(o, key, err);
}

static ap_status check_layout(const struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    const struct ap_model_config *c = &job->model.cfg;
    AP_TRY(check_split(o, "parallel.tensor", job->parallel.tensor, "num_attention_heads", c->heads, err));
    AP_TRY(check_split(o, "parallel.expert", job->parallel.expert, "n_routed_experts", c->routed_experts, err));
    if (job->parallel.pipeline > c->layers) {
        ap_error_set(err, AP_ERR_INPUT, "parallel.pipeline is %lld, but the model has only %lld layers",
                     (long long)job->parallel.pipeline, (long long)c->layers);
        return blame(o, "parallel.pipeline", err);
    }
    int64_t stages = job->parallel.pipeline == AP_AUTO ? 2 : job->parallel.pipeline; /* the planner may choose */
    if (job->parallel.schedule == AP_PIPELINE_ZERO_BUBBLE &&
        ap_axes_check_zero_bubble(stages, job->recompute, err) != AP_OK)
        return blame(o, "parallel.schedule", err);
    return AP_OK;
}

static ap_status check_vocabulary(const struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    struct ap_tokenizer *t;
    AP_TRY(ap_tokenizer_open(job->data.tokenizer, &t, err));
    int64_t needed = ap_tokenizer_vocab_size(t);
    ap_tokenizer_close(t);
    if (needed <= job->model.cfg.vocab_size)
        return AP_OK;
    ap_error_set(err, AP_ERR_INPUT, "the tokenizer '%s' has %lld ids, but vocab_size of the model is %lld",
                 job->data.tokenizer, (long long)needed, (long long)job->model.cfg.vocab_size);
    ap_error_hint(err, "take a model with a vocabulary of at least %lld", (long long)needed);
    return blame(o, job->model.preset != NULL ? "model.preset" : "model.config", err);
}

static ap_status resolve_model(struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    ap_status status;
    if (job->model.preset != NULL) {
        status = ap_model_config_preset(job->model.preset, &job->model.cfg, err);
        if (status == AP_ERR_NOTFOUND)
            blame(o, "model.preset", err);
    } else if (job->model.config != NULL) {
        status = ap_model_config_load(job->model.config, &job->model.cfg, err);
        if (status == AP_ERR_NOTFOUND) {
            ap_error_set(err, AP_ERR_NOTFOUND, "there is no file %.400s", job->model.config);
            blame(o, "model.config", err);
        }
    } else {
        status = ap_error_set(err, AP_ERR_INPUT, "model.preset or model.config is missing");
        ap_error_at(err, o->file, 0, 0);
        ap_error_hint(err, "for example model: {preset: quickstart}");
    }
    AP_TRY(status);
    if (job->data.seq_len > job->model.cfg.max_position) {
        ap_error_set(err, AP_ERR_INPUT, "data.seq_len is %lld, but max_position_embeddings of the model is %lld",
                     (long long)job->data.seq_len, (long long)job->model.cfg.max_position);
        return blame(o, "data.seq_len", err);
    }
    AP_TRY(check_vocabulary(job, o, err));
    return check_layout(job, o, err);
}

/* ---- batch and length ---- */

static ap_status resolve_batch(struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    int64_t seq = job->data.seq_len;
    if (ap_options_source(o, "batch.global_tokens") != AP_OPT_FROM_DEFAULT) {
        if (job->batch.global_tokens % seq != 0) {
            int64_t down = job->batch.global_tokens / seq * seq;
            ap_error_set(err, AP_ERR_INPUT, "batch.global_tokens is %lld, which data.seq_len %lld does not divide",
                         (long long)job->batch.global_tokens, (long long)seq);
            ap_error_hint(err, "%lld fits", (long long)(down > 0 ? down : seq));
            return blame(o, "batch.global_tokens", err);
        }
        job->batch.global_sequences = job->batch.global_tokens / seq;
    }
    job->batch.global_tokens = job->batch.global_sequences * seq;
    int64_t global = job->batch.global_sequences, micro = job->batch.micro_sequences;
    if (micro > global || global % micro != 0) {
        int64_t fit = micro < global ? micro : global;
        while (global % fit != 0)
            fit--;
        ap_error_set(err, AP_ERR_INPUT,
                     "batch.micro_sequences is %lld, which does not divide batch.global_sequences %lld",
                     (long long)micro, (long long)global);
        ap_error_hint(err, "%lld fits", (long long)fit);
        return blame(o,
                     ap_options_source(o, "batch.micro_sequences") != AP_OPT_FROM_DEFAULT ? "batch.micro_sequences"
                                                                                          : "batch.global_sequences",
                     err);
    }
    if (job->parallel.data > global / micro) {
        ap_error_set(err, AP_ERR_INPUT, "parallel.data is %lld, but a step has only %lld micro-batches",
                     (long long)job->parallel.data, (long long)(global / micro));
        ap_error_hint(err, "raise batch.global_sequences or lower batch.micro_sequences");
        return blame(o, "parallel.data", err);
    }
    return AP_OK;
}

static ap_status resolve_length(struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    int64_t per_step = job->batch.global_tokens;
    int by_tokens = ap_options_source(o, "train_tokens") != AP_OPT_FROM_DEFAULT;
    if (by_tokens)
        job->train_steps = job->train_tokens / per_step + (job->train_tokens % per_step != 0);
    if (job->train_steps > INT64_MAX / 4 / per_step) {
        ap_error_set(err, AP_ERR_INPUT, "train_steps times the tokens of a step is beyond what can be counted");
        return blame(o, by_tokens ? "train_tokens" : "train_steps", err);
    }
    job->train_tokens = job->train_steps * per_step;
    return AP_OK;
}

static ap_status resolve_schedule(struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    int64_t steps = job->train_steps;
    if (job->optim.warmup_steps == AP_AUTO)
        job->optim.warmup_steps = steps / 20 < 2000 ? steps / 20 : 2000;
    if (job->optim.decay_steps == AP_AUTO)
        job->optim.decay_steps = steps / 5 > 0 ? steps / 5 : 1;
    if (job->optim.warmup_steps > steps) {
        ap_error_set(err, AP_ERR_INPUT, "optim.warmup_steps is %lld, more than train_steps %lld",
                     (long long)job->optim.warmup_steps, (long long)steps);
        return blame(o, "optim.warmup_steps", err);
    }
    if (job->optim.schedule == AP_SCHED_WSD && job->optim.warmup_steps + job->optim.decay_steps > steps) {
        ap_error_set(err, AP_ERR_INPUT,
                     "optim.warmup_steps %lld and optim.decay_steps %lld together exceed train_steps %lld",
                     (long long)job->optim.warmup_steps, (long long)job->optim.decay_steps, (long long)steps);
        return blame(o, "optim.decay_steps", err);
    }
    for (int i = 1; i < job->optim.milestone_count; i++)
        if (job->optim.milestones[i] <= job->optim.milestones[i - 1]) {
            ap_error_set(err, AP_ERR_INPUT, "optim.milestones must ascend");
            return blame(o, "optim.milestones", err);
        }
    return AP_OK;
}

static void resolve_loss(struct ap_job *job)
{
    int devices = job->model.cfg.device_groups > 0;
    if (isnan(job->loss.seq_balance))
        job->loss.seq_balance = job->model.cfg.aux_loss_alpha;
    if (isnan(job->loss.device_balance))
        job->loss.device_balance = devices ? 0.05 : 0;
    if (isnan(job->loss.comm_balance))
        job->loss.comm_balance = devices ? 0.02 : 0;
}

/* ---- criteria ---- */

static ap_status check_expect(const struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    static const char *const needs_valid[] = {"expect.valid_loss_max", "expect.valid_loss_min", "expect.below_bigram"};
    int stated[] = {!isnan(job->expect.valid_loss_max), !isnan(job->expect.valid_loss_min), job->expect.below_bigram};
    for (size_t i = 0; i < sizeof stated / sizeof stated[0]; i++)
        if (stated[i] && job->data.valid_count == 0) {
            ap_error_set(err, AP_ERR_INPUT, "%s needs data.valid", needs_valid[i]);
            return blame(o, needs_valid[i], err);
        }
    if (job->expect.valid_loss_min > job->expect.valid_loss_max) {
        ap_error_set(err, AP_ERR_INPUT, "expect.valid_loss_min %g is above expect.valid_loss_max %g",
                     job->expect.valid_loss_min, job->expect.valid_loss_max);
        return blame(o, "expect.valid_loss_min", err);
    }
    struct ap_hash128 hash;
    if (job->expect.weights_hash != NULL && ap_hash128_parse(job->expect.weights_hash, &hash) != 0) {
        ap_error_set(err, AP_ERR_INPUT, "expect.weights_hash must be 32 hex digits");
        return blame(o, "expect.weights_hash", err);
    }
    return AP_OK;
}

ap_status ap_job_resolve(struct ap_job *job, const struct ap_options *o, struct ap_error *err)
{
    AP_TRY(resolve_name(job, o, err));
    AP_TRY(resolve_paths(job, o, err));
    AP_TRY(resolve_model(job, o, err));
    AP_TRY(resolve_batch(job, o, err));
    AP_TRY(resolve_length(job, o, err));
    AP_TRY(resolve_schedule(job, o, err));
    resolve_loss(job);
    return check_expect(job, o, err);
}

/* ---- files ---- */

static ap_status check_pair(const struct ap_data_source_spec *source, const char *key, const char *file, long line,
                            long column, struct ap_error *err)
{
    static const char *const endings[] = {".idx", ".bin"};
    for (size_t i = 0; i < 2; i++) {
        char path[PATH_MAX];
        int n = snprintf(path, sizeof path, "%s%s", source->path, endings[i]);
        if (n < (int)sizeof path && access(path, R_OK) == 0)
            continue;
        int e = n < (int)sizeof path ? errno : ENAMETOOLONG;
        ap_error_set(err, AP_ERR_INPUT, "%s: cannot read %.600s: %s", key, path, strerror(e));
        ap_error_at(err, file, line, column);
        ap_error_hint(err, e == ENOENT ? "make it with 'antipode prep', or mend the path" : "check its permissions");
        return AP_ERR_INPUT;
    }
    return AP_OK;
}

ap_status ap_job_check_files(const struct ap_job *job, struct ap_error *err)
{
    for (int i = 0; i < job->data.train_count; i++)
        AP_TRY(check_pair(&job->data.train[i], "data.train", job->train_place.file, job->train_place.line,
                          job->train_place.column, err));
    for (int i = 0; i < job->data.valid_count; i++)
        AP_TRY(check_pair(&job->data.valid[i], "data.valid", job->valid_place.file, job->valid_place.line,
                          job->valid_place.column, err));
    return AP_OK;
}
