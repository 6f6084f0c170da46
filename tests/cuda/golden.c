/* SPDX-License-Identifier: Apache-2.0
 * Golden numbers in f32 and bf16 on a named backend. Usage: golden BACKEND FOLDER... Exit code 0: all within limits. */
#include "config.h"

#include <stdio.h>

#include "train/golden.h"

static int check(const char *dir, struct ap_backend *be, ap_dtype dtype)
{
    struct ap_golden_report r;
    struct ap_error err = {0};
    if (ap_golden_check(dir, be, dtype, &r, &err) != AP_OK) {
        printf("not ok %s in %s: %s\n", dir, ap_dtype_name(dtype), err.text);
        return 1;
    }
    printf("%s %s on %s in %s\n", r.passed ? "ok" : "not ok", dir, be->vt->name, ap_dtype_name(dtype));
    for (int q = 0; q < AP_GOLDEN_COUNT; q++)
        printf("    %-24s %.3g of %.3g%s\n", ap_golden_quantity_name(q), r.worst[q], r.limit[q],
               r.worst[q] <= r.limit[q] ? "" : "  <-- too large");
    return !r.passed;
}

int main(int argc, char **argv)
{
    struct ap_backend *be = NULL;
    struct ap_error err = {0};
    int failures = 0;
    if (argc < 3) {
        fprintf(stderr, "usage: golden BACKEND FOLDER...\n");
        return 2;
    }
    if (ap_backend_open(argv[1], 0, NULL, &be, &err) != AP_OK) {
        printf("not ok %s: %s\n", argv[1], err.text);
        return 1;
    }
    for (int i = 2; i < argc; i++)
        failures += check(argv[i], be, AP_F32) + check(argv[i], be, AP_BF16);
    ap_backend_close(be);
    return failures != 0;
}
