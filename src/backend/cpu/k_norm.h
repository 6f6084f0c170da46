/* SPDX-License-Identifier: Apache-2.0
 * Template: embedding, RMSNorm, rotary embedding, SwiGLU, column copies, for one ELEM. */

/* Sum of a[j] b[j]. Two partial sums hide the latency. */
static inline float K(row_dot)(const ELEM *a, const ELEM *b, int64_t n)
{
    vf s0 = {0}, s1 = {0};
    int64_t j = 0;
    for (; j + 2 * VL <= n; j += 2 * VL) {
        s0 += vld(a + j, VL) * vld(b + j, VL);
        s1 += vld(a + j + VL, VL) * vld(b + j + VL, VL);
    }
    for (; j < n; j += VL)
        s0 += vld(a + j, n - j) * vld(b + j, n - j);
    return vsum(s0 + s1);
}

static void K(embed_fwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_embed_fwd_args *a = args;
    int64_t h = a->out.shape[1];
    const int32_t *ids = a->ids.data;
    for (int64_t i = begin; i < end; i++) {
        if (ids[i] < 0)
            memset((ELEM *)a->out.data + i * h, 0, (size_t)h * sizeof(ELEM));
        else
            memcpy((ELEM *)a->out.data + i * h, (const ELEM *)a->table.data + ids[i] * h, (size_t)h * sizeof(ELEM));
    }
}

static void K(embed_bwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_embed_bwd_args *a = args;
    int64_t rows = a->dout.shape[0], h = a->dout.shape[1];
    const int32_t *ids = a->ids.data;
    for (int64_t i = 0; i < rows; i++) {
        if (ids[i] < 0)
            continue;
        const ELEM *from = (const ELEM *)a->dout.data + i * h;
        float *to = (float *)a->dtable.data + ids[i] * h;
        for (int64_t j = begin; j < end; j += VL)
            vst(to + j, vld(to + j, end - j) + vld(from + j, end - j), end - j);
    }
}

static void K(rmsnorm_fwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_rmsnorm_fwd_args *a = args;
    int64_t d = a->x.shape[1], stride = a->x_stride ? a->x_stride : d;
    const ELEM *w = a->w.data;
    float *rstd = a->rstd.data;
    for (int64_t i = begin; i < end; i++) {
        const ELEM *x = (const ELEM *)a->x.data + i * stride;
        ELEM *y = (ELEM *)a->y.data + i * d;
        float r = (float)(1.0 / sqrt((double)K(row_dot)(x, x, d) / (double)d + a->eps));
        for (int64_t j = 0; j < d; j += VL)
            vst(y + j, vld(x + j, d - j) * r * vld(w + j, d - j), d - j);
        if (rstd)
            rstd[i] = r;
    }
}

/* dx of one row; see ref_norm.h for the formula. */
static inline void K(norm_row_bwd)(const ELEM *dy, const ELEM *x, const ELEM *w, float r, ELEM *dx, int64_t d,
                                   int accumulate)
{
    vf sum = {0};
    for (int64_t j = 0; j < d; j += VL)
        sum += vld(dy + j, d - j) * vld(w + j, d - j) * vld(x + j, d - j);
    float mean = vsum(sum) * r / (float)d;
    for (int64_t j = 0; j < d; j += VL) {
        vf g = vld(dy + j, d - j) * vld(w + j, d - j);
        vf v = (g - vld(x + j, d - j) * (r * mean)) * r;
        if (accumulate)
            v += vld(dx + j, d - j);
        vst(dx + j, v, d - j);
    }
}

static void K(rmsnorm_bwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_norm_bwd *b = args;
    const struct ap_rmsnorm_bwd_args *a = b->a;
    int64_t rows = a->x.shape[0], d = a->x.shape[1];
    int64_t xs = a->x_stride ? a->x_stride : d, dxs = a->dx_stride ? a->dx_stride : d;
    const float *rstd = a->rstd.data;
    for (int64_t block = begin; block < end; block++) {
        float *partial = b->partial ? b->partial + block * d : NULL;
        if (partial)
            memset(partial, 0, (size_t)d * sizeof(float));
        for (int64_t i = block * AP_NORM_ROWS; i < kmin(rows, (block + 1) * AP_NORM_ROWS); i++) {
            const ELEM *dy = (const ELEM *)a->dy.data + i * d, *x = (const ELEM *)a->x.data + i * xs;
            /* dw first: with accumulate, dx may be what x was computed from, never x itself. */
            for (int64_t j = 0; partial && j < d; j += VL)
                vst(partial + j, vld(partial + j, d - j) + vld(dy + j, d - j) * (vld(x + j, d - j) * rstd[i]), d - j);
            K(norm_row_bwd)(dy, x, a->w.data, rstd[i], (ELEM *)a->dx.data + i * dxs, d, a->accumulate);
        }
    }
}

static void K(rmsnorm_dw)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_norm_bwd *b = args;
    int64_t d = b->a->x.shape[1], blocks = (b->a->x.shape[0] + AP_NORM_ROWS - 1) / AP_NORM_ROWS;
    float *dw = b->a->dw.data;
    for (int64_t j = begin; j < end; j += VL) {
        vf sum = {0};
        for (int64_t i = 0; i < blocks; i++)
            sum += vld(b->partial + i * d + j, end - j);
        vst(dw + j, vld(dw + j, end - j) + sum, end - j);
    }
}

/* Turn `count` values (pairs) by the doubled tables: y = x c + swap(x) s with s = -sin, +sin, ... */
static inline void K(rope_row)(ELEM *x, const float *c, const float *s, int64_t count)
{
    int64_t j = 0;
    for (; j + VL <= count; j += VL) {
        vf v = vld(x + j, VL), swapped;
#if VL == 16
        swapped = __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif VL == 8
        swapped = __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
#else
        swapped = __builtin_shufflevector(v, v, 1, 0, 3, 2);
#endif
        vst(x + j, v * *(const vf *)(c + j) + swapped * *(const vf *)(s + j), VL);
    }
    for (; j < count; j += 2) {
        float even = one(x[j]), odd = one(x[j + 1]);
        put(x + j, even * c[j] + odd * s[j]);
        put(x + j + 1, odd * c[j + 1] + even * s[j + 1]);
    }
}

#define ROPE_CHUNK 128

static void K(rope)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_rope_args *a = args;
    int64_t heads = a->x.shape[1], width = a->x.shape[2], r = a->r;
    int64_t stride = a->x_stride ? a->x_stride : heads * width;
    const int32_t *positions = a->positions.data;
    float c[ROPE_CHUNK], s[ROPE_CHUNK], sign = a->inverse ? -1.0f : 1.0f;
    for (int64_t i = begin; i < end; i++) {
        const float *cs = (const float *)a->cos.data + positions[i] * (r / 2);
        const float *sn = (const float *)a->sin.data + positions[i] * (r / 2);
        for (int64_t at = 0; at < r; at += ROPE_CHUNK) {
            int64_t count = kmin(ROPE_CHUNK, r - at);
            for (int64_t j = 0; j < count; j += 2) {
                c[j] = c[j + 1] = cs[(at + j) / 2];
                s[j + 1] = sign * sn[(at + j) / 2];
                s[j] = -s[j + 1];
            }
            for (int64_t head = 0; head < heads; head++)
                K(rope_row)((ELEM *)a->x.data + i * stride + head * width + (width - r) + at, c, s, count);
        }
    }
}

static void K(swiglu_fwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_swiglu_fwd_args *a = args;
    int64_t width = a->y.shape[1];
    for (int64_t i = begin; i < end; i++) {
        const ELEM *gate = (const ELEM *)a->gate_up.data + i * 2 * width, *up = gate + width;
        ELEM *y = (ELEM *)a->y.data + i * width;
        for (int64_t j = 0; j < width; j += VL) {
            vf g = vld(gate + j, width - j);
            vst(y + j, g * vsigmoid(g) * vld(up + j, width - j), width - j);
        }
    }
}

static void K(swiglu_bwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_swiglu_bwd_args *a = args;
    int64_t width = a->dy.shape[1];
    for (int64_t i = begin; i < end; i++) {
        const ELEM *gate = (const ELEM *)a->gate_up.data + i * 2 * width, *up = gate + width;
        const ELEM *dy = (const ELEM *)a->dy.data + i * width;
        ELEM *dgate = (ELEM *)a->dgate_up.data + i * 2 * width, *dup = dgate + width;
        for (int64_t j = 0; j < width; j += VL) {
            int64_t left = width - j;
            vf g = vld(gate + j, left), d = vld(dy + j, left), sig = vsigmoid(g);
            vst(dgate + j, d * vld(up + j, left) * sig * (1.0f + g * (1.0f - sig)), left);
            vst(dup + j, d * (g * sig), left);
        }
    }
}

static void K(split_cols)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_split_cols_args *a = args;
    for (int64_t i = begin; i < end; i++) {
        const ELEM *src = (const ELEM *)a->src.data + i * a->src.shape[1] + a->src_col;
        ELEM *dst = (ELEM *)a->dst.data + i * a->dst.shape[1] + a->dst_col;
        if (!a->accumulate) {
            memcpy(dst, src, (size_t)a->cols * sizeof(ELEM));
            continue;
        }
        for (int64_t j = 0; j < a->cols; j += VL)
            vst(dst + j, vld(dst + j, a->cols - j) + vld(src + j, a->cols - j), a->cols - j);
    }
}
