/* SPDX-License-Identifier: Apache-2.0
 * Counts of token pairs and their conditional entropy, -sum p(a,b) ln p(b|a): the loss that a perfect
 * bigram model would have on the same data, and so the bar that a trained model must pass. */
#ifndef AP_TEXT_BIGRAM_H
#define AP_TEXT_BIGRAM_H

#include <stdint.h>
#include "base/status.h"
#include "text/megatron.h"

struct ap_bigram;

/* vocab_size: every id counted must be below it. Small vocabularies use a dense table, others a hash. */
ap_status ap_bigram_create(int64_t vocab_size, struct ap_bigram **b_p, struct ap_error *err);
void ap_bigram_destroy(struct ap_bigram *b);
/* Count the pairs inside tokens[count]. */
ap_status ap_bigram_add(struct ap_bigram *b, const int32_t *tokens, int64_t count, struct ap_error *err);
/* Count all pairs inside the documents of a dataset whose ids were checked. */
ap_status ap_bigram_add_dataset(struct ap_bigram *b, const struct ap_megatron *m, struct ap_error *err);
int64_t ap_bigram_pairs(const struct ap_bigram *b);
/* In nats per token; 0 when nothing was counted. The same counts give the same bits. */
double ap_bigram_entropy(const struct ap_bigram *b);

#endif
