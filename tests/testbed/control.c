/* SPDX-License-Identifier: Apache-2.0
 * Both ends of the control socket. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/suggest.h"
#include "testbed/control.h"
#include "testbed/emulator.h"

#define ANSWER_SECONDS 10

void control_open(struct control *c, struct emulator *e, int epoll, uint64_t first_tag)
{
    *c = (struct control){.e = e, .epoll = epoll, .first_tag = first_tag};
    for (int i = 0; i < CONTROL_CLIENTS; i++)
        c->clients[i].fd = -1;
}

static void hang_up(struct control_client *k)
{
    if (k->fd >= 0)
        close(k->fd);
    free(k->out);
    *k = (struct control_client){.fd = -1};
}

void control_close(struct control *c)
{
    for (int i = 0; i < CONTROL_CLIENTS; i++)
        hang_up(&c->clients[i]);
}

void control_accept(struct control *c, int listening)
{
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    for (int i = 0; i < CONTROL_CLIENTS; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.u64 = c->first_tag + (uint64_t)i};
        if (c->clients[i].fd >= 0)
            continue;
        if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &ev) != 0)
            break;
        c->clients[i].fd = fd;
        return;
    }
    close(fd); /* too many at once */
}

static ap_status run_scenario(struct emulator *e, const char *path, struct ap_error *err)
{
    struct ap_link_scenario scenario;
    AP_TRY(ap_link_scenario_read(e->net, path, &scenario, err));
    emulator_scenario(e, &scenario);
    return AP_OK;
}

static ap_status change(struct emulator *e, const char *line, struct ap_error *err)
{
    struct ap_link_command command;
    AP_TRY(ap_link_command_parse(e->net, line, &command, err));
    return ap_link_command_apply(e->net, &command, emulator_now(), err);
}

/* A command that only the socket has may be nearer than what the links' language offers. */
static void own_hint(const char *line, struct ap_error *err)
{
    static const char *const own[] = {"stats", "reset", "scenario"};
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(line, " \t"), line);
    const char *near = ap_suggest_nearest(word, own, 3);
    if (near != NULL && strncmp(err->text, "no command", 10) == 0 &&
        (err->hint[0] == '\0' || ap_suggest_distance(word, near) == 1))
        ap_error_hint(err, "did you mean \"%s\"?", near);
}

static void answer(struct control *c, struct control_client *k)
{
    struct ap_strbuf out = {0};
    struct ap_error err;
    char text[1024];
    ap_status status = AP_OK;
    if (strcmp(k->line, "stats") == 0)
        emulator_stats(c->e, &out);
    else if (strcmp(k->line, "reset") == 0)
        emulator_reset(c->e);
    else if (strncmp(k->line, "scenario ", 9) == 0)
        status = run_scenario(c->e, k->line + 9, &err);
    else if ((status = change(c->e, k->line, &err)) != AP_OK)
        own_hint(k->line, &err);
    if (status == AP_OK) {
        ap_strbuf_add(&out, "ok\n");
    } else {
        ap_error_format(&err, text, sizeof text);
        ap_strbuf_addf(&out, "error: %s\n", text);
    }
    k->out_n = out.size;
    k->out = ap_strbuf_take(&out);
    struct epoll_event ev = {.events = EPOLLOUT, .data.u64 = c->first_tag + (uint64_t)(k - c->clients)};
    if (k->out == NULL || epoll_ctl(c->epoll, EPOLL_CTL_MOD, k->fd, &ev) != 0)
        hang_up(k);
}

static void read_line(struct control *c, struct control_client *k)
{
    ssize_t n = recv(k->fd, k->line + k->n, sizeof k->line - 1 - k->n, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    k->n += n > 0 ? (size_t)n : 0;
    k->line[k->n] = '\0';
    char *end = memchr(k->line, '\n', k->n);
    if (end == NULL && (n <= 0 || k->n == sizeof k->line - 1)) {
        hang_up(k);
        return;
    }
    if (end != NULL) {
        *end = '\0';
        answer(c, k);
    }
}

void control_serve(struct control *c, int client)
{
    struct control_client *k = &c->clients[client];
    if (client < 0 || client >= CONTROL_CLIENTS || k->fd < 0)
        return;
    if (k->out == NULL) {
        read_line(c, k);
        return;
    }
    ssize_t n = send(k->fd, k->out + k->out_at, k->out_n - k->out_at, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    k->out_at += n > 0 ? (size_t)n : 0;
    if (n < 0 || k->out_at == k->out_n)
        hang_up(k);
}

static ap_status socket_at(const char *path, struct sockaddr_un *a, int *fd_p, struct ap_error *err)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a->sun_path)
        return ap_error_set(err, AP_ERR_USAGE, "%s: the path of a socket has at most %zu bytes", path,
                            sizeof a->sun_path - 1);
    memcpy(a->sun_path, path, strlen(path) + 1);
    *fd_p = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return *fd_p >= 0 ? AP_OK : ap_error_set(err, AP_ERR_ENV, "socket: %s", strerror(errno));
}

ap_status control_listen(const char *path, int *fd_p, struct ap_error *err)
{
    struct sockaddr_un a;
    int fd;
    AP_TRY(socket_at(path, &a, &fd, err));
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, CONTROL_CLIENTS) != 0) {
        ap_status status = ap_error_set(err, AP_ERR_ENV, "%s: %s", path, strerror(errno));
        close(fd);
        return status;
    }
    *fd_p = fd;
    return AP_OK;
}

static ap_status receive(int fd, struct ap_strbuf *text, struct ap_error *err)
{
    char buf[65536];
    for (ssize_t n; (n = recv(fd, buf, sizeof buf, 0)) != 0;) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ap_error_set(err, AP_ERR_ENV, "no answer from the emulator: %s", strerror(errno));
        ap_strbuf_add_bytes(text, buf, (size_t)n);
    }
    return AP_OK;
}

/* The last line says how it went; what stands before it is the result. */
static ap_status judge(char *text, struct ap_error *err)
{
    size_t n = strlen(text);
    if (n > 0 && text[n - 1] == '\n')
        text[--n] = '\0';
    char *last = strrchr(text, '\n');
    last = last != NULL ? last + 1 : text;
    ap_status status = AP_OK;
    if (strncmp(last, "error: ", 7) == 0)
        status = ap_error_set(err, AP_ERR_INPUT, "%s", last + 7);
    else if (strcmp(last, "ok") != 0)
        status = ap_error_set(err, AP_ERR_ENV, "the emulator hung up");
    *last = '\0';
    fputs(text, stdout);
    return status;
}

ap_status control_ask(const char *path, const char *line, struct ap_error *err)
{
    struct sockaddr_un a;
    struct ap_strbuf all = {0};
    char command[CONTROL_LINE];
    int fd, n = snprintf(command, sizeof command, "%s\n", line);
    if (n >= (int)sizeof command || strchr(line, '\n') != NULL)
        return ap_error_set(err, AP_ERR_USAGE, "a command is one line of at most %zu bytes", sizeof command - 2);
    AP_TRY(socket_at(path, &a, &fd, err));
    struct timeval limit = {.tv_sec = ANSWER_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ap_status status;
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
        status = ap_error_set(err, AP_ERR_ENV, "no test bed answers at %s: %s", path, strerror(errno));
    else if (send(fd, command, (size_t)n, MSG_NOSIGNAL) != n)
        status = ap_error_set(err, AP_ERR_ENV, "%s: %s", path, strerror(errno));
    else
        status = receive(fd, &all, err);
    close(fd);
    char *text = ap_strbuf_take(&all);
    if (status == AP_OK && text == NULL)
        status = ap_error_set(err, AP_ERR_ENV, "the emulator hung up");
    if (status == AP_OK)
        status = judge(text, err);
    free(text);
    return status;
}
