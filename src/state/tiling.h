/* SPDX-License-Identifier: Apache-2.0
 * Do ranges tile their tensor: is every element held exactly once? For ranges of any slabs, in n log n for n of them.
 */
#ifndef AP_STATE_TILING_H
#define AP_STATE_TILING_H

#include <stdint.h>
#include "base/status.h"
#include "state/named.h"

/* Zero-initialised is fine. May be used for one tensor after the other. */
struct ap_tiling {
    int64_t rows, cols;     /* a tensor that is not 2-D is one row */
    struct ap_slab pending; /* joined with the next range if that goes on where it ends */
    int64_t *corners, count, capacity;
};

/* Forget the ranges so far; the next ones are of tensor t (of which only the shape is looked at). */
void ap_tiling_begin(struct ap_tiling *g, const struct ap_named *t);
/* One more range, of which ap_named_fault finds nothing to say. AP_ERR_NOMEM only. */
ap_status ap_tiling_add(struct ap_tiling *g, const struct ap_slab *s, struct ap_error *err);
/* *excess_p 0: the ranges tile the tensor; else *at_p is the first element (flat, of the global tensor) that is not
 * held once, and *excess_p how often too much: -1 is a hole. AP_ERR_NOMEM only. Begin again after it. */
ap_status ap_tiling_end(struct ap_tiling *g, int64_t *excess_p, int64_t *at_p, struct ap_error *err);
/* ap_tiling_end as an error of status `wrong` that names tensor t, the element and which of the two it is. */
ap_status ap_tiling_check(struct ap_tiling *g, const struct ap_named *t, ap_status wrong, struct ap_error *err);
void ap_tiling_clear(struct ap_tiling *g);

#endif
