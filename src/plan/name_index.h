/* SPDX-License-Identifier: Apache-2.0
 * Names to numbers 0, 1, 2, ... in the order in which they first appear. */
#ifndef AP_PLAN_NAME_INDEX_H
#define AP_PLAN_NAME_INDEX_H

#include <stddef.h>

/* Zero-initialised is empty. names[i] is owned. */
struct ap_name_index {
    char **names;
    int count;
    int *slots; /* open addressing, -1: free */
    size_t slot_count;
};

/* Number of name, -1 if it is not there. */
int ap_name_find(const struct ap_name_index *x, const char *name);
/* Number of name, added if it is not there; -1: out of memory. */
int ap_name_add(struct ap_name_index *x, const char *name);
void ap_name_clear(struct ap_name_index *x);

#endif
