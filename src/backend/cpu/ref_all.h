/* SPDX-License-Identifier: Apache-2.0
 * Template: every reference operation for one REAL type. Included once by ref_f32.c and once by ref_f64.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/pairwise.h"
#include "backend/cpu/reference.h"

#include "backend/cpu/ref_gemm.h"
#include "backend/cpu/ref_norm.h"
#include "backend/cpu/ref_attn.h"
#include "backend/cpu/ref_router.h"
#include "backend/cpu/ref_moe.h"
#include "backend/cpu/ref_loss.h"
#include "backend/cpu/ref_optim.h"
