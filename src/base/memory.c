/* SPDX-License-Identifier: Apache-2.0
 * Aligned memory, on huge pages from a few of them on. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "base/memory.h"

/* Of x86-64 and, with 4 KiB pages, of aarch64; elsewhere it is only an alignment. */
#define HUGE_PAGE ((size_t)2 << 20)
/* What rounding up to huge pages may waste stays below an eighth. */
#define HUGE_MIN (4 * HUGE_PAGE)

void *ap_memory_alloc(size_t bytes)
{
    size_t align = bytes >= HUGE_MIN ? HUGE_PAGE : AP_MEMORY_ALIGN;
    if (bytes > SIZE_MAX - align)
        return NULL;
    size_t size = bytes ? (bytes + AP_MEMORY_ALIGN - 1) / AP_MEMORY_ALIGN * AP_MEMORY_ALIGN : AP_MEMORY_ALIGN;
    void *mem = NULL;
    if (posix_memalign(&mem, align, size) != 0) /* aligned_alloc wants a multiple of align */
        return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (align == HUGE_PAGE)
        madvise(mem, size / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a refusal costs speed only */
#endif
    return mem;
}
