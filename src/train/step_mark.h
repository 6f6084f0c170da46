/* SPDX-License-Identifier: Apache-2.0
 * Where steps begin and end, for tools that are preloaded into a run (a profiler that starts with step 100, a count of
 * allocations): a tool that defines the function AP_STEP_MARK_SYMBOL is told. Looked up once; without a tool a step
 * costs one test of a pointer. */
#ifndef AP_TRAIN_STEP_MARK_H
#define AP_TRAIN_STEP_MARK_H

#include <stdint.h>

#define AP_STEP_MARK_SYMBOL "antipode_step_mark"

/* Before (end = 0) and after (end = 1) step number `step`, by the thread that runs it. What belongs to the step is
 * everything up to its line of metrics; evaluation and checkpoint are in it where they are due. */
typedef void ap_step_mark(int64_t step, int end);

/* NULL: no tool is there. */
ap_step_mark *ap_step_mark_find(void);

#endif
