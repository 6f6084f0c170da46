/* SPDX-License-Identifier: Apache-2.0
 * The cost model of a step (docs/planner.md): from a layout to seconds and bytes. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/layout_model.h"

/* AdamW reads weight, gradient and two moments and writes three of them: bytes per parameter. */
#define OPTIMIZER_BYTES 28.0
/* Small messages of all ranks in a step: counts of targets, losses, loads of experts, the norm of the gradient,
 * agreement after the forward and backward passes and before the commit, requests to stop (src/train/trainer_step.c).
 */
#define CONTROLS 7
/* MPI sends more than so many bytes only after the receiver has answered: three ways instead of one. */
#define RENDEZVOUS_BYTES 65536.0
/* How many stages apart two of them are still looked at as waiting for each other. */
#define CHAIN 8

int ap_layout_rank(const struct ap_layout *l, int s, int d, int e, int t)
{
    return l->rank[((s * l->data + d) * l->expert + e) * l->tensor + t];
}

/* Node of the first, and so of every, rank of a cell. */
static int cell_node(const struct ap_layout_model *m, const struct ap_layout *l, int s, int d, int e)
{
    return m->p.topo->ranks[ap_layout_rank(l, s, d, e, 0)].node;
}

/* Ways over a link that a message takes before it has begun to arrive. */
static double ways(double bytes)
{
    return bytes > RENDEZVOUS_BYTES ? 3 : 1;
}

/* ---- stages and the links between them ---- */

static struct ap_layout_stage *stage_of(const struct ap_layout_model *m, const struct ap_layout *l, int s, int d)
{
    return &m->stage[s * l->data + d];
}

const struct ap_layout_stage *ap_layout_stage(const struct ap_layout_model *m, const struct ap_layout *l, int s, int d)
{
    return stage_of(m, l, s, d);
}

static void add_wan(struct ap_layout_model *m, int a, int b, double bytes)
{
    int n = m->p.topo->site_count;
    m->load[a * n + b] += bytes;
    m->load[n * n + a] += bytes;
    m->load[n * n + n + b] += bytes;
}

static void clear_wan(struct ap_layout_model *m)
{
    size_t n = (size_t)m->p.topo->site_count;
    memset(m->load, 0, (n * n + 2 * n) * sizeof *m->load);
}

/* Seconds that the busiest of the three resources of a link between sites needs for its load. */
static double wan_time(const struct ap_layout_model *m, int a, int b)
{
    const struct ap_topology *t = m->p.topo;
    int n = t->site_count;
    double time = m->load[a * n + b] / t->wan[a * n + b].bandwidth;
    if (t->sites[a].egress > 0)
        time = larger(time, m->load[n * n + a] / t->sites[a].egress);
    if (t->sites[b].ingress > 0)
        time = larger(time, m->load[n * n + n + b] / t->sites[b].ingress);
    return time;
}

/* A transfer of bytes from each tensor rank of a cell on node a to its like on node b. */
static void add_transfer(const struct ap_layout_model *m, int a, int b, double bytes, double times[2], int *wan_p)
{
    const struct ap_topology *t = m->p.topo;
    struct ap_topo_link k = ap_topology_link(t, a, b);
    int sa = t->nodes[a].site, sb = t->nodes[b].site;
    times[0] = larger(times[0], k.latency * ways(bytes));
    times[1] = larger(times[1], sa == sb ? bytes / k.bandwidth : wan_time(m, sa, sb));
    *wan_p |= sa != sb;
}

/* round: the last stage has a link to the first one, too. */
static void link_stages(struct ap_layout_model *m, const struct ap_layout *l, int round)
{
    const struct ap_topology *t = m->p.topo;
    double bytes = ap_layout_tokens(m, l) * (double)m->p.cfg->hidden_size * m->p.element_size;
    int links = l->pipeline - 1 + round;
    clear_wan(m);
    for (int s = 0; s < links; s++)
        for (int i = 0; i < l->data * l->expert; i++) {
            int next = (s + 1) % l->pipeline;
            int a = t->nodes[cell_node(m, l, s, i / l->expert, i % l->expert)].site;
            int b = t->nodes[cell_node(m, l, next, i / l->expert, i % l->expert)].site;
            if (a == b)
                continue;
            add_wan(m, a, b, bytes);
            add_wan(m, b, a, bytes);
        }
    for (int s = 0; s < links; s++)
        for (int d = 0; d < l->data; d++) {
            struct ap_layout_stage *k = stage_of(m, l, s, d);
            double ahead[2] = {0, 0}, back[2] = {0, 0};
            k->ahead.wan = 0;
            for (int e = 0; e < l->expert; e++) {
                int a = cell_node(m, l, s, d, e), b = cell_node(m, l, (s + 1) % l->pipeline, d, e);
                add_transfer(m, a, b, bytes / l->tensor, ahead, &k->ahead.wan);
                add_transfer(m, b, a, bytes / l->tensor, back, &k->ahead.wan);
            }
            k->ahead.latency = ahead[0];
            k->ahead.occupied = ahead[1];
            k->back.latency = back[0];
            k->back.occupied = back[1];
            k->back.wan = k->ahead.wan;
        }
}

/* Layers of this load on block (s, d); without links. */
static struct ap_layout_stage time_load(struct ap_layout_model *m, const struct ap_layout *l,
                                        const struct ap_stage_load *load, int s, int d)
{
    struct ap_stage_links links;
    ap_layout_block_links(m, l, s, d, &links);
    struct ap_stage_rate r = ap_layout_stage_rate(m, l, &links);
    struct ap_layout_stage k = {0};
    double leaf = load->dense * r.dense + load->shared * r.shared + load->routed * r.routed;
    for (int i = 0; i < AP_WORK_KINDS; i++) {
        k.forward += load->kinds[i] * r.kinds[i].forward;
        k.compute += load->kinds[i] * (r.kinds[i].forward + r.kinds[i].backward);
        k.weight += load->kinds[i] * r.weight[i];
    }
    k.compute += leaf;
    k.forward += load->calls_forward * r.call + load->width_forward * r.width + load->exchanges_forward * r.exchange;
    k.backward = ap_layout_rate_time(&r, load) - k.forward;
    return k;
}

static void time_stages(struct ap_layout_model *m, const struct ap_layout *l)
{
    for (int s = 0; s < l->pipeline; s++) {
        struct ap_stage_load load;
        ap_layout_load(m, l->first[s], l->first[s + 1], &load);
        for (int d = 0; d < l->data; d++)
            *stage_of(m, l, s, d) = time_load(m, l, &load, s, d);
    }
    link_stages(m, l, 0);
}

void ap_layout_chunk_times(struct ap_layout_model *m, const struct ap_layout *l, int d,
                           const struct ap_layout_chunks *c, struct ap_layout_stage *k)
{
    int count = c->count * l->pipeline;
    link_stages(m, l, c->count > 1);
    for (int i = 0; i < count; i++) {
        struct ap_stage_load load;
        const struct ap_layout_stage *stage = stage_of(m, l, i % l->pipeline, d);
        ap_layout_load(m, c->first[i], c->first[i + 1], &load);
        k[i] = time_load(m, l, &load, i % l->pipeline, d);
        if (i + 1 < count) {
            k[i].ahead = stage->ahead;
            k[i].back = stage->back;
        }
    }
    time_stages(m, l);
}

/* ---- one pipeline ---- */

static double stage_sum(const struct ap_layout_stage *k)
{
    return k->forward + k->backward;
}

static double link_sum(const struct ap_layout_stage *k)
{
    return k->ahead.latency + k->ahead.occupied + k->back.latency + k->back.occupied;
}

static struct ap_pipe_shape measure(const struct ap_layout_model *m, const struct ap_layout *l, int d)
{
    struct ap_pipe_shape p = {.like = d};
    double slowest = 0;
    for (int s = 0; s < l->pipeline; s++) {
        const struct ap_layout_stage *k = stage_of(m, l, s, d);
        p.fill += stage_sum(k) + link_sum(k);
        p.period = larger(p.period, larger(stage_sum(k), larger(k->ahead.occupied, k->back.occupied)));
        if (stage_sum(k) > slowest) {
            slowest = stage_sum(k);
            p.slow = s;
        }
    }
    return p;
}

/* Do all stages and links of pipeline d take as long as those of the pipeline before it? */
static int like_before(const struct ap_layout_model *m, const struct ap_layout *l, int d)
{
    for (int s = 0; s < l->pipeline; s++) {
        const struct ap_layout_stage *a = stage_of(m, l, s, d - 1), *b = a + 1;
        if (a->forward != b->forward || a->backward != b->backward || a->ahead.latency != b->ahead.latency ||
            a->ahead.occupied != b->ahead.occupied || a->back.latency != b->back.latency ||
            a->back.occupied != b->back.occupied)
            return 0;
    }
    return 1;
}

/* Micro-batches in flight from each stage on: as few as keep the slowest stage or link busy, w_s periods for the way
 * from stage s there and back, and between two stages s < j that do forwards and backwards in turn
 *   (w_s - w_j + 1) periods >= the way from s to j and back, with the work of both.
 * More would only let gradients wait. A schedule that is not deep stays with the 1F1B number, the stages still ahead.
 */
static void set_windows(const struct ap_layout_model *m, struct ap_layout *l, int d, const struct ap_pipe_shape *p)
{
    double trip = 0, need = -INFINITY;
    int64_t after = 1;
    for (int s = l->pipeline - 1; s >= 0; s--) {
        const struct ap_layout_stage *k = stage_of(m, l, s, d);
        trip += stage_sum(k) + link_sum(k);
        double want = s == l->pipeline - 1 ? 1 : smaller(ceil(trip / p->period + need - 1e-9), 1e9);
        int64_t window = want > (double)after ? (int64_t)want : after, standard = l->pipeline - s;
        if (!l->deep && window > standard)
            window = standard;
        need = larger(need, (double)window - 1 + (stage_sum(k) - trip) / p->period);
        l->window[s * l->data + d] = after = window;
    }
}

/* rest[r]: the longest that r micro-batches behind another can take; now also by a wait for `apart` of them at once. */
static void add_wait(double rest[CHAIN + 1], double wait, double apart)
{
    for (int r = apart > CHAIN ? CHAIN + 1 : (int)apart; r <= CHAIN; r++)
        rest[r] = larger(rest[r], rest[r - (int)apart] + wait);
}

static double rest_of(const double rest[CHAIN + 1], double pace, double r)
{
    return r <= CHAIN ? rest[(int)r] : rest[CHAIN] + (r - CHAIN) * pace;
}

/* Seconds of pipeline d for n rounds: the first one there and back, and the longest delay of the others behind it on
 * - a link: n - 1 transfers in one direction;
 * - a stage with window w: its first w forwards (or last w backwards) follow each other, between them it does forwards
 *   and backwards in turn; at any rate it is busy n times from the first input on;
 * - the link before a stage: the window's forwards come over it before the stage's first backward, then all gradients
 *   go back;
 * - a window: micro-batch i cannot start before micro-batch i - w has come back, so every w of them cost one way there
 *   and back from that stage;
 * - two stages whose windows differ by v - 1: doing forwards and backwards in turn each waits for the other, once there
 *   and back for every v micro-batches. Deep windows are wide enough for that;
 * - what is left over where n - 1 is no multiple of w or v: waits of other stages near by, or the pace. */
static double pipe_time(const struct ap_layout_model *m, const struct ap_layout *l, int d, int64_t n)
{
    double more = 0, trip = 0, pace = 0, others = (double)(n - 1), rest[CHAIN + 1] = {0};
    for (int s = l->pipeline - 1; s >= 0; s--) {
        const struct ap_layout_stage *k = stage_of(m, l, s, d);
        double w = (double)l->window[s * l->data + d], turns = floor(others / w), first = smaller(w - 1, others);
        double link = larger(k->ahead.occupied, k->back.occupied), half = larger(k->forward, k->backward);
        double whole = stage_sum(k), step = larger(pace, larger(half, link)); /* between micro-batches of one window */
        trip += whole + link_sum(k);
        more = larger(more, others * link);
        more = larger(more, larger(first * half + (others - first) * whole, (double)n * whole - trip));
        if (s > 0) {
            const struct ap_layout_stage *up = stage_of(m, l, s - 1, d);
            more = larger(more, first * up->ahead.occupied + others * up->back.occupied + whole - trip);
        }
        pace = larger(pace, larger(whole, link));
        m->beyond[s] = trip - whole;
        m->open[s] = w;
        int last = others < w ? s : l->deep ? s + 1 : s + CHAIN;
        last = last < l->pipeline ? last : l->pipeline - 1;
        double slowest = 0; /* seconds for each micro-batch of the longest way there and back to a stage near by */
        for (int j = s + 1; j <= last; j++) {
            double wait = trip - m->beyond[j], apart = w - m->open[j] + 1;
            if (wait > slowest * apart)
                slowest = wait / apart;
            if (wait > pace * apart)
                add_wait(rest, wait, apart);
        }
        add_wait(rest, pace, 1);
        if (slowest > 0)
            more = larger(more, first * larger(half, link) + (others - first) * slowest);
        for (int j = s + 1; j <= last && slowest > pace; j++) {
            double wait = trip - m->beyond[j], apart = w - m->open[j] + 1, tail = m->open[j] - 1;
            if (wait <= pace * apart)
                continue;
            double waits = floor((others - tail) / apart);
            more = larger(more, waits * wait + rest_of(rest, pace, others - tail - waits * apart) +
                                    tail * larger(k->backward, k->back.occupied));
        }
        if (turns > 0)
            more = larger(more, turns * larger(trip, (w - 1) * step) + rest_of(rest, pace, others - turns * w));
    }
    return m->shape[d].fill + more;
}

/* What all pipelines are like, and their windows; pipelines like the one before are measured once. */
static void measure_pipes(struct ap_layout_model *m, struct ap_layout *l)
{
    for (int d = 0; d < l->data; d++) {
        if (d > 0 && like_before(m, l, d)) {
            m->shape[d] = m->shape[d - 1];
            for (int s = 0; s < l->pipeline; s++)
                l->window[s * l->data + d] = l->window[s * l->data + d - 1];
            continue;
        }
        m->shape[d] = measure(m, l, d);
        set_windows(m, l, d, &m->shape[d]);
    }
}

/* Rounds in proportion to the pipelines' speeds once they are filled, so that all end at one time: pipeline d does
 * (end - fill) / period of them behind its first. The rest goes to the largest remainders. */
static void share_rounds(struct ap_layout_model *m, struct ap_layout *l, int64_t rounds)
{
    double speed = 0, filled = 0, end;
    int64_t given = 0;
    for (int d = 0; d < l->data; d++) {
        l->rounds[d] = 1; /* everyone has one */
        speed += 1 / m->shape[d].period;
        filled += m->shape[d].fill / m->shape[d].period;
    }
    end = ((double)(rounds - l->data) + filled) / speed;
    for (int d = 0; d < l->data; d++) {
        double exact = larger(0, (end - m->shape[d].fill) / m->shape[d].period);
        int64_t room = rounds - given - (l->data - d), whole = (int64_t)smaller(floor(exact), (double)room);
        l->rounds[d] += whole;
        m->pipe[d] = exact - (double)whole;
        given += l->rounds[d];
    }
    for (; given < rounds; given++) {
        int best = 0;
        for (int d = 1; d < l->data; d++)
            if (m->pipe[d] > m->pipe[best])
                best = d;
        m->pipe[best] -= 1;
        l->rounds[best]++;
    }
}

/* Into m->pipe and m->then: seconds of pipeline d for its rounds, and -1: for one more is not known yet. */
static void time_pipe(struct ap_layout_model *m, const struct ap_layout *l, int d)
{
    int like = m->shape[d].like;
    if (like < d && l->rounds[like] == l->rounds[d])
        m->pipe[d] = m->pipe[like];
    else
        m->pipe[d] = pipe_time(m, l, d, l->rounds[d]);
    m->then[d] = -1;
}

/* Seconds of pipeline d for one round more; last: the pipeline that ends last. */
static double time_then(struct ap_layout_model *m, const struct ap_layout *l, int d, int last)
{
    if (m->shape[d].like == m->shape[last].like && l->rounds[d] + 1 == l->rounds[last])
        return m->pipe[last];
    int from = l->rounds[m->shape[d].like] == l->rounds[d] ? m->shape[d].like : d;
    if (m->then[from] < 0)
        m->then[from] = pipe_time(m, l, from, l->rounds[from] + 1);
    return m->then[from];
}

/* Move single rounds from the pipeline that ends last to the one that then ends first, while that helps: proportional
 * shares forget that pipelines fill at different speeds. Returns the last end. */
static double level_rounds(struct ap_layout_model *m, struct ap_layout *l, int *slow_p)
{
    int limit = l->data <= 64 ? 4096 : 64;
    for (int d = 0; d < l->data; d++)
        time_pipe(m, l, d);
    for (;; limit--) {
        int last = 0, first = -1;
        double then = INFINITY;
        for (int d = 1; d < l->data; d++)
            if (m->pipe[d] > m->pipe[last])
                last = d;
        *slow_p = last;
        for (int d = 0; d < l->data && limit > 0 && l->rounds[last] > 1; d++)
            if (m->pipe[d] < m->pipe[last] && time_then(m, l, d, last) < then) {
                then = time_then(m, l, d, last);
                first = d;
            }
        if (first < 0 || then >= m->pipe[last])
            return m->pipe[last];
        l->rounds[last]--;
        l->rounds[first]++;
        time_pipe(m, l, last);
        m->pipe[first] = then;
        m->then[first] = -1;
    }
}

/* ---- gradients, optimizer ---- */

static int by_number(const void *a, const void *b)
{
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

/* Distinct nodes of the cells (s, every d, e or every e) into list, count[node] cells on each. With measured pairs of
 * nodes they come in the order of the rings. */
static int collect(struct ap_layout_model *m, const struct ap_layout *l, int s, int e)
{
    int nodes = 0, stamp = ++m->stamp, paired = m->p.topo->node_pairs != NULL;
    for (int d = 0; d < l->data; d++)
        for (int i = e < 0 ? 0 : e; i < (e < 0 ? l->expert : e + 1); i++) {
            int node = cell_node(m, l, s, d, i);
            if (m->mark[node] != stamp) {
                m->mark[node] = stamp;
                m->count[node] = 0;
                m->list[nodes++] = paired ? m->position[node] : node;
            }
            m->count[node]++;
        }
    if (!paired)
        return nodes;
    qsort(m->list, (size_t)nodes, sizeof *m->list, by_number);
    for (int i = 0; i < nodes; i++)
        m->list[i] = m->node_at[m->list[i]];
    return nodes;
}

/* Sites of list[0 .. nodes) into site_list, what of them takes part into site_use; returns how many. */
static int collect_sites(struct ap_layout_model *m, int nodes)
{
    const struct ap_topology *t = m->p.topo;
    int sites = 0, stamp = ++m->stamp;
    for (int i = 0; i < nodes; i++) {
        int node = m->list[i], site = t->nodes[node].site;
        struct ap_site_use *u = &m->site_use[site];
        if (u->mark != stamp) {
            *u = (struct ap_site_use){stamp, 0, m->count[node], node, node, t->sites[site].inside};
            if (t->node_pairs != NULL)
                u->worst = (struct ap_topo_link){0, INFINITY};
            m->site_list[sites++] = site;
        } else if (t->node_pairs != NULL) {
            u->worst = worse_link(u->worst, ap_topology_link(t, u->last, node));
        }
        u->nodes++;
        u->last = node;
        u->fewest = m->count[node] < u->fewest ? m->count[node] : u->fewest;
    }
    return sites;
}

/* Who sums: the cells collected, and how many ranks of each have the same parameters. */
struct summing {
    int nodes;    /* of list[] */
    int width;    /* ranks of a cell: 1, or all of a tensor group */
    double bytes; /* that each rank has and gets back, both counted */
};

/* Seconds inside of one node. */
static double node_time(const struct ap_topo_node *node, int ranks, double bytes)
{
    if (ranks < 2)
        return 0;
    if (node->sum > 0)
        return (ranks - 1) * bytes / ranks / node->sum;
    return (ranks - 1) * (bytes / ranks / node->inside.bandwidth + 2 * node->inside.latency);
}

/* Seconds inside of one site: a ring over the nodes, each rank with its share of what its node has summed. */
static double ring_time(const struct ap_layout_model *m, const struct ap_site_use *u, const struct summing *g)
{
    struct ap_topo_link worst = u->worst;
    if (u->nodes < 2)
        return 0;
    if (m->p.topo->node_pairs != NULL)
        worst = worse_link(worst, ap_topology_link(m->p.topo, u->last, u->first));
    double share = g->bytes / (u->fewest * g->width);
    return (u->nodes - 1) * (share / u->nodes / worst.bandwidth + 2 * worst.latency);
}

/* Seconds inside of sites for the group to sum and hand back its bytes; what goes between sites is added to the load,
 * the longest latency there to *far_p. */
static double group_sync(struct ap_layout_model *m, const struct ap_layout *l, const struct summing *g, double *far_p)
{
    const struct ap_topology *t = m->p.topo;
    double in_node = 0, in_site = 0;
    int sites = collect_sites(m, g->nodes);
    for (int i = 0; i < g->nodes; i++)
        in_node = larger(in_node, node_time(&t->nodes[m->list[i]], m->count[m->list[i]] * g->width, g->bytes));
    for (int a = 0; a < sites; a++)
        in_site = larger(in_site, ring_time(m, &m->site_use[m->site_list[a]], g));
    for (int a = 0; a < sites && sites > 1; a++)
        for (int b = 0; b < sites; b++)
            if (a != b) {
                add_wan(m, m->site_list[a], m->site_list[b], g->bytes * l->tensor / g->width / sites);
                *far_p = larger(*far_p, t->wan[m->site_list[a] * t->site_count + m->site_list[b]].latency);
            }
    return in_node + in_site;
}

/* The same for all groups of stage s. */
static double stage_sync(struct ap_layout_model *m, const struct ap_layout *l, int s, const struct ap_stage_load *load,
                         double *far_p)
{
    double per_param = 4.0 + m->p.element_size, seconds = 0, most = 0;
    double split = load->dense - (l->tensor > 1 ? load->shared : 0), routed = load->routed / l->expert / l->tensor;
    if (l->data * l->expert > 1) {
        struct summing g = {collect(m, l, s, -1), 1, split / l->tensor * per_param};
        seconds += group_sync(m, l, &g, far_p);
    }
    if (l->tensor > 1) { /* each rank of a cell has a part of these gradients */
        struct summing g = {collect(m, l, s, -1), l->tensor, load->shared * per_param};
        seconds += group_sync(m, l, &g, far_p);
    }
    for (int e = 0; e < l->expert && l->data > 1 && routed > 0; e++) {
        struct summing g = {collect(m, l, s, e), 1, routed * per_param};
        most = larger(most, group_sync(m, l, &g, far_p));
    }
    return seconds + most;
}

/* The MTP block uses the embedding too: with several stages first and last each hold one, and owners of the same shard
 * exchange gradients. */
static double ends_sync(struct ap_layout_model *m, const struct ap_layout *l, double *far_p)
{
    const struct ap_topology *t = m->p.topo;
    double shard = 4.0 * (double)(m->p.cfg->vocab_size * m->p.cfg->hidden_size) / (l->data * l->expert), lan = 0;
    if (m->p.cfg->mtp_depth == 0 || l->pipeline == 1)
        return 0;
    for (int i = 0; i < l->data * l->expert; i++) {
        int a = cell_node(m, l, 0, i / l->expert, i % l->expert);
        int b = cell_node(m, l, l->pipeline - 1, i / l->expert, i % l->expert);
        int sa = t->nodes[a].site, sb = t->nodes[b].site;
        struct ap_topo_link k = worse_link(ap_topology_link(t, a, b), ap_topology_link(t, b, a));
        if (sa == sb) {
            lan = larger(lan, shard / l->tensor / k.bandwidth + k.latency);
            continue;
        }
        add_wan(m, sa, sb, shard);
        add_wan(m, sb, sa, shard);
        *far_p = larger(*far_p, k.latency / 2); /* one way only: the caller counts two */
    }
    return lan;
}

/* The small messages of all ranks: each waits in every round for the farthest of them. With a number of ranks that is
 * no power of two there is a round before and one behind. */
static void add_controls(const struct ap_layout_model *m, struct ap_layout_cost *c)
{
    const struct ap_topology *t = m->p.topo;
    int rounds = 0, n = t->rank_count;
    while ((2 << rounds) <= n)
        rounds++;
    rounds += (1 << rounds) < n ? 2 : 0;
    if (t->site_count > 1)
        c->sync_wan += CONTROLS * rounds * m->farthest;
    else
        c->sync_lan += CONTROLS * rounds * m->farthest;
}

/* Gradients to their owners, weights back from them, and the owners' updates between. */
static void sync_gradients(struct ap_layout_model *m, struct ap_layout *l)
{
    const struct ap_topology *t = m->p.topo;
    struct ap_layout_cost *c = &l->cost;
    int n = t->site_count;
    double far = 0, wan = 0;
    clear_wan(m);
    c->optimizer = c->sync_lan = c->sync_wan = 0;
    for (int s = 0; s < l->pipeline; s++) {
        struct ap_stage_load load;
        double bandwidth = INFINITY;
        ap_layout_load(m, l->first[s], l->first[s + 1], &load);
        c->sync_lan = larger(c->sync_lan, stage_sync(m, l, s, &load, &far));
        const int *rank = &l->rank[s * l->data * l->expert * l->tensor];
        for (int i = 0; i < l->data * l->expert * l->tensor; i++)
            bandwidth = smaller(bandwidth, t->ranks[rank[i]].memory_bandwidth);
        double owned = (load.dense + load.routed) / (l->tensor * l->data * l->expert);
        c->optimizer = larger(c->optimizer, owned * OPTIMIZER_BYTES / bandwidth);
    }
    c->sync_lan += ends_sync(m, l, &far);
    for (int a = 0; a < n && n > 1; a++)
        for (int b = 0; b < n; b++)
            if (a != b && m->load[a * n + b] > 0)
                wan = larger(wan, wan_time(m, a, b));
    c->sync_wan = wan + 2 * ways(INFINITY) * far;
    add_controls(m, c);
}

/* ---- memory ---- */

struct ap_layout_flight ap_layout_flight_of(const struct ap_layout *l, struct ap_pipe_spec spec, int s)
{
    struct ap_layout_flight most = {0, 0};
    for (int d = 0; d < l->data; d++) {
        spec.micros = l->rounds[d];
        most.slots = larger(most.slots, (double)ap_pipe_slots(&spec, s));
        most.late = larger(most.late, (double)ap_pipe_late(&spec, s));
    }
    return most;
}

struct ap_pipe_spec ap_layout_zero_bubble(const struct ap_layout *l)
{
    return (struct ap_pipe_spec){AP_PIPE_ZERO_BUBBLE, l->pipeline, 1, l->rounds[l->cost.slow_pipe], NULL};
}

double ap_layout_chunk_memory(const struct ap_layout_model *m, const struct ap_layout *l, int s,
                              const struct ap_layout_chunks *c, struct ap_layout_flight flight)
{
    struct ap_stage_load all = {0};
    double rounds = 1, tp = l->tensor;
    for (int i = s; i < c->count * l->pipeline; i += l->pipeline) {
        struct ap_stage_load load;
        ap_layout_load(m, c->first[i], c->first[i + 1], &load);
        all.dense += load.dense;
        all.routed += load.routed;
        all.saved = larger(all.saved, load.saved); /* any chunk may come into a slot */
        all.held = larger(all.held, load.held);
        if (flight.late > 0) /* one chunk */
            all.held += flight.late * load.late - load.late_held;
    }
    for (int d = 0; d < l->data; d++)
        rounds = larger(rounds, (double)l->rounds[d]);
    double held = (all.dense + all.routed / l->expert) / tp, sums = 1 + floor(log2(rounds));
    double owned = (all.dense + all.routed) / (tp * l->data * l->expert);
    double weights = m->p.element_size == 4 ? 8 : 4; /* twice: shadow buffers */
    double state = held * (weights + 4 * sums) + owned * (m->p.element_size == 4 ? 16 : 24);
    return state + ap_layout_tokens(m, l) / tp * (flight.slots * all.saved + all.held);
}

double ap_layout_memory(const struct ap_layout_model *m, const struct ap_layout *l, int s)
{
    const struct ap_layout_chunks whole = {1, l->first};
    struct ap_layout_flight flight = {0, 0};
    if (m->p.schedule == AP_LAYOUT_ZERO_BUBBLE)
        flight = ap_layout_flight_of(l, ap_layout_zero_bubble(l), s);
    for (int d = 0; d < l->data && flight.late == 0; d++)
        flight.slots = larger(flight.slots, smaller((double)l->window[s * l->data + d], (double)l->rounds[d]));
    return ap_layout_chunk_memory(m, l, s, &whole, flight);
}

double ap_layout_room(const struct ap_layout_model *m, const struct ap_layout *l, int s)
{
    int width = l->data * l->expert * l->tensor;
    double room = INFINITY;
    for (int i = 0; i < width; i++)
        room = smaller(room, m->p.topo->ranks[l->rank[s * width + i]].memory);
    return AP_LAYOUT_MEMORY_SHARE * room;
}

static void weigh_memory(struct ap_layout_model *m, struct ap_layout *l)
{
    l->cost.memory_part = -1;
    for (int s = 0; s < l->pipeline; s++) {
        double bytes = ap_layout_memory(m, l, s), part = bytes / ap_layout_room(m, l, s);
        if (part > l->cost.memory_part) {
            l->cost.memory_part = part;
            l->cost.memory = bytes;
            l->cost.memory_stage = s;
        }
    }
}

/* ---- together ---- */

/* Where the time goes, seen from the slowest stage of the slowest pipeline: its own work; of the rest first the ways
 * between stages and what they slow the pace down, then the other stages, which is the bubble. */
static void split_pipe(struct ap_layout_model *m, struct ap_layout *l)
{
    struct ap_layout_cost *c = &l->cost;
    int d = c->slow_pipe;
    struct ap_pipe_shape p = m->shape[d];
    const struct ap_layout_stage *slow = stage_of(m, l, p.slow, d);
    double n = (double)l->rounds[d], whole = stage_sum(slow), ways[2] = {0, 0};
    double rest = larger(0, c->pipe - n * whole);
    for (int s = 0; s < l->pipeline; s++) {
        const struct ap_layout_stage *k = stage_of(m, l, s, d);
        ways[k->ahead.wan] += link_sum(k);
    }
    double way = ways[0] + ways[1], slowed = larger(0, c->pipe - p.fill - (n - 1) * whole);
    double waiting = smaller(rest, way + slowed), wan = way > 0 ? smaller(waiting, waiting * ways[1] / way) : 0;
    c->slow_stage = p.slow;
    c->compute = n * slow->compute + c->optimizer;
    c->lan = n * larger(0, whole - slow->compute) + c->sync_lan + waiting - wan;
    c->wan = c->sync_wan + wan;
    c->bubble = rest - waiting;
}

void ap_layout_cost(struct ap_layout_model *m, struct ap_layout *l)
{
    struct ap_layout_cost *c = &l->cost;
    int64_t rounds = m->p.global_sequences / l->micro_sequences / l->expert;
    m->tried++;
    time_stages(m, l);
    measure_pipes(m, l);
    share_rounds(m, l, rounds);
    c->pipe = level_rounds(m, l, &c->slow_pipe);
    sync_gradients(m, l);
    weigh_memory(m, l);
    c->step = c->pipe + c->sync_lan + c->sync_wan + c->optimizer;
    split_pipe(m, l);
}

int ap_layout_placed(const struct ap_layout_model *m, const struct ap_layout *l)
{
    const struct ap_topology *t = m->p.topo;
    int n = l->pipeline * l->data * l->expert * l->tensor, block = l->expert * l->tensor, good = n == t->rank_count;
    char *seen = calloc((size_t)t->rank_count + 1, 1);
    for (int i = 0; i < n && good && seen != NULL; i++) {
        int r = l->rank[i];
        good = r >= 0 && r < t->rank_count && !seen[r] &&
               t->ranks[r].node == t->ranks[l->rank[i - i % l->tensor]].node &&
               ap_topology_site(t, r) == ap_topology_site(t, l->rank[i - i % block]);
        if (good)
            seen[r] = 1;
    }
    good = good && seen != NULL;
    free(seen);
    return good;
}
