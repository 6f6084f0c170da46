/* SPDX-License-Identifier: Apache-2.0
 * Bigram counts: a dense table up to 2048 x 2048, beyond that open addressing on the pair. The entropy is
 * (sum_a n(a) ln n(a) - sum_ab n(a,b) ln n(a,b)) / N, which needs only the two sets of counts. */
#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "text/bigram.h"

enum { DENSE_VOCAB = 2048, CHUNK = 8192 };

struct ap_bigram {
    int64_t vocab;
    uint64_t *first;         /* [vocab]: pairs that start with a */
    uint64_t *dense;         /* [vocab, vocab] or NULL */
    uint64_t *keys, *counts; /* [slots]: a * vocab + b + 1 (0: free) and its count */
    int64_t slots, used, pairs;
};

static ap_status no_memory(struct ap_error *err)
{
    return ap_error_set(err, AP_ERR_NOMEM, "out of memory for bigram counts");
}

ap_status ap_bigram_create(int64_t vocab_size, struct ap_bigram **b_p, struct ap_error *err)
{
    if (vocab_size < 1 || vocab_size > INT32_MAX)
        return ap_error_set(err, AP_ERR_INPUT, "vocabulary size %lld is outside 1..%d", (long long)vocab_size,
                            INT32_MAX);
    struct ap_bigram *b = calloc(1, sizeof(*b));
    if (!b)
        return no_memory(err);
    b->vocab = vocab_size;
    b->first = calloc((size_t)vocab_size, sizeof(*b->first));
    if (vocab_size <= DENSE_VOCAB) {
        b->dense = calloc((size_t)(vocab_size * vocab_size), sizeof(*b->dense));
    } else {
        b->slots = INT64_C(1) << 16;
        b->keys = calloc((size_t)b->slots, sizeof(*b->keys));
        b->counts = calloc((size_t)b->slots, sizeof(*b->counts));
    }
    if (!b->first || (!b->dense && (!b->keys || !b->counts))) {
        ap_bigram_destroy(b);
        return no_memory(err);
    }
    *b_p = b;
    return AP_OK;
}

void ap_bigram_destroy(struct ap_bigram *b)
{
    if (!b)
        return;
    free(b->first);
    free(b->dense);
    free(b->keys);
    free(b->counts);
    free(b);
}

/* Slot of a key or the free slot where it belongs (Fibonacci hashing, linear probing). */
static int64_t find(const uint64_t *keys, int64_t slots, uint64_t key)
{
    uint64_t mask = (uint64_t)slots - 1;
    uint64_t i = (key * UINT64_C(0x9E3779B97F4A7C15)) >> 20 & mask;
    while (keys[i] != 0 && keys[i] != key)
        i = (i + 1) & mask;
    return (int64_t)i;
}

static ap_status grow(struct ap_bigram *b, struct ap_error *err)
{
    int64_t slots = 2 * b->slots;
    uint64_t *keys = calloc((size_t)slots, sizeof(*keys)), *counts = calloc((size_t)slots, sizeof(*counts));
    if (!keys || !counts) {
        free(keys);
        free(counts);
        return no_memory(err);
    }
    for (int64_t i = 0; i < b->slots; i++) {
        if (!b->keys[i])
            continue;
        int64_t at = find(keys, slots, b->keys[i]);
        keys[at] = b->keys[i];
        counts[at] = b->counts[i];
    }
    free(b->keys);
    free(b->counts);
    b->keys = keys;
    b->counts = counts;
    b->slots = slots;
    return AP_OK;
}

ap_status ap_bigram_add(struct ap_bigram *b, const int32_t *tokens, int64_t count, struct ap_error *err)
{
    for (int64_t i = 0; i + 1 < count; i++) {
        uint64_t pair = (uint64_t)tokens[i] * (uint64_t)b->vocab + (uint64_t)tokens[i + 1];
        b->first[tokens[i]]++;
        b->pairs++;
        if (b->dense) {
            b->dense[pair]++;
            continue;
        }
        int64_t at = find(b->keys, b->slots, pair + 1);
        if (!b->keys[at]) {
            b->keys[at] = pair + 1;
            b->used++;
        }
        b->counts[at]++;
        if (2 * b->used > b->slots)
            AP_TRY(grow(b, err));
    }
    return AP_OK;
}

ap_status ap_bigram_add_dataset(struct ap_bigram *b, const struct ap_megatron *m, struct ap_error *err)
{
    int32_t chunk[CHUNK];
    int64_t documents = ap_megatron_documents(m);
    for (int64_t d = 0; d < documents; d++) {
        int64_t end = ap_megatron_document_start(m, d + 1);
        /* Chunks overlap by one token, so that the pair across their border counts once. */
        for (int64_t at = ap_megatron_document_start(m, d); at + 1 < end; at += CHUNK - 1) {
            int64_t n = end - at < CHUNK ? end - at : CHUNK;
            ap_megatron_read(m, at, n, chunk);
            AP_TRY(ap_bigram_add(b, chunk, n, err));
        }
    }
    return AP_OK;
}

int64_t ap_bigram_pairs(const struct ap_bigram *b)
{
    return b->pairs;
}

static double n_ln_n(uint64_t n)
{
    return n > 1 ? (double)n * log((double)n) : 0.0;
}

double ap_bigram_entropy(const struct ap_bigram *b)
{
    double firsts = 0, pairs = 0;
    if (b->pairs == 0)
        return 0;
    for (int64_t a = 0; a < b->vocab; a++)
        firsts += n_ln_n(b->first[a]);
    if (b->dense) {
        for (int64_t i = 0; i < b->vocab * b->vocab; i++)
            pairs += n_ln_n(b->dense[i]);
    } else {
        for (int64_t i = 0; i < b->slots; i++)
            pairs += n_ln_n(b->counts[i]);
    }
    return (firsts - pairs) / (double)b->pairs;
}
