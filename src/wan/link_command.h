/* SPDX-License-Identifier: Apache-2.0
 * The language that changes links while they run, and scenario files: the same commands, each with its time.
 *
 *     set SRC DST key=value...    parameters of a link (keys of ap_link_params)
 *     cut A B | heal A B          both directions down, up
 *     cut-oneway SRC DST          one direction down; heal-oneway SRC DST
 *     spike SRC DST MS SECONDS    packets that enter SRC -> DST in the next SECONDS are MS later
 *     cap SITE key=value...       egress_mbit, ingress_mbit: of all that leaves or enters the site; 0: no cap
 *
 * A site is a name of the matrix or * (every site). A scenario has one command a line, "SECONDS COMMAND", times not
 * decreasing; blank lines and what follows # are skipped. Pure but for ap_link_scenario_read. */
#ifndef AP_WAN_LINK_COMMAND_H
#define AP_WAN_LINK_COMMAND_H

#include "wan/link_net.h"

enum ap_link_verb {
    AP_LINK_SET,
    AP_LINK_CUT,
    AP_LINK_HEAL,
    AP_LINK_CUT_ONEWAY,
    AP_LINK_HEAL_ONEWAY,
    AP_LINK_SPIKE,
    AP_LINK_CAP
};

struct ap_link_command {
    enum ap_link_verb verb;
    int src, dst;                 /* -1: every site; cap: src alone */
    unsigned mask;                /* set: bit k stands for key k; cap: bit 0 for egress, 1 for ingress */
    struct ap_link_params values; /* set */
    double ms, seconds;           /* spike */
    double cap[2];                /* cap: Mbit/s of egress, ingress */
    int64_t at_ns;                /* scenario: time since its start */
};

/* Parse one line; err has the column (line 0, no file) and the nearest word as hint. net gives the names only. */
ap_status ap_link_command_parse(const struct ap_link_net *net, const char *text, struct ap_link_command *c_p,
                                struct ap_error *err);
/* Do it, on every link it names or, where one of them cannot take the values, on none. */
ap_status ap_link_command_apply(struct ap_link_net *net, const struct ap_link_command *c, int64_t now_ns,
                                struct ap_error *err);

struct ap_link_scenario {
    struct ap_link_command *commands; /* sorted by at_ns */
    int n;
};
/* Owned by the caller: ap_link_scenario_clear. Errors have file, line and column. */
ap_status ap_link_scenario_parse(const struct ap_link_net *net, const char *text, const char *name,
                                 struct ap_link_scenario *scenario_p, struct ap_error *err);
ap_status ap_link_scenario_read(const struct ap_link_net *net, const char *path, struct ap_link_scenario *scenario_p,
                                struct ap_error *err);
void ap_link_scenario_clear(struct ap_link_scenario *scenario);

#endif
