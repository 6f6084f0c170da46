/* SPDX-License-Identifier: Apache-2.0
 * A main for fuzz targets without libFuzzer: feeds every file of tests/fuzz/corpus/NAME (NAME from the program's own
 * name, fuzz_NAME) to the target, then each file with its bytes cut and flipped in 64 fixed places (8 in a sanitized
 * build, which libFuzzer runs as well). */
#include "config.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/io.h"
#include "support/fewer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The target gets an exact heap copy, so that a sanitizer sees the first byte read behind it. */
static int feed(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (!copy)
        return -1;
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    return 0;
}

static int replay(const char *path, size_t places, long *fed)
{
    char *data = NULL;
    size_t size = 0;
    struct ap_error err;
    if (ap_io_read_file(path, (size_t)1 << 24, &data, &size, &err) != AP_OK) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    uint8_t *bytes = (uint8_t *)data;
    int failed = feed(bytes, size);
    for (size_t i = 0; i < places && size > 0; i++) {
        size_t at = i * size / places;
        failed |= feed(bytes, at);
        bytes[at] ^= (uint8_t)(1u << (i % 8));
        failed |= feed(bytes, size);
        bytes[at] ^= (uint8_t)(1u << (i % 8));
    }
    *fed += size > 0 ? 1 + 2 * (long)places : 1;
    free(data);
    return failed;
}

int main(int argc, char **argv)
{
    const char *srcdir = getenv("AP_SRCDIR"), *name = strstr(argv[0], "fuzz_");
    char path[4096];
    size_t places = (size_t)fewer("injuries of each file", 64, 8);
    long files = 0, fed = 0;
    (void)argc;
    for (const char *next; name && (next = strstr(name + 1, "fuzz_"));)
        name = next;
    if (!srcdir || !name) {
        fprintf(stderr, "usage: AP_SRCDIR=TREE fuzz_NAME\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s", srcdir, name + strlen("fuzz_"));
    DIR *dir = opendir(path);
    if (!dir) {
        perror(path);
        return 1;
    }
    size_t length = strlen(path);
    int failed = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path + length, sizeof path - length, "/%s", e->d_name);
        failed |= replay(path, places, &fed);
        files++;
    }
    closedir(dir);
    path[length] = '\0';
    printf("%s: %ld files, %ld inputs\n", path, files, fed);
    return failed != 0 || files == 0;
}
