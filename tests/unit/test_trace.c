/* SPDX-License-Identifier: Apache-2.0
 * The trace file: whole JSON after every flush, escaping, nesting, bounds, joining; the range of steps; operands. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yyjson.h>
#include <criterion/criterion.h>

#include "../support/leaks.h"
#include "backend/cost.h"
#include "backend/operands.h"
#include "base/io.h"
#include "base/pool.h"
#include "base/trace.h"
#include "train/tracing.h"

static char dir[128], path[200];

static void make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/ap-trace-XXXXXX", tmp && strlen(tmp) < 80 ? tmp : "/tmp");
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/t.json", dir);
}
static void drop_dir(void)
{
    ap_io_remove_tree(dir, NULL);
}
TestSuite(trace, .init = make_dir, .fini = drop_dir, .timeout = 30);

/* Whole, strict JSON. */
static yyjson_doc *parsed(void)
{
    char *text = NULL;
    size_t n = 0;
    yyjson_read_err e;
    cr_assert_eq(ap_io_read_file(path, 1 << 24, &text, &n, NULL), AP_OK);
    yyjson_doc *doc = yyjson_read_opts(text, n, 0, NULL, &e);
    cr_assert(doc && yyjson_is_arr(yyjson_doc_get_root(doc)), "at byte %zu: %s", e.pos, e.msg);
    free(text);
    return doc;
}

static yyjson_val *event(yyjson_doc *doc, const char *name)
{
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, v)
    {
        if (strcmp(yyjson_get_str(yyjson_obj_get(v, "name")), name) == 0)
            return v;
    }
    cr_assert(0, "no event %s", name);
    return NULL;
}

static int64_t events(yyjson_doc *doc, const char *name)
{
    size_t i, n;
    int64_t count = 0;
    yyjson_val *v;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, v)
    {
        count += strcmp(yyjson_get_str(yyjson_obj_get(v, "name")), name) == 0;
    }
    return count;
}

static double number(yyjson_val *v, const char *key)
{
    cr_assert(yyjson_is_num(yyjson_obj_get(v, key)), "no number %s", key);
    return yyjson_get_num(yyjson_obj_get(v, key));
}

static struct ap_trace *opened(int64_t capacity, int64_t limit)
{
    struct ap_trace *t = NULL;
    struct ap_trace_options o = {.path = path,
                                 .host = "ho\"st\\\n",
                                 .rank = 3,
                                 .ranks = 4,
                                 .threads = 3,
                                 .zero = 100,
                                 .capacity = capacity,
                                 .file_limit = limit};
    cr_assert_eq(ap_trace_open(&o, &t, NULL), AP_OK);
    return t;
}

static void add(struct ap_trace *t, const char *name, double begin, double end)
{
    ap_trace_add(t, "test", name, begin, end, &(struct ap_trace_args){0});
}

AP_TEST(trace, events_and_escaping)
{
    struct ap_trace *t = opened(0, 0);
    yyjson_doc_free(parsed()); /* before the first span too */
    struct ap_trace_args a = {.number_key = "layer",
                              .number = -7,
                              .dtype = "f32",
                              .flops = 2e18,
                              .bytes = 0.5,
                              .shapes = 2,
                              .shape = {{"a", 3, {2, 3, 4}}, {"b", 1, {1000000007}}}};
    ap_trace_add(t, "c\"at", "na\\me\t\x01\xc3\xa4\xff", 100.0000015, 101.25, &a);
    add(t, "early", 99.5, 99.75);
    ap_trace_flush(t);
    yyjson_doc *doc = parsed();
    yyjson_val *v = event(doc, "na\\me\t\x01\xc3\xa4\xef\xbf\xbd");
    cr_expect_str_eq(yyjson_get_str(yyjson_obj_get(v, "cat")), "c\"at");
    cr_expect_str_eq(yyjson_get_str(yyjson_obj_get(v, "ph")), "X");
    cr_expect_eq(number(v, "pid"), 3);
    cr_expect_eq(number(v, "tid"), 0);
    cr_expect_float_eq(number(v, "ts"), 1.5, 0.0011);
    cr_expect_float_eq(number(v, "dur"), 1249998.5, 0.0011);
    cr_expect_eq(number(event(doc, "early"), "ts"), -500000);
    v = yyjson_obj_get(v, "args");
    cr_expect_eq(number(v, "layer"), -7);
    cr_expect_eq(number(v, "flops"), 2e18);
    cr_expect_eq(number(v, "bytes"), 0.5);
    cr_expect_str_eq(yyjson_get_str(yyjson_obj_get(v, "a")), "2x3x4");
    cr_expect_str_eq(yyjson_get_str(yyjson_obj_get(v, "b")), "1000000007");
    v = yyjson_obj_get(event(doc, "process_name"), "args");
    cr_expect_str_eq(yyjson_get_str(yyjson_obj_get(v, "name")), "rank 3 on ho\"st\\\n");
    yyjson_doc_free(doc);
    ap_trace_close(t);
}

/* Ends are rounded down like begins: a span never sticks out of the one around it. */
AP_TEST(trace, nesting_survives_rounding)
{
    struct ap_trace *t = opened(0, 0);
    double at = 100;
    for (int i = 0; i < 500; i++) {
        double end = at + 1.23456789e-6 * (i + 1);
        add(t, "inner", at + 1e-10, end);
        add(t, "outer", at, end);
        at = end + 3.3e-10;
    }
    ap_trace_flush(t);
    yyjson_doc *doc = parsed();
    size_t i, n;
    yyjson_val *v;
    int64_t in_from = 0, in_to = 0, seen = 0;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, v)
    {
        if (strcmp(yyjson_get_str(yyjson_obj_get(v, "ph")), "X") != 0)
            continue;
        int64_t from = (int64_t)(number(v, "ts") * 1000 + 0.5), to = from + (int64_t)(number(v, "dur") * 1000 + 0.5);
        if (strcmp(yyjson_get_str(yyjson_obj_get(v, "name")), "inner") == 0) {
            in_from = from;
            in_to = to;
            continue;
        }
        cr_expect(from <= in_from && in_to <= to, "%ld-%ld is not inside %ld-%ld", (long)in_from, (long)in_to,
                  (long)from, (long)to);
        seen++;
    }
    cr_expect_eq(seen, 500);
    yyjson_doc_free(doc);
    ap_trace_close(t);
}

AP_TEST(trace, whole_after_every_flush)
{
    struct ap_trace *t = opened(0, 0);
    for (int i = 1; i <= 5; i++) {
        for (int k = 0; k < i; k++)
            add(t, "span", 100 + k, 101 + k);
        ap_trace_flush(t);
        yyjson_doc *doc = parsed();
        cr_expect_eq(events(doc, "span"), i * (i + 1) / 2);
        yyjson_doc_free(doc);
    }
    ap_trace_close(t);
    yyjson_doc *doc = parsed();
    cr_expect_eq(events(doc, "trace write"), 5); /* what writing cost stands there as well */
    yyjson_doc_free(doc);
}

AP_TEST(trace, bounds)
{
    struct ap_trace *t = opened(8, 0);
    for (int i = 0; i < 20; i++)
        add(t, "span", 100, 101);
    cr_expect_eq(ap_trace_dropped(t), 12);
    ap_trace_flush(t);
    yyjson_doc *doc = parsed();
    cr_expect_eq(events(doc, "span"), 8);
    cr_expect_eq(number(yyjson_obj_get(event(doc, "spans dropped"), "args"), "spans"), 12);
    yyjson_doc_free(doc);
    for (int i = 0; i < 4; i++) /* one "trace write" and these: more than half */
        add(t, "late", 100, 101);
    ap_trace_relieve(t);
    doc = parsed();
    cr_expect_eq(events(doc, "late"), 4);
    yyjson_doc_free(doc);
    ap_trace_close(t);

    t = opened(8, 2000);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 7; i++)
            add(t, "span", 100, 101);
        ap_trace_flush(t);
    }
    cr_expect_lt(ap_trace_body_size(t), 2000 + 8 * 200, "%ld", (long)ap_trace_body_size(t));
    cr_expect_gt(ap_trace_dropped(t), 300);
    ap_trace_close(t);
    yyjson_doc_free(parsed());
}

static void busy(void *ctx, int64_t task, int worker)
{
    (void)worker;
    ((int *)ctx)[task]++;
    usleep(300);
}

/* Spans of the pool's threads lie inside of the run, one for each run and thread. */
AP_TEST(trace, workers)
{
    struct ap_pool *pool = NULL;
    int done[64] = {0};
    cr_assert_eq(ap_pool_create(3, &pool, NULL), AP_OK);
    struct ap_trace *t = opened(0, 0);
    ap_pool_observe(pool, ap_trace_task, t);
    static const char *const names[] = {"one", "two", "three"};
    for (int i = 0; i < 3; i++) {
        double begin = ap_trace_begin(t);
        ap_trace_working_on(t, names[i]);
        ap_pool_run(pool, 64, busy, done);
        ap_trace_end(t, "test", "run", "number", i, begin);
    }
    ap_pool_observe(pool, NULL, NULL);
    ap_pool_run(pool, 64, busy, done);
    for (int i = 0; i < 64; i++)
        cr_expect_eq(done[i], 4);
    ap_trace_close(t);
    ap_pool_destroy(pool);
    yyjson_doc *doc = parsed();
    size_t i, n;
    yyjson_val *v, *run = NULL;
    int spans = 0;
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, v)
    {
        if (number(v, "tid") == 0 || strcmp(yyjson_get_str(yyjson_obj_get(v, "ph")), "X") != 0)
            continue;
        const char *name = yyjson_get_str(yyjson_obj_get(v, "name"));
        size_t k, all;
        yyjson_val *r;
        yyjson_arr_foreach(yyjson_doc_get_root(doc), k, all, r)
        {
            if (strcmp(yyjson_get_str(yyjson_obj_get(r, "name")), "run") == 0 &&
                strcmp(names[(int)number(yyjson_obj_get(r, "args"), "number")], name) == 0)
                run = r;
        }
        cr_assert(run);
        cr_expect_geq(number(v, "ts"), number(run, "ts"));
        cr_expect_leq(number(v, "ts") + number(v, "dur"), number(run, "ts") + number(run, "dur") + 1e-3);
        spans++;
    }
    cr_expect(spans >= 1 && spans <= 6, "%d spans of two threads in three runs", spans);
    yyjson_doc_free(doc);
}

AP_TEST(trace, join)
{
    char other[200], piece[17];
    snprintf(other, sizeof(other), "%s/other.json", dir);
    struct ap_trace *t = opened(0, 0), *o = NULL;
    struct ap_trace_options opt = {.path = other, .rank = 1, .ranks = 2, .threads = 1};
    cr_assert_eq(ap_trace_open(&opt, &o, NULL), AP_OK);
    add(t, "mine", 100, 101);
    for (int i = 0; i < 30; i++)
        add(o, "other", 1, 2);
    ap_trace_flush(t);
    ap_trace_flush(o);
    for (int64_t at = 0, all = ap_trace_body_size(o); at < all; at += (int64_t)sizeof(piece)) {
        int64_t n = all - at < (int64_t)sizeof(piece) ? all - at : (int64_t)sizeof(piece);
        cr_assert_eq(ap_trace_body_read(o, at, piece, n, NULL), AP_OK);
        cr_assert_eq(ap_trace_body_append(t, piece, n, at == 0, NULL), AP_OK);
    }
    struct ap_error err = {0};
    cr_expect_neq(ap_trace_body_read(o, ap_trace_body_size(o), piece, (int64_t)sizeof(piece), &err), AP_OK);
    ap_trace_close(t);
    ap_trace_close(o);
    yyjson_doc *doc = parsed();
    cr_expect_eq(events(doc, "other"), 30);
    cr_expect_eq(events(doc, "mine"), 1);
    cr_expect_eq(number(event(doc, "other"), "pid"), 1);
    yyjson_doc_free(doc);
}

/* A full disk ends the trace; nothing else notices. */
AP_TEST(trace, cannot_write)
{
    struct ap_error err = {0};
    struct ap_trace *t = NULL;
    struct ap_trace_options o = {.path = dir, .threads = 1};
    cr_expect_neq(ap_trace_open(&o, &t, &err), AP_OK);
    cr_expect(strstr(err.text, "cannot write the trace") && strcmp(err.file, dir) == 0, "%s", err.text);
    o.path = "/nowhere/t.json";
    cr_expect_eq(ap_trace_open(&o, &t, &err), AP_ERR_NOTFOUND);
    o.path = "/dev/full";
    cr_expect_eq(ap_trace_open(&o, &t, &err), AP_ERR_NOSPACE);
    cr_expect_null(t);
    add(NULL, "nothing", 0, 1);
    ap_trace_flush(NULL);
    ap_trace_relieve(NULL);
    ap_trace_close(NULL);
}

AP_TEST(trace, step_ranges)
{
    struct {
        const char *text;
        int64_t first, last; /* 0: refused */
    } cases[] = {{"7", 7, 7},  {"1-1", 1, 1},  {"100-120", 100, 120}, {"0", 0, 0},     {"3-2", 0, 0},
                 {"-3", 0, 0}, {"3-", 0, 0},   {"3--4", 0, 0},        {"3-+4", 0, 0},  {" 3", 0, 0},
                 {"", 0, 0},   {"3-4x", 0, 0}, {"x", 0, 0},           {"3-4-5", 0, 0}, {"1.5", 0, 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ap_trace_request r = {0};
        struct ap_error err = {0};
        ap_status st = ap_trace_request_steps(cases[i].text, &r, &err);
        cr_expect_eq(st, cases[i].first ? AP_OK : AP_ERR_USAGE, "'%s'", cases[i].text);
        cr_expect_eq(r.first, cases[i].first, "'%s'", cases[i].text);
        cr_expect_eq(r.last, cases[i].last, "'%s'", cases[i].text);
        cr_expect_eq(err.text[0] == '\0', cases[i].first != 0);
    }
}

/* Every operation has an operand, and none more than a span can hold. */
AP_TEST(trace, operands_of_every_operation)
{
    for (int op = 0; op < AP_OP_COUNT; op++) {
        _Alignas(16) char args[2048] = {0}; /* larger than any descriptor */
        struct ap_trace_args t = {0};
        ap_operands_describe((enum ap_op_id)op, args, &t);
        cr_expect_geq(t.shapes, 1, "operation %s", ap_op_name((enum ap_op_id)op));
        cr_expect_lt(t.shapes, AP_TRACE_SHAPES + 1);
    }
    float a[6], b[8], c[12];
    struct ap_gemm_args g = {.a = ap_tensor_2d(a, AP_F32, 3, 2), .b = ap_tensor_2d(b, AP_F32, 2, 4)};
    g.c = ap_tensor_2d(c, AP_F32, 3, 4);
    struct ap_trace_args t = {0};
    ap_operands_describe(AP_OP_gemm, &g, &t);
    cr_expect_eq(t.shapes, 3);
    cr_expect_str_eq(t.dtype, "f32");
    cr_expect_str_eq(t.shape[2].key, "c");
    cr_expect_eq(t.shape[2].dim[1], 4);
}

/* A traced operation is a span; without a trace and after it the backend is as before. */
AP_TEST(trace, operations_of_a_backend)
{
    struct ap_backend *be = NULL;
    struct ap_tracing tracing = {0};
    struct ap_comm *self = NULL;
    cr_assert_eq(ap_backend_open("reference", 0, NULL, &be, NULL), AP_OK);
    cr_assert_eq(ap_comm_self(&self), AP_OK);
    struct ap_op_table before = be->ops;
    struct ap_trace_request request = {.path = path, .first = 2, .last = 3};
    cr_assert_eq(ap_tracing_open(&tracing, &request, self, 1, NULL), AP_OK);
    float a[6] = {1, 2, 3, 4, 5, 6};
    struct ap_scale_args s = {.x = ap_tensor_1d(a, AP_F32, 6), .factor = 2};
    for (int64_t step = 1; step <= 4; step++) {
        struct ap_trace *t = ap_tracing_step_begin(&tracing, step, be);
        cr_expect_eq(t != NULL, step == 2 || step == 3);
        cr_expect_eq(be->trace, t);
        cr_expect_eq(be->ops.scale(be->stream, &s), AP_OK);
        ap_tracing_step_done(&tracing);
        ap_tracing_step_end(&tracing);
        cr_expect_null(be->trace);
        cr_expect_arr_eq(&be->ops, &before, sizeof(before));
    }
    ap_tracing_close(&tracing, 1);
    cr_expect_eq(a[5], 6 * 16);
    yyjson_doc *doc = parsed();
    cr_expect_eq(events(doc, "scale"), 2);
    cr_expect_eq(events(doc, "step"), 2);
    struct ap_op_cost cost = ap_op_cost(AP_OP_scale, &s);
    yyjson_val *args = yyjson_obj_get(event(doc, "scale"), "args");
    cr_expect_eq(number(args, "flops"), cost.flops);
    cr_expect_eq(number(args, "bytes"), cost.bytes);
    cr_expect_str_eq(yyjson_get_str(yyjson_obj_get(args, "x")), "6");
    yyjson_doc_free(doc);
    ap_comm_destroy(self);
    ap_backend_close(be);
}
