/* SPDX-License-Identifier: Apache-2.0
 * Byte shuffle and zstd for checkpoint chunks. Shuffling gathers byte k of all elements: signs and exponents
 * of floats repeat and compress, mantissas are close to noise and zstd passes over them quickly. */
#include "config.h"
#include "ckpt/codec.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

struct ap_codec {
    ZSTD_CCtx *cctx;
    ZSTD_DCtx *dctx;
    uint8_t *scratch; /* shuffled bytes of one chunk */
    size_t scratch_size;
};

ap_status ap_codec_create(struct ap_codec **codec_p, struct ap_error *err)
{
    struct ap_codec *codec = calloc(1, sizeof *codec);
    if (codec != NULL) {
        codec->cctx = ZSTD_createCCtx();
        codec->dctx = ZSTD_createDCtx();
    }
    if (codec == NULL || codec->cctx == NULL || codec->dctx == NULL) {
        ap_codec_destroy(codec);
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a zstd context");
    }
    *codec_p = codec;
    return AP_OK;
}

void ap_codec_destroy(struct ap_codec *codec)
{
    if (codec == NULL)
        return;
    ZSTD_freeCCtx(codec->cctx);
    ZSTD_freeDCtx(codec->dctx);
    free(codec->scratch);
    free(codec);
}

size_t ap_codec_bound(size_t raw_bytes)
{
    return ZSTD_compressBound(raw_bytes);
}

void ap_codec_shuffle(const uint8_t *in, uint8_t *out, size_t bytes, size_t width)
{
    size_t n = bytes / width;
    if (width == 4) { /* the common case: one pass over the input, four output streams */
        for (size_t i = 0; i < n; i++) {
            out[i] = in[4 * i];
            out[n + i] = in[4 * i + 1];
            out[2 * n + i] = in[4 * i + 2];
            out[3 * n + i] = in[4 * i + 3];
        }
    } else {
        for (size_t plane = 0; plane < width; plane++)
            for (size_t i = 0; i < n; i++)
                out[plane * n + i] = in[i * width + plane];
    }
    if (bytes > n * width)
        memcpy(out + n * width, in + n * width, bytes - n * width);
}

void ap_codec_unshuffle(const uint8_t *in, uint8_t *out, size_t bytes, size_t width)
{
    size_t n = bytes / width;
    if (width == 4) {
        for (size_t i = 0; i < n; i++) {
            out[4 * i] = in[i];
            out[4 * i + 1] = in[n + i];
            out[4 * i + 2] = in[2 * n + i];
            out[4 * i + 3] = in[3 * n + i];
        }
    } else {
        for (size_t plane = 0; plane < width; plane++)
            for (size_t i = 0; i < n; i++)
                out[i * width + plane] = in[plane * n + i];
    }
    if (bytes > n * width)
        memcpy(out + n * width, in + n * width, bytes - n * width);
}

static ap_status scratch_reserve(struct ap_codec *codec, size_t size)
{
    if (size <= codec->scratch_size)
        return AP_OK;
    uint8_t *grown = realloc(codec->scratch, size);
    if (grown == NULL)
        return AP_ERR_NOMEM;
    codec->scratch = grown;
    codec->scratch_size = size;
    return AP_OK;
}

/* Shuffled weights hold next to no matches: what shrinks is the entropy of the exponent plane. A match table of 64
 * entries keeps runs (zeros) cheap and is 2.5 times as fast as level 1's own at a slightly better ratio (measured on
 * normal f32 weights, chunks of 1 MiB: 1.3 GB/s at 0.835 against 0.5 GB/s at 0.842). */
static size_t set_level(ZSTD_CCtx *cctx, int level)
{
    size_t n = ZSTD_CCtx_reset(cctx, ZSTD_reset_session_and_parameters);
    if (!ZSTD_isError(n))
        n = ZSTD_CCtx_setParameter(cctx, ZSTD_c_compressionLevel, level);
    if (!ZSTD_isError(n) && level == 1)
        n = ZSTD_CCtx_setParameter(cctx, ZSTD_c_strategy, ZSTD_fast);
    if (!ZSTD_isError(n) && level == 1)
        n = ZSTD_CCtx_setParameter(cctx, ZSTD_c_hashLog, 6);
    return n;
}

ap_status ap_codec_encode(struct ap_codec *codec, int level, const void *raw, size_t raw_bytes, size_t width, void *out,
                          size_t *stored_p, uint32_t *mask_p)
{
    const void *plain = raw;
    if (width > 1) {
        AP_TRY(scratch_reserve(codec, raw_bytes));
        ap_codec_shuffle(raw, codec->scratch, raw_bytes, width);
        plain = codec->scratch;
    }
    size_t n = set_level(codec->cctx, level);
    if (!ZSTD_isError(n))
        n = ZSTD_compress2(codec->cctx, out, ap_codec_bound(raw_bytes), plain, raw_bytes);
    if (ZSTD_isError(n))
        return ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation ? AP_ERR_NOMEM : AP_ERR_BUG;
    *mask_p = AP_CODEC_MASK_FULL;
    if (n >= raw_bytes) {
        memcpy(out, raw, raw_bytes);
        n = raw_bytes;
        *mask_p = AP_CODEC_MASK_RAW;
    }
    *stored_p = n;
    return AP_OK;
}

ap_status ap_codec_decode(struct ap_codec *codec, const void *stored, size_t stored_bytes, uint32_t mask, size_t width,
                          void *raw, size_t raw_bytes)
{
    if (mask == AP_CODEC_MASK_RAW) {
        if (stored_bytes != raw_bytes)
            return AP_ERR_CORRUPT;
        memcpy(raw, stored, raw_bytes);
        return AP_OK;
    }
    if (mask != AP_CODEC_MASK_FULL || width == 0)
        return AP_ERR_CORRUPT;
    void *plain = raw;
    if (width > 1) {
        AP_TRY(scratch_reserve(codec, raw_bytes));
        plain = codec->scratch;
    }
    size_t n = ZSTD_decompressDCtx(codec->dctx, plain, raw_bytes, stored, stored_bytes);
    if (ZSTD_isError(n) || n != raw_bytes)
        return AP_ERR_CORRUPT;
    if (width > 1)
        ap_codec_unshuffle(plain, raw, raw_bytes, width);
    return AP_OK;
}
