/* SPDX-License-Identifier: Apache-2.0
 * Named tensors: the list with its hash index over names, and arithmetic on flat ranges. */
#include "config.h"
#include "state/named.h"

#include <stdlib.h>
#include <string.h>

#define ELEMENTS_MAX (INT64_C(1) << 59) /* so that bytes fit an int64 for every dtype */

int64_t ap_named_elements(const struct ap_named *t)
{
    if (t->ndim < 0 || t->ndim > 4)
        return -1;
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) {
        if (t->shape[i] < 0 || (t->shape[i] > 0 && n > ELEMENTS_MAX / t->shape[i]))
            return -1;
        n *= t->shape[i];
    }
    return n;
}

int ap_named_name_ok(const char *name)
{
    size_t n = strnlen(name, AP_NAME_MAX);
    if (n == 0 || n >= AP_NAME_MAX)
        return 0;
    size_t start = 0; /* of the component */
    for (size_t i = 0; i <= n; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c == '/' || c == '\0') {
            size_t len = i - start;
            if (len == 0 || (len == 1 && name[start] == '.') || (len == 2 && memcmp(name + start, "..", 2) == 0))
                return 0;
            start = i + 1;
        } else if (c <= ' ' || c >= 127 || c == '"' || c == '\\' || c == '\'') {
            return 0;
        }
    }
    return 1;
}

int ap_named_same_tensor(const struct ap_named *a, const struct ap_named *b)
{
    if (a->dtype != b->dtype || a->ndim != b->ndim || strcmp(a->name, b->name) != 0)
        return 0;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != b->shape[i])
            return 0;
    return 1;
}

static uint64_t name_slot(const struct ap_named_set *set, const char *name)
{
    return ap_hash64(name, strlen(name), 0) & (uint64_t)(set->slot_count - 1);
}

/* Entries of one name keep their order along the probe sequence, so the first found is the first added. */
static void slot_insert(struct ap_named_set *set, int64_t index)
{
    uint64_t mask = (uint64_t)(set->slot_count - 1), s = name_slot(set, set->list[index].name);
    while (set->slots[s] >= 0)
        s = (s + 1) & mask;
    set->slots[s] = index;
}

/* Room for one more entry, at most half of the slots in use. */
static ap_status set_grow(struct ap_named_set *set, struct ap_error *err)
{
    if (set->count < set->capacity)
        return AP_OK;
    int64_t capacity = set->capacity > 0 ? set->capacity * 2 : 64;
    struct ap_named *list = realloc(set->list, (size_t)capacity * sizeof *list);
    if (list == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a list of %lld tensors", (long long)capacity);
    set->list = list;
    int64_t *slots = malloc((size_t)capacity * 2 * sizeof *slots);
    if (slots == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for a list of %lld tensors", (long long)capacity);
    free(set->slots);
    set->capacity = capacity;
    set->slots = slots;
    set->slot_count = capacity * 2;
    for (int64_t i = 0; i < set->slot_count; i++)
        slots[i] = -1;
    for (int64_t i = 0; i < set->count; i++)
        slot_insert(set, i);
    return AP_OK;
}

static ap_status entry_check(const struct ap_named_set *set, const struct ap_named *t, struct ap_error *err)
{
    if (!ap_named_name_ok(t->name))
        return ap_error_set(err, AP_ERR_BUG, "ill-formed tensor name \"%.*s\"", AP_NAME_MAX, t->name);
    int64_t n = ap_named_elements(t);
    if (n < 0 || t->begin < 0 || t->begin > t->end || t->end > n || ap_dtype_size(t->dtype) == 0)
        return ap_error_set(err, AP_ERR_BUG, "tensor %s: range %lld..%lld lies outside its %lld elements", t->name,
                            (long long)t->begin, (long long)t->end, (long long)n);
    if (t->data == NULL && t->end > t->begin)
        return ap_error_set(err, AP_ERR_BUG, "tensor %s: range %lld..%lld without data", t->name, (long long)t->begin,
                            (long long)t->end);
    if (set->slot_count == 0)
        return AP_OK;
    uint64_t mask = (uint64_t)(set->slot_count - 1);
    for (uint64_t s = name_slot(set, t->name); set->slots[s] >= 0; s = (s + 1) & mask) {
        const struct ap_named *o = &set->list[set->slots[s]];
        if (strcmp(o->name, t->name) != 0)
            continue;
        if (!ap_named_same_tensor(o, t))
            return ap_error_set(err, AP_ERR_BUG, "tensor %s is listed with two dtypes or shapes", t->name);
        if (o->begin == t->begin)
            return ap_error_set(err, AP_ERR_BUG, "tensor %s is listed twice at element %lld", t->name,
                                (long long)t->begin);
    }
    return AP_OK;
}

ap_status ap_named_set_add(struct ap_named_set *set, const struct ap_named *t, struct ap_error *err)
{
    AP_TRY(entry_check(set, t, err));
    AP_TRY(set_grow(set, err));
    set->list[set->count] = *t;
    slot_insert(set, set->count);
    set->count++;
    return AP_OK;
}

const struct ap_named *ap_named_set_find(const struct ap_named_set *set, const char *name)
{
    if (set->slot_count == 0)
        return NULL;
    uint64_t mask = (uint64_t)(set->slot_count - 1);
    for (uint64_t s = name_slot(set, name); set->slots[s] >= 0; s = (s + 1) & mask)
        if (strcmp(set->list[set->slots[s]].name, name) == 0)
            return &set->list[set->slots[s]];
    return NULL;
}

void ap_named_set_clear(struct ap_named_set *set)
{
    free(set->list);
    free(set->slots);
    memset(set, 0, sizeof *set);
}

int64_t ap_range_intersect(int64_t a0, int64_t a1, int64_t b0, int64_t b1, int64_t *begin_p, int64_t *end_p)
{
    int64_t begin = a0 > b0 ? a0 : b0, end = a1 < b1 ? a1 : b1;
    if (begin >= end)
        begin = end = a0; /* an empty range has a well-defined place all the same */
    *begin_p = begin;
    *end_p = end;
    return end - begin;
}

int64_t ap_named_copy_overlap(struct ap_named *dst, const struct ap_named *src)
{
    if (!ap_named_same_tensor(dst, src))
        return -1;
    int64_t begin, end, n = ap_range_intersect(dst->begin, dst->end, src->begin, src->end, &begin, &end);
    size_t width = ap_dtype_size(dst->dtype);
    if (n > 0)
        memmove((char *)dst->data + (size_t)(begin - dst->begin) * width,
                (const char *)src->data + (size_t)(begin - src->begin) * width, (size_t)n * width);
    return n;
}
