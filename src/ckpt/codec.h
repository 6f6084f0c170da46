/* SPDX-License-Identifier: Apache-2.0
 * One checkpoint chunk: byte shuffle then zstd, bit for bit what HDF5's filters 2 (shuffle) and 32015 (zstd)
 * make of it, so that any HDF5 with the zstd plug-in opens our files while we need no plug-in. A chunk that
 * would not shrink is stored as it is, with both filters masked out. */
#ifndef AP_CKPT_CODEC_H
#define AP_CKPT_CODEC_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

/* HDF5 filter masks in use: bit i set means that filter i of the pipeline was skipped. */
#define AP_CODEC_MASK_FULL 0u
#define AP_CODEC_MASK_RAW  3u

/* Contexts and scratch of one thread. */
struct ap_codec;
ap_status ap_codec_create(struct ap_codec **codec_p, struct ap_error *err);
void ap_codec_destroy(struct ap_codec *codec); /* NULL is fine */

/* Bytes that ap_codec_encode may write for raw_bytes. */
size_t ap_codec_bound(size_t raw_bytes);
/* Encode raw (elements of width bytes) into out; *stored_p bytes long, *mask_p tells how. */
ap_status ap_codec_encode(struct ap_codec *codec, int level, const void *raw, size_t raw_bytes, size_t width, void *out,
                          size_t *stored_p, uint32_t *mask_p);
/* The inverse. AP_ERR_CORRUPT unless exactly raw_bytes come out. Safe on any input. */
ap_status ap_codec_decode(struct ap_codec *codec, const void *stored, size_t stored_bytes, uint32_t mask, size_t width,
                          void *raw, size_t raw_bytes);

/* out[plane * n + i] = in[i * width + plane] for n = bytes / width elements, rest copied; and back. */
void ap_codec_shuffle(const uint8_t *in, uint8_t *out, size_t bytes, size_t width);
void ap_codec_unshuffle(const uint8_t *in, uint8_t *out, size_t bytes, size_t width);

#endif
