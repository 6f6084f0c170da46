# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/model/libap_model.la
src_model_libap_model_la_SOURCES = \
	src/model/params.c src/model/params.h src/model/part.c src/model/part.h \
	src/model/model.c src/model/model.h src/model/model_internal.h \
	src/model/block.c src/model/mla.c src/model/ffn.c src/model/moe.c \
	src/model/late.c src/model/moe_exchange.c src/model/mtp.c src/model/loss.c src/model/plan.c src/model/rope_table.c src/model/tensor_parallel.c \
	src/model/weights.c
