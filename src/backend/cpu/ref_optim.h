/* SPDX-License-Identifier: Apache-2.0
 * Template: elementwise vector operations and AdamW. */

ap_status REF(add)(const struct ap_add_args *a)
{
    const REAL *x = a->a.data, *y = a->b.data;
    REAL *z = a->c.data;
    int64_t n = ap_tensor_count(&a->a);
    for (int64_t i = 0; i < n; i++)
        z[i] = PUT(GET(x[i]) + GET(y[i]));
    return AP_OK;
}

ap_status REF(scale)(const struct ap_scale_args *a)
{
    REAL *x = a->x.data;
    int64_t n = ap_tensor_count(&a->x);
    for (int64_t i = 0; i < n; i++)
        x[i] = PUT(GET(x[i]) * a->factor);
    return AP_OK;
}

#if REF_STAT_OPS
ap_status REF(adamw)(const struct ap_adamw_args *a)
{
    if (a->segments) {
        for (int64_t i = 0; i < a->segment_count; i++) {
            struct ap_adamw_args part = ap_adamw_segment_args(a, i);
            AP_TRY(REF(adamw)(&part));
        }
        return AP_OK;
    }
    int64_t count = ap_tensor_count(&a->w);
    const REAL *w = a->w.data, *g = a->g.data, *m = a->m.data, *v = a->v.data;
    REAL *w_new = a->w_new.data, *m_new = a->m_new.data, *v_new = a->v_new.data;
    uint16_t *w_bf16 = a->w_bf16.data;
    double m_bias = 1.0 - pow(a->beta1, (double)a->step), v_bias = 1.0 - pow(a->beta2, (double)a->step);
    for (int64_t i = 0; i < count; i++) {
        double grad = a->grad_scale * GET(g[i]);
        double m1 = a->beta1 * GET(m[i]) + (1.0 - a->beta1) * grad;
        double v1 = a->beta2 * GET(v[i]) + (1.0 - a->beta2) * grad * grad;
        double step = a->lr * (m1 / m_bias) / (sqrt(v1 / v_bias) + a->eps);
        REAL w1 = PUT(GET(w[i]) * (1.0 - a->lr * a->weight_decay) - step);
        w_new[i] = w1;
        m_new[i] = PUT(m1);
        v_new[i] = PUT(v1);
        if (w_bf16)
            w_bf16[i] = ap_bf16_from_f32((float)w1);
    }
    return AP_OK;
}
#endif
