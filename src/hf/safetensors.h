/* SPDX-License-Identifier: Apache-2.0
 * safetensors files: 8-byte little-endian header length, JSON header (name -> dtype, shape, data_offsets;
 * "__metadata__" apart), raw little-endian data. Read through a mapping; every offset is checked before use:
 * header at most 100 MB, ranges inside the file, sizes equal to shape times dtype, no overlap and no hole.
 * Readers are thread-safe after open. */
#ifndef AP_HF_SAFETENSORS_H
#define AP_HF_SAFETENSORS_H

#include <stdint.h>
#include "base/dtype.h"
#include "base/status.h"
#include "state/named.h"

struct ap_safetensors;

struct ap_safetensor {
    const char *name; /* valid until close */
    ap_dtype dtype;
    int ndim; /* 0..4 */
    int64_t shape[4], count;
    const void *data; /* in the mapping, valid until close; alignment of the element is not promised */
};

ap_status ap_safetensors_open(const char *path, struct ap_safetensors **f_p, struct ap_error *err);
void ap_safetensors_close(struct ap_safetensors *f); /* NULL is fine */
int64_t ap_safetensors_count(const struct ap_safetensors *f);
const struct ap_safetensor *ap_safetensors_at(const struct ap_safetensors *f, int64_t i);
/* NULL if absent. */
const struct ap_safetensor *ap_safetensors_find(const struct ap_safetensors *f, const char *name);

/* Write whole tensors (begin 0, end = all elements) in the given order, durably (temporary file, fsync,
 * rename). Names lose `strip` if they begin with it. Metadata is {"format": "pt"}. */
ap_status ap_safetensors_write(const char *path, const struct ap_named_set *set, const char *strip,
                               struct ap_error *err);

#endif
