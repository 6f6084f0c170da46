/* SPDX-License-Identifier: Apache-2.0
 * Template: what is f32 in bf16 calls too: attention softmax, AdamW, casts, fixed-tree sums. */

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

static void K(adamw)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_adamw_args *a = args;
    const float *w = a->w.data, *g = a->g.data, *m = a->m.data, *v = a->v.data;
    float *w_new = a->w_new.data, *m_new = a->m_new.data, *v_new = a->v_new.data;
    uint16_t *w_bf16 = a->w_bf16.data;
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
        if (left >= VL && valigned(m_new + i) && valigned(v_new + i) && valigned(w_new + i)) {
            vst_stream(m_new + i, m1);
            vst_stream(v_new + i, v1);
            vst_stream(w_new + i, w1);
        } else {
            vst(m_new + i, m1, left);
            vst(v_new + i, v1, left);
            vst(w_new + i, w1, left);
        }
        if (w_bf16)
            vst(w_bf16 + i, w1, left);
    }
    vstream_end();
}

/* f32 to bf16 or back; other pairs go to the reference. */
static void K(cast)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_cast_args *a = args;
    for (int64_t i = begin; i < end; i += VL) {
        if (a->src.dtype == AP_F32)
            vst((uint16_t *)a->dst.data + i, vld((const float *)a->src.data + i, end - i), end - i);
        else
            vst((float *)a->dst.data + i, vld((const uint16_t *)a->src.data + i, end - i), end - i);
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
