/* SPDX-License-Identifier: Apache-2.0
 * Template: f32 cross-entropy, attention softmax, fixed-tree sums, vector operations, AdamW. */

/* Largest of x[0..n). */
static inline float K(row_top)(const float *x, int64_t n)
{
    vf top = vset(-INFINITY);
    int64_t j = 0;
    for (; j + VL <= n; j += VL)
        top = vmax(*(const vf *)(x + j), top);
    float best = vtop(top);
    for (; j < n; j++)
        best = x[j] > best ? x[j] : best;
    return best;
}

/* y = exp(scale x - shift); returns the sum. y may be x or NULL. */
static inline float K(row_exp)(const float *x, float *y, int64_t n, float scale, float shift)
{
    vf sum = {0};
    float tail = 0;
    int64_t j = 0;
    for (; j + VL <= n; j += VL) {
        vf e = vexp(*(const vf *)(x + j) * scale - shift);
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

static void K(cross_entropy)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_cross_entropy_args *a = args;
    int64_t vocab = a->logits.shape[1];
    const int32_t *targets = a->targets.data;
    for (int64_t i = begin; i < end; i++) {
        const float *x = (const float *)a->logits.data + i * vocab;
        float *d = a->dlogits.data ? (float *)a->dlogits.data + i * vocab : NULL;
        if (targets[i] < 0) {
            ((float *)a->loss.data)[i] = 0;
            if (d)
                memset(d, 0, (size_t)vocab * sizeof(float));
            continue;
        }
        float top = K(row_top)(x, vocab), at = x[targets[i]];
        float sum = K(row_exp)(x, d, vocab, 1.0f, top), factor = (float)a->weight / sum;
        ((float *)a->loss.data)[i] = (float)(log((double)sum) - ((double)at - (double)top));
        if (!d)
            continue;
        for (int64_t j = 0; j < vocab; j += VL)
            vst(d + j, vld(d + j, vocab - j) * factor, vocab - j);
        d[targets[i]] -= (float)a->weight;
    }
}

static void K(softmax_fwd)(const struct ap_softmax_block *b, float *sum, float *lse, int64_t lse_step)
{
    for (int64_t i = 0; i < b->rows; i++) {
        float *s = b->s + i * b->lds;
        int64_t from = b->first[i] - b->key0, to = b->t0 + i - b->key0 + 1;
        float top = K(row_top)(s + from, to - from) * b->scale;
        memset(s, 0, (size_t)from * sizeof(float));
        sum[i] = K(row_exp)(s + from, s + from, to - from, b->scale, top);
        memset(s + to, 0, (size_t)(b->cols - to) * sizeof(float));
        lse[i * lse_step] = (float)((double)top + log((double)sum[i]));
    }
}

static void K(softmax_bwd)(const struct ap_softmax_block *b, float *dp, const float *lse, int64_t lse_step,
                           const float *delta)
{
    for (int64_t i = 0; i < b->rows; i++) {
        float *s = b->s + i * b->lds, *d = dp + i * b->lds, shift = lse[i * lse_step];
        int64_t from = b->first[i] - b->key0, to = b->t0 + i - b->key0 + 1;
        memset(s, 0, (size_t)from * sizeof(float));
        memset(d, 0, (size_t)from * sizeof(float));
        for (int64_t j = from; j < to; j += VL) {
            vf p = vexp(vld(s + j, to - j) * b->scale - shift);
            vst(s + j, p, to - j);
            vst(d + j, p * (vld(d + j, to - j) - delta[i]) * b->scale, to - j);
        }
        memset(s + to, 0, (size_t)(b->cols - to) * sizeof(float));
        memset(d + to, 0, (size_t)(b->cols - to) * sizeof(float));
    }
}

static void K(divide_rows)(float *x, int64_t ld, int64_t rows, int64_t cols, const float *by)
{
    for (int64_t i = 0; i < rows; i++) {
        float *row = x + i * ld, factor = 1.0f / by[i];
        for (int64_t j = 0; j < cols; j += VL)
            vst(row + j, vld(row + j, cols - j) * factor, cols - j);
    }
}

static void K(dot_rows)(const float *x, const float *y, int64_t ld, int64_t rows, int64_t cols, float *out)
{
    for (int64_t i = 0; i < rows; i++)
        out[i] = row_dot(x + i * ld, y + i * ld, cols);
}

static void K(add)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_add_args *a = args;
    const float *x = a->a.data, *y = a->b.data;
    float *z = a->c.data;
    for (int64_t i = begin; i < end; i += VL)
        vst(z + i, vld(x + i, end - i) + vld(y + i, end - i), end - i);
}

static void K(scale)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_scale_args *a = args;
    float *x = a->x.data, factor = (float)a->factor;
    for (int64_t i = begin; i < end; i += VL)
        vst(x + i, vld(x + i, end - i) * factor, end - i);
}

static void K(adamw)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_adamw_args *a = args;
    const float *w = a->w.data, *g = a->g.data, *m = a->m.data, *v = a->v.data;
    float *w_new = a->w_new.data, *m_new = a->m_new.data, *v_new = a->v_new.data;
    double m_bias = 1.0 - pow(a->beta1, (double)a->step), v_bias = 1.0 - pow(a->beta2, (double)a->step);
    float b1 = (float)a->beta1, b2 = (float)a->beta2, c1 = (float)(1.0 - a->beta1), c2 = (float)(1.0 - a->beta2);
    float keep = (float)(1.0 - a->lr * a->weight_decay), rate = (float)(a->lr / m_bias), scale = (float)a->grad_scale;
    float v_unbias = (float)(1.0 / v_bias), eps = (float)a->eps;
    for (int64_t i = begin; i < end; i += VL) {
        int64_t left = end - i;
        vf grad = vld(g + i, left) * scale;
        vf m1 = vld(m + i, left) * b1 + grad * c1;
        vf v1 = vld(v + i, left) * b2 + grad * grad * c2;
        vf w1 = vld(w + i, left) * keep - m1 * rate / (vsqrt(v1 * v_unbias) + eps);
        vst(m_new + i, m1, left);
        vst(v_new + i, v1, left);
        vst(w_new + i, w1, left);
    }
}

/* The tree of pairwise.h with its 8 partial sums as one vector of doubles. */
typedef float vf8 __attribute__((vector_size(32), aligned(4), may_alias));

#define DEFINE_TREE(name, TERM)                                                                                        \
    static double name(const float *x, int64_t n)                                                                      \
    {                                                                                                                  \
        if (n > AP_PAIRWISE_BLOCK) {                                                                                   \
            int64_t left = ap_pairwise_left(n);                                                                        \
            return name(x, left) + name(x + left, n - left);                                                           \
        }                                                                                                              \
        vd8 sum = {0};                                                                                                 \
        double p[8];                                                                                                   \
        int64_t i = 0;                                                                                                 \
        for (; i + 8 <= n; i += 8) {                                                                                   \
            vd8 t = __builtin_convertvector(*(const vf8 *)(x + i), vd8);                                               \
            sum += TERM(t);                                                                                            \
        }                                                                                                              \
        memcpy(p, &sum, sizeof(p));                                                                                    \
        for (int j = 0; i + j < n; j++)                                                                                \
            p[j] += TERM((double)x[i + j]);                                                                            \
        return ap_pairwise_join8(p);                                                                                   \
    }
DEFINE_TREE(K(tree_sum), AP_TERM_PLAIN)
DEFINE_TREE(K(tree_sumsq), AP_TERM_SQUARE)
