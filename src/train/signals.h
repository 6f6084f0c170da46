/* SPDX-License-Identifier: Apache-2.0
 * Stop requests. TERM, USR2 and INT are blocked in the whole process and taken by one thread that counts them:
 * the trainer looks at the count at step boundaries. The second request does not wait: the thread restores the
 * default action and sends the signal again. No handlers, no process-wide variables. */
#ifndef AP_TRAIN_SIGNALS_H
#define AP_TRAIN_SIGNALS_H

#include "base/status.h"

struct ap_signals;

/* Call before any other thread exists (they inherit the mask). One object for a process. */
ap_status ap_signals_start(struct ap_signals **s_p, struct ap_error *err);
/* Requests so far; 0 for NULL. Any thread. */
int ap_signals_count(const struct ap_signals *s);
/* The last thing before a rank leaves its world: frees s (NULL is fine) and leaves the signals blocked, so that the
 * exit code of this rank is its own although a launcher ends all ranks at the first one that fails. */
void ap_signals_stop(struct ap_signals *s);

/* Wall time (seconds since 1970) at which the batch system ends this job, 0 if nobody says: SLURM_JOB_END_TIME,
 * or PBS_WALLTIME counted from now (call it early). */
double ap_deadline_wall(void);

#endif
