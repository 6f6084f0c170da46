/* SPDX-License-Identifier: Apache-2.0
 * The vector kernels for x86 CPUs with AVX2 and FMA. */
#include "config.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define VL             8
#define KI(name)       name##_avx2
#define AP_KERNELS_ISA "avx2"
#include "backend/cpu/k_all.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
/* An empty translation unit is not C. */
extern int ap_kernels_no_avx2;
#endif
