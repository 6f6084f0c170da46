# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/cli/libap_cli.la
src_cli_libap_cli_la_SOURCES = \
  src/cli/cli.h \
  src/cli/cli_args.c \
  src/cli/cli_help.c \
  src/cli/verbs.h \
  src/cli/verbs_spmd.c

# The SPMD program, with MPI: train, eval, selftest, bench.
EXTRA_PROGRAMS += antipode-train
antipode_train_SOURCES = \
  src/cli/train_main.c \
  src/cli/verb_bench.c \
  src/cli/verb_eval.c \
  src/cli/verb_selftest.c \
  src/cli/verb_train.c
antipode_train_LDADD = \
  src/cli/libap_cli.la src/train/libap_train.la src/ckpt/libap_ckpt.la src/hf/libap_hf.la src/model/libap_model.la \
  src/parallel/libap_parallel_mpi.la src/parallel/libap_parallel.la src/state/libap_state.la src/plan/libap_plan.la \
  src/text/libap_text.la src/backend/libap_backend.la src/monitor/libap_monitor.la src/base/libap_base.la $(MPI_LIBS)
