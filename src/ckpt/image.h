/* SPDX-License-Identifier: Apache-2.0
 * The HDF5 image of one rank: its tensor ranges as datasets, built in memory, written in one checked pass.
 *
 * Layout (docs/formats-ckpt.md): dataset /NAME per range, in the full shape of the tensor or of its slab if the rank
 * holds all of it, else one-dimensional; a further range of the same tensor is /NAME@BEGIN, or /NAME@COL+WIDTH,BEGIN
 * where it lies in a slab. Attributes: global_shape, begin, end, dtype, part (its ordinal in this file), and of a slab
 * col and width. Every chunk is a contiguous flat range of elements. Dataset /chunk_index has one row per chunk: where
 * it lies and the XXH3-128 of its stored and of its decoded bytes.
 *
 * Loading never hands unchecked bytes to HDF5: the reader finds chunks through the index, whose place and hash
 * stand in the manifest. HDF5 itself reads an image only in ap_image_check, after the whole file was hashed. */
#ifndef AP_CKPT_IMAGE_H
#define AP_CKPT_IMAGE_H

#include "base/hash.h"
#include "base/pool.h"
#include "state/named.h"

#define AP_IMAGE_VERSION         1
#define AP_IMAGE_VERSION_SLABS   2                  /* stated where the image holds a slab */
#define AP_IMAGE_CHUNK_BYTES     (INT64_C(1) << 20) /* raw bytes of a chunk at most, as we write them */
#define AP_IMAGE_CHUNK_BYTES_MAX (INT64_C(1) << 26) /* refused above this when read */

/* One row of /chunk_index, 64-bit little-endian words in this order. */
struct ap_chunk_row {
    uint64_t part;      /* ordinal of the dataset in this file; rows are sorted by (part, begin) */
    uint64_t begin;     /* first element, flat in the global tensor or in the slab of the part */
    uint64_t count;     /* elements of the tensor in this chunk */
    uint64_t raw_bytes; /* decoded bytes, with the padding of an edge chunk */
    uint64_t offset;    /* in the file */
    uint64_t stored_bytes;
    uint64_t mask;                    /* HDF5 filter mask */
    uint64_t stored_high, stored_low; /* XXH3-128 */
    uint64_t raw_high, raw_low;
};
#define AP_CHUNK_ROW_BYTES 88
_Static_assert(sizeof(struct ap_chunk_row) == AP_CHUNK_ROW_BYTES, "rows are stored as they are in memory");

/* What the manifest records about a file. */
struct ap_image_info {
    int64_t bytes;
    int64_t index_offset, index_bytes;
    struct ap_hash128 file_hash, index_hash;
    struct ap_hash128 rest_hash; /* of all bytes that belong to no chunk, in file order */
};

struct ap_image {
    uint8_t *data; /* owned; info.bytes long */
    int64_t raw_bytes;
    struct ap_image_info info;
};

struct ap_image_options {
    int zstd_level;
    struct ap_pool *pool; /* NULL: serial */
};

/* Build the image of the non-empty entries of *tensors; entry order is part order. The same input gives the same
 * bytes for any number of threads. Owned by the caller (ap_image_free). */
ap_status ap_image_build(const struct ap_named_set *tensors, const struct ap_image_options *opt,
                         struct ap_image *image_p, struct ap_error *err);
void ap_image_free(struct ap_image *image);
/* Create path (it must not exist), reserve its space, write, fsync. On failure it is removed. */
ap_status ap_image_write(const struct ap_image *image, const char *path, struct ap_error *err);

/* Hash of the bytes of a file outside its chunks, from memory (fd < 0) or by pread. rows need not be sorted.
 * AP_ERR_CORRUPT if chunks overlap or lie outside. */
ap_status ap_image_rest_hash(const uint8_t *data, int fd, int64_t bytes, const struct ap_chunk_row *rows, int64_t count,
                             const char *path, struct ap_hash128 *hash_p, struct ap_error *err);

/* One range as the manifest lists it, for ap_image_check. */
struct ap_image_part {
    const struct ap_named *tensor; /* name, dtype, shape */
    struct ap_slab range;
};
/* Open the file with HDF5 and compare every dataset, attribute and chunk (read by H5Dread_chunk, decoded and
 * hashed) with its index and with the parts expected, part i at parts[i]. Call it on hashed files only. */
ap_status ap_image_check(const char *path, const struct ap_image_part *parts, int64_t count, struct ap_error *err);

/* Path of a part inside the file, first or not of its tensor. */
#define AP_IMAGE_PATH_BYTES (AP_NAME_MAX + 64)
void ap_image_dataset_path(const struct ap_named *part, int first, char *buf, size_t size);

#endif
