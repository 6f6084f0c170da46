/* SPDX-License-Identifier: Apache-2.0
 * antipode prep: the order of the work. Nothing of an older result is touched before all input has been read
 * and found good; prep.json goes first and comes back last, so that its presence means whole datasets. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "prep/prep_state.h"

static ap_status check_options(const struct ap_prep_options *opt, struct ap_error *err)
{
    if (opt->input_count < 1)
        return ap_error_set(err, AP_ERR_USAGE, "no input given");
    if (!opt->out_dir || !opt->out_dir[0])
        return ap_error_set(err, AP_ERR_USAGE, "no output folder given");
    if (!(opt->valid_fraction >= 0 && opt->valid_fraction <= 0.5))
        return ap_error_set(err, AP_ERR_USAGE, "valid fraction %g is outside 0..0.5", opt->valid_fraction);
    if (opt->language_bytes < 0)
        return ap_error_set(err, AP_ERR_USAGE, "language bytes %lld is negative", (long long)opt->language_bytes);
    if (opt->boilerplate < 0)
        return ap_error_set(err, AP_ERR_USAGE, "boilerplate %lld is negative", (long long)opt->boilerplate);
    if (opt->language) {
        size_t n = strlen(opt->language);
        if (n == 0 || n >= 24 || strspn(opt->language, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_@-") != n)
            return ap_error_set(err, AP_ERR_USAGE, "language \"%.40s\" is not a name like en or pt_BR", opt->language);
    }
    return AP_OK;
}

static ap_status fail_errno(struct ap_error *err, const char *what, const char *path)
{
    int e = errno;
    ap_error_set(err, ap_status_from_errno(e), "cannot %s: %s", what, strerror(e));
    ap_error_at(err, path, 0, 0);
    return ap_status_from_errno(e);
}

/* Lock the output folder and make the spool file, which has no name: nothing is left behind by a crash. */
static ap_status open_folder(struct prep *p, struct ap_error *err)
{
    size_t size = strlen(p->opt->out_dir) + 16;
    char *path = malloc(size);
    if (!path)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    ap_status status = ap_io_mkdirs(p->opt->out_dir, err);
    snprintf(path, size, "%s/.lock", p->opt->out_dir);
    if (status == AP_OK && (p->lock_fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666)) < 0)
        status = fail_errno(err, "create", path);
    if (status == AP_OK && flock(p->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        status = ap_error_set(err, AP_ERR_LOCKED, "another antipode prep is writing to this folder");
        ap_error_at(err, p->opt->out_dir, 0, 0);
    }
    snprintf(path, size, "%s/.spool", p->opt->out_dir);
    if (status == AP_OK && (p->spool_fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600)) < 0)
        status = fail_errno(err, "create", path);
    if (p->spool_fd >= 0)
        unlink(path);
    free(path);
    return status;
}

static void hash_text(struct ap_hasher *h, const char *text)
{
    if (text)
        ap_hasher_update(h, text, strlen(text));
    ap_hasher_update(h, text ? "" : "\1", 1); /* a terminator, or the mark of none */
}

static void hash_number(struct ap_hasher *h, int64_t v)
{
    char text[32];
    snprintf(text, sizeof(text), "%lld", (long long)v);
    hash_text(h, text);
}

/* What decides the result: version, options, and path, size and time of every input file, as make has it. */
static ap_status fingerprint(struct prep *p, struct ap_error *err)
{
    const struct ap_prep_options *o = p->opt;
    struct ap_hasher *h = ap_hasher_create();
    if (!h)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    hash_text(h, PACKAGE_VERSION);
    hash_number(h, AP_PREP_FORMAT);
    hash_text(h, ap_tokenizer_name(p->tokenizer));
    hash_text(h, o->jsonl_key);
    hash_text(h, o->language);
    hash_text(h, o->languages);
    ap_hasher_update(h, &o->valid_fraction, sizeof(o->valid_fraction));
    hash_number(h, o->invalid);
    hash_number(h, o->language_bytes);
    hash_number(h, o->boilerplate);
    hash_number(h, o->combined_only);
    for (int64_t i = 0; i < p->list.count; i++) {
        const struct ap_walk_file *f = &p->list.files[i];
        hash_number(h, o->inputs[f->input].kind);
        hash_text(h, f->path);
        hash_number(h, f->size);
        hash_number(h, f->mtime_ns);
    }
    p->fingerprint = ap_hasher_digest(h);
    ap_hasher_destroy(h);
    return AP_OK;
}

static ap_status write_everything(struct prep *p, struct ap_error *err)
{
    struct prep_json *json;
    AP_TRY(prep_ingest(p, err));
    AP_TRY(prep_drop_boilerplate(p, err));
    AP_TRY(prep_select(p, err));
    AP_TRY(prep_json_remove_old(p, err));
    AP_TRY(prep_json_create(&json, err));
    ap_status status = prep_write(p, json, err);
    if (status == AP_OK)
        status = prep_json_commit(p, json, err);
    prep_json_destroy(json);
    return status;
}

static ap_status run(struct prep *p, struct ap_error *err)
{
    const struct ap_prep_options *o = p->opt;
    AP_TRY(check_options(o, err));
    AP_TRY(ap_tokenizer_open(o->tokenizer ? o->tokenizer : "bytes", &p->tokenizer, err));
    for (int i = 0; i < o->input_count; i++)
        AP_TRY(ap_walk_add(&p->list, o->inputs[i].path, i, err));
    p->report.links = p->list.links;
    AP_TRY(fingerprint(p, err));
    AP_TRY(open_folder(p, err));
    if (!o->force && prep_json_matches(p))
        return AP_OK;
    return write_everything(p, err);
}

ap_status ap_prep_run(const struct ap_prep_options *opt, struct ap_prep_report *report_p, struct ap_error *err)
{
    struct prep *p = calloc(1, sizeof(*p));
    if (!p)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    p->opt = opt;
    p->lock_fd = p->spool_fd = -1;
    ap_status status = run(p, err);
    if (status == AP_OK)
        *report_p = p->report;
    if (p->spool_fd >= 0)
        close(p->spool_fd);
    if (p->lock_fd >= 0)
        close(p->lock_fd);
    ap_tokenizer_close(p->tokenizer);
    ap_walk_free(&p->list);
    ap_buf_free(&p->spool_buffer);
    free(p->documents);
    free(p);
    return status;
}
