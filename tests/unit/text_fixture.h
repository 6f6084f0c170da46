/* SPDX-License-Identifier: Apache-2.0
 * Helpers of the tests of text, data and prep: private folders, small files, small datasets. */
#ifndef AP_TEST_TEXT_FIXTURE_H
#define AP_TEST_TEXT_FIXTURE_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "text/megatron.h"

#define FIXTURE_PATH 512

/* A new folder under TMPDIR; removed by fixture_remove. */
static inline void fixture_dir(char dir[FIXTURE_PATH])
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, FIXTURE_PATH, "%s/ap-text.XXXXXX", tmp ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
}

static inline void fixture_remove(const char *dir)
{
    cr_assert_eq(ap_io_remove_tree(dir, NULL), AP_OK);
}

static inline char *fixture_path(char path[FIXTURE_PATH], const char *dir, const char *name)
{
    cr_assert_lt(snprintf(path, FIXTURE_PATH, "%s/%s", dir, name), FIXTURE_PATH);
    return path;
}

static inline void fixture_write(const char *dir, const char *name, const void *data, size_t size)
{
    char path[FIXTURE_PATH];
    FILE *f = fopen(fixture_path(path, dir, name), "wb");
    cr_assert_not_null(f, "%s", path);
    cr_assert_eq(fwrite(data, 1, size, f), size);
    cr_assert_eq(fclose(f), 0);
}

static inline char *fixture_read(const char *dir, const char *name, size_t *size_p)
{
    char path[FIXTURE_PATH], *data = NULL;
    cr_assert_eq(ap_io_read_file(fixture_path(path, dir, name), 1 << 28, &data, size_p, NULL), AP_OK, "%s", path);
    return data;
}

/* Documents of the given lengths; token t of the whole has id (base + t) % vocab. */
static inline void fixture_dataset(const char *prefix, int dtype, const int64_t *lengths, int count, int64_t base,
                                   int64_t vocab)
{
    struct ap_megatron_writer *w;
    struct ap_error err;
    int64_t t = 0;
    cr_assert_eq(ap_megatron_writer_create(prefix, dtype, &w, &err), AP_OK, "%s", err.text);
    for (int d = 0; d < count; d++) {
        for (int64_t i = 0; i < lengths[d]; i++, t++) {
            int32_t id = (int32_t)((base + t) % vocab);
            cr_assert_eq(ap_megatron_writer_append(w, &id, 1, &err), AP_OK, "%s", err.text);
        }
        cr_assert_eq(ap_megatron_writer_end_document(w, &err), AP_OK);
    }
    cr_assert_eq(ap_megatron_writer_commit(w, NULL, &err), AP_OK, "%s", err.text);
    ap_megatron_writer_destroy(w);
}

#endif
