/* SPDX-License-Identifier: Apache-2.0
 * oneDNN matmul primitives with weights in format "any". */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/packed.h"

#ifdef AP_HAVE_ONEDNN

#include <dnnl.h>

struct entry {
    dnnl_primitive_t primitive; /* NULL: not made yet */
    dnnl_memory_t a, b, c, scratch;
    void *scratch_mem;
};

struct ap_packed_table {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct entry *list;
    int64_t capacity;
};

struct ap_packed_table *ap_packed_create(void)
{
    struct ap_packed_table *t = calloc(1, sizeof *t);
    if (t && (dnnl_engine_create(&t->engine, dnnl_cpu, 0) != dnnl_success ||
              dnnl_stream_create(&t->stream, t->engine, dnnl_stream_default_flags) != dnnl_success)) {
        ap_packed_destroy(t);
        return NULL;
    }
    return t;
}

static void release(struct entry *e)
{
    dnnl_memory_destroy(e->a);
    dnnl_memory_destroy(e->b);
    dnnl_memory_destroy(e->c);
    dnnl_memory_destroy(e->scratch);
    dnnl_primitive_destroy(e->primitive);
    free(e->scratch_mem);
    memset(e, 0, sizeof *e);
}

void ap_packed_destroy(struct ap_packed_table *t)
{
    if (!t)
        return;
    for (int64_t i = 0; i < t->capacity; i++)
        if (t->list[i].primitive)
            release(&t->list[i]);
    free(t->list);
    dnnl_stream_destroy(t->stream);
    dnnl_engine_destroy(t->engine);
    free(t);
}

static int describe(const struct ap_sgemm *g, dnnl_memory_desc_t md[3])
{
    dnnl_dims_t a = {g->m, g->k}, b = {g->k, g->n}, c = {g->m, g->n};
    dnnl_dims_t as = {g->trans_a ? 1 : g->lda, g->trans_a ? g->lda : 1}, cs = {g->ldc, 1};
    dnnl_data_type_t in = g->a_bf16 ? dnnl_bf16 : dnnl_f32, out = g->c_bf16 ? dnnl_bf16 : dnnl_f32;
    return dnnl_memory_desc_create_with_strides(&md[0], 2, a, in, as) == dnnl_success &&
           dnnl_memory_desc_create_with_tag(&md[1], 2, b, in, dnnl_format_tag_any) == dnnl_success &&
           dnnl_memory_desc_create_with_strides(&md[2], 2, c, out, cs) == dnnl_success;
}

static int attributes(const struct ap_sgemm *g, dnnl_primitive_attr_t *attr)
{
    dnnl_post_ops_t ops = NULL;
    int ok = dnnl_primitive_attr_create(attr) == dnnl_success &&
             dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user) == dnnl_success;
    if (ok && g->accumulate) {
        ok = dnnl_post_ops_create(&ops) == dnnl_success &&
             dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef) == dnnl_success &&
             dnnl_primitive_attr_set_post_ops(*attr, ops) == dnnl_success;
        dnnl_post_ops_destroy(ops);
    }
    return ok;
}

static int memories(struct ap_packed_table *t, struct entry *e, dnnl_memory_desc_t md[3], dnnl_primitive_desc_t pd)
{
    const_dnnl_memory_desc_t scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    size_t size = (dnnl_memory_desc_get_size(scratch) + 127) / 64 * 64;
    e->scratch_mem = aligned_alloc(64, size);
    return e->scratch_mem && dnnl_memory_create(&e->a, md[0], t->engine, DNNL_MEMORY_NONE) == dnnl_success &&
           dnnl_memory_create(&e->b, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), t->engine,
                              DNNL_MEMORY_NONE) == dnnl_success &&
           dnnl_memory_create(&e->c, md[2], t->engine, DNNL_MEMORY_NONE) == dnnl_success &&
           dnnl_memory_create(&e->scratch, scratch, t->engine, e->scratch_mem) == dnnl_success;
}

static ap_status build(struct ap_packed_table *t, struct entry *e, const struct ap_sgemm *g)
{
    dnnl_memory_desc_t md[3] = {NULL, NULL, NULL};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    int ok = describe(g, md) && attributes(g, &attr) &&
             dnnl_matmul_primitive_desc_create(&pd, t->engine, md[0], md[1], NULL, md[2], attr) == dnnl_success &&
             dnnl_primitive_create(&e->primitive, pd) == dnnl_success && memories(t, e, md, pd);
    for (int i = 0; i < 3; i++)
        dnnl_memory_desc_destroy(md[i]);
    dnnl_primitive_attr_destroy(attr);
    dnnl_primitive_desc_destroy(pd);
    if (!ok)
        release(e);
    return ok ? AP_OK : AP_ERR_ENV;
}

static ap_status entry_of(struct ap_packed_table *t, int64_t shape, const struct ap_sgemm *g, struct entry **e_p)
{
    if (shape >= t->capacity) {
        int64_t capacity = 2 * shape + 64;
        struct entry *list = realloc(t->list, (size_t)capacity * sizeof *list);
        if (!list)
            return AP_ERR_NOMEM;
        memset(list + t->capacity, 0, (size_t)(capacity - t->capacity) * sizeof *list);
        t->list = list;
        t->capacity = capacity;
    }
    *e_p = &t->list[shape];
    return (*e_p)->primitive ? AP_OK : build(t, *e_p, g);
}

ap_status ap_packed_sgemm(struct ap_packed_table *t, int64_t shape, const struct ap_sgemm *g)
{
    struct entry *e;
    AP_TRY(entry_of(t, shape, g, &e));
    union {
        const void *in;
        void *any;
    } a = {g->a}, b = {g->b};
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, e->a}, {DNNL_ARG_WEIGHTS, e->b}, {DNNL_ARG_DST, e->c}, {DNNL_ARG_SCRATCHPAD, e->scratch}};
    int ok = dnnl_memory_set_data_handle(e->a, a.any) == dnnl_success &&
             dnnl_memory_set_data_handle(e->b, b.any) == dnnl_success &&
             dnnl_memory_set_data_handle(e->c, g->c) == dnnl_success &&
             dnnl_primitive_execute(e->primitive, t->stream, 4, args) == dnnl_success;
    return ok ? AP_OK : AP_ERR_ENV;
}

#else

struct ap_packed_table *ap_packed_create(void)
{
    return NULL;
}

void ap_packed_destroy(struct ap_packed_table *t)
{
    (void)t;
}

ap_status ap_packed_sgemm(struct ap_packed_table *t, int64_t shape, const struct ap_sgemm *g)
{
    (void)t;
    (void)shape;
    (void)g;
    return AP_ERR_UNSUPPORTED;
}

#endif
