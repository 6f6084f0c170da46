/* SPDX-License-Identifier: Apache-2.0
 * Template: moving token rows to their experts and back, for one ELEM. */

static void K(moe_dispatch_fwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_moe_dispatch_fwd_args *a = args;
    int64_t h = a->x.shape[1];
    const int32_t *token_of = a->token_of.data;
    for (int64_t i = begin; i < end; i++)
        memcpy((ELEM *)a->xs.data + i * h, (const ELEM *)a->x.data + token_of[i] * h, (size_t)h * sizeof(ELEM));
}

static void K(moe_dispatch_bwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_moe_dispatch_bwd_args *a = args;
    int64_t h = a->dx.shape[1], chosen = a->row_of.shape[1];
    for (int64_t t = begin; t < end; t++) {
        const int32_t *rows = (const int32_t *)a->row_of.data + t * chosen;
        ELEM *dx = (ELEM *)a->dx.data + t * h;
        for (int64_t j = 0; j < h; j += VL) {
            vf sum = vld(dx + j, h - j);
            for (int64_t k = 0; k < chosen; k++)
                sum += vld((const ELEM *)a->dxs.data + rows[k] * h + j, h - j);
            vst(dx + j, sum, h - j);
        }
    }
}

static void K(moe_combine_fwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_moe_combine_fwd_args *a = args;
    int64_t h = a->out.shape[1], chosen = a->row_of.shape[1];
    for (int64_t t = begin; t < end; t++) {
        const int32_t *rows = (const int32_t *)a->row_of.data + t * chosen;
        const float *gates = (const float *)a->gates.data + t * chosen;
        ELEM *out = (ELEM *)a->out.data + t * h;
        for (int64_t j = 0; j < h; j += VL) {
            vf sum = vld(out + j, h - j);
            for (int64_t k = 0; k < chosen; k++)
                sum += vld((const ELEM *)a->ys.data + rows[k] * h + j, h - j) * gates[k];
            vst(out + j, sum, h - j);
        }
    }
}

static void K(moe_combine_bwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_moe_combine_bwd_args *a = args;
    int64_t h = a->dout.shape[1], chosen = a->row_of.shape[1];
    for (int64_t t = begin; t < end; t++) {
        const ELEM *dout = (const ELEM *)a->dout.data + t * h;
        for (int64_t k = t * chosen; k < (t + 1) * chosen; k++) {
            int64_t row = ((const int32_t *)a->row_of.data)[k];
            float gate = ((const float *)a->gates.data)[k];
            ELEM *dys = (ELEM *)a->dys.data + row * h;
            ((float *)a->dgates.data)[k] = K(row_dot)(dout, (const ELEM *)a->ys.data + row * h, h);
            for (int64_t j = 0; j < h; j += VL)
                vst(dys + j, vld(dout + j, h - j) * gate, h - j);
        }
    }
}
