# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/text/libap_text.la
src_text_libap_text_la_SOURCES = \
  src/text/bigram.c src/text/bigram.h \
  src/text/megatron.c src/text/megatron.h src/text/megatron_write.c \
  src/text/tokenizer.c src/text/tokenizer.h
src_text_libap_text_la_LIBADD = -lm
