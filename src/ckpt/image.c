/* SPDX-License-Identifier: Apache-2.0
 * Build the HDF5 image of a rank in memory and write it.
 *
 * HDF5's core driver keeps the file in a buffer; our file-image callbacks take that buffer over when HDF5
 * closes the file, so the image is never copied. Chunks are encoded by our own code, several at a time on the
 * pool, and handed over by H5Dwrite_chunk from the calling thread, which is the only one inside HDF5. */
#include "config.h"
#include "ckpt/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "ckpt/codec.h"
#include "ckpt/image_h5.h"

#define BATCH_PER_WORKER 4

struct job { /* one chunk on its way */
    const uint8_t *raw;
    size_t valid_bytes; /* behind them zeros up to raw_bytes */
    uint8_t *out;
    size_t stored;
    uint32_t mask;
    struct ap_hash128 raw_hash, stored_hash;
    ap_status status;
};

struct worker {
    struct ap_codec *codec;
    uint8_t *pad; /* an edge chunk with its padding */
};

struct builder {
    const struct ap_image_options *opt;
    hid_t file, lcpl;
    struct worker *workers;
    int worker_count;
    struct job *jobs;
    int job_count;
    size_t raw_bytes, width; /* of the chunks of the dataset in hand */
    struct ap_chunk_row *rows;
    int64_t row_count, row_capacity;
    int64_t raw_total;
    uint8_t *final; /* the core driver's buffer, ours after close */
};

/* ---- image callbacks of the core driver ---- */

static void *image_malloc(size_t size, H5FD_file_image_op_t op, void *udata)
{
    (void)op;
    (void)udata;
    return malloc(size);
}

static void *image_realloc(void *p, size_t size, H5FD_file_image_op_t op, void *udata)
{
    (void)op;
    (void)udata;
    return realloc(p, size);
}

static herr_t image_free(void *p, H5FD_file_image_op_t op, void *udata)
{
    struct builder *b = udata;
    if (op == H5FD_FILE_IMAGE_OP_FILE_CLOSE && b->final == NULL)
        b->final = p;
    else
        free(p);
    return 0;
}

static void *udata_copy(void *udata)
{
    return udata;
}

static herr_t udata_free(void *udata)
{
    (void)udata;
    return 0;
}

/* ---- set-up ---- */

static ap_status nomem(struct ap_error *err)
{
    return ap_error_set(err, AP_ERR_NOMEM, "no memory to build a checkpoint image");
}

static ap_status workers_create(struct builder *b, struct ap_error *err)
{
    b->worker_count = b->opt->pool != NULL ? ap_pool_threads(b->opt->pool) : 1;
    b->job_count = b->worker_count > 1 ? b->worker_count * BATCH_PER_WORKER : 1;
    b->workers = calloc((size_t)b->worker_count, sizeof *b->workers);
    b->jobs = calloc((size_t)b->job_count, sizeof *b->jobs);
    if (b->workers == NULL || b->jobs == NULL)
        return nomem(err);
    for (int i = 0; i < b->worker_count; i++) {
        AP_TRY(ap_codec_create(&b->workers[i].codec, err));
        b->workers[i].pad = malloc(AP_IMAGE_CHUNK_BYTES);
        if (b->workers[i].pad == NULL)
            return nomem(err);
    }
    for (int i = 0; i < b->job_count; i++) {
        b->jobs[i].out = malloc(ap_codec_bound(AP_IMAGE_CHUNK_BYTES));
        if (b->jobs[i].out == NULL)
            return nomem(err);
    }
    return AP_OK;
}

static void builder_free(struct builder *b)
{
    for (int i = 0; b->workers != NULL && i < b->worker_count; i++) {
        ap_codec_destroy(b->workers[i].codec);
        free(b->workers[i].pad);
    }
    for (int i = 0; b->jobs != NULL && i < b->job_count; i++)
        free(b->jobs[i].out);
    free(b->workers);
    free(b->jobs);
    free(b->rows);
    free(b->final);
}

static ap_status file_create(struct builder *b, struct ap_error *err)
{
    H5FD_file_image_callbacks_t cb = {image_malloc, NULL, image_realloc, image_free, udata_copy, udata_free, b};
    char name[64]; /* HDF5 takes two files in memory of one name for the same: ranks may be threads */
    snprintf(name, sizeof name, "image-%p", (void *)b);
    b->lcpl = H5Pcreate(H5P_LINK_CREATE);
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    hid_t fcpl = H5Pcreate(H5P_FILE_CREATE);
    /* The newest 1.10 layout: chunk indexes of a few bytes, metadata with checksums. */
    if (b->lcpl >= 0 && fapl >= 0 && fcpl >= 0 && H5Pset_create_intermediate_group(b->lcpl, 1) >= 0 &&
        H5Pset_fapl_core(fapl, 1 << 22, 0) >= 0 && H5Pset_file_image_callbacks(fapl, &cb) >= 0 &&
        H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
        H5Pset_meta_block_size(fapl, 1 << 15) >= 0 && H5Pset_obj_track_times(fcpl, 0) >= 0)
        b->file = H5Fcreate(name, H5F_ACC_TRUNC, fcpl, fapl);
    if (fapl >= 0)
        H5Pclose(fapl);
    if (fcpl >= 0)
        H5Pclose(fcpl);
    return b->file >= 0 ? AP_OK : ap_h5_fail(err, AP_ERR_NOMEM, "create", "an image in memory");
}

/* ---- attributes ---- */

static int attr_i64(hid_t object, const char *name, const int64_t *v, int n, int scalar)
{
    hsize_t dims = (hsize_t)n;
    hid_t space = scalar ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &dims, NULL);
    hid_t attr = H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    int ok = space >= 0 && attr >= 0 && (n == 0 || H5Awrite(attr, H5T_NATIVE_INT64, v) >= 0);
    if (attr >= 0)
        H5Aclose(attr);
    if (space >= 0)
        H5Sclose(space);
    return ok;
}

static int attr_text(hid_t object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), attr = H5I_INVALID_HID;
    int ok =
        type >= 0 && space >= 0 && H5Tset_size(type, strlen(text)) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0;
    if (ok)
        attr = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ok = ok && attr >= 0 && H5Awrite(attr, type, text) >= 0;
    if (attr >= 0)
        H5Aclose(attr);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return ok;
}

static int part_attributes(hid_t dset, const struct ap_named *t, int64_t part)
{
    return attr_i64(dset, "global_shape", t->shape, t->ndim, 0) && attr_i64(dset, "begin", &t->begin, 1, 1) &&
           attr_i64(dset, "end", &t->end, 1, 1) && attr_i64(dset, "part", &part, 1, 1) &&
           attr_text(dset, "dtype", ap_dtype_name(t->dtype)) &&
           (t->width == 0 || (attr_i64(dset, "col", &t->col, 1, 1) && attr_i64(dset, "width", &t->width, 1, 1)));
}

/* ---- chunks ---- */

static void encode_task(void *ctx, int64_t task, int worker)
{
    struct builder *b = ctx;
    struct job *j = &b->jobs[task];
    struct worker *w = &b->workers[worker];
    const uint8_t *raw = j->raw;
    if (j->valid_bytes < b->raw_bytes) {
        memcpy(w->pad, raw, j->valid_bytes);
        memset(w->pad + j->valid_bytes, 0, b->raw_bytes - j->valid_bytes);
        raw = w->pad;
    }
    j->raw_hash = ap_hash128(raw, b->raw_bytes);
    j->status =
        ap_codec_encode(w->codec, b->opt->zstd_level, raw, b->raw_bytes, b->width, j->out, &j->stored, &j->mask);
    if (j->status == AP_OK)
        j->stored_hash = ap_hash128(j->out, j->stored);
}

static ap_status rows_reserve(struct builder *b, int64_t more, struct ap_error *err)
{
    if (b->row_count + more <= b->row_capacity)
        return AP_OK;
    int64_t capacity = (b->row_count + more) * 2;
    struct ap_chunk_row *rows = realloc(b->rows, (size_t)capacity * sizeof *rows);
    if (rows == NULL)
        return nomem(err);
    b->rows = rows;
    b->row_capacity = capacity;
    return AP_OK;
}

/* Hand one encoded chunk to HDF5 and note where it went. */
static ap_status chunk_store(struct builder *b, hid_t dset, const hsize_t *offset, const struct job *j,
                             struct ap_chunk_row *row, struct ap_error *err)
{
    if (j->status != AP_OK)
        return ap_error_set(err, j->status, "cannot compress a checkpoint chunk: %s", ap_status_name(j->status));
    haddr_t addr = HADDR_UNDEF;
    hsize_t size = 0;
    unsigned mask = 0;
    if (H5Dwrite_chunk(dset, H5P_DEFAULT, j->mask, offset, j->stored, j->out) < 0 ||
        H5Dget_chunk_info_by_coord(dset, offset, &mask, &addr, &size) < 0)
        return ap_h5_fail(err, AP_ERR_NOMEM, "store", "a chunk");
    if (addr == HADDR_UNDEF || size != j->stored || mask != j->mask)
        return ap_error_set(err, AP_ERR_BUG, "HDF5 stored a chunk of %zu bytes as %llu bytes", j->stored,
                            (unsigned long long)size);
    row->offset = addr;
    row->stored_bytes = size;
    row->mask = mask;
    row->raw_bytes = b->raw_bytes;
    row->stored_high = j->stored_hash.high;
    row->stored_low = j->stored_hash.low;
    row->raw_high = j->raw_hash.high;
    row->raw_low = j->raw_hash.low;
    return AP_OK;
}

static ap_status part_chunks(struct builder *b, hid_t dset, const struct ap_named *t, int64_t part,
                             const struct ap_h5_geometry *g, struct ap_error *err)
{
    AP_TRY(rows_reserve(b, g->chunks, err));
    b->width = ap_dtype_size(t->dtype);
    b->raw_bytes = (size_t)g->chunk_elements * b->width;
    for (int64_t done = 0; done < g->chunks;) {
        int64_t n = g->chunks - done < b->job_count ? g->chunks - done : b->job_count;
        struct ap_chunk_row *rows = b->rows + b->row_count;
        hsize_t offset[4];
        for (int64_t i = 0; i < n; i++) {
            int64_t first, count;
            ap_h5_chunk_at(g, done + i, offset, &first, &count);
            rows[i] = (struct ap_chunk_row){
                .part = (uint64_t)part, .begin = (uint64_t)(t->begin + first), .count = (uint64_t)count};
            b->jobs[i].raw = (const uint8_t *)t->data + (size_t)first * b->width;
            b->jobs[i].valid_bytes = (size_t)count * b->width;
        }
        ap_pool_run(b->opt->pool, n, encode_task, b);
        for (int64_t i = 0; i < n; i++) {
            int64_t first, count;
            ap_h5_chunk_at(g, done + i, offset, &first, &count);
            AP_TRY(chunk_store(b, dset, offset, &b->jobs[i], &rows[i], err));
        }
        b->row_count += n;
        done += n;
    }
    return AP_OK;
}

static ap_status part_write(struct builder *b, const struct ap_named *t, int first, int64_t part, struct ap_error *err)
{
    char path[AP_IMAGE_PATH_BYTES];
    struct ap_h5_geometry g;
    unsigned level = (unsigned)b->opt->zstd_level;
    ap_image_dataset_path(t, first, path, sizeof path);
    ap_h5_geometry(t, &g);
    hid_t space = H5Screate_simple(g.ndim, g.dims, NULL), dcpl = H5Pcreate(H5P_DATASET_CREATE), dset = H5I_INVALID_HID;
    if (space >= 0 && dcpl >= 0 && H5Pset_chunk(dcpl, g.ndim, g.chunk) >= 0 && H5Pset_shuffle(dcpl) >= 0 &&
        H5Pset_filter(dcpl, AP_H5_FILTER_ZSTD, H5Z_FLAG_OPTIONAL, 1, &level) >= 0 &&
        H5Pset_obj_track_times(dcpl, 0) >= 0 && H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER) >= 0)
        dset = H5Dcreate2(b->file, path, ap_h5_type(t->dtype), space, b->lcpl, dcpl, H5P_DEFAULT);
    ap_status status = AP_OK;
    if (dset < 0 || !part_attributes(dset, t, part))
        status = ap_h5_fail(err, AP_ERR_BUG, "create dataset", path);
    else
        status = part_chunks(b, dset, t, part, &g, err);
    if (dset >= 0 && H5Dclose(dset) < 0 && status == AP_OK)
        status = ap_h5_fail(err, AP_ERR_NOMEM, "close dataset", path);
    if (dcpl >= 0)
        H5Pclose(dcpl);
    if (space >= 0)
        H5Sclose(space);
    return status;
}

/* ---- index and end ---- */

static ap_status index_write(struct builder *b, struct ap_image_info *info, struct ap_error *err)
{
    hsize_t dims[2] = {(hsize_t)b->row_count, AP_H5_INDEX_COLUMNS};
    hid_t space = H5Screate_simple(2, dims, NULL), dcpl = H5Pcreate(H5P_DATASET_CREATE), dset = H5I_INVALID_HID;
    haddr_t addr = HADDR_UNDEF;
    int ok = 0;
    if (space >= 0 && dcpl >= 0 && H5Pset_layout(dcpl, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY) >= 0 && H5Pset_obj_track_times(dcpl, 0) >= 0)
        dset = H5Dcreate2(b->file, AP_H5_INDEX_NAME, H5T_STD_U64LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    if (dset >= 0)
        ok = attr_text(dset, "columns",
                       "part begin count raw_bytes offset stored_bytes mask stored_xxh3_high stored_xxh3_low "
                       "raw_xxh3_high raw_xxh3_low") &&
             (b->row_count == 0 || H5Dwrite(dset, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, b->rows) >= 0);
    if (ok && b->row_count > 0) {
        addr = H5Dget_offset(dset);
        ok = addr != HADDR_UNDEF;
    }
    if (dset >= 0)
        ok = H5Dclose(dset) >= 0 && ok;
    if (dcpl >= 0)
        H5Pclose(dcpl);
    if (space >= 0)
        H5Sclose(space);
    if (!ok)
        return ap_h5_fail(err, AP_ERR_NOMEM, "store", "the chunk index");
    info->index_bytes = b->row_count * AP_CHUNK_ROW_BYTES;
    info->index_offset = b->row_count > 0 ? (int64_t)addr : 0;
    return AP_OK;
}

/* Size of the file, from the superblock (version 3: end-of-file address at byte 28). The buffer itself is
 * rounded up to the driver's increment. */
static int64_t image_eof(const uint8_t *data)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | data[28 + i];
    return (int64_t)v;
}

static ap_status image_close(struct builder *b, struct ap_image *image, struct ap_error *err)
{
    hid_t file = b->file;
    b->file = H5I_INVALID_HID;
    hsize_t size = 0;
    if (H5Fflush(file, H5F_SCOPE_LOCAL) < 0 || H5Fget_filesize(file, &size) < 0) {
        H5Fclose(file);
        return ap_h5_fail(err, AP_ERR_NOMEM, "finish", "the image");
    }
    if (H5Fclose(file) < 0 || b->final == NULL)
        return ap_h5_fail(err, AP_ERR_NOMEM, "close", "the image");
    int64_t eof = image_eof(b->final);
    if (size < 48 || b->final[8] != 3 || eof < 48 || (uint64_t)eof > size)
        return ap_error_set(err, AP_ERR_BUG, "the image of %llu bytes has an end of file at %lld",
                            (unsigned long long)size, (long long)eof);
    image->data = b->final;
    b->final = NULL;
    image->info.bytes = eof;
    image->raw_bytes = b->raw_total;
    return AP_OK;
}

static ap_status build_all(struct builder *b, const struct ap_named_set *tensors, struct ap_image *image,
                           struct ap_error *err)
{
    int64_t part = 0, version = AP_IMAGE_VERSION;
    for (int64_t i = 0; i < tensors->count; i++)
        if (tensors->list[i].width > 0 && tensors->list[i].begin < tensors->list[i].end)
            version = AP_IMAGE_VERSION_SLABS;
    AP_TRY(ap_h5_setup(err));
    AP_TRY(workers_create(b, err));
    AP_TRY(file_create(b, err));
    if (!attr_text(b->file, "format", "antipode-image") || !attr_i64(b->file, "version", &version, 1, 1))
        return ap_h5_fail(err, AP_ERR_NOMEM, "store", "the root attributes");
    for (int64_t i = 0; i < tensors->count; i++) {
        const struct ap_named *t = &tensors->list[i];
        if (t->end <= t->begin)
            continue;
        /* The first part of a name that holds anything gets the plain path. */
        const struct ap_named *first = ap_named_set_find(tensors, t->name);
        while (first < t && (strcmp(first->name, t->name) != 0 || first->end <= first->begin))
            first++;
        AP_TRY(part_write(b, t, first == t, part++, err));
        b->raw_total += (t->end - t->begin) * (int64_t)ap_dtype_size(t->dtype);
    }
    AP_TRY(index_write(b, &image->info, err));
    AP_TRY(image_close(b, image, err));
    image->info.file_hash = ap_hash128(image->data, (size_t)image->info.bytes);
    image->info.index_hash = ap_hash128(image->data + image->info.index_offset, (size_t)image->info.index_bytes);
    return ap_image_rest_hash(image->data, -1, image->info.bytes, b->rows, b->row_count, "image",
                              &image->info.rest_hash, err);
}

ap_status ap_image_build(const struct ap_named_set *tensors, const struct ap_image_options *opt,
                         struct ap_image *image_p, struct ap_error *err)
{
    struct builder b = {.opt = opt, .file = H5I_INVALID_HID, .lcpl = H5I_INVALID_HID};
    struct ap_image image = {0};
    ap_status status = build_all(&b, tensors, &image, err);
    if (b.file >= 0)
        H5Fclose(b.file);
    if (b.lcpl >= 0)
        H5Pclose(b.lcpl);
    builder_free(&b);
    if (status != AP_OK) {
        ap_image_free(&image);
        return status;
    }
    *image_p = image;
    return AP_OK;
}

void ap_image_free(struct ap_image *image)
{
    free(image->data);
    memset(image, 0, sizeof *image);
}

/* ---- bytes outside the chunks ---- */

static int by_offset(const void *a, const void *b)
{
    const struct ap_chunk_row *x = *(const struct ap_chunk_row *const *)a, *y = *(const struct ap_chunk_row *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static ap_status hash_gap(struct ap_hasher *h, const uint8_t *data, int fd, int64_t begin, int64_t end,
                          const char *path, struct ap_error *err)
{
    uint8_t buf[16384];
    if (fd < 0) {
        ap_hasher_update(h, data + begin, (size_t)(end - begin));
        return AP_OK;
    }
    while (begin < end) {
        int64_t n = end - begin < (int64_t)sizeof buf ? end - begin : (int64_t)sizeof buf;
        AP_TRY(ap_io_pread_all(fd, buf, (size_t)n, begin, path, err));
        ap_hasher_update(h, buf, (size_t)n);
        begin += n;
    }
    return AP_OK;
}

ap_status ap_image_rest_hash(const uint8_t *data, int fd, int64_t bytes, const struct ap_chunk_row *rows, int64_t count,
                             const char *path, struct ap_hash128 *hash_p, struct ap_error *err)
{
    const struct ap_chunk_row **order = malloc((size_t)(count > 0 ? count : 1) * sizeof *order);
    struct ap_hasher *h = ap_hasher_create();
    ap_status status = order != NULL && h != NULL ? AP_OK : nomem(err);
    for (int64_t i = 0; status == AP_OK && i < count; i++)
        order[i] = &rows[i];
    if (status == AP_OK)
        qsort(order, (size_t)count, sizeof *order, by_offset);
    int64_t pos = 0;
    for (int64_t i = 0; status == AP_OK && i < count; i++) {
        uint64_t offset = order[i]->offset, size = order[i]->stored_bytes;
        if (offset < (uint64_t)pos || offset > (uint64_t)bytes || size > (uint64_t)bytes - offset)
            status =
                ap_error_set(err, AP_ERR_CORRUPT, "%s: chunk at byte %llu overlaps another or lies outside the file",
                             path, (unsigned long long)offset);
        else
            status = hash_gap(h, data, fd, pos, (int64_t)offset, path, err);
        if (status == AP_OK)
            pos = (int64_t)(offset + size);
    }
    if (status == AP_OK)
        status = hash_gap(h, data, fd, pos, bytes, path, err);
    if (status == AP_OK)
        *hash_p = ap_hasher_digest(h);
    ap_hasher_destroy(h);
    free(order);
    return status;
}

/* ---- to disk ---- */

ap_status ap_image_write(const struct ap_image *image, const char *path, struct ap_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        int e = errno;
        ap_error_set(err, ap_status_from_errno(e), "cannot create: %s", strerror(e));
        ap_error_at(err, path, 0, 0);
        return ap_status_from_errno(e);
    }
    /* Reserve first: a full disk is found before anything is written. */
    const char *what = "reserve space";
    int e = posix_fallocate(fd, 0, (off_t)image->info.bytes);
    ap_status status = AP_OK;
    if (e == 0 || e == EOPNOTSUPP || e == EINVAL) {
        e = 0;
        status = ap_io_pwrite_all(fd, image->data, (size_t)image->info.bytes, 0, path, err);
        if (status == AP_OK && fsync(fd) != 0) {
            e = errno;
            what = "fsync";
        }
    }
    if (close(fd) != 0 && status == AP_OK && e == 0) {
        e = errno;
        what = "close";
    }
    if (e != 0) {
        status = ap_error_set(err, ap_status_from_errno(e), "cannot %s: %s", what, strerror(e));
        ap_error_at(err, path, 0, 0);
    }
    if (status != AP_OK)
        unlink(path);
    return status;
}
