/* SPDX-License-Identifier: Apache-2.0
 * antipode probe: the machine under the processes that were started, measured and written down. */
#include "config.h"

#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "cli/verbs.h"
#include "parallel/world.h"
#include "probe/host_facts.h"
#include "probe/probe_comm.h"
#include "train/environment.h"
#include "train/group_speed.h"
#include "train/peak.h"
#include "train/rank_speed.h"

#define GEMM_SIZE  1024
#define COPY_BYTES ((size_t)64 << 20)
#define COPIES     5
#define JOB_MEMORY 0.5 /* of a rank's memory: what the model measured may take */

/* --sites taken apart: sites[name[i]] has the hosts that fit pattern[i]. */
struct site_rules {
    char *text; /* owned; all others point into it */
    const char *patterns[AP_TOPO_MAX_SITES], *names[AP_TOPO_MAX_SITES];
    int site[AP_TOPO_MAX_SITES]; /* of each pattern */
    int count, sites;
};

struct probe {
    const struct ap_probe_flags *f;
    struct ap_job *job; /* NULL: none was given */
    char measured_by[256], job_identity[33];
    struct site_rules rules;
    struct ap_world world;
    struct ap_probe_fact *facts; /* [ranks] */
    struct ap_probe_places places;
    struct ap_probe_result result;
    const char *site_names[AP_TOPO_MAX_SITES];
};

static ap_status bad_rule(const char *part, struct ap_error *err)
{
    ap_error_set(err, AP_ERR_USAGE, "--sites: '%.80s' is not NAME=PATTERN", part);
    ap_error_hint(err, "--sites 'oslo=a*,perth=b*'");
    return AP_ERR_USAGE;
}

static ap_status parse_sites(const char *text, struct site_rules *r, struct ap_error *err)
{
    if (text == NULL)
        return AP_OK;
    r->text = strdup(text);
    if (r->text == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    for (char *part = r->text, *next; part != NULL; part = next) {
        next = strchr(part, ',');
        if (next != NULL)
            *next++ = '\0';
        char *equals = strchr(part, '=');
        if (equals == NULL || equals == part || equals[1] == '\0')
            return bad_rule(part, err);
        if (r->count == AP_TOPO_MAX_SITES)
            return ap_error_set(err, AP_ERR_USAGE, "--sites has more than %d patterns", AP_TOPO_MAX_SITES);
        *equals = '\0';
        int site = 0;
        while (site < r->sites && strcmp(r->names[site], part) != 0)
            site++;
        r->names[site] = part;
        r->sites += site == r->sites;
        r->patterns[r->count] = equals + 1;
        r->site[r->count++] = site;
    }
    return AP_OK;
}

/* Bytes read and written per second by copies in the backend's memory; the best of a few. */
static ap_status copy_speed(struct ap_backend *be, double *bytes_s_p)
{
    void *mem[2] = {NULL, NULL};
    double best = 0;
    ap_status st = AP_OK;
    for (int i = 0; i < 2 && st == AP_OK; i++) {
        st = be->vt->alloc(be, COPY_BYTES, &mem[i]);
        if (st == AP_OK)
            st = be->vt->fill_zero(be->stream, mem[i], COPY_BYTES);
    }
    for (int k = 0; k <= COPIES && st == AP_OK; k++) { /* the first one touches the pages */
        double t = ap_clock_monotonic();
        st = be->vt->copy(be->stream, mem[1], mem[0], COPY_BYTES);
        if (st == AP_OK)
            st = be->vt->stream_sync(be->stream);
        t = ap_clock_monotonic() - t;
        if (k > 0 && t > 0)
            best = fmax(best, 2.0 * (double)COPY_BYTES / t);
    }
    for (int i = 0; i < 2; i++)
        if (mem[i] != NULL)
            be->vt->release(be, mem[i]);
    *bytes_s_p = best;
    return st;
}

static ap_status product_speed(struct probe *p, struct ap_backend *be, struct ap_probe_fact *fact, struct ap_error *err)
{
    ap_dtype dtype = strcmp(p->f->dtype, "bf16") == 0 ? AP_BF16 : AP_F32;
    ap_status st = ap_peak_gemm(be, dtype, GEMM_SIZE, p->f->quick ? 0.1 : 0.5, &fact->flops);
    if (st == AP_OK)
        st = copy_speed(be, &fact->memory_bandwidth);
    snprintf(p->measured_by, sizeof p->measured_by,
             "products of matrices of %d x %d in %s, which a step does not reach", GEMM_SIZE, GEMM_SIZE, p->f->dtype);
    return st == AP_OK
               ? st
               : ap_error_set(err, st, "the backend %s cannot multiply matrices of %s", p->f->backend, p->f->dtype);
}

/* What a rank and its node's ranks together take for the parts of the job's step. */
struct job_speed {
    struct ap_comm *node, *pair; /* pair: two ranks of the node, or none */
    struct ap_rank_speed rank;
    struct ap_group_speed group;
};

/* Collective. */
static ap_status split_nodes(struct probe *p, struct job_speed *s, struct ap_error *err)
{
    int at = p->world.node_rank, single = p->world.node_ranks % 2 == 1 && at == p->world.node_ranks - 1;
    ap_status st = ap_comm_split(p->world.comm, p->world.node_first, p->world.comm->rank, &s->node);
    if (st == AP_OK)
        st = ap_comm_split(s->node, single ? -1 : at / 2, at, &s->pair);
    return st == AP_OK ? AP_OK : ap_error_set(err, st, "the processes cannot be measured: %s", ap_status_name(st));
}

/* A collective in step takes what it takes in a row, and waiting: as latency, since it comes once for each. */
static ap_status take_waits(struct job_speed *s, struct ap_topo_link *group_p)
{
    int64_t ps = (int64_t)(1e12 * (s->rank.call_s - s->rank.call_bytes / s->group.group.bandwidth));
    *group_p = s->group.group;
    AP_TRY(ap_comm_max_i64(s->node, &ps, 1));
    group_p->latency = fmax(group_p->latency, 1e-12 * (double)ps);
    return AP_OK;
}

static ap_status job_parts(struct probe *p, struct ap_backend *be, struct job_speed *s, struct ap_probe_fact *fact,
                           struct ap_error *err)
{
    struct ap_rank_speed_options o = {.job = p->job,
                                      .be = be,
                                      .seconds = p->f->quick ? 0.5 : 3,
                                      .memory = JOB_MEMORY * fact->memory,
                                      .tensor = p->world.node_ranks > 1,
                                      .expert = p->world.comm->size > 1};
    AP_TRY(split_nodes(p, s, err));
    o.pair = s->pair;
    AP_TRY(ap_comm_agree(p->world.comm, ap_rank_speed(&o, &s->rank, err), NULL, err));
    AP_TRY(ap_group_speed(p->job, s->node, be, &s->group, err));
    fact->flops = s->rank.flops_s;
    fact->memory_bandwidth = s->rank.update_bytes_s;
    fact->work = s->rank.work;
    fact->sum = s->group.sum;
    return s->group.group.bandwidth > 0 ? take_waits(s, &fact->group) : AP_OK;
}

/* Collective: the job's micro-batches and updates on each rank by itself, then those of a node together. */
static ap_status job_speed(struct probe *p, struct ap_backend *be, int threads, struct ap_probe_fact *fact,
                           struct ap_error *err)
{
    const struct ap_job *job = p->job;
    struct job_speed s = {0};
    ap_status st = job_parts(p, be, &s, fact, err);
    ap_comm_destroy(s.pair);
    ap_comm_destroy(s.node);
    snprintf(p->measured_by, sizeof p->measured_by,
             "micro-batches of %s (%lld of %lld layers, %lld x %lld tokens, %s, %d thread%s a rank), median", job->name,
             (long long)s.rank.layers, (long long)job->model.cfg.layers, (long long)job->batch.micro_sequences,
             (long long)job->data.seq_len, ap_dtype_name((ap_dtype)job->dtype), threads, threads == 1 ? "" : "s");
    return st;
}

/* All ranks at once, as in training. */
static ap_status own_speed(struct probe *p, struct ap_probe_fact *fact, struct ap_error *err)
{
    struct ap_pool *pool = NULL;
    struct ap_backend *be = NULL;
    int64_t wanted = p->f->threads <= 0 && p->job != NULL ? p->job->threads : p->f->threads;
    int threads = wanted > 0 ? (int)wanted : ap_environment_threads(p->world.node_ranks);
    const char *backend = p->job != NULL && strcmp(p->f->backend, "auto") == 0 ? p->job->backend : p->f->backend;
    AP_TRY(ap_pool_create(threads, &pool, err));
    ap_status st = ap_backend_open(backend, p->world.node_rank, pool, &be, err);
    int gpu = st == AP_OK && !be->vt->is_host ? p->world.node_rank : -1;
    if (st == AP_OK)
        st = ap_host_facts(gpu, fact, err);
    if (st == AP_OK && gpu < 0)
        fact->memory /= p->world.node_ranks;
    /* Those that are quicker at the start wait for the others. */
    ap_status all = ap_comm_agree(p->world.comm, st, NULL, err);
    if (all == AP_OK) {
        st = p->job != NULL ? job_speed(p, be, threads, fact, err) : product_speed(p, be, fact, err);
        all = ap_comm_agree(p->world.comm, st, NULL, err);
    }
    ap_backend_close(be);
    ap_pool_destroy(pool);
    return all;
}

static ap_status gather_facts(struct probe *p, struct ap_error *err)
{
    int n = p->world.comm->size;
    struct ap_probe_fact mine = {0};
    AP_TRY(own_speed(p, &mine, err));
    mine.node_first = p->world.node_first;
    p->facts = calloc((size_t)n, sizeof *p->facts);
    p->places.node = calloc((size_t)n, sizeof *p->places.node);
    p->places.site = calloc((size_t)n, sizeof *p->places.site);
    int64_t *bytes = calloc((size_t)n, sizeof *bytes);
    int have = p->facts != NULL && p->places.node != NULL && p->places.site != NULL && bytes != NULL;
    ap_status st = ap_comm_agree(p->world.comm, have ? AP_OK : AP_ERR_NOMEM, NULL, NULL);
    for (int r = 0; r < n && st == AP_OK; r++)
        bytes[r] = sizeof mine;
    if (st == AP_OK)
        st = ap_comm_allgatherv(p->world.comm, &mine, bytes, p->facts);
    free(bytes);
    return st == AP_OK ? AP_OK : ap_error_set(err, st, "the processes cannot tell each other where they are");
}

static int rule_of(const struct site_rules *r, const char *host)
{
    for (int i = 0; i < r->count; i++)
        if (fnmatch(r->patterns[i], host, 0) == 0)
            return i;
    return -1;
}

/* Nodes by the first rank of each; sites by the rules, numbered in the order in which they come. */
static ap_status find_places(struct probe *p, struct ap_error *err)
{
    struct ap_probe_places *at = &p->places;
    int number[AP_TOPO_MAX_SITES];
    at->ranks = p->world.comm->size;
    for (int i = 0; i < AP_TOPO_MAX_SITES; i++)
        number[i] = -1;
    for (int r = 0; r < at->ranks; r++) {
        const struct ap_probe_fact *f = &p->facts[r];
        if (f->node_first != r) {
            at->node[r] = at->node[f->node_first];
            continue;
        }
        at->node[r] = at->nodes++;
        if (p->rules.count == 0)
            continue;
        int rule = rule_of(&p->rules, f->host);
        if (rule < 0) {
            ap_error_set(err, AP_ERR_USAGE, "--sites has no pattern that the host '%s' fits", f->host);
            ap_error_hint(err, "add NAME=%s", f->host);
            return AP_ERR_USAGE;
        }
        int site = p->rules.site[rule];
        if (number[site] < 0) {
            p->site_names[at->sites] = p->rules.names[site];
            number[site] = at->sites++;
        }
        at->site[at->nodes - 1] = number[site];
    }
    return AP_OK;
}

static ap_status measure(struct probe *p, struct ap_error *err)
{
    struct ap_comm *comm = NULL;
    struct ap_probe_net *net = NULL;
    struct ap_probe_options o = p->f->quick ? AP_PROBE_OPTIONS_QUICK : AP_PROBE_OPTIONS_DEFAULT;
    o.streams = (int)p->f->streams;
    if (p->f->seconds > 0) {
        o.most_bytes = (int64_t)((double)o.most_bytes * fmax(1, p->f->seconds / o.seconds));
        o.seconds = o.seconds_least = p->f->seconds;
    }
    ap_status st = ap_comm_split(p->world.comm, 0, p->world.comm->rank, &comm);
    if (st == AP_OK)
        st = ap_probe_comm_create(comm, &net);
    st = ap_comm_agree(p->world.comm, st, NULL, NULL);
    if (st != AP_OK)
        ap_error_set(err, st, "the processes cannot be measured: %s", ap_status_name(st));
    else
        st = ap_probe_run(net, &o, &p->places, &p->result, err);
    ap_probe_comm_destroy(net, st == AP_OK);
    if (st == AP_OK)
        ap_comm_destroy(comm);
    return st;
}

static ap_status write_text(const char *path, char *text, struct ap_error *err)
{
    ap_status st = text != NULL ? ap_io_write_durable(path, text, strlen(text), err)
                                : ap_error_set(err, AP_ERR_NOMEM, "out of memory for %s", path);
    free(text);
    return st;
}

/* On rank 0. */
static ap_status report(struct probe *p, int json, struct ap_error *err)
{
    char date[32];
    struct ap_topology *t = NULL;
    ap_clock_iso(ap_clock_wall(), date);
    struct ap_probe_report r = {.places = &p->places,
                                .result = &p->result,
                                .facts = p->facts,
                                .site_names = p->rules.count > 0 ? p->site_names : NULL,
                                .date = date,
                                .job = p->job != NULL ? p->job->name : NULL,
                                .job_identity = p->job_identity,
                                .measured_by = p->measured_by};
    if (p->job != NULL && ap_work_identity(p->job, p->job_identity) != AP_OK)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    AP_TRY(ap_probe_report_topology(&r, &t, err));
    ap_status st = write_text(p->f->out, ap_probe_report_csv(&r, t), err);
    if (st == AP_OK && p->f->svg != NULL)
        st = write_text(p->f->svg, ap_probe_report_svg(&r, t), err);
    char *text = st != AP_OK ? NULL : json ? ap_probe_report_json(&r, t) : ap_probe_report_text(&r, t);
    if (st == AP_OK && text == NULL)
        st = ap_error_set(err, AP_ERR_NOMEM, "out of memory for the report");
    if (st == AP_OK && json)
        ap_out("%s\n", text);
    else if (st == AP_OK)
        ap_out("%sthe machine is in %s: antipode plan JOB --topology %s\n", text, p->f->out, p->f->out);
    free(text);
    ap_topology_destroy(t);
    return st;
}

/* Before minutes are spent on what cannot be written. */
static ap_status check_folder(const char *path, struct ap_error *err)
{
    char folder[512];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s",
             slash == NULL   ? 1
             : slash == path ? 1
                             : (int)(slash - path),
             slash == NULL ? "." : path);
    if (access(folder, W_OK) == 0)
        return AP_OK;
    return ap_error_set(err, AP_ERR_INPUT, "%.400s cannot be written: %.400s: %s", path, folder, strerror(errno));
}

static ap_status run(struct probe *p, int json, struct ap_error *err)
{
    ap_status folders = AP_OK;
    if (p->world.comm->rank == 0) {
        folders = check_folder(p->f->out, err);
        if (folders == AP_OK && p->f->svg != NULL)
            folders = check_folder(p->f->svg, err);
    }
    AP_TRY(ap_comm_agree(p->world.comm, folders, NULL, err));
    AP_TRY(gather_facts(p, err));
    AP_TRY(find_places(p, err));
    AP_TRY(measure(p, err));
    ap_status st = p->world.comm->rank == 0 ? report(p, json, err) : AP_OK;
    return ap_comm_agree(p->world.comm, st, NULL, err);
}

int ap_tverb_probe(int argc, char **argv)
{
    struct ap_cli_args args;
    struct ap_probe_flags flags = {0};
    struct ap_error err = {0};
    struct probe p = {.f = &flags};
    int code = ap_cli_begin(&ap_verb_desc_probe, argc, argv, &args, &flags);
    if (code >= 0)
        return code;
    ap_status st = parse_sites(flags.sites, &p.rules, &err);
    if (st == AP_OK && args.operand_count > 0)
        st = ap_job_load(args.operands[0], args.sets, args.set_count, &p.job, &err);
    else if (st == AP_OK && args.set_count > 0)
        st = ap_error_set(&err, AP_ERR_USAGE, "--set changes a job, and none is given");
    if (st == AP_OK)
        st = ap_world_init(&p.world, &err);
    if (st == AP_OK) {
        ap_log_setup(AP_LOG_INFO, p.world.comm->size > 1 ? p.world.comm->rank : -1);
        st = run(&p, args.json, &err);
        ap_world_end(&p.world, st != AP_ERR_COMM);
    }
    ap_probe_result_clear(&p.result);
    free(p.facts);
    free(p.places.node);
    free(p.places.site);
    free(p.rules.text);
    ap_job_destroy(p.job);
    ap_cli_clear(&ap_verb_desc_probe, &args, &flags);
    return ap_cli_end(st, &err);
}
