/* SPDX-License-Identifier: Apache-2.0
 * One pool of pinned worker threads per rank. The caller is worker 0 and takes part. Work is split into a
 * fixed number of tasks; which thread runs a task never changes a result, so tasks must not share output.
 * Sized from the affinity mask of the process unless told otherwise. Not re-entrant: a task must not call
 * ap_pool_run. Each worker calls omp_set_num_threads(1) where OpenMP is linked, so that oneDNN runs
 * single-threaded primitives inside tasks. */
#ifndef AP_BASE_POOL_H
#define AP_BASE_POOL_H

#include <stdint.h>
#include "base/status.h"

struct ap_pool;
typedef void ap_pool_task(void *ctx, int64_t task, int worker);

/* threads <= 0: number of CPUs in the affinity mask. With one thread no thread is made. */
ap_status ap_pool_create(int threads, struct ap_pool **pool_p, struct ap_error *err);
void ap_pool_destroy(struct ap_pool *pool);
int ap_pool_threads(const struct ap_pool *pool);
/* From now on each worker but the caller (worker 0) tells when it worked on a task of which run (they are numbered),
 * before the run can end. observer NULL: no more. Not during a run. */
typedef void ap_pool_observer(void *ctx, int worker, uint64_t run, double begin, double end);
void ap_pool_observe(struct ap_pool *pool, ap_pool_observer *observer, void *ctx);
/* Run tasks 0..n-1 and wait for all. Blocking. pool NULL: serial. */
void ap_pool_run(struct ap_pool *pool, int64_t n, ap_pool_task *task, void *ctx);

#endif
