/* SPDX-License-Identifier: Apache-2.0
 * The layout of a job on a machine that is given as a file: load, search, simulate, print. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/dtype.h"
#include "base/io.h"
#include "base/log.h"
#include "cli/plan_layout.h"
#include "plan/layout_model.h"
#include "plan/plan_report.h"
#include "plan/simulate.h"

#define MATRIX_BYTES ((size_t)1 << 24)

static ap_status load_wan(const struct plan_machine_flags *f, struct ap_topology **t_p, struct ap_error *err)
{
    struct ap_topo_shape shape = {
        .nodes_per_site = (int)f->nodes_per_site,
        .ranks_per_node = (int)f->ranks_per_node,
        .rank = {.speed = f->gflops * 1e9, .memory = f->memory_gb * 1e9, .memory_bandwidth = f->memory_gb_per_s * 1e9},
        .node = {f->node_us * 1e-6, f->node_gbit * 1e9 / 8},
        .site = {f->site_us * 1e-6, f->site_gbit * 1e9 / 8}};
    char *text = NULL;
    size_t size = 0;
    snprintf(shape.rank.device, sizeof shape.rank.device, "%s", "any");
    AP_TRY(ap_io_read_file(f->wan, MATRIX_BYTES, &text, &size, err));
    ap_status status = ap_topology_from_wan(f->wan, text, size, &shape, t_p, err);
    free(text);
    return status;
}

/* plan.json as text, owned by the caller; NULL: out of memory. */
static char *plan_text(const struct ap_plan_report *r)
{
    struct ap_json j = {.indent = 2};
    struct ap_plan *p = NULL;
    if (ap_plan_report_plan(r, &p) != AP_OK)
        return NULL;
    ap_plan_report_json(r, p, &j);
    ap_plan_destroy(p);
    ap_strbuf_add(&j.text, "\n");
    return ap_strbuf_take(&j.text);
}

static ap_status print(const struct ap_plan_report *r, const char *out, int json, struct ap_error *err)
{
    struct ap_strbuf b = {0};
    char *plan = plan_text(r), *report = NULL;
    ap_status status = AP_OK;
    if (!json) {
        ap_plan_report_text(r, &b);
        report = ap_strbuf_take(&b);
    }
    if (plan == NULL || (!json && report == NULL))
        status = ap_error_set(err, AP_ERR_NOMEM, "out of memory for the report");
    if (status == AP_OK && out != NULL)
        status = ap_io_write_durable(out, plan, strlen(plan), err);
    if (status == AP_OK)
        ap_out("%s", json ? plan : report);
    free(plan);
    free(report);
    return status;
}

/* What the job would do without a plan for the machine: its axes, and ranks in their order. */
static ap_status in_order(struct ap_layout_model *m, const struct ap_layout_problem *p, struct ap_layout_plan *plan,
                          struct ap_error *err)
{
    char why[160] = "tensor groups would leave their node, or expert groups their site";
    int64_t axes[4] = {p->tensor, p->expert, p->pipeline, p->data}, ranks = p->topo->rank_count, inner = 1;
    for (int i = 0; i < 3; i++) {
        axes[i] = axes[i] < 1 ? 1 : axes[i];
        inner *= axes[i];
    }
    axes[3] = axes[3] < 1 && inner <= ranks ? ranks / inner : axes[3];
    if (axes[3] < 1 || inner > ranks || inner * axes[3] != ranks)
        return ap_error_set(err, AP_ERR_INPUT, "%lld ranks are not what the job's parallel section needs",
                            (long long)ranks);
    struct ap_layout *l = ap_layout_create((int)axes[0], (int)axes[1], (int)axes[2], (int)axes[3]);
    plan->best = calloc(1, sizeof(struct ap_layout *));
    if (l == NULL || plan->best == NULL) {
        ap_layout_destroy(l);
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for a layout");
    }
    plan->best[0] = l;
    plan->count = 1;
    l->micro_sequences = p->micro_sequences;
    for (int i = 0; i < (int)ranks; i++)
        l->rank[i] = i;
    if (p->micro_sequences < 1)
        return ap_error_set(err, AP_ERR_USAGE, "--in-order and --micro-sequences auto do not go together");
    if (ap_layout_refused(m, l, why, sizeof why) || !ap_layout_placed(m, l))
        return ap_error_set(err, AP_ERR_INPUT, "the ranks cannot stay in their order: %s", why);
    ap_layout_split(m, l, 1);
    plan->tried = plan->sizes = 1;
    return AP_OK;
}

static ap_status search(const struct ap_job *job, const struct ap_layout_problem *p, const struct plan_machine_flags *f,
                        int json, struct ap_error *err)
{
    struct ap_layout_model *m = NULL;
    struct ap_layout_plan plan = {0};
    char date[40];
    struct ap_plan_report r = {.problem = p, .plan = &plan, .job = job->name, .date = date};
    ap_clock_iso(ap_clock_wall(), date);
    ap_status status = ap_layout_model_create(p, &m, err);
    if (status == AP_OK && f->in_order)
        status = in_order(m, p, &plan, err);
    else if (status == AP_OK)
        status = ap_layout_search(m, 1 + (int)f->runners_up, &plan, err);
    if (status == AP_OK)
        status = ap_pipe_decide(m, &plan, &r.chosen, err);
    if (status == AP_OK)
        status = ap_simulate_step(m, plan.best[0], &r.simulated, err);
    if (status == AP_OK)
        status = ap_pipe_choices(m, plan.best[0], r.choice, &r.choice_count, err);
    r.model = m;
    if (status == AP_OK)
        status = print(&r, f->out, json, err);
    ap_layout_plan_clear(&plan);
    ap_layout_model_destroy(m);
    return status;
}

/* Without a plan auto is 1F1B. */
static int schedule_of(const struct ap_job *job, const struct plan_machine_flags *f)
{
    if (job->parallel.schedule == AP_PIPELINE_AUTO)
        return f->in_order ? AP_LAYOUT_1F1B : AP_LAYOUT_ANY;
    return job->parallel.schedule == AP_PIPELINE_ZERO_BUBBLE ? AP_LAYOUT_ZERO_BUBBLE : AP_LAYOUT_1F1B;
}

ap_status plan_layout(const struct ap_job *job, const struct plan_machine_flags *f, int json, struct ap_error *err)
{
    struct ap_topology *t = NULL;
    if (f->topology != NULL)
        AP_TRY(ap_topology_load(f->topology, &t, err));
    else
        AP_TRY(load_wan(f, &t, err));
    struct ap_layout_problem p = {
        .topo = t,
        .cfg = &job->model.cfg,
        .seq_len = job->data.seq_len,
        .global_sequences = job->batch.global_sequences,
        .micro_sequences = f->micro_sequences == AP_AUTO ? 0
                           : f->micro_sequences > 0      ? f->micro_sequences
                                                         : job->batch.micro_sequences,
        .element_size = job->dtype == AP_BF16 ? 2 : 4,
        .recompute = job->recompute,
        .schedule = schedule_of(job, f),
        .data = job->parallel.data,
        .tensor = job->parallel.tensor,
        .pipeline = job->parallel.pipeline,
        .expert = job->parallel.expert,
    };
    char identity[33];
    ap_status status = ap_work_identity(job, identity);
    if (status == AP_OK && strcmp(identity, t->work_identity) == 0)
        p.work = t->work;
    status = status == AP_OK ? search(job, &p, f, json, err) : ap_error_set(err, status, "out of memory");
    ap_topology_destroy(t);
    return status;
}
