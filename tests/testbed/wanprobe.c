/* SPDX-License-Identifier: Apache-2.0
 * Measures a path between two sites of the test bed over UDP and TCP.
 *
 *     serve [SECONDS]                       answer on port 7700 of both protocols until then (default 600)
 *     ping HOST COUNT INTERVAL_MS           round trips: sent, received, least, median and most ms
 *     flood HOST ID MBIT SECONDS [BYTES]    UDP at a rate counted in whole IP packets
 *     report HOST ID                        what the other end got of flood ID: packets, bytes, seconds, least and most
 *                                           one-way ms (sites share one clock)
 *     watch HOST MS SECONDS                 a ping every MS; prints the time each unanswered one was sent, and the
 *                                           round trip of the others: "SECONDS MS" or "SECONDS lost"
 *     stream HOST SECONDS                   TCP: Mbit/s of payload at the receiver, over the second half of the time,
 * and all bytes sent
 *
 * Each but serve ends with "waited_ms X": how long it was kept waiting for a processor, which spoils what it measures.
 * Takes real-time priority where that is allowed, unless AP_TESTBED_REALTIME=0.
 * Exit codes: 0 done, 2 usage, 4 the system refuses, 1 no answer. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PORT      7700
#define HEADERS   28 /* IP and UDP */
#define FLOODS    64
#define LARGEST   1472
#define WATCH_MAX 100000

enum { PING = 1, PONG, DATA, ASK, REPORT };

struct message {
    uint32_t type, id;
    int64_t number, sent_ns;
    struct flood {
        int64_t packets, bytes, first_ns, last_ns, least_ns, most_ns;
    } flood;
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void sleep_until(int64_t ns)
{
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static int fail(const char *what)
{
    fprintf(stderr, "wanprobe: %s: %s\n", what, strerror(errno));
    return 4;
}

/* ms this process has waited for a processor, by the kernel's account; 0 where that is not kept. */
static double waited_ms(void)
{
    char text[100] = {0};
    FILE *f = fopen("/proc/self/schedstat", "re");
    if (f == NULL)
        return 0;
    char *at = fgets(text, sizeof text, f) != NULL ? strchr(text, ' ') : NULL;
    fclose(f);
    return at != NULL ? strtod(at, NULL) * 1e-6 : 0;
}

/* ---- the other end */

static void count_data(struct flood *f, int64_t sent_ns, ssize_t size)
{
    int64_t now = now_ns(), way = now - sent_ns;
    if (f->packets == 0) {
        f->first_ns = now;
        f->least_ns = way;
    }
    f->packets++;
    f->bytes += size + HEADERS;
    f->last_ns = now;
    f->least_ns = way < f->least_ns ? way : f->least_ns;
    f->most_ns = way > f->most_ns ? way : f->most_ns;
}

static void serve_udp(int fd, struct flood floods[FLOODS])
{
    char buf[65536];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    struct message m;
    for (ssize_t n; (n = recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, (struct sockaddr *)&from, &size)) > 0;) {
        if (n < (ssize_t)sizeof m)
            continue;
        memcpy(&m, buf, sizeof m);
        struct flood *f = &floods[m.id % FLOODS];
        if (m.type == DATA) {
            count_data(f, m.sent_ns, n);
            continue;
        }
        m.type = m.type == PING ? PONG : REPORT;
        m.flood = *f;
        sendto(fd, &m, sizeof m, MSG_DONTWAIT, (struct sockaddr *)&from, size);
    }
}

/* One connection: what arrived in the second half of the announced time, and how long that took. */
static void serve_stream(int fd)
{
    static char buf[1 << 18];
    int64_t half_ns, bytes = 0, first = 0, last = 0, start = now_ns();
    struct timeval limit = {.tv_sec = 30};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (recv(fd, &half_ns, sizeof half_ns, MSG_WAITALL) != (ssize_t)sizeof half_ns)
        return;
    for (ssize_t n; (n = recv(fd, buf, sizeof buf, 0)) > 0;) {
        int64_t now = now_ns();
        if (now - start < half_ns)
            continue;
        if (first == 0)
            first = now; /* these bytes came before */
        else
            bytes += n;
        last = now;
    }
    int64_t answer[2] = {bytes, last - first};
    if (send(fd, answer, sizeof answer, MSG_NOSIGNAL) != (ssize_t)sizeof answer)
        fprintf(stderr, "wanprobe: the stream's sender is gone\n");
}

static int bound(int type)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = 1, large = 8 << 20;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (type == SOCK_DGRAM)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || (type == SOCK_STREAM && listen(fd, 4) != 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

static int serve(double seconds)
{
    static struct flood floods[FLOODS];
    struct pollfd fds[2] = {{bound(SOCK_DGRAM), POLLIN, 0}, {bound(SOCK_STREAM), POLLIN, 0}};
    if (fds[0].fd < 0 || fds[1].fd < 0)
        return fail("port 7700");
    printf("ready\n");
    fflush(stdout);
    for (int64_t end = now_ns() + (int64_t)(seconds * 1e9); now_ns() < end;) {
        if (poll(fds, 2, 200) <= 0)
            continue;
        if (fds[0].revents & POLLIN)
            serve_udp(fds[0].fd, floods);
        int fd = fds[1].revents & POLLIN ? accept(fds[1].fd, NULL, NULL) : -1;
        if (fd >= 0) {
            serve_stream(fd);
            close(fd);
        }
    }
    return 0;
}

/* ---- this end */

static int connected(const char *host, int type)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) {
        errno = EINVAL;
        return -1;
    }
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Next message of a type before deadline_ns: 1, or 0. */
static int receive(int fd, uint32_t type, int64_t deadline_ns, struct message *m)
{
    for (int64_t now; (now = now_ns()) < deadline_ns;) {
        struct pollfd p = {fd, POLLIN, 0};
        struct timespec t = {(deadline_ns - now) / 1000000000, (deadline_ns - now) % 1000000000};
        if (ppoll(&p, 1, &t, NULL) > 0 && recv(fd, m, sizeof *m, MSG_DONTWAIT) == (ssize_t)sizeof *m && m->type == type)
            return 1;
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* count pings every interval: trips[i] is the round trip of ping i in ns, 0: no answer. */
static int pings(const char *host, int count, int64_t interval_ns, int64_t *trips, int64_t *sent)
{
    int fd = connected(host, SOCK_DGRAM);
    if (fd < 0)
        return fail(host);
    struct message m, got;
    int64_t start = now_ns();
    for (int i = 0; i < count; i++) {
        int64_t next = start + i * interval_ns;
        while (receive(fd, PONG, next, &got))
            if (got.number >= 0 && got.number < i)
                trips[got.number] = now_ns() - got.sent_ns;
        sleep_until(next);
        memset(&m, 0, sizeof m);
        m.type = PING;
        m.number = i;
        m.sent_ns = sent[i] = now_ns();
        if (send(fd, &m, sizeof m, 0) < 0 && errno != ECONNREFUSED && errno != ENOBUFS) {
            close(fd);
            return fail("send");
        }
    }
    for (int64_t end = now_ns() + 1500000000; receive(fd, PONG, end, &got);) {
        if (got.number >= 0 && got.number < count)
            trips[got.number] = now_ns() - got.sent_ns;
        if (got.number == count - 1)
            break;
    }
    close(fd);
    return 0;
}

static int ping(const char *host, int count, double interval_ms)
{
    int64_t *trips = calloc((size_t)count * 2, sizeof *trips);
    if (trips == NULL)
        return fail("memory");
    int code = pings(host, count, (int64_t)(interval_ms * 1e6), trips, trips + count), n = 0;
    for (int i = 0; i < count; i++)
        if (trips[i] != 0)
            trips[n++] = trips[i];
    qsort(trips, (size_t)n, sizeof *trips, compare);
    if (code == 0)
        printf("sent %d received %d min_ms %.3f median_ms %.3f max_ms %.3f\n", count, n,
               n > 0 ? (double)trips[0] * 1e-6 : 0, n > 0 ? (double)trips[n / 2] * 1e-6 : 0,
               n > 0 ? (double)trips[n - 1] * 1e-6 : 0);
    free(trips);
    return code;
}

static int watch(const char *host, double interval_ms, double seconds)
{
    double n = seconds * 1e3 / interval_ms;
    if (!(n >= 1 && n <= WATCH_MAX)) {
        errno = EINVAL;
        return fail("watch");
    }
    int count = (int)n;
    int64_t *trips = calloc((size_t)count * 2, sizeof *trips), *sent = trips + count;
    if (trips == NULL)
        return fail("memory");
    int code = pings(host, count, (int64_t)(interval_ms * 1e6), trips, sent);
    for (int i = 0; code == 0 && i < count; i++) {
        printf("%.4f ", (double)(sent[i] - sent[0]) * 1e-9);
        if (trips[i] != 0)
            printf("%.3f\n", (double)trips[i] * 1e-6);
        else
            printf("lost\n");
    }
    free(trips);
    return code;
}

static int flood(const char *host, uint32_t id, double mbit, double seconds, int bytes)
{
    char buf[LARGEST] = {0};
    struct message m = {.type = DATA, .id = id};
    int payload = bytes - HEADERS;
    if (!(mbit > 0) || payload < (int)sizeof m || payload > LARGEST) {
        errno = EINVAL;
        return fail("flood");
    }
    int fd = connected(host, SOCK_DGRAM);
    if (fd < 0)
        return fail(host);
    int64_t start = now_ns(), end = start + (int64_t)(seconds * 1e9), refused = 0;
    double gap = bytes * 8e3 / mbit;
    for (;;) {
        int64_t due = start + (int64_t)((double)m.number * gap);
        if (due >= end)
            break;
        if (due > now_ns() + 50000)
            sleep_until(due);
        m.sent_ns = now_ns();
        memcpy(buf, &m, sizeof m);
        refused += send(fd, buf, (size_t)payload, 0) != payload;
        m.number++;
    }
    close(fd);
    printf("sent %lld refused %lld seconds %.4f\n", (long long)m.number, (long long)refused,
           (double)(now_ns() - start) * 1e-9);
    return 0;
}

static int report(const char *host, uint32_t id)
{
    int fd = connected(host, SOCK_DGRAM);
    if (fd < 0)
        return fail(host);
    struct message m = {.type = ASK, .id = id}, got;
    for (int i = 0; i < 5; i++) {
        if (send(fd, &m, sizeof m, 0) != (ssize_t)sizeof m || !receive(fd, REPORT, now_ns() + 1000000000, &got))
            continue;
        close(fd);
        printf("packets %lld bytes %lld seconds %.6f least_ms %.3f most_ms %.3f\n", (long long)got.flood.packets,
               (long long)got.flood.bytes, (double)(got.flood.last_ns - got.flood.first_ns) * 1e-9,
               (double)got.flood.least_ns * 1e-6, (double)got.flood.most_ns * 1e-6);
        return 0;
    }
    close(fd);
    fprintf(stderr, "wanprobe: no answer from %s\n", host);
    return 1;
}

static int stream(const char *host, double seconds)
{
    static char buf[1 << 16];
    int64_t half = (int64_t)(seconds * 0.5e9), answer[2], sent = (int64_t)sizeof half;
    int fd = connected(host, SOCK_STREAM);
    if (fd < 0)
        return fail(host);
    struct timeval limit = {.tv_sec = 30};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    int bad = send(fd, &half, sizeof half, MSG_NOSIGNAL) != (ssize_t)sizeof half;
    for (int64_t end = now_ns() + 2 * half; !bad && now_ns() < end;) {
        ssize_t n = send(fd, buf, sizeof buf, MSG_NOSIGNAL);
        bad = n < 0;
        sent += n;
    }
    shutdown(fd, SHUT_WR);
    bad = bad || recv(fd, answer, sizeof answer, MSG_WAITALL) != (ssize_t)sizeof answer;
    close(fd);
    if (bad) {
        fprintf(stderr, "wanprobe: the stream to %s broke: %s\n", host, strerror(errno));
        return 1;
    }
    printf("mbit %.3f seconds %.4f bytes %lld\n", answer[1] > 0 ? (double)answer[0] * 8e3 / (double)answer[1] : 0,
           (double)answer[1] * 1e-9, (long long)sent);
    return 0;
}

static double number(const char *text)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !(v >= 0)) {
        fprintf(stderr, "wanprobe: \"%s\" is not a number\n", text);
        exit(2);
    }
    return v;
}

/* Every command but serve; -1: no such one. */
static int client(const char *verb, int n, char **args)
{
    if (strcmp(verb, "ping") == 0 && n == 3)
        return ping(args[0], number(args[1]) >= 1 ? (int)number(args[1]) : 1, number(args[2]));
    if (strcmp(verb, "flood") == 0 && (n == 4 || n == 5))
        return flood(args[0], (uint32_t)number(args[1]), number(args[2]), number(args[3]),
                     n == 5 ? (int)number(args[4]) : 1500);
    if (strcmp(verb, "report") == 0 && n == 2)
        return report(args[0], (uint32_t)number(args[1]));
    if (strcmp(verb, "watch") == 0 && n == 3)
        return watch(args[0], number(args[1]), number(args[2]));
    if (strcmp(verb, "stream") == 0 && n == 2)
        return stream(args[0], number(args[1]));
    return -1;
}

/* Like the emulator, which stands above: what is measured is the path, not how busy the machine is otherwise. */
static void take_priority(void)
{
    const char *realtime = getenv("AP_TESTBED_REALTIME");
    struct sched_param p = {.sched_priority = 5};
    if (realtime == NULL || strcmp(realtime, "0") != 0)
        sched_setscheduler(0, SCHED_FIFO, &p); /* where not allowed, waited_ms tells */
}

int main(int argc, char **argv)
{
    take_priority();
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "serve") == 0 && argc <= 3)
        return serve(argc == 3 ? number(argv[2]) : 600);
    int code = client(verb, argc - 2, argv + 2);
    if (code < 0) {
        fprintf(stderr,
                "usage: wanprobe serve | ping | flood | report | watch | stream (see the head of its source)\n");
        return 2;
    }
    if (code == 0)
        printf("waited_ms %.3f\n", waited_ms());
    return code;
}
