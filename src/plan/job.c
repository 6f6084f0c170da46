/* SPDX-License-Identifier: Apache-2.0
 * Loading a job file: text, YAML, options, overrides, resolution. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/yaml.h"
#include "plan/job_internal.h"

static int begins(const char *line, const char *end, const char *prefix)
{
    size_t n = strlen(prefix);
    return (size_t)(end - line) >= n && memcmp(line, prefix, n) == 0;
}

/* Directives below the first key would not be seen by the batch system. */
static void warn_late_directives(const char *path, const char *text, size_t size)
{
    const char *end = text + size;
    long number = 1;
    int body = 0;
    for (const char *line = text; line < end; number++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (stop == NULL)
            stop = end;
        int directive = begins(line, stop, "#SBATCH") || begins(line, stop, "#PBS");
        if (directive && body) {
            ap_warn("%s:%ld: batch systems do not read #SBATCH and #PBS lines below the first key: move it up", path,
                    number);
            return;
        }
        body |= line < stop && *line != '#';
        line = stop < end ? stop + 1 : end;
    }
}

ap_status ap_job_check_text(const char *path, const char *text, size_t size, struct ap_error *err)
{
    const char *cr = size > 0 ? memchr(text, '\r', size) : NULL;
    if (cr != NULL) {
        long line = 1;
        const char *start = text;
        for (const char *p = text; p < cr; p++)
            if (*p == '\n') {
                line++;
                start = p + 1;
            }
        ap_error_set(err, AP_ERR_INPUT,
                     "the file has carriage returns (line ends of Windows), which batch systems and "
                     "the #! line do not take");
        ap_error_at(err, path, line, (long)(cr - start) + 1);
        ap_error_hint(err, "sed -i 's/\\r//' %s", path);
        return AP_ERR_INPUT;
    }
    if (begins(text, text + size, "---")) {
        ap_error_set(err, AP_ERR_INPUT, "a leading --- keeps batch systems from reading the file");
        ap_error_at(err, path, 1, 1);
        ap_error_hint(err, "remove the line");
        return AP_ERR_INPUT;
    }
    return AP_OK;
}

/* Everything between the text and the resolved job. */
static ap_status fill(struct ap_job *job, struct ap_options *o, const char *path, const struct ap_yaml_node *root,
                      const struct ap_override *sets, int set_count, struct ap_error *err)
{
    AP_TRY(ap_options_init(o, ap_job_options(), job, err));
    AP_TRY(ap_options_apply(o, path, root, err));
    for (int i = 0; i < set_count; i++)
        AP_TRY(ap_options_set(o, sets[i].key, sets[i].value, err));
    AP_TRY(ap_options_finish(o, err));
    return ap_job_resolve(job, o, err);
}

ap_status ap_job_load_text(const char *path, const char *text, size_t size, const struct ap_override *sets,
                           int set_count, struct ap_job **job_p, struct ap_error *err)
{
    struct ap_yaml_node *root = NULL;
    struct ap_options o = {0};
    AP_TRY(ap_job_check_text(path, text, size, err));
    AP_TRY(ap_yaml_parse(path, text, size, &root, err));
    warn_late_directives(path, text, size);
    ap_status status = AP_OK;
    struct ap_job *job = calloc(1, sizeof *job);
    if (job != NULL)
        job->file = strdup(path);
    if (job == NULL || job->file == NULL)
        status = ap_error_set(err, AP_ERR_NOMEM, "no memory for a job");
    if (status == AP_OK) {
        ap_hash128_hex(ap_hash128(text, size), job->content_hash);
        status = fill(job, &o, path, root, sets, set_count, err);
    }
    ap_options_clear(&o);
    ap_yaml_free(root);
    if (status != AP_OK) {
        ap_job_destroy(job);
        return status;
    }
    *job_p = job;
    return AP_OK;
}

ap_status ap_job_load(const char *path, const struct ap_override *sets, int set_count, struct ap_job **job_p,
                      struct ap_error *err)
{
    char *text;
    size_t size;
    AP_TRY(ap_io_read_file(path, AP_YAML_MAX_BYTES, &text, &size, err));
    ap_status status = ap_job_load_text(path, text, size, sets, set_count, job_p, err);
    free(text);
    return status;
}

void ap_job_destroy(struct ap_job *job)
{
    if (job == NULL)
        return;
    ap_options_free_values(ap_job_options(), job);
    free(job->file);
    free(job->train_place.file);
    free(job->valid_place.file);
    free(job);
}

/* Values that follow from others: written too, they would exclude them on reading. */
static int is_derived(const char *key)
{
    return strcmp(key, "batch.global_tokens") == 0 || strcmp(key, "train_tokens") == 0;
}

char *ap_job_yaml(const struct ap_job *job)
{
    return ap_options_dump(ap_job_options(), job, is_derived);
}
