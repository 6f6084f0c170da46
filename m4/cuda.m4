dnl SPDX-License-Identifier: Apache-2.0
dnl The CUDA backend plug-in (antipode-cuda.so) and the C++ compiler that tests its kernels without a GPU.
dnl --with-cuda[=PREFIX] asks for it, --without-cuda leaves it out, neither builds it when nvcc works.

dnl AP_CUDA_TRY: sets ap_cuda_works to yes when $NVCC compiles and links against cuBLASLt, else to the reason.
AC_DEFUN([AP_CUDA_TRY], [
  ap_cuda_works="nvcc was not found"
  AS_IF([test -n "$NVCC"], [
    CUDA_PREFIX=`readlink -f "$NVCC" 2>/dev/null || echo "$NVCC"`
    CUDA_PREFIX=`dirname "$CUDA_PREFIX"`
    CUDA_PREFIX=`dirname "$CUDA_PREFIX"`
    CUDA_LIBDIR=
    for ap_dir in "$CUDA_PREFIX/lib64" "$CUDA_PREFIX/lib" "$CUDA_PREFIX"/targets/*/lib; do
      AS_IF([test -z "$CUDA_LIBDIR" && test -e "$ap_dir/libcublasLt.so"], [CUDA_LIBDIR=$ap_dir])
    done
    cat > conftest.cu << 'AP_EOF'
#include <cublasLt.h>
#include <cuda_bf16.h>
__global__ void kernel(__nv_bfloat16 *x) { x[[0]] = __float2bfloat16_rn(1.0f); }
int main() { kernel<<<1, 1>>>(nullptr); cublasLtHandle_t h; return cublasLtCreate(&h) != CUBLAS_STATUS_SUCCESS; }
AP_EOF
    ap_cuda_works=yes
    ap_cuda_command="$NVCC $NVCCFLAGS -std=c++17 -cudart static $AP_CUDA_GENCODE conftest.cu -o conftest$EXEEXT -L$CUDA_LIBDIR -lcublasLt"
    AS_IF([test -z "$CUDA_LIBDIR"], [ap_cuda_works="libcublasLt.so was not found under $CUDA_PREFIX"],
      [AC_TRY_COMMAND([$ap_cuda_command >&AS_MESSAGE_LOG_FD 2>&1])], [],
      [ap_cuda_works="$NVCC does not compile and link a small program (is g++ there? see config.log)"])
    rm -f conftest.cu conftest$EXEEXT
  ])
])

AC_DEFUN([AP_CUDA], [
  AC_ARG_WITH([cuda], [AS_HELP_STRING([--with-cuda@<:@=PREFIX@:>@],
    [CUDA backend plug-in; PREFIX holds bin/nvcc (default: built when nvcc works)])], [], [with_cuda=auto])
  AC_ARG_VAR([NVCC], [CUDA compiler])
  AC_ARG_VAR([NVCCFLAGS], [flags for it])
  AC_ARG_VAR([CUDA_ARCHS], [GPU architectures to compile for (default: 80 90a; PTX of the first is added)])
  AC_SUBST([NVCCFLAGS])
  ap_have_cuda=no
  CUDA_ARCHS=${CUDA_ARCHS:-80 90a}
  AP_CUDA_GENCODE=
  for ap_arch in $CUDA_ARCHS; do
    AS_IF([test -z "$AP_CUDA_GENCODE"],
      [AP_CUDA_GENCODE="-gencode=arch=compute_$ap_arch,code=sm_$ap_arch -gencode=arch=compute_$ap_arch,code=compute_$ap_arch"],
      [AP_CUDA_GENCODE="$AP_CUDA_GENCODE -gencode=arch=compute_$ap_arch,code=sm_$ap_arch"])
  done
  AS_IF([test "$with_cuda" != no], [
    AS_CASE([$with_cuda], [auto|yes], [ap_cuda_path=$PATH:/usr/local/cuda/bin], [ap_cuda_path=$with_cuda/bin])
    AC_PATH_PROG([NVCC], [nvcc], [], [$ap_cuda_path])
    AC_MSG_CHECKING([whether the CUDA toolkit works])
    AP_CUDA_TRY
    AC_MSG_RESULT([$ap_cuda_works])
    AS_IF([test "$ap_cuda_works" = yes], [ap_have_cuda=yes],
      [test "$with_cuda" != auto], [AC_MSG_ERROR([--with-cuda: $ap_cuda_works])])
  ])
  AC_SUBST([AP_CUDA_GENCODE])
  AC_SUBST([CUDA_LIBDIR])
  AM_CONDITIONAL([AP_HAVE_CUDA], [test $ap_have_cuda = yes])
  dnl The kernels are tested as plain C++, by an emulator with guards of its own that switches stacks: not in sanitized
  dnl builds, where that takes many times as long.
  AS_CASE([$CC], [*clang*], [AC_CHECK_PROGS([AP_CXX], [clang++])], [AC_CHECK_PROGS([AP_CXX], [g++ c++])])
  AM_CONDITIONAL([AP_HAVE_EMU], [test -n "$AP_CXX" && test "$enable_sanitizer" = no])
])
