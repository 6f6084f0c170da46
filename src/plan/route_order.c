/* SPDX-License-Identifier: Apache-2.0
 * Cheapest Hamiltonian path: Held and Karp's dynamic programme for few points, nearest neighbour with 2-opt beyond. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/route_order.h"

double ap_route_length(int n, const double *cost, const int *order)
{
    double sum = 0;
    for (int i = 0; i + 1 < n; i++)
        sum += cost[order[i] * n + order[i + 1]];
    return sum;
}

/* best[set * n + last]: the cheapest path through set that ends in last; from: the point before last on it. */
static ap_status exact(int n, const double *cost, int *order)
{
    size_t sets = (size_t)1 << n, cells = sets * (size_t)n;
    double *best = malloc(cells * sizeof *best);
    signed char *from = malloc(cells);
    if (best == NULL || from == NULL) {
        free(best);
        free(from);
        return AP_ERR_NOMEM;
    }
    for (size_t i = 0; i < cells; i++)
        best[i] = INFINITY;
    for (int i = 0; i < n; i++)
        best[((size_t)1 << i) * (size_t)n + (size_t)i] = 0;
    for (size_t set = 1; set < sets; set++)
        for (int last = 0; last < n; last++) {
            double so_far = best[set * (size_t)n + (size_t)last];
            if (!isfinite(so_far))
                continue;
            for (int next = 0; next < n; next++) {
                size_t to = (set | (size_t)1 << next) * (size_t)n + (size_t)next;
                double length = so_far + cost[last * n + next];
                if (!(set >> next & 1) && length < best[to]) {
                    best[to] = length;
                    from[to] = (signed char)last;
                }
            }
        }
    size_t set = sets - 1;
    int last = 0;
    for (int i = 1; i < n; i++)
        if (best[set * (size_t)n + (size_t)i] < best[set * (size_t)n + (size_t)last])
            last = i;
    for (int at = n - 1; at >= 0; at--) {
        int before = from[set * (size_t)n + (size_t)last];
        order[at] = last;
        set &= ~((size_t)1 << last);
        last = before;
    }
    free(best);
    free(from);
    return AP_OK;
}

static void nearest_from(int n, const double *cost, int start, int *order, char *used)
{
    memset(used, 0, (size_t)n);
    order[0] = start;
    used[start] = 1;
    for (int at = 1; at < n; at++) {
        int next = -1;
        for (int i = 0; i < n; i++)
            if (!used[i] && (next < 0 || cost[order[at - 1] * n + i] < cost[order[at - 1] * n + next]))
                next = i;
        order[at] = next;
        used[next] = 1;
    }
}

static void reverse(int *order, int i, int j)
{
    for (; i < j; i++, j--) {
        int t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

/* Reversals of a stretch, as long as they shorten the path; directed costs are counted anew along the stretch. */
static void two_opt(int n, const double *cost, int *order)
{
    int rounds = n <= 64 ? 20 : n <= 256 ? 4 : 1, reach = n <= 256 ? n : 32;
    for (int round = 0, better = 1; better && round < rounds; round++) {
        better = 0;
        for (int i = 0; i < n - 1; i++) {
            double forth = 0, back = 0;
            for (int j = i + 1; j < n && j - i <= reach; j++) {
                forth += cost[order[j - 1] * n + order[j]];
                back += cost[order[j] * n + order[j - 1]];
                double now = forth, then = back;
                if (i > 0) {
                    now += cost[order[i - 1] * n + order[i]];
                    then += cost[order[i - 1] * n + order[j]];
                }
                if (j + 1 < n) {
                    now += cost[order[j] * n + order[j + 1]];
                    then += cost[order[i] * n + order[j + 1]];
                }
                if (then < now * (1 - 1e-12)) {
                    reverse(order, i, j);
                    better = 1;
                    break;
                }
            }
        }
    }
}

ap_status ap_route_order(int n, const double *cost, int *order)
{
    if (n <= 2) {
        for (int i = 0; i < n; i++)
            order[i] = i;
        if (n == 2 && cost[2] < cost[1])
            reverse(order, 0, 1);
        return AP_OK;
    }
    if (n <= AP_ROUTE_EXACT)
        return exact(n, cost, order);
    int *mine = malloc((size_t)n * sizeof *mine), starts = n <= 64 ? n : n <= 512 ? 8 : 1;
    char *used = malloc((size_t)n);
    double best = INFINITY;
    for (int s = 0; mine != NULL && used != NULL && s < starts; s++) {
        nearest_from(n, cost, (int)((int64_t)s * n / starts), mine, used);
        two_opt(n, cost, mine);
        double length = ap_route_length(n, cost, mine);
        if (s == 0 || length < best) {
            best = length;
            memcpy(order, mine, (size_t)n * sizeof *order);
        }
    }
    ap_status status = mine != NULL && used != NULL ? AP_OK : AP_ERR_NOMEM;
    free(mine);
    free(used);
    return status;
}
