/* SPDX-License-Identifier: Apache-2.0
 * GEMM-only replay: the matrix products of a recorded step (backend/record.h), in their order and nothing
 * else, each by the engine that is fastest for its shape on this machine: our kernel, oneDNN, oneDNN with
 * weights packed beforehand (packing is not timed). What a step's time is compared with. Operands rotate
 * through memory larger than the caches, as in a step; their values are arbitrary. */
#ifndef AP_BACKEND_CPU_REPLAY_H
#define AP_BACKEND_CPU_REPLAY_H

#include "backend/record.h"

enum ap_replay_engine { AP_REPLAY_OWN, AP_REPLAY_ONEDNN, AP_REPLAY_PACKED, AP_REPLAY_ENGINES };

struct ap_replay;

struct ap_replay_info {
    double flops; /* of one pass */
    int64_t products, shapes;
    double engine_flops[AP_REPLAY_ENGINES]; /* part that each engine was chosen for */
};

/* list: f32 or bf16 products (AP_ERR_UNSUPPORTED otherwise), copied. pool is borrowed, NULL: serial. Products of one
 * call of an operation on experts or heads run as parallel tasks, others are split over the pool by rows.
 * Tries every engine on every shape. */
ap_status ap_replay_create(const struct ap_product *list, int64_t count, struct ap_pool *pool, struct ap_replay **r_p,
                           struct ap_error *err);
/* One pass. */
ap_status ap_replay_run(struct ap_replay *r, double *seconds_p);
void ap_replay_info(const struct ap_replay *r, struct ap_replay_info *info);
const char *ap_replay_engine_name(enum ap_replay_engine e);
void ap_replay_destroy(struct ap_replay *r); /* NULL is fine */

#endif
