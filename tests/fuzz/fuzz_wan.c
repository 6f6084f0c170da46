/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: the table of links. An accepted one joins all sites by finite positive rates; a refused one says why. */
#include "config.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "plan/wan_matrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ap_wan *w;
    struct ap_error err = {0};
    int from, to;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    ap_status status = ap_wan_parse(text, size, "x.csv", &w, &err);
    free(text);
    if (status != AP_OK) {
        if (err.text[0] == '\0')
            abort();
        return 0;
    }
    if (w->n < 2 || w->n > AP_WAN_MAX_SITES || ap_wan_disconnected(w, &from, &to))
        abort();
    for (int e = 0; e < w->n * w->n; e++)
        if (!(w->rate[e] >= 0 && w->rate[e] <= 1e6) || w->rtt[e] < 0 || (w->rate[e] == 0 && isfinite(w->rtt[e])))
            abort();
    ap_wan_destroy(w);
    return 0;
}
