/* SPDX-License-Identifier: Apache-2.0
 * UTF-8 validation and repair. The ranges of second bytes are those of table 3-7 of the Unicode Standard. */
#include "config.h"

#include <string.h>

#include "base/utf8.h"

/* Length that the first byte announces and the range of the second byte; 0: not a first byte. */
static int lead(uint8_t b, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (b < 0x80)
        return 1;
    if (b < 0xC2 || b > 0xF4)
        return 0;
    if (b < 0xE0)
        return 2;
    if (b == 0xE0)
        *low = 0xA0;
    else if (b == 0xED)
        *high = 0x9F;
    else if (b == 0xF0)
        *low = 0x90;
    else if (b == 0xF4)
        *high = 0x8F;
    return b < 0xF0 ? 3 : 4;
}

/* Bytes at p that form the longest prefix of a valid sequence; *whole_p tells whether it is complete. */
static size_t subpart(const uint8_t *p, size_t size, int *whole_p)
{
    uint8_t low, high;
    int need = lead(p[0], &low, &high);
    size_t n = 1;
    *whole_p = need == 1;
    if (need < 2)
        return 1;
    while (n < (size_t)need && n < size && p[n] >= low && p[n] <= high) {
        low = 0x80;
        high = 0xBF;
        n++;
    }
    *whole_p = n == (size_t)need;
    return n;
}

size_t ap_utf8_validate(const void *data, size_t size)
{
    const uint8_t *p = data;
    size_t i = 0;
    while (i < size) {
        uint64_t eight;
        while (i + 8 <= size && (memcpy(&eight, p + i, 8), (eight & UINT64_C(0x8080808080808080)) == 0))
            i += 8;
        if (i >= size)
            break;
        int whole;
        size_t n = subpart(p + i, size - i, &whole);
        if (!whole)
            return i;
        i += n;
    }
    return size;
}

int ap_utf8_decode(const void *data, size_t size, uint32_t *code_p)
{
    const uint8_t *p = data;
    int whole;
    if (size == 0)
        return 0;
    size_t n = subpart(p, size, &whole);
    if (!whole)
        return 0;
    static const uint8_t mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t code = p[0] & mask[n];
    for (size_t i = 1; i < n; i++)
        code = code << 6 | (p[i] & 0x3F);
    if (code_p)
        *code_p = code;
    return (int)n;
}

int ap_utf8_encode(uint32_t code, char out[4])
{
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        return 0;
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    int n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t first[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (int i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)(first[n] | code);
    return n;
}

size_t ap_utf8_repair_bound(size_t size)
{
    return size > SIZE_MAX / 3 ? SIZE_MAX : 3 * size;
}

size_t ap_utf8_repair(const void *data, size_t size, char *out, size_t *replaced_p)
{
    const uint8_t *p = data;
    size_t i = 0, used = 0, replaced = 0;
    while (i < size) {
        size_t good = ap_utf8_validate(p + i, size - i);
        memcpy(out + used, p + i, good);
        used += good;
        i += good;
        if (i >= size)
            break;
        int whole;
        i += subpart(p + i, size - i, &whole);
        memcpy(out + used, "\xEF\xBF\xBD", 3);
        used += 3;
        replaced++;
    }
    if (replaced_p)
        *replaced_p = replaced;
    return used;
}
