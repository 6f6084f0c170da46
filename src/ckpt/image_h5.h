/* SPDX-License-Identifier: Apache-2.0
 * Shared by the image writer and its checker: HDF5 errors as ap_error, chunk geometry, the zstd filter. */
#ifndef AP_CKPT_IMAGE_H5_H
#define AP_CKPT_IMAGE_H5_H

#include <hdf5.h>
#include "ckpt/image.h"

#define AP_H5_FILTER_ZSTD   32015
#define AP_H5_INDEX_NAME    "/chunk_index"
#define AP_H5_INDEX_COLUMNS (AP_CHUNK_ROW_BYTES / 8)

/* Silence HDF5's own printing in this thread and make our zstd coder known to it. */
ap_status ap_h5_setup(struct ap_error *err);
/* Innermost message of HDF5's error stack as an error of the given status; clears the stack. */
ap_status ap_h5_fail(struct ap_error *err, ap_status status, const char *what, const char *object);

/* Dataset and chunk dimensions of one range t. Flat element order is kept: leading chunk dimensions are 1,
 * then one dimension is split, then full ones. */
struct ap_h5_geometry {
    int ndim; /* >= 1 */
    hsize_t dims[4], chunk[4];
    int split;        /* the dimension that is split */
    int64_t inner;    /* elements of one index of it */
    int64_t per_lead; /* chunks along it */
    int64_t chunks;   /* in all */
    int64_t chunk_elements;
};
void ap_h5_geometry(const struct ap_named *t, struct ap_h5_geometry *g_p);
/* Chunk i: its HDF5 offset, first flat element relative to begin, and number of elements inside the dataset. */
void ap_h5_chunk_at(const struct ap_h5_geometry *g, int64_t i, hsize_t offset[4], int64_t *first_p, int64_t *count_p);
/* File type of a dtype: little-endian; bf16 as uint16. */
hid_t ap_h5_type(ap_dtype dtype);

#endif
