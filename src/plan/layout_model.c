/* SPDX-License-Identifier: Apache-2.0
 * The layout model's set-up: sums over layers, scratch memory, layouts as objects, and what cannot be. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/axes.h"
#include "plan/layout_model.h"

struct ap_layout *ap_layout_create(int tensor, int expert, int pipeline, int data)
{
    struct ap_layout *l = calloc(1, sizeof *l);
    size_t blocks = (size_t)pipeline * (size_t)data;
    if (l == NULL)
        return NULL;
    l->tensor = tensor;
    l->expert = expert;
    l->pipeline = pipeline;
    l->data = data;
    l->rank = calloc(blocks * (size_t)expert * (size_t)tensor, sizeof *l->rank);
    l->first = calloc((size_t)pipeline + 1, sizeof *l->first);
    l->rounds = calloc((size_t)data, sizeof *l->rounds);
    l->window = calloc(blocks, sizeof *l->window);
    if (l->rank == NULL || l->first == NULL || l->rounds == NULL || l->window == NULL) {
        ap_layout_destroy(l);
        return NULL;
    }
    return l;
}

void ap_layout_destroy(struct ap_layout *l)
{
    if (l == NULL)
        return;
    free(l->rank);
    free(l->first);
    free(l->rounds);
    free(l->window);
    free(l);
}

void ap_layout_copy(struct ap_layout *to, const struct ap_layout *from)
{
    size_t blocks = (size_t)from->pipeline * (size_t)from->data;
    to->micro_sequences = from->micro_sequences;
    to->deep = from->deep;
    to->cost = from->cost;
    memcpy(to->rank, from->rank, blocks * (size_t)from->expert * (size_t)from->tensor * sizeof *to->rank);
    memcpy(to->first, from->first, ((size_t)from->pipeline + 1) * sizeof *to->first);
    memcpy(to->rounds, from->rounds, (size_t)from->data * sizeof *to->rounds);
    memcpy(to->window, from->window, blocks * sizeof *to->window);
}

/* The best of everything, for lower bounds. */
static void find_best(struct ap_layout_model *m)
{
    const struct ap_topology *t = m->p.topo;
    double speeds = 0;
    m->best_node = m->best_lan = (struct ap_topo_link){INFINITY, 0};
    for (int r = 0; r < t->rank_count; r++) {
        m->fastest = fmax(m->fastest, t->ranks[r].speed);
        m->most_memory = fmax(m->most_memory, t->ranks[r].memory);
        speeds += t->ranks[r].speed;
    }
    /* Each kind of work may be fastest on another rank. */
    m->fastest_part = m->p.work != NULL ? 1.0 / t->rank_count : m->fastest / speeds;
    for (int i = 0; i < t->node_count; i++) {
        const struct ap_topo_link links[2] = {t->nodes[i].inside, t->nodes[i].group};
        for (int k = 0; k < 2 && t->nodes[i].ranks > 1; k++)
            if (links[k].bandwidth > 0) {
                m->best_node.latency = fmin(m->best_node.latency, links[k].latency);
                m->best_node.bandwidth = fmax(m->best_node.bandwidth, links[k].bandwidth);
            }
        m->best_sum = fmax(m->best_sum, t->nodes[i].sum);
    }
    m->best_lan = m->best_node;
    for (int i = 0; i < t->site_count; i++) {
        struct ap_topo_link k = t->sites[i].inside;
        if (t->sites[i].nodes < 2 || k.bandwidth <= 0)
            continue;
        m->best_lan.latency = fmin(m->best_lan.latency, k.latency);
        m->best_lan.bandwidth = fmax(m->best_lan.bandwidth, k.bandwidth);
    }
    size_t pairs = t->node_pairs != NULL ? (size_t)t->node_count * (size_t)t->node_count : 0;
    for (size_t i = 0; i < pairs; i++)
        if (t->node_pairs[i].bandwidth > 0) {
            m->best_lan.latency = fmin(m->best_lan.latency, t->node_pairs[i].latency);
            m->best_lan.bandwidth = fmax(m->best_lan.bandwidth, t->node_pairs[i].bandwidth);
        }
}

/* The longest way between two ranks: all of them meet in small messages in every step. */
static double find_farthest(const struct ap_topology *t)
{
    double far = 0;
    size_t pairs = t->node_pairs != NULL ? (size_t)t->node_count * (size_t)t->node_count : 0;
    for (int i = 0; i < t->node_count; i++)
        far = t->nodes[i].ranks > 1 ? fmax(far, t->nodes[i].inside.latency) : far;
    for (int i = 0; i < t->site_count; i++)
        far = t->sites[i].nodes > 1 ? fmax(far, t->sites[i].inside.latency) : far;
    for (size_t i = 0; i < pairs; i++)
        far = t->node_pairs[i].bandwidth > 0 ? fmax(far, t->node_pairs[i].latency) : far;
    for (int i = 0; i < t->site_count * t->site_count && t->site_count > 1; i++)
        far = fmax(far, t->wan[i].latency);
    return far;
}

/* Nodes by site, then by their order in the site's ring. */
static void order_all(struct ap_layout_model *m)
{
    const struct ap_topology *t = m->p.topo;
    int start = 0;
    for (int s = 0; s < t->site_count; s++) {
        m->site_list[s] = start;
        start += t->sites[s].nodes;
    }
    for (int i = 0; i < t->node_count; i++) {
        m->position[i] = m->site_list[t->nodes[i].site] + t->nodes[i].order;
        m->node_at[m->position[i]] = i;
    }
}

static ap_status check(const struct ap_layout_problem *p, struct ap_error *err)
{
    if (p->micro_sequences > 0 && p->global_sequences % p->micro_sequences != 0)
        return ap_error_set(err, AP_ERR_INPUT, "%lld sequences of a step are no multiple of micro-batches of %lld",
                            (long long)p->global_sequences, (long long)p->micro_sequences);
    return AP_OK;
}

ap_status ap_layout_model_create(const struct ap_layout_problem *p, struct ap_layout_model **m_p, struct ap_error *err)
{
    AP_TRY(check(p, err));
    struct ap_layout_model *m = calloc(1, sizeof *m);
    const struct ap_topology *t = p->topo;
    size_t layers = (size_t)p->cfg->layers, nodes = (size_t)t->node_count, sites = (size_t)t->site_count;
    size_t ranks = (size_t)t->rank_count, stages = layers < ranks ? layers : ranks;
    if (m == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the planner");
    m->p = *p;
    m->sum = calloc(layers + 1, sizeof *m->sum);
    m->stage = calloc(ranks, sizeof *m->stage);
    m->load = calloc(sites * sites + 2 * sites, sizeof *m->load);
    m->position = calloc(5 * nodes + sites, sizeof *m->position);
    m->site_use = calloc(sites, sizeof *m->site_use);
    m->pipe = calloc(2 * ranks, sizeof *m->pipe);
    m->shape = calloc(ranks, sizeof *m->shape);
    m->table = calloc((layers + 1) * (layers + 1), sizeof *m->table);
    m->choice = calloc((layers + 1) * (layers + 1), sizeof *m->choice);
    m->beyond = calloc(2 * (stages + 1), sizeof *m->beyond);
    m->line = calloc(layers + 1, sizeof *m->line);
    m->kept = calloc(stages + 1, sizeof *m->kept);
    m->links = calloc(stages + 1, sizeof *m->links);
    if (m->sum == NULL || m->stage == NULL || m->load == NULL || m->position == NULL || m->site_use == NULL ||
        m->pipe == NULL || m->shape == NULL || m->table == NULL || m->choice == NULL || m->beyond == NULL ||
        m->line == NULL || m->kept == NULL || m->links == NULL) {
        ap_layout_model_destroy(m);
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory for the planner");
    }
    m->then = m->pipe + ranks;
    m->open = m->beyond + stages + 1;
    m->node_at = m->position + nodes;
    m->mark = m->node_at + nodes;
    m->count = m->mark + nodes;
    m->list = m->count + nodes;
    m->site_list = m->list + nodes;
    ap_layout_count(m);
    find_best(m);
    m->farthest = find_farthest(t);
    order_all(m);
    *m_p = m;
    return AP_OK;
}

void ap_layout_model_destroy(struct ap_layout_model *m)
{
    if (m == NULL)
        return;
    free(m->sum);
    free(m->stage);
    free(m->load);
    free(m->position);
    free(m->site_use);
    free(m->pipe);
    free(m->shape);
    free(m->table);
    free(m->choice);
    free(m->beyond);
    free(m->line);
    free(m->kept);
    free(m->links);
    free(m);
}

int ap_layout_refused(const struct ap_layout_model *m, const struct ap_layout *l, char *buf, size_t size)
{
    const struct ap_axes axes = {l->data, l->tensor, l->pipeline, l->expert};
    int64_t rows = l->micro_sequences * m->p.seq_len;
    struct ap_error err;
    if (ap_axes_check(m->p.cfg, &axes, m->p.global_sequences / l->micro_sequences, &err) != AP_OK) {
        snprintf(buf, size, "%s", err.text);
        return 1;
    }
    if (m->p.schedule == AP_LAYOUT_ZERO_BUBBLE &&
        ap_axes_check_zero_bubble(l->pipeline, m->p.recompute, &err) != AP_OK) {
        snprintf(buf, size, "%s", err.text);
        return 1;
    }
    if (rows % l->tensor != 0) /* norms are sharded by tokens, in equal parts as far as the cost model knows */
        snprintf(buf, size, "tensor %d: %lld tokens of a micro-batch cannot be shared out evenly", l->tensor,
                 (long long)rows);
    return rows % l->tensor != 0;
}
