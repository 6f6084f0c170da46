/* SPDX-License-Identifier: Apache-2.0
 * UTF-8: validation and repair (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF).
 * Stateless, thread-safe. */
#ifndef AP_BASE_UTF8_H
#define AP_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Offset of the first byte that does not belong to a valid sequence; size when all is valid. */
size_t ap_utf8_validate(const void *data, size_t size);
/* Length of the valid sequence at data (1..4), 0 if there is none; *code_p (NULL allowed) is its code point. */
int ap_utf8_decode(const void *data, size_t size, uint32_t *code_p);
/* Bytes written to out (1..4) for a code point; 0 for one that has no encoding. */
int ap_utf8_encode(uint32_t code, char out[4]);
/* Copy to out, each maximal invalid part replaced by U+FFFD (the Unicode Standard, 3.9, "substitution of
 * maximal subparts"). out needs room for ap_utf8_repair_bound(size) bytes. Returns the bytes written;
 * *replaced_p (NULL allowed) counts the replacements. */
size_t ap_utf8_repair(const void *data, size_t size, char *out, size_t *replaced_p);
size_t ap_utf8_repair_bound(size_t size);

#endif
