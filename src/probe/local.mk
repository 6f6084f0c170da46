# SPDX-License-Identifier: Apache-2.0
# Measuring the machine; probe_sim is the simulated one that tests measure.
noinst_LTLIBRARIES += src/probe/libap_probe.la
src_probe_libap_probe_la_SOURCES = \
  src/probe/probe.c src/probe/probe.h src/probe/probe_impl.h src/probe/probe_net.h \
  src/probe/probe_comm.c src/probe/probe_comm.h \
  src/probe/probe_fit.c \
  src/probe/heat_map.c src/probe/heat_map.h \
  src/probe/host_facts.c src/probe/host_facts.h \
  src/probe/probe_load.c \
  src/probe/probe_pairs.c \
  src/probe/probe_pings.c \
  src/probe/probe_print.c \
  src/probe/probe_report.c src/probe/probe_report.h \
  src/probe/probe_sim.c src/probe/probe_sim.h \
  src/probe/probe_stream.c \
  src/probe/probe_wan.c
src_probe_libap_probe_la_CFLAGS = $(AM_CFLAGS) $(HWLOC_CFLAGS)
