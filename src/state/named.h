/* SPDX-License-Identifier: Apache-2.0
 * Named tensors: the one form in which state moves between memory, checkpoints, repair, export and sites.
 * A tensor is known by its global name ("param/model.layers.0.mlp.gate.weight", "adam.m/...") and global
 * shape; a rank holds the flat row-major element range [begin, end) of it. Ranges of several ranks tile the
 * tensor; any tiling can be loaded into any other by intersection. Knows no model and no file. */
#ifndef AP_STATE_NAMED_H
#define AP_STATE_NAMED_H

#include <stdint.h>
#include "base/dtype.h"
#include "base/hash.h"
#include "base/status.h"

#define AP_NAME_MAX 192

struct ap_named {
    char name[AP_NAME_MAX];
    ap_dtype dtype;
    int ndim;           /* 0..4; 0 is a scalar of one element */
    int64_t shape[4];   /* global shape */
    int64_t begin, end; /* flat elements of the global tensor that data holds; begin == end: nothing */
    void *data;         /* host memory, borrowed */
};

/* A growing list, owned by the caller; zero-initialised is empty. A name occurs once, or several times with
 * disjoint ranges of one tensor. */
struct ap_named_set {
    struct ap_named *list;
    int64_t count, capacity;
    int64_t *slots, slot_count; /* hash index over names, internal */
};

/* Copies *t. AP_ERR_BUG for an ill-formed name (see ap_named_name_ok), a duplicate (name, begin), another dtype or
 * shape under the same name, or a range outside the shape. */
ap_status ap_named_set_add(struct ap_named_set *set, const struct ap_named *t, struct ap_error *err);
/* First entry of that name or NULL; valid until the next add. */
const struct ap_named *ap_named_set_find(const struct ap_named_set *set, const char *name);
/* Frees the list, not the tensors' data; the set is empty and usable again. */
void ap_named_set_clear(struct ap_named_set *set);
/* Elements of the global tensor; -1 if ndim or a dimension is out of range or the product exceeds 2^59. */
int64_t ap_named_elements(const struct ap_named *t);
/* 1 if a name is one or more non-empty components of printable ASCII without space, quotes and backslash, joined by
 * '/', none of them "." or "..", and shorter than AP_NAME_MAX: safe as an HDF5 path and in JSON. */
int ap_named_name_ok(const char *name);
/* 1 if both have the same name, dtype and global shape. */
int ap_named_same_tensor(const struct ap_named *a, const struct ap_named *b);

/* Overlap of two flat ranges of one tensor: [*begin_p, *end_p), returns its length (0: none). */
int64_t ap_range_intersect(int64_t a0, int64_t a1, int64_t b0, int64_t b1, int64_t *begin_p, int64_t *end_p);
/* Copy the overlap of src into dst (same name, dtype, shape); returns elements copied, -1 on mismatch. */
int64_t ap_named_copy_overlap(struct ap_named *dst, const struct ap_named *src);

#endif
