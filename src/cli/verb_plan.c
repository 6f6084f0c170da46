/* SPDX-License-Identifier: Apache-2.0
 * antipode plan: the sizes of a model, and what a job makes of it, by arithmetic alone. */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/plan_layout.h"
#include "cli/verbs.h"

struct plan_flags {
    char *model;
    int count;
    int64_t seq_len;
    struct plan_machine_flags machine;
};

#define MACHINE(field) .offset = offsetof(struct plan_flags, machine.field)

static const struct ap_option flags[] = {
    {.key = "model",
     .kind = AP_OPT_TEXT,
     .offset = offsetof(struct plan_flags, model),
     .doc = "A preset, or the path of a config.json, instead of a job."},
    {.key = "count",
     .kind = AP_OPT_BOOL,
     .offset = offsetof(struct plan_flags, count),
     .fallback = "false",
     .doc = "Only the exact parameter counts."},
    {.key = "seq-len",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct plan_flags, seq_len),
     .fallback = "auto",
     .min = 1,
     .max = 16777216,
     .flags = AP_OPT_AUTO,
     .default_words = "data.seq_len of the job, or 4096",
     .doc = "Sequence length behind the operations per token."},
    {.key = "topology",
     .kind = AP_OPT_PATH,
     MACHINE(topology),
     .excludes = "wan",
     .doc = "A measured machine (topology.csv): plan the layout of the job on it."},
    {.key = "wan",
     .kind = AP_OPT_PATH,
     MACHINE(wan),
     .doc =
         "A matrix between sites (src,dst,rtt_ms,gbit_per_s) instead; what the sites are like is said by the options "
         "that follow."},
    {.key = "out",
     .kind = AP_OPT_PATH,
     MACHINE(out),
     .doc = "With --topology or --wan: write the plan there (plan.json), for a run to follow."},
    {.key = "nodes-per-site",
     .kind = AP_OPT_INT,
     MACHINE(nodes_per_site),
     .fallback = "1",
     .min = 1,
     .max = 65536,
     .doc = "With --wan: nodes of each site."},
    {.key = "ranks-per-node",
     .kind = AP_OPT_INT,
     MACHINE(ranks_per_node),
     .fallback = "1",
     .min = 1,
     .max = 65536,
     .doc = "With --wan: ranks of each node."},
    {.key = "gflops",
     .kind = AP_OPT_REAL,
     MACHINE(gflops),
     .fallback = "100",
     .min = 0.001,
     .max = 1e9,
     .doc = "With --wan: speed of a rank in GFLOP/s, as its training step reaches it."},
    {.key = "memory-gb",
     .kind = AP_OPT_REAL,
     MACHINE(memory_gb),
     .fallback = "16",
     .min = 0.001,
     .max = 1e6,
     .doc = "With --wan: memory of a rank in GB."},
    {.key = "memory-gb-per-s",
     .kind = AP_OPT_REAL,
     MACHINE(memory_gb_per_s),
     .fallback = "20",
     .min = 0.001,
     .max = 1e6,
     .doc = "With --wan: memory bandwidth of a rank in GB/s."},
    {.key = "node-gbit",
     .kind = AP_OPT_REAL,
     MACHINE(node_gbit),
     .fallback = "80",
     .min = 1e-6,
     .max = 1e9,
     .doc = "With --wan: Gbit/s between two ranks of a node."},
    {.key = "node-us",
     .kind = AP_OPT_REAL,
     MACHINE(node_us),
     .fallback = "1",
     .max = 1e9,
     .doc = "With --wan: latency between them, one way, in microseconds."},
    {.key = "site-gbit",
     .kind = AP_OPT_REAL,
     MACHINE(site_gbit),
     .fallback = "10",
     .min = 1e-6,
     .max = 1e9,
     .doc = "With --wan: Gbit/s between two ranks on two nodes of a site."},
    {.key = "site-us",
     .kind = AP_OPT_REAL,
     MACHINE(site_us),
     .fallback = "30",
     .max = 1e9,
     .doc = "With --wan: latency between them, one way, in microseconds."},
    {.key = "micro-sequences",
     .kind = AP_OPT_INT,
     MACHINE(micro_sequences),
     .min = 1,
     .max = 1048576,
     .flags = AP_OPT_AUTO,
     .default_words = "batch.micro_sequences of the job",
     .doc = "Sequences of a micro-batch of the layout; auto: searched among the divisors of the step's sequences."},
    {.key = "in-order",
     .kind = AP_OPT_BOOL,
     MACHINE(in_order),
     .fallback = "false",
     .doc = "No search: the job's parallel section with the ranks in their order, as without a plan; what is to be "
            "gained by one."},
    {.key = "runners-up",
     .kind = AP_OPT_INT,
     MACHINE(runners_up),
     .fallback = "4",
     .min = 0,
     .max = 30,
     .doc = "How many other layouts are shown."},
};

const struct ap_verb ap_verb_desc_plan = {
    .name = "plan",
    .operands = "[JOB]",
    .max_operands = 1,
    .takes = AP_VERB_SETS | AP_VERB_JSON,
    .summary = "sizes of a model or a job, and its layout on a machine",
    .doc =
        "With a job file: the parameters of its model, the operations of a step and of the whole training, and the "
        "bytes of its state. With --model NAME: the same of a model alone. Nothing is started, no data is read.\n\n"
        "The counts are exact. 'total' leaves out the multi-token prediction layers, as published counts do; 'mtp' "
        "has them. 'active' counts the routed experts that one token uses.\n\n"
        "With a machine (--topology or --wan): which rank does what. The number of ranks is split over the axes data, "
        "tensor, pipeline and expert so that the predicted step is shortest; what the job's parallel section fixes "
        "stays. Printed are the layout, the predicted step in its parts, memory, why, and the runners-up; with --json "
        "the content of plan.json, which --out writes.\n\n"
        "  antipode plan --model deepseek-v3 --count --json\n"
        "  antipode plan job.yaml --topology runs/NAME/topology.csv --out runs/NAME/plan.json\n"
        "  antipode plan job.yaml --wan sites.csv --nodes-per-site 4 --ranks-per-node 8 --gflops 3e5 --memory-gb 80",
    .flags = flags,
    .flag_count = sizeof flags / sizeof flags[0],
    .run = ap_verb_plan,
};

/* Everything the report says. job: NULL for a model alone. */
struct report {
    const struct ap_model_config *cfg;
    const struct ap_job *job;
    int64_t seq_len;
    int only_count;
    struct ap_model_count n;
    double flops_token;
};

/* Bytes of a running training, over all processes: weights, gradients, and two moments, the weights and
 * moments twice because of the shadow buffers; a bf16 model also reads a bf16 copy of the weights, twice. */
static double state_bytes(const struct report *r)
{
    ap_dtype t = (ap_dtype)(r->job != NULL ? r->job->dtype : AP_F32), full = ap_dtype_full(t);
    double copy = t != full ? 2.0 * (double)ap_dtype_size(t) : 0;
    return (7.0 * (double)ap_dtype_size(full) + copy) * (double)(r->n.total + r->n.mtp);
}

static void print_json(const struct report *r)
{
    struct ap_json j = {.indent = 2};
    ap_json_begin_object(&j, NULL);
    ap_json_str(&j, "model", r->cfg->name);
    ap_json_int(&j, "total", r->n.total);
    ap_json_int(&j, "active", r->n.active);
    ap_json_int(&j, "mtp", r->n.mtp);
    ap_json_int(&j, "embedding", r->n.embedding);
    ap_json_int(&j, "attention", r->n.attention);
    ap_json_int(&j, "dense_mlp", r->n.dense_mlp);
    ap_json_int(&j, "moe_routed", r->n.moe_routed);
    ap_json_int(&j, "moe_shared", r->n.moe_shared);
    ap_json_int(&j, "router", r->n.router);
    ap_json_int(&j, "norm", r->n.norm);
    if (!r->only_count) {
        ap_json_int(&j, "seq_len", r->seq_len);
        ap_json_real(&j, "train_flops_per_token", r->flops_token);
        ap_json_real(&j, "state_bytes", state_bytes(r));
    }
    if (!r->only_count && r->job != NULL) {
        ap_json_int(&j, "train_steps", r->job->train_steps);
        ap_json_int(&j, "train_tokens", r->job->train_tokens);
        ap_json_int(&j, "step_tokens", r->job->batch.global_tokens);
        ap_json_int(&j, "micro_batches", r->job->batch.global_sequences / r->job->batch.micro_sequences);
        ap_json_real(&j, "train_flops", r->flops_token * (double)r->job->train_tokens);
    }
    ap_json_end_object(&j);
    char *text = ap_strbuf_take(&j.text);
    if (text != NULL)
        ap_out("%s\n", text);
    free(text);
}

/* 15706484224 as 15,706,484,224 into buf (at least 32 bytes). */
static const char *grouped(int64_t v, char *buf)
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%" PRId64, v), at = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            buf[at++] = ',';
        buf[at++] = digits[i];
    }
    buf[at] = '\0';
    return buf;
}

static void print_table(const struct report *r)
{
    char buf[32];
    const struct {
        const char *label;
        int64_t value;
    } rows[] = {
        {"total", r->n.total},
        {"active", r->n.active},
        {"  embedding and head", r->n.embedding},
        {"  attention", r->n.attention},
        {"  dense MLP", r->n.dense_mlp},
        {"  routed experts", r->n.moe_routed},
        {"  shared experts", r->n.moe_shared},
        {"  routers", r->n.router},
        {"  norms", r->n.norm},
        {"multi-token prediction", r->n.mtp},
    };
    ap_out("%s: parameters\n", r->cfg->name);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        ap_out("  %-24s %20s\n", rows[i].label, grouped(rows[i].value, buf));
    if (r->only_count)
        return;
    ap_out("at sequences of %" PRId64 " tokens\n", r->seq_len);
    ap_out("  %-24s %20.4g\n", "operations per token", r->flops_token);
    ap_out("  %-24s %20.4g\n", "bytes of state", state_bytes(r));
    if (r->job == NULL)
        return;
    ap_out("%s\n", r->job->name);
    ap_out("  %-24s %20s\n", "steps", grouped(r->job->train_steps, buf));
    ap_out("  %-24s %20s\n", "tokens per step", grouped(r->job->batch.global_tokens, buf));
    ap_out("  %-24s %20s\n", "micro-batches per step",
           grouped(r->job->batch.global_sequences / r->job->batch.micro_sequences, buf));
    ap_out("  %-24s %20s\n", "tokens", grouped(r->job->train_tokens, buf));
    ap_out("  %-24s %20.4g\n", "operations", r->flops_token * (double)r->job->train_tokens);
}

static ap_status plan(const struct ap_cli_args *args, const struct plan_flags *f, struct ap_error *err)
{
    struct ap_model_config cfg;
    struct ap_job *job = NULL;
    if ((f->model != NULL) == (args->operand_count > 0)) {
        ap_error_set(err, AP_ERR_USAGE, "give either a job file or --model NAME");
        ap_error_hint(err, "antipode plan --help");
        return AP_ERR_USAGE;
    }
    if (f->model != NULL && (f->machine.topology != NULL || f->machine.wan != NULL)) {
        ap_error_set(err, AP_ERR_USAGE, "a layout is planned for a job, not for --model");
        ap_error_hint(err, "antipode plan JOB --topology FILE");
        return AP_ERR_USAGE;
    }
    if (f->machine.out != NULL && f->machine.topology == NULL && f->machine.wan == NULL) {
        ap_error_set(err, AP_ERR_USAGE, "--out is where a layout goes, and that needs a machine");
        ap_error_hint(err, "antipode plan JOB --topology FILE --out plan.json");
        return AP_ERR_USAGE;
    }
    if (f->model == NULL) {
        AP_TRY(ap_job_load(args->operands[0], args->sets, args->set_count, &job, err));
        cfg = job->model.cfg;
    } else if (strchr(f->model, '/') != NULL || strstr(f->model, ".json") != NULL) {
        AP_TRY(ap_model_config_load(f->model, &cfg, err));
    } else {
        AP_TRY(ap_model_config_preset(f->model, &cfg, err));
    }
    if (f->machine.topology != NULL || f->machine.wan != NULL) {
        ap_status status = plan_layout(job, &f->machine, args->json, err);
        ap_job_destroy(job);
        return status;
    }
    struct report r = {.cfg = &cfg, .job = job, .only_count = f->count};
    r.seq_len = f->seq_len != AP_AUTO ? f->seq_len : job != NULL ? job->data.seq_len : 4096;
    ap_model_count_params(&cfg, &r.n);
    r.flops_token = ap_model_train_flops_per_token(&cfg, r.seq_len);
    if (args->json)
        print_json(&r);
    else
        print_table(&r);
    ap_job_destroy(job);
    return AP_OK;
}

int ap_verb_plan(int argc, char **argv)
{
    struct ap_cli_args args;
    struct plan_flags f = {0};
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_plan, argc, argv, &args, &f);
    if (code >= 0)
        return code;
    ap_status status = plan(&args, &f, &err);
    ap_cli_clear(&ap_verb_desc_plan, &args, &f);
    return ap_cli_end(status, &err);
}
