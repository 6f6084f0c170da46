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

/* From CF_COLUMNS on in slabs of columns, where a tensor has 3 rows and 3 columns (else as CF_EVEN): two slabs, each
 * cut inside of rows; one slab per rank; seven blocks of rows and columns with ragged ends. */
enum { CF_EVEN, CF_WHOLE, CF_UNEVEN, CF_PIECES, CF_REPLICA, CF_COLUMNS, CF_SPLIT, CF_BLOCKS };
#define CF_PIECES_MAX 7

struct cf_set {
    struct ap_named_set set;
    void *bufs[CF_ALL * CF_PIECES_MAX];
    int bufs_used;
};

/* The content of a range, element by element of the global tensor. */
static inline void cf_content(int version, int tensor, const struct ap_named *t, void *out)
{
    size_t size = ap_dtype_size(t->dtype);
    for (int64_t i = t->begin; i < t->end; i++) {
        int64_t at = t->width > 0 ? i / t->width * t->shape[1] + t->col + i % t->width : i;
        uint64_t bits = ap_rng_u64((uint64_t)version, AP_RNG_TEST + 1 + (uint64_t)tensor, (uint64_t)at);
        float f = ((float)(bits >> 40) / 16777216.0f - 0.5f) * 0.02f; /* like a weight: exponents repeat */
        char *dst = (char *)out + (size_t)(i - t->begin) * size;
        memcpy(dst, t->dtype == AP_F32 ? (const void *)&f : (const void *)&bits, size);
    }
}

static inline void cf_put(struct ap_named *t, int64_t col, int64_t width, int64_t begin, int64_t end)
{
    t->col = col;
    t->width = width;
    t->begin = begin;
    t->end = end;
}

/* Block j of 7: all columns down to the middle of row r1; left and right half of the rows to r2; below that three
 * groups of columns, the middle one cut inside of a row. */
static inline void cf_block(struct ap_named *t, int j)
{
    int64_t rows = t->shape[0], cols = t->shape[1], r1 = rows / 3, r2 = 2 * rows / 3, half = cols / 2, c1 = cols / 3;
    int64_t c2 = 2 * cols / 3, w = c2 - c1, cut = r2 * w + (rows - r2) * w / 2;
    const int64_t blocks[CF_PIECES_MAX][4] = {
        {0, 0, 0, r1 * cols + half},
        {0, half, (r1 + 1) * half, r2 * half},
        {half, cols - half, r1 * (cols - half), r2 * (cols - half)},
        {0, c1, r2 * c1, rows * c1},
        {c1, w, r2 * w, cut},
        {c1, w, cut, rows * w},
        {c2, cols - c2, r2 * (cols - c2), rows * (cols - c2)},
    };
    cf_put(t, blocks[j][0], blocks[j][1], blocks[j][2], blocks[j][3]);
}

/* Range number k of tensor t on a rank, one of slabs; returns 0 when there are no more. */
static inline int cf_slab(int scheme, int k, int64_t r, int64_t s, struct ap_named *t)
{
    int64_t cols = t->shape[1], c0 = k == 0 ? 0 : cols / 3, c1 = k == 0 ? cols / 3 : cols;
    int64_t n = t->shape[0] * (c1 - c0);
    if (scheme == CF_COLUMNS) {
        cf_put(t, c0, c1 - c0, n * r * r / (s * s), n * (r + 1) * (r + 1) / (s * s));
        return k < 2;
    }
    if (scheme == CF_SPLIT) {
        c0 = cols * r / s;
        c1 = cols * (r + 1) / s;
        cf_put(t, c0, c1 - c0, 0, t->shape[0] * (c1 - c0));
        return k < 1;
    }
    if (r + k * s >= CF_PIECES_MAX)
        return 0;
    cf_block(t, (int)(r + k * s));
    return 1;
}

/* Range number k of tensor t (number id) on a rank; returns 0 when there are no more. */
static inline int cf_range(int scheme, int id, int k, int rank, int ranks, struct ap_named *t)
{
    int64_t r = rank, s = ranks, n = ap_named_elements(t);
    if (scheme >= CF_COLUMNS && t->ndim == 2 && t->shape[0] >= 3 && t->shape[1] >= 3 && t->shape[1] >= s)
        return cf_slab(scheme, k, r, s, t);
    switch (scheme) {
    case CF_WHOLE:
        cf_put(t, 0, 0, 0, id % ranks == rank ? n : 0);
        return k < 1;
    case CF_UNEVEN:
        cf_put(t, 0, 0, n * r * r / (s * s), n * (r + 1) * (r + 1) / (s * s));
        return k < 1;
    case CF_PIECES: /* one piece from the front half, one from the back; a front piece that is empty is left out */
        r = k == 0 && n * r / (2 * s) < n * (r + 1) / (2 * s) ? r : 2 * s - 1 - r;
        cf_put(t, 0, 0, n * r / (2 * s), n * (r + 1) / (2 * s));
        return k < 1 || (k < 2 && t->begin < t->end && n * rank / (2 * s) < n * (rank + 1) / (2 * s));
    case CF_REPLICA:
        cf_put(t, 0, 0, 0, n);
        return k < 1;
    default:
        cf_put(t, 0, 0, n * r / s, n * (r + 1) / s);
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
        for (int k = 0; cf_range(scheme, t, k, rank, ranks, &nt); k++) {
            if (nt.width > 0 && nt.begin == nt.end)
                continue; /* a slab may begin where the next one does */
            size_t bytes = (size_t)(nt.end - nt.begin) * ap_dtype_size(nt.dtype);
            nt.data = malloc(bytes + 1);
            if (nt.data == NULL)
                return -1;
            c->bufs[c->bufs_used++] = nt.data;
            if (fill)
                cf_content(version, t, &nt, nt.data);
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
        cf_content(version, id, t, want);
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
