/* SPDX-License-Identifier: Apache-2.0
 * The line of a step, for the file and for the console. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "monitor/jsonl.h"
#include "monitor/metrics.h"

struct ap_metrics_file {
    struct ap_jsonl *file;
    struct ap_json line;
};

ap_status ap_metrics_open(const char *path, int64_t last_step, struct ap_metrics_file **f_p, struct ap_error *err)
{
    AP_TRY(ap_jsonl_trim(path, last_step, NULL, err));
    struct ap_metrics_file *f = calloc(1, sizeof(*f));
    if (!f)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    ap_status st = ap_jsonl_open(path, &f->file, err);
    if (st != AP_OK) {
        free(f);
        return st;
    }
    *f_p = f;
    return AP_OK;
}

void ap_metrics_close(struct ap_metrics_file *f)
{
    if (!f)
        return;
    ap_jsonl_close(f->file);
    ap_strbuf_clear(&f->line.text);
    free(f);
}

ap_status ap_metrics_write(struct ap_metrics_file *f, const struct ap_metrics *m, int durable, struct ap_error *err)
{
    struct ap_json *j = &f->line;
    ap_json_begin_object(j, NULL);
    ap_json_int(j, "v", AP_METRICS_VERSION);
    ap_json_int(j, "step", m->step);
    ap_json_real(j, "loss", m->loss);
    ap_json_real(j, "mtp_loss", m->mtp_loss);
    ap_json_real(j, "balance_loss", m->balance_loss);
    ap_json_real(j, "grad_norm", m->grad_norm);
    ap_json_real(j, "loss_z", m->loss_z);
    ap_json_real(j, "norm_z", m->norm_z);
    ap_json_real(j, "lr", m->lr);
    ap_json_int(j, "tokens", m->tokens);
    ap_json_int(j, "skipped", m->skipped);
    ap_json_real(j, "load_max", m->load_max);
    if (isfinite(m->valid_loss))
        ap_json_real(j, "valid_loss", m->valid_loss);
    ap_json_real(j, "tokens_per_s", m->tokens_per_s);
    ap_json_real(j, "step_ms", m->step_ms);
    ap_json_real(j, "compute_ms", m->compute_ms);
    ap_json_real(j, "lan_ms", m->lan_ms);
    ap_json_real(j, "ckpt_ms", m->ckpt_ms);
    ap_json_real(j, "data_ms", m->data_ms);
    ap_json_real(j, "eval_ms", m->eval_ms);
    ap_json_real(j, "mfu", m->mfu);
    ap_json_int(j, "memory", m->memory);
    ap_json_int(j, "ranks", m->ranks);
    ap_json_end_object(j);
    return ap_jsonl_append(f->file, j, durable, err);
}

void ap_metrics_duration(double seconds, char *buf, size_t size)
{
    if (!(seconds >= 0) || seconds > 1e9) {
        snprintf(buf, size, "?");
        return;
    }
    long long s = (long long)(seconds + 0.5);
    if (s < 60)
        snprintf(buf, size, "%llds", s);
    else if (s < 3600)
        snprintf(buf, size, "%lldm%02llds", s / 60, s % 60);
    else if (s < 86400)
        snprintf(buf, size, "%lldh%02lldm", s / 3600, s % 3600 / 60);
    else
        snprintf(buf, size, "%lldd%02lldh", s / 86400, s % 86400 / 3600);
}

/* " (+0.12z)", or nothing while there is too little history. */
static void z_text(double z, char *buf, size_t size)
{
    if (isfinite(z))
        snprintf(buf, size, " (%+.2fz)", z);
    else
        snprintf(buf, size, "%s", "");
}

void ap_metrics_console(const struct ap_metrics *m, int64_t steps, double eta_s, char *buf, size_t size)
{
    char lz[24], nz[24], eta[24], mfu[24] = "-";
    z_text(m->loss_z, lz, sizeof(lz));
    z_text(m->norm_z, nz, sizeof(nz));
    ap_metrics_duration(eta_s, eta, sizeof(eta));
    if (isfinite(m->mfu))
        snprintf(mfu, sizeof(mfu), "%.1f%%", 100 * m->mfu);
    snprintf(buf, size,
             "step %lld/%lld | loss %.4f%s | norm %.3g%s | lr %.2e | %.1f ms | %.0f tok/s | mfu %s | mem %lld MiB | "
             "eta %s | skipped %lld",
             (long long)m->step, (long long)steps, m->loss, lz, m->grad_norm, nz, m->lr, m->step_ms, m->tokens_per_s,
             mfu, (long long)(m->memory >> 20), eta, (long long)m->skipped);
}
