/* SPDX-License-Identifier: Apache-2.0
 * Template: cross-entropy and fixed-tree sums. */

AP_PAIRWISE_DEFINE(REF(tree_sumsq), REF(tree_sumsq_block), REAL, GET, AP_TERM_SQUARE)

ap_status REF(cross_entropy)(const struct ap_cross_entropy_args *a)
{
    int64_t rows = a->logits.shape[0], vocab = a->logits.shape[1];
    const int32_t *targets = a->targets.data;
    AP_TRY(ap_check_ids("cross_entropy", targets, rows, -1, vocab));
    for (int64_t i = 0; i < rows; i++) {
        const REAL *logits = (const REAL *)a->logits.data + i * vocab;
        REAL *dlogits = a->dlogits.data ? (REAL *)a->dlogits.data + i * vocab : NULL;
        double top = -INFINITY, sum = 0;
        if (targets[i] < 0) {
            ((STAT *)a->loss.data)[i] = 0;
            for (int64_t j = 0; dlogits && j < vocab; j++)
                dlogits[j] = PUT(0.0);
            continue;
        }
        for (int64_t j = 0; j < vocab; j++)
            top = GET(logits[j]) > top ? GET(logits[j]) : top;
        for (int64_t j = 0; j < vocab; j++)
            sum += exp(GET(logits[j]) - top);
        double lse = top + log(sum);
        ((STAT *)a->loss.data)[i] = (STAT)(lse - GET(logits[targets[i]]));
        for (int64_t j = 0; dlogits && j < vocab; j++)
            dlogits[j] = PUT((exp(GET(logits[j]) - lse) - (j == targets[i] ? 1.0 : 0.0)) * a->weight);
    }
    return AP_OK;
}

ap_status REF(cross_entropy_part)(const struct ap_cross_entropy_part_args *a)
{
    int64_t rows = a->logits.shape[0], cols = a->logits.shape[1];
    const int32_t *targets = a->targets.data;
    AP_TRY(ap_check_ids("cross_entropy_part", targets, rows, -1, cols));
    for (int64_t i = 0; i < rows; i++) {
        const REAL *logits = (const REAL *)a->logits.data + i * cols;
        STAT *part = (STAT *)a->part.data + i * 3;
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < cols; j++)
            top = GET(logits[j]) > top ? GET(logits[j]) : top;
        double shift = top > -INFINITY ? top : 0; /* so that NaN stays NaN and -inf counts nothing */
        for (int64_t j = 0; j < cols; j++)
            sum += exp(GET(logits[j]) - shift);
        part[0] = (STAT)top;
        part[1] = (STAT)sum;
        part[2] = targets[i] < 0 ? 0 : (STAT)GET(logits[targets[i]]);
    }
    return AP_OK;
}

ap_status REF(cross_entropy_join)(const struct ap_cross_entropy_join_args *a)
{
    int64_t rows = a->logits.shape[0], cols = a->logits.shape[1], parts = a->parts.shape[0];
    const int32_t *targets = a->local_targets.data, *has = a->has_target.data;
    AP_TRY(ap_check_ids("cross_entropy_join", targets, rows, -1, cols));
    AP_TRY(ap_check_ids("cross_entropy_join", has, rows, -1, (int64_t)INT32_MAX + 1));
    for (int64_t i = 0; i < rows; i++) {
        const REAL *logits = (const REAL *)a->logits.data + i * cols;
        REAL *dlogits = a->dlogits.data ? (REAL *)a->dlogits.data + i * cols : NULL;
        const STAT *part = (const STAT *)a->parts.data + i * 3;
        double top = -INFINITY, sum = 0, target = 0;
        if (has[i] < 0) {
            ((STAT *)a->loss.data)[i] = 0;
            for (int64_t j = 0; dlogits && j < cols; j++)
                dlogits[j] = PUT(0.0);
            continue;
        }
        for (int64_t p = 0; p < parts; p++)
            top = (double)part[p * rows * 3] > top ? (double)part[p * rows * 3] : top;
        for (int64_t p = 0; p < parts; p++) {
            sum += (double)part[p * rows * 3 + 1] * exp((double)part[p * rows * 3] - top);
            target += (double)part[p * rows * 3 + 2];
        }
        double lse = top + log(sum);
        ((STAT *)a->loss.data)[i] = (STAT)(lse - target);
        for (int64_t j = 0; dlogits && j < cols; j++)
            dlogits[j] = PUT((exp(GET(logits[j]) - lse) - (j == targets[i] ? 1.0 : 0.0)) * a->weight);
    }
    return AP_OK;
}

ap_status REF(sumsq)(const struct ap_sumsq_args *a)
{
    struct ap_run all = {0, ap_tensor_count(&a->x)};
    for (int64_t i = 0; i < (a->runs ? a->run_count : 1); i++) {
        const struct ap_run *run = a->runs ? &a->runs[i] : &all;
        ((double *)a->out.data)[i] = REF(tree_sumsq)((const REAL *)a->x.data + run->begin, run->count);
    }
    return AP_OK;
}

#if REF_STAT_OPS
AP_PAIRWISE_DEFINE(REF(tree_sum), REF(tree_sum_block), STAT, (double), AP_TERM_PLAIN)

ap_status REF(sum_tokens)(const struct ap_sum_tokens_args *a)
{
    *(double *)a->out.data += REF(tree_sum)(a->x.data, ap_tensor_count(&a->x));
    return AP_OK;
}
#endif
