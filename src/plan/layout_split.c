/* SPDX-License-Identifier: Apache-2.0
 * Layers over stages, unevenly where stages differ in speed. The balanced split is the dynamic programme
 *   f[k][j] = min over i of max(f[k-1][i], time of layers i .. j-1 on stage k)
 * whose best i grows with j. A thorough split also asks, for several limits on the slowest stage, for the least sum of
 * stage times below it: with few micro-batches the sum counts as much. */
#include "config.h"

#include <math.h>
#include <string.h>

#include "plan/layout_model.h"

double ap_layout_score(const struct ap_layout *l)
{
    return l->cost.memory_part <= 1 ? l->cost.step : 1e30 * l->cost.memory_part;
}

/* links[s]: the slowest speed and worst links of a stage over its blocks; mean: the harmonic mean of the speeds. */
static void stage_links(struct ap_layout_model *m, const struct ap_layout *l, int mean)
{
    for (int s = 0; s < l->pipeline; s++) {
        double slowness = 0;
        for (int d = 0; d < l->data; d++) {
            struct ap_stage_links k, *to = &m->links[s];
            ap_layout_block_links(m, l, s, d, &k);
            slowness += 1 / k.speed / l->data;
            if (d == 0) {
                *to = k;
                continue;
            }
            if (k.speed < to->speed) {
                to->speed = k.speed;
                to->work = k.work;
            }
            to->tensor.latency = larger(to->tensor.latency, k.tensor.latency);
            to->tensor.bandwidth = smaller(to->tensor.bandwidth, k.tensor.bandwidth);
            to->expert.latency = larger(to->expert.latency, k.expert.latency);
            to->expert.bandwidth = smaller(to->expert.bandwidth, k.expert.bandwidth);
        }
        if (mean) {
            m->links[s].scale = slowness * m->links[s].speed;
            m->links[s].speed = 1 / slowness;
        }
    }
}

static int same_link(struct ap_topo_link a, struct ap_topo_link b)
{
    return a.latency == b.latency && a.bandwidth == b.bandwidth;
}

static int same_links(const struct ap_stage_links *a, const struct ap_stage_links *b)
{
    return a->speed == b->speed && a->work == b->work && a->scale == b->scale && same_link(a->tensor, b->tensor) &&
           same_link(a->expert, b->expert);
}

/* line[i]: seconds of the layers before i on stage s; ends[0], ends[1]: of what goes with the first and the last
 * layer. */
static void stage_line(struct ap_layout_model *m, const struct ap_layout *l, int s, double ends[2])
{
    int layers = (int)m->p.cfg->layers;
    struct ap_stage_rate r = ap_layout_stage_rate(m, l, &m->links[s]);
    struct ap_stage_load none;
    for (int i = 0; i <= layers; i++)
        m->line[i] = ap_layout_rate_time(&r, &m->sum[i]);
    ap_layout_load(m, 0, 0, &none);
    ends[0] = ap_layout_rate_time(&r, &none);
    ap_layout_load(m, layers, layers, &none);
    ends[1] = ap_layout_rate_time(&r, &none);
}

/* Seconds of layers i .. j - 1 as a stage. */
static double stage_time(const struct ap_layout_model *m, int i, int j, const double ends[2])
{
    return m->line[j] - m->line[i] + (i == 0 ? ends[0] : 0) + (j == m->p.cfg->layers ? ends[1] : 0);
}

/* Row k of the programme for the least slowest stage. The best i grows with j: up to it the stage's own time decides,
 * and falls, from it on what is before, and grows. */
static void row_of_largest(struct ap_layout_model *m, int k, int stages, const double ends[2])
{
    int layers = (int)m->p.cfg->layers, width = layers + 1, i = k - 1;
    const double *before = &m->table[(k - 1) * width];
    for (int j = k; j <= layers - (stages - k); j++) {
        double best = larger(before[i], stage_time(m, i, j, ends));
        for (double next; i + 1 < j; i++, best = next) {
            next = larger(before[i + 1], stage_time(m, i + 1, j, ends));
            if (next > best)
                break;
        }
        m->table[k * width + j] = best;
        m->choice[k * width + j] = i;
    }
}

/* The same for the least sum of times, none above the limit. */
static void row_of_sums(struct ap_layout_model *m, int k, int stages, const double ends[2], double limit)
{
    int layers = (int)m->p.cfg->layers, width = layers + 1;
    const double *before = &m->table[(k - 1) * width];
    for (int j = k; j <= layers - (stages - k); j++) {
        double best = INFINITY;
        for (int i = j - 1; i >= k - 1; i--) {
            double time = stage_time(m, i, j, ends);
            if (time > limit)
                break;
            if (before[i] + time < best) {
                best = before[i] + time;
                m->choice[k * width + j] = i;
            }
        }
        m->table[k * width + j] = best;
    }
}

/* Fill c->first; limit: the slowest virtual stage allowed, then the least sum is sought, INFINITY: the least slowest
 * one is. Returns that, INFINITY if no split keeps the limit. */
static double programme(struct ap_layout_model *m, const struct ap_layout *l, struct ap_layout_chunks *c, double limit)
{
    int layers = (int)m->p.cfg->layers, width = layers + 1, stages = c->count * l->pipeline;
    double *f = m->table, ends[2];
    for (int j = 0; j <= layers; j++)
        f[j] = j == 0 ? 0 : INFINITY;
    for (int k = 1; k <= stages; k++) {
        int s = (k - 1) % l->pipeline, last = (k + l->pipeline - 2) % l->pipeline;
        if (k == 1 || !same_links(&m->links[s], &m->links[last]))
            stage_line(m, l, s, ends);
        for (int j = 0; j <= layers; j++)
            f[k * width + j] = INFINITY;
        if (isfinite(limit))
            row_of_sums(m, k, stages, ends, limit);
        else
            row_of_largest(m, k, stages, ends);
    }
    double result = f[stages * width + layers];
    c->first[stages] = layers;
    for (int k = stages; k > 0 && isfinite(result); k--)
        c->first[k - 1] = m->choice[k * width + c->first[k]];
    return result;
}

void ap_layout_split_chunks(struct ap_layout_model *m, const struct ap_layout *l, struct ap_layout_chunks *c)
{
    stage_links(m, l, 0);
    programme(m, l, c, INFINITY);
}

/* Cost of the split in l; keep it if it is the best so far. */
static void consider(struct ap_layout_model *m, struct ap_layout *l, double *best)
{
    ap_layout_cost(m, l);
    double score = ap_layout_score(l);
    if (score < *best) {
        *best = score;
        memcpy(m->kept, l->first, ((size_t)l->pipeline + 1) * sizeof *m->kept);
    }
}

/* Move single layers over the boundaries while that helps; l holds the best split, costed. */
static void shift(struct ap_layout_model *m, struct ap_layout *l, double *best, int passes)
{
    for (int better = 1; better && passes > 0; passes--) {
        better = 0;
        for (int s = 1; s < l->pipeline; s++)
            for (int by = -1; by <= 1; by += 2) {
                int at = l->first[s] + by;
                if (at <= l->first[s - 1] || at >= l->first[s + 1])
                    continue;
                l->first[s] = at;
                ap_layout_cost(m, l);
                if (ap_layout_score(l) < *best) {
                    *best = ap_layout_score(l);
                    better = 1;
                } else {
                    l->first[s] = at - by;
                }
            }
    }
}

/* Is l->first a split? Not before the first one. */
static int is_split(const struct ap_layout_model *m, const struct ap_layout *l)
{
    int good = l->first[0] == 0 && l->first[l->pipeline] == m->p.cfg->layers;
    for (int s = 0; s < l->pipeline && good; s++)
        good = l->first[s] < l->first[s + 1];
    return good;
}

void ap_layout_split(struct ap_layout_model *m, struct ap_layout *l, int thorough)
{
    struct ap_layout_chunks whole = {1, l->first};
    double best = INFINITY;
    int single = l->pipeline == 1;
    if (thorough && !single && is_split(m, l))
        consider(m, l, &best);
    for (int mean = 0; mean <= (thorough && l->data > 1 && !single); mean++) {
        stage_links(m, l, mean);
        double least = programme(m, l, &whole, INFINITY);
        consider(m, l, &best);
        /* Up to four times the least possible slowest stage. */
        for (int i = 0; i <= 16 && thorough && !single; i++)
            if (isfinite(programme(m, l, &whole, least * pow(4, i / 16.0) * (1 + 1e-12))))
                consider(m, l, &best);
    }
    if (single || (!thorough && l->cost.memory_part <= 1))
        return;
    memcpy(l->first, m->kept, ((size_t)l->pipeline + 1) * sizeof *m->kept);
    shift(m, l, &best, thorough ? 8 : 2);
    ap_layout_cost(m, l);
}

double ap_layout_lower_bound(const struct ap_layout_model *m, const struct ap_layout *l)
{
    struct ap_stage_load all;
    int64_t rounds = m->p.global_sequences / l->micro_sequences / l->expert;
    const struct ap_topology *t = m->p.topo;
    ap_layout_load(m, 0, (int)m->p.cfg->layers, &all);
    /* One of the pipelines does at least the average number of rounds, and one of its stages at least the average
     * part of the time: that stage is busy so long, and at least half of it delays the rounds behind the first. */
    struct ap_stage_rate rate = ap_layout_best_rate(m, l);
    double whole = ap_layout_rate_time(&rate, &all);
    double per_pipe = larger(1, (double)rounds / l->data), pipe = whole * per_pipe / l->pipeline;
    pipe = larger(pipe, whole * (1 + (per_pipe - 1) / l->pipeline / 2));
    double ranks = (double)l->data * l->expert, sync = 0, work = 0;
    for (int k = 0; k < AP_WORK_KINDS; k++)
        work += all.kinds[k] * (rate.kinds[k].forward + rate.kinds[k].backward);
    work *= (double)(rounds * l->expert * l->tensor) * m->fastest_part; /* shared out perfectly */
    if (ranks > 1)
        sync = all.dense / l->tensor / l->pipeline * (4.0 + m->p.element_size) * (ranks - 1) / ranks /
               larger(larger(m->best_lan.bandwidth, m->best_sum), 1);
    return larger(pipe, work) + (t->site_count > 1 ? 0 : sync);
}

/* One stage has at least the average part of the weights and of what one micro-batch keeps; one rank does at least the
 * average number of rounds. The last stage has the ends and a layer at least. */
double ap_layout_least_memory(const struct ap_layout_model *m, const struct ap_layout *l, double *bytes_p)
{
    int layers = (int)m->p.cfg->layers;
    double rounds = (double)(m->p.global_sequences / l->micro_sequences / l->expert);
    double sums = 1 + floor(log2(larger(1, ceil(rounds / l->data))));
    double weights = (m->p.element_size == 4 ? 8 : 4) + 4 * sums, rest = m->p.element_size == 4 ? 16 : 24, most = 0;
    double tokens = (double)(l->micro_sequences * m->p.seq_len) / l->tensor, owners = (double)l->data * l->expert;
    struct ap_stage_load all, last, bare;
    ap_layout_load(m, 0, layers, &all);
    ap_layout_load(m, layers - 1, layers, &last);
    ap_layout_load(m, layers > 1, layers > 1, &bare); /* what every stage holds, whatever its layers */
    const struct {
        const struct ap_stage_load *load;
        double stages, held;
    } cases[2] = {{&all, l->pipeline, bare.held}, {&last, 1, last.held}};
    for (int i = 0; i < 2; i++) {
        const struct ap_stage_load *n = cases[i].load;
        double bytes = (n->dense + n->routed / l->expert) * weights + (n->dense + n->routed) / owners * rest;
        bytes = bytes / l->tensor + tokens * n->saved;
        most = larger(most, bytes / cases[i].stages + tokens * cases[i].held);
    }
    *bytes_p = most;
    return most / (AP_LAYOUT_MEMORY_SHARE * m->most_memory);
}
