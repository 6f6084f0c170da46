/* SPDX-License-Identifier: Apache-2.0
 * Communicators on the memory of GPUs, by NCCL, over a parent (MPI or virtual) that carries what stands in host memory:
 * ids, headers of messages, the values of sum, max and agree. One rank for each device: NCCL takes no two on one.
 *
 * Nothing hangs. NCCL's communicators are nonblocking; every wait polls NCCL's asynchronous error and the stream, up to
 * a deadline. A rank that fails, a peer that is gone or a deadline that passes aborts the rank's whole communicator:
 * this call and all later ones with device memory return AP_ERR_COMM, those of the host go on over the parent, so that
 * the ranks can agree on what happened. Then ap_comm_nccl_renew, over the same parent, or a new communicator over a
 * repaired one.
 *
 * Collectives run on the backend's own stream, behind what it holds, and are waited for. Messages have a NCCL
 * communicator and a stream for each direction and tag between two ranks, made by the first of them, since operations
 * of one NCCL communicator wait for each other. That first message advances in calls to this communicator (any of both
 * ranks'), later ones by themselves from their starts on. A message of another length than its receiver says is
 * AP_ERR_BUG there and breaks the communicator.
 *
 * Bits: NCCL moves bytes here. Sums stay with the operations of the backend, in an order of ours (parallel/zero.h,
 * exchange.h), so results are those of the MPI path. The two functions at the end do add up in NCCL. */
#ifndef AP_PARALLEL_COMM_NCCL_H
#define AP_PARALLEL_COMM_NCCL_H

#include "backend/backend.h"
#include "parallel/comm.h"

#define AP_NCCL_TIMEOUT 600.0 /* seconds */

/* Collective over parent. AP_OK on all ranks, or the reason on all: a backend without such devices, no library or too
 * old a one, two ranks on one device. what (if given): "NCCL 2.28.9". */
ap_status ap_comm_nccl_possible(struct ap_comm *parent, struct ap_backend *be, char *what, size_t size,
                                struct ap_error *err);
/* Collective over parent; be and parent are borrowed. timeout: seconds that one call may take, 0: AP_NCCL_TIMEOUT. The
 * same status on every rank that the parent reaches. */
ap_status ap_comm_nccl_create(struct ap_comm *parent, struct ap_backend *be, double timeout, struct ap_comm **c_p,
                              struct ap_error *err);
/* Gives up what is under way on this rank; peers that wait for it hear of it by NCCL or by their deadline. */
void ap_comm_nccl_abort(struct ap_comm *c);
/* Collective over the parent, all ranks of which must still be there: a fresh communicator with a new id in place of
 * one that was aborted on any rank. On failure it stays aborted. */
ap_status ap_comm_nccl_renew(struct ap_comm *c, struct ap_error *err);

/* Seconds that one call may take from now on; the same on every rank. */
void ap_comm_nccl_timeout(struct ap_comm *c, double seconds);

/* Sums of f32, f64 or bf16 numbers in an order that NCCL chooses by the size of the data, the number of ranks and the
 * network: the same on every rank (sum) and from run to run with the same library, machines and NCCL_* variables, but
 * not for another number of ranks. For what needs no bits of ours. Collective. v, in place. */
ap_status ap_comm_nccl_sum(struct ap_comm *c, ap_tensor v);
/* own [n] = the sum over ranks of their parts' [size, n] row of this rank. */
ap_status ap_comm_nccl_sum_scatter(struct ap_comm *c, ap_tensor parts, ap_tensor own);

#endif
