/* SPDX-License-Identifier: Apache-2.0
 * antipode routes: how to reduce a vector over the links of a WAN, how fast that is, and how far from the best. */
#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/verbs.h"
#include "plan/synth.h"
#include "plan/wan_matrix.h"
#include "plan/wan_times.h"

struct routes_flags {
    char *topology;
    int caps, codec;
    int64_t bytes;
};

static const struct ap_option flags[] = {
    {.key = "topology",
     .kind = AP_OPT_PATH,
     .offset = offsetof(struct routes_flags, topology),
     .flags = AP_OPT_REQUIRED,
     .doc = "Table of the links between sites (CSV): src,dst,rtt_ms,gbit_per_s[,egress_usd_per_gb]."},
    {.key = "caps",
     .kind = AP_OPT_CHOICE,
     .offset = offsetof(struct routes_flags, caps),
     .fallback = "site",
     .choices = "site|pair",
     .doc = "site: everything that leaves or enters a site passes one gateway as fast as the best of its links; pair: "
            "each "
            "link has its rate whatever the others carry."},
    {.key = "codec",
     .kind = AP_OPT_CHOICE,
     .offset = offsetof(struct routes_flags, codec),
     .fallback = "additive",
     .choices = "additive|opaque",
     .doc = "additive: parts are summed on their way; opaque: each part travels whole to where it is summed (1-bit, "
            "top-k)."},
    {.key = "bytes",
     .kind = AP_OPT_INT,
     .offset = offsetof(struct routes_flags, bytes),
     .fallback = "1e9",
     .min = 1,
     .max = 1e15,
     .unit = "bytes",
     .doc = "Size of the vector that times are predicted for."},
};

const struct ap_verb ap_verb_desc_routes = {
    .name = "routes",
    .operands = "",
    .takes = AP_VERB_JSON,
    .summary = "trees for the all-reduce between sites, from a table of their links",
    .doc =
        "Reads what is known about the links between sites and prints the trees that an all-reduce between them should "
        "take, with the rate of each: every site sends its part up the in-tree of a root, which sends the sum back "
        "down "
        "its out-tree. Beside it the proven bound that no set of trees exceeds, the best ring, the tree for small "
        "messages, and the predicted times of all three. Nothing is measured and nothing is started.\n\n"
        "A round trip that is left blank in the table is unknown: the link carries data, but times over it are not "
        "predicted. The formats of the table and of --json are in docs/formats-wan.md.",
    .flags = flags,
    .flag_count = sizeof flags / sizeof flags[0],
    .run = ap_verb_routes,
};

struct routes {
    const struct routes_flags *f;
    struct ap_wan *wan;
    struct ap_synth *synth;
    struct ap_wan_ring ring;
    struct ap_wan_latency latency;
    int has_ring, has_latency;
    double time_trees, time_latency, time_ring; /* s, NaN: unknown or none */
};

static const char *const caps_words[] = {"site", "pair"}, *const codec_words[] = {"additive", "opaque"};

static void routes_clear(struct routes *r)
{
    ap_wan_destroy(r->wan);
    ap_synth_destroy(r->synth);
    ap_wan_ring_clear(&r->ring);
    ap_wan_latency_clear(&r->latency);
}

static ap_status routes_make(struct routes *r, struct ap_error *err)
{
    double bytes = (double)r->f->bytes;
    AP_TRY(ap_wan_load(r->f->topology, &r->wan, err));
    AP_TRY(ap_synth_trees(r->wan, r->f->caps, r->f->codec, &r->synth, err));
    if (ap_wan_ring_best(r->wan, &r->ring, &r->has_ring) != AP_OK ||
        ap_wan_latency_tree(r->wan, r->f->caps, r->f->codec, &r->latency, &r->has_latency) != AP_OK)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for the rings of %d sites", r->wan->n);
    /* A ring sums on its way: none for opaque codecs. */
    if (r->has_ring && r->f->codec == AP_CODEC_OPAQUE) {
        ap_wan_ring_clear(&r->ring);
        r->has_ring = 0;
    }
    r->time_trees = ap_wan_time_trees(r->wan, r->synth, bytes);
    r->time_latency = r->has_latency ? ap_wan_time_latency(&r->latency, bytes) : NAN;
    r->time_ring = r->has_ring ? ap_wan_time_ring(r->wan, &r->ring, bytes) : NAN;
    return AP_OK;
}

/* The quickest of the three; the trees where times are not known. */
static const char *quickest(const struct routes *r)
{
    const char *best = "trees";
    double least = isnan(r->time_trees) ? INFINITY : r->time_trees;
    if (r->time_latency < least) {
        best = "latency_tree";
        least = r->time_latency;
    }
    return r->time_ring < least ? "best_ring" : best;
}

/* Below so many bytes the latency tree is predicted to be quicker than the trees; NaN: unknown. */
static double crossover(const struct routes *r)
{
    if (!r->has_latency || r->latency.tree.rate >= r->synth->throughput)
        return NAN;
    double delay = ap_wan_time_trees(r->wan, r->synth, 0) - ap_wan_time_latency(&r->latency, 0);
    return delay * 1e9 / 8 / (1 / r->latency.tree.rate - 1 / r->synth->throughput);
}

static void json_links(struct ap_json *j, const char *key, const struct ap_wan *w, const int *next, int towards)
{
    ap_json_begin_array(j, key);
    for (int v = 0; v < w->n; v++) {
        if (next[v] < 0)
            continue;
        ap_json_begin_array(j, NULL);
        ap_json_str(j, NULL, w->names[towards ? v : next[v]]);
        ap_json_str(j, NULL, w->names[towards ? next[v] : v]);
        ap_json_end_array(j);
    }
    ap_json_end_array(j);
}

static void json_tree(struct ap_json *j, const char *key, const struct routes *r, const struct ap_synth_tree *t)
{
    ap_json_begin_object(j, key);
    ap_json_real(j, "gbit_per_s", t->rate);
    ap_json_str(j, "root", r->wan->names[t->root]);
    ap_json_real(j, "delay_ms", ap_wan_tree_delay(r->wan, t));
    json_links(j, "in", r->wan, t->in, 1);
    json_links(j, "out", r->wan, t->out, 0);
    ap_json_end_object(j);
}

/* The prices behind the bound: anyone can check that no column is cheaper than 1 and that capacities times prices sum
 * up to the bound. */
static void json_certificate(struct ap_json *j, const struct routes *r)
{
    const struct ap_synth *s = r->synth;
    ap_json_begin_object(j, "certificate");
    ap_json_begin_array(j, "links");
    for (int e = 0; e < s->n * s->n; e++)
        if (s->link_price[e] > 0) {
            ap_json_begin_array(j, NULL);
            ap_json_str(j, NULL, r->wan->names[e / s->n]);
            ap_json_str(j, NULL, r->wan->names[e % s->n]);
            ap_json_real(j, NULL, s->link_price[e]);
            ap_json_end_array(j);
        }
    ap_json_end_array(j);
    for (int side = 0; side < 2; side++) {
        const double *price = side == 0 ? s->egress : s->ingress;
        ap_json_begin_array(j, side == 0 ? "egress" : "ingress");
        for (int i = 0; i < s->n; i++)
            if (price[i] > 0) {
                ap_json_begin_array(j, NULL);
                ap_json_str(j, NULL, r->wan->names[i]);
                ap_json_real(j, NULL, price[i]);
                ap_json_end_array(j);
            }
        ap_json_end_array(j);
    }
    ap_json_end_object(j);
}

static void json_ring(struct ap_json *j, const struct routes *r)
{
    if (!r->has_ring) {
        ap_json_null(j, "best_ring");
        ap_json_null(j, "bound_over_best_ring");
        return;
    }
    ap_json_begin_object(j, "best_ring");
    ap_json_real(j, "gbit_per_s", r->ring.rate);
    ap_json_real(j, "slowest_link_gbit_per_s", r->ring.slowest);
    ap_json_bool(j, "exact", r->ring.exact);
    ap_json_begin_array(j, "order");
    for (int k = 0; k < r->wan->n; k++)
        ap_json_str(j, NULL, r->wan->names[r->ring.order[k]]);
    ap_json_end_array(j);
    ap_json_end_object(j);
    ap_json_real(j, "bound_over_best_ring", r->synth->bound / r->ring.rate);
}

static void json_times(struct ap_json *j, const struct routes *r)
{
    ap_json_int(j, "bytes", r->f->bytes);
    ap_json_begin_object(j, "predicted_s");
    ap_json_real(j, "trees", r->time_trees);
    ap_json_real(j, "latency_tree", r->time_latency);
    ap_json_real(j, "best_ring", r->time_ring);
    ap_json_end_object(j);
    ap_json_str(j, "quickest", quickest(r));
    ap_json_real(j, "latency_tree_below_bytes", crossover(r));
    ap_json_real(j, "usd_per_gb", ap_wan_usd_per_gb(r->wan, r->synth, r->f->codec));
}

static ap_status print_json(const struct routes *r, struct ap_error *err)
{
    struct ap_json j = {.indent = 1};
    const struct ap_synth *s = r->synth;
    ap_json_begin_object(&j, NULL);
    ap_json_str(&j, "format", "antipode-routes");
    ap_json_int(&j, "version", 1);
    ap_json_str(&j, "topology", r->f->topology);
    ap_json_str(&j, "caps", caps_words[r->f->caps]);
    ap_json_str(&j, "codec", codec_words[r->f->codec]);
    ap_json_begin_array(&j, "sites");
    for (int i = 0; i < s->n; i++)
        ap_json_str(&j, NULL, r->wan->names[i]);
    ap_json_end_array(&j);
    ap_json_bool(&j, "directed", r->wan->directed);
    ap_json_real(&j, "gbit_per_s", s->throughput);
    ap_json_real(&j, "bound_gbit_per_s", s->bound);
    ap_json_real(&j, "achieved_over_bound", s->throughput / s->bound);
    json_ring(&j, r);
    ap_json_real(&j, "listed_ring_gbit_per_s",
                 r->f->codec == AP_CODEC_OPAQUE || ap_wan_ring_listed(r->wan) == 0 ? NAN : ap_wan_ring_listed(r->wan));
    json_times(&j, r);
    if (r->has_latency)
        json_tree(&j, "latency_tree", r, &r->latency.tree);
    else
        ap_json_null(&j, "latency_tree");
    ap_json_real(&j, "delay_floor_ms", r->has_latency ? r->latency.floor_ms : NAN);
    ap_json_begin_array(&j, "trees");
    for (int k = 0; k < s->tree_count; k++)
        json_tree(&j, NULL, r, &s->trees[k]);
    ap_json_end_array(&j);
    json_certificate(&j, r);
    ap_json_end_object(&j);
    char *text = ap_strbuf_take(&j.text);
    if (text == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for the routes");
    ap_out("%s\n", text);
    free(text);
    return AP_OK;
}

static void print_time(const char *label, double rate, double time, const char *note)
{
    if (isnan(time))
        ap_out("  %-14s %9.3f %12s  %s\n", label, rate, "unknown", note);
    else
        ap_out("  %-14s %9.3f %12.6g  %s\n", label, rate, time, note);
}

static void print_links(const struct ap_wan *w, const char *label, const int *next, int towards)
{
    ap_out("      %-4s", label);
    for (int v = 0; v < w->n; v++)
        if (next[v] >= 0)
            ap_out(" %s>%s", w->names[towards ? v : next[v]], w->names[towards ? next[v] : v]);
    ap_out("\n");
}

static void print_ring(const struct routes *r)
{
    ap_out("best ring%s:", r->ring.exact ? "" : " found");
    for (int k = 0; k < r->wan->n; k++)
        ap_out(" %s", r->wan->names[r->ring.order[k]]);
    ap_out("\n  bound over best ring %.3f, trees over best ring %.3f\n", r->synth->bound / r->ring.rate,
           r->synth->throughput / r->ring.rate);
}

static void print_table(const struct routes *r)
{
    const struct ap_synth *s = r->synth;
    double cross = crossover(r);
    ap_out("%d sites, %s caps, %s codec, links %s\n", s->n, caps_words[r->f->caps], codec_words[r->f->codec],
           r->wan->directed ? "by direction" : "the same both ways");
    ap_out("%d trees: %.4f Gbit/s, bound %.4f, achieved/bound %.4f\n", s->tree_count, s->throughput, s->bound,
           s->throughput / s->bound);
    ap_out("  %-14s %9s %12s  for %" PRId64 " bytes\n", "", "Gbit/s", "seconds", r->f->bytes);
    print_time("trees", s->throughput, r->time_trees, "");
    if (r->has_latency)
        print_time("latency tree", r->latency.tree.rate, r->time_latency, r->wan->names[r->latency.tree.root]);
    else
        ap_out("  latency tree   none: the known round trips do not join all sites\n");
    if (r->has_ring)
        print_time("best ring", r->ring.rate, r->time_ring, "");
    else
        ap_out("  best ring      none%s\n",
               r->f->codec == AP_CODEC_OPAQUE ? ": opaque parts cannot be summed on the way" : "");
    ap_out("quickest: %s\n", quickest(r));
    if (!isnan(cross))
        ap_out("below %.3g bytes the latency tree is quicker than the trees\n", cross);
    if (r->has_ring)
        print_ring(r);
    for (int k = 0; k < s->tree_count; k++) {
        const struct ap_synth_tree *t = &s->trees[k];
        double d = ap_wan_tree_delay(r->wan, t);
        ap_out("tree %d: %.4f Gbit/s, root %s, ", k + 1, t->rate, r->wan->names[t->root]);
        if (isnan(d))
            ap_out("delay unknown\n");
        else
            ap_out("delay %.2f ms\n", d);
        print_links(r->wan, "in", t->in, 1);
        print_links(r->wan, "out", t->out, 0);
    }
}

int ap_verb_routes(int argc, char **argv)
{
    struct ap_cli_args args;
    struct routes_flags f = {0};
    struct ap_error err = {0};
    struct routes r = {.f = &f};
    int code = ap_cli_begin(&ap_verb_desc_routes, argc, argv, &args, &f);
    if (code >= 0)
        return code;
    ap_status status = routes_make(&r, &err);
    if (status == AP_OK && args.json)
        status = print_json(&r, &err);
    else if (status == AP_OK)
        print_table(&r);
    routes_clear(&r);
    ap_cli_clear(&ap_verb_desc_routes, &args, &f);
    return ap_cli_end(status, &err);
}
