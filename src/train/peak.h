/* SPDX-License-Identifier: Apache-2.0
 * Speed of a plain GEMM on this backend: the denominator of MFU. A figure for the reader; nothing is decided
 * by it. */
#ifndef AP_TRAIN_PEAK_H
#define AP_TRAIN_PEAK_H

#include "backend/backend.h"

/* FLOP/s of an f32 (f64, bf16) GEMM of n x n x n, the best of five means over about budget_s / 5 seconds
 * each: means, because where ranks share processors each is to get its share; the best, because others may use the
 * machine at times. */
ap_status ap_peak_gemm(struct ap_backend *be, ap_dtype dtype, int64_t n, double budget_s, double *flops_p);

#endif
