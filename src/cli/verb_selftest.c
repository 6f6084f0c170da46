/* SPDX-License-Identifier: Apache-2.0
 * antipode selftest: golden numbers on this machine, one table for each case. */
#include "config.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/paths.h"
#include "cli/verbs.h"
#include "train/golden.h"

#define MAX_CASES 256

struct cases {
    char *list[MAX_CASES]; /* owned */
    int count;
};

static int is_case(const char *dir)
{
    char path[PATH_MAX + 16];
    int n = snprintf(path, sizeof path, "%s/config.json", dir);
    return n > 0 && (size_t)n < sizeof path && ap_io_exists(path);
}

static ap_status add_case(struct cases *c, const char *dir, struct ap_error *err)
{
    if (c->count == MAX_CASES)
        return ap_error_set(err, AP_ERR_INPUT, "more than %d golden cases", MAX_CASES);
    c->list[c->count] = strdup(dir);
    if (!c->list[c->count])
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    c->count++;
    return AP_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* dir itself, or the folders in it that hold a config.json, in the order of their names. */
static ap_status find_cases(const char *dir, struct cases *c, struct ap_error *err)
{
    if (is_case(dir))
        return add_case(c, dir, err);
    DIR *d = opendir(dir);
    if (!d)
        return ap_error_set(err, AP_ERR_INPUT, "%s: no such folder of golden numbers", dir);
    ap_status st = AP_OK;
    for (struct dirent *e; st == AP_OK && (e = readdir(d)) != NULL;) {
        char path[PATH_MAX];
        int n = snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.' && n > 0 && (size_t)n < sizeof path && is_case(path))
            st = add_case(c, path, err);
    }
    closedir(d);
    if (st == AP_OK && c->count == 0)
        st = ap_error_set(err, AP_ERR_INPUT,
                          "%s holds no golden numbers: neither it nor a folder in it has a config.json", dir);
    if (st == AP_OK)
        qsort(c->list, (size_t)c->count, sizeof c->list[0], by_name);
    return st;
}

static void print_case(const char *dir, const struct ap_golden_report *r, struct ap_json *j)
{
    if (!j) {
        ap_out("%s\n", dir);
        for (int q = 0; q < AP_GOLDEN_COUNT; q++)
            ap_out("  %-24s %10.3g  limit %-8g %-4s  %s\n", ap_golden_quantity_name((enum ap_golden_quantity)q),
                   r->worst[q], r->limit[q], r->worst[q] <= r->limit[q] ? "ok" : "FAIL", r->where[q]);
        return;
    }
    ap_json_begin_object(j, NULL);
    ap_json_str(j, "case", dir);
    ap_json_bool(j, "passed", r->passed);
    ap_json_begin_array(j, "quantities");
    for (int q = 0; q < AP_GOLDEN_COUNT; q++) {
        ap_json_begin_object(j, NULL);
        ap_json_str(j, "name", ap_golden_quantity_name((enum ap_golden_quantity)q));
        ap_json_real(j, "worst", r->worst[q]);
        ap_json_real(j, "limit", r->limit[q]);
        ap_json_bool(j, "ok", r->worst[q] <= r->limit[q]);
        ap_json_str(j, "where", r->where[q]);
        ap_json_end_object(j);
    }
    ap_json_end_array(j);
    ap_json_end_object(j);
}

static ap_status check_cases(const struct cases *c, struct ap_backend *be, ap_dtype dtype, struct ap_json *j,
                             int *failed_p, struct ap_error *err)
{
    for (int i = 0; i < c->count; i++) {
        struct ap_golden_report r;
        AP_TRY(ap_golden_check(c->list[i], be, dtype, &r, err));
        print_case(c->list[i], &r, j);
        *failed_p += !r.passed;
    }
    return AP_OK;
}

static ap_status run(const struct ap_selftest_flags *f, const struct cases *c, int json, int *failed_p,
                     struct ap_error *err)
{
    struct ap_pool *pool = NULL;
    struct ap_backend *be = NULL;
    struct ap_json j = {.indent = 2};
    ap_dtype dtype;
    if (ap_dtype_parse(f->dtype, &dtype) != 0)
        return ap_error_set(err, AP_ERR_USAGE, "--dtype %s is unknown", f->dtype);
    AP_TRY(ap_pool_create((int)f->threads, &pool, err));
    ap_status st = ap_backend_open(f->backend, 0, pool, &be, err);
    if (st == AP_OK) {
        ap_json_begin_array(&j, NULL);
        st = check_cases(c, be, dtype, json ? &j : NULL, failed_p, err);
        ap_json_end_array(&j);
    }
    char *text = ap_strbuf_take(&j.text);
    if (st == AP_OK && json)
        ap_out("%s\n", text ? text : "");
    else if (st == AP_OK)
        ap_out("%d of %d cases within their limits on backend %s\n", c->count - *failed_p, c->count, be->vt->name);
    free(text);
    ap_backend_close(be);
    ap_pool_destroy(pool);
    return st;
}

int ap_tverb_selftest(int argc, char **argv)
{
    struct ap_selftest_flags f = {0};
    struct ap_cli_args args;
    int code = ap_cli_begin(&ap_verb_desc_selftest, argc, argv, &args, &f);
    if (code >= 0)
        return code;
    struct ap_error err = {0};
    struct cases c = {.count = 0};
    char shipped[PATH_MAX];
    const char *dir = f.golden;
    int failed = 0;
    ap_status st = AP_OK;
    if (!dir && ap_paths_find_data("golden", shipped, sizeof shipped) != 0)
        st = ap_error_set(&err, AP_ERR_ENV,
                          "the golden numbers that come with the program were not found; use --golden DIR");
    else if (!dir)
        dir = shipped;
    if (st == AP_OK)
        st = find_cases(dir, &c, &err);
    if (st == AP_OK)
        st = run(&f, &c, args.json, &failed, &err);
    if (st == AP_OK && failed)
        st = ap_error_set(&err, AP_ERR_INVALID, "%d of %d golden cases are out of tolerance", failed, c.count);
    for (int i = 0; i < c.count; i++)
        free(c.list[i]);
    ap_cli_clear(&ap_verb_desc_selftest, &args, &f);
    return ap_cli_end(st, &err);
}
