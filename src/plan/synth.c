/* SPDX-License-Identifier: Apache-2.0
 * Column generation for trees. One round: a batch of columns at soft-maximum prices, each followed by the program's
 * optimum; bounds at several prices between; then the columns with the least rates are put out until 4n are left. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/arborescence.h"
#include "plan/packing_lp.h"
#include "plan/synth.h"

#define TREES_PER_SITE 4
#define BATCH_MIN      4
#define BATCH_MAX      8
#define MAX_PIVOTS     20000
#define SOFT_MIXED     25.0 /* sharpness of the soft maximum among mixed prices, */
#define SOFT_SHARE     0.1  /* and how much of it */
#define TARGET         0.985
#define TARGET_LATE    0.97  /* what is enough when most of the work is spent */
#define WORK           9.5e4 /* operations at most, times n^2.6: about 50 ms for 16 sites, 1 s for 48 */
#define WORK_OPAQUE    2.5e4 /* columns priced one by one add little then */
#define WORK_LATE      0.3   /* the part of them after which less is enough */
#define STUCK          0.1   /* a round that closes less than this part of the gap asks for other columns */
#define YOUNG_ROUNDS   2     /* a column that is so new */
#define YOUNG          5.0   /* counts as one of so many times its rate when some must go */
#define PATIENCE       25    /* rounds without progress */
#define FILL_NO_ROOM   1e40  /* see fill: price where there is no room, */
#define FILL_LEAST     0.8   /* part of the rate that is good enough; if there is less a smaller one is tried, */
#define FILL_TRIES     4     /* columns priced for each that is packed, */
#define FILL_ENOUGH    2e5   /* and the size of a program that is not solved when the target is reached */

/* How links are filled, found by trial: sharpness of the exponential, first rate over last one, and the sum of the
 * rates aimed at over the bound. Parts that travel whole fill links near a root by many times a rate: with gentler
 * prices. */
static const struct fill_law {
    double sharp, fall, aim;
} fill_laws[] = {[AP_CODEC_ADDITIVE] = {80, 24, 1.1}, [AP_CODEC_OPAQUE] = {7, 3, 1}};

struct column {
    int root, taken, born;
    double rate;
    int *in, *out; /* [n], one allocation */
};

struct work {
    const struct ap_wan *wan;
    int n, rows, opaque, slots, limit, batch, count;
    int *link_row, *egress_row, *ingress_row;
    double *cap, *load, *demand;           /* [rows]; demand is all 0 between uses */
    double *price, *lp_price, *best_price; /* [rows] */
    double *cost, *lp_cost;                /* [n * n] of a link, the caps of its ends included */
    struct ap_arbo *arbo;
    struct ap_packing *lp;
    struct ap_packing_use *use; /* scratch */
    struct column *columns;     /* [slots] */
    struct column *found;       /* [n] the cheapest column of each root at the last prices */
    struct column *kept;        /* [limit] the best set so far */
    int kept_count;
    double bound, value, operations;
    double *distance; /* [n] */
    char *done;       /* [n] */
    int *weight;      /* [n] sites behind a link of the in-tree */
    int *order;       /* [n] */
    int rounds, pivots;
};

double ap_synth_site_cap(const struct ap_wan *wan, int caps, int site, int out)
{
    double most = 0;
    if (caps == AP_CAPS_PAIR)
        return INFINITY;
    for (int j = 0; j < wan->n; j++)
        most = fmax(most, wan->rate[out ? site * wan->n + j : j * wan->n + site]);
    return most;
}

static ap_status columns_alloc(int count, int n, struct column **c_p)
{
    struct column *c = calloc((size_t)count, sizeof *c);
    *c_p = c;
    if (c == NULL)
        return AP_ERR_NOMEM;
    for (int i = 0; i < count; i++) {
        c[i].in = malloc(2 * (size_t)n * sizeof *c[i].in);
        if (c[i].in == NULL)
            return AP_ERR_NOMEM;
        c[i].out = c[i].in + n;
    }
    return AP_OK;
}

static void columns_free(struct column *c, int count)
{
    for (int i = 0; c != NULL && i < count; i++)
        free(c[i].in);
    free(c);
}

static void column_copy(struct column *to, const struct column *from, int n)
{
    to->root = from->root;
    to->rate = from->rate;
    memcpy(to->in, from->in, 2 * (size_t)n * sizeof *to->in);
}

static void work_clear(struct work *w)
{
    ap_arbo_destroy(w->arbo);
    ap_packing_destroy(w->lp);
    columns_free(w->columns, w->slots);
    columns_free(w->found, w->n);
    columns_free(w->kept, w->limit);
    free(w->link_row);
    free(w->cap);
    free(w->cost);
    free(w->use);
    free(w->distance);
    free(w->done);
    free(w->weight);
}

static void resources(struct work *w, int caps)
{
    int n = w->n;
    w->rows = 0;
    for (int e = 0; e < n * n; e++) {
        w->link_row[e] = w->wan->rate[e] > 0 && e / n != e % n ? w->rows : -1;
        if (w->link_row[e] >= 0)
            w->cap[w->rows++] = w->wan->rate[e];
    }
    for (int i = 0; i < n; i++) {
        w->egress_row[i] = w->ingress_row[i] = -1;
        if (caps == AP_CAPS_PAIR)
            continue;
        w->cap[w->rows] = ap_synth_site_cap(w->wan, caps, i, 1);
        w->egress_row[i] = w->rows++;
        w->cap[w->rows] = ap_synth_site_cap(w->wan, caps, i, 0);
        w->ingress_row[i] = w->rows++;
    }
}

static ap_status work_init(struct work *w, const struct ap_wan *wan, int caps, int codec)
{
    int n = wan->n;
    size_t nn = (size_t)n * (size_t)n, room = nn + 2 * (size_t)n;
    *w = (struct work){.wan = wan, .n = n, .opaque = codec == AP_CODEC_OPAQUE, .bound = INFINITY};
    w->limit = TREES_PER_SITE * n;
    w->batch = n / 3 < BATCH_MIN ? BATCH_MIN : n / 3 > BATCH_MAX ? BATCH_MAX : n / 3;
    w->slots = w->limit + 3 * w->batch + n;
    w->link_row = malloc(room * sizeof *w->link_row);
    w->cap = calloc(6 * room, sizeof *w->cap);
    w->cost = malloc(2 * nn * sizeof *w->cost);
    w->use = malloc(6 * (size_t)n * sizeof *w->use);
    w->distance = malloc((size_t)n * sizeof *w->distance);
    w->done = malloc((size_t)n);
    w->weight = malloc(2 * (size_t)n * sizeof *w->weight);
    if (w->link_row == NULL || w->cap == NULL || w->cost == NULL || w->use == NULL || w->distance == NULL ||
        w->done == NULL || w->weight == NULL)
        return AP_ERR_NOMEM;
    w->order = w->weight + n;
    w->egress_row = w->link_row + nn;
    w->ingress_row = w->egress_row + n;
    w->load = w->cap + room;
    w->demand = w->load + room;
    w->price = w->demand + room;
    w->lp_price = w->price + room;
    w->best_price = w->lp_price + room;
    w->lp_cost = w->cost + nn;
    resources(w, caps);
    AP_TRY(columns_alloc(w->slots, n, &w->columns));
    AP_TRY(columns_alloc(n, n, &w->found));
    AP_TRY(columns_alloc(w->limit, n, &w->kept));
    AP_TRY(ap_arbo_create(n, &w->arbo));
    return ap_packing_create(w->rows, w->cap, w->slots, &w->lp);
}

/* Sites whose parts a link of the in-tree carries, by its tail, into w->weight; 1 where they are summed on the way. */
static void weights(struct work *w, const struct column *c)
{
    for (int v = 0; v < w->n; v++)
        w->weight[v] = w->opaque ? 0 : 1;
    for (int v = 0; w->opaque && v < w->n; v++)
        for (int u = v; u != c->root; u = c->in[u])
            w->weight[u]++;
}

static void use_link(struct work *w, int *count, int from, int to, double amount)
{
    w->use[(*count)++] = (struct ap_packing_use){w->link_row[from * w->n + to], amount};
    if (w->egress_row[from] >= 0)
        w->use[(*count)++] = (struct ap_packing_use){w->egress_row[from], amount};
    if (w->ingress_row[to] >= 0)
        w->use[(*count)++] = (struct ap_packing_use){w->ingress_row[to], amount};
}

/* What a column uses into w->use; the number of entries. */
static int uses(struct work *w, const struct column *c)
{
    int count = 0;
    weights(w, c);
    for (int v = 0; v < w->n; v++)
        if (v != c->root) {
            use_link(w, &count, v, c->in[v], w->weight[v]);
            use_link(w, &count, c->out[v], v, 1);
        }
    return count;
}

static double column_cost(struct work *w, const struct column *c, const double *cost)
{
    double sum = 0;
    weights(w, c);
    for (int v = 0; v < w->n; v++)
        if (v != c->root)
            sum += w->weight[v] * cost[v * w->n + c->in[v]] + cost[c->out[v] * w->n + v];
    return sum;
}

static void link_costs(const struct work *w, const double *price, double *cost)
{
    int n = w->n;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            int row = w->link_row[i * n + j];
            if (row < 0)
                cost[i * n + j] = INFINITY;
            else
                cost[i * n + j] = price[row] + (w->egress_row[i] >= 0 ? price[w->egress_row[i]] : 0) +
                                  (w->ingress_row[j] >= 0 ? price[w->ingress_row[j]] : 0);
        }
}

/* Shortest paths to root as a tree (Dijkstra 1959, dense); the sum of the distances. */
static double paths(struct work *w, int root, int *in)
{
    int n = w->n;
    double sum = 0;
    for (int v = 0; v < n; v++) {
        w->distance[v] = v == root ? 0 : INFINITY;
        w->done[v] = 0;
        in[v] = -1;
    }
    for (int step = 0; step < n; step++) {
        int u = -1;
        for (int v = 0; v < n; v++)
            if (!w->done[v] && (u < 0 || w->distance[v] < w->distance[u]))
                u = v;
        w->done[u] = 1;
        sum += w->distance[u];
        for (int v = 0; v < n; v++)
            if (!w->done[v] && w->distance[u] + w->cost[v * n + u] < w->distance[v]) {
                w->distance[v] = w->distance[u] + w->cost[v * n + u];
                in[v] = u;
            }
    }
    return sum;
}

/* The cheapest column of every root at w->price, into w->found with its cost as rate, and the bound they certify.
 * 0, or -1 where the graph is not strongly connected. */
static int price_columns(struct work *w)
{
    double total = 0, least = INFINITY;
    link_costs(w, w->price, w->cost);
    if (ap_arbo_contract(w->arbo, w->cost, 0) != 0)
        return -1;
    for (int r = 0; r < w->n; r++) {
        w->found[r].root = r;
        w->found[r].rate = ap_arbo_unpack(w->arbo, r, w->found[r].out);
    }
    if (!w->opaque && ap_arbo_contract(w->arbo, w->cost, 1) != 0)
        return -1;
    for (int r = 0; r < w->n; r++) {
        w->found[r].rate += w->opaque ? paths(w, r, w->found[r].in) : ap_arbo_unpack(w->arbo, r, w->found[r].in);
        least = fmin(least, w->found[r].rate);
    }
    for (int e = 0; e < w->rows; e++)
        total += w->cap[e] * w->price[e];
    if (least > 0 && total / least < w->bound) {
        w->bound = total / least;
        for (int e = 0; e < w->rows; e++)
            w->best_price[e] = w->price[e] / least;
    }
    w->operations += (w->opaque ? 6.0 * w->n : 150.0) * w->n * w->n + 4.0 * w->rows;
    return 0;
}

static void solve(struct work *w)
{
    int pivots = ap_packing_solve(w->lp, MAX_PIVOTS);
    w->pivots += pivots;
    w->operations += (double)pivots * w->rows * w->count;
    ap_packing_prices(w->lp, w->lp_price);
    link_costs(w, w->lp_price, w->lp_cost);
}

/* Take a column into the program; 0 where there is no room. */
static int take(struct work *w, const struct column *c)
{
    for (int i = 0; i < w->slots; i++)
        if (!w->columns[i].taken) {
            column_copy(&w->columns[i], c, w->n);
            w->columns[i].taken = 1;
            w->columns[i].born = w->rounds;
            ap_packing_add(w->lp, i, w->use, uses(w, c));
            w->count++;
            return 1;
        }
    return 0;
}

/* Take up to most of the columns found that would improve the program, the best first; how many. */
static int take_found(struct work *w, int most)
{
    int taken = 0;
    for (int r = 0; r < w->n; r++)
        w->found[r].rate = 1 - column_cost(w, &w->found[r], w->lp_cost);
    for (; taken < most; taken++) {
        int best = 0;
        for (int r = 1; r < w->n; r++)
            if (w->found[r].rate > w->found[best].rate)
                best = r;
        if (w->found[best].rate < 1e-7 || !take(w, &w->found[best]))
            break;
        w->found[best].rate = 0;
    }
    return taken;
}

/* Prices by the soft maximum of the loads under the program's rates. */
static void soft_prices(struct work *w, double sharpness)
{
    memset(w->load, 0, (size_t)w->rows * sizeof *w->load);
    for (int i = 0; i < w->slots; i++) {
        double rate = w->columns[i].taken ? ap_packing_rate(w->lp, i) : 0;
        int count = rate > 0 ? uses(w, &w->columns[i]) : 0;
        for (int k = 0; k < count; k++)
            w->load[w->use[k].row] += rate * w->use[k].amount;
    }
    for (int e = 0; e < w->rows; e++)
        w->price[e] = exp(sharpness * (w->load[e] / w->cap[e] - 1)) / w->cap[e];
}

/* Prices between the best so far (share of them) and the program's, each scaled to the same total, and a little of the
 * soft maximum: many links have the price 0 otherwise, and columns over them are all the same to the pricing. Share 0:
 * the program's alone, with which a program that no column improves proves itself optimal. */
static void mixed_prices(struct work *w, double share)
{
    double best = 0, lp = 0, soft = 0;
    soft_prices(w, SOFT_MIXED);
    for (int e = 0; e < w->rows; e++) {
        best += w->cap[e] * w->best_price[e];
        lp += w->cap[e] * w->lp_price[e];
        soft += w->cap[e] * w->price[e];
    }
    for (int e = 0; e < w->rows; e++)
        w->price[e] = share * w->best_price[e] / best + (lp > 0 ? (1 - share) * w->lp_price[e] / lp : 0) +
                      (share > 0 ? SOFT_SHARE * w->price[e] / soft : 0);
}

/* Prices of 1 on the links out of (out 1) or into one site: every column crosses each such cut. */
static void cut_prices(struct work *w, int site, int out)
{
    memset(w->price, 0, (size_t)w->rows * sizeof *w->price);
    for (int j = 0; j < w->n; j++) {
        int row = w->link_row[out ? site * w->n + j : j * w->n + site];
        if (row >= 0)
            w->price[row] = 1;
    }
}

/* ---- columns to begin with ---- */

/* The largest rate of a column in what w->load leaves of the capacities; its uses stay in w->use, *count_p of them. */
static double room(struct work *w, const struct column *c, int *count_p)
{
    double most = INFINITY;
    int count = *count_p = uses(w, c);
    for (int k = 0; k < count; k++)
        w->demand[w->use[k].row] += w->use[k].amount;
    for (int k = 0; k < count; k++) {
        int e = w->use[k].row;
        most = fmin(most, (w->cap[e] - w->load[e]) / w->demand[e]);
    }
    for (int k = 0; k < count; k++)
        w->demand[w->use[k].row] = 0;
    return fmax(most, 0);
}

/* Price of a link for a column of that rate when part (0 to 1) of the whole is packed: by how much fuller than that it
 * would be. Where there is no room the price is higher than all those together. */
static double filling_price(const struct work *w, int e, double rate, double part)
{
    double full = (w->load[e] + rate) / w->cap[e];
    return (full <= 1 ? exp(fill_laws[w->opaque].sharp * (full - part)) : FILL_NO_ROOM) / w->cap[e];
}

/* An in-tree for whole parts: site after site joins where the way to the root is cheapest, and what it adds to the
 * loads on its way counts for the next. w->load is as before afterwards. */
static void join_sites(struct work *w, struct column *c, double rate, double part)
{
    int n = w->n;
    memset(w->done, 0, (size_t)n);
    w->distance[c->root] = 0;
    w->done[c->root] = 1;
    c->in[c->root] = -1;
    for (int step = 1; step < n; step++) {
        int from = -1, to = -1;
        double least = INFINITY;
        for (int v = 0; v < n; v++)
            for (int u = 0; u < n && !w->done[v]; u++)
                if (w->done[u] && w->distance[u] + w->cost[v * n + u] < least) {
                    least = w->distance[u] + w->cost[v * n + u];
                    from = v;
                    to = u;
                }
        w->done[from] = 1;
        c->in[from] = to;
        w->order[step] = from;
        for (int v = from; v != c->root; v = c->in[v]) {
            int e = w->link_row[v * n + c->in[v]];
            w->load[e] += rate;
            w->cost[v * n + c->in[v]] = filling_price(w, e, rate, part);
        }
        for (int k = 1; k <= step; k++) { /* in the order in which they joined: the way is known before what uses it */
            int v = w->order[k];
            w->distance[v] = w->distance[c->in[v]] + w->cost[v * n + c->in[v]];
        }
    }
    for (int k = 1; k < n; k++)
        for (int v = w->order[k]; v != c->root; v = c->in[v])
            w->load[w->link_row[v * n + c->in[v]]] -= rate;
    w->operations += (double)n * n * n;
}

/* Pack columns one after the other into what is left, first ones with large rates: thick links carry those, and small
 * rates at the end fill what they leave of every link, so that few trees waste little. The sum of the rates aimed at is
 * a little above the bound, because some get less than they should. Into w->kept; nothing is solved. */
static void fill(struct work *w)
{
    const double fall = fill_laws[w->opaque].fall, aim = fill_laws[w->opaque].aim * w->bound;
    double sum = 0, scale = 1;
    memset(w->load, 0, (size_t)w->rows * sizeof *w->load);
    for (int k = 0; k < w->limit; k++)
        sum += pow(fall, -(double)k / w->limit);
    for (int k = 0, tries = 0; k < w->limit && tries < FILL_TRIES * w->limit; tries++) {
        double rate = scale * aim * pow(fall, -(double)k / w->limit) / sum, part = (w->value + rate) / aim;
        int best = 0, count;
        for (int e = 0; e < w->rows; e++)
            w->price[e] = filling_price(w, e, rate, part);
        price_columns(w);
        for (int r = 1; r < w->n; r++)
            if (w->found[r].rate < w->found[best].rate)
                best = r;
        if (w->opaque)
            join_sites(w, &w->found[best], rate, part);
        double most = room(w, &w->found[best], &count);
        if (most < FILL_LEAST * rate) {
            scale *= FILL_LEAST;
            continue;
        }
        rate = fmin(rate, most);
        for (int i = 0; i < count; i++)
            w->load[w->use[i].row] += rate * w->use[i].amount;
        column_copy(&w->kept[w->kept_count], &w->found[best], w->n);
        w->kept[w->kept_count++].rate = rate;
        w->value += rate;
        scale = 1;
        k++;
    }
}

/* Bounds that are good for a start: every column crosses the cuts around single sites. */
static int first_bounds(struct work *w)
{
    for (int e = 0; e < w->rows; e++)
        w->price[e] = 1;
    if (price_columns(w) != 0)
        return -1;
    for (int i = 0; i < 2 * w->n; i++) {
        cut_prices(w, i / 2, i % 2);
        price_columns(w);
    }
    return 0;
}

/* Stars where every link exists, else the cheapest columns at prices that shun thin links. */
static void stars(struct work *w)
{
    int n = w->n, whole = 1;
    for (int e = 0; e < w->rows; e++)
        w->price[e] = 1 / w->cap[e];
    price_columns(w);
    for (int e = 0; e < n * n; e++)
        whole &= w->link_row[e] >= 0 || e / n == e % n;
    for (int r = 0; r < n; r++) {
        for (int v = 0; whole && v < n; v++)
            w->found[r].in[v] = w->found[r].out[v] = v == r ? -1 : r;
        take(w, &w->found[r]);
    }
}

/* Where links are all that counts, packing begins with what fills them; with gateways, or parts that are not summed on
 * the way, with stars. */
static int start(struct work *w)
{
    if (first_bounds(w) != 0)
        return -1;
    if (w->egress_row[0] >= 0) {
        stars(w);
    } else {
        fill(w);
        if (w->value >= TARGET * w->bound && (double)w->rows * w->kept_count > FILL_ENOUGH)
            return 0;
        for (int i = 0; i < w->kept_count; i++)
            take(w, &w->kept[i]);
    }
    solve(w);
    return 0;
}

/* Put the columns with the least rates out until so many are left. */
static void evict(struct work *w)
{
    while (w->count > w->limit) {
        int least = -1;
        double rate = INFINITY;
        for (int i = 0; i < w->slots; i++)
            if (w->columns[i].taken) {
                double x = ap_packing_rate(w->lp, i);
                if (x > 0 && w->columns[i].born > w->rounds - YOUNG_ROUNDS)
                    x *= YOUNG;
                if (x < rate) {
                    rate = x;
                    least = i;
                }
            }
        int pivots = ap_packing_remove(w->lp, least, MAX_PIVOTS);
        w->columns[least].taken = 0;
        w->count--;
        w->pivots += pivots;
        w->operations += (double)pivots * w->rows * w->count;
    }
    solve(w);
}

/* Remember the program's columns and rates where they are the best so far. */
static void keep(struct work *w)
{
    if (ap_packing_value(w->lp) <= w->value || w->count > w->limit)
        return;
    w->value = ap_packing_value(w->lp);
    w->kept_count = 0;
    for (int i = 0; i < w->slots; i++)
        if (w->columns[i].taken && ap_packing_rate(w->lp, i) > 1e-6 * w->value) {
            column_copy(&w->kept[w->kept_count], &w->columns[i], w->n);
            w->kept[w->kept_count++].rate = ap_packing_rate(w->lp, i);
        }
}

/* Add columns and lower the bound; 0 where no column can improve the program. The sharpness changes from column to
 * column so that they differ. */
static int improve(struct work *w, int stuck)
{
    static const double sharp[] = {40, 160}, share[] = {0.9, 0.7, 0.4, 0};
    static const double soft[] = {8, 12, 18, 27, 40};
    int taken = 0;
    for (int k = 0; k < w->batch; k++) {
        soft_prices(w, soft[(w->rounds + k) % 5]);
        price_columns(w);
        if (take_found(w, 1) == 0)
            break;
        taken++;
        solve(w);
    }
    for (int k = 0; k < 2; k++) {
        soft_prices(w, sharp[k]);
        price_columns(w);
    }
    for (int k = 0; k < 4; k++) {
        mixed_prices(w, share[k]);
        price_columns(w);
        if (taken == 0 || stuck) {
            int more = take_found(w, w->batch / 2);
            if (more > 0)
                solve(w);
            taken += more;
        }
    }
    return taken;
}

static void generate(struct work *w)
{
    double end = (w->opaque ? WORK_OPAQUE : WORK) * pow(w->n, 2.6), mark = 0, last = 0;
    for (int idle = 0; idle < PATIENCE; w->rounds++, idle++) {
        keep(w);
        double ratio = w->value / w->bound;
        if (ratio >= TARGET || (ratio >= TARGET_LATE && w->operations > WORK_LATE * end) || w->operations > end)
            break;
        if (ratio > mark + 1e-4) {
            mark = ratio;
            idle = 0;
        }
        int stuck = ratio - last < STUCK * (1 - ratio);
        last = ratio;
        if (improve(w, stuck) == 0)
            break;
        evict(w);
    }
    keep(w);
}

static int by_rate(const void *a, const void *b)
{
    const struct ap_synth_tree *x = a, *y = b;
    return x->rate != y->rate ? (x->rate < y->rate ? 1 : -1) : x->root - y->root;
}

/* The rates as the true capacities allow them: the largest load decides. */
static void settle(struct work *w)
{
    double most = 0;
    memset(w->load, 0, (size_t)w->rows * sizeof *w->load);
    for (int i = 0; i < w->kept_count; i++) {
        int count = uses(w, &w->kept[i]);
        for (int k = 0; k < count; k++)
            w->load[w->use[k].row] += w->kept[i].rate * w->use[k].amount;
    }
    for (int e = 0; e < w->rows; e++)
        most = fmax(most, w->load[e] / w->cap[e]);
    for (int i = 0; i < w->kept_count; i++)
        w->kept[i].rate /= most;
}

static ap_status result(struct work *w, struct ap_synth *s)
{
    int n = w->n;
    s->n = n;
    s->trees = calloc((size_t)w->limit, sizeof *s->trees);
    s->link_price = calloc((size_t)n * (size_t)(n + 2), sizeof *s->link_price);
    if (s->trees == NULL || s->link_price == NULL)
        return AP_ERR_NOMEM;
    s->egress = s->link_price + n * n;
    s->ingress = s->egress + n;
    settle(w);
    for (int i = 0; i < w->kept_count; i++) {
        struct ap_synth_tree *t = &s->trees[i];
        t->in = w->kept[i].in; /* taken over */
        t->out = w->kept[i].out;
        t->root = w->kept[i].root;
        t->rate = w->kept[i].rate;
        w->kept[i].in = NULL;
        s->throughput += t->rate;
        t->in[t->root] = t->out[t->root] = -1;
    }
    s->tree_count = w->kept_count;
    qsort(s->trees, (size_t)s->tree_count, sizeof *s->trees, by_rate);
    for (int e = 0; e < n * n; e++)
        s->link_price[e] = w->link_row[e] >= 0 ? w->best_price[w->link_row[e]] : 0;
    for (int i = 0; i < n; i++) {
        s->egress[i] = w->egress_row[i] >= 0 ? w->best_price[w->egress_row[i]] : 0;
        s->ingress[i] = w->ingress_row[i] >= 0 ? w->best_price[w->ingress_row[i]] : 0;
    }
    s->bound = w->bound;
    s->rounds = w->rounds;
    s->pivots = w->pivots;
    return AP_OK;
}

ap_status ap_synth_trees(const struct ap_wan *wan, int caps, int codec, struct ap_synth **s_p, struct ap_error *err)
{
    struct work w;
    struct ap_synth *s = calloc(1, sizeof *s);
    ap_status status = s == NULL ? AP_ERR_NOMEM : AP_OK;
    if (status == AP_OK)
        status = work_init(&w, wan, caps, codec);
    if (status == AP_OK && start(&w) != 0)
        status = ap_error_set(err, AP_ERR_INPUT, "the links do not join all sites in both directions");
    if (status == AP_OK) {
        generate(&w);
        status = result(&w, s);
    }
    if (s != NULL)
        work_clear(&w);
    if (status == AP_ERR_NOMEM)
        ap_error_set(err, status, "no memory for the trees of %d sites", wan->n);
    if (status == AP_OK)
        *s_p = s;
    else
        ap_synth_destroy(s);
    return status;
}

void ap_synth_destroy(struct ap_synth *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < s->tree_count; i++)
        free(s->trees[i].in);
    free(s->trees);
    free(s->link_price);
    free(s);
}
