/* SPDX-License-Identifier: Apache-2.0
 * Layers over stages, unevenly where stages differ in speed. The balanced split is the dynamic programme
 *   f[k][j] = min over i of max(f[k-1][i], time of layers i .. j-1 on stage k)
 * whose inner loop ends where the second term alone is too long. A thorough split also asks, for several limits on the
 * slowest stage, for the least sum of stage times below it: with few micro-batches the sum counts as much. */
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
            to->speed = smaller(to->speed, k.speed);
            to->tensor.latency = larger(to->tensor.latency, k.tensor.latency);
            to->tensor.bandwidth = smaller(to->tensor.bandwidth, k.tensor.bandwidth);
            to->expert.latency = larger(to->expert.latency, k.expert.latency);
            to->expert.bandwidth = smaller(to->expert.bandwidth, k.expert.bandwidth);
        }
        if (mean)
            m->links[s].speed = 1 / slowness;
    }
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

/* Fill c->first; limit: the slowest virtual stage allowed, then the least sum is sought, INFINITY: the least slowest
 * one is. Returns that, INFINITY if no split keeps the limit. */
static double programme(struct ap_layout_model *m, const struct ap_layout *l, struct ap_layout_chunks *c, double limit)
{
    int layers = (int)m->p.cfg->layers, width = layers + 1, stages = c->count * l->pipeline, sum = isfinite(limit);
    double *f = m->table, ends[2];
    for (int j = 0; j <= layers; j++)
        f[j] = j == 0 ? 0 : INFINITY;
    for (int k = 1; k <= stages; k++) {
        int s = (k - 1) % l->pipeline, last = (k + l->pipeline - 2) % l->pipeline;
        if (k == 1 || memcmp(&m->links[s], &m->links[last], sizeof *m->links) != 0)
            stage_line(m, l, s, ends);
        for (int j = 0; j <= layers; j++) {
            double best = INFINITY;
            int from = -1;
            for (int i = j - 1; i >= k - 1 && j <= layers - (stages - k); i--) {
                double before = f[(k - 1) * width + i], time = m->line[j] - m->line[i];
                time += (i == 0 ? ends[0] : 0) + (j == layers ? ends[1] : 0);
                if (time > limit || (!sum && time >= best))
                    break;
                double now = sum ? before + time : larger(before, time);
                if (now < best) {
                    best = now;
                    from = i;
                }
            }
            f[k * width + j] = best;
            m->choice[k * width + j] = from;
        }
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
    struct ap_stage_links best = {m->fastest, m->best_node, m->best_lan};
    /* One of the pipelines does at least the average number of rounds, and one of its stages at least the average
     * part of the time: that stage is busy so long, and at least half of it delays the rounds behind the first. */
    struct ap_stage_rate rate = ap_layout_stage_rate(m, l, &best);
    double whole = ap_layout_rate_time(&rate, &all);
    double per_pipe = larger(1, (double)rounds / l->data), pipe = whole * per_pipe / l->pipeline;
    pipe = larger(pipe, whole * (1 + (per_pipe - 1) / l->pipeline / 2));
    double ranks = (double)l->data * l->expert, sync = 0, speed = 0;
    for (int r = 0; r < t->rank_count; r++)
        speed += t->ranks[r].speed;
    double work = (double)(m->p.global_sequences * m->p.seq_len) * all.flops / speed;
    if (ranks > 1)
        sync = all.dense / l->tensor / l->pipeline * (4.0 + m->p.element_size) * (ranks - 1) / ranks /
               larger(m->best_lan.bandwidth, 1);
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
