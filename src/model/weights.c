/* SPDX-License-Identifier: Apache-2.0
 * From the weights that an optimizer or a checkpoint keeps to those that the model reads. */
#include "config.h"

#include <stdlib.h>

#include "base/bf16.h"
#include "model/model_internal.h"

#define ROUND_BLOCK 65536 /* elements rounded at once */

ap_status ap_model_load_weights(struct ap_backend *be, const void *host, ap_tensor weights)
{
    int64_t n = ap_tensor_count(&weights);
    ap_status st = AP_OK;
    if (weights.dtype != AP_BF16) {
        AP_TRY(be->vt->copy(be->stream, weights.data, host, (size_t)n * ap_dtype_size(weights.dtype)));
        return be->vt->stream_sync(be->stream);
    }
    uint16_t *block = malloc(ROUND_BLOCK * sizeof *block);
    if (!block)
        return AP_ERR_NOMEM;
    for (int64_t at = 0; st == AP_OK && at < n; at += ROUND_BLOCK) {
        int64_t count = n - at < ROUND_BLOCK ? n - at : ROUND_BLOCK;
        for (int64_t i = 0; i < count; i++)
            block[i] = ap_bf16_from_f32(((const float *)host)[at + i]);
        st = be->vt->copy(be->stream, elem(weights, at), block, (size_t)count * sizeof *block);
        if (st == AP_OK)
            st = be->vt->stream_sync(be->stream);
    }
    free(block);
    return st;
}
