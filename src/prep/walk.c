/* SPDX-License-Identifier: Apache-2.0
 * Listing input files. The order must not depend on the file system, so every folder is sorted by bytes. */
#include "config.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "prep/walk.h"

static ap_status add_file(struct ap_walk_list *list, const char *path, const struct stat *st, int input,
                          struct ap_error *err)
{
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? 2 * list->capacity : 256;
        struct ap_walk_file *grown = realloc(list->files, (size_t)capacity * sizeof(*grown));
        if (!grown)
            return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
        list->files = grown;
        list->capacity = capacity;
    }
    char *copy = strdup(path);
    if (!copy)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    int64_t mtime = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    list->files[list->count++] = (struct ap_walk_file){copy, input, st->st_size, mtime};
    return AP_OK;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static ap_status fail(struct ap_error *err, int errnum, const char *path)
{
    ap_status status = errnum == ENOENT ? AP_ERR_INPUT : ap_status_from_errno(errnum);
    ap_error_set(err, status, "cannot read: %s", strerror(errnum));
    ap_error_at(err, path, 0, 0);
    return status;
}

static ap_status visit(struct ap_walk_list *list, FTS *fts, FTSENT *e, int input, struct ap_error *err)
{
    int hidden = e->fts_level > 0 && e->fts_name[0] == '.';
    switch (e->fts_info) {
    case FTS_D:
        if (hidden)
            fts_set(fts, e, FTS_SKIP);
        return AP_OK;
    case FTS_F:
        return hidden ? AP_OK : add_file(list, e->fts_path, e->fts_statp, input, err);
    case FTS_SL:
    case FTS_SLNONE:
        list->links++;
        return AP_OK;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return fail(err, e->fts_errno, e->fts_path);
    default:
        return AP_OK; /* folders on the way back, devices, sockets */
    }
}

ap_status ap_walk_add(struct ap_walk_list *list, const char *path, int input, struct ap_error *err)
{
    char *roots[] = {(char *)path, NULL};
    ap_status status = AP_OK;
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
    if (!fts)
        return fail(err, errno, path);
    while (status == AP_OK) {
        errno = 0;
        FTSENT *e = fts_read(fts);
        if (!e) {
            status = errno ? fail(err, errno, path) : AP_OK;
            break;
        }
        status = visit(list, fts, e, input, err);
    }
    fts_close(fts);
    return status;
}

void ap_walk_free(struct ap_walk_list *list)
{
    for (int64_t i = 0; i < list->count; i++)
        free(list->files[i].path);
    free(list->files);
    *list = (struct ap_walk_list){0};
}
