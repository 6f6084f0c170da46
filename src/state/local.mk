# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/state/libap_state.la
src_state_libap_state_la_SOURCES = src/state/named.c src/state/named.h src/state/tiling.c src/state/tiling.h
