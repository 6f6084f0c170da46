/* SPDX-License-Identifier: Apache-2.0
 * A record of the operations a backend runs: time, calls, work, and every matrix product's shape. Attached to
 * an open backend it wraps all slots; detached, the backend is as before. For benchmarks: the wrapping
 * costs a clock reading per call. One thread.
 * With a trace on the backend each call is a span there, with dtype, shapes and work; on a device backend the call
 * then waits for its end, so that the span is the work and not its launch. */
#ifndef AP_BACKEND_RECORD_H
#define AP_BACKEND_RECORD_H

#include "backend/backend.h"

enum ap_product_kind { AP_PRODUCT_GEMM, AP_PRODUCT_GROUPED, AP_PRODUCT_ATTENTION };

/* One matrix product c[m,n] = op(a)[m,k] op(b)[k,n], in the order it ran. constant_b: b is a weight, which a
 * library may pack once per optimizer step. */
struct ap_product {
    int64_t m, n, k;
    int trans_a, trans_b, accumulate, constant_b;
    ap_dtype dtype, c_dtype; /* of a and b; of c */
    enum ap_product_kind kind;
};

struct ap_op_total {
    int64_t calls;
    double seconds, flops, bytes;
};

struct ap_record {
    struct ap_op_total total[AP_OP_COUNT];
    struct ap_product *products; /* owned */
    int64_t product_count, product_capacity;
    int want_products, failed; /* failed: out of memory, the list is incomplete */
    struct ap_op_table inner;  /* the wrapped slots */
};

/* rec: zero-initialised or reset; want_products says whether shapes are kept. Host backends only for grouped
 * and attention products (their offsets are read). Not nested: AP_ERR_BUG. */
ap_status ap_record_attach(struct ap_record *rec, struct ap_backend *be, int want_products);
void ap_record_detach(struct ap_backend *be);
/* Forget what was counted, keep attached. */
void ap_record_reset(struct ap_record *rec);
void ap_record_free(struct ap_record *rec);

#endif
