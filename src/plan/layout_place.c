/* SPDX-License-Identifier: Apache-2.0
 * Ranks over the grid: starting placements along the cheapest path through sites and nodes, then exchanges.
 *
 * A starting placement deals the blocks out in chunks of the path: each chunk holds data / chunks whole pipelines, one
 * stage after the other. One chunk puts the pipeline along the path (over the WAN), as many chunks as pipelines keep
 * each pipeline together and put the data axis over the WAN; the divisors between are mixtures. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "plan/layout_model.h"
#include "plan/route_order.h"

enum order { BY_PLACE, BY_PLACE_BACK, BY_SPEED_IN_SITE, BY_SPEED, ORDERS };

struct placer_rank {
    int rank, node, site, place; /* place: of the node along the path */
    double speed;
};

struct ap_placer {
    const struct ap_topology *t;
    struct placer_rank *ranks; /* sorted by place, then speed downwards: nodes stay together */
    struct placer_rank *cells; /* [ranks] first rank of each cell; its members follow in members */
    int *members;              /* [ranks] ranks in cell order */
    struct placer_rank *blocks;
    int uneven; /* speeds differ */
};

static int by_place(const void *a, const void *b)
{
    const struct placer_rank *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    if (x->speed != y->speed)
        return x->speed > y->speed ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static int by_speed(const void *a, const void *b)
{
    const struct placer_rank *x = a, *y = b;
    if (x->speed != y->speed)
        return x->speed > y->speed ? -1 : 1;
    return by_place(a, b);
}

static int by_speed_in_site(const void *a, const void *b)
{
    const struct placer_rank *x = a, *y = b;
    return x->site == y->site ? by_speed(a, b) : by_place(a, b);
}

ap_status ap_placer_create(const struct ap_topology *t, struct ap_placer **pl_p, struct ap_error *err)
{
    struct ap_placer *pl = calloc(1, sizeof *pl);
    size_t n = (size_t)t->rank_count, sites = (size_t)t->site_count;
    double *cost = malloc((sites * sites + 1) * sizeof *cost);
    int *path = malloc((2 * sites + 1) * sizeof *path), *start = path + sites, at = 0;
    ap_status status = AP_ERR_NOMEM;
    if (pl != NULL && cost != NULL && path != NULL) {
        pl->t = t;
        pl->ranks = calloc(n + 1, sizeof *pl->ranks);
        pl->cells = calloc(n + 1, sizeof *pl->cells);
        pl->blocks = calloc(n + 1, sizeof *pl->blocks);
        pl->members = calloc(n + 1, sizeof *pl->members);
        for (size_t i = 0; i < sites * sites; i++)
            cost[i] = t->wan[i].latency;
        if (pl->ranks != NULL && pl->cells != NULL && pl->blocks != NULL && pl->members != NULL)
            status = ap_route_order(t->site_count, cost, path);
    }
    if (status == AP_OK) {
        for (size_t i = 0; i < sites; i++) {
            start[path[i]] = at;
            at += t->sites[path[i]].nodes;
        }
        for (int r = 0; r < t->rank_count; r++) {
            const struct ap_topo_node *node = &t->nodes[t->ranks[r].node];
            pl->ranks[r] = (struct placer_rank){r, t->ranks[r].node, node->site, start[node->site] + node->order,
                                                t->ranks[r].speed};
            pl->uneven |= t->ranks[r].speed != t->ranks[0].speed;
        }
        qsort(pl->ranks, n, sizeof *pl->ranks, by_place);
        *pl_p = pl;
    } else {
        ap_placer_destroy(pl);
        ap_error_set(err, status, "out of memory for the placements");
    }
    free(cost);
    free(path);
    return status;
}

void ap_placer_destroy(struct ap_placer *pl)
{
    if (pl == NULL)
        return;
    free(pl->ranks);
    free(pl->cells);
    free(pl->blocks);
    free(pl->members);
    free(pl);
}

int ap_placer_refused(const struct ap_placer *pl, const struct ap_layout *l, char *buf, size_t size)
{
    const struct ap_topology *t = pl->t;
    for (int i = 0; i < t->node_count; i++)
        if (t->nodes[i].ranks % l->tensor != 0) {
            snprintf(buf, size, "tensor %d: node '%.40s' has %d ranks, and a tensor group stays inside a node",
                     l->tensor, t->nodes[i].name, t->nodes[i].ranks);
            return 1;
        }
    for (int i = 0; i < t->site_count; i++)
        if (t->sites[i].ranks / l->tensor % l->expert != 0) {
            snprintf(buf, size,
                     "expert %d x tensor %d: site '%.40s' has %d ranks, and an expert group stays inside a site",
                     l->expert, l->tensor, t->sites[i].name, t->sites[i].ranks);
            return 1;
        }
    return 0;
}

/* n units of size ranks each: entry i of to is the first rank of units[i * size], with the slowest speed of the unit.
 */
static void group(const struct placer_rank *units, int n, int size, struct placer_rank *to)
{
    for (int i = 0; i < n; i++) {
        to[i] = units[i * size];
        for (int k = 1; k < size; k++)
            to[i].speed = smaller(to[i].speed, units[i * size + k].speed);
        to[i].rank = i;
    }
}

/* Blocks in the order asked for; members[] gets the ranks of block b at chosen order. Each cell and block carries in
 * .rank its index before sorting. */
static void make_blocks(struct ap_placer *pl, int order, const struct ap_layout *l)
{
    int tp = l->tensor, ep = l->expert, cells = pl->t->rank_count / tp, blocks = cells / ep;
    group(pl->ranks, cells, tp, pl->cells);
    if (order == BY_SPEED_IN_SITE || order == BY_SPEED)
        qsort(pl->cells, (size_t)cells, sizeof *pl->cells, by_speed_in_site);
    for (int c = 0; c < cells; c++)
        for (int k = 0; k < tp; k++)
            pl->members[c * tp + k] = pl->ranks[pl->cells[c].rank * tp + k].rank;
    group(pl->cells, blocks, ep, pl->blocks);
    if (order == BY_SPEED)
        qsort(pl->blocks, (size_t)blocks, sizeof *pl->blocks, by_speed);
}

int ap_placer_place(struct ap_placer *pl, int v, struct ap_layout *l)
{
    int orders = pl->uneven ? ORDERS : BY_PLACE_BACK + 1, order = v % orders, nth = v / orders, chunks = 0;
    int blocks = l->pipeline * l->data, width = l->expert * l->tensor;
    for (int k = 1; k <= l->data && chunks == 0; k++)
        if (l->data % k == 0 && nth-- == 0)
            chunks = k;
    if (chunks == 0)
        return 0;
    make_blocks(pl, order, l);
    int wide = l->data / chunks;
    for (int b = 0; b < blocks; b++) {
        int chunk = b / (wide * l->pipeline), s = b / wide % l->pipeline, d = chunk * wide + b % wide;
        int from = pl->blocks[order == BY_PLACE_BACK ? blocks - 1 - b : b].rank;
        memcpy(&l->rank[(s * l->data + d) * width], &pl->members[from * width], (size_t)width * sizeof *l->rank);
    }
    return 1;
}

/* ---- exchanges ---- */

struct improve {
    struct ap_layout_model *m;
    struct ap_layout *l;
    double best;
    int64_t until; /* m->tried at which the budget is spent */
    int resplit;   /* split the layers anew for each exchange */
};

static int same_rank(const struct ap_topology *t, int a, int b)
{
    const struct ap_topo_rank *x = &t->ranks[a], *y = &t->ranks[b];
    return x->node == y->node && x->speed == y->speed && x->memory == y->memory &&
           x->memory_bandwidth == y->memory_bandwidth;
}

/* May units i and j of `size` ranks change places? They must differ, and stay in their node or site where their group
 * has to. */
static int exchangeable(const struct ap_layout_model *m, const struct ap_layout *l, int size, int i, int j)
{
    const struct ap_topology *t = m->p.topo;
    int a = l->rank[i * size], b = l->rank[j * size], block = l->expert * l->tensor, alike = 1;
    if (size < l->tensor && t->ranks[a].node != t->ranks[b].node)
        return 0;
    if (size < block && ap_topology_site(t, a) != ap_topology_site(t, b))
        return 0;
    if (size < l->tensor && i * size / l->tensor == j * size / l->tensor)
        return 0;
    for (int k = 0; k < size && alike; k++)
        alike = same_rank(t, l->rank[i * size + k], l->rank[j * size + k]);
    return !alike;
}

static void exchange(struct ap_layout *l, int size, int i, int j)
{
    for (int k = 0; k < size; k++) {
        int t = l->rank[i * size + k];
        l->rank[i * size + k] = l->rank[j * size + k];
        l->rank[j * size + k] = t;
    }
}

/* Exchange if it helps; spare gets the layout before where layers are split anew. 1: it helped. */
static int attempt(struct improve *x, struct ap_layout *spare, int size, int i, int j)
{
    if (!exchangeable(x->m, x->l, size, i, j))
        return 0;
    if (x->resplit)
        memcpy(spare->first, x->l->first, ((size_t)x->l->pipeline + 1) * sizeof *spare->first);
    exchange(x->l, size, i, j);
    ap_layout_cost(x->m, x->l);
    double score = ap_layout_score(x->l);
    if (x->resplit && score >= x->best) {
        ap_layout_split(x->m, x->l, 0);
        score = ap_layout_score(x->l);
    }
    if (score < x->best * (1 - 1e-12)) {
        x->best = score;
        return 1;
    }
    exchange(x->l, size, i, j);
    if (x->resplit)
        memcpy(x->l->first, spare->first, ((size_t)x->l->pipeline + 1) * sizeof *spare->first);
    return 0;
}

/* All exchanges of two units, again while one helped. */
static void climb(struct improve *x, struct ap_layout *spare, const int sizes[3], int ranks)
{
    for (int better = 1; better;) {
        better = 0;
        for (int k = 0; k < 3; k++) {
            int size = sizes[k], units = ranks / size;
            if (k > 0 && size == sizes[k - 1])
                continue;
            for (int i = 0; i < units; i++)
                for (int j = i + 1; j < units && x->m->tried < x->until; j++)
                    better |= attempt(x, spare, size, i, j);
        }
    }
}

/* For many ranks: exchanges drawn at random. */
static void wander(struct improve *x, struct ap_layout *spare, const int sizes[3], int ranks)
{
    for (uint64_t n = 0; x->m->tried < x->until && n < 1000000; n++) {
        int size = sizes[n % 3], units = ranks / size;
        uint64_t draw = ap_rng_u64(1, AP_RNG_PLAN, n);
        if (units < 2)
            continue;
        int i = (int)(draw % (uint64_t)units), j = (int)((draw >> 32) % (uint64_t)units);
        if (i != j)
            attempt(x, spare, size, i, j);
    }
}

/* Some exchanges at random; strong: many, and any split of the layers. */
static void shuffle(struct improve *x, const int sizes[3], int ranks, uint64_t round, int strong)
{
    struct ap_layout *l = x->l;
    int times = strong ? 3 * ranks : 4, layers = (int)x->m->p.cfg->layers;
    for (int k = 0; k < times; k++) {
        uint64_t draw = ap_rng_u64(2 + round, AP_RNG_PLAN, (uint64_t)k);
        int size = sizes[draw % 3], units = ranks / size;
        int i = (int)((draw >> 8 & 0xffffff) % (uint64_t)units), j = (int)((draw >> 32) % (uint64_t)units);
        if (i != j && exchangeable(x->m, l, size, i, j))
            exchange(l, size, i, j);
    }
    if (!strong) {
        ap_layout_split(x->m, l, 0);
        return;
    }
    for (int s = 1; s < l->pipeline; s++) {
        int lo = l->first[s - 1] + 1, hi = layers - (l->pipeline - s);
        l->first[s] = lo + (int)(ap_rng_u64(2 + round, AP_RNG_PLAN, (uint64_t)(times + s)) % (uint64_t)(hi - lo + 1));
    }
    ap_layout_cost(x->m, l);
}

void ap_layout_improve(struct ap_layout_model *m, struct ap_layout *l, struct ap_layout *spare, int64_t budget)
{
    int ranks = m->p.topo->rank_count, few = ranks <= 64;
    const int sizes[3] = {l->expert * l->tensor, l->tensor, 1};
    struct improve x = {m, l, 0, m->tried + budget, few};
    ap_layout_split(m, l, few);
    x.best = ap_layout_score(l);
    if (!few) {
        wander(&x, spare, sizes, ranks);
        ap_layout_split(m, l, 0);
        return;
    }
    climb(&x, spare, sizes, ranks);
    ap_layout_split(m, l, 1);
    ap_layout_copy(spare, l);
    x.resplit = 0; /* spare holds the best from here on */
    for (uint64_t round = 0; round < 1000 && m->tried < x.until && l->pipeline * l->data * l->expert > 1; round++) {
        shuffle(&x, sizes, ranks, round, round % 2 == 1);
        for (double before = INFINITY; ap_layout_score(l) < before && m->tried < x.until;) {
            before = x.best = ap_layout_score(l);
            climb(&x, NULL, sizes, ranks);
            ap_layout_split(m, l, 1);
        }
        if (ap_layout_score(l) < ap_layout_score(spare))
            ap_layout_copy(spare, l);
        else
            ap_layout_copy(l, spare);
    }
    ap_layout_cost(m, l);
}
