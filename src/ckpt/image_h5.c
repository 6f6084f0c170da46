/* SPDX-License-Identifier: Apache-2.0
 * HDF5 side of checkpoint images: error stack, element types, chunk geometry, and the zstd filter, which we
 * register from our own code so that no plug-in has to be found at run time. */
#include "config.h"
#include "ckpt/image_h5.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

/* H5Z filter 32015. HDF5 owns *buf and frees it with H5free_memory when we replace it. */
static size_t zstd_filter(unsigned flags, size_t cd_count, const unsigned cd[], size_t bytes, size_t *buf_size,
                          void **buf)
{
    size_t room, n;
    if (flags & H5Z_FLAG_REVERSE) {
        unsigned long long content = ZSTD_getFrameContentSize(*buf, bytes);
        if (content == ZSTD_CONTENTSIZE_ERROR || content == ZSTD_CONTENTSIZE_UNKNOWN ||
            content > (unsigned long long)AP_IMAGE_CHUNK_BYTES_MAX)
            return 0;
        room = (size_t)content;
    } else {
        room = ZSTD_compressBound(bytes);
    }
    void *out = H5allocate_memory(room > 0 ? room : 1, 0);
    if (out == NULL)
        return 0;
    if (flags & H5Z_FLAG_REVERSE)
        n = ZSTD_decompress(out, room, *buf, bytes);
    else
        n = ZSTD_compress(out, room, *buf, bytes, cd_count > 0 ? (int)cd[0] : 1);
    if (ZSTD_isError(n)) {
        H5free_memory(out);
        return 0;
    }
    H5free_memory(*buf);
    *buf = out;
    *buf_size = room;
    return n;
}

ap_status ap_h5_setup(struct ap_error *err)
{
    static const H5Z_class2_t zstd_class = {H5Z_CLASS_T_VERS, AP_H5_FILTER_ZSTD, 1, 1, "zstd", NULL, NULL, zstd_filter};
    if (H5Eset_auto2(H5E_DEFAULT, NULL, NULL) < 0 || H5Zregister(&zstd_class) < 0)
        return ap_h5_fail(err, AP_ERR_ENV, "start", "the library");
    return AP_OK;
}

static herr_t innermost(unsigned depth, const H5E_error2_t *e, void *text)
{
    (void)depth;
    if (e->desc != NULL)
        *(const char **)text = e->desc;
    return 0;
}

ap_status ap_h5_fail(struct ap_error *err, ap_status status, const char *what, const char *object)
{
    const char *text = "no reason given"; /* points into the stack: used before it is cleared */
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, innermost, &text);
    ap_error_set(err, status, "HDF5 cannot %s %s: %s", what, object, text);
    H5Eclear2(H5E_DEFAULT);
    return status;
}

hid_t ap_h5_type(ap_dtype dtype)
{
    switch (dtype) {
    case AP_F32:
        return H5T_IEEE_F32LE;
    case AP_F64:
        return H5T_IEEE_F64LE;
    case AP_BF16:
    case AP_U16:
        return H5T_STD_U16LE;
    case AP_I32:
        return H5T_STD_I32LE;
    case AP_I64:
        return H5T_STD_I64LE;
    case AP_U8:
        return H5T_STD_U8LE;
    }
    return H5I_INVALID_HID;
}

void ap_h5_geometry(const struct ap_named *t, struct ap_h5_geometry *g_p)
{
    struct ap_h5_geometry g = {0};
    if (t->ndim > 0 && t->begin == 0 && t->end == (t->width > 0 ? t->shape[0] * t->width : ap_named_elements(t))) {
        g.ndim = t->ndim;
        for (int i = 0; i < t->ndim; i++)
            g.dims[i] = (hsize_t)t->shape[i];
        if (t->width > 0)
            g.dims[1] = (hsize_t)t->width;
    } else {
        g.ndim = 1;
        g.dims[0] = (hsize_t)(t->end - t->begin);
    }
    int64_t target = AP_IMAGE_CHUNK_BYTES / (int64_t)ap_dtype_size(t->dtype);
    int64_t lead = 1;
    g.inner = 1;
    g.split = g.ndim - 1;
    while (g.split > 0 && g.inner * (int64_t)g.dims[g.split] <= target)
        g.inner *= (int64_t)g.dims[g.split--];
    int64_t rows = (int64_t)g.dims[g.split], most = target / g.inner;
    g.per_lead = (rows + most - 1) / most;
    int64_t step = (rows + g.per_lead - 1) / g.per_lead; /* equal pieces, so that little padding is stored */
    g.per_lead = (rows + step - 1) / step;
    for (int i = 0; i < g.ndim; i++) {
        g.chunk[i] = i < g.split ? 1 : i == g.split ? (hsize_t)step : g.dims[i];
        lead *= i < g.split ? (int64_t)g.dims[i] : 1;
    }
    g.chunks = lead * g.per_lead;
    g.chunk_elements = step * g.inner;
    *g_p = g;
}

void ap_h5_chunk_at(const struct ap_h5_geometry *g, int64_t i, hsize_t offset[4], int64_t *first_p, int64_t *count_p)
{
    int64_t lead = i / g->per_lead, rows = (int64_t)g->dims[g->split];
    int64_t row = (i % g->per_lead) * (int64_t)g->chunk[g->split];
    int64_t n = rows - row < (int64_t)g->chunk[g->split] ? rows - row : (int64_t)g->chunk[g->split];
    *first_p = (lead * rows + row) * g->inner;
    *count_p = n * g->inner;
    memset(offset, 0, 4 * sizeof *offset);
    offset[g->split] = (hsize_t)row;
    for (int d = g->split - 1; d >= 0; d--) {
        offset[d] = (hsize_t)(lead % (int64_t)g->dims[d]);
        lead /= (int64_t)g->dims[d];
    }
}

void ap_image_dataset_path(const struct ap_named *part, int first, char *buf, size_t size)
{
    if (first)
        snprintf(buf, size, "/%s", part->name);
    else if (part->width == 0)
        snprintf(buf, size, "/%s@%lld", part->name, (long long)part->begin);
    else
        snprintf(buf, size, "/%s@%lld+%lld,%lld", part->name, (long long)part->col, (long long)part->width,
                 (long long)part->begin);
}
