/* SPDX-License-Identifier: Apache-2.0
 * The search: every way to write the number of ranks as tensor x expert x pipeline x data and every micro-batch, in the
 * order of their lower bounds; for each the starting placements with balanced layers; then exchanges on the most
 * promising. What cannot be is counted with its reason. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/layout_model.h"

/* Candidates kept for exchanges, and how far behind the best one may lie to get them. */
#define CANDIDATES 48

struct sizes {
    int tensor, expert, pipeline, data;
    int64_t micro;
    double bound;
};

struct search {
    struct ap_layout_model *m;
    struct ap_placer *placer;
    struct ap_layout_plan *plan;
    struct sizes *all;
    size_t count, room;
    struct ap_layout *found[CANDIDATES]; /* best first */
    int found_count;
    double smallest_part; /* of the memory, over all that do not fit */
    struct sizes smallest;
    double smallest_bytes;
    int keep;
    double slack;
    struct ap_error *err;
};

static ap_status no_memory(struct search *x)
{
    return ap_error_set(x->err, AP_ERR_NOMEM, "out of memory for the search of a layout");
}

static void add_reason(struct ap_layout_plan *plan, const char *text)
{
    for (int i = 0; i < plan->reasons; i++)
        if (strcmp(plan->reason[i], text) == 0)
            return;
    if (plan->reasons < AP_LAYOUT_REASONS)
        snprintf(plan->reason[plan->reasons++], sizeof plan->reason[0], "%s", text);
}

/* Remember the combination that came nearest to fitting. */
static void too_big(struct search *x, const struct sizes *s, double part, double bytes)
{
    if (part >= x->smallest_part)
        return;
    x->smallest_part = part;
    x->smallest = *s;
    x->smallest_bytes = bytes;
}

/* One more combination, unless it cannot be. */
static ap_status add_sizes(struct search *x, struct sizes s)
{
    char why[160];
    struct ap_layout l = {
        .tensor = s.tensor, .expert = s.expert, .pipeline = s.pipeline, .data = s.data, .micro_sequences = s.micro};
    if (ap_layout_refused(x->m, &l, why, sizeof why) || ap_placer_refused(x->placer, &l, why, sizeof why)) {
        add_reason(x->plan, why);
        return AP_OK;
    }
    double bytes, part = ap_layout_least_memory(x->m, &l, &bytes);
    x->plan->sizes++;
    if (part > 1) {
        x->plan->too_big++;
        too_big(x, &s, part, bytes);
        return AP_OK;
    }
    if (x->count == x->room) {
        size_t room = 2 * x->room + 256;
        struct sizes *grown = realloc(x->all, room * sizeof *grown);
        if (grown == NULL)
            return no_memory(x);
        x->all = grown;
        x->room = room;
    }
    s.bound = ap_layout_lower_bound(x->m, &l);
    x->all[x->count++] = s;
    return AP_OK;
}

/* Is n the value of an axis fixed to `fixed` (-1: free) that divides `of`? */
static int fits(int64_t fixed, int n, int of)
{
    return of % n == 0 && (fixed < 0 || fixed == n);
}

static ap_status add_micros(struct search *x, struct sizes s)
{
    const struct ap_layout_problem *p = &x->m->p;
    for (s.micro = 1; s.micro <= p->global_sequences; s.micro++)
        if (p->global_sequences % s.micro == 0 && (p->micro_sequences <= 0 || p->micro_sequences == s.micro))
            AP_TRY(add_sizes(x, s));
    return AP_OK;
}

static ap_status enumerate(struct search *x)
{
    const struct ap_layout_problem *p = &x->m->p;
    int n = p->topo->rank_count;
    struct sizes s = {0};
    for (s.tensor = 1; s.tensor <= n; s.tensor++) {
        int without_tensor = n / s.tensor;
        for (s.expert = 1; fits(p->tensor, s.tensor, n) && s.expert <= without_tensor; s.expert++) {
            int blocks = without_tensor / s.expert;
            for (s.pipeline = 1; fits(p->expert, s.expert, without_tensor) && s.pipeline <= blocks; s.pipeline++) {
                s.data = blocks / s.pipeline;
                if (fits(p->pipeline, s.pipeline, blocks) && (p->data < 0 || p->data == s.data))
                    AP_TRY(add_micros(x, s));
            }
        }
    }
    return AP_OK;
}

static int by_bound(const void *a, const void *b)
{
    const struct sizes *x = a, *y = b;
    return (x->bound > y->bound) - (x->bound < y->bound);
}

static int same_sizes(const struct ap_layout *a, const struct ap_layout *b)
{
    return a->tensor == b->tensor && a->expert == b->expert && a->pipeline == b->pipeline && a->data == b->data;
}

/* Put l, owned from here on, into its place; the last one falls out. */
static void insert(struct search *x, struct ap_layout *l)
{
    int at = x->found_count;
    while (at > 0 && ap_layout_score(x->found[at - 1]) > ap_layout_score(l))
        at--;
    if (at == CANDIDATES) {
        ap_layout_destroy(l);
        return;
    }
    if (x->found_count == CANDIDATES)
        ap_layout_destroy(x->found[--x->found_count]);
    memmove(&x->found[at + 1], &x->found[at], (size_t)(x->found_count - at) * sizeof *x->found);
    x->found[at] = l;
    x->found_count++;
}

/* How many different sizes stand among the candidates. */
static int different(const struct search *x)
{
    int n = 0;
    for (int i = 0; i < x->found_count; i++) {
        int first = 1;
        for (int k = 0; k < i; k++)
            first &= !same_sizes(x->found[i], x->found[k]);
        n += first;
    }
    return n;
}

/* The best starting placements of one combination, plain and deep. */
static ap_status start(struct search *x, const struct sizes *s)
{
    struct ap_layout *l = ap_layout_create(s->tensor, s->expert, s->pipeline, s->data), *best[2] = {NULL, NULL};
    ap_status status = l != NULL ? AP_OK : no_memory(x);
    double part = INFINITY, bytes = 0;
    for (int v = 0; status == AP_OK; v++) {
        l->micro_sequences = s->micro;
        if (!ap_placer_place(x->placer, v, l))
            break;
        for (l->deep = 0; l->deep <= (s->pipeline > 1 && x->m->p.schedule != AP_LAYOUT_ZERO_BUBBLE); l->deep++) {
            if (l->deep)
                ap_layout_cost(x->m, l);
            else
                ap_layout_split(x->m, l, 0);
            if (l->cost.memory_part < part) {
                part = l->cost.memory_part;
                bytes = l->cost.memory;
            }
            struct ap_layout **b = &best[l->deep];
            if (*b != NULL && ap_layout_score(l) >= ap_layout_score(*b))
                continue;
            if (*b == NULL)
                *b = ap_layout_create(s->tensor, s->expert, s->pipeline, s->data);
            if (*b == NULL) {
                status = no_memory(x);
                break;
            }
            ap_layout_copy(*b, l);
        }
    }
    x->plan->too_big += part > 1;
    if (part > 1)
        too_big(x, s, part, bytes);
    for (int i = 0; i < 2; i++)
        if (best[i] != NULL)
            insert(x, best[i]);
    ap_layout_destroy(l);
    return status;
}

static ap_status start_all(struct search *x)
{
    if (x->count > 0)
        qsort(x->all, x->count, sizeof *x->all, by_bound);
    for (size_t i = 0; i < x->count; i++) {
        double best = x->found_count > 0 ? ap_layout_score(x->found[0]) : INFINITY;
        if (x->all[i].bound > x->slack * best && different(x) >= x->keep) {
            x->plan->pruned += (int64_t)(x->count - i);
            break;
        }
        AP_TRY(start(x, &x->all[i]));
    }
    return AP_OK;
}

/* Exchanges on the best `most` candidates that are near enough to the best one, each with that budget. */
static ap_status improve(struct search *x, int most, int64_t budget)
{
    int n = x->found_count;
    struct ap_layout *old[CANDIDATES];
    double best = ap_layout_score(x->found[0]);
    ap_status status = AP_OK;
    memcpy(old, x->found, sizeof old);
    x->found_count = 0;
    for (int i = 0; i < n; i++) {
        struct ap_layout *l = old[i];
        if (status == AP_OK && i < most && ap_layout_score(l) <= x->slack * best) {
            struct ap_layout *spare = ap_layout_create(l->tensor, l->expert, l->pipeline, l->data);
            if (spare != NULL)
                ap_layout_improve(x->m, l, spare, budget);
            else
                status = no_memory(x);
            ap_layout_destroy(spare);
        }
        best = smaller(best, ap_layout_score(l));
        insert(x, l);
    }
    return status;
}

/* A layout costs time in proportion to the ranks: about the same effort for every size of machine. Of few ranks first
 * all candidates a little, then the best of them at length. */
static ap_status improve_all(struct search *x)
{
    int ranks = x->m->p.topo->rank_count;
    if (ranks > 64)
        return improve(x, 2 * x->keep, 400000 / ranks + 20);
    if (ranks > 16)
        return improve(x, 6, 300);
    AP_TRY(improve(x, CANDIDATES, 1000));
    x->slack = 1.1;
    return improve(x, 6, 12000);
}

static ap_status nothing_found(struct search *x)
{
    const struct ap_layout_plan *plan = x->plan;
    const struct sizes *s = &x->smallest;
    int ranks = x->m->p.topo->rank_count;
    if (plan->sizes > 0) {
        ap_error_set(
            x->err, AP_ERR_INPUT,
            "no layout of %d ranks fits into memory: the smallest (tensor %d, expert %d, pipeline %d, data %d, "
            "micro-batches of %lld) needs %.3g GB on a rank, %.3g times what it may fill",
            ranks, s->tensor, s->expert, s->pipeline, s->data, (long long)s->micro, x->smallest_bytes / 1e9,
            x->smallest_part);
        ap_error_hint(x->err, "recompute: true, smaller micro-batches, or more ranks");
    } else if (plan->reasons > 0) {
        ap_error_set(x->err, AP_ERR_INPUT, "no layout of %d ranks is possible: %s", ranks, plan->reason[0]);
        if (plan->reasons > 1)
            ap_error_hint(x->err, "%s", plan->reason[1]);
    } else {
        ap_error_set(x->err, AP_ERR_INPUT, "%d ranks cannot be shared out as the job's parallel section says", ranks);
        ap_error_hint(x->err, "data x tensor x pipeline x expert must be the number of ranks; auto is chosen");
    }
    return AP_ERR_INPUT;
}

/* The best of each sizes go to the plan, as far as they fit. */
static void deliver(struct search *x)
{
    struct ap_layout_plan *plan = x->plan;
    for (int i = 0; i < x->found_count; i++) {
        struct ap_layout *l = x->found[i];
        int take = plan->count < x->keep && l->cost.memory_part <= 1;
        for (int k = 0; k < plan->count && take; k++)
            take = !same_sizes(plan->best[k], l);
        if (take)
            plan->best[plan->count++] = l;
        else
            ap_layout_destroy(l);
    }
    x->found_count = 0;
    if (plan->count > 0)
        ap_layout_cost(x->m, plan->best[0]); /* its stages are the model's last ones */
}

ap_status ap_layout_search(struct ap_layout_model *m, int keep, struct ap_layout_plan *plan, struct ap_error *err)
{
    struct search x = {.m = m, .plan = plan, .keep = keep, .err = err, .smallest_part = INFINITY};
    *plan = (struct ap_layout_plan){0};
    x.slack = m->p.topo->rank_count <= 16 ? 3 : m->p.topo->rank_count <= 64 ? 1.5 : 1.1;
    m->tried = 0;
    plan->best = calloc((size_t)keep + 1, sizeof(struct ap_layout *));
    ap_status status = plan->best != NULL ? ap_placer_create(m->p.topo, &x.placer, err) : no_memory(&x);
    if (status == AP_OK)
        status = enumerate(&x);
    if (status == AP_OK)
        status = start_all(&x);
    if (status == AP_OK && x.found_count > 0)
        status = improve_all(&x);
    deliver(&x);
    plan->tried = m->tried;
    if (status == AP_OK && plan->count == 0)
        status = nothing_found(&x);
    ap_placer_destroy(x.placer);
    free(x.all);
    return status;
}

void ap_layout_plan_clear(struct ap_layout_plan *plan)
{
    for (int i = 0; i < plan->count; i++)
        ap_layout_destroy(plan->best[i]);
    free(plan->best);
    *plan = (struct ap_layout_plan){0};
}
