/* SPDX-License-Identifier: Apache-2.0
 * Check of a folder of reference numbers: config.json, model.safetensors, tokens.npy, logits.npy,
 * token_loss.npy, loss.json, grads.safetensors, weights_step5.safetensors, routing.npy (docs/formats.md).
 * Any model shape; not collective. */
#ifndef AP_TRAIN_GOLDEN_H
#define AP_TRAIN_GOLDEN_H

#include "backend/backend.h"
#include "base/status.h"

enum ap_golden_quantity {
    AP_GOLDEN_LOGITS,       /* max abs */
    AP_GOLDEN_LOGITS_RMS,   /* over all */
    AP_GOLDEN_TOKEN_LOSS,   /* max abs */
    AP_GOLDEN_LOSS,         /* abs */
    AP_GOLDEN_GRAD_ALL,     /* norm of the difference / norm, of all gradients as one vector */
    AP_GOLDEN_GRAD_NORM,    /* per tensor: norm of difference / norm */
    AP_GOLDEN_GRAD_MAX,     /* per tensor: max abs difference / max abs */
    AP_GOLDEN_TRAIN_LOSS,   /* max abs over the training losses */
    AP_GOLDEN_WEIGHT_RMS,   /* after the optimizer steps, over all elements */
    AP_GOLDEN_WEIGHT_COUNT, /* elements off by more than 1e-5 (bf16: 2e-3) */
    AP_GOLDEN_WEIGHT_MAX,   /* max abs */
    AP_GOLDEN_ROUTING,      /* chosen experts that differ */
    AP_GOLDEN_COUNT
};

struct ap_golden_report {
    double worst[AP_GOLDEN_COUNT], limit[AP_GOLDEN_COUNT];
    char where[AP_GOLDEN_COUNT][160]; /* tensor or place of the worst difference */
    int passed;
};

const char *ap_golden_quantity_name(enum ap_golden_quantity q);
/* Compute everything with this backend in dtype f32, f64 or bf16 and compare; f64 is held to the limits of f32, bf16
 * to its own. AP_OK also when values differ:
 * look at report->passed. Errors: AP_ERR_INPUT for missing or inconsistent files. */
ap_status ap_golden_check(const char *dir, struct ap_backend *be, ap_dtype dtype, struct ap_golden_report *report,
                          struct ap_error *err);

#endif
