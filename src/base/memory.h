/* SPDX-License-Identifier: Apache-2.0
 * Memory for arrays of numbers: aligned to cache lines, large ones on huge pages where the system gives them on
 * request (Linux: transparent huge pages "madvise" or "always"), so that walks over them miss the TLB less. */
#ifndef AP_BASE_MEMORY_H
#define AP_BASE_MEMORY_H

#include <stddef.h>

#define AP_MEMORY_ALIGN 64u

/* At least `bytes` bytes (0 is fine), undefined content, released by free(). NULL: out of memory. */
void *ap_memory_alloc(size_t bytes);

#endif
