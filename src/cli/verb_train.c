/* SPDX-License-Identifier: Apache-2.0
 * antipode train JOB: one rank of the training run. */
#include "config.h"

#include "base/log.h"
#include "cli/verbs.h"
#include "parallel/world.h"
#include "train/trainer.h"

/* Takes over signals. */
static ap_status train(const struct ap_job *job, const struct ap_train_flags *flags,
                       const struct ap_trace_request *trace, struct ap_signals *signals, double deadline,
                       struct ap_error *err)
{
    struct ap_world world;
    struct ap_train_result res;
    ap_status st = ap_world_init(&world, err);
    if (st != AP_OK) {
        ap_signals_stop(signals);
        return st;
    }
    struct ap_train_options opt = {
        .job = job,
        .comm = world.comm,
        .node_ranks = world.node_ranks,
        .node_rank = world.node_rank,
        .mpi_version = world.mpi_version,
        .plan = flags->plan,
        .replay = flags->replay,
        .reprod = flags->reprod,
        .signals = signals,
        .deadline = deadline,
        .trace = *trace,
    };
    st = ap_train_run(&opt, &res, err);
    ap_signals_stop(signals);
    ap_world_end(&world, st != AP_ERR_COMM);
    return st;
}

static ap_status run(const struct ap_cli_args *args, const struct ap_train_flags *flags, struct ap_error *err)
{
    struct ap_job *job = NULL;
    struct ap_signals *signals = NULL;
    double deadline = ap_deadline_wall();
    struct ap_trace_request trace = {.path = flags->trace};
    AP_TRY(ap_trace_request_steps(flags->trace_steps, &trace, err));
    AP_TRY(ap_job_load(args->operands[0], args->sets, args->set_count, &job, err));
    ap_status st = ap_job_check_files(job, err);
    /* Before MPI starts its threads, so that they inherit the mask. */
    if (st == AP_OK)
        st = ap_signals_start(&signals, err);
    if (st == AP_OK)
        st = train(job, flags, &trace, signals, deadline, err);
    ap_job_destroy(job);
    return st;
}

int ap_tverb_train(int argc, char **argv)
{
    struct ap_cli_args args;
    struct ap_train_flags flags = {0};
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_train, argc, argv, &args, &flags);
    if (code >= 0)
        return code;
    ap_status st = run(&args, &flags, &err);
    ap_cli_clear(&ap_verb_desc_train, &args, &flags);
    /* The trainer has said why, as the last line on standard output. */
    return st == AP_ERR_INVALID ? ap_status_exit_code(st) : ap_cli_end(st, &err);
}
