/* SPDX-License-Identifier: Apache-2.0
 * What an option table says in words: domains, help, man page, JSON Schema, and values as YAML. */
#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/options.h"
#include "base/options_internal.h"

#define WIDTH 100

static int bounded(const struct ap_option *opt)
{
    return opt->min != 0 || opt->max != 0;
}

static int add_choice(void *ctx, int index, const char *word)
{
    ap_strbuf_addf(ctx, "%s%s", index > 0 ? ", " : "", word);
    return 0;
}

/* " above 0 and at most 1": the bounds in words. */
static void add_bounds(struct ap_strbuf *b, const struct ap_option *opt)
{
    if (!bounded(opt))
        return;
    int has_max = isfinite(opt->max) && opt->max < 0x1p53;
    ap_strbuf_add(b, opt->flags & AP_OPT_ABOVE_MIN ? " above " : has_max ? " from " : " of at least ");
    ap_strbuf_add_double(b, opt->min);
    if (!has_max)
        return;
    ap_strbuf_add(b, opt->flags & AP_OPT_BELOW_MAX   ? " and below "
                     : opt->flags & AP_OPT_ABOVE_MIN ? " and at most "
                                                     : " to ");
    if (opt->kind == AP_OPT_INT)
        ap_strbuf_addf(b, "%" PRId64, (int64_t)opt->max);
    else
        ap_strbuf_add_double(b, opt->max);
}

static void add_domain(struct ap_strbuf *b, const struct ap_option *opt)
{
    switch (opt->kind) {
    case AP_OPT_INT:
    case AP_OPT_UINT:
        ap_strbuf_add(b, "an integer");
        add_bounds(b, opt);
        break;
    case AP_OPT_REAL:
        ap_strbuf_add(b, "a number");
        add_bounds(b, opt);
        break;
    case AP_OPT_BOOL:
        ap_strbuf_add(b, opt->flags & AP_OPT_AUTO ? "true, false" : "true or false");
        break;
    case AP_OPT_CHOICE:
        ap_strbuf_add(b, "one of ");
        ap_options_each_choice(opt->choices, add_choice, b);
        break;
    case AP_OPT_TEXT:
        ap_strbuf_add(b, opt->choices != NULL ? "one of " : "a text");
        ap_options_each_choice(opt->choices, add_choice, b);
        break;
    case AP_OPT_PATH:
        ap_strbuf_add(b, "a path");
        break;
    case AP_OPT_REALS:
        ap_strbuf_addf(b, "a list of at most %d numbers", opt->max_count);
        add_bounds(b, opt);
        break;
    case AP_OPT_SOURCES:
        ap_strbuf_add(b, "a path, a list of paths, or a list of {path, weight}");
        break;
    }
    if (opt->flags & AP_OPT_AUTO)
        ap_strbuf_add(b, opt->kind == AP_OPT_BOOL ? " or auto" : ", or auto");
}

void ap_option_domain(const struct ap_option *opt, char *buf, size_t size)
{
    struct ap_strbuf b = {0};
    add_domain(&b, opt);
    char *text = ap_strbuf_take(&b);
    snprintf(buf, size, "%s", text != NULL ? text : "another value");
    free(text);
}

static const char *default_text(const struct ap_option *opt)
{
    if (opt->default_words != NULL)
        return opt->default_words;
    if (opt->flags & AP_OPT_REQUIRED)
        return "required";
    return opt->fallback;
}

/* Does key belong to section ("" for the top level)? */
static int in_section(const char *key, const char *section)
{
    const char *dot = strchr(key, '.');
    if (dot == NULL)
        return section[0] == '\0';
    return strlen(section) == (size_t)(dot - key) && strncmp(key, section, (size_t)(dot - key)) == 0;
}

/* "doc. Unit: tokens. An integer from 1 to 4. Default: 2." */
static void add_description(struct ap_strbuf *b, const struct ap_option *opt)
{
    char domain[512];
    ap_option_domain(opt, domain, sizeof domain);
    if (domain[0] >= 'a' && domain[0] <= 'z')
        domain[0] = (char)(domain[0] - 'a' + 'A');
    ap_strbuf_addf(b, "%s %s", opt->doc, domain);
    if (opt->unit != NULL)
        ap_strbuf_addf(b, " (%s)", opt->unit);
    const char *def = default_text(opt);
    if (def != NULL && (opt->flags & AP_OPT_REQUIRED))
        ap_strbuf_add(b, "; required.");
    else if (def != NULL)
        ap_strbuf_addf(b, "; default %s.", def);
    else
        ap_strbuf_add(b, ".");
}

static void help_option(struct ap_strbuf *b, const struct ap_option *opt)
{
    struct ap_strbuf d = {0};
    add_description(&d, opt);
    char *text = ap_strbuf_take(&d);
    int n = (int)strlen(opt->key);
    ap_strbuf_addf(b, "  %s", opt->key);
    if (n > 24)
        ap_strbuf_addf(b, "\n%*s", 28, "");
    else
        ap_strbuf_addf(b, "%*s", 26 - n, "");
    if (text != NULL)
        ap_strbuf_add_wrapped(b, text, 28, 28, WIDTH);
    else
        b->failed = 1;
    ap_strbuf_add(b, "\n");
    free(text);
}

void ap_options_help(const struct ap_option_table *table, struct ap_strbuf *b)
{
    for (size_t i = 0; i < table->count; i++)
        if (in_section(table->list[i].key, ""))
            help_option(b, &table->list[i]);
    for (size_t s = 0; s < table->section_count; s++) {
        ap_strbuf_addf(b, "\n%s: ", table->sections[s].name);
        ap_strbuf_add_wrapped(b, table->sections[s].doc, (int)strlen(table->sections[s].name) + 2, 2, WIDTH);
        ap_strbuf_add(b, "\n");
        for (size_t i = 0; i < table->count; i++)
            if (in_section(table->list[i].key, table->sections[s].name))
                help_option(b, &table->list[i]);
    }
}

void ap_options_roff(struct ap_strbuf *b, const char *text)
{
    int line_start = 1;
    for (; *text != '\0'; text++) {
        if (line_start && (*text == '.' || *text == '\''))
            ap_strbuf_add(b, "\\&");
        if (*text == '\\')
            ap_strbuf_add(b, "\\e");
        else if (*text == '-')
            ap_strbuf_add(b, "\\-");
        else
            ap_strbuf_add_bytes(b, text, 1);
        line_start = *text == '\n';
    }
}

static void man_option(struct ap_strbuf *b, const struct ap_option *opt)
{
    struct ap_strbuf d = {0};
    add_description(&d, opt);
    char *text = ap_strbuf_take(&d);
    ap_strbuf_add(b, ".TP\n.B ");
    ap_options_roff(b, opt->key);
    ap_strbuf_add(b, "\n");
    ap_options_roff(b, text != NULL ? text : "");
    ap_strbuf_add(b, "\n");
    b->failed |= text == NULL;
    free(text);
}

void ap_options_man(const struct ap_option_table *table, struct ap_strbuf *b)
{
    for (size_t i = 0; i < table->count; i++)
        if (in_section(table->list[i].key, ""))
            man_option(b, &table->list[i]);
    for (size_t s = 0; s < table->section_count; s++) {
        ap_strbuf_add(b, ".SS ");
        ap_options_roff(b, table->sections[s].name);
        ap_strbuf_add(b, "\n");
        ap_options_roff(b, table->sections[s].doc);
        ap_strbuf_add(b, "\n");
        for (size_t i = 0; i < table->count; i++)
            if (in_section(table->list[i].key, table->sections[s].name))
                man_option(b, &table->list[i]);
    }
}

/* ---- JSON Schema ---- */

static int schema_choice(void *ctx, int index, const char *word)
{
    (void)index;
    ap_json_str(ctx, NULL, word);
    return 0;
}

static void schema_bounds(struct ap_json *j, const struct ap_option *opt)
{
    if (!bounded(opt))
        return;
    ap_json_real(j, opt->flags & AP_OPT_ABOVE_MIN ? "exclusiveMinimum" : "minimum", opt->min);
    if (isfinite(opt->max))
        ap_json_real(j, opt->flags & AP_OPT_BELOW_MAX ? "exclusiveMaximum" : "maximum", opt->max);
}

static void schema_number(struct ap_json *j, const struct ap_option *opt, const char *type)
{
    ap_json_begin_object(j, NULL);
    ap_json_str(j, "type", type);
    schema_bounds(j, opt);
    ap_json_end_object(j);
}

static void schema_integer(struct ap_json *j, const struct ap_option *opt)
{
    schema_number(j, opt, "integer");
    /* With a suffix or underscores YAML sees a string. */
    ap_json_begin_object(j, NULL);
    ap_json_str(j, "type", "string");
    ap_json_str(j, "pattern", "^[0-9][0-9_]*([.][0-9]+)?([kKMGT]i?)?$");
    ap_json_end_object(j);
}

static void schema_string(struct ap_json *j, const struct ap_option *opt)
{
    ap_json_begin_object(j, NULL);
    ap_json_str(j, "type", "string");
    if (opt->choices != NULL) {
        ap_json_begin_array(j, "enum");
        ap_options_each_choice(opt->choices, schema_choice, j);
        ap_json_end_array(j);
    } else {
        ap_json_int(j, "minLength", 1);
    }
    ap_json_end_object(j);
}

static void schema_list(struct ap_json *j, const struct ap_option *opt)
{
    ap_json_begin_object(j, NULL);
    ap_json_str(j, "type", "array");
    ap_json_int(j, "maxItems", opt->max_count);
    ap_json_begin_object(j, "items");
    if (opt->kind == AP_OPT_REALS) {
        ap_json_str(j, "type", "number");
        schema_bounds(j, opt);
    } else {
        ap_json_begin_array(j, "anyOf");
        ap_json_raw(j, NULL, "{\"type\": \"string\", \"minLength\": 1}");
        ap_json_raw(j, NULL,
                    "{\"type\": \"object\", \"properties\": {\"path\": {\"type\": \"string\", \"minLength\": 1}, "
                    "\"weight\": {\"type\": \"number\", \"exclusiveMinimum\": 0}}, \"required\": [\"path\"], "
                    "\"additionalProperties\": false}");
        ap_json_end_array(j);
    }
    ap_json_end_object(j);
    ap_json_end_object(j);
}

static void schema_alternatives(struct ap_json *j, const struct ap_option *opt)
{
    switch (opt->kind) {
    case AP_OPT_INT:
    case AP_OPT_UINT:
        schema_integer(j, opt);
        break;
    case AP_OPT_REAL:
        schema_number(j, opt, "number");
        break;
    case AP_OPT_BOOL:
        ap_json_raw(j, NULL, "{\"type\": \"boolean\"}");
        break;
    case AP_OPT_REALS:
        schema_list(j, opt);
        break;
    case AP_OPT_SOURCES:
        schema_string(j, opt);
        schema_list(j, opt);
        break;
    default:
        schema_string(j, opt);
        break;
    }
    if (opt->flags & AP_OPT_AUTO)
        ap_json_raw(j, NULL, "{\"const\": \"auto\"}");
}

static void schema_option(struct ap_json *j, const struct ap_option *opt)
{
    const char *dot = strchr(opt->key, '.');
    ap_json_begin_object(j, dot != NULL ? dot + 1 : opt->key);
    struct ap_strbuf d = {0};
    add_description(&d, opt);
    char *text = ap_strbuf_take(&d);
    ap_json_str(j, "description", text);
    free(text);
    ap_json_begin_array(j, "anyOf");
    schema_alternatives(j, opt);
    ap_json_end_array(j);
    ap_json_end_object(j);
}

/* properties, required, additionalProperties of one level. */
static void schema_level(struct ap_json *j, const struct ap_option_table *t, const char *section)
{
    ap_json_str(j, "type", "object");
    ap_json_bool(j, "additionalProperties", 0);
    ap_json_begin_object(j, "properties");
    for (size_t i = 0; i < t->count; i++)
        if (in_section(t->list[i].key, section))
            schema_option(j, &t->list[i]);
    for (size_t s = 0; section[0] == '\0' && s < t->section_count; s++) {
        ap_json_begin_object(j, t->sections[s].name);
        ap_json_str(j, "description", t->sections[s].doc);
        schema_level(j, t, t->sections[s].name);
        ap_json_end_object(j);
    }
    ap_json_end_object(j);
    ap_json_begin_array(j, "required");
    for (size_t i = 0; i < t->count; i++)
        if (in_section(t->list[i].key, section) && (t->list[i].flags & AP_OPT_REQUIRED))
            ap_json_str(j, NULL,
                        strchr(t->list[i].key, '.') != NULL ? strchr(t->list[i].key, '.') + 1 : t->list[i].key);
    for (size_t s = 0; section[0] == '\0' && s < t->section_count; s++)
        for (size_t i = 0; i < t->count; i++)
            if (in_section(t->list[i].key, t->sections[s].name) && (t->list[i].flags & AP_OPT_REQUIRED)) {
                ap_json_str(j, NULL, t->sections[s].name);
                break;
            }
    ap_json_end_array(j);
}

char *ap_options_schema(const struct ap_option_table *table, const char *title)
{
    struct ap_json j = {.indent = 2};
    ap_json_begin_object(&j, NULL);
    ap_json_str(&j, "$schema", "https://json-schema.org/draft/2020-12/schema");
    ap_json_str(&j, "title", title);
    schema_level(&j, table, "");
    ap_json_end_object(&j);
    ap_strbuf_add(&j.text, "\n");
    return ap_strbuf_take(&j.text);
}

/* ---- values as YAML ---- */

/* A double-quoted JSON string is a valid YAML scalar. */
static void dump_text(struct ap_strbuf *b, const char *text)
{
    struct ap_json j = {0};
    ap_json_str(&j, NULL, text);
    char *quoted = ap_strbuf_take(&j.text);
    if (quoted == NULL)
        b->failed = 1;
    else
        ap_strbuf_add(b, quoted);
    free(quoted);
}

struct nth_ctx {
    struct ap_strbuf *b;
    int index;
};

static int dump_nth(void *ctx, int index, const char *word)
{
    struct nth_ctx *c = ctx;
    if (index != c->index)
        return 0;
    ap_strbuf_add(c->b, word);
    return 1;
}

static void dump_list(struct ap_strbuf *b, const struct ap_option *opt, const void *values)
{
    const void *list = ap_option_at(opt, values);
    int count = *ap_option_count_at(opt, values);
    ap_strbuf_add(b, "[");
    for (int i = 0; i < count; i++) {
        ap_strbuf_add(b, i > 0 ? ", " : "");
        if (opt->kind == AP_OPT_REALS) {
            ap_strbuf_add_double(b, ((const double *)list)[i]);
            continue;
        }
        ap_strbuf_add(b, "{path: ");
        dump_text(b, *AP_SOURCE_PATH(list, i));
        ap_strbuf_add(b, ", weight: ");
        ap_strbuf_add_double(b, *AP_SOURCE_WEIGHT(list, i));
        ap_strbuf_add(b, "}");
    }
    ap_strbuf_add(b, "]");
}

static int is_unset(const struct ap_option *opt, const void *values)
{
    const void *v = ap_option_at(opt, values);
    switch (opt->kind) {
    case AP_OPT_TEXT:
    case AP_OPT_PATH:
        return *(char *const *)v == NULL;
    case AP_OPT_REAL:
        return isnan(*(const double *)v) && !(opt->flags & AP_OPT_AUTO);
    case AP_OPT_SOURCES:
        return *ap_option_count_at(opt, values) == 0;
    default:
        return 0;
    }
}

static void dump_value(struct ap_strbuf *b, const struct ap_option *opt, const void *values)
{
    const void *v = ap_option_at(opt, values);
    int automatic = opt->flags & AP_OPT_AUTO;
    struct nth_ctx nth = {b, 0};
    switch (opt->kind) {
    case AP_OPT_INT:
        if (automatic && *(const int64_t *)v == -1)
            ap_strbuf_add(b, "auto");
        else
            ap_strbuf_addf(b, "%" PRId64, *(const int64_t *)v);
        return;
    case AP_OPT_UINT:
        ap_strbuf_addf(b, "%" PRIu64, *(const uint64_t *)v);
        return;
    case AP_OPT_REAL:
        if (isnan(*(const double *)v))
            ap_strbuf_add(b, "auto");
        else
            ap_strbuf_add_double(b, *(const double *)v);
        return;
    case AP_OPT_BOOL:
        ap_strbuf_add(b, *(const int *)v < 0 ? "auto" : *(const int *)v ? "true" : "false");
        return;
    case AP_OPT_CHOICE:
        nth.index = *(const int *)v;
        ap_options_each_choice(opt->choices, dump_nth, &nth);
        return;
    case AP_OPT_TEXT:
    case AP_OPT_PATH:
        dump_text(b, *(char *const *)v);
        return;
    default:
        dump_list(b, opt, values);
        return;
    }
}

static void dump_level(struct ap_strbuf *b, const struct ap_option_table *t, const void *values, const char *section,
                       int (*skip)(const char *key))
{
    int begun = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct ap_option *opt = &t->list[i];
        if (!in_section(opt->key, section) || is_unset(opt, values) || (skip != NULL && skip(opt->key)))
            continue;
        if (section[0] != '\0' && !begun)
            ap_strbuf_addf(b, "%s:\n", section);
        begun = 1;
        if (section[0] != '\0')
            ap_strbuf_addf(b, "  %s: ", strchr(opt->key, '.') + 1);
        else
            ap_strbuf_addf(b, "%s: ", opt->key);
        dump_value(b, opt, values);
        ap_strbuf_add(b, "\n");
    }
}

char *ap_options_dump(const struct ap_option_table *table, const void *values, int (*skip)(const char *key))
{
    struct ap_strbuf b = {0};
    dump_level(&b, table, values, "", skip);
    for (size_t s = 0; s < table->section_count; s++)
        dump_level(&b, table, values, table->sections[s].name, skip);
    return ap_strbuf_take(&b);
}
