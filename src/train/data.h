/* SPDX-License-Identifier: Apache-2.0
 * The loader: weighted mixtures of memory-mapped Megatron .bin/.idx files, as a pure function of (seed,
 * global sample number): no state, no order of calls, nothing to checkpoint but a number. One epoch of a
 * source visits every window once, in a keyed pseudo-random order. Thread-safe after open. */
#ifndef AP_TRAIN_DATA_H
#define AP_TRAIN_DATA_H

#include <stdint.h>
#include "base/status.h"
#include "plan/job.h"

struct ap_data;

struct ap_data_options {
    int64_t seq_len;
    int64_t
        vocab_size; /* ids are checked against it at open (whole file once, result cached by mtime is not trusted) */
    uint64_t seed;
    int mask_documents;
    int shuffle; /* 0: windows in order (validation) */
};

/* One sequence: tokens[T]; targets[T] (the next token, or -1 where no loss is taken); first[T] = index of
 * the first token each position may see (0 without mask_documents); positions[T] = 0..T-1. */
struct ap_sample {
    int32_t *tokens, *targets, *first, *positions;
};

/* Not collective. AP_ERR_INPUT with file name for missing, truncated, inconsistent files or an id >= vocab. */
ap_status ap_data_open(const struct ap_data_source_spec *sources, int count, const struct ap_data_options *opt,
                       struct ap_data **data_p, struct ap_error *err);
void ap_data_close(struct ap_data *d);
/* Fill caller-owned arrays. sample >= 0; with shuffle 0 sample < ap_data_windows. */
ap_status ap_data_fetch(const struct ap_data *d, int64_t sample, struct ap_sample *out);
int64_t ap_data_windows(const struct ap_data *d); /* per epoch, all sources */
int64_t ap_data_tokens(const struct ap_data *d);
/* Bigram conditional entropy in nats of the concatenated documents: -sum p(a,b) ln p(b|a), pairs inside
 * documents only. */
ap_status ap_data_bigram_entropy(const struct ap_data *d, double *nats_p, struct ap_error *err);

#endif
