/* SPDX-License-Identifier: Apache-2.0
 * Packets of the simulated network: a heap of what is due, and a free list. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "wan/due_heap.h"
#include "wan/link_sim.h"

struct packet {
    int route[AP_LINK_SIM_HOPS];
    int hop, hops; /* hops -1: a timer */
    int64_t bytes;
    void *item;
    struct packet *next; /* free list */
};

struct ap_link_sim {
    uint64_t seed, events;
    int64_t now_ns;
    struct ap_due_heap due;
    struct ap_link_model *lines;
    int line_count, line_room;
    int sites;                    /* of the matrix, 0: none */
    int *link, *egress, *ingress; /* line numbers, -1: none */
    struct packet *spare;
};

ap_status ap_link_sim_create(uint64_t seed, struct ap_link_sim **s_p)
{
    struct ap_link_sim *s = calloc(1, sizeof *s);
    if (s == NULL)
        return AP_ERR_NOMEM;
    s->seed = seed;
    *s_p = s;
    return AP_OK;
}

void ap_link_sim_destroy(struct ap_link_sim *s)
{
    if (s == NULL)
        return;
    for (struct packet *p; (p = ap_due_heap_take(&s->due)) != NULL;)
        free(p);
    while (s->spare != NULL) {
        struct packet *p = s->spare;
        s->spare = p->next;
        free(p);
    }
    ap_due_heap_clear(&s->due);
    free(s->lines);
    free(s->link);
    free(s->egress);
    free(s->ingress);
    free(s);
}

ap_status ap_link_sim_add(struct ap_link_sim *s, const struct ap_link_params *params, int *line_p)
{
    if (s->line_count == s->line_room) {
        int room = 2 * s->line_room + 16;
        struct ap_link_model *grown = realloc(s->lines, (size_t)room * sizeof *grown);
        if (grown == NULL)
            return AP_ERR_NOMEM;
        s->lines = grown;
        s->line_room = room;
    }
    ap_link_model_init(&s->lines[s->line_count], params, s->seed,
                       (uint64_t)AP_RNG_LINK << 32 | (uint64_t)s->line_count);
    *line_p = s->line_count++;
    return AP_OK;
}

/* One line for every site with a cap. */
static ap_status add_caps(struct ap_link_sim *s, const double *mbit, int *line)
{
    struct ap_link_params p = AP_LINK_PARAMS_DEFAULT;
    p.queue_kb = ap_link_keys[ap_link_key_find("queue_kb")].most;
    for (int i = 0; i < s->sites; i++) {
        line[i] = -1;
        p.rate_mbit = mbit != NULL ? mbit[i] : 0;
        if (p.rate_mbit > 0)
            AP_TRY(ap_link_sim_add(s, &p, &line[i]));
    }
    return AP_OK;
}

ap_status ap_link_sim_add_net(struct ap_link_sim *s, const struct ap_link_net *net, const double *egress_mbit,
                              const double *ingress_mbit)
{
    size_t n = (size_t)net->n;
    if (s->sites > 0)
        return AP_ERR_BUG;
    s->link = calloc(n * n, sizeof *s->link);
    s->egress = calloc(n, sizeof *s->egress);
    s->ingress = calloc(n, sizeof *s->ingress);
    if (s->link == NULL || s->egress == NULL || s->ingress == NULL)
        return AP_ERR_NOMEM;
    s->sites = net->n;
    for (size_t i = 0; i < n * n; i++)
        AP_TRY(ap_link_sim_add(s, &net->links[i].params, &s->link[i]));
    AP_TRY(add_caps(s, egress_mbit, s->egress));
    return add_caps(s, ingress_mbit, s->ingress);
}

int ap_link_sim_route(const struct ap_link_sim *s, int src, int dst, int route[3])
{
    int hops = 0;
    if (s->egress[src] >= 0)
        route[hops++] = s->egress[src];
    route[hops++] = s->link[src * s->sites + dst];
    if (s->ingress[dst] >= 0)
        route[hops++] = s->ingress[dst];
    return hops;
}

int ap_link_sim_link(const struct ap_link_sim *s, int src, int dst)
{
    return s->link[src * s->sites + dst];
}

struct ap_link_model *ap_link_sim_line(struct ap_link_sim *s, int line)
{
    return &s->lines[line];
}

int64_t ap_link_sim_now(const struct ap_link_sim *s)
{
    return s->now_ns;
}

uint64_t ap_link_sim_events(const struct ap_link_sim *s)
{
    return s->events;
}

static ap_status put(struct ap_link_sim *s, const int *route, int hops, int64_t bytes, int64_t due_ns, void *item)
{
    struct packet *p = s->spare;
    if (p != NULL)
        s->spare = p->next;
    else
        p = malloc(sizeof *p);
    if (p == NULL)
        return AP_ERR_NOMEM;
    *p = (struct packet){.hops = hops, .bytes = bytes, .item = item};
    if (hops > 0)
        memcpy(p->route, route, (size_t)hops * sizeof *route);
    if (ap_due_heap_put(&s->due, due_ns, p) == 0)
        return AP_OK;
    free(p);
    return AP_ERR_NOMEM;
}

ap_status ap_link_sim_send(struct ap_link_sim *s, const int *route, int hops, int64_t bytes, void *item)
{
    if (hops < 0 || hops > AP_LINK_SIM_HOPS)
        return AP_ERR_BUG;
    return put(s, route, hops, bytes, s->now_ns, item);
}

ap_status ap_link_sim_timer(struct ap_link_sim *s, int64_t delay_ns, void *item)
{
    return put(s, NULL, -1, 0, s->now_ns + (delay_ns > 0 ? delay_ns : 0), item);
}

static void done(struct ap_link_sim *s, struct packet *p, enum ap_link_sim_kind kind, struct ap_link_sim_event *event_p)
{
    *event_p = (struct ap_link_sim_event){kind, p->item, p->bytes};
    p->next = s->spare;
    s->spare = p;
}

/* A packet that is due stands in front of its next line, or behind the last one. */
ap_status ap_link_sim_next(struct ap_link_sim *s, struct ap_link_sim_event *event_p)
{
    for (;;) {
        const struct ap_due *first = ap_due_heap_first(&s->due);
        if (first == NULL) {
            *event_p = (struct ap_link_sim_event){.kind = AP_LINK_SIM_IDLE};
            return AP_OK;
        }
        s->now_ns = first->due_ns;
        s->events++;
        struct packet *p = ap_due_heap_take(&s->due);
        if (p->hop >= p->hops) {
            done(s, p, p->hops < 0 ? AP_LINK_SIM_TIMER : AP_LINK_SIM_ARRIVED, event_p);
            return AP_OK;
        }
        int64_t arrive_ns;
        if (ap_link_model_send(&s->lines[p->route[p->hop]], s->now_ns, p->bytes, &arrive_ns) != AP_LINK_PASS) {
            done(s, p, AP_LINK_SIM_LOST, event_p);
            return AP_OK;
        }
        p->hop++;
        if (ap_due_heap_put(&s->due, arrive_ns, p) != 0) {
            free(p);
            return AP_ERR_NOMEM;
        }
    }
}
