/* SPDX-License-Identifier: Apache-2.0
 * Template: matrix products. */

/* Element i of a tensor of the type of the call or, in bf16 calls, f32: gradients of parameters and gemm's c. */
static double REF(grad_get)(const ap_tensor *t, int64_t i)
{
    return t->dtype == AP_F32 ? (double)((const float *)t->data)[i] : GET(((const REAL *)t->data)[i]);
}

static void REF(grad_set)(const ap_tensor *t, int64_t i, double x)
{
    if (t->dtype == AP_F32)
        ((float *)t->data)[i] = (float)x;
    else
        ((REAL *)t->data)[i] = PUT(x);
}

static void REF(grad_add)(const ap_tensor *t, int64_t i, double x)
{
    REF(grad_set)(t, i, REF(grad_get)(t, i) + x);
}

/* One dot product of k elements with strides. */
static double REF(dot)(const REAL *x, int64_t x_step, const REAL *y, int64_t y_step, int64_t k)
{
    double sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += GET(x[i * x_step]) * GET(y[i * y_step]);
    return sum;
}

ap_status REF(gemm)(const struct ap_gemm_args *a)
{
    int64_t m = a->c.shape[0], n = a->c.shape[1], k = a->a.shape[a->trans_a ? 0 : 1];
    const REAL *pa = a->a.data, *pb = a->b.data;
    int64_t a_row = a->trans_a ? 1 : k, a_step = a->trans_a ? m : 1;
    int64_t b_col = a->trans_b ? k : 1, b_step = a->trans_b ? 1 : n;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = REF(dot)(pa + i * a_row, a_step, pb + j * b_col, b_step, k);
            if (a->accumulate)
                REF(grad_add)(&a->c, i * n + j, sum);
            else
                REF(grad_set)(&a->c, i * n + j, sum);
        }
    }
    return AP_OK;
}

ap_status REF(grouped_gemm)(const struct ap_grouped_gemm_args *a)
{
    int64_t groups = a->w.shape[0], in = a->x.shape[1], out = a->y.shape[1];
    const REAL *x = a->x.data, *w = a->w.data;
    const int32_t *offsets = a->offsets.data;
    REAL *y = a->y.data;
    AP_TRY(ap_check_offsets(offsets, groups, a->x.shape[0]));
    /* w holds [out, in] matrices of the forward; here `in` and `out` are those of this product. */
    int64_t w_col = a->trans_w ? in : 1, w_step = a->trans_w ? 1 : out;
    for (int64_t e = 0; e < groups; e++) {
        const REAL *we = w + e * a->w_stride;
        for (int64_t i = offsets[e]; i < offsets[e + 1]; i++) {
            for (int64_t j = 0; j < out; j++) {
                double sum = REF(dot)(x + i * in, 1, we + j * w_col, w_step, in);
                y[i * out + j] = PUT(a->accumulate ? GET(y[i * out + j]) + sum : sum);
            }
        }
    }
    return AP_OK;
}

ap_status REF(grouped_wgrad)(const struct ap_grouped_wgrad_args *a)
{
    int64_t groups = a->dw.shape[0], out = a->dw.shape[1], in = a->dw.shape[2];
    const REAL *dy = a->dy.data, *x = a->x.data;
    const int32_t *offsets = a->offsets.data;
    AP_TRY(ap_check_offsets(offsets, groups, a->x.shape[0]));
    for (int64_t e = 0; e < groups; e++) {
        int64_t begin = offsets[e], rows = offsets[e + 1] - begin;
        for (int64_t i = 0; i < out; i++) {
            for (int64_t j = 0; j < in; j++) {
                double sum = REF(dot)(dy + begin * out + i, out, x + begin * in + j, in, rows);
                if (a->accumulate)
                    REF(grad_add)(&a->dw, e * a->w_stride + i * in + j, sum);
                else
                    REF(grad_set)(&a->dw, e * a->w_stride + i * in + j, sum);
            }
        }
    }
    return AP_OK;
}
