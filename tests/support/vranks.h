/* SPDX-License-Identifier: Apache-2.0
 * Run one function on N virtual ranks, a thread each. Failed checks inside the threads are recorded in the
 * rank's `fail` text and raised by the caller, since Criterion asserts belong to the main thread. */
#ifndef AP_TESTS_VRANKS_H
#define AP_TESTS_VRANKS_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <criterion/criterion.h>

#include "parallel/comm.h"

#define VRANKS_MAX 16

struct vrank {
    struct ap_comm *comm; /* destroyed by the harness */
    void *ctx;
    void (*fn)(struct vrank *v);
    char fail[256];
};

/* Inside fn: note the first failed condition and go on. */
#define VCHECK(v, cond)                                                                                                \
    do {                                                                                                               \
        if (!(cond) && !(v)->fail[0])                                                                                  \
            snprintf((v)->fail, sizeof((v)->fail), "rank %d: %s:%d: %s", (v)->comm->rank, __FILE__, __LINE__, #cond);  \
    } while (0)

static inline void *vrank_main(void *arg)
{
    struct vrank *v = arg;
    v->fn(v);
    ap_comm_destroy(v->comm);
    return NULL;
}

static inline void vranks_run(int n, void (*fn)(struct vrank *v), void *ctx)
{
    struct ap_comm *comms[VRANKS_MAX];
    struct vrank v[VRANKS_MAX];
    pthread_t threads[VRANKS_MAX];
    memset(v, 0, sizeof(v));
    cr_assert(n <= VRANKS_MAX);
    cr_assert_eq(ap_comm_virtual(n, comms), AP_OK);
    for (int r = 0; r < n; r++) {
        v[r] = (struct vrank){.comm = comms[r], .ctx = ctx, .fn = fn};
        cr_assert_eq(pthread_create(&threads[r], NULL, vrank_main, &v[r]), 0);
    }
    for (int r = 0; r < n; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < n; r++)
        cr_expect(!v[r].fail[0], "%d ranks: %s", n, v[r].fail);
}

#endif
