/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: the Megatron index. The first eight bytes of the input are the size of the .bin, the rest the .idx. An
 * accepted index must lie inside the bytes given, and account for exactly the .bin. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "text/megatron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int inside(const uint8_t *p, int64_t count, int64_t width, const uint8_t *data, size_t size)
{
    return count == 0 || (p >= data && count <= (int64_t)size / width && p + count * width <= data + size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ap_megatron_index x;
    struct ap_error err = {0};
    uint64_t bin_size;
    if (size < sizeof bin_size)
        return 0;
    memcpy(&bin_size, data, sizeof bin_size);
    data += sizeof bin_size;
    size -= sizeof bin_size;
    if (ap_megatron_index_parse(data, size, bin_size, "x.idx", &x, &err) != AP_OK) {
        if (err.text[0] == '\0')
            abort();
        return 0;
    }
    if (!inside(x.lengths, x.sequences, 4, data, size) || !inside(x.pointers, x.sequences, 8, data, size) ||
        !inside(x.documents, x.documents_count + 1, 8, data, size))
        abort();
    int64_t tokens = 0;
    for (int64_t i = 0; i < x.sequences; i++) {
        int32_t length;
        memcpy(&length, x.lengths + 4 * i, sizeof length);
        if (length < 0)
            abort();
        tokens += length;
    }
    if (tokens != x.tokens || (uint64_t)(tokens * x.width) > bin_size)
        abort();
    return 0;
}
