/* SPDX-License-Identifier: Apache-2.0
 * The loader: windows of seq_len + 1 tokens cut from memory-mapped datasets.
 *
 * A source of N tokens gives W = (N - 1) / seq_len windows per epoch, whose inputs do not overlap. Shuffled,
 * its tokens are a ring: epoch e starts cutting at a keyed offset, so that window borders and the few
 * tokens left over move from epoch to epoch, and visits the windows in a keyed order. Unshuffled, windows
 * are cut from token 0 and come in order, source after source. Nothing is allocated after open, and a fetch
 * costs O(log documents) for each document it touches. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "text/bigram.h"
#include "text/megatron.h"
#include "train/data.h"
#include "train/data_order.h"

#define MAX_SAMPLE (INT64_C(1) << 60)

struct ap_data {
    struct ap_data_options opt;
    struct ap_data_mix mix;
    struct ap_megatron *source[AP_JOB_MAX_SOURCES]; /* owned */
    int64_t windows[AP_JOB_MAX_SOURCES];
    int64_t windows_total, tokens_total;
};

static ap_status open_source(struct ap_data *d, int s, const char *path, struct ap_error *err)
{
    AP_TRY(ap_megatron_open(path, &d->source[s], err));
    int64_t tokens = ap_megatron_tokens(d->source[s]), window = d->opt.seq_len + 1;
    if (tokens < window) {
        if (tokens == 0)
            ap_error_set(err, AP_ERR_INPUT, "the dataset is empty: its %lld documents hold no token",
                         (long long)ap_megatron_documents(d->source[s]));
        else
            ap_error_set(err, AP_ERR_INPUT, "the dataset has %lld tokens, fewer than one window of seq_len + 1 = %lld",
                         (long long)tokens, (long long)window);
        ap_error_at(err, path, 0, 0);
        ap_error_hint(err, tokens ? "use a smaller data.seq_len or more text" : "check the input of antipode prep");
        return AP_ERR_INPUT;
    }
    AP_TRY(ap_megatron_check_ids(d->source[s], d->opt.vocab_size, err));
    d->windows[s] = (tokens - 1) / d->opt.seq_len;
    d->windows_total += d->windows[s];
    d->tokens_total += tokens;
    return AP_OK;
}

ap_status ap_data_open(const struct ap_data_source_spec *sources, int count, const struct ap_data_options *opt,
                       struct ap_data **data_p, struct ap_error *err)
{
    if (opt->seq_len < 1 || opt->seq_len > INT32_MAX)
        return ap_error_set(err, AP_ERR_INPUT, "seq_len %lld is outside 1..%d", (long long)opt->seq_len, INT32_MAX);
    if (opt->vocab_size < 1 || opt->vocab_size > INT32_MAX)
        return ap_error_set(err, AP_ERR_INPUT, "vocab_size %lld is outside 1..%d", (long long)opt->vocab_size,
                            INT32_MAX);
    struct ap_data *d = calloc(1, sizeof(*d));
    if (!d)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    d->opt = *opt;
    ap_status status = ap_data_mix_init(&d->mix, sources, count, err);
    for (int s = 0; s < count && status == AP_OK; s++)
        status = open_source(d, s, sources[s].path, err);
    if (status != AP_OK) {
        ap_data_close(d);
        return status;
    }
    *data_p = d;
    return AP_OK;
}

void ap_data_close(struct ap_data *d)
{
    if (!d)
        return;
    for (int s = 0; s < AP_JOB_MAX_SOURCES; s++)
        ap_megatron_close(d->source[s]);
    free(d);
}

ap_status ap_data_locate(const struct ap_data *d, int64_t sample, struct ap_data_place *place_p)
{
    struct ap_data_place p = {0};
    int64_t index = sample;
    if (sample < 0 || sample >= (d->opt.shuffle ? MAX_SAMPLE : d->windows_total))
        return AP_ERR_INPUT;
    if (!d->opt.shuffle) {
        while (index >= d->windows[p.source])
            index -= d->windows[p.source++];
        p.window = index;
        p.start = index * d->opt.seq_len;
        *place_p = p;
        return AP_OK;
    }
    ap_data_mix_locate(&d->mix, d->opt.seed, sample, &p.source, &index);
    int64_t windows = d->windows[p.source], tokens = ap_megatron_tokens(d->source[p.source]);
    p.epoch = index / windows;
    uint64_t key = ap_rng_u64(d->opt.seed, AP_RNG_DATA_SHUFFLE, (uint64_t)p.source);
    key = ap_rng_u64(key, AP_RNG_DATA_SHUFFLE, (uint64_t)p.epoch);
    p.window = (int64_t)ap_data_permute(key, (uint64_t)windows, (uint64_t)(index % windows));
    /* Counter 2^64 - 1 is none of the permutation's. Multiply-shift: [0, 2^64) to [0, tokens). */
    uint64_t bits = ap_rng_u64(key, AP_RNG_DATA_SHUFFLE, UINT64_MAX);
    int64_t offset = (int64_t)((unsigned __int128)bits * (uint64_t)tokens >> 64);
    p.start = (offset + p.window * d->opt.seq_len) % tokens;
    *place_p = p;
    return AP_OK;
}

/* count tokens from start on, around the ring; count <= tokens of the source. */
static void read_ring(const struct ap_megatron *m, int64_t start, int64_t count, int32_t *out)
{
    int64_t room = ap_megatron_tokens(m) - start, head = count < room ? count : room;
    ap_megatron_read(m, start, head, out);
    ap_megatron_read(m, 0, count - head, out + head);
}

/* first[] and the targets that lie in another document. The end of the ring is the end of a document. */
static void mask_documents(const struct ap_megatron *m, int64_t start, int64_t seq_len, struct ap_sample *out)
{
    int64_t i = 0, at = start, tokens = ap_megatron_tokens(m);
    while (i < seq_len) {
        int64_t end = ap_megatron_document_start(m, ap_megatron_document_of(m, at) + 1);
        int64_t run = end - at < seq_len - i ? end - at : seq_len - i;
        for (int64_t k = i; k < i + run; k++)
            out->first[k] = (int32_t)i;
        i += run;
        at += run;
        if (at == end)
            out->targets[i - 1] = -1;
        at %= tokens;
    }
}

ap_status ap_data_fetch(const struct ap_data *d, int64_t sample, struct ap_sample *out)
{
    struct ap_data_place p;
    AP_TRY(ap_data_locate(d, sample, &p));
    const struct ap_megatron *m = d->source[p.source];
    const int64_t seq_len = d->opt.seq_len;
    read_ring(m, p.start, seq_len, out->tokens);
    memcpy(out->targets, out->tokens + 1, (size_t)(seq_len - 1) * sizeof(*out->targets));
    ap_megatron_read(m, (p.start + seq_len) % ap_megatron_tokens(m), 1, out->targets + seq_len - 1);
    for (int64_t i = 0; i < seq_len; i++)
        out->positions[i] = (int32_t)i;
    if (d->opt.mask_documents)
        mask_documents(m, p.start, seq_len, out);
    else
        memset(out->first, 0, (size_t)seq_len * sizeof(*out->first));
    return AP_OK;
}

int64_t ap_data_windows(const struct ap_data *d)
{
    return d->windows_total;
}

int64_t ap_data_tokens(const struct ap_data *d)
{
    return d->tokens_total;
}

ap_status ap_data_bigram_entropy(const struct ap_data *d, double *nats_p, struct ap_error *err)
{
    struct ap_bigram *b;
    AP_TRY(ap_bigram_create(d->opt.vocab_size, &b, err));
    ap_status status = AP_OK;
    for (int s = 0; s < d->mix.count && status == AP_OK; s++)
        status = ap_bigram_add_dataset(b, d->source[s], err);
    if (status == AP_OK)
        *nats_p = ap_bigram_entropy(b);
    ap_bigram_destroy(b);
    return status;
}
