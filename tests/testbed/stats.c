/* SPDX-License-Identifier: Apache-2.0
 * The emulator's figures as text, and whether the run may be used. */
#include "config.h"

#include "testbed/emulator.h"

/* A run is to be discarded when a packet was later than this share of its round trip (but not for less than half a
 * millisecond, which no link of a few milliseconds could tell). */
#define LATE_SHARE 0.05
#define LATE_FLOOR 0.5

static void link_line(const struct emulator *e, int s, int d, struct ap_strbuf *out)
{
    const struct ap_link_model *l = ap_link_net_link(e->net, s, d);
    ap_strbuf_addf(out, "link %s %s", e->net->names[s], e->net->names[d]);
    for (int k = 0; k < ap_link_keys_n; k++) {
        ap_strbuf_addf(out, " %s=", ap_link_keys[k].name);
        ap_strbuf_add_double(out, ap_link_params_get(&l->params, k));
    }
    for (int f = 0; f < AP_LINK_FATES; f++)
        ap_strbuf_addf(out, " %s=%llu", ap_link_fate_name(f), (unsigned long long)l->packets[f]);
    ap_strbuf_addf(out, " bytes=%llu late_ms=%.3f\n", (unsigned long long)l->bytes[AP_LINK_PASS],
                   (double)e->late_ns[s * e->net->n + d] * 1e-6);
}

static void cap_line(const struct emulator *e, int site, struct ap_strbuf *out)
{
    const struct ap_link_model *caps[2] = {&e->net->egress[site], &e->net->ingress[site]};
    static const char *const names[2] = {"egress", "ingress"};
    for (int k = 0; k < 2; k++)
        if (caps[k]->params.rate_mbit > 0)
            ap_strbuf_addf(out, "cap %s %s_mbit=%g queue_kb=%.0f passed=%llu queue_full=%llu bytes=%llu\n",
                           e->net->names[site], names[k], caps[k]->params.rate_mbit, caps[k]->params.queue_kb,
                           (unsigned long long)caps[k]->packets[AP_LINK_PASS],
                           (unsigned long long)caps[k]->packets[AP_LINK_QUEUE_FULL],
                           (unsigned long long)caps[k]->bytes[AP_LINK_PASS]);
}

/* Worst lateness as a multiple of what its link allows; where it was. */
static double worst(const struct emulator *e, int *s_p, int *d_p)
{
    double most = -1;
    for (int s = 0; s < e->net->n; s++)
        for (int d = 0; d < e->net->n; d++) {
            double allowed = LATE_SHARE * ap_link_net_rtt_ms(e->net, s, d);
            double share = (double)e->late_ns[s * e->net->n + d] * 1e-6 / (allowed > LATE_FLOOR ? allowed : LATE_FLOOR);
            if (s != d && share > most) {
                most = share;
                *s_p = s;
                *d_p = d;
            }
        }
    return most;
}

void emulator_stats(const struct emulator *e, struct ap_strbuf *out)
{
    int s = 0, d = 1;
    ap_strbuf_addf(out, "emulator seconds=%.1f sites=%d seed=%llu scheduling=%s offload=%d\n",
                   (double)(emulator_now() - e->start_ns) * 1e-9, e->net->n, (unsigned long long)e->net->seed,
                   e->scheduling, e->offload);
    for (int i = 0; i < e->net->n; i++)
        for (int j = 0; j < e->net->n; j++)
            if (i != j)
                link_line(e, i, j, out);
    for (int i = 0; i < e->net->n; i++)
        cap_line(e, i, out);
    ap_strbuf_addf(out, "other on_their_way=%zu stray=%llu refused=%llu no_memory=%llu scenario_left=%d\n", e->heap.n,
                   (unsigned long long)e->stray, (unsigned long long)e->refused, (unsigned long long)e->no_memory,
                   e->scenario.n - e->scenario_next);
    double share = worst(e, &s, &d), rtt = ap_link_net_rtt_ms(e->net, s, d);
    double ms = (double)e->late_ns[s * e->net->n + d] * 1e-6;
    ap_strbuf_addf(out, "lateness worst_ms=%.3f on %s %s of rtt_ms=%.3f\n", ms, e->net->names[s], e->net->names[d],
                   rtt);
    if (share > 1)
        ap_strbuf_addf(out, "verdict discard: a packet was %.3f ms late, more than %g%% of its RTT of %g ms\n", ms,
                       LATE_SHARE * 100, rtt);
    else if (e->no_memory + e->refused > 0)
        ap_strbuf_addf(out, "verdict discard: %llu packets were lost by the emulator itself\n",
                       (unsigned long long)(e->no_memory + e->refused));
    else
        ap_strbuf_add(out, "verdict usable\n");
}
