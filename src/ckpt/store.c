/* SPDX-License-Identifier: Apache-2.0
 * The store: open, load with fall-back, and the tools' view of a directory. Saving is in store_save.c.
 *
 * Rank 0 alone looks at the directory and moves states about; every rank reads and checks the files it needs.
 * Whatever can fail on some ranks only is followed by ap_comm_agree before anyone branches. */
#include "config.h"
#include "ckpt/store_impl.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "ckpt/reader.h"

/* ---- open and close ---- */

static ap_status open_rank0(struct ap_ckpt_store *store, struct ap_error *err)
{
    if (store->read_only) {
        struct stat st;
        if (stat(store->dir, &st) == 0 && S_ISDIR(st.st_mode))
            return AP_OK;
        ap_error_set(err, AP_ERR_NOTFOUND, "no such checkpoint directory");
        ap_error_at(err, store->dir, 0, 0);
        return AP_ERR_NOTFOUND;
    }
    AP_TRY(ap_io_mkdirs(store->dir, err));
    AP_TRY(ap_statedir_lock(store->dir, &store->lock_fd, err));
    return ap_statedir_clean(store->dir, err);
}

ap_status ap_ckpt_store_open(const struct ap_ckpt_options *opt, struct ap_comm *comm, struct ap_ckpt_store **store_p,
                             struct ap_error *err)
{
    struct ap_ckpt_store *store = calloc(1, sizeof *store);
    ap_status status = AP_OK;
    if (store == NULL) {
        status = ap_error_set(err, AP_ERR_NOMEM, "no memory for a checkpoint store");
    } else {
        store->lock_fd = -1;
        store->keep = opt->keep >= 1 ? opt->keep : 1;
        store->zstd_level = opt->zstd_level != 0 ? opt->zstd_level : 1;
        store->read_only = opt->read_only;
        store->pool = opt->pool;
        store->comm = comm;
        if (snprintf(store->dir, sizeof store->dir, "%s", opt->dir) >= (int)sizeof store->dir)
            status = ap_error_set(err, AP_ERR_INPUT, "the path of the checkpoint directory is too long");
        else if (comm->rank == 0)
            status = open_rank0(store, err);
    }
    status = ap_comm_agree(comm, status, NULL, err);
    if (status != AP_OK) {
        ap_ckpt_store_close(store);
        return status;
    }
    *store_p = store;
    return AP_OK;
}

void ap_ckpt_store_close(struct ap_ckpt_store *store)
{
    if (store == NULL)
        return;
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store);
}

const struct ap_ckpt_report *ap_ckpt_store_report(const struct ap_ckpt_store *store)
{
    return &store->report;
}

const struct ap_ckpt_figures *ap_ckpt_store_figures(const struct ap_ckpt_store *store)
{
    return &store->figures;
}

/* ---- load one state ---- */

ap_status ap_store_comm_lost(struct ap_error *err)
{
    return ap_error_set(err, AP_ERR_COMM, "a rank was lost while the checkpoint was being shared");
}

/* Rank 0 only. */
static ap_status manifest_text(const char *path, char **text_p, int64_t *bytes_p, struct ap_error *err)
{
    char file[AP_STATE_PATH_BYTES + 32];
    size_t size;
    snprintf(file, sizeof file, "%s/%s", path, AP_MANIFEST_NAME);
    ap_status status = ap_io_read_file(file, AP_MANIFEST_BYTES_MAX, text_p, &size, err);
    if (status == AP_ERR_INPUT || status == AP_ERR_NOTFOUND) {
        status = ap_error_set(err, AP_ERR_CORRUPT, "the checkpoint manifest is missing or too large");
        ap_error_at(err, file, 0, 0);
    }
    if (status == AP_OK)
        *bytes_p = (int64_t)size;
    return status;
}

/* Collective: rank 0 reads the manifest, everyone gets a reader. */
static ap_status reader_share(struct ap_ckpt_store *store, const char *path, struct ap_ckpt_reader **reader_p,
                              struct ap_error *err)
{
    struct ap_comm *comm = store->comm;
    struct ap_manifest m = {0};
    char *text = NULL;
    int64_t bytes = 0;
    ap_status status = comm->rank == 0 ? manifest_text(path, &text, &bytes, err) : AP_OK;
    status = ap_comm_agree(comm, status, NULL, err);
    if (status == AP_OK && ap_comm_bcast(comm, &bytes, sizeof bytes, 0) != AP_OK)
        status = ap_store_comm_lost(err);
    if (status != AP_OK) {
        free(text);
        return status;
    }
    if (comm->rank != 0)
        text = malloc((size_t)bytes + 1);
    status = text != NULL ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "no memory for a checkpoint manifest");
    status = ap_comm_agree(comm, status, NULL, err);
    if (status == AP_OK && ap_comm_bcast(comm, text, bytes, 0) != AP_OK)
        status = ap_store_comm_lost(err);
    if (status == AP_OK) {
        status = ap_manifest_parse(text, (size_t)bytes, &m, err);
        if (status != AP_OK)
            ap_error_at(err, path, 0, 0);
    }
    if (status == AP_OK)
        status = ap_ckpt_reader_create(path, &m, reader_p, err);
    ap_manifest_free(&m);
    free(text);
    return ap_comm_agree(comm, status, NULL, err);
}

/* Files are shared out for the check of what lies outside of chunks; chunks are checked by who reads them. */
static ap_status fill_local(struct ap_comm *comm, struct ap_ckpt_reader *reader, struct ap_named_set *tensors,
                            struct ap_error *err)
{
    int files = ap_ckpt_reader_manifest(reader)->file_count;
    for (int f = comm->rank; f < files; f += comm->size)
        AP_TRY(ap_ckpt_reader_check_rest(reader, f, err));
    for (int64_t i = 0; i < tensors->count; i++)
        AP_TRY(ap_ckpt_reader_fill(reader, &tensors->list[i], err));
    return AP_OK;
}

/* Collective; the status is the same on all ranks. */
static ap_status load_one(struct ap_ckpt_store *store, int64_t step, struct ap_named_set *tensors, char **meta_p,
                          struct ap_error *err)
{
    char path[AP_STATE_PATH_BYTES];
    struct ap_ckpt_reader *reader = NULL;
    AP_TRY(ap_statedir_path(store->dir, step, path, sizeof path, err));
    AP_TRY(reader_share(store, path, &reader, err));
    const struct ap_manifest *m = ap_ckpt_reader_manifest(reader);
    ap_status status = AP_OK;
    if (m->step != step) {
        status = ap_error_set(err, AP_ERR_CORRUPT, "the manifest is of step %lld", (long long)m->step);
        ap_error_at(err, path, 0, 0);
    }
    if (status == AP_OK)
        status = ap_ckpt_reader_match(reader, tensors, err);
    status = ap_comm_agree(store->comm, status, NULL, err);
    if (status == AP_OK)
        status = ap_comm_agree(store->comm, fill_local(store->comm, reader, tensors, err), NULL, err);
    char *meta = NULL;
    if (status == AP_OK) {
        meta = strdup(m->meta);
        status = meta != NULL ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "no memory for the meta text");
        status = ap_comm_agree(store->comm, status, NULL, err);
    }
    ap_ckpt_reader_destroy(reader);
    if (status != AP_OK) {
        free(meta);
        return status;
    }
    *meta_p = meta;
    return AP_OK;
}

/* ---- load with fall-back ---- */

/* Rank 0: the steps that may serve the request, newest first. */
static ap_status candidates(struct ap_ckpt_store *store, int64_t step, int64_t **steps_p, int *count_p,
                            struct ap_error *err)
{
    int64_t *steps;
    int count, at = 0;
    AP_TRY(ap_statedir_scan(store->dir, &steps, &count, err));
    if (count > 0 && store->report.newest_step < 0)
        store->report.newest_step = steps[0];
    if (step != AP_CKPT_LATEST) {
        int64_t want = step == AP_CKPT_BEST ? ap_statedir_best(store->dir) : step;
        while (at < count && steps[at] != want)
            at++;
        steps[0] = at < count ? steps[at] : (count > 0 ? steps[0] : 0);
        count = at < count ? 1 : 0;
    }
    *steps_p = steps;
    *count_p = count;
    return AP_OK;
}

/* Rank 0: note, announce and quarantine a state that cannot be used. */
static void pass_over(struct ap_ckpt_store *store, int64_t step, ap_status why, const struct ap_error *reason)
{
    struct ap_ckpt_report *rep = &store->report;
    char text[1700], aside[AP_STATE_PATH_BYTES];
    struct ap_error qerr;
    ap_error_format(reason, text, sizeof text);
    size_t used = strlen(rep->text);
    snprintf(rep->text + used, sizeof rep->text - used, "%sstate of step %lld passed over: %s", used > 0 ? "; " : "",
             (long long)step, text);
    ap_warn("checkpoint of step %lld cannot be used: %s", (long long)step, text);
    rep->skipped++;
    /* A read error may be the disk's or the network's; only wrong content condemns a state. */
    if (store->read_only || why != AP_ERR_CORRUPT)
        return;
    if (ap_statedir_quarantine(store->dir, step, aside, sizeof aside, &qerr) == AP_OK)
        ap_warn("it was renamed to %s", aside);
    else
        ap_warn("it could not be set aside: %s", qerr.text);
}

/* Collective: the report of rank 0 becomes everyone's. */
static ap_status share_report(struct ap_ckpt_store *store, struct ap_error *err)
{
    return ap_comm_bcast(store->comm, &store->report, sizeof store->report, 0) == AP_OK ? AP_OK
                                                                                        : ap_store_comm_lost(err);
}

/* Collective: try the candidates of one scan. *again_p: a state vanished meanwhile (a writer's retention), scan anew.
 */
static ap_status load_round(struct ap_ckpt_store *store, int64_t step, struct ap_named_set *tensors, char **meta_p,
                            int64_t *step_p, int *again_p, struct ap_error *err)
{
    struct ap_comm *comm = store->comm;
    int64_t *steps = NULL;
    int count = 0;
    ap_status status = comm->rank == 0 ? candidates(store, step, &steps, &count, err) : AP_OK;
    status = ap_comm_agree(comm, status, NULL, err);
    *again_p = 0;
    for (int i = 0; status == AP_OK && !*again_p; i++) {
        int64_t word[2] = {comm->rank == 0 && i < count ? steps[i] : -1, 0}; /* step or end; vanished */
        struct ap_error why = {0};
        if (ap_comm_bcast(comm, word, sizeof word, 0) != AP_OK) {
            status = ap_store_comm_lost(err);
            break;
        }
        if (word[0] < 0) {
            status = AP_ERR_NOTFOUND; /* the caller words it */
            break;
        }
        status = load_one(store, word[0], tensors, meta_p, &why);
        *step_p = word[0];
        if (status != AP_ERR_CORRUPT && status != AP_ERR_IO) {
            if (status != AP_OK && err != NULL)
                *err = why;
            break;
        }
        if (comm->rank == 0) {
            char path[AP_STATE_PATH_BYTES];
            word[1] = ap_statedir_path(store->dir, word[0], path, sizeof path, NULL) == AP_OK && !ap_io_exists(path);
            if (!word[1])
                pass_over(store, word[0], status, &why);
        }
        status = ap_comm_bcast(comm, word, sizeof word, 0) == AP_OK ? AP_OK : ap_store_comm_lost(err);
        *again_p = (int)word[1];
    }
    free(steps);
    return status;
}

static ap_status nothing_left(const struct ap_ckpt_store *store, int64_t step, struct ap_error *err)
{
    const struct ap_ckpt_report *rep = &store->report;
    if (rep->skipped == 0 && step == AP_CKPT_LATEST)
        ap_error_set(err, AP_ERR_NOTFOUND, "no checkpoint here");
    else if (rep->skipped == 0 && step == AP_CKPT_BEST)
        ap_error_set(err, AP_ERR_NOTFOUND, "no state is marked best here");
    else if (rep->skipped == 0)
        ap_error_set(err, AP_ERR_NOTFOUND, "no checkpoint of step %lld here", (long long)step);
    else if (step == AP_CKPT_LATEST)
        ap_error_set(err, AP_ERR_LOST, "none of %d checkpoints is intact: %s", rep->skipped, rep->text);
    else
        ap_error_set(err, AP_ERR_LOST, "the checkpoint asked for is not intact: %s", rep->text);
    ap_error_at(err, store->dir, 0, 0);
    if (rep->skipped > 0)
        ap_error_hint(err, "damaged states are kept as *.corrupt for inspection");
    return rep->skipped == 0 ? AP_ERR_NOTFOUND : AP_ERR_LOST;
}

ap_status ap_ckpt_load(struct ap_ckpt_store *store, int64_t step, struct ap_named_set *tensors, char **meta_json_p,
                       int64_t *step_p, struct ap_error *err)
{
    ap_status status;
    int again = 0;
    int64_t found = -1;
    char *meta = NULL;
    store->report = (struct ap_ckpt_report){.newest_step = -1};
    for (int tries = 0; tries < 10; tries++) {
        status = load_round(store, step, tensors, &meta, &found, &again, err);
        if (!again)
            break;
    }
    if (status == AP_ERR_COMM)
        return status;
    AP_TRY(share_report(store, err));
    if (status == AP_ERR_NOTFOUND || again)
        return nothing_left(store, step, err);
    AP_TRY(status);
    if (store->report.skipped > 0 && store->comm->rank == 0)
        ap_warn("going on from the checkpoint of step %lld", (long long)found);
    *meta_json_p = meta;
    *step_p = found;
    return AP_OK;
}

/* ---- tools ---- */

ap_status ap_ckpt_peek(const char *dir, int64_t step, char **meta_json_p, int64_t *step_p, struct ap_error *err)
{
    struct ap_ckpt_store view = {.read_only = 1, .report.newest_step = -1};
    int64_t *steps = NULL;
    int count = 0;
    ap_status status = AP_ERR_NOTFOUND;
    if (snprintf(view.dir, sizeof view.dir, "%s", dir) >= (int)sizeof view.dir)
        return ap_error_set(err, AP_ERR_INPUT, "the path of the checkpoint directory is too long");
    AP_TRY(candidates(&view, step, &steps, &count, err));
    for (int i = 0; i < count; i++) {
        char path[AP_STATE_PATH_BYTES];
        struct ap_manifest m = {0};
        struct ap_error why = {0};
        status = ap_statedir_path(dir, steps[i], path, sizeof path, &why);
        if (status == AP_OK)
            status = ap_ckpt_manifest_read(path, &m, &why);
        if (status == AP_OK) {
            *meta_json_p = m.meta;
            *step_p = m.step;
            m.meta = NULL;
            ap_manifest_free(&m);
            break;
        }
        if (status != AP_ERR_CORRUPT && status != AP_ERR_NOTFOUND && status != AP_ERR_IO) {
            if (err != NULL)
                *err = why;
            break;
        }
        pass_over(&view, steps[i], status, &why);
        status = AP_ERR_NOTFOUND;
    }
    free(steps);
    return status == AP_ERR_NOTFOUND ? nothing_left(&view, step, err) : status;
}

/* Bytes and images of one state, from the file system. */
static void measure(struct ap_ckpt_entry *e)
{
    DIR *d = opendir(e->path);
    struct dirent *f;
    struct stat st;
    while (d != NULL && (f = readdir(d)) != NULL) {
        char path[AP_STATE_PATH_BYTES + 264];
        snprintf(path, sizeof path, "%s/%s", e->path, f->d_name);
        if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        e->bytes += st.st_size;
        size_t n = strlen(f->d_name);
        e->files += n > 3 && strcmp(f->d_name + n - 3, ".h5") == 0;
    }
    if (d != NULL)
        closedir(d);
}

ap_status ap_ckpt_list(const char *dir, struct ap_ckpt_entry **list_p, int *count_p, struct ap_error *err)
{
    int64_t *steps = NULL, best = ap_statedir_best(dir);
    int count = 0;
    AP_TRY(ap_statedir_scan(dir, &steps, &count, err));
    struct ap_ckpt_entry *list = calloc((size_t)count + 1, sizeof *list);
    ap_status status = list != NULL ? AP_OK : ap_error_set(err, AP_ERR_NOMEM, "no memory for a list of checkpoints");
    for (int i = 0; status == AP_OK && i < count; i++) {
        list[i].step = steps[i];
        list[i].best = steps[i] == best;
        status = ap_statedir_path(dir, steps[i], list[i].path, sizeof list[i].path, err);
        if (status == AP_OK)
            measure(&list[i]);
    }
    free(steps);
    if (status != AP_OK) {
        free(list);
        return status;
    }
    *list_p = list;
    *count_p = count;
    return AP_OK;
}

ap_status ap_ckpt_verify(const char *state_path, struct ap_error *err)
{
    struct ap_ckpt_reader *reader;
    ap_status status = ap_ckpt_reader_open(state_path, &reader, err);
    if (status == AP_ERR_NOTFOUND) {
        char path[AP_STATE_PATH_BYTES + 32];
        snprintf(path, sizeof path, "%s/%s", state_path, AP_MANIFEST_NAME);
        if (ap_io_exists(state_path))
            status = ap_error_set(err, AP_ERR_CORRUPT, "the checkpoint manifest is missing");
        ap_error_at(err, path, 0, 0);
    }
    AP_TRY(status);
    const struct ap_manifest *m = ap_ckpt_reader_manifest(reader);
    int64_t named = ap_statedir_step(state_path);
    if (named >= 0 && named != m->step) {
        status = ap_error_set(err, AP_ERR_CORRUPT, "the manifest is of step %lld", (long long)m->step);
        ap_error_at(err, state_path, 0, 0);
    }
    int files = m->file_count;
    for (int f = 0; status == AP_OK && f < files; f++)
        status = ap_ckpt_reader_check_deep(reader, f, err);
    ap_ckpt_reader_destroy(reader);
    return status;
}
