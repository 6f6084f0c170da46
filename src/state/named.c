/* SPDX-License-Identifier: Apache-2.0
 * Named tensors: the list with its hash index over names, and arithmetic on ranges and slabs. */
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

const char *ap_named_fault(const struct ap_named *t)
{
    int64_t n = ap_named_elements(t);
    if (n < 0)
        return "the shape is ill-formed or too large";
    if (t->width != 0 || t->col != 0) {
        if (t->ndim != 2)
            return "columns of a tensor that is not 2-D";
        if (t->width < 1 || t->col < 0 || t->col > t->shape[1] || t->width > t->shape[1] - t->col)
            return "columns that lie outside its shape";
        n = t->shape[0] * t->width;
    }
    if (t->begin < 0 || t->begin > t->end || t->end > n)
        return "a range that lies outside its elements";
    return NULL;
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

struct ap_slab ap_named_slab(const struct ap_named *t)
{
    return (struct ap_slab){t->col, t->width, t->begin, t->end};
}

struct ap_named ap_named_part(const struct ap_named *t, const struct ap_slab *s)
{
    struct ap_named part = *t;
    part.col = s->col;
    part.width = s->width;
    part.begin = s->begin;
    part.end = s->end;
    part.data = NULL;
    return part;
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
    const char *fault = ap_named_fault(t);
    if (fault != NULL)
        return ap_error_set(err, AP_ERR_BUG, "tensor %s, elements %lld..%lld: %s", t->name, (long long)t->begin,
                            (long long)t->end, fault);
    if (ap_dtype_size(t->dtype) == 0)
        return ap_error_set(err, AP_ERR_BUG, "tensor %s has an unknown dtype", t->name);
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
        if (o->col == t->col && o->width == t->width && o->begin == t->begin)
            return ap_error_set(err, AP_ERR_BUG, "tensor %s is listed twice at element %lld", t->name,
                                (long long)t->begin);
    }
    return AP_OK;
}

ap_status ap_named_set_add(struct ap_named_set *set, const struct ap_named *t, struct ap_error *err)
{
    struct ap_named entry = *t;
    if (entry.ndim == 2 && entry.col == 0 && entry.width == entry.shape[1])
        entry.width = 0;
    AP_TRY(entry_check(set, &entry, err));
    AP_TRY(set_grow(set, err));
    set->list[set->count] = entry;
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

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t row_width(const struct ap_named *t)
{
    int64_t width = t->width > 0 ? t->width : t->ndim == 2 ? t->shape[1] : 1;
    return width > 0 ? width : 1; /* without columns there are no elements */
}

void ap_overlap_begin(struct ap_overlap *o, const struct ap_named *a, const struct ap_named *b)
{
    struct ap_overlap w = {.a_col = a->col, .a_begin = a->begin, .a_end = a->end};
    w.b_col = b->col;
    w.b_begin = b->begin;
    w.b_end = b->end;
    if (a->width == b->width && a->col == b->col) {
        /* The same slab on both sides: its elements are one row, however many dimensions the tensor has. */
        w.a_col = w.b_col = 0;
        w.a_width = w.b_width = max64(1, max64(a->end, b->end));
    } else {
        w.a_width = row_width(a);
        w.b_width = row_width(b);
    }
    w.row = max64(w.a_begin / w.a_width, w.b_begin / w.b_width);
    w.row_end = min64((w.a_end + w.a_width - 1) / w.a_width, (w.b_end + w.b_width - 1) / w.b_width);
    if (max64(w.a_col, w.b_col) >= min64(w.a_col + w.a_width, w.b_col + w.b_width))
        w.row_end = w.row;
    *o = w;
}

int ap_overlap_next(struct ap_overlap *o, int64_t *a_p, int64_t *b_p, int64_t *n_p)
{
    while (o->row < o->row_end) {
        int64_t a = o->row * o->a_width, b = o->row * o->b_width; /* the row's first element in either slab */
        o->row++;
        int64_t low = max64(o->a_col + max64(o->a_begin - a, 0), o->b_col + max64(o->b_begin - b, 0));
        int64_t high = min64(o->a_col + min64(o->a_end - a, o->a_width), o->b_col + min64(o->b_end - b, o->b_width));
        if (low >= high)
            continue; /* a ragged end */
        *a_p = a + low - o->a_col;
        *b_p = b + low - o->b_col;
        *n_p = high - low;
        return 1;
    }
    return 0;
}

int64_t ap_named_copy_overlap(struct ap_named *dst, const struct ap_named *src)
{
    if (!ap_named_same_tensor(dst, src))
        return -1;
    struct ap_overlap o;
    int64_t to, from, n, total = 0;
    size_t size = ap_dtype_size(dst->dtype);
    ap_overlap_begin(&o, dst, src);
    while (ap_overlap_next(&o, &to, &from, &n)) {
        memmove((char *)dst->data + (size_t)(to - dst->begin) * size,
                (const char *)src->data + (size_t)(from - src->begin) * size, (size_t)n * size);
        total += n;
    }
    return total;
}
