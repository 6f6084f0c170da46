# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/wan/libap_wan.la
src_wan_libap_wan_la_SOURCES = \
  src/wan/due_heap.c src/wan/due_heap.h \
  src/wan/link_command.c src/wan/link_command.h \
  src/wan/link_model.c src/wan/link_model.h \
  src/wan/link_net.c src/wan/link_net.h \
  src/wan/link_sim.c src/wan/link_sim.h
