/* SPDX-License-Identifier: Apache-2.0
 * What an operation must do at least: floating-point operations and bytes to and from memory. The limits that
 * benchmarks print beside a measured time. Thread-safe. */
#ifndef AP_BACKEND_COST_H
#define AP_BACKEND_COST_H

#include "backend/backend.h"

struct ap_op_cost {
    double flops; /* multiply and add count 2; elementwise functions count 1 */
    double bytes; /* every input read once, every output written once ("+=" reads it too) */
};

/* args: the descriptor struct of that operation. offsets of grouped operations are not read: the rows of x
 * are the work. Attention counts the causal half only. */
struct ap_op_cost ap_op_cost(enum ap_op_id op, const void *args);

#endif
