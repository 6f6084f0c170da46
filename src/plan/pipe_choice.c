/* SPDX-License-Identifier: Apache-2.0
 * Pipeline schedules of one layout beside each other. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/layout_model.h"
#include "plan/pipe_choice.h"
#include "plan/simulate.h"

#define MOST_CHUNKS 4    /* AP_PIPE_CHOICES: 1F1B, zero-bubble, 2 .. 4 chunks */
#define ROUNDS      1024 /* micro-batches played: there are several simulations */

static ap_status failed(ap_status status, struct ap_error *err)
{
    return ap_error_set(err, status, "%s",
                        status == AP_ERR_BUG ? "a simulated pipeline schedule got stuck"
                                             : "out of memory for the simulation");
}

/* What comes behind the pipeline. */
static double after(const struct ap_layout *l)
{
    return l->cost.sync_lan + l->cost.sync_wan + l->cost.optimizer;
}

/* A schedule with its own windows. */
static ap_status simulate(struct ap_layout_model *m, const struct ap_layout *l, const struct ap_layout_chunks *c,
                          struct ap_pipe_choice *choice)
{
    int d = l->cost.slow_pipe, count = c->count * l->pipeline;
    struct ap_layout_stage *k = calloc((size_t)count, sizeof *k);
    if (k == NULL)
        return AP_ERR_NOMEM;
    struct ap_pipe_spec spec = ap_layout_zero_bubble(l);
    if (choice->schedule == AP_PLAN_INTERLEAVED) {
        spec.kind = AP_PIPE_INTERLEAVED;
        spec.chunks = c->count;
    }
    ap_layout_chunk_times(m, l, d, c, k);
    ap_status status = ap_simulate_pipe(&spec, k, ROUNDS, &choice->step);
    free(k);
    for (int s = 0; s < l->pipeline; s++) {
        double bytes = ap_layout_chunk_memory(m, l, s, c, ap_layout_flight_of(l, spec, s));
        double part = bytes / ap_layout_room(m, l, s);
        if (s == 0 || part > choice->memory_part) {
            choice->memory = bytes;
            choice->memory_part = part;
            choice->memory_stage = s;
        }
    }
    return status;
}

static ap_status interleave(struct ap_layout_model *m, const struct ap_layout *l, struct ap_pipe_choice *choice)
{
    struct ap_layout_chunks c = {choice->chunks, NULL};
    c.first = calloc((size_t)(c.count * l->pipeline) + 1, sizeof *c.first);
    if (c.first == NULL)
        return AP_ERR_NOMEM;
    ap_layout_split_chunks(m, l, &c);
    ap_status status = simulate(m, l, &c, choice);
    free(c.first);
    return status;
}

ap_status ap_pipe_choices(struct ap_layout_model *m, const struct ap_layout *l,
                          struct ap_pipe_choice choice[AP_PIPE_CHOICES], int *count_p, struct ap_error *err)
{
    const struct ap_layout_chunks whole = {1, l->first};
    int n = 0, must = m->p.schedule == AP_LAYOUT_ZERO_BUBBLE; /* its memory is not that of 1F1B then */
    ap_status status = AP_OK;
    if (l->pipeline > 1 && !must) {
        choice[0] = (struct ap_pipe_choice){.schedule = l->deep ? AP_PLAN_DEEP : AP_PLAN_1F1B,
                                            .chunks = 1,
                                            .memory = l->cost.memory,
                                            .memory_part = l->cost.memory_part,
                                            .memory_stage = l->cost.memory_stage};
        status = ap_simulate_layout(m, l, l->cost.slow_pipe, ROUNDS, &choice[n++].step);
    }
    if (l->pipeline > 1 && !m->p.recompute && status == AP_OK) {
        choice[n] = (struct ap_pipe_choice){.schedule = AP_PLAN_ZERO_BUBBLE, .chunks = 1};
        status = simulate(m, l, &whole, &choice[n++]);
    }
    for (int v = 2; n > 0 && !must && v <= MOST_CHUNKS && v * l->pipeline <= m->p.cfg->layers && status == AP_OK; v++) {
        choice[n] = (struct ap_pipe_choice){.schedule = AP_PLAN_INTERLEAVED, .chunks = v};
        status = interleave(m, l, &choice[n++]);
    }
    for (int i = 0; i < n; i++)
        choice[i].step += after(l);
    *count_p = n;
    return status == AP_OK ? AP_OK : failed(status, err);
}

/* ---- which ---- */

/* Simulated step of layout l by 1F1B, and by zero-bubble where that is possible and fits; else INFINITY. */
static ap_status both(struct ap_layout_model *m, struct ap_layout *l, double *plain_p, struct ap_pipe_choice *split_p)
{
    const struct ap_layout_chunks whole = {1, l->first};
    *split_p = (struct ap_pipe_choice){.schedule = AP_PLAN_ZERO_BUBBLE, .chunks = 1, .step = INFINITY};
    ap_layout_cost(m, l);
    AP_TRY(ap_simulate_layout(m, l, l->cost.slow_pipe, ROUNDS, plain_p));
    *plain_p += after(l);
    if (l->pipeline < 2 || m->p.recompute || m->p.schedule == AP_LAYOUT_1F1B)
        return AP_OK;
    AP_TRY(simulate(m, l, &whole, split_p));
    split_p->step = split_p->memory_part <= 1 ? split_p->step + after(l) : INFINITY;
    return AP_OK;
}

ap_status ap_pipe_decide(struct ap_layout_model *m, struct ap_layout_plan *plan, struct ap_pipe_choice *chosen_p,
                         struct ap_error *err)
{
    struct ap_pipe_choice chosen = {.schedule = AP_PLAN_1F1B, .chunks = 1}, split;
    double least = INFINITY, plain;
    int best = 0, must = m->p.schedule == AP_LAYOUT_ZERO_BUBBLE;
    for (int i = 0; i < plan->count; i++) {
        ap_status status = both(m, plan->best[i], &plain, &split);
        if (status != AP_OK)
            return failed(status, err);
        if (i == 0 && !must)
            least = plain * (1 - AP_PIPE_GAIN);
        if (split.step >= least)
            continue;
        least = split.step;
        chosen = split;
        best = i;
    }
    if (must && chosen.schedule != AP_PLAN_ZERO_BUBBLE)
        return ap_error_set(err, AP_ERR_INPUT, "schedule zero-bubble: no layout that was found fits into memory");
    struct ap_layout *first = plan->best[best];
    memmove(&plan->best[1], &plan->best[0], (size_t)best * sizeof(struct ap_layout *));
    plan->best[0] = first;
    ap_layout_cost(m, first);
    *chosen_p = chosen;
    return AP_OK;
}
