# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/base/libap_base.la
src_base_libap_base_la_SOURCES = \
  src/base/clock.c src/base/clock.h \
  src/base/bf16.h src/base/dtype.c src/base/dtype.h \
  src/base/hash.c src/base/hash.h \
  src/base/io.c src/base/io.h \
  src/base/json.c src/base/json.h \
  src/base/log.c src/base/log.h \
  src/base/memory.c src/base/memory.h \
  src/base/options.c src/base/options.h src/base/options_internal.h \
  src/base/options_parse.c src/base/options_print.c \
  src/base/paths.c src/base/paths.h \
  src/base/pool.c src/base/pool.h \
  src/base/rng.c src/base/rng.h \
  src/base/status.c src/base/status.h \
  src/base/strbuf.c src/base/strbuf.h \
  src/base/suggest.c src/base/suggest.h \
  src/base/trace.c src/base/trace.h \
  src/base/utf8.c src/base/utf8.h \
  src/base/yaml.c src/base/yaml.h
src_base_libap_base_la_CFLAGS = $(AM_CFLAGS) $(FYAML_CFLAGS) $(YYJSON_CFLAGS) $(XXHASH_CFLAGS)
src_base_libap_base_la_LIBADD = $(FYAML_LIBS) $(YYJSON_LIBS) $(XXHASH_LIBS) -lpthread -lm
