/* SPDX-License-Identifier: Apache-2.0
 * Words to commands, commands to links. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/suggest.h"
#include "wan/link_command.h"

#define WORDS_MAX 16
#define WORD_MAX  128
#define FILE_MAX  (1 << 20)
#define KEYS_MAX  32

struct words {
    int n;
    char word[WORDS_MAX][WORD_MAX];
    long column[WORDS_MAX]; /* from 1 */
};

static const struct verb {
    const char *name;
    enum ap_link_verb verb;
    int least, most; /* words after the verb */
    const char *usage;
} verbs[] = {
    {"set", AP_LINK_SET, 3, WORDS_MAX, "set SRC DST key=value..."},
    {"cut", AP_LINK_CUT, 2, 2, "cut A B"},
    {"heal", AP_LINK_HEAL, 2, 2, "heal A B"},
    {"cut-oneway", AP_LINK_CUT_ONEWAY, 2, 2, "cut-oneway SRC DST"},
    {"heal-oneway", AP_LINK_HEAL_ONEWAY, 2, 2, "heal-oneway SRC DST"},
    {"spike", AP_LINK_SPIKE, 4, 4, "spike SRC DST MS SECONDS"},
    {"cap", AP_LINK_CAP, 2, 3, "cap SITE key=value..."},
};
#define VERBS_N (sizeof verbs / sizeof verbs[0])

static ap_status fail(struct ap_error *err, long column)
{
    ap_error_at(err, "", 0, column);
    return AP_ERR_INPUT;
}

static ap_status split(const char *text, struct words *w, struct ap_error *err)
{
    w->n = 0;
    for (const char *at = text;;) {
        at += strspn(at, " \t\r\n");
        size_t size = strcspn(at, " \t\r\n");
        if (size == 0)
            return AP_OK;
        if (w->n == WORDS_MAX || size >= WORD_MAX) {
            ap_error_set(err, AP_ERR_INPUT, "more than %d words, or one of more than %d bytes", WORDS_MAX,
                         WORD_MAX - 1);
            return fail(err, at - text + 1);
        }
        memcpy(w->word[w->n], at, size);
        w->word[w->n][size] = '\0';
        w->column[w->n++] = at - text + 1;
        at += size;
    }
}

static ap_status number(const char *text, long column, double least, double most, double *v_p, struct ap_error *err)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v))
        ap_error_set(err, AP_ERR_INPUT, "\"%s\" is not a number", text);
    else if (v < least || v > most)
        ap_error_set(err, AP_ERR_INPUT, "%s is outside of %g to %g", text, least, most);
    else {
        *v_p = v;
        return AP_OK;
    }
    return fail(err, column);
}

static ap_status site(const struct ap_link_net *net, const struct words *w, int i, int *site_p, struct ap_error *err)
{
    *site_p = -1;
    if (strcmp(w->word[i], "*") == 0)
        return AP_OK;
    *site_p = ap_link_net_find(net, w->word[i]);
    if (*site_p >= 0)
        return AP_OK;
    ap_link_net_unknown(net, w->word[i], err);
    return fail(err, w->column[i]);
}

/* The key of "key=value", one of names; -1 with the error. */
static int key_of(const char *word, long column, const char *const *names, int count, struct ap_error *err)
{
    char key[WORD_MAX];
    size_t size = strcspn(word, "=");
    memcpy(key, word, size);
    key[size] = '\0';
    struct ap_suggest s = {0};
    int k = 0;
    while (k < count && strcmp(names[k], key) != 0)
        ap_suggest_consider(&s, key, names[k++]);
    if (k < count && word[size] == '=')
        return k;
    const char *near = ap_suggest_result(&s, key);
    if (k < count) {
        ap_error_set(err, AP_ERR_INPUT, "\"%s\" has no value: %s=VALUE", key, key);
    } else {
        ap_error_set(err, AP_ERR_INPUT, "no parameter \"%s\"", key);
        if (near != NULL)
            ap_error_hint(err, "did you mean \"%s\"?", near);
    }
    fail(err, column);
    return -1;
}

static ap_status assignment(const char *word, long column, struct ap_link_command *c, struct ap_error *err)
{
    static const char *const caps[] = {"egress_mbit", "ingress_mbit"};
    const char *names[KEYS_MAX];
    int cap = c->verb == AP_LINK_CAP, count = cap ? 2 : ap_link_keys_n;
    if (count > KEYS_MAX)
        return ap_error_set(err, AP_ERR_BUG, "%d parameters, room for %d", count, KEYS_MAX);
    for (int i = 0; i < count; i++)
        names[i] = cap ? caps[i] : ap_link_keys[i].name;
    int k = key_of(word, column, names, count, err);
    if (k < 0)
        return AP_ERR_INPUT;
    const struct ap_link_key *range = &ap_link_keys[cap ? ap_link_key_find("rate_mbit") : k];
    long at = (long)strlen(names[k]) + 1;
    double v;
    AP_TRY(number(word + at, column + at, range->least, range->most, &v, err));
    if (cap)
        c->cap[k] = v;
    else
        ap_link_params_set(&c->values, k, v);
    c->mask |= 1u << k;
    return AP_OK;
}

static const struct verb *verb_of(const struct words *w, int first, struct ap_error *err)
{
    const char *typed = w->word[first];
    struct ap_suggest s = {0};
    for (size_t i = 0; i < VERBS_N; i++) {
        if (strcmp(typed, verbs[i].name) == 0) {
            int given = w->n - first - 1;
            if (given >= verbs[i].least && given <= verbs[i].most)
                return &verbs[i];
            ap_error_set(err, AP_ERR_INPUT, "%s takes %s words: %s", typed, given < verbs[i].least ? "more" : "fewer",
                         verbs[i].usage);
            fail(err, w->column[first]);
            return NULL;
        }
        ap_suggest_consider(&s, typed, verbs[i].name);
    }
    ap_error_set(err, AP_ERR_INPUT, "no command \"%s\"", typed);
    const char *near = ap_suggest_result(&s, typed);
    if (near != NULL)
        ap_error_hint(err, "did you mean \"%s\"?", near);
    fail(err, w->column[first]);
    return NULL;
}

/* The command whose verb is word first. */
static ap_status parse_words(const struct ap_link_net *net, const struct words *w, int first, struct ap_link_command *c,
                             struct ap_error *err)
{
    const struct verb *v = verb_of(w, first, err);
    if (v == NULL)
        return AP_ERR_INPUT;
    c->verb = v->verb;
    AP_TRY(site(net, w, first + 1, &c->src, err));
    if (v->verb == AP_LINK_CAP)
        c->dst = -1;
    else
        AP_TRY(site(net, w, first + 2, &c->dst, err));
    if (c->src == c->dst && c->src >= 0) {
        ap_error_set(err, AP_ERR_INPUT, "no link from a site to itself");
        return fail(err, w->column[first + 2]);
    }
    if (v->verb == AP_LINK_SET || v->verb == AP_LINK_CAP)
        for (int i = first + (v->verb == AP_LINK_CAP ? 2 : 3); i < w->n; i++)
            AP_TRY(assignment(w->word[i], w->column[i], c, err));
    if (v->verb == AP_LINK_SPIKE) {
        AP_TRY(number(w->word[first + 3], w->column[first + 3], 0, 60000, &c->ms, err));
        AP_TRY(number(w->word[first + 4], w->column[first + 4], 0, 1e6, &c->seconds, err));
    }
    return AP_OK;
}

ap_status ap_link_command_parse(const struct ap_link_net *net, const char *text, struct ap_link_command *c_p,
                                struct ap_error *err)
{
    struct words w;
    struct ap_link_command c = {0};
    AP_TRY(split(text, &w, err));
    if (w.n == 0) {
        ap_error_set(err, AP_ERR_INPUT, "no command");
        return fail(err, 1);
    }
    AP_TRY(parse_words(net, &w, 0, &c, err));
    *c_p = c;
    return AP_OK;
}

static void set_caps(struct ap_link_net *net, const struct ap_link_command *c)
{
    for (int s = 0; s < net->n; s++)
        for (int k = 0; k < 2; k++)
            if ((c->src < 0 || c->src == s) && (c->mask & 1u << k) != 0)
                ap_link_net_cap(net, s, k, c->cap[k]);
}

static int names_link(const struct ap_link_command *c, int s, int d)
{
    int straight = (c->src < 0 || c->src == s) && (c->dst < 0 || c->dst == d);
    int reverse = (c->src < 0 || c->src == d) && (c->dst < 0 || c->dst == s);
    int both = c->verb == AP_LINK_CUT || c->verb == AP_LINK_HEAL;
    return s != d && (straight || (both && reverse));
}

/* One link's parameters after the command. */
static struct ap_link_params changed(const struct ap_link_command *c, const struct ap_link_params *old)
{
    struct ap_link_params p = *old;
    if (c->verb == AP_LINK_CUT || c->verb == AP_LINK_CUT_ONEWAY)
        p.up = 0;
    if (c->verb == AP_LINK_HEAL || c->verb == AP_LINK_HEAL_ONEWAY)
        p.up = 1;
    if (c->verb == AP_LINK_SET)
        for (int k = 0; k < ap_link_keys_n; k++)
            if (c->mask & 1u << k)
                ap_link_params_set(&p, k, ap_link_params_get(&c->values, k));
    return p;
}

ap_status ap_link_command_apply(struct ap_link_net *net, const struct ap_link_command *c, int64_t now_ns,
                                struct ap_error *err)
{
    if (c->verb == AP_LINK_CAP) {
        set_caps(net, c);
        return AP_OK;
    }
    for (int pass = 0; pass < 2; pass++) /* first whether every link can take it */
        for (int s = 0; s < net->n; s++)
            for (int d = 0; d < net->n; d++) {
                if (!names_link(c, s, d))
                    continue;
                struct ap_link_model *l = ap_link_net_link(net, s, d);
                struct ap_link_params p = changed(c, &l->params);
                if (pass == 0)
                    AP_TRY(ap_link_params_check(&p, err));
                else if (c->verb == AP_LINK_SPIKE)
                    ap_link_model_spike(l, now_ns, c->ms, c->seconds);
                else
                    ap_link_model_change(l, &p);
            }
    return AP_OK;
}

/* One line without its comment; the time, then the command. */
static ap_status scenario_line(const struct ap_link_net *net, const char *line, struct ap_link_command *c_p,
                               int *blank_p, struct ap_error *err)
{
    struct words w;
    struct ap_link_command c = {0};
    double at = 0;
    AP_TRY(split(line, &w, err));
    *blank_p = w.n == 0;
    if (w.n == 0)
        return AP_OK;
    AP_TRY(number(w.word[0], w.column[0], 0, 1e6, &at, err));
    if (w.n == 1) {
        ap_error_set(err, AP_ERR_INPUT, "no command after the time");
        return fail(err, w.column[0]);
    }
    AP_TRY(parse_words(net, &w, 1, &c, err));
    c.at_ns = (int64_t)llround(at * 1e9);
    *c_p = c;
    return AP_OK;
}

static ap_status scenario_add(struct ap_link_scenario *s, const struct ap_link_command *c, struct ap_error *err)
{
    if (s->n > 0 && c->at_ns < s->commands[s->n - 1].at_ns) {
        ap_error_set(err, AP_ERR_INPUT, "the time is before that of the command above");
        return fail(err, 1);
    }
    void *more = realloc(s->commands, (size_t)(s->n + 1) * sizeof *s->commands);
    if (more == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for %d commands", s->n + 1);
    s->commands = more;
    s->commands[s->n++] = *c;
    return AP_OK;
}

ap_status ap_link_scenario_parse(const struct ap_link_net *net, const char *text, const char *name,
                                 struct ap_link_scenario *scenario_p, struct ap_error *err)
{
    struct ap_link_scenario s = {0};
    long number_of_line = 1;
    for (const char *at = text; *at != '\0'; number_of_line++) {
        char line[1024];
        size_t all = strcspn(at, "\n"), size = strcspn(at, "#\n");
        ap_status status = AP_OK;
        struct ap_link_command c;
        int blank = 0;
        if (size >= sizeof line) {
            ap_error_set(err, AP_ERR_INPUT, "a line of more than %zu bytes", sizeof line - 1);
            status = fail(err, 1);
        } else {
            memcpy(line, at, size);
            line[size] = '\0';
            status = scenario_line(net, line, &c, &blank, err);
        }
        if (status == AP_OK && !blank)
            status = scenario_add(&s, &c, err);
        if (status != AP_OK) {
            ap_error_at(err, name, number_of_line, err != NULL ? err->column : 0);
            ap_link_scenario_clear(&s);
            return status;
        }
        at += all + (at[all] == '\n');
    }
    *scenario_p = s;
    return AP_OK;
}

ap_status ap_link_scenario_read(const struct ap_link_net *net, const char *path, struct ap_link_scenario *scenario_p,
                                struct ap_error *err)
{
    char *text;
    AP_TRY(ap_io_read_text(path, FILE_MAX, &text, err));
    ap_status status = ap_link_scenario_parse(net, text, path, scenario_p, err);
    free(text);
    return status;
}

void ap_link_scenario_clear(struct ap_link_scenario *scenario)
{
    free(scenario->commands);
    *scenario = (struct ap_link_scenario){0};
}
