# SPDX-License-Identifier: Apache-2.0
# How tests run (tests/support/run.sh says what each one gets), then one block per owner. A test program is a
# check_PROGRAMS and a TESTS entry; a script test is a dist_check_SCRIPTS and a TESTS entry and ends in .sh.
# Programs that need mpirun (tests/mpi) are check_PROGRAMS only: a Criterion or script test starts them.
TEST_EXTENSIONS = .sh
AP_RUN_TEST = $(SHELL) $(srcdir)/tests/support/run.sh $(srcdir) $(builddir)
LOG_COMPILER = $(AP_RUN_TEST)
SH_LOG_COMPILER = $(AP_RUN_TEST)
EXTRA_DIST += tests/support/run.sh tests/support/lsan.supp tests/support/check_all.sh tests/support/tidy.sh

# ---- lint
dist_check_SCRIPTS += contrib/lint/lint_test.sh
TESTS += contrib/lint/lint_test.sh
EXTRA_DIST += contrib/lint/lint.sh
