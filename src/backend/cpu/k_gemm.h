/* SPDX-License-Identifier: Apache-2.0
 * Single-threaded matrix product in f32 arithmetic, the building block of every dense kernel of the cpu backend. */
#ifndef AP_BACKEND_CPU_K_GEMM_H
#define AP_BACKEND_CPU_K_GEMM_H

#include <stddef.h>
#include <stdint.h>

#include "backend/cpu/k_isa.h"

/* c[m,n] (=, or += with accumulate) op(a) op(b); op(a) is [m,k], stored [k,m] with trans_a; op(b) is [k,n],
 * stored [n,k] with trans_b. ld*: elements between stored rows. a, b and c are f32,
 * or bf16 where *_bf16 says so; then a product is summed in f32, with the old c, and rounded to nearest even once. */
struct ap_sgemm {
    int64_t m, n, k;
    const void *a, *b;
    void *c;
    int64_t lda, ldb, ldc;
    int trans_a, trans_b, accumulate, a_bf16, b_bf16, c_bf16;
};

struct ap_sgemm_kernel; /* register tile and packing for one instruction set */
const struct ap_sgemm_kernel *ap_sgemm_choose(enum ap_isa isa);
/* Bytes of scratch, 64-byte aligned, for a product of any size. */
size_t ap_sgemm_scratch(void);
/* An element of c is summed over k in blocks of fixed size, inside a block in index order: its bits depend on
 * the instruction set and on k only, not on m, n, or how rows and columns are split. */
void ap_sgemm_blocked(const struct ap_sgemm_kernel *v, const struct ap_sgemm *g, void *scratch);

/* Address of element i of a matrix of f32 or bf16. */
static inline void *ap_sgemm_at(const void *matrix, int bf16, int64_t i)
{
    union {
        const void *in;
        char *any;
    } at = {matrix};
    return at.any + i * (int64_t)(bf16 ? sizeof(uint16_t) : sizeof(float));
}

#endif
