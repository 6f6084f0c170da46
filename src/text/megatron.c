/* SPDX-License-Identifier: Apache-2.0
 * Reader of Megatron indexed datasets. The layout is numpy's: little-endian arrays after a 34-byte header,
 * hence unaligned; they are read by memcpy. All checks happen in ap_megatron_index_parse. */
#include "config.h"

#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "text/megatron.h"

struct ap_megatron {
    char *prefix;
    struct ap_mapping idx, bin;
    struct ap_megatron_index index;
};

static uint64_t load_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

static int32_t load_i32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return (int32_t)le32toh(v);
}

static int64_t array_i64(const uint8_t *array, int64_t i)
{
    return (int64_t)load_u64(array + 8 * (size_t)i);
}

/* Bytes of one element, 0 for an unknown code. */
static int dtype_width(int code)
{
    static const int width[] = {0, 1, 1, 2, 4, 8, 8, 4, 2};
    return code >= 1 && code <= 8 ? width[code] : 0;
}

static ap_status bad(struct ap_error *err, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static ap_status bad(struct ap_error *err, const char *path, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    ap_error_set(err, AP_ERR_INPUT, "%s", text);
    ap_error_at(err, path, 0, 0);
    return AP_ERR_INPUT;
}

/* Magic, version, type and the two counts; the sizes of the arrays against the size of the file. */
static ap_status parse_header(const uint8_t *data, size_t size, const char *path, struct ap_megatron_index *ix,
                              struct ap_error *err)
{
    if (size < AP_MEGATRON_HEADER_SIZE)
        return bad(err, path, "truncated index: %zu bytes, the header alone takes %d", size, AP_MEGATRON_HEADER_SIZE);
    if (memcmp(data, "TNTIDX\0\0", 8) == 0) {
        bad(err, path, "index in the old format TNTIDX, only MMIDIDX is read");
        ap_error_hint(err, "preprocess again with --dataset-impl mmap");
        return AP_ERR_INPUT;
    }
    if (memcmp(data, "MMIDIDX\0\0", 9) != 0) {
        bad(err, path, "not a Megatron index: it does not start with MMIDIDX");
        ap_error_hint(err, "antipode prep makes .bin and .idx files from text");
        return AP_ERR_INPUT;
    }
    uint64_t version = load_u64(data + 9);
    if (version != 1) {
        ap_error_set(err, AP_ERR_FORMAT, "index version %llu, only version 1 is read", (unsigned long long)version);
        ap_error_at(err, path, 0, 0);
        return AP_ERR_FORMAT;
    }
    ix->dtype = data[17];
    ix->width = dtype_width(ix->dtype);
    if (!ix->width)
        return bad(err, path, "dtype code %d is unknown (1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16)", ix->dtype);
    if (ix->dtype == AP_MEGATRON_F64 || ix->dtype == AP_MEGATRON_F32)
        return bad(err, path, "dtype code %d: floating-point data are not token ids", ix->dtype);
    uint64_t sequences = load_u64(data + 18), entries = load_u64(data + 26);
    uint64_t room = size - AP_MEGATRON_HEADER_SIZE;
    if (sequences > room / 12)
        return bad(err, path, "truncated index: %llu sequences need 12 bytes each, %llu bytes follow the header",
                   (unsigned long long)sequences, (unsigned long long)room);
    room -= 12 * sequences;
    if (entries > room / 8)
        return bad(err, path, "truncated index: %llu document entries need 8 bytes each, %llu bytes are left",
                   (unsigned long long)entries, (unsigned long long)room);
    room -= 8 * entries;
    /* Multimodal indexes end with one mode byte per sequence; they mean nothing here. */
    if (room != 0 && room != sequences)
        return bad(err, path, "%llu bytes too many behind %llu sequences and %llu document entries",
                   (unsigned long long)room, (unsigned long long)sequences, (unsigned long long)entries);
    if (entries == 0)
        return bad(err, path, "document count 0: the list has one entry more than there are documents");
    ix->sequences = (int64_t)sequences;
    ix->documents_count = (int64_t)entries - 1;
    ix->lengths = data + AP_MEGATRON_HEADER_SIZE;
    ix->pointers = ix->lengths + 4 * sequences;
    ix->documents = ix->pointers + 8 * sequences;
    return AP_OK;
}

static ap_status parse_sequences(uint64_t bin_size, const char *path, struct ap_megatron_index *ix,
                                 struct ap_error *err)
{
    uint64_t at = 0; /* byte offset where the next sequence has to start; stays <= bin_size */
    for (int64_t s = 0; s < ix->sequences; s++) {
        int32_t length = load_i32(ix->lengths + 4 * (size_t)s);
        int64_t pointer = array_i64(ix->pointers, s);
        if (length < 0)
            return bad(err, path, "sequence %lld has length %d", (long long)s, length);
        if (pointer < 0 || (uint64_t)pointer != at)
            return bad(err, path,
                       "sequence %lld starts at byte %lld of the .bin, expected %llu (gaps and overlaps are not read)",
                       (long long)s, (long long)pointer, (unsigned long long)at);
        uint64_t bytes = (uint64_t)length * (uint64_t)ix->width;
        if (bytes > bin_size - at)
            return bad(err, path,
                       "sequence %lld ends at byte %llu, but the .bin has %llu bytes: truncated .bin or another pair",
                       (long long)s, (unsigned long long)(at + bytes), (unsigned long long)bin_size);
        at += bytes;
    }
    if (at != bin_size)
        return bad(err, path, "the sequences take %llu bytes, but the .bin has %llu: not a pair",
                   (unsigned long long)at, (unsigned long long)bin_size);
    ix->tokens = (int64_t)(at / (uint64_t)ix->width);
    return AP_OK;
}

static ap_status parse_documents(const char *path, struct ap_megatron_index *ix, struct ap_error *err)
{
    int64_t last = 0;
    for (int64_t d = 0; d <= ix->documents_count; d++) {
        int64_t v = array_i64(ix->documents, d);
        if (d == 0 && v != 0)
            return bad(err, path, "document 0 starts at sequence %lld, expected 0", (long long)v);
        if (v < last || v > ix->sequences)
            return bad(err, path, "document entry %lld is %lld, outside %lld..%lld", (long long)d, (long long)v,
                       (long long)last, (long long)ix->sequences);
        last = v;
    }
    if (last != ix->sequences)
        return bad(err, path, "the last document entry is %lld, expected the number of sequences, %lld",
                   (long long)last, (long long)ix->sequences);
    return AP_OK;
}

ap_status ap_megatron_index_parse(const uint8_t *data, size_t size, uint64_t bin_size, const char *path,
                                  struct ap_megatron_index *index_p, struct ap_error *err)
{
    struct ap_megatron_index ix = {0};
    AP_TRY(parse_header(data, size, path, &ix, err));
    if (bin_size > INT64_MAX)
        return bad(err, path, "the .bin is too large");
    AP_TRY(parse_sequences(bin_size, path, &ix, err));
    AP_TRY(parse_documents(path, &ix, err));
    *index_p = ix;
    return AP_OK;
}

/* PREFIX + suffix, malloc'ed; NULL when out of memory. */
static char *join(const char *prefix, const char *suffix)
{
    size_t size = strlen(prefix) + strlen(suffix) + 1;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s%s", prefix, suffix);
    return path;
}

static ap_status map_part(const char *prefix, const char *suffix, struct ap_mapping *map_p, struct ap_error *err)
{
    char *path = join(prefix, suffix);
    if (!path)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    ap_status status = AP_OK;
    if (!ap_io_exists(path)) {
        size_t n = strlen(prefix);
        status = bad(err, path, "no such data file");
        if (n > 4 && (strcmp(prefix + n - 4, ".bin") == 0 || strcmp(prefix + n - 4, ".idx") == 0))
            ap_error_hint(err, "give the path without .bin or .idx");
        else
            ap_error_hint(err, "antipode prep makes PATH.bin and PATH.idx; data paths are given without the ending");
    } else {
        status = ap_io_map(path, map_p, err);
    }
    free(path);
    return status;
}

ap_status ap_megatron_open(const char *prefix, struct ap_megatron **m_p, struct ap_error *err)
{
    struct ap_megatron *m = calloc(1, sizeof(*m));
    char *path = join(prefix, ".idx");
    ap_status status = AP_OK;
    if (!m || !path || !(m->prefix = join(prefix, "")))
        status = ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    if (status == AP_OK)
        status = map_part(prefix, ".bin", &m->bin, err);
    if (status == AP_OK)
        status = map_part(prefix, ".idx", &m->idx, err);
    if (status == AP_OK)
        status = ap_megatron_index_parse(m->idx.data, m->idx.size, m->bin.size, path, &m->index, err);
    free(path);
    if (status != AP_OK) {
        ap_megatron_close(m);
        return status;
    }
    *m_p = m;
    return AP_OK;
}

void ap_megatron_close(struct ap_megatron *m)
{
    if (!m)
        return;
    ap_io_unmap(&m->idx);
    ap_io_unmap(&m->bin);
    free(m->prefix);
    free(m);
}

const char *ap_megatron_prefix(const struct ap_megatron *m)
{
    return m->prefix;
}

int ap_megatron_dtype(const struct ap_megatron *m)
{
    return m->index.dtype;
}

int64_t ap_megatron_tokens(const struct ap_megatron *m)
{
    return m->index.tokens;
}

int64_t ap_megatron_sequences(const struct ap_megatron *m)
{
    return m->index.sequences;
}

int64_t ap_megatron_documents(const struct ap_megatron *m)
{
    return m->index.documents_count;
}

int64_t ap_megatron_document_start(const struct ap_megatron *m, int64_t doc)
{
    const struct ap_megatron_index *ix = &m->index;
    int64_t sequence = array_i64(ix->documents, doc);
    return sequence == ix->sequences ? ix->tokens : array_i64(ix->pointers, sequence) / ix->width;
}

int64_t ap_megatron_document_of(const struct ap_megatron *m, int64_t token)
{
    /* The last document that starts at or before token: empty ones share a start with their successor. */
    int64_t low = 0, high = m->index.documents_count; /* start(low) <= token < start(high) */
    while (high - low > 1) {
        int64_t mid = low + (high - low) / 2;
        if (ap_megatron_document_start(m, mid) <= token)
            low = mid;
        else
            high = mid;
    }
    return low;
}

void ap_megatron_read(const struct ap_megatron *m, int64_t first, int64_t count, int32_t *out)
{
    const uint8_t *base = m->bin.data;
    if (count <= 0)
        return;
    switch (m->index.dtype) {
    case AP_MEGATRON_U8:
        for (int64_t i = 0; i < count; i++)
            out[i] = base[first + i];
        break;
    case AP_MEGATRON_I8:
        for (int64_t i = 0; i < count; i++)
            out[i] = (int8_t)base[first + i];
        break;
    case AP_MEGATRON_I16:
        for (int64_t i = 0; i < count; i++)
            out[i] = (int16_t)le16toh(((const uint16_t *)base)[first + i]);
        break;
    case AP_MEGATRON_U16:
        for (int64_t i = 0; i < count; i++)
            out[i] = le16toh(((const uint16_t *)base)[first + i]);
        break;
    case AP_MEGATRON_I32:
        for (int64_t i = 0; i < count; i++)
            out[i] = (int32_t)le32toh(((const uint32_t *)base)[first + i]);
        break;
    default:
        for (int64_t i = 0; i < count; i++)
            out[i] = (int32_t)le64toh(((const uint64_t *)base)[first + i]);
        break;
    }
}

/* Largest id of a block as an unsigned 64-bit value; a negative id becomes huge. Plain loops that the
 * compiler turns into vector code. */
static uint64_t block_max(const struct ap_megatron *m, int64_t first, int64_t count)
{
    const uint8_t *base = m->bin.data;
    uint64_t max64 = 0;
    uint32_t max32 = 0;
    uint16_t max16 = 0;
    uint8_t max8 = 0;
    switch (m->index.width) {
    case 1:
        for (int64_t i = first; i < first + count; i++)
            max8 = base[i] > max8 ? base[i] : max8;
        return m->index.dtype == AP_MEGATRON_I8 && max8 > INT8_MAX ? UINT64_MAX : max8;
    case 2:
        for (int64_t i = first; i < first + count; i++) {
            uint16_t v = le16toh(((const uint16_t *)base)[i]);
            max16 = v > max16 ? v : max16;
        }
        return m->index.dtype == AP_MEGATRON_I16 && max16 > INT16_MAX ? UINT64_MAX : max16;
    case 4:
        for (int64_t i = first; i < first + count; i++) {
            uint32_t v = le32toh(((const uint32_t *)base)[i]);
            max32 = v > max32 ? v : max32;
        }
        return max32 > INT32_MAX ? UINT64_MAX : max32;
    default:
        for (int64_t i = first; i < first + count; i++) {
            uint64_t v = le64toh(((const uint64_t *)base)[i]);
            max64 = v > max64 ? v : max64;
        }
        return max64;
    }
}

/* The id at a position, with its sign. */
static int64_t id_at(const struct ap_megatron *m, int64_t token)
{
    if (m->index.dtype == AP_MEGATRON_I64)
        return (int64_t)load_u64(m->bin.data + 8 * (size_t)token);
    int32_t id = 0;
    ap_megatron_read(m, token, 1, &id);
    return id;
}

ap_status ap_megatron_check_ids(const struct ap_megatron *m, int64_t vocab_size, struct ap_error *err)
{
    const int64_t block = 65536;
    for (int64_t first = 0; first < m->index.tokens; first += block) {
        int64_t count = m->index.tokens - first < block ? m->index.tokens - first : block;
        if (vocab_size > 0 && block_max(m, first, count) < (uint64_t)vocab_size)
            continue;
        for (int64_t t = first; t < first + count; t++) {
            int64_t id = id_at(m, t);
            if (id >= 0 && id < vocab_size)
                continue;
            int64_t doc = ap_megatron_document_of(m, t);
            char *path = join(m->prefix, ".bin");
            bad(err, path ? path : m->prefix,
                "token id %lld at position %lld of document %lld is outside the vocabulary of %lld", (long long)id,
                (long long)(t - ap_megatron_document_start(m, doc)), (long long)doc, (long long)vocab_size);
            ap_error_hint(err, "the model's vocab_size must be at least that of the tokenizer that made the file");
            free(path);
            return AP_ERR_INPUT;
        }
    }
    return AP_OK;
}
