/* SPDX-License-Identifier: Apache-2.0
 * One loop over the TUN devices, the heap of arrivals, the scenario and the control socket. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "testbed/control.h"
#include "testbed/emulator.h"

#define READS_PER_TURN 64
#define HELD_MAX       ((size_t)1 << 30) /* bytes on their way in all */
#define BEAT_NS        INT64_C(2000000)  /* timer while there is traffic */
#define TRAFFIC_NS     INT64_C(200000000)
#define LOOK_NS        INT64_C(200000)
#define FIFO_PRIORITY  10
#define LARGEST        (65535 + (int)sizeof(struct virtio_net_hdr))
#define EVENTS         32
/* Data of epoll events: a site's number, or one of these; clients come after TAG_CLIENT. */
#define TAG_CONTROL 1000
#define TAG_SIGNAL  1001
#define TAG_CLIENT  2000

struct packet {
    struct packet *next; /* in the free list */
    int src, dst, size;
    int at_gate; /* it waits to enter its site, behind the cap of all that does */
    char data[];
};

int64_t emulator_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static const char *scheduling(int realtime)
{
    struct sched_param p = {.sched_priority = FIFO_PRIORITY};
    if (realtime && sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &p) == 0)
        return "fifo 10";
    return sched_getscheduler(0) == SCHED_IDLE ? "idle" : "normal";
}

static int watch(int epoll, int fd, uint32_t events, uint64_t tag)
{
    struct epoll_event ev = {.events = events, .data.u64 = tag};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
}

/* ns this process has waited for a processor since the last look (second field of schedstat). */
static int64_t waited_ns(struct emulator *e, int64_t now)
{
    char text[100];
    if (e->schedstat < 0 || now - e->looked_ns < LOOK_NS)
        return 0;
    e->looked_ns = now;
    ssize_t n = pread(e->schedstat, text, sizeof text - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    char *at = strchr(text, ' ');
    int64_t seen = at != NULL ? strtoll(at, NULL, 10) : e->delay_seen_ns;
    int64_t waited = seen - e->delay_seen_ns;
    e->delay_seen_ns = seen;
    return waited;
}

ap_status emulator_open(struct emulator *e, struct ap_link_net *net, struct site *sites, int offload, int realtime,
                        struct ap_error *err)
{
    size_t links = (size_t)net->n * (size_t)net->n;
    *e = (struct emulator){.net = net, .sites = sites, .offload = offload, .epoll = -1, .schedstat = -1};
    e->late_ns = calloc(links, sizeof *e->late_ns);
    if (e->late_ns == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for %zu links", links);
    e->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (e->epoll < 0)
        return ap_error_set(err, AP_ERR_ENV, "epoll: %s", strerror(errno));
    for (int i = 0; i < net->n; i++)
        if (watch(e->epoll, sites[i].tun, EPOLLIN, (uint64_t)i) != 0)
            return ap_error_set(err, AP_ERR_ENV, "epoll of %s: %s", sites[i].name, strerror(errno));
    e->scheduling = scheduling(realtime);
    prctl(PR_SET_TIMERSLACK, 1UL);
    e->schedstat = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
    e->start_ns = emulator_now();
    waited_ns(e, e->start_ns); /* the time before does not count */
    e->traffic_ns = e->start_ns - TRAFFIC_NS;
    e->end_ns = INT64_MAX;
    return AP_OK;
}

void emulator_close(struct emulator *e)
{
    for (struct packet *p; (p = ap_due_heap_take(&e->heap)) != NULL;)
        free(p);
    for (struct packet *p = e->free_list, *next; p != NULL; p = next) {
        next = p->next;
        free(p);
    }
    ap_due_heap_clear(&e->heap);
    ap_link_scenario_clear(&e->scenario);
    free(e->late_ns);
    if (e->epoll >= 0)
        close(e->epoll);
    if (e->schedstat >= 0)
        close(e->schedstat);
}

static void late(struct emulator *e, int src, int dst, int64_t ns)
{
    int64_t *worst = &e->late_ns[src * e->net->n + dst];
    if (ns > *worst)
        *worst = ns;
}

/* Small packets have one size of buffer, and a list of used ones. */
static struct packet *packet_new(struct emulator *e, int size)
{
    struct packet *p = size <= SITE_MTU ? e->free_list : NULL;
    if (p != NULL)
        e->free_list = p->next;
    else if (e->held_bytes < HELD_MAX)
        p = malloc(sizeof *p + (size_t)(size < SITE_MTU ? SITE_MTU : size));
    if (p != NULL)
        e->held_bytes += (size_t)size;
    return p;
}

static void packet_done(struct emulator *e, struct packet *p)
{
    e->held_bytes -= (size_t)p->size;
    if (p->size > SITE_MTU) {
        free(p);
        return;
    }
    p->next = e->free_list;
    e->free_list = p;
}

/* Bytes on the line: with offload, a large packet stands for segments with headers of their own. */
static int64_t line_bytes(const struct emulator *e, const char *data, int size)
{
    if (!e->offload)
        return size;
    struct virtio_net_hdr h;
    memcpy(&h, data, sizeof h);
    int64_t bytes = size - (int)sizeof h;
    if (h.gso_type == VIRTIO_NET_HDR_GSO_NONE || h.gso_size == 0 || h.hdr_len >= bytes)
        return bytes;
    return bytes + ((bytes - h.hdr_len - 1) / h.gso_size) * h.hdr_len;
}

/* The site a packet goes to, or -1: not IPv4, or none of ours. */
static int destination(const struct emulator *e, const char *ip, int size)
{
    uint32_t address;
    if (size < 20 || (ip[0] & 0xf0) != 0x40)
        return -1;
    memcpy(&address, ip + 16, sizeof address);
    uint32_t site = ntohl(address) - SITE_NETWORK - 1;
    return site < (uint32_t)e->net->n ? (int)site : -1;
}

/* Behind the cap of a site, if it has one: *ns_p becomes the time then. 0: its queue is full. */
static int through_cap(struct ap_link_model *cap, int64_t *ns_p, int64_t bytes)
{
    return cap->params.rate_mbit <= 0 || ap_link_model_send(cap, *ns_p, bytes, ns_p) == AP_LINK_PASS;
}

/* A packet that came out of a site: its fate, and if it passes, its place in the heap. */
static void accept_packet(struct emulator *e, int src, const char *data, int size, int64_t read_late)
{
    int head = e->offload ? (int)sizeof(struct virtio_net_hdr) : 0;
    int dst = destination(e, data + head, size - head);
    int64_t now = emulator_now(), arrive;
    e->traffic_ns = now;
    if (dst < 0 || dst == src) {
        e->stray += size > head && (data[head] & 0xf0) == 0x40;
        return;
    }
    late(e, src, dst, read_late);
    int64_t bytes = line_bytes(e, data, size);
    if (!through_cap(&e->net->egress[src], &now, bytes) ||
        ap_link_model_send(ap_link_net_link(e->net, src, dst), now, bytes, &arrive) != AP_LINK_PASS)
        return;
    struct packet *p = packet_new(e, size);
    if (p == NULL) {
        e->no_memory++;
        return;
    }
    p->src = src;
    p->dst = dst;
    p->size = size;
    p->at_gate = 0;
    memcpy(p->data, data, (size_t)size);
    if (ap_due_heap_put(&e->heap, arrive, p) != 0) {
        e->no_memory++;
        packet_done(e, p);
    }
}

static void read_site(struct emulator *e, int src, int64_t read_late)
{
    char data[LARGEST];
    for (int i = 0; i < READS_PER_TURN; i++) {
        ssize_t n = read(e->sites[src].tun, data, sizeof data);
        if (n <= 0)
            return;
        accept_packet(e, src, data, (int)n, read_late);
    }
}

/* A packet that has come over its link, to a site that has a cap on all that enters it. */
static void enter_gate(struct emulator *e, struct packet *p, int64_t due)
{
    int passes = through_cap(&e->net->ingress[p->dst], &due, line_bytes(e, p->data, p->size));
    p->at_gate = 1;
    if (passes && ap_due_heap_put(&e->heap, due, p) == 0)
        return;
    e->no_memory += (uint64_t)passes;
    packet_done(e, p);
}

static void deliver(struct emulator *e)
{
    const struct ap_due *first;
    for (int64_t now; (first = ap_due_heap_first(&e->heap)) != NULL && first->due_ns <= (now = emulator_now());) {
        int64_t due = first->due_ns;
        struct packet *p = ap_due_heap_take(&e->heap);
        if (!p->at_gate && e->net->ingress[p->dst].params.rate_mbit > 0) {
            enter_gate(e, p, due);
            continue;
        }
        if (write(e->sites[p->dst].tun, p->data, (size_t)p->size) != p->size)
            e->refused++;
        late(e, p->src, p->dst, now - due);
        e->traffic_ns = now;
        packet_done(e, p);
    }
}

static void play(struct emulator *e)
{
    int64_t since = emulator_now() - e->scenario_start_ns;
    while (e->scenario_next < e->scenario.n && e->scenario.commands[e->scenario_next].at_ns <= since) {
        struct ap_error err;
        char text[512];
        struct ap_link_command *c = &e->scenario.commands[e->scenario_next++];
        if (ap_link_command_apply(e->net, c, e->scenario_start_ns + c->at_ns, &err) != AP_OK) {
            ap_error_format(&err, text, sizeof text);
            fprintf(stderr, "scenario command %d: %s\n", e->scenario_next, text);
        }
    }
}

/* When the loop must run again whatever happens. */
static int64_t next_ns(const struct emulator *e, int64_t now)
{
    int64_t next = e->end_ns;
    const struct ap_due *first = ap_due_heap_first(&e->heap);
    if (first != NULL && first->due_ns < next)
        next = first->due_ns;
    if (e->scenario_next < e->scenario.n) {
        int64_t at = e->scenario_start_ns + e->scenario.commands[e->scenario_next].at_ns;
        next = at < next ? at : next;
    }
    if (now - e->traffic_ns < TRAFFIC_NS && now + BEAT_NS < next)
        next = now + BEAT_NS;
    return next;
}

ap_status emulator_run(struct emulator *e, int control_fd, int signal_fd, struct ap_error *err)
{
    struct control control;
    control_open(&control, e, e->epoll, TAG_CLIENT);
    if (watch(e->epoll, control_fd, EPOLLIN, TAG_CONTROL) != 0 || watch(e->epoll, signal_fd, EPOLLIN, TAG_SIGNAL) != 0)
        return ap_error_set(err, AP_ERR_ENV, "epoll: %s", strerror(errno));
    int stop = 0;
    while (!stop) {
        struct epoll_event events[EVENTS];
        int64_t before = emulator_now(), next = next_ns(e, before), wait = next > before ? next - before : 0;
        struct timespec t = {wait / 1000000000, wait % 1000000000};
        int n = epoll_pwait2(e->epoll, events, EVENTS, &t, NULL);
        int64_t now = emulator_now(), waited = waited_ns(e, now), overslept = now - next;
        int64_t read_late = wait > 0 && overslept > waited ? overslept : waited;
        play(e);
        for (int i = 0; i < n; i++) {
            uint64_t tag = events[i].data.u64;
            if (tag < TAG_CONTROL)
                read_site(e, (int)tag, read_late);
            else if (tag == TAG_CONTROL)
                control_accept(&control, control_fd);
            else if (tag == TAG_SIGNAL)
                stop = 1;
            else
                control_serve(&control, (int)(tag - TAG_CLIENT));
        }
        deliver(e);
        stop |= now >= e->end_ns;
    }
    control_close(&control);
    return AP_OK;
}

void emulator_reset(struct emulator *e)
{
    for (int i = 0; i < e->net->n * e->net->n; i++) {
        e->late_ns[i] = 0;
        memset(e->net->links[i].packets, 0, sizeof e->net->links[i].packets);
        memset(e->net->links[i].bytes, 0, sizeof e->net->links[i].bytes);
    }
    for (int i = 0; i < 2 * e->net->n; i++) {
        struct ap_link_model *cap = i < e->net->n ? &e->net->egress[i] : &e->net->ingress[i - e->net->n];
        memset(cap->packets, 0, sizeof cap->packets);
        memset(cap->bytes, 0, sizeof cap->bytes);
    }
    e->stray = e->refused = e->no_memory = 0;
}

void emulator_scenario(struct emulator *e, struct ap_link_scenario *scenario)
{
    ap_link_scenario_clear(&e->scenario);
    e->scenario = *scenario;
    *scenario = (struct ap_link_scenario){0};
    e->scenario_next = 0;
    e->scenario_start_ns = emulator_now();
}
