/* SPDX-License-Identifier: Apache-2.0
 * The files of an input: one file, or all regular files below a folder in the order of their paths. */
#ifndef AP_PREP_WALK_H
#define AP_PREP_WALK_H

#include <stdint.h>
#include "base/status.h"

struct ap_walk_file {
    char *path; /* owned by the list */
    int input;  /* index of the input it came from */
    int64_t size, mtime_ns;
};

/* Zero-initialised is empty. */
struct ap_walk_list {
    struct ap_walk_file *files;
    int64_t count, capacity;
    int64_t links; /* symbolic links left out */
};

/* Append the files of path. Links inside a folder are not followed (man pages use them as aliases), hidden
 * files are left out. AP_ERR_INPUT if path does not exist. */
ap_status ap_walk_add(struct ap_walk_list *list, const char *path, int input, struct ap_error *err);
void ap_walk_free(struct ap_walk_list *list);

#endif
