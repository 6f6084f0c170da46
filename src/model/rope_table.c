/* SPDX-License-Identifier: Apache-2.0
 * Rotary angles and the softmax scale, with YaRN (Peng et al., arXiv 2309.00071, as the DeepSeek models
 * apply it at every position). */
#include "config.h"

#include <math.h>

#include "model/model_internal.h"

#define PI 3.14159265358979323846

/* The attention temperature of YaRN: 0.1 a ln s + 1, 1 for s <= 1. */
static double mscale(double factor, double a)
{
    return factor <= 1.0 ? 1.0 : 0.1 * a * log(factor) + 1.0;
}

double ap_rope_attn_scale(const struct ap_model_config *cfg)
{
    double scale = 1.0 / sqrt((double)(cfg->nope_dim + cfg->rope_dim));
    if (cfg->yarn.enabled && cfg->yarn.mscale_all_dim != 0.0) {
        double m = mscale(cfg->yarn.factor, cfg->yarn.mscale_all_dim);
        scale *= m * m;
    }
    return scale;
}

/* Dimension at which a full turn takes `rotations` turns over the original context. */
static double correction(const struct ap_model_config *cfg, double rotations)
{
    double d = (double)cfg->rope_dim;
    return d * log((double)cfg->yarn.original_max_position / (2.0 * PI * rotations)) / (2.0 * log(cfg->rope_theta));
}

static double frequency(const struct ap_model_config *cfg, int64_t i)
{
    double f = pow(cfg->rope_theta, -2.0 * (double)i / (double)cfg->rope_dim);
    if (!cfg->yarn.enabled)
        return f;
    double lo = fmax(floor(correction(cfg, cfg->yarn.beta_fast)), 0.0);
    double hi = fmin(ceil(correction(cfg, cfg->yarn.beta_slow)), (double)cfg->rope_dim - 1.0);
    if (lo == hi)
        hi += 0.001;
    double ramp = fmin(fmax(((double)i - lo) / (hi - lo), 0.0), 1.0);
    return f * (1.0 - ramp) + f / cfg->yarn.factor * ramp;
}

void ap_rope_fill(const struct ap_model_config *cfg, int64_t seq_len, double *cos_out, double *sin_out)
{
    int64_t half = cfg->rope_dim / 2;
    double amplitude = 1.0;
    if (cfg->yarn.enabled)
        amplitude = mscale(cfg->yarn.factor, cfg->yarn.mscale) / mscale(cfg->yarn.factor, cfg->yarn.mscale_all_dim);
    for (int64_t i = 0; i < half; i++) {
        double f = frequency(cfg, i);
        for (int64_t t = 0; t < seq_len; t++) {
            cos_out[t * half + i] = amplitude * cos((double)t * f);
            sin_out[t * half + i] = amplitude * sin((double)t * f);
        }
    }
}
