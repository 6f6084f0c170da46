/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: manual pages. Any bytes, repaired to UTF-8 as prep does, must give valid UTF-8 of bounded size. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "prep/roff.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ap_buf out = {0};
    char *page = malloc(ap_utf8_repair_bound(size) + 1);
    if (!page)
        return 0;
    size_t n = ap_utf8_repair(data, size, page, NULL);
    /* An exact copy, so that a sanitizer sees the first byte read behind it. */
    char *exact = realloc(page, n ? n : 1);
    if (!exact)
        exact = page;
    if (ap_roff_to_text(exact, n, &out, NULL, NULL) != AP_OK)
        abort();
    if (ap_utf8_validate(out.data, out.size) != out.size || out.size > (size_t)256 << 20)
        abort();
    ap_buf_free(&out);
    free(exact);
    return 0;
}
