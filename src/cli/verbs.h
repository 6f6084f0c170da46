/* SPDX-License-Identifier: Apache-2.0
 * All verbs: descriptions and entry points. A verb of antipode lives in verb_NAME.c; those of antipode-train
 * (SPMD, with MPI) are described in verbs_spmd.c, which both programs link, and run in verb_NAME.c there. */
#ifndef AP_CLI_VERBS_H
#define AP_CLI_VERBS_H

#include "cli/cli.h"

/* ---- antipode ---- */
extern const struct ap_verb ap_verb_desc_run;
extern const struct ap_verb ap_verb_desc_plan;
extern const struct ap_verb ap_verb_desc_routes;
extern const struct ap_verb ap_verb_desc_prep;
extern const struct ap_verb ap_verb_desc_ckpt;
extern const struct ap_verb ap_verb_desc_schema;
extern const struct ap_verb ap_verb_desc_doctor;
extern const struct ap_verb ap_verb_desc_help;
extern const struct ap_verb ap_verb_desc_generate; /* hidden: makes the man pages and the completion */
int ap_verb_run(int argc, char **argv);
int ap_verb_plan(int argc, char **argv);
int ap_verb_routes(int argc, char **argv);
int ap_verb_prep(int argc, char **argv);
int ap_verb_ckpt(int argc, char **argv);
int ap_verb_schema(int argc, char **argv);
int ap_verb_doctor(int argc, char **argv);
int ap_verb_help(int argc, char **argv);
int ap_verb_generate(int argc, char **argv);

/* Every verb a user sees, those of antipode-train included, in the order of --help; *count_p of them. */
const struct ap_verb *const *ap_verbs(size_t *count_p);

/* Man page "antipode" (verb NULL and job 0), "antipode-VERB" (job 0) or "antipode-job" (job 1) as roff, and the
 * bash completion; malloc'ed, NULL: out of memory. */
char *ap_cli_man(const struct ap_verb *verb, int job);
char *ap_cli_completion(void);

/* ---- antipode-train: run is NULL in the descriptions, the table of entry points is in train_main.c ---- */
struct ap_train_flags {
    char *plan;
    char *replay;
    int reprod;
    char *trace, *trace_steps;
};
struct ap_eval_flags {
    char *step;
    char *dir;
};
struct ap_selftest_flags {
    char *golden;
    char *backend;
    char *dtype;
    int64_t threads;
};
extern const struct ap_verb ap_verb_desc_train;
extern const struct ap_verb ap_verb_desc_eval;
struct ap_bench_flags {
    char *backend;
    int64_t threads, repeats;
    int recompute, no_replay;
    char *trace, *trace_steps;
};
struct ap_probe_flags {
    char *out, *svg, *sites, *backend, *dtype;
    int quick;
    int64_t threads, streams;
    double seconds;
};
extern const struct ap_verb ap_verb_desc_selftest;
extern const struct ap_verb ap_verb_desc_bench;
extern const struct ap_verb ap_verb_desc_probe;
/* argv[0] is the verb's name. They start and end MPI themselves (parallel/world.h), after their command line
 * and job file have been found good: a mistake there ends the process without MPI. */
int ap_tverb_train(int argc, char **argv);
int ap_tverb_eval(int argc, char **argv);
int ap_tverb_selftest(int argc, char **argv);
int ap_tverb_bench(int argc, char **argv);
int ap_tverb_probe(int argc, char **argv);

#endif
