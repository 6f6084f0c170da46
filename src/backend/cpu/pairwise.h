/* SPDX-License-Identifier: Apache-2.0
 * The one summation tree of sum_tokens and sumsq, in f64: blocks of 512 elements, 8 interleaved partial sums
 * inside a block, blocks joined pairwise. The tree depends on the length only, so that every backend and
 * every thread count gives the same bits. */
#ifndef AP_BACKEND_CPU_PAIRWISE_H
#define AP_BACKEND_CPU_PAIRWISE_H

#include <stdint.h>

#define AP_PAIRWISE_BLOCK 512

/* Elements of the left half of n > AP_PAIRWISE_BLOCK elements: a multiple of the block. */
static inline int64_t ap_pairwise_left(int64_t n)
{
    int64_t blocks = (n + AP_PAIRWISE_BLOCK - 1) / AP_PAIRWISE_BLOCK;
    return (blocks + 1) / 2 * AP_PAIRWISE_BLOCK;
}

static inline double ap_pairwise_join8(const double p[8])
{
    return ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]));
}

/* Defines two functions over `type`: the sum of up to one block, and the whole tree. LOAD(x) makes an
 * element a double, TERM(x) is the summand. */
#define AP_PAIRWISE_DEFINE(name, block, type, LOAD, TERM)                                                              \
    static double block(const type *x, int64_t n)                                                                      \
    {                                                                                                                  \
        double p[8] = {0};                                                                                             \
        int64_t i = 0;                                                                                                 \
        for (; i + 8 <= n; i += 8) {                                                                                   \
            for (int j = 0; j < 8; j++)                                                                                \
                p[j] += TERM(LOAD(x[i + j]));                                                                          \
        }                                                                                                              \
        for (int j = 0; i + j < n; j++)                                                                                \
            p[j] += TERM(LOAD(x[i + j]));                                                                              \
        return ap_pairwise_join8(p);                                                                                   \
    }                                                                                                                  \
    static double name(const type *x, int64_t n)                                                                       \
    {                                                                                                                  \
        if (n <= AP_PAIRWISE_BLOCK)                                                                                    \
            return block(x, n);                                                                                        \
        int64_t left = ap_pairwise_left(n);                                                                            \
        return name(x, left) + name(x + left, n - left);                                                               \
    }

#define AP_TERM_PLAIN(x)  (x)
#define AP_TERM_SQUARE(x) ((x) * (x))

#endif
