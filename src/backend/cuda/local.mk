# SPDX-License-Identifier: Apache-2.0
# The CUDA backend: kernels as a static library with a C interface, and the plug-in antipode-cuda.so around it.
# Two or more objects at a time with make -j; nothing here needs a GPU.
AP_CUDA_CU = \
	src/backend/cuda/cu_adamw.cu src/backend/cuda/cu_attn.cu src/backend/cuda/cu_attn_bwd_mma.cu \
	src/backend/cuda/cu_attn_fwd_mma.cu src/backend/cuda/cu_attn_plain.cu src/backend/cuda/cu_backend.cu \
	src/backend/cuda/cu_balance.cu src/backend/cuda/cu_embed.cu src/backend/cuda/cu_gemm.cu \
	src/backend/cuda/cu_grouped.cu src/backend/cuda/cu_loss.cu src/backend/cuda/cu_moe.cu \
	src/backend/cuda/cu_norm.cu src/backend/cuda/cu_reduce.cu src/backend/cuda/cu_router.cu \
	src/backend/cuda/cu_tile_bf16.cu src/backend/cuda/cu_tile_f32.cu src/backend/cuda/cu_vector.cu
AP_CUDA_H = \
	src/backend/cuda/cu_attn.h src/backend/cuda/cu_attn_mma.h src/backend/cuda/cu_backend.h \
	src/backend/cuda/cu_mma.h src/backend/cuda/cu_platform.h src/backend/cuda/cu_tile.h src/backend/cuda/cu_topk.h
AP_CUDA_NEEDS = src/backend/backend.h src/backend/ops.h src/backend/tensor.h src/backend/ops_check.h \
	src/backend/cpu/pairwise.h
# What the plug-in needs of the program, compiled into it: it must load into any executable.
AP_CUDA_BASE = src/backend/ops_check.c src/base/clock.c src/base/dtype.c src/base/log.c src/base/status.c
EXTRA_DIST += $(AP_CUDA_CU) $(AP_CUDA_H)

if AP_HAVE_CUDA
AP_CUDA_OBJECTS = $(AP_CUDA_CU:.cu=.nv.o)
AP_CUDA_BASE_OBJECTS = $(AP_CUDA_BASE:.c=.nv.o)
$(AP_CUDA_OBJECTS): %.nv.o: %.cu $(AP_CUDA_H) $(AP_CUDA_NEEDS) config.h
	@$(MKDIR_P) $(@D)
	$(AM_V_GEN)$(NVCC) -std=c++17 -O3 -lineinfo -I. -I$(srcdir)/src $(AP_CUDA_GENCODE) \
		-Xcompiler -fPIC,-fvisibility=hidden $(NVCCFLAGS) -c $< -o $@
$(AP_CUDA_BASE_OBJECTS): %.nv.o: %.c config.h
	@$(MKDIR_P) $(@D)
	$(AM_V_CC)$(CC) -std=gnu17 -O2 -g -fPIC -fvisibility=hidden $(DEFS) $(AM_CPPFLAGS) -c $< -o $@
libantipode-cuda.a: $(AP_CUDA_OBJECTS)
	$(AM_V_AR)rm -f $@ && $(AR) rcs $@ $(AP_CUDA_OBJECTS)
antipode-cuda.so: libantipode-cuda.a $(AP_CUDA_BASE_OBJECTS)
	$(AM_V_CCLD)$(NVCC) -shared -cudart static -o $@ -Xlinker --whole-archive -Xlinker libantipode-cuda.a \
		-Xlinker --no-whole-archive $(AP_CUDA_BASE_OBJECTS) -L$(CUDA_LIBDIR) -lcublasLt \
		-Xlinker -rpath -Xlinker $(CUDA_LIBDIR) -Xlinker -z -Xlinker defs -lpthread -lm
plugindir = $(pkglibdir)
plugin_DATA = antipode-cuda.so
CLEANFILES += antipode-cuda.so libantipode-cuda.a $(AP_CUDA_OBJECTS) $(AP_CUDA_BASE_OBJECTS)
endif
