/* SPDX-License-Identifier: Apache-2.0
 * Reading tensors out of one state directory. Files are opened and their chunk indexes read when first needed;
 * each chunk is checked (stored bytes, then decoded bytes) before its elements are used. Not collective; one
 * reader is for one thread. */
#ifndef AP_CKPT_READER_H
#define AP_CKPT_READER_H

#include "ckpt/manifest.h"

struct ap_ckpt_reader;

/* Takes over *m (left zeroed). path: the state directory, copied. No file is touched yet. */
ap_status ap_ckpt_reader_create(const char *path, struct ap_manifest *m, struct ap_ckpt_reader **reader_p,
                                struct ap_error *err);
/* Manifest of the directory, then create. */
ap_status ap_ckpt_reader_open(const char *path, struct ap_ckpt_reader **reader_p, struct ap_error *err);
void ap_ckpt_reader_destroy(struct ap_ckpt_reader *reader); /* NULL is fine */
/* Borrowed until destroy. */
const struct ap_manifest *ap_ckpt_reader_manifest(const struct ap_ckpt_reader *reader);

/* AP_ERR_INPUT unless the state has every tensor of the set with this dtype and shape. Touches no file. */
ap_status ap_ckpt_reader_match(const struct ap_ckpt_reader *reader, const struct ap_named_set *tensors,
                               struct ap_error *err);
/* Fill the range of t, a tensor that matches, whatever the ranges it was stored in. AP_ERR_CORRUPT leaves t->data
 * partly written. */
ap_status ap_ckpt_reader_fill(struct ap_ckpt_reader *reader, const struct ap_named *t, struct ap_error *err);
/* Check length, index and all bytes outside of chunks of one file. */
ap_status ap_ckpt_reader_check_rest(struct ap_ckpt_reader *reader, int file, struct ap_error *err);
/* Check every byte of one file by its whole-file hash. */
ap_status ap_ckpt_reader_check_whole(struct ap_ckpt_reader *reader, int file, struct ap_error *err);
/* Whole-file hash, then HDF5's own view of the file against index and manifest (ap_image_check). */
ap_status ap_ckpt_reader_check_deep(struct ap_ckpt_reader *reader, int file, struct ap_error *err);

/* Path of file number i of a state directory. */
void ap_ckpt_file_path(const char *state_path, int i, char *buf, size_t size);
ap_status ap_ckpt_manifest_read(const char *state_path, struct ap_manifest *m_p, struct ap_error *err);

#endif
