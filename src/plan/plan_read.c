/* SPDX-License-Identifier: Apache-2.0
 * Reading plan.json: every field by name, then what they say together (ap_plan_check). */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "base/io.h"
#include "base/suggest.h"
#include "plan/plan_file.h"

#define MAX_BYTES     ((size_t)1 << 26)
#define MAX_SEQUENCES (INT64_C(1) << 40)
#define MAX_LAYERS    4096
#define MAX_WHERE     48

/* One object of the file: where it stands ("stages[2].", "" for the root), for messages. */
struct reader {
    struct ap_error *err;
    yyjson_val *object;
    char where[MAX_WHERE];
};

static ap_status bad(const struct reader *r, const char *key, const char *wanted)
{
    ap_error_set(r->err, AP_ERR_INPUT, "%s%s must be %s", r->where, key, wanted);
    return AP_ERR_INPUT;
}

static ap_status need(const struct reader *r, const char *key, yyjson_val **v_p)
{
    *v_p = yyjson_obj_get(r->object, key);
    if (*v_p != NULL)
        return AP_OK;
    ap_error_set(r->err, AP_ERR_INPUT, "%s%s is missing", r->where, key);
    return AP_ERR_INPUT;
}

static ap_status whole(const struct reader *r, const char *key, yyjson_val *v, const int64_t range[2], int64_t *to)
{
    char wanted[80];
    int64_t n = yyjson_is_int(v) ? yyjson_get_sint(v) : 0;
    if (yyjson_is_int(v) && n >= range[0] && n <= range[1] && !(yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX)) {
        *to = n;
        return AP_OK;
    }
    snprintf(wanted, sizeof wanted, "a whole number from %lld to %lld", (long long)range[0], (long long)range[1]);
    return bad(r, key, wanted);
}

static ap_status get_int(const struct reader *r, const char *key, int64_t least, int64_t most, int64_t *to)
{
    yyjson_val *v;
    AP_TRY(need(r, key, &v));
    return whole(r, key, v, (int64_t[]){least, most}, to);
}

static ap_status get_small(const struct reader *r, const char *key, int least, int most, int *to)
{
    int64_t n = 0;
    AP_TRY(get_int(r, key, least, most, &n));
    *to = (int)n;
    return AP_OK;
}

/* null: 0. */
static ap_status get_count(const struct reader *r, const char *key, int *to)
{
    yyjson_val *v;
    AP_TRY(need(r, key, &v));
    *to = 0;
    return yyjson_is_null(v) ? AP_OK : get_small(r, key, 1, AP_PLAN_MAX_RANKS, to);
}

/* A finite number of 0 or more; null, where that is allowed: NaN. */
static ap_status get_real(const struct reader *r, const char *key, int null_too, double *to)
{
    yyjson_val *v;
    AP_TRY(need(r, key, &v));
    double x = yyjson_is_num(v) ? yyjson_get_num(v) : NAN;
    if (!(x >= 0 && isfinite(x)) && !(null_too && yyjson_is_null(v)))
        return bad(r, key, null_too ? "a number of 0 or more, or null" : "a number of 0 or more");
    *to = x;
    return AP_OK;
}

/* null, where that is allowed: "". */
static ap_status get_text(const struct reader *r, const char *key, int null_too, char *to, size_t size)
{
    yyjson_val *v;
    char wanted[64];
    AP_TRY(need(r, key, &v));
    const char *text = yyjson_get_str(v);
    if (null_too && yyjson_is_null(v))
        text = "";
    else if (text != NULL && (strlen(text) != yyjson_get_len(v) || (null_too && *text == '\0')))
        text = NULL;
    if (text == NULL || strlen(text) >= size) {
        snprintf(wanted, sizeof wanted, "a text of at most %zu bytes%s", size - 1, null_too ? ", or null" : "");
        return bad(r, key, wanted);
    }
    snprintf(to, size, "%s", text);
    return AP_OK;
}

/* Only these fields, each once. */
static ap_status only(const struct reader *r, const char *const *keys, size_t count)
{
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach(r->object, i, n, key, value)
    {
        size_t k = 0;
        const char *text = yyjson_get_str(key);
        (void)value;
        while (k < count && strcmp(text, keys[k]) != 0)
            k++;
        if (k < count && yyjson_obj_get(r->object, keys[k]) == value)
            continue;
        ap_error_set(r->err, AP_ERR_INPUT, k < count ? "%s%.60s stands twice" : "there is no field %s%.60s", r->where,
                     text);
        const char *near = ap_suggest_nearest(text, keys, count);
        if (k == count && near != NULL)
            ap_error_hint(r->err, "did you mean '%s'?", near);
        return AP_ERR_INPUT;
    }
    return AP_OK;
}
#define ONLY(r, ...)                                                                                                   \
    only((r), (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* The object under key as a reader of its own. */
static ap_status enter(const struct reader *r, const char *key, struct reader *inner_p)
{
    yyjson_val *v;
    AP_TRY(need(r, key, &v));
    if (!yyjson_is_obj(v))
        return bad(r, key, "an object");
    *inner_p = (struct reader){.err = r->err, .object = v};
    snprintf(inner_p->where, MAX_WHERE, "%s.", key);
    return AP_OK;
}

/* The array under key, which has `count` entries. */
static ap_status get_array(const struct reader *r, const char *key, size_t count, const char *why, yyjson_val **v_p)
{
    yyjson_val *v;
    AP_TRY(need(r, key, &v));
    if (!yyjson_is_arr(v))
        return bad(r, key, "a list");
    if (yyjson_arr_size(v) != count) {
        ap_error_set(r->err, AP_ERR_INPUT, "%s has %zu entries, but there are %zu: %s", key, yyjson_arr_size(v), count,
                     why);
        return AP_ERR_INPUT;
    }
    *v_p = v;
    return AP_OK;
}

static ap_status read_version(const struct reader *r)
{
    char format[32];
    int64_t version;
    AP_TRY(get_text(r, "format", 0, format, sizeof format));
    if (strcmp(format, AP_PLAN_FORMAT) != 0)
        return bad(r, "format", "\"" AP_PLAN_FORMAT "\"");
    AP_TRY(get_int(r, "version", 1, INT32_MAX, &version));
    if (version == AP_PLAN_VERSION)
        return AP_OK;
    ap_error_set(r->err, AP_ERR_FORMAT, "version %lld of plan.json, this program reads version %d", (long long)version,
                 AP_PLAN_VERSION);
    ap_error_hint(r->err, "plan anew");
    return AP_ERR_FORMAT;
}

static ap_status read_machine(const struct reader *root, struct ap_plan *p)
{
    struct reader r;
    AP_TRY(enter(root, "machine", &r));
    AP_TRY(ONLY(&r, "ranks", "nodes", "sites", "measured", "guessed_links", "identity"));
    AP_TRY(get_small(&r, "ranks", 1, AP_PLAN_MAX_RANKS, &p->machine.ranks));
    AP_TRY(get_count(&r, "nodes", &p->machine.nodes));
    AP_TRY(get_count(&r, "sites", &p->machine.sites));
    AP_TRY(get_text(&r, "measured", 1, p->machine.measured, sizeof p->machine.measured));
    AP_TRY(get_small(&r, "guessed_links", 0, INT32_MAX, &p->machine.guessed_links));
    AP_TRY(get_text(&r, "identity", 1, p->machine.identity, sizeof p->machine.identity));
    size_t n = strspn(p->machine.identity, "0123456789abcdef");
    return p->machine.identity[n] == '\0' && (n == 0 || n == 32) ? AP_OK
                                                                 : bad(&r, "identity", "32 hex digits, or null");
}

static ap_status read_parallel(const struct reader *root, struct ap_plan *p)
{
    struct reader r;
    AP_TRY(enter(root, "parallel", &r));
    AP_TRY(ONLY(&r, "data", "tensor", "pipeline", "expert"));
    AP_TRY(get_small(&r, "data", 1, AP_PLAN_MAX_RANKS, &p->data));
    AP_TRY(get_small(&r, "tensor", 1, AP_PLAN_MAX_RANKS, &p->tensor));
    AP_TRY(get_small(&r, "pipeline", 1, AP_PLAN_MAX_RANKS, &p->pipeline));
    return get_small(&r, "expert", 1, AP_PLAN_MAX_RANKS, &p->expert);
}

static ap_status read_schedule(const struct reader *r, struct ap_plan *p)
{
    char name[24], wanted[96];
    AP_TRY(get_text(r, "schedule", 0, name, sizeof name));
    p->schedule = 0;
    while (p->schedule < AP_PLAN_SCHEDULES && strcmp(name, ap_plan_schedule_name(p->schedule)) != 0)
        p->schedule++;
    if (p->schedule < AP_PLAN_SCHEDULES)
        return get_small(r, "chunks", 1, MAX_LAYERS, &p->chunks);
    int at = snprintf(wanted, sizeof wanted, "%s", "one of");
    for (int i = 0; i < AP_PLAN_SCHEDULES; i++)
        at += snprintf(wanted + at, sizeof wanted - (size_t)at, " %s", ap_plan_schedule_name(i));
    return bad(r, "schedule", wanted);
}

static ap_status read_times(const struct reader *root, struct ap_plan_times *t)
{
    struct reader r;
    t->step = NAN;
    if (yyjson_is_null(yyjson_obj_get(root->object, "predicted")))
        return AP_OK;
    AP_TRY(enter(root, "predicted", &r));
    AP_TRY(ONLY(&r, "step_s", "compute_s", "lan_s", "wan_s", "bubble_s", "sync_lan_s", "sync_wan_s", "optimizer_s",
                "memory_bytes", "memory_part", "simulated_step_s", "tokens_per_s"));
    AP_TRY(get_real(&r, "step_s", 0, &t->step));
    AP_TRY(get_real(&r, "compute_s", 0, &t->compute));
    AP_TRY(get_real(&r, "lan_s", 0, &t->lan));
    AP_TRY(get_real(&r, "wan_s", 0, &t->wan));
    AP_TRY(get_real(&r, "bubble_s", 0, &t->bubble));
    AP_TRY(get_real(&r, "sync_lan_s", 0, &t->sync_lan));
    AP_TRY(get_real(&r, "sync_wan_s", 0, &t->sync_wan));
    AP_TRY(get_real(&r, "optimizer_s", 0, &t->optimizer));
    AP_TRY(get_real(&r, "memory_bytes", 0, &t->memory_bytes));
    AP_TRY(get_real(&r, "memory_part", 0, &t->memory_part));
    AP_TRY(get_real(&r, "simulated_step_s", 1, &t->simulated_step));
    return get_real(&r, "tokens_per_s", 0, &t->tokens_per_s);
}

static ap_status read_stages(const struct reader *root, struct ap_plan *p)
{
    yyjson_val *list, *v;
    size_t i, n;
    AP_TRY(get_array(root, "stages", (size_t)p->pipeline * (size_t)p->chunks, "parallel.pipeline times chunks", &list));
    yyjson_arr_foreach(list, i, n, v)
    {
        struct reader r = {.err = root->err, .object = v};
        struct ap_plan_stage *k = &p->stages[i];
        snprintf(r.where, sizeof r.where, "stages[%zu]", i);
        if (!yyjson_is_obj(v))
            return bad(&r, "", "an object");
        snprintf(r.where, sizeof r.where, "stages[%zu].", i);
        AP_TRY(ONLY(&r, "first_layer", "layers", "in_flight", "memory_bytes"));
        AP_TRY(get_int(&r, "first_layer", 0, MAX_LAYERS - 1, &k->first_layer));
        AP_TRY(get_int(&r, "layers", 1, MAX_LAYERS, &k->layers));
        AP_TRY(get_int(&r, "in_flight", 1, MAX_SEQUENCES, &k->in_flight));
        AP_TRY(get_real(&r, "memory_bytes", 1, &k->memory_bytes));
    }
    return AP_OK;
}

/* Whole numbers of the list under key, `count` of them, into to64 or to. */
static ap_status read_list(const struct reader *root, const char *key, size_t count, const int64_t range[2],
                           int64_t *to64, int *to)
{
    yyjson_val *list, *v;
    size_t i, n;
    const char *why = to64 != NULL ? "parallel.data times parallel.expert" : "machine.ranks";
    AP_TRY(get_array(root, key, count, why, &list));
    yyjson_arr_foreach(list, i, n, v)
    {
        char name[MAX_WHERE];
        int64_t x = 0;
        snprintf(name, sizeof name, "%s[%zu]", key, i);
        AP_TRY(whole(root, name, v, range, &x));
        if (to64 != NULL)
            to64[i] = x;
        else
            to[i] = (int)x;
    }
    return AP_OK;
}

/* What has no size of its own, into head; then the arrays. */
static ap_status read_head(const struct reader *r, struct ap_plan *head)
{
    AP_TRY(read_version(r));
    AP_TRY(ONLY(r, "format", "version", "date", "job", "model", "machine", "parallel", "schedule", "chunks", "seq_len",
                "global_sequences", "micro_sequences", "between_sites", "predicted", "stages", "micro_batches", "place",
                "schedules", "runners_up", "search"));
    AP_TRY(get_text(r, "date", 1, head->date, sizeof head->date));
    AP_TRY(get_text(r, "job", 0, head->job, sizeof head->job));
    AP_TRY(get_text(r, "model", 0, head->model, sizeof head->model));
    AP_TRY(read_machine(r, head));
    AP_TRY(read_parallel(r, head));
    AP_TRY(read_schedule(r, head));
    AP_TRY(get_int(r, "seq_len", 1, MAX_SEQUENCES, &head->seq_len));
    AP_TRY(get_int(r, "global_sequences", 1, MAX_SEQUENCES, &head->global_sequences));
    AP_TRY(get_int(r, "micro_sequences", 1, MAX_SEQUENCES, &head->micro_sequences));
    AP_TRY(get_text(r, "between_sites", 1, head->between_sites, sizeof head->between_sites));
    return read_times(r, &head->predicted);
}

static ap_status read_root(const struct reader *r, struct ap_plan **plan_p)
{
    struct ap_plan head = {0};
    AP_TRY(read_head(r, &head));
    int64_t ranks = (int64_t)head.data * head.tensor, more = (int64_t)head.pipeline * head.expert;
    if (ranks > AP_PLAN_MAX_RANKS || more > AP_PLAN_MAX_RANKS || ranks * more > AP_PLAN_MAX_RANKS ||
        (int64_t)head.pipeline * head.chunks > MAX_LAYERS) {
        ap_error_set(r->err, AP_ERR_INPUT, "parallel: more than %d ranks, or more than %d stages", AP_PLAN_MAX_RANKS,
                     MAX_LAYERS);
        return AP_ERR_INPUT;
    }
    struct ap_plan *p = ap_plan_create(head.data, head.tensor, head.pipeline, head.expert, head.chunks);
    if (p == NULL)
        return ap_error_set(r->err, AP_ERR_NOMEM, "out of memory for a plan of %d ranks", head.machine.ranks);
    head.stages = p->stages;
    head.micro_batches = p->micro_batches;
    head.place = p->place;
    *p = head;
    ap_status status = read_stages(r, p);
    if (status == AP_OK)
        status = read_list(r, "micro_batches", (size_t)p->data * (size_t)p->expert, (int64_t[]){1, MAX_SEQUENCES},
                           p->micro_batches, NULL);
    if (status == AP_OK) /* before the list: it has as many entries as there are slots */
        status = ranks * more == p->machine.ranks ? read_list(r, "place", (size_t)p->machine.ranks,
                                                              (int64_t[]){0, p->machine.ranks - 1}, NULL, p->place)
                                                  : ap_plan_check(p, NULL, 0, r->err);
    if (status == AP_OK)
        status = ap_plan_check(p, NULL, 0, r->err);
    if (status == AP_OK)
        *plan_p = p;
    else
        ap_plan_destroy(p);
    return status;
}

ap_status ap_plan_parse(const char *path, const char *text, size_t size, struct ap_plan **plan_p, struct ap_error *err)
{
    yyjson_read_err json;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text, size, YYJSON_READ_NOFLAG, NULL, &json);
    ap_status status;
    if (doc == NULL) {
        long line = 1, column = 1;
        for (size_t i = 0; i < json.pos && i < size; i++) {
            line += text[i] == '\n';
            column = text[i] == '\n' ? 1 : column + 1;
        }
        status = ap_error_set(err, AP_ERR_INPUT, "not valid JSON: %s", json.msg);
        ap_error_at(err, path, line, column);
        return status;
    }
    struct reader r = {.err = err, .object = yyjson_doc_get_root(doc)};
    if (yyjson_is_obj(r.object))
        status = read_root(&r, plan_p);
    else
        status = ap_error_set(err, AP_ERR_INPUT, "this is no plan: a plan is an object");
    if (status != AP_OK)
        ap_error_at(err, path, 0, 0);
    yyjson_doc_free(doc);
    return status;
}

ap_status ap_plan_read(const char *path, struct ap_plan **plan_p, struct ap_error *err)
{
    char *text;
    size_t size;
    AP_TRY(ap_io_read_file(path, MAX_BYTES, &text, &size, err));
    ap_status status = ap_plan_parse(path, text, size, plan_p, err);
    free(text);
    return status;
}
