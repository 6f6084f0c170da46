/* SPDX-License-Identifier: Apache-2.0
 * Template: causal MLA attention in expanded multi-head form, one query after the other. */

/* Scaled score of query row q [n+r] with the key of one token: k_nope [n] of this head, kr [r] of all heads. */
static double REF(score)(const REAL *q, const REAL *k, const REAL *kr, int64_t n, int64_t r)
{
    double sum = 0;
    for (int64_t j = 0; j < n; j++)
        sum += GET(q[j]) * GET(k[j]);
    for (int64_t j = 0; j < r; j++)
        sum += GET(q[n + j]) * GET(kr[j]);
    return sum;
}

/* One (sequence, head). base = first row of the sequence; p: T doubles of scratch. */
static void REF(attn_head)(const struct ap_mla_attn_fwd_args *a, int64_t base, int64_t len, int64_t head, double *p)
{
    int64_t heads = a->q.shape[1], n = a->n, r = a->r, v = a->v, kr_stride = a->kr_stride ? a->kr_stride : r;
    const REAL *kv = (const REAL *)a->kv.data + (base * heads + head) * (n + v);
    const REAL *kr = (const REAL *)a->kr.data + base * kr_stride;
    const int32_t *first = (const int32_t *)a->first.data + base;
    int64_t kv_step = heads * (n + v);
    for (int64_t t = 0; t < len; t++) {
        int64_t row = (base + t) * heads + head;
        const REAL *q = (const REAL *)a->q.data + row * (n + r);
        REAL *out = (REAL *)a->out.data + row * v;
        double top = -INFINITY, sum = 0;
        for (int64_t s = first[t]; s <= t; s++) {
            p[s] = a->scale * REF(score)(q, kv + s * kv_step, kr + s * kr_stride, n, r);
            top = p[s] > top ? p[s] : top;
        }
        for (int64_t s = first[t]; s <= t; s++) {
            p[s] = exp(p[s] - top);
            sum += p[s];
        }
        for (int64_t j = 0; j < v; j++) {
            double acc = 0;
            for (int64_t s = first[t]; s <= t; s++)
                acc += p[s] * GET(kv[s * kv_step + n + j]);
            out[j] = PUT(acc / sum);
        }
        ((STAT *)a->lse.data)[row] = (STAT)(top + log(sum));
    }
}

ap_status REF(mla_attn_fwd)(const struct ap_mla_attn_fwd_args *a)
{
    int64_t rows = a->q.shape[0], heads = a->q.shape[1];
    if (rows == 0)
        return AP_OK;
    int64_t len = rows / a->seqs;
    AP_TRY(ap_check_first(a->first.data, rows, a->seqs));
    double *p = malloc((size_t)len * sizeof(*p));
    if (!p)
        return AP_ERR_NOMEM;
    for (int64_t b = 0; b < a->seqs; b++) {
        for (int64_t head = 0; head < heads; head++)
            REF(attn_head)(a, b * len, len, head, p);
    }
    free(p);
    return AP_OK;
}

/* One (sequence, head) of the backward. dkv_acc [len, n+v] and dq_acc [n+r] are double scratch; dkr_acc
 * [len, r] sums over the heads of the sequence. With P = exp(scale s - lse), D = dout . out:
 * dv += P dout; ds = P (dout . v - D) scale; dq += ds k; dk += ds q. */
static void REF(attn_head_bwd)(const struct ap_mla_attn_bwd_args *a, int64_t base, int64_t len, int64_t head,
                               double *scratch)
{
    int64_t heads = a->q.shape[1], n = a->n, r = a->r, v = a->v, kr_stride = a->kr_stride ? a->kr_stride : r;
    int64_t kv_step = heads * (n + v);
    double *dkr_acc = scratch, *dkv_acc = dkr_acc + len * r, *dq_acc = dkv_acc + len * (n + v);
    const REAL *kv = (const REAL *)a->kv.data + (base * heads + head) * (n + v);
    const REAL *kr = (const REAL *)a->kr.data + base * kr_stride;
    const int32_t *first = (const int32_t *)a->first.data + base;
    memset(dkv_acc, 0, (size_t)(len * (n + v) + n + r) * sizeof(*dkv_acc));
    for (int64_t t = 0; t < len; t++) {
        int64_t row = (base + t) * heads + head;
        const REAL *q = (const REAL *)a->q.data + row * (n + r);
        const REAL *dout = (const REAL *)a->dout.data + row * v;
        REAL *dq = (REAL *)a->dq.data + row * (n + r);
        double lse = (double)((const STAT *)a->lse.data)[row];
        double delta = REF(dot)(dout, 1, (const REAL *)a->out.data + row * v, 1, v);
        for (int64_t j = 0; j < n + r; j++)
            dq_acc[j] = 0;
        for (int64_t s = first[t]; s <= t; s++) {
            const REAL *k = kv + s * kv_step, *krs = kr + s * kr_stride;
            double p = exp(a->scale * REF(score)(q, k, krs, n, r) - lse);
            double ds = p * (REF(dot)(dout, 1, k + n, 1, v) - delta) * a->scale;
            for (int64_t j = 0; j < n; j++) {
                dq_acc[j] += ds * GET(k[j]);
                dkv_acc[s * (n + v) + j] += ds * GET(q[j]);
            }
            for (int64_t j = 0; j < r; j++) {
                dq_acc[n + j] += ds * GET(krs[j]);
                dkr_acc[s * r + j] += ds * GET(q[n + j]);
            }
            for (int64_t j = 0; j < v; j++)
                dkv_acc[s * (n + v) + n + j] += p * GET(dout[j]);
        }
        for (int64_t j = 0; j < n + r; j++)
            dq[j] = PUT(dq_acc[j]);
    }
    REAL *dkv = (REAL *)a->dkv.data + (base * heads + head) * (n + v);
    for (int64_t s = 0; s < len; s++) {
        for (int64_t j = 0; j < n + v; j++)
            dkv[s * kv_step + j] = PUT(dkv_acc[s * (n + v) + j]);
    }
}

ap_status REF(mla_attn_bwd)(const struct ap_mla_attn_bwd_args *a)
{
    int64_t rows = a->q.shape[0], heads = a->q.shape[1], r = a->r;
    if (rows == 0)
        return AP_OK;
    int64_t len = rows / a->seqs, dkr_stride = a->dkr_stride ? a->dkr_stride : r;
    AP_TRY(ap_check_first(a->first.data, rows, a->seqs));
    double *scratch = malloc((size_t)(len * (r + a->n + a->v) + a->n + r + 1) * sizeof(*scratch));
    if (!scratch)
        return AP_ERR_NOMEM;
    for (int64_t b = 0; b < a->seqs; b++) {
        memset(scratch, 0, (size_t)(len * r) * sizeof(*scratch));
        for (int64_t head = 0; head < heads; head++)
            REF(attn_head_bwd)(a, b * len, len, head, scratch);
        for (int64_t s = 0; s < len; s++) {
            for (int64_t j = 0; j < r; j++)
                ((REAL *)a->dkr.data)[(b * len + s) * dkr_stride + j] = PUT(scratch[s * r + j]);
        }
    }
    free(scratch);
    return AP_OK;
}
