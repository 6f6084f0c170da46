/* SPDX-License-Identifier: Apache-2.0
 * Inside of params: which slice of a tensor a part of the model holds. */
#ifndef AP_MODEL_PART_H
#define AP_MODEL_PART_H

#include "model/params.h"

/* Share `rank` of `size` of n things. */
static inline int64_t ap_share(int64_t n, int64_t rank, int64_t size)
{
    return n * rank / size;
}

/* From e->info: group, row, rows, col, cols, count. 0: the part holds nothing of it. */
int ap_model_part_slice(const struct ap_model_config *cfg, const struct ap_model_part *part, struct ap_param *e);

#endif
