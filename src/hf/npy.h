/* SPDX-License-Identifier: Apache-2.0
 * Arrays in NumPy's .npy format (versions 1 and 2): little-endian f4, f8, i4, i8, C order, up to 4 dimensions. */
#ifndef AP_HF_NPY_H
#define AP_HF_NPY_H

#include <stdint.h>
#include "base/dtype.h"
#include "base/io.h"
#include "base/status.h"

struct ap_npy {
    ap_dtype dtype;
    int ndim;
    int64_t shape[4], count;
    const void *data; /* inside map, valid until ap_npy_close */
    struct ap_mapping map;
};

ap_status ap_npy_open(const char *path, struct ap_npy *a_p, struct ap_error *err);
void ap_npy_close(struct ap_npy *a);

#endif
