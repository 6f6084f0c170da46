/* SPDX-License-Identifier: Apache-2.0
 * Between the files of the option machinery: typed access to a value, and the scalar parsers. */
#ifndef AP_BASE_OPTIONS_INTERNAL_H
#define AP_BASE_OPTIONS_INTERNAL_H

#include "base/options.h"

/* The layout of one entry of AP_OPT_SOURCES. */
#define AP_SOURCE_STRIDE       (2 * sizeof(double))
#define AP_SOURCE_PATH(p, i)   ((char **)(void *)((char *)(p) + (size_t)(i) * AP_SOURCE_STRIDE))
#define AP_SOURCE_WEIGHT(p, i) ((double *)(void *)((char *)(p) + (size_t)(i) * AP_SOURCE_STRIDE + sizeof(char *)))
_Static_assert(sizeof(char *) == sizeof(double), "a path and a weight lie side by side without a gap");

static inline void *ap_option_at(const struct ap_option *opt, const void *values)
{
    return (char *)(size_t)values + opt->offset;
}

static inline int *ap_option_count_at(const struct ap_option *opt, const void *values)
{
    return (int *)(void *)((char *)(size_t)values + opt->count_offset);
}

/* Parse the whole text: 0, or -1 where it is not such a number (or does not fit). */
int ap_option_parse_int(const char *text, int64_t *v_p);
int ap_option_parse_uint(const char *text, uint64_t *v_p);
int ap_option_parse_real(const char *text, double *v_p);

#endif
