# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/cli/libap_cli.la
src_cli_libap_cli_la_SOURCES = \
  src/cli/cli.h \
  src/cli/cli_args.c \
  src/cli/cli_help.c \
  src/cli/verbs.h \
  src/cli/verbs_spmd.c

# The command line: no MPI.
bin_PROGRAMS += antipode
antipode_SOURCES = \
  src/cli/capture.c src/cli/capture.h \
  src/cli/ckpt_tools.c src/cli/ckpt_tools.h \
  src/cli/cli_man.c \
  src/cli/main.c \
  src/cli/plan_layout.c src/cli/plan_layout.h \
  src/cli/verb_ckpt.c \
  src/cli/verb_doctor.c \
  src/cli/verb_generate.c \
  src/cli/verb_help.c \
  src/cli/verb_plan.c \
  src/cli/verb_prep.c \
  src/cli/verb_routes.c \
  src/cli/verb_run.c \
  src/cli/verb_schema.c
antipode_CFLAGS = $(AM_CFLAGS) $(HDF5_CFLAGS) $(YYJSON_CFLAGS)
antipode_LDADD = \
  src/cli/libap_cli.la src/launch/libap_launch.la src/prep/libap_prep.la src/ckpt/libap_ckpt.la src/hf/libap_hf.la \
  src/parallel/libap_parallel.la src/state/libap_state.la src/plan/libap_plan.la src/text/libap_text.la \
  src/monitor/libap_monitor.la src/base/libap_base.la $(YYJSON_LIBS) -lm

# The SPMD program, with MPI: train, eval, selftest, bench, probe.
pkglibexec_PROGRAMS += antipode-train
antipode_train_SOURCES = \
  src/cli/train_main.c \
  src/cli/verb_bench.c \
  src/cli/verb_eval.c \
  src/cli/verb_probe.c \
  src/cli/verb_selftest.c \
  src/cli/verb_train.c
antipode_train_LDADD = \
  src/cli/libap_cli.la src/probe/libap_probe.la src/wan/libap_wan.la src/train/libap_train.la src/ckpt/libap_ckpt.la src/hf/libap_hf.la src/model/libap_model.la \
  src/parallel/libap_parallel_mpi.la src/parallel/libap_parallel.la src/state/libap_state.la src/plan/libap_plan.la \
  src/text/libap_text.la src/backend/libap_backend.la src/monitor/libap_monitor.la src/base/libap_base.la $(MPI_LIBS) $(HWLOC_LIBS)
