/* SPDX-License-Identifier: Apache-2.0
 * Host memory for a number of micro-batches of B sequences of T tokens. */
#ifndef AP_TRAIN_BATCHES_H
#define AP_TRAIN_BATCHES_H

#include "model/model.h"
#include "train/data.h"

struct ap_batches {
    int64_t count, seqs, len;
    int32_t *mem;
}; /* i32 [count][4: tokens targets first positions][B*T] */

ap_status ap_batches_create(int64_t count, int64_t seqs, int64_t len, struct ap_batches *b);
void ap_batches_free(struct ap_batches *b); /* zeroed is fine */
/* Row `row` of micro-batch i, for ap_data_fetch. */
struct ap_sample ap_batches_row(const struct ap_batches *b, int64_t i, int64_t row);
/* Micro-batch i, for ap_model_step. Borrowed. */
struct ap_batch ap_batches_get(const struct ap_batches *b, int64_t i);
/* Targets of micro-batch i that have a cross-entropy loss, and those that have an MTP loss at depth 1: both
 * the next token and the one after it are targets. */
void ap_batches_count(const struct ap_batches *b, int64_t i, int64_t *ce_p, int64_t *mtp_p);

#endif
