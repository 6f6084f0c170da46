/* SPDX-License-Identifier: Apache-2.0
 * Fewer cases in a sanitized build: it is several times slower, looks for errors of memory that each case finds alike,
 * and the plain build runs them all on the same sources. Says so in a line that `./quickstart check` shows. */
#ifndef AP_TESTS_FEWER_H
#define AP_TESTS_FEWER_H

#include <stdio.h>
#include <stdlib.h>

static inline int fewer(const char *what, int all, int sanitized)
{
    if (!getenv("AP_TEST_SANITIZED"))
        return all;
    printf("fewer: %s: %d, not %d\n", what, sanitized, all);
    return sanitized;
}

#endif
