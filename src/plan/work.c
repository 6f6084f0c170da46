/* SPDX-License-Identifier: Apache-2.0
 * Measured kinds of work: between the shapes that were measured, the identity of what was, and the clock. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "plan/work.h"

const char *ap_work_name(enum ap_work_kind k)
{
    static const char *const names[AP_WORK_KINDS] = {"front", "dense", "moe", "back"};
    return names[k];
}

int ap_work_measured(const struct ap_work *w, enum ap_work_shape s)
{
    for (int k = 0; k < AP_WORK_KINDS; k++)
        if (w->at[s][k].forward > 0 || w->at[s][k].backward > 0)
            return 1;
    return 0;
}

/* Seconds for a group of n where alone takes `whole` and a group of two `half`: r + d / n through the latter, with
 * r >= 0 what every process does. */
static double cut(double whole, double half, int n)
{
    double every = 2 * half - whole;
    if (n == 1)
        return whole;
    every = every > 0 ? every : 0;
    return every + 2 * (half - every) / n;
}

struct ap_work_time ap_work_at(const struct ap_work *w, enum ap_work_kind k, int tensor, int expert)
{
    struct ap_work_time t = w->at[AP_WORK_WHOLE][k], two = w->at[AP_WORK_TENSOR2][k];
    const struct ap_work_time *halves = &w->at[AP_WORK_EXPERT2][k];
    double forward = 1, backward = 1;
    if (expert > 1 && ap_work_measured(w, AP_WORK_EXPERT2)) {
        forward = t.forward > 0 ? cut(t.forward, halves->forward, expert) / t.forward : 1;
        backward = t.backward > 0 ? cut(t.backward, halves->backward, expert) / t.backward : 1;
    }
    if (!ap_work_measured(w, AP_WORK_TENSOR2))
        two = (struct ap_work_time){t.forward / 2, t.backward / 2};
    return (struct ap_work_time){cut(t.forward, two.forward, tensor) * forward,
                                 cut(t.backward, two.backward, tensor) * backward};
}

ap_status ap_work_identity(const struct ap_job *job, char out[33])
{
    char rest[128], *json = ap_model_config_json(&job->model.cfg);
    struct ap_hasher *h = ap_hasher_create();
    ap_status status = json != NULL && h != NULL ? AP_OK : AP_ERR_NOMEM;
    if (status == AP_OK) {
        int n =
            snprintf(rest, sizeof rest, "seq %lld dtype %d recompute %d mtp %d", (long long)job->data.seq_len,
                     (int)job->dtype, job->recompute != 0, job->model.cfg.mtp_depth > 0 && job->loss.mtp_weight > 0);
        ap_hasher_update(h, json, strlen(json));
        ap_hasher_update(h, rest, (size_t)n);
        ap_hash128_hex(ap_hasher_digest(h), out);
    }
    ap_hasher_destroy(h);
    free(json);
    return status;
}

void ap_work_begin(struct ap_work_clock *c)
{
    if (c == NULL)
        return;
    c->last = ap_clock_monotonic();
    c->apart_last = c->apart != NULL ? *c->apart : 0;
}

void ap_work_lap(struct ap_work_clock *c, double *seconds_to)
{
    if (c == NULL)
        return;
    double last = c->last, apart = c->apart_last;
    ap_work_begin(c);
    if (seconds_to != NULL)
        *seconds_to += c->last - last - (c->apart_last - apart);
}
