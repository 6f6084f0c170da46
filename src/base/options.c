/* SPDX-License-Identifier: Apache-2.0
 * Filling a struct from an option table: defaults, a YAML document, overrides. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/options_internal.h"
#include "base/suggest.h"

#define KEY_MAX_BYTES 256

int ap_options_find(const struct ap_option_table *table, const char *key)
{
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->list[i].key, key) == 0)
            return (int)i;
    return -1;
}

/* ---- errors ---- */

/* Where a value being taken stands. */
struct origin {
    const struct ap_options *o;
    int source;
    const struct ap_yaml_node *node; /* NULL or without line: no place inside a file */
    struct ap_error *err;
};

static void put_place(const struct origin *at, const char *key)
{
    char name[KEY_MAX_BYTES + 8];
    if (at->source == AP_OPT_FROM_FILE) {
        ap_error_at(at->err, at->o->file, at->node->line, at->node->column);
    } else if (at->source == AP_OPT_FROM_SET) {
        snprintf(name, sizeof name, "%s%.*s", at->o->prefix, KEY_MAX_BYTES, key);
        ap_error_at(at->err, name, 0, 0);
    }
}

static const char *node_words(const struct ap_yaml_node *n, char *buf, size_t size)
{
    if (n->kind == AP_YAML_MAP)
        return "a map";
    if (n->kind == AP_YAML_LIST)
        return "a list";
    snprintf(buf, size, n->quoted ? "the text \"%.80s\"" : "'%.80s'", n->text);
    return buf;
}

struct suggest_ctx {
    const char *typed;
    struct ap_suggest s;
    char best[64];
};

static int suggest_choice(void *ctx, int index, const char *word)
{
    struct suggest_ctx *c = ctx;
    int before = c->s.best != NULL ? c->s.distance : 1000;
    (void)index;
    ap_suggest_consider(&c->s, c->typed, word);
    if (c->s.distance < before) {
        snprintf(c->best, sizeof c->best, "%s", word);
        c->s.best = c->best;
    }
    return 0;
}

/* "KEY must be DOMAIN, not VALUE", with the likely meaning as the hint. */
static ap_status bad_value(const struct origin *at, const struct ap_option *opt, const struct ap_yaml_node *node)
{
    char domain[512], value[128];
    ap_option_domain(opt, domain, sizeof domain);
    ap_error_set(at->err, AP_ERR_INPUT, "%s must be %s, not %s", opt->key, domain,
                 node_words(node, value, sizeof value));
    put_place(at, opt->key);
    if (node->kind != AP_YAML_SCALAR)
        return AP_ERR_INPUT;
    int number = opt->kind == AP_OPT_INT || opt->kind == AP_OPT_UINT || opt->kind == AP_OPT_REAL;
    if (node->quoted && (number || opt->kind == AP_OPT_BOOL)) {
        ap_error_hint(at->err, "remove the quotes");
    } else if (opt->choices != NULL) {
        struct suggest_ctx c = {.typed = node->text};
        ap_options_each_choice(opt->choices, suggest_choice, &c);
        if (ap_suggest_result(&c.s, node->text) != NULL)
            ap_error_hint(at->err, "did you mean '%s'?", c.best);
    } else if (opt->kind == AP_OPT_BOOL) {
        static const char *const yes[] = {"yes", "on", "1", "True", "TRUE"};
        static const char *const no[] = {"no", "off", "0", "False", "FALSE"};
        for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
            if (strcmp(node->text, yes[i]) == 0)
                ap_error_hint(at->err, "did you mean 'true'?");
            if (strcmp(node->text, no[i]) == 0)
                ap_error_hint(at->err, "did you mean 'false'?");
        }
    }
    return AP_ERR_INPUT;
}

/* ---- values ---- */

static int in_bounds(const struct ap_option *opt, double v)
{
    if (opt->min == 0 && opt->max == 0)
        return 1;
    if (opt->flags & AP_OPT_ABOVE_MIN ? !(v > opt->min) : !(v >= opt->min))
        return 0;
    return opt->flags & AP_OPT_BELOW_MAX ? v < opt->max : v <= opt->max;
}

static int is_auto(const struct ap_option *opt, const struct ap_yaml_node *node)
{
    return (opt->flags & AP_OPT_AUTO) && strcmp(node->text, "auto") == 0;
}

struct match_ctx {
    const char *word;
    int index;
};

static int match_choice(void *ctx, int index, const char *word)
{
    struct match_ctx *m = ctx;
    if (strcmp(m->word, word) != 0)
        return 0;
    m->index = index;
    return 1;
}

/* Index of text among the choices, -1 if it is none. */
static int choice_index(const struct ap_option *opt, const char *text)
{
    struct match_ctx m = {text, -1};
    ap_options_each_choice(opt->choices, match_choice, &m);
    return m.index;
}

static ap_status take_number(const struct origin *at, const struct ap_option *opt, const struct ap_yaml_node *node,
                             void *value)
{
    int64_t i;
    uint64_t u;
    double r;
    int automatic = is_auto(opt, node);
    if (node->quoted && !automatic)
        return bad_value(at, opt, node);
    switch (opt->kind) {
    case AP_OPT_INT:
        if (automatic)
            i = -1;
        else if (ap_option_parse_int(node->text, &i) != 0 || !in_bounds(opt, (double)i))
            return bad_value(at, opt, node);
        *(int64_t *)value = i;
        return AP_OK;
    case AP_OPT_UINT:
        if (ap_option_parse_uint(node->text, &u) != 0 || !in_bounds(opt, (double)u))
            return bad_value(at, opt, node);
        *(uint64_t *)value = u;
        return AP_OK;
    case AP_OPT_REAL:
        if (automatic)
            r = NAN;
        else if (ap_option_parse_real(node->text, &r) != 0 || !in_bounds(opt, r))
            return bad_value(at, opt, node);
        *(double *)value = r;
        return AP_OK;
    default: /* AP_OPT_BOOL */
        if (automatic)
            *(int *)value = -1;
        else if (strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0)
            *(int *)value = node->text[0] == 't';
        else
            return bad_value(at, opt, node);
        return AP_OK;
    }
}

static ap_status copy_string(const struct origin *at, const char *text, char **slot)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return ap_error_set(at->err, AP_ERR_NOMEM, "no memory for an option");
    free(*slot);
    *slot = copy;
    return AP_OK;
}

static ap_status take_reals(const struct origin *at, const struct ap_option *opt, const struct ap_yaml_node *node)
{
    double *values = ap_option_at(opt, at->o->values);
    if (node->kind != AP_YAML_LIST || node->count > (size_t)opt->max_count)
        return bad_value(at, opt, node);
    for (size_t i = 0; i < node->count; i++) {
        const struct ap_yaml_node *n = node->items[i];
        struct origin here = *at;
        here.node = n;
        double v;
        if (n->kind != AP_YAML_SCALAR || n->quoted || ap_option_parse_real(n->text, &v) != 0 || !in_bounds(opt, v))
            return bad_value(&here, opt, n);
        values[i] = v;
    }
    *ap_option_count_at(opt, at->o->values) = (int)node->count;
    return AP_OK;
}

static void free_sources(const struct ap_option *opt, void *values)
{
    void *list = ap_option_at(opt, values);
    int *count = ap_option_count_at(opt, values);
    for (int i = 0; i < *count; i++) {
        free(*AP_SOURCE_PATH(list, i));
        *AP_SOURCE_PATH(list, i) = NULL;
    }
    *count = 0;
}

static ap_status source_error(const struct origin *at, const struct ap_option *opt, const struct ap_yaml_node *node,
                              const char *what, const char *hint)
{
    struct origin here = *at;
    here.node = node;
    ap_error_set(at->err, AP_ERR_INPUT, "%s: %s", opt->key, what);
    put_place(&here, opt->key);
    if (hint != NULL)
        ap_error_hint(at->err, "%s", hint);
    return AP_ERR_INPUT;
}

/* One entry: "path" or {path: ..., weight: ...}. */
static ap_status take_source(const struct origin *at, const struct ap_option *opt, const struct ap_yaml_node *node)
{
    static const char *const keys[] = {"path", "weight"};
    const struct ap_yaml_node *path = node;
    double weight = 1;
    if (node->kind == AP_YAML_MAP) {
        for (size_t i = 0; i < node->count; i++) {
            const struct ap_yaml_node *key = node->items[2 * i];
            if (strcmp(key->text, "path") == 0 || strcmp(key->text, "weight") == 0)
                continue;
            char what[200], hint[64];
            const char *near = ap_suggest_nearest(key->text, keys, 2);
            snprintf(what, sizeof what, "an entry has no key '%.80s'", key->text);
            snprintf(hint, sizeof hint, near != NULL ? "did you mean '%s'?" : "an entry has path and weight", near);
            return source_error(at, opt, key, what, hint);
        }
        path = ap_yaml_get(node, "path");
        const struct ap_yaml_node *w = ap_yaml_get(node, "weight");
        if (path == NULL)
            return source_error(at, opt, node, "this entry has no path", "write {path: FILE, weight: NUMBER}");
        if (w != NULL &&
            (w->kind != AP_YAML_SCALAR || w->quoted || ap_option_parse_real(w->text, &weight) != 0 || !(weight > 0)))
            return source_error(at, opt, w, "weight must be a number above 0", NULL);
    }
    if (path->kind != AP_YAML_SCALAR || path->text[0] == '\0' || ap_yaml_is_null(path))
        return source_error(at, opt, path, "a path must be text", NULL);
    int *count = ap_option_count_at(opt, at->o->values);
    if (*count >= opt->max_count)
        return source_error(at, opt, node, "too many entries", NULL);
    void *list = ap_option_at(opt, at->o->values);
    *AP_SOURCE_PATH(list, *count) = NULL;
    AP_TRY(copy_string(at, path->text, AP_SOURCE_PATH(list, *count)));
    *AP_SOURCE_WEIGHT(list, *count) = weight;
    ++*count;
    return AP_OK;
}

static ap_status take_sources(const struct origin *at, const struct ap_option *opt, const struct ap_yaml_node *node)
{
    free_sources(opt, at->o->values);
    if (node->kind != AP_YAML_LIST)
        return take_source(at, opt, node);
    if (node->count == 0)
        return bad_value(at, opt, node);
    for (size_t i = 0; i < node->count; i++)
        AP_TRY(take_source(at, opt, node->items[i]));
    return AP_OK;
}

static ap_status take(const struct origin *at, const struct ap_option *opt, const struct ap_yaml_node *node)
{
    void *value = ap_option_at(opt, at->o->values);
    if (ap_yaml_is_null(node)) {
        char domain[512];
        ap_option_domain(opt, domain, sizeof domain);
        ap_error_set(at->err, AP_ERR_INPUT, "%s has no value", opt->key);
        put_place(at, opt->key);
        ap_error_hint(at->err, "give %s, or remove the key", domain);
        return AP_ERR_INPUT;
    }
    if (opt->kind == AP_OPT_REALS)
        return take_reals(at, opt, node);
    if (opt->kind == AP_OPT_SOURCES)
        return take_sources(at, opt, node);
    if (node->kind != AP_YAML_SCALAR)
        return bad_value(at, opt, node);
    int index;
    switch (opt->kind) {
    case AP_OPT_CHOICE:
        index = choice_index(opt, node->text);
        if (index < 0)
            return bad_value(at, opt, node);
        *(int *)value = index;
        return AP_OK;
    case AP_OPT_TEXT:
    case AP_OPT_PATH:
        if (node->text[0] == '\0' || (opt->choices != NULL && choice_index(opt, node->text) < 0))
            return bad_value(at, opt, node);
        return copy_string(at, node->text, value);
    default:
        return take_number(at, opt, node, value);
    }
}

/* Take a value written as text: a default or an override. Lists are read as YAML, the rest as it stands, so
 * that a path or a name needs no quoting. */
static ap_status take_text(const struct origin *at, const struct ap_option *opt, const char *text)
{
    int listed = opt->kind == AP_OPT_REALS || (opt->kind == AP_OPT_SOURCES && (text[0] == '[' || text[0] == '{'));
    if (!listed) {
        struct ap_yaml_node node = {.kind = AP_YAML_SCALAR, .text = (char *)(size_t)text};
        return take(at, opt, &node);
    }
    struct ap_yaml_node *root;
    ap_status status = ap_yaml_parse(NULL, text, strlen(text), &root, at->err);
    if (status != AP_OK) {
        put_place(at, opt->key);
        return status;
    }
    status = take(at, opt, root);
    ap_yaml_free(root);
    return status;
}

static ap_status take_default(struct ap_options *o, size_t index, struct ap_error *err)
{
    const struct ap_option *opt = &o->table->list[index];
    struct origin at = {o, AP_OPT_FROM_DEFAULT, NULL, err};
    void *value = ap_option_at(opt, o->values);
    o->marks[index] = (struct ap_option_mark){AP_OPT_FROM_DEFAULT, 0, 0};
    if (opt->fallback != NULL)
        return take_text(&at, opt, opt->fallback);
    switch (opt->kind) {
    case AP_OPT_INT:
        *(int64_t *)value = 0;
        break;
    case AP_OPT_UINT:
        *(uint64_t *)value = 0;
        break;
    case AP_OPT_REAL:
        *(double *)value = NAN;
        break;
    case AP_OPT_TEXT:
    case AP_OPT_PATH:
        free(*(char **)value);
        *(char **)value = NULL;
        break;
    case AP_OPT_REALS:
        *ap_option_count_at(opt, o->values) = 0;
        break;
    case AP_OPT_SOURCES:
        free_sources(opt, o->values);
        break;
    default:
        *(int *)value = 0;
        break;
    }
    return AP_OK;
}

/* ---- unknown keys ---- */

/* Last component of a key. */
static const char *leaf(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot != NULL ? dot + 1 : key;
}

/* Is candidate in the same section as key? */
static int same_section(const char *key, const char *candidate)
{
    size_t n = (size_t)(leaf(key) - key);
    return strncmp(key, candidate, n) == 0 && strchr(candidate + n, '.') == NULL;
}

/* The option that lists word among its other names, NULL if none does. */
static const char *key_also_called(const struct ap_option_table *t, const char *word)
{
    for (size_t i = 0; i < t->count; i++) {
        struct match_ctx m = {word, -1};
        ap_options_each_choice(t->list[i].also, match_choice, &m);
        if (m.index >= 0)
            return t->list[i].key;
    }
    return NULL;
}

static const char *nearest_key(const struct ap_option_table *t, const char *key)
{
    struct ap_suggest inside = {NULL, 0}, any = {NULL, 0};
    for (size_t i = 0; i < t->count; i++)
        if (same_section(key, t->list[i].key))
            ap_suggest_consider(&inside, key, t->list[i].key);
    /* Compare names alone: a common section prefix would make everything look near. */
    if (inside.best != NULL) {
        struct ap_suggest name = {leaf(inside.best), ap_suggest_distance(leaf(key), leaf(inside.best))};
        if (ap_suggest_result(&name, leaf(key)) != NULL)
            return inside.best;
    }
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(leaf(t->list[i].key), leaf(key)) == 0)
            return t->list[i].key; /* right name, wrong section */
    const char *other_name = key_also_called(t, leaf(key));
    if (other_name != NULL)
        return other_name;
    for (size_t i = 0; i < t->section_count; i++)
        ap_suggest_consider(&any, key, t->sections[i].name);
    for (size_t i = 0; i < t->count; i++)
        ap_suggest_consider(&any, key, t->list[i].key);
    return ap_suggest_result(&any, key);
}

static ap_status unknown_key(const struct origin *at, const char *key)
{
    const struct ap_option_table *t = at->o->table;
    ap_error_set(at->err, AP_ERR_INPUT, "unknown key '%.200s'", key);
    put_place(at, key);
    const char *near = nearest_key(t, key);
    if (near != NULL) {
        ap_error_hint(at->err, "did you mean '%s'?", near);
        return AP_ERR_INPUT;
    }
    /* No near one: name those that are valid in this place. */
    struct ap_strbuf b = {0};
    for (size_t i = 0; i < t->count; i++)
        if (same_section(key, t->list[i].key))
            ap_strbuf_addf(&b, "%s%s", b.size > 0 ? ", " : "", leaf(t->list[i].key));
    if (strchr(key, '.') == NULL)
        for (size_t i = 0; i < t->section_count; i++)
            ap_strbuf_addf(&b, "%s%s", b.size > 0 ? ", " : "", t->sections[i].name);
    char *list = ap_strbuf_take(&b);
    if (list != NULL && list[0] != '\0')
        ap_error_hint(at->err, "valid here: %s", list);
    free(list);
    return AP_ERR_INPUT;
}

static int is_section(const struct ap_option_table *t, const char *name)
{
    for (size_t i = 0; i < t->section_count; i++)
        if (strcmp(t->sections[i].name, name) == 0)
            return 1;
    return 0;
}

/* ---- public ---- */

ap_status ap_options_init(struct ap_options *o, const struct ap_option_table *table, void *values, struct ap_error *err)
{
    *o = (struct ap_options){.table = table, .values = values, .prefix = "--set "};
    o->marks = calloc(table->count > 0 ? table->count : 1, sizeof *o->marks);
    if (o->marks == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for options");
    for (size_t i = 0; i < table->count; i++)
        AP_TRY(take_default(o, i, err));
    return AP_OK;
}

static ap_status apply_map(struct ap_options *o, const char *prefix, const struct ap_yaml_node *map,
                           struct ap_error *err)
{
    for (size_t i = 0; i < map->count; i++) {
        const struct ap_yaml_node *key = map->items[2 * i], *value = map->items[2 * i + 1];
        struct origin at = {o, AP_OPT_FROM_FILE, key, err};
        char full[KEY_MAX_BYTES];
        if (snprintf(full, sizeof full, "%s%s", prefix, key->text) >= (int)sizeof full)
            return unknown_key(&at, key->text);
        int index = ap_options_find(o->table, full);
        if (index >= 0) {
            at.node = value->kind == AP_YAML_SCALAR && !ap_yaml_is_null(value) ? value : key;
            AP_TRY(take(&at, &o->table->list[index], value));
            o->marks[index] = (struct ap_option_mark){AP_OPT_FROM_FILE, key->line, key->column};
            continue;
        }
        if (prefix[0] != '\0' || !is_section(o->table, full))
            return unknown_key(&at, full);
        if (ap_yaml_is_null(value))
            continue; /* a section all of whose lines are commented out */
        if (value->kind != AP_YAML_MAP) {
            ap_error_set(err, AP_ERR_INPUT, "%s is a section: it takes keys, not a value", full);
            put_place(&at, full);
            return AP_ERR_INPUT;
        }
        snprintf(full, sizeof full, "%s.", key->text);
        AP_TRY(apply_map(o, full, value, err));
    }
    return AP_OK;
}

ap_status ap_options_apply(struct ap_options *o, const char *file, const struct ap_yaml_node *root,
                           struct ap_error *err)
{
    o->file = file;
    if (root->kind != AP_YAML_MAP) {
        ap_error_set(err, AP_ERR_INPUT, "the file must hold keys and values, such as 'name: my-run'");
        ap_error_at(err, file, root->line, root->column);
        return AP_ERR_INPUT;
    }
    return apply_map(o, "", root, err);
}

ap_status ap_options_set(struct ap_options *o, const char *key, const char *value, struct ap_error *err)
{
    struct origin at = {o, AP_OPT_FROM_SET, NULL, err};
    int index = ap_options_find(o->table, key);
    if (index < 0)
        return unknown_key(&at, key);
    AP_TRY(take_text(&at, &o->table->list[index], value));
    o->marks[index] = (struct ap_option_mark){AP_OPT_FROM_SET, 0, 0};
    return AP_OK;
}

static ap_status check_exclusive(struct ap_options *o, size_t index, struct ap_error *err)
{
    const struct ap_option *opt = &o->table->list[index];
    int other = opt->excludes != NULL ? ap_options_find(o->table, opt->excludes) : -1;
    if (other < 0 || o->marks[index].source == AP_OPT_FROM_DEFAULT || o->marks[other].source == AP_OPT_FROM_DEFAULT)
        return AP_OK;
    if (o->marks[index].source > o->marks[other].source)
        return take_default(o, (size_t)other, err);
    if (o->marks[index].source < o->marks[other].source)
        return take_default(o, index, err);
    size_t later = o->marks[index].line > o->marks[other].line ? index : (size_t)other;
    ap_error_set(err, AP_ERR_INPUT, "%s and %s are both given", opt->key, opt->excludes);
    ap_options_place(o, o->table->list[later].key, err);
    ap_error_hint(err, "keep one of the two");
    return AP_ERR_INPUT;
}

ap_status ap_options_finish(struct ap_options *o, struct ap_error *err)
{
    for (size_t i = 0; i < o->table->count; i++)
        AP_TRY(check_exclusive(o, i, err));
    for (size_t i = 0; i < o->table->count; i++) {
        const struct ap_option *opt = &o->table->list[i];
        if (!(opt->flags & AP_OPT_REQUIRED) || o->marks[i].source != AP_OPT_FROM_DEFAULT)
            continue;
        char domain[512];
        ap_option_domain(opt, domain, sizeof domain);
        const char *dashes = strcmp(o->prefix, "--") == 0 ? "--" : "";
        ap_error_set(err, AP_ERR_INPUT, "%s%s is missing", dashes, opt->key);
        ap_error_at(err, o->file, 0, 0);
        ap_error_hint(err, "give %s", domain);
        return AP_ERR_INPUT;
    }
    return AP_OK;
}

void ap_options_clear(struct ap_options *o)
{
    free(o->marks);
    o->marks = NULL;
}

void ap_options_free_values(const struct ap_option_table *table, void *values)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct ap_option *opt = &table->list[i];
        if (opt->kind == AP_OPT_TEXT || opt->kind == AP_OPT_PATH) {
            char **slot = ap_option_at(opt, values);
            free(*slot);
            *slot = NULL;
        } else if (opt->kind == AP_OPT_SOURCES) {
            free_sources(opt, values);
        }
    }
}

int ap_options_source(const struct ap_options *o, const char *key)
{
    int index = ap_options_find(o->table, key);
    return index >= 0 ? o->marks[index].source : AP_OPT_FROM_DEFAULT;
}

void ap_options_place(const struct ap_options *o, const char *key, struct ap_error *err)
{
    int index = ap_options_find(o->table, key);
    if (index < 0)
        return;
    const struct ap_option_mark *m = &o->marks[index];
    struct ap_yaml_node node = {.line = m->line, .column = m->column};
    struct origin at = {o, m->source, &node, err};
    if (m->source == AP_OPT_FROM_DEFAULT)
        ap_error_at(err, o->file, 0, 0);
    else
        put_place(&at, key);
}
