/* SPDX-License-Identifier: Apache-2.0
 * Loss over validation windows, the same bits for any number of ranks: micro-batches are numbered, each rank
 * takes a contiguous range, and the sums are added in their order. */
#ifndef AP_TRAIN_EVALUATE_H
#define AP_TRAIN_EVALUATE_H

#include "model/model.h"
#include "train/data.h"
#include "train/results.h"

struct ap_evaluate_args {
    /* Losses of one micro-batch of micro_sequences x seq_len; collective over the ranks that share it, and over the
     * expert group. */
    ap_status (*loss)(void *ctx, const struct ap_batch *batch, struct ap_leaf_result *result);
    void *ctx;
    struct ap_mesh *mesh;
    const struct ap_data *data; /* opened without shuffle */
    int64_t micro_sequences, seq_len;
    int64_t sequences; /* windows wanted, evenly spaced over the data; the file may hold fewer */
};

struct ap_evaluate_result {
    double loss;
    int64_t tokens, sequences;
}; /* nats per target; NaN without targets */

/* Collective. */
ap_status ap_evaluate(const struct ap_evaluate_args *a, struct ap_evaluate_result *r_p, struct ap_error *err);

#endif
