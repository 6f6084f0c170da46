/* SPDX-License-Identifier: Apache-2.0
 * The restricted master of a packing: maximise sum x_k subject to sum_k use_ek x_k <= capacity_e, x >= 0, where columns
 * come and go.
 *
 * Primal simplex on a dictionary (Chvatal 1983): there are many rows and few columns, so the part of the inverse basis
 * that is not the identity has one column for each non-basic variable, of which there are as many as columns in the
 * problem. The same dictionary gives a new column's image without a factorisation. Capacities are shifted by up to one
 * part in 10^7, each by its own amount, so that no two rows become tight at once (degenerate problems could cycle);
 * callers take rates and prices as hints and check both against the true capacities. */
#ifndef AP_PLAN_PACKING_LP_H
#define AP_PLAN_PACKING_LP_H

#include "base/status.h"

struct ap_packing;

/* One use of a resource by a column. */
struct ap_packing_use {
    int row;
    double amount; /* > 0 */
};

/* capacity: rows of them, > 0, copied. At most max_columns columns at a time. AP_ERR_NOMEM. */
ap_status ap_packing_create(int rows, const double *capacity, int max_columns, struct ap_packing **p_p);
void ap_packing_destroy(struct ap_packing *p);
/* Add a column under an id of the caller, 0 <= id < max_columns, not in use. */
void ap_packing_add(struct ap_packing *p, int id, const struct ap_packing_use *use, int count);
/* Optimise from where it stands; at most max_pivots pivots. Returns those done. */
int ap_packing_solve(struct ap_packing *p, int max_pivots);
double ap_packing_value(const struct ap_packing *p);
/* x of a column; its reduced cost (<= 0 when optimal, 0 when in use). */
double ap_packing_rate(const struct ap_packing *p, int id);
double ap_packing_reduced(const struct ap_packing *p, int id);
/* Dual prices of the rows, >= 0, into price (rows of them). */
void ap_packing_prices(const struct ap_packing *p, double *price);
/* Remove a column and optimise again without it; at most max_pivots pivots, which are returned. */
int ap_packing_remove(struct ap_packing *p, int id, int max_pivots);

#endif
