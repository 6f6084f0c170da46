/* SPDX-License-Identifier: Apache-2.0
 * What all resource managers share: growing command lines, finding out where we run, copying the job file. */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/io.h"
#include "launch/launch.h"

ap_status ap_argv_add(struct ap_argv *a, const char *fmt, ...)
{
    if (a->n + 2 > a->capacity) {
        int capacity = a->capacity > 0 ? 2 * a->capacity : 16;
        char **v = realloc(a->v, (size_t)capacity * sizeof *v);
        if (v == NULL)
            return AP_ERR_NOMEM;
        a->v = v;
        a->capacity = capacity;
    }
    va_list args;
    va_start(args, fmt);
    char *word = NULL;
    int length = vasprintf(&word, fmt, args);
    va_end(args);
    if (length < 0)
        return AP_ERR_NOMEM;
    a->v[a->n++] = word;
    a->v[a->n] = NULL;
    return AP_OK;
}

void ap_argv_free(struct ap_argv *a)
{
    for (int i = 0; i < a->n; i++)
        free(a->v[i]);
    free(a->v);
    *a = (struct ap_argv){0};
}

/* One word for a shell at out (at most 4 * length + 3 bytes); returns the end. */
static char *quote(char *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
    if (word[0] != '\0' && strspn(word, plain) == strlen(word))
        return stpcpy(out, word);
    *out++ = '\'';
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            out = stpcpy(out, "'\\''");
        else
            *out++ = *word;
    }
    return stpcpy(out, "'");
}

char *ap_argv_text(const struct ap_argv *a)
{
    size_t size = 1;
    for (int i = 0; i < a->n; i++)
        size += 4 * strlen(a->v[i]) + 4;
    char *text = malloc(size);
    if (text == NULL)
        return NULL;
    char *out = text;
    *out = '\0';
    for (int i = 0; i < a->n; i++) {
        if (i > 0)
            *out++ = ' ';
        out = quote(out, a->v[i]);
    }
    return text;
}

const struct ap_rm_ops *ap_rm_detect(void)
{
    if (ap_rm_slurm.job_id() != NULL)
        return &ap_rm_slurm;
    if (ap_rm_pbs.job_id() != NULL)
        return &ap_rm_pbs;
    return &ap_rm_local;
}

int ap_launch_in_task(void)
{
    return getenv("PMIX_RANK") != NULL || getenv("OMPI_COMM_WORLD_RANK") != NULL;
}

ap_status ap_launch_add_program(const struct ap_launch_spec *spec, struct ap_argv *argv)
{
    AP_TRY(ap_argv_add(argv, "%s", spec->program));
    AP_TRY(ap_argv_add(argv, "train"));
    AP_TRY(ap_argv_add(argv, "%s", spec->job));
    for (int i = 0; spec->options != NULL && spec->options[i] != NULL; i++)
        AP_TRY(ap_argv_add(argv, "%s", spec->options[i]));
    return AP_OK;
}

int ap_launch_on_path(const char *name)
{
    const char *path = getenv("PATH");
    char file[4096];
    while (path != NULL && *path != '\0') {
        size_t length = strcspn(path, ":");
        int n = snprintf(file, sizeof file, "%.*s/%s", (int)length, path, name);
        if (n > 0 && (size_t)n < sizeof file && access(file, X_OK) == 0)
            return 1;
        path += length + (path[length] == ':');
    }
    return 0;
}

ap_status ap_launch_copy_job(const char *job, const char *dir, const char *name, char **path_p, struct ap_error *err)
{
    char *data = NULL, *path = NULL;
    size_t size = 0;
    AP_TRY(ap_io_read_file(job, (size_t)1 << 24, &data, &size, err));
    ap_status st = ap_io_mkdirs(dir, err);
    if (st == AP_OK && asprintf(&path, "%s/%s.yaml", dir, name) < 0) {
        path = NULL;
        st = ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    }
    if (st == AP_OK)
        st = ap_io_write_durable(path, data, size, err);
    free(data);
    if (st != AP_OK) {
        free(path);
        return st;
    }
    *path_p = path;
    return AP_OK;
}
