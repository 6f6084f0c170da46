/* SPDX-License-Identifier: Apache-2.0
 * The control socket: a client sends one line, gets text whose last line is "ok" or "error: ...", and is hung up on.
 * Commands are those of wan/link_command.h, and stats, reset, scenario FILE. Never blocks the loop. */
#ifndef AP_TESTBED_CONTROL_H
#define AP_TESTBED_CONTROL_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

#define CONTROL_CLIENTS 16
#define CONTROL_LINE    4096

struct emulator;

struct control_client {
    int fd; /* -1: free */
    char line[CONTROL_LINE];
    size_t n;
    char *out; /* NULL: still reading */
    size_t out_n, out_at;
};
struct control {
    struct emulator *e;
    int epoll;
    uint64_t first_tag;
    struct control_client clients[CONTROL_CLIENTS];
};

/* Client i has the epoll tag first_tag + i. */
void control_open(struct control *c, struct emulator *e, int epoll, uint64_t first_tag);
void control_close(struct control *c);
void control_accept(struct control *c, int listening);
void control_serve(struct control *c, int client);

/* A socket that listens at path. */
ap_status control_listen(const char *path, int *fd_p, struct ap_error *err);
/* The client's side: send line, print the answer on standard output. AP_ERR_INPUT: the answer was an error, which err
 * holds. */
ap_status control_ask(const char *path, const char *line, struct ap_error *err);

#endif
