/* SPDX-License-Identifier: Apache-2.0
 * The vector kernels for any CPU: 128-bit vectors. Also where the best table is chosen. */
#include "config.h"

#define VL             4
#define K(name)        name##_generic
#define AP_KERNELS_ISA "generic"
#include "backend/cpu/k_all.h"

const struct ap_kernels *ap_kernels_choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return &ap_kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &ap_kernels_avx2;
#endif
    return &ap_kernels_generic;
}
