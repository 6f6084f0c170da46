/* SPDX-License-Identifier: Apache-2.0
 * The order of the loader: which source, epoch and window a sample number means. Pure arithmetic, no files:
 * every function depends on its arguments only. Internal to the loader and its tests. */
#ifndef AP_TRAIN_DATA_ORDER_H
#define AP_TRAIN_DATA_ORDER_H

#include <stdint.h>
#include "base/status.h"
#include "plan/job.h"

/* Image of i under the keyed permutation of [0, n), 0 <= i < n <= 2^62. */
uint64_t ap_data_permute(uint64_t key, uint64_t n, uint64_t i);

/* A mixture: blocks of `block` samples; edge[s] is the sum of the weights before source s in units of
 * 2^-62 of the whole, edge[count] = 2^62. */
struct ap_data_mix {
    int count;
    int64_t block;
    uint64_t edge[AP_JOB_MAX_SOURCES + 1];
};

/* Weights are relative. AP_ERR_INPUT for none, a non-positive one, or one below 2^-20 of the whole. */
ap_status ap_data_mix_init(struct ap_data_mix *mix, const struct ap_data_source_spec *sources, int count,
                           struct ap_error *err);
/* Samples of source s among the first n samples, n a multiple of mix->block. */
int64_t ap_data_mix_count(const struct ap_data_mix *mix, int s, int64_t n);
/* Source of a sample and the sample's number within that source: a bijection for each source. */
void ap_data_mix_locate(const struct ap_data_mix *mix, uint64_t seed, int64_t sample, int *source_p, int64_t *index_p);

/* Where a sample of a loader lies. start: first token of the window, inside the source's token stream,
 * which is a ring when shuffled. */
struct ap_data_place {
    int source;
    int64_t epoch, window, start;
};
struct ap_data;
ap_status ap_data_locate(const struct ap_data *d, int64_t sample, struct ap_data_place *place_p);

#endif
