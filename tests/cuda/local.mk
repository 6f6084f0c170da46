# SPDX-License-Identifier: Apache-2.0
# The CUDA backend without a GPU: its kernels compiled as C++ against an emulator, as a plug-in of its own that
# is never installed; the operation harness and the golden numbers run on it.
AP_EMU_CPP = tests/cuda/emu/emu_lt.cpp tests/cuda/emu/emu_runtime.cpp tests/cuda/emu/emu_sched.cpp
AP_EMU_H = tests/support/emu_stream.h tests/cuda/emu/emu.h tests/cuda/emu/emu_lt.h tests/cuda/emu/emu_state.h
EXTRA_DIST += $(AP_EMU_CPP) $(AP_EMU_H) tests/cuda/emu_test.cpp

check_PROGRAMS += tests/cuda/golden tests/cuda/open_backend
tests_cuda_golden_SOURCES = tests/cuda/golden.c
tests_cuda_golden_CPPFLAGS = $(AM_CPPFLAGS) $(YYJSON_CFLAGS)
tests_cuda_golden_LDADD = src/train/libap_train.la src/hf/libap_hf.la src/model/libap_model.la \
	src/parallel/libap_parallel.la src/state/libap_state.la src/plan/libap_plan.la src/text/libap_text.la \
	src/backend/libap_backend.la src/monitor/libap_monitor.la src/base/libap_base.la $(YYJSON_LIBS) -lpthread -lm
tests_cuda_open_backend_SOURCES = tests/cuda/open_backend.c
tests_cuda_open_backend_LDADD = src/backend/libap_backend.la src/base/libap_base.la -lpthread -lm

if AP_HAVE_EMU
AP_EMU_CXXFLAGS = -std=gnu++17 -O2 -g -fPIC -fvisibility=hidden -U_FORTIFY_SOURCE -Wall -Wextra -Wno-unknown-pragmas \
	-Wno-missing-field-initializers -DAP_CUDA_EMU -I. -I$(srcdir)/src -I$(srcdir)/tests/cuda/emu
AP_EMU_OBJECTS = $(AP_CUDA_CU:.cu=.emu.o) $(AP_EMU_CPP:.cpp=.emu.o) $(AP_CUDA_BASE:.c=.emu.o)
$(AP_CUDA_CU:.cu=.emu.o): %.emu.o: %.cu $(AP_CUDA_H) $(AP_CUDA_NEEDS) $(AP_EMU_H) config.h
	@$(MKDIR_P) $(@D)
	$(AM_V_GEN)$(AP_CXX) -x c++ $(AP_EMU_CXXFLAGS) -c $< -o $@
$(AP_EMU_CPP:.cpp=.emu.o) tests/cuda/emu_test.emu.o: %.emu.o: %.cpp $(AP_CUDA_H) $(AP_CUDA_NEEDS) $(AP_EMU_H) config.h
	@$(MKDIR_P) $(@D)
	$(AM_V_GEN)$(AP_CXX) $(AP_EMU_CXXFLAGS) -c $< -o $@
$(AP_CUDA_BASE:.c=.emu.o): %.emu.o: %.c config.h
	@$(MKDIR_P) $(@D)
	$(AM_V_CC)$(CC) -O2 -g -fPIC -fvisibility=hidden $(DEFS) $(AM_CPPFLAGS) $(AP_CFLAGS) -c $< -o $@
tests/cuda/antipode-cuda-emu.so: $(AP_EMU_OBJECTS)
	$(AM_V_CCLD)$(AP_CXX) -shared $(AP_LDFLAGS) -o $@ $(AP_EMU_OBJECTS) -lpthread -lm
tests/cuda/emu_test: tests/cuda/emu_test.emu.o $(AP_EMU_OBJECTS)
	$(AM_V_CCLD)$(AP_CXX) $(AP_LDFLAGS) -o $@ tests/cuda/emu_test.emu.o $(AP_EMU_OBJECTS) -lpthread -lm
check_DATA += tests/cuda/antipode-cuda-emu.so tests/cuda/emu_test
CLEANFILES += $(check_DATA) $(AP_EMU_OBJECTS) tests/cuda/emu_test.emu.o
AP_CUDA_TESTS = tests/cuda/emu_rules_test.sh tests/cuda/plugin_test.sh tests/cuda/emu_ops_test.sh \
	tests/cuda/emu_golden_test.sh tests/cuda/emu_train_test.sh tests/cuda/bench_gpu_test.sh
TESTS += $(AP_CUDA_TESTS)
else
TESTS += tests/cuda/no_compiler_test.sh
endif
dist_check_SCRIPTS += tests/cuda/emu_rules_test.sh tests/cuda/plugin_test.sh tests/cuda/emu_ops_test.sh \
	tests/cuda/emu_golden_test.sh tests/cuda/emu_train_test.sh tests/cuda/bench_gpu_test.sh tests/cuda/no_compiler_test.sh
