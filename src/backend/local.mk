# SPDX-License-Identifier: Apache-2.0
# Backends. The vector kernels choose their instruction set per file by pragmas and at run time by CPU, so
# that one binary runs everywhere; the user's CFLAGS are enough (-O2 or more).
noinst_LTLIBRARIES += src/backend/libap_backend.la
src_backend_libap_backend_la_SOURCES = \
	src/backend/arena.c src/backend/arena.h \
	src/backend/backend.c src/backend/backend.h \
	src/backend/adamw_segments.h src/backend/ops.h src/backend/ops_check.c src/backend/ops_check.h \
	src/backend/cost.c src/backend/cost.h src/backend/record.c src/backend/record.h \
	src/backend/operands.c src/backend/operands.h \
	src/backend/plugin.c src/backend/plugin.h \
	src/backend/tensor.h \
	src/backend/cpu/cpu.c src/backend/cpu/cpu.h \
	src/backend/cpu/cpu_attn.c \
	src/backend/cpu/cpu_dnnl.c \
	src/backend/cpu/cpu_gemm.c \
	src/backend/cpu/packed.c src/backend/cpu/packed.h \
	src/backend/cpu/replay.c src/backend/cpu/replay.h \
	src/backend/cpu/host.c src/backend/cpu/host.h \
	src/backend/cpu/k_all.h \
	src/backend/cpu/k_avx2.c \
	src/backend/cpu/k_avx512.c \
	src/backend/cpu/k_gemm.c src/backend/cpu/k_gemm.h \
	src/backend/cpu/k_generic.c \
	src/backend/cpu/k_isa.c src/backend/cpu/k_isa.h \
	src/backend/cpu/k_loss.h \
	src/backend/cpu/k_moe.h \
	src/backend/cpu/k_norm.h \
	src/backend/cpu/k_router.h \
	src/backend/cpu/k_state.h \
	src/backend/cpu/k_vec.h \
	src/backend/cpu/kernels.h \
	src/backend/cpu/pairwise.h \
	src/backend/cpu/ref_all.h \
	src/backend/cpu/ref_attn.h \
	src/backend/cpu/ref_bf16.c \
	src/backend/cpu/ref_f32.c \
	src/backend/cpu/ref_f64.c \
	src/backend/cpu/ref_gemm.h \
	src/backend/cpu/ref_loss.h \
	src/backend/cpu/ref_moe.h \
	src/backend/cpu/ref_norm.h \
	src/backend/cpu/ref_optim.h \
	src/backend/cpu/ref_router.h \
	src/backend/cpu/reference.c src/backend/cpu/reference.h
src_backend_libap_backend_la_LIBADD = $(DNNL_LIBS) -lm
