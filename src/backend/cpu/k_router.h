/* SPDX-License-Identifier: Apache-2.0
 * Template: routing, always f32. */

/* Experts of one row of choice scores that a token goes to, found in one pass: the list holds the best so
 * far, best first; a later expert replaces only what is strictly smaller, so that ties go to the lower id.
 * NaN never replaces anything. */
static inline void K(top_k)(const float *c, int64_t count, int64_t k, float *best, int32_t *id)
{
    int64_t have = 0;
    for (int64_t i = 0; i < count; i++) {
        if (have == k && !(c[i] > best[k - 1]))
            continue;
        int64_t at = have < k ? have++ : k - 1;
        for (; at > 0 && c[i] > best[at - 1]; at--) {
            best[at] = best[at - 1];
            id[at] = id[at - 1];
        }
        best[at] = c[i];
        id[at] = (int32_t)i;
    }
}

static inline void K(sort_ids)(int32_t *id, int64_t k)
{
    for (int64_t i = 1; i < k; i++) {
        int32_t x = id[i];
        int64_t at = i;
        for (; at > 0 && id[at - 1] > x; at--)
            id[at] = id[at - 1];
        id[at] = x;
    }
}

/* One row of s. */
static inline void K(gate_scores)(const float *logits, float *s, int64_t experts, int kind)
{
    vf top = vset(-INFINITY), sum = {0};
    int64_t j;
    if (kind == AP_GATE_SIGMOID_NOAUX) {
        for (j = 0; j < experts; j += VL)
            vst(s + j, vsigmoid(vld(logits + j, experts - j)), experts - j);
        return;
    }
    for (j = 0; j + VL <= experts; j += VL)
        top = vmax(top, *(const vf *)(logits + j));
    float shift = vtop(top);
    for (; j < experts; j++)
        shift = logits[j] > shift ? logits[j] : shift;
    float tail = 0;
    for (j = 0; j + VL <= experts; j += VL) {
        vf e = vexp(*(const vf *)(logits + j) - shift);
        *(vf *)(s + j) = e;
        sum += e;
    }
    if (j < experts) {
        vst(s + j, vexp(vld(logits + j, experts - j) - shift), experts - j);
        for (int64_t i = j; i < experts; i++)
            tail += s[i];
    }
    float total = vsum(sum) + tail;
    for (j = 0; j < experts; j += VL)
        vst(s + j, vld(s + j, experts - j) / total, experts - j);
}

/* Set c of the rejected groups to -inf; a group has `size` experts. */
static inline void K(limit_groups)(const struct ap_router_fwd_args *a, float *c, int64_t size)
{
    float score[AP_ROUTER_MAX], best[AP_ROUTER_MAX];
    int32_t id[AP_ROUTER_MAX];
    unsigned char kept[AP_ROUTER_MAX] = {0};
    for (int64_t g = 0; g < a->groups; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (int64_t i = g * size; i < (g + 1) * size; i++) {
            if (c[i] > first) {
                second = first;
                first = c[i];
            } else if (c[i] > second) {
                second = c[i];
            }
        }
        score[g] = a->kind == AP_GATE_SIGMOID_NOAUX && size > 1 ? first + second : first;
    }
    K(top_k)(score, a->groups, a->groups_kept, best, id);
    for (int64_t g = 0; g < a->groups_kept; g++)
        kept[id[g]] = 1;
    for (int64_t i = 0; i < a->groups * size; i++) {
        if (!kept[i / size])
            c[i] = -INFINITY;
    }
}

static void K(router_fwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_router_fwd_args *a = args;
    int64_t experts = a->logits.shape[1], chosen = a->ids.shape[1];
    const float *bias = a->kind == AP_GATE_SIGMOID_NOAUX ? a->bias.data : NULL;
    float c[AP_ROUTER_MAX], best[AP_ROUTER_MAX];
    for (int64_t t = begin; t < end; t++) {
        float *s = (float *)a->scores.data + t * experts, *gates = (float *)a->gates.data + t * chosen, sum = 0;
        int32_t *ids = (int32_t *)a->ids.data + t * chosen;
        K(gate_scores)((const float *)a->logits.data + t * experts, s, experts, a->kind);
        for (int64_t i = 0; i < experts; i++)
            c[i] = bias ? s[i] + bias[i] : s[i];
        if (a->kind != AP_GATE_SOFTMAX_GREEDY && a->groups > 1)
            K(limit_groups)(a, c, experts / a->groups);
        K(top_k)(c, experts, chosen, best, ids);
        K(sort_ids)(ids, chosen);
        for (int64_t k = 0; k < chosen; k++)
            sum += s[ids[k]];
        float factor = (float)(a->norm_topk && chosen > 1 ? a->scaling / ((double)sum + 1e-20) : a->scaling);
        for (int64_t k = 0; k < chosen; k++)
            gates[k] = s[ids[k]] * factor;
    }
}

static void K(router_bwd)(const void *args, int64_t begin, int64_t end)
{
    const struct ap_router_bwd_args *a = args;
    int64_t experts = a->dlogits.shape[1], chosen = a->ids.shape[1];
    int normed = a->norm_topk && chosen > 1;
    float scaling = (float)a->scaling;
    for (int64_t t = begin; t < end; t++) {
        const float *s = (const float *)a->scores.data + t * experts;
        const float *dgates = (const float *)a->dgates.data + t * chosen;
        const int32_t *ids = (const int32_t *)a->ids.data + t * chosen;
        float *ds = (float *)a->dlogits.data + t * experts, total = 1e-20f, dot = 0;
        if (a->dscores_extra.data)
            memcpy(ds, (const float *)a->dscores_extra.data + t * experts, (size_t)experts * sizeof(float));
        else
            memset(ds, 0, (size_t)experts * sizeof(float));
        for (int64_t k = 0; k < chosen; k++) {
            total += s[ids[k]];
            dot += dgates[k] * s[ids[k]];
        }
        for (int64_t k = 0; k < chosen; k++)
            ds[ids[k]] += scaling * (normed ? (dgates[k] - dot / total) / total : dgates[k]);
        float inner = a->kind == AP_GATE_SIGMOID_NOAUX ? 0 : K(row_dot)(ds, s, experts);
        for (int64_t j = 0; j < experts; j += VL) {
            vf si = vld(s + j, experts - j), d = vld(ds + j, experts - j);
            vst(ds + j, a->kind == AP_GATE_SIGMOID_NOAUX ? d * si * (1.0f - si) : si * (d - inner), experts - j);
        }
    }
}
