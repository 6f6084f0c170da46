/* SPDX-License-Identifier: Apache-2.0
 * Checks that hold for every kind of communicator: single messages and meshes. Each function is collective and returns
 * the number of conditions that failed on this rank. */
#ifndef AP_TESTS_COMM_CHECKS_H
#define AP_TESTS_COMM_CHECKS_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/mesh.h"

#define COMM_CHECK(cond)                                                                                               \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "rank %d: %s:%d: %s\n", c->rank, __FILE__, __LINE__, #cond);                               \
            bad++;                                                                                                     \
        }                                                                                                              \
    } while (0)

enum { MESSAGES = 4, MESSAGE_MOST = 600 };

/* Message k from a to b: its length (0 for some) and each of its bytes. */
static inline int64_t message_bytes(int a, int b, int k)
{
    return k == 2 ? 0 : 100 * k + 7 * a + b;
}
static inline int message_byte(int a, int b, int k)
{
    return (50 * k + 5 * a + b + 1) % 256;
}

/* The wait by tests that do not block. */
static inline ap_status wait_by_tests(struct ap_comm *c, struct ap_comm_request *r)
{
    int done = 0;
    ap_status status = AP_OK;
    while (!done) {
        status = ap_comm_test(c, r, &done);
        sched_yield();
    }
    return status;
}

/* Everybody sends four messages to everybody, itself included: the first two with one tag, in order; all are waited for
 * in another order than that of their starts. */
static inline int check_messages(struct ap_comm *c)
{
    int n = c->size, all = n * MESSAGES, bad = 0;
    struct ap_comm_request *sends = calloc((size_t)(2 * all), sizeof *sends), *recvs = sends + all;
    uint8_t *data = calloc((size_t)(2 * all), MESSAGE_MOST), *in = data + (size_t)all * MESSAGE_MOST;
    static const int tag[MESSAGES] = {3, 3, 0, AP_COMM_TAG_MAX};
    for (int i = all - 1; i >= 0; i--) {
        int peer = i / MESSAGES, k = MESSAGES - 1 - i % MESSAGES;
        int at = peer * MESSAGES + k;
        COMM_CHECK(ap_comm_recv_start(c, in + (size_t)at * MESSAGE_MOST, message_bytes(peer, c->rank, k), peer, tag[k],
                                      &recvs[at]) == AP_OK);
    }
    for (int at = 0; at < all; at++) {
        int peer = at / MESSAGES, k = at % MESSAGES;
        uint8_t *out = data + (size_t)at * MESSAGE_MOST;
        memset(out, message_byte(c->rank, peer, k), (size_t)message_bytes(c->rank, peer, k));
        COMM_CHECK(ap_comm_send_start(c, out, message_bytes(c->rank, peer, k), peer, tag[k], &sends[at]) == AP_OK);
    }
    for (int at = all - 1; at >= 0; at--) {
        struct ap_comm_request *send = &sends[all - 1 - at], *recv = &recvs[at];
        COMM_CHECK((at % 2 ? ap_comm_wait(c, recv) : wait_by_tests(c, recv)) == AP_OK);
        COMM_CHECK((at % 2 ? wait_by_tests(c, send) : ap_comm_wait(c, send)) == AP_OK);
    }
    for (int at = 0; at < all; at++) {
        int peer = at / MESSAGES, k = at % MESSAGES, wrong = 0;
        const uint8_t *got = in + (size_t)at * MESSAGE_MOST;
        for (int64_t i = 0; i < MESSAGE_MOST; i++)
            wrong += got[i] != (i < message_bytes(peer, c->rank, k) ? message_byte(peer, c->rank, k) : 0);
        COMM_CHECK(wrong == 0);
    }
    free(sends);
    free(data);
    return bad;
}

/* A message shorter than the receiver says, and arguments that cannot be. */
static inline int check_wrong_messages(struct ap_comm *c)
{
    struct ap_comm_request s = {0}, r = {0};
    uint8_t out[8] = {1, 2, 3, 4, 5, 6, 7, 8}, in[8] = {0};
    int bad = 0, next = (c->rank + 1) % c->size, last = (c->rank + c->size - 1) % c->size;
    COMM_CHECK(ap_comm_recv_start(c, in, 8, last, 1, &r) == AP_OK);
    COMM_CHECK(ap_comm_send_start(c, out, 4, next, 1, &s) == AP_OK);
    COMM_CHECK(ap_comm_wait(c, &r) == AP_ERR_BUG);
    (void)ap_comm_wait(c, &s);
    COMM_CHECK(ap_comm_recv_start(c, in, 8, last, 1, &r) == AP_OK);
    COMM_CHECK(ap_comm_send_start(c, out, 4, next, 1, &s) == AP_OK);
    COMM_CHECK(wait_by_tests(c, &r) == AP_ERR_BUG);
    (void)wait_by_tests(c, &s);
    COMM_CHECK(ap_comm_send_start(c, out, 4, c->size, 1, &s) == AP_ERR_BUG);
    COMM_CHECK(ap_comm_send_start(c, out, -1, 0, 1, &s) == AP_ERR_BUG);
    COMM_CHECK(ap_comm_recv_start(c, in, 4, -1, 1, &s) == AP_ERR_BUG);
    COMM_CHECK(ap_comm_recv_start(c, in, 4, 0, AP_COMM_TAG_MAX + 1, &s) == AP_ERR_BUG);
    return bad;
}

/* The members of a communicator by their slots: exactly those that `along` allows, in slot order. */
static inline int check_members(struct ap_comm *c, const struct ap_mesh *m, struct ap_comm *sub, unsigned along)
{
    int bad = 0, expected = 1, before = 0;
    int ranks = (int)ap_mesh_ranks(&m->shape), mine = ap_mesh_slot(&m->shape, m->coord);
    int64_t *slots = calloc((size_t)ranks, sizeof *slots), *bytes = calloc((size_t)ranks, sizeof *bytes), own = mine;
    for (int a = 0; a < AP_AXES; a++)
        expected *= along >> a & 1u ? m->shape.size[a] : 1;
    COMM_CHECK(sub && sub->size == expected);
    for (int i = 0; i < expected; i++)
        bytes[i] = sizeof *slots;
    if (sub && sub->size == expected)
        COMM_CHECK(ap_comm_allgatherv(sub, &own, bytes, slots) == AP_OK);
    for (int slot = 0; slot < ranks; slot++) {
        int coord[AP_AXES], same = 1;
        ap_mesh_coord(&m->shape, slot, coord);
        COMM_CHECK(ap_mesh_slot(&m->shape, coord) == slot);
        for (int a = 0; a < AP_AXES; a++)
            same &= along >> a & 1u || coord[a] == m->coord[a];
        if (!same)
            continue;
        COMM_CHECK(before < expected && slots[before] == slot);
        if (slot == mine)
            COMM_CHECK(sub && sub->rank == before);
        before++;
    }
    COMM_CHECK(before == expected);
    free(slots);
    free(bytes);
    return bad;
}

static inline int check_mesh(struct ap_comm *c, const struct ap_mesh_shape *shape, const int *place)
{
    struct ap_mesh *m = NULL;
    struct ap_error err = {0};
    int bad = 0, coord[AP_AXES];
    COMM_CHECK(ap_mesh_create(c, shape, place, &m, &err) == AP_OK);
    if (!m)
        return bad;
    ap_mesh_coord(shape, place ? place[c->rank] : c->rank, coord);
    COMM_CHECK(memcmp(coord, m->coord, sizeof coord) == 0);
    for (int a = 0; a < AP_AXES; a++) {
        bad += check_members(c, m, m->axis[a], 1u << a);
        COMM_CHECK(m->axis[a]->rank == coord[a]);
    }
    bad += check_members(c, m, m->batch, 1u << AP_AXIS_DATA | 1u << AP_AXIS_EXPERT);
    bad += check_members(c, m, m->stage, 1u << AP_AXIS_DATA | 1u << AP_AXIS_EXPERT | 1u << AP_AXIS_TENSOR);
    ap_mesh_destroy(m);
    return bad;
}

/* Every factorisation of the number of ranks, each with ranks in order and scattered; then shapes and places that
 * cannot be. */
static inline int check_meshes(struct ap_comm *c)
{
    int n = c->size, bad = 0, tried = 0;
    int *place = calloc((size_t)n, sizeof *place);
    for (int p = 1; p <= n; p++) {
        for (int d = 1; p * d <= n; d++) {
            for (int e = 1; p * d * e <= n; e++) {
                struct ap_mesh_shape s = {{p, d, e, n / (p * d * e)}};
                if (n % (p * d * e) != 0)
                    continue;
                for (int r = 0; r < n; r++) /* reversed, with the second half first */
                    place[r] = (n - 1 - r + n / 2) % n;
                bad += check_mesh(c, &s, NULL) + check_mesh(c, &s, place);
                tried++;
            }
        }
    }
    COMM_CHECK(tried > 0);
    struct ap_mesh *m = NULL;
    struct ap_error err = {0};
    COMM_CHECK(ap_mesh_create(c, &(struct ap_mesh_shape){{1, n, 1, 2}}, NULL, &m, &err) == AP_ERR_INPUT);
    COMM_CHECK(strstr(err.text, "parallel.tensor is 2") || strstr(err.text, "is not the number of ranks"));
    COMM_CHECK(ap_mesh_create(c, &(struct ap_mesh_shape){{0, n, 1, 1}}, NULL, &m, &err) == AP_ERR_INPUT);
    COMM_CHECK(strstr(err.text, "parallel.pipeline is 0"));
    for (int r = 0; r < n; r++)
        place[r] = 0;
    place[0] = n - 1;
    struct ap_mesh_shape line = {{1, n, 1, 1}};
    COMM_CHECK(n < 3 || ap_mesh_create(c, &line, place, &m, &err) == AP_ERR_INPUT);
    COMM_CHECK(n < 3 || strstr(err.text, "slot 0 of the mesh is given twice"));
    place[0] = n;
    COMM_CHECK(ap_mesh_create(c, &line, place, &m, &err) == AP_ERR_INPUT && strstr(err.text, "rank 0 has slot"));
    free(place);
    return bad;
}

#endif
