/* SPDX-License-Identifier: Apache-2.0
 * Pipeline schedules of one layout beside each other. */
#include "config.h"

#include <stdlib.h>

#include "plan/layout_model.h"
#include "plan/pipe_choice.h"
#include "plan/simulate.h"

#define MOST_CHUNKS 4    /* AP_PIPE_CHOICES: 1F1B, zero-bubble, 2 .. 4 chunks */
#define ROUNDS      1024 /* micro-batches played: there are several simulations */

/* A schedule with its own windows. */
static ap_status simulate(struct ap_layout_model *m, const struct ap_layout *l, const struct ap_layout_chunks *c,
                          struct ap_pipe_choice *choice)
{
    int d = l->cost.slow_pipe, count = c->count * l->pipeline;
    struct ap_layout_stage *k = calloc((size_t)count, sizeof *k);
    if (k == NULL)
        return AP_ERR_NOMEM;
    struct ap_pipe_spec spec = {choice->schedule == AP_PLAN_INTERLEAVED ? AP_PIPE_INTERLEAVED : AP_PIPE_ZERO_BUBBLE,
                                l->pipeline, c->count, l->rounds[d], NULL};
    ap_layout_chunk_times(m, l, d, c, k);
    ap_status status = ap_simulate_pipe(&spec, k, ROUNDS, &choice->step);
    free(k);
    for (int s = 0; s < l->pipeline; s++) {
        int64_t flight = 0;
        for (d = 0; d < l->data; d++) {
            spec.micros = l->rounds[d];
            int64_t slots = ap_pipe_slots(&spec, s);
            flight = slots > flight ? slots : flight;
        }
        double bytes = ap_layout_chunk_memory(m, l, s, c, (double)flight), part = bytes / ap_layout_room(m, l, s);
        if (s == 0 || part > choice->memory_part) {
            choice->memory = bytes;
            choice->memory_part = part;
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
    int n = 0;
    ap_status status = AP_OK;
    if (l->pipeline > 1) {
        choice[0] =
            (struct ap_pipe_choice){l->deep ? AP_PLAN_DEEP : AP_PLAN_1F1B, 1, 0, l->cost.memory, l->cost.memory_part};
        status = ap_simulate_layout(m, l, l->cost.slow_pipe, ROUNDS, &choice[n++].step);
        choice[n] = (struct ap_pipe_choice){.schedule = AP_PLAN_ZERO_BUBBLE, .chunks = 1};
        if (status == AP_OK)
            status = simulate(m, l, &whole, &choice[n++]);
    }
    for (int v = 2; n > 0 && v <= MOST_CHUNKS && v * l->pipeline <= m->p.cfg->layers && status == AP_OK; v++) {
        choice[n] = (struct ap_pipe_choice){.schedule = AP_PLAN_INTERLEAVED, .chunks = v};
        status = interleave(m, l, &choice[n++]);
    }
    for (int i = 0; i < n; i++)
        choice[i].step += l->cost.sync_lan + l->cost.sync_wan + l->cost.optimizer;
    *count_p = n;
    if (status != AP_OK)
        return ap_error_set(err, status, "%s",
                            status == AP_ERR_BUG ? "a simulated pipeline schedule got stuck"
                                                 : "out of memory for the simulation");
    return AP_OK;
}
