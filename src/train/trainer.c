/* SPDX-License-Identifier: Apache-2.0
 * A run: set-up, loop, verdict, teardown. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "train/trainer_impl.h"

ap_status ap_train_run(const struct ap_train_options *opt, struct ap_train_result *res_p, struct ap_error *err)
{
    struct ap_error own = {0};
    struct ap_train_result res = {0};
    struct ap_trainer *t = calloc(1, sizeof(*t));
    if (!t)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    if (!err)
        err = &own; /* reasons are read back from it */
    t->opt = *opt;
    t->job = opt->job;
    t->comm = opt->comm;
    t->lock_fd = -1;
    ap_status st = ap_trainer_setup(t, err);
    if (st == AP_OK) {
        st = ap_trainer_loop(t, err);
        st = ap_trainer_verdict(t, st, &res, err);
    }
    if (st != AP_OK && st != AP_ERR_INVALID && st != AP_ERR_STOPPED && t->events)
        ap_events_emit(t->events, AP_LOG_DEBUG, t->state.step, "error", "%s", err->text);
    /* A run that failed may have left ranks behind: each keeps its own trace. */
    ap_tracing_close(&t->tracing, st == AP_OK || st == AP_ERR_INVALID || st == AP_ERR_STOPPED);
    ap_trainer_teardown(t);
    free(t);
    *res_p = res;
    return st;
}
