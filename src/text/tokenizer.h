/* SPDX-License-Identifier: Apache-2.0
 * Tokenizers: text to ids and back, behind one interface, so that a byte-pair tokenizer.json can stand
 * beside the byte-level one. "bytes": id = byte, 256 = end of document; vocabulary 257. Models may pad
 * their vocabulary. Immutable after open, thread-safe. */
#ifndef AP_TEXT_TOKENIZER_H
#define AP_TEXT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

struct ap_tokenizer;

/* spec: "bytes". Anything else is AP_ERR_INPUT with the names that exist. */
ap_status ap_tokenizer_open(const char *spec, struct ap_tokenizer **t_p, struct ap_error *err);
void ap_tokenizer_close(struct ap_tokenizer *t);
/* The spec it was opened with; valid until close. */
const char *ap_tokenizer_name(const struct ap_tokenizer *t);
int64_t ap_tokenizer_vocab_size(const struct ap_tokenizer *t);
/* The id that ends every document. */
int32_t ap_tokenizer_end_of_document(const struct ap_tokenizer *t);
/* Room that encode needs at most for size bytes of text. */
int64_t ap_tokenizer_encode_bound(const struct ap_tokenizer *t, size_t size);
/* text (any bytes) -> ids[*count_p], without end of document. */
ap_status ap_tokenizer_encode(const struct ap_tokenizer *t, const char *text, size_t size, int32_t *ids,
                              int64_t *count_p, struct ap_error *err);
/* Room that decode needs at most. */
size_t ap_tokenizer_decode_bound(const struct ap_tokenizer *t, int64_t count);
/* ids -> text[*size_p], not NUL-terminated; ids that stand for no text (end of document, padding of the
 * model's vocabulary) give nothing. */
ap_status ap_tokenizer_decode(const struct ap_tokenizer *t, const int32_t *ids, int64_t count, char *text,
                              size_t *size_p, struct ap_error *err);

#endif
