/* SPDX-License-Identifier: Apache-2.0
 * Which vector kernels run here. The environment may lower it, so that a test covers the kernels of lesser
 * CPUs and a mixed cluster can be held to one set (and so to one set of bits). */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/k_isa.h"

static enum ap_isa detect(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return AP_ISA_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return AP_ISA_AVX2;
#endif
    return AP_ISA_GENERIC;
}

int ap_isa_bf16(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return 0;
#endif
}

ap_status ap_isa_choose(enum ap_isa *isa_p, struct ap_error *err)
{
    static const char *const names[] = {"generic", "avx2", "avx512"};
    enum ap_isa isa = detect();
    const char *limit = getenv("AP_MAX_ISA");
    if (limit && *limit) {
        int at = 0;
        while (at < 3 && strcmp(limit, names[at]) != 0)
            at++;
        if (at == 3) {
            ap_error_set(err, AP_ERR_INPUT, "the environment variable AP_MAX_ISA is '%s'", limit);
            ap_error_hint(err, "generic, avx2 or avx512");
            return AP_ERR_INPUT;
        }
        if (at < (int)isa)
            isa = (enum ap_isa)at;
    }
    *isa_p = isa;
    return AP_OK;
}
