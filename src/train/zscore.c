/* SPDX-License-Identifier: Apache-2.0
 * Running z-scores. */
#include "config.h"

#include <math.h>
#include <string.h>

#include "train/zscore.h"

double ap_zscore_push(struct ap_zscore *z, double x)
{
    double mean = 0, var = 0, score = NAN;
    if (!isfinite(x))
        return NAN;
    for (int64_t i = 0; i < z->count; i++)
        mean += z->values[i] / (double)z->count;
    for (int64_t i = 0; i < z->count; i++)
        var += (z->values[i] - mean) * (z->values[i] - mean) / (double)z->count;
    if (z->count >= AP_ZSCORE_MIN && var > 0)
        score = (x - mean) / sqrt(var);
    if (z->count == AP_ZSCORE_WINDOW) {
        memmove(z->values, z->values + 1, (AP_ZSCORE_WINDOW - 1) * sizeof(*z->values));
        z->count--;
    }
    z->values[z->count++] = x;
    return score;
}
