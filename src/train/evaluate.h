/* SPDX-License-Identifier: Apache-2.0
 * Loss over validation windows, the same bits for any number of ranks: micro-batches are numbered, each rank
 * takes a contiguous range, and the sums are added in their order. */
#ifndef AP_TRAIN_EVALUATE_H
#define AP_TRAIN_EVALUATE_H

#include "model/model.h"
#include "parallel/comm.h"
#include "train/data.h"

struct ap_evaluate_args {
    struct ap_model *model; /* borrowed; of micro_sequences x seq_len */
    ap_tensor weights, router_bias;
    const struct ap_data *data; /* opened without shuffle */
    struct ap_comm *comm;
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
