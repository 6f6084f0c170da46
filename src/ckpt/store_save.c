/* SPDX-License-Identifier: Apache-2.0
 * Saving a state:
 *   1. every rank builds its image in memory; rank 0 checks that the ranges tile and that the disk has room
 *   2. rank 0 makes DIR/step-N.HOST-PID-K.tmp; every rank writes and fsyncs its file there      | agree
 *   3. rank 0 writes manifest.json as the last file, durably, and renames the directory to step-N | agree
 *   4. every rank reads its file back from the disk and compares its hash                      | agree
 *   5. only now rank 0 moves the best link, sets newer states of an abandoned branch aside, removes the oldest
 * A kill anywhere leaves either the earlier states, or these and the new one. */
#include "config.h"
#include "ckpt/store_impl.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "ckpt/reader.h"

struct save { /* one save on one rank */
    struct ap_ckpt_store *store;
    int64_t step;
    const struct ap_named_set *tensors;
    const char *meta;
    struct ap_image image;
    struct ap_manifest manifest; /* rank 0 */
    char tmp[AP_STATE_PATH_BYTES];
    double t0, t1, t2;
};

static ap_status nomem(struct ap_error *err)
{
    return ap_error_set(err, AP_ERR_NOMEM, "no memory to save a checkpoint");
}

/* Collective: send[0..bytes) of every rank, one behind the other, on rank 0; sizes[r] on every rank. *all_p is
 * malloc'ed on rank 0, NULL elsewhere. */
static ap_status gather(struct ap_comm *comm, const void *send, int64_t bytes, int64_t *sizes, void **all_p,
                        struct ap_error *err)
{
    int n = comm->size;
    int64_t *w = calloc((size_t)n * 5, sizeof *w), total = 0;
    void *all = NULL;
    ap_status status = ap_comm_agree(comm, w != NULL ? AP_OK : nomem(err), NULL, err);
    if (w == NULL || status != AP_OK) {
        free(w);
        return status;
    }
    int64_t *eight = w, *to = w + n, *to_off = w + 2 * n, *from = w + 3 * n, *from_off = w + 4 * n;
    for (int i = 0; i < n; i++)
        eight[i] = 8;
    if (ap_comm_allgatherv(comm, &bytes, eight, sizes) != AP_OK)
        status = ap_store_comm_lost(err);
    for (int i = 0; i < n && status == AP_OK && comm->rank == 0; i++) {
        from[i] = sizes[i];
        from_off[i] = total;
        total += sizes[i];
    }
    to[0] = bytes;
    if (comm->rank == 0)
        all = malloc((size_t)total + 1);
    if (status == AP_OK)
        status = ap_comm_agree(comm, comm->rank != 0 || all != NULL ? AP_OK : nomem(err), NULL, err);
    if (status == AP_OK && ap_comm_alltoallv(comm, send, to, to_off, all, from, from_off) != AP_OK)
        status = ap_store_comm_lost(err);
    free(w);
    if (status != AP_OK) {
        free(all);
        return status;
    }
    *all_p = all;
    return AP_OK;
}

/* Rank 0: the manifest from everyone's tensors and file records. */
static ap_status plan_manifest(struct save *s, const struct ap_named *tensors, const int64_t *tensor_bytes,
                               const struct ap_image_info *infos, struct ap_error *err)
{
    int ranks = s->store->comm->size;
    int64_t *offsets = calloc((size_t)ranks + 1, sizeof *offsets), total = 0;
    if (offsets == NULL)
        return nomem(err);
    for (int r = 0; r < ranks; r++)
        offsets[r + 1] = offsets[r] + tensor_bytes[r] / (int64_t)sizeof *tensors;
    ap_status status = ap_manifest_build(tensors, offsets, ranks, s->meta, s->step, &s->manifest, err);
    free(offsets);
    AP_TRY(status);
    for (int r = 0; r < ranks; r++) {
        s->manifest.files[r] = infos[r];
        total += infos[r].bytes;
    }
    s->store->figures.stored_bytes = total;
    int64_t room = ap_statedir_free_bytes(s->store->dir);
    if (room >= 0 && room < total) {
        ap_error_set(err, AP_ERR_NOSPACE,
                     "the checkpoint of step %lld needs %.1f MiB, the file system has %.1f MiB left; "
                     "earlier checkpoints are intact",
                     (long long)s->step, (double)total / 1048576.0, (double)room / 1048576.0);
        ap_error_at(err, s->store->dir, 0, 0);
        ap_error_hint(err, "free space, lower checkpoint.keep, or move checkpoint.dir");
        return AP_ERR_NOSPACE;
    }
    return ap_statedir_begin(s->store->dir, s->step, s->store->nonce, s->tmp, sizeof s->tmp, err);
}

/* Collective: agree on what is saved and open the temporary directory. */
static ap_status plan(struct save *s, struct ap_error *err)
{
    struct ap_comm *comm = s->store->comm;
    int64_t *sizes = calloc((size_t)comm->size * 2, sizeof *sizes);
    void *tensors = NULL, *infos = NULL;
    ap_status status = ap_comm_agree(comm, sizes != NULL ? AP_OK : nomem(err), NULL, err);
    if (sizes == NULL || status != AP_OK) {
        free(sizes);
        return status;
    }
    status =
        gather(comm, s->tensors->list, s->tensors->count * (int64_t)sizeof *s->tensors->list, sizes, &tensors, err);
    if (status == AP_OK)
        status = gather(comm, &s->image.info, sizeof s->image.info, sizes + comm->size, &infos, err);
    if (status == AP_OK) {
        if (tensors != NULL && infos != NULL) /* rank 0 */
            status = plan_manifest(s, tensors, sizes, infos, err);
        status = ap_comm_agree(comm, status, NULL, err);
    }
    free(tensors);
    free(infos);
    free(sizes);
    if (status == AP_OK && ap_comm_bcast(comm, s->tmp, sizeof s->tmp, 0) != AP_OK)
        status = ap_store_comm_lost(err);
    return status;
}

/* This rank's file in a state directory. */
static void own_path(const struct save *s, const char *state, char *buf, size_t size)
{
    ap_ckpt_file_path(state, s->store->comm->rank, buf, size);
}

static ap_status write_own(const struct save *s, struct ap_error *err)
{
    char path[AP_STATE_PATH_BYTES + 32];
    own_path(s, s->tmp, path, sizeof path);
    ap_status status = ap_image_write(&s->image, path, err);
    if (status == AP_ERR_NOSPACE)
        ap_error_hint(err, "earlier checkpoints are intact; free space, lower checkpoint.keep, or move checkpoint.dir");
    return status;
}

/* Rank 0: manifest last, then the rename that makes the state count. */
static ap_status commit(struct save *s, struct ap_error *err)
{
    char path[AP_STATE_PATH_BYTES + 32], *text;
    size_t size;
    AP_TRY(ap_manifest_print(&s->manifest, &text, &size, err));
    snprintf(path, sizeof path, "%s/%s", s->tmp, AP_MANIFEST_NAME);
    ap_status status = ap_io_write_durable(path, text, size, err);
    free(text);
    AP_TRY(status);
    return ap_statedir_commit(s->store->dir, s->tmp, s->step, err);
}

/* What the disk gives back must be what was sent: clean pages are dropped from the cache first. */
static ap_status reread_own(const struct save *s, const char *state, struct ap_error *err)
{
    char path[AP_STATE_PATH_BYTES + 32];
    own_path(s, state, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t piece = 1 << 20;
    uint8_t *buf = malloc(piece);
    struct ap_hasher *h = ap_hasher_create();
    ap_status status = buf != NULL && h != NULL ? AP_OK : nomem(err);
    if (status == AP_OK && fd < 0)
        status = ap_error_set(err, AP_ERR_IO, "the checkpoint just written cannot be opened");
    if (status == AP_OK)
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* advice only */
    for (int64_t pos = 0, n; status == AP_OK && pos < s->image.info.bytes; pos += n) {
        n = s->image.info.bytes - pos < (int64_t)piece ? s->image.info.bytes - pos : (int64_t)piece;
        status = ap_io_pread_all(fd, buf, (size_t)n, pos, path, err);
        if (status == AP_OK)
            ap_hasher_update(h, buf, (size_t)n);
    }
    if (status == AP_OK && !ap_hash128_equal(ap_hasher_digest(h), s->image.info.file_hash))
        status =
            ap_error_set(err, AP_ERR_CORRUPT, "the checkpoint just written reads back different from what was sent");
    if (status != AP_OK)
        ap_error_at(err, path, 0, 0);
    if (fd >= 0)
        close(fd);
    free(buf);
    ap_hasher_destroy(h);
    return status;
}

/* Rank 0, after everyone's re-read. */
static ap_status settle(const struct save *s, int best, struct ap_error *err)
{
    const char *dir = s->store->dir;
    int moved = 0;
    if (best)
        AP_TRY(ap_statedir_set_best(dir, s->step, err));
    AP_TRY(ap_statedir_supersede(dir, s->step, &moved, err));
    if (moved > 0)
        ap_warn("%d checkpoint%s newer than step %lld set aside as *.superseded: this run went back behind %s", moved,
                moved > 1 ? "s" : "", (long long)s->step, moved > 1 ? "them" : "it");
    return ap_statedir_retain(dir, s->store->keep, err);
}

/* Collective: after the commit. */
static ap_status prove(struct save *s, int best, struct ap_error *err)
{
    struct ap_comm *comm = s->store->comm;
    char state[AP_STATE_PATH_BYTES], aside[AP_STATE_PATH_BYTES];
    ap_status status = ap_statedir_path(s->store->dir, s->step, state, sizeof state, err);
    if (status == AP_OK)
        status = reread_own(s, state, err);
    if (status == AP_OK && comm->rank == 0) {
        struct ap_manifest back = {0};
        status = ap_ckpt_manifest_read(state, &back, err);
        ap_manifest_free(&back);
    }
    status = ap_comm_agree(comm, status, NULL, err);
    if (status == AP_OK)
        return ap_comm_agree(comm, comm->rank == 0 ? settle(s, best, err) : AP_OK, NULL, err);
    if (status == AP_ERR_CORRUPT && comm->rank == 0)
        (void)ap_statedir_quarantine(s->store->dir, s->step, aside, sizeof aside, NULL);
    return status;
}

static ap_status save_agreed(struct save *s, int best, struct ap_error *err)
{
    struct ap_comm *comm = s->store->comm;
    struct ap_image_options opt = {s->store->zstd_level, s->store->pool};
    AP_TRY(ap_comm_agree(comm, ap_image_build(s->tensors, &opt, &s->image, err), NULL, err));
    s->t1 = ap_clock_monotonic();
    AP_TRY(plan(s, err));
    ap_status status = ap_comm_agree(comm, write_own(s, err), NULL, err);
    s->t2 = ap_clock_monotonic();
    if (status == AP_OK)
        status = ap_comm_agree(comm, comm->rank == 0 ? commit(s, err) : AP_OK, NULL, err);
    if (status != AP_OK) {
        /* With a lost rank another may still be writing there: the next open or save removes it. */
        if (comm->rank == 0 && status != AP_ERR_COMM)
            (void)ap_io_remove_tree(s->tmp, NULL);
        return status;
    }
    return prove(s, best, err);
}

/* Collective: sums of the figures. */
static ap_status share_figures(struct save *s, struct ap_error *err)
{
    struct ap_ckpt_figures *f = &s->store->figures;
    int64_t sum[2] = {s->image.raw_bytes, s->image.info.bytes};
    if (ap_comm_sum_i64(s->store->comm, sum, 2) != AP_OK)
        return ap_store_comm_lost(err);
    *f = (struct ap_ckpt_figures){sum[0], sum[1], s->t1 - s->t0, s->t2 - s->t1, ap_clock_monotonic() - s->t2};
    return AP_OK;
}

ap_status ap_ckpt_save(struct ap_ckpt_store *store, int64_t step, const struct ap_named_set *tensors,
                       const char *meta_json, int best, struct ap_error *err)
{
    if (store->read_only || step < 0)
        return ap_error_set(err, AP_ERR_BUG,
                            "a checkpoint store opened read-only, or a negative step, cannot be saved");
    struct save *s = calloc(1, sizeof *s);
    ap_status status = ap_comm_agree(store->comm, s != NULL ? AP_OK : nomem(err), NULL, err);
    if (s != NULL && status == AP_OK) {
        s->store = store;
        s->step = step;
        s->tensors = tensors;
        s->meta = meta_json;
        s->t0 = ap_clock_monotonic();
        store->nonce++;
        status = save_agreed(s, best, err);
        if (status == AP_OK)
            status = share_figures(s, err);
        ap_image_free(&s->image);
        ap_manifest_free(&s->manifest);
    }
    free(s);
    return status;
}
