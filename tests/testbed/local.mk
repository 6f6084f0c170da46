# SPDX-License-Identifier: Apache-2.0
# Sites as network namespaces with an emulated WAN between them: README.md.
check_PROGRAMS += tests/testbed/testbed tests/testbed/wanprobe
tests_testbed_testbed_SOURCES = \
  tests/testbed/bed.c tests/testbed/bed.h \
  tests/testbed/control.c tests/testbed/control.h \
  tests/testbed/emulator.c tests/testbed/emulator.h \
  tests/testbed/main.c \
  tests/testbed/site.c tests/testbed/site.h \
  tests/testbed/stats.c
tests_testbed_testbed_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_testbed_testbed_LDADD = src/wan/libap_wan.la src/plan/libap_plan.la src/base/libap_base.la -lm
tests_testbed_wanprobe_SOURCES = tests/testbed/wanprobe.c
EXTRA_DIST += tests/testbed/README.md tests/testbed/lib.sh tests/testbed/up tests/testbed/down tests/testbed/in \
	tests/testbed/ctl tests/testbed/mpirun tests/testbed/mpi_agent
dist_check_SCRIPTS += tests/testbed/accuracy_test.sh tests/testbed/bed_test.sh tests/testbed/mpi_test.sh tests/testbed/probe_test.sh
TESTS += tests/testbed/accuracy_test.sh tests/testbed/bed_test.sh tests/testbed/mpi_test.sh tests/testbed/probe_test.sh
if AP_CRITERION
check_PROGRAMS += tests/unit/test_link
TESTS += tests/unit/test_link
tests_unit_test_link_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests $(CRITERION_CFLAGS)
tests_unit_test_link_LDADD = src/wan/libap_wan.la src/plan/libap_plan.la src/base/libap_base.la $(CRITERION_LIBS) -lm
endif
