/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: topology.csv and matrices between sites. Whatever the bytes, the answer is one error with a text, or a
 * machine that, written out, is read back to the same text. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "plan/topology.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 1: a machine. */
static int judge(ap_status status, const struct ap_error *err, const struct ap_topology *t)
{
    if (status == AP_OK)
        return 1;
    if (t != NULL || err->status != status || err->text[0] == '\0')
        abort();
    return 0;
}

static void check(struct ap_topology *t)
{
    struct ap_topology *again = NULL;
    struct ap_error err = {0};
    char *first = ap_topology_csv(t);
    if (first == NULL || ap_topology_parse("t.csv", first, strlen(first), &again, &err) != AP_OK)
        abort();
    char *second = ap_topology_csv(again);
    if (second == NULL || strcmp(first, second) != 0 || again->rank_count != t->rank_count)
        abort();
    free(first);
    free(second);
    ap_topology_destroy(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct ap_topo_shape shape = {1, 2, {0, "any", 1e9, 1e9, 1e9}, {1e-6, 1e9}, {1e-5, 1e9}};
    struct ap_topology *t = NULL;
    struct ap_error err = {0};
    if (judge(ap_topology_parse("t.csv", (const char *)data, size, &t, &err), &err, t))
        check(t);
    ap_topology_destroy(t);
    t = NULL;
    if (judge(ap_topology_from_wan("w.csv", (const char *)data, size, &shape, &t, &err), &err, t))
        check(t);
    ap_topology_destroy(t);
    return 0;
}
