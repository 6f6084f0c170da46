/* SPDX-License-Identifier: Apache-2.0
 * Learning-rate schedules at hand-computed points, and their limits. */
#include "config.h"

#include <math.h>
#include <criterion/criterion.h>

#include "../support/leaks.h"
#include "train/schedule.h"

TestSuite(schedule, .timeout = 120);

static struct ap_job job(int kind)
{
    struct ap_job j = {.train_steps = 100};
    j.optim.lr = 1e-3;
    j.optim.min_lr_ratio = 0.1;
    j.optim.schedule = kind;
    j.optim.warmup_steps = 10;
    j.optim.decay_steps = 20;
    j.optim.step_factor = 0.316;
    j.optim.milestones[0] = 0.6;
    j.optim.milestones[1] = 0.9;
    j.optim.milestone_count = 2;
    return j;
}

#define EXPECT_LR(j, step, want)                                                                                       \
    cr_expect_float_eq(ap_schedule_lr(&(j), step), want, 1e-12, "step %d: %g", (int)(step), ap_schedule_lr(&(j), step))

AP_TEST(schedule, warmup_is_linear_and_reaches_the_peak)
{
    for (int kind = AP_SCHED_CONSTANT; kind <= AP_SCHED_STEP; kind++) {
        struct ap_job j = job(kind);
        EXPECT_LR(j, 1, 1e-4);
        EXPECT_LR(j, 5, 5e-4);
        EXPECT_LR(j, 10, 1e-3);
        j.optim.warmup_steps = 0;
        cr_expect(ap_schedule_lr(&j, 1) > 0.99e-3);
    }
}

AP_TEST(schedule, constant)
{
    struct ap_job j = job(AP_SCHED_CONSTANT);
    EXPECT_LR(j, 11, 1e-3);
    EXPECT_LR(j, 100, 1e-3);
}

AP_TEST(schedule, cosine)
{
    struct ap_job j = job(AP_SCHED_COSINE);
    EXPECT_LR(j, 55, 5.5e-4);
    EXPECT_LR(j, 100, 1e-4);
    EXPECT_LR(j, 40, 1e-4 + 9e-4 * 0.5 * (1 + 0.5)); /* a third of the way: cos(60 degrees) */
    EXPECT_LR(j, 150, 1e-4);
    j.train_steps = 5; /* warm-up longer than the run */
    EXPECT_LR(j, 5, 5e-4);
}

AP_TEST(schedule, wsd)
{
    struct ap_job j = job(AP_SCHED_WSD);
    EXPECT_LR(j, 80, 1e-3);
    EXPECT_LR(j, 90, 5.5e-4);
    EXPECT_LR(j, 100, 1e-4);
    j.optim.decay_steps = 0;
    EXPECT_LR(j, 100, 1e-3);
}

AP_TEST(schedule, step)
{
    struct ap_job j = job(AP_SCHED_STEP);
    EXPECT_LR(j, 60, 1e-3);
    EXPECT_LR(j, 61, 3.16e-4);
    EXPECT_LR(j, 90, 3.16e-4);
    EXPECT_LR(j, 91, 3.16e-4 * 0.316);
}

AP_TEST(schedule, bias_rate_stops)
{
    struct ap_job j = job(AP_SCHED_CONSTANT);
    j.loss.bias_rate = 0.001;
    j.loss.bias_stop = 0.9;
    cr_expect_eq(ap_schedule_bias_rate(&j, 90), 0.001);
    cr_expect_eq(ap_schedule_bias_rate(&j, 91), 0);
    j.loss.bias_stop = 1;
    cr_expect_eq(ap_schedule_bias_rate(&j, 100), 0.001);
}
