/* SPDX-License-Identifier: Apache-2.0
 * Every operation of AP_OPS on every backend of this build against the oracle, then finite differences in
 * f64. Needs no MPI. Usage: ops [--backend NAME] [--op NAME] [--every N]. Exit code 0: all passed. --every N runs
 * each Nth call of an operation's cases, the first included, where time is short. A backend that is not compiled in
 * is looked for as a plug-in; without --backend the plug-in cuda runs where it finds a device. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "../support/fewer.h"
#include "harness.h"

/* Tolerances relative to the largest element of the tensor, for f32 (f64 uses 1e-8 of it) and for bf16. f32:
 * sums of up to a few hundred terms lose a few units in 6e-8 each; exp and divisions a few more. bf16: one
 * rounding of the result is up to 3.9e-3; attention also rounds its probabilities. Data movement and integer results
 * must be exact; operations whose tensors stay f32 in bf16 calls keep their f32 tolerance. */
/* clang-format off */
#define TOLERANCE_LIST(X)                                                                                              \
    X(gemm, 3e-6, 4e-3) X(grouped_gemm, 3e-6, 4e-3) X(grouped_wgrad, 3e-6, 3e-6) X(embed_fwd, 0, 0)                    \
    X(embed_bwd, 5e-7, 5e-7) X(rmsnorm_fwd, 1e-6, 4e-3) X(rmsnorm_bwd, 2e-6, 4e-3) X(rope, 3e-7, 4e-3)                 \
    X(mla_attn_fwd, 3e-6, 8e-3) X(mla_attn_bwd, 2e-5, 1.5e-2) X(swiglu_fwd, 1e-6, 4e-3)                                \
    X(swiglu_bwd, 1e-6, 4e-3) X(router_fwd, 1e-6, 1e-6) X(router_bwd, 3e-6, 3e-6) X(seq_balance, 2e-6, 2e-6)           \
    X(moe_plan, 0, 0) X(moe_dispatch_fwd, 0, 0) X(moe_dispatch_bwd, 1e-6, 4e-3) X(moe_combine_fwd, 1e-6, 4e-3)         \
    X(moe_combine_bwd, 2e-6, 4e-3) X(split_cols, 2e-7, 4e-3) X(cross_entropy, 2e-6, 4e-3)                              \
    X(cross_entropy_part, 2e-6, 2e-6) X(cross_entropy_join, 2e-6, 4e-3)                                                \
    X(sum_tokens, 1e-12, 1e-12) X(add, 2e-7, 4e-3) X(scale, 2e-7, 4e-3) X(cast, 0, 0) X(sumsq, 1e-12, 1e-12)           \
    X(adamw, 1e-6, 4e-3)
/* clang-format on */

#define ENUM(op, tol, bf16) TOLERANCE_ID_##op,
enum { TOLERANCE_LIST(ENUM) TOLERANCE_COUNT };
#undef ENUM
_Static_assert((int)TOLERANCE_COUNT == (int)AP_OP_COUNT, "every operation needs a tolerance");

struct op_case {
    const char *name;
    void (*run)(struct hx *h);
    double tolerance, bf16;
};

#define TABLE(op, tol, bf16) {#op, hx_case_##op, tol, bf16},
static const struct op_case cases[] = {TOLERANCE_LIST(TABLE)};
#undef TABLE

/* What the command line chose. */
struct choice {
    const char *backend, *op; /* NULL: all */
    int every;
    const float *normals;
};

static int run_op(const struct op_case *c, const struct choice *choice, struct ap_backend *be,
                  struct ap_backend *oracle, struct ap_backend *twin, ap_dtype type)
{
    double tolerance = type == AP_BF16 ? c->bf16 : c->tolerance;
    struct hx h = {.be = be,
                   .oracle = oracle,
                   .twin = twin,
                   .type = type,
                   .op = c->name,
                   .tolerance = tolerance,
                   .normals = choice->normals,
                   .every = choice->every};
    c->run(&h);
    hx_free(&h);
    if (h.unsupported && !be->vt->is_host && type != AP_F64)
        hx_fail(&h, "all", "a device backend must have this operation");
    if (h.calls == 0 && h.unsupported == 0)
        hx_fail(&h, "all", "the case ran nothing");
    printf("%s %-18s %-10s %-4s threads %d  calls %3d  worst %.2e (%s), allowed %.1e%s\n", h.failures ? "not ok" : "ok",
           c->name, be->vt->name, ap_dtype_name(type), be->pool ? ap_pool_threads(be->pool) : 0, h.calls, h.worst,
           h.worst_tensor ? h.worst_tensor : "-", type == AP_F64 ? tolerance * 1e-8 : tolerance,
           h.unsupported ? "  [unsupported here]" : "");
    return h.failures;
}

/* max_isa: AP_MAX_ISA for this run, NULL: as the CPU is. With max_isa and several threads the bits must be
 * those of one thread: the own kernels promise it (with oneDNN they need not be). */
static int run_backend(const char *name, const struct choice *choice, int threads, const char *max_isa)
{
    struct ap_pool *pool = NULL;
    struct ap_backend *be = NULL, *oracle = NULL, *twin = NULL;
    struct ap_error err = {0};
    int failures = 0;
    if (max_isa)
        setenv("AP_MAX_ISA", max_isa, 1);
    else
        unsetenv("AP_MAX_ISA");
    printf("# %s, instruction set up to %s\n", name, max_isa ? max_isa : "this CPU's");
    if ((threads > 0 && ap_pool_create(threads, &pool, &err) != AP_OK) ||
        ap_backend_open(name, 0, pool, &be, &err) != AP_OK ||
        ap_backend_open("reference", 0, NULL, &oracle, &err) != AP_OK ||
        (max_isa && threads > 1 && ap_backend_open(name, 0, NULL, &twin, &err) != AP_OK)) {
        printf("not ok %s: %s\n", name, err.text);
        failures = 1;
    }
    for (size_t i = 0; be && oracle && i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (choice->op && strcmp(choice->op, cases[i].name) != 0)
            continue;
        failures += run_op(&cases[i], choice, be, oracle, twin, AP_F32);
        failures += run_op(&cases[i], choice, be, oracle, twin, AP_BF16);
        failures += threads > 1 || max_isa ? 0 : run_op(&cases[i], choice, be, oracle, twin, AP_F64);
    }
    ap_backend_close(twin);
    ap_backend_close(oracle);
    ap_backend_close(be);
    ap_pool_destroy(pool);
    return failures;
}

static int run_gradients(void)
{
    struct gx g = {0};
    struct ap_error err = {0};
    if (ap_backend_open("reference", 0, NULL, &g.be, &err) != AP_OK) {
        printf("not ok reference: %s\n", err.text);
        return 1;
    }
    gx_dense(&g);
    gx_attention(&g);
    gx_routing(&g);
    gx_balance(&g);
    gx_loss(&g);
    gx_adamw(&g);
    ap_backend_close(g.be);
    return g.failures;
}

/* Order and names of the table must be those of AP_OPS. */
static int check_table(void)
{
    int failures = 0;
    for (int i = 0; i < AP_OP_COUNT; i++) {
        if (strcmp(cases[i].name, ap_op_name((enum ap_op_id)i)) != 0) {
            printf("not ok: operation %s has no case in its place\n", ap_op_name((enum ap_op_id)i));
            failures++;
        }
    }
    return failures;
}

/* What a user can get wrong when a backend is opened. */
static int check_names(void)
{
    struct ap_backend *be = NULL;
    struct ap_error err = {0};
    int failures = 0;
    if (ap_backend_open("cuda9", 0, NULL, &be, &err) != AP_ERR_UNSUPPORTED || be || !strstr(err.text, "cuda9") ||
        !strstr(err.hint, "reference")) {
        printf("not ok: an unknown backend must be refused by name\n");
        failures++;
    }
    setenv("AP_MAX_ISA", "sse9", 1);
    if (ap_backend_open("cpu", 0, NULL, &be, &err) != AP_ERR_INPUT || be || !strstr(err.text, "sse9")) {
        printf("not ok: an unknown AP_MAX_ISA must be refused\n");
        failures++;
    }
    unsetenv("AP_MAX_ISA");
    return failures;
}

/* A plug-in. Plug-ins of ours have every operation in f32 and bf16. must: not being able to open it is a failure. */
static int run_plugin(const char *name, const struct choice *choice, int must)
{
    struct ap_backend *be = NULL;
    struct ap_error err = {0};
    ap_status status = ap_backend_open(name, 0, NULL, &be, &err);
    ap_backend_close(be);
    if (status == AP_OK)
        return run_backend(name, choice, 0, NULL);
    printf("%s%s: %s\n", must ? "not ok " : "# skipped ", name, err.text);
    return must || status != AP_ERR_ENV;
}

static int parse(int argc, char **argv, struct choice *choice)
{
    /* A second build of the same tree has the same kernels. */
    *choice = (struct choice){.every = fewer("calls of each operation, 1 in", getenv("AP_TEST_QUICK") ? 4 : 1, 16)};
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--backend") == 0)
            choice->backend = argv[i + 1];
        else if (i + 1 < argc && strcmp(argv[i], "--op") == 0)
            choice->op = argv[i + 1];
        else if (i + 1 < argc && strcmp(argv[i], "--every") == 0 && strtol(argv[i + 1], NULL, 10) >= 1)
            choice->every = (int)strtol(argv[i + 1], NULL, 10);
        else
            return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    static const char *const isas[] = {"avx2", "generic"};
    struct choice choice;
    if (!parse(argc, argv, &choice)) {
        fprintf(stderr, "usage: ops [--backend NAME] [--op NAME] [--every N]\n");
        return 2;
    }
    float *normals = hx_normals();
    if (!normals) {
        fprintf(stderr, "out of memory\n");
        return 1;
    }
    choice.normals = normals;
    const char *backend = choice.backend;
    int failures = check_table() + check_names(), matched = 0;
    for (const char *const *name = ap_backend_names(); *name; name++) {
        if (backend && strcmp(backend, *name) != 0)
            continue;
        matched++;
        failures += run_backend(*name, &choice, 0, NULL);
        if (strcmp(*name, "reference") == 0)
            continue;
        failures += run_backend(*name, &choice, 3, NULL);
        for (size_t i = 0; strcmp(*name, "cpu") == 0 && i < sizeof(isas) / sizeof(isas[0]); i++)
            failures += run_backend(*name, &choice, i == 0 ? 3 : 0, isas[i]);
    }
    if (!matched || !backend)
        failures += run_plugin(backend ? backend : "cuda", &choice, backend != NULL);
    if (!choice.op && !backend)
        failures += run_gradients();
    free(normals);
    printf("%s: %d failures\n", failures ? "FAILED" : "passed", failures);
    return failures ? 1 : 0;
}
