/* SPDX-License-Identifier: Apache-2.0
 * Named tensors: the one form in which state moves between memory, checkpoints, repair, export and sites.
 * A tensor is known by its global name ("param/model.layers.0.mlp.gate.weight", "adam.m/...") and global
 * shape; a rank holds the flat row-major element range [begin, end) of it, or of a slab of its columns. Ranges of
 * several ranks tile the tensor (state/tiling.h); any tiling can be loaded into any other by intersection. Knows no
 * model and no file. */
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
    int64_t col, width; /* columns [col, col + width) of a 2-D tensor: a slab; width 0: all of them, any ndim */
    /* Elements of the slab that data holds, counted row by row; begin == end: nothing. Element i of the slab is element
     * (i / width) * shape[1] + col + i % width of the global tensor, or element i where width is 0. */
    int64_t begin, end;
    void *data; /* host memory, borrowed */
};

/* A range without its tensor. */
struct ap_slab {
    int64_t col, width, begin, end;
};

/* A growing list, owned by the caller; zero-initialised is empty. A name occurs once, or several times with
 * disjoint ranges of one tensor, which may lie in different slabs. */
struct ap_named_set {
    struct ap_named *list;
    int64_t count, capacity;
    int64_t *slots, slot_count; /* hash index over names, internal */
};

/* Copies *t; a slab of all columns becomes width 0. AP_ERR_BUG for an ill-formed name (see ap_named_name_ok), a
 * duplicate (name, col, width, begin), another dtype or shape under the same name, or what ap_named_fault names. */
ap_status ap_named_set_add(struct ap_named_set *set, const struct ap_named *t, struct ap_error *err);
/* First entry of that name or NULL; valid until the next add. */
const struct ap_named *ap_named_set_find(const struct ap_named_set *set, const char *name);
/* Frees the list, not the tensors' data; the set is empty and usable again. */
void ap_named_set_clear(struct ap_named_set *set);
/* Elements of the global tensor; -1 if ndim or a dimension is out of range or the product exceeds 2^59. */
int64_t ap_named_elements(const struct ap_named *t);
/* NULL, or what is wrong with shape, columns and range of t: a text without the tensor's name, static. */
const char *ap_named_fault(const struct ap_named *t);
/* 1 if a name is one or more non-empty components of printable ASCII without space, quotes and backslash, joined by
 * '/', none of them "." or "..", and shorter than AP_NAME_MAX: safe as an HDF5 path and in JSON. */
int ap_named_name_ok(const char *name);
/* The range of t. */
struct ap_slab ap_named_slab(const struct ap_named *t);
/* Range s of tensor t, without data. */
struct ap_named ap_named_part(const struct ap_named *t, const struct ap_slab *s);
/* 1 if both have the same name, dtype and global shape. */
int ap_named_same_tensor(const struct ap_named *a, const struct ap_named *b);

/* Overlap of two flat ranges of one tensor: [*begin_p, *end_p), returns its length (0: none). */
int64_t ap_range_intersect(int64_t a0, int64_t a1, int64_t b0, int64_t b1, int64_t *begin_p, int64_t *end_p);

/* The common elements of two ranges of one tensor, as runs that lie contiguous in both. */
struct ap_overlap {
    int64_t a_col, a_width, a_begin, a_end;
    int64_t b_col, b_width, b_begin, b_end;
    int64_t row, row_end; /* rows still to be looked at */
};
/* a and b: same name, dtype and shape, no fault; data is not looked at. */
void ap_overlap_begin(struct ap_overlap *o, const struct ap_named *a, const struct ap_named *b);
/* 1 and the next run, n elements from element *a_p of a's slab and *b_p of b's slab on (counted as begin and end are),
 * rising in both; 0: no more. One run for two ranges of the same columns, else at most one per row. */
int ap_overlap_next(struct ap_overlap *o, int64_t *a_p, int64_t *b_p, int64_t *n_p);
/* Copy the overlap of src into dst (same name, dtype, shape); returns elements copied, -1 on mismatch. */
int64_t ap_named_copy_overlap(struct ap_named *dst, const struct ap_named *src);

#endif
