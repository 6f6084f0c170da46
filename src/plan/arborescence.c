/* SPDX-License-Identifier: Apache-2.0
 * Chu-Liu/Edmonds by path growing on a dense graph. Nodes 0..n-1 are vertices, the following ones are contracted
 * cycles; node x is entered by the edge (tail, head) of original vertices, its cheapest one when it was the top of
 * the path. Each node has a row: for every vertex outside of it the cheapest edge from there, as cost minus what the
 * contractions inside took off. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan/arborescence.h"

struct ap_arbo {
    int n, nodes, root_node;
    int *top;            /* [n] the node that holds a vertex now */
    int *up;             /* [2n] the cycle that a node went into, -1: none */
    int *child, *next;   /* [2n] nodes of a cycle as a list, -1 ends it */
    int *tail, *head;    /* [2n] the edge that enters a node */
    int *place;          /* [2n] position on the path, -1: not there */
    int *path, *pending; /* [2n] */
    double *taken;       /* [2n] reduced cost of that edge */
    double *row;         /* [2n][n] */
    int *row_head;       /* [2n][n] head vertex of the edge behind row */
    const double *cost;  /* borrowed from contract until unpack */
    int transpose;
};

ap_status ap_arbo_create(int n, struct ap_arbo **a_p)
{
    size_t two = 2 * (size_t)n;
    struct ap_arbo *a = calloc(1, sizeof *a);
    if (a == NULL)
        return AP_ERR_NOMEM;
    a->n = n;
    a->top = malloc((size_t)n * sizeof *a->top);
    a->up = malloc(8 * two * sizeof *a->up);
    a->taken = malloc(two * sizeof *a->taken);
    a->row = malloc(two * (size_t)n * sizeof *a->row);
    a->row_head = malloc(two * (size_t)n * sizeof *a->row_head);
    if (a->top == NULL || a->up == NULL || a->taken == NULL || a->row == NULL || a->row_head == NULL) {
        ap_arbo_destroy(a);
        return AP_ERR_NOMEM;
    }
    a->child = a->up + two;
    a->next = a->child + two;
    a->tail = a->next + two;
    a->head = a->tail + two;
    a->place = a->head + two;
    a->path = a->place + two;
    a->pending = a->path + two;
    *a_p = a;
    return AP_OK;
}

void ap_arbo_destroy(struct ap_arbo *a)
{
    if (a == NULL)
        return;
    free(a->top);
    free(a->up);
    free(a->taken);
    free(a->row);
    free(a->row_head);
    free(a);
}

static void start(struct ap_arbo *a, const double *cost, int transpose)
{
    int n = a->n;
    a->cost = cost;
    a->transpose = transpose;
    a->nodes = n;
    for (int v = 0; v < n; v++) {
        a->top[v] = v;
        a->up[v] = a->child[v] = a->next[v] = a->place[v] = -1;
        for (int u = 0; u < n; u++) {
            a->row[v * n + u] = u == v ? INFINITY : transpose ? cost[v * n + u] : cost[u * n + v];
            a->row_head[v * n + u] = v;
        }
    }
}

/* Choose the cheapest edge into node x; the node at its tail, -1 where nothing enters. */
static int enter(struct ap_arbo *a, int x)
{
    int n = a->n, best = -1;
    const double *row = a->row + (size_t)x * n;
    double least = INFINITY;
    for (int u = 0; u < n; u++)
        if (row[u] < least) {
            least = row[u];
            best = u;
        }
    if (best < 0)
        return -1;
    a->tail[x] = best;
    a->head[x] = a->row_head[(size_t)x * n + best];
    a->taken[x] = least;
    return a->top[best];
}

/* Contract the nodes from position at to the end of the path (length of it) into a new one. */
static void contract_cycle(struct ap_arbo *a, int at, int length)
{
    int n = a->n, c = a->nodes++;
    double *row = a->row + (size_t)c * n;
    int *row_head = a->row_head + (size_t)c * n;
    for (int u = 0; u < n; u++)
        row[u] = INFINITY;
    a->child[c] = a->up[c] = a->next[c] = -1;
    for (int i = at; i < length; i++) {
        int x = a->path[i];
        const double *from = a->row + (size_t)x * n;
        const int *from_head = a->row_head + (size_t)x * n;
        for (int u = 0; u < n; u++)
            if (from[u] - a->taken[x] < row[u]) {
                row[u] = from[u] - a->taken[x];
                row_head[u] = from_head[u];
            }
        a->up[x] = c;
        a->next[x] = a->child[c];
        a->child[c] = x;
        a->place[x] = -1;
    }
    for (int u = 0; u < n; u++) {
        int inside = a->up[a->top[u]] == c;
        if (inside) {
            a->top[u] = c;
            row[u] = INFINITY;
        }
    }
    a->path[at] = c;
    a->place[c] = at;
}

int ap_arbo_contract(struct ap_arbo *a, const double *cost, int transpose)
{
    int length = 1;
    start(a, cost, transpose);
    a->path[0] = 0;
    a->place[0] = 0;
    while (a->nodes < 2 * a->n - 1 || length > 1) {
        int x = a->path[length - 1];
        int y = enter(a, x);
        if (y < 0)
            break;
        if (a->place[y] < 0) {
            a->place[y] = length;
            a->path[length++] = y;
        } else {
            int at = a->place[y];
            contract_cycle(a, at, length);
            length = at + 1;
        }
    }
    a->root_node = a->path[0];
    for (int v = 0; v < a->n; v++)
        if (a->top[v] != a->root_node)
            return -1;
    return 0;
}

/* Free the way from vertex v up to below node end: all siblings on it are to be entered by their own edges. */
static int dissolve(struct ap_arbo *a, int v, int end, int count)
{
    for (int x = v; x != end; x = a->up[x])
        for (int s = a->child[a->up[x]]; s >= 0; s = a->next[s])
            if (s != x)
                a->pending[count++] = s;
    return count;
}

double ap_arbo_unpack(struct ap_arbo *a, int root, int *parent)
{
    double total = 0;
    int count = dissolve(a, root, a->root_node, 0);
    parent[root] = -1;
    while (count > 0) {
        int x = a->pending[--count], u = a->tail[x], v = a->head[x];
        parent[v] = u;
        total += a->transpose ? a->cost[v * a->n + u] : a->cost[u * a->n + v];
        count = dissolve(a, v, x, count);
    }
    return total;
}
