/* SPDX-License-Identifier: Apache-2.0
 * Content hashes by xxHash. */
#include "config.h"

#include <xxhash.h>

#include "base/hash.h"

static struct ap_hash128 from_xxh(XXH128_hash_t h)
{
    return (struct ap_hash128){h.high64, h.low64};
}

uint64_t ap_hash64(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

struct ap_hash128 ap_hash128(const void *data, size_t size)
{
    return from_xxh(XXH3_128bits(data, size));
}

int ap_hash128_equal(struct ap_hash128 a, struct ap_hash128 b)
{
    return a.high == b.high && a.low == b.low;
}

void ap_hash128_hex(struct ap_hash128 h, char out[33])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        out[i] = digits[(h.high >> (60 - 4 * i)) & 15];
        out[16 + i] = digits[(h.low >> (60 - 4 * i)) & 15];
    }
    out[32] = '\0';
}

int ap_hash128_parse(const char *text, struct ap_hash128 *h_p)
{
    uint64_t half[2] = {0, 0};
    for (int i = 0; i < 32; i++) {
        char c = text[i]; /* a shorter text ends here: NUL is no digit */
        unsigned digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (unsigned)(c - 'A') + 10;
        else
            return -1;
        half[i / 16] = half[i / 16] << 4 | digit;
    }
    if (text[32] != '\0')
        return -1;
    *h_p = (struct ap_hash128){half[0], half[1]};
    return 0;
}

struct ap_hasher *ap_hasher_create(void)
{
    /* XXH3_createState aligns its memory to 64 bytes; the handle is the state itself. */
    XXH3_state_t *state = XXH3_createState();
    if (state != NULL)
        XXH3_128bits_reset(state);
    return (struct ap_hasher *)(void *)state;
}

void ap_hasher_update(struct ap_hasher *h, const void *data, size_t size)
{
    if (size > 0)
        XXH3_128bits_update((XXH3_state_t *)(void *)h, data, size);
}

struct ap_hash128 ap_hasher_digest(const struct ap_hasher *h)
{
    return from_xxh(XXH3_128bits_digest((const XXH3_state_t *)(const void *)h));
}

void ap_hasher_destroy(struct ap_hasher *h)
{
    if (h != NULL)
        XXH3_freeState((XXH3_state_t *)(void *)h);
}
