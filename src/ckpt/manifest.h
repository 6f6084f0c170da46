/* SPDX-License-Identifier: Apache-2.0
 * manifest.json of one state: what it holds and how to check it. It is JSON whose first line carries the
 * XXH3-128 of everything behind that line, so that a damaged manifest is never believed:
 *   {"xxh3_128":"<32 hex digits>",
 *   "format":"antipode-checkpoint","version":1,"step":...,"files":[...],"tensors":[...],"meta":{...}}
 * A state that holds slabs is of version 2, which adds columns to their parts; any other is written as version 1.
 * The first line and the keys format and version stay as they are in every version to come. */
#ifndef AP_CKPT_MANIFEST_H
#define AP_CKPT_MANIFEST_H

#include "ckpt/image.h"
#include "state/named.h"

#define AP_MANIFEST_NAME          "manifest.json"
#define AP_MANIFEST_VERSION       1
#define AP_MANIFEST_VERSION_SLABS 2 /* the newest that is read */
#define AP_MANIFEST_BYTES_MAX     ((size_t)64 << 20)
#define AP_MANIFEST_FILES_MAX     100000

struct ap_manifest_part {
    int32_t file; /* rank-FILE.h5 */
    int32_t part; /* ordinal in that file */
    struct ap_slab range;
};

struct ap_manifest_tensor {
    struct ap_named head;           /* name, dtype, shape; all columns, begin 0, end = elements, data NULL */
    int64_t first_part, part_count; /* tile the tensor; sorted by (col, width, begin) */
};

struct ap_manifest {
    int64_t step;
    double time; /* seconds since 1970 */
    int file_count;
    struct ap_image_info *files;
    int64_t tensor_count; /* sorted by name */
    struct ap_manifest_tensor *tensors;
    int64_t part_count;
    struct ap_manifest_part *parts;
    char *meta; /* JSON object text */
};

void ap_manifest_free(struct ap_manifest *m); /* zeroed is fine; leaves it zeroed */

/* From what the ranks hold: tensors[i] of rank r for offsets[r] <= i < offsets[r+1], in part order, empty ranges
 * skipped as in ap_image_build. AP_ERR_BUG unless they tile every tensor exactly. meta must be a JSON object. */
ap_status ap_manifest_build(const struct ap_named *tensors, const int64_t *offsets, int ranks, const char *meta_json,
                            int64_t step, struct ap_manifest *m_p, struct ap_error *err);
/* *text_p malloc'ed. Numbers of meta are kept digit for digit. */
ap_status ap_manifest_print(const struct ap_manifest *m, char **text_p, size_t *size_p, struct ap_error *err);
/* AP_ERR_CORRUPT: damaged or inconsistent; AP_ERR_FORMAT: another version. Bounded work on any input. */
ap_status ap_manifest_parse(const char *text, size_t size, struct ap_manifest *m_p, struct ap_error *err);
/* 1 if a comes before b among the parts of a tensor. */
int ap_manifest_before(const struct ap_slab *a, const struct ap_slab *b);
/* NULL if the state has no such tensor. */
const struct ap_manifest_tensor *ap_manifest_find(const struct ap_manifest *m, const char *name);

#endif
