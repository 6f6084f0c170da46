/* SPDX-License-Identifier: Apache-2.0
 * Learning-rate schedules. */
#include "config.h"

#include <math.h>

#include "train/schedule.h"

static double cosine(const struct ap_job *job, int64_t step)
{
    int64_t warm = job->optim.warmup_steps, span = job->train_steps - warm;
    if (span <= 0)
        return job->optim.lr;
    double x = (double)(step - warm) / (double)span;
    x = x > 1 ? 1 : x;
    double low = job->optim.lr * job->optim.min_lr_ratio;
    return low + (job->optim.lr - low) * 0.5 * (1 + cos(acos(-1.0) * x));
}

static double wsd(const struct ap_job *job, int64_t step)
{
    int64_t begin = job->train_steps - job->optim.decay_steps;
    if (step <= begin || job->optim.decay_steps <= 0)
        return job->optim.lr;
    double x = (double)(step - begin) / (double)job->optim.decay_steps;
    x = x > 1 ? 1 : x;
    return job->optim.lr * (1 - (1 - job->optim.min_lr_ratio) * x);
}

static double milestones(const struct ap_job *job, int64_t step)
{
    double lr = job->optim.lr;
    for (int i = 0; i < job->optim.milestone_count; i++)
        if ((double)step > job->optim.milestones[i] * (double)job->train_steps)
            lr *= job->optim.step_factor;
    return lr;
}

double ap_schedule_lr(const struct ap_job *job, int64_t step)
{
    if (step <= job->optim.warmup_steps)
        return job->optim.lr * (double)step / (double)job->optim.warmup_steps;
    switch (job->optim.schedule) {
    case AP_SCHED_COSINE:
        return cosine(job, step);
    case AP_SCHED_WSD:
        return wsd(job, step);
    case AP_SCHED_STEP:
        return milestones(job, step);
    default:
        return job->optim.lr;
    }
}

double ap_schedule_bias_rate(const struct ap_job *job, int64_t step)
{
    return (double)step <= job->loss.bias_stop * (double)job->train_steps ? job->loss.bias_rate : 0;
}
