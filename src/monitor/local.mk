# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/monitor/libap_monitor.la
src_monitor_libap_monitor_la_SOURCES = \
	src/monitor/decisions.c src/monitor/decisions.h \
	src/monitor/events.c src/monitor/events.h \
	src/monitor/jsonl.c src/monitor/jsonl.h \
	src/monitor/metrics.c src/monitor/metrics.h
src_monitor_libap_monitor_la_CFLAGS = $(AM_CFLAGS) $(YYJSON_CFLAGS)
src_monitor_libap_monitor_la_LIBADD = $(YYJSON_LIBS)
