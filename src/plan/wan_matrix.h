/* SPDX-License-Identifier: Apache-2.0
 * What is known about the links between sites, as a table: read from CSV, measured or published.
 *
 * The file: a header line that names the columns src, dst, rtt_ms, gbit_per_s and, if wanted, egress_usd_per_gb, in any
 * order; then one line for each link. Lines that are blank or begin with # are skipped. rtt_ms may be blank: unknown.
 * If no pair of sites stands in the file in both directions, every line holds for both; otherwise each line is the
 * direction src -> dst alone, and a direction without a line is no link. Names have no commas or quotes in them. Sites
 * are numbered in the order in which they appear. docs/formats-wan.md. */
#ifndef AP_PLAN_WAN_MATRIX_H
#define AP_PLAN_WAN_MATRIX_H

#include "base/status.h"

#define AP_WAN_MAX_SITES 128
#define AP_WAN_NAME_SIZE 64

/* Matrices are [n * n], entry i * n + j is the direction i -> j. */
struct ap_wan {
    int n;
    int directed;                    /* lines were single directions */
    char (*names)[AP_WAN_NAME_SIZE]; /* [n] */
    double *rate;                    /* Gbit/s, 0: no link */
    double *rtt;                     /* ms, NaN: unknown or no link */
    double *usd;                     /* per GB that leaves, NaN: unknown */
};

/* n sites "s0", "s1", ... without links. *wan_p is to be freed with destroy. */
ap_status ap_wan_create(int n, struct ap_wan **wan_p);
/* The file at path, or text in memory (size bytes at data and a NUL behind
 * them, file is the name in messages). At least two sites; every
 * site reaches every other. AP_ERR_INPUT with file, line, column and the fix. */
ap_status ap_wan_load(const char *path, struct ap_wan **wan_p, struct ap_error *err);
ap_status ap_wan_parse(const char *data, size_t size, const char *file, struct ap_wan **wan_p, struct ap_error *err);
void ap_wan_destroy(struct ap_wan *wan);
/* Sites that cannot be reached: 0 if each reaches each, else 1 with *from_p and *to_p a pair without a path. */
int ap_wan_disconnected(const struct ap_wan *wan, int *from_p, int *to_p);

#endif
