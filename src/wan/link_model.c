/* SPDX-License-Identifier: Apache-2.0
 * The table of a link's parameters and the way of one packet through it. */
#include "config.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "wan/link_model.h"

#define FIELD(f) #f, offsetof(struct ap_link_params, f)
const struct ap_link_key ap_link_keys[] = {
    {FIELD(delay_ms), 0, 60000, "least one-way delay, ms"},
    {FIELD(jitter_ms), 0, 60000, "added to the delay, uniform between 0 and this, ms"},
    {FIELD(rate_mbit), 0, 1e6, "rate of the line, 10^6 bit/s; 0: no limit"},
    {FIELD(loss), 0, 1, "fraction of the packets lost"},
    {FIELD(burst), 0, 1e6, "mean length of a run of lost packets; 0: losses are independent"},
    {FIELD(queue_kb), 0, 1e7, "queue in front of the line, 1000 bytes; 0: one round trip, at least 256"},
    {FIELD(reorder), 0, 1, "fraction of the packets that later ones overtake"},
    {FIELD(up), 0, 1, "0: nothing passes"},
};
const int ap_link_keys_n = sizeof ap_link_keys / sizeof ap_link_keys[0];

int ap_link_key_find(const char *name)
{
    for (int i = 0; i < ap_link_keys_n; i++)
        if (strcmp(ap_link_keys[i].name, name) == 0)
            return i;
    return -1;
}

double ap_link_params_get(const struct ap_link_params *p, int key)
{
    double v;
    memcpy(&v, (const char *)p + ap_link_keys[key].offset, sizeof v);
    return v;
}

void ap_link_params_set(struct ap_link_params *p, int key, double value)
{
    memcpy((char *)p + ap_link_keys[key].offset, &value, sizeof value);
}

ap_status ap_link_params_check(const struct ap_link_params *p, struct ap_error *err)
{
    for (int i = 0; i < ap_link_keys_n; i++) {
        double v = ap_link_params_get(p, i);
        if (!(v >= ap_link_keys[i].least && v <= ap_link_keys[i].most))
            return ap_error_set(err, AP_ERR_INPUT, "%s is %g, outside of %g to %g", ap_link_keys[i].name, v,
                                ap_link_keys[i].least, ap_link_keys[i].most);
    }
    if (p->up != 0 && p->up != 1)
        return ap_error_set(err, AP_ERR_INPUT, "up is %g, neither 0 nor 1", p->up);
    if (p->burst > 0 && p->burst < 1)
        return ap_error_set(err, AP_ERR_INPUT, "burst is %g: a run of lost packets has at least one", p->burst);
    /* Entering the bad state must be no more than certain: see gilbert_lost. */
    if (p->burst > 0 && p->loss > p->burst / (1 + p->burst))
        return ap_error_set(err, AP_ERR_INPUT, "runs of %g lost packets cannot make a loss of %g, at most %g", p->burst,
                            p->loss, p->burst / (1 + p->burst));
    return AP_OK;
}

const char *ap_link_fate_name(enum ap_link_fate fate)
{
    static const char *const names[] = {"passed", "down", "queue_full", "lost"};
    return names[fate];
}

void ap_link_model_init(struct ap_link_model *l, const struct ap_link_params *params, uint64_t seed, uint64_t stream)
{
    memset(l, 0, sizeof *l);
    l->params = *params;
    l->seed = seed;
    l->stream = stream;
    l->free_ns = l->last_ns = l->spike_until_ns = INT64_MIN;
}

void ap_link_model_change(struct ap_link_model *l, const struct ap_link_params *params)
{
    l->params = *params;
}

void ap_link_model_spike(struct ap_link_model *l, int64_t now_ns, double ms, double seconds)
{
    l->spike_ns = (int64_t)llround(ms * 1e6);
    l->spike_until_ns = now_ns + (int64_t)llround(seconds * 1e9);
}

double ap_link_queue_bytes(const struct ap_link_params *p)
{
    if (p->queue_kb > 0)
        return p->queue_kb * 1000;
    double round_trip = p->rate_mbit * 1e6 / 8 * 2 * p->delay_ms * 1e-3;
    return fmax(round_trip, 256e3);
}

/* 0 <= u < 1 from 32 random bits. */
static double unit(uint32_t bits)
{
    return bits * 0x1p-32;
}

/* With r the chance to leave the bad state and e that to enter it, runs last 1/r packets and the share of the bad
 * state is e/(e+r): r = 1/burst, e = loss r / (1 - loss). */
static int gilbert_lost(struct ap_link_model *l, double u)
{
    const struct ap_link_params *p = &l->params;
    if (p->loss <= 0) {
        l->bad = 0;
    } else if (p->burst <= 0) {
        l->bad = u < p->loss;
    } else {
        double leave = 1 / p->burst, enter = p->loss < 1 ? p->loss * leave / (1 - p->loss) : 1;
        l->bad = l->bad ? u >= leave : u < enter;
    }
    return l->bad;
}

static enum ap_link_fate count(struct ap_link_model *l, enum ap_link_fate fate, int64_t bytes)
{
    l->packets[fate]++;
    l->bytes[fate] += (uint64_t)bytes;
    return fate;
}

/* When the last bit has left the sender, or -1: the queue is full. A packet always finds room on an idle line. */
static int64_t through_line(struct ap_link_model *l, int64_t now_ns, int64_t bytes)
{
    const struct ap_link_params *p = &l->params;
    if (p->rate_mbit <= 0)
        return now_ns;
    double ns_per_byte = 8e3 / p->rate_mbit, fraction = 0;
    int64_t start = now_ns;
    if (l->free_ns > now_ns) {
        start = l->free_ns;
        fraction = l->free_fraction;
        if ((double)(start - now_ns) / ns_per_byte + (double)bytes > ap_link_queue_bytes(p))
            return -1;
    }
    double time = (double)bytes * ns_per_byte + fraction, whole = floor(time);
    l->free_ns = start + (int64_t)whole;
    l->free_fraction = time - whole;
    return l->free_ns;
}

enum ap_link_fate ap_link_model_send(struct ap_link_model *l, int64_t now_ns, int64_t bytes, int64_t *arrive_ns_p)
{
    const struct ap_link_params *p = &l->params;
    uint32_t bits[4]; /* loss, jitter, reordering */
    ap_rng_bits(l->seed, l->stream, l->number++, bits);
    if (p->up == 0)
        return count(l, AP_LINK_DOWN, bytes);
    int64_t sent = through_line(l, now_ns, bytes);
    if (sent < 0)
        return count(l, AP_LINK_QUEUE_FULL, bytes);
    if (gilbert_lost(l, unit(bits[0])))
        return count(l, AP_LINK_LOST, bytes);
    double ms = p->delay_ms + p->jitter_ms * unit(bits[1]);
    int64_t arrive = sent + (int64_t)llround(ms * 1e6);
    if (now_ns < l->spike_until_ns)
        arrive += l->spike_ns;
    if (arrive < l->last_ns)
        arrive = l->last_ns;
    if (unit(bits[2]) < p->reorder)
        arrive += (int64_t)llround(fmax(p->delay_ms / 4, 1) * 1e6);
    else
        l->last_ns = arrive;
    *arrive_ns_p = arrive;
    return count(l, AP_LINK_PASS, bytes);
}
