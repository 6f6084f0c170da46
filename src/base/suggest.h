/* SPDX-License-Identifier: Apache-2.0
 * "Did you mean": the nearest valid word. Thread-safe, allocates nothing. */
#ifndef AP_BASE_SUGGEST_H
#define AP_BASE_SUGGEST_H

#include <stddef.h>

/* Optimal string alignment distance (insert, delete, substitute, swap of neighbours), letters compared
 * without case; words longer than 64 bytes count as far away from everything. */
int ap_suggest_distance(const char *a, const char *b);

/* Collects the best candidate word by word. Zero-initialise best; word stays borrowed. */
struct ap_suggest {
    const char *best;
    int distance;
};
void ap_suggest_consider(struct ap_suggest *s, const char *typed, const char *candidate);
/* The nearest word if it is near enough to be meant (about a third of its letters differ), else NULL. */
const char *ap_suggest_result(const struct ap_suggest *s, const char *typed);
/* The same over a list of n words. */
const char *ap_suggest_nearest(const char *typed, const char *const *words, size_t n);

#endif
