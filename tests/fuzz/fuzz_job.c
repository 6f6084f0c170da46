/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: the job file. Whatever the bytes, the answer is one error with a text, or a job that, written out,
 * is read back to the same text. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "plan/job.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ap_status load(const char *text, size_t size, struct ap_job **job_p)
{
    struct ap_error err = {0};
    ap_status status = ap_job_load_text("job.yaml", text, size, NULL, 0, job_p, &err);
    if (status == AP_OK)
        return AP_OK;
    if (*job_p != NULL || err.status != status || err.text[0] == '\0' ||
        memchr(err.text, '\0', sizeof err.text) == NULL)
        abort();
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ap_job *job = NULL, *again = NULL;
    ap_log_setup(AP_LOG_ERROR, -1);
    if (load((const char *)data, size, &job) != AP_OK)
        return 0;
    char *first = ap_job_yaml(job);
    if (first == NULL || load(first, strlen(first), &again) != AP_OK)
        abort();
    char *second = ap_job_yaml(again);
    if (second == NULL || strcmp(first, second) != 0)
        abort();
    free(first);
    free(second);
    ap_job_destroy(job);
    ap_job_destroy(again);
    return 0;
}
