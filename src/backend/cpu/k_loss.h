/* SPDX-License-Identifier: Apache-2.0
 * Template: cross-entropy, row products and vector operations for one ELEM. */

/* Largest of x[0..n). */
static inline float K(row_top)(const ELEM *x, int64_t n)
{
    vf top = vset(-INFINITY);
    int64_t j = 0;
    for (; j + VL <= n; j += VL)
        top = vmax(vld(x + j, VL), top);
    float best = vtop(top);
    for (; j < n; j++)
        best = one(x[j]) > best ? one(x[j]) : best;
    return best;
}

/* y = exp(scale x - shift); returns the sum. y may be x or NULL. */
static inline float K(row_exp)(const ELEM *x, float *y, int64_t n, float scale, float shift)
{
    vf sum = {0};
    float tail = 0;
    int64_t j = 0;
    for (; j + VL <= n; j += VL) {
        vf e = vexp(vld(x + j, VL) * scale - shift);
        sum += e;
        if (y)
            *(vf *)(y + j) = e;
    }
    if (j < n) {
        vf e = vexp(vld(x + j, n - j) * scale - shift);
        for (int64_t i = 0; i < n - j; i++)
            tail += e[i];
        if (y)
            vst(y + j, e, n - j);
    }
    return vsum(sum) + tail;
}

/* Gradient of one row from its logits, which may stand in the same memory. target -1: not in this row. */
static inline void K(row_softmax)(const ELEM *x, ELEM *d, int64_t n, float top, float factor, int64_t target,
                                  float weight)
{
    vf at = {0};
    if (target >= 0)
        at = vexp(vset(one(x[target]) - top)) * factor - weight;
    for (int64_t j = 0; j < n; j += VL)
        vst(d + j, vexp(vld(x + j, n - j) - top) * factor, n - j);
    if (target >= 0)
        put(d + target, at[0]);
}

/* The same where d may hold what row_exp left. In f32 that is exp(x - top); in bf16 it would be rounded, so it is
 * computed again. */
static inline void K(row_gradient)(const ELEM *x, ELEM *d, int64_t n, float top, float factor, int64_t target,
                                   float weight)
{
#if ELEM_F32
    (void)x;
    (void)top;
    for (int64_t j = 0; j < n; j += VL)
        vst(d + j, vld(d + j, n - j) * factor, n - j);
    d[target] -= weight;
#else
    K(row_softmax)(x, d, n, top, factor, target, weight);
#endif
}

static void K(cross_entropy)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_cross_entropy_args *a = args;
    int64_t vocab = a->logits.shape[1];
    const int32_t *targets = a->targets.data;
    for (int64_t i = begin; i < end; i++) {
        const ELEM *x = (const ELEM *)a->logits.data + i * vocab;
        ELEM *d = a->dlogits.data ? (ELEM *)a->dlogits.data + i * vocab : NULL;
        if (targets[i] < 0) {
            ((float *)a->loss.data)[i] = 0;
            if (d)
                memset(d, 0, (size_t)vocab * sizeof(ELEM));
            continue;
        }
        float top = K(row_top)(x, vocab), at = one(x[targets[i]]);
        float sum = K(row_exp)(x, ELEM_F32 ? (float *)d : NULL, vocab, 1.0f, top), factor = (float)a->weight / sum;
        ((float *)a->loss.data)[i] = (float)(log((double)sum) - ((double)at - (double)top));
        if (d)
            K(row_gradient)(x, d, vocab, top, factor, targets[i], (float)a->weight);
    }
}

static void K(cross_entropy_part)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_cross_entropy_part_args *a = args;
    int64_t cols = a->logits.shape[1];
    const int32_t *targets = a->targets.data;
    for (int64_t i = begin; i < end; i++) {
        const ELEM *x = (const ELEM *)a->logits.data + i * cols;
        float *part = (float *)a->part.data + i * 3, top = K(row_top)(x, cols);
        /* Nothing above -inf: NaN must stay NaN, and -inf count nothing. */
        float shift = top > -INFINITY ? top : 0;
        part[0] = top;
        part[1] = K(row_exp)(x, NULL, cols, 1.0f, shift);
        part[2] = targets[i] < 0 ? 0 : one(x[targets[i]]);
    }
}

static void K(cross_entropy_join)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_cross_entropy_join_args *a = args;
    int64_t rows = a->logits.shape[0], cols = a->logits.shape[1], parts = a->parts.shape[0];
    const int32_t *targets = a->local_targets.data, *has = a->has_target.data;
    for (int64_t i = begin; i < end; i++) {
        const ELEM *x = (const ELEM *)a->logits.data + i * cols;
        ELEM *d = a->dlogits.data ? (ELEM *)a->dlogits.data + i * cols : NULL;
        const float *part = (const float *)a->parts.data + i * 3;
        if (has[i] < 0) {
            ((float *)a->loss.data)[i] = 0;
            if (d)
                memset(d, 0, (size_t)cols * sizeof(ELEM));
            continue;
        }
        float top = -INFINITY;
        double sum = 0, at = 0;
        for (int64_t p = 0; p < parts; p++)
            top = part[p * rows * 3] > top ? part[p * rows * 3] : top;
        for (int64_t p = 0; p < parts; p++) {
            sum += (double)part[p * rows * 3 + 1] * exp((double)part[p * rows * 3] - (double)top);
            at += (double)part[p * rows * 3 + 2];
        }
        ((float *)a->loss.data)[i] = (float)(log(sum) - (at - (double)top));
        if (d)
            K(row_softmax)(x, d, cols, top, (float)a->weight / (float)sum, targets[i], (float)a->weight);
    }
}

static void K(dot_rows)(const void *a, const void *b, int64_t ld, int64_t rows, int64_t cols, float *out)
{
    const ELEM *x = a, *y = b;
    for (int64_t i = 0; i < rows; i++)
        out[i] = K(row_dot)(x + i * ld, y + i * ld, cols);
}

static void K(add)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_add_args *a = args;
    const ELEM *x = a->a.data, *y = a->b.data;
    ELEM *z = a->c.data;
    for (int64_t i = begin; i < end; i += VL)
        vst(z + i, vld(x + i, end - i) + vld(y + i, end - i), end - i);
}

static void K(scale)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_scale_args *a = args;
    ELEM *x = a->x.data;
    float factor = (float)a->factor;
    for (int64_t i = begin; i < end; i += VL)
        vst(x + i, vld(x + i, end - i) * factor, end - i);
}
