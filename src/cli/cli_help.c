/* SPDX-License-Identifier: Apache-2.0
 * Help of a verb from its description. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define WIDTH 100

/* Paragraphs wrapped; lines that begin with two spaces as they are. */
static void add_doc(struct ap_strbuf *b, const char *doc)
{
    while (*doc != '\0') {
        size_t n = strcspn(doc, "\n");
        if (n > 1 && doc[0] == ' ' && doc[1] == ' ') {
            ap_strbuf_add_bytes(b, doc, n);
        } else {
            char *line = strndup(doc, n);
            if (line == NULL)
                b->failed = 1;
            else
                ap_strbuf_add_wrapped(b, line, 0, 0, WIDTH);
            free(line);
        }
        ap_strbuf_add(b, "\n");
        doc += n;
        if (*doc == '\n')
            doc++;
    }
}

static void add_flag(struct ap_strbuf *b, const char *head, const char *text)
{
    int n = (int)strlen(head);
    ap_strbuf_addf(b, "  %s%*s", head, n < 24 ? 24 - n : 0, "");
    if (n >= 24)
        ap_strbuf_addf(b, "\n%*s", 26, "");
    ap_strbuf_add_wrapped(b, text, 26, 26, WIDTH);
    ap_strbuf_add(b, "\n");
}

const char *ap_cli_flag_value(const struct ap_option *f)
{
    switch (f->kind) {
    case AP_OPT_BOOL:
        return "";
    case AP_OPT_PATH:
        return "PATH";
    case AP_OPT_TEXT:
    case AP_OPT_CHOICE:
        return "WORD";
    default:
        return "N";
    }
}

void ap_cli_flag_text(const struct ap_option *f, char *buf, size_t size)
{
    char domain[512];
    const char *def = f->default_words != NULL ? f->default_words : f->fallback;
    ap_option_domain(f, domain, sizeof domain);
    if (f->kind == AP_OPT_BOOL)
        snprintf(buf, size, "%s", f->doc);
    else if (f->flags & AP_OPT_REQUIRED)
        snprintf(buf, size, "%s Takes %s; required.", f->doc, domain);
    else
        snprintf(buf, size, "%s Takes %s%s%s.", f->doc, domain, def != NULL ? "; default " : "",
                 def != NULL ? def : "");
}

char *ap_cli_help(const struct ap_verb *v)
{
    struct ap_strbuf b = {0};
    ap_strbuf_addf(&b, "usage: antipode %s%s%s [options]\n\n", v->name, v->operands[0] != '\0' ? " " : "", v->operands);
    add_doc(&b, v->doc);
    ap_strbuf_add(&b, "\nOptions:\n");
    for (size_t i = 0; i < v->flag_count; i++) {
        const struct ap_option *f = &v->flags[i];
        char head[96], text[1024];
        const char *value = ap_cli_flag_value(f);
        snprintf(head, sizeof head, "--%s%s%s", f->key, value[0] != '\0' ? " " : "", value);
        ap_cli_flag_text(f, text, sizeof text);
        add_flag(&b, head, text);
    }
    if (v->takes & AP_VERB_SETS)
        add_flag(&b, "--set KEY=VALUE",
                 "Override an option of the job file; may be repeated. Keys: antipode help job.");
    if (v->takes & AP_VERB_JSON)
        add_flag(&b, "--json", "Print JSON instead of a table.");
    add_flag(&b, "--help", "Print this text.");
    return ap_strbuf_take(&b);
}
