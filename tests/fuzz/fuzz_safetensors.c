/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: safetensors files. Every byte of every tensor of an accepted file is read, so that a range outside the
 * mapping cannot hide. */
#include "config.h"

#include <stdlib.h>
#include "fuzz/memory_file.h"
#include "hf/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ap_safetensors *f = NULL;
    struct ap_error err = {0};
    char path[64];
    int fd = memory_file(data, size, path, sizeof path);
    if (fd < 0)
        return 0;
    if (ap_safetensors_open(path, &f, &err) == AP_OK) {
        volatile unsigned char sum = 0;
        for (int64_t i = 0; i < ap_safetensors_count(f); i++) {
            const struct ap_safetensor *t = ap_safetensors_at(f, i);
            if (t->ndim < 0 || t->ndim > 4 || t->count < 0 || ap_safetensors_find(f, t->name) == NULL)
                abort();
            for (size_t b = 0; b < (size_t)t->count * ap_dtype_size(t->dtype); b++)
                sum ^= ((const unsigned char *)t->data)[b];
        }
        ap_safetensors_close(f);
    } else if (f != NULL || err.text[0] == '\0') {
        abort();
    }
    close(fd);
    return 0;
}
