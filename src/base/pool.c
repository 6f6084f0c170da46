/* SPDX-License-Identifier: Apache-2.0
 * The thread pool.
 *
 * A run is published as one 64-bit ticket: the generation in the upper bits, the next task in the lower
 * ones. Whoever wants a task loads the ticket, reads the run's fields, and takes the task by a
 * compare-and-swap that fails if the run has changed meanwhile; so a worker that wakes late, after the
 * caller and the others did all the work, does no harm and nobody waits for it. The caller closes the
 * ticket (next = TICKET_NONE) before it changes the fields. The run ends when `done` reaches n.
 *
 * Workers spin for a short time, then sleep on a condition variable; so does the caller at the end. Each
 * side announces that it sleeps and then looks again before it does; the other one publishes and then
 * looks for the announcement (all sequentially consistent): no wake-up is lost. */
#include "config.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/pool.h"

#define TICKET_BITS 32
#define TICKET_NONE ((UINT64_C(1) << TICKET_BITS) - 1)
#define TASKS_MAX   ((int64_t)TICKET_NONE - 1)
#define SPIN_ROUNDS 1500
#define THREADS_MAX 1024

struct pool_worker {
    struct ap_pool *pool;
    pthread_t thread;
    int index; /* 1.. */
    int cpu;   /* -1: not pinned */
};

struct ap_pool {
    int threads;
    struct pool_worker *workers; /* threads - 1 */
    int started;

    _Alignas(64) _Atomic uint64_t ticket;
    _Atomic int64_t n;
    _Atomic(ap_pool_task *) task;
    _Atomic(void *) ctx;
    /* Set while no run is open; a worker reads them after it has taken a task of a later one. */
    ap_pool_observer *observer;
    void *observer_ctx;
    _Alignas(64) _Atomic int64_t done;

    _Alignas(64) _Atomic int sleepers;
    _Atomic int caller_sleeps;
    _Atomic int stop;
    pthread_mutex_t mutex;
    pthread_cond_t work, finished;
};

static void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* oneDNN inside a task must not start an OpenMP team of its own. Looked up at run time, because the
 * OpenMP library comes in through oneDNN or not at all. */
static void limit_openmp(void)
{
    void *symbol = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
    if (symbol != NULL) {
        void (*set_num_threads)(int);
        memcpy(&set_num_threads, &symbol, sizeof set_num_threads);
        set_num_threads(1);
    }
}

static int ticket_open(const struct ap_pool *pool)
{
    uint64_t next = atomic_load(&pool->ticket) & TICKET_NONE;
    return next != TICKET_NONE && (int64_t)next < atomic_load(&pool->n);
}

static void observed(struct ap_pool *pool, ap_pool_task *task, void *ctx, int64_t i, int worker, uint64_t run)
{
    double begin = ap_clock_monotonic();
    task(ctx, i, worker);
    pool->observer(pool->observer_ctx, worker, run, begin, ap_clock_monotonic());
}

/* Take and run tasks until none is left. */
static void work_off(struct ap_pool *pool, int worker)
{
    for (;;) {
        uint64_t ticket = atomic_load(&pool->ticket);
        uint64_t next = ticket & TICKET_NONE;
        int64_t n = atomic_load(&pool->n);
        ap_pool_task *task = atomic_load(&pool->task);
        void *ctx = atomic_load(&pool->ctx);
        if (next == TICKET_NONE || (int64_t)next >= n)
            return;
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1))
            continue;
        if (pool->observer == NULL || worker == 0)
            task(ctx, (int64_t)next, worker);
        else
            observed(pool, task, ctx, (int64_t)next, worker, ticket >> TICKET_BITS);
        if (atomic_fetch_add(&pool->done, 1) + 1 == n && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->finished);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
}

static void worker_wait(struct ap_pool *pool)
{
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if (ticket_open(pool) || atomic_load(&pool->stop))
            return;
        spin_pause();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!ticket_open(pool) && !atomic_load(&pool->stop))
        pthread_cond_wait(&pool->work, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void *worker_main(void *arg)
{
    struct pool_worker *w = arg;
    if (w->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(w->cpu, &set);
        /* Pinning is a matter of speed only; a refusal (some containers) is no error. */
        pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    }
    limit_openmp();
    while (!atomic_load(&w->pool->stop)) {
        work_off(w->pool, w->index);
        worker_wait(w->pool);
    }
    return NULL;
}

/* The CPUs of the affinity mask in ascending order; returns their number (at least 1). */
static int mask_cpus(int cpus[CPU_SETSIZE])
{
    cpu_set_t set;
    int count = 0;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (int i = 0; i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, &set))
                cpus[count++] = i;
    }
    if (count == 0) {
        cpus[0] = -1;
        count = 1;
    }
    return count;
}

static ap_status start_workers(struct ap_pool *pool, const int *cpus, int pin, struct ap_error *err)
{
    pool->workers = calloc((size_t)pool->threads - 1, sizeof *pool->workers);
    if (pool->workers == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for %d threads", pool->threads);
    for (int i = 1; i < pool->threads; i++) {
        struct pool_worker *w = &pool->workers[i - 1];
        w->pool = pool;
        w->index = i;
        w->cpu = pin ? cpus[i] : -1;
        int rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc != 0) {
            ap_error_set(err, AP_ERR_ENV, "cannot start thread %d of %d: %s", i + 1, pool->threads, strerror(rc));
            ap_error_hint(err, "raise the limit on processes (ulimit -u) or set threads lower");
            return AP_ERR_ENV;
        }
        pool->started++;
    }
    return AP_OK;
}

ap_status ap_pool_create(int threads, struct ap_pool **pool_p, struct ap_error *err)
{
    int cpus[CPU_SETSIZE];
    int available = mask_cpus(cpus);
    if (threads <= 0)
        threads = available;
    if (threads > THREADS_MAX)
        return ap_error_set(err, AP_ERR_INPUT, "%d threads are more than the %d a pool can have", threads, THREADS_MAX);

    struct ap_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (pool == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a thread pool");
    memset(pool, 0, sizeof *pool);
    pool->threads = threads;
    atomic_init(&pool->ticket, TICKET_NONE);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    limit_openmp();
    if (threads > 1) {
        /* With another number of threads than CPUs the mask is shared with somebody: let the system place. */
        ap_status status = start_workers(pool, cpus, threads == available, err);
        if (status != AP_OK) {
            ap_pool_destroy(pool);
            return status;
        }
    }
    *pool_p = pool;
    return AP_OK;
}

void ap_pool_destroy(struct ap_pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stop, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->finished);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool);
}

int ap_pool_threads(const struct ap_pool *pool)
{
    return pool != NULL ? pool->threads : 1;
}

static void wait_done(struct ap_pool *pool, int64_t n)
{
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if (atomic_load(&pool->done) == n)
            return;
        spin_pause();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->caller_sleeps, 1);
    while (atomic_load(&pool->done) != n)
        pthread_cond_wait(&pool->finished, &pool->mutex);
    atomic_store(&pool->caller_sleeps, 0);
    pthread_mutex_unlock(&pool->mutex);
}

/* Publish n tasks and wake sleeping workers. */
static void publish(struct ap_pool *pool, int64_t n, ap_pool_task *task, void *ctx)
{
    uint64_t generation = (atomic_load(&pool->ticket) >> TICKET_BITS) + 1;
    atomic_store(&pool->ticket, generation << TICKET_BITS | TICKET_NONE);
    atomic_store(&pool->n, n);
    atomic_store(&pool->task, task);
    atomic_store(&pool->ctx, ctx);
    atomic_store(&pool->done, 0);
    atomic_store(&pool->ticket, generation << TICKET_BITS);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->mutex);
        if (n > 2)
            pthread_cond_broadcast(&pool->work);
        else
            pthread_cond_signal(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
    }
}

void ap_pool_observe(struct ap_pool *pool, ap_pool_observer *observer, void *ctx)
{
    if (pool == NULL)
        return;
    pool->observer = observer;
    pool->observer_ctx = ctx;
}

void ap_pool_run(struct ap_pool *pool, int64_t n, ap_pool_task *task, void *ctx)
{
    /* More tasks than a ticket can count would be a mistake of the caller, but still come out right. */
    if (pool == NULL || pool->threads == 1 || n <= 1 || n > TASKS_MAX) {
        for (int64_t i = 0; i < n; i++)
            task(ctx, i, 0);
        return;
    }
    publish(pool, n, task, ctx);
    work_off(pool, 0);
    wait_done(pool, n);
}
