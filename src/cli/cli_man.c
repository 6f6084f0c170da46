/* SPDX-License-Identifier: Apache-2.0
 * Man pages and bash completion, made from the same tables as the parsers. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/verbs.h"

#define EXIT_CODES                                                                                                     \
    ".SH EXIT STATUS\n"                                                                                                \
    ".TP\n.B 0\ndone\n.TP\n.B 2\nusage: the command line is wrong\n"                                                   \
    ".TP\n.B 3\nbad input: job file, data, checkpoint of another model or version\n"                                   \
    ".TP\n.B 4\nenvironment: a library, permission, disk or MPI problem\n"                                             \
    ".TP\n.B 5\nstopped early and resumable: start the same command again\n"                                           \
    ".TP\n.B 6\nmore was lost than can be brought back\n"                                                              \
    ".TP\n.B 7\nthe run ended, but its result is not valid\n"

static void title(struct ap_strbuf *b, const char *page, int section, const char *summary)
{
    ap_strbuf_add(b, ".\\\" Made by 'antipode generate-docs' from the tables of the program: do not edit.\n");
    ap_strbuf_addf(b, ".TH \"%s\" %d \"\" \"antipode %s\" \"Antipode\"\n.SH NAME\n", page, section, PACKAGE_VERSION);
    ap_options_roff(b, page);
    ap_strbuf_add(b, " \\- ");
    ap_options_roff(b, summary);
    ap_strbuf_add(b, "\n");
}

/* Paragraphs; lines that begin with two spaces become examples. */
static void add_doc(struct ap_strbuf *b, const char *doc)
{
    int verbatim = 0;
    while (*doc != '\0') {
        size_t n = strcspn(doc, "\n");
        int example = n > 1 && doc[0] == ' ' && doc[1] == ' ';
        char *line = strndup(doc + (example ? 2 : 0), n - (example ? 2 : 0));
        if (example != verbatim)
            ap_strbuf_add(b, example ? ".PP\n.nf\n" : ".fi\n");
        verbatim = example;
        if (line == NULL)
            b->failed = 1;
        else if (line[0] != '\0')
            ap_options_roff(b, line);
        else if (!verbatim)
            ap_strbuf_add(b, ".PP");
        ap_strbuf_add(b, "\n");
        free(line);
        doc += n;
        if (*doc == '\n')
            doc++;
    }
    if (verbatim)
        ap_strbuf_add(b, ".fi\n");
}

static void flag(struct ap_strbuf *b, const char *name, const char *value, const char *text)
{
    ap_strbuf_add(b, ".TP\n.B \\-\\-");
    ap_options_roff(b, name);
    if (value[0] != '\0')
        ap_strbuf_addf(b, " \\fI%s\\fR", value);
    ap_strbuf_add(b, "\n");
    ap_options_roff(b, text);
    ap_strbuf_add(b, "\n");
}

static void add_flags(struct ap_strbuf *b, const struct ap_verb *v)
{
    for (size_t i = 0; i < v->flag_count; i++) {
        const struct ap_option *f = &v->flags[i];
        char text[1024];
        ap_cli_flag_text(f, text, sizeof text);
        flag(b, f->key, ap_cli_flag_value(f), text);
    }
    if (v->takes & AP_VERB_SETS)
        flag(b, "set", "KEY=VALUE",
             "Override an option of the job file; may be repeated. The keys are in antipode-job(5).");
    if (v->takes & AP_VERB_JSON)
        flag(b, "json", "", "Print JSON instead of a table.");
    flag(b, "help", "", "Print a short form of this page.");
}

static void verb_page(struct ap_strbuf *b, const struct ap_verb *v)
{
    char page[64];
    snprintf(page, sizeof page, "antipode-%s", v->name);
    title(b, page, 1, v->summary);
    ap_strbuf_addf(b, ".SH SYNOPSIS\n.B antipode %s\n", v->name);
    ap_options_roff(b, v->operands);
    ap_strbuf_add(b, " [options]\n.SH DESCRIPTION\n");
    add_doc(b, v->doc);
    ap_strbuf_add(b, ".SH OPTIONS\n");
    add_flags(b, v);
    ap_strbuf_add(b, EXIT_CODES ".SH SEE ALSO\n.BR antipode (1),\n.BR antipode\\-job (5)\n");
}

static void main_page(struct ap_strbuf *b)
{
    size_t count;
    const struct ap_verb *const *verbs = ap_verbs(&count);
    title(b, "antipode", 1, "train DeepSeek-style language models with MPI");
    ap_strbuf_add(
        b, ".SH SYNOPSIS\n.B antipode\n.I verb\n[operands] [options]\n.PP\n.B mpirun \\-n\n.I N\n"
           ".B antipode train\n.I job.yaml\n.SH DESCRIPTION\n"
           "Antipode trains one language model (multi\\-head latent attention, mixture of experts, multi\\-token "
           "prediction) on any number of processes, with the same bits on each number. A run is described by "
           "one job file, see\n.BR antipode\\-job (5).\n.SH VERBS\n");
    for (size_t i = 0; i < count; i++) {
        ap_strbuf_addf(b, ".TP\n.BR antipode\\-%s (1)\n", verbs[i]->name);
        ap_options_roff(b, verbs[i]->summary);
        ap_strbuf_add(b, "\n");
    }
    ap_strbuf_add(b, ".SH OPTIONS\n");
    flag(b, "version", "", "Print the version.");
    flag(b, "help", "", "List the verbs; after a verb, explain it.");
    ap_strbuf_add(b, EXIT_CODES);
    ap_strbuf_add(b,
                  ".SH ENVIRONMENT\n.TP\n.B ANTIPODE_DATADIR\nFolder that holds models/ and the other shipped inputs, "
                  "before the usual places.\n.TP\n.B ANTIPODE_NCCL\nFile of the NCCL library, in place of libnccl.so.2 "
                  "on the usual path.\n.TP\n.B SLURM_SUBMIT_DIR, PBS_O_WORKDIR\nWhere relative paths of a job "
                  "file start from.\n.SH SEE ALSO\n.BR antipode\\-job (5),\n.BR mpirun (1),\n.BR sbatch (1)\n");
}

static void job_page(struct ap_strbuf *b)
{
    title(b, "antipode-job", 5, "the job file of antipode");
    ap_strbuf_add(
        b, ".SH DESCRIPTION\n"
           "A job file is YAML. Only data.train and one of model.preset and model.config must be given. The file "
           "may be executable and may be a batch script: its first line names antipode, and comments hold the "
           "directives, which must stand above the first key.\n"
           ".PP\n.nf\n#!/usr/bin/env \\-S antipode run\n#SBATCH \\-\\-nodes=1 \\-\\-ntasks=4\n"
           "model: {preset: quickstart}\ndata:\n  train: data/mine/train\n  valid: data/mine/valid\n"
           "  seq_len: 256\ntrain_steps: 1000\n.fi\n.PP\n"
           "A key is written in its section, or in full with --set: '\\-\\-set data.seq_len=512'. Sizes may have "
           "the suffixes k, M, G, T (powers of 1000) and Ki, Mi, Gi, Ti (of 1024). Anchors, aliases and tags are "
           "refused, as are unknown keys.\n"
           ".PP\nRelative paths start from the directory in which the job was submitted or started. Data and "
           "model files that are not there are looked for beside the job file.\n"
           ".SH OPTIONS\n");
    ap_options_man(ap_job_options(), b);
    ap_strbuf_add(b, ".SH SEE ALSO\n.BR antipode (1),\n.BR antipode\\-train (1),\n.BR antipode\\-run (1)\n");
}

char *ap_cli_man(const struct ap_verb *verb, int job)
{
    struct ap_strbuf b = {0};
    if (job)
        job_page(&b);
    else if (verb != NULL)
        verb_page(&b, verb);
    else
        main_page(&b);
    return ap_strbuf_take(&b);
}

/* ---- bash completion ---- */

static int add_word(void *ctx, int index, const char *word)
{
    ap_strbuf_addf(ctx, "%s%s", index > 0 ? " " : "", word);
    return 0;
}

static void choices_case(struct ap_strbuf *b, const char *indent, const struct ap_option *opt)
{
    const char *words = opt->choices != NULL ? opt->choices : opt->kind == AP_OPT_BOOL ? "true|false" : NULL;
    int automatic = (opt->flags & AP_OPT_AUTO) != 0;
    if (words == NULL && !automatic)
        return;
    ap_strbuf_addf(b, "%s%s) words='", indent, opt->key);
    ap_options_each_choice(words, add_word, b);
    ap_strbuf_addf(b, "%s' ;;\n", !automatic ? "" : words != NULL ? " auto" : "auto");
}

static void completion_verb(struct ap_strbuf *b, const struct ap_verb *v)
{
    ap_strbuf_addf(b, "    %s) flags='--help", v->name);
    for (size_t i = 0; i < v->flag_count; i++)
        ap_strbuf_addf(b, " --%s", v->flags[i].key);
    ap_strbuf_addf(b, "%s%s' ;;\n", v->takes & AP_VERB_SETS ? " --set" : "", v->takes & AP_VERB_JSON ? " --json" : "");
}

char *ap_cli_completion(void)
{
    struct ap_strbuf b = {0};
    size_t count;
    const struct ap_verb *const *verbs = ap_verbs(&count);
    const struct ap_option_table *job = ap_job_options();
    ap_strbuf_add(&b, "# bash completion of antipode. Made by 'antipode generate-docs': do not edit.\n"
                      "# SPDX-License-Identifier: Apache-2.0\n\n_antipode()\n{\n"
                      "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}\n"
                      "    local words= flags= key=\n    COMPREPLY=()\n"
                      "    if ((COMP_CWORD == 1)); then\n        words='");
    for (size_t i = 0; i < count; i++)
        ap_strbuf_addf(&b, "%s%s", i > 0 ? " " : "", verbs[i]->name);
    ap_strbuf_add(
        &b, " --help --version'\n        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n        return\n"
            "    fi\n    case $verb in\n");
    for (size_t i = 0; i < count; i++)
        completion_verb(&b, verbs[i]);
    ap_strbuf_add(&b, "    esac\n"
                      "    # '=' separates words: --set KEY = VALUE\n"
                      "    if [[ $prev == --set ]]; then\n        words='");
    for (size_t i = 0; i < job->count; i++)
        ap_strbuf_addf(&b, "%s%s=", i > 0 ? " " : "", job->list[i].key);
    ap_strbuf_add(&b, "'\n        compopt -o nospace 2> /dev/null\n"
                      "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n        return\n    fi\n"
                      "    if [[ $cur == '=' ]]; then\n        key=$prev\n        cur=\n"
                      "    elif [[ $prev == '=' ]]; then\n        key=${COMP_WORDS[COMP_CWORD-2]}\n    fi\n"
                      "    if [[ -n $key ]]; then\n        case $key in\n");
    for (size_t i = 0; i < job->count; i++)
        choices_case(&b, "        ", &job->list[i]);
    ap_strbuf_add(
        &b, "        esac\n        [[ -z $words ]] || mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
            "        return\n    fi\n"
            "    if [[ $verb == help ]]; then\n        words='job ");
    for (size_t i = 0; i < count; i++)
        ap_strbuf_addf(&b, "%s%s", i > 0 ? " " : "", verbs[i]->name);
    ap_strbuf_add(
        &b, "'\n    elif [[ $verb == ckpt ]] && ((COMP_CWORD == 2)); then\n        words='ls verify diff export'\n"
            "    elif [[ $cur == -* ]]; then\n        words=$flags\n    fi\n"
            "    if [[ -n $words ]]; then\n        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
            "    else\n        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
            "        compopt -o filenames 2> /dev/null\n    fi\n}\n\n"
            "complete -F _antipode antipode\n");
    return ap_strbuf_take(&b);
}
