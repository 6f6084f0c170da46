/* SPDX-License-Identifier: Apache-2.0
 * The vector kernels for x86 CPUs with AVX-512 (F, VL, DQ). */
#include "config.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx2,fma")
#endif

#define VL             16
#define KI(name)       name##_avx512
#define AP_KERNELS_ISA "avx512"
#include "backend/cpu/k_all.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
/* An empty translation unit is not C. */
extern int ap_kernels_no_avx512;
#endif
