/* SPDX-License-Identifier: Apache-2.0
 * Template: every reference operation for one type. ref_f32.c, ref_f64.c and ref_bf16.c set REF(op), REAL (elements),
 * STAT (statistics), GET (element to double) and PUT (double to element, rounded), and REF_STAT_OPS: whether there are
 * operations whose tensors all are statistics or optimizer state (never bf16). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/adamw_segments.h"
#include "backend/cpu/pairwise.h"
#include "backend/cpu/reference.h"

#include "backend/cpu/ref_gemm.h"
#include "backend/cpu/ref_norm.h"
#include "backend/cpu/ref_attn.h"
#include "backend/cpu/ref_router.h"
#include "backend/cpu/ref_moe.h"
#include "backend/cpu/ref_loss.h"
#include "backend/cpu/ref_optim.h"
