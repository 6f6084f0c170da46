/* SPDX-License-Identifier: Apache-2.0
 * Square tables as pictures: SVG heat maps, colours by the logarithm of the value, numbers in the cells where they fit.
 * One file without scripts, fonts or references. Pure text. */
#ifndef AP_PROBE_HEAT_MAP_H
#define AP_PROBE_HEAT_MAP_H

struct ap_heat_map {
    const char *title, *unit;
    const double *values; /* [n * n], row: from, column: to; NaN or 0 and below: empty */
    int low_is_good;      /* good is dark */
};

/* Panels side by side over the same n labels (any text); title and note stand above. malloc'ed, NULL: out of memory. */
char *ap_heat_map_svg(const char *title, const char *note, int n, const char *const *labels,
                      const struct ap_heat_map *maps, int map_count);

#endif
