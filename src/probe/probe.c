/* SPDX-License-Identifier: Apache-2.0
 * The phases of a probe, one after the other, and what their samples say together. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "probe/probe_impl.h"

#define STEADY_SPREAD 15.0 /* a run between sites lasts so many times longer than round trips vary */
#define DURATION_MAX  1.0  /* s, or the option */
#define CAPPED        0.93 /* of the sum of the pairs: less than this is a cap */

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

double ap_probe_duration(const struct ap_probe_run *run, int a, int b, int turns)
{
    const struct ap_probe_options *o = run->opt;
    int at = a * run->places->sites + b;
    double seconds = run->thorough ? fmax(o->seconds, fmin(run->rtt[at], DURATION_MAX))
                                   : fmin(fmax(o->turns_seconds / turns, o->seconds_least), o->seconds);
    return fmax(seconds, fmin(STEADY_SPREAD * run->spread[at], DURATION_MAX));
}

int ap_probe_lane(const struct ap_probe_run *run, int lane, int site)
{
    return run->lane[lane * run->places->sites + site];
}

int ap_probe_streams(const struct ap_probe_run *run, int a, int b)
{
    int n = 0;
    while (n < run->lanes && ap_probe_lane(run, n, a) >= 0 && ap_probe_lane(run, n, b) >= 0)
        n++;
    return n;
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

/* The ranks of a site that carry its connections: the first ones of its nodes, the second ones, and so on. How many. */
static int site_lanes(const struct ap_probe_run *run, int site)
{
    int found = 0, more = 1;
    for (int depth = 0; more && found < run->opt->streams; depth++) {
        more = 0;
        for (int i = run->site_from[site]; i < run->site_from[site + 1] && found < run->opt->streams; i++) {
            int node = run->places->node[run->by_site[i]], at = run->node_from[node] + depth;
            if (at >= run->node_from[node + 1])
                continue;
            run->lane[found++ * run->places->sites + site] = run->by_node[at];
            more = 1;
        }
    }
    return found;
}

/* Lanes that reach at least two sites. */
static void fill_lanes(struct ap_probe_run *run)
{
    int sites = run->places->sites, streams = run->opt->streams, reached[AP_PROBE_STREAMS_MAX] = {0};
    for (int i = 0; i < streams * sites; i++)
        run->lane[i] = -1;
    for (int s = 0; s < sites; s++)
        for (int k = site_lanes(run, s) - 1; k >= 0; k--)
            reached[k]++;
    run->lanes = 1;
    while (run->lanes < streams && reached[run->lanes] > 1)
        run->lanes++;
}

static ap_status sort_sites(struct ap_probe_run *run)
{
    const struct ap_probe_places *p = run->places;
    size_t n = (size_t)p->sites;
    run->by_site = malloc(((size_t)p->nodes + 1) * sizeof *run->by_site);
    run->site_from = malloc((n + 1) * sizeof *run->site_from);
    run->lane = malloc((n * (size_t)run->opt->streams + 1) * sizeof *run->lane);
    run->doubt = calloc(n * n + 1, sizeof *run->doubt);
    run->rtt = calloc(n * n + 1, sizeof *run->rtt);
    run->spread = calloc(n * n + 1, sizeof *run->spread);
    run->rate = calloc(n * n + 1, sizeof *run->rate);
    run->guess = calloc(n * n + 1, sizeof *run->guess);
    run->res->caps = calloc(n + 1, sizeof *run->res->caps);
    if (run->by_site == NULL || run->site_from == NULL || run->lane == NULL || run->doubt == NULL || run->rtt == NULL ||
        run->spread == NULL || run->rate == NULL || run->guess == NULL || run->res->caps == NULL)
        return AP_ERR_NOMEM;
    sort_into(p->nodes, NULL, p->site, p->sites, run->by_site, run->site_from);
    for (int i = 0; i < p->nodes; i++)
        run->by_site[i] = run->by_node[run->node_from[run->by_site[i]]];
    fill_lanes(run);
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
        g.members = run->firsts; /* of all nodes, while sites are unknown */
        g.n = p->nodes;
    } else if (kind == AP_PROBE_SITE) {
        g.members = run->by_site + run->site_from[p->site[node]];
        g.n = run->site_from[p->site[node] + 1] - run->site_from[p->site[node]];
    } else {
        int at = p->site[node], lanes = kind == AP_PROBE_FAR ? 1 : run->lanes;
        while (g.lane < lanes && ap_probe_lane(run, g.lane, at) != rank)
            g.lane++;
        g.n = p->sites;
        g.me = g.lane < lanes ? at : -1;
        g.members = g.me >= 0 ? run->lane + g.lane * p->sites : NULL;
        return g;
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

static enum ap_probe_step step_of(const struct ap_probe_run *run, enum ap_probe_sample_kind kind)
{
    switch (kind) {
    case AP_PROBE_NEAR:
    case AP_PROBE_FAR:
        return AP_PROBE_STEP_TRIPS;
    case AP_PROBE_NODE:
    case AP_PROBE_SITE:
        return AP_PROBE_STEP_INSIDE;
    case AP_PROBE_WAN:
        return run->thorough ? AP_PROBE_STEP_AGAIN : AP_PROBE_STEP_WAN;
    default:
        return AP_PROBE_STEP_LOAD;
    }
}

static ap_status run_phase(struct ap_probe_run *run, const struct ap_probe_phase *phase, enum ap_probe_sample_kind kind)
{
    double begin = run->net->vt->now(run->net);
    char *states = calloc((size_t)run->net->locals, phase->size);
    if (states == NULL)
        return AP_ERR_NOMEM;
    ap_status status = play(run, phase, kind, states);
    for (int i = 0; i < run->net->locals && phase->end != NULL; i++)
        phase->end(state_at(states, phase, i));
    free(states);
    run->res->spent[step_of(run, kind)] += run->net->vt->now(run->net) - begin;
    return status;
}

static ap_status share(struct ap_probe_run *run)
{
    double begin = run->net->vt->now(run->net);
    ap_status status = run->net->vt->share(run->net, &run->res->samples, &run->res->count);
    run->res->spent[AP_PROBE_STEP_SHARE] += run->net->vt->now(run->net) - begin;
    run->room = run->res->count; /* the array is another one */
    return status;
}

/* The sites are not known: round trips between all nodes tell. */
static ap_status find_sites(struct ap_probe_run *run, struct ap_probe_places *places)
{
    size_t n = (size_t)places->nodes;
    run->firsts = malloc((n + 1) * sizeof *run->firsts);
    double *rtt = malloc((n * n + 1) * sizeof *rtt);
    ap_status status = run->firsts == NULL || rtt == NULL ? AP_ERR_NOMEM : AP_OK;
    for (size_t i = 0; status == AP_OK && i < n; i++)
        run->firsts[i] = run->by_node[run->node_from[i]];
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
    free(run->firsts);
    run->firsts = NULL;
    free(rtt);
    return status;
}

/* What the samples say of pairs of sites. */
static void fill_tables(struct ap_probe_run *run)
{
    int n = run->places->sites;
    for (int64_t i = 0; i < run->res->count; i++) {
        const struct ap_probe_sample *s = &run->res->samples[i];
        int a = ap_probe_site_of(run, s->from), b = ap_probe_site_of(run, s->to);
        if (s->kind == AP_PROBE_WAN) {
            run->rate[a * n + b] = s->rate;
            run->doubt[a * n + b] = (char)(run->opt->settle ? s->doubtful : s->rate <= 0);
        } else if (s->kind == AP_PROBE_FAR) {
            run->rtt[a * n + b] = run->rtt[b * n + a] = s->rtt;
            run->spread[a * n + b] = run->spread[b * n + a] = s->spread;
        } else if (s->kind == AP_PROBE_GUESS) {
            run->guess[a * n + b] = s->rate;
        }
    }
}

/* Directions that are doubtful are measured again; their samples do not count any more. How many there are. */
static int drop_doubtful(struct ap_probe_run *run)
{
    int n = run->places->sites, dropped = 0;
    for (int64_t i = 0; i < run->res->count; i++) {
        struct ap_probe_sample *s = &run->res->samples[i];
        if (s->kind != AP_PROBE_WAN || !run->doubt[ap_probe_site_of(run, s->from) * n + ap_probe_site_of(run, s->to)])
            continue;
        s->kind = AP_PROBE_DROPPED;
        dropped++;
    }
    return dropped;
}

static void compact(struct ap_probe_result *r)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < r->count; i++)
        if (r->samples[i].kind != AP_PROBE_DROPPED)
            r->samples[kept++] = r->samples[i];
    r->count = kept;
}

/* The rates of pairs under load, over all their connections; a connection whose rate could not be told is taken as
 * undisturbed. */
static void loaded_rates(const struct ap_probe_run *run, enum ap_probe_sample_kind kind, double *loaded)
{
    int n = run->places->sites;
    memset(loaded, 0, (size_t)n * (size_t)n * sizeof *loaded);
    for (int64_t i = 0; i < run->res->count; i++) {
        const struct ap_probe_sample *s = &run->res->samples[i];
        if (s->kind != (int)kind)
            continue;
        int a = ap_probe_site_of(run, s->from), b = ap_probe_site_of(run, s->to), at = a * n + b;
        loaded[at] += s->rate > 0 ? s->rate : run->rate[at] / ap_probe_streams(run, a, b);
    }
}

/* Sums over a site's links, one by one and all at once. */
static ap_status find_caps(struct ap_probe_run *run)
{
    int n = run->places->sites;
    struct ap_probe_site_caps *caps = run->res->caps;
    double *loaded = malloc(((size_t)n * (size_t)n + 1) * sizeof *loaded);
    if (loaded == NULL)
        return AP_ERR_NOMEM;
    for (int out = 0; out < 2; out++) {
        loaded_rates(run, out ? AP_PROBE_LOAD_OUT : AP_PROBE_LOAD_IN, loaded);
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++)
                if (a != b) {
                    double alone = run->rate[a * n + b];
                    *(out ? &caps[a].egress : &caps[b].ingress) += fmin(alone, loaded[a * n + b]);
                    *(out ? &caps[a].sum_out : &caps[b].sum_in) += alone;
                }
    }
    free(loaded);
    for (int a = 0; a < n; a++) {
        if (caps[a].egress >= CAPPED * caps[a].sum_out)
            caps[a].egress = 0;
        if (caps[a].ingress >= CAPPED * caps[a].sum_in)
            caps[a].ingress = 0;
    }
    return AP_OK;
}

/* All pairs of sites once, then those that left a doubt. */
static ap_status measure_wan(struct ap_probe_run *run)
{
    AP_TRY(run_phase(run, &ap_probe_wan_phase, AP_PROBE_WAN));
    AP_TRY(share(run));
    fill_tables(run);
    if (drop_doubtful(run) == 0)
        return AP_OK;
    run->thorough = 1;
    ap_status status = run_phase(run, &ap_probe_wan_phase, AP_PROBE_WAN);
    run->thorough = 0;
    AP_TRY(status);
    AP_TRY(share(run));
    fill_tables(run);
    return AP_OK;
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
    if (places->sites < 2)
        return share(run);
    AP_TRY(measure_wan(run));
    if (places->sites > 2 && run->opt->load) {
        AP_TRY(run_phase(run, &ap_probe_load_phase, AP_PROBE_LOAD_OUT));
        AP_TRY(share(run));
        AP_TRY(find_caps(run));
    }
    compact(run->res);
    return AP_OK;
}

ap_status ap_probe_run(struct ap_probe_net *net, const struct ap_probe_options *options, struct ap_probe_places *places,
                       struct ap_probe_result *result, struct ap_error *err)
{
    *result = (struct ap_probe_result){0};
    struct ap_probe_run run = {.net = net, .opt = options, .places = places, .res = result};
    if (options->pings < 1 || options->far_pings < 1 || options->far_pings > AP_PROBE_PINGS_MAX ||
        options->repeats < 1 || options->lan_repeats < 1 || options->streams < 1 ||
        options->streams > AP_PROBE_STREAMS_MAX || !(options->seconds > 0) || !(options->seconds_least > 0) ||
        options->block < 1 || options->most_bytes < options->block)
        return ap_error_set(err, AP_ERR_BUG, "options of the probe out of range");
    double begin = net->vt->now(net);
    ap_status status = measure(&run, places);
    result->seconds = net->vt->now(net) - begin;
    free(run.by_node);
    free(run.node_from);
    free(run.by_site);
    free(run.site_from);
    free(run.firsts);
    free(run.lane);
    free(run.doubt);
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
