/* SPDX-License-Identifier: Apache-2.0
 * The state in a checkpoint: named tensors (param, adam.m, adam.v, router bias) and the meta JSON. */
#include "config.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "base/clock.h"
#include "base/json.h"
#include "train/trainer_impl.h"

ap_status ap_trainer_ckpt_dir(const struct ap_trainer *t, char *buf, size_t size, struct ap_error *err)
{
    if (!t->job->checkpoint.dir)
        return ap_trainer_path(t, "ckpt", buf, size, err);
    if (snprintf(buf, size, "%s", t->job->checkpoint.dir) >= (int)size)
        return ap_error_set(err, AP_ERR_INPUT, "checkpoint.dir is longer than %zu bytes", size - 1);
    return AP_OK;
}

static void zscore_json(struct ap_json *j, const char *key, const struct ap_zscore *z)
{
    ap_json_begin_array(j, key);
    for (int64_t i = 0; i < z->count; i++)
        ap_json_real(j, NULL, z->values[i]);
    ap_json_end_array(j);
}

/* malloc'ed; decisions is a JSON array. */
static char *meta_json(const struct ap_trainer *t, const char *decisions)
{
    const struct ap_train_state *s = &t->state;
    struct ap_json j = {0};
    char *cfg = ap_model_config_json(&t->job->model.cfg);
    ap_json_begin_object(&j, NULL);
    ap_json_str(&j, "format", "antipode-train-state");
    ap_json_int(&j, "version", AP_TRAIN_STATE_VERSION);
    ap_json_int(&j, "step", s->step);
    ap_json_int(&j, "samples", s->samples);
    ap_json_int(&j, "tokens", s->tokens);
    ap_json_int(&j, "updates", s->updates);
    ap_json_int(&j, "skipped", s->skipped);
    ap_json_int(&j, "skipped_row", s->skipped_row);
    ap_json_uint(&j, "seed", t->job->seed);
    ap_json_str(&j, "job_hash", t->job->content_hash);
    ap_json_int(&j, "seq_len", t->len);
    ap_json_int(&j, "global_sequences", t->leaves * t->seqs);
    ap_json_int(&j, "micro_sequences", t->seqs);
    ap_json_real(&j, "loss", s->loss);
    ap_json_real(&j, "valid_loss", s->valid_loss);
    ap_json_int(&j, "valid_step", s->valid_step);
    ap_json_real(&j, "best_loss", s->best_loss);
    ap_json_int(&j, "best_step", s->best_step);
    ap_json_real(&j, "seconds", s->seconds + ap_clock_monotonic() - t->begun);
    ap_json_int(&j, "resumes", s->resumes);
    zscore_json(&j, "loss_window", &s->loss_z);
    zscore_json(&j, "norm_window", &s->norm_z);
    ap_json_raw(&j, "model", cfg ? cfg : "null");
    ap_json_raw(&j, "decisions", decisions);
    ap_json_end_object(&j);
    free(cfg);
    return ap_strbuf_take(&j.text);
}

/* Rank 0 makes the text, all get it. */
static ap_status shared_meta(struct ap_trainer *t, char **meta_p, struct ap_error *err)
{
    char *meta = NULL;
    int64_t size = 0;
    if (t->comm->rank == 0) {
        char *decisions = ap_journal_json(t->journal);
        meta = decisions ? meta_json(t, decisions) : NULL;
        free(decisions);
        size = meta ? (int64_t)strlen(meta) + 1 : 0;
    }
    AP_TRY(ap_comm_bcast(t->comm, &size, sizeof(size), 0));
    if (size > 0 && t->comm->rank != 0)
        meta = malloc((size_t)size);
    ap_status st = ap_comm_agree(t->comm, size > 0 && meta ? AP_OK : AP_ERR_NOMEM, NULL, err);
    if (st == AP_OK)
        st = ap_comm_bcast(t->comm, meta, size, 0);
    if (st != AP_OK) {
        free(meta);
        return st;
    }
    *meta_p = meta;
    return AP_OK;
}

ap_status ap_trainer_save(struct ap_trainer *t, int best, struct ap_error *err)
{
    double begin = ap_clock_monotonic();
    struct ap_named_set set = {0};
    char *meta = NULL;
    ap_status st = ap_stage_named(t->stage, 0, &set, err);
    if (st == AP_OK)
        st = ap_router_bias_named(t->bias, t->comm->rank == 0, &set, err);
    st = ap_comm_agree(t->comm, st, NULL, err);
    if (st == AP_OK)
        st = shared_meta(t, &meta, err);
    if (st == AP_OK)
        st = ap_ckpt_save(t->store, t->state.step, &set, meta, best, err);
    free(meta);
    ap_named_set_clear(&set);
    if (st != AP_OK)
        return st;
    t->ckpt_s = ap_clock_monotonic() - begin;
    t->ckpt_ms_open += 1e3 * t->ckpt_s;
    t->saved_step = t->state.step;
    const struct ap_ckpt_figures *f = ap_ckpt_store_figures(t->store);
    ap_events_emit(t->events, AP_LOG_INFO, t->state.step, best ? "best" : "checkpoint",
                   "state of step %lld saved%s: %.1f MB from %.1f MB in %.2f s", (long long)t->state.step,
                   best ? " as the best" : "", (double)f->stored_bytes / 1e6, (double)f->raw_bytes / 1e6, t->ckpt_s);
    return AP_OK;
}

static int64_t get_i64(yyjson_val *root, const char *key, int *bad)
{
    yyjson_val *v = yyjson_obj_get(root, key);
    if (!yyjson_is_int(v))
        *bad = 1;
    return yyjson_get_sint(v);
}

/* null is NaN. */
static double get_f64(yyjson_val *root, const char *key, int *bad)
{
    yyjson_val *v = yyjson_obj_get(root, key);
    if (yyjson_is_null(v))
        return NAN;
    if (!yyjson_is_num(v))
        *bad = 1;
    return yyjson_get_num(v);
}

static void get_window(yyjson_val *root, const char *key, struct ap_zscore *z, int *bad)
{
    yyjson_val *arr = yyjson_obj_get(root, key), *v;
    size_t i, n;
    z->count = 0;
    if (!yyjson_is_arr(arr) || yyjson_arr_size(arr) > AP_ZSCORE_WINDOW) {
        *bad = 1;
        return;
    }
    yyjson_arr_foreach(arr, i, n, v)
    {
        z->values[z->count++] = yyjson_get_num(v);
    }
}

/* A job may change between runs (rates, length, cadence); what gives the data cursor its meaning may not
 * change unnoticed. Rank 0 has the events. */
static void note_changes(struct ap_trainer *t, yyjson_val *root)
{
    const char *hash = yyjson_get_str(yyjson_obj_get(root, "job_hash"));
    struct {
        const char *key;
        int64_t now;
    } fixed[] = {
        {"seed", (int64_t)t->job->seed},
        {"seq_len", t->len},
        {"global_sequences", t->leaves * t->seqs},
        {"micro_sequences", t->seqs},
    };
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        int64_t before = (int64_t)yyjson_get_uint(yyjson_obj_get(root, fixed[i].key));
        if (before != fixed[i].now)
            ap_events_emit(
                t->events, AP_LOG_WARN, t->state.step, "changed",
                "%s was %lld when the state was saved and is %lld now: the run goes on, but not as it would have",
                fixed[i].key, (long long)before, (long long)fixed[i].now);
    }
    if (hash && strcmp(hash, t->job->content_hash) != 0)
        ap_events_emit(t->events, AP_LOG_WARN, t->state.step, "changed",
                       "the job file has changed since the state of step %lld was saved", (long long)t->state.step);
}

static ap_status parse_meta(struct ap_trainer *t, const char *meta, struct ap_error *err)
{
    struct ap_train_state *s = &t->state;
    int bad = 0;
    yyjson_doc *doc = yyjson_read(meta, strlen(meta), 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    const char *format = yyjson_get_str(yyjson_obj_get(root, "format"));
    int64_t version = yyjson_get_sint(yyjson_obj_get(root, "version"));
    if (!format || strcmp(format, "antipode-train-state") != 0 || version != AP_TRAIN_STATE_VERSION) {
        yyjson_doc_free(doc);
        return ap_error_set(err, AP_ERR_FORMAT,
                            "the checkpoint holds state version %lld, this program reads version %d",
                            (long long)version, AP_TRAIN_STATE_VERSION);
    }
    s->step = get_i64(root, "step", &bad);
    s->samples = get_i64(root, "samples", &bad);
    s->tokens = get_i64(root, "tokens", &bad);
    s->updates = get_i64(root, "updates", &bad);
    s->skipped = get_i64(root, "skipped", &bad);
    s->skipped_row = get_i64(root, "skipped_row", &bad);
    s->loss = get_f64(root, "loss", &bad);
    s->valid_loss = get_f64(root, "valid_loss", &bad);
    s->valid_step = get_i64(root, "valid_step", &bad);
    s->best_loss = get_f64(root, "best_loss", &bad);
    s->best_step = get_i64(root, "best_step", &bad);
    s->seconds = get_f64(root, "seconds", &bad);
    s->resumes = get_i64(root, "resumes", &bad) + 1;
    get_window(root, "loss_window", &s->loss_z, &bad);
    get_window(root, "norm_window", &s->norm_z, &bad);
    if (!bad)
        note_changes(t, root);
    yyjson_doc_free(doc);
    return bad ? ap_error_set(err, AP_ERR_CORRUPT, "the checkpoint's meta data are incomplete") : AP_OK;
}

ap_status ap_trainer_restore_journal(struct ap_trainer *t, const char *ckpt_dir, struct ap_error *err)
{
    char *meta = NULL;
    int64_t step = 0;
    struct ap_error ignored;
    /* No state, or one that the load will judge and report. */
    if (ap_ckpt_peek(ckpt_dir, AP_CKPT_LATEST, &meta, &step, &ignored) != AP_OK)
        return AP_OK;
    yyjson_doc *doc = yyjson_read(meta, strlen(meta), 0);
    char *decisions = yyjson_val_write(yyjson_obj_get(yyjson_doc_get_root(doc), "decisions"), 0, NULL);
    ap_status st = decisions ? ap_journal_restore(t->journal, decisions, err) : AP_OK;
    free(decisions);
    yyjson_doc_free(doc);
    free(meta);
    return st;
}

/* Tensors of the newest intact state into the trainer; *meta_p malloc'ed. */
static ap_status load(struct ap_trainer *t, char **meta_p, struct ap_error *err)
{
    struct ap_named_set set = {0};
    int64_t step = 0;
    ap_status st = ap_stage_named(t->stage, 1, &set, err);
    if (st == AP_OK)
        st = ap_router_bias_named(t->bias, 1, &set, err);
    st = ap_comm_agree(t->comm, st, NULL, err);
    if (st == AP_OK)
        st = ap_ckpt_load(t->store, AP_CKPT_LATEST, &set, meta_p, &step, err);
    ap_named_set_clear(&set);
    AP_TRY(st);
    st = ap_stage_loaded(t->stage);
    if (st == AP_OK)
        st = ap_router_bias_loaded(t->bias);
    if (st != AP_OK)
        ap_error_set(err, st, "the state could not be brought to the device");
    return ap_comm_agree(t->comm, st, NULL, err);
}

/* Damaged states that an earlier start put aside. */
static int64_t count_damaged(const char *dir)
{
    static const char ending[] = ".corrupt";
    int64_t count = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        size_t n = strlen(e->d_name);
        count += n >= sizeof(ending) && strcmp(e->d_name + n - (sizeof(ending) - 1), ending) == 0;
    }
    if (d)
        closedir(d);
    return count;
}

/* There is no state. That is a new run, unless all states of an older one were damaged: a batch system that
 * starts the job again must not turn that into a silent beginning from nothing. */
static ap_status begin_fresh(struct ap_trainer *t, struct ap_error *err)
{
    char dir[4096];
    int64_t damaged = 0;
    ap_status st = AP_OK;
    if (t->comm->rank == 0)
        st = ap_trainer_ckpt_dir(t, dir, sizeof(dir), err);
    if (t->comm->rank == 0 && st == AP_OK && (damaged = count_damaged(dir)) > 0) {
        st = ap_error_set(err, AP_ERR_LOST, "no intact state is here, only %lld damaged ones (*.corrupt)",
                          (long long)damaged);
        ap_error_at(err, dir, 0, 0);
        ap_error_hint(err, "to begin anew all the same, move them away or set checkpoint.resume to false");
    }
    if (st == AP_OK && err)
        *err = (struct ap_error){0};
    return ap_comm_agree(t->comm, st, NULL, err);
}

ap_status ap_trainer_resume(struct ap_trainer *t, struct ap_error *err)
{
    char *meta = NULL;
    ap_status st = load(t, &meta, err);
    const struct ap_ckpt_report *rep = ap_ckpt_store_report(t->store);
    if (st == AP_ERR_NOTFOUND && t->job->checkpoint.resume == AP_AUTO)
        return begin_fresh(t, err);
    if (st == AP_OK)
        st = ap_comm_agree(t->comm, parse_meta(t, meta, err), NULL, err);
    free(meta);
    AP_TRY(st);
    t->saved_step = t->state.step;
    if (rep->skipped > 0)
        ap_events_emit(t->events, AP_LOG_WARN, t->state.step, "recover", "%s", rep->text);
    ap_events_emit(t->events, AP_LOG_INFO, t->state.step, "resume", "resumed from the state of step %lld on %d ranks",
                   (long long)t->state.step, t->comm->size);
    return AP_OK;
}
