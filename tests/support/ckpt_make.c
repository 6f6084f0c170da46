/* SPDX-License-Identifier: Apache-2.0
 * Writes a checkpoint for the script tests: ckpt_make DIR RANKS STEP VERSION [best|columns]
 * saves the state of ckpt_fixture.h from RANKS virtual ranks in pieces (or slabs of columns), and puts the bytes of
 * every tensor into DIR/expected-VERSION/NAME (with '/' as '%'), for a reader that shares no code with us. */
#include "config.h"

#include "ckpt_fixture.h"

#include "base/io.h"

struct job {
    const char *dir;
    int64_t step;
    int version, best, scheme;
    ap_status status;
    char text[2048];
};

static void save(struct vrank *v)
{
    struct job *job = v->ctx;
    struct ap_ckpt_options opt = {.dir = job->dir, .keep = 10};
    struct ap_ckpt_store *store = NULL;
    struct ap_error err = {0};
    ap_status status = ap_ckpt_store_open(&opt, v->comm, &store, &err);
    if (status == AP_OK)
        status = cf_save(store, v->comm, job->step, job->version, job->scheme, CF_ALL, job->best, &err);
    ap_ckpt_store_close(store);
    if (v->comm->rank == 0) {
        job->status = status;
        ap_error_format(&err, job->text, sizeof job->text);
    }
}

static int write_expected(const struct job *job)
{
    char dir[3072], path[4096];
    struct cf_set c;
    snprintf(dir, sizeof dir, "%s/expected-%d", job->dir, job->version);
    if (ap_io_mkdirs(dir, NULL) != AP_OK || cf_make(&c, 0, 1, CF_REPLICA, CF_ALL, job->version, 1) != 0)
        return -1;
    for (int64_t i = 0; i < c.set.count; i++) {
        const struct ap_named *t = &c.set.list[i];
        int n = snprintf(path, sizeof path, "%s/%s", dir, t->name);
        for (int k = n - (int)strlen(t->name); k < n; k++)
            if (path[k] == '/')
                path[k] = '%';
        if (ap_io_write_durable(path, t->data, (size_t)t->end * ap_dtype_size(t->dtype), NULL) != AP_OK)
            return -1;
    }
    cf_free(&c);
    return 0;
}

int main(int argc, char **argv)
{
    struct ap_comm *comms[VRANKS_MAX];
    struct vrank v[VRANKS_MAX];
    pthread_t threads[VRANKS_MAX];
    int ranks = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 0;
    if (argc < 5 || ranks < 1 || ranks > VRANKS_MAX) {
        fprintf(stderr, "usage: ckpt_make DIR RANKS STEP VERSION [best|columns]\n");
        return 2;
    }
    struct job job = {.dir = argv[1],
                      .step = strtoll(argv[3], NULL, 10),
                      .version = (int)strtol(argv[4], NULL, 10),
                      .best = argc > 5 && strcmp(argv[5], "best") == 0,
                      .scheme = argc > 5 && strcmp(argv[5], "columns") == 0 ? CF_COLUMNS : CF_PIECES};
    if (ap_comm_virtual(ranks, comms) != AP_OK)
        return 4;
    for (int r = 0; r < ranks; r++) {
        v[r] = (struct vrank){.comm = comms[r], .ctx = &job, .fn = save};
        if (pthread_create(&threads[r], NULL, vrank_main, &v[r]) != 0)
            return 4;
    }
    for (int r = 0; r < ranks; r++)
        pthread_join(threads[r], NULL);
    if (job.status != AP_OK) {
        fprintf(stderr, "%s\n", job.text);
        return 1;
    }
    return write_expected(&job) == 0 ? 0 : 1;
}
