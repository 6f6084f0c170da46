# SPDX-License-Identifier: Apache-2.0
# How tests run (tests/support/run.sh says what each one gets), then one block per owner. A test program is a
# check_PROGRAMS and a TESTS entry; a script test is a dist_check_SCRIPTS and a TESTS entry and ends in .sh.
# Programs that need mpirun (tests/mpi) are check_PROGRAMS only: a Criterion or script test starts them.
TEST_EXTENSIONS = .sh
AP_RUN_TEST = $(SHELL) $(srcdir)/tests/support/run.sh $(srcdir) $(builddir)
LOG_COMPILER = $(AP_RUN_TEST)
SH_LOG_COMPILER = $(AP_RUN_TEST)
EXTRA_DIST += tests/support/run.sh tests/support/lsan.supp tests/support/check_all.sh tests/support/tidy.sh tests/support/fuzz_one.sh tests/support/slurm.sh

# ---- lint
dist_check_SCRIPTS += contrib/lint/lint_test.sh
TESTS += contrib/lint/lint_test.sh
EXTRA_DIST += contrib/lint/lint.sh

# ---- quickstart
dist_check_SCRIPTS += tests/cli/quickstart_test.sh
TESTS += tests/cli/quickstart_test.sh

# ---- batch systems
AP_BATCH_TESTS = tests/cli/slurm_test.sh tests/cli/pbs_test.sh
dist_check_SCRIPTS += $(AP_BATCH_TESTS)
TESTS += $(AP_BATCH_TESTS)
EXTRA_DIST += tests/support/tiny_job.sh

# ---- parallel, train, monitor
EXTRA_DIST += tests/support/vranks.h tests/support/comm_checks.h tests/support/pipe_checks.h tests/support/train_lib.sh
AP_TRAIN_SH_TESTS = tests/cli/determinism_test.sh tests/cli/mesh_test.sh tests/cli/bf16_test.sh tests/cli/kill_resume_test.sh tests/cli/train_errors_test.sh \
	tests/cli/mpi_comm_test.sh tests/cli/alloc_test.sh tests/cli/trace_test.sh
dist_check_SCRIPTS += $(AP_TRAIN_SH_TESTS)
TESTS += $(AP_TRAIN_SH_TESTS)
# Preloaded by alloc_test.sh. Libtool makes static libraries only here.
check_DATA += tests/support/alloc_count.so
tests/support/alloc_count.so: tests/support/alloc_count.c
	$(AM_V_CCLD)$(MKDIR_P) tests/support && $(CC) -fPIC -shared -O2 -Wall -Wextra -o $@ $(srcdir)/tests/support/alloc_count.c -ldl
CLEANFILES += tests/support/alloc_count.so
EXTRA_DIST += tests/support/alloc_count.c
check_PROGRAMS += tests/mpi/mpi_comm
tests_mpi_mpi_comm_CPPFLAGS = $(AM_CPPFLAGS) $(MPI_CFLAGS)
tests_mpi_mpi_comm_LDADD = src/parallel/libap_parallel_mpi.la src/parallel/libap_parallel.la src/plan/libap_plan.la \
	src/backend/libap_backend.la src/base/libap_base.la $(MPI_LIBS) -lpthread -lm
if AP_CRITERION
AP_TRAIN_TESTS = tests/unit/test_comm tests/unit/test_zero tests/unit/test_schedule tests/unit/test_optimizer \
	tests/unit/test_monitor tests/unit/test_trace tests/unit/test_trainer tests/unit/test_train_parts tests/unit/test_stage \
	tests/unit/test_speed
check_PROGRAMS += $(AP_TRAIN_TESTS)
TESTS += $(AP_TRAIN_TESTS)
AP_TRAIN_TEST_LDADD = src/train/libap_train.la src/ckpt/libap_ckpt.la src/model/libap_model.la \
	src/parallel/libap_parallel.la src/state/libap_state.la src/plan/libap_plan.la src/text/libap_text.la \
	src/backend/libap_backend.la src/monitor/libap_monitor.la src/base/libap_base.la $(CRITERION_LIBS) -lpthread -lm
tests_unit_test_comm_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_comm_LDADD = $(AP_TRAIN_TEST_LDADD)
tests_unit_test_speed_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_speed_LDADD = $(AP_TRAIN_TEST_LDADD)
tests_unit_test_stage_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_stage_LDADD = $(AP_TRAIN_TEST_LDADD)
tests_unit_test_zero_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_zero_LDADD = $(AP_TRAIN_TEST_LDADD)
tests_unit_test_schedule_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_schedule_LDADD = $(AP_TRAIN_TEST_LDADD)
tests_unit_test_optimizer_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_optimizer_LDADD = $(AP_TRAIN_TEST_LDADD)
tests_unit_test_monitor_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_monitor_LDADD = $(AP_TRAIN_TEST_LDADD)
tests_unit_test_trace_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_trace_LDADD = $(AP_TRAIN_TEST_LDADD) $(YYJSON_LIBS)
tests_unit_test_train_parts_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_train_parts_LDADD = $(AP_TRAIN_TEST_LDADD)
# The stand-in model comes first, so that the library's own is not linked.
tests_unit_test_trainer_SOURCES = tests/unit/test_trainer.c tests/unit/fake_model.c tests/unit/fake_model.h
tests_unit_test_trainer_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS) -DAP_TEST_INPUTS='"$(abs_srcdir)/inputs"'
tests_unit_test_trainer_LDADD = $(AP_TRAIN_TEST_LDADD)
endif

# ---- communicators on devices: without a GPU, on a device and with a library of the tests
EXTRA_DIST += tests/support/comm_conformance.h tests/support/emu_stream.h tests/support/fake_device.h tests/support/fake_nccl.c
if AP_HAVE_NCCL
AP_FAKE_NCCL = tests/support/fake_nccl.so tests/support/fake_nccl_old.so
check_DATA += $(AP_FAKE_NCCL)
CLEANFILES += $(AP_FAKE_NCCL)
AP_FAKE_NCCL_CC = $(MKDIR_P) tests/support && $(CC) -std=gnu17 -fPIC -shared -O2 -g -Wall -Wextra
tests/support/fake_nccl.so: tests/support/fake_nccl.c tests/support/emu_stream.h
	$(AM_V_CCLD)$(AP_FAKE_NCCL_CC) -o $@ $(srcdir)/tests/support/fake_nccl.c
tests/support/fake_nccl_old.so: tests/support/fake_nccl.c tests/support/emu_stream.h
	$(AM_V_CCLD)$(AP_FAKE_NCCL_CC) -DFAKE_NCCL_OLD -o $@ $(srcdir)/tests/support/fake_nccl.c
if AP_CRITERION
check_PROGRAMS += tests/unit/test_comm_nccl
TESTS += tests/unit/test_comm_nccl
tests_unit_test_comm_nccl_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS) \
	-DAP_TEST_FAKE_NCCL='"$(abs_builddir)/tests/support/fake_nccl.so"' \
	-DAP_TEST_FAKE_NCCL_OLD='"$(abs_builddir)/tests/support/fake_nccl_old.so"'
tests_unit_test_comm_nccl_LDADD = src/parallel/libap_parallel.la src/plan/libap_plan.la src/backend/libap_backend.la \
	src/base/libap_base.la $(CRITERION_LIBS) -lpthread -lm
endif
endif

# ---- text, loader, prep
EXTRA_DIST += tests/unit/text_fixture.h
dist_check_SCRIPTS += tests/cli/prep_test.sh
TESTS += tests/cli/prep_test.sh
if AP_CRITERION
AP_DATA_TESTS = tests/unit/test_megatron tests/unit/test_data tests/unit/test_roff tests/unit/test_prep
check_PROGRAMS += $(AP_DATA_TESTS)
TESTS += $(AP_DATA_TESTS)
tests_unit_test_megatron_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests $(CRITERION_CFLAGS)
tests_unit_test_megatron_LDADD = src/text/libap_text.la src/base/libap_base.la $(CRITERION_LIBS) -lm
tests_unit_test_data_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests $(CRITERION_CFLAGS)
tests_unit_test_data_LDADD = src/train/libap_train.la src/text/libap_text.la src/base/libap_base.la $(CRITERION_LIBS) -lm
tests_unit_test_roff_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests $(CRITERION_CFLAGS)
tests_unit_test_roff_LDADD = src/prep/libap_prep.la src/text/libap_text.la src/base/libap_base.la $(CRITERION_LIBS) -lm
tests_unit_test_prep_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests $(CRITERION_CFLAGS) $(ZSTD_CFLAGS) $(ZLIB_CFLAGS)
tests_unit_test_prep_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=pwrite
tests_unit_test_prep_LDADD = src/prep/libap_prep.la src/text/libap_text.la src/base/libap_base.la $(CRITERION_LIBS) $(ZSTD_LIBS) $(ZLIB_LIBS) -lm
endif

# ---- model, hf, golden
dist_check_SCRIPTS += tests/cli/golden_test.sh
TESTS += tests/cli/golden_test.sh
EXTRA_DIST += tests/golden
if AP_CRITERION
AP_MODEL_TESTS = tests/unit/test_model tests/unit/test_hf
check_PROGRAMS += $(AP_MODEL_TESTS)
TESTS += $(AP_MODEL_TESTS)
AP_MODEL_TEST_LDADD = src/hf/libap_hf.la src/model/libap_model.la src/parallel/libap_parallel.la src/state/libap_state.la src/plan/libap_plan.la \
	src/backend/libap_backend.la src/base/libap_base.la $(YYJSON_LIBS) $(XXHASH_LIBS) $(CRITERION_LIBS) -lpthread -lm
tests_unit_test_model_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_model_LDADD = $(AP_MODEL_TEST_LDADD)
tests_unit_test_hf_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_hf_LDADD = $(AP_MODEL_TEST_LDADD)
endif

# ---- backend: every operation on every backend, finite differences
check_PROGRAMS += tests/ops/ops
TESTS += tests/ops/ops
tests_ops_ops_SOURCES = tests/ops/cases_dense.c tests/ops/cases_moe.c tests/ops/cases_vocab.c tests/ops/grad.c \
	tests/ops/grad_loss.c tests/ops/grad_moe.c tests/ops/harness.c tests/ops/harness.h tests/ops/main.c
tests_ops_ops_LDADD = src/backend/libap_backend.la src/base/libap_base.la -lpthread -lm

# ---- launch
if AP_CRITERION
check_PROGRAMS += tests/unit/test_launch
TESTS += tests/unit/test_launch
tests_unit_test_launch_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_launch_LDADD = src/launch/libap_launch.la src/base/libap_base.la $(CRITERION_LIBS) -lm
endif

# ---- fuzz: fuzz_NAME.c and corpus/NAME. Without --enable-fuzzer each target replays its corpus in make check; with it
# libFuzzer's main takes replay.c's place (`make fuzzers` builds them, tests/support/check_all.sh runs them).
EXTRA_DIST += tests/fuzz/corpus tests/fuzz/lsan.supp tests/fuzz/memory_file.h
AP_FUZZ_TARGETS = tests/fuzz/fuzz_yaml tests/fuzz/fuzz_idx tests/fuzz/fuzz_manifest tests/fuzz/fuzz_safetensors tests/fuzz/fuzz_model_config \
	tests/fuzz/fuzz_roff tests/fuzz/fuzz_job tests/fuzz/fuzz_link tests/fuzz/fuzz_wan tests/fuzz/fuzz_topology \
	tests/fuzz/fuzz_plan
check_PROGRAMS += $(AP_FUZZ_TARGETS)
if AP_FUZZER
AP_FUZZ_MAIN =
AP_FUZZ_ENGINE = -fsanitize=fuzzer
else
AP_FUZZ_MAIN = tests/fuzz/replay.c
AP_FUZZ_ENGINE =
TESTS += $(AP_FUZZ_TARGETS)
endif
.PHONY: fuzzers
fuzzers: $(AP_FUZZ_TARGETS)
tests_fuzz_fuzz_yaml_SOURCES = tests/fuzz/fuzz_yaml.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_yaml_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_yaml_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_yaml_LDADD = src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_idx_SOURCES = tests/fuzz/fuzz_idx.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_idx_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_idx_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_idx_LDADD = src/text/libap_text.la src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_manifest_SOURCES = tests/fuzz/fuzz_manifest.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_manifest_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_manifest_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_manifest_LDADD = src/ckpt/libap_ckpt.la src/parallel/libap_parallel.la src/state/libap_state.la src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_safetensors_SOURCES = tests/fuzz/fuzz_safetensors.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_safetensors_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_safetensors_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_safetensors_LDADD = src/hf/libap_hf.la src/state/libap_state.la src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_model_config_SOURCES = tests/fuzz/fuzz_model_config.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_model_config_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_model_config_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_model_config_LDADD = src/plan/libap_plan.la src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_roff_SOURCES = tests/fuzz/fuzz_roff.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_roff_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_roff_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_roff_LDADD = src/prep/libap_prep.la src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_job_SOURCES = tests/fuzz/fuzz_job.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_job_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_job_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_job_LDADD = src/plan/libap_plan.la src/text/libap_text.la src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_link_SOURCES = tests/fuzz/fuzz_link.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_link_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_link_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_link_LDADD = src/wan/libap_wan.la src/plan/libap_plan.la src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_wan_SOURCES = tests/fuzz/fuzz_wan.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_wan_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_wan_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_wan_LDADD = src/plan/libap_plan.la src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_topology_SOURCES = tests/fuzz/fuzz_topology.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_topology_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_topology_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_topology_LDADD = src/plan/libap_plan.la src/base/libap_base.la $(AP_FUZZ_LIBS)
tests_fuzz_fuzz_plan_SOURCES = tests/fuzz/fuzz_plan.c $(AP_FUZZ_MAIN)
tests_fuzz_fuzz_plan_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests
tests_fuzz_fuzz_plan_LDFLAGS = $(AM_LDFLAGS) $(AP_FUZZ_ENGINE)
tests_fuzz_fuzz_plan_LDADD = src/plan/libap_plan.la src/text/libap_text.la src/base/libap_base.la $(AP_FUZZ_LIBS)
AP_FUZZ_LIBS = $(HDF5_LIBS) $(ZSTD_LIBS) $(XXHASH_LIBS) $(YYJSON_LIBS) $(FYAML_LIBS) -lpthread -lm

# ---- state, ckpt
EXTRA_DIST += tests/support/ckpt_fixture.h tests/cli/ckpt_h5py.py
if AP_CRITERION
AP_CKPT_TESTS = tests/unit/test_named tests/unit/test_ckpt tests/unit/test_ckpt_damage tests/unit/test_ckpt_crash
check_PROGRAMS += $(AP_CKPT_TESTS)
TESTS += $(AP_CKPT_TESTS)
AP_CKPT_TEST_LDADD = src/ckpt/libap_ckpt.la src/parallel/libap_parallel.la src/state/libap_state.la \
	src/base/libap_base.la $(CRITERION_LIBS) -lpthread -lm
tests_unit_test_named_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_named_LDADD = src/state/libap_state.la src/base/libap_base.la $(CRITERION_LIBS) -lm
tests_unit_test_ckpt_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_ckpt_LDADD = $(AP_CKPT_TEST_LDADD)
tests_unit_test_ckpt_damage_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_ckpt_damage_LDADD = $(AP_CKPT_TEST_LDADD)
# Our own system calls go through the test, which counts them and dies or fails at each.
tests_unit_test_ckpt_crash_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_unit_test_ckpt_crash_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=open,--wrap=mkdir,--wrap=pwrite,--wrap=fsync,--wrap=close \
	-Wl,--wrap=rename,--wrap=renameat2,--wrap=unlink,--wrap=unlinkat,--wrap=symlink,--wrap=posix_fallocate,--wrap=ftruncate
tests_unit_test_ckpt_crash_LDADD = $(AP_CKPT_TEST_LDADD)
check_PROGRAMS += tests/support/ckpt_make
tests_support_ckpt_make_CPPFLAGS = $(AM_CPPFLAGS) $(CRITERION_CFLAGS)
tests_support_ckpt_make_LDADD = $(AP_CKPT_TEST_LDADD)
dist_check_SCRIPTS += tests/cli/ckpt_test.sh tests/cli/ckpt_h5py_test.sh
TESTS += tests/cli/ckpt_test.sh tests/cli/ckpt_h5py_test.sh
endif

# ---- base, plan, cli
EXTRA_DIST += tests/support/fewer.h tests/support/leaks.h tests/support/machines.h tests/support/expect.sh
if AP_CRITERION
AP_BASE_TESTS = tests/unit/test_base tests/unit/test_io_pool tests/unit/test_options tests/unit/test_model_config tests/unit/test_job \
	tests/unit/test_synth tests/unit/test_wan_matrix tests/unit/test_topology tests/unit/test_cluster tests/unit/test_layout tests/unit/test_layout_work \
	tests/unit/test_pipe_schedule tests/unit/test_plan_file
check_PROGRAMS += $(AP_BASE_TESTS)
TESTS += $(AP_BASE_TESTS)
AP_BASE_TEST_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests $(CRITERION_CFLAGS)
AP_BASE_TEST_LDADD = src/plan/libap_plan.la src/text/libap_text.la src/base/libap_base.la $(YYJSON_LIBS) $(CRITERION_LIBS) -lpthread -lm
tests_unit_test_base_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_base_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_io_pool_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_io_pool_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_options_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_options_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_model_config_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_model_config_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_job_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_job_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_synth_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS) -DAP_TEST_INPUTS='"$(abs_srcdir)/inputs"'
tests_unit_test_synth_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_wan_matrix_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_wan_matrix_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_topology_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_topology_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_cluster_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_cluster_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_layout_work_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_layout_work_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_layout_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_layout_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_pipe_schedule_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_pipe_schedule_LDADD = $(AP_BASE_TEST_LDADD)
tests_unit_test_plan_file_CPPFLAGS = $(AP_BASE_TEST_CPPFLAGS)
tests_unit_test_plan_file_LDADD = $(AP_BASE_TEST_LDADD)
endif
AP_CLI_TESTS = tests/cli/verbs_test.sh tests/cli/job_test.sh tests/cli/plan_test.sh tests/cli/docs_test.sh tests/cli/routes_test.sh \
	tests/cli/routes_lp_test.sh
EXTRA_DIST += tests/support/routes_lp.py
dist_check_SCRIPTS += $(AP_CLI_TESTS)
TESTS += $(AP_CLI_TESTS)

# ---- probe
dist_check_SCRIPTS += tests/cli/probe_test.sh
TESTS += tests/cli/probe_test.sh
if AP_CRITERION
AP_PROBE_TESTS = tests/unit/test_link_sim tests/unit/test_probe
check_PROGRAMS += $(AP_PROBE_TESTS)
TESTS += $(AP_PROBE_TESTS)
AP_PROBE_TEST_LDADD = src/probe/libap_probe.la src/wan/libap_wan.la src/parallel/libap_parallel.la src/plan/libap_plan.la \
	src/text/libap_text.la src/base/libap_base.la $(HWLOC_LIBS) $(YYJSON_LIBS) $(CRITERION_LIBS) -lpthread -lm
tests_unit_test_link_sim_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests $(CRITERION_CFLAGS)
tests_unit_test_link_sim_LDADD = $(AP_PROBE_TEST_LDADD)
tests_unit_test_probe_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests $(CRITERION_CFLAGS) -DAP_TEST_INPUTS='"$(abs_srcdir)/inputs"'
tests_unit_test_probe_LDADD = $(AP_PROBE_TEST_LDADD)
endif
