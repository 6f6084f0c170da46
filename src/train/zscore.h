/* SPDX-License-Identifier: Apache-2.0
 * How unusual a value is against the recent ones: (x - mean) / standard deviation of the last AP_ZSCORE_WINDOW
 * values. Part of the state, so that a resumed run prints the same figures. */
#ifndef AP_TRAIN_ZSCORE_H
#define AP_TRAIN_ZSCORE_H

#include <stdint.h>

#define AP_ZSCORE_WINDOW 128
#define AP_ZSCORE_MIN    16 /* fewer values than this: NaN */

/* Zero-initialised is empty. values[0..count-1] are in order of arrival, oldest first. */
struct ap_zscore {
    double values[AP_ZSCORE_WINDOW];
    int64_t count;
};

/* Score of x against the values before it, then remember x. NaN while there are too few, or they are all
 * equal, or x is not finite (which is not remembered). */
double ap_zscore_push(struct ap_zscore *z, double x);

#endif
