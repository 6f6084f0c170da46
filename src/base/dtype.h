/* SPDX-License-Identifier: Apache-2.0
 * Element types of tensors, in memory and in files. */
#ifndef AP_BASE_DTYPE_H
#define AP_BASE_DTYPE_H

#include <stddef.h>

/* The numbers are part of file formats: append, never renumber. */
typedef enum ap_dtype { AP_F32 = 0, AP_F64 = 1, AP_BF16 = 2, AP_I32 = 3, AP_I64 = 4, AP_U8 = 5, AP_U16 = 6 } ap_dtype;

/* Bytes of one element. */
size_t ap_dtype_size(ap_dtype t);
/* What a model of this type keeps in full: statistics, gradients, optimizer state. f32 for bf16, else the type itself.
 */
ap_dtype ap_dtype_full(ap_dtype t);
/* "f32", "i64": static storage. */
const char *ap_dtype_name(ap_dtype t);
/* 0 on success, -1 for an unknown name. */
int ap_dtype_parse(const char *name, ap_dtype *t_p);

#endif
