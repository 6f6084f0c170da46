/* SPDX-License-Identifier: Apache-2.0
 * A plan in words and as plan.json. */
#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/cluster.h"
#include "plan/layout_model.h"
#include "plan/plan_report.h"

/* Which axes of a layout leave sites and nodes. */
struct crossing {
    int pipeline_sites, data_sites;
};

static struct crossing find_crossing(const struct ap_layout_problem *p, const struct ap_layout *l)
{
    struct crossing c = {0, 0};
    for (int s = 0; s < l->pipeline; s++)
        for (int d = 0; d < l->data; d++) {
            int site = ap_topology_site(p->topo, ap_layout_rank(l, s, d, 0, 0));
            c.data_sites |= site != ap_topology_site(p->topo, ap_layout_rank(l, s, 0, 0, 0));
            c.pipeline_sites |= site != ap_topology_site(p->topo, ap_layout_rank(l, 0, d, 0, 0));
        }
    return c;
}

static const char *crossing_name(struct crossing c, int sites)
{
    if (sites == 1)
        return "none";
    return c.pipeline_sites && c.data_sites ? "pipeline and data" : c.pipeline_sites ? "pipeline" : "data";
}

/* Is the layout the plan, and its pipelines' schedule zero-bubble? */
static int is_zero_bubble(const struct ap_plan_report *r, const struct ap_layout *l)
{
    return l == r->plan->best[0] && r->chosen.schedule == AP_PLAN_ZERO_BUBBLE;
}

static int schedule_of(const struct ap_plan_report *r, const struct ap_layout *l)
{
    return is_zero_bubble(r, l) ? AP_PLAN_ZERO_BUBBLE : l->deep ? AP_PLAN_DEEP : AP_PLAN_1F1B;
}

/* Where the time goes by the layout's own schedule: what zero-bubble saves is bubble, then waiting for other ranks. */
static struct ap_layout_cost cost_of(const struct ap_plan_report *r, const struct ap_layout *l)
{
    struct ap_layout_cost c = l->cost;
    if (!is_zero_bubble(r, l))
        return c;
    c.step = r->chosen.step;
    double rest = fmax(0, c.step - c.compute), ways = c.lan + c.wan, part = ways > rest ? rest / ways : 1;
    c.compute = c.step - rest;
    c.lan *= part;
    c.wan *= part;
    c.bubble = fmax(0, rest - part * ways);
    c.memory = r->chosen.memory;
    c.memory_part = r->chosen.memory_part;
    c.memory_stage = r->chosen.memory_stage;
    return c;
}

static double memory_of(const struct ap_plan_report *r, const struct ap_layout *l, int s)
{
    const struct ap_layout_chunks whole = {1, l->first};
    if (!is_zero_bubble(r, l))
        return ap_layout_memory(r->model, l, s);
    return ap_layout_chunk_memory(r->model, l, s, &whole, ap_layout_flight_of(l, ap_layout_zero_bubble(l), s));
}

/* The most micro-batches that a stage keeps, over its pipelines. */
static int64_t in_flight(const struct ap_plan_report *r, const struct ap_layout *l, int s)
{
    int64_t most = 0;
    if (is_zero_bubble(r, l))
        return (int64_t)ap_layout_flight_of(l, ap_layout_zero_bubble(l), s).slots;
    for (int d = 0; d < l->data; d++) {
        int64_t w = l->window[s * l->data + d];
        w = w < l->rounds[d] ? w : l->rounds[d];
        most = w > most ? w : most;
    }
    return most;
}

static double tokens_per_s(const struct ap_plan_report *r, const struct ap_layout *l)
{
    return (double)(r->problem->global_sequences * r->problem->seq_len) / cost_of(r, l).step;
}

static double simulated(const struct ap_plan_report *r, const struct ap_layout *l)
{
    return is_zero_bubble(r, l) ? r->chosen.step : r->simulated;
}

/* ---- plan.json ---- */

static struct ap_plan_times times_of(const struct ap_plan_report *r, const struct ap_layout *l)
{
    const struct ap_layout_cost c = cost_of(r, l);
    return (struct ap_plan_times){.step = c.step,
                                  .compute = c.compute,
                                  .lan = c.lan,
                                  .wan = c.wan,
                                  .bubble = c.bubble,
                                  .sync_lan = c.sync_lan,
                                  .sync_wan = c.sync_wan,
                                  .optimizer = c.optimizer,
                                  .memory_bytes = c.memory,
                                  .memory_part = c.memory_part,
                                  .simulated_step = simulated(r, l),
                                  .tokens_per_s = tokens_per_s(r, l)};
}

/* Counts, date, and which node each rank is on. */
static ap_status take_machine(const struct ap_topology *t, struct ap_plan *p)
{
    const char **nodes = malloc(((size_t)t->rank_count + 1) * sizeof *nodes);
    if (nodes == NULL)
        return AP_ERR_NOMEM;
    for (int i = 0; i < t->rank_count; i++)
        nodes[i] = t->nodes[t->ranks[i].node].name;
    p->machine.nodes = t->node_count;
    p->machine.sites = t->site_count;
    p->machine.guessed_links = t->guessed_links;
    snprintf(p->machine.measured, sizeof p->machine.measured, "%s", t->date);
    ap_status status = ap_plan_identity(t->rank_count, nodes, p->machine.identity);
    free(nodes);
    return status;
}

ap_status ap_plan_report_plan(const struct ap_plan_report *r, struct ap_plan **plan_p)
{
    const struct ap_layout_problem *q = r->problem;
    struct ap_layout *l = r->plan->best[0];
    struct ap_plan *p = ap_plan_create(l->data, l->tensor, l->pipeline, l->expert, 1);
    if (p == NULL)
        return AP_ERR_NOMEM;
    ap_layout_cost(r->model, l);
    snprintf(p->date, sizeof p->date, "%s", r->date);
    snprintf(p->job, sizeof p->job, "%s", r->job);
    snprintf(p->model, sizeof p->model, "%s", q->cfg->name);
    snprintf(p->between_sites, sizeof p->between_sites, "%s", crossing_name(find_crossing(q, l), q->topo->site_count));
    p->schedule = schedule_of(r, l);
    p->seq_len = q->seq_len;
    p->global_sequences = q->global_sequences;
    p->micro_sequences = l->micro_sequences;
    for (int s = 0; s < l->pipeline; s++)
        p->stages[s] =
            (struct ap_plan_stage){l->first[s], l->first[s + 1] - l->first[s], in_flight(r, l, s), memory_of(r, l, s)};
    for (int i = 0; i < l->data * l->expert; i++)
        p->micro_batches[i] = l->rounds[i / l->expert];
    for (int slot = 0; slot < p->machine.ranks; slot++)
        p->place[l->rank[slot]] = slot;
    p->predicted = times_of(r, l);
    ap_status status = take_machine(q->topo, p);
    if (status == AP_OK)
        *plan_p = p;
    else
        ap_plan_destroy(p);
    return status;
}

static void schedules_json(struct ap_json *j, const struct ap_plan_report *r)
{
    ap_json_begin_array(j, "schedules");
    for (int i = 0; i < r->choice_count; i++) {
        const struct ap_pipe_choice *c = &r->choice[i];
        ap_json_begin_object(j, NULL);
        ap_json_str(j, "schedule", ap_plan_schedule_name(c->schedule));
        ap_json_int(j, "chunks", c->chunks);
        ap_json_real(j, "simulated_step_s", c->step);
        ap_json_real(j, "memory_bytes", c->memory);
        ap_json_real(j, "memory_part", c->memory_part);
        ap_json_end_object(j);
    }
    ap_json_end_array(j);
}

/* Another layout in short. */
static void runner_json(const struct ap_plan_report *r, const struct ap_layout *l, struct ap_json *j)
{
    struct ap_plan_times times = times_of(r, l);
    times.simulated_step = NAN; /* the best alone is */
    ap_json_begin_object(j, NULL);
    ap_plan_axes_json(l->data, l->tensor, l->pipeline, l->expert, j);
    ap_json_str(j, "schedule", ap_plan_schedule_name(schedule_of(r, l)));
    ap_json_int(j, "micro_sequences", l->micro_sequences);
    ap_json_str(j, "between_sites", crossing_name(find_crossing(r->problem, l), r->problem->topo->site_count));
    ap_plan_times_json(&times, j);
    ap_json_end_object(j);
}

void ap_plan_report_json(const struct ap_plan_report *r, const struct ap_plan *p, struct ap_json *j)
{
    ap_json_begin_object(j, NULL);
    ap_plan_json(p, j);
    schedules_json(j, r);
    ap_json_begin_array(j, "runners_up");
    for (int i = 1; i < r->plan->count; i++)
        runner_json(r, r->plan->best[i], j);
    ap_json_end_array(j);
    ap_json_begin_object(j, "search");
    ap_json_int(j, "sizes", r->plan->sizes);
    ap_json_int(j, "pruned", r->plan->pruned);
    ap_json_int(j, "too_big", r->plan->too_big);
    ap_json_int(j, "tried", r->plan->tried);
    ap_json_begin_array(j, "refused");
    for (int i = 0; i < r->plan->reasons; i++)
        ap_json_str(j, NULL, r->plan->reason[i]);
    ap_json_end_array(j);
    ap_json_end_object(j);
    ap_json_end_object(j);
}

/* ---- words ---- */

/* Sites by round-trip time: regions. */
static void add_regions(const struct ap_topology *t, struct ap_strbuf *b)
{
    int n = t->site_count;
    struct ap_clusters c;
    double *rtt = malloc(((size_t)n * (size_t)n + 1) * sizeof *rtt);
    if (rtt == NULL || n < 3) {
        free(rtt);
        return;
    }
    for (int i = 0; i < n * n; i++)
        rtt[i] = 2 * t->wan[i].latency;
    if (ap_cluster_build(n, rtt, &c) == AP_OK) {
        for (int k = 0; k < c.levels; k++) {
            const struct ap_cluster_level *l = &c.level[k];
            ap_strbuf_addf(b, "  %d groups of sites: inside up to %.3g ms, between from %.3g ms round trip%s\n",
                           l->groups, l->inside * 1e3, l->outside * 1e3,
                           k == c.main && c.levels > 1 ? " (largest gap)" : "");
        }
        ap_cluster_clear(&c);
    }
    free(rtt);
}

static void add_machine(const struct ap_plan_report *r, struct ap_strbuf *b)
{
    const struct ap_topology *t = r->problem->topo;
    double speed = 0, least = INFINITY, most = 0;
    for (int i = 0; i < t->rank_count; i++) {
        speed += t->ranks[i].speed;
        least = fmin(least, t->ranks[i].speed);
        most = fmax(most, t->ranks[i].speed);
    }
    ap_strbuf_addf(b, "machine\n  %d ranks on %d nodes at %d sites, %.4g TFLOP/s together", t->rank_count,
                   t->node_count, t->site_count, speed / 1e12);
    if (least < most)
        ap_strbuf_addf(b, " (a rank %.4g to %.4g)", least / 1e12, most / 1e12);
    ap_strbuf_addf(b, "\n");
    if (t->date[0] != '\0')
        ap_strbuf_addf(b, "  measured %s\n", t->date);
    if (r->problem->work != NULL)
        ap_strbuf_addf(b, "  by what the layers of %s take on each rank\n", t->work_job);
    else if (t->work != NULL)
        ap_strbuf_addf(b, "  layers were measured with another job, %s: by one speed of each rank\n", t->work_job);
    if (t->guessed_links > 0)
        ap_strbuf_addf(b, "  %d links between sites are unknown: taken as the way over other sites\n",
                       t->guessed_links);
    add_regions(t, b);
}

/* The sites of a stage, each once, by name. */
static void add_sites(const struct ap_topology *t, const struct ap_layout *l, int s, struct ap_strbuf *b)
{
    int last = -1, shown = 0, width = l->data * l->expert * l->tensor;
    for (int i = 0; i < width && shown < 4; i++) {
        int site = ap_topology_site(t, l->rank[s * width + i]);
        if (site == last)
            continue;
        int first = 1;
        for (int k = 0; k < i && first; k += l->tensor)
            first = ap_topology_site(t, l->rank[s * width + k]) != site;
        last = site;
        if (first) {
            ap_strbuf_addf(b, "%s%s", shown > 0 ? ", " : "", shown < 3 ? t->sites[site].name : "...");
            shown++;
        }
    }
}

static void add_stages(const struct ap_plan_report *r, const struct ap_layout *l, struct ap_strbuf *b)
{
    int few = l->pipeline <= 16;
    ap_strbuf_addf(b, "  %5s  %-9s %9s %10s  %s\n", "stage", "layers", "in flight", "GB a rank", "sites");
    for (int s = 0; s < l->pipeline; s++) {
        char layers[40];
        if (!few && s == 8)
            ap_strbuf_addf(b, "  %5s\n", "...");
        if (!few && s >= 8 && s < l->pipeline - 8)
            continue;
        snprintf(layers, sizeof layers, "%d-%d", l->first[s], l->first[s + 1] - 1);
        ap_strbuf_addf(b, "  %5d  %-9s %9" PRId64 " %10.4g  ", s, layers, in_flight(r, l, s), memory_of(r, l, s) / 1e9);
        add_sites(r->problem->topo, l, s, b);
        ap_strbuf_add(b, "\n");
    }
}

static void add_part(struct ap_strbuf *b, const char *name, double seconds, double step)
{
    ap_strbuf_addf(b, "  %-8s %11.4f s %5.1f %%\n", name, seconds, 100 * seconds / step);
}

static void add_rounds(const struct ap_layout *l, struct ap_strbuf *b)
{
    int64_t least = l->rounds[0], most = l->rounds[0];
    for (int d = 1; d < l->data; d++) {
        least = l->rounds[d] < least ? l->rounds[d] : least;
        most = l->rounds[d] > most ? l->rounds[d] : most;
    }
    if (least == most)
        ap_strbuf_addf(b, "  %" PRId64 " micro-batches of %" PRId64 " sequences on each of %d x %d groups\n", most,
                       l->micro_sequences, l->data, l->expert);
    else
        ap_strbuf_addf(b,
                       "  %" PRId64 " to %" PRId64 " micro-batches of %" PRId64
                       " sequences on each of %d x %d groups, by their speed\n",
                       least, most, l->micro_sequences, l->data, l->expert);
}

static void add_why(const struct ap_plan_report *r, const struct ap_layout *l, struct ap_strbuf *b)
{
    const struct ap_layout_plan *plan = r->plan;
    const struct ap_layout_cost *c = &l->cost;
    int sites = r->problem->topo->site_count;
    const char *name = crossing_name(find_crossing(r->problem, l), sites);
    ap_strbuf_add(b, "why\n");
    if (sites > 1)
        ap_strbuf_addf(b, "  between sites: the %s ax%s\n", name, strstr(name, "and") != NULL ? "es" : "is");
    if (l->pipeline > 1)
        ap_strbuf_addf(b, "  the slowest stage is %d of pipeline %d%s\n", c->slow_stage, c->slow_pipe,
                       is_zero_bubble(r, l) ? "; gradients of weights fill the gaps (zero-bubble)"
                       : l->deep            ? "; more micro-batches in flight hide the latency between stages"
                                            : "");
    ap_strbuf_addf(b,
                   "  of %" PRId64 " combinations %" PRId64 " are slower by their lower bound, %" PRId64
                   " do not fit into memory; %" PRId64 " layouts computed\n",
                   plan->sizes, plan->pruned, plan->too_big, plan->tried);
    for (int i = 0; i < plan->reasons; i++)
        ap_strbuf_addf(b, "  refused: %s\n", plan->reason[i]);
}

/* The schedules that the pipeline could have; the quickest that fits is marked. */
static void add_schedules(const struct ap_plan_report *r, struct ap_strbuf *b)
{
    int best = -1;
    for (int i = 0; i < r->choice_count; i++)
        if (r->choice[i].memory_part <= 1 && (best < 0 || r->choice[i].step < r->choice[best].step))
            best = i;
    if (r->choice_count > 0)
        ap_strbuf_addf(b, "pipeline schedules, simulated\n  %-11s %6s %11s %6s\n", "schedule", "chunks", "step s",
                       "memory");
    for (int i = 0; i < r->choice_count; i++) {
        const struct ap_pipe_choice *c = &r->choice[i];
        ap_strbuf_addf(b, "  %-11s %6d %11.4f %5.0f%%%s\n", ap_plan_schedule_name(c->schedule), c->chunks, c->step,
                       100 * c->memory_part, i == best ? "  quickest that fits" : "");
    }
}

static void add_runners(const struct ap_plan_report *r, struct ap_strbuf *b)
{
    const struct ap_layout_plan *plan = r->plan;
    ap_strbuf_addf(b, "runners-up\n  %5s %6s %8s %6s %5s %11s %7s %7s %7s %7s %6s  %s\n", "data", "tensor", "pipeline",
                   "expert", "micro", "step s", "compute", "LAN", "WAN", "bubble", "memory", "between sites");
    for (int i = 0; i < plan->count; i++) {
        const struct ap_layout *l = plan->best[i];
        const struct ap_layout_cost own = cost_of(r, l), *c = &own;
        ap_strbuf_addf(b, "  %5d %6d %8d %6d %5" PRId64 " %11.4f %6.1f%% %6.1f%% %6.1f%% %6.1f%% %5.0f%%  %s\n",
                       l->data, l->tensor, l->pipeline, l->expert, l->micro_sequences, c->step,
                       100 * c->compute / c->step, 100 * c->lan / c->step, 100 * c->wan / c->step,
                       100 * c->bubble / c->step, 100 * c->memory_part,
                       crossing_name(find_crossing(r->problem, l), r->problem->topo->site_count));
    }
}

void ap_plan_report_text(const struct ap_plan_report *r, struct ap_strbuf *b)
{
    const struct ap_layout *l = r->plan->best[0];
    ap_layout_cost(r->model, r->plan->best[0]);
    const struct ap_layout_cost own = cost_of(r, l), *c = &own;
    add_machine(r, b);
    ap_strbuf_addf(b, "plan\n  data %d x tensor %d x pipeline %d x expert %d\n", l->data, l->tensor, l->pipeline,
                   l->expert);
    if (l->pipeline > 1)
        ap_strbuf_addf(b, "  schedule %s\n", ap_plan_schedule_name(schedule_of(r, l)));
    add_rounds(l, b);
    add_stages(r, l, b);
    ap_strbuf_addf(b, "predicted step\n  %-8s %11.4f s          %.5g tokens/s; simulated %.4f s\n", "step", c->step,
                   tokens_per_s(r, l), simulated(r, l));
    add_part(b, "compute", c->compute, c->step);
    add_part(b, "LAN", c->lan, c->step);
    add_part(b, "WAN", c->wan, c->step);
    add_part(b, "bubble", c->bubble, c->step);
    ap_strbuf_addf(b, "  memory   %11.4g GB         at most on a rank, %.0f %% of what it may fill (stage %d)\n",
                   c->memory / 1e9, 100 * c->memory_part, c->memory_stage);
    add_why(r, l, b);
    add_schedules(r, b);
    add_runners(r, b);
}
