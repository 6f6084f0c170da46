/* SPDX-License-Identifier: Apache-2.0
 * Checkpoint states for tests: a fixed list of tensors of every dtype whose content is a pure function of
 * (version, tensor, element), cut over ranks in several ways. A loaded state is right if it equals, bit for bit,
 * the content of the version that its meta names. */
#ifndef AP_TESTS_CKPT_FIXTURE_H
#define AP_TESTS_CKPT_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "ckpt/store.h"
#include "vranks.h"

struct cf_tensor {
    const char *name;
    ap_dtype dtype;
    int ndim;
    int64_t shape[4];
};

/* The last two exceed one chunk: split along the first dimension, and along the second. */
static const struct cf_tensor cf_tensors[] = {
    {"param/model.embed_tokens.weight", AP_F32, 2, {130, 64}},
    {"param/model.layers.0.mlp.down_proj.weight", AP_BF16, 2, {33, 17}},
    {"adam.m/model.embed_tokens.weight", AP_F32, 2, {130, 64}},
    {"adam.v/model.embed_tokens.weight", AP_F32, 2, {130, 64}},
    {"param/model.norm.weight", AP_F32, 1, {64}},
    {"state/router_bias", AP_F64, 2, {3, 5}},
    {"state/cursor", AP_I64, 0, {0}},
    {"state/counts", AP_I32, 3, {2, 3, 7}},
    {"state/bytes", AP_U8, 1, {1000}},
    {"state/tokens", AP_U16, 4, {2, 3, 4, 5}},
    {"state/empty", AP_F32, 2, {0, 7}},
    {"param/big.rows", AP_F32, 2, {700, 600}},
    {"param/big.experts", AP_F32, 3, {2, 3, 90000}},
};
#define CF_ALL   13
#define CF_SMALL 11

enum { CF_EVEN, CF_WHOLE, CF_UNEVEN, CF_PIECES, CF_REPLICA };

struct cf_set {
    struct ap_named_set set;
    void *bufs[CF_ALL * 2];
    int bufs_used;
};

static inline void cf_content(int version, int tensor, ap_dtype dtype, int64_t begin, int64_t end, void *out)
{
    size_t width = ap_dtype_size(dtype);
    for (int64_t i = begin; i < end; i++) {
        uint64_t bits = ap_rng_u64((uint64_t)version, AP_RNG_TEST + 1 + (uint64_t)tensor, (uint64_t)i);
        float f = ((float)(bits >> 40) / 16777216.0f - 0.5f) * 0.02f; /* like a weight: exponents repeat */
        char *dst = (char *)out + (size_t)(i - begin) * width;
        memcpy(dst, dtype == AP_F32 ? (const void *)&f : (const void *)&bits, width);
    }
}

/* Range number k of tensor t on a rank; returns 0 when there are no more. */
static inline int cf_range(int scheme, int t, int k, int rank, int ranks, int64_t n, int64_t *begin, int64_t *end)
{
    int64_t r = rank, s = ranks;
    *begin = *end = 0;
    switch (scheme) {
    case CF_EVEN:
        *begin = n * r / s;
        *end = n * (r + 1) / s;
        return k < 1;
    case CF_WHOLE:
        *end = t % ranks == rank ? n : 0;
        return k < 1;
    case CF_UNEVEN:
        *begin = n * r * r / (s * s);
        *end = n * (r + 1) * (r + 1) / (s * s);
        return k < 1;
    case CF_PIECES: /* one piece from the front half, one from the back; a front piece that is empty is left out */
        r = k == 0 && n * r / (2 * s) < n * (r + 1) / (2 * s) ? r : 2 * s - 1 - r;
        *begin = n * r / (2 * s);
        *end = n * (r + 1) / (2 * s);
        return k < 1 || (k < 2 && *begin < *end && n * rank / (2 * s) < n * (rank + 1) / (2 * s));
    default:
        *end = n;
        return k < 1;
    }
}

/* fill: content of that version; else a poison that no content equals. Returns 0, or -1 out of memory. */
static inline int cf_make(struct cf_set *c, int rank, int ranks, int scheme, int tensors, int version, int fill)
{
    memset(c, 0, sizeof *c);
    for (int t = 0; t < tensors; t++) {
        struct ap_named nt = {.dtype = cf_tensors[t].dtype, .ndim = cf_tensors[t].ndim};
        snprintf(nt.name, sizeof nt.name, "%s", cf_tensors[t].name);
        memcpy(nt.shape, cf_tensors[t].shape, sizeof nt.shape);
        int64_t n = ap_named_elements(&nt);
        for (int k = 0; cf_range(scheme, t, k, rank, ranks, n, &nt.begin, &nt.end); k++) {
            size_t bytes = (size_t)(nt.end - nt.begin) * ap_dtype_size(nt.dtype);
            nt.data = malloc(bytes + 1);
            if (nt.data == NULL)
                return -1;
            c->bufs[c->bufs_used++] = nt.data;
            if (fill)
                cf_content(version, t, nt.dtype, nt.begin, nt.end, nt.data);
            else
                memset(nt.data, 0xa5, bytes);
            if (ap_named_set_add(&c->set, &nt, NULL) != AP_OK)
                return -1;
        }
    }
    return 0;
}

static inline void cf_free(struct cf_set *c)
{
    for (int i = 0; i < c->bufs_used; i++)
        free(c->bufs[i]);
    ap_named_set_clear(&c->set);
    c->bufs_used = 0;
}

/* Ranges that differ from the content of a version. */
static inline int cf_wrong(const struct cf_set *c, int version)
{
    int wrong = 0;
    for (int64_t i = 0; i < c->set.count; i++) {
        const struct ap_named *t = &c->set.list[i];
        size_t bytes = (size_t)(t->end - t->begin) * ap_dtype_size(t->dtype);
        void *want = malloc(bytes + 1);
        int id = 0;
        while (strcmp(cf_tensors[id].name, t->name) != 0)
            id++;
        if (want == NULL)
            return -1;
        cf_content(version, id, t->dtype, t->begin, t->end, want);
        wrong += memcmp(want, t->data, bytes) != 0;
        free(want);
    }
    return wrong;
}

static inline int cf_version_of(const char *meta)
{
    int v = -1;
    return sscanf(meta, "{\"version\":%d", &v) == 1 ? v : -1;
}

static inline ap_status cf_save(struct ap_ckpt_store *store, struct ap_comm *comm, int64_t step, int version,
                                int scheme, int tensors, int best, struct ap_error *err)
{
    struct cf_set c;
    char meta[64];
    snprintf(meta, sizeof meta, "{\"version\":%d}", version);
    ap_status status = cf_make(&c, comm->rank, comm->size, scheme, tensors, version, 1) == 0
                           ? ap_ckpt_save(store, step, &c.set, meta, best, err)
                           : AP_ERR_NOMEM;
    cf_free(&c);
    return status;
}

/* Loads and compares: *version_p is what the meta says, -2 if the tensors differ from it. */
static inline ap_status cf_load(struct ap_ckpt_store *store, struct ap_comm *comm, int64_t step, int scheme,
                                int tensors, int64_t *step_p, int *version_p, struct ap_error *err)
{
    struct cf_set c;
    char *meta = NULL;
    if (cf_make(&c, comm->rank, comm->size, scheme, tensors, 0, 0) != 0)
        return AP_ERR_NOMEM;
    ap_status status = ap_ckpt_load(store, step, &c.set, &meta, step_p, err);
    if (status == AP_OK) {
        *version_p = cf_version_of(meta);
        if (cf_wrong(&c, *version_p) != 0)
            *version_p = -2;
        free(meta);
    }
    cf_free(&c);
    return status;
}

/* A fresh directory of this test; removed with the test's TMPDIR, or by cf_rmdir. */
static inline void cf_tempdir(char *buf, size_t size)
{
    const char *base = getenv("TMPDIR");
    snprintf(buf, size, "%s/ckpt-XXXXXX", base != NULL ? base : "/tmp");
    cr_assert_not_null(mkdtemp(buf));
}

/* One-rank store on dir. */
static inline struct ap_ckpt_store *cf_open(const char *dir, struct ap_comm *comm, int keep, int read_only)
{
    struct ap_ckpt_options opt = {.dir = dir, .keep = keep, .read_only = read_only};
    struct ap_ckpt_store *store = NULL;
    struct ap_error err = {0};
    ap_status status = ap_ckpt_store_open(&opt, comm, &store, &err);
    cr_assert_eq(status, AP_OK, "%s %s", err.file, err.text);
    return store;
}

#endif
