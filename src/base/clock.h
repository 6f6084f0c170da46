/* SPDX-License-Identifier: Apache-2.0
 * Time. Nothing that decides the bits of a run may read a clock (see docs/architecture.md). */
#ifndef AP_BASE_CLOCK_H
#define AP_BASE_CLOCK_H

/* Seconds, monotonic, for durations. */
double ap_clock_monotonic(void);
/* Seconds since 1970, for stamps. */
double ap_clock_wall(void);
/* "2026-01-31T12:00:00.123Z" for a wall time into buf (at least 32 bytes). */
void ap_clock_iso(double wall, char *buf);

#endif
