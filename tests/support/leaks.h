/* SPDX-License-Identifier: Apache-2.0
 * AP_TEST: a Criterion test that also fails when it leaks. Criterion runs each test in a process of its own whose
 * exit code is not the leak checker's, and neither a failed expectation nor a crash in a .fini counts: so the check
 * stands at the end of the test itself, behind a call whose stack frame is gone. Without a leak checker in the build
 * it is a plain Test. Options of Test (.timeout and the like) may follow the name. */
#ifndef AP_TESTS_SUPPORT_LEAKS_H
#define AP_TESTS_SUPPORT_LEAKS_H

#include <criterion/criterion.h>

extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

#define AP_TEST(suite, name, ...)                                                                                      \
    static void __attribute__((noinline)) suite##_##name##_body(void);                                                 \
    Test(suite, name __VA_OPT__(, ) __VA_ARGS__)                                                                       \
    {                                                                                                                  \
        suite##_##name##_body();                                                                                       \
        if (__lsan_do_recoverable_leak_check != NULL)                                                                  \
            cr_expect_eq(__lsan_do_recoverable_leak_check(), 0, "memory leaked");                                      \
    }                                                                                                                  \
    static void suite##_##name##_body(void)

#endif
