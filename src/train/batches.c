/* SPDX-License-Identifier: Apache-2.0
 * Micro-batches in host memory. */
#include "config.h"

#include <stdlib.h>

#include "train/batches.h"

ap_status ap_batches_create(int64_t count, int64_t seqs, int64_t len, struct ap_batches *b)
{
    *b = (struct ap_batches){.count = count, .seqs = seqs, .len = len};
    b->mem = calloc((size_t)(count * seqs * len) * 4, sizeof(*b->mem));
    return b->mem ? AP_OK : AP_ERR_NOMEM;
}

void ap_batches_free(struct ap_batches *b)
{
    free(b->mem);
    b->mem = NULL;
}

static int32_t *field(const struct ap_batches *b, int64_t i, int k)
{
    return b->mem + (i * 4 + k) * b->seqs * b->len;
}

struct ap_sample ap_batches_row(const struct ap_batches *b, int64_t i, int64_t row)
{
    int64_t at = row * b->len;
    return (struct ap_sample){field(b, i, 0) + at, field(b, i, 1) + at, field(b, i, 2) + at, field(b, i, 3) + at};
}

struct ap_batch ap_batches_get(const struct ap_batches *b, int64_t i)
{
    return (struct ap_batch){field(b, i, 0), field(b, i, 1), field(b, i, 2), field(b, i, 3)};
}

void ap_batches_count(const struct ap_batches *b, int64_t i, int64_t *ce_p, int64_t *mtp_p)
{
    const int32_t *t = field(b, i, 1);
    int64_t ce = 0, mtp = 0;
    for (int64_t k = 0; k < b->seqs * b->len; k++) {
        ce += t[k] >= 0;
        mtp += t[k] >= 0 && k % b->len != b->len - 1 && t[k + 1] >= 0;
    }
    *ce_p = ce;
    *mtp_p = mtp;
}
