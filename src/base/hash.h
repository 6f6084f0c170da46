/* SPDX-License-Identifier: Apache-2.0
 * Content hashes (XXH3, 64 and 128 bits). Not cryptographic. Thread-safe. */
#ifndef AP_BASE_HASH_H
#define AP_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct ap_hash128 {
    uint64_t high, low;
};

uint64_t ap_hash64(const void *data, size_t size, uint64_t seed);
struct ap_hash128 ap_hash128(const void *data, size_t size);
int ap_hash128_equal(struct ap_hash128 a, struct ap_hash128 b);
/* 32 lower-case hex digits, canonical big-endian form as the xxh128sum tool prints it. */
void ap_hash128_hex(struct ap_hash128 h, char out[33]);
/* 0 on success, -1 if text is not 32 hex digits. */
int ap_hash128_parse(const char *text, struct ap_hash128 *h_p);

/* Incremental form. NULL from create: out of memory. destroy(NULL) is fine. */
struct ap_hasher;
struct ap_hasher *ap_hasher_create(void);
void ap_hasher_update(struct ap_hasher *h, const void *data, size_t size);
struct ap_hash128 ap_hasher_digest(const struct ap_hasher *h);
void ap_hasher_destroy(struct ap_hasher *h);

#endif
