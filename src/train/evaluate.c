/* SPDX-License-Identifier: Apache-2.0
 * Validation loss. */
#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "train/batches.h"
#include "train/evaluate.h"

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

/* The ranks of an expert group work in step: who has fewer micro-batches than another goes on with empty ones. */
static int64_t rounds_of(const struct ap_results *r)
{
    int64_t most = r->hi - r->lo;
    for (int i = 0; r->mesh->shape.size[AP_AXIS_EXPERT] > 1 && i < r->mesh->batch->size; i++)
        if (r->leaf_begin[i + 1] - r->leaf_begin[i] > most)
            most = r->leaf_begin[i + 1] - r->leaf_begin[i];
    return most;
}

static ap_status own_leaves(const struct ap_evaluate_args *a, int64_t sequences, struct ap_results *r)
{
    struct ap_batches b = {0};
    struct ap_leaf_result unused;
    int64_t rounds = rounds_of(r), own = r->hi - r->lo;
    ap_status st = ap_batches_create(1, a->micro_sequences, a->seq_len, &b);
    for (int64_t i = 0; st == AP_OK && i < rounds; i++) {
        struct ap_batch batch = ap_batches_get(&b, 0);
        st = fetch(a, sequences, i < own ? r->lo + i : r->leaves, &b);
        if (st == AP_OK)
            st = a->loss(a->ctx, &batch, i < own ? &r->own[i] : &unused);
    }
    ap_batches_free(&b);
    return st;
}

ap_status ap_evaluate(const struct ap_evaluate_args *a, struct ap_evaluate_result *r_p, struct ap_error *err)
{
    struct ap_comm *c = a->mesh->world;
    struct ap_results r = {0};
    int64_t have = ap_data_windows(a->data), sequences = a->sequences < have ? a->sequences : have;
    int64_t leaves = (sequences + a->micro_sequences - 1) / a->micro_sequences;
    if (sequences <= 0)
        return ap_error_set(err, AP_ERR_INPUT, "the validation data hold no window of %lld tokens",
                            (long long)a->seq_len);
    AP_TRY(ap_comm_agree(c, ap_results_create(a->mesh, leaves, NULL, &r), NULL, err));
    ap_status st = own_leaves(a, sequences, &r);
    if (st != AP_OK)
        ap_error_set(err, st, "evaluation failed on rank %d: %s", c->rank, ap_status_name(st));
    if (st == AP_OK || a->mesh->batch->size == c->size) /* else the others wait inside a micro-batch */
        st = ap_comm_agree(c, st, NULL, err);
    if (st == AP_OK)
        st = ap_results_gather(&r);
    struct ap_evaluate_result sum = {.sequences = sequences};
    for (int64_t i = 0; st == AP_OK && i < leaves; i++) {
        sum.loss += r.all[i].ce;
        sum.tokens += r.all[i].ce_tokens;
    }
    sum.loss = sum.tokens > 0 ? sum.loss / (double)sum.tokens : NAN;
    ap_results_free(&r);
    if (st == AP_OK)
        *r_p = sum;
    return st;
}
