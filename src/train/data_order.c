/* SPDX-License-Identifier: Apache-2.0
 * The order of the loader.
 *
 * Permutation: a balanced Feistel network on 2k bits, the smallest even width that holds n, whose round
 * function is the counter-based generator; values outside [0, n) are sent through again until they fall
 * inside (cycle walking, Black and Rogaway, CT-RSA 2002). At most 4 passes are expected, nothing is stored.
 *
 * Mixture: of the first n samples source s gets R(edge[s+1], n) - R(edge[s], n), R(e, n) = round(e n / 2^62):
 * the counts of all sources sum to n and each is within 1 of its share for ever, whatever the weights.
 * Only multiples of the block size occur as n; with a block of at least 2 / (smallest share) no block
 * can get a negative count. Inside a block a keyed permutation mixes the sources. */
#include "config.h"

#include <math.h>

#include "base/rng.h"
#include "train/data_order.h"

enum { ROUNDS = 8, WEIGHT_BITS = 62, MIN_BLOCK = 64, MIN_SHARE_BITS = 20 };

static uint64_t feistel(uint64_t key, int half_bits, uint64_t x)
{
    const uint64_t mask = (UINT64_C(1) << half_bits) - 1;
    uint64_t left = x >> half_bits, right = x & mask;
    for (uint64_t r = 0; r < ROUNDS; r++) {
        uint64_t next = left ^ (ap_rng_u64(key, AP_RNG_DATA_SHUFFLE, r << 32 | right) & mask);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

uint64_t ap_data_permute(uint64_t key, uint64_t n, uint64_t i)
{
    int half_bits = 1;
    if (n <= 1)
        return 0;
    while ((n - 1) >> (2 * half_bits))
        half_bits++;
    do
        i = feistel(key, half_bits, i);
    while (i >= n);
    return i;
}

/* The one total that all shares refer to, summed in order. */
static ap_status check_weights(const struct ap_data_source_spec *sources, int count, double *total_p,
                               struct ap_error *err)
{
    double total = 0;
    for (int s = 0; s < count; s++) {
        if (!isfinite(sources[s].weight) || sources[s].weight <= 0) {
            ap_error_set(err, AP_ERR_INPUT, "weight %g of data source %d (%s) is not a positive number",
                         sources[s].weight, s, sources[s].path);
            ap_error_hint(err, "leave the source out to switch it off");
            return AP_ERR_INPUT;
        }
        total += sources[s].weight;
    }
    for (int s = 0; s < count; s++)
        if (!isfinite(total) || sources[s].weight / total < ldexp(1, -MIN_SHARE_BITS))
            return ap_error_set(err, AP_ERR_INPUT,
                                "weight %g of data source %d (%s) is less than one part in a million of the whole",
                                sources[s].weight, s, sources[s].path);
    *total_p = total;
    return AP_OK;
}

ap_status ap_data_mix_init(struct ap_data_mix *mix, const struct ap_data_source_spec *sources, int count,
                           struct ap_error *err)
{
    double total = 0, sum = 0, least = 1;
    if (count < 1 || count > AP_JOB_MAX_SOURCES)
        return ap_error_set(err, AP_ERR_INPUT, "%d data sources, 1..%d are possible", count, AP_JOB_MAX_SOURCES);
    AP_TRY(check_weights(sources, count, &total, err));
    mix->count = count;
    for (int s = 0; s < count; s++) {
        mix->edge[s] = (uint64_t)llrint(ldexp(sum / total, WEIGHT_BITS));
        sum += sources[s].weight;
        if (sources[s].weight / total < least)
            least = sources[s].weight / total;
    }
    mix->edge[count] = UINT64_C(1) << WEIGHT_BITS;
    mix->block = MIN_BLOCK;
    while ((double)mix->block * least < 2.5)
        mix->block *= 2;
    return AP_OK;
}

/* round(edge n / 2^62) */
static int64_t rounded(uint64_t edge, int64_t n)
{
    unsigned __int128 product = (unsigned __int128)edge * (uint64_t)n + (UINT64_C(1) << (WEIGHT_BITS - 1));
    return (int64_t)(product >> WEIGHT_BITS);
}

int64_t ap_data_mix_count(const struct ap_data_mix *mix, int s, int64_t n)
{
    return rounded(mix->edge[s + 1], n) - rounded(mix->edge[s], n);
}

void ap_data_mix_locate(const struct ap_data_mix *mix, uint64_t seed, int64_t sample, int *source_p, int64_t *index_p)
{
    if (mix->count == 1) {
        *source_p = 0;
        *index_p = sample;
        return;
    }
    int64_t block = sample / mix->block, begin = block * mix->block;
    uint64_t key = ap_rng_u64(seed, AP_RNG_DATA_MIX, (uint64_t)block);
    int64_t slot = (int64_t)ap_data_permute(key, (uint64_t)mix->block, (uint64_t)(sample - begin));
    for (int s = 0;; s++) {
        int64_t before = ap_data_mix_count(mix, s, begin);
        int64_t here = ap_data_mix_count(mix, s, begin + mix->block) - before;
        if (slot < here || s == mix->count - 1) {
            *source_p = s;
            *index_p = before + slot;
            return;
        }
        slot -= here;
    }
}
