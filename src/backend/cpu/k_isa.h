/* SPDX-License-Identifier: Apache-2.0
 * The instruction set the vector kernels use. */
#ifndef AP_BACKEND_CPU_K_ISA_H
#define AP_BACKEND_CPU_K_ISA_H

#include "base/status.h"

enum ap_isa { AP_ISA_GENERIC, AP_ISA_AVX2, AP_ISA_AVX512 };

/* The best that this CPU has and the environment variable AP_MAX_ISA (generic, avx2, avx512) allows.
 * AP_ERR_INPUT for another value of it. */
ap_status ap_isa_choose(enum ap_isa *isa_p, struct ap_error *err);
/* Whether the CPU multiplies bf16 (AVX512_BF16, which machines with AMX have too). */
int ap_isa_bf16(void);

#endif
