/* SPDX-License-Identifier: Apache-2.0
 * Matrix products by oneDNN, for one worker. Products whose shape comes back every step go through matmul
 * primitives, made once per shape and kept in a table of bounded size, with scratchpads of our own; f32 products
 * whose number of rows changes with the routing (experts) go through dnnl_sgemm, which needs no primitive.
 * oneDNN runs on OpenMP: inside a pool task it must have one thread. */
#include "config.h"

#include "backend/cpu/cpu.h"

#ifdef AP_HAVE_ONEDNN

#include <dlfcn.h>
#include <dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define SLOTS    512 /* a power of two */
#define USED_MAX 384 /* beyond this the table starts afresh: a model uses a few dozen shapes */

struct key {
    int64_t m, n, k, lda, ldb, ldc, flags;
};

struct entry {
    struct key key;
    dnnl_primitive_t primitive; /* NULL: free slot */
    dnnl_memory_t a, b, c, scratch;
    size_t scratch_size;
};

struct ap_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct entry table[SLOTS];
    int used;
    struct cpu_buffer scratch;
};

static void entry_free(struct entry *e)
{
    dnnl_memory_destroy(e->a);
    dnnl_memory_destroy(e->b);
    dnnl_memory_destroy(e->c);
    dnnl_memory_destroy(e->scratch);
    dnnl_primitive_destroy(e->primitive);
    memset(e, 0, sizeof(*e));
}

static void table_clear(struct ap_dnnl *d)
{
    for (int i = 0; i < SLOTS; i++) {
        if (d->table[i].primitive)
            entry_free(&d->table[i]);
    }
    d->used = 0;
}

static void one_openmp_thread(void)
{
    void *symbol = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (symbol) {
        void (*set)(int);
        memcpy(&set, &symbol, sizeof(set));
        set(1);
    }
}

struct ap_dnnl *ap_dnnl_create(void)
{
    struct ap_dnnl *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    one_openmp_thread();
    if (dnnl_engine_create(&d->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags) != dnnl_success) {
        ap_dnnl_destroy(d);
        return NULL;
    }
    return d;
}

void ap_dnnl_destroy(struct ap_dnnl *d)
{
    if (!d)
        return;
    table_clear(d);
    if (d->stream)
        dnnl_stream_destroy(d->stream);
    if (d->engine)
        dnnl_engine_destroy(d->engine);
    free(d->scratch.mem);
    free(d);
}

static ap_status check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return AP_OK;
    ap_error_log("oneDNN: %s failed with code %d", what, (int)status);
    return status == dnnl_out_of_memory ? AP_ERR_NOMEM : AP_ERR_ENV;
}

static ap_status describe(dnnl_memory_desc_t *md, int64_t rows, int64_t cols, int64_t ld, int trans, int bf16)
{
    dnnl_dims_t dims = {rows, cols}, strides = {trans ? 1 : ld, trans ? ld : 1};
    return check(dnnl_memory_desc_create_with_strides(md, 2, dims, bf16 ? dnnl_bf16 : dnnl_f32, strides),
                 "a memory descriptor");
}

static ap_status attributes(dnnl_primitive_attr_t *attr, int accumulate)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(attr);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (accumulate && status == dnnl_success) {
        status = dnnl_post_ops_create(&ops);
        if (status == dnnl_success)
            status = dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
        if (status == dnnl_success)
            status = dnnl_primitive_attr_set_post_ops(*attr, ops);
        dnnl_post_ops_destroy(ops);
    }
    return check(status, "attributes");
}

/* Memory objects without memory: their addresses are set per call. */
static ap_status memories(struct ap_dnnl *d, struct entry *e, const_dnnl_memory_desc_t a, const_dnnl_memory_desc_t b,
                          const_dnnl_memory_desc_t c, const_dnnl_primitive_desc_t pd)
{
    const_dnnl_memory_desc_t scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    e->scratch_size = dnnl_memory_desc_get_size(scratch);
    AP_TRY(check(dnnl_memory_create(&e->a, a, d->engine, DNNL_MEMORY_NONE), "a memory object"));
    AP_TRY(check(dnnl_memory_create(&e->b, b, d->engine, DNNL_MEMORY_NONE), "a memory object"));
    AP_TRY(check(dnnl_memory_create(&e->c, c, d->engine, DNNL_MEMORY_NONE), "a memory object"));
    return check(dnnl_memory_create(&e->scratch, scratch, d->engine, DNNL_MEMORY_NONE), "a memory object");
}

static ap_status build(struct ap_dnnl *d, struct entry *e, const struct ap_sgemm *g)
{
    dnnl_memory_desc_t a = NULL, b = NULL, c = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    ap_status status = describe(&a, g->m, g->k, g->lda, g->trans_a, g->a_bf16);
    if (status == AP_OK)
        status = describe(&b, g->k, g->n, g->ldb, g->trans_b, g->b_bf16);
    if (status == AP_OK)
        status = describe(&c, g->m, g->n, g->ldc, 0, g->c_bf16);
    if (status == AP_OK)
        status = attributes(&attr, g->accumulate);
    if (status == AP_OK)
        status = check(dnnl_matmul_primitive_desc_create(&pd, d->engine, a, b, NULL, c, attr), "a matmul descriptor");
    if (status == AP_OK)
        status = check(dnnl_primitive_create(&e->primitive, pd), "a matmul primitive");
    if (status == AP_OK)
        status = memories(d, e, a, b, c, pd);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    dnnl_memory_desc_destroy(a);
    dnnl_memory_desc_destroy(b);
    dnnl_memory_desc_destroy(c);
    if (status != AP_OK)
        entry_free(e);
    return status;
}

static uint64_t mix(const struct key *key)
{
    const int64_t parts[] = {key->m, key->n, key->k, key->lda, key->ldb, key->ldc, key->flags};
    uint64_t h = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        h = (h ^ (uint64_t)parts[i]) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}

static int equal(const struct key *a, const struct key *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc &&
           a->flags == b->flags;
}

static ap_status find(struct ap_dnnl *d, const struct ap_sgemm *g, struct entry **entry_p)
{
    int64_t flags =
        g->trans_a | g->trans_b << 1 | (g->accumulate != 0) << 2 | g->a_bf16 << 3 | g->b_bf16 << 4 | g->c_bf16 << 5;
    struct key key = {g->m, g->n, g->k, g->lda, g->ldb, g->ldc, flags};
    if (d->used >= USED_MAX)
        table_clear(d);
    uint64_t slot = mix(&key) % SLOTS;
    while (d->table[slot].primitive && !equal(&d->table[slot].key, &key))
        slot = (slot + 1) % SLOTS;
    struct entry *e = &d->table[slot];
    if (!e->primitive) {
        AP_TRY(build(d, e, g));
        e->key = key;
        d->used++;
    }
    *entry_p = e;
    return AP_OK;
}

static ap_status execute(struct ap_dnnl *d, struct entry *e, const struct ap_sgemm *g)
{
    AP_TRY(cpu_buffer_need(&d->scratch, e->scratch_size ? e->scratch_size : 1));
    /* The C interface takes inputs without const; matmul does not write them. */
    union {
        const void *in;
        void *any;
    } a = {g->a}, b = {g->b};
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, e->b}, {DNNL_ARG_DST, e->c}, {DNNL_ARG_SCRATCHPAD, e->scratch}};
    dnnl_status_t status = dnnl_memory_set_data_handle(e->a, a.any);
    if (status == dnnl_success)
        status = dnnl_memory_set_data_handle(e->b, b.any);
    if (status == dnnl_success)
        status = dnnl_memory_set_data_handle(e->c, g->c);
    if (status == dnnl_success)
        status = dnnl_memory_set_data_handle(e->scratch, d->scratch.mem);
    if (status == dnnl_success)
        status = dnnl_primitive_execute(e->primitive, d->stream, 4, args);
    return check(status, "matmul");
}

/* The C interface has no bf16 product without a primitive. The dimension that the routing decides (k of a weight
 * gradient, else m) is cut into powers of two, so that few primitives serve all sizes. */
static ap_status routed_bf16(struct ap_dnnl *d, const struct ap_sgemm *g)
{
    int by_k = g->trans_a && !g->c_bf16;
    int64_t total = by_k ? g->k : g->m, done = 0;
    struct ap_sgemm part = *g;
    for (int64_t size = INT64_C(1) << 62; size > 0; size /= 2) {
        struct entry *e = NULL;
        if (!(total & size))
            continue;
        *(by_k ? &part.k : &part.m) = size;
        part.a = (const uint16_t *)g->a + done * (by_k || !g->trans_a ? g->lda : 1);
        if (by_k) {
            part.b = (const uint16_t *)g->b + done * (g->trans_b ? 1 : g->ldb);
            part.accumulate = g->accumulate || done > 0;
        } else {
            part.c = ap_sgemm_at(g->c, g->c_bf16, done * g->ldc);
        }
        AP_TRY(find(d, &part, &e));
        AP_TRY(execute(d, e, &part));
        done += size;
    }
    return AP_OK;
}

int ap_dnnl_has_bf16(struct ap_dnnl *d)
{
    dnnl_memory_desc_t a = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_dims_t dims = {16, 16}, strides = {16, 1};
    int has = dnnl_memory_desc_create_with_strides(&a, 2, dims, dnnl_bf16, strides) == dnnl_success &&
              dnnl_matmul_primitive_desc_create(&pd, d->engine, a, a, NULL, a, NULL) == dnnl_success;
    dnnl_primitive_desc_destroy(pd);
    dnnl_memory_desc_destroy(a);
    return has;
}

ap_status ap_dnnl_sgemm(struct ap_dnnl *d, const struct ap_sgemm *g, int fixed)
{
    struct entry *e = NULL;
    if (g->a_bf16 && !fixed)
        return routed_bf16(d, g);
    if (!fixed)
        return check(dnnl_sgemm(g->trans_a ? 'T' : 'N', g->trans_b ? 'T' : 'N', g->m, g->n, g->k, 1.0f, g->a, g->lda,
                                g->b, g->ldb, g->accumulate ? 1.0f : 0.0f, g->c, g->ldc),
                     "sgemm");
    AP_TRY(find(d, g, &e));
    return execute(d, e, g);
}

#else

struct ap_dnnl *ap_dnnl_create(void)
{
    return NULL;
}

void ap_dnnl_destroy(struct ap_dnnl *d)
{
    (void)d;
}

int ap_dnnl_has_bf16(struct ap_dnnl *d)
{
    (void)d;
    return 0;
}

ap_status ap_dnnl_sgemm(struct ap_dnnl *d, const struct ap_sgemm *g, int fixed)
{
    (void)d;
    (void)g;
    (void)fixed;
    return AP_ERR_UNSUPPORTED;
}

#endif
