/* SPDX-License-Identifier: Apache-2.0
 * The SwiGLU MLP of dense layers and shared experts: out += Wd (silu(Wg x) * Wu x), Wg and Wu one [2I, h]
 * operand. Also the linear maps all layers use. */
#include "config.h"

#include "model/model_internal.h"

ap_status ap_model_copy(struct ap_model *m, ap_tensor dst, ap_tensor src)
{
    size_t bytes = (size_t)ap_tensor_count(&src) * ap_dtype_size(src.dtype);
    return planning(m) ? AP_OK : m->be->vt->copy(m->be->stream, dst.data, src.data, bytes);
}

ap_status ap_model_zero(struct ap_model *m, ap_tensor t)
{
    size_t bytes = (size_t)ap_tensor_count(&t) * ap_dtype_size(t.dtype);
    return planning(m) ? AP_OK : m->be->vt->fill_zero(m->be->stream, t.data, bytes);
}

ap_status ap_linear_fwd(struct ap_model *m, ap_tensor x, int64_t off, int64_t out, int64_t in, ap_tensor y,
                        int accumulate)
{
    OP(m, gemm, .a = x, .b = w2(m, off, out, in), .c = y, .trans_b = 1, .accumulate = accumulate);
    return AP_OK;
}

ap_status ap_linear_bwd(struct ap_model *m, ap_tensor dy, ap_tensor x, int64_t off, ap_tensor dx, int accumulate)
{
    int64_t out = dy.shape[1], in = x.shape[1];
    AP_TRY(ap_weight_gradient(m, &(struct late_work){.kind = LATE_LINEAR, .off = off, .dy = dy, .x = x}));
    OP(m, gemm, .a = dy, .b = w2(m, off, out, in), .c = dx, .accumulate = accumulate);
    return AP_OK;
}

void ap_mlp_plan(struct ap_model *m, struct mlp_saved *s, int64_t rows, int64_t width)
{
    s->gate_up = new2(m, m->dt, rows, 2 * width);
    s->act = new2(m, m->dt, rows, width);
}

ap_status ap_mlp_forward(struct ap_model *m, struct mlp_saved *s, ap_tensor x, int64_t gate_up, int64_t down,
                         ap_tensor out)
{
    int64_t h = x.shape[1], width = s->act.shape[1];
    AP_TRY(ap_linear_fwd(m, x, gate_up, 2 * width, h, s->gate_up, 0));
    OP(m, swiglu_fwd, .gate_up = s->gate_up, .y = s->act);
    return ap_linear_fwd(m, s->act, down, h, width, out, 1);
}

ap_status ap_mlp_backward(struct ap_model *m, struct mlp_saved *s, ap_tensor dout, ap_tensor x, int64_t gate_up,
                          int64_t down, ap_tensor dx)
{
    size_t mark = ap_arena_mark(&m->arena);
    int64_t rows = s->act.shape[0], width = s->act.shape[1];
    ap_tensor dact = new2(m, m->dt, rows, width), dgu = dy2(m, m->dt, rows, 2 * width);
    AP_TRY(ap_linear_bwd(m, dout, s->act, down, dact, 0));
    OP(m, swiglu_bwd, .dy = dact, .gate_up = s->gate_up, .dgate_up = dgu);
    AP_TRY(ap_linear_bwd(m, dgu, x, gate_up, dx, 0));
    ap_arena_reset(&m->arena, mark);
    return AP_OK;
}
