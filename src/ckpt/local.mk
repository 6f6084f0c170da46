# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/ckpt/libap_ckpt.la
src_ckpt_libap_ckpt_la_SOURCES = \
	src/ckpt/codec.c src/ckpt/codec.h \
	src/ckpt/image.c src/ckpt/image.h \
	src/ckpt/image_check.c \
	src/ckpt/image_h5.c src/ckpt/image_h5.h \
	src/ckpt/manifest.c src/ckpt/manifest.h \
	src/ckpt/manifest_parse.c \
	src/ckpt/reader.c src/ckpt/reader.h \
	src/ckpt/statedir.c src/ckpt/statedir.h \
	src/ckpt/store.c src/ckpt/store.h src/ckpt/store_impl.h \
	src/ckpt/store_save.c
src_ckpt_libap_ckpt_la_CFLAGS = $(AM_CFLAGS) $(HDF5_CFLAGS) $(ZSTD_CFLAGS) $(YYJSON_CFLAGS)
src_ckpt_libap_ckpt_la_LIBADD = $(HDF5_LIBS) $(ZSTD_LIBS) $(YYJSON_LIBS)
