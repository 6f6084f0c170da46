/* SPDX-License-Identifier: Apache-2.0
 * Clocks. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"

static double read_clock(clockid_t id)
{
    struct timespec t = {0, 0};
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double ap_clock_monotonic(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

double ap_clock_wall(void)
{
    return read_clock(CLOCK_REALTIME);
}

void ap_clock_iso(double wall, char *buf)
{
    /* Round to milliseconds before splitting, so that .9996 becomes the next second and not .1000. */
    double ms = floor(wall * 1000.0 + 0.5);
    time_t sec = (time_t)floor(ms / 1000.0);
    int milli = (int)(ms - 1000.0 * (double)sec);
    struct tm tm;
    if (gmtime_r(&sec, &tm) == NULL) {
        snprintf(buf, 32, "invalid time");
        return;
    }
    size_t n = strftime(buf, 24, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buf + n, 32 - n, ".%03dZ", milli);
}
