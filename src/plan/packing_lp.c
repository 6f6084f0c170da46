/* SPDX-License-Identifier: Apache-2.0
 * Dictionary simplex. Variables: 0..rows-1 are the slacks, rows+id the columns. Row i reads
 * basic[i] = b[i] - sum_j d[j][i] * nonbasic[j]; the objective is value + sum_j gain[j] * nonbasic[j]. The dictionary
 * is kept by columns j, each contiguous over the rows. */
#include "config.h"

/* GCC's -O2 leaves loops of unknown length scalar; the pivot is all such loops. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "plan/packing_lp.h"

#define SHIFT       1e-7
#define GAIN_LEAST  1e-9
#define PIVOT_LEAST 1e-9
#define LOSS        1e3

typedef void subtract_fn(double *restrict y, const double *restrict x, double f, int n);

struct ap_packing {
    subtract_fn *subtract;
    int rows, columns, max_columns;
    double value;
    double *b;     /* [rows] */
    int *basic;    /* [rows] variable */
    int *nonbasic; /* [max_columns] variable */
    int *where;    /* [rows + max_columns] row of a basic variable, -1 - j of a non-basic one */
    double *gain;  /* [max_columns] */
    double **d;    /* [max_columns] of [rows] */
};

/* y -= f * x. Products are rounded before the sum in both forms, so that all machines make the same plan. */
static inline __attribute__((always_inline)) void subtract(double *restrict y, const double *restrict x, double f,
                                                           int n)
{
    for (int i = 0; i < n; i++)
        y[i] -= f * x[i];
}

static void subtract_plain(double *restrict y, const double *restrict x, double f, int n)
{
    subtract(y, x, f, n);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void subtract_avx2(double *restrict y, const double *restrict x, double f, int n)
{
    subtract(y, x, f, n);
}
#endif

static subtract_fn *subtract_best(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return subtract_avx2;
#endif
    return subtract_plain;
}

ap_status ap_packing_create(int rows, const double *capacity, int max_columns, struct ap_packing **p_p)
{
    size_t m = (size_t)rows, k = (size_t)max_columns;
    struct ap_packing *p = calloc(1, sizeof *p);
    if (p == NULL)
        return AP_ERR_NOMEM;
    p->subtract = subtract_best();
    p->rows = rows;
    p->max_columns = max_columns;
    p->b = malloc(m * sizeof *p->b);
    p->basic = malloc(m * sizeof *p->basic);
    p->nonbasic = malloc(k * sizeof *p->nonbasic);
    p->where = malloc((m + k) * sizeof *p->where);
    p->gain = malloc(k * sizeof *p->gain);
    p->d = calloc(k, sizeof *p->d);
    if (p->b == NULL || p->basic == NULL || p->nonbasic == NULL || p->where == NULL || p->gain == NULL ||
        p->d == NULL) {
        ap_packing_destroy(p);
        return AP_ERR_NOMEM;
    }
    for (int j = 0; j < max_columns; j++) {
        p->d[j] = malloc(m * sizeof **p->d);
        if (p->d[j] == NULL) {
            ap_packing_destroy(p);
            return AP_ERR_NOMEM;
        }
    }
    for (int i = 0; i < rows; i++) {
        p->b[i] = capacity[i] * (1 - SHIFT * ap_rng_uniform(1, AP_RNG_ROUTES, (uint64_t)i));
        p->basic[i] = p->where[i] = i;
    }
    *p_p = p;
    return AP_OK;
}

void ap_packing_destroy(struct ap_packing *p)
{
    if (p == NULL)
        return;
    for (int j = 0; p->d != NULL && j < p->max_columns; j++)
        free(p->d[j]);
    free(p->b);
    free(p->basic);
    free(p->nonbasic);
    free(p->where);
    free(p->gain);
    free(p->d);
    free(p);
}

void ap_packing_add(struct ap_packing *p, int id, const struct ap_packing_use *use, int count)
{
    int at = p->columns++;
    double *col = p->d[at], gain = 1;
    memset(col, 0, (size_t)p->rows * sizeof *col);
    for (int u = 0; u < count; u++) {
        int w = p->where[use[u].row];
        if (w >= 0) {
            col[w] += use[u].amount;
            continue;
        }
        const double *from = p->d[-1 - w];
        for (int i = 0; i < p->rows; i++)
            col[i] += use[u].amount * from[i];
        gain += use[u].amount * p->gain[-1 - w];
    }
    p->gain[at] = gain;
    p->nonbasic[at] = p->rows + id;
    p->where[p->rows + id] = -1 - at;
}

/* Row that limits the growth of non-basic j, -1: none. Among equals the largest pivot. */
static int ratio_test(const struct ap_packing *p, int j)
{
    const double *col = p->d[j];
    double least = INFINITY;
    int row = -1;
    for (int i = 0; i < p->rows; i++)
        if (col[i] > PIVOT_LEAST) {
            double ratio = p->b[i] / col[i];
            if (ratio < least || (ratio == least && col[i] > col[row])) {
                least = ratio;
                row = i;
            }
        }
    return row;
}

static void pivot(struct ap_packing *p, int row, int j)
{
    double *restrict col = p->d[j];
    double lead = col[row], step = p->b[row] / lead;
    for (int i = 0; i < p->rows; i++) {
        p->b[i] -= step * col[i];
        if (p->b[i] < 0)
            p->b[i] = 0;
    }
    p->b[row] = step;
    for (int k = 0; k < p->columns; k++) {
        double *restrict other = p->d[k];
        if (k == j || other[row] == 0)
            continue;
        double f = other[row] / lead;
        p->subtract(other, col, f, p->rows);
        other[row] = f;
        p->gain[k] -= p->gain[j] * f;
    }
    p->value += p->gain[j] * step;
    p->gain[j] /= -lead;
    for (int i = 0; i < p->rows; i++)
        col[i] /= -lead;
    col[row] = 1 / lead;
    int out = p->basic[row], in = p->nonbasic[j];
    p->basic[row] = in;
    p->where[in] = row;
    p->nonbasic[j] = out;
    p->where[out] = -1 - j;
}

int ap_packing_solve(struct ap_packing *p, int max_pivots)
{
    int done = 0;
    for (; done < max_pivots; done++) {
        int best = -1;
        for (int j = 0; j < p->columns; j++)
            if (p->gain[j] > GAIN_LEAST && (best < 0 || p->gain[j] > p->gain[best]))
                best = j;
        if (best < 0)
            break;
        int row = ratio_test(p, best);
        if (row < 0) { /* a gain without a limit is rounding: nothing uses no resource */
            p->gain[best] = 0;
            continue;
        }
        pivot(p, row, best);
    }
    return done;
}

double ap_packing_value(const struct ap_packing *p)
{
    return p->value;
}

double ap_packing_rate(const struct ap_packing *p, int id)
{
    int w = p->where[p->rows + id];
    return w >= 0 ? p->b[w] : 0;
}

double ap_packing_reduced(const struct ap_packing *p, int id)
{
    int w = p->where[p->rows + id];
    return w >= 0 ? 0 : p->gain[-1 - w];
}

void ap_packing_prices(const struct ap_packing *p, double *price)
{
    for (int i = 0; i < p->rows; i++) {
        int w = p->where[i];
        price[i] = w >= 0 || p->gain[-1 - w] > 0 ? 0 : -p->gain[-1 - w];
    }
}

/* Forget a non-basic column: the last one takes its place. */
static void forget(struct ap_packing *p, int j)
{
    int last = p->columns - 1;
    double *freed = p->d[j];
    p->d[j] = p->d[last];
    p->d[last] = freed;
    p->gain[j] = p->gain[last];
    p->nonbasic[j] = p->nonbasic[last];
    p->where[p->nonbasic[j]] = -1 - j;
    p->columns--;
}

int ap_packing_remove(struct ap_packing *p, int id, int max_pivots)
{
    int row = p->where[p->rows + id], done = 0;
    if (row >= 0) {
        /* At such a loss per unit it leaves the basis in the next optimum. */
        p->value -= LOSS * p->b[row];
        for (int j = 0; j < p->columns; j++)
            p->gain[j] += LOSS * p->d[j][row];
        done = ap_packing_solve(p, max_pivots);
    }
    if (p->where[p->rows + id] < 0)
        forget(p, -1 - p->where[p->rows + id]);
    return done;
}
