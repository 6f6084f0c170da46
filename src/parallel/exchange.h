/* SPDX-License-Identifier: Apache-2.0
 * Exchange of rows of backend tensors between the ranks of one communicator: what tensor and expert parallel layers
 * need. Device backends go through host memory that grows to the largest call, unless the communicator has a device
 * side.
 *
 * Rows are those of dense 2-D tensors of one dtype and width; a count of rows is known on every rank it concerns.
 * Every function is collective over the communicator and blocking; sums run in rank order. */
#ifndef AP_PARALLEL_EXCHANGE_H
#define AP_PARALLEL_EXCHANGE_H

#include "backend/backend.h"
#include "parallel/comm.h"

struct ap_exchange;

/* Not collective. be and comm are borrowed. */
ap_status ap_exchange_create(struct ap_backend *be, struct ap_comm *comm, struct ap_exchange **x_p);
void ap_exchange_destroy(struct ap_exchange *x); /* NULL is fine */
/* all [sum of rows, w] = the own [rows[rank], w] of every rank, in rank order. rows: [size]. */
ap_status ap_exchange_gather(struct ap_exchange *x, ap_tensor own, const int64_t *rows, ap_tensor all);
/* own [rows[rank], w] (+)= the sum over ranks of their parts' rows that belong to this one. parts [sum of rows, w],
 * left alone; scratch: [size * rows[rank], w]. */
ap_status ap_exchange_sum(struct ap_exchange *x, ap_tensor parts, const int64_t *rows, ap_tensor scratch, ap_tensor own,
                          int accumulate);
/* Rows of `from` in rank order of their receivers, send[i] to rank i; those that arrive stand in `to` in rank order of
 * their senders, recv[i] from rank i. */
ap_status ap_exchange_rows(struct ap_exchange *x, ap_tensor from, const int64_t *send, ap_tensor to,
                           const int64_t *recv);

#endif
