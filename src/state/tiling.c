/* SPDX-License-Identifier: Apache-2.0
 * Whether ranges tile a tensor, by the corners of their outlines.
 *
 * Let f(row, col) say how often an element is held. Its mixed difference
 *   D(r, c) = f(r, c) - f(r - 1, c) - f(r, c - 1) + f(r - 1, c - 1)
 * determines f, is linear in the ranges, and is zero but for the corners of their outlines, where it is +1 or -1. A
 * range is a rectangle with a ragged first and last row: 8 corners at most. So all corners, and those of the whole
 * tensor with opposite signs, are sorted by place and summed up: the ranges tile the tensor if and only if nothing is
 * left. D at a place depends on elements before it only, in row-major order too: the first corner that is left is the
 * first element that is held too often or not at all, and the sum there says how often. */
#include "config.h"
#include "state/tiling.h"

#include <stdio.h>
#include <stdlib.h>

#define CORNERS 8

void ap_tiling_begin(struct ap_tiling *g, const struct ap_named *t)
{
    int64_t n = ap_named_elements(t);
    g->rows = n > 0 && t->ndim == 2 ? t->shape[0] : 1;
    g->cols = n > 0 && t->ndim == 2 ? t->shape[1] : n;
    g->pending = (struct ap_slab){0};
    g->count = 0;
}

void ap_tiling_clear(struct ap_tiling *g)
{
    free(g->corners);
    *g = (struct ap_tiling){0};
}

/* Room for the corners of two more ranges. */
static ap_status reserve(struct ap_tiling *g, struct ap_error *err)
{
    if (g->capacity - g->count >= 2 * CORNERS)
        return AP_OK;
    int64_t capacity = g->capacity > 0 ? g->capacity * 2 : 64;
    int64_t *corners = realloc(g->corners, (size_t)capacity * sizeof *corners);
    if (corners == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory to check %lld ranges", (long long)(capacity / CORNERS));
    g->corners = corners;
    g->capacity = capacity;
    return AP_OK;
}

/* A corner in one word: its place in a grid of rows + 1 by cols + 1 (below 2^61, since there are at most 2^59
 * elements), and in the last bit its sign. */
static void corner(struct ap_tiling *g, int64_t row, int64_t col, int negative)
{
    g->corners[g->count++] = (row * (g->cols + 1) + col) * 2 + negative;
}

/* The pending range. Rows r0..r1: the first begins at column x0, the last ends before x1 (x1 == c0: there is none). */
static void outline(struct ap_tiling *g)
{
    const struct ap_slab *s = &g->pending;
    if (s->begin >= s->end)
        return;
    int64_t width = s->width > 0 ? s->width : g->cols, c0 = s->col, c1 = s->col + width;
    int64_t r0 = s->begin / width, x0 = c0 + s->begin % width, r1 = s->end / width, x1 = c0 + s->end % width;
    if (r0 == r1) { /* a piece of one row */
        corner(g, r0, x0, 0);
        corner(g, r0, x1, 1);
        corner(g, r0 + 1, x0, 1);
        corner(g, r0 + 1, x1, 0);
        return;
    }
    corner(g, r0, x0, 0);
    corner(g, r0, c1, 1);
    if (x0 > c0) { /* the columns before x0 begin one row later */
        corner(g, r0 + 1, c0, 0);
        corner(g, r0 + 1, x0, 1);
    }
    corner(g, r1, x1, 1);
    corner(g, r1, c1, 0);
    if (x1 > c0) { /* the columns before x1 end one row later */
        corner(g, r1 + 1, c0, 1);
        corner(g, r1 + 1, x1, 0);
    }
}

ap_status ap_tiling_add(struct ap_tiling *g, const struct ap_slab *s, struct ap_error *err)
{
    struct ap_slab *p = &g->pending;
    if (s->begin >= s->end)
        return AP_OK;
    if (s->col == p->col && s->width == p->width && s->begin == p->end) {
        p->end = s->end;
        return AP_OK;
    }
    AP_TRY(reserve(g, err));
    outline(g);
    *p = *s;
    return AP_OK;
}

static int by_place(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

ap_status ap_tiling_end(struct ap_tiling *g, int64_t *excess_p, int64_t *at_p, struct ap_error *err)
{
    int64_t excess = 0, at = 0;
    AP_TRY(reserve(g, err));
    outline(g);
    if (g->cols > 0) {
        corner(g, 0, 0, 1);
        corner(g, 0, g->cols, 0);
        corner(g, g->rows, 0, 0);
        corner(g, g->rows, g->cols, 1);
    }
    qsort(g->corners, (size_t)g->count, sizeof *g->corners, by_place);
    for (int64_t i = 0; i < g->count && excess == 0;) {
        at = g->corners[i] / 2;
        for (; i < g->count && g->corners[i] / 2 == at; i++)
            excess += g->corners[i] % 2 == 0 ? 1 : -1;
    }
    *excess_p = excess;
    *at_p = at / (g->cols + 1) * g->cols + at % (g->cols + 1);
    return AP_OK;
}

ap_status ap_tiling_check(struct ap_tiling *g, const struct ap_named *t, ap_status wrong, struct ap_error *err)
{
    int64_t excess, at;
    char place[64] = "";
    AP_TRY(ap_tiling_end(g, &excess, &at, err));
    if (excess == 0)
        return AP_OK;
    if (t->ndim == 2)
        snprintf(place, sizeof place, " (row %lld, column %lld)", (long long)(at / g->cols), (long long)(at % g->cols));
    return ap_error_set(err, wrong, "tensor %s: the ranks' ranges %s at element %lld%s", t->name,
                        excess > 0 ? "overlap" : "leave a gap", (long long)at, place);
}
