/* SPDX-License-Identifier: Apache-2.0
 * Flows between simulated ranks over link_sim. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "probe/probe_sim.h"
#include "wan/link_sim.h"

#define NOTE_BYTES  64
#define SEGMENT_MIN 1500
#define SEGMENT_MAX (256 << 10)
#define SEGMENT_LAN (1 << 20) /* the most inside of a site, where nothing shares a line */
#define SEGMENT_S   1e-4      /* a segment takes so long on the slowest line: small against what is measured */

/* What timers and packets point to; the first member of each. */
enum thing { RANK_TIMER, FLOW_PUMP, SEGMENT, RESEND };

struct message {
    enum thing thing; /* SEGMENT: packets point to the message itself */
    struct flow *flow;
    struct ap_probe_note note;
    int bulk;
    int64_t unsent, missing; /* bytes */
    struct message *next;
};

struct resend {
    enum thing thing;
    struct message *message;
    int64_t bytes;
};

struct flow {
    enum thing thing; /* FLOW_PUMP */
    int from, to;
    int route[AP_LINK_SIM_HOPS], hops;
    double rate, rtt; /* bytes per second of the slowest line, 0: no limit; s */
    int link;         /* number of the link between sites, -1: none */
    double link_rate; /* bytes per second, 0: no limit */
    double window, sent_of_window;
    int pumping, busy;                      /* busy: counted among the flows of its link */
    struct message *first, *last, *sending; /* in order; delivered ones are gone */
    struct message *notes, **notes_end;
    int64_t bulk_ready, notes_wanted, bulk_wanted;
    struct flow *hash_next;
};

struct rank_timer {
    enum thing thing;
    int rank;
};

struct node {
    int site, first_rank, ranks, card; /* card: line of what it sends to other nodes */
    int *inside;                       /* [ranks * ranks] lines */
};

struct event_queue {
    struct ap_probe_event *events;
    size_t head, count, room;
};

struct sim {
    struct ap_link_sim *links;
    struct ap_probe_sim_site *sites;
    int site_count, node_count, rank_count;
    struct node *nodes;
    int *node_of;
    struct ap_probe_sim_window window;
    int *busy;      /* [sites * sites] flows that send over a link */
    double barrier; /* s: the longest round trip */
    struct flow **table;
    size_t table_size;
    struct event_queue out;
};

static double now(struct ap_probe_net *net)
{
    struct sim *s = net->impl;
    return (double)ap_link_sim_now(s->links) * 1e-9;
}

static ap_status emit(struct sim *s, const struct ap_probe_event *e)
{
    struct event_queue *q = &s->out;
    if (q->count == q->room) {
        size_t room = 2 * q->room + 64;
        struct ap_probe_event *grown = malloc(room * sizeof *grown);
        if (grown == NULL)
            return AP_ERR_NOMEM;
        for (size_t i = 0; i < q->count; i++)
            grown[i] = q->events[(q->head + i) % q->room];
        free(q->events);
        *q = (struct event_queue){grown, 0, q->count, room};
    }
    q->events[(q->head + q->count++) % q->room] = *e;
    return AP_OK;
}

/* ---- ways */

static void find_route(const struct sim *s, struct flow *f)
{
    int a = s->node_of[f->from], b = s->node_of[f->to];
    const struct node *from = &s->nodes[a], *to = &s->nodes[b];
    if (a == b) {
        f->route[f->hops++] = from->inside[(f->from - from->first_rank) * from->ranks + f->to - to->first_rank];
        return;
    }
    f->route[f->hops++] = from->card;
    if (from->site != to->site)
        f->hops += ap_link_sim_route(s->links, from->site, to->site, f->route + f->hops);
}

static double way_delay(const struct sim *s, const struct flow *f)
{
    double ms = 0;
    for (int i = 0; i < f->hops; i++)
        ms += ap_link_sim_line(s->links, f->route[i])->params.delay_ms;
    return ms * 1e-3;
}

static double window_most(const struct sim *s)
{
    return s->window.most > 0 ? (double)s->window.most : INFINITY;
}

static struct flow *find_flow(struct sim *s, int from, int to)
{
    size_t key = ((size_t)from * 2654435761u ^ (size_t)to * 40503u * 65537u) % s->table_size;
    for (struct flow *f = s->table[key]; f != NULL; f = f->hash_next)
        if (f->from == from && f->to == to)
            return f;
    struct flow *f = calloc(1, sizeof *f), back = {.from = to, .to = from};
    if (f == NULL)
        return NULL;
    *f = (struct flow){.thing = FLOW_PUMP, .from = from, .to = to, .hash_next = s->table[key]};
    f->notes_end = &f->notes;
    find_route(s, f);
    find_route(s, &back);
    f->rtt = way_delay(s, f) + way_delay(s, &back);
    for (int i = 0; i < f->hops; i++) {
        double rate = ap_link_sim_line(s->links, f->route[i])->params.rate_mbit * 1e6 / 8;
        f->rate = rate <= 0 ? f->rate : f->rate <= 0 ? rate : fmin(f->rate, rate);
    }
    int a = s->nodes[s->node_of[from]].site, b = s->nodes[s->node_of[to]].site;
    f->link = a == b ? -1 : a * s->site_count + b;
    if (f->link >= 0)
        f->link_rate = ap_link_sim_line(s->links, ap_link_sim_link(s->links, a, b))->params.rate_mbit * 1e6 / 8;
    f->window = window_most(s);
    if (s->window.first > 0)
        f->window = fmin(f->window, (double)s->window.first);
    s->table[key] = f;
    return f;
}

/* ---- sending */

static void set_busy(struct sim *s, struct flow *f, int busy)
{
    if (f->link >= 0)
        s->busy[f->link] += busy - f->busy;
    f->busy = busy;
}

/* What the flow may send a second, 0: no limit: the slowest line's rate, an equal part of the link's. */
static double flow_rate(const struct sim *s, const struct flow *f)
{
    double part = f->link >= 0 ? f->link_rate / s->busy[f->link] : 0;
    return part <= 0 ? f->rate : fmin(f->rate, part);
}

/* One segment of the flow, then a timer for the next: by its rate, or by a window each round trip. */
static ap_status pump(struct sim *s, struct flow *f)
{
    double most = f->link >= 0 ? SEGMENT_MAX : SEGMENT_LAN;
    f->pumping = 0;
    while (f->sending != NULL) {
        struct message *m = f->sending;
        set_busy(s, f, 1);
        double rate = flow_rate(s, f), segment = rate > 0 ? fmin(fmax(rate * SEGMENT_S, SEGMENT_MIN), most) : most;
        int64_t bytes = (int64_t)fmin(segment, fmin((double)m->unsent, f->window));
        bytes = bytes < 1 ? 1 : bytes;
        m->unsent -= bytes;
        if (m->unsent <= 0)
            f->sending = m->next;
        AP_TRY(ap_link_sim_send(s->links, f->route, f->hops, bytes, m));
        double wait = rate > 0 ? (double)bytes / rate : 0;
        if (f->window < INFINITY)
            wait = fmax(wait, (double)bytes / f->window * f->rtt);
        f->sent_of_window += (double)bytes;
        if (f->sent_of_window >= f->window) {
            f->sent_of_window = 0;
            f->window = fmin(2 * f->window, window_most(s));
        }
        if (wait > 0) {
            f->pumping = 1;
            return ap_link_sim_timer(s->links, (int64_t)llround(wait * 1e9), f);
        }
    }
    set_busy(s, f, 0);
    return AP_OK;
}

static ap_status post(struct ap_probe_net *net, int from, int to, const struct message *what)
{
    struct sim *s = net->impl;
    struct flow *f = find_flow(s, from, to);
    struct message *m = malloc(sizeof *m);
    if (f == NULL || m == NULL) {
        free(m);
        return AP_ERR_NOMEM;
    }
    *m = *what;
    m->thing = SEGMENT;
    m->flow = f;
    m->missing = m->unsent;
    if (f->first == NULL)
        f->first = m;
    else
        f->last->next = m;
    f->last = m;
    if (f->sending == NULL)
        f->sending = m;
    return f->pumping ? AP_OK : pump(s, f);
}

static ap_status sim_note(struct ap_probe_net *net, int from, int to, const struct ap_probe_note *note)
{
    return post(net, from, to, &(struct message){.note = *note, .unsent = NOTE_BYTES});
}

static ap_status sim_bulk(struct ap_probe_net *net, int from, int to, int64_t bytes, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        AP_TRY(post(net, from, to, &(struct message){.bulk = 1, .unsent = bytes}));
    return AP_OK;
}

/* ---- receiving */

/* Tell the rank what has come and is wanted. */
static ap_status deliver(struct sim *s, struct flow *f)
{
    struct ap_probe_event e = {.rank = f->to, .peer = f->from, .time = (double)ap_link_sim_now(s->links) * 1e-9};
    while (f->notes != NULL && f->notes_wanted > 0) {
        struct message *m = f->notes;
        f->notes = m->next;
        if (f->notes == NULL)
            f->notes_end = &f->notes;
        e.kind = AP_PROBE_NOTE;
        e.note = m->note;
        free(m);
        f->notes_wanted--;
        AP_TRY(emit(s, &e));
    }
    while (f->bulk_ready > 0 && f->bulk_wanted > 0) {
        f->bulk_ready--;
        f->bulk_wanted--;
        e.kind = AP_PROBE_BULK;
        AP_TRY(emit(s, &e));
    }
    return AP_OK;
}

static ap_status arrived(struct sim *s, struct message *m, int64_t bytes)
{
    struct flow *f = m->flow;
    m->missing -= bytes;
    while (f->first != NULL && f->first->missing <= 0) {
        struct message *head = f->first;
        f->first = head->next;
        if (head->bulk) {
            f->bulk_ready++;
            free(head);
            continue;
        }
        head->next = NULL;
        *f->notes_end = head;
        f->notes_end = &head->next;
    }
    return deliver(s, f);
}

static ap_status expect(struct ap_probe_net *net, int at, int from, int64_t notes, int64_t bulk)
{
    struct sim *s = net->impl;
    struct flow *f = find_flow(s, from, at);
    if (f == NULL)
        return AP_ERR_NOMEM;
    f->notes_wanted += notes;
    f->bulk_wanted += bulk;
    return deliver(s, f);
}

static ap_status sim_expect_note(struct ap_probe_net *net, int at, int from)
{
    return expect(net, at, from, 1, 0);
}

static ap_status sim_expect_bulk(struct ap_probe_net *net, int at, int from, int64_t bytes, int64_t count)
{
    (void)bytes;
    return expect(net, at, from, 0, count);
}

static ap_status sim_timer(struct ap_probe_net *net, int rank, double seconds)
{
    struct sim *s = net->impl;
    struct rank_timer *t = malloc(sizeof *t);
    if (t == NULL)
        return AP_ERR_NOMEM;
    *t = (struct rank_timer){RANK_TIMER, rank};
    ap_status status = ap_link_sim_timer(s->links, (int64_t)llround(fmax(seconds, 0) * 1e9), t);
    if (status != AP_OK)
        free(t);
    return status;
}

/* What a lost segment costs: it is sent again a round trip later. */
static ap_status lost(struct sim *s, struct message *m, int64_t bytes)
{
    struct resend *r = malloc(sizeof *r);
    if (r == NULL)
        return AP_ERR_NOMEM;
    *r = (struct resend){RESEND, m, bytes};
    return ap_link_sim_timer(s->links, (int64_t)llround(m->flow->rtt * 1e9) + 1000, r);
}

static ap_status timer_due(struct sim *s, void *item)
{
    enum thing thing = *(enum thing *)item;
    if (thing == FLOW_PUMP)
        return pump(s, item);
    if (thing == RESEND) {
        struct resend r = *(struct resend *)item;
        free(item);
        return ap_link_sim_send(s->links, r.message->flow->route, r.message->flow->hops, r.bytes, r.message);
    }
    struct ap_probe_event e = {.kind = AP_PROBE_TIMER, .rank = ((struct rank_timer *)item)->rank};
    e.time = (double)ap_link_sim_now(s->links) * 1e-9;
    free(item);
    return emit(s, &e);
}

static ap_status sim_next(struct ap_probe_net *net, struct ap_probe_event *event_p)
{
    struct sim *s = net->impl;
    while (s->out.count == 0) {
        struct ap_link_sim_event e;
        AP_TRY(ap_link_sim_next(s->links, &e));
        switch (e.kind) {
        case AP_LINK_SIM_IDLE:
            return AP_ERR_BUG;
        case AP_LINK_SIM_ARRIVED:
            AP_TRY(arrived(s, e.item, e.bytes));
            break;
        case AP_LINK_SIM_LOST:
            AP_TRY(lost(s, e.item, e.bytes));
            break;
        case AP_LINK_SIM_TIMER:
            AP_TRY(timer_due(s, e.item));
            break;
        }
    }
    *event_p = s->out.events[s->out.head];
    s->out.head = (s->out.head + 1) % s->out.room;
    s->out.count--;
    return AP_OK;
}

/* All ranks are here; what the others would wait for it is one round trip of the longest link. */
static ap_status sim_share(struct ap_probe_net *net, struct ap_probe_sample **samples_p, int64_t *count_p)
{
    struct sim *s = net->impl;
    struct ap_probe_event e;
    (void)samples_p;
    (void)count_p;
    AP_TRY(sim_timer(net, 0, s->barrier));
    do
        AP_TRY(sim_next(net, &e));
    while (e.kind != AP_PROBE_TIMER);
    return AP_OK;
}

static const struct ap_probe_net_ops sim_ops = {
    .name = "simulated",
    .now = now,
    .note = sim_note,
    .bulk = sim_bulk,
    .expect_note = sim_expect_note,
    .expect_bulk = sim_expect_bulk,
    .timer = sim_timer,
    .next = sim_next,
    .share = sim_share,
};

/* ---- life */

static ap_status add_node(struct sim *s, int site)
{
    const struct ap_probe_sim_site *at = &s->sites[site];
    struct node *node = &s->nodes[s->node_count];
    struct ap_link_params card = AP_LINK_PARAMS_DEFAULT, inside = AP_LINK_PARAMS_DEFAULT;
    card.delay_ms = at->site_us * 1e-3;
    card.rate_mbit = at->site_gbit * 1e3;
    inside.delay_ms = at->node_us * 1e-3;
    inside.rate_mbit = at->node_gbit * 1e3;
    card.queue_kb = inside.queue_kb = ap_link_keys[ap_link_key_find("queue_kb")].most;
    *node = (struct node){.site = site, .first_rank = s->rank_count, .ranks = at->ranks_per_node};
    node->inside = calloc((size_t)node->ranks * (size_t)node->ranks, sizeof *node->inside);
    s->node_count++;
    if (node->inside == NULL)
        return AP_ERR_NOMEM;
    AP_TRY(ap_link_sim_add(s->links, &card, &node->card));
    for (int i = 0; i < node->ranks * node->ranks; i++)
        AP_TRY(ap_link_sim_add(s->links, &inside, &node->inside[i]));
    for (int r = 0; r < node->ranks; r++)
        s->node_of[s->rank_count++] = s->node_count - 1;
    return AP_OK;
}

static ap_status build(struct sim *s, const struct ap_link_net *net)
{
    size_t n = (size_t)net->n;
    double *egress = calloc(n, sizeof *egress), *ingress = calloc(n, sizeof *ingress);
    ap_status status = egress != NULL && ingress != NULL ? AP_OK : AP_ERR_NOMEM;
    for (size_t i = 0; i < n && status == AP_OK; i++) {
        egress[i] = s->sites[i].egress_mbit;
        ingress[i] = s->sites[i].ingress_mbit;
        for (int k = 0; k < net->n; k++)
            s->barrier = fmax(s->barrier, ap_link_net_rtt_ms(net, (int)i, k) * 1e-3);
    }
    if (status == AP_OK)
        status = ap_link_sim_add_net(s->links, net, egress, ingress);
    for (int i = 0; i < net->n; i++)
        for (int k = 0; k < s->sites[i].nodes && status == AP_OK; k++)
            status = add_node(s, i);
    free(egress);
    free(ingress);
    return status;
}

ap_status ap_probe_sim_create(const struct ap_link_net *net, const struct ap_probe_sim_site *sites, uint64_t seed,
                              struct ap_probe_sim_window window, struct ap_probe_net **net_p)
{
    int nodes = 0, ranks = 0;
    for (int i = 0; i < net->n; i++) {
        nodes += sites[i].nodes;
        ranks += sites[i].nodes * sites[i].ranks_per_node;
    }
    struct ap_probe_net *made = calloc(1, sizeof *made);
    struct sim *s = calloc(1, sizeof *s);
    if (made == NULL || s == NULL) {
        free(made);
        free(s);
        return AP_ERR_NOMEM;
    }
    *made = (struct ap_probe_net){.vt = &sim_ops, .locals = ranks, .impl = s};
    s->window = window;
    s->site_count = net->n;
    s->table_size = (size_t)ranks * 16 + 1;
    s->sites = malloc((size_t)net->n * sizeof *s->sites);
    s->nodes = calloc((size_t)nodes + 1, sizeof *s->nodes);
    s->node_of = calloc((size_t)ranks + 1, sizeof *s->node_of);
    s->table = calloc(s->table_size, sizeof(struct flow *));
    s->busy = calloc((size_t)net->n * (size_t)net->n + 1, sizeof *s->busy);
    ap_status status = AP_ERR_NOMEM;
    if (s->sites != NULL && s->nodes != NULL && s->node_of != NULL && s->table != NULL && s->busy != NULL) {
        memcpy(s->sites, sites, (size_t)net->n * sizeof *s->sites);
        status = ap_link_sim_create(seed, &s->links);
    }
    if (status == AP_OK)
        status = build(s, net);
    if (status == AP_OK)
        *net_p = made;
    else
        ap_probe_sim_destroy(made);
    return status;
}

static void free_messages(struct message *m)
{
    while (m != NULL) {
        struct message *next = m->next;
        free(m);
        m = next;
    }
}

void ap_probe_sim_destroy(struct ap_probe_net *net)
{
    if (net == NULL)
        return;
    struct sim *s = net->impl;
    struct ap_link_sim_event e = {.kind = AP_LINK_SIM_IDLE};
    /* Timers that are still set own their items. */
    while (s->links != NULL && ap_link_sim_next(s->links, &e) == AP_OK && e.kind != AP_LINK_SIM_IDLE)
        if (e.kind == AP_LINK_SIM_TIMER && *(enum thing *)e.item != FLOW_PUMP)
            free(e.item);
    for (size_t i = 0; s->table != NULL && i < s->table_size; i++)
        while (s->table[i] != NULL) {
            struct flow *f = s->table[i];
            s->table[i] = f->hash_next;
            free_messages(f->first);
            free_messages(f->notes);
            free(f);
        }
    for (int i = 0; i < s->node_count; i++)
        free(s->nodes[i].inside);
    ap_link_sim_destroy(s->links);
    free(s->table);
    free(s->busy);
    free(s->sites);
    free(s->nodes);
    free(s->node_of);
    free(s->out.events);
    free(s);
    free(net);
}

ap_status ap_probe_sim_places(const struct ap_probe_net *net, struct ap_probe_places *places_p)
{
    const struct sim *s = net->impl;
    int *node = malloc((size_t)s->rank_count * sizeof *node), *site = malloc((size_t)s->node_count * sizeof *site);
    if (node == NULL || site == NULL) {
        free(node);
        free(site);
        return AP_ERR_NOMEM;
    }
    memcpy(node, s->node_of, (size_t)s->rank_count * sizeof *node);
    for (int i = 0; i < s->node_count; i++)
        site[i] = s->nodes[i].site;
    *places_p = (struct ap_probe_places){s->rank_count, s->node_count, s->site_count, node, site};
    return AP_OK;
}
