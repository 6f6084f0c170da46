/* SPDX-License-Identifier: Apache-2.0
 * Names inside a checkpoint directory, and the operations on whole states that only rank 0 performs:
 * scan, commit by rename, quarantine, retention, the best link, removal of leftovers. Not collective.
 *   step-000000000100            a committed state
 *   step-000000000100.HOST-PID-N.tmp   a save in progress, or what a killed one left
 *   step-000000000100.del        a state being removed
 *   step-000000000100.old        a state being replaced
 *   step-000000000100.superseded  of a branch that the run left by going back (then .superseded-2, ...)
 *   step-000000000100.corrupt    quarantined (then .corrupt-2, ...)
 *   best                         symbolic link to a state */
#ifndef AP_CKPT_STATEDIR_H
#define AP_CKPT_STATEDIR_H

#include <stdint.h>
#include "base/status.h"

#define AP_STATE_PATH_BYTES 4096

/* DIR/step-..., AP_ERR_INPUT if it does not fit. */
ap_status ap_statedir_path(const char *dir, int64_t step, char *buf, size_t size, struct ap_error *err);
/* Step that the last component of a path names ("step-000000000100"), -1 if it is no such name. */
int64_t ap_statedir_step(const char *path);
/* Steps of committed states, newest first; malloc'ed. A missing directory is AP_ERR_NOTFOUND. */
ap_status ap_statedir_scan(const char *dir, int64_t **steps_p, int *count_p, struct ap_error *err);
/* Step the best link names, -1 if there is none. */
int64_t ap_statedir_best(const char *dir);
ap_status ap_statedir_set_best(const char *dir, int64_t step, struct ap_error *err);
/* Create a fresh temporary directory for a save; buf gets its path. */
ap_status ap_statedir_begin(const char *dir, int64_t step, int nonce, char *buf, size_t size, struct ap_error *err);
/* fsync tmp, rename it to the state's name (replacing a state of that step), fsync DIR. */
ap_status ap_statedir_commit(const char *dir, const char *tmp, int64_t step, struct ap_error *err);
/* Rename to *.corrupt; the new name into buf. */
ap_status ap_statedir_quarantine(const char *dir, int64_t step, char *buf, size_t size, struct ap_error *err);
/* Move states newer than step aside: the run went back behind them, they are no longer its newest. Counts them;
 * the best link goes if its state does. */
ap_status ap_statedir_supersede(const char *dir, int64_t step, int *count_p, struct ap_error *err);
/* Remove states older than the newest keep, except the best one. */
ap_status ap_statedir_retain(const char *dir, int64_t keep, struct ap_error *err);
/* Remove what interrupted saves and removals left. Only with the lock held. */
ap_status ap_statedir_clean(const char *dir, struct ap_error *err);
/* Bytes a user may still write to the file system of dir; -1 unknown. */
int64_t ap_statedir_free_bytes(const char *dir);

/* DIR/LOCK: *fd_p is to be closed to let go. AP_ERR_LOCKED names the holder. The kernel drops the lock when its
 * holder dies, however it dies. */
ap_status ap_statedir_lock(const char *dir, int *fd_p, struct ap_error *err);

#endif
