# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/prep/libap_prep.la
src_prep_libap_prep_la_SOURCES = \
  src/prep/buf.c src/prep/buf.h \
  src/prep/prep.c src/prep/prep.h src/prep/prep_state.h \
  src/prep/prep_boilerplate.c src/prep/prep_ingest.c src/prep/prep_report.c src/prep/prep_write.c \
  src/prep/roff.c src/prep/roff.h src/prep/roff_state.h \
  src/prep/roff_chars.c src/prep/roff_escape.c src/prep/roff_man.c src/prep/roff_mdoc.c src/prep/roff_table.c \
  src/prep/stream.c src/prep/stream.h \
  src/prep/walk.c src/prep/walk.h
src_prep_libap_prep_la_CFLAGS = $(AM_CFLAGS) $(YYJSON_CFLAGS) $(ZSTD_CFLAGS) $(ZLIB_CFLAGS)
src_prep_libap_prep_la_LIBADD = $(YYJSON_LIBS) $(ZSTD_LIBS) $(ZLIB_LIBS)
