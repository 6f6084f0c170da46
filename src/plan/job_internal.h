/* SPDX-License-Identifier: Apache-2.0
 * Between the files of the job: resolving the values that the table filled. */
#ifndef AP_PLAN_JOB_INTERNAL_H
#define AP_PLAN_JOB_INTERNAL_H

#include "base/options.h"
#include "plan/job.h"

/* Check values against each other, replace "auto" where it does not depend on the processes, make paths
 * absolute, read the model. Errors get the place of the option to blame. */
ap_status ap_job_resolve(struct ap_job *job, const struct ap_options *o, struct ap_error *err);
/* Rules of batch systems that YAML does not know: no CR LF, no leading "---". */
ap_status ap_job_check_text(const char *path, const char *text, size_t size, struct ap_error *err);

#endif
