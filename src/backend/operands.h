/* SPDX-License-Identifier: Apache-2.0
 * The tensors that say best what a call of an operation is: names and shapes for traces. Thread-safe. */
#ifndef AP_BACKEND_OPERANDS_H
#define AP_BACKEND_OPERANDS_H

#include "backend/backend.h"
#include "base/trace.h"

/* dtype (of the first operand), shapes and their names into *t, at most AP_TRACE_SHAPES; absent tensors are left
 * out. args: the descriptor struct of that operation. */
void ap_operands_describe(enum ap_op_id op, const void *args, struct ap_trace_args *t);

#endif
