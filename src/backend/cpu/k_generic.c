/* SPDX-License-Identifier: Apache-2.0
 * The vector kernels for any CPU: 128-bit vectors. Also where the best table is chosen. */
#include "config.h"

#define VL             4
#define KI(name)       name##_generic
#define AP_KERNELS_ISA "generic"
#include "backend/cpu/k_all.h"

const struct ap_kernels *ap_kernels_choose(enum ap_isa isa)
{
#if defined(__x86_64__)
    if (isa != AP_ISA_GENERIC)
        return isa == AP_ISA_AVX512 ? &ap_kernels_avx512 : &ap_kernels_avx2;
#else
    (void)isa;
#endif
    return &ap_kernels_generic;
}
