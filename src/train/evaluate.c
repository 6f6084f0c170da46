/* SPDX-License-Identifier: Apache-2.0
 * Validation loss. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/tree.h"
#include "train/batches.h"
#include "train/evaluate.h"

struct sum {
    double loss;
    int64_t tokens;
};

/* Evenly over all windows, so that a part of the data speaks for every source in it. */
static int64_t spread(int64_t sample, int64_t sequences, int64_t have)
{
    return have / sequences * sample + have % sequences * sample / sequences;
}

/* Windows of micro-batch `leaf`; rows past the last window repeat it without targets. */
static ap_status fetch(const struct ap_evaluate_args *a, int64_t sequences, int64_t leaf, struct ap_batches *b)
{
    for (int64_t row = 0; row < a->micro_sequences; row++) {
        int64_t sample = leaf * a->micro_sequences + row;
        struct ap_sample s = ap_batches_row(b, 0, row);
        int64_t window = spread(sample < sequences ? sample : sequences - 1, sequences, ap_data_windows(a->data));
        AP_TRY(ap_data_fetch(a->data, window, &s));
        for (int64_t i = 0; sample >= sequences && i < a->seq_len; i++)
            s.targets[i] = -1;
    }
    return AP_OK;
}

static ap_status own_leaves(const struct ap_evaluate_args *a, int64_t sequences, int64_t lo, int64_t hi,
                            struct sum *sums)
{
    struct ap_batches b = {0};
    ap_status st = ap_batches_create(1, a->micro_sequences, a->seq_len, &b);
    for (int64_t leaf = lo; st == AP_OK && leaf < hi; leaf++) {
        struct ap_model_result r = {0};
        struct ap_loss_weights none = {0};
        struct ap_batch batch = ap_batches_get(&b, 0);
        st = fetch(a, sequences, leaf, &b);
        if (st == AP_OK)
            st = ap_model_step(a->model, a->weights, (ap_tensor){0}, a->router_bias, &batch, &none, &r, NULL);
        sums[leaf] = (struct sum){r.ce_sum, r.ce_tokens};
    }
    ap_batches_free(&b);
    return st;
}

ap_status ap_evaluate(const struct ap_evaluate_args *a, struct ap_evaluate_result *r_p, struct ap_error *err)
{
    struct ap_comm *c = a->comm;
    int64_t have = ap_data_windows(a->data), sequences = a->sequences < have ? a->sequences : have;
    int64_t leaves = (sequences + a->micro_sequences - 1) / a->micro_sequences, lo = 0, hi = 0;
    if (sequences <= 0)
        return ap_error_set(err, AP_ERR_INPUT, "the validation data hold no window of %lld tokens",
                            (long long)a->seq_len);
    ap_tree_leaves(leaves, c->rank, c->size, &lo, &hi);
    struct sum *sums = calloc((size_t)leaves, sizeof(*sums));
    int64_t *bytes = calloc((size_t)c->size, sizeof(*bytes));
    ap_status st = sums && bytes ? own_leaves(a, sequences, lo, hi, sums) : AP_ERR_NOMEM;
    if (st != AP_OK)
        ap_error_set(err, st, "evaluation failed on rank %d: %s", c->rank, ap_status_name(st));
    st = ap_comm_agree(c, st, NULL, err);
    for (int r = 0; st == AP_OK && r < c->size; r++) {
        int64_t first, last;
        ap_tree_leaves(leaves, r, c->size, &first, &last);
        bytes[r] = (last - first) * (int64_t)sizeof(*sums);
    }
    if (st == AP_OK)
        st = ap_comm_allgatherv(c, sums + lo, bytes, sums);
    struct sum all = {0};
    for (int64_t i = 0; st == AP_OK && i < leaves; i++) {
        all.loss += sums[i].loss;
        all.tokens += sums[i].tokens;
    }
    if (st == AP_OK)
        *r_p = (struct ap_evaluate_result){all.tokens > 0 ? all.loss / (double)all.tokens : NAN, all.tokens, sequences};
    free(sums);
    free(bytes);
    return st;
}
