/* SPDX-License-Identifier: Apache-2.0
 * metrics.jsonl: one line per committed step. Format version 1: docs/formats.md. Written by one rank. */
#ifndef AP_MONITOR_METRICS_H
#define AP_MONITOR_METRICS_H

#include <stdint.h>
#include "base/status.h"

#define AP_METRICS_VERSION 1

/* Values that do not exist at a step are NaN and stand as null in the line (valid_loss: left out). The first
 * block is a function of the state alone: the same for any number of ranks and after any resume. */
struct ap_metrics {
    int64_t step;
    double loss; /* mean cross-entropy per target of the global batch, nats */
    double mtp_loss, balance_loss;
    double grad_norm;      /* before clipping */
    double loss_z, norm_z; /* in standard deviations of the recent steps */
    double lr;
    int64_t tokens;  /* since the first step of the run */
    int64_t skipped; /* steps skipped so far because loss or gradient was not finite */
    double load_max; /* largest expert load over the mean load, worst layer */
    double valid_loss;

    double tokens_per_s, step_ms, compute_ms, lan_ms, ckpt_ms, data_ms, eval_ms;
    double mfu;     /* fraction of the peak, measured or given */
    int64_t memory; /* largest resident size of a rank, bytes */
    int64_t ranks;
};

struct ap_metrics_file;

/* Drop the lines after last_step, then append. */
ap_status ap_metrics_open(const char *path, int64_t last_step, struct ap_metrics_file **f_p, struct ap_error *err);
void ap_metrics_close(struct ap_metrics_file *f); /* NULL is fine */
ap_status ap_metrics_write(struct ap_metrics_file *f, const struct ap_metrics *m, int durable, struct ap_error *err);

/* The console line of a step into buf:
 * "step 10/500 | loss 5.1234 (+0.12z) | norm 1.23 (-0.50z) | lr 3.00e-04 | 123.4 ms | 12345 tok/s | mfu 12.3% |
 *  mem 123 MiB | eta 1m02s | skipped 0". eta_s < 0: unknown. */
void ap_metrics_console(const struct ap_metrics *m, int64_t steps, double eta_s, char *buf, size_t size);
/* "59s", "1m02s", "3h05m", "2d03h" into buf (at least 16 bytes). */
void ap_metrics_duration(double seconds, char *buf, size_t size);

#endif
