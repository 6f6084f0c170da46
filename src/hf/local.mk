# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/hf/libap_hf.la
src_hf_libap_hf_la_SOURCES = src/hf/safetensors.c src/hf/safetensors.h src/hf/npy.c src/hf/npy.h
src_hf_libap_hf_la_CPPFLAGS = $(AM_CPPFLAGS) $(YYJSON_CFLAGS)
