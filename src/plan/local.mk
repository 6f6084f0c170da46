# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/plan/libap_plan.la
src_plan_libap_plan_la_SOURCES = \
  src/plan/arborescence.c src/plan/arborescence.h \
  src/plan/axes.c src/plan/axes.h \
  src/plan/cluster.c src/plan/cluster.h \
  src/plan/csv_reader.c src/plan/csv_reader.h \
  src/plan/job.c src/plan/job.h \
  src/plan/job_options.c \
  src/plan/job_resolve.c \
  src/plan/layout.c src/plan/layout.h \
  src/plan/layout_cost.c \
  src/plan/layout_model.c src/plan/layout_model.h \
  src/plan/layout_place.c \
  src/plan/layout_split.c \
  src/plan/layout_work.c \
  src/plan/model_check.c \
  src/plan/model_config.c src/plan/model_config.h \
  src/plan/model_count.c \
  src/plan/name_index.c src/plan/name_index.h \
  src/plan/packing_lp.c src/plan/packing_lp.h \
  src/plan/pipe_choice.c src/plan/pipe_choice.h \
  src/plan/pipe_schedule.c src/plan/pipe_schedule.h \
  src/plan/plan_file.c src/plan/plan_file.h \
  src/plan/plan_make.c \
  src/plan/plan_read.c \
  src/plan/plan_report.c src/plan/plan_report.h \
  src/plan/route_order.c src/plan/route_order.h \
  src/plan/simulate.c src/plan/simulate.h \
  src/plan/synth.c src/plan/synth.h \
  src/plan/topology.c src/plan/topology.h \
  src/plan/topology_csv.c \
  src/plan/topology_write.c \
  src/plan/wan_matrix.c src/plan/wan_matrix.h \
  src/plan/wan_ring.c \
  src/plan/wan_times.c src/plan/wan_times.h \
  src/plan/work.c src/plan/work.h \
  src/plan/job_internal.h
src_plan_libap_plan_la_CFLAGS = $(AM_CFLAGS) $(YYJSON_CFLAGS)
