# SPDX-License-Identifier: Apache-2.0
# Backends. The reference is built with the user's flags; kernels of the cpu backend add -O3 for their own
# convenience library, because their loops are written to be vectorised.
noinst_LTLIBRARIES += src/backend/libap_backend.la
src_backend_libap_backend_la_SOURCES = \
	src/backend/arena.c src/backend/arena.h \
	src/backend/backend.c src/backend/backend.h \
	src/backend/ops.h src/backend/ops_check.c src/backend/ops_check.h \
	src/backend/tensor.h \
	src/backend/cost.c src/backend/cost.h src/backend/record.c src/backend/record.h \
	src/backend/cpu/cpu.c \
	src/backend/cpu/host.c src/backend/cpu/host.h \
	src/backend/cpu/pairwise.h \
	src/backend/cpu/ref_all.h \
	src/backend/cpu/ref_attn.h \
	src/backend/cpu/ref_f32.c \
	src/backend/cpu/ref_f64.c \
	src/backend/cpu/ref_gemm.h \
	src/backend/cpu/ref_loss.h \
	src/backend/cpu/ref_moe.h \
	src/backend/cpu/ref_norm.h \
	src/backend/cpu/ref_optim.h \
	src/backend/cpu/ref_router.h \
	src/backend/cpu/reference.c src/backend/cpu/reference.h
src_backend_libap_backend_la_LIBADD = -lm
