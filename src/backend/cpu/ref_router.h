/* SPDX-License-Identifier: Apache-2.0
 * Template: top-K routing, its gradient, and the balance losses. */

/* Index of the largest c among those with taken == 0; ties and NaN: the lowest index. -1 if all are taken. */
static int64_t REF(argmax_free)(const double *c, const unsigned char *taken, int64_t count)
{
    int64_t best = -1;
    for (int64_t i = 0; i < count; i++) {
        if (!taken[i] && (best < 0 || c[i] > c[best]))
            best = i;
    }
    return best;
}

/* Mark the k largest of c[count] in taken (overwritten). k <= count. */
static void REF(top_k)(const double *c, int64_t count, int64_t k, unsigned char *taken)
{
    memset(taken, 0, (size_t)count);
    for (int64_t i = 0; i < k; i++)
        taken[REF(argmax_free)(c, taken, count)] = 1;
}

/* s = softmax or sigmoid of one row of logits. */
static void REF(gate_scores)(const REAL *logits, int64_t experts, int kind, double *s)
{
    double top = -INFINITY, sum = 0;
    if (kind == AP_GATE_SIGMOID_NOAUX) {
        for (int64_t i = 0; i < experts; i++)
            s[i] = 1.0 / (1.0 + exp(-GET(logits[i])));
        return;
    }
    for (int64_t i = 0; i < experts; i++)
        top = GET(logits[i]) > top ? GET(logits[i]) : top;
    for (int64_t i = 0; i < experts; i++) {
        s[i] = exp(GET(logits[i]) - top);
        sum += s[i];
    }
    for (int64_t i = 0; i < experts; i++)
        s[i] /= sum;
}

/* Set c of the rejected groups to -inf. group_score [groups] and kept [groups] are scratch. A group's score
 * is its largest c (softmax gate) or the sum of its two largest (sigmoid gate). */
static void REF(limit_groups)(const struct ap_router_fwd_args *a, double *c, double *group_score, unsigned char *kept)
{
    int64_t size = a->logits.shape[1] / a->groups;
    for (int64_t g = 0; g < a->groups; g++) {
        double first = -INFINITY, second = -INFINITY;
        for (int64_t i = g * size; i < (g + 1) * size; i++) {
            if (c[i] > first) {
                second = first;
                first = c[i];
            } else if (c[i] > second) {
                second = c[i];
            }
        }
        group_score[g] = a->kind == AP_GATE_SIGMOID_NOAUX && size > 1 ? first + second : first;
    }
    REF(top_k)(group_score, a->groups, a->groups_kept, kept);
    for (int64_t i = 0; i < a->groups * size; i++) {
        if (!kept[i / size])
            c[i] = -INFINITY;
    }
}

/* Route one token. work: 3 * experts doubles (s, c, group scores); taken: experts bytes. */
static void REF(route_token)(const struct ap_router_fwd_args *a, int64_t t, double *work, unsigned char *taken)
{
    int64_t experts = a->logits.shape[1], chosen = a->ids.shape[1], k = 0;
    double *s = work, *c = work + experts, sum = 0;
    const STAT *bias = a->bias.data;
    STAT *scores = (STAT *)a->scores.data + t * experts, *gates = (STAT *)a->gates.data + t * chosen;
    int32_t *ids = (int32_t *)a->ids.data + t * chosen, *counts = a->counts.data;
    REF(gate_scores)((const REAL *)a->logits.data + t * experts, experts, a->kind, s);
    for (int64_t i = 0; i < experts; i++) {
        scores[i] = (STAT)s[i];
        /* The choice is made on the stored precision, so that it can be repeated from the scores. */
        c[i] = (double)scores[i] + (a->kind == AP_GATE_SIGMOID_NOAUX && bias ? (double)bias[i] : 0.0);
    }
    if (a->kind != AP_GATE_SOFTMAX_GREEDY && a->groups > 1)
        REF(limit_groups)(a, c, work + 2 * experts, taken);
    REF(top_k)(c, experts, chosen, taken);
    for (int64_t i = 0; i < experts; i++) {
        if (!taken[i])
            continue;
        ids[k] = (int32_t)i;
        gates[k++] = scores[i];
        sum += (double)scores[i];
        counts[i]++;
    }
    double factor = a->norm_topk && chosen > 1 ? a->scaling / (sum + 1e-20) : a->scaling;
    for (k = 0; k < chosen; k++)
        gates[k] = (STAT)((double)gates[k] * factor);
}

ap_status REF(router_fwd)(const struct ap_router_fwd_args *a)
{
    int64_t rows = a->logits.shape[0], experts = a->logits.shape[1];
    double *work = malloc((size_t)experts * 3 * sizeof(*work) + (size_t)experts);
    if (!work)
        return AP_ERR_NOMEM;
    memset(a->counts.data, 0, (size_t)experts * sizeof(int32_t));
    for (int64_t t = 0; t < rows; t++)
        REF(route_token)(a, t, work, (unsigned char *)(work + 3 * experts));
    free(work);
    return AP_OK;
}

/* d loss / d s of one token from the gates, into ds (+=). With normalisation g_k = c s_k / S,
 * S = sum of the chosen s + 1e-20: ds_k = c (dg_k - sum_j dg_j s_j / S) / S. */
static void REF(gates_to_scores)(const struct ap_router_bwd_args *a, int64_t t, double *ds)
{
    int64_t experts = a->dlogits.shape[1], chosen = a->ids.shape[1];
    const STAT *s = (const STAT *)a->scores.data + t * experts;
    const STAT *dgates = (const STAT *)a->dgates.data + t * chosen;
    const int32_t *ids = (const int32_t *)a->ids.data + t * chosen;
    double total = 1e-20, dot = 0;
    int normed = a->norm_topk && chosen > 1;
    for (int64_t k = 0; k < chosen; k++) {
        total += (double)s[ids[k]];
        dot += (double)dgates[k] * (double)s[ids[k]];
    }
    for (int64_t k = 0; k < chosen; k++) {
        double d = (double)dgates[k];
        ds[ids[k]] += a->scaling * (normed ? (d - dot / total) / total : d);
    }
}

ap_status REF(router_bwd)(const struct ap_router_bwd_args *a)
{
    int64_t rows = a->dlogits.shape[0], experts = a->dlogits.shape[1];
    const STAT *extra = a->dscores_extra.data;
    AP_TRY(ap_check_ids("router_bwd", a->ids.data, rows * a->ids.shape[1], 0, experts));
    double *ds = malloc((size_t)(experts + 1) * sizeof(*ds));
    if (!ds)
        return AP_ERR_NOMEM;
    for (int64_t t = 0; t < rows; t++) {
        const STAT *s = (const STAT *)a->scores.data + t * experts;
        REAL *dlogits = (REAL *)a->dlogits.data + t * experts;
        double dot = 0;
        for (int64_t i = 0; i < experts; i++)
            ds[i] = extra ? (double)extra[t * experts + i] : 0.0;
        REF(gates_to_scores)(a, t, ds);
        for (int64_t i = 0; i < experts; i++)
            dot += ds[i] * (double)s[i];
        for (int64_t i = 0; i < experts; i++) {
            double si = (double)s[i];
            dlogits[i] = PUT(a->kind == AP_GATE_SIGMOID_NOAUX ? ds[i] * si * (1.0 - si) : si * (ds[i] - dot));
        }
    }
    free(ds);
    return AP_OK;
}

#if REF_STAT_OPS
/* Work of seq_balance for one sequence: doubles s, hits, mean_p, factor [experts] each, bytes taken [experts]
 * and seen [experts]. */
struct REF(balance) {
    double *s, *hits, *mean_p, *factor;
    unsigned char *taken, *seen;
};

/* hits_i += 1 where expert i is in the choice of token t; with comm != 0 hits of a group's first expert
 * += 1 where the token goes to any expert of the group. */
static void REF(balance_hits)(const struct ap_seq_balance_args *a, int64_t t, int64_t group, int comm,
                              struct REF(balance) * w)
{
    int64_t experts = a->scores.shape[1], chosen = a->ids.shape[1];
    const REAL *s = (const REAL *)a->scores.data + t * experts;
    const int32_t *ids = (const int32_t *)a->ids.data + t * chosen;
    if (a->kind == AP_GATE_SIGMOID_NOAUX) {
        for (int64_t i = 0; i < experts; i++)
            w->s[i] = GET(s[i]);
        REF(top_k)(w->s, experts, chosen, w->taken);
    } else {
        memset(w->taken, 0, (size_t)experts);
        for (int64_t k = 0; k < chosen; k++)
            w->taken[ids[k]] = 1;
    }
    memset(w->seen, 0, (size_t)experts);
    for (int64_t i = 0; i < experts; i++) {
        int64_t g = comm ? i / group : i;
        if (w->taken[i] && !w->seen[g]) {
            w->seen[g] = 1;
            w->hits[g] += 1;
        }
    }
}

/* What P_i of each expert is multiplied by: f of its group. */
static void REF(balance_factors)(const struct ap_seq_balance_args *a, int64_t len, int64_t group, int comm,
                                 struct REF(balance) * w)
{
    int64_t experts = a->scores.shape[1], chosen = a->ids.shape[1];
    double groups = (double)(experts / group);
    for (int64_t d = 0; d < experts / group; d++) {
        double f = 0;
        for (int64_t i = d * group; !comm && i < (d + 1) * group; i++)
            f += w->hits[i] * (double)experts / ((double)chosen * (double)len) / (double)group;
        if (comm)
            f = w->hits[d] * groups / ((double)a->comm_groups_kept * (double)len);
        for (int64_t i = d * group; i < (d + 1) * group; i++)
            w->factor[i] = f;
    }
}

static double REF(balance_sequence)(const struct ap_seq_balance_args *a, int64_t base, int64_t len,
                                    struct REF(balance) * w)
{
    int64_t experts = a->scores.shape[1], group = a->group_size > 1 ? a->group_size : 1;
    int comm = a->comm_groups_kept > 0, sigmoid = a->kind == AP_GATE_SIGMOID_NOAUX;
    double loss = 0;
    memset(w->hits, 0, (size_t)experts * sizeof(double));
    memset(w->mean_p, 0, (size_t)experts * sizeof(double));
    for (int64_t t = base; t < base + len; t++) {
        const REAL *s = (const REAL *)a->scores.data + t * experts;
        double total = 0;
        REF(balance_hits)(a, t, group, comm, w);
        for (int64_t i = 0; i < experts; i++)
            total += GET(s[i]);
        for (int64_t i = 0; i < experts; i++)
            w->mean_p[i] += GET(s[i]) / (sigmoid ? total : 1.0) / (double)len;
    }
    REF(balance_factors)(a, len, group, comm, w);
    for (int64_t i = 0; i < experts; i++)
        loss += w->factor[i] * w->mean_p[i];
    for (int64_t t = base; t < base + len; t++) {
        const REAL *s = (const REAL *)a->scores.data + t * experts;
        REAL *ds = (REAL *)a->dscores.data + t * experts;
        double total = 0, dot = 0;
        for (int64_t i = 0; i < experts; i++) {
            total += GET(s[i]);
            dot += w->factor[i] * GET(s[i]);
        }
        for (int64_t i = 0; i < experts; i++) {
            double d = sigmoid ? (w->factor[i] - dot / total) / total : w->factor[i];
            d *= a->weight / (double)len;
            ds[i] = PUT(a->accumulate_dscores ? GET(ds[i]) + d : d);
        }
    }
    return a->weight * loss;
}

ap_status REF(seq_balance_in)(const struct ap_seq_balance_args *a, double *mem)
{
    int64_t rows = a->scores.shape[0], experts = a->scores.shape[1];
    if (rows == 0 || experts == 0)
        return AP_OK;
    AP_TRY(ap_check_ids("seq_balance", a->ids.data, ap_tensor_count(&a->ids), 0, experts));
    unsigned char *bytes = (unsigned char *)(mem + 4 * experts);
    struct REF(balance) w = {mem, mem + experts, mem + 2 * experts, mem + 3 * experts, bytes, bytes + experts};
    double loss = 0;
    for (int64_t b = 0; b < a->seqs; b++)
        loss += REF(balance_sequence)(a, b * (rows / a->seqs), rows / a->seqs, &w);
    *(double *)a->loss.data += loss;
    return AP_OK;
}

ap_status REF(seq_balance)(const struct ap_seq_balance_args *a)
{
    double *mem = malloc(AP_REF_BALANCE_BYTES(a->scores.shape[1]) + 1);
    if (!mem)
        return AP_ERR_NOMEM;
    ap_status status = REF(seq_balance_in)(a, mem);
    free(mem);
    return status;
}
#endif
