/* SPDX-License-Identifier: Apache-2.0
 * What stages are made of, and what each part takes on a block of ranks: by the operations of a layer and the one speed
 * of a rank, or by what the kinds of layers were measured to take there (plan/work.h). */
#include "config.h"

#include <math.h>

#include "plan/layout_model.h"

/* Gathers and sums that a rank of a tensor group takes part in (model/mla.c, block.c, loss.c): of a layer, each way,
 * the latents of keys and of queries (or the hidden state), the rope key, the input of the MLP, both outputs; of the
 * head its input, the parts of the loss, its gradient; of the embedding one each way. */
#define LAYER_CALLS 6
#define HEAD_CALLS  3

/* Row exchanges of an MoE layer each way. */
#define EXCHANGES 2
/* The numbers of rows go ahead of the first of four: one more latency. */
#define EXCHANGE_LATENCIES 1.25

static void add_load(struct ap_stage_load *to, const struct ap_stage_load *n)
{
    for (int k = 0; k < AP_WORK_KINDS; k++)
        to->kinds[k] += n->kinds[k];
    to->dense += n->dense;
    to->shared += n->shared;
    to->routed += n->routed;
    to->saved += n->saved;
    to->held += n->held;
    to->late += n->late;
    to->late_held += n->late_held;
    to->calls += n->calls;
    to->calls_forward += n->calls_forward;
    to->width += n->width;
    to->width_forward += n->width_forward;
    to->exchanges += n->exchanges;
    to->exchanges_forward += n->exchanges_forward;
}

/* Numbers per token that a tensor group exchanges for a layer, each way. */
static double layer_width(const struct ap_model_config *c, const struct ap_model_layer *n)
{
    return (double)(n->latent + 3 * c->hidden_size);
}

void ap_layout_tensor_traffic(const struct ap_model_config *c, int recompute, double *calls_p, double *width_p)
{
    double h = (double)c->hidden_size, calls = 2 + HEAD_CALLS, width = 4 * h;
    for (int64_t i = 0; i < c->layers + c->mtp_depth; i++) {
        struct ap_model_layer n;
        double ways = recompute && i < c->layers ? 3 : 2;
        ap_model_count_layer(c, i, 1, 4, &n);
        calls += ways * LAYER_CALLS;
        width += ways * layer_width(c, &n);
    }
    *calls_p = calls + (double)c->mtp_depth * (HEAD_CALLS + 2);
    *width_p = width + (double)c->mtp_depth * 4 * h;
}

/* Sums over the layers before each one. */
static void count_layers(struct ap_layout_model *m)
{
    const struct ap_model_config *c = m->p.cfg;
    double input = (double)c->hidden_size * m->p.element_size, ways = m->p.recompute ? 3 : 2;
    for (int i = 0; i < c->layers; i++) {
        struct ap_model_layer n;
        struct ap_stage_load *s = &m->sum[i + 1];
        int moe = ap_model_layer_is_moe(c, i), kind = moe ? AP_WORK_MOE : AP_WORK_DENSE;
        ap_model_count_layer(c, i, m->p.seq_len, m->p.element_size, &n);
        m->flops[kind] = n.flops_token * (m->p.recompute ? 4.0 / 3.0 : 1);
        m->flops_forward[kind] = n.flops_token / 3;
        m->flops_weight[kind] = n.flops_weight;
        *s = m->sum[i];
        s->kinds[kind]++;
        s->dense += (double)n.dense;
        s->shared += (double)n.shared;
        s->routed += (double)n.routed;
        s->saved += m->p.recompute ? input : n.saved_token;
        s->late += n.late_token;
        s->calls += ways * LAYER_CALLS;
        s->calls_forward += LAYER_CALLS;
        s->width += ways * layer_width(c, &n);
        s->width_forward += layer_width(c, &n);
        s->exchanges += moe ? ways * EXCHANGES : 0;
        s->exchanges_forward += moe ? EXCHANGES : 0;
        m->largest_scratch = fmax(m->largest_scratch, n.scratch_token);
        m->largest_saved = fmax(m->largest_saved, n.saved_token);
    }
}

/* Head, losses and the MTP module, whose both ways are part of the last stage's backward. */
static void count_ends(struct ap_layout_model *m)
{
    const struct ap_model_config *c = m->p.cfg;
    double h = (double)c->hidden_size, e = m->p.element_size, head = h * (double)c->vocab_size;
    double flops = 6 * head, weight = 2 * head;
    m->front = (struct ap_stage_load){
        .kinds = {[AP_WORK_FRONT] = 1}, .dense = head, .calls = 2, .calls_forward = 1, .width = 2 * h};
    m->front.width_forward = h;
    m->front.late = h * e;
    for (int outer = 0; outer < 2; outer++) { /* 1: the last stage holds no embedding of its own */
        struct ap_stage_load n = {.kinds = {[AP_WORK_BACK] = 1}, .dense = head + h, .shared = h, .calls = HEAD_CALLS};
        n.width = 2 * h;
        n.held = n.late = n.late_held = (double)c->vocab_size * e + h * e;
        for (int64_t k = 0; k < c->mtp_depth; k++) {
            struct ap_model_layer mtp;
            ap_model_count_layer(c, c->layers + k, m->p.seq_len, m->p.element_size, &mtp);
            flops += outer ? 0 : mtp.flops_token + 6 * head;
            n.dense += (double)mtp.dense + (outer ? head : 0);
            n.shared += (double)mtp.shared;
            n.routed += (double)mtp.routed;
            n.saved += mtp.saved_token;
            n.late += mtp.late_token + (double)c->vocab_size * e; /* logits of its own */
            weight += outer ? 0 : mtp.flops_weight + 2 * head;
            n.calls += 2 * LAYER_CALLS + HEAD_CALLS + 2;
            n.width += 2 * layer_width(c, &mtp) + 4 * h;
            n.exchanges += ap_model_layer_is_moe(c, c->layers + k) ? 2 * EXCHANGES : 0;
        }
        m->back[outer] = n;
    }
    m->flops[AP_WORK_BACK] = flops;
    m->flops_weight[AP_WORK_BACK] = weight;
}

void ap_layout_count(struct ap_layout_model *m)
{
    count_layers(m);
    count_ends(m);
}

void ap_layout_load(const struct ap_layout_model *m, int first, int end, struct ap_stage_load *load_p)
{
    const struct ap_model_config *c = m->p.cfg;
    const struct ap_stage_load *a = &m->sum[first], *b = &m->sum[end];
    struct ap_stage_load n = {.dense = b->dense - a->dense,
                              .shared = b->shared - a->shared,
                              .routed = b->routed - a->routed,
                              .saved = b->saved - a->saved,
                              .late = b->late - a->late,
                              .held = 2 * (double)c->hidden_size * m->p.element_size + m->largest_scratch,
                              .calls = b->calls - a->calls,
                              .calls_forward = b->calls_forward - a->calls_forward,
                              .width = b->width - a->width,
                              .width_forward = b->width_forward - a->width_forward,
                              .exchanges = b->exchanges - a->exchanges,
                              .exchanges_forward = b->exchanges_forward - a->exchanges_forward};
    for (int k = 0; k < AP_WORK_KINDS; k++)
        n.kinds[k] = b->kinds[k] - a->kinds[k];
    n.held += m->p.recompute ? m->largest_saved : 0;
    if (first == 0)
        add_load(&n, &m->front);
    if (end == c->layers)
        add_load(&n, &m->back[first > 0]);
    *load_p = n;
}

/* ---- seconds ---- */

static void rate_by_speed(const struct ap_layout_model *m, double per_flop, struct ap_stage_rate *r)
{
    for (int k = 0; k < AP_WORK_KINDS; k++) {
        r->kinds[k].forward = m->flops_forward[k] * per_flop;
        r->kinds[k].backward = (m->flops[k] - m->flops_forward[k]) * per_flop;
        r->weight[k] = m->flops_weight[k] * per_flop;
    }
}

/* seconds: that one of the measured ones counts. A gradient is cleared in each round and added in all but the first. */
static void rate_by_work(const struct ap_layout_model *m, const struct ap_layout *l, const struct ap_work *w,
                         double seconds, struct ap_stage_rate *r)
{
    double rounds = (double)(m->p.global_sequences / l->micro_sequences / l->expert) / l->data;
    double leaf = seconds * (w->clear + w->add * (1 - 1 / larger(rounds, 1))), tokens = ap_layout_tokens(m, l);
    for (int k = 0; k < AP_WORK_KINDS; k++) {
        struct ap_work_time t = ap_work_at(w, k, l->tensor, l->expert);
        r->kinds[k] = (struct ap_work_time){t.forward * tokens * seconds, t.backward * tokens * seconds};
        double flops = m->flops[k] - m->flops_forward[k]; /* of the backward; the embedding's has none */
        r->weight[k] = flops > 0 ? r->kinds[k].backward * m->flops_weight[k] / flops : 0;
    }
    r->dense = leaf / l->tensor;
    r->shared = leaf * (1 - 1.0 / l->tensor); /* beside what they count as dense ones */
    r->routed = leaf / l->tensor / l->expert;
}

struct ap_stage_rate ap_layout_stage_rate(const struct ap_layout_model *m, const struct ap_layout *l,
                                          const struct ap_stage_links *links)
{
    double n = ap_layout_tokens(m, l), e = m->p.element_size, tp = l->tensor, ep = l->expert;
    struct ap_stage_rate r = {.dense = 0};
    if (links->work != NULL)
        rate_by_work(m, l, links->work, links->scale, &r);
    else
        rate_by_speed(m, n / (tp * links->speed), &r);
    if (l->tensor > 1) {
        r.call = (tp - 1) * links->tensor.latency;
        r.width = (tp - 1) * n * e / tp / links->tensor.bandwidth;
    }
    if (l->expert > 1) { /* every rank of a tensor group has its columns of the experts, and so all rows */
        double rows = n * (double)(m->p.cfg->experts_per_token * m->p.cfg->hidden_size) * e;
        r.exchange = (ep - 1) * (rows / ep / links->expert.bandwidth + EXCHANGE_LATENCIES * links->expert.latency);
    }
    return r;
}

static void take_less(struct ap_stage_rate *to, const struct ap_stage_rate *r)
{
    for (int k = 0; k < AP_WORK_KINDS; k++) {
        to->kinds[k].forward = smaller(to->kinds[k].forward, r->kinds[k].forward);
        to->kinds[k].backward = smaller(to->kinds[k].backward, r->kinds[k].backward);
    }
    to->dense = smaller(to->dense, r->dense);
    to->shared = smaller(to->shared, r->shared);
    to->routed = smaller(to->routed, r->routed);
}

struct ap_stage_rate ap_layout_best_rate(const struct ap_layout_model *m, const struct ap_layout *l)
{
    struct ap_stage_links best = {m->fastest, m->p.work, 1, m->best_node, m->best_lan};
    struct ap_stage_rate least = ap_layout_stage_rate(m, l, &best);
    for (int i = 1; i < m->p.topo->rank_count && m->p.work != NULL; i++) {
        best.work = &m->p.work[i];
        struct ap_stage_rate r = ap_layout_stage_rate(m, l, &best);
        take_less(&least, &r);
    }
    return least;
}

double ap_layout_rate_time(const struct ap_stage_rate *r, const struct ap_stage_load *load)
{
    double seconds = load->dense * r->dense + load->shared * r->shared + load->routed * r->routed;
    for (int k = 0; k < AP_WORK_KINDS; k++)
        seconds += load->kinds[k] * (r->kinds[k].forward + r->kinds[k].backward);
    return seconds + load->calls * r->call + load->width * r->width + load->exchanges * r->exchange;
}

/* Between the ranks of a node that work together. */
static struct ap_topo_link group_link(const struct ap_topo_node *node)
{
    return node->group.bandwidth > 0 ? node->group : node->inside;
}

void ap_layout_block_links(struct ap_layout_model *m, const struct ap_layout *l, int s, int d,
                           struct ap_stage_links *links_p)
{
    const struct ap_topology *t = m->p.topo;
    const struct ap_topo_link none = {0, INFINITY};
    struct ap_stage_links k = {INFINITY, NULL, 1, none, none};
    int nodes = 0, stamp = ++m->stamp, slowest = 0;
    const int *rank = &l->rank[(s * l->data + d) * l->expert * l->tensor];
    for (int i = 0; i < l->expert * l->tensor; i++) {
        if (t->ranks[rank[i]].speed < k.speed) {
            k.speed = t->ranks[rank[i]].speed;
            slowest = rank[i];
        }
        if (i % l->tensor != 0)
            continue;
        int node = t->ranks[rank[i]].node;
        if (l->tensor > 1)
            k.tensor = worse_link(k.tensor, group_link(&t->nodes[node]));
        if (m->mark[node] == stamp) {
            k.expert = worse_link(k.expert, group_link(&t->nodes[node]));
            continue;
        }
        m->mark[node] = stamp;
        m->list[nodes++] = node;
    }
    k.work = m->p.work != NULL ? &m->p.work[slowest] : NULL;
    int pairs = t->node_pairs != NULL ? nodes : nodes < 2 ? nodes : 2; /* else all pairs are alike */
    for (int a = 0; a < pairs; a++)
        for (int b = 0; b < pairs; b++)
            if (a != b)
                k.expert = worse_link(k.expert, ap_topology_link(t, m->list[a], m->list[b]));
    *links_p = k;
}
