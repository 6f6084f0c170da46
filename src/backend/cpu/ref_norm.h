/* SPDX-License-Identifier: Apache-2.0
 * Template: embedding, RMSNorm, rotary embedding, SwiGLU, column copies. */

ap_status REF(embed_fwd)(const struct ap_embed_fwd_args *a)
{
    int64_t rows = a->out.shape[0], h = a->out.shape[1];
    const REAL *table = a->table.data;
    const int32_t *ids = a->ids.data;
    REAL *out = a->out.data;
    AP_TRY(ap_check_ids("embed_fwd", ids, rows, -1, a->table.shape[0]));
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < h; j++)
            out[i * h + j] = ids[i] < 0 ? PUT(0.0) : table[ids[i] * h + j];
    }
    return AP_OK;
}

ap_status REF(embed_bwd)(const struct ap_embed_bwd_args *a)
{
    int64_t rows = a->dout.shape[0], h = a->dout.shape[1];
    const REAL *dout = a->dout.data;
    const int32_t *ids = a->ids.data;
    AP_TRY(ap_check_ids("embed_bwd", ids, rows, -1, a->dtable.shape[0]));
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; ids[i] >= 0 && j < h; j++)
            REF(grad_add)(&a->dtable, ids[i] * h + j, GET(dout[i * h + j]));
    }
    return AP_OK;
}

ap_status REF(rmsnorm_fwd)(const struct ap_rmsnorm_fwd_args *a)
{
    int64_t rows = a->x.shape[0], d = a->x.shape[1], stride = a->x_stride ? a->x_stride : d;
    const REAL *w = a->w.data;
    STAT *rstd = a->rstd.data;
    for (int64_t i = 0; i < rows; i++) {
        const REAL *x = (const REAL *)a->x.data + i * stride;
        REAL *y = (REAL *)a->y.data + i * d;
        double sum = 0;
        for (int64_t j = 0; j < d; j++)
            sum += GET(x[j]) * GET(x[j]);
        double r = 1.0 / sqrt(sum / (double)d + a->eps);
        for (int64_t j = 0; j < d; j++)
            y[j] = PUT(GET(x[j]) * r * GET(w[j]));
        if (rstd)
            rstd[i] = (STAT)r;
    }
    return AP_OK;
}

/* With u = x rstd and g = dy w: dx = rstd (g - u mean(g u)), dw = sum over rows of dy u. */
ap_status REF(rmsnorm_bwd)(const struct ap_rmsnorm_bwd_args *a)
{
    int64_t rows = a->x.shape[0], d = a->x.shape[1];
    int64_t xs = a->x_stride ? a->x_stride : d, dxs = a->dx_stride ? a->dx_stride : d;
    const REAL *w = a->w.data, *x = a->x.data, *dy = a->dy.data;
    const STAT *rstd = a->rstd.data;
    for (int64_t i = 0; i < rows; i++) {
        REAL *dx = (REAL *)a->dx.data + i * dxs;
        double r = (double)rstd[i], mean = 0;
        for (int64_t j = 0; j < d; j++)
            mean += GET(dy[i * d + j]) * GET(w[j]) * GET(x[i * xs + j]) * r;
        mean /= (double)d;
        for (int64_t j = 0; j < d; j++) {
            double u = GET(x[i * xs + j]) * r;
            double v = r * (GET(dy[i * d + j]) * GET(w[j]) - u * mean);
            dx[j] = PUT(a->accumulate ? GET(dx[j]) + v : v);
        }
    }
    for (int64_t j = 0; a->dw.data && j < d; j++) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++)
            sum += GET(dy[i * d + j]) * GET(x[i * xs + j]) * (double)rstd[i];
        REF(grad_add)(&a->dw, j, sum);
    }
    return AP_OK;
}

ap_status REF(rope)(const struct ap_rope_args *a)
{
    int64_t rows = a->x.shape[0], heads = a->x.shape[1], width = a->x.shape[2], half = a->r / 2;
    int64_t stride = a->x_stride ? a->x_stride : heads * width;
    const STAT *cos_table = a->cos.data, *sin_table = a->sin.data;
    const int32_t *positions = a->positions.data;
    AP_TRY(ap_check_ids("rope", positions, rows, 0, a->cos.shape[0]));
    for (int64_t i = 0; i < rows; i++) {
        const STAT *cs = cos_table + positions[i] * half, *sn = sin_table + positions[i] * half;
        for (int64_t head = 0; head < heads; head++) {
            REAL *x = (REAL *)a->x.data + i * stride + head * width + (width - a->r);
            for (int64_t j = 0; j < half; j++) {
                double c = (double)cs[j], s = a->inverse ? -(double)sn[j] : (double)sn[j];
                double even = GET(x[2 * j]), odd = GET(x[2 * j + 1]);
                x[2 * j] = PUT(even * c - odd * s);
                x[2 * j + 1] = PUT(even * s + odd * c);
            }
        }
    }
    return AP_OK;
}

ap_status REF(swiglu_fwd)(const struct ap_swiglu_fwd_args *a)
{
    int64_t rows = a->y.shape[0], width = a->y.shape[1];
    for (int64_t i = 0; i < rows; i++) {
        const REAL *gate = (const REAL *)a->gate_up.data + i * 2 * width, *up = gate + width;
        REAL *y = (REAL *)a->y.data + i * width;
        for (int64_t j = 0; j < width; j++)
            y[j] = PUT(GET(gate[j]) / (1.0 + exp(-GET(gate[j]))) * GET(up[j]));
    }
    return AP_OK;
}

ap_status REF(swiglu_bwd)(const struct ap_swiglu_bwd_args *a)
{
    int64_t rows = a->dy.shape[0], width = a->dy.shape[1];
    for (int64_t i = 0; i < rows; i++) {
        const REAL *gate = (const REAL *)a->gate_up.data + i * 2 * width, *up = gate + width;
        const REAL *dy = (const REAL *)a->dy.data + i * width;
        REAL *dgate = (REAL *)a->dgate_up.data + i * 2 * width, *dup = dgate + width;
        for (int64_t j = 0; j < width; j++) {
            double g = GET(gate[j]), sig = 1.0 / (1.0 + exp(-g));
            dgate[j] = PUT(GET(dy[j]) * GET(up[j]) * sig * (1.0 + g * (1.0 - sig)));
            dup[j] = PUT(GET(dy[j]) * g * sig);
        }
    }
    return AP_OK;
}

ap_status REF(split_cols)(const struct ap_split_cols_args *a)
{
    int64_t rows = a->src.shape[0], src_width = a->src.shape[1], dst_width = a->dst.shape[1];
    for (int64_t i = 0; i < rows; i++) {
        const REAL *src = (const REAL *)a->src.data + i * src_width + a->src_col;
        REAL *dst = (REAL *)a->dst.data + i * dst_width + a->dst_col;
        for (int64_t j = 0; j < a->cols; j++)
            dst[j] = a->accumulate ? PUT(GET(dst[j]) + GET(src[j])) : src[j];
    }
    return AP_OK;
}
