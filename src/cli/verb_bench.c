/* SPDX-License-Identifier: Apache-2.0
 * antipode bench: the training step of a job, measured beside its limits. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/verbs.h"
#include "parallel/world.h"
#include "train/bench_step.h"

#define GIGA 1e9

static void print_step(const struct ap_bench_step_result *r)
{
    ap_out("step: %d ranks, %d threads each, backend %s, %lld tokens\n", r->ranks, r->threads, r->backend,
           (long long)r->tokens);
    ap_out("  time               %10.2f ms   (%.2f .. %.2f), forward and backward %.2f ms\n", 1e3 * r->step_s,
           1e3 * r->step_min_s, 1e3 * r->step_max_s, 1e3 * r->compute_s);
    ap_out("  speed              %10.0f tokens/s\n", (double)r->tokens / r->step_s);
    ap_out("  model FLOPs        %10.2f GFLOP/s, %.1f%% of the GEMM peak of %.1f GFLOP/s measured here\n",
           r->model_flops / r->step_s / GIGA, 100.0 * r->model_flops / r->step_s / (r->peak_flops * r->ranks),
           r->peak_flops * r->ranks / GIGA);
    ap_out("  memory             %10.1f MB resident at most, %.1f MB of it activations\n", (double)r->peak_bytes / 1e6,
           (double)r->activation_bytes / 1e6);
    if (r->replay_s <= 0)
        return;
    ap_out("GEMM-only replay of rank 0: %lld products of %lld shapes, %.2f GFLOP\n", (long long)r->replay.products,
           (long long)r->replay.shapes, r->replay.flops / GIGA);
    ap_out("  time               %10.2f ms   (%.2f .. %.2f), %.1f GFLOP/s\n", 1e3 * r->replay_s, 1e3 * r->replay_min_s,
           1e3 * r->replay_max_s, r->replay.flops / r->replay_s / GIGA);
    for (int e = 0; e < AP_REPLAY_ENGINES; e++)
        ap_out("  %-18s %10.1f %% of its FLOPs\n", ap_replay_engine_name((enum ap_replay_engine)e),
               100.0 * r->replay.engine_flops[e] / r->replay.flops);
    ap_out("ratio replay / step  %10.1f %%\n", 100.0 * r->replay_s / r->step_s);
}

/* One line an operation: what it reached, and the limit that binds it (the roofline's lower side). */
static void print_ops(const struct ap_bench_step_result *r)
{
    ap_out("operations of one step on rank 0, limits %.1f GFLOP/s and %.1f GB/s\n", r->peak_flops / GIGA,
           r->copy_bytes_s / GIGA);
    ap_out("%-18s %7s %10s %10s %9s %10s\n", "operation", "calls", "ms", "GFLOP/s", "GB/s", "of limit");
    for (int i = 0; i < AP_OP_COUNT; i++) {
        const struct ap_op_total *t = &r->ops[i];
        if (!t->calls) {
            ap_out("%-18s       0  not in this step\n", ap_op_name((enum ap_op_id)i));
            continue;
        }
        double least = t->flops / r->peak_flops, move = t->bytes / r->copy_bytes_s;
        ap_out("%-18s %7lld %10.3f %10.2f %9.2f %8.1f %% of %s\n", ap_op_name((enum ap_op_id)i), (long long)t->calls,
               1e3 * t->seconds, t->flops / t->seconds / GIGA, t->bytes / t->seconds / GIGA,
               100.0 * (least > move ? least : move) / t->seconds, least > move ? "FLOPs" : "bandwidth");
    }
}

static void json_ops(struct ap_json *j, const struct ap_bench_step_result *r)
{
    ap_json_begin_array(j, "ops");
    for (int i = 0; i < AP_OP_COUNT; i++) {
        ap_json_begin_object(j, NULL);
        ap_json_str(j, "op", ap_op_name((enum ap_op_id)i));
        ap_json_int(j, "calls", r->ops[i].calls);
        ap_json_real(j, "seconds", r->ops[i].seconds);
        ap_json_real(j, "flops", r->ops[i].flops);
        ap_json_real(j, "bytes", r->ops[i].bytes);
        ap_json_end_object(j);
    }
    ap_json_end_array(j);
}

static void print_json(const struct ap_bench_step_result *r)
{
    struct ap_json j = {.indent = 2};
    ap_json_begin_object(&j, NULL);
    ap_json_str(&j, "backend", r->backend);
    ap_json_int(&j, "ranks", r->ranks);
    ap_json_int(&j, "threads", r->threads);
    ap_json_int(&j, "tokens", r->tokens);
    ap_json_real(&j, "step_s", r->step_s);
    ap_json_real(&j, "step_min_s", r->step_min_s);
    ap_json_real(&j, "step_max_s", r->step_max_s);
    ap_json_real(&j, "compute_s", r->compute_s);
    ap_json_real(&j, "tokens_per_s", (double)r->tokens / r->step_s);
    ap_json_real(&j, "model_flops", r->model_flops);
    ap_json_real(&j, "peak_flops", r->peak_flops);
    ap_json_real(&j, "copy_bytes_s", r->copy_bytes_s);
    ap_json_real(&j, "mfu", r->model_flops / r->step_s / (r->peak_flops * r->ranks));
    ap_json_int(&j, "peak_bytes", r->peak_bytes);
    ap_json_int(&j, "activation_bytes", (int64_t)r->activation_bytes);
    ap_json_real(&j, "replay_s", r->replay_s > 0 ? r->replay_s : 0.0 / 0.0);
    ap_json_real(&j, "replay_flops", r->replay.flops);
    ap_json_real(&j, "replay_over_step", r->replay_s > 0 ? r->replay_s / r->step_s : 0.0 / 0.0);
    json_ops(&j, r);
    ap_json_end_object(&j);
    char *text = ap_strbuf_take(&j.text);
    ap_out("%s\n", text ? text : "null");
    free(text);
}

static ap_status bench(const struct ap_cli_args *args, const struct ap_bench_flags *f, struct ap_error *err)
{
    const char *what = args->operands[0];
    struct ap_job *job = NULL;
    struct ap_world world;
    struct ap_bench_step_result res;
    if (strcmp(what, "step") != 0 && strcmp(what, "op") != 0) {
        ap_error_set(err, AP_ERR_USAGE, "there is no benchmark '%.80s'", what);
        ap_error_hint(err, "step or op");
        return AP_ERR_USAGE;
    }
    struct ap_trace_request trace = {.path = f->trace};
    AP_TRY(ap_trace_request_steps(f->trace_steps, &trace, err));
    AP_TRY(ap_job_load(args->operands[1], args->sets, args->set_count, &job, err));
    ap_status st = ap_world_init(&world, err);
    if (st != AP_OK) {
        ap_job_destroy(job);
        return st;
    }
    ap_log_setup(AP_LOG_INFO, world.comm->size > 1 ? world.comm->rank : -1);
    struct ap_bench_step_options o = {.job = job,
                                      .comm = world.comm,
                                      .backend = f->backend,
                                      .repeats = (int)f->repeats,
                                      .threads = f->threads > 0     ? (int)f->threads
                                                 : job->threads > 0 ? (int)job->threads
                                                                    : 0,
                                      .recompute = f->recompute,
                                      .no_replay = f->no_replay,
                                      .trace = trace};
    st = ap_bench_step(&o, &res, err);
    if (st == AP_OK && world.comm->rank == 0) {
        if (args->json)
            print_json(&res);
        else if (strcmp(what, "step") == 0)
            print_step(&res);
        else
            print_ops(&res);
    }
    ap_world_end(&world, st != AP_ERR_COMM);
    ap_job_destroy(job);
    return st;
}

int ap_tverb_bench(int argc, char **argv)
{
    struct ap_cli_args args;
    struct ap_bench_flags flags = {0};
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_bench, argc, argv, &args, &flags);
    if (code >= 0)
        return code;
    ap_status st = bench(&args, &flags, &err);
    ap_cli_clear(&ap_verb_desc_bench, &args, &flags);
    return ap_cli_end(st, &err);
}
