/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: the checkpoint manifest. The input is the part behind the first line; the hash that the first line
 * carries is computed here, or no mutation would get past it. What is accepted must print and read back, and the parts
 * of its smaller tensors must hold every element once. */
#include "config.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "ckpt/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define COUNTED 4096 /* elements of a tensor whose parts are counted out */

static void count_elements(const struct ap_manifest *m, const struct ap_manifest_tensor *t)
{
    uint8_t held[COUNTED] = {0};
    for (int64_t i = t->first_part; i < t->first_part + t->part_count; i++) {
        const struct ap_slab *s = &m->parts[i].range;
        for (int64_t k = s->begin; k < s->end; k++) {
            int64_t at = s->width > 0 ? k / s->width * t->head.shape[1] + s->col + k % s->width : k;
            if (at < 0 || at >= t->head.end || held[at]++ > 0)
                abort();
        }
    }
    for (int64_t at = 0; at < t->head.end; at++)
        if (held[at] == 0)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char hex[33], *again = NULL, *text = malloc(size + 64);
    struct ap_manifest m = {0}, back = {0};
    struct ap_error err = {0};
    size_t again_size = 0;
    if (text == NULL)
        return 0;
    ap_hash128_hex(ap_hash128(data, size), hex);
    int head = snprintf(text, 64, "{\"xxh3_128\":\"%s\",\n", hex);
    memcpy(text + head, data, size);
    if (ap_manifest_parse(text, (size_t)head + size, &m, &err) == AP_OK) {
        if (ap_manifest_print(&m, &again, &again_size, &err) != AP_OK ||
            ap_manifest_parse(again, again_size, &back, &err) != AP_OK || back.step != m.step ||
            back.tensor_count != m.tensor_count || back.part_count != m.part_count ||
            (m.part_count > 0 && memcmp(back.parts, m.parts, (size_t)m.part_count * sizeof *m.parts) != 0))
            abort();
        for (int64_t i = 0; i < m.tensor_count; i++)
            if (m.tensors[i].head.end <= COUNTED)
                count_elements(&m, &m.tensors[i]);
    } else if (err.text[0] == '\0' || m.tensors != NULL) {
        abort();
    }
    free(again);
    free(text);
    ap_manifest_free(&m);
    ap_manifest_free(&back);
    return 0;
}
