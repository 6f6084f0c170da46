/* SPDX-License-Identifier: Apache-2.0
 * An image as HDF5 sees it, against its chunk index and the manifest: what h5py would show is what we load.
 * Only for files whose whole content was hashed, since HDF5 does not survive every damaged file. */
#include "config.h"
#include "ckpt/image.h"

#include <stdlib.h>
#include <string.h>

#include "ckpt/codec.h"
#include "ckpt/image_h5.h"

struct checker {
    const char *path;
    hid_t file;
    struct ap_codec *codec;
    uint8_t *stored, *raw; /* AP_IMAGE_CHUNK_BYTES and its bound */
    struct ap_chunk_row *rows;
    int64_t row_count, row; /* row: the next one to be met */
};

static ap_status differs(const struct checker *c, const char *object, const char *what, struct ap_error *err)
{
    ap_error_set(err, AP_ERR_CORRUPT, "dataset %s: %s", object, what);
    ap_error_at(err, c->path, 0, 0);
    return AP_ERR_CORRUPT;
}

static int attr_is(hid_t dset, const char *name, const int64_t *want, int n)
{
    int64_t have[4] = {0};
    hid_t attr = H5Aopen(dset, name, H5P_DEFAULT), space = attr >= 0 ? H5Aget_space(attr) : H5I_INVALID_HID;
    int ok = space >= 0 && H5Sget_simple_extent_npoints(space) == n &&
             (n == 0 || H5Aread(attr, H5T_NATIVE_INT64, have) >= 0) &&
             memcmp(have, want, (size_t)n * sizeof *want) == 0;
    if (space >= 0)
        H5Sclose(space);
    if (attr >= 0)
        H5Aclose(attr);
    return ok;
}

static int dtype_is(hid_t dset, ap_dtype dtype)
{
    char text[16] = "";
    const char *want = ap_dtype_name(dtype);
    hid_t attr = H5Aopen(dset, "dtype", H5P_DEFAULT), type = attr >= 0 ? H5Aget_type(attr) : H5I_INVALID_HID;
    hid_t stored = H5Dget_type(dset);
    int ok = type >= 0 && stored >= 0 && H5Tget_size(type) == strlen(want) && H5Aread(attr, type, text) >= 0 &&
             strcmp(text, want) == 0 && H5Tequal(stored, ap_h5_type(dtype)) > 0;
    if (stored >= 0)
        H5Tclose(stored);
    if (type >= 0)
        H5Tclose(type);
    if (attr >= 0)
        H5Aclose(attr);
    return ok;
}

static int dims_are(hid_t dset, const struct ap_h5_geometry *g)
{
    hsize_t dims[H5S_MAX_RANK], chunk[H5S_MAX_RANK];
    hid_t space = H5Dget_space(dset), dcpl = H5Dget_create_plist(dset);
    int ok = space >= 0 && dcpl >= 0 && H5Sget_simple_extent_ndims(space) == g->ndim &&
             H5Sget_simple_extent_dims(space, dims, NULL) == g->ndim && H5Pget_layout(dcpl) == H5D_CHUNKED &&
             H5Pget_chunk(dcpl, H5S_MAX_RANK, chunk) == g->ndim;
    for (int i = 0; ok && i < g->ndim; i++)
        ok = dims[i] == g->dims[i] && chunk[i] == g->chunk[i];
    if (space >= 0)
        H5Sclose(space);
    if (dcpl >= 0)
        H5Pclose(dcpl);
    return ok;
}

static ap_status check_chunk(struct checker *c, hid_t dset, const char *object, const struct ap_h5_geometry *g,
                             int64_t i, const struct ap_named *t, int64_t part, struct ap_error *err)
{
    hsize_t offset[4], size = 0;
    haddr_t addr = HADDR_UNDEF;
    unsigned mask = 0;
    uint32_t read_mask = 0;
    int64_t first = 0, count = 0;
    size_t width = ap_dtype_size(t->dtype), raw_bytes = (size_t)g->chunk_elements * width;
    if (c->row >= c->row_count)
        return differs(c, object, "the chunk index is too short", err);
    const struct ap_chunk_row *row = &c->rows[c->row++];
    ap_h5_chunk_at(g, i, offset, &first, &count);
    if (row->part != (uint64_t)part || (int64_t)row->begin != t->begin + first || (int64_t)row->count != count ||
        row->raw_bytes != raw_bytes)
        return differs(c, object, "the chunk index lists other elements", err);
    if (H5Dget_chunk_info_by_coord(dset, offset, &mask, &addr, &size) < 0 || addr != row->offset ||
        size != row->stored_bytes || mask != row->mask || size > ap_codec_bound(AP_IMAGE_CHUNK_BYTES))
        return differs(c, object, "a chunk lies elsewhere than the chunk index says", err);
    if (H5Dread_chunk(dset, H5P_DEFAULT, offset, &read_mask, c->stored) < 0 || read_mask != mask)
        return ap_h5_fail(err, AP_ERR_CORRUPT, "read a chunk of", object);
    struct ap_hash128 stored = {row->stored_high, row->stored_low}, raw = {row->raw_high, row->raw_low};
    if (!ap_hash128_equal(ap_hash128(c->stored, (size_t)size), stored) ||
        ap_codec_decode(c->codec, c->stored, (size_t)size, mask, width, c->raw, raw_bytes) != AP_OK ||
        !ap_hash128_equal(ap_hash128(c->raw, raw_bytes), raw))
        return differs(c, object, "a chunk does not fit its hash", err);
    return AP_OK;
}

/* A slab says its columns, any other range has no such attribute. */
static int columns_are(hid_t dset, const struct ap_named *t)
{
    if (t->width > 0)
        return attr_is(dset, "col", &t->col, 1) && attr_is(dset, "width", &t->width, 1);
    return H5Aexists(dset, "col") == 0 && H5Aexists(dset, "width") == 0;
}

static ap_status check_part(struct checker *c, const struct ap_image_part *p, int64_t part, int first,
                            struct ap_error *err)
{
    char object[AP_IMAGE_PATH_BYTES];
    struct ap_h5_geometry g;
    struct ap_named t = ap_named_part(p->tensor, &p->range);
    ap_image_dataset_path(&t, first, object, sizeof object);
    ap_h5_geometry(&t, &g);
    hid_t dset = H5Dopen2(c->file, object, H5P_DEFAULT);
    if (dset < 0)
        return ap_h5_fail(err, AP_ERR_CORRUPT, "open dataset", object);
    ap_status status = AP_OK;
    if (!attr_is(dset, "global_shape", t.shape, t.ndim) || !attr_is(dset, "begin", &t.begin, 1) ||
        !attr_is(dset, "end", &t.end, 1) || !attr_is(dset, "part", &part, 1) || !columns_are(dset, &t) ||
        !dtype_is(dset, t.dtype) || !dims_are(dset, &g))
        status = differs(c, object, "shape, range or dtype is not the one in the manifest", err);
    for (int64_t i = 0; status == AP_OK && i < g.chunks; i++)
        status = check_chunk(c, dset, object, &g, i, &t, part, err);
    H5Dclose(dset);
    return status;
}

static ap_status read_index(struct checker *c, struct ap_error *err)
{
    hsize_t dims[2] = {0, 0};
    hid_t dset = H5Dopen2(c->file, AP_H5_INDEX_NAME, H5P_DEFAULT),
          space = dset >= 0 ? H5Dget_space(dset) : H5I_INVALID_HID;
    ap_status status = AP_OK;
    if (space < 0 || H5Sget_simple_extent_ndims(space) != 2 || H5Sget_simple_extent_dims(space, dims, NULL) != 2 ||
        dims[1] != AP_H5_INDEX_COLUMNS || dims[0] > (hsize_t)INT32_MAX)
        status = differs(c, AP_H5_INDEX_NAME, "not a chunk index", err);
    if (status == AP_OK) {
        c->rows = calloc((size_t)dims[0] + 1, AP_CHUNK_ROW_BYTES);
        c->row_count = (int64_t)dims[0];
        if (c->rows == NULL)
            status = ap_error_set(err, AP_ERR_NOMEM, "no memory for a chunk index");
        else if (dims[0] > 0 && H5Dread(dset, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, c->rows) < 0)
            status = ap_h5_fail(err, AP_ERR_CORRUPT, "read", AP_H5_INDEX_NAME);
    }
    if (space >= 0)
        H5Sclose(space);
    if (dset >= 0)
        H5Dclose(dset);
    return status;
}

static ap_status check_all(struct checker *c, const struct ap_image_part *parts, int64_t count, struct ap_error *err)
{
    AP_TRY(ap_h5_setup(err));
    AP_TRY(ap_codec_create(&c->codec, err));
    c->stored = malloc(ap_codec_bound(AP_IMAGE_CHUNK_BYTES));
    c->raw = malloc(AP_IMAGE_CHUNK_BYTES);
    if (c->stored == NULL || c->raw == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory to check a checkpoint file");
    c->file = H5Fopen(c->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (c->file < 0)
        return ap_h5_fail(err, AP_ERR_CORRUPT, "open", c->path);
    int64_t version = AP_IMAGE_VERSION;
    for (int64_t i = 0; i < count; i++)
        version = parts[i].range.width > 0 ? AP_IMAGE_VERSION_SLABS : version;
    if (!attr_is(c->file, "version", &version, 1))
        return differs(c, "/", "its version is not the one for its content", err);
    AP_TRY(read_index(c, err));
    for (int64_t i = 0; i < count; i++) {
        /* The plain path belongs to the first part of the name in this file. */
        int first = 1;
        for (int64_t j = i - 1; first && j >= 0; j--)
            first = strcmp(parts[j].tensor->name, parts[i].tensor->name) != 0;
        AP_TRY(check_part(c, &parts[i], i, first, err));
    }
    return c->row == c->row_count ? AP_OK : differs(c, AP_H5_INDEX_NAME, "it has rows of no tensor", err);
}

ap_status ap_image_check(const char *path, const struct ap_image_part *parts, int64_t count, struct ap_error *err)
{
    struct checker c = {.path = path, .file = H5I_INVALID_HID};
    ap_status status = check_all(&c, parts, count, err);
    if (c.file >= 0)
        H5Fclose(c.file);
    ap_codec_destroy(c.codec);
    free(c.stored);
    free(c.raw);
    free(c.rows);
    return status;
}
