/* SPDX-License-Identifier: Apache-2.0
 * Template: moving token rows to their experts and back. */

ap_status REF(moe_dispatch_fwd)(const struct ap_moe_dispatch_fwd_args *a)
{
    int64_t rows = a->xs.shape[0], h = a->x.shape[1];
    const int32_t *token_of = a->token_of.data;
    AP_TRY(ap_check_ids("moe_dispatch_fwd", token_of, rows, 0, a->x.shape[0]));
    for (int64_t i = 0; i < rows; i++) {
        const REAL *x = (const REAL *)a->x.data + token_of[i] * h;
        for (int64_t j = 0; j < h; j++)
            ((REAL *)a->xs.data)[i * h + j] = x[j];
    }
    return AP_OK;
}

ap_status REF(moe_dispatch_bwd)(const struct ap_moe_dispatch_bwd_args *a)
{
    int64_t rows = a->dx.shape[0], h = a->dx.shape[1], chosen = a->row_of.shape[1];
    const REAL *dxs = a->dxs.data;
    const int32_t *row_of = a->row_of.data;
    AP_TRY(ap_check_ids("moe_dispatch_bwd", row_of, rows * chosen, 0, a->dxs.shape[0]));
    for (int64_t t = 0; t < rows; t++) {
        REAL *dx = (REAL *)a->dx.data + t * h;
        for (int64_t j = 0; j < h; j++) {
            double sum = GET(dx[j]);
            for (int64_t k = 0; k < chosen; k++)
                sum += GET(dxs[row_of[t * chosen + k] * h + j]);
            dx[j] = PUT(sum);
        }
    }
    return AP_OK;
}

ap_status REF(moe_combine_fwd)(const struct ap_moe_combine_fwd_args *a)
{
    int64_t rows = a->out.shape[0], h = a->out.shape[1], chosen = a->row_of.shape[1];
    const REAL *ys = a->ys.data;
    const STAT *gates = a->gates.data;
    const int32_t *row_of = a->row_of.data;
    AP_TRY(ap_check_ids("moe_combine_fwd", row_of, rows * chosen, 0, a->ys.shape[0]));
    for (int64_t t = 0; t < rows; t++) {
        REAL *out = (REAL *)a->out.data + t * h;
        for (int64_t j = 0; j < h; j++) {
            double sum = GET(out[j]);
            for (int64_t k = 0; k < chosen; k++)
                sum += (double)gates[t * chosen + k] * GET(ys[row_of[t * chosen + k] * h + j]);
            out[j] = PUT(sum);
        }
    }
    return AP_OK;
}

ap_status REF(moe_combine_bwd)(const struct ap_moe_combine_bwd_args *a)
{
    int64_t rows = a->dout.shape[0], h = a->dout.shape[1], chosen = a->row_of.shape[1];
    const STAT *gates = a->gates.data;
    const int32_t *row_of = a->row_of.data;
    STAT *dgates = a->dgates.data;
    AP_TRY(ap_check_ids("moe_combine_bwd", row_of, rows * chosen, 0, a->ys.shape[0]));
    for (int64_t i = 0; i < rows * chosen; i++) {
        const REAL *dout = (const REAL *)a->dout.data + i / chosen * h;
        const REAL *ys = (const REAL *)a->ys.data + row_of[i] * h;
        REAL *dys = (REAL *)a->dys.data + row_of[i] * h;
        double sum = 0;
        for (int64_t j = 0; j < h; j++) {
            sum += GET(dout[j]) * GET(ys[j]);
            dys[j] = PUT((double)gates[i] * GET(dout[j]));
        }
        dgates[i] = (STAT)sum;
    }
    return AP_OK;
}
