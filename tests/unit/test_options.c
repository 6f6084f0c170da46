/* SPDX-License-Identifier: Apache-2.0
 * The YAML tree and the option table machinery on a small table of its own. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/options_internal.h"
#include "base/yaml.h"
#include "support/leaks.h"

/* ---- YAML ---- */

static struct ap_yaml_node *good(const char *text)
{
    struct ap_yaml_node *root = NULL;
    struct ap_error err = {0};
    cr_assert_eq(ap_yaml_parse("f.yaml", text, strlen(text), &root, &err), AP_OK, "%s: %s", text, err.text);
    return root;
}

/* text must be refused at line:column with these words. */
static void bad_bytes(const char *text, size_t size, long line, long column, const char *words)
{
    struct ap_yaml_node *root = NULL;
    struct ap_error err = {0};
    cr_expect_eq(ap_yaml_parse("f.yaml", text, size, &root, &err), AP_ERR_INPUT);
    cr_expect_null(root);
    cr_expect_str_eq(err.file, "f.yaml");
    cr_expect_eq(err.line, line, "%s: line %ld", words, err.line);
    cr_expect_eq(err.column, column, "%s: column %ld", words, err.column);
    cr_expect_not_null(strstr(err.text, words), "'%s' is not in '%s'", words, err.text);
}

static void bad(const char *text, long line, long column, const char *words)
{
    bad_bytes(text, strlen(text), line, column, words);
}

AP_TEST(yaml, tree_knows_its_places)
{
    struct ap_yaml_node *root = good("#!/bin/x\n# c\na: 1\nb:\n  - x\n  - {p: 'q', n: }\nc: |\n  t\n");
    cr_assert_eq(root->kind, AP_YAML_MAP);
    cr_expect_eq(root->count, 3);
    const struct ap_yaml_node *b = ap_yaml_get(root, "b");
    cr_assert_eq(b->kind, AP_YAML_LIST);
    cr_expect_eq(b->items[1]->line, 6);
    cr_expect_eq(b->items[1]->column, 5);
    const struct ap_yaml_node *q = ap_yaml_get(b->items[1], "p");
    cr_expect_str_eq(q->text, "q");
    cr_expect(q->quoted);
    cr_expect(ap_yaml_is_null(ap_yaml_get(b->items[1], "n")));
    cr_expect_str_eq(ap_yaml_get(root, "c")->text, "t\n");
    cr_expect_null(ap_yaml_get(root, "d"));
    ap_yaml_free(root);
    root = good("");
    cr_expect_eq(root->count, 0);
    ap_yaml_free(root);
    root = good("# only a comment\n");
    cr_expect_eq(root->kind, AP_YAML_MAP);
    ap_yaml_free(root);
    ap_yaml_free(NULL);
}

AP_TEST(yaml, hostile_texts_are_refused)
{
    bad("a: &x 1\nb: *x\n", 1, 7, "anchors and aliases");
    bad("a: *x\n", 1, 5, "anchors and aliases");
    bad("a: !!int 1\n", 1, 10, "tags");
    bad("a: 1\nb: 2\na: 3\n", 3, 1, "given twice, the first time in line 1");
    bad("a: 1\n---\nb: 2\n", 2, 1, "second document");
    bad("? [x]\n: y\n", 1, 3, "a key must be plain text");
    bad("a: [1, 2\nb: 3\n", 3, 1, "not valid YAML");
    bad("a: b\n\tc: d\n", 1, 4, "not valid YAML");
    bad("a: \"\\0\"\n", 1, 5, "NUL");
    bad("\xef\xbb\xbf"
        "a: 1\n",
        1, 1, "byte order mark");
    bad("a: 1\nb: \xc3\xa4 \xff\n", 2, 6, "byte 0xff is not valid UTF-8");
    bad("a: \xed\xa0\x80\n", 1, 4, "not valid UTF-8");
    bad_bytes("a: 1\0b: 2", 9, 1, 5, "NUL byte");
}

AP_TEST(yaml, tabs_are_named)
{
    struct ap_yaml_node *root = NULL;
    struct ap_error err = {0};
    const char *text = "a:\n  b: 1\n\tc: 2\n";
    cr_expect_eq(ap_yaml_parse("f", text, strlen(text), &root, &err), AP_ERR_INPUT);
    cr_expect_str_eq(err.hint, "line 3 is indented with a tab: use spaces");
}

static void bad_repeat(const char *head, const char *unit, int times, const char *tail, const char *words)
{
    struct ap_strbuf b = {0};
    ap_strbuf_add(&b, head);
    for (int i = 0; i < times; i++)
        ap_strbuf_add(&b, unit);
    ap_strbuf_add(&b, tail);
    size_t size = b.size;
    char *text = ap_strbuf_take(&b);
    struct ap_yaml_node *root = NULL;
    struct ap_error err = {0};
    cr_expect_eq(ap_yaml_parse("f.yaml", text, size, &root, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, words), "'%s' is not in '%s'", words, err.text);
    free(text);
}

AP_TEST(yaml, limits_hold)
{
    bad_repeat("a: ", "[", 40, "", "nested too deeply");
    bad_repeat("a: ", "[", 100000, "", "nested too deeply");
    bad_repeat("a: [", "x,", 200000, "]", "too many entries");
    bad_repeat("a: '", "xxxxxxxxxx", 110000, "'", "larger than 1 MiB");
    bad_repeat("", "k: 1\n", 2, "", "given twice");
}

/* ---- options ---- */

struct values {
    int64_t steps, count;
    uint64_t seed;
    double lr, band;
    int flag, kind;
    char *name, *mode, *out;
    double list[3];
    int list_count;
    struct {
        char *path;
        double weight;
    } sources[2];
    int source_count;
};

#define AT(m) offsetof(struct values, m)
static const struct ap_option list[] = {
    {.key = "name", .kind = AP_OPT_TEXT, .offset = AT(name), .doc = "Name."},
    {.key = "steps", .kind = AP_OPT_INT, .offset = AT(steps), .fallback = "10", .min = 1, .max = 1e6, .doc = "Steps."},
    {.key = "count",
     .kind = AP_OPT_INT,
     .offset = AT(count),
     .fallback = "auto",
     .min = 1,
     .max = INFINITY,
     .flags = AP_OPT_AUTO,
     .doc = "Count.",
     .excludes = "steps"},
    {.key = "seed", .kind = AP_OPT_UINT, .offset = AT(seed), .doc = "Seed."},
    {.key = "optim.lr",
     .kind = AP_OPT_REAL,
     .offset = AT(lr),
     .fallback = "0.5",
     .min = 0,
     .max = 1,
     .flags = AP_OPT_ABOVE_MIN | AP_OPT_BELOW_MAX,
     .also = "learning_rate|rate",
     .doc = "Rate."},
    {.key = "optim.band", .kind = AP_OPT_REAL, .offset = AT(band), .min = -1, .max = 1, .doc = "Band."},
    {.key = "optim.flag", .kind = AP_OPT_BOOL, .offset = AT(flag), .fallback = "false", .doc = "Flag."},
    {.key = "optim.kind",
     .kind = AP_OPT_CHOICE,
     .offset = AT(kind),
     .fallback = "two",
     .choices = "one|two|three",
     .doc = "Kind."},
    {.key = "optim.mode",
     .kind = AP_OPT_TEXT,
     .offset = AT(mode),
     .fallback = "slow",
     .choices = "slow|fast",
     .doc = "Mode."},
    {.key = "optim.list",
     .kind = AP_OPT_REALS,
     .offset = AT(list),
     .count_offset = AT(list_count),
     .max_count = 3,
     .fallback = "[1, 2]",
     .min = 0,
     .max = 9,
     .doc = "List."},
    {.key = "data.out", .kind = AP_OPT_PATH, .offset = AT(out), .doc = "Out."},
    {.key = "data.in",
     .kind = AP_OPT_SOURCES,
     .offset = AT(sources),
     .count_offset = AT(source_count),
     .max_count = 2,
     .flags = AP_OPT_REQUIRED,
     .doc = "In."},
};
static const struct ap_option_section sections[] = {{"optim", "Optimizer."}, {"data", "Data."}};
static const struct ap_option_table table = {list, sizeof list / sizeof list[0], sections, 2};

struct filling {
    struct values v;
    struct ap_options o;
    struct ap_error err;
};

static ap_status fill(struct filling *f, const char *text, const char *const (*sets)[2], int set_count)
{
    struct ap_yaml_node *root = NULL;
    memset(f, 0, sizeof *f);
    cr_assert_eq(ap_options_init(&f->o, &table, &f->v, &f->err), AP_OK, "%s", f->err.text);
    ap_status status = ap_yaml_parse("f.yaml", text, strlen(text), &root, &f->err);
    if (status == AP_OK)
        status = ap_options_apply(&f->o, "f.yaml", root, &f->err);
    for (int i = 0; status == AP_OK && i < set_count; i++)
        status = ap_options_set(&f->o, sets[i][0], sets[i][1], &f->err);
    if (status == AP_OK)
        status = ap_options_finish(&f->o, &f->err);
    ap_yaml_free(root);
    return status;
}

static void done(struct filling *f)
{
    ap_options_clear(&f->o);
    ap_options_free_values(&table, &f->v);
}

AP_TEST(options, defaults_file_and_overrides)
{
    struct filling f;
    static const char *const sets[][2] = {{"steps", "1Ki"}, {"optim.list", "[7]"}, {"name", "from: set"}};
    cr_assert_eq(fill(&f,
                      "name: x\nsteps: 20\nseed: 18446744073709551615\noptim: {lr: 1e-3, kind: three}\ndata: {in: p}\n",
                      sets, 3),
                 AP_OK, "%s", f.err.text);
    cr_expect_eq(f.v.steps, 1024);
    cr_expect_eq(f.v.count, -1);
    cr_expect_eq(f.v.seed, UINT64_MAX);
    cr_expect_eq(f.v.lr, 1e-3);
    cr_expect(isnan(f.v.band));
    cr_expect_eq(f.v.kind, 2);
    cr_expect_str_eq(f.v.mode, "slow");
    cr_expect_str_eq(f.v.name, "from: set", "text from the command line is taken as it stands");
    cr_expect_eq(f.v.list_count, 1);
    cr_expect_eq(f.v.list[0], 7);
    cr_expect_eq(f.v.source_count, 1);
    cr_expect_str_eq(f.v.sources[0].path, "p");
    cr_expect_eq(f.v.sources[0].weight, 1);
    cr_expect_eq(ap_options_source(&f.o, "steps"), AP_OPT_FROM_SET);
    cr_expect_eq(ap_options_source(&f.o, "seed"), AP_OPT_FROM_FILE);
    cr_expect_eq(ap_options_source(&f.o, "optim.flag"), AP_OPT_FROM_DEFAULT);
    done(&f);
}

AP_TEST(options, lists_of_sources)
{
    struct filling f;
    cr_assert_eq(fill(&f, "data: {in: [a, {path: b, weight: 0.5}]}\n", NULL, 0), AP_OK, "%s", f.err.text);
    cr_expect_eq(f.v.source_count, 2);
    cr_expect_str_eq(f.v.sources[1].path, "b");
    cr_expect_eq(f.v.sources[1].weight, 0.5);
    done(&f);
}

AP_TEST(options, sections_may_be_empty)
{
    struct filling f;
    cr_expect_eq(fill(&f, "optim:\n  # nothing\ndata: {in: p}\n", NULL, 0), AP_OK, "%s", f.err.text);
    done(&f);
}

static void expect_error(const char *text, long line, long column, const char *words, const char *hint)
{
    struct filling f;
    cr_expect_eq(fill(&f, text, NULL, 0), AP_ERR_INPUT, "%s", text);
    cr_expect_eq(f.err.line, line, "%s: line %ld", text, f.err.line);
    cr_expect_eq(f.err.column, column, "%s: column %ld", text, f.err.column);
    cr_expect_not_null(strstr(f.err.text, words), "'%s' is not in '%s'", words, f.err.text);
    cr_expect_not_null(strstr(f.err.hint, hint), "'%s' is not in '%s'", hint, f.err.hint);
    done(&f);
}

AP_TEST(options, mistakes_are_placed_and_explained)
{
    expect_error("stesp: 3\n", 1, 1, "unknown key 'stesp'", "did you mean 'steps'?");
    expect_error("a:\n  b: 1\n", 1, 1, "unknown key 'a'", "valid here: name, steps");
    expect_error("optmi: {lr: 1}\n", 1, 1, "unknown key 'optmi'", "did you mean 'optim'?");
    expect_error("optim:\n  flga: true\n", 2, 3, "unknown key 'optim.flga'", "did you mean 'optim.flag'?");
    expect_error("optim: {learning_rate: 1}\n", 1, 9, "unknown key 'optim.learning_rate'", "'optim.lr'");
    expect_error("lr: 1\n", 1, 1, "unknown key 'lr'", "did you mean 'optim.lr'?");
    expect_error("optim: {steps: 1}\n", 1, 9, "unknown key 'optim.steps'", "did you mean 'steps'?");
    expect_error("optim: 3\n", 1, 1, "optim is a section", "");
    expect_error("optim: {lr: {x: 1}}\n", 1, 9, "optim.lr must be a number above 0 and below 1, not a map", "");
    expect_error("steps: many\n", 1, 8, "steps must be an integer from 1 to 1000000, not 'many'", "");
    expect_error("steps: '7'\n", 1, 9, "steps must be an integer", "remove the quotes");
    expect_error("steps: 7.5\n", 1, 8, "steps must be an integer", "");
    expect_error("steps: 0\n", 1, 8, "steps must be", "");
    expect_error("steps: 2M\n", 1, 8, "steps must be", "");
    expect_error("steps: auto\n", 1, 8, "steps must be", "");
    expect_error("steps:\n", 1, 1, "steps has no value", "remove the key");
    expect_error("count: -5\n", 1, 8, "count must be an integer of at least 1, or auto", "");
    expect_error("seed: -1\n", 1, 7, "seed must be", "");
    expect_error("seed: 18446744073709551616\n", 1, 7, "seed must be", "");
    expect_error("optim: {lr: 1}\n", 1, 13, "optim.lr must be", "");
    expect_error("optim: {lr: nan}\n", 1, 13, "optim.lr must be", "");
    expect_error("optim: {lr: 0x1p-1}\n", 1, 13, "optim.lr must be", "");
    expect_error("optim: {flag: yes}\n", 1, 15, "true or false", "did you mean 'true'?");
    expect_error("optim: {kind: thre}\n", 1, 15, "one of one, two, three", "did you mean 'three'?");
    expect_error("optim: {mode: fats}\n", 1, 15, "one of slow, fast", "did you mean 'fast'?");
    expect_error("optim: {list: [1, 2, 3, 4]}\n", 1, 9, "at most 3 numbers", "");
    expect_error("optim: {list: [1, x]}\n", 1, 19, "not 'x'", "");
    expect_error("name: ''\n", 1, 8, "name must be a text", "");
    expect_error("name: [a]\n", 1, 1, "name must be a text, not a list", "");
    expect_error("data: {in: [{path: a, wieght: 2}]}\n", 1, 23, "no key 'wieght'", "did you mean 'weight'?");
    expect_error("data: {in: [{weight: 2}]}\n", 1, 13, "has no path", "");
    expect_error("data: {in: [{path: a, weight: 0}]}\n", 1, 31, "above 0", "");
    expect_error("data: {in: [a, b, c]}\n", 1, 19, "too many entries", "");
    expect_error("data: {in: []}\n", 1, 8, "not a list", "");
    expect_error("name: x\n", 0, 0, "data.in is missing", "give a path");
    expect_error("- a\n", 1, 1, "must hold keys and values", "");
    expect_error("steps: 1\ncount: 2\ndata: {in: p}\n", 2, 1, "count and steps are both given", "keep one");
}

AP_TEST(options, override_errors_name_the_option)
{
    struct filling f;
    static const char *const wrong[][2] = {{"steps", "x"}};
    cr_expect_eq(fill(&f, "data: {in: p}\n", wrong, 1), AP_ERR_INPUT);
    cr_expect_str_eq(f.err.file, "--set steps");
    done(&f);
    static const char *const unknown[][2] = {{"stpes", "x"}};
    cr_expect_eq(fill(&f, "data: {in: p}\n", unknown, 1), AP_ERR_INPUT);
    cr_expect_str_eq(f.err.hint, "did you mean 'steps'?");
    done(&f);
}

AP_TEST(options, an_override_wins_over_what_it_excludes)
{
    struct filling f;
    static const char *const sets[][2] = {{"count", "5"}};
    cr_assert_eq(fill(&f, "steps: 20\ndata: {in: p}\n", sets, 1), AP_OK, "%s", f.err.text);
    cr_expect_eq(f.v.count, 5);
    cr_expect_eq(f.v.steps, 10, "back to the default");
    done(&f);
}

AP_TEST(options, numbers_as_people_write_them)
{
    int64_t i;
    static const struct {
        const char *text;
        int64_t value;
    } ok[] = {
        {"0", 0},
        {"-3", -3},
        {"1_000_000", 1000000},
        {"16Ki", 16384},
        {"2k", 2000},
        {"1.5M", 1500000},
        {"1e6", 1000000},
        {"3Gi", INT64_C(3) << 30},
        {"9223372036854775807", INT64_MAX},
    };
    for (size_t k = 0; k < sizeof ok / sizeof ok[0]; k++) {
        cr_expect_eq(ap_option_parse_int(ok[k].text, &i), 0, "%s", ok[k].text);
        cr_expect_eq(i, ok[k].value, "%s", ok[k].text);
    }
    static const char *const no[] = {
        "",     " 1",   "1 ",
        "1.5",  "k",    "1Kib",
        "0x10", "1__0", "_1",
        "1e30", "inf",  "9223372036854775808",
        "1Kii", "--1",  "11111111111111111111111111111111111111111111111111111111111111111"};
    for (size_t k = 0; k < sizeof no / sizeof no[0]; k++)
        cr_expect_eq(ap_option_parse_int(no[k], &i), -1, "%s", no[k]);
}

/* What dump writes, apply reads back to the same. */
AP_TEST(options, dump_round_trip)
{
    struct filling a, b;
    cr_assert_eq(fill(&a,
                      "name: \"a: '\\\"b\\\\ # \\u00e4\\t\"\ncount: 7\noptim: {lr: 0.1, band: -0.25, list: []}\n"
                      "data: {out: 'x, y', in: [{path: 'p}', weight: 0.3}]}\n",
                      NULL, 0),
                 AP_OK, "%s", a.err.text);
    char *first = ap_options_dump(&table, &a.v, NULL);
    char *file = strdup(first);
    char *line = strstr(file, "steps: 10\n"); /* excluded by count */
    cr_assert_not_null(line);
    memmove(line, line + 10, strlen(line + 10) + 1);
    cr_assert_eq(fill(&b, file, NULL, 0), AP_OK, "%s\n%s", b.err.text, file);
    char *second = ap_options_dump(&table, &b.v, NULL);
    cr_expect_str_eq(first, second);
    cr_expect_str_eq(b.v.name, a.v.name);
    cr_expect_eq(b.v.list_count, 0);
    free(first);
    free(second);
    free(file);
    done(&a);
    done(&b);
}
