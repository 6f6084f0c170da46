/* SPDX-License-Identifier: Apache-2.0
 * Parity harness of the operations. A case describes the tensors of one call and how to call it; hx_check
 * runs it on the backend under test and on the oracle (reference backend in f64, inputs exactly equal) and
 * compares. Before each call outputs are poisoned with NaN (integers: -1) and every tensor is followed by a
 * guard. Checked: status, finite and complete outputs, difference to the oracle, inputs and the gaps between
 * strided rows untouched, guards intact, and bitwise equality of a second run. */
#ifndef AP_TESTS_OPS_HARNESS_H
#define AP_TESTS_OPS_HARNESS_H

#include "backend/backend.h"

enum hx_role { HX_IN, HX_OUT, HX_INOUT, HX_ABSENT };
#define HX_REAL (-1) /* type of a tensor: the dtype under test */
#define HX_STAT (-2) /* statistics, and gradients of parameters: f32 in bf16 calls, else the dtype under test */
#define HX_MAX  16   /* tensors of one call */

struct hx_tensor {
    const char *name;
    enum hx_role role;
    int type; /* HX_REAL or an ap_dtype */
    int ndim;
    int64_t shape[AP_MAX_DIMS];
    int64_t cols, stride, offset, alloc; /* elements: payload of a row, row to row, first row, whole buffer */
    double *values; /* alloc initial values, owned; f32-representable, rounded to bf16 before a bf16 call */
};

/* One (operation, backend, dtype, threads). */
struct hx {
    struct ap_backend *be, *oracle; /* borrowed */
    struct ap_backend *twin;        /* borrowed, or NULL: another number of threads that must give the same bits */
    ap_dtype type;
    const char *op;
    double tolerance; /* of |difference| / max |oracle| per tensor */
    struct hx_tensor t[HX_MAX];
    int count;
    const float *normals; /* borrowed from hx_normals */
    uint64_t counter;     /* next random counter */
    int every;            /* of the calls, run the first and each so-manyth after it */
    int asked;            /* calls that the case came with so far */
    /* results */
    int calls, failures, unsupported;
    double worst;
    const char *worst_tensor;
};

typedef ap_status hx_call(struct ap_backend *be, const ap_tensor *t, const void *params);

/* Random normal numbers that the tensors take, one after the other and round again: a prime many, so that no shape
 * meets its own beginning. To be freed; NULL where memory ends. */
float *hx_normals(void);
/* Forget the tensors of the previous call. */
void hx_begin(struct hx *h);
/* Add a dense tensor, values random normal (HX_REAL, HX_STAT, AP_F64) or zero (integers); returns its index. */
int hx_add(struct hx *h, const char *name, enum hx_role role, int type, int ndim, const int64_t *shape);
int hx_add1(struct hx *h, const char *name, enum hx_role role, int type, int64_t a);
int hx_add2(struct hx *h, const char *name, enum hx_role role, int type, int64_t a, int64_t b);
int hx_add3(struct hx *h, const char *name, enum hx_role role, int type, int64_t a, int64_t b, int64_t c);
/* Rows of `cols` payload elements, `stride` apart (0: cols), the first `offset` elements into the buffer. */
void hx_strided(struct hx *h, int i, int64_t cols, int64_t stride, int64_t offset);
/* Initial values of tensor i. */
double *hx_values(struct hx *h, int i);
/* Fresh random numbers: uniform in [0, 1), integer in [0, limit). */
double hx_uniform(struct hx *h);
int64_t hx_below(struct hx *h, int64_t limit);
/* Run and compare; `what` names the case in messages. */
void hx_check(struct hx *h, const char *what, hx_call *call, const void *params);
/* Record a failure found by a case itself. */
void hx_fail(struct hx *h, const char *what, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void hx_free(struct hx *h);
/* A call with a wrong descriptor or index must have come back with AP_ERR_BUG. */
void hx_refused(struct hx *h, const char *what, ap_status status);
/* Whether such calls are made in this run: once for a backend, since checks do not depend on threads. */
int hx_refusals(const struct hx *h);
/* Between the two, what the operations' checks say on stderr goes nowhere. kept: what hx_mute gave. */
int hx_mute(void);
void hx_unmute(int kept);

/* One case function per operation, named after it: a missing one does not link. */
#define HX_CASE(op) void hx_case_##op(struct hx *h);
AP_OPS(HX_CASE)
#undef HX_CASE

/* Finite differences and formula checks (grad_*.c): number of failures; a line per check on stdout. */
struct gx {
    struct ap_backend *be; /* reference, f64 */
    uint64_t counter;
    int checks, failures;
};
void gx_dense(struct gx *g);
void gx_attention(struct gx *g);
void gx_routing(struct gx *g);
void gx_balance(struct gx *g);
void gx_loss(struct gx *g);
void gx_adamw(struct gx *g);

/* f64 scratch of n normal numbers (scaled) or zeros, owned by the caller; exits the test when out of memory. */
double *gx_random(struct gx *g, int64_t n, double scale);
double *gx_zeros(int64_t n);
int64_t gx_below(struct gx *g, int64_t limit);
/* Central differences of loss(ctx) in every element of x [rows, cols, stride] against grad (dense or the
 * same stride). loss must be a pure function of the memory. */
void gx_compare(struct gx *g, const char *what, double (*loss)(void *ctx), void *ctx, double *x, const double *grad,
                int64_t n);
/* A scalar with a known value. */
void gx_expect(struct gx *g, const char *what, double got, double want, double tolerance);
void gx_status(struct gx *g, const char *what, ap_status status);
/* sum of a[i] b[i]. */
double gx_dot(const double *a, const double *b, int64_t n);

#endif
