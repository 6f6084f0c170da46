/* SPDX-License-Identifier: Apache-2.0
 * The phases of a probe, one after the other, and what their samples say together. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "probe/probe_impl.h"

#define MESSAGES_MIN  64   /* of a transfer between sites, */
#define BYTES_MIN     2048 /* unless they get smaller than this */
#define STEADY_SPREAD 15.0 /* a transfer lasts so many times longer than round trips vary */
#define DURATION_MAX  1.0  /* s, or the option */
#define CAPPED        0.93 /* of the sum of the pairs: less than this is a cap */
#define ORDER_TRIES   2000

ap_status ap_probe_add_sample(struct ap_probe_run *run, const struct ap_probe_sample *sample)
{
    struct ap_probe_result *r = run->res;
    if (r->count == run->room) {
        int64_t room = 2 * run->room + 256;
        struct ap_probe_sample *grown = realloc(r->samples, (size_t)room * sizeof *grown);
        if (grown == NULL)
            return AP_ERR_NOMEM;
        r->samples = grown;
        run->room = room;
    }
    r->samples[r->count++] = *sample;
    return AP_OK;
}

int ap_probe_site_of(const struct ap_probe_run *run, int rank)
{
    return run->places->site[run->places->node[rank]];
}

double ap_probe_duration(const struct ap_probe_run *run, int a, int b)
{
    double spread = run->spread[a * run->places->sites + b];
    return fmax(run->opt->seconds, fmin(STEADY_SPREAD * spread, DURATION_MAX));
}

void ap_probe_size(const struct ap_probe_options *opt, double rate, double seconds, int64_t most, int64_t *bytes_p,
                   int64_t *count_p)
{
    double wanted = fmin(fmax(rate * seconds, (double)BYTES_MIN * MESSAGES_MIN), (double)most);
    int64_t bytes = (int64_t)(wanted / MESSAGES_MIN);
    bytes = bytes < BYTES_MIN ? BYTES_MIN : bytes > opt->block ? opt->block : bytes;
    *bytes_p = bytes;
    *count_p = (int64_t)ceil(wanted / (double)bytes);
}

double ap_probe_slope(const double *times, int64_t from, int64_t to, int64_t bytes)
{
    return (double)(to - from) * (double)bytes / fmax(times[to] - times[from], 1e-9);
}

/* ---- groups */

/* items[count] ordered by group[item] into order, starts into from[groups + 1]; stable. */
static void sort_into(int count, const int *items, const int *group, int groups, int *order, int *from)
{
    memset(from, 0, ((size_t)groups + 1) * sizeof *from);
    for (int i = 0; i < count; i++)
        from[group[items != NULL ? items[i] : i] + 1]++;
    for (int g = 0; g < groups; g++)
        from[g + 1] += from[g];
    for (int i = 0; i < count; i++) {
        int item = items != NULL ? items[i] : i;
        order[from[group[item]]++] = item;
    }
    for (int g = groups; g > 0; g--)
        from[g] = from[g - 1];
    from[0] = 0;
}

static ap_status sort_nodes(struct ap_probe_run *run)
{
    const struct ap_probe_places *p = run->places;
    run->by_node = malloc(((size_t)p->ranks + 1) * sizeof *run->by_node);
    run->node_from = malloc(((size_t)p->nodes + 1) * sizeof *run->node_from);
    if (run->by_node == NULL || run->node_from == NULL)
        return AP_ERR_NOMEM;
    sort_into(p->ranks, NULL, p->node, p->nodes, run->by_node, run->node_from);
    return AP_OK;
}

static ap_status sort_sites(struct ap_probe_run *run)
{
    const struct ap_probe_places *p = run->places;
    size_t n = (size_t)p->sites;
    run->by_site = malloc(((size_t)p->nodes + 1) * sizeof *run->by_site);
    run->site_from = malloc((n + 1) * sizeof *run->site_from);
    run->leaders = malloc((n + 1) * sizeof *run->leaders);
    run->rtt = calloc(n * n + 1, sizeof *run->rtt);
    run->spread = calloc(n * n + 1, sizeof *run->spread);
    run->rate = calloc(n * n + 1, sizeof *run->rate);
    run->guess = calloc(n * n + 1, sizeof *run->guess);
    run->res->caps = calloc(n + 1, sizeof *run->res->caps);
    if (run->by_site == NULL || run->site_from == NULL || run->leaders == NULL || run->rtt == NULL ||
        run->spread == NULL || run->rate == NULL || run->guess == NULL || run->res->caps == NULL)
        return AP_ERR_NOMEM;
    sort_into(p->nodes, NULL, p->site, p->sites, run->by_site, run->site_from);
    for (int i = 0; i < p->nodes; i++)
        run->by_site[i] = run->by_node[run->node_from[run->by_site[i]]];
    for (int s = 0; s < p->sites; s++)
        run->leaders[s] = run->by_site[run->site_from[s]];
    return AP_OK;
}

static int position(const int *members, int n, int rank)
{
    for (int i = 0; i < n; i++)
        if (members[i] == rank)
            return i;
    return -1;
}

/* The members of a rank's group on the level of that kind; me -1: it has no part. */
static struct ap_probe_group group_of(const struct ap_probe_run *run, enum ap_probe_sample_kind kind, int rank)
{
    const struct ap_probe_places *p = run->places;
    struct ap_probe_group g = {.kind = kind};
    int node = p->node[rank];
    if (kind == AP_PROBE_NODE) {
        g.members = run->by_node + run->node_from[node];
        g.n = run->node_from[node + 1] - run->node_from[node];
    } else if (kind == AP_PROBE_NEAR) {
        g.members = run->leaders; /* of all nodes, while sites are unknown */
        g.n = p->nodes;
    } else if (kind == AP_PROBE_SITE) {
        g.members = run->by_site + run->site_from[p->site[node]];
        g.n = run->site_from[p->site[node] + 1] - run->site_from[p->site[node]];
    } else {
        g.members = run->leaders;
        g.n = p->sites;
    }
    /* Only the first rank of a node is in a group of nodes. */
    g.me = kind != AP_PROBE_NODE && run->by_node[run->node_from[node]] != rank ? -1 : position(g.members, g.n, rank);
    return g;
}

/* ---- phases */

static struct ap_probe_state *state_at(char *states, const struct ap_probe_phase *phase, int i)
{
    return (struct ap_probe_state *)(void *)(states + (size_t)i * phase->size);
}

static ap_status play(struct ap_probe_run *run, const struct ap_probe_phase *phase, enum ap_probe_sample_kind kind,
                      char *states)
{
    struct ap_probe_net *net = run->net;
    int open = 0;
    for (int i = 0; i < net->locals; i++) {
        struct ap_probe_state *s = state_at(states, phase, i);
        s->rank = net->first + i;
        s->group = group_of(run, kind, s->rank);
        AP_TRY(phase->start(run, s));
        open += !s->done;
    }
    while (open > 0) {
        struct ap_probe_event e;
        AP_TRY(net->vt->next(net, &e));
        struct ap_probe_state *s = state_at(states, phase, e.rank - net->first);
        if (s->done)
            return AP_ERR_BUG;
        AP_TRY(phase->event(run, s, &e));
        open -= s->done;
    }
    return AP_OK;
}

static ap_status run_phase(struct ap_probe_run *run, const struct ap_probe_phase *phase, enum ap_probe_sample_kind kind)
{
    char *states = calloc((size_t)run->net->locals, phase->size);
    if (states == NULL)
        return AP_ERR_NOMEM;
    ap_status status = play(run, phase, kind, states);
    for (int i = 0; i < run->net->locals && phase->end != NULL; i++)
        phase->end(state_at(states, phase, i));
    free(states);
    return status;
}

static ap_status share(struct ap_probe_run *run)
{
    ap_status status = run->net->vt->share(run->net, &run->res->samples, &run->res->count);
    run->room = run->res->count; /* the array is another one */
    return status;
}

/* The sites are not known: round trips between all nodes tell. */
static ap_status find_sites(struct ap_probe_run *run, struct ap_probe_places *places)
{
    size_t n = (size_t)places->nodes;
    run->leaders = malloc((n + 1) * sizeof *run->leaders);
    double *rtt = malloc((n * n + 1) * sizeof *rtt);
    ap_status status = run->leaders == NULL || rtt == NULL ? AP_ERR_NOMEM : AP_OK;
    for (size_t i = 0; status == AP_OK && i < n; i++)
        run->leaders[i] = run->by_node[run->node_from[i]];
    if (status == AP_OK)
        status = run_phase(run, &ap_probe_pings_phase, AP_PROBE_NEAR);
    if (status == AP_OK)
        status = share(run);
    for (size_t i = 0; status == AP_OK && i < n * n; i++)
        rtt[i] = NAN;
    for (int64_t i = 0; status == AP_OK && i < run->res->count; i++) {
        const struct ap_probe_sample *s = &run->res->samples[i];
        size_t a = (size_t)places->node[s->from], b = (size_t)places->node[s->to];
        rtt[a * n + b] = rtt[b * n + a] = s->rtt;
    }
    if (status == AP_OK) {
        places->sites = ap_probe_find_sites(places->nodes, rtt, places->site);
        status = places->sites < 0 ? AP_ERR_NOMEM : AP_OK;
    }
    free(run->leaders);
    run->leaders = NULL;
    free(rtt);
    return status;
}

/* What the samples of one kind say of pairs of sites into a table; the rate, the round trip or its spread. */
static void fill_tables(struct ap_probe_run *run)
{
    int n = run->places->sites;
    for (int64_t i = 0; i < run->res->count; i++) {
        const struct ap_probe_sample *s = &run->res->samples[i];
        if (s->kind != AP_PROBE_FAR && s->kind != AP_PROBE_WAN)
            continue;
        int a = ap_probe_site_of(run, s->from), b = ap_probe_site_of(run, s->to);
        if (s->kind == AP_PROBE_WAN) {
            run->rate[a * n + b] = s->rate;
            continue;
        }
        run->rtt[a * n + b] = run->rtt[b * n + a] = s->rtt;
        run->spread[a * n + b] = run->spread[b * n + a] = s->spread;
    }
}

/* Sum over the rounds of the longest round trip in it: what the turns of this order take. */
static double order_cost(const struct ap_probe_run *run, const int *order, int n)
{
    double sum = 0;
    for (int round = 0; round < ap_probe_rounds(n); round++) {
        double longest = 0;
        for (int i = 0; i < n; i++) {
            int k = ap_probe_partner(n, i, round);
            if (k > i)
                longest = fmax(longest, run->rtt[order[i] * n + order[k]]);
        }
        sum += longest;
    }
    return sum;
}

/* Long pairs are to meet in the same rounds: exchanges of two seats, as long as they help. */
static ap_status order_leaders(struct ap_probe_run *run)
{
    int n = run->places->sites, *order = malloc(((size_t)n + 1) * sizeof *order);
    int *first = malloc(((size_t)n + 1) * sizeof *first);
    if (order == NULL || first == NULL) {
        free(order);
        free(first);
        return AP_ERR_NOMEM;
    }
    memcpy(first, run->leaders, (size_t)n * sizeof *first);
    for (int i = 0; i < n; i++)
        order[i] = i;
    double best = order_cost(run, order, n);
    for (int k = 0; n > 3 && n <= 64 && k < ORDER_TRIES; k++) {
        int a = (int)(ap_rng_uniform(1, AP_RNG_PLAN, (uint64_t)(2 * k)) * n);
        int b = (int)(ap_rng_uniform(1, AP_RNG_PLAN, (uint64_t)(2 * k + 1)) * n), kept = order[a];
        order[a] = order[b];
        order[b] = kept;
        double cost = order_cost(run, order, n);
        if (cost <= best) {
            best = cost;
        } else {
            order[b] = order[a];
            order[a] = kept;
        }
    }
    for (int i = 0; i < n; i++)
        run->leaders[i] = first[order[i]];
    free(order);
    free(first);
    return AP_OK;
}

/* Sums over a site's links, one by one and all at once. A loaded rate that could not be told is taken as undisturbed.
 */
static void find_caps(struct ap_probe_run *run)
{
    int n = run->places->sites;
    struct ap_probe_site_caps *caps = run->res->caps;
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            if (a != b) {
                caps[a].sum_out += run->rate[a * n + b];
                caps[b].sum_in += run->rate[a * n + b];
            }
    for (int64_t i = 0; i < run->res->count; i++) {
        const struct ap_probe_sample *s = &run->res->samples[i];
        if (s->kind != AP_PROBE_LOAD_OUT && s->kind != AP_PROBE_LOAD_IN)
            continue;
        int from = ap_probe_site_of(run, s->from), to = ap_probe_site_of(run, s->to);
        double alone = run->rate[from * n + to], rate = s->rate > 0 ? fmin(s->rate, alone) : alone;
        *(s->kind == AP_PROBE_LOAD_OUT ? &caps[from].egress : &caps[to].ingress) += rate;
    }
    for (int a = 0; a < n; a++) {
        if (caps[a].egress >= CAPPED * caps[a].sum_out)
            caps[a].egress = 0;
        if (caps[a].ingress >= CAPPED * caps[a].sum_in)
            caps[a].ingress = 0;
    }
}

static ap_status measure(struct ap_probe_run *run, struct ap_probe_places *places)
{
    AP_TRY(sort_nodes(run));
    if (places->sites == 0)
        AP_TRY(find_sites(run, places));
    AP_TRY(sort_sites(run));
    if (places->sites > 1)
        AP_TRY(run_phase(run, &ap_probe_pings_phase, AP_PROBE_FAR));
    AP_TRY(run_phase(run, &ap_probe_pairs_phase, AP_PROBE_NODE));
    AP_TRY(run_phase(run, &ap_probe_pairs_phase, AP_PROBE_SITE));
    AP_TRY(share(run));
    if (places->sites < 2)
        return AP_OK;
    fill_tables(run);
    AP_TRY(order_leaders(run));
    AP_TRY(run_phase(run, &ap_probe_pairs_phase, AP_PROBE_WAN));
    fill_tables(run);
    int load = places->sites > 2 && run->opt->load;
    if (load)
        AP_TRY(run_phase(run, &ap_probe_load_phase, AP_PROBE_LOAD_OUT));
    AP_TRY(share(run));
    fill_tables(run);
    if (load)
        find_caps(run);
    return AP_OK;
}

ap_status ap_probe_run(struct ap_probe_net *net, const struct ap_probe_options *options, struct ap_probe_places *places,
                       struct ap_probe_result *result, struct ap_error *err)
{
    *result = (struct ap_probe_result){0};
    struct ap_probe_run run = {.net = net, .opt = options, .places = places, .res = result};
    if (options->pings < 1 || options->pings > AP_PROBE_PINGS_MAX || options->repeats < 1 || options->lan_repeats < 1 ||
        !(options->seconds > 0) || options->block < 1 || options->most_bytes < options->block)
        return ap_error_set(err, AP_ERR_BUG, "options of the probe out of range");
    double begin = net->vt->now(net);
    ap_status status = measure(&run, places);
    result->seconds = net->vt->now(net) - begin;
    free(run.by_node);
    free(run.node_from);
    free(run.by_site);
    free(run.site_from);
    free(run.leaders);
    free(run.rtt);
    free(run.spread);
    free(run.rate);
    free(run.guess);
    if (status == AP_ERR_NOMEM)
        return ap_error_set(err, status, "out of memory for the measurement");
    if (status == AP_ERR_COMM)
        return ap_error_set(err, status, "a process that was to be measured is gone");
    return status == AP_OK ? AP_OK : ap_error_set(err, status, "the measurement lost its thread");
}

void ap_probe_result_clear(struct ap_probe_result *result)
{
    free(result->samples);
    free(result->caps);
    *result = (struct ap_probe_result){0};
}
