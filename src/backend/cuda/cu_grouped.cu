/* SPDX-License-Identifier: Apache-2.0
 * Products of the experts: rows sorted by expert, offsets on the device. */
#include "config.h"

#include "backend/cuda/cu_tile.h"

ap_status cu_grouped_gemm(struct cu_stream *s, const struct ap_grouped_gemm_args *a)
{
    cu_tile_args t = {};
    t.a = a->x.data;
    t.b = a->w.data;
    t.c = a->y.data;
    t.offsets = (const int32_t *)a->offsets.data;
    t.m = a->x.shape[0];
    t.n = a->y.shape[1];
    t.k = a->x.shape[1];
    t.stride = a->w_stride;
    t.groups = (int)a->w.shape[0];
    t.trans_b = a->trans_w != 0;
    t.accumulate = a->accumulate != 0;
    t.out_f32 = a->y.dtype == AP_F32;
    if (a->x.dtype != AP_F32 && a->x.dtype != AP_BF16)
        return AP_ERR_UNSUPPORTED;
    if (t.m * t.n == 0 || t.groups == 0)
        return AP_OK;
    return a->x.dtype == AP_F32 ? cu_tile_f32(s, &t) : cu_tile_bf16(s, &t);
}

ap_status cu_grouped_wgrad(struct cu_stream *s, const struct ap_grouped_wgrad_args *a)
{
    cu_tile_args t = {};
    t.a = a->dy.data;
    t.b = a->x.data;
    t.c = a->dw.data;
    t.offsets = (const int32_t *)a->offsets.data;
    t.m = a->dw.shape[1];
    t.n = a->dw.shape[2];
    t.k = a->x.shape[0];
    t.stride = a->w_stride;
    t.groups = (int)a->dw.shape[0];
    t.trans_a = 1;
    t.accumulate = a->accumulate != 0;
    t.out_f32 = a->dw.dtype == AP_F32;
    if (a->x.dtype != AP_F32 && a->x.dtype != AP_BF16)
        return AP_ERR_UNSUPPORTED;
    if (t.m * t.n == 0 || t.groups == 0 || (t.k == 0 && t.accumulate))
        return AP_OK;
    return a->x.dtype == AP_F32 ? cu_tile_f32(s, &t) : cu_tile_bf16(s, &t);
}
