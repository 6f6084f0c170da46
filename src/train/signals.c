/* SPDX-License-Identifier: Apache-2.0
 * Stop requests and the batch system's time limit. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "train/signals.h"

struct ap_signals {
    pthread_t thread;
    sigset_t set; /* waited for */
    atomic_int count, ending;
};

static void *watch(void *arg)
{
    struct ap_signals *s = arg;
    for (;;) {
        int sig = 0;
        if (sigwait(&s->set, &sig) != 0)
            continue;
        if (atomic_load(&s->ending))
            return NULL;
        if (atomic_fetch_add(&s->count, 1) == 0)
            continue;
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, sig);
        signal(sig, SIG_DFL);
        pthread_sigmask(SIG_UNBLOCK, &one, NULL);
        raise(sig);
    }
}

ap_status ap_signals_start(struct ap_signals **s_p, struct ap_error *err)
{
    struct ap_signals *s = calloc(1, sizeof(*s));
    if (!s)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    sigemptyset(&s->set);
    sigaddset(&s->set, SIGTERM);
    sigaddset(&s->set, SIGUSR2);
    sigaddset(&s->set, SIGINT);
    sigset_t before;
    pthread_sigmask(SIG_BLOCK, &s->set, &before);
    int rc = pthread_create(&s->thread, NULL, watch, s);
    if (rc != 0) {
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        free(s);
        return ap_error_set(err, AP_ERR_ENV, "cannot start the signal thread: %s", strerror(rc));
    }
    *s_p = s;
    return AP_OK;
}

int ap_signals_count(const struct ap_signals *s)
{
    return s ? atomic_load(&s->count) : 0;
}

void ap_signals_stop(struct ap_signals *s)
{
    if (!s)
        return;
    atomic_store(&s->ending, 1);
    pthread_kill(s->thread, SIGUSR2);
    pthread_join(s->thread, NULL);
    free(s);
}

static double positive(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    if (!text || !*text)
        return 0;
    double v = strtod(text, &end);
    return *end == 0 && v > 0 ? v : 0;
}

double ap_deadline_wall(void)
{
    double end = positive("SLURM_JOB_END_TIME"), limit = positive("PBS_WALLTIME");
    if (end > 0)
        return end;
    return limit > 0 ? ap_clock_wall() + limit : 0;
}
